//! The generated rules of kube-proxy: whether they are what a real one left in a kernel, and
//! whether a kernel takes them and gives them back.
//!
//! Captures of real kube-proxies are no part of the repository; without them, or without root,
//! the tests that need them are skipped with that reason.

mod agreement;
mod cluster;
mod iptables;
mod loading;
mod nftables;

use std::fmt::{Debug, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Completion, Trial};
use unmasq_lab::Namespace;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let captures: PathBuf = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/captures").into();
    let kernel = Namespace::available().err();
    if kernel.is_none() {
        Namespace::sweep();
    }
    let mut trials = Vec::new();
    for capture in &agreement::CAPTURES {
        let folder = captures.join(capture.name);
        let obstacle = (!folder.is_dir()).then(|| {
            let name = capture.name;
            format!("real systems' data are not beside the repository: shared/captures/{name}")
        });
        trials.push(trial(capture.name.into(), obstacle, move || capture.check(&folder)));
    }
    for (name, test) in loading::tests() {
        trials.push(trial(name, kernel.clone(), test));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(
    name: String,
    obstacle: Option<String>,
    test: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match obstacle {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => match test() {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => Err(format!("{error:#}").into()),
        },
    })
}

/// Fails with what differs, not with all.
fn same<K: Ord + Debug, V: PartialEq + Debug>(
    generated: &std::collections::BTreeMap<K, V>,
    expected: &std::collections::BTreeMap<K, V>,
) -> Result<()> {
    let mut differences = String::new();
    for (key, value) in expected {
        match generated.get(key) {
            None => writeln!(differences, "{key:?} isn't generated: {value:#?}")?,
            Some(found) if found != value => {
                writeln!(differences, "{key:?} is {found:#?}, not {value:#?}")?;
            }
            Some(_) => {}
        }
    }
    for (key, value) in generated.iter().filter(|(key, _)| !expected.contains_key(key)) {
        writeln!(differences, "{key:?} is generated: {value:#?}")?;
    }
    ensure!(differences.is_empty(), "{differences}");
    Ok(())
}

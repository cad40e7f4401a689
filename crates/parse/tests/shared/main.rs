//! What real systems wrote: captures of kube-proxies, and a corpus of listings from many places.
//!
//! Neither is part of the repository. A test whose data are not here is skipped with that reason,
//! not passed.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that can't read its data has failed"
)]

mod capture;
mod folder;
mod ipset;
mod iptables;
mod nft;

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Completion, Trial};

/// A name, the folder of the shared data that it needs, and what it runs; it fails by a panic.
type Case = (&'static str, &'static str, fn(&Path));

fn main() {
    let arguments = Arguments::from_args();
    let modules = [capture::TESTS, ipset::TESTS, iptables::TESTS, nft::TESTS];
    let trials = modules.into_iter().flatten().copied().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial((name, needs, check): Case) -> Trial {
    Trial::ignorable_test(name, move || {
        let shared: PathBuf = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").into();
        let path = shared.join(needs);
        if !path.is_dir() {
            let reason =
                format!("real systems' data are not beside the repository: shared/{needs}");
            return Ok(Completion::ignored_with(reason));
        }
        check(&path);
        Ok(Completion::Completed)
    })
}

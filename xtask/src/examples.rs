//! `cargo xtask examples`: captures scenarios of the lab, as they are found, into examples/.
//!
//! The same as `unmasq lab capture`, for all of them. MAC addresses, times and counters differ from
//! run to run; what the scenarios determine is checked by the lab's tests.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use unmasq_lab::session::Session;
use unmasq_lab::{Namespace, privilege};

use crate::workspace;

/// Arguments of `cargo xtask examples`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only examples whose names have this in them
    filter: Option<String>,
}

/// Folders, and the scenarios that they are of.
const EXAMPLES: [(&str, &str); 4] = [
    ("canal-rke", "canal-unused-pool"),
    ("flannel-host", "flannel-host-masquerade"),
    ("kube-proxy-cluster-policy", "service-cluster-policy"),
    ("kube-router-dualstack", "kube-router-egress"),
];

/// Captures and writes.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Err(reason) = privilege::isolate().and_then(|()| Namespace::available()) {
        bail!("can't run: {reason}");
    }
    for (name, scenario) in EXAMPLES {
        if args.filter.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
            continue;
        }
        let text = Session::text(scenario)?;
        let files = Session::up(&text, &|_| {}).and_then(|session| session.capture());
        let files = files.with_context(|| scenario.to_owned())?;
        let folder = workspace::root().join("examples").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        unmasq_host::capture::write(&folder, &files)
            .with_context(|| format!("write {}", folder.display()))?;
        eprintln!("{name}: {scenario}, {} files", files.len());
    }
    Ok(ExitCode::SUCCESS)
}

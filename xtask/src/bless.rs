//! `cargo xtask bless`: golden answers, made what the command says now.
//!
//! Runs the golden tests so that they write what they would compare, and shows what changed in
//! `tests/golden` and README.md. With `--captures` the states are loaded into a kernel and saved
//! from it first, which needs root. Whether a new answer is right is for a person to read.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Arguments of `cargo xtask bless`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Save the states from this kernel first; needs root, iptables, nftables, ipset and iproute2
    #[arg(long)]
    captures: bool,
}

/// What is rewritten.
const PLACES: [&str; 2] = ["tests/golden", "README.md"];

/// Rewrites, and shows what changed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.captures {
        let folder = workspace::root().join(PLACES[0]);
        let mut cargo = workspace::cargo();
        cargo.args(["test", "--quiet", "--package=unmasq-lab", "--test=providers"]);
        succeed(cargo.env("UNMASQ_SAVE_CAPTURES", folder))?;
    }
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--quiet", "--package=unmasq", "--test=golden"]);
    succeed(cargo.env("UNMASQ_BLESS", "1"))?;
    for git in [&["status", "--short"][..], &["--no-pager", "diff", "--stat"][..]] {
        let mut command = Command::new("git");
        command.args(git).arg("--").args(PLACES).current_dir(workspace::root());
        succeed(&mut command)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} can't be run"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

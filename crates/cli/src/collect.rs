//! `unmasq collect`.

use std::path::PathBuf;

use unmasq_host::collect::{Collected, Options, Step, collect};
use unmasq_parse::capture::Status;

use crate::output::{self, Exit};
use crate::source;

/// What `--help` says at its end.
pub(crate) const EXAMPLES: &str = "\
Examples:
  sudo unmasq collect -o node1.tar.gz
  sudo unmasq collect -o capture/

Nothing is changed on the node. What can't be collected is told and left out; answers that
would need it are unknown.";

/// Collects the state of the node that the command runs on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to write: a directory, or .tar, .tar.gz, .tar.zst by the name's end
    #[arg(short, long, value_name = "FILE|DIR")]
    output: PathBuf,
    /// The node's name in the capture. Left out: the host's name
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// List the connections too, which may be many: `unmasq fix` then counts those that keep an old
    /// translation
    #[arg(long)]
    connections: bool,
}

/// Collects and writes.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if !source::is_root() {
        output::warn("note: without root most of the node's state can't be read");
    }
    let options =
        Options { node: args.node.clone(), connections: args.connections, ..Options::default() };
    unmasq_host::capture::check(&args.output)?;
    let collected = collect(&options)?;
    for step in &collected.report {
        output::warn(&line(step));
    }
    // In one go at the end: interrupted before, nothing is left behind.
    unmasq_host::capture::write(&args.output, &collected.files)?;
    output::warn(&summary(&collected, args));
    Ok(Exit::Done)
}

fn line(step: &Step) -> String {
    let status = match step.status {
        Status::Collected => "collected",
        Status::Failed => "FAILED   ",
        Status::Absent => "absent   ",
    };
    let detail = step.detail.trim();
    let separator = if detail.is_empty() { "" } else { ": " };
    output::clean(&format!("{status}  {} ({}){separator}{detail}", step.file, step.command))
}

fn summary(collected: &Collected, args: &Args) -> String {
    let failed = collected
        .report
        .iter()
        .filter(|step| match step.status {
            Status::Failed => true,
            Status::Collected | Status::Absent => false,
        })
        .count();
    let missing = match failed {
        0 => "nothing failed".to_owned(),
        failed => format!("{failed} failed: answers that need them will be unknown"),
    };
    format!("wrote node {} to {}; {missing}", collected.node, args.output.display())
}

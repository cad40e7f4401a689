//! The command line.

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::output::Exit;
use crate::{audit, collect, diff, expectations, explain, fix, lab, output, trace};

/// Shows the real source address of traffic in a Kubernetes cluster: what happens to a packet on
/// a node, and which rule rewrites its source.
#[derive(Debug, Parser)]
#[command(name = "unmasq", version, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What happens to a packet, and which rule rewrites its source
    #[command(after_help = trace::EXAMPLES, after_long_help = trace::MORE)]
    Trace(trace::Args),
    /// Where a cluster loses sources, whose rule takes them, by which setting, and what mends it
    #[command(after_help = audit::EXAMPLES, after_long_help = audit::MORE)]
    Audit(audit::Args),
    /// What mends a finding, tried out on a model first: what it changes, and whether it may be done
    #[command(after_help = fix::EXAMPLES, after_long_help = fix::MORE)]
    Fix(fix::Args),
    /// What differs between two captures of a cluster: rules, settings, objects, and answers
    #[command(after_help = diff::EXAMPLES)]
    Diff(diff::Args),
    /// Collect this node's network state into a capture; changes nothing on the node
    #[command(after_help = collect::EXAMPLES)]
    Collect(collect::Args),
    /// A cluster on this machine, in network namespaces: to see a source lost, and kept again
    #[command(after_help = lab::EXAMPLES)]
    Lab(lab::Args),
    /// What must hold of sources in a cluster: a proposal of expect.yaml
    #[command(after_help = expectations::EXAMPLES)]
    Expect(expectations::Args),
    /// What a finding means and how to mend it, or what a component does to sources
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Args),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Args {
    /// Does what was asked.
    pub(crate) fn run(&self) -> anyhow::Result<Exit> {
        match &self.command {
            Command::Trace(args) => trace::run(args),
            Command::Audit(args) => audit::run(args),
            Command::Fix(args) => fix::run(args),
            Command::Diff(args) => diff::run(args),
            Command::Collect(args) => collect::run(args),
            Command::Lab(args) => lab::run(args),
            Command::Expect(args) => expectations::run(args),
            Command::Explain(args) => explain::run(args),
            Command::Completions { shell } => completions(*shell),
        }
    }
}

/// Tells what is wrong with the arguments, or the help or version that they ask for. A command that
/// `lab exec` was to run may end with 2 itself, so wrong usage has another code there.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    // Nobody can be told if that fails.
    let _ = error.print();
    let exec = ["lab", "exec"].into_iter().eq(std::env::args_os().skip(1).take(2));
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if exec => ExitCode::from(lab::EXEC_FAILED),
        _ => ExitCode::from(2),
    }
}

fn completions(shell: Shell) -> anyhow::Result<Exit> {
    // Into memory first: clap_complete panics where its writer fails.
    let mut script: Vec<u8> = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "unmasq", &mut script);
    output::write(&mut io::stdout(), &script)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}

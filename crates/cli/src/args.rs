//! The command line.

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::output::Exit;
use crate::{
    audit, collect, diff, echo, expectations, explain, fix, lab, output, probe, trace, verify,
};

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
    /// Connections that prove it: what is predicted of each, beside what is observed
    #[command(after_help = verify::EXAMPLES, after_long_help = verify::MORE)]
    Verify(verify::Args),
    /// Answer with the source that is seen, for `unmasq probe` on other hosts
    #[command(after_help = echo::EXAMPLES)]
    Echo(echo::Args),
    /// Make connections, and print the source that `unmasq echo` sees on the other side
    #[command(after_help = probe::EXAMPLES)]
    Probe(probe::Args),
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
            Command::Verify(args) => verify::run(args),
            Command::Echo(args) => echo::run(args),
            Command::Probe(args) => probe::run(args),
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
    fn command_lines_to_be_run_by_hand_are_understood() {
        use unmasq_probe::by_hand::{Call, Place, by_hand};
        use unmasq_probe::observation::Ask;
        use unmasq_probe::proxy_protocol::Version;
        let place = Place { host: "n2".into(), listen: "[fd00::1]:80".parse().unwrap() };
        let call = |protocol, header| Call {
            from: "n1".into(),
            source: "fd00::9".parse().ok(),
            protocol,
            header,
            to: "[fd00::7]:443".parse().unwrap(),
            at: vec![place.clone()],
            count: 2,
            predicted: "source preserved".into(),
        };
        let calls = [
            call(Ask::Tcp, Some(Version::V1)),
            call(Ask::Http, Some(Version::V2)),
            call(Ask::Udp, None),
        ];
        let text = by_hand(&calls, std::time::Duration::from_secs(900));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines.len(), 4, "{text}");
        for line in lines {
            let command = line.split_once(" >").map_or(line, |(command, _)| command);
            let words = command.split(' ').map(|word| word.trim_matches('\''));
            assert!(Args::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}

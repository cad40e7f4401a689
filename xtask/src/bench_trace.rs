//! `cargo xtask bench-trace`: how long the whole `unmasq trace` command takes on a generated node.
//!
//! Generates a node, builds the release binary and traces the last Service several times.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::generate_node::{self, Size};
use crate::{measure, workspace};

/// Arguments of `cargo xtask bench-trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    size: Size,
    /// How often the command is run
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Passed on to `unmasq trace`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    trace_args: Vec<String>,
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let folder = workspace::root().join("target/bench-trace").join(args.size.to_string());
    println!("writing {}", folder.display());
    let written = generate_node::write(&args.size, &folder)?;
    println!("{} rules", written.rules);

    let mut command = Command::new(measure::build()?);
    command
        .arg("trace")
        .arg(&folder)
        .args(["--from", generate_node::CLIENT, "--to", &written.last_service])
        .args(&args.trace_args);
    let runs = measure::runs(args.runs, &[0], &mut command)?;
    let (from, to) = (generate_node::CLIENT, &written.last_service);
    println!("unmasq trace … --from {from} --to {to}: {runs}");
    Ok(ExitCode::SUCCESS)
}

//! The `unmasq` command: arguments, wiring, exit codes.
//!
//! It holds no knowledge of rules or packets: it reads a host (`unmasq-host`, `unmasq-parse`) or a
//! cluster (`unmasq-cluster`), asks the evaluator (`unmasq-eval`) or for an audit (`unmasq-audit`),
//! and prints the answer (`unmasq-report`). Real connections are `unmasq-probe`'s and the lab's.

use std::process::ExitCode;

use clap::Parser as _;

mod args;
mod audit;
mod collect;
mod diff;
mod echo;
mod endpoint;
mod expect;
mod expectations;
mod explain;
mod fix;
mod lab;
mod output;
mod path;
mod probe;
mod source;
mod trace;
mod verify;

fn main() -> ExitCode {
    match args::Args::try_parse() {
        Ok(args) => output::finish(args.run()),
        Err(error) => args::refuse(&error),
    }
}

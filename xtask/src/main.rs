//! Development commands: `cargo xtask COMMAND`. One module for each.

mod bench_audit;
mod bench_trace;
mod bless;
mod deps;
mod differential;
mod examples;
mod generate_cluster;
mod generate_node;
mod measure;
mod mutants;
mod scenarios;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development commands of Unmasq")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check crates, their dependencies, sources and licences against ARCHITECTURE.md and deny.toml
    Deps,
    /// Install what kernel tests need, if allowed; run all tests; list those that were skipped
    Test(test::Args),
    /// Rewrite the golden answers and the README's example with what the command says now
    Bless(bless::Args),
    /// Write a capture of a node with the rules that kube-proxy programs for many Services
    GenerateNode(generate_node::Args),
    /// Write a capture of a whole cluster, each node with its own rules for the same Services
    GenerateCluster(generate_cluster::Args),
    /// Measure the whole `unmasq trace` command on a generated node
    BenchTrace(bench_trace::Args),
    /// Measure the whole `unmasq audit` command on generated clusters
    BenchAudit(bench_audit::Args),
    /// Compare the evaluator with the kernel: random rulesets, real packets
    Differential(differential::Args),
    /// Run the lab's scenarios and write docs/scenarios
    Scenarios(scenarios::Args),
    /// Capture scenarios of the lab into examples/
    Examples(examples::Args),
    /// Make deliberate errors in the evaluator, and see whether that comparison notices (as root)
    Mutants(mutants::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Deps => deps::run(),
        Command::Test(args) => test::run(&args),
        Command::Bless(args) => bless::run(&args),
        Command::GenerateNode(args) => generate_node::run(&args),
        Command::GenerateCluster(args) => generate_cluster::run(&args),
        Command::BenchTrace(args) => bench_trace::run(&args),
        Command::BenchAudit(args) => bench_audit::run(&args),
        Command::Differential(args) => differential::run(&args),
        Command::Scenarios(args) => scenarios::run(&args),
        Command::Examples(args) => examples::run(&args),
        Command::Mutants(args) => mutants::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

//! `cargo xtask bench-audit`: how long the whole `unmasq audit` command takes on generated
//! clusters, and how that grows.
//!
//! Generates a cluster of the size asked for, builds the release binary and audits it several
//! times; then the same for clusters with fewer Services and for clusters with fewer nodes, a row
//! each. Each capture is removed once it was measured: they take half a gigabyte.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::generate_cluster::{self, Size};
use crate::measure::{self, Runs};
use crate::workspace;

/// Exit codes of an audit that was made: nothing found, and something found.
const MADE: [i32; 2] = [0, 1];

/// Arguments of `cargo xtask bench-audit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    size: Size,
    /// How often the command is run on each cluster
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Only the cluster of that size, not how it grows
    #[arg(long)]
    only: bool,
    /// Passed on to `unmasq audit`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    audit_args: Vec<String>,
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let program = measure::build()?;
    let has_audit = Command::new(&program).args(["audit", "--help"]).output();
    if !has_audit.is_ok_and(|output| output.status.success()) {
        bail!("{} has no command audit", program.display());
    }
    let mut sizes = vec![args.size];
    if !args.only {
        sizes.extend(growing(&args.size));
    }
    for (index, size) in sizes.iter().enumerate() {
        // Those that are in both series need no second row.
        if !sizes[..index].iter().any(|earlier| earlier.to_string() == size.to_string()) {
            let (rules, runs) = audited(&program, size, args)?;
            let by_service = runs.min().as_secs_f64() * 1000.0 / f64::from(size.services);
            println!(
                "unmasq audit {size} --json, {rules} rules: {runs}, {by_service:.2} ms by Service"
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Services at the same number of nodes, and nodes at half of the Services.
fn growing(size: &Size) -> Vec<Size> {
    let with_services =
        [8, 4, 2, 1].map(|part| Size { services: (size.services / part).max(1), ..*size });
    let services = (size.services / 2).max(1);
    let share = |parts: u32| (size.nodes * parts / 10).max(1);
    let with_nodes = [2, 5, 10].map(|parts| Size { nodes: share(parts), services, ..*size });
    with_services.into_iter().chain(with_nodes).collect()
}

fn audited(program: &Path, size: &Size, args: &Args) -> Result<(u64, Runs)> {
    let folder = workspace::root().join("target/bench-audit").join(size.to_string());
    let rules = generate_cluster::write(size, &folder)?;
    let mut command = Command::new(program);
    command.arg("audit").arg(&folder).arg("--json").args(&args.audit_args);
    let runs = measure::runs(args.runs, &MADE, &mut command);
    fs::remove_dir_all(&folder)
        .with_context(|| format!("{} can't be removed", folder.display()))?;
    Ok((rules, runs?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate_node::Mode;
    use crate::generate_node::cluster::Shape;

    #[test]
    fn the_default_grows_as_documented() {
        let (mode, shape) = (Mode::Iptables, Shape::Mixed);
        let size = Size { nodes: 10, services: 10_000, endpoints: 3, mode, shape };
        let sizes: Vec<_> = growing(&size).iter().map(|size| (size.nodes, size.services)).collect();
        assert_eq!(
            sizes,
            [
                (10, 1_250),
                (10, 2_500),
                (10, 5_000),
                (10, 10_000),
                (2, 5_000),
                (5, 5_000),
                (10, 5_000)
            ]
        );
    }
}

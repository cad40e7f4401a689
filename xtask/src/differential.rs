//! `cargo xtask differential`: random rulesets and real packets against the evaluator.
//!
//! The work is done in `unmasq_lab::differential`; here are its arguments and its exit code.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use unmasq_lab::differential::{self, Kind, Options};
use unmasq_lab::{Namespace, privilege};
use unmasq_model::packet::Family;

use crate::workspace;

/// Arguments of `cargo xtask differential`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many packets are sent, at least
    #[arg(long, default_value_t = 3000)]
    cases: u64,
    /// Conversations (packet, again, answer, what follows) instead of opening packets
    #[arg(long)]
    sequence: bool,
    /// What everything is drawn from; by default the time
    #[arg(long)]
    seed: Option<u64>,
    /// Only rulesets of one back end, or of several on one node
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Only packets of one family
    #[arg(long, value_enum)]
    family: Option<IpFamily>,
    /// Only the ruleset of this number
    #[arg(long)]
    ruleset: Option<u64>,
    /// How many rulesets share a node [default: 7, or 40 for long runs]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    block: Option<u64>,
    /// How many disagreements are shrunk before the run ends; 0: it ends at the first
    #[arg(long, default_value_t = 5)]
    most: usize,
    /// Where no networks can be made (rights, missing programs), say why and end well
    #[arg(long)]
    or_skip: bool,
    /// Where reproducers are kept [default: target/differential]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Keep the reproducers of earlier runs
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Backend {
    Legacy,
    IptablesNft,
    Nft,
    Mixed,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum IpFamily {
    Ipv4,
    Ipv6,
}

/// Runs it; fails on a disagreement, and where the evaluator can't tell.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Err(reason) = privilege::isolate().and_then(|()| Namespace::available()) {
        if args.or_skip {
            println!("skipped: {reason}");
            return Ok(ExitCode::SUCCESS);
        }
        bail!("can't run: {reason}");
    }
    Namespace::sweep();
    let folder = folder(args)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = args.seed.unwrap_or(now.map_or(1, |since| since.as_secs()));
    eprintln!("seed {seed}; reproducers go to {}", folder.display());
    let report = differential::run(&Options {
        cases: args.cases,
        sequence: args.sequence,
        seed,
        kind: args.backend.map(|backend| match backend {
            Backend::Legacy => Kind::Legacy,
            Backend::IptablesNft => Kind::IptablesNft,
            Backend::Nft => Kind::Nft,
            Backend::Mixed => Kind::Mixed,
        }),
        family: args.family.map(|family| match family {
            IpFamily::Ipv4 => Family::V4,
            IpFamily::Ipv6 => Family::V6,
        }),
        ruleset: args.ruleset,
        // A short run still has every back end in both families.
        block: args.block.unwrap_or(if args.cases < 20_000 { 7 } else { 40 }),
        folder,
        most: args.most,
    })?;
    println!("{report}");
    Ok(if report.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reproducers of one run are in a folder of its own, and earlier runs' are removed.
fn folder(args: &Args) -> Result<PathBuf> {
    let usual = || workspace::root().join("target/differential");
    let all = args.folder.clone().unwrap_or_else(usual);
    if !args.keep && args.folder.is_none() && all.exists() {
        fs::remove_dir_all(&all).with_context(|| format!("remove {}", all.display()))?;
    }
    let folder = all.join(std::process::id().to_string());
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

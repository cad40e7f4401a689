//! `cargo xtask generate-node`: a capture of one node with many Services, for measurements.
//!
//! In: how many Services and endpoints. Out: a capture directory with the rules that kube-proxy
//! 1.36 programs for them (ClusterIP, every tenth also a NodePort), as iptables-nft-save and
//! `nft -j` list them, and a plain node around them. IPv4 only. The same arguments always give
//! the same bytes. Rules are written one by one; only names and addresses are held in memory.
//! [`generate_cluster`](crate::generate_cluster) writes many nodes with it.

#[cfg(test)]
mod agreement;
pub(crate) mod cluster;
mod iptables;
mod nftables;
mod node;
mod xtables;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

pub(crate) use cluster::CLIENT;
use cluster::Cluster;

/// Arguments of `cargo xtask generate-node`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    size: Size,
    /// The capture's folder; made if it isn't there
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

/// What is generated.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Size {
    /// How many Services
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    services: u32,
    /// How many endpoints each Service has
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    endpoints: u32,
    /// kube-proxy's mode; both: one is a leftover of the other
    #[arg(long, value_enum, default_value_t = Mode::Iptables)]
    mode: Mode,
}

/// kube-proxy's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    Iptables,
    Nftables,
    Both,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Iptables => "iptables",
            Mode::Nftables => "nftables",
            Mode::Both => "both",
        })
    }
}

impl fmt::Display for Size {
    /// `iptables-10000x3`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}x{}", self.mode, self.services, self.endpoints)
    }
}

/// What was written.
pub(crate) struct Written {
    /// Rules of all tables, iptables' counted once.
    pub(crate) rules: u64,
    /// `ADDRESS:PORT` of the last Service, which a scan finds last.
    pub(crate) last_service: String,
}

/// Writes the capture and says what to do with it.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let written = write(&args.size, &args.output)?;
    println!("{} rules in {}", written.rules, args.output.display());
    println!(
        "unmasq trace {} --from {CLIENT} --to {}",
        args.output.display(),
        written.last_service
    );
    Ok(ExitCode::SUCCESS)
}

/// Writes the capture.
pub(crate) fn write(size: &Size, folder: &Path) -> Result<Written> {
    let cluster = Cluster::of_lone_node(size.services, size.endpoints);
    let rules = write_node(&cluster, size.mode, &folder.join("nodes/n1"))?;
    file(folder, "capture.json", |out| out.write_all(node::CAPTURE.as_bytes()))?;
    let last = cluster.service(size.services - 1);
    Ok(Written { rules, last_service: format!("{}:{}", last.address, cluster::PORT) })
}

/// Writes the folder of the cluster's node that sees it; gives the number of rules.
pub(crate) fn write_node(cluster: &Cluster, mode: Mode, node: &Path) -> Result<u64> {
    fs::create_dir_all(node).with_context(|| format!("{} can't be made", node.display()))?;
    let with_iptables = mode != Mode::Nftables;
    let with_nftables = mode != Mode::Iptables;
    let mut rules = 0;
    file(node, "iptables-save", |out| {
        if with_iptables {
            rules += iptables::save(cluster, out)?;
        }
        Ok(())
    })?;
    file(node, "nft.json", |out| {
        out.write_all(node::NFT_BEGIN.as_bytes())?;
        if with_iptables {
            iptables::nft_json(cluster, out)?;
        }
        if with_nftables {
            rules += nftables::nft_json(cluster, out)?;
        }
        out.write_all(b"]}\n")
    })?;
    for name in node::EMPTY {
        file(node, name, |_| Ok(()))?;
    }
    node::write(cluster, |name, content| {
        file(node, name, |out| out.write_all(content.as_bytes()))
    })?;
    Ok(rules)
}

/// Writes one file.
pub(crate) fn file(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let path = folder.join(name);
    let attempt = || {
        let mut out = BufWriter::new(File::create(&path)?);
        write(&mut out)?;
        out.flush()
    };
    attempt().with_context(|| format!("{} can't be written", path.display()))
}

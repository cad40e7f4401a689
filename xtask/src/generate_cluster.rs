//! `cargo xtask generate-cluster`: a capture of a whole cluster, for measurements.
//!
//! In: how many nodes, Services and endpoints. Out: a capture directory in which each node has the
//! rules that kube-proxy 1.36 programs on that node, its own addresses, routes and pods, and the
//! Kubernetes objects that all of it follows from. Services are ClusterIPs; every tenth has a node
//! port, of which every second has policy Local; every fiftieth has a load balancer's address, half
//! of those with policy Local; or all are alike, for what costs most where there are many of it
//! ([`Shape`]). IPv4 only. The same arguments always give the same bytes.
//!
//! ```text
//! generate_node::cluster ─┬▶ generate_node ─▶ nodes/n001 …
//!                         └▶ objects ───────▶ kubernetes/PLURAL.json
//! ```

mod objects;

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::generate_node::cluster::{Cluster, MOST_NODES, Shape};
use crate::generate_node::{Mode, file, write_node};

/// Arguments of `cargo xtask generate-cluster`.
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
    /// How many nodes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_NODES)))]
    pub(crate) nodes: u32,
    /// How many Services
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) services: u32,
    /// How many endpoints each Service has; at most ten for each node, if the shape is mixed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) endpoints: u32,
    /// kube-proxy's mode; both: one is a leftover of the other
    #[arg(long, value_enum, default_value_t = Mode::Iptables)]
    pub(crate) mode: Mode,
    /// What the Services are like
    #[arg(long, value_enum, default_value_t)]
    pub(crate) shape: Shape,
}

impl fmt::Display for Size {
    /// `iptables-10-10000x3`, `iptables-10-10000x3-local`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}x{}", self.mode, self.nodes, self.services, self.endpoints)?;
        match self.shape {
            Shape::Mixed => Ok(()),
            Shape::Local | Shape::Policies => write!(f, "-{}", self.shape),
        }
    }
}

const CAPTURE: &str = concat!(
    r#"{"schema": "unmasq.capture/v1", "created": "2026-01-01T00:00:00Z", "#,
    r#""by": "xtask generate-cluster"}"#,
    "\n"
);

/// Writes the capture and says what to do with it.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let rules = write(&args.size, &args.output)?;
    println!("{rules} rules on {} nodes in {}", args.size.nodes, args.output.display());
    println!("unmasq audit {}", args.output.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes the capture; gives the number of rules of all nodes.
pub(crate) fn write(size: &Size, folder: &Path) -> Result<u64> {
    let cluster = Cluster::whole(size.services, size.endpoints, size.nodes).of_shape(size.shape);
    let (endpoints, services) = cluster.room();
    if size.endpoints > endpoints || size.services > services {
        bail!(
            "{} Services of {} endpoints on {} nodes: there is room for {endpoints} endpoints of a \
             Service, and then for {services} Services",
            size.services,
            size.endpoints,
            size.nodes
        );
    }
    let mut rules = 0;
    for node in 0..size.nodes {
        let name = objects::node_name(node);
        let path = folder.join("nodes").join(&name);
        rules += write_node(&cluster.seen_from(node), size.mode, &path)?;
        file(&path, "processes", |out| out.write_all(processes(&name).as_bytes()))?;
    }
    file(folder, "capture.json", |out| out.write_all(CAPTURE.as_bytes()))?;
    let kubernetes = folder.join("kubernetes");
    fs::create_dir_all(&kubernetes)
        .with_context(|| format!("{} can't be made", kubernetes.display()))?;
    objects::write(&cluster, size.mode, &kubernetes)?;
    Ok(rules)
}

/// The programs that write rules, as `unmasq collect` names them.
fn processes(node: &str) -> String {
    let config = "--config=/var/lib/kube-proxy/config.conf";
    format!("/usr/local/bin/kube-proxy {config} --hostname-override={node}\n")
}

//! `unmasq trace` over several nodes: names resolved, the call followed from host to host.
//!
//! In: a [`Cluster`] and the arguments. Out: the answer, printed.

mod resolve;

use std::io;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;

use unmasq_cluster::Cluster;
use unmasq_cluster::paths::Paths;
use unmasq_eval::trace::Options;
use unmasq_report::{json, terminal};

use crate::expect;
use crate::output::{self, Exit};
use crate::trace::{Args, tell};

/// By which address a Service is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Entry {
    /// Its cluster IP
    #[value(alias = "clusterip")]
    ClusterIp,
    /// A port of a node
    #[value(alias = "nodeport")]
    NodePort,
    /// The load balancer's address
    #[value(alias = "lb", alias = "loadbalancer")]
    LoadBalancer,
    /// An external IP
    #[value(alias = "externalip")]
    ExternalIp,
}

/// Answers.
pub(crate) fn run(args: &Args, cluster: &Cluster) -> anyhow::Result<Exit> {
    if args.in_device.is_some() || args.mark != 0 {
        bail!(
            "--in and --mark are of one node's trace: name it with --node, and addresses; \
             nodes: {}",
            resolve::captured(cluster).join(", ")
        );
    }
    let asked = resolve::call(args, cluster)?;
    for note in &asked.notes {
        output::warn(&format!("note: {}", output::clean(note)));
    }
    let options = Options { strict: args.strict, every_rule: args.verbose, ..Options::default() };
    let paths = Paths::new(cluster, options);
    resolve::check_source(args, &asked.call, &paths)?;
    let ways = paths.ways(&asked.call).map_err(|why| anyhow!(why))?;
    let text = if args.json {
        let document = json::path_of_hosts(&ways, &asked.call, &paths);
        let mut text =
            serde_json::to_string_pretty(&document).context("writing the answer as JSON")?;
        text.push('\n');
        text
    } else {
        terminal::path_of_hosts(&ways, &asked.call, &paths, &output::style(args.verbose))
    };
    output::write(&mut io::stdout(), text.as_bytes())?;
    let Some(expected) = args.expect else { return Ok(Exit::Done) };
    Ok(tell(expected, &expect::of_ways(expected, &ways)))
}

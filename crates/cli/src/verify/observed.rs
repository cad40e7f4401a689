//! What was observed: through the lab, or in files of `unmasq probe`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use unmasq_audit::matrix::Outside;
use unmasq_audit::matrix::verify::{Check, Checks, Happened, Seen};
use unmasq_cluster::Cluster;
use unmasq_cluster::paths::Caller;
use unmasq_lab::connect::Connection;
use unmasq_model::packet::Protocol;
use unmasq_probe::net::refusal::Refusal;
use unmasq_probe::observation::{Ask, Document, SCHEMA};
use unmasq_probe::{Observation, Outcome};

use super::{ends, times};
use crate::lab::Through;
use crate::output;

/// Makes the connections through the lab.
pub(super) fn through(
    through: &Through,
    checks: &Checks,
    cluster: &Cluster,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Vec<Vec<Seen>>> {
    let mut wanted = Vec::new();
    let mut of = Vec::new();
    for (number, check) in checks.checks.iter().enumerate() {
        let Some(connection) = connection(check, cluster) else { continue };
        for _ in 0..times(check) {
            wanted.push(connection.clone());
            of.push(number);
        }
    }
    let mut seen = vec![Vec::new(); checks.checks.len()];
    if wanted.is_empty() {
        return Ok(seen);
    }
    for (number, observation) in of.into_iter().zip(through.connect(&wanted, say)?) {
        seen[number].push(of_probe(&observation));
    }
    Ok(seen)
}

fn connection(check: &Check, cluster: &Cluster) -> Option<Connection> {
    let call = check.call();
    let (node, source) = match call.from {
        Caller::Node(node) => (Some(cluster.nodes.get(node)?.name.clone()), None),
        Caller::Pod { address, .. } | Caller::Outside { address, .. } => (None, Some(address)),
    };
    Some(Connection {
        node,
        source,
        protocol: match call.protocol {
            Protocol::UDP => Ask::Udp,
            _ => Ask::Tcp,
        },
        to: SocketAddr::new(call.to, call.port?),
        at: ends(check),
        again: check.may_be_answered(),
    })
}

/// Reads files, and finds what each observation is of. Also: how many are of nothing.
pub(super) fn read(
    files: &[PathBuf],
    checks: &Checks,
    cluster: &Cluster,
) -> anyhow::Result<(Vec<Vec<Seen>>, usize)> {
    let inside = addresses(cluster);
    let mut seen = vec![Vec::new(); checks.checks.len()];
    let (mut strays, mut failed) = (0, Vec::new());
    for file in files {
        for observation in document(file)?.observations {
            let Some(from) = observation.from else {
                failed.push(observation);
                continue;
            };
            match find(checks, &observation, from.ip(), &inside) {
                Some(number) => seen[number].push(of_probe(&observation)),
                None => strays += 1,
            }
        }
    }
    for Observation { target, outcome, .. } in failed {
        if let Outcome::Failed { reason } = outcome {
            output::warn(&output::clean(&format!("note: {target} was not tried: {reason}")));
        }
    }
    Ok((seen, strays))
}

fn document(file: &Path) -> anyhow::Result<Document> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {name}"))?;
    let document: Document = serde_json::from_str(&text)
        .with_context(|| format!("{name} is not what unmasq probe --json prints"))?;
    if document.schema != SCHEMA {
        bail!("{name} is of schema {}, not {SCHEMA}", document.schema);
    }
    Ok(document)
}

/// The check that an observation is of. One of a caller with that address goes before one of anybody
/// of its network, and that before one of anybody.
fn find(
    checks: &Checks,
    observation: &Observation,
    from: IpAddr,
    inside: &BTreeSet<IpAddr>,
) -> Option<usize> {
    let protocol = match observation.protocol {
        Ask::Tcp | Ask::Http => Protocol::TCP,
        Ask::Udp => Protocol::UDP,
    };
    let rank = |check: &Check| {
        let call = check.call();
        let to = SocketAddr::new(call.to, call.port?);
        if call.protocol != protocol || to != observation.target {
            return None;
        }
        match (&check.outside, &check.name) {
            (None, _) | (Some(_), Some(_)) => (check.own == Some(from)).then_some(0),
            (Some(_), None) if inside.contains(&from) => None,
            (Some(Outside::NamedByRule(net) | Outside::NamedBySetting(net)), None) => {
                net.contains(&from).then_some(1)
            }
            (Some(Outside::Anybody), None) => Some(2),
        }
    };
    let ranked = checks.checks.iter().enumerate();
    let ranked = ranked.filter_map(|(number, check)| Some((rank(check)?, number)));
    ranked.min().map(|(_, number)| number)
}

/// Addresses of pods and nodes.
fn addresses(cluster: &Cluster) -> BTreeSet<IpAddr> {
    let nodes = cluster.nodes.iter().filter_map(|node| node.host.as_ref());
    let links = nodes.flat_map(|host| host.links.iter().flatten());
    let of_nodes = links.flat_map(|link| &link.addresses).map(|address| address.local);
    let objects = cluster.objects.nodes.iter().flat_map(|node| &node.status.addresses);
    let of_objects = objects.filter_map(|address| address.address.parse().ok());
    let of_pods = cluster.pod_addresses().map(|(address, _)| address);
    of_nodes.chain(of_objects).chain(of_pods).collect()
}

/// What an observation says.
fn of_probe(observation: &Observation) -> Seen {
    let what = match &observation.outcome {
        Outcome::Answered { report } => {
            Happened::Answered { source: report.source, at: report.destination }
        }
        // No program that checks whom it talks to takes such an answer.
        Outcome::Misanswered { .. } | Outcome::Silent { connected: false } => Happened::Silent,
        Outcome::Silent { connected: true } => {
            Happened::Foreign("connected, but no answer".to_owned())
        }
        Outcome::Closed { .. } => Happened::Foreign("connected, then closed".to_owned()),
        Outcome::Foreign { status, begins } => Happened::Foreign(match status {
            Some(status) => format!("HTTP {status}"),
            None => format!("{begins:?}"),
        }),
        Outcome::Refused { how, .. } => Happened::Refused {
            unreachable: match how {
                Refusal::HostUnreachable | Refusal::NetUnreachable => true,
                Refusal::Reset
                | Refusal::Closed
                | Refusal::PortUnreachable
                | Refusal::ProtocolUnreachable
                | Refusal::Prohibited
                | Refusal::TimeExceeded
                | Refusal::Other(_) => false,
            },
        },
        Outcome::Failed { reason } => Happened::Failed(reason.clone()),
    };
    Seen { from: observation.from, what }
}

//! Calls of Services that no captured rule translates, on nodes whose rules may not all be there.
//!
//! In: a cluster, and where a walk went. Out: why its end can't be told. A node that has rules for
//! Services in what was captured keeps them there; one that has none, and a back end that was not
//! captured, may have them in that one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use unmasq_eval::journey::Journey;
use unmasq_eval::trace::Disposition;
use unmasq_model::host::{Host, Seen};
use unmasq_model::packet::Family;

use crate::Cluster;
use crate::kubernetes::Node;

/// Where Services are called.
#[derive(Debug, Default)]
pub(super) struct Entries {
    addresses: BTreeSet<IpAddr>,
    nodes: BTreeSet<IpAddr>,
    node_ports: BTreeSet<u16>,
}

impl Entries {
    pub(super) fn new(cluster: &Cluster) -> Entries {
        let mut all = Entries::default();
        for service in &cluster.objects.services {
            let balanced = service.status.load_balancer.ingress.iter().filter_map(|one| one.ip);
            all.addresses.extend(service.spec.cluster_ips.iter().copied());
            all.addresses.extend(service.spec.external_ips.iter().copied());
            all.addresses.extend(balanced);
            all.node_ports.extend(service.spec.ports.iter().filter_map(|port| port.node_port));
        }
        let of = |node: &Node| [Family::V4, Family::V6].map(|family| node.ip(family));
        all.nodes.extend(cluster.objects.nodes.iter().flat_map(of).flatten());
        all
    }

    fn has(&self, to: IpAddr, port: Option<u16>) -> bool {
        let node_port = port.is_some_and(|port| self.node_ports.contains(&port));
        self.addresses.contains(&to) || (node_port && self.nodes.contains(&to))
    }
}

/// Why a way's end can't be told, if it called a Service and nothing translated it at the node that
/// had it first. `node` and `host`: that node's name and state.
pub(super) fn doubt(
    entries: &Entries,
    way: &Journey,
    (to, port): (IpAddr, Option<u16>),
    node: &str,
    host: &Host,
) -> Option<String> {
    let translated =
        way.legs.iter().any(|leg| leg.outcome.destination.disposition != Disposition::Preserved);
    if translated || !entries.has(to, port) || serves(host) {
        return None;
    }
    let file = legacy_file(host, Family::of(to))?;
    Some(format!(
        "node {node} has no rule for any Service in what was captured, and {file} is not in the \
         capture, where they may be: on the node, as root: {file} > nodes/{node}/{file}"
    ))
}

/// The file with rules of iptables-legacy, if nothing says what would be in it.
pub fn legacy_file(host: &Host, family: Family) -> Option<&'static str> {
    let (seen, file) = match family {
        Family::V4 => (&host.backends.iptables_legacy, "iptables-legacy-save"),
        Family::V6 => (&host.backends.ip6tables_legacy, "ip6tables-legacy-save"),
    };
    match seen {
        Seen::Captured => None,
        Seen::Missing(_) | Seen::Withheld(_) | Seen::NotAsked => Some(file),
    }
}

/// Whether a host has rules or virtual services for Services of Kubernetes, or programs of BPF that
/// may be such.
pub fn serves(host: &Host) -> bool {
    let beyond = &host.beyond;
    let some = |all: &Option<Vec<Box<str>>>| all.as_ref().is_some_and(|all| !all.is_empty());
    let named = host.ruleset.tables.iter().any(|table| {
        &*table.name == "kube-proxy"
            || table.chains.iter().any(|chain| {
                let own = ["KUBE-SVC-", "KUBE-EXT-", "KUBE-SEP-", "service-"];
                own.iter().any(|start| chain.name.starts_with(start))
                    || (&*chain.name == "KUBE-SERVICES" && !chain.rules.is_empty())
            })
    });
    named || some(&beyond.ipvs) || beyond.bpf.as_ref().is_some_and(|all| !all.is_empty())
}

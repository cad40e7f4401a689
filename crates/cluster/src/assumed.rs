//! Sets that a node's rules test, that were not captured, and whose content follows from objects
//! and devices.
//!
//! | set | what is in it |
//! |---|---|
//! | `cali40masq-ipam-pools`, `cali60…` | IPPools with natOutgoing |
//! | `cali40all-ipam-pools`, `cali60…` | all IPPools |
//! | `cali40all-hosts-net`, `cali60…` | addresses of all nodes |
//! | `cali40this-host`, `cali60…` | addresses of the node's own devices |
//! | `kube-router-pod-subnets`, `inet6:…` | pod ranges of all nodes |
//! | `kube-router-node-ips`, `inet6:…` | addresses of all nodes |
//!
//! In: a cluster as it was read. Out: `assumed_sets` of its hosts, and an [`Assumption`] for each.
//! A set is filled in only if there is something that it follows from: without IPPools nothing is
//! known of Calico's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::host::{AssumedSet, Host};
use unmasq_model::ipset::{Content, Element, Flags, HashKind, HashSet, IpSet};
use unmasq_model::origin::{FileId, Origin};
use unmasq_model::packet::Family;
use unmasq_model::rule::{Step, Test};

use crate::kubernetes::{self, Objects};
use crate::{Assumption, Cluster};

/// Fills in what can be, for all captured nodes.
pub(crate) fn fill_in(cluster: &mut Cluster) {
    let Cluster { nodes, objects, assumptions, .. } = cluster;
    for node in nodes {
        let Some(host) = &mut node.host else { continue };
        for name in unknown_sets(host) {
            let Some(assumed) = Wanted::of(&name).and_then(|wanted| wanted.set(host, objects))
            else {
                continue;
            };
            assumptions.push(Assumption {
                node: Some(node.name.clone()),
                set: Some(name.to_string()),
                text: assumed.text.to_string(),
            });
            host.assumed_sets.insert(name, assumed);
        }
    }
}

/// Sets that rules test and that were not captured.
fn unknown_sets(host: &Host) -> BTreeSet<Box<str>> {
    let chains = host.ruleset.tables.iter().flat_map(|table| &table.chains);
    let steps = chains.flat_map(|chain| &chain.rules).flat_map(|rule| rule.steps.iter());
    let tested = steps.filter_map(|step| match step {
        Step::Test(Test::IpSet { set, .. }) => Some(set),
        Step::Test(_) | Step::Do(_) => None,
    });
    let known = |set: &str| host.ipsets.as_ref().is_some_and(|sets| sets.contains_key(set));
    tested.filter(|set| !known(set)).cloned().collect()
}

/// A set that can be filled in.
struct Wanted<'a> {
    name: &'a str,
    family: Family,
    content: Follows,
}

/// What a set's content follows from.
#[derive(Clone, Copy)]
enum Follows {
    /// Calico's pools; with `true` only those that masquerade.
    Pools(bool),
    /// The nodes' addresses, as Felix knows them.
    CalicoHosts,
    /// The addresses of the node's devices.
    ThisHost,
    /// The nodes' pod ranges, as kube-router knows them.
    RouterPods,
    /// The nodes' addresses, as kube-router knows them.
    RouterNodes,
}

impl<'a> Wanted<'a> {
    /// A set by its name. Calico: prefix, family, `0` for the main set of two, id (felix
    /// ipsets/ipset_defs.go, rules/rule_defs.go). kube-router: pkg/utils/ipset.go.
    fn of(name: &'a str) -> Option<Self> {
        let calico = |rest: &str| {
            Some(match rest {
                "masq-ipam-pools" => Follows::Pools(true),
                "all-ipam-pools" => Follows::Pools(false),
                "all-hosts-net" => Follows::CalicoHosts,
                "this-host" => Follows::ThisHost,
                _ => return None,
            })
        };
        let router = |rest: &str| {
            Some(match rest {
                "kube-router-pod-subnets" => Follows::RouterPods,
                "kube-router-node-ips" => Follows::RouterNodes,
                _ => return None,
            })
        };
        let (family, content) = if let Some(rest) = name.strip_prefix("cali40") {
            (Family::V4, calico(rest)?)
        } else if let Some(rest) = name.strip_prefix("cali60") {
            (Family::V6, calico(rest)?)
        } else if let Some(rest) = name.strip_prefix("inet6:") {
            (Family::V6, router(rest)?)
        } else {
            (Family::V4, router(name)?)
        };
        Some(Wanted { name, family, content })
    }

    /// `None`: there is nothing that it follows from.
    fn set(&self, host: &Host, objects: &Objects) -> Option<AssumedSet> {
        let (kind, mut elements, source) = match self.content {
            Follows::Pools(masquerading) => pools(objects, masquerading)?,
            Follows::CalicoHosts => hosts_of_calico(objects)?,
            Follows::ThisHost => own_addresses(host)?,
            Follows::RouterPods => pods_of_router(objects)?,
            Follows::RouterNodes => nodes_of_router(objects)?,
        };
        elements.retain(|element| Family::of(element.addr()) == self.family);
        elements.sort();
        elements.dedup();
        let mut set = HashSet::new(kind, self.family, None);
        for first in &elements {
            let element = Element { first: *first, port: None, second: None };
            set.insert(element, Flags::default());
        }
        let text = format!(
            "the set {} has {} in it: {source} (the set itself was not captured)",
            self.name,
            listed(&elements)
        );
        let set = IpSet {
            name: self.name.into(),
            content: Content::Hash(set),
            opaque: None,
            origin: Origin::new(FileId(u16::MAX), 0),
        };
        Some(AssumedSet { set, text: text.into() })
    }
}

/// A set's type, its elements, and what they are.
type Filling = (HashKind, Vec<IpNet>, &'static str);

/// `masqManager.OnUpdate` (felix dataplane/linux/masq_mgr.go): every pool is in the one set, and in
/// the other if it masquerades. Whether it is disabled counts in neither.
fn pools(objects: &Objects, masquerading: bool) -> Option<Filling> {
    if objects.ip_pools.is_empty() {
        return None;
    }
    let wanted = objects.ip_pools.iter().filter(|pool| !masquerading || pool.spec.nat_outgoing);
    let ranges = wanted.map(|pool| pool.spec.cidr).collect();
    let source = if masquerading { "the IPPools with natOutgoing" } else { "all IPPools" };
    Some((HashKind::Net, ranges, source))
}

/// What calico-node wrote as a node's address, else the internal one (libcalico-go
/// backend/syncersv1/updateprocessors/felixnodeprocessor.go).
fn hosts_of_calico(objects: &Objects) -> Option<Filling> {
    if objects.nodes.is_empty() {
        return None;
    }
    let addresses = objects.nodes.iter().flat_map(|node| {
        let of = |family: Family| {
            let annotation = match family {
                Family::V4 => "projectcalico.org/IPv4Address",
                Family::V6 => "projectcalico.org/IPv6Address",
            };
            let written = node.metadata.annotations.get(annotation);
            let written = written.and_then(|text| text.split('/').next()?.parse().ok());
            written.or_else(|| node.internal_ips().find(|ip| Family::of(*ip) == family))
        };
        [of(Family::V4), of(Family::V6)].into_iter().flatten().map(IpNet::from)
    });
    Some((HashKind::Net, addresses.collect(), "addresses of all nodes"))
}

/// Felix leaves out the devices of pods and kube-ipvs0 (felix dataplane/linux/hostip_mgr.go, its
/// settings InterfacePrefix and InterfaceExclude).
fn own_addresses(host: &Host) -> Option<Filling> {
    let links = host.links.as_ref()?.iter();
    let own = links.filter(|link| !link.name.starts_with("cali") && *link.name != *"kube-ipvs0");
    let addresses = own.flat_map(|link| &link.addresses).map(|found| IpNet::from(found.local));
    Some((HashKind::Ip, addresses.collect(), "addresses of the node's devices"))
}

/// `syncNodeIPSets` (kube-router pkg/controllers/routing/network_routes_controller.go): nodes
/// without a pod range are in neither set.
fn pods_of_router(objects: &Objects) -> Option<Filling> {
    let ranges: Vec<IpNet> = objects.nodes.iter().flat_map(router_ranges).collect();
    let source = "pod ranges of all nodes";
    (!ranges.is_empty()).then_some((HashKind::Net, ranges, source))
}

fn nodes_of_router(objects: &Objects) -> Option<Filling> {
    let nodes = objects.nodes.iter().filter(|node| !router_ranges(node).is_empty());
    let addresses: Vec<IpNet> = nodes
        .flat_map(|node| &node.status.addresses)
        .filter(|found| matches!(found.kind.as_str(), "InternalIP" | "ExternalIP"))
        .filter_map(|found| found.address.parse::<IpAddr>().ok())
        .map(IpNet::from)
        .collect();
    let source = "internal and external addresses of all nodes";
    (!addresses.is_empty()).then_some((HashKind::Ip, addresses, source))
}

/// An annotation stands for what the control plane assigned.
fn router_ranges(node: &kubernetes::Node) -> Vec<IpNet> {
    let annotation =
        |name: &str| node.metadata.annotations.get(name).filter(|text| !text.is_empty());
    let written = annotation("kube-router.io/pod-cidrs").or(annotation("kube-router.io/pod-cidr"));
    match written {
        Some(text) => text.split(',').filter_map(|part| part.trim().parse().ok()).collect(),
        None => node.pod_cidrs().collect(),
    }
}

fn listed(elements: &[IpNet]) -> String {
    const SHOWN: usize = 4;
    let name = |element: &IpNet| match element.prefix_len() == element.max_prefix_len() {
        true => element.addr().to_string(),
        false => element.to_string(),
    };
    let shown: Vec<String> = elements.iter().take(SHOWN).map(name).collect();
    match elements.len().checked_sub(SHOWN) {
        _ if elements.is_empty() => "nothing".to_owned(),
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;

//! The ranges of single nodes: their pods, and what their devices and routes lead to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::host::Host;
use unmasq_model::link::{Link, Scope};
use unmasq_model::packet::Family;
use unmasq_model::route::{Route, RouteKind, TableId};

use super::{Gathered, NetworkKind, Ranges, object_place};
use crate::Node;
use crate::kubernetes::Objects;
use crate::settings::{Place, Settings};

pub(super) fn add(
    gathered: &mut Gathered,
    nodes: &[Node],
    objects: &Objects,
    settings: &Settings,
    cluster_pods: &[Ranges; 2],
) {
    add_pods(gathered, objects, settings);
    let engine = &settings.engine;
    for setting in engine.bip.all().iter().chain(engine.fixed_cidr.all()) {
        // The addresses for containers are a part of the bridge's network, if that is known.
        let of_bridge = setting.place.node().and_then(|node| engine.bip.on(node));
        let range = of_bridge.unwrap_or(setting).value.trunc();
        gathered.add(range, NetworkKind::Bridge, setting.place.clone());
    }
    let is_for_pods = pod_ranges(gathered, cluster_pods);
    for node in nodes {
        if let Some(host) = &node.host {
            let own = own_addresses(objects, &node.name);
            State { node: &node.name, host, own, is_for_pods: &is_for_pods }.add(gathered);
        }
    }
}

/// flannel's own record counts, and what the control plane assigned; the latter is of no meaning
/// where Calico assigns addresses from its pools.
fn add_pods(gathered: &mut Gathered, objects: &Objects, settings: &Settings) {
    let mut add = |range: IpNet, node: &str, place: Place| {
        gathered.add(range, NetworkKind::NodePods { node: node.to_owned() }, place);
    };
    for family in [Family::V4, Family::V6] {
        for setting in settings.flannel.subnets(family).all() {
            if let Some(node) = setting.place.node() {
                add(setting.value, node, setting.place.clone());
            }
        }
    }
    let pools = || super::pools(objects).into_iter();
    let calico_assigns = pools().any(|(_, pool, _)| pool.used == Some(true));
    if calico_assigns && !settings.flannel.is_present() {
        return;
    }
    for node in &objects.nodes {
        let name = &node.metadata.name;
        for range in node.pod_cidrs() {
            add(range, name, object_place("Node", "", name, "spec.podCIDRs"));
        }
    }
}

/// Ranges that routes and devices of pods are in.
fn pod_ranges(gathered: &Gathered, cluster_pods: &[Ranges; 2]) -> Vec<IpNet> {
    let of_cluster = cluster_pods.iter().flat_map(|ranges| ranges.ranges.iter().copied());
    let of_nodes = gathered.0.keys().filter_map(|(range, kind)| match kind {
        NetworkKind::NodePods { .. } => Some(*range),
        NetworkKind::Pool(pool) => pool.used.unwrap_or(false).then_some(*range),
        NetworkKind::ClusterPods
        | NetworkKind::Services
        | NetworkKind::Lan
        | NetworkKind::Bridge
        | NetworkKind::Route => None,
    });
    of_cluster.chain(of_nodes).collect()
}

fn own_addresses(objects: &Objects, node: &str) -> BTreeSet<IpAddr> {
    let addresses = objects.node(node).map(|node| node.status.addresses.as_slice());
    addresses.unwrap_or_default().iter().filter_map(|found| found.address.parse().ok()).collect()
}

/// What a node's devices and routes say.
struct State<'a> {
    node: &'a str,
    host: &'a Host,
    /// Its addresses as its object has them.
    own: BTreeSet<IpAddr>,
    is_for_pods: &'a [IpNet],
}

impl State<'_> {
    fn add(&self, gathered: &mut Gathered) {
        for link in self.host.links.iter().flatten().filter(|link| !link.loopback) {
            for address in &link.addresses {
                let Some(range) = address.network() else { continue };
                if range.prefix_len() == range.max_prefix_len() || address.scope >= Scope::LINK {
                    continue;
                }
                if let Some(kind) = self.kind(link, address.local, &range) {
                    let what = format!("{} {}/{}", link.name, address.local, address.prefix_len);
                    let place = Place::State { node: self.node.to_owned(), what };
                    gathered.add(range, kind, place);
                }
            }
        }
        let routes = self.host.routes4.iter().flatten().chain(self.host.routes6.iter().flatten());
        for route in routes.filter(|route| self.leads_out(route)) {
            let what = format!("route {}", route.destination);
            let place = Place::State { node: self.node.to_owned(), what };
            gathered.add(route.destination, NetworkKind::Route, place);
        }
    }

    /// What a device's network is: that of the node's own address first, as pods can be in it.
    fn kind(&self, link: &Link, address: IpAddr, range: &IpNet) -> Option<NetworkKind> {
        const BRIDGES: [&str; 8] =
            ["docker", "br-", "podman", "cni-podman", "virbr", "lxcbr", "lxdbr", "incusbr"];
        if self.own.contains(&address) || self.is_default(&link.name) {
            Some(NetworkKind::Lan)
        } else if BRIDGES.iter().any(|name| link.name.starts_with(name)) {
            Some(NetworkKind::Bridge)
        } else if self.is_for_pods(range) {
            None
        } else {
            Some(NetworkKind::Lan)
        }
    }

    /// Whether a default route leads out of a device.
    fn is_default(&self, device: &str) -> bool {
        let routes = self.host.routes4.iter().flatten().chain(self.host.routes6.iter().flatten());
        let mut default = routes.filter(|route| {
            route.destination.prefix_len() == 0 && route.kind == RouteKind::Unicast
        });
        default.any(|route| route.next_hops.iter().any(|hop| hop.device.as_deref() == Some(device)))
    }

    /// Whether a route leads to a network that is behind a gateway, and not of pods.
    fn leads_out(&self, route: &Route) -> bool {
        route.kind == RouteKind::Unicast
            && route.table == TableId::MAIN
            && route.destination.prefix_len() > 0
            && route.next_hops.iter().any(|hop| hop.gateway.is_some())
            && !self.is_for_pods(&route.destination)
    }

    fn is_for_pods(&self, range: &IpNet) -> bool {
        self.is_for_pods.iter().any(|pods| pods.contains(range))
    }
}

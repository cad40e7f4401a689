//! Who calls on a host of which no Kubernetes object is known: the containers on its bridges.

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_cluster::paths::Paths;
use unmasq_model::link::{Address, Link};

use super::clients::{ANYBODY, somebody};

/// A bridge whose network stands for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bridge {
    name: String,
    net: IpNet,
    /// An address there that the host itself doesn't have.
    pub(super) somebody: IpAddr,
}

/// The bridges of a host, but the one that the host is reached by: a virtual machine's host has its
/// own address there.
pub(super) fn bridges(paths: &Paths<'_>, node: usize) -> Vec<Bridge> {
    let links =
        paths.cluster().nodes[node].host.iter().flat_map(|host| host.links.iter().flatten());
    let out = ANYBODY.map(|anybody| paths.device_towards(node, anybody));
    let is_uplink = |link: &Link| out.iter().flatten().any(|out| *out == link.name);
    let bridges = links.filter(|link| link.is_bridge() && link.up && !is_uplink(link));
    bridges.flat_map(networks).collect()
}

fn networks(link: &Link) -> impl Iterator<Item = Bridge> + '_ {
    let own: Vec<IpNet> = link.addresses.iter().map(|one| IpNet::from(one.local)).collect();
    let nets = link.addresses.iter().filter_map(Address::network);
    nets.filter(|net| !is_link_local(net.addr())).filter_map(move |net| {
        let somebody = somebody(net, &own)?;
        Some(Bridge { name: link.name.to_string(), net, somebody })
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// What is taken for granted of such a host.
pub(super) fn assumption(node: &str, bridges: &[Bridge]) -> Option<String> {
    let names = bridges.iter().map(|one| format!("{} ({})", one.name, one.net));
    (!bridges.is_empty()).then(|| {
        format!(
            "no Kubernetes object says which pods node {node} has: somebody on each of its bridges \
             was asked for instead: {}",
            super::first_and_more(names)
        )
    })
}

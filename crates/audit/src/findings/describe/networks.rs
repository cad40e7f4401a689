//! The networks that remedies name: those of pods, of nodes.

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_model::packet::Family;

use super::{sentence, unseen};
use crate::Requirement;

/// The range of all pods of a family, and where it stands. A range that leaves out a node's pods
/// is none.
pub(super) fn cluster_network(cluster: &Cluster, family: Family) -> Option<(IpNet, String)> {
    let settings = &cluster.settings;
    let given = cluster.overrides.cluster_cidrs.iter();
    let mut all: Vec<(IpNet, String)> =
        given.map(|net| (*net, "--cluster-cidr".to_owned())).collect();
    let flannel = settings.flannel.networks(family).all().iter();
    all.extend(flannel.map(|setting| (setting.value, setting.place.to_string())));
    let lists = [
        &settings.rancher.cluster_cidrs,
        &settings.control_plane.cluster_cidrs,
        &settings.kube_proxy.cluster_cidrs,
    ];
    for setting in lists.iter().flat_map(|values| values.all()) {
        all.extend(setting.value.iter().map(|net| (*net, setting.place.to_string())));
    }
    let pods = known_pods(cluster, family);
    let covers = |net: &IpNet| pods.iter().all(|one| net.contains(one));
    all.into_iter().find(|(net, _)| Family::of(net.addr()) == family && covers(net))
}

/// The networks of nodes' pods, or, without such, the pods' addresses.
fn known_pods(cluster: &Cluster, family: Family) -> Vec<IpNet> {
    let of_nodes = cluster.objects.nodes.iter().flat_map(|node| node.pod_cidrs());
    let nets: Vec<IpNet> = of_nodes.filter(|net| Family::of(net.addr()) == family).collect();
    if nets.is_empty() { IpNet::aggregate(&addresses(cluster, family)) } else { nets }
}

fn addresses(cluster: &Cluster, family: Family) -> Vec<IpNet> {
    pods(cluster).filter(|one| Family::of(*one) == family).map(IpNet::from).collect()
}

/// Addresses of pods that have a network namespace of their own.
pub(super) fn pods(cluster: &Cluster) -> impl Iterator<Item = IpAddr> + '_ {
    let own = cluster.objects.pods.iter().filter(|pod| !pod.spec.host_network);
    own.flat_map(|pod| pod.ips())
}

/// The networks of all pods: the whole range if it is known; Calico's pools that have pods; else
/// those of today's nodes.
pub(super) fn pod_networks(cluster: &Cluster, family: Family) -> Vec<IpNet> {
    let (mut nets, missed) = said(cluster, family);
    if nets.is_empty() || missed {
        nets.extend(known_pods(cluster, family));
    }
    IpNet::aggregate(&nets)
}

/// The same with those of nodes to come, which a lasting remedy needs; `None`: nothing says them, and
/// a new node's would lie outside of today's.
pub(super) fn lasting_networks(cluster: &Cluster, family: Family) -> Option<Vec<IpNet>> {
    let (nets, missed) = said(cluster, family);
    let known = !missed && (!nets.is_empty() || known_pods(cluster, family).is_empty());
    known.then(|| IpNet::aggregate(&nets))
}

/// What is said of pods' networks, and whether some pods are outside of them.
fn said(cluster: &Cluster, family: Family) -> (Vec<IpNet>, bool) {
    let whole = cluster_network(cluster, family).map(|(net, _)| net);
    let pools = cluster.objects.ip_pools.iter().map(|pool| pool.spec.cidr);
    let used = pools.filter(|pool| {
        Family::of(pool.addr()) == family && pods(cluster).any(|pod| pool.contains(&pod))
    });
    let nets: Vec<IpNet> = whole.into_iter().chain(used).collect();
    let missed = addresses(cluster, family).iter().any(|pod| !nets.iter().any(|n| n.contains(pod)));
    (nets, missed)
}

/// That the range of all pods is known, where it isn't.
pub(super) fn unknown_range(cluster: &Cluster, families: &[Family]) -> Option<Requirement> {
    let unknown = families.iter().filter(|one| lasting_networks(cluster, **one).is_none());
    let today: Vec<IpNet> = unknown.flat_map(|family| pod_networks(cluster, *family)).collect();
    (!today.is_empty()).then(|| {
        unseen(
            format!(
                "the range of all pods is known: only today's is ({}), and pods of a new node would \
                 be outside of it",
                listed(&today)
            ),
            sentence("Say it: --cluster-cidr RANGE."),
        )
    })
}

/// The networks that nodes have their addresses in; without a node's links, its address alone.
pub(super) fn node_networks(cluster: &Cluster, family: Family) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for node in &cluster.nodes {
        let object = cluster.objects.node(&node.name);
        let Some(address) = object.and_then(|object| object.ip(family)) else { continue };
        let links = node.host.iter().flat_map(|host| host.links.iter().flatten());
        let mut assigned = links.flat_map(|link| &link.addresses);
        let on_link = assigned.find(|one| one.local == address).and_then(|one| one.network());
        nets.push(on_link.unwrap_or_else(|| IpNet::from(address)));
    }
    IpNet::aggregate(&nets)
}

/// `10.0.0.0/8`, `{ 10.0.0.0/8, 11.0.0.0/8 }`: as nft takes it.
pub(super) fn nft_set(nets: &[IpNet]) -> String {
    match nets {
        [one] => nft_network(one),
        _ => {
            let words: Vec<String> = nets.iter().map(nft_network).collect();
            format!("{{ {} }}", words.join(", "))
        }
    }
}

/// nft lists a single address without its length.
pub(super) fn nft_network(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        return net.addr().to_string();
    }
    net.to_string()
}

/// `10.0.0.0/8, 11.0.0.0/8`
pub(super) fn listed(nets: &[IpNet]) -> String {
    nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

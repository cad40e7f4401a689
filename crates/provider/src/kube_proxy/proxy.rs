//! What a proxy's configuration and its node mean for one family.
//!
//! In: objects and a [`Config`]. Out: what the generators ask. The facts are those of
//! kubernetes cmd/kube-proxy/app/server.go and server_linux.go, pkg/proxy/util/nodeport_addresses.go
//! and pkg/proxy/util/localdetector.go.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use unmasq_model::packet::Family;

use super::{Config, DetectLocal, Mode, NodePortAddresses};
use unmasq_cluster::kubernetes::{Node, Objects};

/// A proxy of one family.
#[derive(Debug)]
pub(super) struct Proxy<'a> {
    pub(super) config: &'a Config,
    pub(super) family: Family,
    /// The zone of its node.
    pub(super) zone: Option<&'a str>,
    /// The node's address.
    pub(super) node_ip: Option<IpAddr>,
    /// What it takes for pods, if it can tell.
    pub(super) pods: Option<Pods<'a>>,
    pub(super) node_ports: NodePorts,
    /// Whether node ports work on 127.0.0.1.
    pub(super) localhost_node_ports: bool,
}

/// What a proxy takes for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pods<'a> {
    From(IpNet),
    By(&'a str),
    ByPrefix(&'a str),
}

/// Which addresses accept node ports.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NodePorts {
    All,
    /// In their order, each once.
    At(Vec<IpAddr>),
}

impl<'a> Proxy<'a> {
    pub(super) fn new(objects: &'a Objects, config: &'a Config, family: Family) -> Self {
        let node = objects.node(&config.node);
        Proxy {
            config,
            family,
            zone: node.and_then(Node::zone),
            node_ip: node.and_then(|node| node.ip(family)),
            pods: pods(config, node, family),
            node_ports: node_ports(config, node, family),
            localhost_node_ports: match family {
                Family::V4 => localhost_node_ports(config, node),
                Family::V6 => false,
            },
        }
    }
}

/// Whether node ports are wanted on 127.0.0.1 and the addresses that accept them include it.
pub(super) fn localhost_node_ports(config: &Config, node: Option<&Node>) -> bool {
    let first = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0));
    let networks = networks(config, node, Family::V4);
    config.localhost_node_ports
        && networks.iter().any(|net| net.network().is_loopback() || net.contains(&first))
}

fn pods<'a>(config: &'a Config, node: Option<&Node>, family: Family) -> Option<Pods<'a>> {
    let first = |networks: &[IpNet]| {
        networks.iter().find(|network| Family::of(network.addr()) == family).map(IpNet::trunc)
    };
    match &config.detect_local {
        DetectLocal::ClusterCidr(networks) => first(networks).map(Pods::From),
        DetectLocal::NodeCidr => first(&node?.spec.pod_cidrs).map(Pods::From),
        DetectLocal::BridgeInterface(name) => Some(Pods::By(name)),
        DetectLocal::InterfaceNamePrefix(prefix) => Some(Pods::ByPrefix(prefix)),
    }
}

fn node_ports(config: &Config, node: Option<&Node>, family: Family) -> NodePorts {
    let networks = networks(config, node, family);
    if networks.iter().any(|network| network.prefix_len() == 0) {
        return NodePorts::All;
    }
    // A node has its own address even if nobody listed its interfaces.
    let own = node.and_then(|node| node.ip(family));
    let mut addresses: Vec<IpAddr> =
        config.interface_addresses.iter().copied().chain(own).collect();
    addresses.retain(|address| networks.iter().any(|network| network.contains(address)));
    addresses.sort_unstable();
    addresses.dedup();
    NodePorts::At(addresses)
}

/// The networks that accept node ports; without any of the family, all addresses do.
fn networks(config: &Config, node: Option<&Node>, family: Family) -> Vec<IpNet> {
    let own = || node.and_then(|node| node.ip(family)).map(IpNet::from);
    let mut networks: Vec<IpNet> = match (&config.node_port_addresses, config.mode) {
        (NodePortAddresses::Networks(networks), _) => networks.clone(),
        (NodePortAddresses::Primary, _) | (NodePortAddresses::Default, Mode::Nftables) => {
            own().into_iter().collect()
        }
        (NodePortAddresses::Default, Mode::Iptables) => Vec::new(),
    };
    networks.retain(|network| Family::of(network.addr()) == family);
    if networks.is_empty() {
        networks.push(match family {
            Family::V4 => IpNet::V4(Ipv4Net::default()),
            Family::V6 => IpNet::V6(Ipv6Net::default()),
        });
    }
    networks
}

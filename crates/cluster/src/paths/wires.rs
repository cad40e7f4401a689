//! Who receives what a host of a cluster sends: by addresses, the ends of veth pairs, and tunnels.

use std::collections::BTreeMap;
use std::net::IpAddr;

use unmasq_eval::Evaluator;
use unmasq_eval::journey::{Landing, Wiring};
use unmasq_model::host::Host;
use unmasq_model::link::Link;
use unmasq_model::packet::Packet;

use super::Walked;
use crate::Cluster;

/// The devices that carry packets in others' (`linkinfo.info_kind`): the other end has one of the
/// same kind.
const TUNNELS: [&str; 9] =
    ["vxlan", "geneve", "ipip", "sit", "ip6tnl", "gre", "ip6gre", "wireguard", "xfrm"];

/// The wires of a cluster.
pub(super) struct Wires {
    /// Who has an address: hosts with their device.
    owners: BTreeMap<IpAddr, Vec<(usize, Box<str>)>>,
    /// By host.
    hosts: Vec<Ends>,
    /// Hosts of nodes, by index of the node.
    nodes: BTreeMap<usize, usize>,
    /// Addresses of pods that have no captured namespace, with the node's index.
    pods: BTreeMap<IpAddr, usize>,
    /// Addresses of nodes that were not captured.
    strangers: BTreeMap<IpAddr, String>,
    /// Addresses that load balancers answer for.
    balancers: Vec<IpAddr>,
    /// Services' own addresses: cluster IPs and external IPs, which no host has.
    services: Vec<IpAddr>,
    /// Names of nodes.
    names: Vec<String>,
}

/// What a host is plugged into.
struct Ends {
    walked: Walked,
    /// Kinds of its devices.
    kinds: BTreeMap<Box<str>, Box<str>>,
    /// Of a pod: the device of its node at the other end, by the pod's own device.
    ports: BTreeMap<Box<str>, Result<Box<str>, String>>,
}

impl Wires {
    pub(super) fn new(
        cluster: &Cluster,
        hosts: &[Walked],
        states: &[&Host],
        evaluators: &[Evaluator],
    ) -> Wires {
        let mut owners: BTreeMap<IpAddr, Vec<(usize, Box<str>)>> = BTreeMap::new();
        let mut nodes = BTreeMap::new();
        for (index, (walked, state)) in hosts.iter().zip(states).enumerate() {
            if let Walked::Node(node) = walked {
                nodes.insert(*node, index);
            }
            for link in state.links.iter().flatten().filter(|link| !link.loopback) {
                for address in &link.addresses {
                    let owner = (index, link.name.clone());
                    owners.entry(address.local).or_default().push(owner);
                }
            }
        }
        let ends = hosts.iter().zip(states).map(|(walked, state)| {
            let kinds = links(state)
                .filter_map(|link| Some((link.name.clone(), link.kind.clone()?)))
                .collect();
            let ports = match walked {
                Walked::Node(_) => BTreeMap::new(),
                Walked::Pod { node, .. } => {
                    let node = nodes.get(node).copied();
                    let at = node.and_then(|at| Some((*states.get(at)?, evaluators.get(at)?)));
                    links(state)
                        .filter(|link| !link.loopback)
                        .map(|link| (link.name.clone(), port(link, at)))
                        .collect()
                }
            };
            Ends { walked: *walked, kinds, ports }
        });
        let hosts = ends.collect();
        let mut wires = Wires {
            owners,
            hosts,
            nodes,
            pods: BTreeMap::new(),
            strangers: BTreeMap::new(),
            balancers: Vec::new(),
            services: Vec::new(),
            names: cluster.nodes.iter().map(|node| node.name.clone()).collect(),
        };
        wires.add_objects(cluster);
        wires
    }

    fn add_objects(&mut self, cluster: &Cluster) {
        for (index, node) in cluster.nodes.iter().enumerate() {
            let object = cluster.objects.node(&node.name);
            let addresses = object.into_iter().flat_map(|node| &node.status.addresses);
            for address in addresses.filter_map(|address| address.address.parse().ok()) {
                if !self.nodes.contains_key(&index) {
                    self.strangers.insert(address, node.name.clone());
                }
            }
        }
        for (address, node) in cluster.pod_addresses() {
            if !self.owners.contains_key(&address) {
                self.pods.insert(address, node);
            }
        }
        let services = cluster.objects.services.iter();
        self.balancers = services
            .flat_map(|service| &service.status.load_balancer.ingress)
            .filter_map(|ingress| ingress.ip)
            .collect();
        self.balancers.sort();
        self.balancers.dedup();
        let specs = cluster.objects.services.iter().map(|service| &service.spec);
        self.services = specs
            .flat_map(|spec| {
                spec.cluster_ips.iter().chain(&spec.cluster_ip).chain(&spec.external_ips)
            })
            .copied()
            .collect();
        self.services.sort();
        self.services.dedup();
    }

    /// The host of a node.
    pub(super) fn node(&self, node: usize) -> Option<usize> {
        self.nodes.get(&node).copied()
    }

    /// The host of a pod with that address, if its namespace was captured.
    pub(super) fn pod(&self, address: IpAddr) -> Option<usize> {
        let owners = self.owners.get(&address)?;
        let is_pod = |host: &usize| {
            self.hosts.get(*host).is_some_and(|ends| matches!(ends.walked, Walked::Pod { .. }))
        };
        owners.iter().map(|(host, _)| *host).find(is_pod)
    }

    /// Whether a pod is known to have that address.
    pub(super) fn is_pod(&self, address: IpAddr) -> bool {
        self.pods.contains_key(&address) || self.pod(address).is_some()
    }

    /// From a pod: to its node, whatever the next hop.
    fn sent_by_pod(&self, ends: &Ends, node: usize, device: &str) -> Landing {
        match (ends.ports.get(device), self.captured(node)) {
            (Some(Ok(port)), Ok(host)) => Landing::Host { host, device: port.clone() },
            (Some(Err(why)), _) => Landing::Unknown(why.clone()),
            (_, Err(why)) => Landing::Unknown(why),
            (None, _) => Landing::Unknown(format!("nothing is known of what is behind {device}")),
        }
    }

    /// The host of a node; `Err`: a sentence.
    pub(super) fn captured(&self, node: usize) -> Result<usize, String> {
        let name = || self.names.get(node).map_or("?", String::as_str);
        self.node(node).ok_or_else(|| not_captured(name()))
    }

    /// The owner of an address that is not the sender itself.
    fn owner(&self, from: usize, address: IpAddr) -> impl Iterator<Item = &(usize, Box<str>)> {
        self.owners.get(&address).into_iter().flatten().filter(move |(host, _)| *host != from)
    }

    /// Into a tunnel: out of it at the node that has the address, by a device of the same kind.
    fn through(&self, from: usize, kind: &str, device: &str, next_hop: IpAddr) -> Landing {
        for (host, _) in self.owner(from, next_hop) {
            let Some(ends) = self.hosts.get(*host) else { continue };
            let alike = ends.kinds.iter().filter(|(_, of)| ***of == *kind).map(|(name, _)| name);
            let named = alike.clone().find(|name| ***name == *device);
            if let Some(device) = named.or_else(|| alike.clone().next()) {
                return Landing::Host { host: *host, device: device.clone() };
            }
        }
        if let Some(name) = self.strangers.get(&next_hop) {
            return Landing::Unknown(not_captured(name));
        }
        Landing::Unknown(format!(
            "{device} is a tunnel, and none of the captured nodes has {next_hop} at its other end"
        ))
    }

    /// From a node's own device.
    fn sent_by_node(&self, from: usize, node: usize, next_hop: IpAddr, packet: &Packet) -> Landing {
        let near = |host: usize| match self.hosts.get(host).map(|ends| ends.walked) {
            Some(Walked::Pod { node: of, .. }) => of == node,
            Some(Walked::Node(_)) | None => false,
        };
        let destination = packet.destination;
        let owners = || self.owner(from, next_hop);
        if let Some((host, device)) = owners().find(|(host, _)| near(*host)) {
            return Landing::Host { host: *host, device: device.clone() };
        }
        if self.pods.get(&next_hop) == Some(&node) {
            return Landing::Beyond;
        }
        let is_node =
            |host: usize| self.hosts.get(host).is_some_and(|e| matches!(e.walked, Walked::Node(_)));
        // A node's address may be on a tunnel device too, which packets don't come in by here.
        let plain = |(host, device): &&(usize, Box<str>)| {
            is_node(*host) && !self.hosts[*host].is_tunnel(device)
        };
        if let Some((host, device)) =
            owners().find(plain).or_else(|| self.owner(from, destination).find(plain))
        {
            return Landing::Host { host: *host, device: device.clone() };
        }
        let stranger = self.strangers.get(&next_hop).or_else(|| self.strangers.get(&destination));
        if let Some(name) = stranger {
            return Landing::Unknown(not_captured(name));
        }
        let elsewhere = self.pods.get(&destination).copied().or_else(|| {
            match self.hosts.get(self.pod(destination)?)?.walked {
                Walked::Pod { node, .. } | Walked::Node(node) => Some(node),
            }
        });
        if let Some(other) = elsewhere.filter(|other| *other != node) {
            let name = self.names.get(other).map_or("?", String::as_str);
            return Landing::Unknown(format!(
                "{destination} is a pod of node {name}, and the packet goes to the router \
                 {next_hop}: whether that one knows the pods' networks was not captured"
            ));
        }
        if self.balancers.binary_search(&destination).is_ok() {
            return Landing::Unknown(format!(
                "the packet goes to the load balancer that answers for {destination}: what that \
                 one does was not captured"
            ));
        }
        // Nothing here translated it. Where such addresses are announced, the router sends it back.
        if self.services.binary_search(&destination).is_ok() {
            return Landing::Unknown(format!(
                "{destination} is the address of a Service, and the packet goes to the router \
                 {next_hop}: what that one does was not captured"
            ));
        }
        Landing::Beyond
    }
}

impl Ends {
    fn is_tunnel(&self, device: &str) -> bool {
        self.kinds.get(device).is_some_and(|kind| TUNNELS.contains(&&**kind))
    }
}

impl Wiring for Wires {
    fn next(&self, host: usize, device: &str, next_hop: IpAddr, packet: &Packet) -> Landing {
        let Some(ends) = self.hosts.get(host) else { return Landing::Nowhere };
        match (ends.walked, ends.kinds.get(device)) {
            (Walked::Pod { node, .. }, _) => self.sent_by_pod(ends, node, device),
            (Walked::Node(_), Some(kind)) if TUNNELS.contains(&&**kind) => {
                self.through(host, kind, device, next_hop)
            }
            (Walked::Node(node), _) => self.sent_by_node(host, node, next_hop, packet),
        }
    }
}

fn not_captured(node: &str) -> String {
    format!("the state of node {node} was not captured")
}

fn links(state: &Host) -> impl Iterator<Item = &Link> {
    state.links.iter().flatten()
}

/// The node's end of a pod's device: the other end of the veth pair, each of which names the
/// other's index; else the device that the node's route to the pod leads to.
fn port(link: &Link, node: Option<(&Host, &Evaluator)>) -> Result<Box<str>, String> {
    let (state, evaluator) = node.ok_or("the node of this pod was not captured")?;
    let peers = |other: &&Link| {
        Some(other.index) == link.peer && other.peer.is_none_or(|index| index == link.index)
    };
    if let Some(other) = links(state).find(peers) {
        return Ok(other.name.clone());
    }
    let Some(address) = link.addresses.first() else {
        return Err(format!("which device of the node {} is plugged into is not known", link.name));
    };
    evaluator.device_towards(address.local)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use unmasq_model::packet::Protocol;

    use super::*;
    use crate::Node;
    use crate::kubernetes::Objects;

    /// No rule may be about a Service without endpoints: its packets leave, and arrive nowhere.
    #[test]
    fn nobody_outside_has_the_address_of_a_service() {
        let mut objects = Objects::default();
        let spec = json!({"clusterIPs": ["10.96.0.80"], "externalIPs": ["203.0.113.80"]});
        let service = json!({"kind": "Service", "metadata": {"name": "web"}, "spec": spec});
        objects.add(&service).unwrap();
        let host = Host::default();
        let node = Node { name: "n1".into(), host: Some(host.clone()), ..Node::default() };
        let cluster = Cluster { nodes: vec![node], objects, ..Cluster::default() };
        let wires = Wires::new(&cluster, &[Walked::Node(0)], &[&host], &[]);
        let sent = |to: &str| {
            let from = "10.244.1.2".parse().unwrap();
            let to = to.parse().unwrap();
            let packet = Packet::open(Protocol::TCP, from, Some(40_000), to, Some(80));
            wires.next(0, "eth0", "10.0.0.1".parse().unwrap(), &packet)
        };
        for service in ["10.96.0.80", "203.0.113.80"] {
            let landing = sent(service);
            let said = matches!(&landing, Landing::Unknown(why) if why.contains("of a Service"));
            assert!(said, "{service}: {landing:?}");
        }
        assert!(matches!(sent("203.0.113.81"), Landing::Beyond));
    }
}

//! What is asked: every Service port from and by every node, pods and nodes directly, and egress.
//!
//! Questions about a Service grow with the number of nodes, those between nodes with the number of
//! neighbours of each, which is bounded: so nothing grows with the square of the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{self, IpMode, Service, ServiceType};
use unmasq_cluster::paths::{Call, Caller, Paths};
use unmasq_model::packet::{Family, Protocol};

use super::{Clients, Entry, Outside, Policy};

/// Both families.
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// In clusters of so many nodes, each is asked about all others; in larger ones about as many.
const NEIGHBOURS: usize = 12;
/// The port that calls come from.
const SOURCE_PORT: u16 = 43_210;
/// Kubelet's, for calls of nodes.
const NODE_PORT: u16 = 10_250;
/// The port of pods that name none.
const POD_PORT: u16 = 8080;

/// One question.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    pub(super) call: Call,
    pub(super) entry: Entry,
    pub(super) policy: Option<Policy>,
    /// The node that takes the packet; its own endpoints are "here".
    pub(super) taker: usize,
    /// Who calls, if it is somebody outside.
    pub(super) outside: Option<Outside>,
    pub(super) service: Option<(u32, u32)>,
}

/// What questions are made of.
pub(super) struct Questions<'p, 'c> {
    cluster: &'c Cluster,
    clients: &'p Clients,
    /// Nodes that were captured.
    nodes: Vec<usize>,
    /// Pods by node: address by family.
    pods: BTreeMap<usize, [Vec<IpAddr>; 2]>,
    /// Nodes' own addresses, by family.
    addresses: BTreeMap<usize, [Option<IpAddr>; 2]>,
    /// Addresses of endpoints, by namespace and Service.
    endpoints: BTreeMap<(&'c str, &'c str), Vec<IpAddr>>,
}

fn at(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

impl<'p, 'c> Questions<'p, 'c> {
    pub(super) fn new(paths: &Paths<'c>, clients: &'p Clients) -> Self {
        let cluster = paths.cluster();
        let nodes: Vec<usize> =
            (0..cluster.nodes.len()).filter(|node| paths.is_walked(*node)).collect();
        let mut addresses = BTreeMap::new();
        for node in &nodes {
            let object = cluster.objects.node(&cluster.nodes[*node].name);
            let of = |family| match object {
                Some(object) => object.ip(family),
                None => {
                    let anybody = clients.destinations.iter();
                    let mut anybody = anybody.filter(|one| Family::of(**one) == family);
                    paths.node_address(*node, *anybody.next()?).ok()
                }
            };
            addresses.insert(*node, FAMILIES.map(of));
        }
        let own: BTreeSet<IpAddr> =
            addresses.values().flatten().filter_map(|address| *address).collect();
        let mut pods: BTreeMap<usize, [Vec<IpAddr>; 2]> = BTreeMap::new();
        for (address, node) in cluster.pod_addresses() {
            if !own.contains(&address) {
                pods.entry(node).or_default()[at(Family::of(address))].push(address);
            }
        }
        for found in pods.values_mut().flatten() {
            found.sort();
            found.dedup();
        }
        let mut endpoints: BTreeMap<(&str, &str), Vec<IpAddr>> = BTreeMap::new();
        for slice in &cluster.objects.endpoint_slices {
            let Some(service) = slice.service() else { continue };
            let all = endpoints.entry((&*slice.metadata.namespace, service)).or_default();
            let found = slice.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first());
            all.extend(found);
        }
        Questions { cluster, clients, nodes, pods, addresses, endpoints }
    }

    /// What is asked of a Service.
    pub(super) fn of_service(&self, index: usize) -> Vec<Question> {
        let service = &self.cluster.objects.services[index];
        let mut all = Vec::new();
        if service.spec.kind == ServiceType::ExternalName {
            return all;
        }
        for (number, port) in service.spec.ports.iter().enumerate() {
            let id = (index as u32, number as u32);
            for family in FAMILIES {
                self.of_port(service, id, port, family, &mut all);
            }
        }
        all
    }

    fn of_port(
        &self,
        service: &Service,
        id: (u32, u32),
        port: &kubernetes::ServicePort,
        family: Family,
        all: &mut Vec<Question>,
    ) {
        let internal = Some(Policy::from(service.spec.internal_traffic_policy));
        let external = Some(Policy::from(service.spec.external_traffic_policy));
        let protocol = protocol(port.protocol);
        let to = |address, port| Target { address, port, protocol, service: Some(id) };
        for node in &self.nodes {
            let pods = self.callers(*node, service, family);
            if let Some(address) = service.cluster_ip(family) {
                let target = to(address, port.port);
                self.asked_inside(*node, &pods, Entry::ClusterIp, internal, &target, all);
            }
            let listed = |entry, address: IpAddr, all: &mut Vec<Question>| {
                if Family::of(address) != family {
                    return;
                }
                let target = to(address, port.port);
                self.asked_inside(*node, &pods, entry, external, &target, all);
                self.asked_outside(*node, service, entry, external, &target, all);
            };
            // A load balancer in Proxy mode calls a node or a pod by its own address.
            for ingress in &service.status.load_balancer.ingress {
                if let (Some(address), IpMode::Vip) = (ingress.ip, ingress.ip_mode) {
                    listed(Entry::LoadBalancer, address, all);
                }
            }
            for address in &service.spec.external_ips {
                listed(Entry::ExternalIp, *address, all);
            }
            let has_family = service.cluster_ip(family).is_some();
            let (Some(node_port), Some(address)) =
                (port.node_port.filter(|_| has_family), self.addresses[node][at(family)])
            else {
                continue;
            };
            let target = to(address, node_port);
            self.asked_inside(*node, &pods, Entry::NodePort, external, &target, all);
            self.asked_outside(*node, service, Entry::NodePort, external, &target, all);
            if let Some(other) = self.neighbours(*node).next() {
                let pods = self.callers(other, service, family);
                let callers =
                    pods.first().map(|address| Caller::Pod { node: other, address: *address });
                for from in callers.into_iter().chain([Caller::Node(other)]) {
                    let question = target.asked(from, Entry::NodePort, external);
                    all.push(Question { taker: *node, ..question });
                }
            }
        }
        for ingress in &service.status.load_balancer.ingress {
            let Some(address) = ingress.ip.filter(|one| Family::of(*one) == family) else {
                continue;
            };
            if ingress.ip_mode == IpMode::Proxy {
                let target = to(address, port.port);
                let owns = |node: &&usize| self.addresses[*node][at(family)] == Some(address);
                if let Some(node) = self.nodes.iter().find(owns) {
                    let entry = Entry::LoadBalancer;
                    self.asked_outside(*node, service, entry, external, &target, all);
                }
            }
        }
    }

    /// Pods of a node that call: one that is no endpoint of the Service, and one that is.
    fn callers(&self, node: usize, service: &Service, family: Family) -> Vec<IpAddr> {
        let key = (&*service.metadata.namespace, &*service.metadata.name);
        let endpoints = self.endpoints.get(&key).map_or(&[][..], Vec::as_slice);
        let pods = self.pods.get(&node).map_or(&[][..], |pods| &pods[at(family)]);
        let other = pods.iter().find(|pod| !endpoints.contains(pod)).copied();
        let other = other.or_else(|| self.spare(node, family));
        let own = endpoints.iter().find(|one| pods.binary_search(one).is_ok()).copied();
        other.into_iter().chain(own).collect()
    }

    /// An address of the node's pod network that no known pod has.
    fn spare(&self, node: usize, family: Family) -> Option<IpAddr> {
        let object = self.cluster.objects.node(&self.cluster.nodes[node].name)?;
        let mut nets = object.pod_cidrs().filter(|net| Family::of(net.addr()) == family);
        super::clients::somebody(nets.next()?, &[])
    }

    fn asked_inside(
        &self,
        node: usize,
        pods: &[IpAddr],
        entry: Entry,
        policy: Option<Policy>,
        target: &Target,
        all: &mut Vec<Question>,
    ) {
        for address in pods {
            all.push(target.asked(Caller::Pod { node, address: *address }, entry, policy));
        }
        all.push(target.asked(Caller::Node(node), entry, policy));
    }

    fn asked_outside(
        &self,
        node: usize,
        service: &Service,
        entry: Entry,
        policy: Option<Policy>,
        target: &Target,
        all: &mut Vec<Question>,
    ) {
        let ranges = service.spec.load_balancer_source_ranges.iter();
        let of_ranges = ranges.take(4).filter_map(|net| {
            Some((Outside::NamedBySetting(*net), super::clients::somebody(*net, &[])?))
        });
        for (outside, address) in self.clients.callers.iter().cloned().chain(of_ranges) {
            if Family::of(address) == Family::of(target.address) {
                let from = Caller::Outside { node, address };
                let question = target.asked(from, entry, policy);
                all.push(Question { outside: Some(outside), ..question });
            }
        }
    }

    /// Other captured nodes: all, or as many as are enough, in a ring.
    fn neighbours(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let place = self.nodes.iter().position(|one| *one == node).unwrap_or(0);
        let count = self.nodes.len();
        (1..count.min(NEIGHBOURS + 1)).map(move |step| self.nodes[(place + step) % count])
    }

    /// What is asked without a Service.
    pub(super) fn direct(&self) -> Vec<Question> {
        let mut all = Vec::new();
        for node in &self.nodes {
            for family in FAMILIES {
                self.asked_by_node(*node, family, &mut all);
            }
        }
        all
    }

    fn asked_by_node(&self, node: usize, family: Family, all: &mut Vec<Question>) {
        let pods = |node: usize| self.pods.get(&node).map_or(&[][..], |pods| &pods[at(family)]);
        let tcp = |address, port| Target { address, port, protocol: Protocol::TCP, service: None };
        let own: Vec<IpAddr> = match pods(node) {
            [] => self.spare(node, family).into_iter().collect(),
            [one] => vec![*one],
            [one, two, ..] => vec![*one, *two],
        };
        let from = own.first().map(|address| Caller::Pod { node, address: *address });
        let callers = || from.clone().into_iter().chain([Caller::Node(node)]);
        for other in [node].into_iter().chain(self.neighbours(node)) {
            let called = match other == node {
                true => own.get(1),
                false => pods(other).first(),
            };
            if let Some(pod) = called {
                let target = tcp(*pod, POD_PORT);
                all.extend(callers().map(|from| target.asked(from, Entry::Pod, None)));
            }
            if let (Some(address), Some(from)) = (self.addresses[&other][at(family)], &from) {
                all.push(tcp(address, NODE_PORT).asked(from.clone(), Entry::Node, None));
            }
        }
        for destination in self.clients.destinations.iter().filter(|d| Family::of(**d) == family) {
            if let Some(from) = &from {
                all.push(tcp(*destination, 443).asked(from.clone(), Entry::Outside, None));
            }
        }
        if let Some(pod) = pods(node).first() {
            for (outside, address) in &self.clients.callers {
                if Family::of(*address) == family {
                    let from = Caller::Outside { node, address: *address };
                    let question = tcp(*pod, POD_PORT).asked(from, Entry::Pod, None);
                    all.push(Question { outside: Some(outside.clone()), ..question });
                }
            }
        }
    }
}

/// What is called.
struct Target {
    address: IpAddr,
    port: u16,
    protocol: Protocol,
    service: Option<(u32, u32)>,
}

impl Target {
    fn asked(&self, from: Caller, entry: Entry, policy: Option<Policy>) -> Question {
        let taker = from.node();
        let call = Call {
            from,
            source_port: Some(SOURCE_PORT),
            to: self.address,
            port: Some(self.port),
            protocol: self.protocol,
        };
        Question { call, entry, policy, taker, outside: None, service: self.service }
    }
}

fn protocol(protocol: kubernetes::Protocol) -> Protocol {
    match protocol {
        kubernetes::Protocol::Tcp => Protocol::TCP,
        kubernetes::Protocol::Udp => Protocol::UDP,
        kubernetes::Protocol::Sctp => Protocol::SCTP,
    }
}

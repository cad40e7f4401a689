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

use super::clients::MAX_RANGES;
use super::pods::{NamedCall, NamedPod};
use super::stand_in;
use super::{Clients, Entry, Outside, Policy};

/// Both families.
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// In clusters of so many nodes, each is asked about all others; in larger ones about as many.
pub(super) const NEIGHBOURS: usize = 12;
/// The port that calls come from.
const SOURCE_PORT: u16 = 43_210;
/// Kubelet's, for calls of nodes.
pub(super) const NODE_PORT: u16 = 10_250;
/// The port of pods that name none.
pub(super) const POD_PORT: u16 = 8080;

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
    /// Of each node of the cluster: its place among those that were captured.
    places: Vec<Option<usize>>,
    /// Of each node, addresses that no known pod has, to call from where no pod is known: one of its
    /// pods' network for each family, or one of each bridge.
    spares: Vec<Vec<IpAddr>>,
    /// What is taken for granted of whom is asked for.
    pub(super) assumptions: Vec<String>,
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
        let mut places = vec![None; cluster.nodes.len()];
        for (place, node) in nodes.iter().enumerate() {
            places[*node] = Some(place);
        }
        let named = cluster.objects.nodes.iter().map(|node| (&*node.metadata.name, node));
        let named: BTreeMap<&str, &kubernetes::Node> = named.collect();
        let found = cluster.nodes.iter().enumerate();
        let objects: BTreeMap<usize, &kubernetes::Node> =
            found.filter_map(|(index, node)| Some((index, *named.get(&*node.name)?))).collect();
        let mut addresses = BTreeMap::new();
        for node in &nodes {
            let of = |family| match objects.get(node) {
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
        let mut assumptions = Vec::new();
        let mut spares = vec![Vec::new(); cluster.nodes.len()];
        for node in &nodes {
            spares[*node] = match objects.get(node) {
                Some(object) => first_of_each_family(object),
                None if pods.contains_key(node) => Vec::new(),
                None => {
                    let bridges = stand_in::bridges(paths, *node);
                    assumptions.extend(stand_in::assumption(&cluster.nodes[*node].name, &bridges));
                    bridges.iter().map(|bridge| bridge.somebody).collect()
                }
            };
        }
        Questions {
            assumptions,
            cluster,
            clients,
            nodes,
            places,
            spares,
            pods,
            addresses,
            endpoints,
        }
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

    /// An address that no known pod of the node has.
    fn spare(&self, node: usize, family: Family) -> Option<IpAddr> {
        self.spares_of(node, family).next()
    }

    fn spares_of(&self, node: usize, family: Family) -> impl Iterator<Item = IpAddr> + '_ {
        self.spares[node].iter().copied().filter(move |address| Family::of(*address) == family)
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
        // Whom everybody is named with is asked anyway.
        let ranges = ranges.take(MAX_RANGES).filter(|net| net.prefix_len() > 0);
        let of_ranges = ranges.filter_map(|net| {
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
        let place = self.places[node].unwrap_or(0);
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
        self.clients.pods.iter().for_each(|pod| self.asked_by_named(pod, &mut all));
        self.clients.calls.iter().for_each(|call| self.asked_of_named(call, &mut all));
        all
    }

    fn asked_by_node(&self, node: usize, family: Family, all: &mut Vec<Question>) {
        let pods = self.pods_of(node, family);
        let callers = self.callers_of(node, family);
        for other in [node].into_iter().chain(self.neighbours(node)) {
            let called = match other == node {
                true => pods.get(1),
                false => self.pods_of(other, family).first(),
            };
            if let Some(pod) = called {
                let target = direct(*pod, Protocol::TCP, POD_PORT);
                let callers = callers.iter().cloned().chain([Caller::Node(node)]);
                all.extend(callers.map(|from| target.asked(from, Entry::Pod, None)));
            }
            callers.iter().for_each(|from| self.asked_of_node(other, from, family, all));
        }
        callers.iter().for_each(|from| self.asked_beyond(from, family, all));
        if let Some(pod) = pods.first() {
            self.asked_by_clients(node, &direct(*pod, Protocol::TCP, POD_PORT), all);
        }
    }

    /// Pods of a node.
    fn pods_of(&self, node: usize, family: Family) -> &[IpAddr] {
        self.pods.get(&node).map_or(&[], |pods| &pods[at(family)])
    }

    /// Who calls from a node: a pod of it, or whoever stands for its pods.
    fn callers_of(&self, node: usize, family: Family) -> Vec<Caller> {
        let known = self.pods_of(node, family).first().copied();
        let spares = self.spares_of(node, family).filter(|_| known.is_none());
        let callers = known.into_iter().chain(spares);
        callers.map(|address| Caller::Pod { node, address }).collect()
    }

    /// A pod of a node that calls, and isn't this one.
    fn caller(&self, node: usize, family: Family, but: Option<IpAddr>) -> Option<Caller> {
        let mut pods = self.pods_of(node, family).iter().filter(|one| Some(**one) != but);
        let address = pods.next().copied().or_else(|| self.spare(node, family))?;
        Some(Caller::Pod { node, address })
    }

    fn asked_of_node(&self, node: usize, from: &Caller, family: Family, all: &mut Vec<Question>) {
        if let Some(address) = self.addresses[&node][at(family)] {
            let target = direct(address, Protocol::TCP, NODE_PORT);
            all.push(target.asked(from.clone(), Entry::Node, None));
        }
    }

    /// Calls to the outside.
    fn asked_beyond(&self, from: &Caller, family: Family, all: &mut Vec<Question>) {
        for to in self.clients.destinations.iter().filter(|to| Family::of(**to) == family) {
            let target = direct(*to, Protocol::TCP, 443);
            all.push(target.asked(from.clone(), Entry::Outside, None));
        }
    }

    /// Calls from the outside that come to a node for a pod of it.
    fn asked_by_clients(&self, node: usize, target: &Target, all: &mut Vec<Question>) {
        for (outside, address) in &self.clients.callers {
            if Family::of(*address) == Family::of(target.address) {
                let from = Caller::Outside { node, address: *address };
                let question = target.asked(from, Entry::Pod, None);
                all.push(Question { outside: Some(outside.clone()), ..question });
            }
        }
    }

    /// Calls of a pod that rules name: to the nodes that have them too.
    fn asked_by_named(&self, pod: &NamedPod, all: &mut Vec<Question>) {
        let family = Family::of(pod.address);
        if self.places[pod.node].is_none() {
            return;
        }
        let from = Caller::Pod { node: pod.node, address: pod.address };
        let others = self.neighbours(pod.node).chain([pod.node]);
        for other in self.also(&pod.rules_of, others) {
            let mut called = self.pods_of(other, family).iter();
            if let Some(called) = called.find(|called| **called != pod.address) {
                let target = direct(*called, Protocol::TCP, POD_PORT);
                all.push(target.asked(from.clone(), Entry::Pod, None));
            }
            self.asked_of_node(other, &from, family, all);
        }
        self.asked_beyond(&from, family, all);
    }

    /// Calls to a pod or a port that rules name: from the nodes that have them too.
    fn asked_of_named(&self, call: &NamedCall, all: &mut Vec<Question>) {
        if let Some((address, node)) = call.pod {
            let others = self.neighbours(node).chain([node]);
            let others = self.also(&call.rules_of, others);
            self.asked_of_pod(node, &direct(address, call.protocol, call.port), &others, all);
            return;
        }
        for node in &self.nodes {
            for family in FAMILIES {
                // Each node calls another in turn.
                let others: BTreeSet<usize> =
                    self.neighbours(*node).take(1).chain([*node]).collect();
                if let Some(pod) = self.pods_of(*node, family).first() {
                    let target = direct(*pod, call.protocol, call.port);
                    self.asked_of_pod(*node, &target, &others, all);
                }
            }
        }
    }

    fn asked_of_pod(
        &self,
        node: usize,
        target: &Target,
        others: &BTreeSet<usize>,
        all: &mut Vec<Question>,
    ) {
        if self.places[node].is_none() {
            return;
        }
        let family = Family::of(target.address);
        for other in others {
            let pod = self.caller(*other, family, Some(target.address));
            let callers = pod.into_iter().chain([Caller::Node(*other)]);
            all.extend(callers.map(|from| target.asked(from, Entry::Pod, None)));
        }
        let named = self.clients.pods.iter().filter(|pod| {
            Family::of(pod.address) == family
                && pod.address != target.address
                && self.places[pod.node].is_some()
        });
        for pod in named {
            let from = Caller::Pod { node: pod.node, address: pod.address };
            all.push(target.asked(from, Entry::Pod, None));
        }
        self.asked_by_clients(node, target, all);
    }

    /// Nodes with others, as far as they were captured.
    fn also(
        &self,
        nodes: &BTreeSet<usize>,
        others: impl Iterator<Item = usize>,
    ) -> BTreeSet<usize> {
        let all = nodes.iter().copied().chain(others);
        all.filter(|node| self.places[*node].is_some()).collect()
    }
}

/// An address of a node's pod network for each family.
fn first_of_each_family(node: &kubernetes::Node) -> Vec<IpAddr> {
    let of = |family| node.pod_cidrs().find(|net| Family::of(net.addr()) == family);
    let somebody = |net| super::clients::somebody(net, &[]);
    FAMILIES.into_iter().filter_map(of).filter_map(somebody).collect()
}

/// A pod or a node by its own address.
fn direct(address: IpAddr, protocol: Protocol, port: u16) -> Target {
    Target { address, port, protocol, service: None }
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

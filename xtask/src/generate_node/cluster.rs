//! The Services, endpoints and names of a generated cluster.
//!
//! Nothing is stored: each Service and endpoint follows from its number. Service network
//! 10.96.0.0/12, pod network 10.128.0.0/14 with a /24 for each of up to 250 nodes, node network
//! 10.250.0.0/24, load balancers' addresses in 198.18.0.0/15.
//!
//! A lone node sees 250 nodes and Services of two kinds; a whole cluster has as many nodes as are
//! asked for, Services of all kinds, and endpoints that are pods of the Service's namespace. In the
//! other [`Shape`]s a node's pods are as many as its Services' endpoints, in a network as large as
//! there is room for, and node ports are 10000 and up.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

/// All pods of the cluster.
pub(crate) const POD_NETWORK: &str = "10.128.0.0/14";
/// All Services.
pub(crate) const SERVICE_NETWORK: &str = "10.96.0.0/12";
/// The port of each Service.
pub(crate) const PORT: u16 = 80;
/// The port of each endpoint.
pub(crate) const TARGET_PORT: u16 = 8080;
/// A pod of the generated node, and a port of it.
pub(crate) const CLIENT: &str = "10.128.5.5:40000";

/// How many nodes there are at most, and how many a lone node sees.
pub(crate) const MOST_NODES: u32 = 250;
/// The lone node that is generated, counted from 0.
pub(super) const LONE_NODE: u32 = 5;
/// How many pods each node has, unless the shape is another.
pub(crate) const PODS_OF_A_NODE: u32 = 100;
/// Namespaces of a whole cluster. Each node has as many pods of each.
pub(crate) const NAMESPACES: u32 = 10;
/// Pods of a namespace on a node: so many endpoints can be on one node.
pub(crate) const PODS_OF_A_NAMESPACE: u32 = PODS_OF_A_NODE / NAMESPACES;
/// Kubernetes' default range of node ports is 30000 to 32767: later Services get none.
const NODE_PORTS: RangeInclusive<u32> = 30_000..=32_767;
/// The same in a whole cluster, where the rest is for health checks.
const NODE_PORTS_BESIDE_CHECKS: RangeInclusive<u32> = 30_000..=31_999;
const HEALTH_CHECK_NODE_PORTS: RangeInclusive<u32> = 32_000..=32_767;
/// The same where every Service has one: `--service-node-port-range=10000-65535`.
const NODE_PORTS_OF_ALL: RangeInclusive<u32> = 10_000..=37_767;
const HEALTH_CHECK_NODE_PORTS_OF_ALL: RangeInclusive<u32> = 37_768..=65_535;

/// What the Services of a whole cluster are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Shape {
    /// All kinds, most of them ClusterIPs; their pods are few.
    #[default]
    Mixed,
    /// All are load balanced with `externalTrafficPolicy: Local` and select pods of their own.
    Local,
    /// All are load balanced with `Cluster`, and a NetworkPolicy names clients of the pods of each.
    Policies,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::Mixed => "mixed",
            Shape::Local => "local",
            Shape::Policies => "policies",
        })
    }
}

/// A cluster by its size, as one of its nodes sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster {
    pub(crate) services: u32,
    pub(crate) endpoints: u32,
    pub(crate) nodes: u32,
    /// The node whose state is generated, counted from 0.
    pub(crate) this_node: u32,
    /// Whether all nodes are generated.
    whole: bool,
    pub(crate) shape: Shape,
}

/// A Service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    /// Counted from 0.
    pub(crate) number: u32,
    namespace: u32,
    /// Cluster IP.
    pub(crate) address: Ipv4Addr,
    /// Every tenth Service has one.
    pub(crate) node_port: Option<u16>,
    /// A load balancer's address.
    pub(crate) load_balancer: Option<Ipv4Addr>,
    /// `externalTrafficPolicy: Local`
    pub(crate) local: bool,
    /// Those of policy Local that have a load balancer.
    pub(crate) health_check_node_port: Option<u16>,
}

/// An endpoint of a Service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint {
    /// Its Service.
    pub(crate) service: u32,
    /// Counted from 0 within the Service.
    pub(crate) number: u32,
    /// Its node, and its pod there, counted from 0.
    pub(crate) node: u32,
    pub(crate) pod: u32,
    /// The pod's address.
    pub(crate) address: Ipv4Addr,
    /// Whether the pod is on the generated node.
    pub(crate) local: bool,
}

impl Cluster {
    /// The cluster of a lone node.
    pub(super) fn of_lone_node(services: u32, endpoints: u32) -> Self {
        let (nodes, this_node) = (MOST_NODES, LONE_NODE);
        Cluster { services, endpoints, nodes, this_node, whole: false, shape: Shape::Mixed }
    }

    /// A whole cluster, as its first node sees it.
    pub(crate) fn whole(services: u32, endpoints: u32, nodes: u32) -> Self {
        let shape = Shape::Mixed;
        Cluster { services, endpoints, nodes, this_node: 0, whole: true, shape }
    }

    /// The same with other Services.
    pub(crate) fn of_shape(self, shape: Shape) -> Self {
        Cluster { shape, ..self }
    }

    /// How many endpoints a Service can have, and how many Services there can be.
    pub(crate) fn room(&self) -> (u32, u32) {
        match self.shape {
            Shape::Mixed => (self.nodes * PODS_OF_A_NAMESPACE, u32::MAX),
            Shape::Local | Shape::Policies => {
                let addresses = (1 << self.host_bits()) - 3;
                let ports = NODE_PORTS_OF_ALL.end() - NODE_PORTS_OF_ALL.start() + 1;
                (self.nodes * addresses, ports.min(addresses / self.share()))
            }
        }
    }

    /// Bits of the addresses of a node's pods that are the pod's own.
    fn host_bits(&self) -> u32 {
        match self.shape {
            Shape::Mixed => 8,
            Shape::Local | Shape::Policies => 18 - self.nodes.next_power_of_two().ilog2(),
        }
    }

    /// The address of a node's pod, both counted from 0.
    pub(crate) fn pod_address(&self, node: u32, pod: u32) -> Ipv4Addr {
        let first = u32::from(Ipv4Addr::new(10, 128, 0, 2));
        Ipv4Addr::from(first + (node << self.host_bits()) + pod)
    }

    /// The network of a node's pods.
    pub(crate) fn pod_network(&self, node: u32) -> String {
        let bits = self.host_bits();
        let first = self.pod_address(node, 0).to_bits() >> bits << bits;
        format!("{}/{}", Ipv4Addr::from(first), 32 - bits)
    }

    /// The pods of a node, each with the Service that it is for alone.
    pub(crate) fn pods(&self, node: u32) -> Vec<(u32, Option<Service>)> {
        match self.shape {
            Shape::Mixed => (0..PODS_OF_A_NODE).map(|pod| (pod, None)).collect(),
            Shape::Local | Shape::Policies => {
                let endpoints = self.services().flat_map(|one| self.endpoints(one.number));
                let own = endpoints.filter(|endpoint| endpoint.node == node);
                own.map(|one| (one.pod, Some(self.service(one.service)))).collect()
            }
        }
    }

    /// The same, as another node sees it.
    pub(crate) fn seen_from(self, this_node: u32) -> Self {
        Cluster { this_node, ..self }
    }

    /// A Service by number.
    pub(crate) fn service(&self, number: u32) -> Service {
        // 10.96.0.0 to 10.96.0.15 are left to the API server and DNS.
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 16)) + number);
        let of = |ports: RangeInclusive<u32>, number: u32| {
            let port = Some(ports.start() + number).filter(|port| ports.contains(port))?;
            u16::try_from(port).ok()
        };
        let first_balanced = u32::from(Ipv4Addr::new(198, 18, 0, 1));
        if self.shape != Shape::Mixed {
            let local = self.shape == Shape::Local;
            let check = of(HEALTH_CHECK_NODE_PORTS_OF_ALL, number).filter(|_| local);
            return Service {
                number,
                namespace: number % NAMESPACES,
                address,
                node_port: of(NODE_PORTS_OF_ALL, number),
                load_balancer: Some(Ipv4Addr::from(first_balanced + number)),
                local,
                health_check_node_port: check,
            };
        }
        let ports = if self.whole { NODE_PORTS_BESIDE_CHECKS } else { NODE_PORTS };
        let node_port = number.is_multiple_of(10).then(|| of(ports, number / 10)).flatten();
        let plain = Service {
            number,
            namespace: number % if self.whole { NAMESPACES } else { 40 },
            address,
            node_port,
            load_balancer: None,
            local: false,
            health_check_node_port: None,
        };
        if !self.whole || node_port.is_none() {
            return plain;
        }
        if !number.is_multiple_of(50) {
            return Service { local: number.is_multiple_of(20), ..plain };
        }
        let local = number.is_multiple_of(100);
        Service {
            load_balancer: Some(Ipv4Addr::from(first_balanced + number / 50)),
            local,
            health_check_node_port: local
                .then(|| of(HEALTH_CHECK_NODE_PORTS, number / 100))
                .flatten(),
            ..plain
        }
    }

    /// All Services.
    pub(crate) fn services(&self) -> impl Iterator<Item = Service> {
        (0..self.services).map(|number| self.service(number))
    }

    /// The endpoints of a Service, pairwise distinct.
    pub(crate) fn endpoints(&self, service: u32) -> impl Iterator<Item = Endpoint> {
        let cluster = *self;
        (0..self.endpoints).map(move |number| {
            let (node, pod) = match (cluster.shape, cluster.whole) {
                (Shape::Mixed, true) => cluster.spread(service, number),
                (Shape::Mixed, false) => cluster.in_turn(service, number),
                (Shape::Local | Shape::Policies, _) => cluster.own(service, number),
            };
            let (address, local) = (cluster.pod_address(node, pod), node == cluster.this_node);
            Endpoint { service, number, node, pod, address, local }
        })
    }

    /// Node and pod: on neighbouring nodes.
    fn in_turn(&self, service: u32, number: u32) -> (u32, u32) {
        let place = u64::from(service) * u64::from(self.endpoints) + u64::from(number);
        let nodes = u64::from(self.nodes);
        // Both remainders are far below 2^32.
        ((place % nodes) as u32, (place / nodes % u64::from(PODS_OF_A_NODE)) as u32)
    }

    /// Node and pod: on neighbouring nodes, of every seventh Service on one node, as far as it has
    /// room. The first node moves on with the Services of each kind, so that each node has some
    /// endpoints of some of them.
    fn spread(&self, service: u32, number: u32) -> (u32, u32) {
        let room = u64::from(PODS_OF_A_NAMESPACE);
        let nodes = u64::from(self.nodes);
        let first = u64::from(service) * u64::from(self.endpoints);
        let shifted = first + u64::from(service / 10) + u64::from(service / 50);
        let (node, pod) = if service % 7 == 3 {
            let place = shifted % nodes * room + u64::from(number);
            (place / room % nodes, place % room)
        } else {
            let place = shifted + u64::from(number);
            (place % nodes, place / nodes % room)
        };
        // Pods of a node belong to its namespaces in turn. Both are far below 2^32.
        (node as u32, pod as u32 * NAMESPACES + service % NAMESPACES)
    }

    /// Node and pod: on neighbouring nodes in turn, in pods that no other Service has.
    fn own(&self, service: u32, number: u32) -> (u32, u32) {
        ((service + number) % self.nodes, service * self.share() + number / self.nodes)
    }

    /// How many endpoints of a Service are on a node at most.
    fn share(&self) -> u32 {
        self.endpoints.div_ceil(self.nodes)
    }

    /// Whether the generated node has endpoints of the Service.
    pub(super) fn has_local(&self, service: u32) -> bool {
        self.endpoints(service).any(|endpoint| endpoint.local)
    }

    /// The same in the order in which kube-proxy chooses among them, which is that of their text
    /// (`byEndpoint` in kubernetes pkg/proxy/endpointslicecache.go): `10.128.10.2:8080` before
    /// `10.128.9.2:8080`.
    pub(super) fn sorted_endpoints(&self, service: u32) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = self.endpoints(service).collect();
        endpoints.sort_by_cached_key(|found| format!("{}:{TARGET_PORT}", found.address));
        endpoints
    }

    /// Whether kube-proxy leaves out the comments of endpoint rules: above 1,000 endpoints
    /// (`largeClusterEndpointsThreshold` in kubernetes pkg/proxy/iptables/proxier.go).
    pub(super) fn is_large(&self) -> bool {
        u64::from(self.services) * u64::from(self.endpoints) > 1_000
    }
}

/// The address of a node.
pub(crate) fn node_address(node: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 250, 0, 2)) + node)
}

/// A namespace by number.
pub(crate) fn namespace(number: u32) -> String {
    format!("team-{number:02}")
}

impl Service {
    /// Its namespace.
    pub(crate) fn namespace(&self) -> String {
        namespace(self.namespace)
    }

    /// Its name there.
    pub(crate) fn name(&self) -> String {
        format!("svc-{:05}", self.number)
    }

    /// `namespace/name:port`, as kube-proxy's comments name it.
    pub(super) fn port_name(&self) -> String {
        format!("{}/{}:http", self.namespace(), self.name())
    }

    /// `namespace/name/protocol/port`, as kube-proxy's nftables chains name it.
    pub(super) fn path(&self) -> String {
        format!("{}/{}/tcp/http", self.namespace(), self.name())
    }

    /// The part of its chains' names that kube-proxy makes from a hash.
    pub(super) fn hash(&self) -> Hash {
        Hash::new(0, self.number, 0)
    }
}

impl Endpoint {
    /// The part of its chain's name that kube-proxy makes from a hash.
    pub(super) fn hash(&self) -> Hash {
        Hash::new(1, self.service, self.number)
    }
}

/// 16 characters of base32 that look random and are different for different input. kube-proxy
/// takes the beginning of a SHA-256; nobody reads anything from it, so this need not be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hash([u8; 16]);

impl Hash {
    fn new(kind: u64, service: u32, endpoint: u32) -> Self {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        // 20 bits for a Service (below 2^20), 10 for an endpoint (below 2^10): distinct numbers.
        // SplitMix64's finaliser is a bijection, so 13 characters (65 bits) keep them distinct.
        let mut bits = kind << 40 | u64::from(service) << 16 | u64::from(endpoint);
        bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let mut text = [0; 16];
        for (index, character) in text.iter_mut().enumerate() {
            *character = ALPHABET[(bits.rotate_left(5 * index as u32) & 31) as usize];
        }
        Hash(text)
    }

    /// The first 8 characters, which kube-proxy's nftables chains have.
    pub(super) fn short(&self) -> String {
        self.0.iter().take(8).map(|byte| char::from(*byte)).collect()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn lone() -> Cluster {
        Cluster::of_lone_node(3_000, 7)
    }

    #[test]
    fn addresses_are_where_they_belong() {
        assert_eq!(lone().service(0).address, Ipv4Addr::new(10, 96, 0, 16));
        assert_eq!(lone().service(999_999).address, Ipv4Addr::new(10, 111, 66, 79));
        let endpoints: Vec<_> = lone().endpoints(0).map(|e| (e.address, e.local)).collect();
        assert_eq!(endpoints[0], (Ipv4Addr::new(10, 128, 0, 2), false));
        assert_eq!(endpoints[5], (Ipv4Addr::new(10, 128, 5, 2), true));
        assert_eq!(node_address(LONE_NODE), Ipv4Addr::new(10, 250, 0, 7));
        assert_eq!(lone().pod_network(9), "10.128.9.0/24");
    }

    #[test]
    fn every_tenth_service_has_a_node_port_until_they_run_out() {
        let port = |number| lone().service(number).node_port;
        assert_eq!(port(0), Some(30_000));
        assert_eq!(port(1), None);
        assert_eq!(port(20), Some(30_002));
        assert_eq!(port(27_670), Some(32_767));
        assert_eq!(port(27_680), None);
    }

    #[test]
    fn names_are_distinct() {
        let mut names = BTreeSet::new();
        let mut paths = BTreeSet::new();
        for service in lone().services() {
            assert!(names.insert(service.hash()));
            assert!(paths.insert(service.path()));
            let mut addresses = BTreeSet::new();
            for endpoint in lone().endpoints(service.number) {
                assert!(names.insert(endpoint.hash()));
                assert!(addresses.insert(endpoint.address));
            }
        }
        assert_eq!(names.len(), 3_000 * 8);
    }

    #[test]
    fn a_whole_cluster_has_services_of_all_kinds() {
        let cluster = Cluster::whole(10_000, 3, 10);
        let kind = |number| {
            let found = cluster.service(number);
            (found.node_port, found.local, found.load_balancer, found.health_check_node_port)
        };
        let vip = |last| Some(Ipv4Addr::new(198, 18, 0, last));
        assert_eq!(kind(9), (None, false, None, None));
        assert_eq!(kind(10), (Some(30_001), false, None, None));
        assert_eq!(kind(20), (Some(30_002), true, None, None));
        assert_eq!(kind(50), (Some(30_005), false, vip(2), None));
        assert_eq!(kind(200), (Some(30_020), true, vip(5), Some(32_002)));
        // Node ports end where those for health checks begin, and with them all kinds but one.
        assert_eq!(kind(19_990).0, Some(31_999));
        assert_eq!(kind(20_000), (None, false, None, None));
    }

    #[test]
    fn endpoints_of_a_whole_cluster_are_pods_of_the_namespace() {
        for (nodes, endpoints) in [(10, 3), (2, 3), (1, 10), (3, 30)] {
            let cluster = Cluster::whole(500, endpoints, nodes);
            for service in cluster.services() {
                let mut addresses = BTreeSet::new();
                for endpoint in cluster.endpoints(service.number) {
                    assert!(endpoint.node < nodes && endpoint.pod < PODS_OF_A_NODE);
                    assert_eq!(namespace(endpoint.pod % NAMESPACES), service.namespace());
                    assert!(addresses.insert(endpoint.address), "{nodes} {service:?}");
                }
            }
        }
    }

    #[test]
    fn pods_of_one_service_each_fit_into_their_nodes() {
        for (nodes, endpoints) in [(4, 3), (3, 7), (1, 2)] {
            let cluster = Cluster::whole(500, endpoints, nodes).of_shape(Shape::Local);
            let (most, services) = cluster.room();
            assert!(endpoints <= most && 500 <= services);
            let mut addresses = BTreeSet::new();
            for node in 0..nodes {
                let network = cluster.pod_network(node);
                let (first, length) = network.split_once('/').unwrap();
                let bits = 32 - length.parse::<u32>().unwrap();
                let first: Ipv4Addr = first.parse().unwrap();
                for (pod, service) in cluster.pods(node) {
                    let address = cluster.pod_address(node, pod);
                    assert_eq!(address.to_bits() >> bits, first.to_bits() >> bits);
                    assert!(addresses.insert(address));
                    let mut its = cluster.endpoints(service.unwrap().number);
                    assert!(its.any(|endpoint| endpoint.address == address));
                }
            }
            assert_eq!(addresses.len(), 500 * endpoints as usize);
        }
        let cluster = Cluster::whole(1, 1, 4).of_shape(Shape::Local);
        assert_eq!(cluster.pod_network(3), "10.131.0.0/16");
        // Addresses of 16 bits but the network's, the broadcast's and one for the node.
        assert_eq!(cluster.room().1, 27_768);
        assert_eq!(Cluster::whole(1, 1, 16).of_shape(Shape::Local).room().1, (1 << 14) - 3);
    }

    #[test]
    fn ports_of_a_shape_are_pairwise_distinct() {
        let cluster = Cluster::whole(27_768, 1, 4).of_shape(Shape::Local);
        let ports: BTreeSet<_> = cluster
            .services()
            .flat_map(|one| [one.node_port.unwrap(), one.health_check_node_port.unwrap()])
            .collect();
        assert_eq!((ports.len(), ports.last()), (2 * 27_768, Some(&65_535)));
        let policies = cluster.of_shape(Shape::Policies);
        assert!(policies.services().all(|one| !one.local && one.health_check_node_port.is_none()));
    }

    /// Otherwise the rules of both policies would be on some nodes only.
    #[test]
    fn each_node_has_endpoints_of_some_services_of_each_kind_and_of_some_not() {
        let cluster = Cluster::whole(2_000, 3, 10);
        for node in 0..10 {
            let seen = cluster.seen_from(node);
            let kinds: BTreeSet<_> = cluster
                .services()
                .map(|found| {
                    let has_port = found.node_port.is_some();
                    let is_balanced = found.load_balancer.is_some();
                    (has_port, is_balanced, found.local, seen.has_local(found.number))
                })
                .collect();
            assert_eq!(kinds.len(), 5 * 2, "{node}: {kinds:?}");
        }
    }
}

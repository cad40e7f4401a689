//! The Services, endpoints and names of a generated cluster.
//!
//! Nothing is stored: each Service and endpoint follows from its number. Service network
//! 10.96.0.0/12, pod network 10.128.0.0/14 with a /24 for each of 250 nodes, node network
//! 10.250.0.0/24.

use std::fmt;
use std::net::Ipv4Addr;

/// All pods of the cluster.
pub(super) const POD_NETWORK: &str = "10.128.0.0/14";
/// All Services.
pub(super) const SERVICE_NETWORK: &str = "10.96.0.0/12";
/// The port of each Service.
pub(super) const PORT: u16 = 80;
/// The port of each endpoint.
pub(super) const TARGET_PORT: u16 = 8080;
/// A pod of the generated node, and a port of it.
pub(crate) const CLIENT: &str = "10.128.5.5:40000";

/// How many nodes the cluster has.
pub(super) const NODES: u32 = 250;
/// The node that is generated, counted from 0.
pub(super) const THIS_NODE: u32 = 5;
/// How many pods each node has.
pub(super) const PODS_OF_A_NODE: u32 = 100;
/// Kubernetes' default range of node ports is 30000 to 32767: later Services get none.
const NODE_PORTS: std::ops::RangeInclusive<u32> = 30_000..=32_767;

/// A cluster by its size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cluster {
    pub(super) services: u32,
    pub(super) endpoints: u32,
}

/// A Service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    /// Counted from 0.
    pub(super) number: u32,
    /// Cluster IP.
    pub(super) address: Ipv4Addr,
    /// Every tenth Service has one.
    pub(super) node_port: Option<u16>,
}

/// An endpoint of a Service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint {
    /// Its Service.
    pub(super) service: u32,
    /// Counted from 0 within the Service.
    pub(super) number: u32,
    /// The pod's address.
    pub(super) address: Ipv4Addr,
    /// Whether the pod is on the generated node.
    pub(super) local: bool,
}

impl Cluster {
    /// A Service by number.
    pub(super) fn service(&self, number: u32) -> Service {
        // 10.96.0.0 to 10.96.0.15 are left to the API server and DNS.
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 16)) + number);
        let node_port = number
            .is_multiple_of(10)
            .then(|| NODE_PORTS.start() + number / 10)
            .filter(|port| NODE_PORTS.contains(port))
            .and_then(|port| u16::try_from(port).ok());
        Service { number, address, node_port }
    }

    /// All Services.
    pub(super) fn services(&self) -> impl Iterator<Item = Service> {
        (0..self.services).map(|number| self.service(number))
    }

    /// The endpoints of a Service: on neighbouring nodes, pairwise distinct.
    pub(super) fn endpoints(&self, service: u32) -> impl Iterator<Item = Endpoint> {
        let first = u64::from(service) * u64::from(self.endpoints);
        (0..self.endpoints).map(move |number| {
            let place = first + u64::from(number);
            // Both remainders are far below 2^32.
            let node = (place % u64::from(NODES)) as u32;
            let pod = (place / u64::from(NODES) % u64::from(PODS_OF_A_NODE)) as u32;
            let address = pod_address(node, pod);
            Endpoint { service, number, address, local: node == THIS_NODE }
        })
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

/// The address of a node's pod, both counted from 0.
pub(super) fn pod_address(node: u32, pod: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 2)) + (node << 8) + pod)
}

/// The address of a node.
pub(super) fn node_address(node: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 250, 0, 2)) + node)
}

impl Service {
    fn namespace(&self) -> String {
        format!("team-{:02}", self.number % 40)
    }

    /// `namespace/name:port`, as kube-proxy's comments name it.
    pub(super) fn port_name(&self) -> String {
        format!("{}/svc-{:05}:http", self.namespace(), self.number)
    }

    /// `namespace/name/protocol/port`, as kube-proxy's nftables chains name it.
    pub(super) fn path(&self) -> String {
        format!("{}/svc-{:05}/tcp/http", self.namespace(), self.number)
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

    const CLUSTER: Cluster = Cluster { services: 3_000, endpoints: 7 };

    #[test]
    fn addresses_are_where_they_belong() {
        assert_eq!(CLUSTER.service(0).address, Ipv4Addr::new(10, 96, 0, 16));
        assert_eq!(CLUSTER.service(999_999).address, Ipv4Addr::new(10, 111, 66, 79));
        let endpoints: Vec<_> = CLUSTER.endpoints(0).map(|e| (e.address, e.local)).collect();
        assert_eq!(endpoints[0], (Ipv4Addr::new(10, 128, 0, 2), false));
        assert_eq!(endpoints[5], (Ipv4Addr::new(10, 128, 5, 2), true));
        assert_eq!(node_address(THIS_NODE), Ipv4Addr::new(10, 250, 0, 7));
    }

    #[test]
    fn every_tenth_service_has_a_node_port_until_they_run_out() {
        let port = |number| CLUSTER.service(number).node_port;
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
        for service in CLUSTER.services() {
            assert!(names.insert(service.hash()));
            assert!(paths.insert(service.path()));
            let mut addresses = BTreeSet::new();
            for endpoint in CLUSTER.endpoints(service.number) {
                assert!(names.insert(endpoint.hash()));
                assert!(addresses.insert(endpoint.address));
            }
        }
        assert_eq!(names.len(), 3_000 * 8);
    }
}

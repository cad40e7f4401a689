//! Pods whose own addresses somebody outside gets once a plan is done, and NetworkPolicies for who
//! wants to limit what comes of it. Nobody applies them here.
//!
//! ```text
//!  Changes ─ calls to the outside that are kept then ─▶ nodes, ranges of their pods
//!                                                         └▶ namespaces ─▶ policies, or why not
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use unmasq_audit::matrix::Clients;
use unmasq_audit::matrix::change::{Changes, Direction};
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{NetworkPolicy, Pod, Protocol, Service, ServiceType, TargetPort};
use unmasq_cluster::networks::NetworkKind;
use unmasq_cluster::paths::Caller;
use unmasq_model::packet::Family;

/// What becomes visible outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Revealed {
    /// Whose addresses, by node.
    pub pods: Vec<RevealedPods>,
    /// NetworkPolicies, complete.
    pub policies: Vec<Value>,
    /// What they don't limit, a sentence each.
    pub left: Vec<String>,
}

/// Pods of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevealedPods {
    /// The node.
    pub node: String,
    /// The ranges that their addresses are in.
    pub ranges: Vec<IpNet>,
}

/// `n1: 10.42.1.0/24, 2001:db8:42:1::/64`
impl fmt::Display for RevealedPods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.ranges.iter().map(ToString::to_string).collect();
        write!(f, "{}: {}", self.node, ranges.join(", "))
    }
}

/// What is known of it, from the answers that change.
pub(crate) fn of(cluster: &Cluster, clients: &Clients, changes: &Changes) -> Revealed {
    let mut ranges: BTreeMap<usize, BTreeSet<IpNet>> = BTreeMap::new();
    let rows = changes.rows.iter().filter(|row| row.turn.direction() == Direction::Revealed);
    for caller in rows.flat_map(|row| &row.callers) {
        match caller {
            Caller::Pod { node, address } => {
                let alone = clients.names_pod(*address);
                let range = range(cluster, *address).filter(|_| !alone);
                let range = range.unwrap_or_else(|| IpNet::from(*address));
                ranges.entry(*node).or_default().insert(range);
            }
            Caller::Node(_) | Caller::Outside { .. } => {}
        }
    }
    if ranges.is_empty() {
        return Revealed::default();
    }
    let (policies, left) = Limits::new(cluster, &ranges).policies();
    let pods = ranges.into_iter().map(|(node, ranges)| RevealedPods {
        node: cluster.nodes[node].name.clone(),
        ranges: ranges.into_iter().collect(),
    });
    Revealed { pods: pods.collect(), policies, left }
}

/// The smallest range of pods that an address is in.
fn range(cluster: &Cluster, address: IpAddr) -> Option<IpNet> {
    let is_of_pods = |kind: &NetworkKind| match kind {
        NetworkKind::ClusterPods
        | NetworkKind::NodePods { .. }
        | NetworkKind::Pool(_)
        | NetworkKind::Bridge => true,
        NetworkKind::Services | NetworkKind::Lan | NetworkKind::Route => false,
    };
    let all = cluster.networks.at(address).into_iter().filter(|one| is_of_pods(&one.kind));
    all.map(|one| one.range).max_by_key(IpNet::prefix_len)
}

/// Who may call whom, as far as policies say it.
struct Limits<'c> {
    cluster: &'c Cluster,
    /// Families of addresses that become visible.
    families: BTreeSet<Family>,
    /// Families that pods have addresses of.
    all_families: BTreeSet<Family>,
    /// The cluster itself: its pods, and its nodes by their addresses. A node calls other nodes'
    /// pods by an address of its overlay device, which is in the range of pods.
    own: Vec<Value>,
    /// Pods whose addresses become visible, by namespace.
    namespaces: BTreeMap<&'c str, Vec<&'c Pod>>,
}

impl<'c> Limits<'c> {
    fn new(cluster: &'c Cluster, ranges: &BTreeMap<usize, BTreeSet<IpNet>>) -> Self {
        let families = ranges.values().flatten().map(|range| Family::of(range.addr())).collect();
        let mut namespaces: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        let (mut own, mut all_families) = (BTreeSet::new(), BTreeSet::new());
        for pod in cluster.objects.pods.iter().filter(|pod| !pod.spec.host_network) {
            own.extend(pod.ips().map(|ip| range(cluster, ip).unwrap_or_else(|| ip.into())));
            all_families.extend(pod.ips().map(Family::of));
            let node = pod.spec.node_name.as_deref().and_then(|name| cluster.node_index(name));
            let ranges = node.and_then(|node| ranges.get(&node));
            let is_seen = |ip| ranges.into_iter().flatten().any(|range| range.contains(&ip));
            if pod.ips().any(is_seen) {
                namespaces.entry(&pod.metadata.namespace).or_default().push(pod);
            }
        }
        for family in [Family::V4, Family::V6] {
            own.extend(&cluster.networks.cluster_pods(family).ranges);
            let addresses = cluster.objects.nodes.iter().filter_map(|node| node.ip(family));
            own.extend(addresses.map(IpNet::from));
        }
        let blocks = IpNet::aggregate(&own.into_iter().collect());
        let peers = blocks.into_iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}}));
        let own = [json!({"namespaceSelector": {}})].into_iter().chain(peers).collect();
        Limits { cluster, families, all_families, own, namespaces }
    }

    fn policies(&self) -> (Vec<Value>, Vec<String>) {
        let (mut policies, mut left) = (Vec::new(), Vec::new());
        if self.namespaces.is_empty() {
            left.push(
                "no pod of these was captured, so which namespaces they are in is unknown".into(),
            );
        }
        for (namespace, pods) in &self.namespaces {
            let ingress = self.free(namespace, "reaches", NetworkPolicy::is_for_ingress);
            match ingress.and_then(|()| self.ingress(namespace, pods)) {
                Ok(all) => policies.extend(all),
                Err(why) => left.push(why),
            }
            match self.free(namespace, "is reached by", NetworkPolicy::is_for_egress) {
                Ok(()) => policies.push(self.egress(namespace)),
                Err(why) => left.push(why),
            }
        }
        (policies, left)
    }

    /// Policies add up: a further one would let more through than those that are there.
    fn free(
        &self,
        namespace: &str,
        what: &str,
        is_for: fn(&NetworkPolicy) -> bool,
    ) -> Result<(), String> {
        let all = self.cluster.objects.network_policies.iter();
        let there = all.filter(|one| one.metadata.namespace == namespace && is_for(one));
        let names: Vec<&str> = there.map(|one| &*one.metadata.name).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(format!(
            "what {what} pods of namespace {namespace}: NetworkPolicies of its own ({}) say that, and \
             another would only let more through",
            names.join(", ")
        ))
    }

    /// The cluster, and everybody at what is for the outside.
    fn ingress(&self, namespace: &str, pods: &[&Pod]) -> Result<Vec<Value>, String> {
        let no = |why: String| format!("what reaches pods of namespace {namespace}: {why}");
        let on_node = |pod: &&&Pod| {
            let mut ports = pod.spec.all_containers().flat_map(|one| &one.ports);
            ports.any(|port| port.host_port.is_some())
        };
        if let Some(pod) = pods.iter().find(on_node) {
            let name = &pod.metadata.name;
            return Err(no(format!("pod {name} has a hostPort, which is for the outside too")));
        }
        let mut from = self.own.clone();
        from.extend(self.all_families.difference(&self.families).map(|family| block(*family, &[])));
        let rules =
            json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": from}]});
        let mut all = vec![policy(namespace, "from-the-cluster", &rules)];
        let services = self.cluster.objects.services.iter();
        let services = services.filter(|one| one.metadata.namespace == namespace);
        for service in services.filter(|one| is_for_outside(one)) {
            let name = &service.metadata.name;
            if service.spec.selector.is_empty() {
                return Err(no(format!(
                    "Service {name} is for the outside and has no selector, so its pods are unknown"
                )));
            }
            let ports: Vec<Value> = service.spec.ports.iter().map(port).collect();
            let selector = json!({"matchLabels": service.spec.selector});
            let rules = json!({
                "podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}],
            });
            all.push(policy(namespace, &format!("from-outside-to-{name}"), &rules));
        }
        Ok(all)
    }

    /// The cluster, whom its Services name, resolvers of names, and the internet.
    fn egress(&self, namespace: &str) -> Value {
        let beyond = self.all_families.iter().map(|family| {
            let except = match self.families.contains(family) {
                true => self.site(*family),
                false => Vec::new(),
            };
            block(*family, &except)
        });
        let mut to = self.own.clone();
        let named = self.named().into_iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}}));
        to.extend(named.chain(beyond));
        let names = json!([{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]);
        let egress = json!([{"to": to}, {"ports": names}]);
        let rules = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress});
        policy(namespace, "to-the-cluster-and-the-internet", &rules)
    }

    /// Networks that a router doesn't masquerade for as it does for the internet: private ones, and
    /// those that nodes have a device in.
    fn site(&self, family: Family) -> Vec<IpNet> {
        // RFC 1918, RFC 6598, RFC 4193.
        let private: &[&str] = match family {
            Family::V4 => &["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"],
            Family::V6 => &["fc00::/7"],
        };
        let mut all: Vec<IpNet> = private.iter().filter_map(|net| net.parse().ok()).collect();
        let lans = self.cluster.networks.all.iter().filter(|one| one.kind == NetworkKind::Lan);
        let lans = lans.map(|one| one.range);
        all.extend(lans.filter(|net| Family::of(net.addr()) == family && net.prefix_len() > 0));
        IpNet::aggregate(&all)
    }

    /// Endpoints of Services that are no pods, as the API server is.
    fn named(&self) -> BTreeSet<IpNet> {
        let is_own = |ip: &IpAddr| {
            let is_node =
                self.cluster.objects.nodes.iter().any(|node| node.ip(Family::of(*ip)) == Some(*ip));
            is_node || range(self.cluster, *ip).is_some()
        };
        let endpoints = self.cluster.objects.endpoint_slices.iter().flat_map(|one| &one.endpoints);
        let addresses = endpoints.flat_map(|one| one.addresses.iter().copied());
        addresses.filter(|ip| !is_own(ip)).map(IpNet::from).collect()
    }
}

fn is_for_outside(service: &Service) -> bool {
    match service.spec.kind {
        ServiceType::NodePort | ServiceType::LoadBalancer => true,
        ServiceType::ClusterIp | ServiceType::ExternalName => !service.spec.external_ips.is_empty(),
    }
}

/// As a policy names it: the pod's port.
fn port(port: &unmasq_cluster::kubernetes::ServicePort) -> Value {
    let protocol = match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    match &port.target_port {
        Some(TargetPort::Name(name)) => json!({"protocol": protocol, "port": name}),
        Some(TargetPort::Number(number)) => json!({"protocol": protocol, "port": number}),
        None => json!({"protocol": protocol, "port": port.port}),
    }
}

/// Everybody but these.
fn block(family: Family, except: &[IpNet]) -> Value {
    let cidr = match family {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    };
    match except.is_empty() {
        true => json!({"ipBlock": {"cidr": cidr}}),
        false => json!({"ipBlock": {"cidr": cidr, "except": except}}),
    }
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

#[cfg(test)]
mod tests;

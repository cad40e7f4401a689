//! Who outside of the cluster matters: anybody, and everybody whom a rule or a setting names.
//!
//! A rule that masquerades by the source's network only shows with a client of that network.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use unmasq_cluster::Cluster;
use unmasq_model::expr::End;
use unmasq_model::host::Host;
use unmasq_model::ipset::{Content, IpSet};
use unmasq_model::link::Address;
use unmasq_model::rule::{Step, Test};
use unmasq_model::ruleset::{BaseChain, ChainKind, Hook, Table};

use super::Outside;
use crate::shape::source_network;

/// No more networks that rules name than this: each is a question for every Service.
const MAX_NAMED: usize = 8;

/// Addresses that belong to nobody (RFC 5737, RFC 3849): anybody.
const ANYBODY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77)),
];

/// Who calls from outside, and who is called there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clients {
    /// Callers with an address each.
    pub callers: Vec<(Outside, IpAddr)>,
    /// Whom pods call outside.
    pub destinations: Vec<IpAddr>,
    /// What was left out, a sentence each.
    pub left_out: Vec<String>,
}

impl Clients {
    /// Anybody, and those whom the rules of the cluster's nodes name as a source.
    pub fn of(cluster: &Cluster) -> Clients {
        let mut clients = Clients::default();
        clients.callers.extend(ANYBODY.map(|address| (Outside::Anybody, address)));
        clients.destinations.extend(ANYBODY);
        let inside = inside(cluster);
        let mut named = BTreeSet::new();
        for host in cluster.nodes.iter().filter_map(|node| node.host.as_ref()) {
            named.extend(named_by(host));
        }
        // A network with pods in it is the cluster's, unless nodes or Services are in it too: then
        // it is larger than the pods' own, and others may be taken for pods.
        let no_pods = not_of_pods(cluster);
        let known = |net: &IpNet| {
            let is_larger = no_pods.iter().any(|address| net.contains(address));
            inside.iter().any(|one| one.contains(net) || (net.contains(one) && !is_larger))
        };
        let called = called(cluster);
        let asked = |net: &IpNet| !known(net) && !called.contains(net) && travels(net.addr());
        named.retain(|net| net.prefix_len() > 0 && asked(net));
        if named.len() > MAX_NAMED {
            let left: Vec<String> = named.iter().skip(MAX_NAMED).map(ToString::to_string).collect();
            clients.left_out.push(format!(
                "clients of these networks, which rules name as a source, were not asked: {}",
                left.join(", ")
            ));
        }
        for net in named.into_iter().take(MAX_NAMED) {
            if let Some(address) = somebody(net, &inside) {
                clients.callers.push((Outside::NamedByRule(net), address));
            }
        }
        clients
    }

    /// Adds the clients of a network that a setting or an expectation names.
    pub fn add(&mut self, cluster: &Cluster, net: IpNet) {
        let outside = Outside::NamedBySetting(net);
        if self.callers.iter().any(|(known, _)| *known == outside) {
            return;
        }
        // Whoever names a network that a node takes for its own has clients there all the same.
        let free = somebody(net, &inside(cluster)).or_else(|| somebody(net, &own(cluster)));
        self.callers.extend(free.map(|address| (outside, address)));
    }

    /// Adds a network that pods call.
    pub fn add_destination(&mut self, cluster: &Cluster, net: IpNet) {
        let address = somebody(net, &inside(cluster));
        self.destinations.extend(address.filter(|one| !self.destinations.contains(one)));
    }
}

/// Whether packets from there are on the wire at all.
fn travels(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_multicast() || v4.is_link_local()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

/// The networks of the cluster itself: whoever is in one isn't outside.
pub(super) fn inside(cluster: &Cluster) -> Vec<IpNet> {
    let mut inside = own(cluster);
    inside.extend(bridged(cluster));
    IpNet::aggregate(&inside)
}

/// Networks of the nodes' own bridges: those in them are containers.
pub(crate) fn bridged(cluster: &Cluster) -> impl Iterator<Item = IpNet> + '_ {
    let hosts = cluster.nodes.iter().filter_map(|node| node.host.as_ref());
    let links = hosts.flat_map(|host| host.links.iter().flatten());
    let addresses = links.filter(|link| link.is_bridge()).flat_map(|link| &link.addresses);
    addresses.filter_map(Address::network)
}

/// Addresses of nodes and Services: no pod's, whatever range is the pods'.
fn not_of_pods(cluster: &Cluster) -> Vec<IpAddr> {
    let nodes = cluster.nodes.iter().filter_map(|node| cluster.objects.node(&node.name));
    let addresses = nodes.flat_map(|node| &node.status.addresses);
    let nodes = addresses.filter_map(|address| address.address.parse().ok());
    let services = cluster.objects.services.iter().map(|service| &service.spec);
    let services = services.flat_map(|spec| spec.cluster_ips.iter().chain(&spec.cluster_ip));
    nodes.chain(services.copied()).collect()
}

/// The same without the nodes' own bridges.
fn own(cluster: &Cluster) -> Vec<IpNet> {
    let mut inside: Vec<IpNet> = Vec::new();
    for node in &cluster.nodes {
        if let Some(object) = cluster.objects.node(&node.name) {
            inside.extend(object.pod_cidrs());
            let addresses = object.status.addresses.iter();
            let own = addresses.filter_map(|address| address.address.parse::<IpAddr>().ok());
            inside.extend(own.map(IpNet::from));
        }
    }
    inside.extend(cluster.pod_addresses().map(|(address, _)| IpNet::from(address)));
    for service in &cluster.objects.services {
        let ips = service.spec.cluster_ips.iter().chain(&service.spec.cluster_ip);
        inside.extend(ips.copied().map(IpNet::from));
    }
    IpNet::aggregate(&inside)
}

/// The addresses of Services outside: they are called, and nobody has them. kube-proxy's firewall
/// chains name a load balancer's own address as a source, for nodes that have it too and loop back.
fn called(cluster: &Cluster) -> BTreeSet<IpNet> {
    let services = cluster.objects.services.iter();
    let of_service = services.flat_map(|service| {
        let ingress = service.status.load_balancer.ingress.iter().filter_map(|one| one.ip);
        ingress.chain(service.spec.external_ips.iter().copied())
    });
    of_service.map(IpNet::from).collect()
}

/// An address of a network that is in none of others, not its first.
pub(super) fn somebody(net: IpNet, others: &[IpNet]) -> Option<IpAddr> {
    let within = |bits: u8| bits.min(net.max_prefix_len());
    // Some places in the network, far from one another.
    let candidates =
        [0x0714_u32, 0x14, 0x7_0714, 0xfffe, 0x3, 0x1, 0x0].into_iter().map(|offset| {
            let size = u32::from(within(net.max_prefix_len() - net.prefix_len()));
            let offset = if size >= 32 { offset } else { offset & ((1 << size) - 1) };
            match net {
                IpNet::V4(net) => {
                    IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Net::network(&net)) | offset))
                }
                IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from(
                    u128::from(Ipv6Net::network(&net)) | u128::from(offset),
                )),
            }
        });
    let free = |address: &IpAddr| !others.iter().any(|other| other.contains(address));
    candidates
        .filter(free)
        .find(|address| *address != net.network() || net.prefix_len() == net.max_prefix_len())
}

/// Whether a table has a chain in which sources are translated.
fn translates_sources(table: &Table) -> bool {
    let here =
        |base: BaseChain| base.kind == ChainKind::Nat && base.hook == Some(Hook::Postrouting);
    table.chains.iter().any(|chain| chain.base.is_some_and(here))
}

/// The networks that a host's source nat rules want the source to be in.
fn named_by(host: &Host) -> Vec<IpNet> {
    let mut named = Vec::new();
    for table in host.ruleset.tables.iter().filter(|table| !table.dormant) {
        if !translates_sources(table) {
            continue;
        }
        for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
            for step in &rule.steps {
                match step {
                    Step::Test(Test::IpSet { set, ends, negated: false, .. })
                        if ends.first() == Some(&End::Source) =>
                    {
                        named.extend(networks(host, set));
                    }
                    Step::Test(test) => named.extend(source_network(test)),
                    Step::Do(_) => {}
                }
            }
        }
    }
    named.sort();
    named.dedup();
    named
}

/// Sets that rules want the source to be in and whose contents are not known: whom they are about
/// can't be asked.
pub(crate) fn unknown_sets(cluster: &Cluster) -> BTreeSet<String> {
    let mut unknown = BTreeSet::new();
    for host in cluster.nodes.iter().filter_map(|node| node.host.as_ref()) {
        let tables = host.ruleset.tables.iter().filter(|table| translates_sources(table));
        let chains = tables.flat_map(|table| &table.chains);
        for step in chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps) {
            let Step::Test(Test::IpSet { set, ends, negated: false, .. }) = step else { continue };
            let known = host.ipsets.as_ref().is_some_and(|sets| sets.contains_key(set))
                || host.assumed_sets.contains_key(set);
            if !known && ends.first() == Some(&End::Source) {
                unknown.insert(format!("{set} on {}", host.name));
            }
        }
    }
    unknown
}

/// The networks of a set; not single addresses, of which a set may have thousands.
fn networks(host: &Host, name: &str) -> Vec<IpNet> {
    let captured = host.ipsets.as_ref().and_then(|sets| sets.get(name));
    let found = captured.or_else(|| host.assumed_sets.get(name).map(|assumed| &assumed.set));
    let Some(IpSet { content: Content::Hash(set), .. }) = found else {
        return Vec::new();
    };
    let elements = set.iter().map(|(element, _)| element.first);
    elements.filter(|net| net.prefix_len() < net.max_prefix_len()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use unmasq_cluster::{Overrides, read};

    use super::*;

    /// kube-proxy lets a load balancer's own address through its firewall, for nodes that have it.
    #[test]
    fn nobody_calls_from_the_address_of_a_load_balancer() {
        let rules = "*nat\n:POSTROUTING ACCEPT [0:0]\n:KUBE-FW-X - [0:0]\n\
            -A KUBE-FW-X -s 172.16.0.0/12 -j MARK --set-xmark 0x4000/0x4000\n\
            -A KUBE-FW-X -s 198.51.100.3/32 -j MARK --set-xmark 0x4000/0x4000\nCOMMIT\n";
        let services = r#"{"kind": "List", "items": [{"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.3"}]}}}]}"#;
        let files = [("nodes/n1/iptables-save", rules), ("kubernetes/services.json", services)];
        let files: BTreeMap<String, Vec<u8>> =
            files.into_iter().map(|(path, text)| (path.to_owned(), text.into())).collect();
        let contents = read::capture(&files).unwrap();
        let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
        let named = Clients::of(&cluster).callers.into_iter().map(|(outside, _)| outside);
        let named: Vec<Outside> = named.filter(|one| *one != Outside::Anybody).collect();
        assert_eq!(named, [Outside::NamedByRule("172.16.0.0/12".parse().unwrap())]);
    }

    /// Of a node 10.0.0.11 with pods of 10.244.1.0/24: who else is named by rules about a range?
    fn named(range: &str) -> Vec<Outside> {
        let rules = format!(
            "*nat\n:POSTROUTING ACCEPT [0:0]\n:KUBE-EXT-X - [0:0]\n\
             -A KUBE-EXT-X -s {range} -j RETURN\nCOMMIT\n"
        );
        let node = r#"{"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"},
            "spec": {"podCIDRs": ["10.244.1.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.11"}]}}"#;
        let files = [("nodes/n1/iptables-save", &*rules), ("kubernetes/nodes.json", node)];
        let files: BTreeMap<String, Vec<u8>> =
            files.into_iter().map(|(path, text)| (path.to_owned(), text.into())).collect();
        let contents = read::capture(&files).unwrap();
        let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
        let named = Clients::of(&cluster).callers.into_iter().map(|(outside, _)| outside);
        named.filter(|one| *one != Outside::Anybody).collect()
    }

    /// kube-proxy takes whoever is in `clusterCIDR` for a pod. One that has room for pods to come
    /// names nobody else; one that has the nodes in it does.
    #[test]
    fn a_range_of_pods_that_has_nodes_in_it_names_others_too() {
        assert_eq!(named("10.244.0.0/16"), []);
        assert_eq!(named("10.0.0.0/8"), [Outside::NamedByRule("10.0.0.0/8".parse().unwrap())]);
    }
}

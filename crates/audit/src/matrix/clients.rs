//! Who outside of the cluster matters: anybody, and everybody whom a rule or a setting names.
//!
//! A rule that masquerades by the source's network only shows with a client of that network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::Service;
use unmasq_model::expr::End;
use unmasq_model::link::Address;

use super::named::{self, Group};
use super::pods::{self, NamedCall, NamedPod, Pods};
use super::{Outside, first_and_more};
use crate::label::short_text;
use crate::networks::without;
use crate::owner::{Owner, program};

/// No more networks that rules name than this: each is a question for every Service.
const MAX_NAMED: usize = 8;
/// No more networks that settings name than this, for the same reason.
const MAX_OF_SETTINGS: usize = 16;

/// No more of a Service's `loadBalancerSourceRanges` than this, for the same reason.
pub(super) const MAX_RANGES: usize = 4;

/// Addresses that belong to nobody (RFC 5737, RFC 3849): anybody.
pub(super) const ANYBODY: [IpAddr; 2] = [
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
    /// Pods that rules name as callers, beside those that call anyway.
    pub(super) pods: Vec<NamedPod>,
    /// Pods and ports that rules name as called, beside those that are called anyway.
    pub(super) calls: Vec<NamedCall>,
    networks: OnceLock<Networks>,
}

/// The cluster's own networks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Networks {
    inside: Vec<IpNet>,
    /// The same without the nodes' own bridges.
    own: Vec<IpNet>,
}

impl Clients {
    /// Anybody, and those whom the rules of the cluster's nodes name.
    pub fn of(cluster: &Cluster) -> Clients {
        let mut clients = Clients::default();
        clients.callers.extend(ANYBODY.map(|address| (Outside::Anybody, address)));
        clients.destinations.extend(ANYBODY);
        let mut asked = Asked::new(cluster, &clients.networks(cluster).inside);
        let mut called = Asked::new(cluster, &clients.networks(cluster).inside);
        let pods = Pods::new(cluster);
        let mut of_pods = pods::Named::default();
        let mut untold = BTreeMap::new();
        let hosts = cluster.nodes.iter().enumerate();
        for (node, host) in hosts.filter_map(|(node, one)| Some((node, one.host.as_ref()?))) {
            for one in named::rules(host) {
                let source = named::end(host, one.table, one.rule, End::Source);
                source.groups.iter().for_each(|group| asked.add(group));
                if !one.loses {
                    continue;
                }
                if source.untold {
                    let rule = || format!("{} on {}", short_text(one.rule), host.name);
                    untold.entry(&*one.rule.text).or_insert_with(rule);
                }
                // kube-proxy's own rules are about Services, which are asked for.
                if program(one.table, one.chain, one.rule) != Some(Owner::KubeProxy) {
                    let to = named::end(host, one.table, one.rule, End::Destination);
                    to.groups.iter().for_each(|group| called.add(group));
                }
                of_pods.add(&pods, node, host, &one, &source);
            }
        }
        let (callers, called) = (asked.named, called.named);
        clients.add_named(cluster, callers);
        clients.add_called(cluster, called);
        if !untold.is_empty() {
            clients.left_out.push(format!(
                "whose source these rules are about can't be told, so nobody was asked for them: {}",
                first_and_more(untold.into_values())
            ));
        }
        clients.left_out.extend(ranges_left_out(cluster));
        (clients.pods, clients.calls) = of_pods.bounded(&mut clients.left_out);
        clients
    }

    fn add_named(&mut self, cluster: &Cluster, named: BTreeSet<IpNet>) {
        let mut left: Vec<String> = Vec::new();
        for (number, net) in named.into_iter().enumerate() {
            let address = match number < MAX_NAMED {
                true => somebody(net, &self.networks(cluster).inside),
                false => None,
            };
            match address {
                Some(address) => self.callers.push((Outside::NamedByRule(net), address)),
                None => left.push(net.to_string()),
            }
        }
        if !left.is_empty() {
            self.left_out.push(format!(
                "clients of these networks, which rules name as a source, were not asked: {}",
                first_and_more(left)
            ));
        }
    }

    fn add_called(&mut self, cluster: &Cluster, named: BTreeSet<IpNet>) {
        let mut left: Vec<String> = Vec::new();
        for (number, net) in named.into_iter().enumerate() {
            match number < MAX_NAMED {
                true => self.add_destination(cluster, net),
                false => left.push(net.to_string()),
            }
        }
        if !left.is_empty() {
            self.left_out.push(format!(
                "calls to these networks, which rules name as a destination, were not asked: {}",
                first_and_more(left)
            ));
        }
    }

    fn networks(&self, cluster: &Cluster) -> &Networks {
        self.networks.get_or_init(|| Networks { inside: inside(cluster), own: own(cluster) })
    }

    /// Adds the clients of a network that an expectation names.
    pub fn add(&mut self, cluster: &Cluster, net: IpNet) {
        self.add_but(cluster, net, &[]);
    }

    /// The same without those whom a setting leaves out of the network.
    fn add_but(&mut self, cluster: &Cluster, net: IpNet, except: &[IpNet]) {
        let outside = Outside::NamedBySetting(net);
        if self.callers.iter().any(|(known, _)| *known == outside) {
            return;
        }
        // Whoever names a network that a node takes for its own has clients there all the same.
        let networks = self.networks(cluster);
        let left = without(net, except);
        let of = |others: &[IpNet]| left.iter().find_map(|part| somebody(*part, others));
        let free = of(&networks.inside).or_else(|| of(&networks.own));
        if left.is_empty() {
            self.left_out.push(format!(
                "a setting names {net} and leaves out all of it, so nobody was asked for it"
            ));
        }
        self.callers.extend(free.map(|address| (outside, address)));
    }

    /// Adds the clients of networks that settings name, each without those whom they leave out, and
    /// then the latter: as many as can be asked.
    pub fn add_of_settings(&mut self, cluster: &Cluster, nets: &BTreeMap<IpNet, Vec<IpNet>>) {
        let excepted: BTreeSet<IpNet> = nets.values().flatten().copied().collect();
        let excepted = excepted.into_iter().filter(|net| !nets.contains_key(net));
        let excepted = excepted.map(|net| (net, &[][..]));
        // Whom everybody is named with is asked anyway.
        let all = nets.iter().map(|(net, except)| (*net, &except[..])).chain(excepted);
        let all: Vec<(IpNet, &[IpNet])> = all.filter(|(net, _)| net.prefix_len() > 0).collect();
        for (net, except) in all.iter().take(MAX_OF_SETTINGS) {
            self.add_but(cluster, *net, except);
        }
        if all.len() > MAX_OF_SETTINGS {
            let left = all.iter().skip(MAX_OF_SETTINGS).map(|(net, _)| net.to_string());
            self.left_out.push(format!(
                "clients of these networks, which settings name, were not asked: {}",
                first_and_more(left)
            ));
        }
    }

    /// Whether rules name a pod by itself, so that it stands for no other.
    pub fn names_pod(&self, address: IpAddr) -> bool {
        self.pods.iter().any(|pod| pod.address == address)
    }

    /// Adds a network that pods call.
    pub fn add_destination(&mut self, cluster: &Cluster, net: IpNet) {
        let address = somebody(net, &self.networks(cluster).inside);
        self.destinations.extend(address.filter(|one| !self.destinations.contains(one)));
    }
}

/// The networks outside that rules name as sources.
struct Asked<'n> {
    inside: &'n [IpNet],
    /// A network with pods in it is the cluster's, unless nodes or Services are in it too: then it
    /// is larger than the pods' own, and others may be taken for pods.
    no_pods: Vec<IpAddr>,
    called: BTreeSet<IpNet>,
    /// Whether somebody is asked there, for each network that was looked at.
    known: BTreeMap<IpNet, bool>,
    named: BTreeSet<IpNet>,
}

impl<'n> Asked<'n> {
    fn new(cluster: &Cluster, inside: &'n [IpNet]) -> Self {
        let (no_pods, called) = (not_of_pods(cluster), called(cluster));
        Asked { inside, no_pods, called, known: BTreeMap::new(), named: BTreeSet::new() }
    }

    /// Of networks that a rule treats alike, one is enough.
    fn add(&mut self, group: &Group) {
        for net in group {
            let outside = match self.known.get(net) {
                Some(outside) => *outside,
                None => self.is_outside(net),
            };
            self.known.insert(*net, outside);
            if outside {
                self.named.insert(*net);
                return;
            }
        }
    }

    fn is_outside(&self, net: &IpNet) -> bool {
        let is_larger = || self.no_pods.iter().any(|address| net.contains(address));
        let ours = |one: &IpNet| one.contains(net) || (net.contains(one) && !is_larger());
        net.prefix_len() > 0
            && !self.called.contains(net)
            && travels(net.addr())
            && !self.inside.iter().any(ours)
    }
}

/// Which Services have more ranges than clients are asked for.
fn ranges_left_out(cluster: &Cluster) -> Option<String> {
    let many = |service: &&Service| service.spec.load_balancer_source_ranges.len() > MAX_RANGES;
    let names = cluster.objects.services.iter().filter(many).map(Service::full_name);
    let names: Vec<String> = names.collect();
    (!names.is_empty()).then(|| {
        format!(
            "clients of the first {MAX_RANGES} loadBalancerSourceRanges only were asked for these \
             Services: {}",
            first_and_more(names)
        )
    })
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

/// Sets that rules want the source to be in and whose contents are not known: whom they are about
/// can't be asked.
pub(crate) fn unknown_sets(cluster: &Cluster) -> BTreeSet<String> {
    let hosts = cluster.nodes.iter().filter_map(|node| node.host.as_ref());
    hosts.flat_map(named::unknown_sets).collect()
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

    /// A rule that is about where a packet goes shows only to somebody who is called there.
    #[test]
    fn pods_call_the_networks_that_rules_name() {
        let rules = "*nat\n:POSTROUTING ACCEPT [0:0]\n\
            -A POSTROUTING -d 198.51.100.0/24 -j MASQUERADE\nCOMMIT\n";
        let files = BTreeMap::from([("nodes/n1/iptables-save".to_owned(), rules.into())]);
        let contents = read::capture(&files).unwrap();
        let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
        let net: IpNet = "198.51.100.0/24".parse().unwrap();
        let destinations = Clients::of(&cluster).destinations;
        assert_eq!(destinations.iter().filter(|one| net.contains(*one)).count(), 1);
    }

    #[test]
    fn ranges_that_nobody_asks_for_are_told() {
        let ranges = |count: usize| {
            let ranges: Vec<String> = (0..count).map(|n| format!("\"192.0.2.{n}/32\"")).collect();
            let service = format!(
                r#"{{"kind": "Service", "apiVersion": "v1",
                "metadata": {{"name": "web", "namespace": "shop"}},
                "spec": {{"loadBalancerSourceRanges": [{}]}}}}"#,
                ranges.join(",")
            );
            let service = BTreeMap::from([("kubernetes/web.json".to_owned(), service.into())]);
            let contents = read::capture(&service).unwrap();
            let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
            Clients::of(&cluster).left_out
        };
        assert_eq!(ranges(4), [""; 0]);
        let told = ranges(5);
        assert!(told.len() == 1 && told[0].ends_with("these Services: shop/web"), "{told:?}");
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

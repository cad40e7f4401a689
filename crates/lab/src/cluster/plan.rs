//! What a scenario's network consists of: hosts, links, addresses, routes, settings.
//!
//! In: a [`Scenario`]. Out: a [`Plan`]. Pure.
//!
//! ```text
//!   outside hosts ── wan ── gateway ── lan ─┬─ node ─┬─ pod      wan, lan: switches
//!                                           ├─ node  ├─ pod
//!                                  proxy ───┘   ╚════╧═ tunnels between nodes
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::rules::balancer_pod;
use super::wires::{Neighbour, Wire, Wires};
use crate::scenario::{Between, Node, PodLink, ProxyMode, Scenario};

/// The host-side MAC of every Calico device, and the link-local address that it gives.
const CALICO_MAC: &str = "ee:ee:ee:ee:ee:ee";
const CALICO_V6: &str = "fe80::ecee:eeff:feee:eeee";
/// The gateway that pods of Calico have in IPv4; the node answers for it (proxy_arp).
const CALICO_V4: &str = "169.254.1.1";

/// What a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node of the cluster.
    Node,
    /// A pod.
    Pod,
    /// A host outside.
    Outside,
    /// The gateway.
    Gateway,
    /// The proxy.
    Proxy,
    /// A switch: no addresses.
    Switch,
}

/// A host to make.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its addresses, the one that others call it by first in each family.
    pub addresses: Vec<IpAddr>,
    /// Of a pod: the index of its node.
    pub node: Option<usize>,
    /// Settings below /proc/sys, before it has devices.
    pub settings: Vec<(String, &'static str)>,
    /// Settings of devices, when it has them.
    pub device_settings: Vec<(String, &'static str)>,
    /// Input of `ip -batch`, in order.
    pub ip: Vec<String>,
    /// Input of `bridge -batch`.
    pub bridge: Vec<String>,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The hosts.
    pub hosts: Vec<Host>,
    /// Input of `ip -batch` that makes the links, with `{N}` for host N's namespace.
    pub links: Vec<String>,
    /// Who receives what.
    pub wires: Wires,
}

/// Plans a scenario's network.
pub fn plan(scenario: &Scenario) -> Plan {
    let mut planner = Planner {
        scenario,
        plan: Plan { hosts: Vec::new(), links: Vec::new(), wires: Wires::default() },
        lan: Vec::new(),
        wan: Vec::new(),
    };
    planner.run();
    planner.plan
}

struct Planner<'s> {
    scenario: &'s Scenario,
    plan: Plan,
    /// What is plugged into the switches: address, host, device.
    lan: Vec<Neighbour>,
    wan: Vec<Neighbour>,
}

impl Planner<'_> {
    fn run(&mut self) {
        let lan = self.host("lan", Kind::Switch);
        let wan = self.host("wan", Kind::Switch);
        for switch in [lan, wan] {
            self.ip(switch, "link add br0 type bridge".to_owned());
            self.ip(switch, "link set br0 up".to_owned());
        }
        let gateway = self.gateway(lan, wan);
        let nodes: Vec<usize> =
            self.scenario.nodes.iter().map(|node| self.node(node, lan)).collect();
        self.between(&nodes);
        for pod in &self.scenario.pods {
            let number = self.scenario.nodes.iter().position(|node| node.name == pod.node);
            if let Some(number) = number {
                self.pod(&pod.name, nodes[number], &self.scenario.nodes[number]);
            }
        }
        if self.scenario.programs.klipper.is_some() {
            for (host, node) in nodes.iter().zip(&self.scenario.nodes) {
                self.balancer_pod(*host, node);
            }
        }
        for outside in &self.scenario.outside {
            self.outside(outside, wan);
        }
        if let Some(proxy) = &self.scenario.proxy {
            let host = self.host("proxy", Kind::Proxy);
            self.plug(host, lan, "eth0");
            for address in proxy.addresses.clone() {
                self.lan_address(host, address);
            }
            self.default_routes(host);
        }
        let lan = std::mem::take(&mut self.lan);
        let wan = std::mem::take(&mut self.wan);
        for (members, device) in [(&lan, "eth0"), (&wan, "eth0")] {
            for host in members.iter().map(|neighbour| neighbour.host) {
                if host != gateway {
                    self.plan.wires.add(host, device, Wire::Shared(members.clone()));
                }
            }
        }
        self.plan.wires.add(gateway, "lan", Wire::Shared(lan));
        self.plan.wires.add(gateway, "wan", Wire::Shared(wan));
    }

    fn host(&mut self, name: &str, kind: Kind) -> usize {
        let forwards = matches!(kind, Kind::Node | Kind::Gateway);
        let mut settings = vec![
            ("net/ipv6/conf/all/accept_dad".to_owned(), "0"),
            ("net/ipv6/conf/default/accept_dad".to_owned(), "0"),
            ("net/ipv6/conf/default/accept_ra".to_owned(), "0"),
            ("net/ipv4/conf/all/rp_filter".to_owned(), "0"),
            ("net/ipv4/conf/default/rp_filter".to_owned(), "0"),
            ("net/ipv4/conf/all/send_redirects".to_owned(), "0"),
            ("net/ipv4/conf/default/send_redirects".to_owned(), "0"),
            // Every client asks every server, several times a second.
            ("net/ipv4/icmp_ratelimit".to_owned(), "0"),
            ("net/ipv6/icmp/ratelimit".to_owned(), "0"),
        ];
        if kind == Kind::Switch {
            settings.push(("net/ipv6/conf/all/disable_ipv6".to_owned(), "1"));
            settings.push(("net/ipv6/conf/default/disable_ipv6".to_owned(), "1"));
        }
        if forwards {
            settings.push(("net/ipv4/ip_forward".to_owned(), "1"));
            settings.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
        }
        self.plan.hosts.push(Host {
            name: name.to_owned(),
            kind,
            addresses: Vec::new(),
            node: None,
            settings,
            device_settings: Vec::new(),
            ip: vec!["link set lo up".to_owned()],
            bridge: Vec::new(),
        });
        self.plan.hosts.len() - 1
    }

    fn ip(&mut self, host: usize, command: String) {
        self.plan.hosts[host].ip.push(command);
    }

    /// A cable into a switch.
    fn plug(&mut self, host: usize, switch: usize, device: &str) {
        let port = format!("to{host}");
        self.plan.links.push(format!(
            "link add {device} netns {{{host}}} type veth peer name {port} netns {{{switch}}}"
        ));
        self.ip(switch, format!("link set {port} master br0 up"));
        self.ip(host, format!("link set {device} up"));
    }

    fn gateway(&mut self, lan: usize, wan: usize) -> usize {
        let host = self.host("gateway", Kind::Gateway);
        self.plug(host, lan, "lan");
        self.plug(host, wan, "wan");
        for net in self.scenario.network.nodes.clone() {
            let address = nth(net, 1);
            self.add_address(host, "lan", address, net.prefix_len());
            self.lan.push(Neighbour { address, host, device: "lan".into() });
        }
        let mut done: Vec<IpNet> = Vec::new();
        for net in self.scenario.outside.iter().flat_map(|outside| outside.addresses.clone()) {
            if !done.contains(&net.trunc()) {
                done.push(net.trunc());
                let address = nth(net.trunc(), 1);
                self.add_address(host, "wan", address, net.prefix_len());
                self.wan.push(Neighbour { address, host, device: "wan".into() });
            }
        }
        let known = &self.scenario.gateway.knows_pods;
        for node in &self.scenario.nodes {
            let within = |range: &IpNet| known.iter().any(|net| net.contains(range));
            for command in routes_to(node, "lan", within) {
                self.ip(host, command);
            }
        }
        self.external_addresses(host);
        host
    }

    /// Nobody owns the addresses of `externalIPs`: somebody who is no part of Kubernetes has to
    /// send them to a node. Here the gateway sends them to the first.
    fn external_addresses(&mut self, gateway: usize) {
        let Some(node) = self.scenario.nodes.first() else { return };
        for address in self.scenario.external_addresses() {
            let family = Family::of(address);
            let by = node.addresses.iter().find(|one| Family::of(**one) == family);
            if let Some(by) = by {
                let length = family.bits();
                self.ip(gateway, format!("route add {address}/{length} via {by} dev lan"));
            }
        }
    }

    fn node(&mut self, node: &Node, lan: usize) -> usize {
        let host = self.host(&node.name, Kind::Node);
        let localhost = self.scenario.programs.kube_proxy.as_ref();
        if localhost.is_some_and(|proxy| proxy.mode == ProxyMode::Iptables) {
            // pkg/proxy/iptables/proxier.go: node ports on 127.0.0.1.
            self.plan.hosts[host]
                .settings
                .push(("net/ipv4/conf/all/route_localnet".to_owned(), "1"));
        }
        self.plug(host, lan, "eth0");
        for address in node.addresses.clone() {
            self.lan_address(host, address);
        }
        self.default_routes(host);
        if self.scenario.network.pods_by == PodLink::Bridge {
            self.plan.hosts[host].device_settings.extend([
                ("net/bridge/bridge-nf-call-iptables".to_owned(), "1"),
                ("net/bridge/bridge-nf-call-ip6tables".to_owned(), "1"),
            ]);
            self.ip(host, format!("link add {} type bridge", self.bridge_name()));
            self.ip(host, format!("link set {} up", self.bridge_name()));
            for range in node.pods.clone() {
                self.add_address(host, self.bridge_name(), nth(range, 1), range.prefix_len());
            }
        }
        if let Some(subnet) = self.engine_subnet() {
            self.ip(host, "link add docker0 type bridge".to_owned());
            self.ip(host, "link set docker0 up".to_owned());
            self.add_address(host, "docker0", nth(subnet, 1), subnet.prefix_len());
            self.plan.wires.add(host, "docker0", Wire::Shared(Vec::new()));
        }
        host
    }

    /// The network of an engine's own bridge, which no pod is at.
    fn engine_subnet(&self) -> Option<IpNet> {
        self.scenario.programs.engine.as_ref()?.subnet
    }

    /// The bridge that pods are at: the container engine's own, where flannel configures it.
    fn bridge_name(&self) -> &'static str {
        let programs = &self.scenario.programs;
        match &programs.engine {
            Some(engine) if engine.subnet.is_none() => "docker0",
            Some(_) | None if programs.kube_router.is_some() => "kube-bridge",
            Some(_) | None => "cni0",
        }
    }

    fn lan_address(&mut self, host: usize, address: IpAddr) {
        let net = self.scenario.network.nodes.iter().find(|net| net.contains(&address));
        let length = net.map_or(Family::of(address).bits(), IpNet::prefix_len);
        self.add_address(host, "eth0", address, length);
        self.lan.push(Neighbour { address, host, device: "eth0".into() });
    }

    fn add_address(&mut self, host: usize, device: &str, address: IpAddr, length: u8) {
        let nodad = if address.is_ipv6() { " nodad" } else { "" };
        self.ip(host, format!("addr add {address}/{length} dev {device}{nodad}"));
        self.plan.hosts[host].addresses.push(address);
    }

    /// By the gateway, in the families that the host has.
    fn default_routes(&mut self, host: usize) {
        let has = |family| self.plan.address(host, family).is_some();
        let nets = self.scenario.network.nodes.iter().copied();
        let nets: Vec<IpNet> = nets.filter(|net| has(Family::of(net.addr()))).collect();
        for net in nets {
            self.ip(host, format!("route add default via {} dev eth0", nth(net, 1)));
        }
    }

    fn outside(&mut self, outside: &crate::scenario::OutsideHost, wan: usize) {
        let host = self.host(&outside.name, Kind::Outside);
        self.plug(host, wan, "eth0");
        for net in outside.addresses.clone() {
            self.add_address(host, "eth0", net.addr(), net.prefix_len());
            let address = net.addr();
            self.wan.push(Neighbour { address, host, device: "eth0".into() });
            let gateway = nth(net.trunc(), 1);
            let family = Family::of(address);
            let reached: Vec<String> = match &outside.reaches {
                None => vec!["default".to_owned()],
                Some(nets) => nets
                    .iter()
                    .filter(|net| Family::of(net.addr()) == family)
                    .map(IpNet::to_string)
                    .collect(),
            };
            for to in reached {
                self.ip(host, format!("route add {to} via {gateway} dev eth0"));
            }
        }
    }

    fn pod(&mut self, name: &str, node: usize, settings: &Node) {
        let host = self.host(name, Kind::Pod);
        self.plan.hosts[host].node = Some(node);
        let before = self.plan.hosts[..host].iter();
        let number = before.filter(|other| other.node == Some(node)).count() as u128 + 2;
        let routed = self.scenario.network.pods_by == PodLink::Route;
        let device = if routed { format!("cali{host:08x}") } else { format!("veth{host:08x}") };
        let mac = if routed { format!(" address {CALICO_MAC}") } else { String::new() };
        self.plan.links.push(format!(
            "link add {device} netns {{{node}}}{mac} type veth peer name eth0 netns {{{host}}}"
        ));
        self.ip(host, "link set eth0 up".to_owned());
        if routed {
            // felix/dataplane/linux/endpoint_mgr.go; the kernel would put off its answers to ARP
            // by up to 0.8 s (net/ipv4/arp.c, `arp_process`), longer than clients wait here.
            self.plan.hosts[node].device_settings.extend([
                (format!("net/ipv4/conf/{device}/proxy_arp"), "1"),
                (format!("net/ipv4/neigh/{device}/proxy_delay"), "0"),
            ]);
            self.ip(node, format!("link set {device} up"));
        } else {
            let bridge = self.bridge_name();
            self.ip(node, format!("link set {device} master {bridge} up"));
            // kubelet's hairpin mode.
            self.ip(node, format!("link set {device} type bridge_slave hairpin on"));
        }
        for range in settings.pods.clone() {
            let address = nth(range, number);
            let length = if routed { Family::of(address).bits() } else { range.prefix_len() };
            self.add_address(host, "eth0", address, length);
            match (routed, address) {
                (false, _) => {
                    self.ip(host, format!("route add default via {} dev eth0", nth(range, 1)));
                }
                (true, IpAddr::V4(_)) => {
                    self.ip(host, format!("route add {CALICO_V4} dev eth0 scope link"));
                    self.ip(host, format!("route add default via {CALICO_V4} dev eth0"));
                }
                (true, IpAddr::V6(_)) => {
                    self.ip(host, format!("route add default via {CALICO_V6} dev eth0"));
                }
            }
            if routed {
                let length = Family::of(address).bits();
                self.ip(node, format!("route add {address}/{length} dev {device} scope link"));
            }
        }
        self.wire_pod(host, node, &device, routed);
    }

    /// klipper-lb's: a pod that forwards. k3s sets both as the pod's own sysctls.
    fn balancer_pod(&mut self, node: usize, settings: &Node) {
        self.pod(&balancer_pod(&settings.name), node, settings);
        if let Some(host) = self.plan.hosts.last_mut() {
            host.settings.push(("net/ipv4/ip_forward".to_owned(), "1"));
            host.settings.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
        }
    }

    fn wire_pod(&mut self, host: usize, node: usize, device: &str, routed: bool) {
        let peer = Wire::Peer { host: node, device: device.into() };
        self.plan.wires.add(host, "eth0", peer);
        let pod = Wire::Peer { host, device: "eth0".into() };
        if routed {
            self.plan.wires.add(node, device, pod);
            return;
        }
        let bridge = self.bridge_name();
        for address in self.plan.hosts[host].addresses.clone() {
            let neighbour = Neighbour { address, host, device: "eth0".into() };
            self.plan.wires.join(node, bridge, neighbour);
        }
    }

    fn between(&mut self, nodes: &[usize]) {
        let scenario = self.scenario;
        match scenario.network.between {
            Between::FlannelVxlan => {
                for family in scenario.families() {
                    self.vxlan(nodes, family);
                }
            }
            Between::FlannelHostGw | Between::Routed => {
                for (here, node) in nodes.iter().zip(&scenario.nodes) {
                    let others = scenario.nodes.iter().filter(|other| other.name != node.name);
                    for command in others.flat_map(|other| routes_to(other, "eth0", |_| true)) {
                        self.ip(*here, command);
                    }
                }
            }
        }
    }

    /// pkg/backend/vxlan/vxlan_network.go: a route by each node's tunnel address, with the
    /// neighbour and the forwarding entry that belong to it.
    fn vxlan(&mut self, nodes: &[usize], family: Family) {
        let scenario = self.scenario;
        let device = match family {
            Family::V4 => "flannel.1",
            Family::V6 => "flannel-v6.1",
        };
        let own = |node: &Node| {
            let range = node.pods.iter().find(|net| Family::of(net.addr()) == family).copied();
            let address = node.addresses.iter().find(|one| Family::of(**one) == family).copied();
            range.zip(address)
        };
        let mac = |number: usize| format!("02:42:00:00:{:02x}:{number:02x}", family.nfproto());
        let mut tunnels = Vec::new();
        for (number, (here, node)) in nodes.iter().zip(&scenario.nodes).enumerate() {
            let Some((range, address)) = own(node) else { continue };
            let host = *here;
            self.ip(
                host,
                format!(
                    "link add {device} address {} mtu 1450 type vxlan id 1 local {address} dev \
                     eth0 dstport 8472 nolearning",
                    mac(number)
                ),
            );
            let length = family.bits();
            let nodad = if family == Family::V6 { " nodad" } else { "" };
            self.ip(host, format!("addr add {}/{length} dev {device}{nodad}", range.network()));
            self.ip(host, format!("link set {device} up"));
            tunnels.push(Neighbour { address: range.network(), host, device: device.into() });
            for (other_number, other) in scenario.nodes.iter().enumerate() {
                let Some((there, by)) = own(other).filter(|_| other_number != number) else {
                    continue;
                };
                let (via, mac) = (there.network(), mac(other_number));
                self.ip(host, format!("neigh add {via} lladdr {mac} dev {device} nud permanent"));
                self.ip(host, format!("route add {there} via {via} dev {device} onlink"));
                self.plan.hosts[host].bridge.push(format!("fdb add {mac} dev {device} dst {by}"));
            }
        }
        for tunnel in &tunnels {
            self.plan.wires.add(tunnel.host, device, Wire::Shared(tunnels.clone()));
        }
    }
}

/// Routes to those of a node's pod ranges that are wanted, by its address.
fn routes_to(node: &Node, device: &str, wanted: impl Fn(&IpNet) -> bool) -> Vec<String> {
    let by = |range: &IpNet| {
        let family = Family::of(range.addr());
        node.addresses.iter().find(|address| Family::of(**address) == family).copied()
    };
    let route = |range: &IpNet| Some(format!("route add {range} via {} dev {device}", by(range)?));
    node.pods.iter().filter(|range| wanted(range)).filter_map(route).collect()
}

/// An address of a network by its number.
pub(crate) fn nth(net: IpNet, number: u128) -> IpAddr {
    match net.network() {
        IpAddr::V4(v4) => {
            let number = u32::try_from(number).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4).saturating_add(number)))
        }
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6).saturating_add(number))),
    }
}

impl Plan {
    /// The index of a host by its name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.name == name)
    }

    /// A host's address of a family by which others call it.
    pub fn address(&self, host: usize, family: Family) -> Option<IpAddr> {
        self.hosts[host].addresses.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// Hosts by name, for messages.
    pub fn names(&self) -> BTreeMap<&str, usize> {
        self.hosts.iter().enumerate().map(|(index, host)| (host.name.as_str(), index)).collect()
    }
}

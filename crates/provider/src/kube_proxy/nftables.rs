//! kube-proxy's table in nftables mode.
//!
//! In: Services' ports and a proxy. Out: text for `nft -f`, written as `nft list ruleset` (1.0.6)
//! lists it, apart from the order and the folding of elements, and one-element sets in braces.
//! The facts are those of kubernetes pkg/proxy/nftables/proxier.go (`setupNFTables`,
//! `syncProxyRules`) and of captures; its README says why each chain stands where it stands.

mod text;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use unmasq_model::packet::Family;

use super::proxy::{NodePorts, Pods, Proxy};
use super::service_port::{Endpoint, Refusal, ServicePort};
use super::{MASQUERADE_MARK, name};
use text::{Text, list};
use unmasq_cluster::kubernetes::Protocol;

/// The longest comment that the kernel keeps (`CommentLengthMax` of knftables).
const COMMENT: usize = 128;

/// The base chains: name, type, hook, priority, what they do.
const BASE_CHAINS: [(&str, &str, &str, &str, &[&str]); 8] = [
    ("filter-prerouting-pre-dnat", "filter", "prerouting", "dstnat - 10", &[FIREWALL]),
    ("filter-output-pre-dnat", "filter", "output", "-110", &[FIREWALL]),
    ("filter-input", "filter", "input", "filter", &[NODE_PORTS, ENDPOINTS]),
    ("filter-forward", "filter", "forward", "filter", &[ENDPOINTS, CLUSTER_IPS]),
    ("filter-output", "filter", "output", "filter", &[ENDPOINTS, CLUSTER_IPS]),
    ("nat-prerouting", "nat", "prerouting", "dstnat", &["jump services"]),
    ("nat-output", "nat", "output", "-100", &["jump services"]),
    ("nat-postrouting", "nat", "postrouting", "srcnat", &["jump masquerading"]),
];
const FIREWALL: &str = "ct state new jump firewall-check";
const NODE_PORTS: &str = "ct state new jump nodeport-endpoints-check";
const ENDPOINTS: &str = "ct state new jump service-endpoints-check";
const CLUSTER_IPS: &str = "ct state new jump cluster-ips-check";

/// The whole table. One that is there already is replaced.
pub(super) fn rules(services: &[ServicePort<'_>], proxy: &Proxy<'_>) -> String {
    let mut table = Table::new(proxy);
    table.fixed_chains();
    for service in services {
        table.service(service);
    }
    table.text()
}

/// The table in the making.
struct Table<'a> {
    proxy: &'a Proxy<'a>,
    /// `ip` or `ip6`
    ip: &'static str,
    /// Sets whose elements come from several Services.
    cluster_ips: BTreeSet<IpAddr>,
    hairpins: BTreeSet<(Protocol, SocketAddr)>,
    /// Elements of maps.
    service_ips: Vec<String>,
    service_node_ports: Vec<String>,
    firewall_ips: Vec<String>,
    no_endpoint_services: Vec<String>,
    no_endpoint_node_ports: Vec<String>,
    affinity: Text,
    chains: Text,
}

/// The names of a Service's chains.
struct Chains {
    cluster: String,
    local: String,
    external: String,
    firewall: String,
}

impl Chains {
    fn of(service: &ServicePort<'_>) -> Self {
        let base = name::nftables_service(service);
        Chains {
            cluster: format!("service-{base}"),
            local: format!("local-{base}"),
            external: format!("external-{base}"),
            firewall: format!("firewall-{base}"),
        }
    }

    /// Where the policy leads.
    fn policy(&self, local: bool) -> &str {
        if local { &self.local } else { &self.cluster }
    }
}

impl<'a> Table<'a> {
    fn new(proxy: &'a Proxy<'a>) -> Self {
        Table {
            proxy,
            ip: match proxy.family {
                Family::V4 => "ip",
                Family::V6 => "ip6",
            },
            cluster_ips: BTreeSet::new(),
            hairpins: BTreeSet::new(),
            service_ips: Vec::new(),
            service_node_ports: Vec::new(),
            firewall_ips: Vec::new(),
            no_endpoint_services: Vec::new(),
            no_endpoint_node_ports: Vec::new(),
            affinity: Text::default(),
            chains: Text::default(),
        }
    }

    fn text(&self) -> String {
        let table = format!("{} kube-proxy", self.ip);
        let sets = self.sets();
        let (affinity, chains) = (&self.affinity, &self.chains);
        // A table must be there to be deleted.
        format!(
            "table {table}\ndelete table {table}\n\ntable {table} {{\n\
             \tcomment \"rules for kube-proxy\"\n{sets}{affinity}{chains}}}\n"
        )
    }

    fn sets(&self) -> Text {
        let address = self.address_type();
        let to_service = format!("{address} . inet_proto . inet_service : verdict");
        let to_port = "inet_proto . inet_service : verdict";
        let hairpin = |(protocol, endpoint): &(Protocol, SocketAddr)| {
            let (ip, port) = (endpoint.ip(), endpoint.port());
            format!("{ip} . {ip} . {protocol} . {port}")
        };
        let mut text = Text::default();
        text.set(
            "hairpin-connections",
            &format!("{address} . {address} . inet_proto . inet_service"),
            "service hairpin connections",
            self.hairpins.iter().map(hairpin),
        );
        text.set("cluster-ips", address, "Active ClusterIPs", &self.cluster_ips);
        if let NodePorts::At(addresses) = &self.proxy.node_ports {
            let addresses = addresses.iter().filter(|address| !address.is_loopback());
            text.set("nodeport-ips", address, "IPs that accept NodePort traffic", addresses);
        }
        for (name, kind, comment, elements) in [
            (
                "no-endpoint-services",
                to_service.as_str(),
                "vmap to drop or reject packets to services with no endpoints",
                &self.no_endpoint_services,
            ),
            (
                "no-endpoint-nodeports",
                to_port,
                "vmap to drop or reject packets to service nodeports with no endpoints",
                &self.no_endpoint_node_ports,
            ),
            (
                "firewall-ips",
                &to_service,
                "destinations that are subject to LoadBalancerSourceRanges",
                &self.firewall_ips,
            ),
            (
                "service-ips",
                &to_service,
                "ClusterIP, ExternalIP and LoadBalancer IP traffic",
                &self.service_ips,
            ),
            ("service-nodeports", to_port, "NodePort traffic", &self.service_node_ports),
        ] {
            text.map(name, kind, comment, elements);
        }
        text
    }

    fn address_type(&self) -> &'static str {
        match self.proxy.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        }
    }

    /// The chains that no Service changes.
    fn fixed_chains(&mut self) {
        let ip = self.ip;
        for (name, kind, hook, priority, rules) in BASE_CHAINS {
            self.chains.base_chain(name, kind, hook, priority, rules);
        }
        let (here, local) = self.node_port_match();
        self.chains.chain(
            "nodeport-endpoints-check",
            &[format!("{here} meta l4proto . th dport vmap @no-endpoint-nodeports")],
        );
        let service = format!("{ip} daddr . meta l4proto . th dport vmap");
        let check = [format!("{service} @no-endpoint-services")];
        self.chains.chain("service-endpoints-check", &check);
        self.chains.chain("firewall-check", &[format!("{service} @firewall-ips")]);
        let mut services: Vec<String> = self.masquerade_cluster_ips().into_iter().collect();
        services.push(format!("{service} @service-ips"));
        services.push(format!("{local}{here} meta l4proto . th dport vmap @service-nodeports"));
        self.chains.chain("services", &services);
        self.masquerading();
        self.cluster_ips_check();
        let comment = "helper for @no-endpoint-services / @no-endpoint-nodeports";
        self.chains.commented_chain("reject-chain", comment, &["reject"]);
    }

    /// What a packet to a node port must be, and what comes before it where it is routed.
    fn node_port_match(&self) -> (String, &'static str) {
        match (&self.proxy.node_ports, self.proxy.family) {
            (NodePorts::At(_), _) => (format!("{} daddr @nodeport-ips", self.ip), ""),
            (NodePorts::All, Family::V4) => {
                ("ip daddr != 127.0.0.0/8".into(), "fib daddr type local ")
            }
            (NodePorts::All, Family::V6) => ("ip6 daddr != ::1".into(), "fib daddr type local "),
        }
    }

    fn masquerade_cluster_ips(&self) -> Option<String> {
        let (ip, mark) = (self.ip, mark());
        if self.proxy.config.masquerade_all {
            let comment = "masquerade all clusterIP traffic";
            return Some(format!("{ip} daddr @cluster-ips {mark} comment \"{comment}\""));
        }
        // A client outside may have a route for cluster IPs by way of this node.
        let pods = self.pods(" !=")?;
        let comment = "masquerade clusterIP traffic from outside cluster";
        Some(format!("{ip} daddr @cluster-ips {pods} {mark} comment \"{comment}\""))
    }

    /// A match of pods.
    fn pods(&self, operator: &str) -> Option<String> {
        let ip = self.ip;
        self.proxy.pods.map(|pods| match pods {
            Pods::From(network) => format!("{ip} saddr{operator} {network}"),
            Pods::By(name) => format!("iifname{operator} \"{name}\""),
            Pods::ByPrefix(prefix) => format!("iifname{operator} \"{prefix}*\""),
        })
    }

    fn masquerading(&mut self) {
        let (ip, mark) = (self.ip, MASQUERADE_MARK);
        let to_itself = format!("{ip} saddr . {ip} daddr . meta l4proto . th dport");
        let rules = [
            // The mark goes, so that a packet that comes by again isn't masqueraded again.
            format!(
                "meta mark & {mark:#010x} != 0x00000000 meta mark set meta mark ^ {mark:#010x} \
                 masquerade fully-random"
            ),
            // An endpoint that reaches itself would answer itself directly.
            format!("ct status dnat {to_itself} @hairpin-connections masquerade fully-random"),
        ];
        self.chains.chain("masquerading", &rules);
    }

    fn cluster_ips_check(&mut self) {
        let ip = self.ip;
        let mut rules = vec![format!(
            "{ip} daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\""
        )];
        let networks = self.proxy.config.service_cidrs.iter();
        let ours: Vec<_> =
            networks.filter(|network| Family::of(network.addr()) == self.proxy.family).collect();
        if !ours.is_empty() {
            let ours = list(ours);
            rules.push(format!(
                "{ip} daddr {{ {ours} }} drop comment \"Drop traffic to unallocated ClusterIPs\""
            ));
        }
        self.chains.chain("cluster-ips-check", &rules);
    }

    fn service(&mut self, service: &ServicePort<'_>) {
        let chains = Chains::of(service);
        for endpoint in service.reachable().filter(|endpoint| endpoint.local) {
            self.hairpins.insert((service.protocol, endpoint.address));
        }
        self.addresses(service, &chains);
        if service.affinity.is_some() {
            for endpoint in service.reachable() {
                self.endpoint_chain(service, endpoint);
            }
        }
        self.policy_chain(service, &chains.cluster, service.cluster());
        self.policy_chain(service, &chains.local, service.local());
        if service.has_endpoints && service.externally_accessible() {
            self.external_chain(service, &chains);
        }
        // With or without endpoints, unlike in iptables mode.
        if service.has_firewall() {
            self.firewall_chain(service, &chains);
        }
    }

    /// The elements that lead to a Service.
    fn addresses(&mut self, service: &ServicePort<'_>, chains: &Chains) {
        let ServicePort { protocol, port, cluster_ip, .. } = service;
        let comment = &service.name[..service.name.len().min(COMMENT)];
        let refusal = |refusal: Refusal| match refusal {
            Refusal::Reject => format!("comment \"{comment}\" : goto reject-chain"),
            Refusal::Drop => format!("comment \"{comment}\" : drop"),
        };
        self.cluster_ips.insert(*cluster_ip);
        let entry = format!("{cluster_ip} . {protocol} . {port}");
        match service.internal_refusal() {
            Some(reason) => self.no_endpoint_services.push(format!("{entry} {}", refusal(reason))),
            None => {
                let chain = chains.policy(service.internal_local);
                self.service_ips.push(format!("{entry} : goto {chain}"));
            }
        }
        for address in service.external_ips.iter().chain(&service.load_balancer_ips) {
            let entry = format!("{address} . {protocol} . {port}");
            if service.has_endpoints {
                self.service_ips.push(format!("{entry} : goto {}", chains.external));
            }
            if let Some(reason) = service.external_refusal() {
                self.no_endpoint_services.push(format!("{entry} {}", refusal(reason)));
            }
        }
        if service.has_firewall() {
            for address in &service.load_balancer_ips {
                let chain = &chains.firewall;
                self.firewall_ips.push(format!("{address} . {protocol} . {port} : goto {chain}"));
            }
        }
        let Some(node_port) = service.node_port else { return };
        let entry = format!("{protocol} . {node_port}");
        if service.has_endpoints {
            self.service_node_ports.push(format!("{entry} : goto {}", chains.external));
        }
        if let Some(reason) = service.external_refusal() {
            self.no_endpoint_node_ports.push(format!("{entry} {}", refusal(reason)));
        }
    }

    /// Chooses an endpoint: the one that the client has had, else by chance.
    fn policy_chain<'s, 'o: 's>(
        &mut self,
        service: &ServicePort<'o>,
        chain: &str,
        endpoints: impl Iterator<Item = &'s Endpoint<'o>>,
    ) {
        let ip = self.ip;
        let endpoints: Vec<_> = endpoints.map(|found| found.address).collect();
        let count = endpoints.len();
        if count == 0 {
            return;
        }
        let mut rules = Vec::new();
        if service.affinity.is_some() {
            let bases: Vec<_> =
                endpoints.iter().map(|found| name::nftables_endpoint(service, *found)).collect();
            for base in &bases {
                rules.push(format!("{ip} saddr @affinity-{base} goto endpoint-{base}"));
            }
            let chains = bases.iter().map(|base| format!("goto endpoint-{base}"));
            rules.push(format!("numgen random mod {count} vmap {{ {} }}", numbered(chains)));
        } else {
            let targets =
                endpoints.iter().map(|found| format!("{} . {}", found.ip(), found.port()));
            rules.push(format!(
                "meta l4proto {} dnat {ip} to numgen random mod {count} map {{ {} }}",
                service.protocol,
                numbered(targets)
            ));
        }
        self.chains.chain(chain, &rules);
    }

    /// An endpoint whose clients come back to it.
    fn endpoint_chain(&mut self, service: &ServicePort<'_>, endpoint: &Endpoint<'_>) {
        let (ip, kind) = (self.ip, self.address_type());
        let base = name::nftables_endpoint(service, endpoint.address);
        let seconds = service.affinity.unwrap_or_default();
        self.affinity.affinity_set(&format!("affinity-{base}"), kind, seconds);
        let rules = [
            format!("update @affinity-{base} {{ {ip} saddr }}"),
            format!("meta l4proto {} dnat to {}", service.protocol, endpoint.address),
        ];
        self.chains.chain(&format!("endpoint-{base}"), &rules);
    }

    /// Where all clients from outside come by.
    fn external_chain(&mut self, service: &ServicePort<'_>, chains: &Chains) {
        let (cluster, mark) = (&chains.cluster, mark());
        let mut rules = Vec::new();
        if service.external_local {
            // Pods and the node itself get what a load balancer would have given them.
            if let Some(pods) = self.pods("") {
                let comment = "short-circuit pod traffic";
                rules.push(format!("{pods} goto {cluster} comment \"{comment}\""));
            }
            let comment = "masquerade local traffic";
            rules.push(format!("fib saddr type local {mark} comment \"{comment}\""));
            let comment = "short-circuit local traffic";
            rules.push(format!("fib saddr type local goto {cluster} comment \"{comment}\""));
        } else {
            // The endpoint may be on another node.
            rules.push(format!("{mark} comment \"masquerade\""));
        }
        if service.external_refusal().is_none() {
            rules.push(format!("goto {}", chains.policy(service.external_local)));
        }
        self.chains.chain(&chains.external, &rules);
    }

    fn firewall_chain(&mut self, service: &ServicePort<'_>, chains: &Chains) {
        let ranges = &service.source_ranges;
        let mut sources: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        // The node's own packets to an address that it has itself come from that address.
        let has_node = |node| ranges.iter().any(|range| range.contains(&node));
        if self.proxy.node_ip.is_some_and(has_node) {
            sources.extend(service.load_balancer_ips.iter().map(ToString::to_string));
        }
        let rule = format!("{} saddr != {{ {} }} drop", self.ip, list(sources));
        self.chains.chain(&chains.firewall, &[rule]);
    }
}

/// The statement that asks for masquerade.
fn mark() -> String {
    format!("meta mark set meta mark | {MASQUERADE_MARK:#010x}")
}

/// `0 : first, 1 : second`
fn numbered(values: impl Iterator<Item = String>) -> String {
    list(values.enumerate().map(|(index, value)| format!("{index} : {value}")))
}

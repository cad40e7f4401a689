//! kube-proxy's rules in iptables mode.
//!
//! In: Services' ports and a proxy. Out: text for `iptables-restore --noflush`, written as
//! iptables-save (1.8.9) writes it. The facts are those of kubernetes
//! pkg/proxy/iptables/proxier.go (`syncProxyRules`, `iptablesJumpChains`).

mod rule;

use std::fmt::Write;
use std::net::IpAddr;

use unmasq_model::packet::Family;

use super::proxy::{NodePorts, Proxy};
use super::service_port::{Endpoint, Refusal, ServicePort};
use super::{MASQUERADE_MARK, name};
use rule::{Rule, insert, rule};

/// Above so many endpoints their rules have no comments (`largeClusterEndpointsThreshold`).
const LARGE: usize = 1_000;
const LOCALNET: &str = "127.0.0.0/8";

/// Filter chains, each written from its beginning at every load.
const FILTER: [&str; 6] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-NODEPORTS",
    "KUBE-PROXY-FIREWALL",
    "KUBE-FIREWALL",
];
/// The same in nat.
const NAT: [&str; 4] = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"];

/// Jumps from filter's built-in chains: from, only for new connections, comment, to. The first is
/// put in first, so it ends behind the others.
const FILTER_JUMPS: [(&str, bool, &str, &str); 9] = [
    ("INPUT", true, "kubernetes externally-visible service portals", "KUBE-EXTERNAL-SERVICES"),
    ("FORWARD", true, "kubernetes externally-visible service portals", "KUBE-EXTERNAL-SERVICES"),
    ("INPUT", false, "kubernetes health check service ports", "KUBE-NODEPORTS"),
    ("FORWARD", true, "kubernetes service portals", "KUBE-SERVICES"),
    ("OUTPUT", true, "kubernetes service portals", "KUBE-SERVICES"),
    ("FORWARD", false, "kubernetes forwarding rules", "KUBE-FORWARD"),
    ("INPUT", true, "kubernetes load balancer firewall", "KUBE-PROXY-FIREWALL"),
    ("OUTPUT", true, "kubernetes load balancer firewall", "KUBE-PROXY-FIREWALL"),
    ("FORWARD", true, "kubernetes load balancer firewall", "KUBE-PROXY-FIREWALL"),
];
const NAT_JUMPS: [(&str, &str, &str); 3] = [
    ("OUTPUT", "kubernetes service portals", "KUBE-SERVICES"),
    ("PREROUTING", "kubernetes service portals", "KUBE-SERVICES"),
    ("POSTROUTING", "kubernetes postrouting rules", "KUBE-POSTROUTING"),
];

/// The rules ahead of those in the built-in chains, and the empty chains by which kube-proxy sees
/// that somebody flushed its tables.
pub(super) fn jumps() -> String {
    let (mut filter, mut nat, mut mangle) =
        (Table::new(&FILTER), Table::new(&NAT), Table::new(&[]));
    for table in [&mut filter, &mut nat, &mut mangle] {
        table.chain("KUBE-PROXY-CANARY");
    }
    for (from, only_new, comment, to) in FILTER_JUMPS {
        let rule = insert(&mut filter.rules, from);
        let rule = if only_new { rule.state("NEW") } else { rule };
        rule.comment(comment).jump(to);
    }
    // kubelet's firewall, which kube-proxy makes too.
    for from in ["INPUT", "OUTPUT"] {
        insert(&mut filter.rules, from).jump("KUBE-FIREWALL");
    }
    for (from, comment, to) in NAT_JUMPS {
        insert(&mut nat.rules, from).comment(comment).jump(to);
    }
    [mangle.text("mangle"), filter.text("filter"), nat.text("nat")].concat()
}

/// All rules but those.
pub(super) fn rules(services: &[ServicePort<'_>], proxy: &Proxy<'_>) -> String {
    let endpoints: usize = services.iter().map(|service| service.endpoints.len()).sum();
    let mut tables = Tables {
        proxy,
        comments: endpoints <= LARGE,
        filter: Table::new(&FILTER),
        nat: Table::new(&NAT),
    };
    tables.masquerade();
    tables.guard_localhost();
    for service in services {
        tables.service(service);
    }
    tables.node_ports();
    tables.forward();
    tables.filter.text("filter") + &tables.nat.text("nat")
}

/// A table in the making.
struct Table {
    chains: String,
    rules: String,
}

impl Table {
    fn new(chains: &[&str]) -> Self {
        let mut table = Table { chains: String::new(), rules: String::new() };
        for chain in chains {
            table.chain(chain);
        }
        table
    }

    fn chain(&mut self, name: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.chains, ":{name} - [0:0]");
    }

    fn rule(&mut self, chain: &str) -> Rule<'_> {
        rule(&mut self.rules, chain)
    }

    fn text(&self, name: &str) -> String {
        format!("*{name}\n{}{}COMMIT\n", self.chains, self.rules)
    }
}

/// The tables in the making.
struct Tables<'a> {
    proxy: &'a Proxy<'a>,
    /// Whether endpoints' rules have comments.
    comments: bool,
    filter: Table,
    nat: Table,
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
        let hash = name::iptables_service(service);
        Chains {
            cluster: format!("KUBE-SVC-{hash}"),
            local: format!("KUBE-SVL-{hash}"),
            external: format!("KUBE-EXT-{hash}"),
            firewall: format!("KUBE-FW-{hash}"),
        }
    }

    /// Where the policy leads.
    fn policy(&self, local: bool) -> &str {
        if local { &self.local } else { &self.cluster }
    }
}

impl Tables<'_> {
    fn masquerade(&mut self) {
        let mark = MASQUERADE_MARK;
        let chain = "KUBE-POSTROUTING";
        self.nat.rule(chain).not_marked(mark).target("RETURN");
        // So that a packet that comes by again isn't masqueraded again.
        self.nat.rule(chain).set_mark(mark, 0);
        let comment = "kubernetes service traffic requiring SNAT";
        self.nat.rule(chain).comment(comment).target("MASQUERADE --random-fully");
        self.nat.rule("KUBE-MARK-MASQ").set_mark(mark, mark);
    }

    /// Node ports come last: their chain is asked for every address of the node.
    fn node_ports(&mut self) {
        let comment =
            "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
        let localhost = self.proxy.localhost_node_ports;
        match &self.proxy.node_ports {
            NodePorts::All => {
                let rule = self.nat.rule("KUBE-SERVICES");
                let rule = match self.proxy.family {
                    Family::V6 => rule.not_destination("::1/128"),
                    Family::V4 if !localhost => rule.not_destination(LOCALNET),
                    Family::V4 => rule,
                };
                rule.comment(comment).local("dst").jump("KUBE-NODEPORTS");
            }
            NodePorts::At(addresses) => {
                for address in addresses {
                    if localhost || !address.is_loopback() {
                        let rule = self.nat.rule("KUBE-SERVICES").destination_host(*address);
                        rule.comment(comment).jump("KUBE-NODEPORTS");
                    }
                }
            }
        }
    }

    fn forward(&mut self) {
        let chain = "KUBE-FORWARD";
        if !self.proxy.config.conntrack_tcp_liberal {
            let mut rule = self.filter.rule(chain).state("INVALID");
            if self.proxy.config.nfacct {
                rule = rule.nfacct("ct_state_invalid_dropped_pkts");
            }
            rule.target("DROP");
        }
        let rule = self.filter.rule(chain).comment("kubernetes forwarding rules");
        rule.marked(MASQUERADE_MARK).target("ACCEPT");
        let rule = self.filter.rule(chain).comment("kubernetes forwarding conntrack rule");
        rule.state("RELATED,ESTABLISHED").target("ACCEPT");
    }

    /// With route_localnet anybody on the link could reach 127.0.0.1.
    fn guard_localhost(&mut self) {
        if self.proxy.localhost_node_ports {
            let rule = self.filter.rule("KUBE-FIREWALL").not_source(LOCALNET).destination(LOCALNET);
            let rule = rule.comment("block incoming localnet connections");
            rule.not_state("RELATED,ESTABLISHED,DNAT").target("DROP");
        }
    }

    fn service(&mut self, service: &ServicePort<'_>) {
        let chains = Chains::of(service);
        self.cluster_ip(service, &chains);
        self.external_addresses(service, &chains);
        self.node_port(service, &chains);
        if let Some(port) = service.health_check_node_port {
            let rule = self.filter.rule("KUBE-NODEPORTS").protocol("tcp");
            let rule = rule.comment(&format!("{} health check node port", service.name));
            rule.port("tcp", port).target("ACCEPT");
        }
        if service.has_endpoints && service.externally_accessible() {
            self.external_chain(service, &chains);
            if service.has_firewall() {
                self.firewall_chain(service, &chains);
            }
        }
        self.policy_chain(service, &chains.cluster, service.cluster());
        self.policy_chain(service, &chains.local, service.local());
        for endpoint in service.reachable() {
            self.endpoint_chain(service, endpoint);
        }
    }

    fn cluster_ip(&mut self, service: &ServicePort<'_>, chains: &Chains) {
        let protocol = service.protocol;
        if let Some(refusal) = service.internal_refusal() {
            let rule = self.filter.rule("KUBE-SERVICES").destination_host(service.cluster_ip);
            let rule = rule.protocol(protocol).comment(&refused(service, refusal));
            rule.port(protocol, service.port).refuse(refusal, self.proxy.family);
            return;
        }
        let comment = format!("{} cluster IP", service.name);
        let chain = chains.policy(service.internal_local);
        let rule = self.nat.rule("KUBE-SERVICES").destination_host(service.cluster_ip);
        rule.protocol(protocol).comment(&comment).port(protocol, service.port).jump(chain);

        let rule = match (self.proxy.config.masquerade_all, self.proxy.pods) {
            (true, _) => self.nat.rule(chain).destination_host(service.cluster_ip),
            // A client outside may have a route for cluster IPs by way of this node.
            (false, Some(pods)) => self.nat.rule(chain).not_pods(pods, service.cluster_ip),
            (false, None) => return,
        };
        let rule = rule.protocol(protocol).comment(&comment);
        rule.port(protocol, service.port).jump("KUBE-MARK-MASQ");
    }

    /// External and load balancer's addresses.
    fn external_addresses(&mut self, service: &ServicePort<'_>, chains: &Chains) {
        for address in &service.external_ips {
            self.external_address(service, *address, "external IP", &chains.external);
        }
        let firewall = service.has_firewall();
        let to = if firewall { &chains.firewall } else { &chains.external };
        for address in &service.load_balancer_ips {
            self.external_address(service, *address, "loadbalancer IP", to);
            if firewall && service.has_endpoints {
                // What the firewall chain doesn't let through keeps this destination.
                let rule = self.filter.rule("KUBE-PROXY-FIREWALL").destination_host(*address);
                let comment = format!("{} traffic not accepted by {to}", service.name);
                let rule = rule.protocol(service.protocol).comment(&comment);
                rule.port(service.protocol, service.port).target("DROP");
            }
        }
    }

    fn external_address(
        &mut self,
        service: &ServicePort<'_>,
        address: IpAddr,
        what: &str,
        to: &str,
    ) {
        let protocol = service.protocol;
        if service.has_endpoints {
            let rule = self.nat.rule("KUBE-SERVICES").destination_host(address).protocol(protocol);
            let rule = rule.comment(&format!("{} {what}", service.name));
            rule.port(protocol, service.port).jump(to);
        }
        if let Some(refusal) = service.external_refusal() {
            let rule = self.filter.rule("KUBE-EXTERNAL-SERVICES").destination_host(address);
            let rule = rule.protocol(protocol).comment(&refused(service, refusal));
            rule.port(protocol, service.port).refuse(refusal, self.proxy.family);
        }
    }

    fn node_port(&mut self, service: &ServicePort<'_>, chains: &Chains) {
        let Some(port) = service.node_port else { return };
        let protocol = service.protocol;
        if service.has_endpoints {
            // Only counts who uses node ports on localhost.
            if self.proxy.localhost_node_ports && self.proxy.config.nfacct {
                let rule = self.nat.rule("KUBE-NODEPORTS").destination(LOCALNET).protocol(protocol);
                let rule = rule.comment(&service.name).port(protocol, port);
                rule.nfacct("localhost_nps_accepted_pkts").jump(&chains.external);
            }
            let rule = self.nat.rule("KUBE-NODEPORTS").protocol(protocol);
            rule.comment(&service.name).port(protocol, port).jump(&chains.external);
        }
        if let Some(refusal) = service.external_refusal() {
            let rule = self.filter.rule("KUBE-EXTERNAL-SERVICES").protocol(protocol);
            let rule = rule.comment(&refused(service, refusal)).local("dst");
            rule.port(protocol, port).refuse(refusal, self.proxy.family);
        }
    }

    /// Where all clients from outside come by.
    fn external_chain(&mut self, service: &ServicePort<'_>, chains: &Chains) {
        let chain = &chains.external;
        self.nat.chain(chain);
        let who = |what: &str| format!("{what} {} external destinations", service.name);
        if service.external_local {
            // Pods and the node itself get what a load balancer would have given them.
            if let Some(pods) = self.proxy.pods {
                let rule = self.nat.rule(chain).pods(pods);
                rule.comment(&who("pod traffic for")).jump(&chains.cluster);
            }
            let rule = self.nat.rule(chain).comment(&who("masquerade LOCAL traffic for"));
            rule.local("src").jump("KUBE-MARK-MASQ");
            let rule = self.nat.rule(chain).comment(&who("route LOCAL traffic for"));
            rule.local("src").jump(&chains.cluster);
        } else {
            // The endpoint may be on another node.
            let rule = self.nat.rule(chain).comment(&who("masquerade traffic for"));
            rule.jump("KUBE-MARK-MASQ");
        }
        if service.external_refusal().is_none() {
            self.nat.rule(chain).jump(chains.policy(service.external_local));
        }
    }

    fn firewall_chain(&mut self, service: &ServicePort<'_>, chains: &Chains) {
        let ServicePort { name, source_ranges, load_balancer_ips, .. } = service;
        let chain = &chains.firewall;
        self.nat.chain(chain);
        let comment = format!("{name} loadbalancer IP");
        for range in source_ranges {
            self.nat.rule(chain).source(range).comment(&comment).jump(&chains.external);
        }
        // The node's own packets to an address that it has itself come from that address.
        let has_node = |node| source_ranges.iter().any(|range| range.contains(&node));
        if self.proxy.node_ip.is_some_and(has_node) {
            for address in load_balancer_ips {
                let rule = self.nat.rule(chain).source_host(*address);
                rule.comment(&comment).jump(&chains.external);
            }
        }
        let comment = format!("other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL");
        self.nat.rule(chain).comment(&comment).end();
    }

    /// Chooses an endpoint: the one that the client has had, else by chance.
    fn policy_chain<'a, 'b: 'a>(
        &mut self,
        service: &ServicePort<'b>,
        chain: &str,
        endpoints: impl Iterator<Item = &'a Endpoint<'b>>,
    ) {
        let endpoints: Vec<_> =
            endpoints.map(|found| (&found.text, endpoint_chain(service, found))).collect();
        if endpoints.is_empty() {
            return;
        }
        self.nat.chain(chain);
        let family = self.proxy.family;
        if let Some(seconds) = service.affinity {
            for (text, to) in &endpoints {
                self.choice(service, chain, text).seen(seconds, to, family).jump(to);
            }
        }
        for (index, (text, to)) in endpoints.iter().enumerate() {
            self.choice(service, chain, text).one_of(endpoints.len() - index).jump(to);
        }
    }

    fn choice(&mut self, service: &ServicePort<'_>, chain: &str, endpoint: &str) -> Rule<'_> {
        let comment = self.comments.then(|| format!("{} -> {endpoint}", service.name));
        self.nat.rule(chain).maybe_comment(comment.as_deref())
    }

    fn endpoint_chain(&mut self, service: &ServicePort<'_>, endpoint: &Endpoint<'_>) {
        let chain = endpoint_chain(service, endpoint);
        self.nat.chain(&chain);
        let comment = self.comments.then_some(service.name.as_str());
        // An endpoint that reaches itself would answer itself directly.
        let rule = self.nat.rule(&chain).source_host(endpoint.address.ip());
        rule.maybe_comment(comment).jump("KUBE-MARK-MASQ");
        let mut rule = self.nat.rule(&chain).protocol(service.protocol).maybe_comment(comment);
        if service.affinity.is_some() {
            rule = rule.remember(&chain, self.proxy.family);
        }
        rule.dnat(service.protocol, endpoint.address);
    }
}

fn endpoint_chain(service: &ServicePort<'_>, endpoint: &Endpoint<'_>) -> String {
    format!("KUBE-SEP-{}", name::iptables_endpoint(service, &endpoint.text))
}

fn refused(service: &ServicePort<'_>, refusal: Refusal) -> String {
    let what = match refusal {
        Refusal::Reject => "has no endpoints",
        Refusal::Drop => "has no local endpoints",
    };
    format!("{} {what}", service.name)
}

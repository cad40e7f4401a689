//! The nftables table that kube-proxy 1.36 programs (kubernetes pkg/proxy/nftables/proxier.go).
//!
//! In: a cluster, as a node sees it. Out: the objects of `nft -j` (1.0.6) for the table `ip kube-proxy`.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use super::cluster::{
    Cluster, Endpoint, POD_NETWORK, PORT, SERVICE_NETWORK, Service, TARGET_PORT, node_address,
};

const L4PROTO: &str = r#"{"meta": {"key": "l4proto"}}"#;
const MARK: &str = r#"{"meta": {"key": "mark"}}"#;
const DPORT: &str = r#"{"payload": {"protocol": "th", "field": "dport"}}"#;
const SADDR: &str = r#"{"payload": {"protocol": "ip", "field": "saddr"}}"#;
const DADDR: &str = r#"{"payload": {"protocol": "ip", "field": "daddr"}}"#;

/// Base chains: name, hook, type, priority.
const BASE_CHAINS: &[(&str, &str, &str, i32)] = &[
    ("filter-prerouting-pre-dnat", "prerouting", "filter", -110),
    ("filter-output-pre-dnat", "output", "filter", -110),
    ("filter-input", "input", "filter", 0),
    ("filter-forward", "forward", "filter", 0),
    ("filter-output", "output", "filter", 0),
    ("nat-prerouting", "prerouting", "nat", -100),
    ("nat-output", "output", "nat", -100),
    ("nat-postrouting", "postrouting", "nat", 100),
];

const CHAINS: &[&str] = &[
    "nodeport-endpoints-check",
    "service-endpoints-check",
    "firewall-check",
    "services",
    "masquerading",
    "cluster-ips-check",
    "reject-chain",
];

/// Writes the table's objects, each after a comma; gives the number of rules.
pub(super) fn nft_json(cluster: &Cluster, out: &mut dyn Write) -> io::Result<u64> {
    let mut list = List { out, handle: 0, rules: 0 };
    write!(list.out, r#", {{"table": {{"family": "ip", "name": "kube-proxy", "handle": 11}}}}"#)?;
    sets(cluster, &mut list)?;
    for (name, hook, kind, priority) in BASE_CHAINS {
        list.chain(
            name,
            &format!(
                r#", "type": "{kind}", "hook": "{hook}", "prio": {priority}, "policy": "accept""#
            ),
        )?;
    }
    CHAINS.iter().try_for_each(|name| list.chain(name, ""))?;
    for service in cluster.services() {
        list.chain(&service_chain(&service), "")?;
        if service.local && cluster.has_local(service.number) {
            list.chain(&local_chain(&service), "")?;
        }
        if service.node_port.is_some() {
            list.chain(&external_chain(&service), "")?;
        }
    }
    fixed_rules(&mut list)?;
    cluster.services().try_for_each(|service| service_rules(cluster, &service, &mut list))?;
    Ok(list.rules)
}

/// The listing as it grows.
struct List<'a> {
    out: &'a mut dyn Write,
    handle: u64,
    rules: u64,
}

impl List<'_> {
    fn begin(&mut self, what: &str) -> io::Result<()> {
        self.handle += 1;
        write!(self.out, r#", {{"{what}": {{"family": "ip", "#)
    }

    fn chain(&mut self, name: &str, base: &str) -> io::Result<()> {
        self.begin("chain")?;
        let handle = self.handle;
        write!(self.out, r#""table": "kube-proxy", "name": "{name}", "handle": {handle}{base}}}}}"#)
    }

    fn rule(&mut self, chain: &str, comment: Option<&str>, expr: &[String]) -> io::Result<()> {
        self.begin("rule")?;
        self.rules += 1;
        let handle = self.handle;
        write!(self.out, r#""table": "kube-proxy", "chain": "{chain}", "handle": {handle}, "#)?;
        if let Some(comment) = comment {
            write!(self.out, r#""comment": "{comment}", "#)?;
        }
        write!(self.out, r#""expr": [{}]}}}}"#, expr.join(", "))
    }

    /// A set (`kind` is its type), or a verdict map. An empty one has no `elem`.
    fn set(
        &mut self,
        what: &str,
        name: &str,
        kind: &str,
        comment: &str,
        elements: &mut dyn Iterator<Item = String>,
    ) -> io::Result<()> {
        self.begin(what)?;
        let handle = self.handle;
        write!(
            self.out,
            r#""name": "{name}", "table": "kube-proxy", "type": {kind}, "handle": {handle}, "comment": "{comment}""#
        )?;
        if what == "map" {
            write!(self.out, r#", "map": "verdict""#)?;
        }
        let mut separator = r#", "elem": ["#;
        for element in elements {
            write!(self.out, "{separator}{element}")?;
            separator = ", ";
        }
        let end = if separator == ", " { "]" } else { "" };
        write!(self.out, "{end}}}}}")
    }
}

fn service_chain(service: &Service) -> String {
    format!("service-{}-{}", service.hash().short(), service.path())
}

fn local_chain(service: &Service) -> String {
    format!("local-{}-{}", service.hash().short(), service.path())
}

fn external_chain(service: &Service) -> String {
    format!("external-{}-{}", service.hash().short(), service.path())
}

fn sets(cluster: &Cluster, list: &mut List<'_>) -> io::Result<()> {
    let service_key = r#"["ipv4_addr", "inet_proto", "inet_service"]"#;
    let port_key = r#"["inet_proto", "inet_service"]"#;
    let quoted = |address| format!(r#""{address}""#);
    let mut hairpin = (0..cluster.services)
        .flat_map(|service| cluster.endpoints(service))
        .filter(|endpoint| endpoint.local)
        .map(|endpoint| endpoint.address)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .map(|a| format!(r#"{{"concat": ["{a}", "{a}", "tcp", {TARGET_PORT}]}}"#));
    list.set(
        "set",
        "hairpin-connections",
        r#"["ipv4_addr", "ipv4_addr", "inet_proto", "inet_service"]"#,
        "service hairpin connections",
        &mut hairpin,
    )?;
    let mut addresses = cluster.services().map(|service| quoted(service.address));
    list.set("set", "cluster-ips", r#""ipv4_addr""#, "Active ClusterIPs", &mut addresses)?;
    list.set(
        "set",
        "nodeport-ips",
        r#""ipv4_addr""#,
        "IPs that accept NodePort traffic",
        &mut [quoted(node_address(cluster.this_node))].into_iter(),
    )?;
    refusals(cluster, list, service_key, port_key)?;
    let comment = "destinations that are subject to LoadBalancerSourceRanges";
    list.set("map", "firewall-ips", service_key, comment, &mut std::iter::empty())?;
    let mut services = cluster.services().flat_map(|service| {
        let element = |address, chain: &str| format!("[{}, {}]", service_at(address), goto(chain));
        let balanced =
            service.load_balancer.map(|address| element(address, &external_chain(&service)));
        [element(service.address, &service_chain(&service))].into_iter().chain(balanced)
    });
    let comment = "ClusterIP, ExternalIP and LoadBalancer IP traffic";
    list.set("map", "service-ips", service_key, comment, &mut services)?;
    let mut ports = cluster.services().filter_map(|service| {
        let key = node_port(service.node_port?);
        Some(format!("[{key}, {}]", goto(&external_chain(&service))))
    });
    list.set("map", "service-nodeports", port_key, "NodePort traffic", &mut ports)
}

/// Who comes from outside for a Service of policy Local to a node that has no endpoint of it.
fn refusals(
    cluster: &Cluster,
    list: &mut List<'_>,
    service_key: &str,
    port_key: &str,
) -> io::Result<()> {
    let refused =
        || cluster.services().filter(|found| found.local && !cluster.has_local(found.number));
    let element = |key: String, service: Service| {
        let comment = service.port_name();
        format!(r#"[{{"elem": {{"val": {key}, "comment": "{comment}"}}}}, {{"drop": null}}]"#)
    };
    let mut services =
        refused().filter_map(|found| Some(element(service_at(found.load_balancer?), found)));
    let comment = "vmap to drop or reject packets to services with no endpoints";
    list.set("map", "no-endpoint-services", service_key, comment, &mut services)?;
    let mut ports = refused().filter_map(|found| Some(element(node_port(found.node_port?), found)));
    let comment = "vmap to drop or reject packets to service nodeports with no endpoints";
    list.set("map", "no-endpoint-nodeports", port_key, comment, &mut ports)
}

/// The keys of maps.
fn service_at(address: Ipv4Addr) -> String {
    format!(r#"{{"concat": ["{address}", "tcp", {PORT}]}}"#)
}

fn node_port(port: u16) -> String {
    format!(r#"{{"concat": ["tcp", {port}]}}"#)
}

fn fixed_rules(list: &mut List<'_>) -> io::Result<()> {
    let new = compare("in", r#"{"ct": {"key": "state"}}"#, r#""new""#);
    for (from, to) in [
        ("filter-prerouting-pre-dnat", "firewall-check"),
        ("filter-output-pre-dnat", "firewall-check"),
        ("filter-input", "nodeport-endpoints-check"),
        ("filter-input", "service-endpoints-check"),
        ("filter-forward", "service-endpoints-check"),
        ("filter-forward", "cluster-ips-check"),
        ("filter-output", "service-endpoints-check"),
        ("filter-output", "cluster-ips-check"),
    ] {
        list.rule(from, None, &[new.clone(), jump(to)])?;
    }
    for (from, to) in [
        ("nat-prerouting", "services"),
        ("nat-output", "services"),
        ("nat-postrouting", "masquerading"),
    ] {
        list.rule(from, None, &[jump(to)])?;
    }
    let service = |map: &str| vmap(&concat(&[DADDR, L4PROTO, DPORT]), map);
    let port = |map: &str| vmap(&concat(&[L4PROTO, DPORT]), map);
    let to_node = compare("==", DADDR, r#""@nodeport-ips""#);
    let to_service = compare("==", DADDR, r#""@cluster-ips""#);
    let reject = r#"{"reject": {"type": "icmp", "expr": "port-unreachable"}}"#.to_owned();

    list.rule("nodeport-endpoints-check", None, &[to_node.clone(), port("no-endpoint-nodeports")])?;
    list.rule("service-endpoints-check", None, &[service("no-endpoint-services")])?;
    list.rule("firewall-check", None, &[service("firewall-ips")])?;
    list.rule(
        "services",
        Some("masquerade clusterIP traffic from outside cluster"),
        &[to_service.clone(), compare("!=", SADDR, &network(POD_NETWORK)), set_mark("|")],
    )?;
    list.rule("services", None, &[service("service-ips")])?;
    list.rule("services", None, &[to_node, port("service-nodeports")])?;

    let masquerade = r#"{"masquerade": {"flags": "fully-random"}}"#.to_owned();
    let marked = compare("!=", &format!(r#"{{"&": [{MARK}, 16384]}}"#), "0");
    list.rule("masquerading", None, &[marked, set_mark("^"), masquerade.clone()])?;
    let translated = compare("in", r#"{"ct": {"key": "status"}}"#, r#""dnat""#);
    let to_itself =
        compare("==", &concat(&[SADDR, DADDR, L4PROTO, DPORT]), r#""@hairpin-connections""#);
    list.rule("masquerading", None, &[translated, to_itself, masquerade])?;

    list.rule(
        "cluster-ips-check",
        Some("Reject traffic to invalid ports of ClusterIPs"),
        &[to_service, reject.clone()],
    )?;
    list.rule(
        "cluster-ips-check",
        Some("Drop traffic to unallocated ClusterIPs"),
        &[compare("==", DADDR, &network(SERVICE_NETWORK)), r#"{"drop": null}"#.into()],
    )?;
    list.rule("reject-chain", None, &[reject])
}

fn service_rules(cluster: &Cluster, service: &Service, list: &mut List<'_>) -> io::Result<()> {
    let all = service_chain(service);
    let mut endpoints = cluster.sorted_endpoints(service.number);
    list.rule(&all, None, &choice(&endpoints))?;
    if service.node_port.is_none() {
        return Ok(());
    }
    let external = external_chain(service);
    if !service.local {
        list.rule(&external, Some("masquerade"), &[set_mark("|")])?;
        return list.rule(&external, None, &[goto(&all)]);
    }
    // Pods and the node itself get what a load balancer would have given them.
    let from_pod = compare("==", SADDR, &network(POD_NETWORK));
    let fib = r#"{"fib": {"result": "type", "flags": ["saddr"]}}"#;
    let from_node = compare("==", fib, r#""local""#);
    for (comment, expr) in [
        ("short-circuit pod traffic", [from_pod, goto(&all)]),
        ("masquerade local traffic", [from_node.clone(), set_mark("|")]),
        ("short-circuit local traffic", [from_node, goto(&all)]),
    ] {
        list.rule(&external, Some(comment), &expr)?;
    }
    endpoints.retain(|endpoint| endpoint.local);
    if endpoints.is_empty() {
        return Ok(());
    }
    let local = local_chain(service);
    list.rule(&external, None, &[goto(&local)])?;
    list.rule(&local, None, &choice(&endpoints))
}

/// Chooses among endpoints.
fn choice(endpoints: &[Endpoint]) -> [String; 2] {
    let choices: Vec<String> = endpoints
        .iter()
        .enumerate()
        .map(|(index, endpoint)| {
            format!(r#"[{index}, {{"concat": ["{}", {TARGET_PORT}]}}]"#, endpoint.address)
        })
        .collect();
    let dnat = format!(
        r#"{{"dnat": {{"family": "ip", "addr": {{"map": {{"key": {{"numgen": {{"mode": "random", "mod": {}, "offset": 0}}}}, "data": {{"set": [{}]}}}}}}}}}}"#,
        endpoints.len(),
        choices.join(", ")
    );
    [compare("==", L4PROTO, r#""tcp""#), dnat]
}

fn compare(op: &str, left: &str, right: &str) -> String {
    format!(r#"{{"match": {{"op": "{op}", "left": {left}, "right": {right}}}}}"#)
}

fn concat(parts: &[&str]) -> String {
    format!(r#"{{"concat": [{}]}}"#, parts.join(", "))
}

fn vmap(key: &str, map: &str) -> String {
    format!(r#"{{"vmap": {{"key": {key}, "data": "@{map}"}}}}"#)
}

/// `meta mark set meta mark OP 0x4000`
fn set_mark(op: &str) -> String {
    format!(r#"{{"mangle": {{"key": {MARK}, "value": {{"{op}": [{MARK}, 16384]}}}}}}"#)
}

fn jump(chain: &str) -> String {
    format!(r#"{{"jump": {{"target": "{chain}"}}}}"#)
}

fn goto(chain: &str) -> String {
    format!(r#"{{"goto": {{"target": "{chain}"}}}}"#)
}

fn network(network: &str) -> String {
    let (address, length) = network.split_once('/').unwrap_or((network, "32"));
    format!(r#"{{"prefix": {{"addr": "{address}", "len": {length}}}}}"#)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn objects(cluster: &Cluster) -> (Vec<Value>, u64) {
        let mut json = b"[0".to_vec();
        let count = nft_json(cluster, &mut json).unwrap();
        json.push(b']');
        (serde_json::from_slice(&json).unwrap(), count)
    }

    #[test]
    fn every_verdict_has_its_chain_and_every_service_its_rules() {
        let (objects, count) = objects(&Cluster::of_lone_node(21, 2));
        let of = |what: &str, field: &str| -> Vec<&str> {
            objects.iter().filter_map(|object| object[what][field].as_str()).collect()
        };
        let chains = of("chain", "name");
        assert_eq!(chains.len(), 8 + 7 + 21 + 3);
        // 22 rules that don't depend on Services, one for each Service, two for each NodePort.
        assert_eq!(count, 22 + 21 + 3 * 2);
        assert_eq!(of("rule", "chain").len() as u64, count);
        assert!(of("rule", "chain").iter().all(|chain| chains.contains(chain)));
        let map = |name: &str| {
            objects.iter().find(|object| object["map"]["name"] == name).unwrap()["map"]["elem"]
                .as_array()
                .unwrap()
                .clone()
        };
        assert_eq!((map("service-ips").len(), map("service-nodeports").len()), (21, 3));
        for element in map("service-ips").iter().chain(&map("service-nodeports")) {
            assert!(chains.contains(&element[1]["goto"]["target"].as_str().unwrap()));
        }
    }

    #[test]
    fn an_empty_map_has_no_elements() {
        let (objects, _) = objects(&Cluster::of_lone_node(1, 1));
        let map = objects.iter().find(|object| object["map"]["name"] == "firewall-ips").unwrap();
        assert_eq!(map["map"].get("elem"), None);
    }
}

//! Clusters by chance: scenarios that nobody thought of.
//!
//! In: a seed. Out: the text of a scenario, the same for the same seed: some nodes and pods, one of
//! the ways between nodes, programs that write rules, some of them badly set, and Services of all
//! kinds. Pure: [`crate::session`] builds it.
//!
//! No proxies and no load balancers in pods: what those tell is beyond addresses.

use serde_json::{Map, Value, json};

use crate::differential::random::Random;

/// What is drawn from a seed: each has a stream of its own, so that one more draw in one of them
/// leaves the others as they are.
const NETWORK: u64 = 1;
const PROGRAMS: u64 = 2;
const SERVICES: u64 = 3;

/// Ranges by family: all pods, Services, nodes.
const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/48"];
const CLUSTER_IPS: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];
const NODES: [&str; 2] = ["10.0.0.0/24", "fd00:10::/64"];

/// No more pods than this: every one is a client of everything.
const MOST_PODS: usize = 6;
/// No more endpoints of one Service.
const MOST_ENDPOINTS: usize = 6;

/// The text of a scenario, as JSON, which is YAML.
pub fn text(seed: u64) -> String {
    let mut cluster = Random::new(seed, NETWORK, 0);
    let families = 1 + cluster.below(2);
    let of_families = |both: [&'static str; 2]| both[..families].to_vec();
    let nodes = 1 + cluster.below(4);
    let between = cluster.pick(&["flannel-vxlan", "flannel-host-gw", "routed"]);
    let knows_pods = between == "routed" && cluster.percent(70);
    let masquerades: &[&[&str]] = &[&[], &[NODES[0]], &[NODES[0], PODS[0]]];
    let masquerades = cluster.pick(masquerades);
    let pods_by = cluster.pick(&["bridge", "route"]);
    let health_checks = cluster.percent(50);
    let outside = |name: &str, addresses: [&'static str; 2]| json!({"name": name, "addresses": of_families(addresses)});
    let mut services = Random::new(seed, SERVICES, 0);
    let mut pods = pods(&mut cluster, nodes);
    let manifests = manifests(&mut services, families, &mut pods);
    let mut programs = Random::new(seed, PROGRAMS, 0);
    let scenario = json!({
        "schema": "unmasq.scenario/v1",
        "name": format!("random-{seed}"),
        "title": "By chance",
        "about": format!("The cluster of seed {seed}."),
        "network": {
            "between": between,
            "pods-by": pods_by,
            "pods": of_families(PODS),
            "services": of_families(CLUSTER_IPS),
            "nodes": of_families(NODES),
        },
        "gateway": {
            "masquerades": masquerades,
            "knows-pods": if knows_pods { of_families(PODS) } else { Vec::new() },
        },
        "outside": [
            outside("customer", ["198.51.100.20/24", "2001:db8:7::20/64"]),
            // Of a range that a pool, an engine or a list may have too.
            outside("office", ["192.168.7.20/24", "fd00:7::20/64"]),
        ],
        "nodes": (1..=nodes).map(|number| node(number, families)).collect::<Vec<_>>(),
        // Always one: an address without a route is answered by rate-limited errors (ip_error() of
        // net/ipv4/route.c), which nothing foresees.
        "load-balancer": {"health-checks": health_checks},
        "pods": pods,
        "programs": written_by(&mut programs, between, pods_by, families),
        "manifests": manifests,
    });
    format!("{scenario:#}")
}

fn node(number: usize, families: usize) -> Value {
    let addresses = [format!("10.0.0.{}", 10 + number), format!("fd00:10::{}", 10 + number)];
    json!({
        "name": format!("n{number}"),
        "addresses": addresses[..families],
        "pods": node_pods(number)[..families],
    })
}

/// A node's part of the pods' ranges.
fn node_pods(number: usize) -> [String; 2] {
    [format!("10.244.{number}.0/24"), format!("fd00:244:0:{number}::/64")]
}

/// At least one; a node may have none.
fn pods(random: &mut Random, nodes: usize) -> Vec<Value> {
    let count = 1 + random.below(MOST_PODS);
    let pod = |number: usize| {
        let node = format!("n{}", 1 + random.below(nodes));
        json!({"name": format!("p{number}"), "node": node, "labels": {}})
    };
    (1..=count).map(pod).collect()
}

/// The programs with their settings.
fn written_by(random: &mut Random, between: &str, pods_by: &str, families: usize) -> Value {
    let mut programs = Map::new();
    let mut set = |name: &str, value: Value| programs.insert(name.to_owned(), value);
    set("iptables", json!(random.pick(&["nft", "nft", "legacy"])));
    set("kube-proxy", kube_proxy(random, families));
    if between != "routed" && random.percent(70) {
        set("flannel", json!({"ip-masq": random.percent(70), "nftables": random.percent(30)}));
    }
    if random.percent(10) {
        set("stale-flannel", json!("into-pods"));
    }
    if random.percent(if pods_by == "route" { 60 } else { 15 }) {
        let mut pools = vec![
            json!({"name": "own", "cidr": PODS[0], "nat-outgoing": random.percent(60)}),
            json!({"name": "unused", "cidr": "192.168.0.0/16", "nat-outgoing": random.percent(60)}),
        ];
        if families > 1 {
            pools
                .push(json!({"name": "own6", "cidr": PODS[1], "nat-outgoing": random.percent(50)}));
        }
        if random.percent(40) {
            pools.remove(random.below(2));
        }
        set("calico", json!({"pools": pools}));
    }
    if random.percent(15) {
        set("kube-router", json!({"pod-egress": random.percent(70)}));
    }
    if random.percent(20) {
        let lists: &[&[&str]] = &[&[], &[PODS[0]], &["10.0.0.0/8", "192.168.0.0/16"]];
        let list = json!(random.pick(lists));
        let link_local = random.percent(30);
        set("ip-masq-agent", json!({"non-masquerade-cidrs": list, "masq-link-local": link_local}));
    }
    if random.percent(20) {
        let mut engine =
            json!({"ip-masq": random.percent(75), "exclude-cluster": random.percent(25)});
        if random.percent(40) {
            engine["subnet"] = json!("192.168.0.0/20");
        }
        set("engine", engine);
    }
    if random.percent(10) {
        set("stray", json!({"except": random.pick(&[PODS[0], NODES[0], "10.0.0.0/8"])}));
    }
    Value::Object(programs)
}

/// With the right range, one that is too small, one that is too large, and another one.
fn kube_proxy(random: &mut Random, families: usize) -> Value {
    let mut settings = json!({
        "mode": random.pick(&["iptables", "nftables"]),
        "masquerade-all": random.percent(12),
    });
    let small = node_pods(1);
    let ranges: Option<[&str; 2]> = match random.below(10) {
        0..=5 => None,
        6..=7 => Some([&small[0], &small[1]]),
        8 => Some(["10.0.0.0/8", "fd00::/16"]),
        _ => Some(["172.30.0.0/16", "fd00:172::/48"]),
    };
    if let Some(ranges) = ranges {
        settings["cluster-cidrs"] = json!(ranges[..families]);
    }
    settings
}

/// One to four Services; their endpoints get labels.
fn manifests(random: &mut Random, families: usize, pods: &mut [Value]) -> Vec<Value> {
    let count = 1 + random.below(4);
    (0..count).map(|number| service(random, number, families, pods)).collect()
}

fn service(random: &mut Random, number: usize, families: usize, pods: &mut [Value]) -> Value {
    let name = format!("s{number}");
    for _ in 0..random.below(MOST_ENDPOINTS + 1) {
        let chosen = random.below(pods.len());
        pods[chosen]["labels"][&name] = json!("yes");
    }
    let kind = random.pick(&["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer"]);
    let own = if random.percent(80) { families } else { 1 };
    let cluster_ips = [format!("10.96.0.{}", 80 + number), format!("fd00:96::{}", 80 + number)];
    let external = random.percent(30);
    let local = random.percent(50) && (kind != "ClusterIP" || external);
    let policy = |local: bool| if local { "Local" } else { "Cluster" };
    let port = |protocol: &str| {
        let mut port = json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": 80,
                              "targetPort": 8080});
        if kind != "ClusterIP" {
            port["nodePort"] = json!(30080 + number);
        }
        port
    };
    let protocols: &[&str] = random.pick(&[&["TCP", "UDP"], &["TCP"]]);
    let mut spec = json!({
        "type": kind,
        "selector": {name.clone(): "yes"},
        "clusterIPs": cluster_ips[..own],
        "internalTrafficPolicy": policy(random.percent(20)),
        "ports": protocols.iter().map(|protocol| port(protocol)).collect::<Vec<_>>(),
    });
    if kind != "ClusterIP" || external {
        spec["externalTrafficPolicy"] = json!(policy(local));
    }
    if external {
        let addresses =
            [format!("203.0.113.{}", 80 + number), format!("2001:db8:e::{}", 80 + number)];
        spec["externalIPs"] = json!(addresses[..own]);
    }
    if random.percent(10) {
        spec["sessionAffinity"] = json!("ClientIP");
    }
    let mut service = json!({"apiVersion": "v1", "kind": "Service",
                             "metadata": {"name": name, "namespace": "default"}});
    if kind == "LoadBalancer" {
        if local {
            spec["healthCheckNodePort"] = json!(32080 + number);
        }
        if random.percent(25) {
            let range = random.pick(&["198.51.100.0/24", "192.168.0.0/16", "10.244.0.0/16"]);
            spec["loadBalancerSourceRanges"] = json!([range]);
        }
        let addresses =
            [format!("192.0.2.{}", 80 + number), format!("2001:db8:80::{}", 80 + number)];
        let ingress: Vec<Value> =
            addresses[..own].iter().map(|address| json!({"ip": address})).collect();
        service["status"] = json!({"loadBalancer": {"ingress": ingress}});
    }
    service["spec"] = spec;
    service
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::{Between, Scenario};
    use crate::session::Session;

    #[test]
    fn every_seed_gives_a_scenario_that_fits_together_and_all_kinds_come() {
        let mut kinds = BTreeSet::new();
        for seed in 0..120 {
            assert_eq!(text(seed), text(seed));
            Session::check(&text(seed)).unwrap();
            let scenario = Scenario::parse(&text(seed)).unwrap();
            kinds.insert(format!("{} nodes", scenario.nodes.len()));
            kinds.insert(format!("{} families", scenario.network.pods.len()));
            kinds.insert(format!("{:?}", scenario.network.pods_by));
            kinds.insert(match scenario.network.between {
                Between::FlannelVxlan => "vxlan".to_owned(),
                Between::FlannelHostGw => "host-gw".to_owned(),
                Between::Routed => "routed".to_owned(),
            });
            let programs = &scenario.programs;
            let present = [
                ("flannel", programs.flannel.is_some()),
                ("stale", programs.stale_flannel.is_some()),
                ("calico", programs.calico.is_some()),
                ("kube-router", programs.kube_router.is_some()),
                ("ip-masq-agent", programs.ip_masq_agent.is_some()),
                ("engine", programs.engine.is_some()),
                ("stray", programs.stray.is_some()),
            ];
            kinds.extend(present.iter().filter(|one| one.1).map(|one| one.0.to_owned()));
        }
        assert_eq!(kinds.len(), 4 + 2 + 2 + 3 + 7, "{kinds:?}");
    }
}

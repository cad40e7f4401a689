//! Generated nodes have the rules that the lab's kube-proxy writes for the same Services, which
//! in turn are those of real ones. They are two programs because they write different things: the
//! lab text to be loaded, for any objects; this one both listings of a node of any size, rule by
//! rule, without holding it in memory.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use unmasq_cluster::kubernetes::Objects;
use unmasq_model::packet::Family;
use unmasq_provider::kube_proxy::{Config, DetectLocal, Mode, jumps, rules};

use super::cluster::{Cluster, LONE_NODE, POD_NETWORK, PORT, SERVICE_NETWORK, Shape, TARGET_PORT};
use super::{iptables, nftables};
use crate::generate_cluster;

fn lone() -> Cluster {
    Cluster::of_lone_node(23, 3)
}

#[test]
fn iptables_rules_are_those_of_the_lab() {
    let mut saved = Vec::new();
    iptables::save(&lone(), &mut saved).unwrap();
    let config = config(Mode::Iptables, format!("n{LONE_NODE}"));
    same_iptables_rules(String::from_utf8(saved).unwrap(), &config, &objects());
}

fn same_iptables_rules(saved: String, config: &Config, objects: &Objects) {
    let saved = saved.replace("[0:0] -A", "-A");
    let generated = jumps(config) + &rules(objects, config, Family::V4);
    assert_eq!(unordered(&saved), unordered(&generated), "{}", config.node);
}

/// As many Services as have all kinds, on few nodes, so that each is without endpoints of some.
const NODES: u32 = 4;
fn size(shape: Shape) -> generate_cluster::Size {
    let mode = super::Mode::Both;
    generate_cluster::Size { nodes: NODES, services: 161, endpoints: 2, mode, shape }
}

/// Writes clusters of all shapes and hands each node's name, its files by name, and the objects.
fn each_node(each: impl Fn(&str, &dyn Fn(&str) -> String, &Objects)) {
    for shape in [Shape::Mixed, Shape::Local, Shape::Policies] {
        each_node_of(shape, &each);
    }
}

fn each_node_of(shape: Shape, each: impl Fn(&str, &dyn Fn(&str) -> String, &Objects)) {
    let folder = tempfile::tempdir().unwrap();
    generate_cluster::write(&size(shape), folder.path()).unwrap();
    let mut objects = Objects::default();
    for plural in ["nodes", "services", "endpointslices.discovery.k8s.io"] {
        let path = folder.path().join(format!("kubernetes/{plural}.json"));
        objects.add_json(&fs::read_to_string(path).unwrap()).unwrap();
    }
    let mut nodes = 0;
    for entry in fs::read_dir(folder.path().join("nodes")).unwrap() {
        let path = entry.unwrap().path();
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap();
        each(path.file_name().unwrap().to_str().unwrap(), &read, &objects);
        nodes += 1;
    }
    assert_eq!(nodes, NODES);
}

#[test]
fn iptables_rules_of_each_node_are_those_of_the_lab() {
    each_node_of(Shape::Mixed, |node, read, _| {
        let saved = read("iptables-save");
        for found in ["-A KUBE-SVL-", "has no local endpoints", "loadbalancer IP"] {
            assert!(saved.contains(found), "{node}: {found}");
        }
    });
    each_node(|node, read, objects| {
        let saved = read("iptables-save");
        same_iptables_rules(saved, &config(Mode::Iptables, node), objects);
    });
}

#[test]
fn nftables_chains_and_elements_of_each_node_are_those_of_the_lab() {
    each_node(|node, read, objects| {
        let listing: Value = serde_json::from_str(&read("nft.json")).unwrap();
        let listed: Vec<Value> = listing["nftables"].as_array().unwrap().clone();
        let is_proxy = |object: &&Value| {
            let mut fields = object.as_object().unwrap().values();
            fields.any(|fields| fields["table"] == "kube-proxy")
        };
        let listed: Vec<Value> = listed.iter().filter(is_proxy).cloned().collect();
        let config = config(Mode::Nftables, node);
        assert_eq!(counts(&listed), of_text(&rules(objects, &config, Family::V4)), "{node}");
    });
}

/// What a node's routes say of the cluster is what its objects say.
#[test]
fn routes_and_addresses_of_each_node_are_those_of_the_objects() {
    each_node(|node, read, objects| {
        let routes: Vec<Value> = serde_json::from_str(&read("ip-route.json")).unwrap();
        let links: Vec<Value> = serde_json::from_str(&read("ip-addr.json")).unwrap();
        let eth0 = links.iter().find(|link| link["ifname"] == "eth0").unwrap();
        for other in &objects.nodes {
            let network = other.spec.pod_cidrs[0].to_string();
            let address = other.ip(Family::V4).unwrap().to_string();
            let route = routes.iter().find(|route| route["dst"] == network).unwrap();
            if other.metadata.name == node {
                assert_eq!(route["type"], "blackhole");
                assert_eq!(eth0["addr_info"][0]["local"], address);
            } else {
                assert_eq!((&route["gateway"], &route["dev"]), (&json!(address), &json!("eth0")));
            }
        }
        let endpoints = objects.endpoint_slices.iter().flat_map(|slice| &slice.endpoints);
        for endpoint in endpoints.filter(|found| found.node_name.as_deref() == Some(node)) {
            let address = endpoint.addresses[0].to_string();
            assert!(routes.iter().any(|route| route["dst"] == address), "{node}: {address}");
        }
    });
}

/// Rules and chains, with the Service's or the endpoint's name for the hash that both make in
/// their own way.
fn unordered(text: &str) -> Vec<String> {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        let (Some(comment), Some(target)) = (line.split('"').nth(1), line.split(" -j ").nth(1))
        else {
            continue;
        };
        // Several rules lead to a chain; only the comments of these are the same for each of them.
        if target.starts_with("KUBE-SVC-") && comment.ends_with(" cluster IP")
            || target.starts_with("KUBE-SEP-")
        {
            names.insert(target.rsplit('-').next().unwrap(), comment);
        }
    }
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with("-A") || line.starts_with("-I") || line.starts_with(':'))
        .filter(|line| !line.contains(" ACCEPT ["))
        .map(|line| {
            let words = line.split(' ').map(|word| match word.rsplit_once('-') {
                Some((kind, hash)) if names.contains_key(hash) => {
                    format!("{kind}-({})", names[hash])
                }
                _ => word.into(),
            });
            let line = words.collect::<Vec<_>>().join(" ");
            line.strip_prefix("-I ").map_or(line.clone(), |rule| format!("-A {rule}"))
        })
        .collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

#[test]
fn nftables_chains_and_elements_are_those_of_the_lab() {
    let mut listed = b"[0".to_vec();
    nftables::nft_json(&lone(), &mut listed).unwrap();
    listed.push(b']');
    let listed: Vec<Value> = serde_json::from_slice(&listed).unwrap();
    let config = config(Mode::Nftables, format!("n{LONE_NODE}"));
    assert_eq!(counts(&listed), of_text(&rules(&objects(), &config, Family::V4)));
}

/// How many rules or elements a listing's chains, sets and maps have.
fn counts(listed: &[Value]) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for object in listed {
        if let Some(chain) = object["chain"]["name"].as_str() {
            counts.entry(without_hash(chain)).or_default();
        } else if let Some(chain) = object["rule"]["chain"].as_str() {
            *counts.entry(without_hash(chain)).or_default() += 1;
        }
        for kind in ["set", "map"] {
            if let Some(name) = object[kind]["name"].as_str() {
                let elements = object[kind]["elem"].as_array().map_or(0, Vec::len);
                counts.insert(name.into(), elements);
            }
        }
    }
    counts
}

/// The same of a table's text: how many its chains, sets and maps have.
fn of_text(text: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().map(str::trim) {
        let declares = ["type ", "comment ", "table ", "delete "];
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["chain" | "set" | "map", block, "{"] => {
                name = without_hash(block);
                counts.insert(name.clone(), 0);
            }
            [""] | ["}"] => {}
            _ if declares.iter().any(|word| line.starts_with(word)) => {}
            _ => *counts.get_mut(&name).unwrap() += 1,
        }
    }
    counts
}

/// `service-HASH-namespace/…` without its hash.
fn without_hash(name: &str) -> String {
    match name.split('-').collect::<Vec<_>>()[..] {
        [kind, _, ref rest @ ..] if name.contains('/') => format!("{kind}-{}", rest.join("-")),
        _ => name.into(),
    }
}

fn config(mode: Mode, node: impl Into<String>) -> Config {
    let mut config = Config::new(mode, node);
    config.detect_local = DetectLocal::ClusterCidr(vec![POD_NETWORK.parse().unwrap()]);
    config.service_cidrs = vec![SERVICE_NETWORK.parse().unwrap()];
    config
}

fn objects() -> Objects {
    let mut objects = Objects::default();
    let address = super::cluster::node_address(LONE_NODE);
    let mut add = |object: Value| objects.add(&object).unwrap();
    add(json!({"kind": "Node", "metadata": {"name": format!("n{LONE_NODE}")},
               "status": {"addresses": [{"type": "InternalIP", "address": address}]}}));
    for service in lone().services() {
        let name = service.port_name();
        let (namespace, name) = name.strip_suffix(":http").unwrap().split_once('/').unwrap();
        let kind = if service.node_port.is_some() { "NodePort" } else { "ClusterIP" };
        add(json!({"kind": "Service", "metadata": {"namespace": namespace, "name": name},
                   "spec": {"type": kind, "clusterIP": service.address,
                            "ports": [{"name": "http", "port": PORT,
                                       "nodePort": service.node_port}]}}));
        let endpoints: Vec<Value> = lone()
            .endpoints(service.number)
            .map(|endpoint| {
                let node = if endpoint.local { LONE_NODE } else { LONE_NODE + 1 };
                json!({"addresses": [endpoint.address], "nodeName": format!("n{node}")})
            })
            .collect();
        add(json!({"kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
                   "metadata": {"namespace": namespace, "name": name,
                                "labels": {"kubernetes.io/service-name": name}},
                   "ports": [{"name": "http", "port": TARGET_PORT}]}));
    }
    objects
}

//! The generated node has the rules that the lab's kube-proxy writes for the same Services, which
//! in turn are those of real ones. They are two programs because they write different things: the
//! lab text to be loaded, for any objects; this one both listings of a node of any size, rule by
//! rule, without holding it in memory.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use unmasq_cluster::kubernetes::Objects;
use unmasq_lab::kube_proxy::{Config, DetectLocal, Mode, jumps, rules};
use unmasq_model::packet::Family;

use super::cluster::{Cluster, POD_NETWORK, PORT, SERVICE_NETWORK, TARGET_PORT, THIS_NODE};
use super::{iptables, nftables};

const CLUSTER: Cluster = Cluster { services: 23, endpoints: 3 };

#[test]
fn iptables_rules_are_those_of_the_lab() {
    let mut saved = Vec::new();
    iptables::save(&CLUSTER, &mut saved).unwrap();
    let saved = String::from_utf8(saved).unwrap().replace("[0:0] -A", "-A");
    let config = config(Mode::Iptables);
    let generated = jumps(&config) + &rules(&objects(), &config, Family::V4);
    assert_eq!(unordered(&saved), unordered(&generated));
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
        if target.starts_with("KUBE-SVC-") || target.starts_with("KUBE-SEP-") {
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
    nftables::nft_json(&CLUSTER, &mut listed).unwrap();
    listed.push(b']');
    let listed: Vec<Value> = serde_json::from_slice(&listed).unwrap();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for object in &listed {
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
    assert_eq!(counts, of_text(&rules(&objects(), &config(Mode::Nftables), Family::V4)));
}

/// How many rules or elements a table's chains, sets and maps have.
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

fn config(mode: Mode) -> Config {
    let mut config = Config::new(mode, format!("n{THIS_NODE}"));
    config.detect_local = DetectLocal::ClusterCidr(vec![POD_NETWORK.parse().unwrap()]);
    config.service_cidrs = vec![SERVICE_NETWORK.parse().unwrap()];
    config
}

fn objects() -> Objects {
    let mut objects = Objects::default();
    let address = super::cluster::node_address(THIS_NODE);
    let mut add = |object: Value| objects.add(&object).unwrap();
    add(json!({"kind": "Node", "metadata": {"name": format!("n{THIS_NODE}")},
               "status": {"addresses": [{"type": "InternalIP", "address": address}]}}));
    for service in CLUSTER.services() {
        let name = service.port_name();
        let (namespace, name) = name.strip_suffix(":http").unwrap().split_once('/').unwrap();
        let kind = if service.node_port.is_some() { "NodePort" } else { "ClusterIP" };
        add(json!({"kind": "Service", "metadata": {"namespace": namespace, "name": name},
                   "spec": {"type": kind, "clusterIP": service.address,
                            "ports": [{"name": "http", "port": PORT,
                                       "nodePort": service.node_port}]}}));
        let endpoints: Vec<Value> = CLUSTER
            .endpoints(service.number)
            .map(|endpoint| {
                let node = if endpoint.local { THIS_NODE } else { THIS_NODE + 1 };
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

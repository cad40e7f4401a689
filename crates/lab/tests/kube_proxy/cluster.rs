//! A cluster with a Service of each kind, and proxies of each configuration.

use anyhow::Result;
use serde_json::{Value, json};
use unmasq_cluster::kubernetes::Objects;
use unmasq_provider::kube_proxy::{Config, DetectLocal, Mode, NodePortAddresses};

/// Two nodes; what the proxies serve is on `n1`.
pub(crate) fn objects() -> Result<Objects> {
    let mut objects = Objects::default();
    for document in [nodes(), services(), slices()] {
        objects.add(&json!({"kind": "List", "items": document}))?;
    }
    Ok(objects)
}

/// A name, and what is different from a plain configuration.
pub(crate) type Variant = (&'static str, fn(&mut Config) -> Result<()>);

/// Proxies of each configuration.
pub(crate) const VARIANTS: [Variant; 6] = [
    ("plain", |_| Ok(())),
    ("masquerade_all_on_all_addresses", |config| {
        config.masquerade_all = true;
        config.node_port_addresses =
            NodePortAddresses::Networks(vec!["0.0.0.0/0".parse()?, "::/0".parse()?]);
        config.localhost_node_ports = false;
        config.conntrack_tcp_liberal = true;
        Ok(())
    }),
    ("node_cidr_on_primary_addresses", |config| {
        config.detect_local = DetectLocal::NodeCidr;
        config.node_port_addresses = NodePortAddresses::Primary;
        Ok(())
    }),
    ("bridge_on_some_addresses", |config| {
        config.detect_local = DetectLocal::BridgeInterface("cni0".into());
        config.node_port_addresses =
            NodePortAddresses::Networks(vec!["127.0.0.0/8".parse()?, "192.0.2.0/24".parse()?]);
        config.interface_addresses = vec![
            "127.0.0.1".parse()?,
            "192.0.2.9".parse()?,
            "198.51.100.9".parse()?,
            "fd00:a::11".parse()?,
        ];
        config.service_cidrs.push("10.45.0.0/16".parse()?);
        Ok(())
    }),
    ("interface_prefix", |config| {
        config.detect_local = DetectLocal::InterfaceNamePrefix("cali".into());
        Ok(())
    }),
    ("nothing_known", |config| {
        *config = Config::new(config.mode, "n1");
        Ok(())
    }),
];

/// The configuration of a variant.
pub(crate) fn config(mode: Mode, (_, change): Variant) -> Result<Config> {
    let mut config = Config::new(mode, "n1");
    config.detect_local =
        DetectLocal::ClusterCidr(vec!["10.42.0.0/16".parse()?, "fd00:42::/48".parse()?]);
    config.service_cidrs = vec!["10.43.0.0/16".parse()?, "fd00:43::/112".parse()?];
    change(&mut config)?;
    Ok(config)
}

fn nodes() -> Value {
    json!([
        {"apiVersion": "v1", "kind": "Node",
         "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}},
         "spec": {"podCIDRs": ["10.42.0.0/24", "fd00:42::/64"]},
         "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.11"},
                                  {"type": "InternalIP", "address": "fd00:a::11"}]}},
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}},
    ])
}

/// Each with cluster IPs of both families that end in its number.
fn services() -> Value {
    let http = json!({"name": "http", "port": 80, "nodePort": null});
    let node_port = |number: u16| json!({"name": "http", "port": 80, "nodePort": number});
    let balanced = |number: u16| {
        json!({"loadBalancer": {"ingress": [
            {"ip": format!("198.51.100.{number}")}, {"ip": format!("2001:db8:100::{number}")}]}})
    };
    json!([
        service("plain", 1, json!({"ports": [http]}), json!({})),
        service(
            "many",
            2,
            json!({"type": "NodePort", "ports": [
                {"name": "a", "port": 53, "protocol": "UDP", "nodePort": 30_021},
                {"name": "b", "port": 53, "protocol": "TCP", "nodePort": 30_022},
                {"name": "c", "port": 53, "protocol": "SCTP", "nodePort": 30_023}]}),
            json!({}),
        ),
        service(
            "affine",
            3,
            json!({"type": "LoadBalancer", "ports": [node_port(30_031)],
                   "sessionAffinity": "ClientIP",
                   "loadBalancerSourceRanges": ["10.0.0.0/24", "203.0.113.0/24", "fd00:a::/64"]}),
            balanced(3),
        ),
        service(
            "local",
            4,
            json!({"type": "LoadBalancer", "ports": [node_port(30_041)],
                   "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
                   "healthCheckNodePort": 30_042, "externalIPs": ["203.0.113.4", "2001:db8::4"]}),
            balanced(4),
        ),
        service(
            "far",
            5,
            json!({"type": "LoadBalancer", "ports": [node_port(30_051)],
                   "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
                   "healthCheckNodePort": 30_052, "externalIPs": ["203.0.113.5", "2001:db8::5"]}),
            balanced(5),
        ),
        service(
            "none",
            6,
            json!({"type": "LoadBalancer", "ports": [node_port(30_061)],
                   "externalIPs": ["203.0.113.6", "2001:db8::6"],
                   "loadBalancerSourceRanges": ["203.0.113.0/24", "2001:db8::/32"]}),
            balanced(6),
        ),
        service("leaving", 7, json!({"ports": [http]}), json!({})),
        service("unnamed", 8, json!({"ports": [{"port": 443}]}), json!({})),
        {"kind": "Service", "metadata": {"name": "headless", "namespace": "shop"},
         "spec": {"clusterIP": "None", "clusterIPs": ["None"], "ports": [http]}},
        {"kind": "Service", "metadata": {"name": "elsewhere", "namespace": "shop"},
         "spec": {"type": "ExternalName", "externalName": "shop.example"}},
    ])
}

fn service(name: &str, number: u8, mut spec: Value, status: Value) -> Value {
    spec["clusterIPs"] = json!([format!("10.43.0.{number}"), format!("fd00:43::{number}")]);
    json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"name": name, "namespace": "shop"}, "spec": spec, "status": status})
}

fn slices() -> Value {
    let http = [("http", "TCP", 8080)];
    let many = [("a", "UDP", 5301), ("b", "TCP", 5302), ("c", "SCTP", 5303)];
    let here = [("5", Some("n1")), ("6", Some("n1")), ("1:7", Some("n2"))];
    let there = [("1:7", Some("n2")), ("1:8", None)];
    let ready = json!({"ready": true});
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let mut slices = Vec::new();
    for (name, ports, endpoints, conditions) in [
        ("plain", &http[..], &here[..], &ready),
        ("many", &many, &here, &ready),
        ("affine", &http, &here, &ready),
        ("local", &http, &here, &ready),
        ("far", &http, &there, &ready),
        ("none", &http, &here, &json!({"ready": false})),
        ("leaving", &http, &here, &leaving),
        ("unnamed", &[("", "TCP", 8443)], &there, &ready),
        ("headless", &http, &here, &ready),
    ] {
        let ports: Vec<Value> = ports
            .iter()
            .map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}))
            .collect();
        for kind in ["IPv4", "IPv6"] {
            let endpoints: Vec<Value> = endpoints
                .iter()
                .map(|(host, node)| {
                    json!({"addresses": [address(kind, host)], "conditions": conditions,
                           "nodeName": node})
                })
                .collect();
            slices.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": format!("{name}-{kind}"), "namespace": "shop",
                             "labels": {"kubernetes.io/service-name": name}},
                "addressType": kind, "endpoints": endpoints, "ports": ports,
            }));
        }
    }
    slices.into()
}

/// `1:7` is host 7 of the second node's pod network.
fn address(kind: &str, host: &str) -> String {
    let (node, host) = host.split_once(':').unwrap_or(("0", host));
    match kind {
        "IPv4" => format!("10.42.{node}.{host}"),
        _ => format!("fd00:42:0:{node}::{host}"),
    }
}

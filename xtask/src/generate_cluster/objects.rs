//! The Kubernetes objects of a generated cluster, as `kubectl get PLURAL -A -o json` prints them,
//! an object a line.
//!
//! In: a cluster. Out: `PLURAL.json` for nodes, pods, Services, EndpointSlices and ConfigMaps, with
//! the fields that tell something about the network. Services of the mixed shape have no selectors:
//! a pod is an endpoint of many of them. In the others each has pods of its own, a Deployment, and
//! perhaps a NetworkPolicy.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::generate_node::cluster::{
    Cluster, NAMESPACES, POD_NETWORK, PORT, Service, Shape, TARGET_PORT, namespace, node_address,
};
use crate::generate_node::{Mode, file};

/// The name of a node, counted from 0.
pub(super) fn node_name(node: u32) -> String {
    format!("n{:03}", node + 1)
}

/// Writes all files into a folder.
pub(super) fn write(cluster: &Cluster, mode: Mode, folder: &Path) -> Result<()> {
    let cluster = *cluster;
    let nodes = || 0..cluster.nodes;
    let write = |plural: &str, items: &mut dyn Iterator<Item = Value>| {
        file(folder, &format!("{plural}.json"), |out| list(items, out))
    };
    write("nodes", &mut nodes().map(|number| node(&cluster, number)))?;
    let pods = nodes().flat_map(|node| {
        let all = cluster.pods(node).into_iter();
        all.map(move |(number, service)| pod(&cluster, node, number, service))
    });
    write("pods", &mut pods.chain(nodes().map(proxy_pod)))?;
    write("services", &mut cluster.services().map(|found| service(&cluster, &found)))?;
    if cluster.shape != Shape::Mixed {
        write("deployments.apps", &mut cluster.services().map(|found| deployment(&found)))?;
    }
    if cluster.shape == Shape::Policies {
        let of_services = cluster.services().map(|found| policy(&found));
        let of_namespaces = (0..NAMESPACES).map(policy_of_namespace);
        let policies = &mut of_services.chain(of_namespaces);
        write("networkpolicies.networking.k8s.io", policies)?;
    }
    let slices = cluster.services().map(|found| endpoint_slice(&cluster, &found));
    write("endpointslices.discovery.k8s.io", &mut { slices })?;
    write("configmaps", &mut [proxy_configuration(mode)].into_iter())
}

fn list(items: &mut dyn Iterator<Item = Value>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(br#"{"apiVersion":"v1","kind":"List","items":["#)?;
    let mut separator = "\n";
    for item in items {
        write!(out, "{separator}{item}")?;
        separator = ",\n";
    }
    out.write_all(b"\n]}\n")
}

fn node(cluster: &Cluster, number: u32) -> Value {
    let (name, network) = (node_name(number), cluster.pod_network(number));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": network, "podCIDRs": [network]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": node_address(number)},
                {"type": "Hostname", "address": name},
            ],
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "operatingSystem": "linux"},
        },
    })
}

/// A pod that is an endpoint of Services of its namespace, or of one alone.
fn pod(cluster: &Cluster, node: u32, number: u32, service: Option<Service>) -> Value {
    let name = pod_name(node, number);
    let (namespace, labels) = match service {
        Some(service) => (service.namespace(), labels(&service)),
        None => (namespace(number % NAMESPACES), json!({"app": "server"})),
    };
    let container = json!({
        "name": "server",
        "image": "registry.example/server:1",
        "ports": [{"name": "http", "containerPort": TARGET_PORT, "protocol": "TCP"}],
    });
    let place = Place { node, address: cluster.pod_address(node, number), on_host: false };
    running(&namespace, &name, labels, container, &place)
}

/// Labels of a Service's own pods: one that is theirs, and one that all have.
fn labels(service: &Service) -> Value {
    json!({"app": service.name(), "app.kubernetes.io/part-of": "generated"})
}

/// The Deployment of a Service's own pods.
fn deployment(service: &Service) -> Value {
    let labels = labels(service);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": service.namespace(), "name": service.name()},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": []}},
        },
    })
}

/// A NetworkPolicy for a Service's pods, which names clients by their addresses.
fn policy(service: &Service) -> Value {
    let name = service.name();
    let selector = match service.number.is_multiple_of(3) {
        true => json!({"matchExpressions": [{"key": "app", "operator": "In", "values": [name]}]}),
        false => json!({"matchLabels": labels(service)}),
    };
    let from = json!([{"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.128/25"]}}]);
    policy_object(&service.namespace(), &name, selector, from)
}

/// A NetworkPolicy for all pods of a namespace.
fn policy_of_namespace(number: u32) -> Value {
    let from = json!([{"podSelector": {}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]);
    policy_object(&namespace(number), "all", json!({}), from)
}

fn policy_object(namespace: &str, name: &str, selector: Value, from: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{"from": from}]},
    })
}

fn pod_name(node: u32, number: u32) -> String {
    format!("server-{:03}-{number:03}", node + 1)
}

/// kube-proxy's pod on a node.
fn proxy_pod(node: u32) -> Value {
    let name = format!("kube-proxy-{:05}", node + 1);
    let labels = json!({"k8s-app": "kube-proxy"});
    let container = json!({
        "name": "kube-proxy",
        "image": "registry.k8s.io/kube-proxy:v1.36.0",
        "command": [
            "/usr/local/bin/kube-proxy",
            "--config=/var/lib/kube-proxy/config.conf",
            "--hostname-override=$(NODE_NAME)",
        ],
    });
    let place = Place { node, address: node_address(node), on_host: true };
    running("kube-system", &name, labels, container, &place)
}

/// Where a pod runs.
struct Place {
    node: u32,
    address: std::net::Ipv4Addr,
    on_host: bool,
}

fn running(namespace: &str, name: &str, labels: Value, container: Value, place: &Place) -> Value {
    let address = place.address;
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {
            "nodeName": node_name(place.node),
            "hostNetwork": place.on_host,
            "containers": [container],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "hostIP": node_address(place.node),
            "podIP": address,
            "podIPs": [{"ip": address}],
        },
    })
}

fn service(cluster: &Cluster, service: &Service) -> Value {
    let kind = match (service.load_balancer, service.node_port) {
        (Some(_), _) => "LoadBalancer",
        (None, Some(_)) => "NodePort",
        (None, None) => "ClusterIP",
    };
    let mut port = json!({
        "name": "http", "port": PORT, "protocol": "TCP", "targetPort": TARGET_PORT,
    });
    let mut spec = json!({
        "type": kind,
        "clusterIP": service.address, "clusterIPs": [service.address],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
    });
    if let Some(node_port) = service.node_port {
        port["nodePort"] = json!(node_port);
        spec["externalTrafficPolicy"] = json!(if service.local { "Local" } else { "Cluster" });
    }
    if let Some(port) = service.health_check_node_port {
        spec["healthCheckNodePort"] = json!(port);
    }
    spec["ports"] = json!([port]);
    if cluster.shape != Shape::Mixed {
        spec["selector"] = labels(service);
    }
    let status = match service.load_balancer {
        Some(address) => json!({"ingress": [{"ip": address, "ipMode": "VIP"}]}),
        None => json!({}),
    };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": service.namespace(), "name": service.name()},
        "spec": spec,
        "status": {"loadBalancer": status},
    })
}

fn endpoint_slice(cluster: &Cluster, service: &Service) -> Value {
    let (namespace, name) = (service.namespace(), service.name());
    let endpoints: Vec<Value> = cluster
        .endpoints(service.number)
        .map(|endpoint| {
            let pod = pod_name(endpoint.node, endpoint.pod);
            json!({
                "addresses": [endpoint.address],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": node_name(endpoint.node),
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": format!("{name}-1"),
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": TARGET_PORT, "protocol": "TCP"}],
    })
}

/// kube-proxy's configuration, as kubeadm stores it.
fn proxy_configuration(mode: Mode) -> Value {
    let mode = match mode {
        Mode::Nftables => "nftables",
        Mode::Iptables | Mode::Both => "iptables",
    };
    let text = format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
         clusterCIDR: {POD_NETWORK}\ndetectLocalMode: ClusterCIDR\nmode: {mode}\n"
    );
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "kube-system", "name": "kube-proxy"},
        "data": {"config.conf": text},
    })
}

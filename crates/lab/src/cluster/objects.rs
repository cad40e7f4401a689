//! The Kubernetes objects of a scenario: its manifests, and what a cluster makes of them (nodes,
//! pods, EndpointSlices). Pure.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use unmasq_model::packet::Family;

use super::plan::Plan;
use super::rules;
use crate::kubernetes::{Objects, TargetPort};
use crate::scenario::{Node, Scenario};

/// All objects as Kubernetes shows them, by plural.
#[derive(Debug, Clone)]
pub struct Manifests {
    /// Services.
    pub services: Vec<Value>,
    /// EndpointSlices.
    pub endpoint_slices: Vec<Value>,
    /// Nodes.
    pub nodes: Vec<Value>,
    /// Pods.
    pub pods: Vec<Value>,
    /// Everything else that the scenario has, by lower-case kind.
    pub others: Vec<Value>,
}

impl Manifests {
    /// Makes them.
    pub fn new(scenario: &Scenario, plan: &Plan) -> Result<Manifests> {
        let is_service = |object: &&Value| object["kind"] == "Service";
        let services: Vec<Value> = scenario.manifests.iter().filter(is_service).cloned().collect();
        let others = scenario.manifests.iter().filter(|object| !is_service(object)).cloned();
        let mut endpoint_slices = Vec::new();
        for service in &services {
            endpoint_slices.extend(slices(service, scenario, plan)?);
        }
        Ok(Manifests {
            services,
            endpoint_slices,
            nodes: nodes(scenario),
            pods: pods(scenario, plan),
            others: others.collect(),
        })
    }

    /// The fields that rules follow from.
    pub fn objects(&self) -> Result<Objects> {
        let mut objects = Objects::default();
        for object in self.services.iter().chain(&self.endpoint_slices).chain(&self.nodes) {
            objects.add(object.clone())?;
        }
        Ok(objects)
    }

    /// `kubernetes/PLURAL.json` of a capture, as `kubectl get PLURAL -A -o json` prints them.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let lists = [
            ("services", &self.services),
            ("endpointslices.discovery.k8s.io", &self.endpoint_slices),
            ("nodes", &self.nodes),
            ("pods", &self.pods),
        ];
        let list = |items: &[Value]| json!({"apiVersion": "v1", "kind": "List", "items": items});
        let mut files: Vec<(String, Vec<u8>)> = lists
            .into_iter()
            .map(|(plural, items)| (format!("kubernetes/{plural}.json"), pretty(&list(items))))
            .collect();
        let mut kinds: Vec<String> = self.others.iter().map(plural).collect();
        kinds.sort();
        kinds.dedup();
        for kind in kinds {
            let items: Vec<Value> =
                self.others.iter().filter(|object| plural(object) == kind).cloned().collect();
            files.push((format!("kubernetes/{kind}.json"), pretty(&list(&items))));
        }
        files
    }
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

fn plural(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("object").to_lowercase();
    let group = object["apiVersion"].as_str().and_then(|version| version.split_once('/'));
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    };
    group.map_or(plural.clone(), |(group, _)| format!("{plural}.{group}"))
}

fn nodes(scenario: &Scenario) -> Vec<Value> {
    let node = |node: &Node| {
        let ranges: Vec<String> = node.pods.iter().map(ToString::to_string).collect();
        let mut addresses: Vec<Value> = node
            .addresses
            .iter()
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .collect();
        addresses.push(json!({"type": "Hostname", "address": node.name}));
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name}},
            "spec": {"podCIDR": ranges.first(), "podCIDRs": ranges},
            "status": {"addresses": addresses},
        })
    };
    scenario.nodes.iter().map(node).collect()
}

fn pods(scenario: &Scenario, plan: &Plan) -> Vec<Value> {
    let echo = json!([{
        "name": "echo",
        "ports": [{"containerPort": super::POD_PORT, "protocol": "TCP"},
                  {"containerPort": super::POD_PORT, "protocol": "UDP"}],
    }]);
    let named = |name: &str| scenario.nodes.iter().find(|node| node.name == name);
    let own = scenario
        .pods
        .iter()
        .filter_map(|own| Some(pod(plan, named(&own.node)?, &own.name, &json!(own.labels), &echo)));
    let balancers = scenario.nodes.iter().filter_map(|node| balancer_pod(scenario, plan, node));
    own.chain(balancers).collect()
}

/// The pod of klipper-lb on a node, if there is one (pkg/cloudprovider/servicelb.go of k3s,
/// `newDaemonSet`). The lab keeps it where klipper-lb is switched off, without containers.
fn balancer_pod(scenario: &Scenario, plan: &Plan, node: &Node) -> Option<Value> {
    let settings = scenario.programs.klipper.as_ref()?;
    let (namespace, name) = settings.service.split_once('/')?;
    let labels = json!({
        "app": rules::BALANCER_PODS.to_owned() + name,
        "svccontroller.k3s.cattle.io/svcname": name,
        "svccontroller.k3s.cattle.io/svcnamespace": namespace,
    });
    let service = scenario.manifests.iter().find(|object| {
        object["kind"] == "Service"
            && object["metadata"]["name"] == name
            && object["metadata"]["namespace"].as_str().unwrap_or("default") == namespace
    })?;
    let container = |port: &Value| {
        let (number, protocol) = (&port["port"], port["protocol"].as_str().unwrap_or("TCP"));
        let name = format!("lb-{}-{number}", protocol.to_lowercase());
        let port = json!({
            "name": name, "containerPort": number, "hostPort": number, "protocol": protocol,
        });
        json!({"name": name, "ports": [port]})
    };
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let containers: Vec<Value> = ports.filter(|_| settings.enabled).map(container).collect();
    Some(pod(plan, node, &rules::balancer_pod(&node.name), &labels, &json!(containers)))
}

fn pod(plan: &Plan, node: &Node, name: &str, labels: &Value, containers: &Value) -> Value {
    let addresses: &[IpAddr] = plan.index(name).map_or(&[], |index| &plan.hosts[index].addresses);
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": rules::pod_namespace(name), "labels": labels},
        "spec": {"nodeName": node.name, "containers": containers},
        "status": {
            "phase": "Running",
            "hostIP": node.addresses.first(),
            "podIP": addresses.first(),
            "podIPs": ips,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A slice for each family of a Service with a selector.
fn slices(service: &Value, scenario: &Scenario, plan: &Plan) -> Result<Vec<Value>> {
    let mut objects = Objects::default();
    objects.add(service.clone())?;
    let parsed = objects.services.first().context("a Service")?;
    let Some(selector) = service["spec"]["selector"].as_object() else { return Ok(Vec::new()) };
    let selects = |pod: &&crate::scenario::Pod| {
        selector
            .iter()
            .all(|(key, value)| pod.labels.get(key).map(String::as_str) == value.as_str())
    };
    let chosen: Vec<_> = scenario.pods.iter().filter(selects).collect();
    let metadata = &parsed.metadata;
    let ports: Vec<Value> = parsed
        .spec
        .ports
        .iter()
        .zip(service["spec"]["ports"].as_array().into_iter().flatten())
        .map(|(port, raw)| {
            let target = match &port.target_port {
                Some(TargetPort::Number(number)) => *number,
                Some(TargetPort::Name(_)) | None => port.port,
            };
            json!({
                "name": raw.get("name").cloned().unwrap_or(json!("")),
                "port": target,
                "protocol": raw.get("protocol").cloned().unwrap_or(json!("TCP")),
            })
        })
        .collect();
    let slice = |(family, kind): (Family, &str)| {
        parsed.cluster_ip(family)?;
        let endpoints: Vec<Value> = chosen
            .iter()
            .filter_map(|pod| {
                let address = plan.address(plan.index(&pod.name)?, family)?;
                Some(json!({
                    "addresses": [address],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": pod.node,
                    "targetRef": {"kind": "Pod", "name": pod.name, "namespace": "default"},
                }))
            })
            .collect();
        Some(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{}", metadata.name, kind.to_lowercase()),
                "namespace": metadata.namespace,
                "labels": {"kubernetes.io/service-name": metadata.name},
            },
            "addressType": kind, "endpoints": endpoints, "ports": ports,
        }))
    };
    Ok([(Family::V4, "IPv4"), (Family::V6, "IPv6")].into_iter().filter_map(slice).collect())
}

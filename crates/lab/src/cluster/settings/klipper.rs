//! klipper-lb, the load balancer of k3s: the DaemonSet that its controller makes for a Service, and
//! the pods of that.
//!
//! k3s-io/k3s, pkg/cloudprovider/servicelb.go at 0821db5a. The name has the first digits of the
//! Service's uid; Services of the lab have none, so a hash of the name stands there.

use serde_json::{Value, json};
use unmasq_model::packet::Family;

use crate::cluster::plan::Plan;
use crate::cluster::rules::balancer_pod;
use crate::scenario::Scenario;

/// The DaemonSet.
pub(super) fn objects(scenario: &Scenario) -> Vec<Value> {
    let Some(service) = service(scenario) else { return Vec::new() };
    let containers = containers(scenario, &service);
    let name = daemon_set_name(&service);
    let (labels, nodes) = (labels(&service), scenario.nodes.len());
    vec![json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"serviceAccountName": "svclb", "containers": containers},
            },
        },
        "status": {
            "currentNumberScheduled": nodes, "desiredNumberScheduled": nodes,
            "numberAvailable": nodes, "numberMisscheduled": 0, "numberReady": nodes,
        },
    })]
}

/// Its pods, which have the namespaces that rules are loaded into.
pub(in super::super) fn pods(scenario: &Scenario, plan: &Plan) -> Vec<Value> {
    let Some(service) = service(scenario) else { return Vec::new() };
    let containers = containers(scenario, &service);
    let pod = |node: &crate::scenario::Node| {
        let name = balancer_pod(&node.name);
        let addresses = &plan.hosts[plan.index(&name)?].addresses;
        let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        Some(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": NAMESPACE, "labels": labels(&service),
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "DaemonSet", "controller": true,
                    "name": daemon_set_name(&service),
                }],
            },
            "spec": {"nodeName": node.name, "containers": containers},
            "status": {
                "phase": "Running",
                "hostIP": node.addresses.first(),
                "podIP": addresses.first(),
                "podIPs": ips,
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }))
    };
    scenario.nodes.iter().filter_map(pod).collect()
}

/// Where k3s has them.
const NAMESPACE: &str = "kube-system";

struct Service<'s> {
    namespace: &'s str,
    name: &'s str,
    object: &'s Value,
}

/// The Service that it serves, if it does.
fn service(scenario: &Scenario) -> Option<Service<'_>> {
    let settings = scenario.programs.klipper.as_ref().filter(|klipper| klipper.enabled)?;
    let (namespace, name) = settings.service.split_once('/')?;
    let is_it = |object: &&Value| {
        let metadata = &object["metadata"];
        object["kind"] == "Service"
            && metadata["name"] == name
            && metadata["namespace"].as_str().unwrap_or("default") == namespace
    };
    let object = scenario.manifests.iter().find(is_it)?;
    Some(Service { namespace, name, object })
}

fn daemon_set_name(service: &Service) -> String {
    let hash =
        hmac_sha256::Hash::hash(format!("{}/{}", service.namespace, service.name).as_bytes());
    let digits: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("svclb-{}-{digits}", service.name)
}

fn labels(service: &Service) -> Value {
    json!({
        "app": daemon_set_name(service),
        "svccontroller.k3s.cattle.io/svcname": service.name,
        "svccontroller.k3s.cattle.io/svcnamespace": service.namespace,
    })
}

fn containers(scenario: &Scenario, service: &Service) -> Vec<Value> {
    let spec = &service.object["spec"];
    let ports = spec["ports"].as_array().into_iter().flatten();
    ports.map(|port| container(scenario, spec, port)).collect()
}

/// One for each port: what it is told is what its rules are made of.
fn container(scenario: &Scenario, spec: &Value, port: &Value) -> Value {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let number = port["port"].as_u64().unwrap_or_default();
    let name = format!("lb-{}-{number}", protocol.to_lowercase());
    let ranges = spec["loadBalancerSourceRanges"].as_array().into_iter().flatten();
    let ranges: Vec<&str> = ranges.filter_map(Value::as_str).collect();
    let ranges = match (ranges.is_empty(), scenario.families().contains(&Family::V6)) {
        (false, _) => ranges.join(","),
        (true, true) => "0.0.0.0/0,::/0".to_owned(),
        (true, false) => "0.0.0.0/0".to_owned(),
    };
    let mut env = vec![
        json!({"name": "SRC_PORT", "value": number.to_string()}),
        json!({"name": "SRC_RANGES", "value": ranges}),
        json!({"name": "DEST_PROTO", "value": protocol}),
    ];
    // With Local it goes to the node port of its own node, so that no other node takes it.
    if spec["externalTrafficPolicy"] == "Local" {
        let node_port = port["nodePort"].as_u64().unwrap_or(number);
        env.push(json!({"name": "DEST_PORT", "value": node_port.to_string()}));
        let from = json!({"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIPs"}});
        env.push(json!({"name": "DEST_IPS", "valueFrom": from}));
    } else {
        let own = spec["clusterIPs"].as_array().into_iter().flatten();
        let own: Vec<&str> = own.filter_map(Value::as_str).collect();
        env.push(json!({"name": "DEST_PORT", "value": number.to_string()}));
        env.push(json!({"name": "DEST_IPS", "value": own.join(",")}));
    }
    json!({
        "name": name,
        "image": "rancher/klipper-lb:v0.4.9",
        "ports": [{
            "name": name, "containerPort": number, "hostPort": number, "protocol": protocol,
        }],
        "env": env,
    })
}

//! The Kubernetes objects of a scenario: its manifests, what a cluster makes of them (nodes, pods,
//! EndpointSlices), and those with the settings of its programs. Pure.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use unmasq_model::packet::Family;

use super::plan::Plan;
use super::settings;
use crate::scenario::Scenario;
use unmasq_cluster::kubernetes::{Objects, TargetPort};

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
    /// What the cluster's owner wants to hold.
    pub wants: Option<Map<String, Value>>,
    /// Everything else that the scenario has, and its programs' settings ([`settings`]).
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
            wants: scenario.wants.clone(),
            pods: [pods(scenario, plan), settings::balancer_pods(scenario, plan)].concat(),
            others: others.chain(settings::objects(scenario)).collect(),
        })
    }

    /// The fields that rules follow from.
    pub fn objects(&self) -> Result<Objects> {
        let mut objects = Objects::default();
        for object in self.services.iter().chain(&self.endpoint_slices).chain(&self.nodes) {
            objects.add(object)?;
        }
        Ok(objects)
    }

    /// The namespace of a pod; `None`: there is no such pod. Those of a load balancer that was
    /// switched off are none, though the lab keeps their hosts.
    pub fn pod_namespace(&self, name: &str) -> Option<&str> {
        let pod = self.pods.iter().find(|pod| pod["metadata"]["name"] == name)?;
        pod["metadata"]["namespace"].as_str()
    }

    /// `kubernetes/PLURAL.json` of a capture, as `kubectl get PLURAL -A -o json` prints them, and
    /// `expect.yaml` if something is wanted.
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
        let wants = self.wants.clone().map(|wants| settings::to_yaml(&Value::Object(wants)));
        files.extend(wants.map(|text| ("expect.yaml".to_owned(), text.into_bytes())));
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
    let node = |node: &crate::scenario::Node| {
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
    let pod = |pod: &crate::scenario::Pod| {
        let addresses: &[IpAddr] =
            plan.index(&pod.name).map_or(&[], |index| &plan.hosts[index].addresses);
        let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let node = scenario.nodes.iter().find(|node| node.name == pod.node);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": "default", "labels": pod.labels},
            "spec": {"nodeName": pod.node, "containers": [{
                "name": "echo",
                "ports": [{"containerPort": super::POD_PORT, "protocol": "TCP"},
                          {"containerPort": super::POD_PORT, "protocol": "UDP"}],
            }]},
            "status": {
                "phase": "Running",
                "hostIP": node.and_then(|node| node.addresses.first()),
                "podIP": addresses.first(),
                "podIPs": ips,
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    };
    scenario.pods.iter().map(pod).collect()
}

/// A slice for each family of a Service with a selector.
fn slices(service: &Value, scenario: &Scenario, plan: &Plan) -> Result<Vec<Value>> {
    let mut objects = Objects::default();
    objects.add(service)?;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::plan::plan;
    use crate::scenario::builtin;

    fn files(text: &str) -> BTreeMap<String, Vec<u8>> {
        let scenario = Scenario::parse(text).unwrap();
        Manifests::new(&scenario, &plan(&scenario)).unwrap().files().into_iter().collect()
    }

    #[test]
    fn what_is_wanted_goes_into_captures_as_it_is() {
        let text = builtin("canal-unused-pool").unwrap();
        assert!(!files(text).contains_key("expect.yaml"));
        let wants = "schema: unmasq.expect/v1\nanything:\n  - {at: [all, 1, null], off: \"no\"}\n";
        let indented = wants.replace('\n', "\n  ");
        let files = files(&format!("{text}\nwants:\n  {}\n", indented.trim_end()));
        let read: Value =
            serde_saphyr::from_str(std::str::from_utf8(&files["expect.yaml"]).unwrap()).unwrap();
        assert_eq!(read, serde_saphyr::from_str::<Value>(wants).unwrap());
    }

    #[test]
    fn objects_of_a_kind_stand_in_one_file_whoever_made_them() {
        let text = builtin("canal-unused-pool").unwrap();
        let own = "manifests:\n  - {apiVersion: v1, kind: ConfigMap, metadata: {name: mine}}\n";
        let files = files(&text.replacen("manifests:\n", own, 1));
        let maps: Value = serde_json::from_slice(&files["kubernetes/configmaps.json"]).unwrap();
        let names: Vec<&str> = maps["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|map| map["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["mine", "kube-proxy", "canal-config"]);
        for plural in ["daemonsets.apps", "ippools.crd.projectcalico.org"] {
            assert!(files.contains_key(&format!("kubernetes/{plural}.json")), "{plural}");
        }
    }
}

//! Where the settings of a scenario's programs stand: objects of the cluster, and processes and
//! files of its nodes.
//!
//! In: a [`Scenario`]. Out: the objects that installers make ([`objects`]), and what
//! `unmasq collect` would keep of a node's processes and files ([`node_files`]). Pure.
//!
//! ```text
//!   Scenario ─┬─ rules.rs     what the programs write
//!             └─ settings.rs  where a person finds out why, and changes it
//! ```
//!
//! Nothing in the lab reads them: they follow from the scenario as the rules do, so that both show
//! the same after a step of a remedy. Only what has a say in how packets go is written: no probes,
//! mounts, accounts. Each module names the upstream source of its forms. portmap, leftovers of an
//! old flannel and a person's own rule have no settings that a capture could show.

mod calico;
mod engine;
mod flannel;
mod ip_masq_agent;
mod k3s;
mod klipper;
mod kube_proxy;
mod kube_router;
mod yaml;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use unmasq_host::collect;

use crate::scenario::{Node, Scenario};
pub(super) use klipper::pods as balancer_pods;
pub(super) use yaml::to_yaml;

/// ConfigMaps, DaemonSets and Calico's IP pools.
pub fn objects(scenario: &Scenario) -> Vec<Value> {
    [
        kube_proxy::objects(scenario),
        flannel::objects(scenario),
        calico::objects(scenario),
        kube_router::objects(scenario),
        ip_masq_agent::objects(scenario),
        klipper::objects(scenario),
    ]
    .concat()
}

/// `processes` and `files/…` of a node's folder in a capture.
pub fn node_files(scenario: &Scenario, node: &Node) -> BTreeMap<String, Vec<u8>> {
    machine(scenario, node).collected()
}

fn machine(scenario: &Scenario, node: &Node) -> Machine {
    let mut machine = Machine::default();
    engine::run(scenario, node, &mut machine);
    k3s::run(scenario, node, &mut machine);
    kube_proxy::run(scenario, node, &mut machine);
    flannel::run(scenario, node, &mut machine);
    calico::run(scenario, node, &mut machine);
    kube_router::run(scenario, &mut machine);
    ip_masq_agent::run(scenario, &mut machine);
    machine
}

/// A node before it is collected.
#[derive(Default)]
struct Machine {
    processes: Vec<Vec<String>>,
    files: Vec<(&'static str, String)>,
}

impl Machine {
    fn process<S: Into<String>>(&mut self, arguments: impl IntoIterator<Item = S>) {
        self.processes.push(arguments.into_iter().map(Into::into).collect());
    }

    fn file(&mut self, path: &'static str, text: String) {
        self.files.push((path, text));
    }

    /// What is left of it in a capture: secrets aren't, and what says nothing of the network.
    fn collected(self) -> BTreeMap<String, Vec<u8>> {
        let line = |arguments: &Vec<String>| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            collect::process_line(&arguments)
        };
        let mut lines: Vec<String> = self.processes.iter().filter_map(line).collect();
        lines.sort();
        let processes = ("processes".to_owned(), lines.concat().into_bytes());
        let file = |(path, text): &(&str, String)| {
            let kept = collect::file_text(path, text)?;
            Some((format!("files{path}"), kept.into_bytes()))
        };
        self.files.iter().filter_map(file).chain([processes]).collect()
    }
}

/// A ConfigMap with its data.
fn config_map(namespace: &str, name: &str, data: &[(&str, String)]) -> Value {
    let data: Map<String, Value> =
        data.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    })
}

/// A DaemonSet in the hosts' network that runs on every node; `label` is what its pods are found
/// by.
fn daemon_set(
    scenario: &Scenario,
    [namespace, name]: [&str; 2],
    label: &str,
    containers: &[Value],
) -> Value {
    let (key, value) = label.split_once('=').unwrap_or((label, ""));
    let mut labels = Map::new();
    labels.insert(key.to_owned(), json!(value));
    let nodes = scenario.nodes.len();
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"hostNetwork": true, "containers": containers},
            },
        },
        "status": {
            "currentNumberScheduled": nodes, "desiredNumberScheduled": nodes,
            "numberAvailable": nodes, "numberMisscheduled": 0, "numberReady": nodes,
        },
    })
}

/// An environment variable of a container with a fixed value.
fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

/// The environment variable that has the node's name.
fn node_name(name: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}})
}

/// Networks or addresses, separated by commas, as flags and settings have both families.
fn joined<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// JSON as it stands in a ConfigMap or a file.
fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests;

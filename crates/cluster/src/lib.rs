//! A whole cluster: its nodes' captured state, its Kubernetes objects, the programs that write
//! rules with their settings, the address ranges that are in use; and a packet's way between hosts,
//! asked for by names.
//!
//! ```text
//! kubernetes/*.json, manifests ─ read ─▶ Objects ─┐
//! nodes/*/…                    ─ read ─▶ Nodes ───┴─▶ Cluster::new ─ paths ─▶ Way, host by host
//!                                                       │  settings: what programs are told to do
//!                                                       │  networks: ranges, and what they are for
//!                                                       └  assumed: sets that were not captured
//! ```
//!
//! Who asks of each Service or policy looks objects up in a [`kubernetes::Lookup`].
//!
//! In: texts that somebody else read. Out: values. What was not seen stays `None` or is listed in
//! [`Cluster::missing`]; what follows from other things is filled in and listed in
//! [`Cluster::assumptions`]. It judges nothing: that is `unmasq-audit`.

mod assumed;
pub mod kubernetes;
pub mod networks;
pub mod paths;
pub mod read;
pub mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use kubernetes::Objects;
use networks::Networks;
use read::{Contents, Problem};
use settings::Settings;
use unmasq_model::host::Host;
use unmasq_model::origin::Diagnostic;
use unmasq_model::packet::Family;

/// A cluster, as far as it was seen.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Nodes by name: those that were captured, and those that only have an object.
    pub nodes: Vec<Node>,
    /// Kubernetes objects.
    pub objects: Objects,
    /// What the user said, which counts more than what was found.
    pub overrides: Overrides,
    /// What programs are configured to do.
    pub settings: Settings,
    /// The address ranges that are in use.
    pub networks: Networks,
    /// What was filled in, a sentence each; answers that rest on one name it.
    pub assumptions: Vec<Assumption>,
    /// What would have helped and was not there, a sentence each, with how to get it.
    pub missing: Vec<String>,
    /// Files and objects that could not be read; each costs itself alone.
    pub problems: Vec<Problem>,
}

/// What the user said of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The ranges of all pods; empty: not said.
    pub cluster_cidrs: Vec<IpNet>,
    /// The ranges of Services' cluster IPs; empty: not said.
    pub service_cidrs: Vec<IpNet>,
}

/// A node.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its network state; `None`: not captured.
    pub host: Option<Host>,
    /// Pods whose network namespaces were captured.
    pub pods: Vec<PodState>,
    /// Programs that run there and their arguments; `None`: not captured.
    pub processes: Option<Vec<Process>>,
    /// Texts of `files/…`, by the path on the node with a leading `/`.
    pub files: BTreeMap<String, String>,
    /// What could not be read.
    pub diagnostics: Vec<Diagnostic>,
}

/// A pod's network namespace.
#[derive(Debug, Clone, Default)]
pub struct PodState {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Its network state.
    pub host: Host,
    /// What could not be read.
    pub diagnostics: Vec<Diagnostic>,
}

/// A program that runs on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// The program's name without its folder.
    pub name: String,
    /// Its arguments, without the program itself; a secret's value is `***`.
    pub arguments: Vec<String>,
}

/// Something that was not captured and was filled in, because it follows from other things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumption {
    /// The node whose state it is about; `None`: the whole cluster.
    pub node: Option<String>,
    /// The set that was filled in, if it is one: a walk that asks it rests on the assumption.
    pub set: Option<String>,
    /// A sentence.
    pub text: String,
}

impl Cluster {
    /// Puts together what was read, with what could not be.
    pub fn of(contents: Contents, overrides: Overrides) -> Cluster {
        let Contents { nodes, objects, problems } = contents;
        Cluster { problems, ..Cluster::new(nodes, objects, overrides) }
    }

    /// Puts together what was read. A node that only has an object gets an entry too, and a
    /// captured node needs none.
    pub fn new(nodes: Vec<Node>, objects: Objects, overrides: Overrides) -> Cluster {
        let captured: BTreeSet<String> = nodes.iter().map(|node| node.name.clone()).collect();
        let of_objects = objects.nodes.iter().map(|object| object.metadata.name.as_str());
        let others: BTreeSet<&str> = of_objects.filter(|name| !captured.contains(*name)).collect();
        let others =
            others.into_iter().map(|name| Node { name: name.to_owned(), ..Node::default() });
        let mut nodes: Vec<Node> = nodes.into_iter().chain(others).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let settings = Settings::new(&nodes, &objects);
        let networks = Networks::new(&nodes, &objects, &settings, &overrides);
        let mut assumptions = Vec::new();
        for family in [Family::V4, Family::V6] {
            let ranges = [networks.cluster_pods(family), networks.services(family)];
            let texts = ranges.into_iter().filter_map(|ranges| ranges.assumption.clone());
            assumptions.extend(texts.map(|text| Assumption { node: None, set: None, text }));
        }
        let missing = Vec::new();
        let problems = Vec::new();
        let mut cluster = Cluster {
            nodes,
            objects,
            overrides,
            settings,
            networks,
            assumptions,
            missing,
            problems,
        };
        assumed::fill_in(&mut cluster);
        cluster
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The index of the node of that name.
    pub fn node_index(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// Addresses of pods with the index of their node, as pods and endpoints say. Pods of the
    /// node's own network have the node's.
    pub fn pod_addresses(&self) -> impl Iterator<Item = (IpAddr, usize)> + '_ {
        let index: BTreeMap<&str, usize> =
            self.nodes.iter().enumerate().map(|(index, node)| (&*node.name, index)).collect();
        let pods = self.objects.pods.iter().filter(|pod| !pod.spec.host_network);
        let of_pods = pods.flat_map(|pod| {
            let node = pod.spec.node_name.as_deref();
            pod.ips().filter_map(move |address| Some((node?, address)))
        });
        let endpoints = self.objects.endpoint_slices.iter().flat_map(|slice| &slice.endpoints);
        let of_endpoints = endpoints.flat_map(|endpoint| {
            let node = endpoint.node_name.as_deref();
            endpoint.addresses.iter().filter_map(move |address| Some((node?, *address)))
        });
        let all = of_pods.chain(of_endpoints);
        all.filter_map(move |(node, address)| Some((address, *index.get(node)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_captures_and_of_objects() {
        let mut objects = Objects::default();
        for name in ["b", "c", "a"] {
            let node = serde_json::json!({"kind": "Node", "metadata": {"name": name}});
            objects.add(&node).unwrap();
        }
        let captured = |name: &str| Node {
            name: name.to_owned(),
            host: Some(Host::default()),
            ..Node::default()
        };
        let nodes = vec![captured("x"), captured("b")];
        let cluster = Cluster::new(nodes, objects, Overrides::default());
        let names: Vec<_> = cluster.nodes.iter().map(|n| (&*n.name, n.host.is_some())).collect();
        assert_eq!(names, [("a", false), ("b", true), ("c", false), ("x", true)]);
        assert!(cluster.node("x").is_some() && cluster.node("y").is_none());
    }
}

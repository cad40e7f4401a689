//! A whole cluster: its nodes' captured state, its Kubernetes objects, the programs that write
//! rules with their settings, the address ranges that are in use; and a packet's way between hosts,
//! asked for by names.
//!
//! ```text
//! kubernetes/*.json, manifests ─ kubernetes ─▶ Objects ─┐
//! nodes/*/…                    ─ parse ─▶ Node ─────────┼─▶ Cluster ─ paths ─▶ Way, host by host
//! processes, files/…           ────────▶ settings ──────┘
//! ```
//!
//! In: texts that somebody else read. Out: values. What was not seen stays `None` or is listed in
//! [`Cluster::missing`]; what follows from other things is filled in and listed in
//! [`Cluster::assumptions`]. It judges nothing: that is `unmasq-audit`.

pub mod kubernetes;
pub mod paths;

use std::collections::BTreeMap;
use std::net::IpAddr;

use kubernetes::Objects;
use unmasq_model::host::Host;
use unmasq_model::origin::Diagnostic;

/// A cluster, as far as it was seen.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Nodes by name: those that were captured, and those that only have an object.
    pub nodes: Vec<Node>,
    /// Kubernetes objects.
    pub objects: Objects,
    /// What was filled in, a sentence each; answers that rest on one name it.
    pub assumptions: Vec<Assumption>,
    /// What would have helped and was not there, a sentence each, with how to get it.
    pub missing: Vec<String>,
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
    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The index of the node of that name.
    pub fn node_index(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// Addresses of pods with the index of their node: what endpoints say.
    pub fn pod_addresses(&self) -> impl Iterator<Item = (IpAddr, usize)> + '_ {
        let index: BTreeMap<&str, usize> =
            self.nodes.iter().enumerate().map(|(index, node)| (&*node.name, index)).collect();
        let endpoints = self.objects.endpoint_slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints
            .filter_map(move |endpoint| {
                let node = *index.get(endpoint.node_name.as_deref()?)?;
                Some((endpoint, node))
            })
            .flat_map(|(endpoint, node)| endpoint.addresses.iter().map(move |one| (*one, node)))
    }
}

//! What the programs that write rules are configured to do, each value with where it stands.
//!
//! ```text
//! ConfigMaps, DaemonSets, pods ─┐
//! processes of nodes ───────────┼─ source ─ one module a program ─▶ Settings
//! files of nodes ───────────────┘
//! ```
//!
//! In: objects and nodes as they were read. Out: [`Settings`]. A value is kept as often as it
//! stands somewhere, the place that counts first; places may contradict each other
//! ([`Values::contradictions`]). A program's own defaults are not filled in: no value means that
//! none was seen. Text that can't be the value of its setting is in [`Settings::unreadable`].

mod calico;
mod cilium;
mod control_plane;
mod engine;
mod flannel;
mod ip_masq_agent;
mod kube_proxy;
mod kube_router;
mod rancher;
mod source;
mod text;

use std::fmt;

use crate::Node;
use crate::kubernetes::Objects;

pub use calico::Calico;
pub use cilium::Cilium;
pub use control_plane::ControlPlane;
pub use engine::Engine;
pub use flannel::Flannel;
pub use ip_masq_agent::IpMasqAgent;
pub use kube_proxy::KubeProxy;
pub use kube_router::KubeRouter;
pub use rancher::Rancher;
use source::Sources;

/// The settings of all programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// kube-proxy.
    pub kube_proxy: KubeProxy,
    /// flannel, canal's part of it too.
    pub flannel: Flannel,
    /// Calico, canal's part of it too.
    pub calico: Calico,
    /// kube-router, unless it is the part of k3s that programs policies.
    pub kube_router: KubeRouter,
    /// ip-masq-agent.
    pub ip_masq_agent: IpMasqAgent,
    /// Docker, and network plugins' configuration.
    pub engine: Engine,
    /// k3s and rke2.
    pub rancher: Rancher,
    /// Cilium.
    pub cilium: Cilium,
    /// kube-apiserver, kube-controller-manager and kubeadm.
    pub control_plane: ControlPlane,
    /// Values that can't be what they should be.
    pub unreadable: Vec<Setting<String>>,
}

impl Settings {
    /// Reads the settings of all programs.
    pub fn new(nodes: &[Node], objects: &Objects) -> Settings {
        let mut sources = Sources::new(nodes, objects);
        let rancher = rancher::read(&mut sources);
        Settings {
            kube_proxy: kube_proxy::read(&mut sources, &rancher),
            flannel: flannel::read(&mut sources),
            calico: calico::read(&mut sources),
            kube_router: kube_router::read(&mut sources),
            ip_masq_agent: ip_masq_agent::read(&mut sources),
            engine: engine::read(&mut sources),
            cilium: cilium::read(&mut sources),
            control_plane: control_plane::read(&mut sources),
            rancher,
            unreadable: sources.unreadable,
        }
    }

    /// Whether flannel carries the pods' packets and Calico only programs policies.
    pub fn is_canal(&self) -> bool {
        let without_network = self.calico.networking_backend.first();
        self.calico.is_present()
            && self.flannel.is_present()
            && without_network.is_none_or(|backend| backend.value == "none")
    }
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a Kubernetes object.
    Object {
        /// The object's kind.
        kind: &'static str,
        /// Its namespace; empty: it has none.
        namespace: String,
        /// Its name.
        name: String,
        /// A file or a container in it; empty: the object itself.
        part: String,
        /// The field, setting, flag or variable; empty: the whole.
        key: String,
    },
    /// In a file of a node.
    File {
        /// The node's name.
        node: String,
        /// The path on the node.
        path: String,
        /// The line, from 1.
        line: Option<usize>,
        /// The setting.
        key: String,
    },
    /// In the arguments of a running program.
    Process {
        /// The node's name.
        node: String,
        /// The program.
        program: String,
        /// The flag; empty: that it runs.
        flag: String,
    },
    /// In a node's network state.
    State {
        /// The node's name.
        node: String,
        /// A device with its address, a route.
        what: String,
    },
    /// On the user's command line.
    Given {
        /// The option.
        option: String,
    },
}

impl Place {
    /// The node that it is about alone.
    pub fn node(&self) -> Option<&str> {
        match self {
            Place::File { node, .. } | Place::Process { node, .. } | Place::State { node, .. } => {
                Some(node)
            }
            Place::Object { kind: "Node", name, .. } => Some(name),
            Place::Object { .. } | Place::Given { .. } => None,
        }
    }
}

/// `ConfigMap kube-system/kube-proxy, config.conf: clusterCIDR`, `node n1, /run/x:3: NAME`,
/// `node n1, kube-proxy --cluster-cidr`
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Object { kind, namespace, name, part, key } => {
                write!(f, "{kind} ")?;
                if !namespace.is_empty() {
                    write!(f, "{namespace}/")?;
                }
                f.write_str(name)?;
                if !part.is_empty() {
                    write!(f, ", {part}")?;
                }
                if !key.is_empty() {
                    write!(f, ": {key}")?;
                }
                Ok(())
            }
            Place::File { node, path, line, key } => {
                write!(f, "node {node}, {path}")?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                }
                if !key.is_empty() {
                    write!(f, ": {key}")?;
                }
                Ok(())
            }
            Place::Process { node, program, flag } if flag.is_empty() => {
                write!(f, "node {node}, {program}")
            }
            Place::Process { node, program, flag } => write!(f, "node {node}, {program} {flag}"),
            Place::State { node, what } => write!(f, "node {node}, {what}"),
            Place::Given { option } => f.write_str(option),
        }
    }
}

/// A value, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// The values of one setting, the one that counts most first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values<T> {
    all: Vec<Setting<T>>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Values { all: Vec::new() }
    }
}

impl<T: PartialEq> Values<T> {
    /// All of them.
    pub fn all(&self) -> &[Setting<T>] {
        &self.all
    }

    /// The one that counts most.
    pub fn first(&self) -> Option<&Setting<T>> {
        self.all.first()
    }

    /// The one for a node: what stands there, else what stands for all nodes.
    pub fn on(&self, node: &str) -> Option<&Setting<T>> {
        let there = self.all.iter().find(|setting| setting.place.node() == Some(node));
        there.or_else(|| self.all.iter().find(|setting| setting.place.node().is_none()))
    }

    /// Pairs of different values that are for the same node, or one of which is for all.
    pub fn contradictions(&self) -> Vec<(&Setting<T>, &Setting<T>)> {
        let mut found = Vec::new();
        for (index, one) in self.all.iter().enumerate() {
            for other in self.all.iter().skip(index + 1) {
                let same_node = match (one.place.node(), other.place.node()) {
                    (Some(one), Some(other)) => one == other,
                    (None, _) | (_, None) => true,
                };
                if same_node && one.value != other.value {
                    found.push((one, other));
                }
            }
        }
        found
    }

    fn push(&mut self, value: T, place: Place) {
        self.all.push(Setting { value, place });
    }
}

#[cfg(test)]
mod tests;

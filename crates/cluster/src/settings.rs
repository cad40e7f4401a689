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
mod named;
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
pub use named::Named;
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
    /// Values that can't be what they should be, and files that can't be read.
    pub unreadable: Vec<Unreadable>,
}

/// Something that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// What it is.
    pub what: Unread,
    /// Where it stands.
    pub place: Place,
}

/// What can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// A text that can't be the value of its setting.
    Value(String),
    /// A value that the capture left out, as it may be a secret.
    LeftOut,
    /// A whole document: why.
    Document(&'static str),
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

    /// Settings of which different values stand in places that are about the same node, by program
    /// and name. Ranges of pods and Services are not among them: they have conflicts of their own
    /// ([`crate::networks::Ranges`]).
    pub fn contradictions(&self) -> Vec<Contradiction> {
        let Settings { kube_proxy, flannel, calico, kube_router, ip_masq_agent, .. } = self;
        let Settings { engine, cilium, rancher, .. } = self;
        let mut all = Vec::new();
        let mut add = |setting, found: Vec<(String, Place)>| {
            if !found.is_empty() {
                all.push(Contradiction { setting, values: found });
            }
        };
        add("kube-proxy's mode", kube_proxy.mode.differing());
        add("kube-proxy's masqueradeAll", kube_proxy.masquerade_all.differing());
        add("kube-proxy's detectLocalMode", kube_proxy.detect_local_mode.differing());
        add("flannel's backend", flannel.backend.differing());
        add("flannel's EnableNFTables", flannel.enable_nftables.differing());
        add("flannel's ip-masq", flannel.ip_masq.differing());
        add("Calico's networking backend", calico.networking_backend.differing());
        add("Calico's natPortRange", calico.nat_port_range.differing());
        add("kube-router's pod egress", kube_router.pod_egress.differing());
        add("kube-router's masquerade-all", kube_router.masquerade_all.differing());
        add("ip-masq-agent's masqLinkLocal", ip_masq_agent.masq_link_local.differing());
        add("Docker's bip", engine.bip.differing());
        add("Docker's ip-masq", engine.ip_masq.differing());
        add("Docker's iptables", engine.iptables.differing());
        add("the flannel backend of k3s", rancher.flannel_backend.differing());
        add("the flannel-ipv6-masq of k3s", rancher.flannel_ipv6_masq.differing());
        add("the disable-kube-proxy of k3s", rancher.disable_kube_proxy.differing());
        add("Cilium's BPF masquerading", cilium.bpf_masquerade.differing());
        add("Cilium's IPv4 masquerading", cilium.ipv4_masquerade.differing());
        add("Cilium's IPv6 masquerading", cilium.ipv6_masquerade.differing());
        all
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

impl Place {
    /// The same without the line, which moves with what stands above it.
    pub fn without_line(&self) -> Place {
        let mut place = self.clone();
        if let Place::File { line, .. } = &mut place {
            *line = None;
        }
        place
    }

    /// Whether both stand in the same part of the same object.
    fn is_beside(&self, other: &Place) -> bool {
        let within = |place: &Place| match place {
            Place::Object { kind, namespace, name, part, key: _ } => {
                Some((*kind, namespace.clone(), name.clone(), part.clone()))
            }
            Place::File { .. }
            | Place::Process { .. }
            | Place::State { .. }
            | Place::Given { .. } => None,
        };
        within(self).is_some_and(|own| Some(own) == within(other))
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

impl<T: PartialEq + fmt::Display> Values<T> {
    /// Each of the values that contradict another one, with the place that counts most.
    fn differing(&self) -> Vec<(String, Place)> {
        let mut found: Vec<(String, Place)> = Vec::new();
        // What stands in one file or container has an order there, or is for two modes.
        let apart = |(one, other): &(&Setting<T>, &Setting<T>)| !one.place.is_beside(&other.place);
        let pairs = self.contradictions().into_iter().filter(apart);
        for setting in pairs.flat_map(|(one, other)| [one, other]) {
            let value = setting.value.to_string();
            if found.iter().all(|(known, _)| *known != value) {
                found.push((value, setting.place.clone()));
            }
        }
        found
    }
}

/// A setting with several values, where only one can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// Whose it is, and its name.
    pub setting: &'static str,
    /// The values, each with the place that counts most; the first is taken.
    pub values: Vec<(String, Place)>,
}

#[cfg(test)]
mod tests;

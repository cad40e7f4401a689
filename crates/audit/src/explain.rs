//! The pages: one for each finding, one for each component.
//!
//! A name goes in, its page comes out, or the names that are nearest to it. Pages are the Markdown
//! files of `docs/findings` and `docs/components`, compiled in, so that what a release says is what
//! its documentation says. How a page looks on a terminal is `unmasq-report`'s.

mod meant;
mod nearest;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use crate::FindingId;

pub use meant::meant;
pub use nearest::{distance, nearest};

/// A part of a cluster that rewrites sources, or decides whether they are rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Services, as objects of Kubernetes.
    Services,
    /// kube-proxy.
    KubeProxy,
    /// flannel.
    Flannel,
    /// canal: flannel's network and Calico's policy.
    Canal,
    /// Calico.
    Calico,
    /// kube-router.
    KubeRouter,
    /// ip-masq-agent.
    IpMasqAgent,
    /// The container engine and the CNI plugins beside it.
    Docker,
    /// k3s and its load balancer.
    K3s,
    /// Cilium.
    Cilium,
}

impl Component {
    /// All of them, in the order of the index.
    pub const ALL: &[Self] = &[
        Component::Services,
        Component::KubeProxy,
        Component::Flannel,
        Component::Canal,
        Component::Calico,
        Component::KubeRouter,
        Component::IpMasqAgent,
        Component::Docker,
        Component::K3s,
        Component::Cilium,
    ];

    /// The name of its page.
    pub const fn name(self) -> &'static str {
        match self {
            Component::Services => "services",
            Component::KubeProxy => "kube-proxy",
            Component::Flannel => "flannel",
            Component::Canal => "canal",
            Component::Calico => "calico",
            Component::KubeRouter => "kube-router",
            Component::IpMasqAgent => "ip-masq-agent",
            Component::Docker => "docker",
            Component::K3s => "k3s",
            Component::Cilium => "cilium",
        }
    }

    /// Other names that lead to its page.
    pub const fn aliases(self) -> &'static [&'static str] {
        match self {
            Component::Services => &["service", "svc"],
            Component::Docker => &["containerd", "engine", "podman"],
            Component::K3s => &["klipper", "servicelb", "svclb"],
            Component::KubeProxy
            | Component::Flannel
            | Component::Canal
            | Component::Calico
            | Component::KubeRouter
            | Component::IpMasqAgent
            | Component::Cilium => &[],
        }
    }

    /// What it is, in one line.
    pub const fn title(self) -> &'static str {
        match self {
            Component::Services => "Services of Kubernetes, and what they promise of sources",
            Component::KubeProxy => "kube-proxy, the Service proxy of Kubernetes",
            Component::Flannel => "flannel, a network of tunnels or routes between nodes",
            Component::Canal => "canal: flannel's network with Calico's policy",
            Component::Calico => "Calico, routes and policy by Felix",
            Component::KubeRouter => "kube-router: BGP routes, policy and an IPVS proxy",
            Component::IpMasqAgent => "ip-masq-agent, a list of what is not masqueraded",
            Component::Docker => "The container engine: Docker, containerd and CNI plugins",
            Component::K3s => "k3s, and its load balancer klipper-lb",
            Component::Cilium => "Cilium, a network in BPF programs",
        }
    }
}

/// What a page is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// A finding.
    Finding(FindingId),
    /// A component.
    Component(Component),
}

impl Topic {
    /// All topics: findings, then components.
    pub fn all() -> impl Iterator<Item = Topic> {
        let findings = FindingId::ALL.iter().copied().map(Topic::Finding);
        findings.chain(Component::ALL.iter().copied().map(Topic::Component))
    }

    /// The topic of this name or alias.
    pub fn from_name(name: &str) -> Option<Topic> {
        Topic::all().find(|topic| topic.name() == name || topic.aliases().contains(&name))
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Topic::Finding(finding) => finding.id(),
            Topic::Component(component) => component.name(),
        }
    }

    /// Other names that lead to it.
    pub const fn aliases(self) -> &'static [&'static str] {
        match self {
            Topic::Finding(_) => &[],
            Topic::Component(component) => component.aliases(),
        }
    }

    /// Its heading.
    pub const fn title(self) -> &'static str {
        match self {
            Topic::Finding(finding) => finding.title(),
            Topic::Component(component) => component.title(),
        }
    }

    /// Its page, as Markdown.
    pub const fn page(self) -> &'static str {
        match self {
            Topic::Finding(finding) => finding_page(finding),
            Topic::Component(component) => component_page(component),
        }
    }
}

/// The index of all pages, as Markdown.
pub fn index() -> String {
    let mut text = "# What can be found, and what it means\n\n\
        `unmasq explain NAME` prints these pages. This one is checked by the tests; it is written \
        by\n`unmasq explain --markdown > docs/findings/README.md`.\n\n\
        ## Findings\n\n| id | what it is |\n|---|---|\n"
        .to_owned();
    for finding in FindingId::ALL {
        let (id, title) = (finding.id(), finding.title());
        let _ = writeln!(text, "| [{id}]({id}.md) | {title} |");
    }
    text.push_str("\n## Components\n\n| name | what it is |\n|---|---|\n");
    for component in Component::ALL {
        let (name, title) = (component.name(), component.title());
        let _ = writeln!(text, "| [{name}](../components/{name}.md) | {title} |");
    }
    text
}

macro_rules! finding {
    ($name:literal) => {
        include_str!(concat!("../../../docs/findings/", $name, ".md"))
    };
}

macro_rules! component {
    ($name:literal) => {
        include_str!(concat!("../../../docs/components/", $name, ".md"))
    };
}

const fn finding_page(finding: FindingId) -> &'static str {
    match finding {
        FindingId::CalicoUnusedPool => finding!("calico-unused-pool"),
        FindingId::CalicoPoolMasquerade => finding!("calico-pool-masquerade"),
        FindingId::HostMasquerade => finding!("host-masquerade"),
        FindingId::StaleFlannelRules => finding!("stale-flannel-rules"),
        FindingId::FlannelMasquerade => finding!("flannel-masquerade"),
        FindingId::KubeRouterPodEgress => finding!("kube-router-pod-egress"),
        FindingId::ExternalTrafficPolicyCluster => finding!("external-traffic-policy-cluster"),
        FindingId::LocalYetRewritten => finding!("local-yet-rewritten"),
        FindingId::LocalPolicyUnsafe => finding!("local-policy-unsafe"),
        FindingId::LocalPolicyInvalid => finding!("local-policy-invalid"),
        FindingId::LocalPolicyImbalance => finding!("local-policy-imbalance"),
        FindingId::ClusterCidrMismatch => finding!("cluster-cidr-mismatch"),
        FindingId::MasqueradeAll => finding!("masquerade-all"),
        FindingId::IpMasqAgentList => finding!("ip-masq-agent-list"),
        FindingId::StrayMasquerade => finding!("stray-masquerade"),
        FindingId::KlipperLb => finding!("klipper-lb"),
        FindingId::IpvsMasquerade => finding!("ipvs-masquerade"),
        FindingId::PortmapMasquerade => finding!("portmap-masquerade"),
        FindingId::MeshSource => finding!("mesh-source"),
        FindingId::OpaqueDataplane => finding!("opaque-dataplane"),
        FindingId::OverlappingRanges => finding!("overlapping-ranges"),
        FindingId::MixedBackends => finding!("mixed-backends"),
        FindingId::LeftoverRules => finding!("leftover-rules"),
        FindingId::PodToPodRewritten => finding!("pod-to-pod-rewritten"),
        FindingId::ExpectationBroken => finding!("expectation-broken"),
        FindingId::PolicyCannotMatchClient => finding!("policy-cannot-match-client"),
        FindingId::PolicyAllowsNode => finding!("policy-allows-node"),
        FindingId::SourceRangesSeeNode => finding!("source-ranges-see-node"),
        FindingId::ForwardedForUntrusted => finding!("forwarded-for-untrusted"),
        FindingId::NoReply => finding!("no-reply"),
        FindingId::MissingNodeState => finding!("missing-node-state"),
    }
}

const fn component_page(component: Component) -> &'static str {
    match component {
        Component::Services => component!("services"),
        Component::KubeProxy => component!("kube-proxy"),
        Component::Flannel => component!("flannel"),
        Component::Canal => component!("canal"),
        Component::Calico => component!("calico"),
        Component::KubeRouter => component!("kube-router"),
        Component::IpMasqAgent => component!("ip-masq-agent"),
        Component::Docker => component!("docker"),
        Component::K3s => component!("k3s"),
        Component::Cilium => component!("cilium"),
    }
}

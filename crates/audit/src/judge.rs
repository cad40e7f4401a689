//! Which finding a row of the matrix belongs to, and how bad that is.
//!
//! In: a row's cell. Out: a [`Judgement`]. Whether an expectation or a setting is broken is asked
//! elsewhere ([`crate::expect`], [`crate::dependent`]) and raises the severity.
//!
//! | what is rewritten | is |
//! |---|---|
//! | somebody outside, and the Service promises `Local` | an error |
//! | a pod on its way to a pod, also by a cluster IP | an error |
//! | somebody outside by a rule that nobody wants there | a warning |
//! | as a setting says (`externalTrafficPolicy: Cluster`, `masqueradeAll`) | for information |
//! | a node's own calls, a pod that calls itself, egress | as expected |

use crate::matrix::{Cause, Cell, Client, Entry, Fate, Placement, Policy, Why};
use crate::{FindingId, Owner, Severity};

/// What a row means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Nothing is lost.
    Fine,
    /// The source is rewritten, and that hurts nobody who didn't say so.
    Expected(Suspect),
    /// It belongs to a finding.
    Found(Suspect, Severity),
    /// It isn't answered.
    NotAnswered,
    /// It can't be told.
    Unknown,
}

/// A kind of finding with the rule that it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Suspect {
    pub(crate) id: FindingId,
    pub(crate) cause: Cause,
}

impl Suspect {
    /// A kind of finding that no rule is to blame for, and whose matter it is.
    pub(crate) fn nobody(id: FindingId, owner: Owner) -> Suspect {
        Suspect { id, cause: Cause { owner, rule: String::new(), why: Why::ItsTests } }
    }
}

/// Judges a row by itself.
pub(crate) fn judge(cell: &Cell) -> Judgement {
    let causes = match &cell.fate {
        Fate::Preserved => return Judgement::Fine,
        Fate::Rewritten(causes) => causes,
        Fate::NoAnswer(_) | Fate::Dropped(_) | Fate::Rejected(_) | Fate::Lost => {
            return Judgement::NotAnswered;
        }
        Fate::Unknown(_) => return Judgement::Unknown,
    };
    // The first rule is the one to mend: what comes after it sees the client no more.
    let Some(cause) = causes.first() else { return Judgement::Unknown };
    let id = kind(cell, cause);
    let suspect = Suspect { id, cause: cause.clone() };
    match severity(cell, id) {
        Some(severity) => Judgement::Found(suspect, severity),
        None => Judgement::Expected(suspect),
    }
}

fn outside(cell: &Cell) -> bool {
    matches!(cell.client, Client::Outside(_))
}

/// Whether pods meet without leaving the cluster.
fn between_pods(cell: &Cell) -> bool {
    let direct = matches!(cell.entry, Entry::Pod | Entry::ClusterIp);
    direct && cell.client == Client::Pod
}

fn promised(cell: &Cell) -> bool {
    let external = matches!(cell.entry, Entry::NodePort | Entry::LoadBalancer | Entry::ExternalIp);
    external && outside(cell) && cell.policy == Some(Policy::Local)
}

fn kind(cell: &Cell, cause: &Cause) -> FindingId {
    match (cause.owner, cause.why) {
        // The object says Local, and kube-proxy's rules don't follow it.
        (Owner::KubeProxy, Why::ExternalPolicy | Why::Hairpin) if promised(cell) => {
            FindingId::LocalYetRewritten
        }
        (Owner::KubeProxy, Why::ExternalPolicy | Why::Hairpin) => {
            FindingId::ExternalTrafficPolicyCluster
        }
        (Owner::KubeProxy, Why::NotAPod) => FindingId::ClusterCidrMismatch,
        (Owner::KubeProxy, Why::MasqueradeAll) => FindingId::MasqueradeAll,
        (Owner::Calico, _) if outside(cell) => FindingId::CalicoUnusedPool,
        (Owner::Calico, _) => FindingId::CalicoPoolMasquerade,
        // Rules of flannel in a base chain are those of old versions: left, unless one runs.
        (Owner::Flannel, _) if cause.rule.contains("POSTROUTING:") => FindingId::StaleFlannelRules,
        (Owner::Flannel, _) => FindingId::FlannelMasquerade,
        (Owner::KubeRouter, _) if cause.rule.contains("ipvs") => FindingId::IpvsMasquerade,
        (Owner::KubeRouter, _) => FindingId::KubeRouterPodEgress,
        (Owner::IpMasqAgent | Owner::Kindnet | Owner::GceNodeSetup, _) => {
            FindingId::IpMasqAgentList
        }
        (Owner::KlipperLb, _) => FindingId::KlipperLb,
        (Owner::Portmap, _) => FindingId::PortmapMasquerade,
        (Owner::ContainerEngine | Owner::Docker | Owner::Kubenet | Owner::Netavark, _) => {
            FindingId::HostMasquerade
        }
        (Owner::Istio | Owner::Linkerd, _) => FindingId::MeshSource,
        (Owner::Unclaimed, _) => FindingId::StrayMasquerade,
        (
            Owner::KubeProxy
            | Owner::Kubelet
            | Owner::AwsVpcCni
            | Owner::Cilium
            | Owner::Weave
            | Owner::Tailscale
            | Owner::Libvirt
            | Owner::Lxc
            | Owner::Firewalld
            | Owner::OvnKubernetes
            | Owner::Unmasq,
            _,
        ) => match (promised(cell), between_pods(cell)) {
            (true, _) => FindingId::LocalYetRewritten,
            (_, true) => FindingId::PodToPodRewritten,
            (false, false) => FindingId::StrayMasquerade,
        },
    }
}

/// `None`: as expected.
fn severity(cell: &Cell, id: FindingId) -> Option<Severity> {
    let own_call = matches!(cell.client, Client::Node | Client::NodeElsewhere | Client::Endpoint);
    if own_call {
        return None;
    }
    if cell.entry == Entry::Outside {
        // That pods go out translated is what most want; kube-router's way is a flag to think of.
        return (id == FindingId::KubeRouterPodEgress).then_some(Severity::Info);
    }
    if cell.entry == Entry::Node {
        return Some(Severity::Info);
    }
    if promised(cell) || (between_pods(cell) && id != FindingId::MasqueradeAll) {
        return Some(Severity::Error);
    }
    // Somebody outside who calls a cluster IP isn't one whom objects make promises.
    let inner = outside(cell) && cell.entry == Entry::ClusterIp;
    match wanted(id) {
        Wanted::BySetting => Some(Severity::Info),
        Wanted::OfPods if !outside(cell) => Some(Severity::Info),
        Wanted::OfPods | Wanted::ByNobody => (!inner).then_some(Severity::Warning),
    }
}

/// Who wants a kind of rule to rewrite.
enum Wanted {
    /// A setting of the Service or of its load balancer says so.
    BySetting,
    /// Plugins do it by default to pods that leave for a node.
    OfPods,
    /// Nobody is known to.
    ByNobody,
}

fn wanted(id: FindingId) -> Wanted {
    match id {
        FindingId::ExternalTrafficPolicyCluster | FindingId::KlipperLb => Wanted::BySetting,
        FindingId::FlannelMasquerade
        | FindingId::CalicoPoolMasquerade
        | FindingId::KubeRouterPodEgress
        | FindingId::HostMasquerade
        | FindingId::ClusterCidrMismatch
        | FindingId::PortmapMasquerade
        | FindingId::MeshSource => Wanted::OfPods,
        FindingId::CalicoUnusedPool
        | FindingId::StaleFlannelRules
        | FindingId::LocalYetRewritten
        | FindingId::MasqueradeAll
        | FindingId::IpMasqAgentList
        | FindingId::StrayMasquerade
        | FindingId::IpvsMasquerade
        | FindingId::PodToPodRewritten
        // Not of a rule by itself.
        | FindingId::LocalPolicyUnsafe
        | FindingId::LocalPolicyInvalid
        | FindingId::LocalPolicyImbalance
        | FindingId::OpaqueDataplane
        | FindingId::OverlappingRanges
        | FindingId::MixedBackends
            | FindingId::LeftoverRules
        | FindingId::ExpectationBroken
        | FindingId::PolicyCannotMatchClient
        | FindingId::PolicyAllowsNode
        | FindingId::SourceRangesSeeNode
        | FindingId::ForwardedForUntrusted
        | FindingId::NoReply
        | FindingId::MissingNodeState => Wanted::ByNobody,
    }
}

/// Whether a node dropped what it has no endpoint for, under `Local`: a load balancer that asks
/// for health doesn't send it there.
pub(crate) fn is_drop_without_endpoint(cell: &Cell) -> bool {
    matches!(cell.entry, Entry::LoadBalancer | Entry::NodePort | Entry::ExternalIp)
        && cell.policy == Some(Policy::Local)
        && cell.placement == Placement::None
        && matches!(&cell.fate, Fate::Dropped(refusal) if refusal.owner == Some(Owner::KubeProxy))
}

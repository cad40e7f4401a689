//! What can be found wrong, by name, and what is found: a [`Finding`] with its cause and remedies.
//!
//! A [`FindingId`] is the stable name of one kind of finding: pages, reports and other programs
//! refer to it, so an id is never given another meaning. Several findings of one kind (two pools,
//! two families) differ in their [`subject`](Finding::subject).

use std::collections::BTreeSet;
use std::fmt;

use unmasq_model::packet::Family;

use crate::Owner;

mod action;

pub use action::{Action, Edit, Instruction, Program, Syntax, Undo, Workload, WorkloadKind};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Rewritten as the settings say.
    Info,
    /// Likely unwanted.
    Warning,
    /// It breaks an expectation or a setting that depends on the source, or contradicts what the
    /// objects promise.
    Error,
}

/// How sure it is that this is the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// It fits, and something that would decide it was not seen.
    Likely,
    /// The rule, its owner and the setting were all seen.
    Certain,
}

/// The subject, or its end, of a finding about those Services for which what is done to all breaks
/// an expectation or a setting.
pub const BREAKING: &str = "breaking";
/// The same about the other Services.
pub const REST: &str = "rest";

/// Something found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Of which kind.
    pub id: FindingId,
    /// Which one of its kind: the pool's name, the family, a Service; empty if there can be only
    /// one. [`BREAKING`] and [`REST`], or a subject with one of them behind a slash, where what is
    /// done to several Services breaks something for some of them only.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// One line in plain words, with this cluster's names.
    pub title: String,
    /// The program whose rule or setting it is.
    pub owner: Owner,
    /// The families that it is about; each is judged by itself.
    pub families: Vec<Family>,
    /// What is affected.
    pub affected: Affected,
    /// The expectations and settings that it breaks, a sentence each with their place.
    pub breaks: Vec<String>,
    /// The findings that it follows from: mended with them.
    pub caused_by: Vec<Reference>,
    /// What shows it.
    pub evidence: Vec<Evidence>,
    /// Why it is so.
    pub cause: Cause,
    /// What mends it: lasting ones first.
    pub remedies: Vec<Remedy>,
}

impl Finding {
    /// Whether it is about what was not seen, and not about what was: nothing bad was found by it.
    pub fn is_of_sight(&self) -> bool {
        self.id == FindingId::MissingNodeState
    }

    /// Whether both, of two audits, tell the same: of one kind and with one subject; or, where one
    /// of them is a part of what the other tells as a whole, with a Service in common.
    pub fn is_same(&self, other: &Finding) -> bool {
        let whole = |finding: &Finding| (finding.id, whole(&finding.subject).to_owned());
        let services: BTreeSet<&String> = self.affected.services.iter().collect();
        let common = || other.affected.services.iter().any(|name| services.contains(name));
        let same = self.id == other.id && self.subject == other.subject;
        same || (whole(self) == whole(other) && common())
    }
}

/// The subject of what a finding may be a part of.
fn whole(subject: &str) -> &str {
    let part = |word: &str| {
        let before = subject.strip_suffix(word)?;
        if before.is_empty() { Some(before) } else { before.strip_suffix('/') }
    };
    part(BREAKING).or_else(|| part(REST)).unwrap_or(subject)
}

/// A finding, by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Of which kind.
    pub id: FindingId,
    /// Which one of its kind.
    pub subject: String,
}

/// `calico-unused-pool (old-pool)`
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject.is_empty() {
            true => write!(f, "{}", self.id),
            false => write!(f, "{} ({})", self.id, self.subject),
        }
    }
}

/// What a finding affects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affected {
    /// Who calls whom, in words, a line each.
    pub flows: Vec<String>,
    /// Services, as `namespace/name`.
    pub services: Vec<String>,
    /// Nodes whose rules it is about.
    pub nodes: Vec<String>,
    /// Rows of the matrix, by index.
    pub rows: Vec<usize>,
}

/// Something that shows a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// A sentence: a packet and what becomes of it, or what was read where.
    pub text: String,
    /// A command that shows it in full (`unmasq trace …`, without the capture's name).
    pub trace: Option<String>,
    /// The rule that did it.
    pub rule: Option<RuleText>,
}

/// A rule and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleText {
    /// The node, or the pod as `namespace/name on node`.
    pub host: String,
    /// The file in the capture and the line.
    pub place: String,
    /// Its text.
    pub text: String,
}

/// Why it is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Sentences in plain words.
    pub text: String,
    /// The setting behind the rule (`natOutgoing: true`); `None`: none was found.
    pub setting: Option<String>,
    /// Where the setting stands (`IPPool default-ipv4-ippool, spec.natOutgoing`).
    pub place: Option<String>,
}

/// What mends it.
#[derive(Debug, Clone, PartialEq)]
pub struct Remedy {
    /// Whether it survives restarts and upgrades, or only works until then.
    pub lasting: bool,
    /// What it does, in a few words.
    pub title: String,
    /// In this order.
    pub steps: Vec<Step>,
    /// What else must hold first.
    pub requires: Vec<Requirement>,
}

impl Remedy {
    /// How it is undone: the last step first, and the same only once. A program starts anew after
    /// all that was changed ahead of its start has been undone.
    pub fn undo(&self) -> Vec<Undo> {
        let mut all: Vec<Undo> = Vec::new();
        let mut restarts: Vec<Undo> = Vec::new();
        let mut changed = false;
        for step in self.steps.iter().rev() {
            if let Action::Restart { .. } = step.action {
                if std::mem::take(&mut changed) {
                    all.append(&mut restarts);
                }
                restarts.extend(step.action.undo());
                continue;
            }
            for undo in step.action.undo() {
                changed = true;
                if !all.contains(&undo) {
                    all.push(undo);
                }
            }
        }
        all.extend(restarts);
        all
    }
}

/// One step of a remedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What is done, in words.
    pub text: String,
    /// What exactly.
    pub action: Action,
}

/// Something that must hold before a remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// A sentence.
    pub text: String,
    /// Whether it does; `None`: it can't be seen from here.
    pub holds: Option<bool>,
    /// How to find out, for what can't be seen.
    pub check: Option<Instruction>,
}

/// One line for each finding: its variant, its id, its heading. So no list of them can miss one.
macro_rules! findings {
    ($($variant:ident $id:literal $title:literal)*) => {
        /// One kind of finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingId {
            $(#[doc = $title] $variant,)*
        }

        impl FindingId {
            /// All of them, in the order of the index.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name: small letters, digits and hyphens.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$variant => $id,)*
                }
            }

            /// What it is, in one line of plain words.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)*
                }
            }
        }
    };
}

findings! {
    CalicoUnusedPool "calico-unused-pool"
        "A Calico pool that no pod uses masquerades clients"
    CalicoPoolMasquerade "calico-pool-masquerade"
        "Calico masquerades pods on their way out of the pools"
    HostMasquerade "host-masquerade"
        "A host's rule masquerades pods on their way to other hosts"
    StaleFlannelRules "stale-flannel-rules"
        "Rules of an older flannel are still there"
    FlannelMasquerade "flannel-masquerade"
        "flannel masquerades between nodes, pods and known networks"
    KubeRouterPodEgress "kube-router-pod-egress"
        "kube-router masquerades pods on their way out"
    ExternalTrafficPolicyCluster "external-traffic-policy-cluster"
        "A Service hides its clients: externalTrafficPolicy is Cluster"
    LocalYetRewritten "local-yet-rewritten"
        "A Service promises Local, and another rule rewrites its clients"
    LocalPolicyUnsafe "local-policy-unsafe"
        "Local would drop connections at nodes without an endpoint"
    LocalPolicyInvalid "local-policy-invalid"
        "A traffic policy that the API refuses or that does nothing"
    LocalPolicyImbalance "local-policy-imbalance"
        "Local spreads connections over nodes, and so unevenly over pods"
    ClusterCidrMismatch "cluster-cidr-mismatch"
        "kube-proxy takes pods for strangers: clusterCIDR misses their range"
    MasqueradeAll "masquerade-all"
        "kube-proxy masquerades every call of a Service"
    IpMasqAgentList "ip-masq-agent-list"
        "The list of ip-masq-agent leaves out a network"
    StrayMasquerade "stray-masquerade"
        "A rule that no known program claims rewrites sources"
    KlipperLb "klipper-lb"
        "The load balancer of k3s hides clients inside its own pods"
    IpvsMasquerade "ipvs-masquerade"
        "IPVS connections are masqueraded"
    PortmapMasquerade "portmap-masquerade"
        "The portmap plugin masquerades calls of a hostPort"
    MeshSource "mesh-source"
        "A mesh's sidecar hands connections over from its own address"
    OpaqueDataplane "opaque-dataplane"
        "Packets are translated where no ruleset shows it"
    OverlappingRanges "overlapping-ranges"
        "Two networks share addresses"
    MixedBackends "mixed-backends"
        "Rules stand in iptables-legacy and in nf_tables"
    LeftoverRules "leftover-rules"
        "Rules are left that no running program looks after"
    PodToPodRewritten "pod-to-pod-rewritten"
        "A rule rewrites the source between two pods"
    ExpectationBroken "expectation-broken"
        "Something that was declared about sources does not hold"
    PolicyCannotMatchClient "policy-cannot-match-client"
        "A NetworkPolicy names clients that it never gets to see"
    PolicyAllowsNode "policy-allows-node"
        "A NetworkPolicy allows a node's address, and with it everyone"
    SourceRangesSeeNode "source-ranges-see-node"
        "An allow-list or a rate limit judges a rewritten address"
    ForwardedForUntrusted "forwarded-for-untrusted"
        "The client's address in a header is not believed, or believed too easily"
    NoReply "no-reply"
        "The answer does not come back the way that it must"
    MissingNodeState "missing-node-state"
        "Something of a node was not captured"
}

impl FindingId {
    /// The finding of this id.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|finding| finding.id() == id)
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_last_step_is_undone_first_and_read_last() {
        let by_hand = |text: &str| Instruction::Sentence(text.to_owned());
        let changed = |undo: &str| {
            let undo = vec![by_hand(undo)];
            Action::ByHand { instructions: Vec::new(), undo }
        };
        let restarted = |name: &str| Action::Restart {
            program: Program::OfNode { node: None, name: name.to_owned() },
        };
        let nothing = Action::ByHand { instructions: vec![by_hand("look")], undo: Vec::new() };
        let steps = [
            changed("a"),
            changed("b"),
            restarted("one"),
            restarted("other"),
            nothing.clone(),
            changed("c"),
            changed("c"),
            restarted("two"),
            nothing,
        ];
        let step = |action| Step { text: String::new(), action };
        let remedy = Remedy {
            lasting: true,
            title: String::new(),
            steps: steps.map(step).into(),
            requires: Vec::new(),
        };
        let told = |undo: Undo| match undo {
            Undo::ByHand(Instruction::Sentence(text)) => text,
            Undo::Action(Action::Restart { program: Program::OfNode { name, .. } }) => name,
            other => panic!("{other:?}"),
        };
        let undo: Vec<String> = remedy.undo().into_iter().map(told).collect();
        assert_eq!(undo, ["c", "two", "b", "a", "other", "one"]);
    }

    #[test]
    fn a_part_is_the_same_as_the_whole_of_the_same_services() {
        let finding = |subject: &str, services: &[&str]| Finding {
            id: FindingId::KubeRouterPodEgress,
            subject: subject.to_owned(),
            severity: Severity::Info,
            confidence: Confidence::Certain,
            title: String::new(),
            owner: Owner::KubeRouter,
            families: Vec::new(),
            affected: Affected {
                services: services.iter().map(|name| (*name).to_owned()).collect(),
                ..Affected::default()
            },
            breaks: Vec::new(),
            caused_by: Vec::new(),
            evidence: Vec::new(),
            cause: Cause { text: String::new(), setting: None, place: None },
            remedies: Vec::new(),
        };
        for (one, other, same) in [
            (finding("", &[]), finding("", &[]), true),
            (finding("ipv4", &["a"]), finding("ipv4", &["b"]), true),
            (finding("ipv4", &["a"]), finding("ipv6", &["a"]), false),
            (finding("", &["a", "b"]), finding("breaking", &["b"]), true),
            (finding("", &["a"]), finding("rest", &["b"]), false),
            (finding("breaking", &["a"]), finding("rest", &["a", "b"]), true),
            (finding("ipv4/rest", &["a"]), finding("ipv4", &["a"]), true),
            (finding("ipv4/rest", &["a"]), finding("", &["a"]), false),
            (finding("forest", &["a"]), finding("fo", &["a"]), false),
        ] {
            assert_eq!(one.is_same(&other), same, "{one:?} {other:?}");
            assert_eq!(other.is_same(&one), same, "{other:?} {one:?}");
        }
    }

    #[test]
    fn ids_are_unique_and_well_formed() {
        let ids: BTreeSet<&str> = FindingId::ALL.iter().map(|finding| finding.id()).collect();
        assert_eq!(ids.len(), FindingId::ALL.len());
        for id in ids {
            let well_formed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(id.chars().all(well_formed) && !id.starts_with('-'), "{id}");
        }
    }

    #[test]
    fn an_id_leads_back_to_its_finding() {
        for finding in FindingId::ALL {
            assert_eq!(FindingId::from_id(finding.id()), Some(*finding));
        }
        assert_eq!(FindingId::from_id("calico"), None);
    }
}

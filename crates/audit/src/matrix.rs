//! The source matrix: who calls whom, by which entry, and what becomes of the caller's address.
//!
//! In: [`Paths`] and the [`Clients`] outside that matter. Out: a [`Matrix`]. Every question is
//! walked, for each Service port and each node; answers that differ in nothing that a reader would
//! tell apart are one [`Row`] with a count, the Services it is about, and a witness that can be
//! asked again.
//!
//! ```text
//! questions ─▶ Paths::ways ─▶ Cell (client, entry, placement, family, fate) ─▶ Row (count, witness)
//! ```

mod build;
mod cause;
pub mod change;
mod clients;
mod named;
mod pods;
mod questions;
mod stand_in;
pub mod verify;

use std::collections::BTreeMap;
use std::net::IpAddr;

use unmasq_cluster::kubernetes::TrafficPolicy;
use unmasq_cluster::paths::Call;
use unmasq_eval::trace::{Reason, RuleId};
use unmasq_model::packet::{Family, Protocol};

use crate::Owner;

pub(crate) use build::Asker;
pub use build::build;
pub(crate) use cause::own as texts_of_node;
pub use clients::Clients;
pub(crate) use clients::{bridged, unknown_sets};

/// No longer list in a sentence than this.
const MAX_LISTED: usize = 12;

/// A list for a sentence, cut where it gets too long.
fn first_and_more(all: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = all.into_iter().collect();
    let (first, more) = all.split_at(all.len().min(MAX_LISTED));
    match more.len() {
        0 => first.join(", "),
        more => format!("{}, and {more} more", first.join(", ")),
    }
}

/// The whole matrix.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matrix {
    /// The rows, in order of their cells.
    pub rows: Vec<Row>,
    /// How many questions were asked.
    pub asked: usize,
    /// What was taken for granted in any answer, a sentence each, with the number of answers that
    /// rest on it.
    pub assumptions: BTreeMap<String, usize>,
}

/// Equal answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What they have in common.
    pub cell: Cell,
    /// How many answers are so.
    pub count: usize,
    /// The Services that they are about: indices in `objects.services`, in order.
    pub services: Vec<u32>,
    /// The ports of these: indices in `objects.services` and its `spec.ports`, in order.
    pub ports: Vec<(u32, u32)>,
    /// The first of them.
    pub witness: Witness,
}

/// A question that can be asked again.
#[derive(Debug, Clone, PartialEq)]
pub struct Witness {
    /// The question.
    pub call: Call,
    /// Index of the outcome among [`Paths::ways`](unmasq_cluster::paths::Paths::ways) of it.
    pub way: usize,
    /// The Service and its port: indices in `objects.services` and its `spec.ports`.
    pub service: Option<(u32, u32)>,
    /// Where the source was rewritten: host of the paths, and rule, in the order of the way.
    pub rewriters: Vec<(usize, RuleId)>,
    /// The source that the receiver sees.
    pub seen: Option<IpAddr>,
    /// Who receives it, as far as known.
    pub reached: Option<IpAddr>,
}

/// What a reader tells apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// What is called.
    pub entry: Entry,
    /// The policy that governs it: external for node ports, load balancers and external IPs,
    /// internal for cluster IPs; `None` where there is no Service.
    pub policy: Option<Policy>,
    /// Who calls.
    pub client: Client,
    /// Where the endpoint is, seen from the node that takes the packet.
    pub placement: Placement,
    /// Address family.
    pub family: Family,
    /// Transport protocol.
    pub protocol: Protocol,
    /// What becomes of the source.
    pub fate: Fate,
    /// How often the packet goes from one node to another.
    pub hops: usize,
    /// Who is called, if it is somebody outside: what is expected may differ from one to the other.
    pub destination: Option<IpAddr>,
}

/// A traffic policy that can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// `Cluster`
    Cluster,
    /// `Local`
    Local,
}

impl From<TrafficPolicy> for Policy {
    fn from(policy: TrafficPolicy) -> Policy {
        match policy {
            TrafficPolicy::Cluster => Policy::Cluster,
            TrafficPolicy::Local => Policy::Local,
        }
    }
}

/// How something is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// A pod by its own address.
    Pod,
    /// A node by its own address.
    Node,
    /// Somebody outside of the cluster (egress).
    Outside,
    /// A Service by its cluster IP.
    ClusterIp,
    /// By a node's port.
    NodePort,
    /// By the load balancer's address.
    LoadBalancer,
    /// By an external IP.
    ExternalIp,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// A pod of the node that takes the packet.
    Pod,
    /// A pod of another node than the one whose port it calls.
    PodElsewhere,
    /// The endpoint that then gets it (hairpin).
    Endpoint,
    /// The node that takes the packet.
    Node,
    /// Another node than the one whose port it calls.
    NodeElsewhere,
    /// Somebody outside.
    Outside(Outside),
}

/// Somebody outside of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outside {
    /// Anybody: an address that no rule and no setting names.
    Anybody,
    /// Somebody of a network that a rule of the cluster names as a source.
    NamedByRule(ipnet::IpNet),
    /// Somebody of a network that a setting or an expectation names.
    NamedBySetting(ipnet::IpNet),
}

/// Where the endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    /// On the node that takes the packet.
    Here,
    /// On another node.
    Elsewhere,
    /// Nowhere: it didn't get to one.
    None,
}

/// What becomes of the source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Kept.
    Preserved,
    /// Lost, to these rules in the order of the way.
    Rewritten(Vec<Cause>),
    /// It arrives, and the answer doesn't come back: why.
    NoAnswer(String),
    /// Thrown away in silence; the rule's label or the kernel's reason.
    Dropped(Refusal),
    /// Refused.
    Rejected(Refusal),
    /// Nobody has the address.
    Lost,
    /// It can't be told: the first reason.
    Unknown(String),
}

/// Why a packet doesn't pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Of what kind.
    pub reason: Option<Reason>,
    /// Whose rule it is, if it is one.
    pub owner: Option<Owner>,
}

/// Which rule rewrites, without what differs from Service to Service and node to node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// Whose rule it is.
    pub owner: Owner,
    /// The rule, as a person would call it ([`label()`](crate::label())), a chain's hash left out.
    pub rule: String,
    /// For rules that act on a mark: why it was set.
    pub why: Why,
}

/// Why a rewriting rule acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// By its own tests.
    ItsTests,
    /// kube-proxy: `externalTrafficPolicy: Cluster`, or a node's own call to a `Local` Service.
    ExternalPolicy,
    /// kube-proxy: the source is none of a pod, as its detector sees it (`clusterCIDR`, …).
    NotAPod,
    /// kube-proxy: `masqueradeAll`.
    MasqueradeAll,
    /// kube-proxy: the endpoint calls itself.
    Hairpin,
    /// An earlier rule set the mark, for a reason that isn't known.
    Marked,
}

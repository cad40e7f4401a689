//! What gets worse, by names that a user can accept it by.

use unmasq_audit::matrix::change::{Change, Harm};
use unmasq_audit::matrix::{Client, Entry, Fate, Placement};
use unmasq_audit::{Action, FindingId};
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{Service, TrafficPolicy};

use crate::plan::Mended;

/// Something that gets worse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worse {
    /// What it is accepted by: `unanswered/node-port/shop/web`, `rewritten/pod`.
    pub name: String,
    /// A sentence.
    pub text: String,
    /// How many questions it is about.
    pub count: usize,
    /// Whether the remedy itself says that it will be so.
    pub named: bool,
}

/// What a change makes worse, for each Service by itself.
pub(crate) fn of(cluster: &Cluster, mended: &[Mended], change: &Change) -> Vec<Worse> {
    let worst = change.turn.after.iter().map(|outcome| outcome.fate.harm()).max();
    let harm = match worst.unwrap_or(Harm::None) {
        Harm::None => "preserved",
        Harm::Rewritten => "rewritten",
        Harm::Unknown => "unknown",
        Harm::Unanswered => "unanswered",
    };
    let entry = match change.turn.entry {
        Entry::Pod => "pod",
        Entry::Node => "node",
        Entry::Outside => "outside",
        Entry::ClusterIp => "cluster-ip",
        Entry::NodePort => "node-port",
        Entry::LoadBalancer => "load-balancer",
        Entry::ExternalIp => "external-ip",
    };
    let who = match change.turn.client() {
        Some(Client::Pod | Client::PodElsewhere | Client::Endpoint) => "pods",
        Some(Client::Node | Client::NodeElsewhere) => "nodes",
        Some(Client::Outside(_)) => "clients outside",
        None => "callers",
    };
    let what = match worst.unwrap_or(Harm::None) {
        Harm::None | Harm::Rewritten => "would get another source",
        Harm::Unknown => "would be unknown",
        Harm::Unanswered => "would not be answered",
    };
    let worse = |service: Option<&Service>| {
        let of = service.map(|one| format!("/{}", one.full_name())).unwrap_or_default();
        let to = match service {
            Some(service) => format!("{} by {entry}", service.full_name()),
            None => format!("{entry}s directly").replace("outsides", "others outside"),
        };
        Worse {
            name: format!("{harm}/{entry}{of}"),
            text: format!("calls of {who} to {to} {what}"),
            count: change.count,
            named: service.is_some_and(|service| is_named(mended, service, change)),
        }
    };
    let services = change.services.iter();
    let services: Vec<&Service> =
        services.filter_map(|index| cluster.objects.services.get(*index as usize)).collect();
    match services.is_empty() {
        true => vec![worse(None)],
        false => services.into_iter().map(|service| worse(Some(service))).collect(),
    }
}

/// `Local` means that a node without an endpoint drops what it gets for it from outside: the remedy
/// says so, node by node.
fn is_named(mended: &[Mended], service: &Service, change: &Change) -> bool {
    let external = match change.turn.entry {
        Entry::NodePort | Entry::LoadBalancer | Entry::ExternalIp => true,
        Entry::Pod | Entry::Node | Entry::Outside | Entry::ClusterIp => false,
    };
    let dropped = change.turn.after.iter().all(|outcome| {
        let kept = outcome.fate.harm() <= Harm::Rewritten;
        kept || (matches!(outcome.fate, Fate::Dropped(_)) && outcome.placement == Placement::None)
    });
    external && dropped && mended.iter().any(|one| makes_local(one, service))
}

fn makes_local(mended: &Mended, service: &Service) -> bool {
    let of = |action: &Action| match action {
        Action::Patch { resource, namespace, name, patch, undo: _ } => {
            resource == "service"
                && namespace.as_deref() == Some(&service.metadata.namespace)
                && *name == service.metadata.name
                && patch.contains("externalTrafficPolicy")
                && patch.contains("\"Local\"")
        }
        Action::Environment { .. }
        | Action::Argument { .. }
        | Action::Rules { .. }
        | Action::Tables { .. }
        | Action::File { .. }
        | Action::Restart { .. }
        | Action::ByHand { .. } => false,
    };
    mended.finding.id == FindingId::ExternalTrafficPolicyCluster
        && service.spec.external_traffic_policy == TrafficPolicy::Cluster
        && mended.remedy.steps.iter().any(|step| of(&step.action))
}

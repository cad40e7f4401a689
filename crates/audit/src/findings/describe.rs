//! Findings in words: title, cause, remedies.
//!
//! ```text
//! Group (kind, rows) ─┐
//! Settings, objects ──┼─ one module an owner ─▶ Described
//! rules of all nodes ─┘
//! ```
//!
//! A remedy's commands are made of what was read: names, ranges, the texts of rules. What isn't
//! known is a [`Requirement`] without an answer, never a guess.

pub(super) mod answers;
mod calico;
pub(super) mod flannel;
mod host_rules;
mod ip_masq_agent;
mod klipper;
mod kube_proxy;
mod kube_router;
pub(super) mod local;
mod networks;
mod other;
mod pin;
pub(super) mod policy;
mod rules;
pub(super) mod spread;
mod test;

use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{Container, Service};
use unmasq_cluster::settings::Place;

use super::{Context, Group, owner_name};
use crate::judge::Suspect;
use crate::matrix::{Cell, Client, Entry, Outside, Placement};
use crate::{
    Action, Cause, Confidence, Edit, FindingId, Instruction, Owner, Program, Remedy, Requirement,
    Step, Syntax, Workload, WorkloadKind, quoted, shell,
};

/// What a person reads of a finding.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Described {
    pub(super) title: String,
    pub(super) confidence: Confidence,
    pub(super) cause: Cause,
    pub(super) remedies: Vec<Remedy>,
}

/// Describes what a group of rows has in common.
pub(super) fn describe(context: &Context<'_, '_>, subject: &str, group: &Group) -> Described {
    match group.suspect.id {
        FindingId::CalicoUnusedPool => calico::pool_and_clients(context, subject, group),
        FindingId::CalicoPoolMasquerade => calico::out_of_the_pools(context, subject, group),
        FindingId::HostMasquerade => host_rules::describe(context, group),
        FindingId::StaleFlannelRules => flannel::stale(context, group),
        FindingId::FlannelMasquerade => flannel::own(context, group),
        FindingId::KubeRouterPodEgress => kube_router::describe(context, group),
        FindingId::ExternalTrafficPolicyCluster => policy::describe(context, group),
        FindingId::ClusterCidrMismatch => kube_proxy::cluster_cidr(context, group),
        FindingId::MasqueradeAll => kube_proxy::masquerade_all(context, group),
        FindingId::IpMasqAgentList => ip_masq_agent::describe(context, group),
        FindingId::KlipperLb => klipper::describe(context, group),
        FindingId::PortmapMasquerade => other::portmap(context, group),
        FindingId::MeshSource => other::mesh(context, group),
        FindingId::StrayMasquerade
        | FindingId::PodToPodRewritten
        | FindingId::LocalYetRewritten
        | FindingId::IpvsMasquerade => other::rewriting(context, group),
        FindingId::LocalPolicyUnsafe => local::dropped(context, subject, group),
        FindingId::OverlappingRanges if group.suspect.cause.owner == Owner::Calico => {
            calico::pool_and_clients(context, subject, group)
        }
        FindingId::OverlappingRanges => answers::taken_for_its_own(context, group),
        FindingId::NoReply => answers::no_reply(context, subject, group),
        FindingId::ExpectationBroken => answers::not_translated(context, group),
        // These don't come from rows: who finds them describes them.
        FindingId::LocalPolicyInvalid
        | FindingId::LocalPolicyImbalance
        | FindingId::OpaqueDataplane
        | FindingId::MixedBackends
        | FindingId::LeftoverRules
        | FindingId::PolicyCannotMatchClient
        | FindingId::PolicyAllowsNode
        | FindingId::SourceRangesSeeNode
        | FindingId::ForwardedForUntrusted
        | FindingId::MissingNodeState => generic(group),
    }
}

/// By its name alone.
fn generic(group: &Group) -> Described {
    let id = group.suspect.id;
    Described {
        title: id.title().to_owned(),
        confidence: Confidence::Likely,
        cause: Cause { text: id.title().to_owned(), setting: None, place: None },
        remedies: Vec::new(),
    }
}

/// A setting with where it stands.
struct Known {
    setting: String,
    place: String,
}

impl Known {
    fn new(setting: impl Into<String>, place: impl ToString) -> Known {
        Known { setting: setting.into(), place: place.to_string() }
    }
}

/// A cause, and how sure it is: sure if the rule, its owner and the setting were all seen. A
/// container engine's rule has nothing in it that names its owner.
fn cause(group: &Group, text: String, known: Option<Known>) -> (Confidence, Cause) {
    let named = !matches!(group.suspect.cause.owner, Owner::Unclaimed | Owner::ContainerEngine);
    let confidence = match named && known.is_some() {
        true => Confidence::Certain,
        false => Confidence::Likely,
    };
    let (setting, place) = known.map(|known| (known.setting, known.place)).unzip();
    (confidence, Cause { text, setting, place })
}

/// The longest title that is printed whole.
const TITLE: usize = 100;

/// A title, or one with fewer names if it is too long.
pub(super) fn title(long: String, short: impl Into<String>) -> String {
    if long.chars().count() <= TITLE { long } else { short.into() }
}

pub(super) fn step(text: impl Into<String>, action: Action) -> Step {
    Step { text: text.into(), action }
}

/// A step of a person that leaves nothing to undo.
pub(super) fn by_hand(
    text: impl Into<String>,
    instructions: impl IntoIterator<Item = Instruction>,
) -> Step {
    undone(text, instructions, [])
}

/// A step of a person, and how it is undone.
pub(super) fn undone(
    text: impl Into<String>,
    instructions: impl IntoIterator<Item = Instruction>,
    undo: impl IntoIterator<Item = Instruction>,
) -> Step {
    let (instructions, undo) = (instructions.into_iter().collect(), undo.into_iter().collect());
    step(text, Action::ByHand { instructions, undo })
}

/// For a shell.
pub(super) fn command(text: impl Into<String>) -> Instruction {
    Instruction::Command(text.into())
}

/// For a reader.
pub(super) fn sentence(text: impl Into<String>) -> Instruction {
    Instruction::Sentence(text.into())
}

/// For the configuration of some program.
pub(super) fn literal(text: impl Into<String>) -> Instruction {
    Instruction::Literal(text.into())
}

/// A merge patch of an object, and the one that brings back what was there.
pub(super) fn patch(
    resource: &str,
    namespace: Option<&str>,
    name: &str,
    patch: &str,
    undo: impl Into<Option<String>>,
) -> Action {
    Action::Patch {
        resource: resource.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        patch: patch.to_owned(),
        undo: undo.into(),
    }
}

/// The command of a merge patch.
pub(super) fn patch_command(
    resource: &str,
    namespace: Option<&str>,
    name: &str,
    patch: &str,
) -> Instruction {
    let namespace = namespace.map_or_else(String::new, |one| format!(" -n {}", quoted(one)));
    let (what, patch) = (shell::object(resource, name), quoted(patch));
    command(format!("kubectl{namespace} patch {what} --type=merge -p {patch}"))
}

/// Something that is known to hold, or not to.
pub(super) fn computed(holds: bool, text: impl Into<String>) -> Requirement {
    Requirement { text: text.into(), holds: Some(holds), check: None }
}

/// Something that can't be seen from here, and how to find out.
pub(super) fn unseen(text: impl Into<String>, check: Instruction) -> Requirement {
    Requirement { text: text.into(), holds: None, check: Some(check) }
}

/// The workload that is one of the places where a program runs.
fn workload(places: &[Place]) -> Option<Workload> {
    places.iter().find_map(|place| match place {
        Place::Object { kind, namespace, name, part, .. } => Some(Workload {
            kind: match *kind {
                "DaemonSet" => WorkloadKind::DaemonSet,
                "Deployment" => WorkloadKind::Deployment,
                _ => return None,
            },
            namespace: namespace.clone(),
            name: name.clone(),
            container: part.strip_prefix("container ").map(str::to_owned),
        }),
        Place::File { .. } | Place::Process { .. } | Place::State { .. } | Place::Given { .. } => {
            None
        }
    })
}

/// A container as its workload's object has it.
fn container_of<'c>(context: &Context<'_, 'c>, workload: &Workload) -> Option<&'c Container> {
    let objects = &context.cluster.objects;
    let all = match workload.kind {
        WorkloadKind::DaemonSet => &objects.daemon_sets,
        WorkloadKind::Deployment => &objects.deployments,
    };
    let found = all.iter().find(|one| {
        one.metadata.name == workload.name && one.metadata.namespace == workload.namespace
    })?;
    let mut containers = found.spec.template.spec.containers.iter();
    containers.find(|one| Some(&one.name) == workload.container.as_ref())
}

/// A variable set in a workload's container.
fn environment(context: &Context<'_, '_>, workload: Workload, name: &str, value: &str) -> Action {
    let there = container_of(context, &workload);
    let old = there.and_then(|container| container.variable(name)).map(str::to_owned);
    let (name, value) = (name.to_owned(), Some(value.to_owned()));
    Action::Environment { workload, name, value, old }
}

/// A flag set in a workload's container, in the place of the same flag.
fn argument(context: &Context<'_, '_>, workload: Workload, argument: &str) -> Action {
    let flag = argument.split('=').next().unwrap_or(argument);
    let is_it = |word: &&str| {
        word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let there = container_of(context, &workload);
    let old = there.and_then(|container| container.words().find(is_it)).map(str::to_owned);
    let argument = Some(argument.to_owned());
    Action::Argument { program: Program::Workload(workload), argument, old }
}

/// A flag of a program that a node starts; what it has is in its unit or script.
fn of_node(node: Option<&str>, program: &str, argument: &str, old: Option<String>) -> Action {
    let program = Program::OfNode { node: node.map(str::to_owned), name: program.to_owned() };
    Action::Argument { program, argument: Some(argument.to_owned()), old }
}

/// A program of a node starts anew.
fn restart_on(node: Option<&str>, name: &str) -> Action {
    let program = Program::OfNode { node: node.map(str::to_owned), name: name.to_owned() };
    Action::Restart { program }
}

/// A value in a file.
fn value(
    nodes: Vec<String>,
    path: &str,
    (syntax, pointer): (Syntax, &str),
    old: Option<String>,
    new: impl Into<String>,
) -> Action {
    let pointer = pointer.to_owned();
    let edit = Edit::Value { syntax, pointer, old, new: Some(new.into()) };
    Action::File { nodes, path: path.to_owned(), edit }
}

/// What nodes that see pods need, and what the pods' answers need.
fn way_back() -> Requirement {
    unseen(
        "nodes answer pods by the way that the call came (no strict rp_filter in between)",
        command("sysctl -a | grep '[.]rp_filter'; ip route get POD"),
    )
}

/// Everything of a node starts anew.
pub(super) fn restart_of_node(node: &str) -> Instruction {
    let node = shell::operand(node);
    command(format!(
        "kubectl drain --ignore-daemonsets {node} && ssh {node} reboot   # then: kubectl uncordon {node}"
    ))
}

/// A change of a workload's pods restarts them. DaemonSets do it one node after the other by
/// default (`updateStrategy`: RollingUpdate, maxUnavailable 1).
fn rollout(workload: &Workload, meanwhile: &str) -> Step {
    let how = match workload.kind {
        WorkloadKind::DaemonSet => {
            "one node after the other (unless its updateStrategy says otherwise: with OnDelete, \
             delete its pods yourself)"
        }
        WorkloadKind::Deployment => "a few at a time",
    };
    let (namespace, name) = (quoted(&workload.namespace), quoted(&workload.to_string()));
    by_hand(
        format!("That restarts the pods of {workload}, {how}. {meanwhile}. Watch it to its end"),
        [command(format!("kubectl rollout status {name} -n {namespace}"))],
    )
}

/// The names of all nodes.
fn every_node(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|node| node.name.clone()).collect()
}

/// A text as JSON has it (RFC 8259, section 7).
pub(super) fn json(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            other if other < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(other))),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

/// `1 node`, `2 nodes`
pub(super) fn count(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

/// The first few, and how many more there are.
pub(super) fn few<T: ToString>(all: &[T]) -> String {
    const FEW: usize = 4;
    let shown: Vec<String> = all.iter().take(FEW).map(ToString::to_string).collect();
    match all.len().checked_sub(FEW) {
        Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
        Some(_) | None => shown.join(", "),
    }
}

/// The Services that a group is about.
fn services<'c>(context: &Context<'_, 'c>, group: &Group) -> impl Iterator<Item = &'c Service> {
    let all = &context.cluster.objects.services;
    group.services.iter().filter_map(move |index| all.get(*index as usize))
}

/// The names of the nodes that have a suspect's rule.
pub(super) fn nodes_with(context: &Context<'_, '_>, suspect: &Suspect) -> Vec<String> {
    let nodes = rules::nodes(&rules::alike(context, suspect));
    let nodes = nodes.into_iter().filter_map(|node| context.cluster.nodes.get(node));
    nodes.map(|node| node.name.clone()).collect()
}

/// Who calls whom, in words.
pub(super) fn flow(cell: &Cell) -> String {
    let to = match cell.entry {
        Entry::Pod => "a pod",
        Entry::Node => "a node",
        Entry::Outside => "the outside",
        Entry::ClusterIp => "a cluster IP",
        Entry::NodePort => "a node port",
        Entry::LoadBalancer => "a load balancer's address",
        Entry::ExternalIp => "an external IP",
    };
    let placed = match cell.placement {
        Placement::Here => ", endpoint on the same node",
        Placement::Elsewhere => ", endpoint on another node",
        Placement::None => "",
    };
    format!("{} -> {to}{placed}, {}", client(&cell.client), cell.family)
}

/// Who calls, in words.
pub(super) fn client(client: &Client) -> String {
    match client {
        Client::Pod => "a pod".to_owned(),
        Client::PodElsewhere => "a pod of another node".to_owned(),
        Client::Endpoint => "the endpoint itself".to_owned(),
        Client::Node => "the node itself".to_owned(),
        Client::NodeElsewhere => "another node".to_owned(),
        Client::Outside(Outside::Anybody) => "a client outside".to_owned(),
        Client::Outside(Outside::NamedByRule(net) | Outside::NamedBySetting(net)) => {
            format!("a client outside in {net}")
        }
    }
}

#[cfg(test)]
pub(in crate::findings) mod tests;

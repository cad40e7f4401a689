//! `unmasq.audit/v1`: what was found in a cluster, as a document.
//!
//! `schemas/audit.v1.json` describes it, and a test holds the two together. Fields are added in a
//! new version only.

use std::net::IpAddr;

use serde::Serialize;

use unmasq_audit::change::{RuleChange, TableChange};
use unmasq_audit::matrix::{
    Cause as Rewriter, Cell, Client, Entry, Fate, Matrix, Outside, Placement, Policy, Row, Why,
};
use unmasq_audit::{
    Action, Audit, Confidence, Doubt, DoubtKind, Edit, Evidence, Finding, Instruction, Program,
    Reference, Remedy, Requirement, RuleText, Severity, Step, Totals, Undo, Workload,
};
use unmasq_model::rule::Rule;
use unmasq_model::ruleset::{Backend, Table};

use crate::audit::{Subject, instructions};
use crate::evidence;

/// The document's schema.
pub const AUDIT_SCHEMA: &str = "unmasq.audit/v1";

/// The document.
pub fn audit(audit: &Audit, subject: &Subject<'_>) -> impl Serialize {
    Document {
        schema: AUDIT_SCHEMA,
        version: subject.version.to_owned(),
        capture: subject.capture.map(ToOwned::to_owned),
        service: subject.service.map(ToOwned::to_owned),
        findings: audit.findings.iter().map(|one| finding(one, subject)).collect(),
        matrix: matrix(&audit.matrix, subject),
        totals: totals(&audit.totals),
        assumptions: audit.assumptions.clone(),
        missing: audit.missing.clone(),
        hidden: audit.hidden.clone(),
        doubts: audit.doubts.iter().map(doubt).collect(),
    }
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    version: String,
    capture: Option<String>,
    service: Option<String>,
    findings: Vec<FindingView>,
    matrix: MatrixView,
    totals: TotalsView,
    assumptions: Vec<String>,
    missing: Vec<String>,
    hidden: Vec<String>,
    doubts: Vec<DoubtView>,
}

#[derive(Serialize)]
struct DoubtView {
    kind: &'static str,
    places: Vec<String>,
    text: String,
    mend: String,
}

fn doubt(doubt: &Doubt) -> DoubtView {
    let kind = match doubt.kind {
        DoubtKind::Unreadable => "unreadable",
        DoubtKind::Contradictory => "contradictory",
    };
    let Doubt { places, text, mend, .. } = doubt.clone();
    DoubtView { kind, places, text, mend }
}

#[derive(Serialize)]
struct FindingView {
    id: &'static str,
    subject: String,
    severity: &'static str,
    confidence: &'static str,
    title: String,
    owner: &'static str,
    families: Vec<String>,
    affected: AffectedView,
    breaks: Vec<String>,
    caused_by: Vec<ReferenceView>,
    evidence: Vec<EvidenceView>,
    cause: CauseView,
    remedies: Vec<RemedyView>,
}

#[derive(Serialize)]
struct ReferenceView {
    id: &'static str,
    subject: String,
}

#[derive(Serialize)]
struct AffectedView {
    flows: Vec<String>,
    services: Vec<String>,
    nodes: Vec<String>,
    rows: Vec<usize>,
}

#[derive(Serialize)]
struct EvidenceView {
    text: String,
    trace: Option<String>,
    rule: Option<RuleView>,
}

#[derive(Serialize)]
struct RuleView {
    host: String,
    place: String,
    text: String,
}

#[derive(Serialize)]
struct CauseView {
    text: String,
    setting: Option<String>,
    place: Option<String>,
}

#[derive(Serialize)]
struct RemedyView {
    lasting: bool,
    title: String,
    requires: Vec<RequirementView>,
    steps: Vec<StepView>,
    undo: Vec<UndoView>,
}

#[derive(Serialize)]
struct UndoView {
    action: Option<ActionView>,
    instructions: Vec<InstructionView>,
}

#[derive(Serialize)]
pub(super) struct InstructionView {
    kind: &'static str,
    text: String,
}

#[derive(Serialize)]
pub(super) struct RequirementView {
    text: String,
    holds: Option<bool>,
    check: Option<InstructionView>,
}

#[derive(Serialize)]
struct StepView {
    text: String,
    action: ActionView,
    instructions: Vec<InstructionView>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum ActionView {
    Patch {
        resource: String,
        namespace: Option<String>,
        name: String,
        patch: String,
        undo: Option<String>,
    },
    Environment {
        workload: WorkloadView,
        name: String,
        value: Option<String>,
        old: Option<String>,
    },
    Argument {
        workload: Option<WorkloadView>,
        program: Option<ProgramView>,
        argument: Option<String>,
        old: Option<String>,
    },
    Rules {
        node: String,
        changes: Vec<RuleChangeView>,
    },
    Tables {
        node: String,
        changes: Vec<TableChangeView>,
    },
    File {
        nodes: Vec<String>,
        path: String,
        edit: Edit,
    },
    Restart {
        workload: Option<WorkloadView>,
        program: Option<ProgramView>,
    },
    ByHand,
}

#[derive(Serialize)]
struct WorkloadView {
    kind: &'static str,
    namespace: String,
    name: String,
    container: Option<String>,
}

#[derive(Serialize)]
struct ProgramView {
    node: Option<String>,
    name: String,
}

#[derive(Serialize)]
struct RuleChangeView {
    backend: &'static str,
    family: String,
    table: String,
    chain: String,
    position: usize,
    old: Option<String>,
    new: Option<String>,
}

#[derive(Serialize)]
struct TableChangeView {
    family: String,
    name: String,
    change: &'static str,
}

#[derive(Serialize)]
struct MatrixView {
    asked: usize,
    rows: Vec<RowView>,
    assumptions: Vec<AssumptionView>,
}

#[derive(Serialize)]
struct AssumptionView {
    text: String,
    answers: usize,
}

#[derive(Serialize)]
struct RowView {
    entry: &'static str,
    policy: Option<&'static str>,
    client: ClientView,
    placement: &'static str,
    family: String,
    protocol: String,
    fate: &'static str,
    causes: Vec<RewriterView>,
    refusal: Option<RefusalView>,
    detail: Option<String>,
    hops: usize,
    count: usize,
    services: Vec<String>,
    witness: WitnessView,
}

#[derive(Serialize)]
pub(super) struct ClientView {
    kind: &'static str,
    network: Option<String>,
    named_by: Option<&'static str>,
}

#[derive(Serialize)]
struct RewriterView {
    owner: &'static str,
    rule: String,
    why: &'static str,
}

#[derive(Serialize)]
struct RefusalView {
    reason: Option<&'static str>,
    owner: Option<&'static str>,
}

#[derive(Serialize)]
struct WitnessView {
    trace: String,
    service: Option<String>,
    seen: Option<IpAddr>,
    reached: Option<IpAddr>,
}

#[derive(Serialize)]
struct TotalsView {
    nodes: usize,
    nodes_not_captured: usize,
    pods: usize,
    services: usize,
    services_without_endpoint: usize,
    rules: usize,
    preserved: usize,
    rewritten_as_expected: usize,
    rewritten: usize,
    not_answered: usize,
    unknown: usize,
}

fn finding(finding: &Finding, subject: &Subject<'_>) -> FindingView {
    let affected = &finding.affected;
    FindingView {
        id: finding.id.id(),
        subject: finding.subject.clone(),
        severity: severity_name(finding.severity),
        confidence: match finding.confidence {
            Confidence::Likely => "likely",
            Confidence::Certain => "certain",
        },
        title: finding.title.clone(),
        owner: finding.owner.name(),
        families: finding.families.iter().map(ToString::to_string).collect(),
        affected: AffectedView {
            flows: affected.flows.clone(),
            services: affected.services.clone(),
            nodes: affected.nodes.clone(),
            rows: affected.rows.clone(),
        },
        breaks: finding.breaks.clone(),
        caused_by: finding.caused_by.iter().map(reference).collect(),
        evidence: finding.evidence.iter().map(|one| shown(one, subject)).collect(),
        cause: CauseView {
            text: finding.cause.text.clone(),
            setting: finding.cause.setting.clone(),
            place: finding.cause.place.clone(),
        },
        remedies: finding.remedies.iter().map(remedy).collect(),
    }
}

fn reference(reference: &Reference) -> ReferenceView {
    ReferenceView { id: reference.id.id(), subject: reference.subject.clone() }
}

fn shown(evidence: &Evidence, subject: &Subject<'_>) -> EvidenceView {
    let rule = |RuleText { host, place, text }: &RuleText| RuleView {
        host: host.clone(),
        place: place.clone(),
        text: text.clone(),
    };
    EvidenceView {
        text: evidence.text.clone(),
        trace: evidence.trace.as_deref().map(|command| subject.trace(command)),
        rule: evidence.rule.as_ref().map(rule),
    }
}

fn remedy(remedy: &Remedy) -> RemedyView {
    RemedyView {
        lasting: remedy.lasting,
        title: remedy.title.clone(),
        requires: remedy.requires.iter().map(requirement).collect(),
        steps: remedy.steps.iter().map(step).collect(),
        undo: remedy.undo().iter().map(undo).collect(),
    }
}

pub(super) fn requirement(requirement: &Requirement) -> RequirementView {
    let Requirement { text, holds, check } = requirement;
    RequirementView { text: text.clone(), holds: *holds, check: check.as_ref().map(instruction) }
}

fn undo(undo: &Undo) -> UndoView {
    UndoView {
        action: match undo {
            Undo::Action(action) => Some(self::action(action)),
            Undo::ByHand(_) => None,
        },
        instructions: crate::audit::undo(undo).iter().map(instruction).collect(),
    }
}

pub(super) fn instruction(instruction: &Instruction) -> InstructionView {
    let (kind, text) = match instruction {
        Instruction::Command(text) => ("command", text),
        Instruction::Sentence(text) => ("sentence", text),
        Instruction::Literal(text) => ("literal", text),
    };
    InstructionView { kind, text: text.clone() }
}

fn step(step: &Step) -> StepView {
    StepView {
        text: step.text.clone(),
        action: action(&step.action),
        instructions: instructions(&step.action).iter().map(instruction).collect(),
    }
}

fn action(action: &Action) -> ActionView {
    match action.clone() {
        Action::Patch { resource, namespace, name, patch, undo } => {
            ActionView::Patch { resource, namespace, name, patch, undo }
        }
        Action::Environment { workload, name, value, old } => {
            ActionView::Environment { workload: self::workload(workload), name, value, old }
        }
        Action::Argument { program, argument, old } => {
            let (workload, program) = self::program(program);
            ActionView::Argument { workload, program, argument, old }
        }
        Action::Rules { node, changes } => {
            ActionView::Rules { node, changes: changes.iter().map(rule_change).collect() }
        }
        Action::Tables { node, changes } => {
            ActionView::Tables { node, changes: changes.iter().flat_map(table_change).collect() }
        }
        Action::File { nodes, path, edit } => ActionView::File { nodes, path, edit },
        Action::Restart { program } => {
            let (workload, program) = self::program(program);
            ActionView::Restart { workload, program }
        }
        Action::ByHand { .. } => ActionView::ByHand,
    }
}

fn program(program: Program) -> (Option<WorkloadView>, Option<ProgramView>) {
    match program {
        Program::Workload(one) => (Some(workload(one)), None),
        Program::OfNode { node, name } => (None, Some(ProgramView { node, name })),
    }
}

fn workload(Workload { kind, namespace, name, container }: Workload) -> WorkloadView {
    WorkloadView { kind: kind.resource(), namespace, name, container }
}

fn rule_change(change: &RuleChange) -> RuleChangeView {
    let text = |rule: &Option<Rule>| rule.as_ref().map(|rule| rule.text.to_string());
    RuleChangeView {
        backend: match change.backend {
            Backend::Legacy => "iptables-legacy",
            Backend::IptablesNft => "iptables-nft",
            Backend::Nft => "nft",
        },
        family: change.family.to_string(),
        table: change.table.clone(),
        chain: change.chain.clone(),
        position: change.position,
        old: text(&change.old),
        new: text(&change.new),
    }
}

fn table_change(change: &TableChange) -> Vec<TableChangeView> {
    let view = |table: &Option<Table>, change| {
        let table = table.as_ref()?;
        let (family, name) = (table.family.to_string(), table.name.to_string());
        Some(TableChangeView { family, name, change })
    };
    [view(&change.old, "deleted"), view(&change.new, "made")].into_iter().flatten().collect()
}

fn matrix(matrix: &Matrix, subject: &Subject<'_>) -> MatrixView {
    let assumptions = matrix.assumptions.iter();
    MatrixView {
        asked: matrix.asked,
        rows: matrix.rows.iter().map(|one| row(one, subject)).collect(),
        assumptions: assumptions
            .map(|(text, answers)| AssumptionView { text: text.clone(), answers: *answers })
            .collect(),
    }
}

fn row(row: &Row, subject: &Subject<'_>) -> RowView {
    let Cell { entry, policy, client, placement, family, protocol, fate, hops, destination: _ } =
        &row.cell;
    let (causes, refusal, detail) = because(fate);
    let witness = &row.witness;
    RowView {
        entry: entry_name(*entry),
        policy: policy.map(|policy| match policy {
            Policy::Cluster => "Cluster",
            Policy::Local => "Local",
        }),
        client: self::client(client),
        placement: match placement {
            Placement::Here => "here",
            Placement::Elsewhere => "elsewhere",
            Placement::None => "none",
        },
        family: family.to_string(),
        protocol: protocol.to_string(),
        fate: fate_name(fate),
        causes,
        refusal,
        detail,
        hops: *hops,
        count: row.count,
        services: subject.services(row),
        witness: WitnessView {
            trace: subject.witness(witness),
            service: witness.service.map(|(service, port)| subject.service_port(service, port)),
            seen: witness.seen,
            reached: witness.reached,
        },
    }
}

pub(super) fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

pub(super) fn fate_name(fate: &Fate) -> &'static str {
    match fate {
        Fate::Preserved => "preserved",
        Fate::Rewritten(_) => "rewritten",
        Fate::NoAnswer(_) => "no_answer",
        Fate::Dropped(_) => "dropped",
        Fate::Rejected(_) => "rejected",
        Fate::Lost => "unreached",
        Fate::Unknown(_) => "unknown",
    }
}

pub(super) fn entry_name(entry: Entry) -> &'static str {
    match entry {
        Entry::Pod => "pod",
        Entry::Node => "node",
        Entry::Outside => "outside",
        Entry::ClusterIp => "cluster_ip",
        Entry::NodePort => "node_port",
        Entry::LoadBalancer => "load_balancer",
        Entry::ExternalIp => "external_ip",
    }
}

pub(super) fn client(client: &Client) -> ClientView {
    let (kind, network, named_by) = match client {
        Client::Pod => ("pod", None, None),
        Client::PodElsewhere => ("pod_elsewhere", None, None),
        Client::Endpoint => ("endpoint", None, None),
        Client::Node => ("node", None, None),
        Client::NodeElsewhere => ("node_elsewhere", None, None),
        Client::Outside(Outside::Anybody) => ("outside", None, None),
        Client::Outside(Outside::NamedByRule(network)) => ("outside", Some(network), Some("rule")),
        Client::Outside(Outside::NamedBySetting(network)) => {
            ("outside", Some(network), Some("setting"))
        }
    };
    ClientView { kind, network: network.map(ToString::to_string), named_by }
}

type BecauseView = (Vec<RewriterView>, Option<RefusalView>, Option<String>);

fn because(fate: &Fate) -> BecauseView {
    let refusal = |refusal: &unmasq_audit::matrix::Refusal| RefusalView {
        reason: refusal.reason.map(evidence::reason_name),
        owner: refusal.owner.map(unmasq_audit::Owner::name),
    };
    match fate {
        Fate::Preserved | Fate::Lost => (Vec::new(), None, None),
        Fate::Rewritten(causes) => (causes.iter().map(rewriter).collect(), None, None),
        Fate::Dropped(by) | Fate::Rejected(by) => (Vec::new(), Some(refusal(by)), None),
        Fate::NoAnswer(why) | Fate::Unknown(why) => (Vec::new(), None, Some(why.clone())),
    }
}

fn rewriter(cause: &Rewriter) -> RewriterView {
    RewriterView {
        owner: cause.owner.name(),
        rule: cause.rule.clone(),
        why: match cause.why {
            Why::ItsTests => "its_tests",
            Why::ExternalPolicy => "external_policy",
            Why::NotAPod => "not_a_pod",
            Why::MasqueradeAll => "masquerade_all",
            Why::Hairpin => "hairpin",
            Why::Marked => "marked",
        },
    }
}

fn totals(totals: &Totals) -> TotalsView {
    let Totals {
        nodes,
        nodes_not_captured,
        pods,
        services,
        services_without_endpoint,
        rules,
        preserved,
        rewritten_as_expected,
        rewritten,
        not_answered,
        unknown,
    } = *totals;
    TotalsView {
        nodes,
        nodes_not_captured,
        pods,
        services,
        services_without_endpoint,
        rules,
        preserved,
        rewritten_as_expected,
        rewritten,
        not_answered,
        unknown,
    }
}

#[cfg(test)]
mod tests;

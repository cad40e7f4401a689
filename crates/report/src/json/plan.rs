//! `unmasq.fix/v1`: a plan, or why there is none, as a document.
//!
//! `schemas/fix.v1.json` describes it, and a test holds the two together.

use serde::Serialize;
use serde_json::Value;

use unmasq_audit::Finding;
use unmasq_audit::matrix::change::{Change, Direction, Outcome};
use unmasq_fix::connections::Kept;
use unmasq_fix::deed::Deed;
use unmasq_fix::{
    By, FindingName, Mended, Passed, Plan, Reaction, Reactions, Refusal, Revealed, RevealedPods,
    Step, Worse,
};

use super::audit::{
    ClientView, InstructionView, RequirementView, client, entry_name, fate_name, instruction,
    requirement, severity_name,
};
use crate::audit::{Subject, instructions};

/// The document's schema.
pub const FIX_SCHEMA: &str = "unmasq.fix/v1";

/// The document of a plan.
pub fn plan(plan: &Plan, subject: &Subject<'_>) -> impl Serialize {
    Document {
        schema: FIX_SCHEMA,
        version: subject.version.to_owned(),
        capture: subject.capture.map(ToOwned::to_owned),
        plan: Some(PlanView {
            mended: plan.mended.iter().map(mended).collect(),
            steps: plan.steps.iter().map(|one| step(one, plan)).collect(),
            reactions: reactions(&plan.reactions),
            restart: reactions(&plan.restart),
            reboot: plan.reboot.clone(),
            doubts: plan.doubts.clone(),
            returns: plan.returns.iter().map(ToString::to_string).collect(),
            asked: plan.changes.asked,
            changes: plan.changes.rows.iter().map(|one| change(one, subject)).collect(),
            revealed: revealed(&plan.revealed),
            connections: plan.connections.iter().map(connections).collect(),
            worse: plan.worse.iter().map(worse).collect(),
            new_findings: plan.new.iter().map(found).collect(),
            passed_over: plan.passed.iter().map(passed).collect(),
        }),
        refusal: None,
    }
}

/// The document of a refusal.
pub fn refusal(refusal: &Refusal, subject: &Subject<'_>) -> impl Serialize {
    let (reason, accept, details) = match refusal {
        Refusal::NoFinding { there, .. } => {
            ("no_finding", Vec::new(), there.iter().map(ToString::to_string).collect())
        }
        Refusal::NothingFound { passed } => {
            ("nothing_found", Vec::new(), passed.iter().map(ToString::to_string).collect())
        }
        Refusal::NoRemedy { .. } => ("no_remedy", Vec::new(), Vec::new()),
        Refusal::ByHand { steps, .. } => ("by_hand", Vec::new(), steps.clone()),
        Refusal::Unmet { unmet, .. } => {
            let names = unmet.iter().map(|one| one.name.clone()).collect();
            ("unmet", names, unmet.iter().map(|one| one.text.clone()).collect())
        }
        Refusal::Draft(_) => ("not_foretold", Vec::new(), Vec::new()),
        Refusal::Unforeseen(all) => {
            let line = |one: &unmasq_fix::Unforeseen| {
                format!("{} on {}: {}", one.owner, one.node, one.why)
            };
            ("not_foretold", Vec::new(), all.iter().map(line).collect())
        }
        Refusal::StillThere { unknown, .. } => ("still_there", Vec::new(), unknown.clone()),
        Refusal::NewError(finding) => {
            ("new_error", vec![FindingName::of(finding).to_string()], Vec::new())
        }
        Refusal::Worse(all) => {
            let names = all.iter().map(|one| one.name.clone()).collect();
            ("worse", names, all.iter().map(|one| one.text.clone()).collect())
        }
    };
    let message = refusal.to_string();
    Document {
        schema: FIX_SCHEMA,
        version: subject.version.to_owned(),
        capture: subject.capture.map(ToOwned::to_owned),
        plan: None,
        refusal: Some(RefusalView { reason, message, accept, details }),
    }
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    version: String,
    capture: Option<String>,
    plan: Option<PlanView>,
    refusal: Option<RefusalView>,
}

#[derive(Serialize)]
struct PlanView {
    mended: Vec<MendedView>,
    steps: Vec<StepView>,
    reactions: Vec<ReactionView>,
    restart: Vec<ReactionView>,
    reboot: Vec<String>,
    doubts: Vec<String>,
    returns: Vec<String>,
    asked: usize,
    changes: Vec<ChangeView>,
    revealed: RevealedView,
    connections: Vec<KeptView>,
    worse: Vec<WorseView>,
    new_findings: Vec<FoundView>,
    passed_over: Vec<PassedView>,
}

#[derive(Serialize)]
struct RefusalView {
    reason: &'static str,
    message: String,
    accept: Vec<String>,
    details: Vec<String>,
}

#[derive(Serialize)]
struct MendedView {
    finding: String,
    title: String,
    remedy: String,
    lasting: bool,
    requires: Vec<RequirementView>,
}

#[derive(Serialize)]
struct StepView {
    mended: usize,
    text: String,
    by: &'static str,
    deeds: Vec<Deed>,
    instructions: Vec<InstructionView>,
}

#[derive(Serialize)]
struct ReactionView {
    owner: &'static str,
    text: String,
    nodes: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct ChangeView {
    entry: &'static str,
    family: String,
    protocol: String,
    direction: &'static str,
    before: Vec<OutcomeView>,
    after: Vec<OutcomeView>,
    count: usize,
    services: Vec<String>,
}

#[derive(Serialize)]
struct OutcomeView {
    client: ClientView,
    fate: &'static str,
    hops: usize,
}

#[derive(Serialize)]
struct RevealedView {
    pods: Vec<RevealedPodsView>,
    policies: Vec<Value>,
    not_limited: Vec<String>,
}

#[derive(Serialize)]
struct RevealedPodsView {
    node: String,
    ranges: Vec<String>,
}

#[derive(Serialize)]
struct KeptView {
    node: String,
    count: Option<usize>,
}

#[derive(Serialize)]
struct WorseView {
    name: String,
    text: String,
    count: usize,
    named: bool,
}

#[derive(Serialize)]
struct PassedView {
    finding: String,
    why: String,
}

#[derive(Serialize)]
struct FoundView {
    finding: String,
    severity: &'static str,
    title: String,
}

fn mended(mended: &Mended) -> MendedView {
    MendedView {
        finding: FindingName::of(&mended.finding).to_string(),
        title: mended.finding.title.clone(),
        remedy: mended.remedy.title.clone(),
        lasting: mended.remedy.lasting,
        requires: mended.remedy.requires.iter().map(requirement).collect(),
    }
}

fn step(step: &Step, plan: &Plan) -> StepView {
    let (by, deeds, instructions) = match &step.by {
        By::Unmasq(deeds) => ("unmasq", deeds.clone(), Vec::new()),
        By::Person(index) => {
            let of = plan.mended.get(step.mended).map(|mended| &mended.remedy.steps);
            let of = of.and_then(|steps| steps.get(*index));
            let told = of.map(|step| instructions(&step.action)).unwrap_or_default();
            ("person", Vec::new(), told.iter().map(instruction).collect())
        }
    };
    StepView { mended: step.mended, text: step.text.clone(), by, deeds, instructions }
}

fn reactions(reactions: &Reactions) -> Vec<ReactionView> {
    let view = |Reaction { owner, text, nodes }: &Reaction| ReactionView {
        owner: owner.name(),
        text: text.clone(),
        nodes: nodes.clone(),
    };
    reactions.done.iter().map(view).collect()
}

pub(super) fn change(change: &Change, subject: &Subject<'_>) -> ChangeView {
    let turn = &change.turn;
    let outcomes = |all: &[Outcome]| all.iter().map(outcome).collect();
    let names = change.services.iter().map(|index| subject.service_name(*index));
    ChangeView {
        entry: entry_name(turn.entry),
        family: turn.family.to_string(),
        protocol: turn.protocol.to_string(),
        direction: match turn.direction() {
            Direction::Better => "better",
            Direction::Even => "even",
            Direction::Opened => "opened",
            Direction::Revealed => "revealed",
            Direction::Worse => "worse",
        },
        before: outcomes(&turn.before),
        after: outcomes(&turn.after),
        count: change.count,
        services: names.collect(),
    }
}

fn outcome(outcome: &Outcome) -> OutcomeView {
    let Outcome { client: who, fate, hops, placement: _ } = outcome;
    OutcomeView { client: client(who), fate: fate_name(fate), hops: *hops }
}

fn revealed(Revealed { pods, policies, left }: &Revealed) -> RevealedView {
    let view = |one: &RevealedPods| RevealedPodsView {
        node: one.node.clone(),
        ranges: one.ranges.iter().map(ToString::to_string).collect(),
    };
    RevealedView {
        pods: pods.iter().map(view).collect(),
        policies: policies.clone(),
        not_limited: left.clone(),
    }
}

fn connections(kept: &Kept) -> KeptView {
    KeptView { node: kept.node.clone(), count: kept.entries.as_ref().map(Vec::len) }
}

fn worse(worse: &Worse) -> WorseView {
    let Worse { name, text, count, named } = worse.clone();
    WorseView { name, text, count, named }
}

fn passed(passed: &Passed) -> PassedView {
    PassedView { finding: passed.finding.to_string(), why: passed.why.clone() }
}

fn found(finding: &Finding) -> FoundView {
    FoundView {
        finding: FindingName::of(finding).to_string(),
        severity: severity_name(finding.severity),
        title: finding.title.clone(),
    }
}

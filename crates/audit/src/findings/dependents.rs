//! Settings that can't work, as findings of their own.
//!
//! In: what [`dependent::broken`](crate::dependent::broken) says, and the findings that rows made.
//! Out: a finding for each object with such a setting. Where a rewriting is to blame, the finding
//! that is about it becomes an error, and the setting's finding names it as its cause and stands
//! right behind it: who mends that one has mended both.

mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use unmasq_eval::trace::RuleId;

use super::checks::finding;
use super::{Context, order};
use crate::dependent::{Broken, Dependence, Kind};
use crate::matrix::{Fate, Row};
use crate::{Confidence, Finding, FindingId, Owner, Reference, Severity};

/// What a setting's sentence is in the finding that breaks it.
pub(super) fn told(broken: &Broken) -> String {
    format!("{} (unmasq explain {})", broken.sentence, broken.finding)
}

/// What is broken, with the setting that it is.
type Parts<'a> = Vec<(&'a Broken, &'a Dependence)>;

/// Settings of one object that can't work for one reason.
struct Case<'a> {
    id: FindingId,
    object: &'a str,
    parts: Parts<'a>,
    /// The rows that show it.
    rows: Vec<usize>,
    /// For which Services.
    services: BTreeSet<u32>,
    /// Who calls in these rows, and as whom.
    callers: Vec<IpAddr>,
    seen: Vec<IpAddr>,
    /// What it follows from; empty: from no other finding.
    causes: Vec<Known>,
    /// How sure it is that somebody carries out NetworkPolicies.
    enforced: Confidence,
}

/// A finding that is known already.
struct Known {
    name: Reference,
    title: String,
    owner: Owner,
    nodes: Vec<String>,
    /// What mends it, in a few words.
    remedy: Option<String>,
}

/// Those that follow from other findings, which become errors. Those that don't are added to the
/// findings.
pub(super) fn of(
    context: &Context<'_, '_>,
    dependences: &[Dependence],
    broken: &[Broken],
    findings: &mut Vec<Finding>,
) -> Vec<Finding> {
    let mut objects: BTreeMap<(FindingId, &str, bool), Parts<'_>> = BTreeMap::new();
    for one in broken {
        let dependence = &dependences[one.dependence];
        let key = (one.finding, &*dependence.object, one.by_rewriting);
        objects.entry(key).or_default().push((one, dependence));
    }
    let enforced = match objects.is_empty() {
        true => Confidence::Likely,
        false => words::enforced(context),
    };
    let mut following = Vec::new();
    let mut alone = Vec::new();
    for ((id, object, by_rewriting), parts) in objects {
        let mut case = Case { enforced, ..Case::new(context, id, object, parts) };
        if by_rewriting {
            case.causes = raise(context, &case, findings);
        }
        let found = made(context, &case, dependences);
        match found.caused_by.is_empty() {
            true => alone.push(found),
            false => following.push(found),
        }
    }
    findings.extend(alone);
    following.sort_by_key(|one| std::cmp::Reverse(order(one)));
    following
}

/// Puts findings right behind those that they follow from.
pub(super) fn put_behind(following: Vec<Finding>, findings: &mut Vec<Finding>) {
    for finding in following {
        let is_near = |other: &Finding| {
            let mut causes = finding.caused_by.iter();
            causes.any(|cause| {
                (cause.id == other.id && cause.subject == other.subject)
                    || other.caused_by.contains(cause)
            })
        };
        let last = findings.iter().rposition(is_near);
        findings.insert(last.map_or(0, |last| last + 1), finding);
    }
}

impl<'a> Case<'a> {
    fn new(context: &Context<'_, '_>, id: FindingId, object: &'a str, parts: Parts<'a>) -> Self {
        let rows: BTreeSet<usize> = parts.iter().flat_map(|(one, _)| &one.rows).copied().collect();
        let services = parts.iter().flat_map(|(one, _)| &one.services).copied().collect();
        let found = || rows.iter().filter_map(|index| context.matrix.rows.get(*index));
        let callers: BTreeSet<IpAddr> = found().filter_map(|row| context.caller(row)).collect();
        let seen: BTreeSet<IpAddr> = found().filter_map(|row| row.witness.seen).collect();
        Case {
            id,
            object,
            parts,
            services,
            callers: callers.into_iter().collect(),
            seen: seen.into_iter().collect(),
            causes: Vec::new(),
            enforced: Confidence::Likely,
            rows: rows.into_iter().collect(),
        }
    }
}

/// The findings of what rewrites in these rows, which break the setting: they become errors.
fn raise(context: &Context<'_, '_>, case: &Case<'_>, findings: &mut [Finding]) -> Vec<Known> {
    let to_blame = to_blame(context, &case.rows, findings);
    let mut causes = Vec::new();
    for index in to_blame {
        let finding = &mut findings[index];
        finding.severity = Severity::Error;
        for sentence in case.parts.iter().map(|(broken, _)| told(broken)) {
            if !finding.breaks.contains(&sentence) {
                finding.breaks.push(sentence);
            }
        }
        let name = Reference { id: finding.id, subject: finding.subject.clone() };
        let remedy = finding.remedies.iter().find(|one| one.lasting);
        causes.push(Known {
            name,
            title: finding.title.clone(),
            owner: finding.owner,
            nodes: finding.affected.nodes.clone(),
            remedy: remedy.map(|remedy| remedy.title.clone()),
        });
    }
    causes
}

/// Which findings are about the rewriting in rows, by index.
fn to_blame(context: &Context<'_, '_>, rows: &[usize], findings: &[Finding]) -> Vec<usize> {
    let row = |index: &usize| context.matrix.rows.get(*index);
    let having = |wanted: &dyn Fn(&usize) -> bool| -> Vec<usize> {
        let all = (0..).zip(findings);
        let all = all.filter(|(_, one)| one.affected.rows.iter().any(wanted));
        all.map(|(index, _)| index).collect()
    };
    let direct = having(&|index| rows.contains(index) && row(index).is_some_and(arrives_rewritten));
    if !direct.is_empty() {
        return direct;
    }
    // What was dropped on its way is in no such finding; it met the rule that others met.
    let rules: BTreeSet<(usize, RuleId)> =
        rows.iter().filter_map(row).flat_map(|row| row.witness.rewriters.clone()).collect();
    having(&|index| {
        row(index).is_some_and(|row| {
            arrives_rewritten(row) && row.witness.rewriters.iter().any(|one| rules.contains(one))
        })
    })
}

fn arrives_rewritten(row: &Row) -> bool {
    match &row.cell.fate {
        Fate::Rewritten(_) => true,
        Fate::Preserved
        | Fate::NoAnswer(_)
        | Fate::Dropped(_)
        | Fate::Rejected(_)
        | Fate::Lost
        | Fate::Unknown(_) => false,
    }
}

fn made(context: &Context<'_, '_>, case: &Case<'_>, dependences: &[Dependence]) -> Finding {
    let described = words::describe(context, case, dependences);
    let owner = case.causes.first().map_or(Owner::Unclaimed, |cause| cause.owner);
    let severity = severity(case, dependences);
    let mut found = finding(case.id, case.object.to_owned(), severity, owner, described);
    found.affected = context.affected_by(&case.rows, case.services.clone());
    let nodes = &mut found.affected.nodes;
    nodes.extend(case.causes.iter().flat_map(|cause| cause.nodes.clone()));
    nodes.sort();
    nodes.dedup();
    found.evidence = context.evidence(&case.rows);
    found.breaks = case.parts.iter().map(|(broken, _)| broken.sentence.clone()).collect();
    found.caused_by = case.causes.iter().map(|cause| cause.name.clone()).collect();
    let rows = case.rows.iter().filter_map(|index| context.matrix.rows.get(*index));
    let families: BTreeSet<_> = rows.map(|row| row.cell.family).collect();
    found.families = families.into_iter().collect();
    found
}

/// A setting that can't work is an error. Whose word is believed is one if something is judged by
/// it.
fn severity(case: &Case<'_>, dependences: &[Dependence]) -> Severity {
    let believed = case.parts.iter().all(|(one, _)| !one.by_rewriting);
    let judges = |one: &&Dependence| match one.kind {
        Kind::IngressAllowList | Kind::IngressRateLimit => {
            one.services.iter().any(|service| case.services.contains(service))
        }
        Kind::NetworkPolicy | Kind::SourceRanges | Kind::TrustedProxies => false,
    };
    match believed && !dependences.iter().any(|one| judges(&one)) {
        true => Severity::Warning,
        false => Severity::Error,
    }
}

//! Settings that can't work, as findings of their own.
//!
//! In: what [`dependent::broken`](crate::dependent::broken) says, and the findings that rows made.
//! Out: a finding for each object with such a setting. Where a rewriting is to blame, what it does to
//! the setting's Services becomes an error, and the setting's finding names that one as its cause and
//! stands right behind it: who mends that one has mended both.

mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::checks::finding;
use super::group::{Gathered, Key, Told};
use super::{Context, order};
use crate::dependent::{Broken, Dependence, Kind, by_service};
use crate::matrix::{Fate, Row};
use crate::{Confidence, Finding, FindingId, Owner, Reference, Severity};

/// What a setting's sentence is in the finding that breaks it.
pub(super) fn told(broken: &Broken) -> String {
    format!("{} (unmasq explain {})", broken.sentence, broken.finding)
}

/// What is broken, with the setting that it is.
type Parts<'a> = Vec<(&'a Broken, &'a Dependence)>;

/// Settings of one object that can't work for one reason.
pub(super) struct Case<'a> {
    id: FindingId,
    object: &'a str,
    by_rewriting: bool,
    parts: Parts<'a>,
    /// The rows that show it.
    rows: Vec<usize>,
    /// For which Services.
    services: BTreeSet<u32>,
    /// Who calls in these rows, and as whom.
    callers: Vec<IpAddr>,
    seen: Vec<IpAddr>,
    /// What rewrites, by what it was gathered as.
    blamed: Vec<Key>,
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

/// What a rewriting breaks, by the rows that show it.
pub(super) fn by_row(broken: &[Broken]) -> BTreeMap<usize, Vec<&Broken>> {
    let mut all: BTreeMap<usize, Vec<&Broken>> = BTreeMap::new();
    for one in broken.iter().filter(|one| one.by_rewriting) {
        for row in &one.rows {
            all.entry(*row).or_default().push(one);
        }
    }
    all
}

/// The Services of a few that are among others, which are in order.
pub(super) fn both<'s>(
    few: impl IntoIterator<Item = &'s u32>,
    others: &[u32],
) -> impl Iterator<Item = u32> {
    few.into_iter().copied().filter(|service| others.binary_search(service).is_ok())
}

/// Objects with settings that can't work.
pub(super) fn cases<'a>(
    context: &Context<'_, '_>,
    dependences: &'a [Dependence],
    broken: &'a [Broken],
) -> Vec<Case<'a>> {
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
    let case = |((id, object, by_rewriting), parts)| Case {
        enforced,
        by_rewriting,
        ..Case::new(context, id, object, parts)
    };
    objects.into_iter().map(case).collect()
}

/// Those that follow from other findings: the ones of what breaks, by index. Those that don't are
/// added to the findings.
pub(super) fn of(
    context: &Context<'_, '_>,
    cases: Vec<Case<'_>>,
    dependences: &[Dependence],
    breaking: &BTreeMap<Key, usize>,
    findings: &mut Vec<Finding>,
) -> Vec<Finding> {
    let settings = Settings { all: dependences, behind: by_service(dependences) };
    let mut following = Vec::new();
    let mut alone = Vec::new();
    for mut case in cases {
        let causes = case.blamed.iter().filter_map(|key| findings.get(*breaking.get(key)?));
        case.causes = causes.map(Known::of).collect();
        let found = made(context, &case, &settings);
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
    // The first stands for the front of the list, where those go that follow from nothing.
    let mut behind: Vec<Vec<Finding>> = (0..=findings.len()).map(|_| Vec::new()).collect();
    // By name: the last place where the finding is, or one that follows from it.
    let named = (1..).zip(&*findings);
    let name = |one: &Finding| Reference { id: one.id, subject: one.subject.clone() };
    let mut places: BTreeMap<Reference, usize> =
        named.map(|(place, one)| (name(one), place)).collect();
    for finding in following {
        let names = finding.caused_by.clone();
        let place = names.iter().filter_map(|name| places.get(name)).max().copied().unwrap_or(0);
        let is_near =
            |other: &Finding| finding.caused_by.iter().any(|cause| other.caused_by.contains(cause));
        let last = behind[place].iter().rposition(is_near);
        behind[place].insert(last.map_or(0, |last| last + 1), finding);
        for name in names {
            let known = places.entry(name).or_insert(place);
            *known = place.max(*known);
        }
    }
    let mut all: Vec<Finding> = Vec::new();
    let mut behind = behind.into_iter();
    all.extend(behind.next().into_iter().flatten());
    for (finding, behind) in std::mem::take(findings).into_iter().zip(behind) {
        all.push(finding);
        all.extend(behind);
    }
    *findings = all;
}

/// All settings, and which of them each Service has: their indices.
struct Settings<'a> {
    all: &'a [Dependence],
    behind: BTreeMap<u32, Vec<usize>>,
}

impl<'a> Settings<'a> {
    /// The settings of some of a case's Services, in order.
    fn of(&self, case: &Case<'_>) -> impl Iterator<Item = &'a Dependence> {
        let its = case.services.iter().filter_map(|service| self.behind.get(service)).flatten();
        let its: BTreeSet<usize> = its.copied().collect();
        let all = self.all;
        its.into_iter().filter_map(move |index| all.get(index))
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
            by_rewriting: false,
            parts,
            services,
            callers: callers.into_iter().collect(),
            seen: seen.into_iter().collect(),
            blamed: Vec::new(),
            causes: Vec::new(),
            enforced: Confidence::Likely,
            rows: rows.into_iter().collect(),
        }
    }
}

impl Known {
    fn of(finding: &Finding) -> Known {
        let remedy = finding.remedies.iter().find(|one| one.lasting);
        Known {
            name: Reference { id: finding.id, subject: finding.subject.clone() },
            title: finding.title.clone(),
            owner: finding.owner,
            nodes: finding.affected.nodes.clone(),
            remedy: remedy.map(|remedy| remedy.title.clone()),
        }
    }
}

/// Finds what rewrites in the rows of settings, and tells it what it breaks.
///
/// What arrives rewritten is gathered already, and tells what it breaks for whom. What was dropped on
/// its way isn't; it met the rule that others met.
pub(super) fn blame(
    context: &Context<'_, '_>,
    cases: &mut [Case<'_>],
    gathered: &mut BTreeMap<Key, Gathered>,
) {
    let row = |index: &usize| context.matrix.rows.get(*index);
    let (mut of_rows, mut of_rules) = (BTreeMap::new(), BTreeMap::new());
    for (key, all) in &*gathered {
        for index in all.rows() {
            let Some(row) = row(&index).filter(|row| arrives_rewritten(row)) else { continue };
            of_rows.insert(index, key.clone());
            for rule in &row.witness.rewriters {
                let keys: &mut BTreeSet<Key> = of_rules.entry(*rule).or_default();
                keys.insert(key.clone());
            }
        }
    }
    for case in cases.iter_mut().filter(|case| case.by_rewriting) {
        let direct = case.rows.iter().filter_map(|index| of_rows.get(index));
        let direct: BTreeSet<&Key> = direct.collect();
        let mut blamed = direct.clone();
        for index in case.rows.iter().filter(|index| !of_rows.contains_key(index)) {
            let Some(row) = row(index) else { continue };
            let met = row.witness.rewriters.iter().filter_map(|rule| of_rules.get(rule)).flatten();
            let met: BTreeSet<&Key> =
                met.filter(|key| direct.is_empty() || direct.contains(key)).collect();
            for key in &met {
                let hurt = both(&case.services, &row.services).collect();
                let family = row.cell.family;
                let told = Told { row: *index, family, breaks: true, hurt, rest: None };
                if let Some(all) = gathered.get_mut(*key) {
                    all.add(told);
                }
            }
            blamed.extend(met);
        }
        for key in &blamed {
            if let Some(all) = gathered.get_mut(*key) {
                all.breaks(case.parts.iter().map(|(broken, _)| told(broken)));
            }
        }
        case.blamed = blamed.into_iter().cloned().collect();
    }
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

fn made(context: &Context<'_, '_>, case: &Case<'_>, settings: &Settings<'_>) -> Finding {
    let described = words::describe(context, case);
    let owner = case.causes.first().map_or(Owner::Unclaimed, |cause| cause.owner);
    let severity = severity(case, settings);
    let mut found = finding(case.id, case.object.to_owned(), severity, owner, described);
    found.affected = context.affected_by(&case.rows, case.services.clone());
    let nodes = &mut found.affected.nodes;
    nodes.extend(case.causes.iter().flat_map(|cause| cause.nodes.clone()));
    nodes.sort();
    nodes.dedup();
    found.evidence = context.evidence(&case.rows, &case.services);
    found.breaks = case.parts.iter().map(|(broken, _)| broken.sentence.clone()).collect();
    found.caused_by = case.causes.iter().map(|cause| cause.name.clone()).collect();
    let rows = case.rows.iter().filter_map(|index| context.matrix.rows.get(*index));
    let families: BTreeSet<_> = rows.map(|row| row.cell.family).collect();
    found.families = families.into_iter().collect();
    found
}

/// A setting that can't work is an error. Whose word is believed is one if something is judged by
/// it.
fn severity(case: &Case<'_>, settings: &Settings<'_>) -> Severity {
    let believed = case.parts.iter().all(|(one, _)| !one.by_rewriting);
    let judges = |one: &Dependence| match one.kind {
        Kind::IngressAllowList | Kind::IngressDenyList | Kind::IngressRateLimit => true,
        Kind::NetworkPolicy | Kind::SourceRanges | Kind::TrustedProxies => false,
    };
    match believed && !settings.of(case).any(judges) {
        true => Severity::Warning,
        false => Severity::Error,
    }
}

//! A plan: what is done, what it changes, what must hold; or why it may not be done.
//!
//! ```text
//!  findings ─ remedies ─▶ deeds ─▶ after ─▶ is the finding gone? is any cell worse? what is unforeseen?
//!                                    └────▶ rebooted: is it still gone?
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use unmasq_audit::dependent::dependences;
use unmasq_audit::expect::Expectations;
use unmasq_audit::matrix::change::{self, Change, Changes, Direction};
use unmasq_audit::{
    Action, Audit, Finding, FindingId, Instruction, Remedy, Request, Requirement, Severity, audit,
    clients,
};
use unmasq_cluster::Cluster;
use unmasq_cluster::paths::Paths;
use unmasq_eval::trace::Options;

use crate::absent;
use crate::connections::{self, Kept};
use crate::deed::Deed;
use crate::deeds::{CannotDo, Drafter};
use crate::owner::{Reactions, Unforeseen};
use crate::revealed::{self, Revealed};
use crate::state::{DraftError, Restarted, State};
use crate::worse::{self, Worse};

/// Which findings, and what is put up with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Findings; empty: all that have a remedy that can be done.
    pub findings: Vec<FindingName>,
    /// The number of the remedy, from 1, for a single finding; `None`: the first that can be done.
    pub remedy: Option<usize>,
    /// What may get worse, by the names that a refusal gives ([`Worse::name`]).
    pub accepted: BTreeSet<String>,
    /// Take nothing for granted.
    pub strict: bool,
}

/// A finding by its id, and by its subject where there are several of its kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FindingName {
    /// Of which kind.
    pub id: FindingId,
    /// Which one of its kind; `None`: all of them.
    pub subject: Option<String>,
}

/// `kube-router-pod-egress/IPv6`
impl fmt::Display for FindingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) if !subject.is_empty() => write!(f, "{}/{subject}", self.id),
            Some(_) | None => write!(f, "{}", self.id),
        }
    }
}

impl FindingName {
    /// The name of a finding.
    pub fn of(finding: &Finding) -> FindingName {
        FindingName { id: finding.id, subject: Some(finding.subject.clone()) }
    }

    /// Whether it names the finding.
    pub fn is_of(&self, finding: &Finding) -> bool {
        self.id == finding.id
            && self.subject.as_ref().is_none_or(|subject| *subject == finding.subject)
    }
}

/// What is done, and what it changes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is mended, each with the remedy that does it.
    pub mended: Vec<Mended>,
    /// What is done, in order, by the mended thing's index.
    pub steps: Vec<Step>,
    /// The cells that change.
    pub changes: Changes,
    /// What gets worse: named by a remedy, or accepted.
    pub worse: Vec<Worse>,
    /// What the owners of rules do by themselves.
    pub reactions: Reactions,
    /// What programs do at their next start.
    pub restart: Reactions,
    /// Why there may be more to mend than all that was found, a sentence each.
    pub doubts: Vec<String>,
    /// What a reboot does to rules that are changed, and where that isn't known: a sentence each.
    pub reboot: Vec<String>,
    /// The findings that are back once programs have started again, or nodes were rebooted.
    pub returns: Vec<FindingName>,
    /// Pods whose own addresses somebody outside gets then.
    pub revealed: Revealed,
    /// Connections that keep their old translation, where somebody looked: by [`Plan::count`].
    pub connections: Vec<Kept>,
    /// What was not found before and is found after, no errors.
    pub new: Vec<Finding>,
    /// Of all findings, those that are left as they are.
    pub passed: Vec<Passed>,
    /// The cluster as it is then.
    pub after: State,
    /// The audit of it.
    pub audit: Audit,
}

/// A finding that a plan for all leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Which.
    pub finding: FindingName,
    /// Why, as the refusal of a plan for it alone says.
    pub why: String,
}

/// `calico-unused-pool/x is left as it is: …`
impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is left as it is: {}", self.finding, self.why)
    }
}

/// A requirement that doesn't hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// By this name it can be accepted.
    pub name: String,
    /// The requirement, a sentence.
    pub text: String,
}

/// A finding and its remedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Mended {
    /// The finding.
    pub finding: Finding,
    /// The remedy.
    pub remedy: Remedy,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Index of what it mends.
    pub mended: usize,
    /// What is done, in words.
    pub text: String,
    /// Who does it.
    pub by: By,
}

/// Who does a step.
#[derive(Debug, Clone, PartialEq)]
pub enum By {
    /// Unmasq.
    Unmasq(Vec<Deed>),
    /// A person; what exactly is in the remedy's step of this index.
    Person(usize),
}

impl By {
    /// What Unmasq does, in order.
    pub fn deeds(&self) -> &[Deed] {
        match self {
            By::Unmasq(deeds) => deeds,
            By::Person(_) => &[],
        }
    }
}

impl Plan {
    /// What Unmasq does, in order.
    pub fn deeds(&self) -> Vec<Deed> {
        self.steps.iter().flat_map(|step| step.by.deeds()).cloned().collect()
    }

    /// The first step that a person does and that a later one of Unmasq's on a node, for the same
    /// finding, builds on, with its place in [`Plan::steps`].
    pub fn first_by_hand(&self, node: &str) -> Option<(usize, &Step)> {
        let acts = |step: &Step| match &step.by {
            By::Unmasq(deeds) => deeds.iter().any(|deed| deed.node() == Some(node)),
            By::Person(_) => false,
        };
        self.steps.iter().enumerate().find(|(place, step)| {
            let later = &self.steps[place + 1..];
            matches!(step.by, By::Person(_))
                && later.iter().any(|one| one.mended == step.mended && acts(one))
        })
    }

    /// Counts the connections that keep their old translation, on nodes whose rules change.
    /// `listings`: what conntrack lists, by node.
    pub fn count(&mut self, before: &Cluster, listings: &BTreeMap<String, String>) {
        self.connections.clear();
        for old in &before.nodes {
            let new = self.after.cluster.nodes.iter().find(|node| node.name == old.name);
            let (Some(host), Some(new)) = (&old.host, new.and_then(|node| node.host.as_ref()))
            else {
                continue;
            };
            if host.ruleset == new.ruleset && host.ipsets == new.ipsets {
                continue;
            }
            let listing = listings.get(&old.name);
            let entries =
                listing.map(|text| connections::kept(host, new, connections::parse(text)));
            self.connections.push(Kept { node: old.name.clone(), entries });
        }
    }

    /// What else must hold.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.mended.iter().flat_map(|mended| &mended.remedy.requires)
    }
}

/// Why a plan may not be done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// There is no such finding.
    #[error("there is no finding {wanted} here{}", because(why.as_deref()))]
    NoFinding {
        /// What was asked for.
        wanted: FindingName,
        /// Why not, where objects tell.
        why: Option<String>,
        /// What there is.
        there: Vec<FindingName>,
    },
    /// Nothing was found that could be mended.
    #[error("nothing was found that a program could mend: unmasq audit says what a person can")]
    NothingFound {
        /// What was found, and why it is left.
        passed: Vec<Passed>,
    },
    /// There is no remedy of that number.
    #[error("{finding} has {count} remedies, and no number {number}")]
    NoRemedy {
        /// The finding.
        finding: FindingName,
        /// What was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// A remedy that only a person can do.
    #[error("{finding}: only a person can do what mends it: {why}")]
    ByHand {
        /// The finding.
        finding: FindingName,
        /// Why.
        why: String,
        /// What the person does.
        steps: Vec<String>,
    },
    /// What must hold doesn't.
    #[error("{finding}: what must hold first doesn't")]
    Unmet {
        /// The finding.
        finding: FindingName,
        /// What, each by itself.
        unmet: Vec<Unmet>,
    },
    /// It can't be tried out.
    #[error("it can't be foretold: {0}")]
    Draft(#[from] DraftError),
    /// What owners do can't be foretold.
    #[error("what happens then can't be foretold")]
    Unforeseen(Vec<Unforeseen>),
    /// It would still be there.
    #[error("{finding} would still be there afterwards: {why}")]
    StillThere {
        /// The finding.
        finding: FindingName,
        /// What shows it.
        why: String,
        /// What its remedy needs and wasn't seen, each with how to find out.
        unknown: Vec<String>,
    },
    /// Something else would be wrong.
    #[error("afterwards there would be an error that isn't there now: {}", .0.title)]
    NewError(Box<Finding>),
    /// Some cell gets worse.
    #[error("it would make something worse")]
    Worse(Vec<Worse>),
}

/// Behind a sentence.
fn because(why: Option<&str>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

/// Plans what mends findings of an audit. `progress` hears how many of how many Services are done.
pub fn plan(
    state: &State,
    found: &Audit,
    expectations: &Expectations,
    wanted: &Wanted,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Plan, Refusal> {
    let (mut mended, mut passed) = choose(state, found, wanted)?;
    let draw = |mended: &[Mended]| drawn(state, found, expectations, wanted, mended, progress);
    let mut drawn = draw(&mended);
    // Of all, one that can't be mended stands in no other's way.
    if wanted.findings.is_empty() && drawn.is_err() && mended.len() > 1 {
        let alone = |one: &Mended| draw(std::slice::from_ref(one)).err();
        let refused: Vec<Option<Refusal>> = mended.iter().map(alone).collect();
        let mut refused = refused.into_iter();
        mended.retain(|one| match refused.next().flatten() {
            Some(refusal) => {
                passed.push(Passed::new(&one.finding, &refusal));
                false
            }
            None => true,
        });
        if mended.is_empty() {
            return Err(Refusal::NothingFound { passed });
        }
        drawn = draw(&mended);
    }
    Ok(Plan { passed, ..drawn? })
}

/// The plan that mends these findings.
fn drawn(
    state: &State,
    found: &Audit,
    expectations: &Expectations,
    wanted: &Wanted,
    mended: &[Mended],
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Plan, Refusal> {
    let request = Request { strict: wanted.strict };
    let again = |cluster: &Cluster| audit(cluster, expectations, request, progress);
    let mut mended = mended.to_vec();
    let mut drafted = Drafted::new(state, &mended, &again)?;
    for _ in 0..MORE {
        if !add_what_is_left(&drafted, &wanted.accepted, &mut mended) {
            break;
        }
        drafted = Drafted::new(state, &mended, &again)?;
    }
    let Drafted { steps, deeds, after, reactions, audit: audited } = drafted;
    still_there(&mended, &audited)?;
    let new = new_findings(found, &audited, &wanted.accepted)?;
    let options = || Options { strict: wanted.strict, ..Options::default() };
    let clients = clients(&state.cluster, expectations, &dependences(&state.cluster));
    let (old, later) =
        (Paths::new(&state.cluster, options()), Paths::new(&after.cluster, options()));
    let changes = change::changes(&old, &later, &clients, progress);
    let worse = worse(state, &mended, &changes, &wanted.accepted)?;
    let revealed = revealed::of(&state.cluster, &clients, &changes);
    let Restarted { state: restarted, reactions: restart, reboot } = after.restarted(state, &deeds);
    let returns = match restart.done.is_empty() && !reboot.changed {
        true => Vec::new(),
        false => {
            let again = again(&restarted.cluster);
            let is_back = |one: &&Mended| there(&again, one).is_some();
            mended.iter().filter(is_back).map(|one| FindingName::of(&one.finding)).collect()
        }
    };
    drop((old, later));
    Ok(Plan {
        mended,
        steps,
        changes,
        worse,
        reactions,
        restart,
        doubts: if wanted.findings.is_empty() { doubts(found) } else { Vec::new() },
        reboot: reboot.told,
        returns,
        revealed,
        connections: Vec::new(),
        new,
        passed: Vec::new(),
        after,
        audit: audited,
    })
}

/// What may hide a finding.
fn doubts(found: &Audit) -> Vec<String> {
    let mut all = Vec::new();
    let unknown = found.totals.unknown;
    if unknown > 0 {
        let asked = found.matrix.asked;
        all.push(format!(
            "Of the audit's {asked} questions, {unknown} ways that they may go can't be told."
        ));
    }
    if found.matrix.asked == 0 {
        all.push("The audit had nothing to ask.".to_owned());
    }
    all.extend(found.hidden.iter().cloned());
    all
}

/// How often more is added to remedies, each time for what shows only once the rest is done.
const MORE: usize = 8;

/// What remedies do to a cluster.
struct Drafted {
    steps: Vec<Step>,
    deeds: Vec<Deed>,
    after: State,
    reactions: Reactions,
    audit: Audit,
}

impl Drafted {
    fn new(
        state: &State,
        mended: &[Mended],
        again: &dyn Fn(&Cluster) -> Audit,
    ) -> Result<Drafted, Refusal> {
        let steps = steps(state, mended)?;
        let deeds: Vec<Deed> = steps.iter().flat_map(|step| step.by.deeds()).cloned().collect();
        let (after, reactions) = state.after(&deeds)?;
        if !reactions.unforeseen.is_empty() {
            return Err(Refusal::Unforeseen(reactions.unforeseen));
        }
        let audit = again(&after.cluster);
        Ok(Drafted { steps, deeds, after, reactions, audit })
    }
}

/// A rule that stands behind another one is met only once that one lets packets pass: what the same
/// remedy does to it then is added. `false`: there is no more.
fn add_what_is_left(drafted: &Drafted, accepted: &BTreeSet<String>, mended: &mut [Mended]) -> bool {
    let mut added = false;
    for one in mended {
        let Some(left) = there(&drafted.audit, one) else { continue };
        let name = FindingName::of(left);
        let more = left.remedies.iter().find(|remedy| {
            remedy.title == one.remedy.title
                && possible(&drafted.after, &name, remedy, accepted).is_ok()
        });
        let Some(more) = more else { continue };
        let has = |step: &&unmasq_audit::Step| !one.remedy.steps.contains(step);
        let new: Vec<unmasq_audit::Step> = more.steps.iter().filter(has).cloned().collect();
        if !new.iter().any(|step| rules_of(step).is_some()) {
            continue;
        }
        added = true;
        for step in new {
            let steps = &mut one.remedy.steps;
            // Beside those of the same node, ahead of what a person does afterwards.
            let beside = rules_of(&step)
                .and_then(|node| steps.iter().rposition(|one| rules_of(one) == Some(node)));
            steps.insert(beside.map_or(steps.len(), |place| place + 1), step);
        }
        for requirement in &more.requires {
            if !one.remedy.requires.contains(requirement) {
                one.remedy.requires.push(requirement.clone());
            }
        }
    }
    added
}

/// The node whose rules a step changes.
fn rules_of(step: &unmasq_audit::Step) -> Option<&str> {
    match &step.action {
        Action::Rules { node, .. } => Some(node),
        Action::Patch { .. }
        | Action::Environment { .. }
        | Action::Argument { .. }
        | Action::Tables { .. }
        | Action::File { .. }
        | Action::Restart { .. }
        | Action::ByHand { .. } => None,
    }
}

impl Passed {
    fn new(finding: &Finding, refusal: &Refusal) -> Passed {
        let why = match refusal {
            Refusal::ByHand { why, .. } => format!("only a person can mend it: {why}"),
            Refusal::Unmet { unmet, .. } => {
                let texts: Vec<&str> = unmet.iter().map(|one| one.text.as_str()).collect();
                format!("what must hold first doesn't: {}", texts.join("; "))
            }
            Refusal::NoFinding { .. }
            | Refusal::NothingFound { .. }
            | Refusal::NoRemedy { .. }
            | Refusal::Draft(_)
            | Refusal::Unforeseen(_)
            | Refusal::StillThere { .. }
            | Refusal::NewError(_)
            | Refusal::Worse(_) => refusal.to_string(),
        };
        Passed { finding: FindingName::of(finding), why }
    }
}

/// The findings, each with a remedy, and of all those that are left.
fn choose(
    state: &State,
    found: &Audit,
    wanted: &Wanted,
) -> Result<(Vec<Mended>, Vec<Passed>), Refusal> {
    let names = || found.findings.iter().map(FindingName::of).collect();
    for name in &wanted.findings {
        if !found.findings.iter().any(|finding| name.is_of(finding)) {
            let (wanted, why) = (name.clone(), absent::why(&state.cluster, name));
            return Err(Refusal::NoFinding { wanted, why, there: names() });
        }
    }
    let all = wanted.findings.is_empty();
    let (mut mended, mut passed) = (Vec::new(), Vec::new());
    for finding in &found.findings {
        let named = wanted.findings.iter().any(|name| name.is_of(finding));
        let meant = named || (all && finding.severity >= Severity::Warning);
        if !meant {
            continue;
        }
        match remedy(state, finding, wanted) {
            // Of all, those that can be mended are.
            Err(refusal) if all => passed.push(Passed::new(finding, &refusal)),
            Err(refusal) => return Err(refusal),
            Ok(remedy) => mended.push(Mended { finding: finding.clone(), remedy: remedy.clone() }),
        }
    }
    if mended.is_empty() {
        return Err(Refusal::NothingFound { passed });
    }
    Ok((mended, passed))
}

/// The remedy that was asked for; else the first that can be done and whose conditions aren't known
/// to fail.
fn remedy<'f>(state: &State, finding: &'f Finding, wanted: &Wanted) -> Result<&'f Remedy, Refusal> {
    let name = FindingName::of(finding);
    if let Some(number) = wanted.remedy {
        let count = finding.remedies.len();
        let Some(remedy) = number.checked_sub(1).and_then(|index| finding.remedies.get(index))
        else {
            return Err(Refusal::NoRemedy { finding: name, number, count });
        };
        return possible(state, &name, remedy, &wanted.accepted).map(|()| remedy);
    }
    let mut first = None;
    for remedy in &finding.remedies {
        match possible(state, &name, remedy, &wanted.accepted) {
            Ok(()) => return Ok(remedy),
            Err(refusal) => first = first.or(Some(refusal)),
        }
    }
    let why = "no remedy of it is known".to_owned();
    Err(first.unwrap_or(Refusal::ByHand { finding: name, why, steps: Vec::new() }))
}

/// Whether there is something to do, and nothing is known to stand against it.
fn possible(
    state: &State,
    finding: &FindingName,
    remedy: &Remedy,
    accepted: &BTreeSet<String>,
) -> Result<(), Refusal> {
    let mut can = false;
    let mut drafter = Drafter::new(state);
    for step in &remedy.steps {
        match drafter.deeds(&step.action) {
            Ok(_) => can = true,
            Err(CannotDo::Person) => {}
            Err(CannotDo::Not(why)) => {
                return Err(Refusal::ByHand { finding: finding.clone(), why, steps: Vec::new() });
            }
        }
    }
    if !can {
        let why = format!("“{}” has no step for a program", remedy.title);
        let steps = remedy.steps.iter().map(|step| step.text.clone()).collect();
        return Err(Refusal::ByHand { finding: finding.clone(), why, steps });
    }
    let numbered = (1..).zip(&remedy.requires);
    let unmet = numbered.filter(|(_, one)| one.holds == Some(false)).map(|(number, one)| Unmet {
        name: format!("unmet/{finding}/{number}"),
        text: one.text.clone(),
    });
    let unmet: Vec<Unmet> = unmet.filter(|one| !accepted.contains(&one.name)).collect();
    match unmet.is_empty() {
        true => Ok(()),
        false => Err(Refusal::Unmet { finding: finding.clone(), unmet }),
    }
}

fn steps(state: &State, mended: &[Mended]) -> Result<Vec<Step>, Refusal> {
    let mut steps = Vec::new();
    let mut drafter = Drafter::new(state);
    for (index, one) in mended.iter().enumerate() {
        for (number, step) in one.remedy.steps.iter().enumerate() {
            let by = match drafter.deeds(&step.action) {
                Ok(deeds) => By::Unmasq(deeds),
                Err(CannotDo::Person) => By::Person(number),
                Err(CannotDo::Not(why)) => {
                    let finding = FindingName::of(&one.finding);
                    return Err(Refusal::ByHand { finding, why, steps: Vec::new() });
                }
            };
            steps.push(Step { mended: index, text: step.text.clone(), by });
        }
    }
    Ok(steps)
}

fn there<'a>(audit: &'a Audit, mended: &Mended) -> Option<&'a Finding> {
    let mut found = audit.findings.iter().filter(|finding| mended.finding.is_same(finding));
    found.find(|finding| finding.severity >= mended.finding.severity)
}

fn still_there(mended: &[Mended], audit: &Audit) -> Result<(), Refusal> {
    for one in mended {
        if let Some(finding) = there(audit, one) {
            let evidence = finding.evidence.first();
            let mut why = evidence.map_or(&finding.title, |evidence| &evidence.text).clone();
            if let Some(rule) = evidence.and_then(|evidence| evidence.rule.as_ref()) {
                let why_not = "this remedy doesn't reach it. It is next: by hand, or unmasq fix with \
                               another --remedy";
                why = format!("{why} Left is `{}` on {}: {why_not}", rule.text, rule.host);
            }
            let (finding, unknown) = (FindingName::of(finding), unknown(&one.remedy));
            return Err(Refusal::StillThere { finding, why, unknown });
        }
    }
    Ok(())
}

/// What a remedy needs and wasn't seen, with what to do about it.
fn unknown(remedy: &Remedy) -> Vec<String> {
    let unseen = remedy.requires.iter().filter(|one| one.holds.is_none());
    let with_check = |one: &Requirement| match &one.check {
        Some(
            Instruction::Command(text) | Instruction::Sentence(text) | Instruction::Literal(text),
        ) => format!("{}: {text}", one.text),
        None => one.text.clone(),
    };
    unseen.map(with_check).collect()
}

/// What is found after and wasn't before; errors are a refusal, unless they are accepted by their
/// name.
fn new_findings(
    before: &Audit,
    after: &Audit,
    accepted: &BTreeSet<String>,
) -> Result<Vec<Finding>, Refusal> {
    let was = |finding: &Finding| {
        before.findings.iter().any(|old| old.is_same(finding) && old.severity >= finding.severity)
    };
    let mut new = Vec::new();
    for finding in after.findings.iter().filter(|finding| !was(finding)) {
        let name = FindingName::of(finding).to_string();
        if finding.severity == Severity::Error && !accepted.contains(&name) {
            return Err(Refusal::NewError(Box::new(finding.clone())));
        }
        new.push(finding.clone());
    }
    Ok(new)
}

/// What gets worse; a refusal, if a remedy doesn't name it and nobody accepts it.
fn worse(
    state: &State,
    mended: &[Mended],
    changes: &Changes,
    accepted: &BTreeSet<String>,
) -> Result<Vec<Worse>, Refusal> {
    let is_worse = |change: &&Change| change.turn.direction() == Direction::Worse;
    let mut all: Vec<Worse> = Vec::new();
    for change in changes.rows.iter().filter(is_worse) {
        for one in worse::of(&state.cluster, mended, change) {
            match all.iter_mut().find(|known| known.name == one.name) {
                Some(known) => known.count += one.count,
                None => all.push(one),
            }
        }
    }
    let refused: Vec<Worse> =
        all.iter().filter(|one| !one.named && !accepted.contains(&one.name)).cloned().collect();
    if refused.is_empty() { Ok(all) } else { Err(Refusal::Worse(refused)) }
}

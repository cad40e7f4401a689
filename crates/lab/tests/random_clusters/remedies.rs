//! Every remedy of a cluster by chance that a plan allows is done, and everybody asked again: nobody
//! is worse off than before, but for what the plan says, and what is seen then is what the plan
//! foretold.
//!
//! ```text
//!  audit ─ finding, remedy ─ plan ─┬─ refused: counted
//!                                  └─ done: objects ─▶ settings ─▶ the owners' writers
//!                                           rules, tables ─▶ the kernel
//!                                           ─▶ asked again ─┬─ is anything worse?
//!                                                           └─ is it as foretold?
//! ```

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use unmasq_apply::{Journal, Outcome};
use unmasq_audit::expect::{Destination, Expectations, Flow, Gateway, LoadBalancer, Source};
use unmasq_audit::matrix::change::Direction;
use unmasq_audit::{Request, audit};
use unmasq_cluster::paths::Paths;
use unmasq_cluster::{Cluster, Overrides, read};
use unmasq_eval::trace::Options;
use unmasq_fix::deed::Deed;
use unmasq_fix::{FindingName, Manifests, Plan, Refusal, State, Wanted, plan};
use unmasq_lab::matrix::{self, Matrix, Row, Target};
use unmasq_lab::random_cluster;
use unmasq_lab::scenario::{Entry, Fate, Scenario};
use unmasq_lab::session::Session;
use unmasq_model::packet::Family;

use crate::nodes::Nodes;
use crate::{Compared, Counts, differs, settings};

/// What was planned and done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    clusters: usize,
    findings: usize,
    /// Remedies that were planned, each by itself.
    planned: usize,
    /// Of them, those for which something has to hold that doesn't: that was accepted.
    accepted: usize,
    /// Not allowed, by the reason.
    refused: BTreeMap<&'static str, usize>,
    /// Allowed, and does nothing that another one hasn't done.
    again: usize,
    done: usize,
    /// Connections that were made after one was done, and what became of them.
    asked: Counts,
    better: usize,
    /// Worse, as the plan says.
    named: usize,
    /// To hosts outside that get the pod's own address and have no way back to it, which the plan
    /// leaves to be judged.
    revealed: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.clusters += other.clusters;
        self.findings += other.findings;
        self.planned += other.planned;
        self.accepted += other.accepted;
        for (why, count) in &other.refused {
            *self.refused.entry(why).or_default() += count;
        }
        self.again += other.again;
        self.done += other.done;
        self.asked.add(&other.asked);
        self.better += other.better;
        self.named += other.named;
        self.revealed += other.revealed;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { clusters, findings, planned, accepted, refused, again, done, .. } = self;
        let Tally { asked, better, named, revealed, .. } = self;
        writeln!(f, "remedies of {clusters} clusters: {findings} findings, {planned} remedies")?;
        writeln!(f, "  {accepted} need what doesn't hold, which was accepted")?;
        refused.iter().try_for_each(|(why, count)| writeln!(f, "  {count} refused: {why}"))?;
        writeln!(f, "  {again} do what another one does, {done} were done")?;
        writeln!(f, "after them {better} connections are better off")?;
        writeln!(f, "  {named} worse as the plan says")?;
        writeln!(f, "  {revealed} to hosts outside without a way back, left to be judged")?;
        let Counts { rows, by_ways, by_cells, .. } = asked;
        writeln!(f, "of {rows} connections {by_ways} compared with ways, {by_cells} with cells")
    }
}

pub(crate) fn of_seed(seed: u64) -> Result<Tally> {
    let mut session = Session::up(&random_cluster::text(seed), &|_| {})?;
    let files = session.capture()?;
    let contents = read::capture(&files)?;
    ensure!(contents.problems.is_empty(), "{:?}", contents.problems);
    let objects = files.iter().filter(|(path, _)| path.starts_with("kubernetes/"));
    let manifests =
        Manifests::new(objects.map(|(path, text)| (path.clone(), text.clone())).collect());
    let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
    let state = State { cluster, manifests };
    let scenario = session.cluster.scenario.clone();
    let expectations = declared(&scenario);
    let found = audit(&state.cluster, &expectations, Request::default(), &|_, _| {});
    let mut tally = Tally { clusters: 1, findings: found.findings.len(), ..Tally::default() };
    let mut before: Option<Matrix> = None;
    let mut known: Vec<Vec<Deed>> = Vec::new();
    let mut wrong = Vec::new();
    for finding in &found.findings {
        for number in 1..=finding.remedies.len() {
            let name = FindingName::of(finding);
            let title = format!("{name}, remedy {number}");
            let (findings, remedy) = (vec![name], Some(number));
            let mut wanted = Wanted { findings, remedy, ..Wanted::default() };
            tally.planned += 1;
            let plan = |wanted: &Wanted| plan(&state, &found, &expectations, wanted, &|_, _| {});
            let mut planned = plan(&wanted);
            // As somebody does who reads what doesn't hold, and wants it nevertheless.
            if let Err(Refusal::Unmet { unmet, .. }) = &planned {
                wanted.accepted = unmet.iter().map(|one| one.name.clone()).collect();
                tally.accepted += 1;
                planned = plan(&wanted);
            }
            let plan = match planned {
                Ok(plan) => plan,
                Err(refusal) => {
                    *tally.refused.entry(reason(&refusal)).or_default() += 1;
                    continue;
                }
            };
            let deeds = plan.deeds();
            if deeds.is_empty() || known.contains(&deeds) {
                tally.again += 1;
                continue;
            }
            let before = match &before {
                Some(before) => before,
                None => before.insert(session.matrix(&|_| {})?),
            };
            let said = |error: anyhow::Error| error.context(format!("seed {seed}, {title}"));
            carry_out(&mut session, &scenario, &plan, &deeds).map_err(said)?;
            let mut after = session.matrix(&|_| {})?;
            let pairs = before.rows.iter().zip(&mut after.rows);
            pairs.for_each(|(old, new)| silence_errors_of_neighbours(old, new));
            let differ = compare(&session, before, &after, &plan, &mut tally);
            wrong.extend(differ.into_iter().map(|what| format!("{title}: {what}")));
            session.apply(&scenario).map_err(said)?;
            tally.done += 1;
            known.push(deeds);
        }
    }
    if wrong.is_empty() {
        return Ok(tally);
    }
    let what = format!("{} connections are worse, or not as foretold", wrong.len());
    Err(differs(seed, &format!("remedies_of_seed_{seed}"), &what, &wrong, &files))
}

/// What an owner of the cluster would tell: his clients, his load balancer, his router.
fn declared(scenario: &Scenario) -> Expectations {
    let outside = scenario.outside.iter().flat_map(|host| &host.addresses);
    let flow = Flow {
        name: None,
        line: 1,
        from: outside.map(|net| Source::Network(net.trunc())).collect(),
        to: vec![Destination::Services],
        entries: Vec::new(),
        families: Vec::new(),
        told_by: None,
    };
    let load_balancer = |one: &unmasq_lab::scenario::LoadBalancer| LoadBalancer {
        services: vec![("default".to_owned(), "*".to_owned())],
        line: 2,
        health_checks: Some(one.health_checks),
    };
    let gateway = &scenario.gateway;
    Expectations {
        path: "expect.yaml".to_owned(),
        preserved: vec![flow],
        translated: Vec::new(),
        load_balancers: scenario.load_balancer.iter().map(load_balancer).collect(),
        gateways: vec![Gateway {
            knows_pods: gateway.knows_pods.clone(),
            masquerades: gateway.masquerades.clone(),
        }],
    }
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NoFinding { .. } | Refusal::NothingFound { .. } => "nothing is found",
        Refusal::NoRemedy { .. } => "no such remedy",
        Refusal::ByHand { .. } => "for a person",
        Refusal::Unmet { .. } => "what must hold doesn't",
        Refusal::Draft(_) => "it can't be tried out",
        Refusal::Unforeseen(_) => "what owners do can't be foretold",
        Refusal::StillThere { .. } => "the finding would still be there",
        Refusal::NewError(_) => "an error would come",
        Refusal::Worse(_) => "something would be worse",
    }
}

/// Objects first: their owners write all their rules anew, and what is changed on nodes is not theirs.
fn carry_out(session: &mut Session, before: &Scenario, plan: &Plan, deeds: &[Deed]) -> Result<()> {
    let after = settings::after(before, deeds, &plan.after.manifests)?;
    if after != *before {
        session.apply(&after)?;
    }
    let of_node = |deed: &&Deed| matches!(deed, Deed::Rules(_) | Deed::Table(_));
    let on_nodes: Vec<Deed> = deeds.iter().filter(of_node).cloned().collect();
    if on_nodes.is_empty() {
        return Ok(());
    }
    let target = Nodes::of(session);
    let folder = tempfile::tempdir()?;
    unmasq_apply::check(&target, &on_nodes)?;
    let mut journal = Journal::create(&folder.path().join("journal"), Vec::new(), on_nodes)?;
    let outcome = unmasq_apply::apply(&target, &mut journal, &mut |_| {});
    ensure!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    session.cluster.forget_connections()
}

/// What is worse and not named by the plan, and what is not as it foretold.
fn compare(
    session: &Session,
    before: &Matrix,
    after: &Matrix,
    plan: &Plan,
    tally: &mut Tally,
) -> Vec<String> {
    let cluster = &session.cluster;
    let paths = Paths::new(&plan.after.cluster, Options::default());
    let compared = Compared { cluster, seen: after, paths: &paths, rows: &plan.audit.matrix.rows };
    let mut counts = Counts { clusters: 1, rows: after.rows.len(), ..Counts::default() };
    let mut wrong = compared.all(&mut counts);
    tally.asked.add(&counts);
    if before.rows.len() != after.rows.len() {
        wrong.push("other questions are asked".to_owned());
    }
    for (old, new) in before.rows.iter().zip(&after.rows) {
        if old.question != new.question {
            wrong.push("other questions are asked".to_owned());
            break;
        }
        if old.agreed().is_none() || new.agreed().is_none() {
            continue;
        }
        if harm(new.seen.fate) < harm(old.seen.fate) {
            tally.better += 1;
        }
        if !is_worse(old, new) {
            continue;
        }
        if is_named(plan, new) {
            tally.named += 1;
        } else if is_revealed(plan, new) {
            tally.revealed += 1;
        } else {
            let (was, is) = (matrix::describe(cluster, old), matrix::describe(cluster, new));
            wrong.push(format!("worse, and the plan doesn't say so\n    {was}\n    {is}"));
        }
    }
    wrong
}

/// Who calls an address of a node's bridge that nobody has hears nothing while the node looks for it,
/// and the node's own error once it has given up (arp_error_report() of net/ipv4/arp.c): it has by
/// the second time.
fn silence_errors_of_neighbours(old: &Row, new: &mut Row) {
    let mut foreseen = new.foreseen.iter().map(|one| one.result.fate);
    let same = old.question == new.question && old.seen.fate == Fate::Silent;
    if same && new.seen.fate == Fate::Refused && foreseen.all(|fate| fate == Fate::Silent) {
        new.seen.fate = Fate::Silent;
    }
}

/// How bad it is for the one who calls.
fn harm(fate: Fate) -> u8 {
    match fate {
        Fate::Preserved | Fate::Told => 0,
        Fate::Rewritten => 1,
        Fate::Silent | Fate::Refused => 2,
    }
}

/// Chance chooses endpoints, so an answer is held against what the same server could have said
/// before, and no answer against what could have been answered.
fn is_worse(old: &Row, new: &Row) -> bool {
    let answered = |fate: Fate| harm(fate) < harm(Fate::Silent);
    let fates =
        |row: &Row| -> Vec<Fate> { row.foreseen.iter().map(|one| one.result.fate).collect() };
    if !answered(new.seen.fate) {
        let before = fates(old);
        let never = !fates(new).into_iter().any(answered);
        return before.iter().all(|fate| answered(*fate))
            || (never && before.iter().any(|fate| answered(*fate)));
    }
    let of_server = old.foreseen.iter().filter(|one| one.result.server == new.seen.server);
    let worst = of_server.map(|one| harm(one.result.fate)).max();
    let worst = worst.or_else(|| fates(old).into_iter().map(harm).max());
    worst.is_some_and(|worst| harm(new.seen.fate) > worst)
}

/// Whether the plan says that this gets worse. What a load balancer passes on comes to node ports.
fn is_named(plan: &Plan, row: &Row) -> bool {
    let what =
        if harm(row.seen.fate) == harm(Fate::Rewritten) { "rewritten" } else { "unanswered" };
    let (entries, service): (&[&str], _) = match &row.question.to {
        Target::Host(_) => (&["pod", "outside"], String::new()),
        Target::Service { name, entry: Entry::LoadBalancer, .. } => {
            (&["load-balancer", "node-port"], format!("/{name}"))
        }
        Target::Service { name, entry, .. } => {
            return plan
                .worse
                .iter()
                .any(|one| one.name == format!("{what}/{}/{name}", entry.name()));
        }
    };
    let names: Vec<String> =
        entries.iter().map(|entry| format!("{what}/{entry}{service}")).collect();
    plan.worse.iter().any(|one| names.contains(&one.name))
}

/// Whether the plan says that somebody outside gets the caller's own address.
fn is_revealed(plan: &Plan, row: &Row) -> bool {
    let outside = |target: &Target| matches!(target, Target::Host(_));
    let family = Family::of(row.question.address);
    outside(&row.question.to)
        && plan.changes.rows.iter().any(|change| {
            let turn = &change.turn;
            turn.direction() == Direction::Revealed && turn.family == family
        })
}

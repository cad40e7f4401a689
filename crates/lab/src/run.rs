//! What a scenario's run came to: for people and for programs.
//!
//! In: a [`Session`]. Out: a [`Report`], serializable (`unmasq.lab-run/v1`,
//! `schemas/lab-run.v1.json`), with a [`State`] for the cluster as it was found and one after each
//! step of the remedy.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cluster::Progress;
use crate::matrix::{self, Matrix, Row};
use crate::scenario::{Expectation, Fate};
use crate::session::Session;
use crate::summary;

/// The `schema` of a report.
pub const SCHEMA: &str = "unmasq.lab-run/v1";

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The scenario's name.
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// What happens and why.
    pub about: String,
    /// The remedy's steps.
    pub remedy: Vec<Step>,
    /// Where the texts of the rules come from.
    pub sources: Vec<String>,
    /// The cluster as it was found, and after each step of the remedy.
    pub states: Vec<State>,
}

/// A step of the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done, in one line.
    pub title: String,
    /// How it is done on a real system.
    pub how: String,
}

/// The matrix of one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `as found`, or the title of the step that led here.
    pub title: String,
    /// How many connections were tried.
    pub connections: usize,
    /// Milliseconds for all of it.
    pub took_ms: u64,
    /// What became of them, kinds together.
    pub lines: Vec<Line>,
    /// Rules that rewrote sources.
    pub rewriters: Vec<Rewriter>,
    /// What the scenario expects of this state.
    pub expectations: Vec<Checked>,
    /// Connections that ended otherwise than foreseen.
    pub disagreements: Vec<Disagreement>,
    /// The capture by which disagreements can be looked at; `None`: there are none, or it could not
    /// be kept.
    pub kept: Option<PathBuf>,
}

/// A connection that ended otherwise than foreseen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagreement {
    /// Who asked whom, what was seen, and what had been foreseen.
    pub what: String,
    /// The command line that traces its packet through the capture that was kept.
    pub trace: Option<String>,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Connections of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What kind of client.
    pub client: String,
    /// What it called.
    pub entry: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// How many ended in which way, most first.
    pub fates: Vec<Ended>,
    /// What may become of them: where chance chooses, more than was seen this time.
    pub possible: Vec<String>,
}

/// Connections that ended alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// `preserved`, `rewritten by kube-proxy`, `silent` …
    pub fate: String,
    /// How many.
    pub connections: usize,
}

/// A rule that rewrote sources.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rewriter {
    /// The host that has it.
    pub host: String,
    /// Whose it is.
    pub owner: String,
    /// Its text.
    pub rule: String,
    /// How many connections it rewrote; 0: it might have, if chance had chosen so.
    pub connections: usize,
}

/// An expectation with what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Who asks whom, in words.
    pub what: String,
    /// What must be seen.
    pub wanted: String,
    /// What was seen, with how many.
    pub seen: BTreeMap<String, usize>,
    /// Whether it is so.
    pub met: bool,
    /// One way that it may take, host by host; `None`: none was foreseen.
    pub way: Option<String>,
}

impl Report {
    /// A report of a session, without states yet.
    pub fn new(session: &Session) -> Report {
        let scenario = &session.cluster.scenario;
        let mut sources: Vec<String> = session
            .cluster
            .rules
            .iter()
            .flat_map(|host| &host.sources)
            .map(ToString::to_string)
            .collect();
        sources.sort();
        sources.dedup();
        Report {
            schema: SCHEMA.to_owned(),
            scenario: scenario.name.clone(),
            title: scenario.title.clone(),
            about: scenario.about.clone(),
            remedy: scenario
                .remedy
                .iter()
                .map(|one| Step { title: one.title.clone(), how: one.how.clone() })
                .collect(),
            sources,
            states: Vec::new(),
        }
    }

    /// Whether everything was as foreseen and as expected.
    pub fn is_good(&self) -> bool {
        self.states.iter().all(State::is_good)
    }
}

impl State {
    /// Whether everything was as foreseen and as expected.
    pub fn is_good(&self) -> bool {
        self.disagreements.is_empty() && self.expectations.iter().all(|one| one.met)
    }
}

/// Which of a scenario's expectations are to be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Those for before the remedy.
    Before,
    /// Those for after this many steps of several.
    Between(usize),
    /// Those for after the remedy.
    After,
}

impl Stage {
    /// The stage of a session.
    pub fn of(session: &Session) -> Stage {
        match session.progress() {
            (0, _) => Stage::Before,
            (taken, all) if taken == all => Stage::After,
            (taken, _) => Stage::Between(taken),
        }
    }

    /// What may be seen; empty: nothing is said of it.
    fn fates(self, expectation: &Expectation) -> Vec<Fate> {
        let Expectation { before, sometimes_before, between, after, .. } = expectation;
        match self {
            Stage::Before => [*before].into_iter().chain(*sometimes_before).collect(),
            Stage::Between(step) => step
                .checked_sub(1)
                .and_then(|step| between.get(step))
                .copied()
                .into_iter()
                .collect(),
            Stage::After => vec![*after],
        }
    }

    fn hops(self, expectation: &Expectation) -> Option<usize> {
        let hops = expectation.hops?;
        match self {
            Stage::Before => hops.before,
            Stage::Between(_) => None,
            Stage::After => hops.after,
        }
    }
}

/// Runs a scenario from its beginning to its end. `keep`: where captures of disagreements go.
pub fn run(text: &str, keep: &Path, progress: Progress) -> Result<Report> {
    let mut session = Session::up(text, progress)?;
    let mut report = Report::new(&session);
    let titles = session.titles();
    report.states.push(state(&session, "as found", keep, progress)?);
    for (number, title) in (1..).zip(&titles) {
        progress(&format!("step {number} of {}: {title}", titles.len()));
        session.step()?;
        report.states.push(state(&session, title, keep, progress)?);
    }
    Ok(report)
}

/// The matrix of a session as it is, with what is expected of that stage.
pub fn state(session: &Session, title: &str, keep: &Path, progress: Progress) -> Result<State> {
    let begin = Instant::now();
    let matrix = session.matrix(progress)?;
    let cluster = &session.cluster;
    let kept = match matrix.disagreements().next() {
        None => None,
        // The report is worth more than the state beside it.
        Some(_) => match keep_capture(session, &matrix, keep) {
            Ok(path) => Some(path),
            Err(error) => {
                progress(&format!("the state of the hosts could not be kept: {error:#}"));
                None
            }
        },
    };
    let disagreement = |row: &Row| Disagreement {
        what: matrix::describe(cluster, row),
        trace: kept.as_ref().and_then(|kept| matrix::trace_command(cluster, row, kept)),
    };
    let disagreements = matrix.disagreements().map(disagreement).collect();
    let stage = Stage::of(session);
    Ok(State {
        title: title.to_owned(),
        connections: matrix.rows.len(),
        took_ms: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
        lines: lines(session, &matrix),
        rewriters: rewriters(session, &matrix),
        expectations: cluster
            .scenario
            .expect
            .iter()
            .filter_map(|one| checked(session, &matrix, one, stage))
            .collect(),
        disagreements,
        kept,
    })
}

fn lines(session: &Session, matrix: &Matrix) -> Vec<Line> {
    let line = |line: summary::Line| Line {
        client: line.client,
        entry: line.entry,
        family: line.family.to_string(),
        fates: line
            .fates
            .into_iter()
            .map(|(fate, connections)| Ended { fate, connections })
            .collect(),
        possible: line.possible.into_iter().collect(),
    };
    summary::lines(&session.cluster, matrix).into_iter().map(line).collect()
}

fn rewriters(session: &Session, matrix: &Matrix) -> Vec<Rewriter> {
    // Those that chance did not choose this time are listed too.
    let possible = matrix.rows.iter().flat_map(|row| &row.foreseen);
    let mut counts: BTreeMap<_, usize> =
        possible.flat_map(|one| &one.rewriters).map(|rule| (*rule, 0)).collect();
    let by = |row: &'_ Row| row.agreed().map(|one| one.rewriters.clone()).unwrap_or_default();
    for rule in matrix.rows.iter().flat_map(by) {
        *counts.entry(rule).or_insert(0) += 1;
    }
    let rewriter = |((host, rule), connections): ((usize, _), usize)| Rewriter {
        host: session.cluster.plan.hosts[host].name.clone(),
        owner: summary::rewriter(&session.cluster, matrix, host, rule),
        rule: summary::rule_text(matrix, host, rule).unwrap_or_default(),
        connections,
    };
    counts.into_iter().map(rewriter).collect()
}

/// `None`: nothing is expected at this stage.
fn checked(session: &Session, matrix: &Matrix, one: &Expectation, stage: Stage) -> Option<Checked> {
    let (fates, hops) = (stage.fates(one), stage.hops(one));
    if fates.is_empty() && hops.is_none() {
        return None;
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut ways: Vec<String> = Vec::new();
    let mut met = true;
    for row in matrix.about(&session.cluster, one) {
        let mut fate = row.seen.fate.name().to_owned();
        met &= row.failed.is_none() && (fates.is_empty() || fates.contains(&row.seen.fate));
        if let (Some(wanted), Some(hops)) = (hops, row.seen.hops) {
            met &= hops == wanted;
            fate += &format!(" after {hops} hops");
        }
        if let Some(why) = &row.failed {
            fate = format!("not asked ({why})");
        }
        *seen.entry(fate).or_insert(0) += 1;
        ways.extend(row.foreseen.iter().map(|one| summary::way(&session.cluster, matrix, one)));
    }
    let mut what = format!("{} to {}", one.from, one.to);
    if let Some(entry) = one.entry {
        what += &format!(" by {}", entry.name());
    }
    if let Some(via) = &one.via {
        what += &format!(" of {via}");
    }
    if let Some(family) = one.family {
        what += &format!(", {}", family.family());
    }
    met &= !seen.is_empty();
    let mut wanted = fates.iter().map(|fate| fate.name()).collect::<Vec<_>>().join(" or ");
    if let Some(hops) = hops {
        wanted += &format!(", {hops} hops");
    }
    // The shortest of those that chance leaves, always the same.
    ways.sort_by(|one, other| one.len().cmp(&other.len()).then(one.cmp(other)));
    let way = ways.into_iter().next();
    Some(Checked { what, wanted, seen, met, way })
}

/// Keeps the state of every host of the lab, so that the question can be asked again.
fn keep_capture(session: &Session, matrix: &Matrix, keep: &Path) -> Result<PathBuf> {
    let prefix = format!("unmasq-lab-{}-", session.cluster.scenario.name);
    let path = tempfile::Builder::new().prefix(&prefix).tempdir_in(keep)?.keep();
    let mut files = matrix.files.clone();
    files.extend(session.cluster.manifests.files());
    let manifest = serde_json::json!({"schema": unmasq_parse::capture::SCHEMA, "by": "unmasq lab"});
    files.insert("capture.json".to_owned(), serde_json::to_vec(&manifest)?);
    unmasq_host::capture::write(&path, &files)
        .with_context(|| format!("keep {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests;

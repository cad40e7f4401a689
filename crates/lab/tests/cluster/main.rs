//! Every scenario of the lab, with real packets: all that happens was foreseen, and the remedy
//! does what it says.

#[path = "../trials/mod.rs"]
mod trials;

mod spread;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use unmasq_lab::matrix::{Matrix, Row};
use unmasq_lab::scenario::{BUILTIN, Expectation, Fate};
use unmasq_lab::session::Session;
use unmasq_lab::{matrix, summary};

fn main() -> ExitCode {
    let trial = |(name, text): &(&'static str, &'static str)| {
        let text = *text;
        (*name, move || scenario(text))
    };
    let all = BUILTIN.iter().map(trial).map(|(name, run)| (name, Box::new(run) as Run));
    trials::run(all.chain([
        ("spread::uneven", Box::new(spread::uneven) as Run),
        ("spread::extra_hop", Box::new(spread::extra_hop) as Run),
    ]))
}

type Run = Box<dyn FnOnce() -> Result<()> + Send>;

/// Which state of a scenario is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    /// After this many steps of several.
    Between(usize),
    After,
}

fn scenario(text: &str) -> Result<()> {
    let begin = Instant::now();
    let say = |what: &str| eprintln!("{:6} ms: {what}", begin.elapsed().as_millis());
    let mut session = Session::up(text, &say)?;
    say("up");
    let mut state = State::Before;
    let steps = session.titles().len();
    let mut taken = 0;
    loop {
        if asks(&session, state) {
            let matrix = session.matrix(&say)?;
            say(&format!("{state:?}"));
            check(&session, &matrix, state)?;
        }
        if !session.step()? {
            ensure!(taken == steps, "{taken} of {steps} steps were taken");
            return Ok(());
        }
        taken += 1;
        state = if taken == steps { State::After } else { State::Between(taken) };
    }
}

fn asks(session: &Session, state: State) -> bool {
    let expectations = &session.cluster.scenario.expect;
    state == State::After || expectations.iter().any(|one| !fates(one, state).is_empty())
}

/// What may be seen; empty: nothing is said of it.
fn fates(expectation: &Expectation, state: State) -> Vec<Fate> {
    let Expectation { before, sometimes_before, between, after, .. } = expectation;
    match state {
        State::Before => [*before].into_iter().chain(*sometimes_before).collect(),
        State::Between(step) => between.get(step - 1).copied().into_iter().collect(),
        State::After => vec![*after],
    }
}

/// Whether a row is as an expectation wants it.
fn meets(row: &Row, expectation: &Expectation, state: State) -> bool {
    let hops = expectation.hops.and_then(|hops| match state {
        State::Before => hops.before,
        State::Between(_) => None,
        State::After => hops.after,
    });
    let fates = fates(expectation, state);
    let hops_fit = hops.is_none() || row.seen.hops.is_none() || row.seen.hops == hops;
    (fates.is_empty() || fates.contains(&row.seen.fate)) && hops_fit
}

/// Fails with all rows that were not foreseen, and all expectations that are not met.
fn check(session: &Session, matrix: &Matrix, state: State) -> Result<()> {
    let cluster = &session.cluster;
    ensure!(!matrix.rows.is_empty(), "nothing was asked");
    for line in summary::lines(cluster, matrix) {
        eprintln!("{line:?}");
    }
    let mut wrong: Vec<String> = Vec::new();
    for row in matrix.disagreements() {
        wrong.push(matrix::describe(cluster, row));
    }
    for expectation in &cluster.scenario.expect {
        let rows: Vec<_> = matrix.about(cluster, expectation).collect();
        if rows.is_empty() {
            wrong.push(format!("nothing is asked for {expectation:?}"));
        }
        for row in rows.iter().filter(|row| !meets(row, expectation, state)) {
            wrong.push(format!("{expectation:?}: {}", matrix::describe(cluster, row)));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let count = wrong.len();
    wrong.truncate(40);
    bail!("{state:?}: {count} of {} rows:\n{}", matrix.rows.len(), wrong.join("\n"))
}

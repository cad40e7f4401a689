//! Every scenario of the lab, with real packets: all that happens was foreseen, and the remedy
//! does what it says.

#[path = "../trials/mod.rs"]
mod trials;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use unmasq_lab::matrix::Matrix;
use unmasq_lab::scenario::{BUILTIN, Expectation, Fate};
use unmasq_lab::session::Session;
use unmasq_lab::{matrix, summary};

fn main() -> ExitCode {
    let trial = |(name, text): &(&'static str, &'static str)| {
        let text = *text;
        (*name, move || scenario(text))
    };
    trials::run(BUILTIN.iter().map(trial))
}

fn scenario(text: &str) -> Result<()> {
    let begin = Instant::now();
    let say = |what: &str| eprintln!("{:6} ms: {what}", begin.elapsed().as_millis());
    let mut session = Session::up(text, &say)?;
    say("up");
    let before = session.matrix(&say)?;
    say("before");
    check(&session, &before, |expectation| expectation.before)?;
    while session.step()? {}
    let after = session.matrix(&say)?;
    say("after");
    check(&session, &after, |expectation| expectation.after)
}

/// Fails with all rows that were not foreseen, and all expectations that are not met.
fn check(session: &Session, matrix: &Matrix, wanted: impl Fn(&Expectation) -> Fate) -> Result<()> {
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
        for row in rows.iter().filter(|row| row.seen.fate != wanted(expectation)) {
            wrong.push(format!(
                "expected {}: {}",
                wanted(expectation).name(),
                matrix::describe(cluster, row)
            ));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let count = wrong.len();
    wrong.truncate(40);
    bail!("{count} of {} rows:\n{}", matrix.rows.len(), wrong.join("\n"))
}

//! What an audit of a scenario's capture finds, as found and after the remedy: a line of
//! `docs/scenarios/findings.md`.
//!
//! In: a session. Out: [`Audited`]. The capture is the one that `unmasq lab capture` writes, read
//! as `unmasq audit` reads it.

use anyhow::{Context, Result, bail};
use unmasq_audit::expect::{self, Expectations};
use unmasq_audit::{Audit, Finding, Request, Severity};
use unmasq_cluster::{Cluster, Overrides, read};

use crate::session::Session;

/// The audits of a scenario.
pub struct Audited {
    /// As found.
    pub before: Audit,
    /// After the last step of the remedy.
    pub after: Audit,
}

/// Builds a scenario's cluster and audits it before and after the remedy.
pub fn audited(text: &str) -> Result<Audited> {
    let mut session = Session::up(text, &|_| {})?;
    let before = audit(&session).context("as found")?;
    while session.step()? {}
    let after = audit(&session).context("after the remedy")?;
    Ok(Audited { before, after })
}

fn audit(session: &Session) -> Result<Audit> {
    let files = session.capture()?;
    let contents = read::capture(&files)?;
    if let Some(problem) = contents.problems.first() {
        bail!("{problem}");
    }
    let expectations = match files.get("expect.yaml") {
        Some(text) => expect::parse(&String::from_utf8_lossy(text), "expect.yaml")?,
        None => Expectations::default(),
    };
    let cluster = Cluster::of(contents, Overrides::default());
    Ok(unmasq_audit::audit(&cluster, &expectations, Request::default(), &|_, _| {}))
}

impl Audited {
    /// The line of the table.
    pub fn line(&self, scenario: &str) -> String {
        let cell = |audit: &Audit| {
            let all: Vec<String> = audit.findings.iter().map(finding).collect();
            if all.is_empty() { "–".to_owned() } else { all.join("<br>") }
        };
        let (before, after) = (cell(&self.before), cell(&self.after));
        format!("| [{scenario}]({scenario}.md) | {before} | {after} |")
    }
}

fn finding(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "**error**",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let subject = match finding.subject.as_str() {
        "" => String::new(),
        subject => format!(" ({})", subject.replace('|', "\\|").replace('<', "&lt;")),
    };
    let setting = finding.cause.setting.as_ref().map_or_else(String::new, |setting| {
        let place = finding.cause.place.as_deref().unwrap_or("nowhere");
        format!(": `{setting}` in {place}")
    });
    format!("{severity} {}{subject}, {}{setting}", finding.id, finding.owner)
}

/// What stands above the lines.
pub const HEAD: &str = "\
# What an audit finds in each scenario

Made by `cargo xtask scenarios` from captures of the lab's clusters, before and after the remedy, and
compared in every run of the tests. Where a scenario says what is wanted, its captures have an
`expect.yaml`.

| scenario | as found | after the remedy |
|---|---|---|
";

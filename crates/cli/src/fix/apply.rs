//! `unmasq fix --apply`, `--undo`, `--resume`: a plan done on this host, with its journal.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use unmasq_apply::{Entry, Event, Journal, Local, Outcome};
use unmasq_audit::Audit;
use unmasq_fix::deed::Deed;
use unmasq_fix::{FindingName, Plan};

use crate::output::{self, Exit};

/// Where journals are, unless another place is named.
const JOURNALS: &str = "/var/lib/unmasq";

/// Does a plan. `again` audits what is there then.
pub(super) fn apply(
    plan: &Plan,
    journal: Option<&Path>,
    again: &dyn Fn() -> anyhow::Result<Audit>,
) -> anyhow::Result<Exit> {
    let deeds = plan.deeds();
    if let Some(object) = deeds.iter().find(|deed| matches!(deed, Deed::Object(_))) {
        bail!("{} can't be patched from here: apply the plan's patches", object.subject());
    }
    if deeds.is_empty() {
        bail!("the plan has nothing that a program can do on this host");
    }
    let target = Local { node: node(&deeds)? };
    if let Err(why) = unmasq_apply::check(&target, &deeds) {
        output::warn(&format!("error: {why}"));
        return Ok(Exit::NotAsExpected);
    }
    let findings = plan.mended.iter().map(|one| FindingName::of(&one.finding).to_string());
    let path = journal.map_or_else(new_path, Path::to_owned);
    let mut journal = Journal::create(&path, findings.collect(), deeds)?;
    output::warn(&format!("journal: {}", path.display()));
    let outcome = unmasq_apply::apply(&target, &mut journal, &mut tell)?;
    if let Some(exit) = failed(&outcome) {
        return Ok(exit);
    }
    let audit = again().context("auditing what is there now")?;
    let left = plan.mended.iter().find(|one| {
        let name = FindingName::of(&one.finding);
        let mut found = audit.findings.iter().filter(|finding| name.is_of(finding));
        found.any(|finding| finding.severity >= one.finding.severity)
    });
    let Some(left) = left else {
        output::warn(&format!("done. To take it back: unmasq fix --undo {}", path.display()));
        return Ok(Exit::Done);
    };
    output::warn(&format!(
        "error: {} is still there, which the plan did not foretell: it is taken back",
        FindingName::of(&left.finding)
    ));
    take_back(&target, &mut journal)?;
    Ok(Exit::NotAsExpected)
}

/// Takes back what a journal says.
pub(super) fn undo(path: &Path) -> anyhow::Result<Exit> {
    let mut journal = Journal::open(path)?;
    let target = Local { node: node(&journal.head().deeds)? };
    take_back(&target, &mut journal)
}

/// Goes on with a journal.
pub(super) fn resume(path: &Path) -> anyhow::Result<Exit> {
    let mut journal = Journal::open(path)?;
    let target = Local { node: node(&journal.head().deeds)? };
    let outcome = unmasq_apply::apply(&target, &mut journal, &mut tell)?;
    Ok(failed(&outcome).unwrap_or(Exit::Done))
}

fn take_back(target: &Local, journal: &mut Journal) -> anyhow::Result<Exit> {
    let wrong = unmasq_apply::take_back(target, journal, &mut tell)?;
    if wrong.is_empty() {
        output::warn("taken back: all is as it was before");
        return Ok(Exit::Done);
    }
    for why in &wrong {
        output::warn(&format!("error: {why}"));
    }
    output::warn("not all of it could be taken back; what could was");
    Ok(Exit::NotAsExpected)
}

fn failed(outcome: &Outcome) -> Option<Exit> {
    match outcome {
        Outcome::Applied => None,
        Outcome::TakenBack { why } => {
            output::warn(&format!("error: {why}"));
            output::warn("taken back: all is as it was before");
            Some(Exit::NotAsExpected)
        }
        Outcome::Stuck { why, then } => {
            output::warn(&format!("error: {why}"));
            for why in then {
                output::warn(&format!("error: and it could not be taken back: {why}"));
            }
            Some(Exit::NotAsExpected)
        }
    }
}

fn tell(entry: &Entry) {
    let what = match entry.event {
        Event::Done => "done",
        Event::Failed => "failed",
        Event::TakenBack => "as before",
        Event::Begun | Event::Applied | Event::Undone => return,
    };
    output::warn(&format!("{what}: {}", output::clean(&entry.subject)));
}

/// The node that all deeds are for, which has to be this host.
fn node(deeds: &[Deed]) -> anyhow::Result<String> {
    let of = |deed: &Deed| match deed {
        Deed::Rules(rules) => Some(rules.node.clone()),
        Deed::Table(table) => Some(table.node.clone()),
        Deed::File(file) => Some(file.node.clone()),
        Deed::Object(_) => None,
    };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().to_owned();
    match deeds.iter().filter_map(of).find(|node| *node != host) {
        Some(other) => bail!("this is for node {other}, and this host is {host}"),
        None => Ok(host),
    }
}

fn new_path() -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Path::new(JOURNALS).join(format!("{}.journal", now.as_secs()))
}

//! Whether a host is as foretold once a plan is done on it.
//!
//! ```text
//!  host now ─┬─ in the plan's cluster ─ deeds ─▶ foretold ─┐
//!            │                                             ├─▶ what is worse than foretold
//!            └─ deeds done ─ host then ─────────▶ found ───┘
//! ```
//!
//! Since the capture was taken pods came and went, so the host is collected again on both sides of
//! the deeds. The other nodes and the objects are as the plan foretells them, on both sides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use unmasq_audit::expect::Expectations;
use unmasq_audit::matrix::change::{Change, Direction};
use unmasq_audit::{Audit, Finding, Request, Severity};
use unmasq_cluster::Cluster;
use unmasq_fix::deed::Deed;
use unmasq_fix::{FindingName, Plan, State, difference};
use unmasq_model::host::Host;
use unmasq_report::audit::Subject;
use unmasq_report::terminal;

use crate::audit::{self, Progress};
use crate::output;
use crate::source::{self, Machine};

/// How a cluster is asked.
pub(super) struct Question<'a> {
    pub(super) expectations: &'a Expectations,
    pub(super) request: Request,
}

impl Question<'_> {
    fn ask(&self, cluster: &Cluster) -> Audit {
        audit::ask(cluster, self.expectations, self.request)
    }
}

/// What should be there, from what is there before anything is done.
pub(super) struct Foretold<'a> {
    plan: &'a Plan,
    question: &'a Question<'a>,
    before: Machine,
    state: State,
    audit: Audit,
}

impl<'a> Foretold<'a> {
    /// Collects this host, and tries the deeds out on it.
    pub(super) fn of(
        plan: &'a Plan,
        deeds: &[Deed],
        question: &'a Question<'a>,
    ) -> anyhow::Result<Self> {
        let before = source::this_machine().context("reading this host")?;
        let now = State {
            cluster: with_host(plan, &before.node, before.host()?),
            manifests: plan.after.manifests.clone(),
        };
        let (state, _) = now.after(deeds).context("trying the plan out on this host as it is")?;
        let audit = question.ask(&state.cluster);
        Ok(Foretold { plan, question, before, state, audit })
    }

    /// Collects this host again: what is worse than foretold, each in a sentence.
    pub(super) fn wrong(&self, journal: &Path) -> Vec<String> {
        let found = source::this_machine().and_then(|after| {
            let host = after.host()?;
            Ok((after, host))
        });
        let (after, host) = match found {
            Ok(found) => found,
            Err(why) => return vec![format!("this host can't be read any more: {why:#}")],
        };
        let mut wrong = self.unread(&after);
        let cluster = with_host(self.plan, &after.node, host);
        let audit = self.question.ask(&cluster);
        wrong.extend(self.still_there(&audit));
        wrong.extend(self.unforetold(&audit));
        wrong.extend(self.answers(State { cluster, ..self.state.clone() }));
        if !wrong.is_empty() {
            wrong.push(keep(journal, &self.before, &after));
        }
        wrong
    }

    fn unread(&self, after: &Machine) -> Vec<String> {
        let known = |file: &String| self.before.failed.contains_key(file);
        let new = after.failed.iter().filter(|(file, _)| !known(file));
        new.map(|(file, why)| format!("{file} can't be read any more: {why}")).collect()
    }

    fn still_there(&self, audit: &Audit) -> Vec<String> {
        let mended = self.plan.mended.iter().map(|one| &one.finding);
        let left = mended.filter(|finding| is_in(audit, finding));
        left.map(|finding| format!("{} is still there", FindingName::of(finding))).collect()
    }

    fn unforetold(&self, audit: &Audit) -> Vec<String> {
        let bad = audit.findings.iter().filter(|finding| finding.severity >= Severity::Warning);
        let new = bad.filter(|finding| !is_in(&self.audit, finding));
        let mended = |finding: &&Finding| {
            !self.plan.mended.iter().any(|one| FindingName::of(&one.finding).is_of(finding))
        };
        new.filter(mended)
            .map(|finding| format!("{} is new: {}", FindingName::of(finding), finding.title))
            .collect()
    }

    fn answers(&self, found: State) -> Option<String> {
        let progress = Progress::new();
        let mut differs =
            difference(&self.state, &found, self.question.expectations, &|done, of| {
                progress.show(&format!("comparing: Service {done} of {of}"));
            });
        progress.clear();
        let worse = |change: &Change| change.turn.direction() == Direction::Worse;
        let changes = match &mut differs.changes {
            Ok(changes) => changes,
            Err(why) => return Some(why.clone()),
        };
        changes.rows.retain(worse);
        if changes.rows.is_empty() {
            return None;
        }
        let subject = Subject {
            cluster: &found.cluster,
            capture: None,
            service: None,
            version: env!("CARGO_PKG_VERSION"),
        };
        let text = terminal::difference(&differs, &subject, &output::style(false));
        Some(format!("answers are worse than foretold (before: foretold, after: there)\n{text}"))
    }
}

/// Whether a finding is there, as bad or worse.
fn is_in(audit: &Audit, finding: &Finding) -> bool {
    let name = FindingName::of(finding);
    let mut found = audit.findings.iter().filter(|one| name.is_of(one));
    found.any(|one| one.severity >= finding.severity)
}

/// The cluster as it is foretold, with this host's state as it is.
fn with_host(plan: &Plan, name: &str, host: Host) -> Cluster {
    let foretold = &plan.after.cluster;
    let mut nodes = foretold.nodes.clone();
    if let Some(place) = nodes.iter_mut().find(|node| node.name == name) {
        place.host = Some(host);
    }
    Cluster::new(nodes, foretold.objects.clone(), foretold.overrides.clone())
}

/// Writes both states beside the journal, for who finds out what happened.
fn keep(journal: &Path, before: &Machine, after: &Machine) -> String {
    let written = |when: &str, files: &BTreeMap<String, Vec<u8>>| -> anyhow::Result<PathBuf> {
        let mut name = journal.as_os_str().to_owned();
        name.push(format!(".{when}.tar.gz"));
        let path = PathBuf::from(name);
        unmasq_host::capture::write(&path, files)?;
        Ok(path)
    };
    match (written("before", &before.files), written("after", &after.files)) {
        (Ok(before), Ok(after)) => format!(
            "this host before and after it, to look at: unmasq diff {} {}",
            before.display(),
            after.display()
        ),
        (Err(why), _) | (_, Err(why)) => format!("and the two states can't be kept: {why:#}"),
    }
}

//! From a ruleset and packets that disagree to the smallest reproducer.

use std::path::Path;

use anyhow::{Context, Result};

use super::compare::{self, Answers, Counts, Finding, Wrong};
use super::node::{NAME, Node};
use super::packet::Injection;
use super::ruleset::{Open, Ruleset};
use super::sequence::converse;
use crate::connections;
use crate::probe::{Entry, show};

/// A disagreement.
#[derive(Debug, Clone)]
pub struct Reproducer {
    /// The ruleset's number.
    pub ruleset: u64,
    /// What is wrong.
    pub wrong: Wrong,
    /// In words, with the rules and the packet.
    pub text: String,
}

/// Loads a ruleset anew, and sends packets one by one. Gives those that disagree.
pub(super) fn one_by_one(
    node: &mut Node,
    ruleset: &Ruleset,
    injections: &[Injection],
) -> Result<Vec<Finding>> {
    node.load(ruleset)?;
    connections::forget()?;
    let mut before = node.list()?;
    let answers = Answers::new(node.host(&before)?, ruleset.open, injections);
    let mut findings = Vec::new();
    for (number, injection) in injections.iter().enumerate() {
        let arrivals = node.send(std::slice::from_ref(injection))?;
        let after = node.list()?;
        let arrived = arrivals.get(&injection.cookie).map_or(&[][..], Vec::as_slice);
        let raised = risen(&before.counts, &after.counts);
        findings.extend(answers.compare_one(number, arrived, &raised, after.refused));
        before = after;
    }
    Ok(findings)
}

/// The smallest ruleset with which a packet still disagrees, as a capture and a command.
pub(super) fn shrink(
    node: &mut Node,
    case: &Case,
    ruleset: &Ruleset,
    finding: &Finding,
    folder: &Path,
) -> Result<Reproducer> {
    let Case { number, injection, .. } = *case;
    let mut smallest = ruleset.clone();
    let mut text = finding.text.clone();
    let mut wrong = finding.wrong;
    let mut size = smallest.len().div_ceil(2);
    while size > 0 {
        let ids = smallest.ids();
        for gone in ids.chunks(size) {
            let smaller = smallest.without(gone);
            if let Some(found) = case.again(node, &smaller, finding.wrong) {
                smallest = smaller;
                text = found.text;
                wrong = found.wrong;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    node.load(&smallest)?;
    let seen = node.list()?;
    let path = folder.join(format!("ruleset-{number}-packet-{}", injection.cookie));
    unmasq_host::capture::write(&path, &node.capture(&seen))
        .with_context(|| format!("keep {}", path.display()))?;
    let rules = rules(node, &seen)?;
    let text = format!("{}\n  {text}\n{rules}  {}", injection.probe, command(&path, injection));
    Ok(Reproducer { ruleset: number, wrong, text })
}

/// A packet, or what it opens, with the ruleset's number.
pub(super) struct Case<'a> {
    pub(super) number: u64,
    pub(super) injection: &'a Injection,
    /// Whether it opens a conversation.
    pub(super) sequence: bool,
}

impl Case<'_> {
    /// Whether it still disagrees in the same way. Where something is left open, it is tried
    /// several times.
    fn again(&self, node: &mut Node, ruleset: &Ruleset, wrong: Wrong) -> Option<Finding> {
        let times = if ruleset.open == Open::Nothing { 1 } else { 8 };
        let one = std::slice::from_ref(self.injection);
        let mut attempt = || -> Result<Vec<Finding>> {
            if !self.sequence {
                return one_by_one(node, ruleset, one);
            }
            let conversations = converse(node, ruleset, one)?.into_iter();
            Ok(conversations.filter_map(|conversation| conversation.finding).collect())
        };
        // What can't be loaded is no reproducer.
        let tries = (0..times).filter_map(|_| attempt().ok());
        tries.flatten().find(|found| found.wrong == wrong)
    }
}

fn rules(node: &mut Node, seen: &super::node::Seen) -> Result<String> {
    let host = node.host(seen)?;
    let mut text = String::new();
    for table in &host.ruleset.tables {
        for chain in &table.chains {
            let ours = |rule: &&unmasq_model::rule::Rule| {
                rule.comment.as_deref().and_then(compare::number).is_some()
            };
            for rule in chain.rules.iter().filter(ours) {
                let (backend, family, table) = (table.backend, table.family, &table.name);
                text +=
                    &format!("    {backend:?} {family} {table} {}: {}\n", chain.name, rule.text);
            }
        }
    }
    Ok(text)
}

pub(super) fn risen(before: &Counts, after: &Counts) -> Counts {
    after
        .iter()
        .map(|(rule, count)| (*rule, count - before.get(rule).copied().unwrap_or(0).min(*count)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// The command that asks the evaluator again.
fn command(capture: &Path, injection: &Injection) -> String {
    let probe = &injection.probe;
    let protocol = probe.protocol.to_string();
    let mut command = format!(
        "unmasq trace {} --node {NAME} -v --from {} --to {} --proto {}",
        capture.display(),
        show(probe.source),
        show(probe.destination),
        protocol.trim_end_matches("v6")
    );
    if let Entry::Device { name, .. } = &probe.entry {
        command += &format!(" --in {name}");
    }
    if probe.mark != 0 {
        command += &format!(" --mark {:#x}", probe.mark);
    }
    command
}

//! Whether the evaluator had said what the kernel did.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

use unmasq_eval::Evaluator;
use unmasq_eval::trace::{By, Endpoint, Options, Outcome, Port, Query, Verdict};
use unmasq_model::host::Host;

use super::packet::Injection;
use super::wire::{Arrival, Arrivals};
use crate::probe::show;

/// Packets counted, by rule.
pub(super) type Counts = BTreeMap<usize, u64>;

/// What is wrong with one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// The evaluator can't tell.
    Unknown,
    /// It has several outcomes where nothing is left to chance.
    Several,
    /// It says something else.
    Differs,
}

/// Answers for the packets of one ruleset.
pub(super) struct Answers {
    outcomes: Vec<Vec<Expected>>,
}

struct Expected {
    outcome: Outcome,
    counts: Counts,
}

/// What one packet did, or all together.
pub(super) struct Finding {
    /// Which packet; `None`: their counters together.
    pub(super) packet: Option<usize>,
    pub(super) wrong: Wrong,
    pub(super) text: String,
}

impl Answers {
    /// Asks the evaluator about every packet.
    pub(super) fn new(host: &Host, injections: &[Injection]) -> Answers {
        let options = Options { every_branch: true, ..Options::default() };
        let evaluator = Evaluator::new(host, options);
        let ask = |injection: &Injection| {
            let probe = &injection.probe;
            let query = Query { packet: probe.packet(), in_device: probe.device().map(Into::into) };
            let outcomes = evaluator.trace(&query).outcomes.into_iter();
            outcomes.map(|outcome| Expected { counts: counts(host, &outcome), outcome }).collect()
        };
        Answers { outcomes: injections.iter().map(ask).collect() }
    }

    /// Compares what all packets did together: each packet's end, and the sum of the counters.
    /// Only for rulesets without chance.
    pub(super) fn compare(
        &self,
        arrivals: &Arrivals,
        seen: &Counts,
        sent: &[Injection],
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut sum = Counts::new();
        for (number, (expected, injection)) in self.outcomes.iter().zip(sent).enumerate() {
            let arrived = arrivals.get(&injection.cookie).map_or(&[][..], Vec::as_slice);
            if let Some((wrong, text)) = end(expected, arrived, false) {
                findings.push(Finding { packet: Some(number), wrong, text });
            }
            if let [one] = &expected[..] {
                one.counts.iter().for_each(|(rule, count)| *sum.entry(*rule).or_insert(0) += count);
            }
        }
        if findings.is_empty() && sum != *seen {
            let text = difference(&sum, seen);
            findings.push(Finding { packet: None, wrong: Wrong::Differs, text });
        }
        findings
    }

    /// Compares what one packet did.
    pub(super) fn compare_one(
        &self,
        number: usize,
        arrived: &[Arrival],
        seen: &Counts,
        chance: bool,
    ) -> Option<Finding> {
        let expected = &self.outcomes[number];
        let found = |(wrong, text)| Finding { packet: Some(number), wrong, text };
        if let Some(wrong) = end(expected, arrived, chance) {
            return Some(found(wrong));
        }
        let fits = |one: &&Expected| misfit(&one.outcome, arrived).is_none();
        let mut texts = Vec::new();
        for one in expected.iter().filter(fits) {
            if one.counts == *seen {
                return None;
            }
            texts.push(difference(&one.counts, seen));
        }
        Some(found((Wrong::Differs, texts.join("; or "))))
    }
}

/// What is wrong with a packet's end, if something is.
fn end(expected: &[Expected], arrived: &[Arrival], chance: bool) -> Option<(Wrong, String)> {
    let unknown = expected
        .iter()
        .find(|one| one.outcome.verdict == Verdict::Unknown || !one.outcome.unknown.is_empty());
    if let Some(Expected { outcome, .. }) = unknown {
        return Some((Wrong::Unknown, outcome.unknown.join("; ")));
    }
    if expected.len() != 1 && !chance {
        return Some((Wrong::Several, format!("{} outcomes", expected.len())));
    }
    let misfits: Option<Vec<String>> =
        expected.iter().map(|one| misfit(&one.outcome, arrived)).collect();
    misfits.map(|texts| (Wrong::Differs, texts.join("; or ")))
}

/// In what an outcome differs from where the packet came out; `None`: in nothing.
fn misfit(outcome: &Outcome, arrived: &[Arrival]) -> Option<String> {
    let fits = match (outcome.verdict, arrived) {
        (Verdict::Forwarded, [Arrival { device: Some(device), flow }]) => {
            outcome.out.as_deref() == Some(device)
                && matches(outcome.source.after, flow.source)
                && matches(outcome.destination.after, flow.destination)
        }
        (Verdict::Delivered, [Arrival { device: None, flow }]) => {
            matches(outcome.source.after, flow.source)
                && matches(outcome.destination.after, flow.destination)
        }
        (Verdict::Dropped | Verdict::Rejected, []) => true,
        (
            Verdict::Forwarded
            | Verdict::Delivered
            | Verdict::Dropped
            | Verdict::Rejected
            | Verdict::Unknown,
            _,
        ) => false,
    };
    if fits {
        return None;
    }
    let mut text = format!("evaluator: {:?}", outcome.verdict);
    if let Some(reason) = outcome.reason {
        let _ = write!(text, " ({reason:?})");
    }
    if let Some(out) = &outcome.out {
        let _ = write!(text, " by {out}");
    }
    let _ = write!(text, " {} > {}; kernel:", outcome.source.after, outcome.destination.after);
    for Arrival { device, flow } in arrived {
        let place = device.map_or("to itself".into(), |device| format!("by {device}"));
        let _ = write!(text, " {place} {} > {}", show(flow.source), show(flow.destination));
    }
    Some(if arrived.is_empty() { text + " nowhere" } else { text })
}

fn matches(predicted: Endpoint, seen: SocketAddr) -> bool {
    let port = match predicted.port {
        Port::None => true,
        Port::Exactly(port) => port == seen.port(),
        Port::Between(low, high) => (low..=high).contains(&seen.port()),
        Port::Unknown => false,
    };
    port && predicted.address == Some(seen.ip())
}

/// The counters that an outcome raises, by the numbers in the rules' comments.
fn counts(host: &Host, outcome: &Outcome) -> Counts {
    let mut counts = Counts::new();
    for hit in outcome.hits.iter().filter(|hit| hit.counted) {
        let By::Rule(id) = &hit.by else { continue };
        let rule = host
            .ruleset
            .tables
            .get(id.table as usize)
            .and_then(|table| table.chain(id.chain).rules.get(id.rule as usize));
        let number = rule.and_then(|rule| rule.comment.as_deref()?.strip_prefix('r')?.parse().ok());
        // The network's guard has no number.
        if let Some(number) = number {
            *counts.entry(number).or_insert(0) += 1;
        }
    }
    counts
}

/// The number in a rule's comment.
pub(super) fn number(comment: &str) -> Option<usize> {
    comment.strip_prefix('r')?.parse().ok()
}

fn difference(expected: &Counts, seen: &Counts) -> String {
    let mut text = String::from("counters:");
    let rules: BTreeSet<_> = expected.keys().chain(seen.keys()).collect();
    for rule in rules {
        let count = |counts: &Counts| counts.get(rule).copied().unwrap_or(0);
        if count(expected) != count(seen) {
            let _ = write!(text, " r{rule} {} (kernel: {})", count(expected), count(seen));
        }
    }
    text
}

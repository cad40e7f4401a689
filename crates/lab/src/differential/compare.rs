//! Whether the evaluator had said what the kernel did.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use unmasq_eval::Evaluator;
use unmasq_eval::trace::{By, Endpoint, Options, Outcome, Port, Query, Reason, Verdict};
use unmasq_model::host::Host;
use unmasq_model::packet::Family;

use super::node::{Seen, next_hops};
use super::packet::Injection;
use super::ruleset::Open;
use super::wire::{Arrival, Arrivals};
use crate::frame::Mac;
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
    judge: Judge,
}

/// What a packet's fate is judged by.
pub(super) struct Judge {
    open: Open,
    /// The MACs that stand for next hops.
    next_hops: BTreeMap<IpAddr, Mac>,
    /// Whether the node always has a way back to a sender.
    way_back: bool,
}

/// One outcome, in what can be seen of it.
pub(super) struct Expected {
    outcome: Outcome,
    counts: Counts,
    /// How many errors the node sends, at least and at most.
    refused: (u64, u64),
}

/// What one packet did, or all together.
pub(super) struct Finding {
    /// Which packet; `None`: their counters together.
    pub(super) packet: Option<usize>,
    pub(super) wrong: Wrong,
    pub(super) text: String,
}

impl Judge {
    /// A judge of packets to a node.
    pub(super) fn new(host: &Host, open: Open, family: Family) -> Judge {
        Judge { open, next_hops: next_hops(family), way_back: !has_policy(host) }
    }

    /// An evaluator that keeps apart whatever counters can tell apart.
    pub(super) fn evaluator<'h>(&self, host: &'h Host) -> Evaluator<'h> {
        let every_order = self.open == Open::Order;
        Evaluator::new(host, Options { every_branch: true, every_order, ..Options::default() })
    }

    /// What may happen to a packet.
    pub(super) fn ask(&self, host: &Host, evaluator: &Evaluator, query: &Query) -> Vec<Expected> {
        let expect = |outcome: Outcome| Expected {
            counts: counts(host, &outcome),
            refused: refused(&outcome, query.in_device.is_none(), self.way_back),
            outcome,
        };
        evaluator.trace(query).outcomes.into_iter().map(expect).collect()
    }

    /// The expected outcomes that one packet's fate fits, or what is wrong.
    pub(super) fn settle<'e>(
        &self,
        expected: &'e [Expected],
        arrived: &[Arrival],
        seen: &Counts,
        refused: u64,
    ) -> Result<Vec<&'e Outcome>, (Wrong, String)> {
        if let Some(wrong) = self.end(expected, arrived) {
            return Err(wrong);
        }
        let (mut fitting, mut texts) = (Vec::new(), Vec::new());
        for one in expected.iter().filter(|one| self.misfit(&one.outcome, arrived).is_none()) {
            if one.counts == *seen && within(one.refused, refused) {
                fitting.push(&one.outcome);
            }
            texts.push(difference(&one.counts, one.refused, seen, refused));
        }
        if fitting.is_empty() { Err((Wrong::Differs, texts.join("; or "))) } else { Ok(fitting) }
    }

    /// What is wrong with a packet's end, if something is.
    fn end(&self, expected: &[Expected], arrived: &[Arrival]) -> Option<(Wrong, String)> {
        let unknown = expected
            .iter()
            .find(|one| one.outcome.verdict == Verdict::Unknown || !one.outcome.unknown.is_empty());
        if let Some(Expected { outcome, .. }) = unknown {
            return Some((Wrong::Unknown, outcome.unknown.join("; ")));
        }
        if expected.len() != 1 && self.open == Open::Nothing {
            return Some((Wrong::Several, format!("{} outcomes", expected.len())));
        }
        let misfits: Option<Vec<String>> =
            expected.iter().map(|one| self.misfit(&one.outcome, arrived)).collect();
        misfits.map(|texts| (Wrong::Differs, texts.join("; or ")))
    }

    /// In what an outcome differs from where the packet came out; `None`: in nothing.
    fn misfit(&self, outcome: &Outcome, arrived: &[Arrival]) -> Option<String> {
        let fits = match (outcome.verdict, arrived) {
            (Verdict::Forwarded, [Arrival { left: Some((device, to)), flow }]) => {
                let hop = outcome.next_hop.and_then(|hop| self.next_hops.get(&hop));
                outcome.out.as_deref() == Some(*device)
                    && hop.is_none_or(|mac| mac == to)
                    && matches(outcome.source.after, flow.source)
                    && matches(outcome.destination.after, flow.destination)
            }
            (Verdict::Delivered, [Arrival { left: None, flow }]) => {
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
            let hop = outcome.next_hop.map_or(String::new(), |hop| format!(" via {hop}"));
            let _ = write!(text, " by {out}{hop}");
        }
        let _ = write!(text, " {} > {}; kernel:", outcome.source.after, outcome.destination.after);
        for Arrival { left, flow } in arrived {
            let place =
                left.map_or("to itself".into(), |(device, to)| format!("by {device}, {to},"));
            let _ = write!(text, " {place} {} > {}", show(flow.source), show(flow.destination));
        }
        Some(if arrived.is_empty() { text + " nowhere" } else { text })
    }
}

impl Answers {
    /// Asks the evaluator about every packet.
    pub(super) fn new(host: &Host, open: Open, injections: &[Injection]) -> Answers {
        let family = injections.first().map_or(Family::V4, |one| one.probe.packet().family());
        let judge = Judge::new(host, open, family);
        let evaluator = judge.evaluator(host);
        let ask = |injection: &Injection| {
            let probe = &injection.probe;
            judge.ask(host, &evaluator, &Query::opening(probe.packet(), probe.device()))
        };
        Answers { outcomes: injections.iter().map(ask).collect(), judge }
    }

    /// Compares what all packets did together: each packet's end, and the sum of the counters.
    /// Only for rulesets that leave nothing open.
    pub(super) fn compare(
        &self,
        arrivals: &Arrivals,
        seen: &Seen,
        sent: &[Injection],
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut sum = Counts::new();
        let mut refused = (0, 0);
        for (number, (expected, injection)) in self.outcomes.iter().zip(sent).enumerate() {
            let arrived = arrivals.get(&injection.cookie).map_or(&[][..], Vec::as_slice);
            if let Some((wrong, text)) = self.judge.end(expected, arrived) {
                findings.push(Finding { packet: Some(number), wrong, text });
            }
            if let [one] = &expected[..] {
                one.counts.iter().for_each(|(rule, count)| *sum.entry(*rule).or_insert(0) += count);
                refused = (refused.0 + one.refused.0, refused.1 + one.refused.1);
            }
        }
        if findings.is_empty() && (sum != seen.counts || !within(refused, seen.refused)) {
            let text = difference(&sum, refused, &seen.counts, seen.refused);
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
        refused: u64,
    ) -> Option<Finding> {
        let settled = self.judge.settle(&self.outcomes[number], arrived, seen, refused);
        let (wrong, text) = settled.err()?;
        Some(Finding { packet: Some(number), wrong, text })
    }
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

/// How many errors the node sends about a packet that ends so.
///
/// Errors about refused routes are limited (`ip_error`, net/ipv4/route.c), a program on the node
/// gets its own by its system call, and an error needs a way back, which policy routing can take
/// away. What is delivered finds no program, about which the kernel tells too.
fn refused(outcome: &Outcome, from_host: bool, way_back: bool) -> (u64, u64) {
    let by_rule = matches!(outcome.reason, Some(Reason::Rule | Reason::Ttl));
    match outcome.verdict {
        Verdict::Rejected if by_rule && way_back && !from_host => (1, 1),
        Verdict::Rejected | Verdict::Delivered | Verdict::Unknown => (0, 1),
        Verdict::Forwarded | Verdict::Dropped => (0, 0),
    }
}

/// Whether routing looks at more than the rules that every node has: three in IPv4, two in IPv6.
fn has_policy(host: &Host) -> bool {
    let more = |rules: &Option<Vec<_>>, usual| rules.as_ref().is_some_and(|r| r.len() > usual);
    more(&host.rules4, 3) || more(&host.rules6, 2)
}

fn within((least, most): (u64, u64), count: u64) -> bool {
    (least..=most).contains(&count)
}

fn difference(expected: &Counts, refused: (u64, u64), seen: &Counts, told: u64) -> String {
    let mut text = String::from("counters:");
    if !within(refused, told) {
        let _ = write!(text, " errors {}-{} (kernel: {told})", refused.0, refused.1);
    }
    let rules: BTreeSet<_> = expected.keys().chain(seen.keys()).collect();
    for rule in rules {
        let count = |counts: &Counts| counts.get(rule).copied().unwrap_or(0);
        if count(expected) != count(seen) {
            let _ = write!(text, " r{rule} {} (kernel: {})", count(expected), count(seen));
        }
    }
    text
}

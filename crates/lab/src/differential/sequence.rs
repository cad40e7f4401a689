//! Conversations: a packet that opens a connection, the same once more, its answer, and what
//! follows the answer, each against what the evaluator says of it.
//!
//! ```text
//! opening ──▶ arrived? ─▶ again (still new) ─▶ answer (translated back) ─▶ on (established)
//! ```
//!
//! One packet is under way at a time, so packets need no number. The answer is sent from where
//! the opening packet came out: into the device that it left by, or by the node itself. What the
//! kernel chose (a port out of a range) is taken from what was seen.

use anyhow::{Context, Result};
use unmasq_eval::Evaluator;
use unmasq_eval::trace::{Outcome, Port, Query};
use unmasq_model::host::Host;
use unmasq_model::packet::Protocol;

use super::compare::{Counts, Finding, Judge};
use super::node::Node;
use super::packet::Injection;
use super::ruleset::Ruleset;
use super::shrink::risen;
use super::wire::{self, Arrival, Departure};
use crate::connections;
use crate::frame::Flow;
use crate::probe::{Entry, Probe, show};
use crate::reply::reply_to;

/// A packet of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The packet that opens the connection.
    Opening,
    /// The same again, before an answer.
    Again,
    /// The answer.
    Answer,
    /// What the opening side sends after the answer.
    On,
}

impl Part {
    /// All, in order.
    pub const ALL: [Part; 4] = [Part::Opening, Part::Again, Part::Answer, Part::On];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Part::Opening => "opening",
            Part::Again => "again, unanswered",
            Part::Answer => "answer",
            Part::On => "after the answer",
        }
    }
}

/// What a conversation came to.
pub(super) struct Conversation {
    /// The parts that were sent.
    pub(super) parts: Vec<Part>,
    /// The first part that went otherwise.
    pub(super) finding: Option<Finding>,
}

/// Loads a ruleset, and lets every packet open a conversation.
pub(super) fn converse(
    node: &mut Node,
    ruleset: &Ruleset,
    injections: &[Injection],
) -> Result<Vec<Conversation>> {
    node.load(ruleset)?;
    connections::forget()?;
    let seen = node.list()?;
    let mut counts = seen.counts.clone();
    let host = node.host(&seen)?.clone();
    let family = injections.first().context("no packets")?.probe.packet().family();
    let judge = Judge::new(&host, ruleset.open, family);
    let evaluator = judge.evaluator(&host);
    let mut conversations = Vec::new();
    for (number, injection) in injections.iter().enumerate() {
        let mut talk = Talk {
            node,
            judge: &judge,
            host: &host,
            evaluator: &evaluator,
            counts: &mut counts,
            injection,
            parts: Vec::new(),
        };
        let wrong = talk.run()?.err();
        let finding = wrong.map(|(wrong, text)| {
            let part = talk.parts.last().map_or("", |part| part.name());
            Finding { packet: Some(number), wrong, text: format!("{part}: {text}") }
        });
        conversations.push(Conversation { parts: talk.parts, finding });
    }
    Ok(conversations)
}

/// What is wrong.
type Wrong = (super::Wrong, String);

struct Talk<'a, 'h> {
    node: &'a mut Node,
    judge: &'a Judge,
    host: &'h Host,
    evaluator: &'a Evaluator<'h>,
    counts: &'a mut Counts,
    injection: &'a Injection,
    parts: Vec<Part>,
}

/// Where a packet came out, and the outcomes that say so.
struct Settled {
    arrival: Option<Arrival>,
    outcomes: Vec<Outcome>,
}

impl Talk<'_, '_> {
    fn run(&mut self) -> Result<Result<(), Wrong>> {
        let probe = &self.injection.probe;
        let opening = Query::opening(probe.packet(), probe.device());
        let first =
            Departure { entry: probe.entry.clone(), mark: probe.mark, frame: self.frame(probe)? };
        let opened = match self.send(Part::Opening, &first, std::slice::from_ref(&opening))? {
            Ok(opened) => opened,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let Some(arrival) = opened.arrival.clone() else { return Ok(Ok(())) };
        let outcomes = concrete(opened.outcomes, &arrival.flow);
        let again: Vec<Query> =
            outcomes.iter().map(|outcome| outcome.further(&opening, false)).collect();
        let opened = match self.send(Part::Again, &first, &again)? {
            Ok(again) => keep_entries(outcomes, &again.outcomes),
            Err(wrong) => return Ok(Err(wrong)),
        };
        // The connection was ended by its second packet.
        if opened.is_empty() {
            return Ok(Ok(()));
        }
        let device = arrival.left.map(|(device, _)| device);
        let answers: Vec<Query> = opened
            .iter()
            .filter_map(|outcome| outcome.answer(&opening.packet, device.map(Into::into)))
            .collect();
        let answered = match self.send(Part::Answer, &self.answer(&arrival)?, &answers)? {
            Ok(answered) => answered,
            Err(wrong) => return Ok(Err(wrong)),
        };
        // An answer that isn't tracked answers nothing for the connection.
        let tracked = answered.outcomes.iter().any(|outcome| outcome.tracked.is_some());
        if answered.arrival.is_none() || !tracked {
            return Ok(Ok(()));
        }
        let opened = keep_entries(opened, &answered.outcomes);
        let on: Vec<Query> = opened.iter().map(|outcome| outcome.further(&opening, true)).collect();
        let frame = match probe.protocol {
            // The acknowledgement of what an answer looks like to who asked.
            Protocol::TCP => {
                let answer = reply_to(&first.frame).context("no answer to a SYN")?;
                reply_to(&answer).context("no answer to an answered SYN")?
            }
            _ => first.frame.clone(),
        };
        Ok(self.send(Part::On, &Departure { frame, ..first }, &on)?.map(drop))
    }

    /// Sends one packet, and compares.
    fn send(
        &mut self,
        part: Part,
        departure: &Departure,
        queries: &[Query],
    ) -> Result<Result<Settled, Wrong>> {
        self.parts.push(part);
        let arrived = self.node.send_one(departure)?;
        let seen = self.node.list()?;
        let raised = risen(self.counts, &seen.counts);
        *self.counts = seen.counts;
        let expected: Vec<_> = queries
            .iter()
            .flat_map(|query| self.judge.ask(self.host, self.evaluator, query))
            .collect();
        Ok(match self.judge.settle(&expected, &arrived, &raised, seen.refused) {
            Err(wrong) => Err(wrong),
            Ok(outcomes) => {
                Ok(Settled { arrival: arrived.into_iter().next(), outcomes: different(outcomes) })
            }
        })
    }

    /// The answer to a packet where it came out.
    fn answer(&self, arrival: &Arrival) -> Result<Departure> {
        let Flow { protocol, source, destination } = arrival.flow;
        let entry = match arrival.left {
            Some((device, _)) => Entry::Device { name: device.into(), to: None },
            None => Entry::Host,
        };
        let probe = Probe { entry, protocol, source, destination, ttl: 64, mark: 0 };
        let frame = reply_to(&self.frame(&probe)?)
            .with_context(|| format!("no answer to {}", show(destination)))?;
        Ok(Departure { entry: probe.entry, mark: 0, frame })
    }

    /// The frame of a probe with this conversation's payload. Its MACs are those of the device's
    /// two ends whichever way it goes: the sender puts them right.
    fn frame(&self, probe: &Probe) -> Result<Vec<u8>> {
        let mut injection = self.injection.clone();
        injection.probe = probe.clone();
        injection.frame(wire::ANYBODY, wire::ANYBODY)
    }
}

/// Outcomes that make a difference for what follows: the rules on the way don't.
fn different(outcomes: Vec<&Outcome>) -> Vec<Outcome> {
    let mut kept: Vec<Outcome> = Vec::new();
    for outcome in outcomes {
        let same = |other: &Outcome| {
            (&outcome.tracked, outcome.source.after, outcome.destination.after)
                == (&other.tracked, other.source.after, other.destination.after)
        };
        if !kept.iter().any(same) {
            kept.push(outcome.clone());
        }
    }
    kept
}

/// Outcomes with what the kernel chose in them.
fn concrete(mut outcomes: Vec<Outcome>, flow: &Flow) -> Vec<Outcome> {
    for outcome in &mut outcomes {
        let ends =
            [(&mut outcome.source, flow.source), (&mut outcome.destination, flow.destination)];
        for (rewrite, seen) in ends {
            if matches!(rewrite.after.port, Port::Between(..)) {
                rewrite.after.port = Port::Exactly(seen.port());
            }
        }
        if let Some(entry) = &mut outcome.tracked {
            entry.source.after = outcome.source.after;
            entry.destination.after = outcome.destination.after;
        }
    }
    outcomes
}

/// The opening packet's outcomes with the connection's entry as a later packet left it. Where
/// several outcomes are possible, a later packet's belong to one of them by its original tuple.
fn keep_entries(opened: Vec<Outcome>, later: &[Outcome]) -> Vec<Outcome> {
    let renewed = |outcome: Outcome| -> Vec<Outcome> {
        let Some(old) = outcome.tracked.clone() else { return vec![outcome] };
        let same = |entry: &&unmasq_eval::connection::Tracked| {
            (&entry.source, &entry.destination) == (&old.source, &old.destination)
        };
        let mut entries: Vec<_> =
            later.iter().filter_map(|outcome| outcome.tracked.as_ref()).filter(same).collect();
        entries.dedup();
        let with = |entry: &unmasq_eval::connection::Tracked| Outcome {
            tracked: Some(entry.clone()),
            ..outcome.clone()
        };
        entries.into_iter().map(with).collect()
    };
    opened.into_iter().flat_map(renewed).collect()
}

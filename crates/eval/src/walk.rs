//! One walk of one packet: straight through, with [`Choices`] answering whatever is open.

use std::collections::BTreeMap;
use std::net::IpAddr;

use unmasq_model::expr::End;
use unmasq_model::packet::{Family, Packet, Transport};
use unmasq_model::rule::Verdict as RuleVerdict;
use unmasq_model::ruleset::{ChainKind, Hook};

use cause::{BitCauses, Cause};

use crate::Evaluator;
use crate::choice::{Choices, Kind};
use crate::connection::{Later, Tracked};
use crate::trace::{
    By, Disposition, Effect, Endpoint, Hit, Outcome, Port, Query, Reason, Rewrite, RuleId, Stage,
    Verdict,
};

mod cause;
mod expr;
mod ingress;
mod nat;
mod path;
mod rules;
mod test;

/// A walk stops here, before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The packet is gone.
    End(Verdict, Option<Reason>),
    /// Nothing more can be told.
    Unknown(String),
}

/// `Err`: the walk is over.
pub(crate) type Step<T = ()> = Result<T, Stop>;

/// The packet's connection as far as rules can see it.
#[derive(Debug, Clone, Default)]
struct Connection {
    tracking: Tracking,
    mark: u32,
    /// `IPS_SRC_NAT`, `IPS_DST_NAT`: a translation changed something.
    source_changed: bool,
    destination_changed: bool,
    /// `IPS_SRC_NAT_DONE`, `IPS_DST_NAT_DONE`: nat chains aren't asked again.
    source_done: bool,
    destination_done: bool,
    /// The device that it was masqueraded for.
    masqueraded: Option<Box<str>>,
    /// `IPS_CONFIRMED`: it has passed the end of postrouting, or had before.
    confirmed: bool,
}

impl Connection {
    /// Whether rules see a connection.
    fn exists(&self) -> bool {
        matches!(self.tracking, Tracking::New | Tracking::Begun)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Tracking {
    /// Before the conntrack hook, or switched off.
    #[default]
    None,
    /// A new connection.
    New,
    /// One that began with an earlier packet ([`Later`]).
    Begun,
    /// `notrack`.
    Untracked,
    /// Settings for a connection that is not tracked yet (`CT --zone`): `notrack` has no effect.
    Template,
}

pub(crate) struct Walk<'e, 'h, 'c> {
    evaluator: &'e Evaluator<'h>,
    choices: &'c mut Choices,
    /// As it was asked.
    original: Packet,
    /// Of which connection it is, if it doesn't open one.
    later: Option<Later>,
    /// As it is now.
    packet: Packet,
    /// `Err`: why the mark is not known.
    mark: Result<u32, String>,
    in_device: Option<Box<str>>,
    out_device: Option<Box<str>>,
    next_hop: Option<IpAddr>,
    bridged: bool,
    /// The device of a second route lookup in the output hook, whose chains still see the first.
    rerouted: Option<Box<str>>,
    connection: Connection,
    source_port: Port,
    destination_port: Port,
    rewritten_by: Option<RuleId>,
    because: Cause,
    hits: Vec<Hit>,
    /// What was decided about things that must agree within a walk: members of dynamic sets,
    /// sets that were not captured, kept state.
    decided: BTreeMap<String, bool>,
    /// Who last changed the packet's mark, the connection's mark, the destination.
    mark_cause: BitCauses,
    ct_mark_cause: BitCauses,
    destination_cause: Cause,
    assumptions: Vec<String>,
}

impl<'e, 'h, 'c> Walk<'e, 'h, 'c> {
    pub(crate) fn new(
        evaluator: &'e Evaluator<'h>,
        choices: &'c mut Choices,
        query: &Query,
        in_device: Option<&str>,
    ) -> Self {
        let packet = &query.packet;
        Walk {
            evaluator,
            choices,
            original: packet.clone(),
            later: query.later.clone(),
            packet: packet.clone(),
            mark: Ok(packet.mark),
            in_device: in_device.map(Into::into),
            out_device: None,
            next_hop: None,
            bridged: false,
            rerouted: None,
            connection: Connection::default(),
            source_port: port(packet, End::Source),
            destination_port: port(packet, End::Destination),
            rewritten_by: None,
            because: Cause::new(),
            hits: Vec::new(),
            decided: BTreeMap::new(),
            mark_cause: BitCauses::default(),
            ct_mark_cause: BitCauses::default(),
            destination_cause: Cause::new(),
            assumptions: Vec::new(),
        }
    }

    /// Walks to the end; also gives what was assumed on the way.
    pub(crate) fn run(mut self) -> (Outcome, Vec<String>) {
        let stop = match self.path() {
            Ok(verdict) => Stop::End(verdict, None),
            Err(stop) => stop,
        };
        let assumptions = std::mem::take(&mut self.assumptions);
        (self.outcome(stop), assumptions)
    }

    fn outcome(self, stop: Stop) -> Outcome {
        let (verdict, reason, unknown) = match stop {
            Stop::End(verdict, reason) => (verdict, reason, Vec::new()),
            Stop::Unknown(why) => (Verdict::Unknown, None, vec![why]),
        };
        let known = verdict != Verdict::Unknown;
        let rewrite = |before: IpAddr, before_port, after: IpAddr, after_port| Rewrite {
            disposition: match (known, before == after) {
                (false, _) => Disposition::Unknown,
                (true, true) => Disposition::Preserved,
                (true, false) => Disposition::Rewritten,
            },
            before: Endpoint { address: Some(before), port: before_port },
            after: if known {
                Endpoint { address: Some(after), port: after_port }
            } else {
                Endpoint { address: None, port: Port::Unknown }
            },
        };
        let (before, after) = (&self.original, &self.packet);
        let source =
            rewrite(before.source, port(before, End::Source), after.source, self.source_port);
        let destination = rewrite(
            before.destination,
            port(before, End::Destination),
            after.destination,
            self.destination_port,
        );
        let rewritten = source.disposition == Disposition::Rewritten;
        let leaves = verdict == Verdict::Forwarded;
        let tracked = self.tracked((verdict, reason), &source, &destination);
        Outcome {
            probability: Some(1.0),
            verdict,
            reason,
            source,
            destination,
            out: self.out_device.filter(|_| leaves),
            next_hop: self.next_hop.filter(|_| leaves),
            bridged: self.bridged && leaves,
            rewritten_by: self.rewritten_by.filter(|_| rewritten),
            because: if rewritten { self.because } else { Cause::new() },
            tracked,
            hits: self.hits,
            unknown,
        }
    }

    /// What conntrack keeps: the entry is confirmed when the packet has passed all hooks.
    fn tracked(
        &self,
        (verdict, reason): (Verdict, Option<Reason>),
        source: &Rewrite,
        destination: &Rewrite,
    ) -> Option<Tracked> {
        let connection = &self.connection;
        let passes = matches!(verdict, Verdict::Delivered | Verdict::Forwarded);
        let entry = self.later.as_ref().and_then(|later| later.connection.as_ref());
        match (connection.tracking, entry) {
            (Tracking::Begun, Some(_)) if reason == Some(Reason::Moved) => None,
            (Tracking::Begun, Some(entry)) => {
                Some(Tracked { mark: connection.mark, ..entry.clone() })
            }
            (Tracking::New, _) if passes => Some(Tracked {
                source: source.clone(),
                destination: destination.clone(),
                mark: connection.mark,
                source_done: connection.source_done,
                destination_done: connection.destination_done,
                masqueraded: connection.masqueraded.clone(),
            }),
            (Tracking::None | Tracking::New | Tracking::Begun, _)
            | (Tracking::Untracked | Tracking::Template, _) => None,
        }
    }

    fn family(&self) -> Family {
        self.packet.family()
    }

    /// Records something that the kernel did outside any rule.
    fn note(&mut self, stage: Stage, by: &str, did: impl Into<String>) {
        self.hits.push(Hit {
            stage,
            by: By::Kernel(by.to_owned()),
            depth: 0,
            counted: false,
            effects: vec![Effect::Kernel(did.into())],
        });
    }

    /// Ends the walk by a decision of the kernel outside any rule.
    fn end<T>(&mut self, verdict: Verdict, reason: Reason, by: &str, did: &str) -> Step<T> {
        self.note(Stage::Routing, by, did);
        Err(Stop::End(verdict, Some(reason)))
    }

    /// A thing that is not known, but for which one answer may be taken for granted.
    fn assume(&mut self, assumption: String) -> Step {
        if self.evaluator.options.strict {
            return Err(Stop::Unknown(format!("not assumed (--strict): {assumption}")));
        }
        if !self.assumptions.contains(&assumption) {
            self.assumptions.push(assumption);
        }
        Ok(())
    }

    /// A yes or no that must agree within the walk if it has a key.
    fn decide(&mut self, key: Option<&str>, kind: Kind) -> bool {
        if let Some(decided) = key.and_then(|key| self.decided.get(key)) {
            return *decided;
        }
        // The first branch is "no": a walk without the rule reads best.
        let yes = self.choices.choose(kind, 2) == 1;
        if let Some(key) = key {
            self.decided.insert(key.to_owned(), yes);
        }
        yes
    }

    /// A kind of choice that is made because something is not known.
    fn unknown(&self, why: String, at: Option<Hit>) -> Kind {
        Kind::Unknown { why, before: self.hits.len(), at: at.map(Box::new) }
    }
}

/// The port of a packet as an outcome shows it.
pub(crate) fn port(packet: &Packet, end: End) -> Port {
    match packet.transport {
        Transport::Ports { source, destination } => {
            match if end == End::Source { source } else { destination } {
                Some(port) => Port::Exactly(port),
                None => Port::Unknown,
            }
        }
        Transport::Icmp { .. } | Transport::Other => Port::None,
    }
}

/// Whether a chain of this kind in this hook makes the kernel route again when it changes
/// something that routing looks at.
fn reroutes(kind: ChainKind, hook: Hook) -> bool {
    match kind {
        ChainKind::Route => hook == Hook::Output,
        ChainKind::Filter | ChainKind::Nat => false,
    }
}

/// How a base chain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Accepted,
    /// A translation was set up: no other nat chain is asked.
    Bound,
}

/// The verdict of a rule that was evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ruled {
    /// On with the next rule.
    Next,
    /// A verdict.
    Verdict(RuleVerdict),
    /// A translation: accept, and no other nat chain.
    Bound,
}

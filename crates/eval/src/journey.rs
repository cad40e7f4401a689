//! A packet's way over several hosts, and the way of its answer.
//!
//! In: hosts made ready for questions, and a [`Wiring`] that says who receives what a host sends
//! out of a device. Out: [`Journey`]s, one for each combination of outcomes, each a list of
//! [`Leg`]s. Each host walks the packet by itself; marks don't cross from one to the next.
//!
//! ```text
//! pod ──▶ its node ──▶ (overlay, route) ──▶ another node ──▶ pod      there
//!  ◀────────────────────────────────────────────────────────┘         back: each host translates
//!                                                                     from its own entry
//! ```
//!
//! What a host keeps of a connection counts for every later packet of it there: of the answer, and
//! of the packet itself where a router sends it back to a host that has had it.
//!
//! A tunnel is one step here: what encapsulates the packet is not walked through the hooks of the
//! hosts at its ends.

use std::net::IpAddr;

use unmasq_model::expr::{Direction, End};
use unmasq_model::packet::{Packet, Transport};

use crate::Evaluator;
use crate::connection::{Later, Tracked};
use crate::trace::{Endpoint, Outcome, Port, Query, Reason, Rewrite, Start, Trace, Verdict};

/// No more hosts than this on one way: more are a loop.
const MAX_LEGS: usize = 16;
/// No more ways than this.
const MAX_JOURNEYS: usize = 256;

/// Who receives what a host sends.
pub trait Wiring {
    /// Where `packet` lands, which `host` sends out of `device` to the neighbour `next_hop`.
    fn next(&self, host: usize, device: &str, next_hop: IpAddr, packet: &Packet) -> Landing;
}

/// Where a packet lands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landing {
    /// At a host, which it comes into by a device.
    Host {
        /// Index of the host.
        host: usize,
        /// The device's name there.
        device: Box<str>,
    },
    /// At somebody whose state isn't walked: he is taken to be, or to lead to, the one that the
    /// packet is meant for.
    Beyond,
    /// Nobody has that address.
    Nowhere,
    /// It can't be told, for this reason.
    Unknown(String),
}

/// What one host does with the packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Leg {
    /// Index of the host.
    pub host: usize,
    /// The packet as it came there.
    pub query: Query,
    /// What came of it.
    pub outcome: Outcome,
}

impl Leg {
    /// Whether the outcome was joined of several that differ in the entry: nothing is known of it.
    fn is_in_doubt(&self) -> bool {
        self.outcome.tracked.is_none() && !self.outcome.unknown.is_empty()
    }
}

/// How a journey ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// At the host of the last leg.
    Delivered,
    /// At somebody whose state isn't walked, by what the last leg's host sent.
    Left,
    /// The last leg's host dropped it.
    Dropped(Option<Reason>),
    /// The last leg's host refused it.
    Rejected(Option<Reason>),
    /// Nobody received what the last leg's host sent.
    Lost,
    /// It can't be told, for these reasons.
    Unknown(Vec<String>),
}

/// One way that a packet can take.
#[derive(Debug, Clone, PartialEq)]
pub struct Journey {
    /// The hosts on the way, in order; never empty.
    pub legs: Vec<Leg>,
    /// How it ends.
    pub arrival: Arrival,
    /// What was taken for granted on the way, a sentence each, in the order met: what the hosts'
    /// traces list ([`crate::trace::Trace::assumptions`]), each once.
    pub assumptions: Vec<String>,
}

/// A journey that is not at its end.
#[derive(Clone, Default)]
struct Way {
    legs: Vec<Leg>,
    assumptions: Vec<String>,
}

impl Way {
    /// The way on over a host, with what its trace took for granted.
    fn and(&self, leg: Leg, assumed: &[String]) -> Way {
        let mut way = self.clone();
        way.legs.push(leg);
        for assumption in assumed {
            if !way.assumptions.contains(assumption) {
                way.assumptions.push(assumption.clone());
            }
        }
        way
    }

    fn ends(self, arrival: Arrival) -> Journey {
        Journey { legs: self.legs, arrival, assumptions: self.assumptions }
    }
}

impl Journey {
    /// The hosts that forward it, neither the first nor the last, nor those whose bridge passes it
    /// on: by how much its time to live shrinks.
    pub fn hops(&self) -> usize {
        self.legs.iter().filter(|leg| forwards(&leg.query, &leg.outcome)).count()
    }

    /// Source and destination where it ends. A host that passes on a port which it can't know
    /// leaves what an earlier one said of it: the range that it was chosen from.
    pub fn ends(&self) -> Option<(Endpoint, Endpoint)> {
        let source = self.known(|outcome| &outcome.source)?;
        Some((source, self.known(|outcome| &outcome.destination)?))
    }

    fn known(&self, of: impl Fn(&Outcome) -> &Rewrite) -> Option<Endpoint> {
        let mut ends = self.legs.iter().rev().map(|leg| of(&leg.outcome));
        let mut last = ends.next()?;
        let found = last.after;
        for earlier in ends {
            let passed_on = last.before == last.after && last.after.port == Port::Unknown;
            if !passed_on || earlier.after.address != found.address {
                break;
            }
            last = earlier;
        }
        Some(Endpoint { port: last.after.port, ..found })
    }

    /// The legs whose host rewrote the source.
    pub fn rewrites(&self) -> impl Iterator<Item = &Leg> {
        self.legs.iter().filter(|leg| leg.outcome.rewritten_by.is_some())
    }

    fn last_host(&self) -> Option<usize> {
        self.legs.last().map(|leg| leg.host)
    }
}

/// Hosts with what connects them.
pub struct Net<'a, 'h> {
    hosts: &'a [Evaluator<'h>],
    wiring: &'a dyn Wiring,
}

impl<'a, 'h> Net<'a, 'h> {
    /// Hosts by index, and who receives what.
    pub fn new(hosts: &'a [Evaluator<'h>], wiring: &'a dyn Wiring) -> Self {
        Net { hosts, wiring }
    }

    /// The ways of a packet that opens a connection, sent by a host or coming into it.
    pub fn there(&self, host: usize, query: Query) -> Vec<Journey> {
        self.journeys((host, None), query, &[])
    }

    /// The ways of the answer to a packet that arrived. Empty for one that didn't. One that left
    /// the hosts that are walked is taken to be answered by the link that it left by.
    pub fn back(&self, there: &Journey) -> Vec<Journey> {
        let Some(last) = there.legs.last() else { return Vec::new() };
        let by = match &there.arrival {
            Arrival::Delivered => None,
            Arrival::Left => last.outcome.out.clone(),
            Arrival::Dropped(_) | Arrival::Rejected(_) | Arrival::Lost | Arrival::Unknown(_) => {
                return Vec::new();
            }
        };
        if let Some(leg) = there.legs.iter().find(|leg| leg.is_in_doubt()) {
            let arrival = Arrival::Unknown(leg.outcome.unknown.clone());
            return vec![Journey { arrival, ..there.clone() }];
        }
        let Some(query) = last.outcome.answer(&last.query.packet, by) else {
            return Vec::new();
        };
        self.journeys((last.host, None), query, &there.legs)
    }

    /// The ways of the error about a packet that the last leg's host refused, or of its reset:
    /// that host sends it by its own routes. Empty for a packet that was not refused, or whose own
    /// host refused it: then the one who asked is taken to know at once.
    ///
    /// Conntrack translates the packet inside of the error as it does an answer (net/netfilter/
    /// nf_nat_core.c, `nf_nat_icmp_reply_translation`), and so its way is walked as an answer's:
    /// rules that ask for errors of ICMP, or for their sender, are not met here.
    pub fn refusal(&self, there: &Journey) -> Vec<Journey> {
        let (Arrival::Rejected(_), [before @ .., last]) = (&there.arrival, &there.legs[..]) else {
            return Vec::new();
        };
        if before.is_empty() && last.query.in_device.is_none() {
            return Vec::new();
        }
        match last.outcome.refusal(&last.query) {
            Some(query) => self.journeys((last.host, Some(Start::Output)), query, &there.legs),
            None => Vec::new(),
        }
    }

    /// Whether an answer reaches the one who asked, from the address that was called: a socket
    /// takes no other. For one whose state isn't walked, the answer has to leave by whatever host;
    /// where routers on the way want both directions to take the same way, that is not enough.
    pub fn answers(there: &Journey, back: &Journey) -> bool {
        let (Some(first), Some((source, destination))) = (there.legs.first(), back.ends()) else {
            return false;
        };
        let (from, to) = (first.outcome.source.before, first.outcome.destination.before);
        let reached = match first.query.in_device {
            None => back.arrival == Arrival::Delivered && back.last_host() == Some(first.host),
            Some(_) => back.arrival == Arrival::Left,
        };
        reached && same(from, destination) && same(to, source)
    }

    /// Depth first, over every outcome at every host. `start`: where the walk of the first host
    /// begins, if the packet doesn't say. `before`: the legs of the packet that this one answers.
    fn journeys(
        &self,
        (host, start): (usize, Option<Start>),
        query: Query,
        before: &[Leg],
    ) -> Vec<Journey> {
        let mut done = Vec::new();
        let mut open: Vec<(Way, usize, Query)> = vec![(Way::default(), host, query)];
        while let Some((way, host, query)) = open.pop() {
            let Some(evaluator) = self.hosts.get(host) else { continue };
            let trace = match &start {
                Some(start) if way.legs.is_empty() => evaluator.trace_from(start.clone(), &query),
                Some(_) | None => evaluator.trace(&query),
            };
            let Trace { outcomes, assumptions, .. } = trace;
            for outcome in outcomes {
                let way = way.and(Leg { host, query: query.clone(), outcome }, &assumptions);
                match self.goes_on(&way.legs, before) {
                    Ok((host, query)) if done.len() + open.len() < MAX_JOURNEYS => {
                        open.push((way, host, query));
                    }
                    Ok(_) => {
                        let why = "there are more ways than could be walked".to_owned();
                        done.push(way.ends(Arrival::Unknown(vec![why])));
                    }
                    Err(arrival) => done.push(way.ends(arrival)),
                }
            }
        }
        done
    }

    /// The next host and the packet as it comes there, or how the journey ends.
    fn goes_on(&self, legs: &[Leg], before: &[Leg]) -> Result<(usize, Query), Arrival> {
        let unknown = |why: String| Arrival::Unknown(vec![why]);
        let [earlier @ .., Leg { host, query, outcome }] = legs else {
            return Err(unknown("no host".to_owned()));
        };
        if matches!(outcome.verdict, Verdict::Delivered | Verdict::Forwarded)
            && let Some(why) = clash(earlier, *host, outcome)
        {
            return Err(unknown(why));
        }
        match outcome.verdict {
            Verdict::Delivered => return Err(Arrival::Delivered),
            Verdict::Dropped => return Err(Arrival::Dropped(outcome.reason)),
            Verdict::Rejected => return Err(Arrival::Rejected(outcome.reason)),
            Verdict::Unknown => return Err(Arrival::Unknown(outcome.unknown.clone())),
            Verdict::Forwarded => {}
        }
        let packet = sent_on(query, outcome).ok_or_else(|| {
            let reasons = &outcome.unknown;
            Arrival::Unknown(match reasons.is_empty() {
                true => vec!["its addresses are not known".to_owned()],
                false => reasons.clone(),
            })
        })?;
        let (Some(device), Some(next_hop)) = (outcome.out.as_deref(), outcome.next_hop) else {
            return Err(unknown("by which device it leaves is not known".to_owned()));
        };
        if legs.len() >= MAX_LEGS {
            return Err(unknown(format!("it is still on its way after {MAX_LEGS} hosts")));
        }
        match self.wiring.next(*host, device, next_hop, &packet) {
            Landing::Nowhere => Err(Arrival::Lost),
            Landing::Beyond => Err(Arrival::Left),
            Landing::Unknown(why) => Err(unknown(why)),
            Landing::Host { host, device } => {
                // What a host keeps is settled when it has sent the packet on.
                if let Some(leg) = legs.iter().find(|leg| leg.host == host && leg.is_in_doubt()) {
                    return Err(Arrival::Unknown(leg.outcome.unknown.clone()));
                }
                let later = later(legs, before, host, &packet).map_err(unknown)?;
                Ok((host, Query { packet, in_device: Some(device), later }))
            }
        }
    }
}

/// Whether a host's routing passes a packet on that it didn't send itself.
fn forwards(query: &Query, outcome: &Outcome) -> bool {
    query.in_device.is_some() && outcome.verdict == Verdict::Forwarded && !outcome.bridged
}

/// The packet as the next host gets it.
fn sent_on(query: &Query, outcome: &Outcome) -> Option<Packet> {
    let (source, destination) = (outcome.source.after, outcome.destination.after);
    let packet = &query.packet;
    let forwarded = forwards(query, outcome);
    Some(Packet {
        protocol: packet.protocol,
        source: source.address?,
        destination: destination.address?,
        transport: match packet.transport {
            Transport::Ports { .. } => Transport::Ports {
                source: source.exact_port(),
                destination: destination.exact_port(),
            },
            icmp @ Transport::Icmp { .. } => icmp,
            Transport::Other => Transport::Other,
        },
        mark: 0,
        ttl: packet.ttl.map(|ttl| ttl.saturating_sub(u8::from(forwarded))),
    })
}

/// To which connection of a host a packet belongs: to the newest entry that its legs so far, or
/// those of the packet that it answers, left there. An answer without an entry belongs to nothing.
/// `Err`: it can't be told, and why.
fn later(
    legs: &[Leg],
    before: &[Leg],
    host: usize,
    packet: &Packet,
) -> Result<Option<Later>, String> {
    let of = |query: &Query| query.later.as_ref().map(|later| later.direction);
    for leg in before.iter().chain(legs).rev().filter(|leg| leg.host == host) {
        let Some(entry) = &leg.outcome.tracked else { continue };
        for direction in [Direction::Reply, Direction::Original] {
            let ends = [(End::Source, packet.source), (End::Destination, packet.destination)];
            let ends = ends.map(|(end, address)| {
                let port = crate::walk::port(packet, end);
                (entry.tuple(direction, end), Endpoint { address: Some(address), port })
            });
            if !ends.iter().all(|(tuple, own)| same(*tuple, *own)) {
                continue;
            }
            // Where both are open, it is one port that was chosen once.
            let is_open = |end: &Endpoint| matches!(end.port, Port::Between(..) | Port::Unknown);
            if ends.iter().any(|(tuple, own)| is_open(own) && !is_open(tuple)) {
                return Err(format!(
                    "the packet comes to one host twice, from {} the second time: whether it \
                     kept its port, and so belongs to the connection that it opened there, is \
                     not known",
                    packet.source
                ));
            }
            // The connection of a packet that comes again is new until an answer has passed.
            let answers = |leg: &&Leg| leg.host == host && of(&leg.query) == Some(Direction::Reply);
            let same_entry =
                |leg: &Leg| leg.outcome.tracked.as_ref().is_some_and(|other| is_same(other, entry));
            let answered = legs.iter().filter(answers).any(same_entry);
            return Ok(Some(Later { connection: Some(entry.clone()), direction, answered }));
        }
    }
    let answer = legs.first().is_some_and(|leg| of(&leg.query) == Some(Direction::Reply));
    let nothing = Later { connection: None, direction: Direction::Reply, answered: false };
    Ok(answer.then_some(nothing))
}

/// Whether two states of entries are of one connection.
fn is_same(one: &Tracked, other: &Tracked) -> bool {
    one.source == other.source && one.destination == other.destination
}

/// Whether a packet opens a connection at a host that already has one with the same answer: the
/// kernel then gives the newer one another source port (net/netfilter/nf_nat_core.c,
/// `get_unique_tuple`; docs/lab-notes/07-port-clash.md), and which one can't be told.
fn clash(earlier: &[Leg], host: usize, outcome: &Outcome) -> Option<String> {
    let new = outcome.tracked.as_ref()?;
    let answer = |entry: &Tracked, end| entry.tuple(Direction::Reply, end);
    let clashes = |entry: &&Tracked| {
        !is_same(entry, new)
            && same(answer(entry, End::Source), answer(new, End::Source))
            && same(answer(entry, End::Destination), answer(new, End::Destination))
    };
    let here = earlier.iter().filter(|leg| leg.host == host);
    let other = here.filter_map(|leg| leg.outcome.tracked.as_ref()).find(clashes)?;
    Some(format!(
        "the packet comes to one host twice, which has a connection of it already ({} > {}): what \
         its source port is changed to is not known",
        other.source.before, other.destination.before
    ))
}

/// Whether two ends can be the same: a port that is known only by its range, or not at all, can
/// be any that fits.
fn same(one: Endpoint, other: Endpoint) -> bool {
    let ports = match (one.port, other.port) {
        (Port::Exactly(port), Port::Exactly(other)) => port == other,
        (Port::Exactly(port), Port::Between(low, high))
        | (Port::Between(low, high), Port::Exactly(port)) => (low..=high).contains(&port),
        (Port::Between(..), Port::Between(..))
        | (Port::None | Port::Unknown, _)
        | (_, Port::None | Port::Unknown) => true,
    };
    one.address == other.address && ports
}

//! What to try with real connections, and what must come of it.
//!
//! ```text
//! questions ─ Concern ─▶ one Check for each connection ─ Paths::ways ─▶ Predicted ─┐
//!                                                          real packets ─▶ Seen ───┴─▶ Verdict
//! ```
//!
//! Questions are the matrix's: all clients, entries, families and Service ports, of each node. Those
//! that nobody can ask (an address that no pod has, a client outside that isn't there) are left out
//! and counted, and so are those beyond a bound. A prediction that is unknown agrees with nothing.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use unmasq_cluster::paths::{self, Call, Caller, Paths, Way};
use unmasq_model::packet::{Family, Protocol};

use super::build::{Teller, spread};
use super::change::{Outcome, of_answers, outcomes};
use super::questions::{NODE_PORT, Question, Questions};
use super::{Cell, Clients, Entry, Outside, Row, Witness};
use crate::expect::{self, Expectations, Judge};

mod bound;
mod judge;
#[cfg(test)]
mod tests;
mod vantage;

pub use judge::{Happened, Seen, Tried, Verdict, verdict};
pub use vantage::{HostOutside, Vantage};

/// Where nodes are called. Kubelet has the port that the matrix asks for.
pub const PORT_OF_NODES: u16 = 28_080;

/// Which connections matter.
#[derive(Clone, Copy)]
pub enum Concern<'a> {
    /// All.
    Everything,
    /// Those of these rows, as findings name them.
    Rows(&'a [&'a Row]),
    /// Those that an expectation is about.
    Expected(&'a Expectations),
    /// Those of which something else can happen in this other state of the cluster, which must be
    /// [comparable](super::change::are_comparable).
    Changed(&'a Paths<'a>),
}

/// What to try.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checks {
    /// In the order of the questions.
    pub checks: Vec<Check>,
    /// How many connections are concerned: those to try, and those that were left out.
    pub concerned: usize,
    /// What was left out, and how much of it.
    pub left_out: BTreeMap<LeftOut, usize>,
}

/// Why a connection isn't tried.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum LeftOut {
    /// More than wanted.
    #[error("more than are to be tried; all kinds are among those that are")]
    TooMany,
    /// A protocol without a program here.
    #[error("nothing here speaks {0}")]
    Protocol(Protocol),
    /// The caller is an address that no pod has.
    #[error("no pod is known there that could call")]
    NoPod,
    /// The caller is outside.
    #[error("no host outside is named that could call{}", of(.0))]
    NoCaller(Outside),
    /// Who is called is outside.
    #[error("no host outside is named that could be called")]
    NobodyOutside,
    /// A host outside has no route.
    #[error("{0} has no way there, or no way back")]
    NoWay(String),
    /// Nobody knows whether there is a router outside, and what it does.
    #[error(
        "what a router outside does with it is not known: outside.gateways of an expect.yaml says it"
    )]
    RouterUnknown,
    /// Nobody outside has a route to the pods.
    #[error("the router outside doesn't know the pods")]
    PodsUnknown,
    /// Whoever listens there wants to be told the source.
    #[error("who listens there takes only connections with a PROXY protocol header")]
    WantsHeader,
    /// A router outside translates.
    #[error("the router outside translates what leaves with that source")]
    TranslatedOutside,
}

fn of(outside: &Outside) -> String {
    match outside {
        Outside::Anybody => String::new(),
        Outside::NamedByRule(net) | Outside::NamedBySetting(net) => format!(", of {net}"),
    }
}

/// A connection to try.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The call. Where somebody outside calls an address that several nodes take, one for each.
    pub calls: Vec<Call>,
    /// How it enters.
    pub entry: Entry,
    /// Who calls, if it is somebody outside.
    pub outside: Option<Outside>,
    /// The name of that host, if it has one.
    pub name: Option<String>,
    /// The Service and its port: indices in `objects.services` and its `spec.ports`.
    pub service: Option<(u32, u32)>,
    /// The address that it is called from.
    pub own: Option<IpAddr>,
    /// What can come of it, each once.
    pub predicted: Vec<Predicted>,
}

/// What is predicted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Predicted {
    /// What the caller gets.
    pub what: What,
    /// Where it arrives, as far as known: address and port.
    pub at: Option<(IpAddr, Option<u16>)>,
}

/// What the caller gets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// An answer of somebody who sees the caller's own address.
    Preserved,
    /// An answer of somebody who sees this address.
    Rewritten(IpAddr),
    /// Nothing.
    Silence,
    /// Nothing, or an error: nobody has the address.
    Nobody,
    /// A refusal.
    Refusal,
    /// It can't be told, for these reasons.
    Unknown(Vec<String>),
}

impl Check {
    /// The call, of the first node that may take it.
    pub fn call(&self) -> &Call {
        // Made with one, and only ever added to.
        &self.calls[0]
    }

    /// Whether something unknown is among what can come of it.
    pub fn is_open(&self) -> bool {
        let unknown = |one: &Predicted| match &one.what {
            What::Unknown(_) => true,
            What::Preserved | What::Rewritten(_) | What::Silence | What::Nobody | What::Refusal => {
                false
            }
        };
        self.predicted.is_empty() || self.predicted.iter().any(unknown)
    }

    /// Whether an answer may come.
    pub fn may_be_answered(&self) -> bool {
        self.predicted.iter().any(|one| match &one.what {
            What::Preserved | What::Rewritten(_) | What::Unknown(_) => true,
            What::Silence | What::Nobody | What::Refusal => false,
        })
    }
}

/// Finds out what to try, at most so many. `progress` hears how many of how many Services are done,
/// from any thread.
pub fn checks(
    paths: &Paths<'_>,
    clients: &Clients,
    concern: Concern<'_>,
    vantage: &Vantage,
    most: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Checks {
    let clients = vantage.clients(clients);
    let questions = Questions::new(paths, &clients);
    let mut first = Part::new(paths, concern);
    questions.direct().into_iter().for_each(|question| first.ask(question));
    let mut found = first.found;
    let services = paths.cluster().objects.services.len();
    let parts = spread(services, progress, |range, done| {
        let mut part = Part::new(paths, concern);
        for service in range {
            questions.of_service(service).into_iter().for_each(|question| part.ask(question));
            done();
        }
        part.found
    });
    parts.into_iter().for_each(|part| found.extend(part));
    let pods: BTreeSet<IpAddr> =
        paths.cluster().pod_addresses().map(|(address, _)| address).collect();
    let mut all = Checks::default();
    let mut possible = Vec::new();
    for candidate in merged(found) {
        all.concerned += 1;
        match vantage.obstacle(&candidate.question, &pods) {
            Some(why) => *all.left_out.entry(why).or_default() += 1,
            None => possible.push((candidate.kind(), candidate)),
        }
    }
    let (possible, left) = bound::bounded(possible, most);
    if left > 0 {
        all.left_out.insert(LeftOut::TooMany, left);
    }
    for candidate in possible {
        let check = predict(paths, candidate, vantage);
        match vantage.beyond(paths.cluster(), &check) {
            Some(why) => *all.left_out.entry(why).or_default() += 1,
            None => all.checks.push(check),
        }
    }
    all
}

/// A question that is concerned, and what is like it.
struct Candidate {
    question: Question,
    /// The same call by way of other nodes.
    others: Vec<Call>,
    outcomes: Vec<Outcome>,
}

struct Part<'p, 'c, 'a> {
    teller: Teller<'p, 'c>,
    concern: Concern<'a>,
    other: Option<Teller<'a, 'a>>,
    /// For what is expected.
    judge: Option<Judge<'a>>,
    found: Vec<Candidate>,
}

impl<'p, 'c: 'a, 'a> Part<'p, 'c, 'a> {
    fn new(paths: &'p Paths<'c>, concern: Concern<'a>) -> Self {
        let other = match concern {
            Concern::Changed(other) => Some(Teller::new(other)),
            Concern::Everything | Concern::Rows(_) | Concern::Expected(_) => None,
        };
        let judge = match concern {
            Concern::Expected(expectations) => Some(Judge::new(expectations, paths.cluster())),
            Concern::Everything | Concern::Rows(_) | Concern::Changed(_) => None,
        };
        Part { teller: Teller::new(paths), concern, other, judge, found: Vec::new() }
    }

    fn ask(&mut self, question: Question) {
        let answers = self.teller.answers(&question);
        let is_concerned = match self.concern {
            Concern::Everything => true,
            Concern::Rows(rows) => {
                let service = question.service.map(|(service, _)| service);
                answers.iter().any(|(cell, _)| rows.iter().any(|row| is_of(row, cell, service)))
            }
            Concern::Expected(_) => {
                let judge = self.judge.as_ref();
                judge.is_some_and(|judge| {
                    answers.iter().any(|(cell, witness)| {
                        let (row, service) = alone(cell, witness);
                        judge.judge(&row, service) != expect::Verdict::Unspecified
                    })
                })
            }
            Concern::Changed(_) => self
                .other
                .as_mut()
                .is_some_and(|other| outcomes(other, &question) != of_answers(&answers)),
        };
        if is_concerned {
            let outcomes = of_answers(&answers);
            self.found.push(Candidate { question, others: Vec::new(), outcomes });
        }
    }
}

/// Whether an answer is one of a row's. Who is called outside may be another than was asked for.
fn is_of(row: &Row, cell: &Cell, service: Option<u32>) -> bool {
    let without = |cell: &Cell| Cell { destination: None, ..cell.clone() };
    let is_its = service.is_none_or(|service| row.services.binary_search(&service).is_ok());
    is_its && without(&row.cell) == without(cell)
}

/// An answer as a row of its own.
fn alone(cell: &Cell, witness: &Witness) -> (Row, Option<u32>) {
    let service = witness.service.map(|(service, _)| service);
    let services = service.into_iter().collect();
    let ports = witness.service.into_iter().collect();
    (Row { cell: cell.clone(), count: 1, services, ports, witness: witness.clone() }, service)
}

/// One for each connection that somebody can make: a client outside doesn't choose the node.
fn merged(found: Vec<Candidate>) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = Vec::new();
    let mut index = BTreeMap::new();
    for mut candidate in found {
        let Question { call, entry, .. } = &mut candidate.question;
        if *entry == Entry::Node && call.port == Some(NODE_PORT) {
            call.port = Some(PORT_OF_NODES);
        }
        let from = match call.from {
            Caller::Pod { address, .. } => (0, None, Some(address)),
            Caller::Node(node) => (1, Some(node), None),
            Caller::Outside { address, .. } => (2, None, Some(address)),
        };
        match index.entry((from, call.to, call.port, call.protocol)) {
            Place::Vacant(place) => {
                place.insert(all.len());
                all.push(candidate);
            }
            Place::Occupied(place) => {
                let own = &mut all[*place.get()];
                let other = candidate.question.call;
                if own.question.call != other && !own.others.contains(&other) {
                    own.others.push(other);
                }
                own.outcomes.extend(candidate.outcomes);
                own.outcomes.sort();
                own.outcomes.dedup();
            }
        }
    }
    all
}

/// What is alike: of a bounded number, each of these has its share.
type Kind = (Entry, Family, Protocol, Vec<Outcome>);

impl Candidate {
    fn kind(&self) -> Kind {
        let Question { entry, call, .. } = &self.question;
        (*entry, Family::of(call.to), call.protocol, self.outcomes.clone())
    }
}

fn predict(paths: &Paths<'_>, candidate: Candidate, vantage: &Vantage) -> Check {
    let Candidate { question, others, .. } = candidate;
    let calls: Vec<Call> = [vec![question.call], others].concat();
    let mut own = match calls[0].from {
        Caller::Pod { address, .. } | Caller::Outside { address, .. } => Some(address),
        Caller::Node(_) => None,
    };
    let mut predicted = BTreeSet::new();
    for call in &calls {
        match paths.ways(call) {
            Ok(ways) => {
                own = own.or(ways.first().map(|way| way.caller));
                predicted.extend(ways.iter().map(of_way));
            }
            Err(why) => {
                predicted.insert(Predicted { what: What::Unknown(vec![why]), at: None });
            }
        }
    }
    let name = match calls[0].from {
        Caller::Outside { address, .. } => vantage.host(address).map(|host| host.name.clone()),
        Caller::Pod { .. } | Caller::Node(_) => None,
    };
    let Question { entry, outside, service, .. } = question;
    let predicted = predicted.into_iter().collect();
    Check { calls, entry, outside, name, service, own, predicted }
}

fn of_way(way: &Way) -> Predicted {
    let what = match (&way.fate, way.seen()) {
        (paths::Fate::Preserved, _) => What::Preserved,
        (paths::Fate::Rewritten, Some(seen)) => What::Rewritten(seen),
        (paths::Fate::Rewritten, None) => {
            What::Unknown(vec!["the source that arrives is not known".to_owned()])
        }
        (paths::Fate::NoAnswer(_) | paths::Fate::Dropped(_), _) => What::Silence,
        (paths::Fate::Rejected(_), _) => What::Refusal,
        (paths::Fate::Lost, _) => What::Nobody,
        (paths::Fate::Unknown(why), _) => What::Unknown(why.clone()),
    };
    let arrives = way.seen().and_then(|_| way.reached());
    let at = arrives.and_then(|end| Some((end.address?, end.exact_port())));
    Predicted { what, at }
}

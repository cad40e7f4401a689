//! What differs between two states of one cluster: the same questions asked of both.
//!
//! ```text
//! before: Paths ─┐
//! questions ─────┼─▶ outcomes before, outcomes after ─▶ Change (count, Services, witness)
//! after:  Paths ─┘
//! ```
//!
//! Questions are those of the state before: nodes, pods, Services and their ports are the same in
//! both, rules, settings and policies may differ. Rows would not do: a row is a count, and says
//! nothing of where its answers went.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::net::IpAddr;

use unmasq_cluster::paths::{Call, Paths};
use unmasq_model::packet::{Family, Protocol};

use super::build::{Teller, spread};
use super::questions::{Question, Questions};
use super::{Cell, Client, Clients, Entry, Fate, Placement};

/// What a change of a cluster does to sources.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// What differs, in order.
    pub rows: Vec<Change>,
    /// How many questions were asked of each state.
    pub asked: usize,
}

/// Questions whose answers change alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What is asked, and what becomes of it in both states.
    pub turn: Turn,
    /// How many questions are so.
    pub count: usize,
    /// The Services that they are about: indices in `objects.services`, in order.
    pub services: Vec<u32>,
    /// The first of them.
    pub witness: Call,
}

/// What is asked, and what becomes of it in both states.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// What is called.
    pub entry: Entry,
    /// Address family.
    pub family: Family,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Who is called, if it is somebody outside.
    pub destination: Option<IpAddr>,
    /// Everything that can happen in the state before, in order.
    pub before: Vec<Outcome>,
    /// Everything that can happen in the state after, in order.
    pub after: Vec<Outcome>,
}

/// One thing that can happen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// Who calls.
    pub client: Client,
    /// Where the endpoint is.
    pub placement: Placement,
    /// What becomes of the source.
    pub fate: Fate,
    /// How often the packet goes from one node to another.
    pub hops: usize,
}

/// Whether a change is for the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// The worst that can happen is no longer so bad.
    Better,
    /// As good as before: another rule, another node, another reason.
    Even,
    /// The worst that can happen is worse: a source that was kept is rewritten, what was answered
    /// is dropped, what was known can't be told.
    Worse,
}

impl Turn {
    /// Whether it is for the better.
    pub fn direction(&self) -> Direction {
        let worst = |all: &[Outcome]| {
            all.iter().map(|outcome| outcome.fate.harm()).max().unwrap_or(Harm::None)
        };
        match worst(&self.after).cmp(&worst(&self.before)) {
            std::cmp::Ordering::Less => Direction::Better,
            std::cmp::Ordering::Equal => Direction::Even,
            std::cmp::Ordering::Greater => Direction::Worse,
        }
    }

    /// Who calls, where all outcomes agree on it; else as the first says.
    pub fn client(&self) -> Option<&Client> {
        self.before.first().or(self.after.first()).map(|outcome| &outcome.client)
    }
}

/// How bad a fate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// The source is kept.
    None,
    /// It is rewritten, and answered.
    Rewritten,
    /// It can't be told.
    Unknown,
    /// Nobody answers.
    Unanswered,
}

impl Fate {
    /// How bad it is.
    pub fn harm(&self) -> Harm {
        match self {
            Fate::Preserved => Harm::None,
            Fate::Rewritten(_) => Harm::Rewritten,
            Fate::Unknown(_) => Harm::Unknown,
            Fate::NoAnswer(_) | Fate::Dropped(_) | Fate::Rejected(_) | Fate::Lost => {
                Harm::Unanswered
            }
        }
    }
}

/// Asks the same of two states. `progress` hears how many of how many Services are done, from any
/// thread.
///
/// Both must have the same nodes, in the same order, and the same Services.
pub fn changes(
    before: &Paths<'_>,
    after: &Paths<'_>,
    clients: &Clients,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Changes {
    let questions = Questions::new(before, clients);
    let mut first = Part::new(before, after);
    questions.direct().iter().for_each(|question| first.ask(question));
    let services = before.cluster().objects.services.len();
    let parts = spread(services, progress, |range, done| {
        let mut part = Part::new(before, after);
        for service in range {
            questions.of_service(service).iter().for_each(|question| part.ask(question));
            done();
        }
        (part.asked, part.found)
    });
    for (asked, found) in parts {
        first.asked += asked;
        for (turn, found) in found {
            match first.found.entry(turn) {
                Place::Vacant(place) => drop(place.insert(found)),
                Place::Occupied(own) => {
                    let own = own.into_mut();
                    own.count += found.count;
                    own.services.extend(found.services);
                }
            }
        }
    }
    let change = |(turn, found): (Turn, Found)| {
        let Found { count, services, witness } = found;
        Change { turn, count, services, witness }
    };
    Changes { rows: first.found.into_iter().map(change).collect(), asked: first.asked }
}

struct Found {
    count: usize,
    services: Vec<u32>,
    witness: Call,
}

struct Part<'p, 'b, 'a> {
    before: Teller<'p, 'b>,
    after: Teller<'p, 'a>,
    found: BTreeMap<Turn, Found>,
    asked: usize,
}

impl<'p, 'b, 'a> Part<'p, 'b, 'a> {
    fn new(before: &'p Paths<'b>, after: &'p Paths<'a>) -> Self {
        let (before, after) = (Teller::new(before), Teller::new(after));
        Part { before, after, found: BTreeMap::new(), asked: 0 }
    }

    fn ask(&mut self, question: &Question) {
        self.asked += 1;
        let before = outcomes(&mut self.before, question);
        let after = outcomes(&mut self.after, question);
        if before == after {
            return;
        }
        let turn = Turn {
            entry: question.entry,
            family: Family::of(question.call.to),
            protocol: question.call.protocol,
            destination: (question.entry == Entry::Outside).then_some(question.call.to),
            before,
            after,
        };
        let service = question.service.map(|(service, _)| service);
        let new = || Found { count: 0, services: Vec::new(), witness: question.call.clone() };
        let found = self.found.entry(turn).or_insert_with(new);
        found.count += 1;
        found.services.extend(service.filter(|service| found.services.last() != Some(service)));
    }
}

/// What can happen, each once.
fn outcomes(teller: &mut Teller<'_, '_>, question: &Question) -> Vec<Outcome> {
    let outcome = |cell: Cell| {
        let Cell { client, placement, fate, hops, .. } = cell;
        Outcome { client, placement, fate, hops }
    };
    let mut all: Vec<Outcome> =
        teller.answers(question).into_iter().map(|(cell, _)| outcome(cell)).collect();
    all.sort();
    all.dedup();
    all
}

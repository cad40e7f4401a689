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

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use unmasq_cluster::Cluster;
use unmasq_cluster::paths::{Call, Caller, Paths};
use unmasq_model::packet::{Family, Protocol};

use super::build::{Teller, spread};
use super::questions::{Question, Questions};
use super::{Cell, Client, Clients, Entry, Fate, Placement, Witness};

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
    /// Who calls, if it is somebody outside that is called.
    pub callers: BTreeSet<Caller>,
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
    /// The worst or the best that can happen is less bad, and neither is worse.
    Better,
    /// As good as before: another rule, another node, another reason.
    Even,
    /// What was dropped or rejected is answered: meant to be, or a gap in a firewall.
    Opened,
    /// Somebody outside gets the caller's own address and not a node's: good where that network has
    /// a way back to it.
    Revealed,
    /// The worst or the best that can happen is worse: a source that was kept is rewritten, what was
    /// answered is dropped, what was known can't be told.
    Worse,
}

impl Turn {
    /// Whether it is for the better. Outcomes are compared all together, and those of the same
    /// client and placement by themselves: one endpoint that can't be reached hides no other.
    pub fn direction(&self) -> Direction {
        let place = |outcome: &Outcome| (outcome.client.clone(), outcome.placement);
        let places: BTreeSet<_> = self.before.iter().map(place).collect();
        let of_place = places.iter().filter_map(|place| {
            let of = |all: &[Outcome]| {
                bounds(all.iter().filter(|one| (&one.client, one.placement) == (&place.0, place.1)))
            };
            Some((of(&self.before)?, of(&self.after)?))
        });
        let whole = bounds(&self.before).zip(bounds(&self.after));
        let pairs: Vec<_> = of_place.chain(whole).collect();
        let any = |holds: fn(Harm, Harm) -> bool| {
            pairs.iter().any(|(old, new)| holds(old.0, new.0) || holds(old.1, new.1))
        };
        let fates = |all: &[Outcome], is: fn(&Fate) -> bool| all.iter().any(|one| is(&one.fate));
        let refused = |fate: &Fate| matches!(fate, Fate::Dropped(_) | Fate::Rejected(_));
        let rewritten = |fate: &Fate| matches!(fate, Fate::Rewritten(_));
        if any(|old, new| new > old) {
            Direction::Worse
        } else if !any(|old, new| new < old) {
            Direction::Even
        } else if fates(&self.before, refused) && !fates(&self.after, refused) {
            Direction::Opened
        } else if self.entry == Entry::Outside && fates(&self.before, rewritten) {
            Direction::Revealed
        } else {
            Direction::Better
        }
    }

    /// Who calls, where all outcomes agree on it; else as the first says.
    pub fn client(&self) -> Option<&Client> {
        self.before.first().or(self.after.first()).map(|outcome| &outcome.client)
    }
}

/// The best and the worst that can happen.
fn bounds<'o>(outcomes: impl IntoIterator<Item = &'o Outcome>) -> Option<(Harm, Harm)> {
    let harms = outcomes.into_iter().map(|outcome| outcome.fate.harm());
    harms.fold(None, |all, harm| {
        let (best, worst) = all.unwrap_or((harm, harm));
        Some((harm.min(best), harm.max(worst)))
    })
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

/// Whether the same can be asked of two states: they have the same nodes and Services.
pub fn are_comparable(before: &Cluster, after: &Cluster) -> bool {
    let nodes = |cluster: &Cluster| -> Vec<String> {
        cluster.nodes.iter().map(|node| node.name.clone()).collect()
    };
    let services = |cluster: &Cluster| -> Vec<String> {
        cluster.objects.services.iter().map(|service| service.full_name()).collect()
    };
    nodes(before) == nodes(after) && services(before) == services(after)
}

/// Asks the same of two states. `progress` hears how many of how many Services are done, from any
/// thread.
///
/// They must be [comparable](are_comparable).
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
                    own.callers.extend(found.callers);
                }
            }
        }
    }
    let change = |(turn, found): (Turn, Found)| {
        let Found { count, services, callers, witness } = found;
        Change { turn, count, services, callers, witness }
    };
    Changes { rows: first.found.into_iter().map(change).collect(), asked: first.asked }
}

struct Found {
    count: usize,
    services: Vec<u32>,
    callers: BTreeSet<Caller>,
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
        let new = || Found {
            count: 0,
            services: Vec::new(),
            callers: BTreeSet::new(),
            witness: question.call.clone(),
        };
        let found = self.found.entry(turn).or_insert_with(new);
        found.count += 1;
        if question.entry == Entry::Outside {
            found.callers.insert(question.call.from.clone());
        }
        found.services.extend(service.filter(|service| found.services.last() != Some(service)));
    }
}

/// What can happen, each once.
pub(super) fn outcomes(teller: &mut Teller<'_, '_>, question: &Question) -> Vec<Outcome> {
    of_answers(&teller.answers(question))
}

/// The same of answers that are there.
pub(super) fn of_answers(answers: &[(Cell, Witness)]) -> Vec<Outcome> {
    let outcome = |(cell, _): &(Cell, Witness)| {
        let Cell { client, placement, fate, hops, .. } = cell.clone();
        Outcome { client, placement, fate, hops }
    };
    let mut all: Vec<Outcome> = answers.iter().map(outcome).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fate: Fate, placement: Placement) -> Outcome {
        Outcome { client: Client::Pod, placement, fate, hops: 0 }
    }

    #[test]
    fn what_was_kept_and_no_longer_can_be_is_worse_whatever_else_happens() {
        use Placement::{Elsewhere, Here};
        let kept = |place| of(Fate::Preserved, place);
        let lost = |place| of(Fate::Rewritten(Vec::new()), place);
        let refusal = super::super::Refusal { reason: None, owner: None };
        let dropped = |place| of(Fate::Dropped(refusal.clone()), place);
        for (before, after, direction) in [
            (vec![kept(Here)], vec![lost(Here)], Direction::Worse),
            (vec![kept(Here), lost(Here)], vec![lost(Here)], Direction::Worse),
            (
                vec![kept(Here), dropped(Elsewhere)],
                vec![lost(Here), dropped(Elsewhere)],
                Direction::Worse,
            ),
            (vec![lost(Here), lost(Elsewhere)], vec![kept(Here)], Direction::Better),
            (vec![lost(Here)], vec![kept(Here), lost(Here)], Direction::Better),
            (vec![lost(Here)], vec![lost(Elsewhere)], Direction::Even),
            (vec![dropped(Here)], vec![kept(Here)], Direction::Opened),
        ] {
            let turn = |entry| Turn {
                entry,
                family: Family::V4,
                protocol: Protocol::TCP,
                destination: None,
                before: before.clone(),
                after: after.clone(),
            };
            assert_eq!(turn(Entry::ClusterIp).direction(), direction, "{before:?} -> {after:?}");
            let outside = match direction {
                Direction::Better => Direction::Revealed,
                other => other,
            };
            assert_eq!(turn(Entry::Outside).direction(), outside, "{before:?} -> {after:?}");
        }
    }
}

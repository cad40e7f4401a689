//! Asks everything, and puts equal answers together.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::ops::Range;

use unmasq_cluster::paths::{self, Caller, Paths, Way};
use unmasq_eval::journey::Arrival;
use unmasq_model::packet::Family;

use super::cause::Causes;
use super::questions::{Question, Questions};
use super::{Cell, Client, Clients, Fate, Matrix, Placement, Row, Witness};

/// Asks everything about a cluster. `progress` hears how many of how many Services are done; it
/// is called from several threads.
pub fn build(
    paths: &Paths<'_>,
    clients: &Clients,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Matrix {
    let questions = Questions::new(paths, clients);
    let services = paths.cluster().objects.services.len();
    let mut first = Part::new(paths);
    questions.direct().iter().for_each(|question| first.ask(question));
    let parts = spread(services, progress, |range, done| {
        let mut part = Part::new(paths);
        for service in range {
            questions.of_service(service).iter().for_each(|question| part.ask(question));
            done();
        }
        part
    });
    parts.into_iter().for_each(|part| first.add(part));
    let assumptions = &mut first.teller.assumptions;
    assumptions.extend(questions.assumptions.iter().map(|one| (one.clone(), first.asked)));
    first.matrix()
}

/// Asks again what a row has only one witness of.
pub(crate) struct Asker<'p, 'c> {
    paths: &'p Paths<'c>,
    clients: &'p Clients,
    /// Made when something is asked.
    questions: OnceCell<Questions<'p, 'c>>,
}

impl<'p, 'c> Asker<'p, 'c> {
    pub(crate) fn new(paths: &'p Paths<'c>, clients: &'p Clients) -> Self {
        Asker { paths, clients, questions: OnceCell::new() }
    }

    /// The first call of a Service that is answered as a cell says.
    pub(crate) fn witness(&self, service: u32, cell: &Cell) -> Option<Witness> {
        let questions = self.questions.get_or_init(|| Questions::new(self.paths, self.clients));
        let mut teller = Teller::new(self.paths);
        let all = questions.of_service(service as usize);
        let mut may_be = all.iter().filter(|question| {
            let outside = match &cell.client {
                Client::Outside(outside) => Some(outside),
                Client::Pod
                | Client::PodElsewhere
                | Client::Endpoint
                | Client::Node
                | Client::NodeElsewhere => None,
            };
            question.entry == cell.entry
                && question.call.protocol == cell.protocol
                && Family::of(question.call.to) == cell.family
                && question.outside.as_ref() == outside
        });
        may_be.find_map(|question| {
            let mut answers = teller.answers(question).into_iter();
            answers.find_map(|(found, witness)| (found == *cell).then_some(witness))
        })
    }
}

/// Has all cores work on `0..count`, each on a range after the other, and gives back what they made
/// in order. `work` says for each number that it is done.
///
/// Small shares, so that no thread waits long for another's last one; in order, so that the same
/// input gives the same bytes.
pub(super) fn spread<T: Send>(
    count: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
    work: impl Fn(Range<usize>, &dyn Fn()) -> T + Sync,
) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let shares = share(count, (threads * 8).max(1));
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::atomic::AtomicUsize::new(0);
    let order = std::sync::atomic::Ordering::Relaxed;
    let worker = || {
        let mut parts: Vec<(usize, T)> = Vec::new();
        loop {
            let number = next.fetch_add(1, order);
            let Some(range) = shares.get(number) else { return parts };
            let told = || progress(done.fetch_add(1, order) + 1, count);
            parts.push((number, work(range.clone(), &told)));
        }
    };
    let mut parts: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(join).collect()
    });
    parts.sort_by_key(|(number, _)| *number);
    parts.into_iter().map(|(_, part)| part).collect()
}

/// What a thread gave; its panic goes on here.
fn join<T>(worker: std::thread::ScopedJoinHandle<'_, T>) -> T {
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Ranges of about the same size that cover `0..count`.
fn share(count: usize, parts: usize) -> Vec<Range<usize>> {
    let size = count.div_ceil(parts).max(1);
    (0..count).step_by(size).map(|start| start..(start + size).min(count)).collect()
}

/// Answers so far.
struct Part<'p, 'c> {
    teller: Teller<'p, 'c>,
    rows: BTreeMap<Cell, Found>,
    asked: usize,
}

/// A row without its cell.
struct Found {
    count: usize,
    services: Vec<u32>,
    ports: Vec<(u32, u32)>,
    witness: Witness,
}

impl<'p, 'c> Part<'p, 'c> {
    fn new(paths: &'p Paths<'c>) -> Self {
        let teller = Teller::new(paths);
        Part { teller, rows: BTreeMap::new(), asked: 0 }
    }

    fn ask(&mut self, question: &Question) {
        self.asked += 1;
        for (cell, witness) in self.teller.answers(question) {
            self.put(cell, witness);
        }
    }

    fn put(&mut self, cell: Cell, witness: Witness) {
        let port = witness.service;
        let found = match self.rows.entry(cell) {
            Place::Occupied(found) => found.into_mut(),
            Place::Vacant(place) => {
                let (services, ports) = (Vec::new(), Vec::new());
                place.insert(Found { count: 0, services, ports, witness })
            }
        };
        found.count += 1;
        if let Some(port) = port.filter(|port| found.ports.last() != Some(port)) {
            if found.services.last() != Some(&port.0) {
                found.services.push(port.0);
            }
            found.ports.push(port);
        }
    }

    /// Takes another's answers over, which come after its own.
    fn add(&mut self, other: Part<'_, '_>) {
        self.asked += other.asked;
        for (assumption, count) in other.teller.assumptions {
            *self.teller.assumptions.entry(assumption).or_default() += count;
        }
        for (cell, found) in other.rows {
            match self.rows.entry(cell) {
                Place::Vacant(place) => drop(place.insert(found)),
                Place::Occupied(own) => {
                    let own = own.into_mut();
                    own.count += found.count;
                    own.services.extend(found.services);
                    own.ports.extend(found.ports);
                }
            }
        }
    }

    fn matrix(self) -> Matrix {
        let row = |(cell, found): (Cell, Found)| {
            let Found { count, services, ports, witness } = found;
            Row { cell, count, services, ports, witness }
        };
        Matrix {
            rows: self.rows.into_iter().map(row).collect(),
            asked: self.asked,
            assumptions: self.teller.assumptions,
        }
    }
}

/// Asks, and says what became of it.
pub(super) struct Teller<'p, 'c> {
    paths: &'p Paths<'c>,
    causes: Causes<'p, 'c>,
    assumptions: BTreeMap<String, usize>,
}

impl<'p, 'c> Teller<'p, 'c> {
    pub(super) fn new(paths: &'p Paths<'c>) -> Self {
        Teller { paths, causes: Causes::new(paths), assumptions: BTreeMap::new() }
    }

    /// One for each thing that can happen.
    pub(super) fn answers(&mut self, question: &Question) -> Vec<(Cell, Witness)> {
        match self.paths.ways(&question.call) {
            Ok(ways) => ways
                .iter()
                .enumerate()
                .map(|(number, way)| self.note(question, number, way))
                .collect(),
            Err(why) => {
                let fate = Fate::Unknown(without_addresses(&why));
                let cell = self.cell(question, None, fate);
                let witness = Witness {
                    call: question.call.clone(),
                    way: 0,
                    service: question.service,
                    rewriters: Vec::new(),
                    seen: None,
                    reached: None,
                };
                vec![(cell, witness)]
            }
        }
    }

    fn note(&mut self, question: &Question, number: usize, way: &Way) -> (Cell, Witness) {
        for assumption in way.there.assumptions.iter() {
            match self.assumptions.get_mut(assumption) {
                Some(count) => *count += 1,
                None => drop(self.assumptions.insert(assumption.clone(), 1)),
            }
        }
        let fate = self.fate(question, way);
        let cell = self.cell(question, Some(way), fate);
        let witness = Witness {
            call: question.call.clone(),
            way: number,
            service: question.service,
            rewriters: way.rewriters().collect(),
            seen: way.seen(),
            reached: way.reached().and_then(|end| end.address),
        };
        (cell, witness)
    }

    fn fate(&mut self, question: &Question, way: &Way) -> Fate {
        let last = way.there.legs.last();
        match &way.fate {
            paths::Fate::Preserved => Fate::Preserved,
            paths::Fate::Rewritten => {
                let by_policy = is_by_policy(question);
                let causes = &mut self.causes;
                let legs = way.there.legs.iter();
                Fate::Rewritten(legs.filter_map(|leg| causes.of(leg, by_policy)).collect())
            }
            paths::Fate::NoAnswer(why) => Fate::NoAnswer(without_addresses(why)),
            paths::Fate::Dropped(reason) => Fate::Dropped(self.causes.refusal(last, *reason)),
            paths::Fate::Rejected(reason) => Fate::Rejected(self.causes.refusal(last, *reason)),
            paths::Fate::Lost => Fate::Lost,
            paths::Fate::Unknown(why) => {
                let why = why.first().map_or("no reason is known", String::as_str);
                Fate::Unknown(without_addresses(why))
            }
        }
    }

    fn cell(&self, question: &Question, way: Option<&Way>, fate: Fate) -> Cell {
        let reached = way.filter(|way| way.seen().is_some()).and_then(Way::reached);
        let end = way.filter(|_| reached.is_some()).and_then(|way| way.there.legs.last());
        let node = end.and_then(|leg| self.paths.node_of(leg.host));
        let left = way.is_some_and(|way| way.there.arrival == Arrival::Left);
        let placement = match node {
            _ if question.entry == super::Entry::Outside && left => Placement::None,
            None => Placement::None,
            Some(node) if node == question.taker => Placement::Here,
            Some(_) => Placement::Elsewhere,
        };
        let elsewhere = question.call.from.node() != question.taker;
        let address = reached.and_then(|end| end.address);
        let client = match (&question.call.from, &question.outside) {
            (Caller::Pod { address: own, .. }, _) if Some(*own) == address => Client::Endpoint,
            (Caller::Pod { .. }, _) if elsewhere => Client::PodElsewhere,
            (Caller::Pod { .. }, _) => Client::Pod,
            (Caller::Node(_), _) if elsewhere => Client::NodeElsewhere,
            (Caller::Node(_), _) => Client::Node,
            (Caller::Outside { .. }, Some(outside)) => Client::Outside(outside.clone()),
            (Caller::Outside { .. }, None) => Client::Outside(super::Outside::Anybody),
        };
        Cell {
            entry: question.entry,
            policy: question.policy,
            client,
            placement,
            family: Family::of(question.call.to),
            protocol: question.call.protocol,
            fate,
            hops: way.map_or(0, |way| self.paths.hops(way)),
            destination: (question.entry == super::Entry::Outside).then_some(question.call.to),
        }
    }
}

/// Whether `externalTrafficPolicy: Cluster` is about the address that is called.
fn is_by_policy(question: &Question) -> bool {
    use super::{Entry, Policy};
    let external = match question.entry {
        Entry::NodePort | Entry::LoadBalancer | Entry::ExternalIp => true,
        Entry::Pod | Entry::Node | Entry::Outside | Entry::ClusterIp => false,
    };
    external && question.policy == Some(Policy::Cluster)
}

/// A sentence without what differs from answer to answer.
fn without_addresses(why: &str) -> String {
    let words = why.split(' ').map(|word| {
        let bare = word.trim_end_matches(',');
        let address = bare.parse::<std::net::SocketAddr>().is_ok()
            || bare.parse::<std::net::IpAddr>().is_ok();
        if address { word.replace(bare, "another address") } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

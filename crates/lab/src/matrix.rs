//! Every client against every entry: what is foreseen, and what is seen.
//!
//! In: a [`Cluster`] with its servers. Out: a [`Matrix`], a [`Row`] for each question (who asks
//! whom, by which entry, protocol and family) with what the evaluator foresaw, walk by walk over
//! the hosts on the way and back, and what really happened. They must be the same.

mod again;
mod ask;
mod foresee;
mod proxied;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use unmasq_eval::journey::Net;
use unmasq_eval::trace::RuleId;
use unmasq_model::host;
use unmasq_model::packet::{Family, Protocol};

use crate::cluster::Cluster;
use crate::cluster::plan::Kind;
use crate::scenario::{Entry, Expectation, Fate};
use crate::traffic::{self, Ask, Attempt, Outcome, PATIENCE};

pub use again::trace_command;
pub use ask::questions;
pub(crate) use proxied::upstreams;

/// Who asks whom, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Index of the asking host.
    pub from: usize,
    /// What is asked.
    pub to: Target,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The address that is called.
    pub address: IpAddr,
    /// The port that is called; 0 without ports.
    pub port: u16,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A pod, or a host outside (egress), by its own address.
    Host(usize),
    /// A Service.
    Service {
        /// `namespace/name`
        name: String,
        /// How it is entered.
        entry: Entry,
        /// The node of a node port.
        via: Option<usize>,
    },
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ending {
    /// Of the client's address.
    pub fate: Fate,
    /// The name of the host that answered.
    pub server: Option<String>,
    /// The source that it saw.
    pub source: Option<IpAddr>,
    /// The client's address that a proxy told it, if it reads that.
    pub told: Option<IpAddr>,
    /// The hosts that forwarded the packet.
    pub hops: Option<usize>,
}

impl Ending {
    /// Of a question that no server answered.
    fn nobody(fate: Fate) -> Ending {
        Ending { fate, server: None, source: None, told: None, hops: None }
    }
}

impl Fate {
    /// Of a client with the address `own`, when a server saw `source` and a proxy told it `told`.
    fn of(own: Option<IpAddr>, source: Option<IpAddr>, told: Option<IpAddr>) -> Fate {
        match (source == own, told.is_some() && told == own) {
            (_, true) => Fate::Told,
            (true, false) => Fate::Preserved,
            (false, false) => Fate::Rewritten,
        }
    }
}

/// What is foreseen, with the rule that rewrites the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    /// What becomes of it.
    pub result: Ending,
    /// Where the source is rewritten, and by which rules, in the order of the way.
    pub rewriters: Vec<(usize, RuleId)>,
    /// The hosts on the way.
    pub way: Vec<usize>,
    /// Why nothing can be told.
    pub unknown: Vec<String>,
}

/// One question with its answers.
#[derive(Debug, Clone)]
pub struct Row {
    /// The question.
    pub question: Question,
    /// The port that it was asked from.
    pub source_port: u16,
    /// What may happen.
    pub foreseen: Vec<Foreseen>,
    /// What happened.
    pub seen: Ending,
    /// Why the attempt could not even be made.
    pub failed: Option<String>,
}

impl Row {
    /// What was foreseen and happened.
    pub fn agreed(&self) -> Option<&Foreseen> {
        // What was never asked proves nothing, and neither does one of several where another is open.
        if self.failed.is_some() || self.foreseen.iter().any(|one| !one.unknown.is_empty()) {
            return None;
        }
        self.foreseen.iter().find(|foreseen| foreseen.fits(&self.seen))
    }
}

impl Foreseen {
    /// Whether it is what was seen. Hops are compared where both are known.
    fn fits(&self, seen: &Ending) -> bool {
        let Ending { fate, server, source, told, hops } = &self.result;
        self.unknown.is_empty()
            && (fate, server, source, told) == (&seen.fate, &seen.server, &seen.source, &seen.told)
            && (hops.is_none() || seen.hops.is_none() || *hops == seen.hops)
    }
}

/// All rows, with the state that the foresight rests on.
pub struct Matrix {
    /// The rows, in the order of the questions.
    pub rows: Vec<Row>,
    /// Hosts as they were read, for the rules' texts.
    pub hosts: Vec<Option<host::Host>>,
    /// The files that they were read from.
    pub files: std::collections::BTreeMap<String, Vec<u8>>,
}

impl Matrix {
    /// Rows in which something else happened.
    pub fn disagreements(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.agreed().is_none())
    }

    /// The rows that an expectation is about.
    pub fn about<'m>(
        &'m self,
        cluster: &'m Cluster,
        expectation: &'m Expectation,
    ) -> impl Iterator<Item = &'m Row> {
        self.rows.iter().filter(move |row| concerns(cluster, expectation, &row.question))
    }
}

fn concerns(cluster: &Cluster, expectation: &Expectation, question: &Question) -> bool {
    let name = |index: usize| cluster.plan.hosts[index].name.as_str();
    let family = Family::of(question.address);
    let target = match &question.to {
        Target::Host(host) => name(*host) == expectation.to && expectation.entry.is_none(),
        Target::Service { name: service, entry, via } => {
            expectation.to.strip_prefix("service/") == Some(service)
                && expectation.entry.is_none_or(|wanted| wanted == *entry)
                && expectation.via.as_deref().is_none_or(|wanted| via.map(name) == Some(wanted))
        }
    };
    target
        && name(question.from) == expectation.from
        && expectation.family.is_none_or(|wanted| wanted.family() == family)
}

/// The first source port; each question has one of its own.
const FIRST_PORT: u16 = 10_000;
/// How many; as many follow for what is asked again. Node ports come after both.
const PORTS: usize = 10_000;
/// How long an answer is waited for that did not come at first: a SYN's second try is in it.
const SECOND_PATIENCE: Duration = Duration::from_secs(3);

/// Reads the state of all hosts, foresees, asks, and puts both side by side.
///
/// Connections that the hosts still track are forgotten before: a port that is used again would
/// keep the translation of the last time. What was silent though an answer was foreseen is asked
/// once more with more patience: a busy machine is no finding.
pub fn matrix(cluster: &Cluster, progress: crate::cluster::Progress) -> Result<Matrix> {
    progress("reading the state of all hosts");
    let state = cluster.observe()?;
    cluster.forget_connections()?;
    let questions = questions(cluster);
    progress(&format!("foreseeing {} connections", questions.len()));
    let begin = Instant::now();
    let nothing = host::Host::default();
    let evaluators = state.evaluators(&nothing);
    let net = Net::new(&evaluators, &cluster.plan.wires);
    let foresee = |question: &Question, source_port| Row {
        question: question.clone(),
        source_port,
        foreseen: foresee::foresee(cluster, &net, question, source_port),
        seen: Ending::nobody(Fate::Silent),
        failed: None,
    };
    let mut rows: Vec<Row> = questions
        .iter()
        .enumerate()
        .map(|(number, question)| foresee(question, FIRST_PORT + (number % PORTS) as u16))
        .collect();
    progress(&format!("foreseen in {} ms; asking", begin.elapsed().as_millis()));
    ask_all(cluster, &mut rows, PATIENCE);
    let doubtful = |row: &&mut Row| row.agreed().is_none() && row.seen.fate == Fate::Silent;
    let mut again: Vec<&mut Row> = rows.iter_mut().filter(doubtful).collect();
    if !again.is_empty() {
        progress(&format!("asking {} once more", again.len()));
        let mut second: Vec<Row> = again
            .iter()
            .map(|row| foresee(&row.question, row.source_port + PORTS as u16))
            .collect();
        ask_all(cluster, &mut second, SECOND_PATIENCE);
        again.iter_mut().zip(second).for_each(|(row, second)| **row = second);
    }
    drop(evaluators);
    Ok(Matrix { rows, hosts: state.hosts, files: state.files })
}

/// Asks all at once.
fn ask_all(cluster: &Cluster, rows: &mut [Row], patience: Duration) {
    let attempts: Vec<Attempt> =
        rows.iter().map(|row| Attempt { patience, ..attempt(cluster, row) }).collect();
    for (row, answer) in rows.iter_mut().zip(traffic::send(&attempts)) {
        (row.seen, row.failed) = seen(cluster, &row.question, &answer.outcome);
    }
}

fn attempt(cluster: &Cluster, row: &Row) -> Attempt {
    let Question { from, protocol, address, port, .. } = row.question.clone();
    let ask = match protocol {
        Protocol::TCP => Ask::http(),
        Protocol::UDP => Ask::Datagram,
        _ => Ask::Echo,
    };
    Attempt {
        namespace: Some(cluster.namespaces[from].path()),
        source: cluster.plan.address(from, Family::of(address)),
        source_port: if port == 0 { 0 } else { row.source_port },
        ..Attempt::new(std::net::SocketAddr::new(address, port), ask)
    }
}

/// The time to live that hosts of the lab begin with (net.ipv4.ip_default_ttl, hop_limit).
const TTL: u8 = 64;

/// What an answer means for the client's address.
fn seen(cluster: &Cluster, question: &Question, outcome: &Outcome) -> (Ending, Option<String>) {
    let nobody = Ending::nobody;
    match outcome {
        Outcome::Answered { report: Some(report), .. } => {
            let own = cluster.plan.address(question.from, Family::of(question.address));
            let told = proxied::told(cluster, question, report);
            let result = Ending {
                fate: Fate::of(own, Some(report.source.ip()), told),
                server: Some(report.by.clone()),
                source: Some(report.source.ip()),
                told,
                hops: report.ttl.map(|ttl| usize::from(TTL.saturating_sub(ttl))),
            };
            (result, None)
        }
        Outcome::Answered { report: None, .. } => {
            (nobody(Fate::Silent), Some("an answer that is none of the lab's servers'".into()))
        }
        Outcome::Refused { .. } => (nobody(Fate::Refused), None),
        Outcome::Misanswered { .. } | Outcome::Silent => (nobody(Fate::Silent), None),
        Outcome::Failed(why) => (nobody(Fate::Silent), Some(why.clone())),
    }
}

/// A row in words: the question, what was seen, and what had been foreseen.
pub fn describe(cluster: &Cluster, row: &Row) -> String {
    let name = |index: usize| cluster.plan.hosts[index].name.as_str();
    let Question { from, protocol, address, port, .. } = &row.question;
    let to = again::end(*address, (*port != 0).then_some(*port));
    let mut text = format!("{} -> {} {to}", name(*from), protocol);
    if let Target::Service { name: service, entry, via } = &row.question.to {
        let via = via.map(|node| format!(" of {}", name(node))).unwrap_or_default();
        text += &format!(" ({service} by {}{via})", entry.name());
    }
    let ending = |ending: &Ending| {
        let mut text = ending.fate.name().to_owned();
        if let Some(server) = &ending.server {
            text += &format!(", {server} saw");
        }
        if let Some(source) = ending.source {
            text += &format!(" {source}");
        }
        if let Some(told) = ending.told {
            text += &format!(", was told {told}");
        }
        if let Some(hops) = ending.hops {
            text += &format!(" after {hops} hops");
        }
        text
    };
    text += &format!(": {}", ending(&row.seen));
    if let Some(failed) = &row.failed {
        text += &format!(" ({failed})");
    }
    let foreseen: Vec<String> = row
        .foreseen
        .iter()
        .map(|one| {
            let way: Vec<&str> = one.way.iter().map(|host| name(*host)).collect();
            let why = if one.unknown.is_empty() {
                String::new()
            } else {
                format!(" (unknown: {})", one.unknown.join("; "))
            };
            format!("{}{why} by {}", ending(&one.result), way.join(", "))
        })
        .collect();
    text + &format!("; foreseen: {}", foreseen.join("; or "))
}

/// Whether a host has one of the lab's servers.
pub fn serves(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::Outside)
}

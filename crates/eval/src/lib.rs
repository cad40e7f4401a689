//! Walks a packet through a host as the kernel does: hooks, NAT, connection tracking, routing.
//!
//! In: a [`Host`] and the packet that opens a connection. Out: a [`trace::Trace`] with every
//! outcome, its probability, and the rules that led there. Pure; nothing is read or sent.
//!
//! ```text
//! Evaluator::new(host)            chains ordered per hook, big chains indexed, routes sorted
//!        └─ trace(query)          choice: walks again for every answer to an open question
//!              └─ walk            path ─ hooks ─ rules ─ tests ─ expressions
//!                    │            ingress: route lookups and their checks (fib, select)
//!                    └─ outcome   joined where a question has no answer
//! ```
//!
//! A connection's first packet is walked, and, from its outcome, its answer and what follows
//! ([`connection`]). What is not modelled gives an unknown outcome with its reason, never a guess.

use std::collections::BTreeMap;
use std::net::IpAddr;

use unmasq_model::expr::End;
use unmasq_model::host::Host;
use unmasq_model::link::Link;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::{Chain, ChainId, TableFamily};

use choice::Choices;
use fib::{Fib, Flow, Found};
use hooks::Plans;
use index::ChainIndex;
use trace::{Disposition, Endpoint, Options, Outcome, Port, Query, Rewrite, Start, Trace, Verdict};
use walk::Walk;

mod choice;
pub mod connection;
mod fib;
mod hooks;
mod index;
pub mod journey;
mod select;
pub mod trace;
mod walk;

/// A host made ready for questions.
pub struct Evaluator<'h> {
    host: &'h Host,
    options: Options,
    plans: [Plans; 2],
    indexes: Vec<Vec<Option<ChainIndex>>>,
    fib: Fib<'h>,
    /// By device: a bridge's ports, a VLAN's parent.
    below: BTreeMap<&'h str, Vec<&'h str>>,
    /// Chains of the netdev hooks, in whatever family.
    has_chains_at_devices: bool,
    /// Rules of the bridge family.
    has_bridge_rules: bool,
}

impl<'h> Evaluator<'h> {
    /// Orders and indexes the host's rules and routes. Takes time in proportion to them.
    pub fn new(host: &'h Host, options: Options) -> Self {
        let indexes = host
            .ruleset
            .tables
            .iter()
            .map(|table| table.chains.iter().map(ChainIndex::new).collect())
            .collect();
        Evaluator {
            host,
            options,
            plans: [Plans::new(host, Family::V4), Plans::new(host, Family::V6)],
            indexes,
            fib: Fib::new(host),
            below: below(host),
            has_chains_at_devices: chains(host, |family| {
                !matches!(family, TableFamily::Arp | TableFamily::Bridge)
            })
            .any(|chain| chain.base.is_some_and(|base| base.hook.is_none())),
            has_bridge_rules: chains(host, |family| family == TableFamily::Bridge)
                .any(|chain| !chain.rules.is_empty()),
        }
    }

    /// What can happen to a packet.
    pub fn trace(&self, query: &Query) -> Trace {
        match self.start(query) {
            Ok(start) => self.trace_from(start, query),
            Err(why) => unknown(query, why),
        }
    }

    /// What can happen to a packet whose walk begins there, whoever has its source.
    pub(crate) fn trace_from(&self, start: Start, query: &Query) -> Trace {
        let packet = query.packet.clone();
        let in_device = match &start {
            Start::In(device) => Some(&**device),
            Start::Output | Start::Unknown => None,
        };
        let mut assumptions: Vec<String> = Vec::new();
        let outcomes = choice::explore(self.options, |choices: &mut Choices| {
            let (outcome, assumed) = Walk::new(self, choices, query, in_device).run();
            for assumption in assumed {
                if !assumptions.contains(&assumption) {
                    assumptions.push(assumption);
                }
            }
            outcome
        });
        Trace { packet, start, assumptions, outcomes }
    }

    /// The address that the host itself sends from, to a destination, where nobody chooses another;
    /// `Ok(None)`: it has none, or no route.
    pub fn own_address(&self, destination: IpAddr) -> Result<Option<IpAddr>, String> {
        self.fib.own_address(destination)
    }

    /// Where the walk begins: the device asked for (a bridge's port counts as the bridge), or
    /// what the source says.
    fn start(&self, query: &Query) -> Result<Start, String> {
        if let Some(device) = &query.in_device {
            return Ok(Start::In(self.seen_by_ip(device).into()));
        }
        let source = query.packet.source;
        let loopback = matches!(source, IpAddr::V4(v4) if v4.is_loopback())
            || matches!(source, IpAddr::V6(v6) if v6.is_loopback());
        if loopback || self.fib.owns(source)? {
            return Ok(Start::Output);
        }
        let guide = "say by which device the packet comes in (--in)";
        let device = self.device_towards(source).map_err(|why| format!("{why}: {guide}"))?;
        Ok(Start::In(device))
    }

    /// The device that the host's routes lead to, towards an address; `Err`: there is none, or it
    /// can't be told which.
    pub fn device_towards(&self, address: IpAddr) -> Result<Box<str>, String> {
        let route = match self.fib.lookup(&Flow::to(address)) {
            Found::Unknown(why) => return Err(why),
            Found::Refused(_) => return Err(format!("there is no route back to {address}")),
            Found::Route(route) => route,
        };
        let devices: Vec<&str> =
            route.next_hops.iter().filter_map(|hop| hop.device.as_deref()).collect();
        match devices[..] {
            [device] => Ok(device.into()),
            _ => Err(format!("there are several ways back to {address}")),
        }
    }

    /// The device that IP sees a packet come in by: for a bridge's port, the bridge.
    fn seen_by_ip<'d>(&'d self, device: &'d str) -> &'d str {
        self.link(device)
            .and_then(|link| link.master.as_deref())
            .filter(|master| self.link(master).is_some_and(Link::is_bridge))
            .unwrap_or(device)
    }

    /// The host's device of that name.
    pub fn link(&self, name: &str) -> Option<&'h Link> {
        self.fib.link(name)
    }

    /// A device with those that its packets really pass: a bridge's ports, a VLAN's parent.
    fn at_and_below<'d>(&'d self, device: &'d str) -> Vec<&'d str> {
        let mut found = vec![device];
        let mut next = 0;
        while let Some(&device) = found.get(next) {
            next += 1;
            let below = self.below.get(device).into_iter().flatten().copied();
            let below: Vec<&str> = below.filter(|name| !found.contains(name)).collect();
            found.extend(below);
        }
        found
    }

    fn plans(&self, family: Family) -> &Plans {
        match family {
            Family::V4 => &self.plans[0],
            Family::V6 => &self.plans[1],
        }
    }

    fn index(&self, table: u32, chain: ChainId) -> Option<&ChainIndex> {
        self.indexes.get(table as usize)?.get(chain.0 as usize)?.as_ref()
    }
}

/// The chains of all tables of some families that are not dormant.
fn chains(host: &Host, of: impl Fn(TableFamily) -> bool) -> impl Iterator<Item = &Chain> {
    let tables = host.ruleset.tables.iter().filter(move |table| !table.dormant && of(table.family));
    tables.flat_map(|table| &table.chains)
}

fn below(host: &Host) -> BTreeMap<&str, Vec<&str>> {
    let mut below: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for link in host.links.iter().flatten() {
        if let Some(master) = link.master.as_deref() {
            below.entry(master).or_default().push(&link.name);
        }
        if let Some(lower) = link.lower.as_deref() {
            below.entry(&link.name).or_default().push(lower);
        }
    }
    below
}

/// The answer when not even the beginning is known.
fn unknown(query: &Query, why: String) -> Trace {
    let end = |end, address: IpAddr| Rewrite {
        disposition: Disposition::Unknown,
        before: Endpoint { address: Some(address), port: walk::port(&query.packet, end) },
        after: Endpoint { address: None, port: Port::Unknown },
    };
    Trace {
        packet: query.packet.clone(),
        start: Start::Unknown,
        assumptions: Vec::new(),
        outcomes: vec![Outcome {
            probability: None,
            verdict: Verdict::Unknown,
            reason: None,
            source: end(End::Source, query.packet.source),
            destination: end(End::Destination, query.packet.destination),
            out: None,
            next_hop: None,
            bridged: false,
            rewritten_by: None,
            because: Vec::new(),
            tracked: None,
            hits: Vec::new(),
            unknown: vec![why],
        }],
    }
}

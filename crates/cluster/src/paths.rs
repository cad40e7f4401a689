//! A packet's way through a cluster, and its answer's.
//!
//! In: a [`Cluster`], and a [`Call`]: who calls which address. Out: [`Way`]s, one for each thing
//! that can happen, with every host on the way walked by the evaluator and what became of the
//! caller's address.
//!
//! ```text
//! Caller ──▶ pod ──▶ its node ──▶ overlay or route ──▶ the other node ──▶ pod
//!              └ walked where its namespace was captured, else taken to have no rules
//! ```
//!
//! Hosts outside, routers between nodes, and what carries a tunnel's packets are not walked. Names
//! are resolved elsewhere, and who receives what a host sends is said in `wires`.

mod bridges;
#[cfg(test)]
mod tests;
mod untranslated;
mod wires;

use std::net::IpAddr;

use unmasq_eval::Evaluator;
use unmasq_eval::journey::{Arrival, Journey, Net};
use unmasq_eval::trace::{Options, Query, Reason, RuleId};
use unmasq_model::host::Host;
use unmasq_model::packet::{Family, Packet, Protocol};

use crate::Cluster;
use untranslated::Entries;
use wires::Wires;

pub use untranslated::{legacy_file, serves};

/// The hosts of a cluster made ready for questions.
pub struct Paths<'c> {
    cluster: &'c Cluster,
    hosts: Vec<Walked>,
    evaluators: Vec<Evaluator<'c>>,
    wires: Wires,
    entries: Entries,
}

/// A host whose state was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Walked {
    /// Index in [`Cluster::nodes`].
    Node(usize),
    /// A pod's network namespace.
    Pod {
        /// Index in [`Cluster::nodes`].
        node: usize,
        /// Index in its [`pods`](crate::Node::pods).
        pod: usize,
    },
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// A pod with this address, on a node.
    Pod {
        /// Index in [`Cluster::nodes`].
        node: usize,
        /// Its own address.
        address: IpAddr,
    },
    /// A node itself, from the address that it takes for the destination.
    Node(usize),
    /// Somebody outside, whose packets come to this node by the device of the node's own address.
    Outside {
        /// Index in [`Cluster::nodes`].
        node: usize,
        /// The caller's address.
        address: IpAddr,
    },
}

impl Caller {
    /// The node where the packet begins or comes in.
    pub fn node(&self) -> usize {
        match self {
            Caller::Pod { node, .. } | Caller::Node(node) | Caller::Outside { node, .. } => *node,
        }
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who calls.
    pub from: Caller,
    /// The port that is called from.
    pub source_port: Option<u16>,
    /// Whom.
    pub to: IpAddr,
    /// The port that is called.
    pub port: Option<u16>,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// One thing that can happen to a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    /// The address that the caller has.
    pub caller: IpAddr,
    /// The way there.
    pub there: Journey,
    /// The ways that the answer can take, or the error about a packet that is refused. Empty if
    /// there is none.
    pub back: Vec<Journey>,
    /// What became of the call.
    pub fate: Fate,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It arrives with the caller's address, and the answer comes back.
    Preserved,
    /// It arrives with another address, and the answer comes back.
    Rewritten,
    /// It arrives or is refused, and what is sent back doesn't come the way it must: what becomes
    /// of that.
    NoAnswer(String),
    /// It is thrown away in silence.
    Dropped(Option<Reason>),
    /// It is refused: the caller gets an error.
    Rejected(Option<Reason>),
    /// Nobody has the address that it is sent to.
    Lost,
    /// It can't be told, for these reasons.
    Unknown(Vec<String>),
}

impl Way {
    /// The source that the receiver sees; `None`: it doesn't arrive, or can't be told.
    pub fn seen(&self) -> Option<IpAddr> {
        match self.there.arrival {
            Arrival::Delivered | Arrival::Left => self.there.ends()?.0.address,
            Arrival::Dropped(_) | Arrival::Rejected(_) | Arrival::Lost | Arrival::Unknown(_) => {
                None
            }
        }
    }

    /// The address and port where it ends, as far as they are known.
    pub fn reached(&self) -> Option<unmasq_eval::trace::Endpoint> {
        Some(self.there.ends()?.1)
    }

    /// The rules that rewrote the source on the way there, each with its host.
    pub fn rewriters(&self) -> impl Iterator<Item = (usize, RuleId)> + '_ {
        self.there.rewrites().filter_map(|leg| Some((leg.host, leg.outcome.rewritten_by?)))
    }
}

impl<'c> Paths<'c> {
    /// Orders and indexes the rules and routes of all hosts. Takes time in proportion to them.
    pub fn new(cluster: &'c Cluster, options: Options) -> Self {
        let mut hosts = Vec::new();
        let mut states: Vec<&'c Host> = Vec::new();
        for (node, state) in cluster.nodes.iter().enumerate() {
            if let Some(host) = &state.host {
                hosts.push(Walked::Node(node));
                states.push(host);
            }
        }
        for (node, state) in cluster.nodes.iter().enumerate() {
            for (pod, state) in state.pods.iter().enumerate() {
                hosts.push(Walked::Pod { node, pod });
                states.push(&state.host);
            }
        }
        let options = Options { every_entry: true, ..options };
        let evaluators: Vec<Evaluator<'c>> =
            states.iter().map(|host| Evaluator::new(host, options)).collect();
        let wires = Wires::new(cluster, &hosts, &states, &evaluators);
        let entries = Entries::new(cluster);
        Paths { cluster, hosts, evaluators, wires, entries }
    }

    /// The cluster.
    pub fn cluster(&self) -> &'c Cluster {
        self.cluster
    }

    /// Which host a leg is at.
    pub fn walked(&self, host: usize) -> Option<Walked> {
        self.hosts.get(host).copied()
    }

    /// The state of the host of a leg.
    pub fn host(&self, host: usize) -> Option<&'c Host> {
        self.state(*self.hosts.get(host)?)
    }

    fn state(&self, walked: Walked) -> Option<&'c Host> {
        match walked {
            Walked::Node(node) => self.cluster.nodes.get(node)?.host.as_ref(),
            Walked::Pod { node, pod } => Some(&self.cluster.nodes.get(node)?.pods.get(pod)?.host),
        }
    }

    /// The node that a leg is at or in.
    pub fn node_of(&self, host: usize) -> Option<usize> {
        match self.hosts.get(host)? {
            Walked::Node(node) | Walked::Pod { node, .. } => Some(*node),
        }
    }

    /// How many times a way there goes from one node to another.
    pub fn hops(&self, way: &Way) -> usize {
        let nodes: Vec<usize> =
            way.there.legs.iter().filter_map(|leg| self.node_of(leg.host)).collect();
        nodes.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    /// Whether a node's state was captured, so that something can be asked of it.
    pub fn is_walked(&self, node: usize) -> bool {
        self.wires.node(node).is_some()
    }

    /// The address that a node itself takes towards a destination; `Err`: why none is known.
    pub fn node_address(&self, node: usize, to: IpAddr) -> Result<IpAddr, String> {
        let address = self.evaluators[self.wires.captured(node)?].own_address(to)?;
        let name = &self.cluster.nodes[node].name;
        address.ok_or_else(|| format!("node {name} has no address or route towards {to}"))
    }

    /// The device that a node's routes lead to, towards a destination; `None`: there is none, or it
    /// can't be told which.
    pub fn device_towards(&self, node: usize, to: IpAddr) -> Option<Box<str>> {
        self.evaluators[self.wires.captured(node).ok()?].device_towards(to).ok()
    }

    /// Everything that can happen to a call; `Err`: it can't even begin, and why.
    pub fn ways(&self, call: &Call) -> Result<Vec<Way>, String> {
        let (host, query) = self.opening(call)?;
        let net = Net::new(&self.evaluators, &self.wires);
        let caller = query.packet.source;
        let is_outside = matches!(call.from, Caller::Outside { .. });
        let way = |there: Journey| {
            let mut there = self.told_apart(there);
            there.assumptions.extend(self.taken_for_outside(&there));
            let back = match there.arrival {
                Arrival::Rejected(_) => net.refusal(&there),
                Arrival::Delivered
                | Arrival::Left
                | Arrival::Dropped(_)
                | Arrival::Lost
                | Arrival::Unknown(_) => net.back(&there),
            };
            let fate = match self.astray(&back).filter(|_| is_outside) {
                Some(device) => Fate::NoAnswer(format!(
                    "{} goes into {device}, which has that network",
                    sent_back(&there)
                )),
                None => fate(caller, &there, &back),
            };
            let fate = match (self.doubt(call, &there), fate) {
                (None, fate) => fate,
                (Some(why), Fate::Unknown(more)) => Fate::Unknown([vec![why], more].concat()),
                (
                    Some(why),
                    Fate::Preserved
                    | Fate::Rewritten
                    | Fate::NoAnswer(_)
                    | Fate::Dropped(_)
                    | Fate::Rejected(_)
                    | Fate::Lost,
                ) => Fate::Unknown(vec![why]),
            };
            Way { caller, there, back, fate }
        };
        Ok(net.there(host, query).into_iter().map(way).collect())
    }

    /// What is assumed of a packet that leaves the cluster: that no Service has its destination.
    fn taken_for_outside(&self, there: &Journey) -> Option<String> {
        let leaves = match there.arrival {
            Arrival::Left => true,
            Arrival::Delivered
            | Arrival::Dropped(_)
            | Arrival::Rejected(_)
            | Arrival::Lost
            | Arrival::Unknown(_) => false,
        };
        let (_, to) = there.ends().filter(|_| leaves)?;
        self.cluster.networks.services(Family::of(to.address?)).assumption.clone()
    }

    /// Why it can't be told what becomes of a Service's call that nothing translated.
    fn doubt(&self, call: &Call, there: &Journey) -> Option<String> {
        let at = call.from.node();
        let node = self.cluster.nodes.get(at)?;
        let to = (call.to, call.port);
        untranslated::doubt(&self.entries, there, to, &node.name, node.host.as_ref()?)
    }

    /// Where a call begins, and its first packet there.
    fn opening(&self, call: &Call) -> Result<(usize, Query), String> {
        let node = call.from.node();
        let walked = || self.wires.captured(node);
        let (host, source, in_device) = match &call.from {
            Caller::Node(_) => (walked()?, self.node_address(node, call.to)?, None),
            Caller::Pod { address, .. } => match self.wires.pod(*address) {
                Some(pod) => (pod, *address, None),
                None => {
                    let host = walked()?;
                    (host, *address, Some(self.towards(host, *address)?))
                }
            },
            Caller::Outside { address, .. } => {
                let host = walked()?;
                (host, *address, Some(self.uplink(host, *address)?))
            }
        };
        let packet = Packet::open(call.protocol, source, call.source_port, call.to, call.port);
        Ok((host, Query::opening(packet, in_device.as_deref())))
    }

    /// The device that leads to a pod whose namespace was not captured.
    fn towards(&self, host: usize, pod: IpAddr) -> Result<Box<str>, String> {
        self.evaluators[host].device_towards(pod)
    }

    /// The device that packets from outside come in by: the one with the node's own address.
    fn uplink(&self, host: usize, from: IpAddr) -> Result<Box<str>, String> {
        let family = Family::of(from);
        let state = self.host(host);
        let own = match self.hosts.get(host) {
            Some(Walked::Node(node)) => {
                let name = &self.cluster.nodes[*node].name;
                self.cluster.objects.node(name).and_then(|node| node.ip(family))
            }
            Some(Walked::Pod { .. }) | None => None,
        };
        let holds = |address: IpAddr| {
            let links = state?.links.as_ref()?;
            let has = |link: &&unmasq_model::link::Link| {
                link.addresses.iter().any(|one| one.local == address)
            };
            links.iter().find(has).map(|link| link.name.clone())
        };
        if let Some(device) = own.and_then(holds) {
            return Ok(device);
        }
        let everywhere: IpAddr = match family {
            Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        self.evaluators[host].device_towards(everywhere)
    }
}

/// What became of a call, by its way there and the ways back.
fn fate(caller: IpAddr, there: &Journey, back: &[Journey]) -> Fate {
    // What may get lost on its way back is lost for somebody; what can't be told says nothing.
    let lost = back.iter().find(|way| !Net::answers(there, way));
    match &there.arrival {
        Arrival::Dropped(reason) => return Fate::Dropped(*reason),
        Arrival::Rejected(reason) => {
            return lost.map_or(Fate::Rejected(*reason), |way| lost_on_its_way(there, way));
        }
        Arrival::Lost => return Fate::Lost,
        Arrival::Unknown(why) => return Fate::Unknown(why.clone()),
        Arrival::Delivered | Arrival::Left => {}
    }
    let Some((source, _)) = there.ends() else { return Fate::Unknown(Vec::new()) };
    let Some(seen) = source.address else {
        return Fate::Unknown(vec!["the source that arrives is not known".to_owned()]);
    };
    if let Some(lost) = lost {
        return lost_on_its_way(there, lost);
    }
    if back.is_empty() {
        return Fate::Unknown(vec!["what an answer would look like is not known".to_owned()]);
    }
    if seen == caller { Fate::Preserved } else { Fate::Rewritten }
}

/// What is sent back for a packet that arrived, or was refused.
fn sent_back(there: &Journey) -> &'static str {
    match there.arrival {
        Arrival::Rejected(_) => "the refusal",
        Arrival::Delivered
        | Arrival::Left
        | Arrival::Dropped(_)
        | Arrival::Lost
        | Arrival::Unknown(_) => "the answer",
    }
}

/// What becomes of an answer or a refusal that doesn't reach the one who asked.
fn lost_on_its_way(there: &Journey, back: &Journey) -> Fate {
    let what = sent_back(there);
    let ends = back.ends();
    let from = ends.map_or_else(|| "?".to_owned(), |(source, _)| source.to_string());
    Fate::NoAnswer(match &back.arrival {
        Arrival::Dropped(_) => format!("{what} is dropped on its way back"),
        Arrival::Rejected(_) => format!("{what} is refused on its way back"),
        Arrival::Lost => format!("nobody has the address that {what} is sent to"),
        Arrival::Delivered | Arrival::Left => {
            format!("{what} comes from {from}, which was not called")
        }
        Arrival::Unknown(why) => {
            let why = why.iter().map(|why| format!("{what}'s way back: {why}"));
            return Fate::Unknown(why.collect());
        }
    })
}

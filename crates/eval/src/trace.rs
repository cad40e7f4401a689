//! What the evaluator answers: a [`Trace`] with all possible outcomes, each with its evidence.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use unmasq_model::packet::Packet;
use unmasq_model::ruleset::{ChainId, Hook};

use crate::connection::{Later, Tracked};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The packet, as it comes in or as the host sends it.
    pub packet: Packet,
    /// The device it comes in by. `None`: the device of the route back to the source, or, for a
    /// source that the host owns, none: the host itself sends it.
    pub in_device: Option<Box<str>>,
    /// For a packet that doesn't open a connection: which it belongs to
    /// ([`Outcome::answer`], [`Outcome::further`]).
    pub later: Option<Later>,
}

impl Query {
    /// About the first packet of a connection.
    pub fn opening(packet: Packet, in_device: Option<&str>) -> Query {
        Query { packet, in_device: in_device.map(Into::into), later: None }
    }
}

/// How to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Take nothing for granted: what would be an assumption becomes unknown.
    pub strict: bool,
    /// Record every rule that was looked at, not only those that did something.
    pub every_rule: bool,
    /// Keep outcomes apart that differ only in the rules hit, as a comparison with a kernel's
    /// counters needs them.
    pub every_branch: bool,
    /// Keep the outcomes apart that differ by the order of chains of equal priority, which no
    /// listing shows, instead of joining them to what is known in any order.
    pub every_order: bool,
    /// Keep outcomes apart that differ only in what conntrack keeps of the connection, as following
    /// the answer needs them.
    pub every_entry: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The packet as it was asked.
    pub packet: Packet,
    /// Where the walk began.
    pub start: Start,
    /// What was taken for granted, a sentence each, in the order met.
    pub assumptions: Vec<String>,
    /// All outcomes. Probabilities of those that have one add up to 1 where none is unknown.
    pub outcomes: Vec<Outcome>,
}

/// Where a walk begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// It comes in by a device.
    In(Box<str>),
    /// The host sends it.
    Output,
    /// It could not be told; every outcome is unknown.
    Unknown,
}

/// One thing that can happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How likely, from 0 to 1; `None` where it depends on state or on something unknown.
    pub probability: Option<f64>,
    /// How it ends.
    pub verdict: Verdict,
    /// Why, for endings that need one.
    pub reason: Option<Reason>,
    /// The source on arrival and at the end.
    pub source: Rewrite,
    /// The destination on arrival and at the end.
    pub destination: Rewrite,
    /// The device that it leaves by.
    pub out: Option<Box<str>>,
    /// The neighbour that it is sent to.
    pub next_hop: Option<IpAddr>,
    /// Whether a bridge passes it on, and so not the host's routing: its time to live stays.
    pub bridged: bool,
    /// The rule that rewrote the source, if [`Disposition::Rewritten`].
    pub rewritten_by: Option<RuleId>,
    /// Indices into `hits`: the earlier rules without which `rewritten_by` would not have acted
    /// (the one that set the mark, with the jumps that led there), in order.
    pub because: Vec<usize>,
    /// The connection's entry, for what follows; `None`: it is not tracked, or doesn't pass.
    pub tracked: Option<Tracked>,
    /// The rules that did something, in order; the last one decided. With
    /// [`Options::every_rule`] also those that were looked at and did nothing.
    pub hits: Vec<Hit>,
    /// Why something is unknown, a sentence each.
    pub unknown: Vec<String>,
}

/// How a packet ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// To the host itself.
    Delivered,
    /// Out of a device.
    Forwarded,
    /// Gone, and nobody is told.
    Dropped,
    /// Refused: the sender gets an error.
    Rejected,
    /// Can't be told.
    Unknown,
}

/// Why a packet was dropped or rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A rule.
    Rule,
    /// A chain's policy.
    Policy,
    /// Reverse-path filter: the way back is not by the device it came in by.
    RpFilter,
    /// A source or destination that can't be on the wire.
    Martian,
    /// No route.
    NoRoute,
    /// An unreachable route.
    Unreachable,
    /// A blackhole route.
    Blackhole,
    /// A prohibit route.
    Prohibit,
    /// Time to live ran out.
    Ttl,
    /// The host doesn't forward.
    NoForwarding,
    /// It would leave by the bridge port that it came in by, and that port's hairpin mode is off.
    Hairpin,
    /// It leaves by another device than the one that its connection was masqueraded for.
    Moved,
}

/// An end of the connection before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// What became of it.
    pub disposition: Disposition,
    /// On arrival.
    pub before: Endpoint,
    /// At the end.
    pub after: Endpoint,
}

/// What became of an address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disposition {
    /// The same (for ports that the kernel chooses: the same address, whatever the port).
    Preserved,
    /// Another.
    Rewritten,
    /// Can't be told.
    Unknown,
}

/// An address with its port, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address; `None`: can't be told.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: Port,
}

/// A port, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// The protocol has none.
    None,
    /// This one.
    Exactly(u16),
    /// The kernel chooses from this range, both ends in.
    Between(u16, u16),
    /// Can't be told, or was not named.
    Unknown,
}

impl fmt::Display for Endpoint {
    /// `10.0.0.1:80`, `[fd00::1]:80`, `10.0.0.1` for protocols without ports,
    /// `10.0.0.1:1024-65535`, `10.0.0.1:?`, and `?` for an address that can't be told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(address) = self.address else {
            return f.write_str("?");
        };
        if let Port::Exactly(port) = self.port {
            return write!(f, "{}", SocketAddr::new(address, port));
        }
        match (self.port, address) {
            (Port::None, _) => return write!(f, "{address}"),
            (_, IpAddr::V4(v4)) => write!(f, "{v4}:")?,
            (_, IpAddr::V6(v6)) => write!(f, "[{v6}]:")?,
        }
        match self.port {
            Port::Between(low, high) => write!(f, "{low}-{high}"),
            Port::None | Port::Exactly(_) | Port::Unknown => f.write_str("?"),
        }
    }
}

/// A rule by its place in the host's ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId {
    /// Index in `ruleset.tables`.
    pub table: u32,
    /// Chain of that table.
    pub chain: ChainId,
    /// Index in the chain's rules.
    pub rule: u32,
}

/// Something that happened on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Where in the path.
    pub stage: Stage,
    /// What did it.
    pub by: By,
    /// How many jumps deep; 0 in a base chain.
    pub depth: u32,
    /// Whether the rule's counter was raised.
    pub counted: bool,
    /// What it did, in order. Empty: it was looked at and did nothing (no match).
    pub effects: Vec<Effect>,
}

/// A part of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before and outside IP: bridges, devices.
    Link,
    /// A hook's chains.
    Hook(Hook),
    /// A route lookup with all its checks.
    Routing,
}

impl Stage {
    /// `link`, `prerouting`, …, `routing`.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Link => "link",
            Stage::Hook(hook) => hook.name(),
            Stage::Routing => "routing",
        }
    }
}

/// What did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A rule.
    Rule(RuleId),
    /// The policy of a base chain.
    Policy {
        /// Index in `ruleset.tables`.
        table: u32,
        /// The chain.
        chain: ChainId,
    },
    /// The kernel, outside any rule: a sentence fragment (`strict rp_filter on eth0`).
    Kernel(String),
}

/// What a rule did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Into a chain of the same table.
    Jump(ChainId),
    /// Into a chain, not to come back.
    Goto(ChainId),
    /// Back to the caller.
    Return,
    /// Ended its base chain.
    Accept,
    /// Dropped the packet.
    Drop,
    /// Refused the packet.
    Reject(Box<str>),
    /// Changed the packet's mark.
    Mark {
        /// Before.
        before: u32,
        /// After.
        after: u32,
    },
    /// Changed the connection's mark.
    CtMark {
        /// Before.
        before: u32,
        /// After.
        after: u32,
    },
    /// Translated the source.
    Snat(Endpoint),
    /// Translated the destination.
    Dnat(Endpoint),
    /// Switched connection tracking off.
    NoTrack,
    /// Told somebody.
    Log,
    /// Changed a dynamic set, or another kept state.
    Remember,
    /// Only counted, or matched and had nothing to do.
    Nothing,
    /// The packet was routed again.
    Rerouted {
        /// The device that it leaves by now.
        out: Box<str>,
    },
    /// What it did can't be told.
    Unknown(String),
    /// What the kernel did outside any rule, a sentence fragment.
    Kernel(String),
}

//! What is generated, in a form that every back end can be written from.

use unmasq_model::expr::End;
use unmasq_model::ruleset::{Backend, Hook};

use super::address::Net;

/// A ruleset, without its form.
#[derive(Debug, Clone)]
pub(super) struct Ruleset {
    /// Whose iptables' tables are; `Nft`: nobody's.
    pub(super) owners: [Backend; 5],
    /// Named sets of iptables' ipset, or of nft.
    pub(super) sets: Vec<Set>,
    /// Chains; a base chain before the chains that it uses or after, that doesn't matter.
    pub(super) chains: Vec<Chain>,
    /// Whether the tables of nft are of family inet.
    pub(super) inet: bool,
    /// What may decide besides the packet, so that several outcomes are right.
    pub(super) open: Open,
}

/// What decides besides rules and packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// Nothing: one outcome is right.
    Nothing,
    /// Chance and kept state.
    Chance,
    /// In which order chains of equal priority were registered.
    Order,
}

/// The tables of iptables; in nft, tables by the same names with `u_` before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    /// raw
    Raw,
    /// mangle
    Mangle,
    /// nat
    Nat,
    /// filter
    Filter,
    /// security
    Security,
}

/// A chain.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    /// Whose.
    pub(super) backend: Backend,
    /// Its table.
    pub(super) table: Table,
    /// Its name.
    pub(super) name: String,
    /// Where it is attached, if it is.
    pub(super) base: Option<Base>,
    /// Its rules.
    pub(super) rules: Vec<Rule>,
}

/// How a chain is attached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    /// The hook.
    pub(super) hook: Hook,
    /// The priority of nft; iptables has its own.
    pub(super) priority: i32,
    /// Whether the policy is to drop.
    pub(super) drop: bool,
}

/// A rule. Its number is its comment (`r7`).
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// The number, from 0, in the ruleset.
    pub(super) id: usize,
    /// Whether it counts before it tests (nft).
    pub(super) counts_first: bool,
    /// Tests.
    pub(super) matches: Vec<Match>,
    /// What it does.
    pub(super) target: Target,
}

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proto {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// ICMP, or ICMPv6
    Icmp,
}

/// A test; `not` negates it.
#[derive(Debug, Clone)]
pub(super) enum Match {
    /// An address.
    Address { end: End, net: Net, not: bool },
    /// Addresses from one to another of the same /24.
    AddressRange { end: End, low: Net, high: u8, not: bool },
    /// A device; with `any` all whose names begin so.
    Device { out: bool, name: &'static str, any: bool, not: bool },
    /// A protocol.
    Proto { proto: Proto, not: bool },
    /// A port of a protocol.
    Port { proto: Proto, end: End, low: u16, high: u16, not: bool },
    /// Ports of a protocol; `None`: either end.
    Ports { proto: Proto, end: Option<End>, ports: Vec<(u16, u16)>, not: bool },
    /// The mark.
    Mark { value: u32, mask: u32, not: bool },
    /// The connection's mark.
    CtMark { value: u32, mask: u32, not: bool },
    /// A set by its index.
    Set { set: usize, ends: Vec<End>, not: bool },
    /// The type of an address.
    AddressType { end: End, kind: &'static str, not: bool, limit: Limit },
    /// The state of the connection.
    State { state: &'static str, not: bool },
    /// The TCP flags of an opening packet.
    Syn { not: bool },
    /// An echo request.
    Echo { not: bool },
    /// Chance, in hundredths.
    Chance { percent: u8 },
    /// Kept state.
    Kept(Kept),
    /// nft: addresses in an anonymous set.
    Among { end: End, nets: Vec<Net>, not: bool },
    /// nft: address and port as one tuple in an anonymous set.
    Tuples { proto: Proto, end: End, pairs: Vec<(Net, u16)>, not: bool },
    /// nft: the device of the route back to the source.
    Back { missing: bool },
}

/// Which device an address type is limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// None.
    No,
    /// The one that it came in by.
    In,
    /// The one that it leaves by.
    Out,
}

/// What a rule does.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// Only counts.
    Nothing,
    /// Verdicts.
    Accept,
    /// Verdicts.
    Drop,
    /// Verdicts.
    Return,
    /// Refuses, by a reset where `reset`.
    Reject { reset: bool },
    /// Into a chain of the same table.
    Jump(String),
    /// Into a chain, not to come back.
    Goto(String),
    /// `mark = (mark & !mask) ^ value`.
    Mark { value: u32, mask: u32 },
    /// The same for the connection.
    CtMark { value: u32, mask: u32 },
    /// The mark into the connection's.
    Save { mask: u32 },
    /// The connection's into the mark.
    Restore { mask: u32 },
    /// A new destination.
    Dnat { to: Option<Net>, ports: Option<(u16, u16)> },
    /// A new destination out of two.
    DnatEither { first: Net },
    /// A new source.
    Snat { to: Net, ports: Option<(u16, u16)> },
    /// The device's address.
    Masquerade { ports: Option<(u16, u16)>, random: bool },
    /// To the node.
    Redirect { port: Option<u16> },
    /// Another prefix.
    Netmap { net: Net },
    /// No connection tracking.
    NoTrack,
    /// nft: verdicts by destination port.
    PortVerdicts(Vec<(u16, u16, Target)>),
    /// nft: verdicts by an address.
    AddressVerdicts(End, Vec<(Net, Target)>),
    /// nft: a new destination by address and port.
    DnatMap(Vec<(Net, u16, Net, u16)>),
    /// nft: a new destination by chance, or by a hash.
    DnatChance(Pick, Vec<Net>),
    /// nft: remembers the source (or forgets it) in a dynamic set.
    Remember { forget: bool },
}

/// A test of kept state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Every so many packets; nft: `numgen inc`.
    Nth(u8),
    /// A rate with a burst.
    Limit(u8),
    /// iptables: whether the source was seen lately; nft: whether it is in a dynamic set.
    Recent { not: bool },
    /// iptables: sees the source.
    See,
}

/// How nft picks from a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    /// `numgen random`
    Random,
    /// `numgen inc`
    Next,
    /// `jhash`
    Hash,
}

/// A kind of named set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetKind {
    /// hash:ip
    Ip,
    /// hash:net
    Net,
    /// hash:ip,port
    IpPort,
    /// hash:ip,port,ip
    IpPortIp,
    /// hash:ip,port,net
    IpPortNet,
    /// bitmap:port
    Port,
    /// list:set
    List,
}

/// A named set.
#[derive(Debug, Clone)]
pub(super) struct Set {
    /// Whose.
    pub(super) backend: Backend,
    /// Its name.
    pub(super) name: String,
    /// Its kind.
    pub(super) kind: SetKind,
    /// Elements, none twice.
    pub(super) elements: Vec<Element>,
}

/// An element; of a kind's parts only those that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    /// Address, port, address.
    Tuple { first: Net, port: Option<(Proto, u16)>, second: Option<Net>, nomatch: bool },
    /// A port.
    Port(u16),
    /// Another set by its index.
    Set(usize),
}

impl SetKind {
    /// How many ends a test names.
    pub(super) fn dimensions(self) -> usize {
        match self {
            SetKind::Ip | SetKind::Net | SetKind::Port | SetKind::List => 1,
            SetKind::IpPort => 2,
            SetKind::IpPortIp | SetKind::IpPortNet => 3,
        }
    }
}

impl Table {
    /// All.
    pub(super) const ALL: [Table; 5] =
        [Table::Raw, Table::Mangle, Table::Nat, Table::Filter, Table::Security];

    /// iptables' name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Raw => "raw",
            Table::Mangle => "mangle",
            Table::Nat => "nat",
            Table::Filter => "filter",
            Table::Security => "security",
        }
    }

    /// Its hooks.
    pub(super) fn hooks(self) -> &'static [Hook] {
        use Hook::{Forward, Input, Output, Postrouting, Prerouting};
        match self {
            Table::Raw => &[Prerouting, Output],
            Table::Mangle => &[Prerouting, Input, Forward, Output, Postrouting],
            Table::Nat => &[Prerouting, Input, Output, Postrouting],
            Table::Filter | Table::Security => &[Input, Forward, Output],
        }
    }
}

impl Ruleset {
    /// How many rules.
    pub(super) fn len(&self) -> usize {
        self.chains.iter().map(|chain| chain.rules.len()).sum()
    }

    /// iptables' tables of a back end.
    pub(super) fn owned(&self, backend: Backend) -> Vec<Table> {
        let owners = Table::ALL.into_iter().zip(self.owners);
        owners.filter(|(_, owner)| *owner == backend).map(|(table, _)| table).collect()
    }

    /// The same without some rules.
    pub(super) fn without(&self, gone: &[usize]) -> Ruleset {
        let mut rest = self.clone();
        for chain in &mut rest.chains {
            chain.rules.retain(|rule| !gone.contains(&rule.id));
        }
        rest
    }

    /// The numbers of all rules.
    pub(super) fn ids(&self) -> Vec<usize> {
        self.chains.iter().flat_map(|chain| &chain.rules).map(|rule| rule.id).collect()
    }
}

/// iptables' name of a base chain.
pub(super) fn chain_name(hook: Hook) -> String {
    hook.name().to_uppercase()
}

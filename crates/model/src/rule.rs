//! The one form that iptables and nftables rules are lowered into.
//!
//! A rule is a list of steps in the order written. A step is a test, or an action; the rule ends
//! at the first test that is not true, so a counter before a test counts and a mark set before a
//! test is seen by it. An iptables rule becomes its matches, [`Action::Count`], and its target.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::expr::{Device, End, Expr};
use crate::origin::{Opaque, Origin};
use crate::packet::Family;
use crate::ruleset::ChainId;
use crate::set::SetId;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Tests and actions in the order written.
    pub steps: Box<[Step]>,
    /// The rule as its listing shows it: an iptables rule from `-A` on without counters, an
    /// nftables rule without its handle.
    pub text: Box<str>,
    /// The rule's comment, without quotes.
    pub comment: Option<Box<str>>,
    /// Where it was read.
    pub origin: Origin,
}

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The rule goes on only if it is true.
    Test(Test),
    /// Something is done.
    Do(Action),
}

/// A test. True, false, unknown, or "break": a field was absent, and negation does not flip that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Compares two values of one kind.
    Compare {
        /// Left operand.
        left: Expr,
        /// How.
        op: Comparison,
        /// Right operand.
        right: Expr,
    },
    /// `low <= left <= high`.
    Range {
        /// What is tested.
        left: Expr,
        /// Lowest number that is in.
        low: u128,
        /// Highest number that is in.
        high: u128,
        /// Whether being outside is what counts.
        negated: bool,
    },
    /// Some bit of `bits` is set in `left`.
    AnyBit {
        /// What is tested.
        left: Expr,
        /// The bits.
        bits: u128,
        /// Whether having none is what counts.
        negated: bool,
    },
    /// The key is in a set of the rule's own table.
    Member {
        /// The key.
        key: Expr,
        /// The set (or map, of which only the keys count).
        set: SetId,
        /// Whether being absent is what counts.
        negated: bool,
    },
    /// iptables `-i`, `-o`; nftables names with a wildcard. No device has the empty name.
    DeviceName {
        /// Which device.
        device: Device,
        /// The name.
        pattern: NamePattern,
        /// Whether another name is what counts.
        negated: bool,
    },
    /// iptables `multiport`: some port is in some range. Absent for protocols without ports.
    Ports {
        /// Which port; `None`: either.
        end: Option<End>,
        /// Ranges, both ends in.
        ranges: Box<[(u16, u16)]>,
        /// Whether no port in any range is what counts.
        negated: bool,
    },
    /// iptables `-m set`.
    IpSet {
        /// The set's name.
        set: Box<str>,
        /// Which end each dimension of the set is compared with.
        ends: Box<[End]>,
        /// Whether being absent is what counts.
        negated: bool,
        /// `--return-nomatch`: an element flagged nomatch counts as the match.
        return_nomatch: bool,
    },
    /// iptables `addrtype` (net/netfilter/xt_addrtype.c).
    AddressType {
        /// Which address.
        of: End,
        /// The types that count, a bit for each `RTN_*` number.
        types: u16,
        /// `--limit-iface-in`, `--limit-iface-out`.
        limit: Option<Device>,
        /// Whether another type is what counts.
        negated: bool,
    },
    /// iptables `statistic --mode random`: true with probability `numerator` / 2^31.
    Random {
        /// The kernel's threshold, below 2^31 + 1.
        numerator: u32,
        /// Whether missing is what counts.
        negated: bool,
    },
    /// A test whose result depends on state that no capture has: both results are possible.
    State {
        /// The match as it was written (`limit`, `recent`, `statistic --mode nth` …).
        what: Box<str>,
        /// Tests of one key share their result within a walk; `None` for each its own.
        key: Option<Box<str>>,
        /// Whether the test also makes itself true for later tests of the same key in the same
        /// walk (`recent --set`), being true itself.
        sets: bool,
    },
    /// iptables `nfacct`: counts, and is true unless the named object has a quota.
    Accounting {
        /// The object's name.
        name: Box<str>,
    },
    /// A test that is not understood.
    Opaque(Opaque),
}

/// How two values are compared. Orders are those of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less than.
    Lt,
    /// At most.
    Le,
    /// Greater than.
    Gt,
    /// At least.
    Ge,
}

/// An interface name, or the beginning of one (`cali+` in iptables, `cali*` in nftables).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    /// The name, or its beginning, without the wildcard.
    pub name: Box<str>,
    /// Whether any ending will do.
    pub wildcard: bool,
}

impl NamePattern {
    /// Whether `name` fits.
    pub fn matches(&self, name: &str) -> bool {
        if self.wildcard { name.starts_with(&*self.name) } else { *self.name == *name }
    }
}

/// Something that a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Raises the rule's counter.
    Count,
    /// Sets the packet's mark (32 bits).
    SetMark(Expr),
    /// Sets the connection's mark (32 bits); nothing without a connection.
    SetCtMark(Expr),
    /// Ends the rule with a verdict.
    Verdict(Verdict),
    /// Ends the rule with the verdict that a map has for the key; breaks where it has none.
    VerdictMap {
        /// The key.
        key: Expr,
        /// The map.
        map: SetId,
    },
    /// Drops and tells the sender.
    Reject {
        /// With what (`icmp-port-unreachable`, `tcp-reset` …), as written.
        with: Box<str>,
    },
    /// Translates an address: ends the chain's evaluation with accept.
    Nat(Nat),
    /// Tells somebody (LOG, NFLOG, TRACE, `log`, `flow add` …); the packet goes on unchanged.
    Log,
    /// No connection tracking for this packet.
    NoTrack,
    /// Attaches settings for a connection that is not tracked yet (CT --zone, --helper, --timeout;
    /// `ct zone set`), which don't change how its first packet is walked.
    CtTemplate,
    /// Gives a tracked connection something that doesn't change how its first packet is walked
    /// (`ct helper set`, `ct timeout set`, `ct label set`); nothing without a connection.
    CtExtra,
    /// Adds to, refreshes or removes from a dynamic set.
    UpdateSet {
        /// The set.
        set: SetId,
        /// The element.
        key: Expr,
        /// What is done.
        op: SetUpdate,
    },
    /// A statement that is not understood: it may do anything, and may end the walk.
    Opaque(Opaque),
}

/// What happens to an element of a dynamic set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetUpdate {
    /// `add` or `update`.
    Put,
    /// `delete`.
    Delete,
}

/// How a rule or a policy ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Ends the base chain.
    Accept,
    /// Ends everything.
    Drop,
    /// Goes on with the next rule.
    Continue,
    /// Back to the caller; from a base chain, its policy.
    Return,
    /// Into a chain, and back.
    Jump(ChainId),
    /// Into a chain, and from there to this chain's caller.
    Goto(ChainId),
}

impl Verdict {
    /// The same verdict with its chain under another number.
    pub fn renumbered(self, chain: &mut dyn FnMut(ChainId) -> ChainId) -> Verdict {
        match self {
            Verdict::Jump(to) => Verdict::Jump(chain(to)),
            Verdict::Goto(to) => Verdict::Goto(chain(to)),
            Verdict::Accept | Verdict::Drop | Verdict::Continue | Verdict::Return => self,
        }
    }
}

/// An address translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// Which.
    pub kind: NatKind,
    /// The only family it acts on (`dnat ip to` in an inet table); others pass unchanged.
    pub family: Option<Family>,
    /// The new address; `None`: unchanged, or chosen by the kind (masquerade, redirect).
    pub address: Option<NatAddress>,
    /// The new port; `None`: unchanged.
    pub ports: Option<NatPorts>,
    /// Whether the kernel chooses a port at random (`--random`, `--random-fully`).
    pub random: bool,
}

/// A kind of translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatKind {
    /// Destination.
    Dnat,
    /// Source.
    Snat,
    /// Source, to an address of the outgoing device.
    Masquerade,
    /// Destination, to this host.
    Redirect,
    /// The prefix of the address that the hook translates (destination before routing, source
    /// after it) is replaced, the rest kept.
    Netmap(IpNet),
}

/// The address that a translation gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatAddress {
    /// An address, or a tuple of address and port.
    Expr(Expr),
    /// Any address from the first to the second.
    Range(IpAddr, IpAddr),
}

/// The port that a translation gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatPorts {
    /// One port.
    Expr(Expr),
    /// Any port from the first to the second.
    Range(u16, u16),
}

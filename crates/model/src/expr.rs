//! Expressions: what a test compares and what an action sets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::origin::Opaque;
use crate::packet::{Family, Protocol};
use crate::set::SetId;

/// A value in a register. Addresses, ports, marks and enumerations are numbers (an IPv4 address
/// is its 32 bits), interface names are names, a concatenation is a tuple.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A number.
    Number(u128),
    /// An interface name.
    Name(Box<str>),
    /// A concatenation, compared as a whole.
    Tuple(Box<[Value]>),
}

impl Value {
    /// The value of an address.
    pub fn address(address: IpAddr) -> Value {
        Value::Number(match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        })
    }

    /// The address of `family` that this number is; `None` where it is not one.
    pub fn as_address(&self, family: Family) -> Option<IpAddr> {
        match (self, family) {
            (Value::Number(n), Family::V4) => {
                u32::try_from(*n).ok().map(|bits| IpAddr::V4(Ipv4Addr::from(bits)))
            }
            (Value::Number(n), Family::V6) => Some(IpAddr::V6(Ipv6Addr::from(*n))),
            (Value::Name(_) | Value::Tuple(_), _) => None,
        }
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<u128> {
        match self {
            Value::Number(n) => Some(*n),
            Value::Name(_) | Value::Tuple(_) => None,
        }
    }
}

impl From<u32> for Value {
    fn from(n: u32) -> Value {
        Value::Number(u128::from(n))
    }
}

/// An expression. Evaluating one gives a value, "absent" (the rule breaks) or unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// A constant.
    Const(Value),
    /// A field of the packet, of its connection, or of a route lookup.
    Field(Field),
    /// A bitwise operation on numbers.
    Bits {
        /// Which.
        op: BitOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
    /// Several expressions as one tuple.
    Concat(Box<[Expr]>),
    /// `numgen`: offset + a number below the modulus.
    Numgen {
        /// Random or counting.
        mode: NumgenMode,
        /// Exclusive upper bound of the number, at least 1.
        modulus: u32,
        /// Added to it.
        offset: u32,
    },
    /// `jhash`/`symhash`: depends on a seed that nobody sees, so any number below the modulus.
    Hash {
        /// Exclusive upper bound of the number, at least 1.
        modulus: u32,
        /// Added to it.
        offset: u32,
    },
    /// The data that a map holds for a key; a missing key is "absent".
    Lookup {
        /// The key.
        key: Box<Expr>,
        /// A map of the rule's own table.
        map: SetId,
    },
    /// An expression that is not understood.
    Opaque(Opaque),
}

impl Expr {
    /// A constant number.
    pub fn number(n: impl Into<u128>) -> Expr {
        Expr::Const(Value::Number(n.into()))
    }

    /// `left & mask`; plain `left` where the mask keeps all 32 bits of a mark.
    pub fn masked(left: Expr, mask: u32) -> Expr {
        if mask == u32::MAX {
            return left;
        }
        Expr::bits(BitOp::And, left, Expr::number(mask))
    }

    /// A bitwise operation.
    pub fn bits(op: BitOp, left: Expr, right: Expr) -> Expr {
        Expr::Bits { op, left: Box::new(left), right: Box::new(right) }
    }
}

/// A bitwise operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitOp {
    /// `&`
    And,
    /// `|`
    Or,
    /// `^`
    Xor,
    /// `<<`
    Shl,
    /// `>>`
    Shr,
}

/// Where `numgen` takes its numbers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumgenMode {
    /// A fresh random number for each evaluation.
    Random,
    /// A counter kept by the kernel: depends on state.
    Increment,
}

/// Which of two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// Which of the packet's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// The device it came in by; none for packets from the host.
    In,
    /// The device it leaves by; none before routing.
    Out,
}

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// As the first packet ran, before any translation.
    Original,
    /// As the answer runs.
    Reply,
}

/// What a field is loaded from. "Absent" below means that the rule breaks, which negation does
/// not flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `ip saddr`, `ip6 daddr`: absent in a packet of the other family.
    Address(Family, End),
    /// `meta nfproto`: 2 or 10.
    Nfproto,
    /// `meta l4proto`, iptables `-p`.
    L4Proto,
    /// `ip protocol` or `ip6 nexthdr`: absent in the other family.
    IpProtocol(Family),
    /// `tcp dport` (absent for other protocols), `th dport` (`None`: any protocol with ports).
    Port(Option<Protocol>, End),
    /// `icmp type`, `icmpv6 type`: absent for other protocols.
    IcmpType(Family),
    /// `icmp code`, `icmpv6 code`.
    IcmpCode(Family),
    /// Type * 256 + code, for iptables' `--icmp-type` which tests both at once.
    IcmpTypeAndCode(Family),
    /// TCP's flag byte: the opening packet has SYN (2) alone.
    TcpFlags,
    /// `ip ttl`, `ip6 hoplimit`: absent in the other family.
    Ttl(Family),
    /// `meta mark`, 32 bits.
    Mark,
    /// `iifname`/`oifname`: the empty name where there is no such device.
    DeviceName(Device),
    /// `iif`/`oif`, printed by name: as [`Field::DeviceName`] for devices that exist.
    DeviceIndex(Device),
    /// `ct state` as bits: invalid 1, established 2, related 4, new 8, untracked 64.
    CtState,
    /// iptables `--ctstate`: [`Field::CtState`] with [`XT_STATE_SNAT`] and [`XT_STATE_DNAT`] added.
    CtStateAndNat,
    /// `ct status` as bits (enum ip_conntrack_status): snat 16, dnat 32 …; absent without connection.
    CtStatus,
    /// `ct mark`; absent without connection.
    CtMark,
    /// `ct direction`: original 0, reply 1; absent without connection.
    CtDirection,
    /// `ct original ip saddr` …: absent without connection or in the other family.
    CtAddress(Direction, Family, End),
    /// `ct original proto-src` …: absent without connection.
    CtPort(Direction, End),
    /// `ct protocol`.
    CtProtocol,
    /// `fib saddr . iif type` …
    Fib(Fib),
}

/// `--ctstate SNAT`: the connection's source is translated. Outside the bits that nft uses.
pub const XT_STATE_SNAT: u32 = 1 << 16;
/// `--ctstate DNAT`: the connection's destination is translated.
pub const XT_STATE_DNAT: u32 = 1 << 17;

/// `ct state` bits (include/uapi/linux/netfilter/nf_conntrack_common.h, net/netfilter/nft_ct.c).
pub mod ct_state {
    /// The packet belongs to no connection and could not open one.
    pub const INVALID: u32 = 1;
    /// Seen in both directions.
    pub const ESTABLISHED: u32 = 2;
    /// Opened by another connection, or an ICMP error about one.
    pub const RELATED: u32 = 4;
    /// Opens a connection.
    pub const NEW: u32 = 8;
    /// Tracking was switched off for the packet.
    pub const UNTRACKED: u32 = 64;
}

/// `ct status` bits (enum ip_conntrack_status).
pub mod ct_status {
    /// Expected by another connection.
    pub const EXPECTED: u32 = 1;
    /// Seen in both directions.
    pub const SEEN_REPLY: u32 = 2;
    /// Never expired early.
    pub const ASSURED: u32 = 4;
    /// The first packet has left the host.
    pub const CONFIRMED: u32 = 8;
    /// The source is translated.
    pub const SNAT: u32 = 16;
    /// The destination is translated.
    pub const DNAT: u32 = 32;
}

/// A route lookup (net/ipv4/netfilter/nft_fib_ipv4.c, net/ipv6/netfilter/nft_fib_ipv6.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fib {
    /// Which address is looked up.
    pub of: End,
    /// `iif`: only as seen from the incoming device.
    pub iif: bool,
    /// `oif`: only as seen from the outgoing device.
    pub oif: bool,
    /// `mark`: with the packet's mark.
    pub mark: bool,
    /// What is asked.
    pub result: FibResult,
}

/// What a route lookup gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FibResult {
    /// The address type, as an `RTN_*` number.
    Type,
    /// The device, by name; the empty name where there is none.
    Device,
    /// 1 where a route exists (`fib … check exists`), else 0.
    Exists,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Source => "source",
            End::Destination => "destination",
        })
    }
}

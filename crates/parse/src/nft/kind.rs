//! What kind of value an expression has, and how nft's JSON writes a constant of that kind.
//!
//! A constant can only be read with the kind in mind: `"tcp"` is a number where a protocol is
//! compared and a name where an interface is. Symbols are those of nftables' src/datatype.c,
//! src/proto.c, src/ct.c, src/fib.c and src/meta.c.

use std::net::IpAddr;

use unmasq_model::expr::{Value, ct_state, ct_status};
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::route::RouteKind;
use unmasq_model::set::Interval;

use super::json::Node;

/// The kind of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Address(Family),
    Port,
    Protocol,
    /// 32 bits of packet or connection mark.
    Mark,
    /// An interface's name.
    Name,
    /// An interface's index, printed as a name.
    Index,
    CtState,
    CtStatus,
    CtDirection,
    /// `RTN_*`.
    AddressType,
    IcmpType(Family),
    IcmpCode(Family),
    TcpFlags,
    Nfproto,
    /// An Ethernet type. In the hooks of ip, ip6 and inet tables it says no more than the family,
    /// so its values are those of [`Kind::Nfproto`].
    EtherType,
    /// Whether something exists.
    Exists,
    /// A number without symbols.
    Number,
    /// Not understood.
    Opaque,
}

impl Kind {
    /// The kind of a set's `type`.
    pub(super) fn of_type(name: &str) -> Kind {
        match name {
            "ipv4_addr" => Kind::Address(Family::V4),
            "ipv6_addr" => Kind::Address(Family::V6),
            "inet_service" => Kind::Port,
            "inet_proto" => Kind::Protocol,
            "mark" => Kind::Mark,
            "ifname" => Kind::Name,
            "iface_index" => Kind::Index,
            "ct_state" => Kind::CtState,
            "ct_status" => Kind::CtStatus,
            "ct_dir" => Kind::CtDirection,
            "fib_addrtype" => Kind::AddressType,
            "icmp_type" => Kind::IcmpType(Family::V4),
            "icmpv6_type" => Kind::IcmpType(Family::V6),
            "icmp_code" => Kind::IcmpCode(Family::V4),
            "icmpv6_code" => Kind::IcmpCode(Family::V6),
            "tcp_flag" => Kind::TcpFlags,
            "nf_proto" => Kind::Nfproto,
            "ether_type" => Kind::EtherType,
            "boolean" => Kind::Exists,
            "integer" => Kind::Number,
            _ => Kind::Opaque,
        }
    }

    /// Whether values are names, not numbers.
    pub(super) fn is_name(self) -> bool {
        matches!(self, Kind::Name | Kind::Index)
    }

    /// Whether a value of one kind can be compared with one of the other.
    pub(super) fn fits(self, other: Kind) -> bool {
        let numeric =
            |kind: Kind| !kind.is_name() && !matches!(kind, Kind::EtherType | Kind::Opaque);
        self != Kind::Opaque && (self == other || numeric(self) && numeric(other))
            || self.is_name() && other.is_name()
    }

    /// Whether several symbols can be set in one value.
    pub(super) fn is_flags(self) -> bool {
        matches!(self, Kind::CtState | Kind::CtStatus | Kind::TcpFlags)
    }

    /// Whether "less than" means what it says.
    pub(super) fn is_ordered(self) -> bool {
        !self.is_name() && !matches!(self, Kind::EtherType | Kind::Opaque)
    }

    /// A constant.
    pub(super) fn value(self, node: &Node<'_>) -> Option<Value> {
        match self {
            Kind::Name => literal_name(node.text()?).map(|name| Value::Name(name.into())),
            // The text doesn't quote it.
            Kind::Index if *node == Node::Number(0) => Some(Value::Name("".into())),
            Kind::Index => device_by_index(node.text()?).map(|name| Value::Name(name.into())),
            Kind::Address(_)
            | Kind::Port
            | Kind::Protocol
            | Kind::Mark
            | Kind::CtState
            | Kind::CtStatus
            | Kind::CtDirection
            | Kind::AddressType
            | Kind::IcmpType(_)
            | Kind::IcmpCode(_)
            | Kind::TcpFlags
            | Kind::Nfproto
            | Kind::EtherType
            | Kind::Exists
            | Kind::Number
            | Kind::Opaque => self.number(node).map(Value::Number),
        }
    }

    /// A constant number. Flags may be joined: `["fin", "syn"]`, `{"|": ["fin", "syn"]}`.
    pub(super) fn number(self, node: &Node<'_>) -> Option<u128> {
        match node {
            Node::Number(n) => {
                let n = u128::try_from(*n).ok()?;
                // Ethernet types that are numbers are none of ip and ip6.
                (n <= self.max() && self != Kind::EtherType).then_some(n)
            }
            Node::Text(text) => self.symbol(text),
            Node::List(list) => self.joined(list),
            Node::Object(_) => match node.single()? {
                ("|", body) => self.joined(body.list()?),
                _ => None,
            },
            Node::Bool(exists) => (self == Kind::Exists).then_some(u128::from(*exists)),
            Node::Null => None,
        }
    }

    /// One value or an interval, as an element of a set or the right side of a comparison.
    pub(super) fn interval(self, node: &Node<'_>) -> Option<(u128, u128)> {
        match node.single() {
            Some(("range", body)) => {
                let [low, high] = body.list()? else { return None };
                let (low, high) = (self.number(low)?, self.number(high)?);
                (self.is_ordered() && low <= high).then_some((low, high))
            }
            Some(("prefix", body)) => self.prefix(body),
            Some(_) | None => self.number(node).map(|n| (n, n)),
        }
    }

    /// One field of a concatenation.
    pub(super) fn field(self, node: &Node<'_>) -> Option<Interval> {
        match self.value(node) {
            Some(Value::Name(name)) => Some(Interval::Name(name)),
            Some(Value::Number(n)) => Some(Interval::Numbers(n, n)),
            Some(Value::Tuple(_)) => None,
            None => self.interval(node).map(|(low, high)| Interval::Numbers(low, high)),
        }
    }

    /// The largest number of the kind.
    pub(super) fn max(self) -> u128 {
        match self {
            Kind::Address(Family::V6) | Kind::Number => u128::MAX,
            Kind::Address(Family::V4) | Kind::Mark | Kind::CtState | Kind::CtStatus => {
                u128::from(u32::MAX)
            }
            Kind::Port | Kind::EtherType => u128::from(u16::MAX),
            Kind::Protocol
            | Kind::CtDirection
            | Kind::AddressType
            | Kind::IcmpType(_)
            | Kind::IcmpCode(_)
            | Kind::TcpFlags
            | Kind::Nfproto => u128::from(u8::MAX),
            Kind::Exists => 1,
            Kind::Name | Kind::Index | Kind::Opaque => 0,
        }
    }

    fn joined(self, list: &[Node<'_>]) -> Option<u128> {
        if !self.is_flags() || list.is_empty() {
            return None;
        }
        list.iter().try_fold(0, |bits, node| Some(bits | self.number(node)?))
    }

    fn prefix(self, body: &Node<'_>) -> Option<(u128, u128)> {
        let bits: u32 = match self {
            Kind::Address(family) => family.bits().into(),
            Kind::Mark => 32,
            Kind::Port => 16,
            Kind::Protocol
            | Kind::Name
            | Kind::Index
            | Kind::CtState
            | Kind::CtStatus
            | Kind::CtDirection
            | Kind::AddressType
            | Kind::IcmpType(_)
            | Kind::IcmpCode(_)
            | Kind::TcpFlags
            | Kind::Nfproto
            | Kind::EtherType
            | Kind::Exists
            | Kind::Number
            | Kind::Opaque => return None,
        };
        let address = self.number(body.get("addr")?)?;
        let length: u32 = body.get("len")?.number()?;
        let free = bits.checked_sub(length)?;
        let host = u128::MAX.checked_shr(128 - free).unwrap_or(0);
        Some((address & !host, address | host))
    }

    fn symbol(self, text: &str) -> Option<u128> {
        match self {
            Kind::Address(family) => {
                let address: IpAddr = text.parse().ok()?;
                (Family::of(address) == family)
                    .then(|| Value::address(address).as_number())
                    .flatten()
            }
            Kind::Protocol => Protocol::from_name(text).map(|protocol| protocol.0.into()),
            Kind::CtState => symbol(text, CT_STATES),
            Kind::CtStatus => symbol(text, CT_STATUS),
            Kind::CtDirection => symbol(text, &[("original", 0), ("reply", 1)]),
            Kind::AddressType if text == "unspec" => Some(0),
            Kind::AddressType => RouteKind::from_name(text).map(|kind| kind.rtn().into()),
            Kind::IcmpType(Family::V4) => symbol(text, ICMP_TYPES),
            Kind::IcmpType(Family::V6) => symbol(text, ICMPV6_TYPES),
            Kind::IcmpCode(Family::V4) => symbol(text, ICMP_CODES),
            Kind::IcmpCode(Family::V6) => symbol(text, ICMPV6_CODES),
            Kind::TcpFlags => symbol(text, TCP_FLAGS),
            Kind::Nfproto => symbol(text, &[("ipv4", 2), ("ipv6", 10)]),
            Kind::EtherType => symbol(text, &[("ip", 2), ("ip6", 10)]),
            // Numbers beyond 64 bits are printed as "0x…" (integer_type_json, src/json.c).
            Kind::Number => u128::from_str_radix(text.strip_prefix("0x")?, 16).ok(),
            Kind::Port | Kind::Mark | Kind::Name | Kind::Index | Kind::Exists | Kind::Opaque => {
                None
            }
        }
    }
}

/// The beginning that `eth*` asks for; `None` for a name without wildcard. A literal asterisk is
/// written `\*`.
pub(super) fn name_prefix(text: &str) -> Option<&str> {
    let prefix = text.strip_suffix('*')?;
    (!prefix.ends_with('\\') && !prefix.contains('*')).then_some(prefix)
}

fn literal_name(text: &str) -> Option<String> {
    let name = match text.strip_suffix("\\*") {
        Some(begin) => format!("{begin}*"),
        None if text.ends_with('*') => return None,
        None => text.to_owned(),
    };
    (!name.is_empty() && !name.contains('\\')).then_some(name)
}

/// An index is printed as a name, or as a number where there is no such device: 0 for "none"
/// (`ifindex_type_print`, src/meta.c). Another number may be the index of a lost device or the
/// name of a device: who can tell.
fn device_by_index(text: &str) -> Option<&str> {
    if text == "0" {
        return Some("");
    }
    (!text.is_empty() && !text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

fn symbol(text: &str, table: &[(&str, u32)]) -> Option<u128> {
    table.iter().find(|(name, _)| *name == text).map(|(_, value)| u128::from(*value))
}

const CT_STATES: &[(&str, u32)] = &[
    ("invalid", ct_state::INVALID),
    ("established", ct_state::ESTABLISHED),
    ("related", ct_state::RELATED),
    ("new", ct_state::NEW),
    ("untracked", ct_state::UNTRACKED),
];

const CT_STATUS: &[(&str, u32)] = &[
    ("expected", ct_status::EXPECTED),
    ("seen-reply", ct_status::SEEN_REPLY),
    ("assured", ct_status::ASSURED),
    ("confirmed", ct_status::CONFIRMED),
    ("snat", ct_status::SNAT),
    ("dnat", ct_status::DNAT),
    ("dying", 1 << 9),
];

const TCP_FLAGS: &[(&str, u32)] = &[
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ecn", 0x40),
    ("cwr", 0x80),
];

const ICMP_TYPES: &[(&str, u32)] = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
];

const ICMPV6_TYPES: &[(&str, u32)] = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("mld-listener-reduction", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
    ("nd-redirect", 137),
    ("router-renumbering", 138),
    ("ind-neighbor-solicit", 141),
    ("ind-neighbor-advert", 142),
    ("mld2-listener-report", 143),
];

const ICMP_CODES: &[(&str, u32)] = &[
    ("net-unreachable", 0),
    ("host-unreachable", 1),
    ("prot-unreachable", 2),
    ("port-unreachable", 3),
    ("frag-needed", 4),
    ("net-prohibited", 9),
    ("host-prohibited", 10),
    ("admin-prohibited", 13),
];

const ICMPV6_CODES: &[(&str, u32)] = &[
    ("no-route", 0),
    ("admin-prohibited", 1),
    ("addr-unreachable", 3),
    ("port-unreachable", 4),
    ("policy-fail", 5),
    ("reject-route", 6),
];

//! Routes, policy rules and neighbours, as iproute2 lists them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::link::Scope;
use crate::origin::{Opaque, Origin};
use crate::packet::{Family, Protocol};

/// A routing table by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableId {
    /// By number: local 255, main 254, default 253.
    Number(u32),
    /// By a name from the node's own /etc/iproute2/rt_tables.
    Name(Box<str>),
}

impl TableId {
    /// `local`
    pub const LOCAL: TableId = TableId::Number(255);
    /// `main`
    pub const MAIN: TableId = TableId::Number(254);
    /// `default`
    pub const DEFAULT: TableId = TableId::Number(253);

    /// A table as iproute2 prints it.
    pub fn from_name(name: &str) -> TableId {
        match name {
            "local" => TableId::LOCAL,
            "main" => TableId::MAIN,
            "default" => TableId::DEFAULT,
            other => match other.parse() {
                Ok(number) => TableId::Number(number),
                Err(_) => TableId::Name(other.into()),
            },
        }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableId::Number(255) => f.write_str("local"),
            TableId::Number(254) => f.write_str("main"),
            TableId::Number(253) => f.write_str("default"),
            TableId::Number(n) => write!(f, "{n}"),
            TableId::Name(name) => f.write_str(name),
        }
    }
}

/// A route's type (`RTN_*`, include/uapi/linux/rtnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// To a gateway or a neighbour.
    Unicast,
    /// To this host.
    Local,
    /// To all on a link.
    Broadcast,
    /// To the nearest of several.
    Anycast,
    /// To a group.
    Multicast,
    /// Dropped without a word.
    Blackhole,
    /// Refused: host unreachable.
    Unreachable,
    /// Refused: administratively prohibited.
    Prohibit,
    /// The lookup goes on with the next policy rule.
    Throw,
}

impl RouteKind {
    /// The `RTN_*` number.
    pub fn rtn(self) -> u8 {
        match self {
            RouteKind::Unicast => 1,
            RouteKind::Local => 2,
            RouteKind::Broadcast => 3,
            RouteKind::Anycast => 4,
            RouteKind::Multicast => 5,
            RouteKind::Blackhole => 6,
            RouteKind::Unreachable => 7,
            RouteKind::Prohibit => 8,
            RouteKind::Throw => 9,
        }
    }

    /// A type by its name in iproute2.
    pub fn from_name(name: &str) -> Option<RouteKind> {
        Some(match name {
            "unicast" => RouteKind::Unicast,
            "local" => RouteKind::Local,
            "broadcast" => RouteKind::Broadcast,
            "anycast" => RouteKind::Anycast,
            "multicast" => RouteKind::Multicast,
            "blackhole" => RouteKind::Blackhole,
            "unreachable" => RouteKind::Unreachable,
            "prohibit" => RouteKind::Prohibit,
            "throw" => RouteKind::Throw,
            _ => return None,
        })
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Type.
    pub kind: RouteKind,
    /// Destinations.
    pub destination: IpNet,
    /// Table.
    pub table: TableId,
    /// Metric: of routes with one destination, the lowest is tried first.
    pub metric: u32,
    /// Scope (IPv4).
    pub scope: Scope,
    /// TOS that the packet must have; 0 for any.
    pub tos: u8,
    /// Source that the route is for (IPv6 `from`).
    pub from: Option<IpNet>,
    /// The source that the host itself prefers. Masquerade does not look at it.
    pub preferred_source: Option<IpAddr>,
    /// Where to; several for multipath, none for types that send nothing.
    pub next_hops: Vec<NextHop>,
    /// What of it is not understood (an encapsulation, a nexthop object …).
    pub opaque: Option<Opaque>,
    /// Where it was read.
    pub origin: Origin,
}

impl Route {
    /// The route's family.
    pub fn family(&self) -> Family {
        Family::of(self.destination.addr())
    }
}

/// One next hop of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    /// The gateway; `None`: the destination is a neighbour. May be of the other family (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The device.
    pub device: Option<Box<str>>,
    /// Weight in multipath, from 1.
    pub weight: u32,
    /// `dead`: the device is down.
    pub dead: bool,
    /// `linkdown`: the device has no carrier.
    pub linkdown: bool,
}

/// A policy rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingRule {
    /// Family.
    pub family: Family,
    /// Lower comes first.
    pub priority: u32,
    /// Whether the selectors are inverted as a whole (`not`).
    pub inverted: bool,
    /// Source network.
    pub from: Option<IpNet>,
    /// Destination network.
    pub to: Option<IpNet>,
    /// Mark and mask.
    pub mark: Option<(u32, u32)>,
    /// Incoming device; `lo` for what the host itself sends.
    pub iif: Option<Box<str>>,
    /// The device that the sending socket is bound to.
    pub oif: Option<Box<str>>,
    /// Transport protocol.
    pub protocol: Option<Protocol>,
    /// Source ports, both ends in.
    pub source_ports: Option<(u16, u16)>,
    /// Destination ports, both ends in.
    pub destination_ports: Option<(u16, u16)>,
    /// User ids of the sender, both ends in.
    pub uids: Option<(u32, u32)>,
    /// TOS; `None` for any.
    pub tos: Option<u8>,
    /// What is done.
    pub action: RuleAction,
    /// Routes with a prefix of this length or less don't count.
    pub suppress_prefix_length: Option<u8>,
    /// What of it is not understood.
    pub opaque: Option<Opaque>,
    /// Where it was read.
    pub origin: Origin,
}

/// What a policy rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleAction {
    /// Looks into a table.
    Lookup(TableId),
    /// Goes on at a priority.
    Goto(u32),
    /// Nothing.
    Nop,
    /// Drops.
    Blackhole,
    /// Refuses: network unreachable.
    Unreachable,
    /// Refuses: prohibited.
    Prohibit,
}

/// A neighbour's link-layer address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Address.
    pub address: IpAddr,
    /// Device.
    pub device: Box<str>,
    /// Link-layer address, if it is known.
    pub mac: Option<Box<str>>,
}

/// An entry of a bridge's forwarding table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdbEntry {
    /// Link-layer address.
    pub mac: Box<str>,
    /// The port behind which it is.
    pub device: Box<str>,
    /// The bridge.
    pub master: Option<Box<str>>,
}

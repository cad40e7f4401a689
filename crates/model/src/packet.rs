//! The first packet of a connection, as a hook sees it.

use std::fmt;
use std::net::IpAddr;

/// Address family of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `address`.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The kernel's `NFPROTO_*` number (include/uapi/linux/netfilter.h).
    pub fn nfproto(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    /// Bits in an address.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        })
    }
}

/// A transport protocol by its IANA number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Protocol = Protocol(1);
    /// TCP.
    pub const TCP: Protocol = Protocol(6);
    /// UDP.
    pub const UDP: Protocol = Protocol(17);
    /// DCCP.
    pub const DCCP: Protocol = Protocol(33);
    /// ICMP for IPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// SCTP.
    pub const SCTP: Protocol = Protocol(132);
    /// UDP-Lite.
    pub const UDPLITE: Protocol = Protocol(136);

    /// The number of a protocol given by number or by its name in /etc/protocols.
    pub fn from_name(name: &str) -> Option<Protocol> {
        if let Ok(number) = name.parse() {
            return Some(Protocol(number));
        }
        Some(match name {
            "ip" | "hopopt" => Protocol(0),
            "icmp" => Protocol::ICMP,
            "igmp" => Protocol(2),
            "ipencap" | "ipip" => Protocol(4),
            "tcp" => Protocol::TCP,
            "udp" => Protocol::UDP,
            "dccp" => Protocol::DCCP,
            "ipv6" => Protocol(41),
            "gre" => Protocol(47),
            "esp" | "ipv6-crypt" => Protocol(50),
            "ah" | "ipv6-auth" => Protocol(51),
            "icmpv6" | "ipv6-icmp" | "icmp6" => Protocol::ICMPV6,
            "ospf" => Protocol(89),
            "pim" => Protocol(103),
            "comp" | "ipcomp" => Protocol(108),
            "vrrp" => Protocol(112),
            "sctp" => Protocol::SCTP,
            "mh" | "ipv6-mh" | "mobility-header" => Protocol(135),
            "udplite" => Protocol::UDPLITE,
            _ => return None,
        })
    }

    /// Whether the header begins with a source and a destination port.
    pub fn has_ports(self) -> bool {
        matches!(
            self,
            Protocol::TCP | Protocol::UDP | Protocol::DCCP | Protocol::SCTP | Protocol::UDPLITE
        )
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Protocol::ICMP => f.write_str("icmp"),
            Protocol::TCP => f.write_str("tcp"),
            Protocol::UDP => f.write_str("udp"),
            Protocol::DCCP => f.write_str("dccp"),
            Protocol::ICMPV6 => f.write_str("icmpv6"),
            Protocol::SCTP => f.write_str("sctp"),
            Protocol::UDPLITE => f.write_str("udplite"),
            Protocol(other) => write!(f, "{other}"),
        }
    }
}

/// The transport header's fields that rules look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, UDP, SCTP, DCCP, UDP-Lite. `None` is a port that nobody named: a test of it is unknown.
    Ports {
        /// Source port.
        source: Option<u16>,
        /// Destination port.
        destination: Option<u16>,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// No header that is modelled.
    Other,
}

/// A packet that opens a connection (TCP: a SYN; ICMP: an echo request).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Ports or ICMP type.
    pub transport: Transport,
    /// `skb->mark` on arrival.
    pub mark: u32,
    /// Time to live, or hop limit, on arrival; `None`: nobody said, and it lasts.
    pub ttl: Option<u8>,
}

impl Packet {
    /// An opening packet with mark 0 and a TTL that nobody named. Ports are ignored for protocols without them;
    /// ICMP is an echo request.
    pub fn open(
        protocol: Protocol,
        source: IpAddr,
        source_port: Option<u16>,
        destination: IpAddr,
        destination_port: Option<u16>,
    ) -> Self {
        let transport = match protocol {
            Protocol::ICMP => Transport::Icmp { kind: 8, code: 0 },
            Protocol::ICMPV6 => Transport::Icmp { kind: 128, code: 0 },
            other if other.has_ports() => {
                Transport::Ports { source: source_port, destination: destination_port }
            }
            _ => Transport::Other,
        };
        Packet { protocol, source, destination, transport, mark: 0, ttl: None }
    }

    /// The packet's address family.
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }
}

//! ipset sets, as `ipset save` lists them, and what the kernel's lookup finds in them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::expr::End;
use crate::origin::{Opaque, Origin};
use crate::packet::{Family, Packet, Protocol, Transport};

/// A set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpSet {
    /// Name.
    pub name: Box<str>,
    /// Type and content.
    pub content: Content,
    /// Elements that could not be read; then a miss is unknown.
    pub opaque: Option<Opaque>,
    /// Where it is created.
    pub origin: Origin,
}

/// A set's type and elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// `hash:…` types: one table for all of them. Each element is one address network (a host
    /// address is a network of full length), and what the type has beside it.
    Hash(HashSet),
    /// `bitmap:port`: ports, with whether the element can expire.
    BitmapPort(BTreeMap<u16, Flags>),
    /// `list:set`: names of sets, in order.
    List(Vec<Box<str>>),
    /// A type that is not modelled.
    Opaque(Opaque),
}

/// The `hash:…` types that are modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashKind {
    /// `hash:ip`
    Ip,
    /// `hash:net`
    Net,
    /// `hash:ip,port`
    IpPort,
    /// `hash:ip,port,ip`
    IpPortIp,
    /// `hash:ip,port,net`
    IpPortNet,
}

impl HashKind {
    /// How many dimensions the type has: a rule with fewer directions never matches.
    pub fn dimensions(self) -> usize {
        match self {
            HashKind::Ip | HashKind::Net => 1,
            HashKind::IpPort => 2,
            HashKind::IpPortIp | HashKind::IpPortNet => 3,
        }
    }
}

/// Elements of a hash type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashSet {
    /// Type.
    pub kind: HashKind,
    /// Family: packets of the other never match.
    pub family: Family,
    /// `netmask N` of `hash:ip`: addresses are compared by their first N bits.
    pub netmask: Option<u8>,
    elements: BTreeMap<Element, Flags>,
    /// How often each prefix length occurs among the networks.
    lengths: BTreeMap<u8, usize>,
}

/// One element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The first address; for `hash:net` a network.
    pub first: IpNet,
    /// Protocol and port of the types that have one. ICMP: type * 256 + code.
    pub port: Option<(Protocol, u16)>,
    /// The third dimension of `hash:ip,port,ip` and `hash:ip,port,net`.
    pub second: Option<IpNet>,
}

/// What an element carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// `nomatch`: an exception from a larger network.
    pub nomatch: bool,
    /// Has a timeout: it may be gone when the packet comes.
    pub expires: bool,
}

/// What a lookup finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    No,
    /// An element.
    Yes(Flags),
}

impl HashSet {
    /// An empty set.
    pub fn new(kind: HashKind, family: Family, netmask: Option<u8>) -> Self {
        HashSet { kind, family, netmask, elements: BTreeMap::new(), lengths: BTreeMap::new() }
    }

    /// Adds an element; networks are truncated to their prefix.
    pub fn insert(&mut self, element: Element, flags: Flags) {
        let element = Element {
            first: element.first.trunc(),
            port: element.port,
            second: element.second.map(|net| net.trunc()),
        };
        *self.lengths.entry(self.network(&element).prefix_len()).or_default() += 1;
        self.elements.insert(element, flags);
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Element, Flags)> {
        self.elements.iter().map(|(element, flags)| (element, *flags))
    }

    /// Whether some port of the protocol (and of the range) at that address is in the set,
    /// whatever the third dimension.
    fn has_some_port_for(
        &self,
        protocol: Protocol,
        first: IpAddr,
        range: Option<(u16, u16)>,
    ) -> bool {
        let in_range = |port| range.is_none_or(|(low, high)| (low..=high).contains(&port));
        self.elements.keys().any(|element| {
            element.first.contains(&first)
                && element.port.is_some_and(|(p, port)| p == protocol && in_range(port))
        })
    }

    fn network(&self, element: &Element) -> IpNet {
        match (self.kind, element.second) {
            (HashKind::IpPortNet, Some(second)) => second,
            _ => element.first,
        }
    }

    /// What the kernel's lookup finds for a packet (net/netfilter/ipset/ip_set_hash_gen.h): of
    /// overlapping networks the longest prefix counts. `chosen`: the range that a port which is not
    /// known comes from, if that is known. `Err`: which it is would matter.
    pub fn find(
        &self,
        packet: &Packet,
        ends: &[End],
        chosen: impl Fn(End) -> Option<(u16, u16)>,
    ) -> Result<Found, PortUnknown> {
        if packet.family() != self.family || ends.len() < self.kind.dimensions() {
            return Ok(Found::No);
        }
        let address = |index: usize| match ends[index] {
            End::Source => packet.source,
            End::Destination => packet.destination,
        };
        let port = match self.kind {
            HashKind::Ip | HashKind::Net => None,
            HashKind::IpPort | HashKind::IpPortIp | HashKind::IpPortNet => {
                match ipset_port(packet, ends[1]) {
                    Some(port) => Some((packet.protocol, port)),
                    None if self.has_some_port_for(
                        packet.protocol,
                        address(0),
                        chosen(ends[1]),
                    ) =>
                    {
                        return Err(PortUnknown { end: ends[1] });
                    }
                    None => return Ok(Found::No),
                }
            }
        };
        let full = self.family.bits();
        for &length in self.lengths.keys().rev() {
            let (first_length, second_length) = match self.kind {
                HashKind::Ip => (self.netmask.unwrap_or(full), None),
                HashKind::Net => (length, None),
                HashKind::IpPort => (full, None),
                HashKind::IpPortIp => (full, Some(full)),
                HashKind::IpPortNet => (full, Some(length)),
            };
            let Some(first) = network(address(0), first_length) else {
                continue;
            };
            let second = match second_length {
                None => None,
                Some(length) => match network(address(2), length) {
                    Some(net) => Some(net),
                    None => continue,
                },
            };
            if let Some(flags) = self.elements.get(&Element { first, port, second }) {
                return Ok(Found::Yes(*flags));
            }
            if matches!(self.kind, HashKind::Ip | HashKind::IpPort | HashKind::IpPortIp) {
                break;
            }
        }
        Ok(Found::No)
    }
}

/// A lookup needs a port that the packet's description leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortUnknown {
    /// Which port.
    pub end: End,
}

/// The port that ipset compares (`ip_set_get_ip4_port` in net/netfilter/ipset/ip_set_getport.c):
/// for ICMP type * 256 + code, 0 for protocols without ports. `None`: not named.
pub fn ipset_port(packet: &Packet, end: End) -> Option<u16> {
    match packet.transport {
        Transport::Ports { source, destination } => match end {
            End::Source => source,
            End::Destination => destination,
        },
        Transport::Icmp { kind, code } => Some(u16::from(kind) << 8 | u16::from(code)),
        Transport::Other => Some(0),
    }
}

fn network(address: IpAddr, length: u8) -> Option<IpNet> {
    IpNet::new(address, length).ok().map(|net| net.trunc())
}

//! Ethernet frames of probes: built from a [`Probe`], and read back from the wire.
//!
//! Only what probes need: no options, no fragments, no VLAN tags.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use unmasq_model::packet::Protocol;

use crate::probe::Probe;

/// A link-layer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// A probe as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source; the port is 0 for ICMP.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
}

/// The Ethernet type that IEEE 802 leaves to experiments: our marker frames.
pub const MARKER: u16 = 0x88b5;
/// What probes carry.
pub const PAYLOAD: [u8; 8] = *b"unmasq!\n";
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ETHERNET: usize = 14;
const SYN: u8 = 2;

/// A frame with a payload of any type.
pub fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + payload.len());
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The type, destination and payload of a frame.
pub fn split(frame: &[u8]) -> Option<(u16, Mac, &[u8])> {
    let kind = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let to = Mac(frame.get(..6)?.try_into().ok()?);
    Some((kind, to, frame.get(ETHERNET..)?))
}

/// The whole frame of a probe, checksums and all.
pub fn probe(probe: &Probe, to: Mac, from: Mac) -> Result<Vec<u8>> {
    let (source, destination) = (probe.source.ip(), probe.destination.ip());
    let segment = transport(probe);
    let (kind, packet) = packet(probe.protocol, (source, destination), probe.ttl, &segment)?;
    Ok(ethernet(to, from, kind, &packet))
}

/// The Ethernet type and the bytes of a packet of one family's two addresses.
pub(crate) fn packet(
    protocol: Protocol,
    addresses: (IpAddr, IpAddr),
    ttl: u8,
    segment: &[u8],
) -> Result<(u16, Vec<u8>)> {
    Ok(match addresses {
        (IpAddr::V4(from), IpAddr::V4(to)) => (IPV4, ipv4(protocol, (from, to), ttl, segment)?),
        (IpAddr::V6(from), IpAddr::V6(to)) => (IPV6, ipv6(protocol, (from, to), ttl, segment)?),
        _ => bail!("a packet of two families"),
    })
}

/// An echo request as a raw ICMP socket sends it. ICMPv6 sockets fill in the checksum.
pub fn echo_request(protocol: Protocol) -> Vec<u8> {
    let kind = if protocol == Protocol::ICMPV6 { 128 } else { 8 };
    let mut message = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1];
    message.extend(PAYLOAD);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Whether the checksums of a frame's packet are right: its header's (IPv4) and its segment's.
pub fn checksums_hold(frame: &[u8]) -> bool {
    let Some((kind, _, packet)) = split(frame) else { return false };
    let Some(segment) = read(kind, packet) else { return false };
    let addresses = if segment.source.is_ipv4() { 12..20 } else { 8..40 };
    let Some(addresses) = packet.get(addresses) else { return false };
    // What has its checksum in place sums to zero.
    let header = packet.len() - segment.bytes.len();
    if segment.source.is_ipv4() && checksum(&[&packet[..header]]) != 0 {
        return false;
    }
    let length = (segment.bytes.len() as u32).to_be_bytes();
    let pseudo = [addresses, &length, &[0, 0, 0, segment.protocol.0]].concat();
    let covered = if segment.protocol == Protocol::ICMP { Vec::new() } else { pseudo };
    checksum(&[&covered, segment.bytes]) == 0
}

/// Which packets are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those that open connections: SYN alone, UDP, echo requests.
    Openings,
    /// All of TCP and UDP, echoes and errors: not neighbour discovery and its like.
    All,
}

/// The opening packet in an Ethernet payload of type IPv4 or IPv6. `None`: anything else
/// (answers, errors, neighbour discovery).
pub fn opening(kind: u16, packet: &[u8]) -> Option<Flow> {
    flow(kind, packet, Wanted::Openings)
}

/// Addresses and ports of a packet in an Ethernet payload of type IPv4 or IPv6. `None`: none that
/// is wanted.
pub fn flow(kind: u16, packet: &[u8], wanted: Wanted) -> Option<Flow> {
    read(kind, packet)?.flow(wanted)
}

/// A packet without its Internet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'p> {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// The transport header and what follows.
    pub bytes: &'p [u8],
}

/// Reads the Internet header of an Ethernet payload.
pub fn read(kind: u16, packet: &[u8]) -> Option<Segment<'_>> {
    match kind {
        IPV4 => read_v4(packet),
        IPV6 => {
            let address = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).into())
            };
            Some(Segment {
                protocol: Protocol(*packet.get(6)?),
                source: address(8)?,
                destination: address(24)?,
                bytes: packet.get(40..)?,
            })
        }
        _ => None,
    }
}

/// Reads the header of an IPv4 packet.
pub fn read_v4(packet: &[u8]) -> Option<Segment<'_>> {
    let header = usize::from(packet.first()? & 15) * 4;
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes).into())
    };
    Some(Segment {
        protocol: Protocol(*packet.get(9)?),
        source: address(12)?,
        destination: address(16)?,
        bytes: packet.get(header..)?,
    })
}

impl Segment<'_> {
    /// Addresses and ports. `None`: no packet that is wanted.
    pub fn flow(&self, wanted: Wanted) -> Option<Flow> {
        let bytes = self.bytes;
        let port = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let all = wanted == Wanted::All;
        let (source, destination) = match (self.protocol, *bytes.first()?) {
            (Protocol::TCP, _) if all || *bytes.get(13)? == SYN => (port(0)?, port(2)?),
            (Protocol::UDP, _) => (port(0)?, port(2)?),
            (Protocol::ICMP, 8) | (Protocol::ICMPV6, 128) => (0, 0),
            (Protocol::ICMP, 0 | 3 | 11 | 12) | (Protocol::ICMPV6, 1..=4 | 129) if all => (0, 0),
            _ => return None,
        };
        Some(Flow {
            protocol: self.protocol,
            source: SocketAddr::new(self.source, source),
            destination: SocketAddr::new(self.destination, destination),
        })
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Mac> {
        let bytes: Vec<u8> = text
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()
            .with_context(|| format!("not a MAC: {text}"))?;
        match bytes.try_into() {
            Ok(bytes) => Ok(Mac(bytes)),
            Err(_) => bail!("not a MAC: {text}"),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

fn transport(probe: &Probe) -> Vec<u8> {
    let (source, destination) = (probe.source.port(), probe.destination.port());
    let mut segment = Vec::new();
    let sum_at = match probe.protocol {
        Protocol::TCP => {
            segment.extend(source.to_be_bytes());
            segment.extend(destination.to_be_bytes());
            segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
            16
        }
        Protocol::UDP => {
            segment.extend(source.to_be_bytes());
            segment.extend(destination.to_be_bytes());
            segment.extend([0, 16, 0, 0]);
            6
        }
        other => return echo(other, probe),
    };
    segment.extend(PAYLOAD);
    fill(probe.protocol, (probe.source.ip(), probe.destination.ip()), &mut segment, sum_at);
    segment
}

fn echo(protocol: Protocol, probe: &Probe) -> Vec<u8> {
    let mut segment = echo_request(protocol);
    if protocol == Protocol::ICMPV6 {
        fill(protocol, (probe.source.ip(), probe.destination.ip()), &mut segment, 2);
    }
    segment
}

/// Writes the checksum over the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1), which
/// ICMP alone does without (RFC 792).
pub(crate) fn fill(
    protocol: Protocol,
    (source, destination): (IpAddr, IpAddr),
    segment: &mut [u8],
    at: usize,
) {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut pseudo = Vec::new();
    if protocol != Protocol::ICMP {
        pseudo.extend(octets(source));
        pseudo.extend(octets(destination));
        pseudo.extend((segment.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol.0]);
    }
    segment[at..at + 2].fill(0);
    let sum = checksum(&[&pseudo, segment]);
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn ipv4(
    protocol: Protocol,
    (source, to): (Ipv4Addr, Ipv4Addr),
    ttl: u8,
    segment: &[u8],
) -> Result<Vec<u8>> {
    let length = u16::try_from(20 + segment.len()).context("packet too long")?;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0x12, 0x34, 0x40, 0, ttl, protocol.0, 0, 0]);
    packet.extend(source.octets());
    packet.extend(to.octets());
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(segment);
    Ok(packet)
}

fn ipv6(
    protocol: Protocol,
    (source, to): (Ipv6Addr, Ipv6Addr),
    ttl: u8,
    segment: &[u8],
) -> Result<Vec<u8>> {
    let length = u16::try_from(segment.len()).context("packet too long")?;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([protocol.0, ttl]);
    packet.extend(source.octets());
    packet.extend(to.octets());
    packet.extend(segment);
    Ok(packet)
}

/// The Internet checksum (RFC 1071) of parts of even length, the last of any length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for chunk in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u64::from(chunk[0]) << 8 | u64::from(*chunk.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emitted_probe_reads_back_and_its_checksums_are_right() {
        for text in [
            "eth0 tcp 192.0.2.7:4001 > 10.0.0.1:80",
            "eth0 udp 192.0.2.7:4002 > 10.0.0.1:53",
            "eth0 icmp 192.0.2.7 > 10.0.0.1",
            "eth0 tcp [2001:db8::7]:4003 > [fd00::1]:80",
            "eth0 udp [2001:db8::7]:4004 > [fd00::1]:53",
            "eth0 icmp 2001:db8::7 > fd00::1",
        ] {
            let sent: Probe = text.parse().unwrap();
            let bytes = probe(&sent, Mac([2; 6]), Mac([4; 6])).unwrap();
            let (kind, to, packet) = split(&bytes).unwrap();
            assert_eq!(to, Mac([2; 6]));
            let flow = opening(kind, packet).unwrap();
            let Probe { protocol, source, destination, .. } = sent;
            assert_eq!(flow, Flow { protocol, source, destination }, "{text}");
            assert!(checksums_hold(&bytes), "{text}");
            // Wherever one bit is another, they say so: in the IPv6 header only addresses count.
            for at in [bytes.len() - 1, 14 + 20, 14 + 12] {
                let mut wrong = bytes.clone();
                wrong[at] ^= 4;
                assert!(!checksums_hold(&wrong), "{text}: byte {at}");
            }
        }
    }
}

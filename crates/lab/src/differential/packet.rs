//! Random packets, and how one is told from the others: by a number in its payload, which no
//! rule sees and no translation changes.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use unmasq_model::packet::{Family, Protocol};

use super::address::{CLIENTS, DEVICES, LOOPBACK, MARKS, Net, OWN, PORTS, REFUSED, SERVERS};
use super::random::Random;
use super::ruleset::Proto;
use crate::frame::{self, Mac, PAYLOAD};
use crate::probe::{Entry, Probe};

/// The way a packet takes as long as no rule changes it, for the breakdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// In by a device, to another host.
    Forwarded,
    /// In by a device, to the node.
    ToHost,
    /// From the node to another host.
    FromHost,
    /// From the node to itself.
    Loopback,
}

impl Path {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Path::Forwarded => "forwarded",
            Path::ToHost => "to the host",
            Path::FromHost => "from the host",
            Path::Loopback => "over loopback",
        }
    }
}

/// A packet to inject.
#[derive(Debug, Clone)]
pub(super) struct Injection {
    /// What it is.
    pub(super) probe: Probe,
    /// By which it is known again.
    pub(super) cookie: u32,
    /// The ICMP identifier; the source port of others.
    pub(super) number: u16,
    /// The way.
    pub(super) path: Path,
}

/// The first of the source ports and of the ICMP identifiers; nothing else has them.
const FIRST_PORT: u16 = 1024;
/// How many. Rules that choose ports choose higher ones.
const PORTS_USED: u64 = 38_000;

/// A packet; `serial` is different for all that the same node sees within a minute.
pub(super) fn packet(random: &mut Random, family: Family, serial: u64) -> Injection {
    let path = match random.below(20) {
        0..10 => Path::Forwarded,
        10..13 => Path::ToHost,
        13..18 => Path::FromHost,
        _ => Path::Loopback,
    };
    let own = |random: &mut Random| random.pick(&OWN).host();
    let source = match path {
        Path::Forwarded | Path::ToHost if random.percent(3) => own(random),
        Path::Forwarded | Path::ToHost => random.pick(&CLIENTS),
        Path::Loopback if random.percent(30) => LOOPBACK,
        Path::FromHost | Path::Loopback => own(random),
    };
    let destination = match path {
        Path::Forwarded | Path::FromHost if random.percent(6) => random.pick(&REFUSED),
        Path::Forwarded | Path::FromHost => random.pick(&SERVERS),
        Path::Loopback if source == LOOPBACK => LOOPBACK,
        Path::ToHost | Path::Loopback => own(random),
    };
    let entry = match path {
        Path::Forwarded | Path::ToHost => {
            Entry::Device { name: entry(random, source).into(), to: None }
        }
        Path::FromHost | Path::Loopback => Entry::Host,
    };
    let proto = random.pick(&[Proto::Tcp, Proto::Tcp, Proto::Udp, Proto::Udp, Proto::Icmp]);
    let mark = if entry == Entry::Host && random.percent(20) { random.pick(&MARKS) } else { 0 };
    let port = random.pick(&PORTS);
    let number = number(serial);
    let ports = if proto == Proto::Icmp { (0, 0) } else { (number, port) };
    let probe = Probe {
        entry,
        protocol: proto.number(family),
        source: SocketAddr::new(source.address(family), ports.0),
        destination: SocketAddr::new(destination.address(family), ports.1),
        ttl: if random.percent(2) { 1 } else { 64 },
        mark,
    };
    Injection { probe, cookie: serial as u32, number, path }
}

/// The source port of a serial number; none of the ports that packets go to.
fn number(serial: u64) -> u16 {
    let port = FIRST_PORT + (serial % PORTS_USED) as u16;
    if PORTS.contains(&port) { FIRST_PORT + PORTS_USED as u16 + port % 100 } else { port }
}

/// Mostly the device behind which the source is.
fn entry(random: &mut Random, source: Net) -> &'static str {
    if random.percent(25) {
        return random.pick(&DEVICES);
    }
    match source.0 {
        [10, number @ 1..=3, ..] => DEVICES[usize::from(number)],
        _ => DEVICES[0],
    }
}

impl Proto {
    fn number(self, family: Family) -> Protocol {
        match (self, family) {
            (Proto::Tcp, _) => Protocol::TCP,
            (Proto::Udp, _) => Protocol::UDP,
            (Proto::Icmp, Family::V4) => Protocol::ICMP,
            (Proto::Icmp, Family::V6) => Protocol::ICMPV6,
        }
    }
}

impl Injection {
    /// Its frame: the probe's, with the number in the payload, and checksums to fit.
    pub(super) fn frame(&self, to: Mac, from: Mac) -> Result<Vec<u8>> {
        let mut frame = frame::probe(&self.probe, to, from)?;
        let segment = self.segment_at();
        let sum = segment
            + match self.probe.protocol {
                Protocol::TCP => 16,
                Protocol::UDP => 6,
                _ => 2,
            };
        let payload = frame.len().checked_sub(4).context("a probe without payload")?;
        let [a, b, c, d] = self.cookie.to_be_bytes();
        replace(&mut frame, payload, [a, b], sum);
        replace(&mut frame, payload + 2, [c, d], sum);
        if matches!(self.probe.protocol, Protocol::ICMP | Protocol::ICMPV6) {
            replace(&mut frame, segment + 4, self.number.to_be_bytes(), sum);
        }
        Ok(frame)
    }

    /// Its transport header and payload, as a raw socket sends them.
    pub(super) fn segment(&self) -> Result<Vec<u8>> {
        Ok(self.frame(Mac([0; 6]), Mac([0; 6]))?.split_off(self.segment_at()))
    }

    fn segment_at(&self) -> usize {
        if self.probe.source.is_ipv4() { 34 } else { 54 }
    }
}

/// The number of a packet, by the end of its payload.
pub(super) fn cookie(packet: &[u8]) -> Option<u32> {
    let payload = packet.get(packet.len().checked_sub(PAYLOAD.len())?..)?;
    let number = payload.strip_prefix(&PAYLOAD[..4])?;
    Some(u32::from_be_bytes(number.try_into().ok()?))
}

/// Replaces two bytes at an even place, and mends the checksum over them (RFC 1624, equation 3).
fn replace(frame: &mut [u8], at: usize, new: [u8; 2], sum_at: usize) {
    let word = |frame: &[u8], at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let old = word(frame, at);
    frame[at..at + 2].copy_from_slice(&new);
    let mut sum = (!word(frame, sum_at) & 0xffff) + (!old & 0xffff) + word(frame, at);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !(sum as u16);
    frame[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_frames_have_right_checksums() {
        for family in [Family::V4, Family::V6] {
            for serial in 0..200 {
                let mut random = Random::new(1, 2, serial);
                let injection = packet(&mut random, family, serial * 0x0001_0203);
                let frame = injection.frame(Mac([2; 6]), Mac([4; 6])).unwrap();
                assert_eq!(cookie(&frame), Some(injection.cookie));
                let at = injection.segment_at();
                let addresses = if family == Family::V4 { 26..34 } else { 22..54 };
                let protocol = injection.probe.protocol;
                let mut covered = frame[at..].to_vec();
                if protocol != Protocol::ICMP {
                    covered.extend(&frame[addresses]);
                    covered.extend([0, protocol.0, 0, (frame.len() - at) as u8]);
                }
                // Ones' complement: data with their checksum sum to all ones.
                let words = covered.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
                let mut sum: u32 = words.sum();
                while sum > 0xffff {
                    sum = (sum & 0xffff) + (sum >> 16);
                }
                assert_eq!(sum, 0xffff, "{}", injection.probe);
            }
        }
    }

    #[test]
    fn no_source_port_is_a_destination_port() {
        assert!((0..PORTS_USED).all(|serial| !PORTS.contains(&number(serial))));
    }
}

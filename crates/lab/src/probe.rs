//! Probes: packets to send, and the notation in which tests write them.
//!
//! ```text
//! eth0 tcp 192.0.2.7:4000 > 10.0.0.1:80          comes in by eth0
//! host udp 10.0.0.1:4000 > 10.9.0.1:53 mark 0x10  sent by the host itself, with SO_MARK
//! eth0 icmp 192.0.2.7 > 10.9.0.1 ttl 1
//! port1 tcp 10.5.0.2:4000 > 10.9.0.1:80 to 02:00:00:00:00:aa   to another MAC than the device's
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use unmasq_model::packet::{Packet, Protocol};

use crate::frame::Mac;

/// A packet to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where it starts.
    pub entry: Entry,
    /// TCP (a SYN), UDP, or ICMP of the addresses' family (an echo request).
    pub protocol: Protocol,
    /// Source; the port is 0 for ICMP.
    pub source: SocketAddr,
    /// Destination, of the same family.
    pub destination: SocketAddr,
    /// Time to live or hop limit (of packets that come in by a device).
    pub ttl: u8,
    /// The sending socket's mark (of packets that the host sends).
    pub mark: u32,
}

/// Where a packet starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// It comes in by a device of the node.
    Device {
        /// The device's name.
        name: String,
        /// The MAC that it is sent to; `None`: the device's own.
        to: Option<Mac>,
    },
    /// A socket of the node sends it.
    Host,
}

impl Probe {
    /// The same packet as the model has it.
    pub fn packet(&self) -> Packet {
        let (source, destination) = (self.source, self.destination);
        let mut packet = Packet::open(
            self.protocol,
            source.ip(),
            Some(source.port()),
            destination.ip(),
            Some(destination.port()),
        );
        packet.ttl = Some(self.ttl);
        packet.mark = self.mark;
        packet
    }

    /// The device that it comes in by.
    pub fn device(&self) -> Option<&str> {
        match &self.entry {
            Entry::Device { name, .. } => Some(name),
            Entry::Host => None,
        }
    }

    /// The same packet from another source port.
    pub fn from_port(&self, port: u16) -> Probe {
        let mut probe = self.clone();
        probe.source.set_port(port);
        probe
    }
}

impl FromStr for Probe {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Probe> {
        let mut words = text.split_whitespace();
        let mut next = || words.next().with_context(|| format!("probe too short: {text}"));
        let (entry, protocol) = (next()?, next()?);
        let (source, arrow, destination) = (endpoint(next()?)?, next()?, endpoint(next()?)?);
        if arrow != ">" || source.is_ipv4() != destination.is_ipv4() {
            bail!("not `SOURCE > DESTINATION` of one family: {text}");
        }
        let protocol = match (protocol, source.is_ipv4()) {
            ("tcp", _) => Protocol::TCP,
            ("udp", _) => Protocol::UDP,
            ("icmp", true) => Protocol::ICMP,
            ("icmp", false) => Protocol::ICMPV6,
            (other, _) => bail!("cannot send {other}"),
        };
        let entry = match entry {
            "host" => Entry::Host,
            name => Entry::Device { name: name.into(), to: None },
        };
        let mut probe = Probe { entry, protocol, source, destination, ttl: 64, mark: 0 };
        while let Some(option) = words.next() {
            let value = words.next().with_context(|| format!("{option} without value"))?;
            probe.set(option, value)?;
        }
        Ok(probe)
    }
}

impl Probe {
    fn set(&mut self, option: &str, value: &str) -> Result<()> {
        match (option, &mut self.entry) {
            ("ttl", _) => self.ttl = value.parse()?,
            ("mark", _) => {
                let digits = value.trim_start_matches("0x");
                let radix = if digits.len() == value.len() { 10 } else { 16 };
                self.mark = u32::from_str_radix(digits, radix)?;
            }
            ("to", Entry::Device { to, .. }) => *to = Some(value.parse()?),
            (other, _) => bail!("no such option here: {other}"),
        }
        Ok(())
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.device().unwrap_or("host");
        let (from, to) = (show(self.source), show(self.destination));
        write!(f, "{entry} {} {from} > {to}", self.protocol)
    }
}

/// `addr:port`, or the bare address where the port is 0.
pub fn show(endpoint: SocketAddr) -> String {
    if endpoint.port() == 0 { endpoint.ip().to_string() } else { endpoint.to_string() }
}

fn endpoint(text: &str) -> Result<SocketAddr> {
    if let Ok(endpoint) = text.parse() {
        return Ok(endpoint);
    }
    let address: IpAddr = text.parse().map_err(|_| anyhow!("not an address: {text}"))?;
    Ok(SocketAddr::new(address, 0))
}

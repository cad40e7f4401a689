//! Many packets at once into one node, and where each came out.
//!
//! As [`crate::network`] does it, whose reasoning on drops and delays holds here too: packets are
//! handled on the CPU that sends them, and marker frames sent after them come after them. A
//! `Wire` belongs to a thread inside the node's namespace that stays on one CPU.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RawProtocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use unmasq_model::packet::{Family, Protocol};

use super::address::DEVICES;
use super::mark;
use super::packet::{Injection, cookie};
use crate::frame::{self, Flow, MARKER, Mac, Wanted};
use crate::network::Network;
use crate::probe::Entry;
use crate::socket::{ArrivalSocket, PacketSocket};

/// Where one packet came out. Empty: nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The device that it left by; `None`: the node itself took it.
    pub(super) device: Option<&'static str>,
    /// Its addresses and ports then.
    pub(super) flow: Flow,
}

/// Arrivals by the packets' numbers.
pub(super) type Arrivals = BTreeMap<u32, Vec<Arrival>>;

const FENCE_ROUNDS: u32 = 16;
const FENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// The sockets around a node.
pub(super) struct Wire {
    family: Family,
    frames: PacketSocket,
    /// The outside ends, by index.
    devices: BTreeMap<u32, &'static str>,
    fence: (u32, u32),
    ears: Vec<Ear>,
    senders: BTreeMap<(Protocol, IpAddr), OwnedFd>,
}

impl Wire {
    /// The sockets of a network, with those of the node in the calling thread's namespace.
    pub(super) fn open(network: &Network, family: Family) -> Result<Wire> {
        let frames = network.outside.enter(PacketSocket::open)??;
        let mut devices = BTreeMap::new();
        for name in DEVICES {
            devices.insert(frames.index(name)?, name);
        }
        let fence = (frames.index("fence0")?, frames.index("fence1")?);
        let icmp = match family {
            Family::V4 => Protocol::ICMP,
            Family::V6 => Protocol::ICMPV6,
        };
        let ears = [Protocol::TCP, Protocol::UDP, icmp]
            .map(|protocol| Ear::open(protocol, family))
            .into_iter()
            .collect::<Result<_>>()?;
        Ok(Wire { family, frames, devices, fence, ears, senders: BTreeMap::new() })
    }

    /// Sends packets, and says where each came out.
    pub(super) fn send(&mut self, injections: &[Injection]) -> Result<Arrivals> {
        self.frames.drain()?;
        let mut arrivals = Arrivals::new();
        for ear in &self.ears {
            ear.listen(&mut Arrivals::new())?;
        }
        for chunk in injections.chunks(64) {
            for injection in chunk {
                self.inject(injection).with_context(|| format!("send {}", injection.probe))?;
            }
            self.fence(&mut arrivals)?;
            for ear in &self.ears {
                ear.listen(&mut arrivals)?;
            }
        }
        Ok(arrivals)
    }

    fn inject(&mut self, injection: &Injection) -> Result<()> {
        let probe = &injection.probe;
        let Entry::Device { name, .. } = &probe.entry else {
            return self.send_from_host(injection);
        };
        let number = DEVICES.iter().position(|device| device == name).context("which device")?;
        // The node's MACs, in the order of its devices (`Network::new`).
        let to = Mac([2, 0, 0, 0, 0, 1 + number as u8]);
        let frame = injection.frame(to, Mac([2, 0, 0, 0, 1, 1 + number as u8]))?;
        let index = self.devices.iter().find(|(_, device)| *device == name);
        let (index, _) = index.context("which device")?;
        Ok(self.frames.send(*index, &frame)?)
    }

    /// What the kernel doesn't let out, it says by an error: it came out nowhere.
    fn send_from_host(&mut self, injection: &Injection) -> Result<()> {
        let probe = &injection.probe;
        let key = (probe.protocol, probe.source.ip());
        if !self.senders.contains_key(&key) {
            let fd = raw(probe.protocol, self.family)?;
            rustix::net::bind(&fd, &SocketAddr::new(probe.source.ip(), 0)).context("bind")?;
            self.senders.insert(key, fd);
        }
        let fd = self.senders.get(&key).context("a sender")?;
        mark::set(fd, probe.mark)?;
        let to = SocketAddr::new(probe.destination.ip(), 0);
        let _refused = rustix::net::sendto(fd, &injection.segment()?, SendFlags::empty(), &to);
        Ok(())
    }

    fn fence(&self, arrivals: &mut Arrivals) -> Result<()> {
        for round in 0..FENCE_ROUNDS {
            let marker = frame::ethernet(
                Mac([0xff; 6]),
                Mac([2, 0, 0, 0, 0, 0]),
                MARKER,
                &round.to_be_bytes(),
            );
            self.frames.send(self.fence.0, &marker)?;
            loop {
                let Some(received) = self.frames.receive(FENCE_TIMEOUT)? else {
                    bail!("a marker frame was lost");
                };
                if received.device == self.fence.1 && received.frame == marker {
                    break;
                }
                let Some((kind, _, packet)) = frame::split(&received.frame) else { continue };
                let (Some(flow), Some(cookie)) = (frame::opening(kind, packet), cookie(packet))
                else {
                    continue;
                };
                if let Some(device) = self.devices.get(&received.device) {
                    let arrival = Arrival { device: Some(device), flow };
                    arrivals.entry(cookie).or_default().push(arrival);
                }
            }
        }
        Ok(())
    }
}

/// Hears packets of one protocol that the node delivers to itself. Two sockets that hear the same
/// in the same order: one gives the bytes, one the destination, which IPv6 keeps from the bytes.
struct Ear {
    bytes: OwnedFd,
    flows: ArrivalSocket,
}

impl Ear {
    fn open(protocol: Protocol, family: Family) -> Result<Ear> {
        let bytes = raw(protocol, family)?;
        let flows = ArrivalSocket::open(protocol, family == Family::V6, Wanted::Openings)?;
        Ok(Ear { bytes, flows })
    }

    fn listen(&self, arrivals: &mut Arrivals) -> Result<()> {
        let mut buffer = [0u8; 2048];
        let mut cookies = Vec::new();
        while let Ok((length, _)) = rustix::net::recv(&self.bytes, &mut buffer, RecvFlags::empty())
        {
            cookies.extend(cookie(&buffer[..length]));
        }
        let mut flows = Vec::new();
        while let Some(flow) = self.flows.receive()? {
            flows.push(flow);
        }
        if cookies.len() != flows.len() {
            bail!("two sockets heard different packets: {} and {}", cookies.len(), flows.len());
        }
        for (cookie, flow) in cookies.into_iter().zip(flows) {
            arrivals.entry(cookie).or_default().push(Arrival { device: None, flow });
        }
        Ok(())
    }
}

fn raw(protocol: Protocol, family: Family) -> Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let number = RawProtocol::new(u32::from(protocol.0)).context("protocol 0")?;
    let protocol = rustix::net::Protocol::from_raw(number);
    let flags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
    Ok(rustix::net::socket_with(family, SocketType::RAW, flags, Some(protocol))?)
}

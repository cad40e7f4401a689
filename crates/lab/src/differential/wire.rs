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
use crate::reply;
use crate::socket::{ArrivalSocket, PacketSocket};

/// Where one packet came out. Empty: nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The device that it left by, and the MAC that it was sent to; `None`: the node itself took
    /// it.
    pub(super) left: Option<(&'static str, Mac)>,
    /// Its addresses and ports then.
    pub(super) flow: Flow,
}

/// Arrivals by the packets' numbers.
pub(super) type Arrivals = BTreeMap<u32, Vec<Arrival>>;

/// A packet to send alone.
#[derive(Debug, Clone)]
pub(super) struct Departure {
    /// Where it starts.
    pub(super) entry: Entry,
    /// The sending socket's mark (of packets that the node sends).
    pub(super) mark: u32,
    /// The whole frame, whatever its MACs.
    pub(super) frame: Vec<u8>,
}

/// A MAC of frames that [`Wire::send_one`] puts right.
pub(super) const ANYBODY: Mac = Mac([2, 0, 0, 0, 3, 0]);

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
    /// Hear everything, for packets that are sent alone.
    alone: Vec<ArrivalSocket>,
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
        let ears = protocols(family)
            .map(|protocol| Ear::open(protocol, family))
            .into_iter()
            .collect::<Result<_>>()?;
        Ok(Wire {
            family,
            frames,
            devices,
            fence,
            ears,
            alone: Vec::new(),
            senders: BTreeMap::new(),
        })
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

    /// Sends one packet, and says where it came out, whatever it has in it.
    pub(super) fn send_one(&mut self, departure: &Departure) -> Result<Vec<Arrival>> {
        self.frames.drain()?;
        if self.alone.is_empty() {
            let open =
                |protocol| ArrivalSocket::open(protocol, self.family == Family::V6, Wanted::All);
            self.alone = protocols(self.family).into_iter().map(open).collect::<Result<_, _>>()?;
        }
        for ear in &self.alone {
            while ear.receive()?.is_some() {}
        }
        let packet = reply::arrived(&departure.frame).context("not a packet")?;
        let (protocol, source, to) = (packet.protocol, packet.source, packet.destination);
        match &departure.entry {
            Entry::Device { name, .. } => self.inject_frame(name, departure.frame.clone())?,
            Entry::Host => {
                self.send_segment((protocol, source, to), departure.mark, packet.bytes)?;
            }
        }
        let mut arrived = Vec::new();
        self.markers(|device, to, kind, packet| {
            let flow = frame::flow(kind, packet, Wanted::All);
            arrived.extend(flow.map(|flow| Arrival { left: Some((device, to)), flow }));
        })?;
        for ear in &self.alone {
            while let Some(flow) = ear.receive()? {
                arrived.push(Arrival { left: None, flow });
            }
        }
        Ok(arrived)
    }

    fn inject(&mut self, injection: &Injection) -> Result<()> {
        let probe = &injection.probe;
        let Entry::Device { name, .. } = &probe.entry else {
            return self.send_from_host(injection);
        };
        self.inject_frame(name, injection.frame(ANYBODY, ANYBODY)?)
    }

    /// Sends a frame into a device, from the MAC of its outside end to that of its inside end.
    fn inject_frame(&self, name: &str, mut frame: Vec<u8>) -> Result<()> {
        let number = DEVICES.iter().position(|device| *device == name).context("which device")?;
        // In the order of the node's devices (`Network::new`).
        let number = 1 + number as u8;
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, number, 2, 0, 0, 0, 1, number]);
        let index = self.devices.iter().find(|(_, device)| **device == name);
        let (index, _) = index.context("which device")?;
        Ok(self.frames.send(*index, &frame)?)
    }

    /// What the kernel doesn't let out, it says by an error: it came out nowhere.
    fn send_from_host(&mut self, injection: &Injection) -> Result<()> {
        let probe = &injection.probe;
        let ends = (probe.protocol, probe.source.ip(), probe.destination.ip());
        self.send_segment(ends, probe.mark, &injection.segment()?)
    }

    fn send_segment(
        &mut self,
        (protocol, source, to): (Protocol, IpAddr, IpAddr),
        mark: u32,
        segment: &[u8],
    ) -> Result<()> {
        let key = (protocol, source);
        if !self.senders.contains_key(&key) {
            let fd = raw(protocol, self.family)?;
            rustix::net::bind(&fd, &SocketAddr::new(source, 0)).context("bind")?;
            self.senders.insert(key, fd);
        }
        let fd = self.senders.get(&key).context("a sender")?;
        mark::set(fd, mark)?;
        let to = SocketAddr::new(to, 0);
        let _refused = rustix::net::sendto(fd, segment, SendFlags::empty(), &to);
        Ok(())
    }

    fn fence(&self, arrivals: &mut Arrivals) -> Result<()> {
        self.markers(|device, to, kind, packet| {
            if let (Some(flow), Some(cookie)) = (frame::opening(kind, packet), cookie(packet)) {
                let arrival = Arrival { left: Some((device, to)), flow };
                arrivals.entry(cookie).or_default().push(arrival);
            }
        })
    }

    /// Sends markers until what was sent before is done, and shows the frames that came out.
    fn markers(&self, mut each: impl FnMut(&'static str, Mac, u16, &[u8])) -> Result<()> {
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
                let Some((kind, to, packet)) = frame::split(&received.frame) else { continue };
                if let Some(device) = self.devices.get(&received.device) {
                    each(device, to, kind, packet);
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
            arrivals.entry(cookie).or_default().push(Arrival { left: None, flow });
        }
        Ok(())
    }
}

fn protocols(family: Family) -> [Protocol; 3] {
    let icmp = match family {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    };
    [Protocol::TCP, Protocol::UDP, icmp]
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

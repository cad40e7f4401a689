//! A node in a namespace, wired to an outside that only watches.
//!
//! In: device names, setup scripts, probes. Out: sightings. It does not know what is right.
//!
//! **How a drop is told from a delay.** A packet that a packet socket sends into a veth pair is
//! handled by the other end in the softirq that the sending thread itself runs, on the same CPU
//! (drivers/net/veth.c `veth_xmit`, net/core/dev.c `netif_rx`, `local_bh_enable`), and so are all
//! its later hops. The backlog of a CPU is a queue, so a marker frame sent after it over a pair of
//! its own, from the same CPU, arrives after the packet's first hop is done. Each hop can queue
//! one more; [`FENCE_ROUNDS`] markers, each sent when the one before has arrived, outlast that many
//! hops. Nothing waits for a timeout.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::connections;
use crate::counter;
use crate::frame::{self, Flow, MARKER, Mac, Wanted};
use crate::namespace::Namespace;
use crate::observation::{Left, Observation, Sighting};
use crate::probe::{Entry, Probe};
use crate::reply;
use crate::socket::{ArrivalSocket, PacketSocket, Sender, send_from_host};

/// The table that keeps the node silent, and counts its errors.
pub const GUARD_TABLE: &str = "unmasq-lab";

/// The comment of its rules that count errors.
pub const REFUSED: &str = "refused";

/// Ahead of all other hooks (defragmentation is at -400) what the node itself says is dropped:
/// answers and the noise of multicast, so that no counter rises for them. Errors are counted.
const GUARD: &str = "table inet unmasq-lab {
 chain answers { type filter hook output priority -450; policy accept;
  icmp type { destination-unreachable, time-exceeded, parameter-problem } counter drop comment \"refused\"
  icmpv6 type { destination-unreachable, time-exceeded, parameter-problem } counter drop comment \"refused\"
  tcp flags & rst == rst counter drop comment \"refused\"
  icmp type redirect drop
  meta l4proto igmp drop
  icmpv6 type { 131, 132, 133, 134, 135, 136, 137, 143 } drop
 }
}";

/// Settings of every node: it forwards, has no timers of its own, doesn't answer echo requests, and
/// doesn't limit its errors.
const SETTINGS: &str = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
    net.ipv6.conf.default.forwarding=1 net.ipv6.conf.all.accept_dad=0 \
    net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.addr_gen_mode=1 \
    net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 \
    net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
    net.ipv4.icmp_echo_ignore_all=1 net.ipv6.icmp.echo_ignore_all=1 \
    net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0\n";

/// How many hops a packet may have queued behind it when the last marker arrives.
const FENCE_ROUNDS: u32 = 16;
const FENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// A node and its outside.
#[derive(Debug)]
pub struct Network {
    /// The node.
    pub node: Namespace,
    /// The other ends of its devices.
    pub outside: Namespace,
    devices: Vec<Device>,
    frames: PacketSocket,
    /// Index of the sending and of the receiving end.
    fence: (u32, u32),
}

/// A veth pair: one name at both ends.
#[derive(Debug)]
struct Device {
    name: String,
    /// Index of the outside end.
    index: u32,
    inner: Mac,
    outer: Mac,
}

impl Network {
    /// A node with these devices, up, without addresses. No neighbour has to be resolved on them
    /// (`arp off`), and the node's MACs are 02:00:00:00:00:01 and so on in the order given.
    pub fn new(devices: &[&str]) -> Result<Network> {
        let node = Namespace::new("node")?;
        let outside = Namespace::new("outside")?;
        let mut outer = String::from(
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1\n\
             ip link add fence0 up type veth peer name fence1\nip link set fence1 up\n",
        );
        let mut inner = String::from(SETTINGS);
        inner.push_str("ip link set lo up\n");
        for (number, name) in (1u8..).zip(devices) {
            let (here, there) = (outer_mac(number), inner_mac(number));
            let to = node.name();
            writeln!(
                outer,
                "ip link add {name} up address {here} type veth peer name {name} netns {to} \
                 address {there}"
            )?;
            writeln!(inner, "ip link set {name} arp off up")?;
        }
        outside.script(&outer)?;
        node.script(&inner)?;
        node.exec_with(&["nft", "-f", "-"], GUARD)?;
        let frames = outside.enter(PacketSocket::open)??;
        let wired = |(number, name): (u8, &&str)| -> Result<Device> {
            let index = frames.index(name).with_context(|| format!("index of {name}"))?;
            let (inner, outer) = (inner_mac(number), outer_mac(number));
            Ok(Device { name: (*name).into(), index, inner, outer })
        };
        let devices = (1u8..).zip(devices).map(wired).collect::<Result<_>>()?;
        let fence = (frames.index("fence0")?, frames.index("fence1")?);
        Ok(Network { node, outside, devices, frames, fence })
    }

    /// Runs a shell script in the node.
    pub fn script(&self, script: &str) -> Result<String> {
        self.node.script(script)
    }

    /// Loads nftables commands.
    pub fn nft(&self, commands: &str) -> Result<()> {
        self.node.exec_with(&["nft", "-f", "-"], commands).map(drop)
    }

    /// Loads iptables-save text by one of `iptables-nft`, `iptables-legacy`, `ip6tables-nft`,
    /// `ip6tables-legacy`. Chains that the text doesn't mention are kept.
    pub fn restore(&self, program: &str, text: &str) -> Result<()> {
        self.node.exec_with(&[&format!("{program}-restore"), "--noflush"], text).map(drop)
    }

    /// Sends a probe and sees what becomes of it, counters included.
    pub fn observe(&self, probe: &Probe) -> Result<Observation> {
        let before = counter::read(&self.node)?;
        let sighting = self.send(probe)?;
        let after = counter::read(&self.node)?;
        Ok(Observation::new(probe.clone(), sighting, &before, after))
    }

    /// Sends a probe and sees where it comes out. Cheaper than [`Network::observe`].
    pub fn send(&self, probe: &Probe) -> Result<Sighting> {
        self.watch(probe, Wanted::Openings, || self.start(probe))
    }

    /// Sends a frame into a device, and sees what becomes of it: any packet of TCP or UDP, an echo
    /// or an error.
    pub fn observe_frame(&self, device: &str, frame: &[u8]) -> Result<Observation> {
        let arrived = reply::arrived(frame).and_then(|segment| segment.flow(Wanted::All));
        let Flow { protocol, source, destination } = arrived.context("not such a packet")?;
        let entry = Entry::Device { name: device.into(), to: None };
        let probe = Probe { entry, protocol, source, destination, ttl: 64, mark: 0 };
        let index = self.device(device)?.index;
        let before = counter::read(&self.node)?;
        let sighting = self.watch(&probe, Wanted::All, || {
            self.frames.send(index, frame)?;
            Ok(Ok(None))
        })?;
        let after = counter::read(&self.node)?;
        Ok(Observation::new(probe, sighting, &before, after))
    }

    /// Answers a packet that left ([`reply::reply_to`]), and sees what becomes of the answer.
    pub fn answer(&self, left: &Left) -> Result<Observation> {
        let frame = reply::reply_to(&left.frame).context("nobody would answer it")?;
        self.observe_frame(&left.device, &frame)
    }

    /// The connections that the node tracks ([`connections::list`]).
    pub fn connections(&self) -> Result<Vec<String>> {
        connections::list(&self.node)
    }

    /// Makes the node forget its connections.
    pub fn forget_connections(&self) -> Result<()> {
        self.node.enter(connections::forget)?
    }

    fn watch(
        &self,
        probe: &Probe,
        wanted: Wanted,
        start: impl FnOnce() -> Result<io::Result<Option<Sender>>> + Send,
    ) -> Result<Sighting> {
        let (protocol, v6) = (probe.protocol, probe.source.is_ipv6());
        self.node
            .enter(|| {
                let arrivals =
                    ArrivalSocket::open(protocol, v6, wanted).context("open a raw socket")?;
                pin_to_this_cpu().context("stay on one CPU")?;
                self.frames.drain()?;
                let mut sighting = Sighting::default();
                let sent = start()?;
                sighting.left = self.fence(wanted)?;
                while let Some(flow) = arrivals.receive()? {
                    sighting.delivered.push(flow);
                }
                // TCP gives up here, and not before the counters of its SYN are settled.
                sighting.error = sent.err().map(|error| error.to_string());
                Ok(sighting)
            })
            .with_context(|| format!("send {probe}"))?
    }

    fn start(&self, probe: &Probe) -> Result<io::Result<Option<Sender>>> {
        match &probe.entry {
            Entry::Host => Ok(send_from_host(probe).map(Some)),
            Entry::Device { name, to } => {
                let device = self.device(name)?;
                let frame = frame::probe(probe, to.unwrap_or(device.inner), device.outer)?;
                self.frames.send(device.index, &frame)?;
                Ok(Ok(None))
            }
        }
    }

    /// Sends markers until whatever was sent before them is done, and gives the wanted packets that
    /// came out meanwhile.
    fn fence(&self, wanted: Wanted) -> Result<Vec<Left>> {
        let names: BTreeMap<u32, &str> =
            self.devices.iter().map(|device| (device.index, &*device.name)).collect();
        let mut left = Vec::new();
        for round in 0..FENCE_ROUNDS {
            let marker =
                frame::ethernet(Mac([0xff; 6]), inner_mac(0), MARKER, &round.to_be_bytes());
            self.frames.send(self.fence.0, &marker)?;
            loop {
                let Some(received) = self.frames.receive(FENCE_TIMEOUT)? else {
                    bail!("a marker frame was lost");
                };
                if received.device == self.fence.1 && received.frame == marker {
                    break;
                }
                let Some((kind, to, packet)) = frame::split(&received.frame) else { continue };
                let Some(flow) = frame::flow(kind, packet, wanted) else { continue };
                if let Some(name) = names.get(&received.device) {
                    let device = String::from(*name);
                    left.push(Left { device, to, flow, frame: received.frame });
                }
            }
        }
        Ok(left)
    }

    /// Whether this is one of the devices that the network was made with.
    pub fn has_device(&self, name: &str) -> bool {
        self.device(name).is_ok()
    }

    fn device(&self, name: &str) -> Result<&Device> {
        let found = self.devices.iter().find(|device| device.name == name);
        found.with_context(|| format!("the network has no device {name}"))
    }
}

fn inner_mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

fn outer_mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, number])
}

fn pin_to_this_cpu() -> rustix::io::Result<()> {
    let mut only = CpuSet::new();
    only.set(sched_getcpu());
    sched_setaffinity(None, &only)
}

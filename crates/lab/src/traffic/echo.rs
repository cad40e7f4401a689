//! ICMP echo: who asked, and who saw it.
//!
//! The kernel answers echo requests itself. A place watches them with raw sockets, and notes what it
//! saw by the request's payload. A raw socket gets its copy before the kernel answers
//! (net/ipv4/ip_input.c `ip_protocol_deliver_rcu`; net/ipv6/ip6_input.c), so a client that has the
//! reply finds the request at the place that saw it, without waiting: it reads the place's sockets
//! itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::fd::OwnedFd;
use unmasq_model::packet::Protocol;
use unmasq_probe::datagram;
use unmasq_probe::net::control::PacketInfo;
use unmasq_probe::net::make::with_room;
use unmasq_probe::net::message;
use unmasq_probe::net::refusal;

use super::sighting;
use super::{Protocol as Spoken, Report};
use crate::frame;
use crate::socket;

const REQUEST: [u8; 2] = [8, 128];
const REPLY: [u8; 2] = [0, 129];
/// Bytes of the ICMP header.
const HEADER: usize = 8;

/// Places of this process that watch echo requests.
static WATCHES: Mutex<Vec<Weak<Watch>>> = Mutex::new(Vec::new());
static IDENTIFIERS: AtomicU16 = AtomicU16::new(0);

/// Watches the echo requests that arrive in one namespace.
#[derive(Debug)]
pub(super) struct Watch {
    by: String,
    sockets: Vec<OwnedFd>,
    /// Held from receiving to noting: whoever gets it finds everything noted that others received.
    noting: Mutex<()>,
}

impl Watch {
    /// Opens sockets in the calling thread's namespace.
    pub(super) fn open(by: &str, v6: bool) -> io::Result<Arc<Watch>> {
        let mut sockets = vec![raw(false, Some(REQUEST[0]))?];
        if v6 {
            sockets.push(raw(true, Some(REQUEST[1]))?);
        }
        let watch = Arc::new(Watch { by: by.to_owned(), sockets, noting: Mutex::default() });
        let mut watches = sighting::lock(&WATCHES);
        watches.retain(|watch| watch.strong_count() > 0);
        watches.push(Arc::downgrade(&watch));
        drop(watches);
        Ok(watch)
    }

    pub(super) fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }

    /// Notes what has come in.
    pub(super) fn serve(&self) {
        let _noting = sighting::lock(&self.noting);
        for socket in &self.sockets {
            while let Some(message) = receive(socket) {
                let Some(token) = message.token(REQUEST) else { continue };
                let at = |ip| SocketAddr::new(ip, 0);
                let (source, destination) = (at(message.source), at(message.destination));
                let mut report = Report::new(&self.by, Spoken::Icmp, source, destination)
                    .about(token.as_bytes());
                report.ttl = message.ttl;
                sighting::note(&report);
            }
        }
    }
}

/// Has all places of this process note what has come in.
pub(super) fn serve_all() {
    let watches: Vec<Arc<Watch>> =
        sighting::lock(&WATCHES).iter().filter_map(Weak::upgrade).collect();
    for watch in watches {
        watch.serve();
    }
}

/// A client's socket that hears all echo replies of one family in a namespace, from whomever.
#[derive(Debug)]
pub(super) struct ReplySocket(pub(super) OwnedFd);

impl ReplySocket {
    /// A socket in the calling thread's namespace.
    pub(super) fn open(v6: bool) -> io::Result<ReplySocket> {
        raw(v6, Some(REPLY[usize::from(v6)])).map(ReplySocket)
    }

    /// The next reply to anybody: who sent it, and its payload.
    pub(super) fn heard(&self) -> Option<(IpAddr, String)> {
        loop {
            let message = receive(&self.0)?;
            if let Some(token) = message.token(REPLY) {
                return Some((message.source, token.to_owned()));
            }
        }
    }
}

/// A client's socket from one address to one other. It receives nothing but ICMP errors.
#[derive(Debug)]
pub(super) struct RequestSocket {
    pub(super) socket: OwnedFd,
    /// The address that requests come from, once it is bound and connected.
    from: Option<SocketAddr>,
}

impl RequestSocket {
    /// A socket in the calling thread's namespace.
    pub(super) fn open(v6: bool) -> io::Result<RequestSocket> {
        let socket = raw(v6, None)?;
        refusal::keep_errors(&socket, v6)?;
        Ok(RequestSocket { socket, from: None })
    }

    /// Binds to the address to start from, if that isn't left to the kernel.
    pub(super) fn bind(&self, source: Option<IpAddr>) -> io::Result<()> {
        match source.filter(|_| self.from.is_none()) {
            Some(source) => Ok(rustix::net::bind(&self.socket, &SocketAddr::new(source, 0))?),
            None => Ok(()),
        }
    }

    /// Connects, which chooses the address to start from. Gives it.
    pub(super) fn connect(&mut self, to: SocketAddr) -> io::Result<SocketAddr> {
        if let Some(from) = self.from {
            return Ok(from);
        }
        // In IPv6 the port would be a protocol (net/ipv6/raw.c).
        rustix::net::connect(&self.socket, &without_port(to))?;
        let from = without_port(datagram::name(&self.socket)?);
        self.from = Some(from);
        Ok(from)
    }

    /// Sends a request. Gives its identifier.
    pub(super) fn send(&self, to: SocketAddr, token: &str) -> io::Result<u16> {
        let v6 = to.is_ipv6();
        // Connection tracking takes the identifier for a port, so no two may be the same.
        let identifier =
            (std::process::id() as u16).wrapping_add(IDENTIFIERS.fetch_add(1, Ordering::Relaxed));
        let mut message = vec![REQUEST[usize::from(v6)], 0, 0, 0];
        message.extend(identifier.to_be_bytes());
        message.extend([0, 1]);
        message.extend(token.as_bytes());
        if !v6 {
            // The kernel fills in ICMPv6's (RFC 3542, section 3.1).
            let sum = frame::checksum(&[&message]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        datagram::send(&self.socket, &message)?;
        Ok(identifier)
    }

    /// The next ICMP error about a request: the request's identifier, if the error has it.
    pub(super) fn refused(&self) -> Option<(refusal::Refused, Option<u16>)> {
        let refused = datagram::refused(&self.socket)?;
        let identifier = refused.about.get(4..6).and_then(|bytes| bytes.first_chunk().copied());
        Some((refused, identifier.map(u16::from_be_bytes)))
    }
}

/// Raw sockets have none, though a name of theirs has a number in its place.
fn without_port(mut address: SocketAddr) -> SocketAddr {
    address.set_port(0);
    address
}

/// A message that a raw socket received.
struct Message {
    source: IpAddr,
    destination: IpAddr,
    ttl: Option<u8>,
    /// The ICMP message.
    bytes: Vec<u8>,
}

impl Message {
    /// The payload, if the message is of one of these types.
    fn token(&self, kinds: [u8; 2]) -> Option<&str> {
        let payload = self.bytes.get(HEADER..)?;
        let wanted = kinds[usize::from(self.source.is_ipv6())];
        std::str::from_utf8(payload).ok().filter(|_| self.bytes.first() == Some(&wanted))
    }
}

fn receive(socket: &OwnedFd) -> Option<Message> {
    loop {
        let (mut data, mut control) = ([0u8; 2048], [0u8; 256]);
        let received = match message::receive_message(socket, &mut data, &mut control, 0) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        let data = &data[..received.length];
        let message = match received.source?.ip() {
            // IPv4 sockets give the whole packet.
            IpAddr::V4(_) => frame::read_v4(data).map(|packet| Message {
                source: packet.source,
                destination: packet.destination,
                ttl: data.get(8).copied(),
                bytes: packet.bytes.to_vec(),
            }),
            source @ IpAddr::V6(_) => {
                let info = PacketInfo::read(&control[..received.control]);
                info.destination.map(|destination| Message {
                    source,
                    destination,
                    ttl: info.ttl,
                    bytes: data.to_vec(),
                })
            }
        };
        if message.is_some() {
            return message;
        }
    }
}

/// A raw socket that receives messages of one type, or none.
fn raw(v6: bool, wanted: Option<u8>) -> io::Result<OwnedFd> {
    let protocol = if v6 { Protocol::ICMPV6 } else { Protocol::ICMP };
    let socket = with_room(|| socket::raw(protocol, v6))?;
    // A bit that is set blocks a type: of IPv4 the first 32 (net/ipv4/raw.c `icmp_filter`), of IPv6
    // all 256 (RFC 3542, section 3.2).
    if v6 {
        let mut blocked = [u32::MAX; 8];
        if let Some(kind) = wanted {
            blocked[usize::from(kind >> 5)] &= !(1 << (kind & 31));
        }
        let bytes: Vec<u8> = blocked.iter().flat_map(|word| word.to_ne_bytes()).collect();
        message::set_option_bytes(&socket, libc::IPPROTO_ICMPV6, ICMP_FILTER, &bytes)?;
        message::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        message::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
    } else {
        let blocked = wanted.map_or(u32::MAX, |kind| !(1 << (kind & 31)));
        message::set_option(&socket, libc::SOL_RAW, ICMP_FILTER, blocked)?;
    }
    if wanted.is_some() {
        message::enlarge_receive_buffer(&socket)?;
    }
    Ok(socket)
}

/// ICMP_FILTER (linux/icmp.h) and ICMPV6_FILTER (linux/icmpv6.h).
const ICMP_FILTER: i32 = 1;

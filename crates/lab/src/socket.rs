//! Packet and raw sockets. `unsafe` is one system call a block.
//!
//! A socket belongs to the network namespace of the thread that made it, and can be used from
//! any other thread.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{SocketAddr, UdpSocket};
use std::ptr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketType, netdevice, sockopt};
use unmasq_model::packet::Protocol;
use unmasq_probe::net::control::PacketInfo;
use unmasq_probe::net::message::{FLAGS, enlarge_receive_buffer, receive_message, set_option};

use crate::frame::{self, Flow, Segment, Wanted};
use crate::probe::Probe;

/// Sends and receives whole frames on every device of a namespace.
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

/// A frame that a device received.
#[derive(Debug)]
pub(crate) struct Received {
    /// The device's index.
    pub(crate) device: u32,
    /// The frame.
    pub(crate) frame: Vec<u8>,
}

impl PacketSocket {
    /// A socket in the calling thread's namespace.
    pub(crate) fn open() -> io::Result<PacketSocket> {
        let all = rustix::net::Protocol::from_raw(protocol_number(u32::from(
            (libc::ETH_P_ALL as u16).to_be(),
        ))?);
        let fd =
            rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, FLAGS, Some(all))?;
        enlarge_receive_buffer(&fd)?;
        Ok(PacketSocket(fd))
    }

    /// The index of a device.
    pub(crate) fn index(&self, device: &str) -> io::Result<u32> {
        Ok(netdevice::name_to_index(&self.0, device)?)
    }

    /// Sends a frame out of a device.
    #[allow(unsafe_code)]
    pub(crate) fn send(&self, device: u32, frame: &[u8]) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: i32::try_from(device).map_err(io::Error::other)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        // SAFETY: both pointers are to live memory of the lengths given, which the call only reads.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                ptr::from_ref(&address).cast(),
                mem::size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        result(sent).map(drop)
    }

    /// The next frame that came in by a device (what this namespace sends itself is left out).
    /// `None`: nothing came in time.
    pub(crate) fn receive(&self, timeout: Duration) -> io::Result<Option<Received>> {
        loop {
            match self.receive_now()? {
                Some(received) => return Ok(Some(received)),
                None if !readable(&self.0, timeout)? => return Ok(None),
                None => {}
            }
        }
    }

    /// Throws away what has come in.
    pub(crate) fn drain(&self) -> io::Result<()> {
        while self.receive_now()?.is_some() {}
        Ok(())
    }

    #[allow(unsafe_code)]
    fn receive_now(&self) -> io::Result<Option<Received>> {
        loop {
            let mut frame = vec![0u8; 2048];
            let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
            let mut length = mem::size_of::<libc::sockaddr_ll>() as u32;
            // SAFETY: the kernel writes at most the lengths given into live memory of that size.
            let got = unsafe {
                libc::recvfrom(
                    self.0.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                    address.as_mut_ptr().cast(),
                    &mut length,
                )
            };
            let got = match result(got) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            // SAFETY: all zeroes is a valid value of this struct of integers.
            let address = unsafe { address.assume_init() };
            if address.sll_pkttype == libc::PACKET_OUTGOING {
                continue;
            }
            frame.truncate(got);
            let device = u32::try_from(address.sll_ifindex).map_err(io::Error::other)?;
            return Ok(Some(Received { device, frame }));
        }
    }
}

/// Sees packets of one protocol that the host delivers to itself: a raw socket gets a copy after
/// the input hook (net/ipv4/ip_input.c, ip_protocol_deliver_rcu; net/ipv6/ip6_input.c).
#[derive(Debug)]
pub(crate) struct ArrivalSocket {
    fd: OwnedFd,
    protocol: Protocol,
    v6: bool,
    wanted: Wanted,
}

impl ArrivalSocket {
    /// A socket in the calling thread's namespace.
    pub(crate) fn open(protocol: Protocol, v6: bool, wanted: Wanted) -> io::Result<ArrivalSocket> {
        let fd = raw(protocol, v6)?;
        if v6 {
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
        Ok(ArrivalSocket { fd, protocol, v6, wanted })
    }

    /// The next wanted packet that has arrived. `None`: no other.
    pub(crate) fn receive(&self) -> io::Result<Option<Flow>> {
        loop {
            let mut data = [0u8; 2048];
            let mut control = [0u8; 256];
            let message = match receive_message(&self.fd, &mut data, &mut control, 0) {
                Ok(message) => message,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            let data = &data[..message.length];
            let info = PacketInfo::read(&control[..message.control]);
            let segment = match (self.v6, message.source, info.destination) {
                (false, _, _) => frame::read_v4(data),
                (true, Some(source), Some(destination)) => Some(Segment {
                    protocol: self.protocol,
                    source: source.ip(),
                    destination,
                    bytes: data,
                }),
                (true, _, _) => None,
            };
            if let Some(flow) = segment.and_then(|segment| segment.flow(self.wanted)) {
                return Ok(Some(flow));
            }
        }
    }
}

/// A socket that has sent a probe; a TCP one gives up when it is dropped.
#[derive(Debug)]
pub(crate) struct Sender {
    _socket: OwnedFd,
}

/// Sends a probe from the calling thread's namespace as a program would: bound to its source,
/// TCP by connecting.
pub(crate) fn send_from_host(probe: &Probe) -> io::Result<Sender> {
    let v6 = probe.source.is_ipv6();
    match probe.protocol {
        Protocol::TCP => {
            let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
            let fd = rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None)?;
            set_option(&fd, libc::SOL_SOCKET, libc::SO_MARK, probe.mark)?;
            sockopt::set_socket_reuseaddr(&fd, true)?;
            rustix::net::bind(&fd, &probe.source)?;
            match rustix::net::connect(&fd, &probe.destination) {
                Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(Sender { _socket: fd }),
                Err(error) => Err(error.into()),
            }
        }
        Protocol::UDP => {
            let socket = UdpSocket::bind(probe.source)?;
            set_option(&socket, libc::SOL_SOCKET, libc::SO_MARK, probe.mark)?;
            socket.send_to(&frame::PAYLOAD, probe.destination)?;
            Ok(Sender { _socket: socket.into() })
        }
        protocol => {
            let fd = raw(protocol, v6)?;
            set_option(&fd, libc::SOL_SOCKET, libc::SO_MARK, probe.mark)?;
            rustix::net::bind(&fd, &probe.source)?;
            let message = frame::echo_request(protocol);
            let flags = rustix::net::SendFlags::empty();
            rustix::net::sendto(&fd, &message, flags, &SocketAddr::new(probe.destination.ip(), 0))?;
            Ok(Sender { _socket: fd })
        }
    }
}

/// A raw socket in the calling thread's namespace.
pub(crate) fn raw(protocol: Protocol, v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let protocol = rustix::net::Protocol::from_raw(protocol_number(u32::from(protocol.0))?);
    Ok(rustix::net::socket_with(family, SocketType::RAW, FLAGS, Some(protocol))?)
}

fn protocol_number(number: u32) -> io::Result<rustix::net::RawProtocol> {
    rustix::net::RawProtocol::new(number).ok_or_else(|| io::Error::other("protocol 0"))
}

fn readable(fd: &OwnedFd, timeout: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&timeout))? > 0)
}

fn result(value: isize) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::last_os_error())
}

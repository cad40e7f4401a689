//! UDP: a server's sockets, and a client's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{SendFlags, sockopt};

use crate::net::control::{self, PacketInfo};
use crate::net::refusal::{self, Refused};
use crate::net::{make, message};
use crate::report::Report;
use crate::reports::Reports;

/// Bytes that are read of a datagram.
const LONGEST: usize = 2048;

/// A server's socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    port: u16,
    service: Arc<Reports>,
}

impl Listener {
    /// A socket in the calling thread's namespace.
    pub fn open(at: &SocketAddr, service: Arc<Reports>) -> io::Result<Listener> {
        let v6 = at.is_ipv6();
        let socket = make::datagram(v6)?;
        let wanted = if v6 {
            [
                (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
                (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
            ]
        } else {
            [(libc::IPPROTO_IP, libc::IP_PKTINFO), (libc::IPPROTO_IP, libc::IP_RECVTTL)]
        };
        for (level, name) in wanted {
            message::set_option(&socket, level, name, 1)?;
        }
        message::enlarge_receive_buffer(&socket)?;
        rustix::net::bind(&socket, at)?;
        let port = name(&socket)?.port();
        Ok(Listener { socket, port, service })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers what has come in, each datagram from the address that it was sent to.
    pub fn serve(&self) {
        let (mut data, mut control) = ([0u8; LONGEST], [0u8; 256]);
        loop {
            let message = match message::receive_message(&self.socket, &mut data, &mut control, 0) {
                Ok(message) => message,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let info = PacketInfo::read(&control[..message.control]);
            let (Some(source), Some(destination), Some(local)) =
                (message.source, info.destination, info.local)
            else {
                continue;
            };
            let data = &data[..message.length];
            if Report::looks_like_one(data) {
                continue;
            }
            let destination = SocketAddr::new(destination, self.port);
            let answer = self.service.datagram(source, destination, info.ttl, data);
            let Some(answer) = answer else { continue };
            // One that can't be sent is one that gets lost; the client is who finds out.
            let from = control::leave_from(local);
            let _ = message::send_message(&self.socket, &answer, &source, &from);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A client's sockets: one is connected, and hears the one that was asked, and ICMP errors. The
/// other is bound to the same port, and the kernel prefers a connected socket (net/ipv4/udp.c
/// `compute_score`), so it hears everybody else.
#[derive(Debug)]
pub struct Conversation {
    /// The connected one.
    pub asked: OwnedFd,
    /// The other.
    pub others: OwnedFd,
    /// What is sent, and repeated in the answer.
    pub token: String,
}

/// What a client received.
#[derive(Debug)]
pub struct Heard {
    /// From whom.
    pub by: SocketAddr,
    /// What it says.
    pub body: Vec<u8>,
}

impl Conversation {
    /// Sockets in the calling thread's namespace.
    pub fn open(v6: bool, token: String) -> io::Result<Conversation> {
        Ok(Conversation { asked: make::datagram(v6)?, others: make::datagram(v6)?, token })
    }

    /// Binds and connects. Gives the address that the datagram will come from.
    pub fn bind(&self, mut local: SocketAddr) -> io::Result<SocketAddr> {
        refusal::keep_errors(&self.asked, local.is_ipv6())?;
        // A port that was asked for may be shared. One that the kernel chooses is nobody else's
        // only as long as this isn't set.
        sockopt::set_socket_reuseaddr(&self.asked, local.port() != 0)?;
        rustix::net::bind(&self.asked, &local)?;
        sockopt::set_socket_reuseaddr(&self.asked, true)?;
        sockopt::set_socket_reuseaddr(&self.others, true)?;
        local.set_port(name(&self.asked)?.port());
        rustix::net::bind(&self.others, &local)?;
        Ok(local)
    }

    /// Connects and sends. Gives the address that the datagram comes from.
    pub fn send(&self, to: &SocketAddr) -> io::Result<SocketAddr> {
        rustix::net::connect(&self.asked, to)?;
        let local = name(&self.asked)?;
        send(&self.asked, format!("{}\n", self.token).as_bytes())?;
        Ok(local)
    }

    /// The next ICMP error about it.
    pub fn refused(&self) -> Option<Refused> {
        refused(&self.asked)
    }
}

/// Sends by a connected socket of datagrams. What the own output hook drops (EPERM) counts as sent:
/// there may be an ICMP error about it still, if a rule rejects it.
pub fn send(socket: &OwnedFd, data: &[u8]) -> io::Result<()> {
    match rustix::net::send(socket, data, SendFlags::NOSIGNAL) {
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The next ICMP error that a socket of datagrams has heard.
pub fn refused(socket: &OwnedFd) -> Option<Refused> {
    let queued = refusal::queued(socket);
    // Otherwise poll would say that there is an error for ever.
    let pending =
        sockopt::socket_error(socket).map_err(io::Error::from).and_then(|pending| Ok(pending?));
    match (queued, pending) {
        (Some(refused), _) => Some(refused),
        (None, Err(error)) if error.raw_os_error() != Some(libc::EMSGSIZE) => {
            let how = refusal::of_error(&error, false);
            Some(Refused { how, by: None, about: Vec::new() })
        }
        (None, Err(_) | Ok(())) => None,
    }
}

/// The next datagram that a client's socket has received.
pub fn heard(socket: &OwnedFd) -> Option<Heard> {
    let mut data = [0u8; LONGEST];
    let message = message::receive_message(socket, &mut data, &mut [], libc::MSG_DONTWAIT).ok()?;
    Some(Heard { by: message.source?, body: data[..message.length].to_vec() })
}

/// The address of a socket.
pub fn name(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let name = rustix::net::getsockname(socket)?;
    let name = SocketAddr::try_from(name).map_err(io::Error::from)?;
    Ok(control::canonical(name))
}

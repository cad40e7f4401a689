//! How a network says no.
//!
//! An error number alone doesn't tell a reset from an ICMP error, and not who sent it. The error
//! queue does (IP_RECVERR, ip(7)), and for datagrams it also has what connected sockets don't hear
//! of otherwise: host and network unreachable (net/ipv4/udp.c `__udp4_lib_err`: only `harderr`).

use std::fmt;
use std::io;
use std::net::IpAddr;

use rustix::fd::AsFd;
use serde::{Deserialize, Serialize};

use super::control::QueuedError;
use super::message;

/// Why nobody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// TCP: a reset instead of the connection, or in the middle of it.
    Reset,
    /// TCP: the connection was closed before the answer was complete.
    Closed,
    /// Nobody listens at the port, or a rule says so.
    PortUnreachable,
    /// The protocol isn't spoken there, or a rule says so.
    ProtocolUnreachable,
    /// No way to the host: no route, or no neighbour answers.
    HostUnreachable,
    /// No way to the network.
    NetUnreachable,
    /// A rule or a route forbids it.
    Prohibited,
    /// Too many hops.
    TimeExceeded,
    /// Another error number of the kernel.
    Other(i32),
}

/// A refusal, and the address that sent the ICMP error, if it was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// How.
    pub how: Refusal,
    /// Who sent the ICMP error.
    pub by: Option<IpAddr>,
    /// What the error carries of the packet that it is about, from behind the header of the
    /// socket's protocol; of raw sockets from behind the IP header.
    pub about: Vec<u8>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Reset => "reset",
            Refusal::Closed => "closed without an answer",
            Refusal::PortUnreachable => "port unreachable",
            Refusal::ProtocolUnreachable => "protocol unreachable",
            Refusal::HostUnreachable => "host unreachable",
            Refusal::NetUnreachable => "network unreachable",
            Refusal::Prohibited => "prohibited",
            Refusal::TimeExceeded => "time exceeded",
            Refusal::Other(number) => {
                return write!(f, "{}", io::Error::from_raw_os_error(*number));
            }
        })
    }
}

/// Has errors kept in the error queue.
pub fn keep_errors(fd: &impl AsFd, v6: bool) -> io::Result<()> {
    let (level, name) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    } else {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    };
    message::set_option(fd, level, name, 1)
}

/// The next refusal in the error queue; what is no refusal is left out. `None`: no other.
pub fn queued(fd: &impl AsFd) -> Option<Refused> {
    loop {
        let (mut data, mut control) = ([0u8; 1500], [0u8; 256]);
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        let message = message::receive_message(fd, &mut data, &mut control, flags).ok()?;
        let Some(error) = QueuedError::read(&control[..message.control]) else { continue };
        if let Some(how) = of_icmp(error) {
            let about = data[..message.length].to_vec();
            return Some(Refused { how, by: error.offender, about });
        }
    }
}

/// What an ICMP error means (RFC 792, RFC 1812, RFC 4443). `None`: the packet may be sent smaller,
/// or the kernel itself put the error into the queue.
fn of_icmp(error: QueuedError) -> Option<Refusal> {
    Some(match (error.origin, error.icmp) {
        (libc::SO_EE_ORIGIN_ICMP, (3, 4)) | (libc::SO_EE_ORIGIN_ICMP6, (2, _)) => return None,
        (libc::SO_EE_ORIGIN_ICMP, (3, 2)) => Refusal::ProtocolUnreachable,
        (libc::SO_EE_ORIGIN_ICMP, (3, 3)) | (libc::SO_EE_ORIGIN_ICMP6, (1, 4)) => {
            Refusal::PortUnreachable
        }
        (libc::SO_EE_ORIGIN_ICMP, (3, 9 | 10 | 13))
        | (libc::SO_EE_ORIGIN_ICMP6, (1, 1 | 5 | 6)) => Refusal::Prohibited,
        (libc::SO_EE_ORIGIN_ICMP, (3, 0 | 6 | 8 | 11)) | (libc::SO_EE_ORIGIN_ICMP6, (1, 0)) => {
            Refusal::NetUnreachable
        }
        (libc::SO_EE_ORIGIN_ICMP, (3, _)) | (libc::SO_EE_ORIGIN_ICMP6, (1, _)) => {
            Refusal::HostUnreachable
        }
        (libc::SO_EE_ORIGIN_ICMP, (11, _)) | (libc::SO_EE_ORIGIN_ICMP6, (3, _)) => {
            Refusal::TimeExceeded
        }
        (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, _) => Refusal::Other(libc::EPROTO),
        _ => return None,
    })
}

/// What an error of a call means where the error queue has nothing. `tcp` is whether a refused
/// connection can have been a reset.
pub fn of_error(error: &io::Error, tcp: bool) -> Refusal {
    match error.raw_os_error().unwrap_or(libc::EIO) {
        libc::ECONNREFUSED if tcp => Refusal::Reset,
        libc::ECONNREFUSED => Refusal::PortUnreachable,
        libc::ECONNRESET | libc::EPIPE => Refusal::Reset,
        libc::ENOPROTOOPT => Refusal::ProtocolUnreachable,
        libc::EHOSTUNREACH | libc::EHOSTDOWN => Refusal::HostUnreachable,
        libc::ENETUNREACH => Refusal::NetUnreachable,
        // A route of type prohibit (net/ipv4/fib_semantics.c, `fib_props`).
        libc::EACCES => Refusal::Prohibited,
        number => Refusal::Other(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icmp_errors_have_their_meaning() {
        const V4: u8 = libc::SO_EE_ORIGIN_ICMP;
        const V6: u8 = libc::SO_EE_ORIGIN_ICMP6;
        for (origin, icmp, expected) in [
            (V4, (3, 0), Some(Refusal::NetUnreachable)),
            (V4, (3, 1), Some(Refusal::HostUnreachable)),
            (V4, (3, 2), Some(Refusal::ProtocolUnreachable)),
            (V4, (3, 3), Some(Refusal::PortUnreachable)),
            (V4, (3, 4), None),
            (V4, (3, 13), Some(Refusal::Prohibited)),
            (V4, (11, 0), Some(Refusal::TimeExceeded)),
            (V6, (1, 0), Some(Refusal::NetUnreachable)),
            (V6, (1, 1), Some(Refusal::Prohibited)),
            (V6, (1, 3), Some(Refusal::HostUnreachable)),
            (V6, (1, 4), Some(Refusal::PortUnreachable)),
            (V6, (2, 0), None),
            (V6, (3, 0), Some(Refusal::TimeExceeded)),
            (libc::SO_EE_ORIGIN_LOCAL, (3, 3), None),
        ] {
            let seen = of_icmp(QueuedError { origin, icmp, offender: None });
            assert_eq!(seen, expected, "{origin} {icmp:?}");
        }
    }
}

//! TCP sockets that listen.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::limit::with_room;
use crate::socket::FLAGS;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long accepting pauses when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The wildcard addresses of the families that the kernel has (`ipv6.disable=1` leaves one).
pub(super) fn addresses() -> impl Iterator<Item = IpAddr> {
    let v6 = Path::new("/proc/sys/net/ipv6").exists();
    let v6 = v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED)].into_iter().chain(v6)
}

/// A socket that listens, in the calling thread's namespace.
pub(super) fn open(any: IpAddr, port: u16) -> io::Result<TcpListener> {
    let family = if any.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket =
        with_room(|| Ok(rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None)?))?;
    // The port may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if any.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(any, port))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Accepts what waits, but no more than there is room for. Gives when to go on, if the system has no
/// room: poll would say at once again that somebody waits.
pub(super) fn accept(
    listener: &TcpListener,
    room: usize,
    mut each: impl FnMut(TcpStream, SocketAddr),
) -> Option<Instant> {
    let mut left = room;
    while left > 0 {
        match with_room(|| listener.accept()) {
            Ok((stream, source)) => {
                each(stream, source);
                left -= 1;
            }
            Err(error) => match error.raw_os_error() {
                // What has happened to one connection is nothing to the next (accept(2)).
                Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => {}
                Some(libc::EAGAIN) => return None,
                _ => return Some(Instant::now() + PAUSE),
            },
        }
    }
    None
}

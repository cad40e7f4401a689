//! Makes sockets and binds them, where room or a port can be wanting for a moment.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::socket::FLAGS;

/// How often, and in between how long, a port is waited for.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// A TCP socket in the calling thread's namespace.
pub(super) fn stream(v6: bool) -> io::Result<OwnedFd> {
    socket(v6, SocketType::STREAM)
}

/// A UDP socket in the calling thread's namespace.
pub(super) fn datagram(v6: bool) -> io::Result<OwnedFd> {
    socket(v6, SocketType::DGRAM)
}

/// Makes a file descriptor. If the process may not have more, its limit is raised to what it may
/// ask for (`RLIMIT_NOFILE`, soft and hard), and it is tried once more.
pub(super) fn with_room<T>(make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
            let limit = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
            make()
        }
        made => made,
    }
}

/// Binds a socket that serves. A port of a server that has ended can be taken for a moment still: a
/// child that another thread makes has all file descriptors until it executes its program. Nothing
/// tells when that is.
pub(super) fn bind(socket: &impl AsFd, to: &SocketAddr) -> io::Result<()> {
    for _ in 1..TRIES {
        match rustix::net::bind(socket, to) {
            Err(rustix::io::Errno::ADDRINUSE) => thread::sleep(PAUSE),
            bound => return Ok(bound?),
        }
    }
    Ok(rustix::net::bind(socket, to)?)
}

fn socket(v6: bool, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = with_room(|| Ok(rustix::net::socket_with(family, kind, FLAGS, None)?))?;
    if v6 {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

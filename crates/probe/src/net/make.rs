//! Makes sockets, where room can be wanting.

use std::io;

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::message::FLAGS;

/// A TCP socket in the calling thread's namespace.
pub fn stream(v6: bool) -> io::Result<OwnedFd> {
    socket(v6, SocketType::STREAM)
}

/// A UDP socket in the calling thread's namespace.
pub fn datagram(v6: bool) -> io::Result<OwnedFd> {
    socket(v6, SocketType::DGRAM)
}

/// Makes a file descriptor. If the process may not have more, its limit is raised to what it may
/// ask for (`RLIMIT_NOFILE`, soft and hard), and it is tried once more.
pub fn with_room<T>(make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
            let limit = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
            make()
        }
        made => made,
    }
}

fn socket(v6: bool, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = with_room(|| Ok(rustix::net::socket_with(family, kind, FLAGS, None)?))?;
    if v6 {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

//! TCP sockets that listen.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::make;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long accepting pauses when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The wildcard addresses of the families that the kernel has (`ipv6.disable=1` leaves one).
pub fn addresses() -> impl Iterator<Item = IpAddr> {
    let v6 = Path::new("/proc/sys/net/ipv6").exists();
    let v6 = v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED)].into_iter().chain(v6)
}

/// A socket that listens, in the calling thread's namespace.
pub fn open(at: &SocketAddr) -> io::Result<TcpListener> {
    let socket = make::stream(at.is_ipv6())?;
    // The port may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, at)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Whether connections are accepted: not more than so many at once, and none for a while when the
/// system has no room, because poll would say at once again that somebody waits.
#[derive(Debug)]
pub struct Gate {
    most: usize,
    /// When accepting goes on after a pause.
    resume: Option<Instant>,
}

impl Gate {
    /// For so many at once.
    pub fn new(most: usize) -> Gate {
        Gate { most, resume: None }
    }

    /// Whether it is open for more than there are.
    pub fn is_open(&self, count: usize) -> bool {
        self.resume.is_none_or(|resume| resume <= Instant::now()) && count < self.most
    }

    /// When it opens by itself, while it is closed.
    pub fn opens(&self, count: usize) -> Option<Instant> {
        self.resume.filter(|_| !self.is_open(count))
    }

    /// Accepts what waits, but no more than there is room for.
    pub fn accept(
        &mut self,
        listener: &TcpListener,
        count: usize,
        each: impl FnMut(TcpStream, SocketAddr),
    ) {
        self.resume = accept(listener, self.most.saturating_sub(count), each);
    }
}

/// Gives when to go on, if the system has no room.
fn accept(
    listener: &TcpListener,
    room: usize,
    mut each: impl FnMut(TcpStream, SocketAddr),
) -> Option<Instant> {
    let mut left = room;
    while left > 0 {
        match make::with_room(|| listener.accept()) {
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

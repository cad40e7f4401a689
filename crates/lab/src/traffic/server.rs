//! Any number of places, served by one thread with one poll loop.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::connection::{Connection, Service};
use super::datagram;
use super::echo::Watch;
use super::health::Health;
use super::inside;
use super::limit::with_room;
use crate::socket::FLAGS;

/// Connections at once; others wait in the listening sockets' queues.
const MAX_CONNECTIONS: usize = 4096;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long accepting pauses when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Somewhere that requests are answered, on all addresses of both families.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The file of its network namespace. `None`: the current one.
    pub namespace: Option<PathBuf>,
    /// What it calls itself in reports.
    pub name: String,
    /// TCP ports: HTTP, or one line.
    pub tcp: Vec<u16>,
    /// UDP ports.
    pub udp: Vec<u16>,
    /// Whether it notes echo requests, which the kernel answers. Needs CAP_NET_RAW.
    pub icmp: bool,
    /// Whether its TCP connections must begin with a PROXY protocol header.
    pub proxy_protocol: bool,
}

/// A thread that serves places. Dropping it closes all sockets and resets what is unfinished.
#[derive(Debug)]
pub struct Server {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens everywhere, and then begins to answer. Requests that are sent from now on are
    /// answered.
    pub fn start(places: &[Place], health: &[Health]) -> Result<Server> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut sockets = Sockets::default();
        for place in places {
            let opened = inside(place.namespace.as_deref(), || Sockets::open(place));
            let opened = opened.and_then(|opened| opened);
            sockets.extend(opened.with_context(|| format!("listen at {}", place.name))?);
        }
        for Health { namespace, port, status } in health {
            let service = Arc::new(Service::Health(status.clone()));
            let opened = inside(namespace.as_deref(), || listen(*port, &service));
            let opened = opened.and_then(|opened| opened);
            sockets.tcp.extend(opened.with_context(|| format!("listen at health port {port}"))?);
        }
        let stopped = Arc::clone(&stop);
        let serving = Serving { sockets, connections: Vec::new(), resume: None };
        let thread = thread::Builder::new()
            .name("traffic".into())
            .spawn(move || serving.run(&stopped))
            .context("start a thread")?;
        Ok(Server { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Writing 1 to an eventfd can't fail before 2^64 of them.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // It has nobody to tell if it panicked.
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Default)]
struct Sockets {
    tcp: Vec<(TcpListener, Arc<Service>)>,
    udp: Vec<datagram::Listener>,
    echo: Vec<Arc<Watch>>,
}

impl Sockets {
    /// In the calling thread's namespace.
    fn open(place: &Place) -> Result<Sockets> {
        let mut sockets = Sockets::default();
        let (by, proxy_protocol) = (place.name.clone(), place.proxy_protocol);
        let service = Arc::new(Service::Reports { by, proxy_protocol });
        for port in &place.tcp {
            sockets.tcp.extend(listen(*port, &service)?);
        }
        for port in &place.udp {
            for any in addresses() {
                let opened = datagram::Listener::open(any, *port, &place.name);
                sockets.udp.push(opened.with_context(|| format!("UDP port {port} of {any}"))?);
            }
        }
        if place.icmp {
            let v6 = addresses().any(|any| any.is_ipv6());
            sockets.echo.push(Watch::open(&place.name, v6).context("watch echo requests")?);
        }
        Ok(sockets)
    }

    fn extend(&mut self, other: Sockets) {
        self.tcp.extend(other.tcp);
        self.udp.extend(other.udp);
        self.echo.extend(other.echo);
    }
}

/// What listens at a port of both families.
fn listen(port: u16, service: &Arc<Service>) -> Result<Vec<(TcpListener, Arc<Service>)>> {
    let open = |any: IpAddr| {
        let listener = listener(any, port).with_context(|| format!("TCP port {port} of {any}"))?;
        Ok((listener, Arc::clone(service)))
    };
    addresses().map(open).collect()
}

/// The wildcard addresses of the families that the kernel has (`ipv6.disable=1` leaves one).
pub(super) fn addresses() -> impl Iterator<Item = IpAddr> {
    let v6 = Path::new("/proc/sys/net/ipv6").exists();
    let v6 = v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED)].into_iter().chain(v6)
}

/// A socket that listens, in the calling thread's namespace.
pub(super) fn listener(any: IpAddr, port: u16) -> io::Result<TcpListener> {
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

/// How long poll may wait until `deadline`.
pub(super) fn until(deadline: Option<Instant>) -> Option<Timespec> {
    let left = deadline?.saturating_duration_since(Instant::now());
    Timespec::try_from(left).ok()
}

#[derive(Debug)]
struct Serving {
    sockets: Sockets,
    connections: Vec<Connection>,
    /// When accepting goes on after a pause.
    resume: Option<Instant>,
}

/// What is ready, by index.
#[derive(Default)]
struct Ready {
    stop: bool,
    tcp: Vec<usize>,
    udp: Vec<usize>,
    echo: Vec<usize>,
    connections: Vec<bool>,
}

impl Serving {
    fn run(mut self, stop: &OwnedFd) {
        loop {
            let ready = match self.wait(stop) {
                Ok(ready) if ready.stop => return,
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Without poll there is nothing that could be served; clients see it.
                Err(_) => return,
            };
            for index in ready.udp {
                self.sockets.udp[index].serve();
            }
            for index in ready.echo {
                self.sockets.echo[index].serve();
            }
            self.go_on(&ready.connections);
            for index in ready.tcp {
                self.accept(index);
            }
        }
    }

    fn wait(&self, stop: &OwnedFd) -> io::Result<Ready> {
        enum Owner {
            Stop,
            Tcp(usize),
            Udp(usize),
            Echo(usize),
            Connection(usize),
        }
        let mut owners = vec![Owner::Stop];
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        let accepts = self.resume.is_none_or(|resume| resume <= Instant::now())
            && self.connections.len() < MAX_CONNECTIONS;
        if accepts {
            for (index, (listener, _)) in self.sockets.tcp.iter().enumerate() {
                owners.push(Owner::Tcp(index));
                fds.push(PollFd::new(listener, PollFlags::IN));
            }
        }
        for (index, listener) in self.sockets.udp.iter().enumerate() {
            owners.push(Owner::Udp(index));
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        for (index, watch) in self.sockets.echo.iter().enumerate() {
            for socket in watch.sockets() {
                owners.push(Owner::Echo(index));
                fds.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
            }
        }
        for (index, connection) in self.connections.iter().enumerate() {
            owners.push(Owner::Connection(index));
            fds.push(PollFd::new(connection, connection.waits_for()));
        }
        let deadlines = self.connections.iter().map(|connection| connection.deadline);
        let resume = self.resume.filter(|_| !accepts);
        poll(&mut fds, until(deadlines.chain(resume).min()).as_ref())?;
        let mut ready =
            Ready { connections: vec![false; self.connections.len()], ..Ready::default() };
        for (owner, _) in owners.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()) {
            match owner {
                Owner::Stop => ready.stop = true,
                Owner::Tcp(index) => ready.tcp.push(*index),
                Owner::Udp(index) => ready.udp.push(*index),
                Owner::Echo(index) => ready.echo.push(*index),
                Owner::Connection(index) => ready.connections[*index] = true,
            }
        }
        Ok(ready)
    }

    /// Goes on with the connections that are ready, and ends those that took too long.
    fn go_on(&mut self, ready: &[bool]) {
        let now = Instant::now();
        let mut ready = ready.iter();
        self.connections.retain_mut(|connection| {
            let ready = ready.next().copied().unwrap_or_default();
            (!ready || connection.go_on()) && now < connection.deadline
        });
    }

    fn accept(&mut self, index: usize) {
        let (listener, service) = &self.sockets.tcp[index];
        while self.connections.len() < MAX_CONNECTIONS {
            match with_room(|| listener.accept()) {
                Ok((stream, source)) => {
                    // One that fails here is gone already.
                    if let Ok(mut connection) = Connection::new(stream, source, Arc::clone(service))
                        && connection.go_on()
                    {
                        self.connections.push(connection);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    // What has happened to one connection is nothing to the next (accept(2)).
                    Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => {}
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        self.resume = Some(Instant::now() + PAUSE);
                        return;
                    }
                    _ => return,
                },
            }
        }
    }
}

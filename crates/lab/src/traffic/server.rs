//! Any number of places, served by one thread with one poll loop.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;

use super::connection::{Connection, Service};
use super::datagram;
use super::echo::Watch;
use super::health::Health;
use super::inside;
use super::listener::{self, addresses};
use super::worker::{Worker, until};

/// Connections at once; others wait in the listening sockets' queues.
const MAX_CONNECTIONS: usize = 4096;

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
    _worker: Worker,
}

impl Server {
    /// Listens everywhere, and then begins to answer. Requests that are sent from now on are
    /// answered.
    pub fn start(places: &[Place], health: &[Health]) -> Result<Server> {
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
        let serving = Serving { sockets, connections: Vec::new(), resume: None };
        Ok(Server { _worker: Worker::start("server", |stop| serving.run(stop))? })
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
        let listener =
            listener::open(any, port).with_context(|| format!("TCP port {port} of {any}"))?;
        Ok((listener, Arc::clone(service)))
    };
    addresses().map(open).collect()
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
        let room = MAX_CONNECTIONS.saturating_sub(self.connections.len());
        let connections = &mut self.connections;
        self.resume = listener::accept(listener, room, |stream, source| {
            // One that fails here is gone already.
            if let Ok(mut connection) = Connection::new(stream, source, Arc::clone(service))
                && connection.go_on()
            {
                connections.push(connection);
            }
        });
    }
}

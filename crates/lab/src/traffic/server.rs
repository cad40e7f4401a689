//! Any number of places, served by one thread with one poll loop.

use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::PollFlags;

use super::connection::{Connection, Service};
use super::datagram;
use super::echo::Watch;
use super::health::Health;
use super::inside;
use super::listener::{self, Gate, addresses};
use super::worker::{self, Waits, Work, Worker};

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
        let gate = Gate::new(MAX_CONNECTIONS);
        let serving = Serving { sockets, connections: Vec::new(), gate };
        Ok(Server { _worker: Worker::start("server", |stop| worker::run(serving, stop))? })
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
    gate: Gate,
}

/// Who waits, by index.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Tcp(usize),
    Udp(usize),
    Echo(usize),
    Connection(usize),
}

impl Serving {
    /// Goes on with the connections that are ready, and ends those that took too long.
    fn serve(&mut self, ready: &[bool]) {
        let now = Instant::now();
        let mut ready = ready.iter();
        self.connections.retain_mut(|connection| {
            let ready = ready.next().copied().unwrap_or_default();
            (!ready || connection.go_on()) && now < connection.deadline
        });
    }

    fn accept(&mut self, index: usize) {
        let (listener, service) = &self.sockets.tcp[index];
        let connections = &mut self.connections;
        let count = connections.len();
        self.gate.accept(listener, count, |stream, source| {
            // One that fails here is gone already.
            if let Ok(mut connection) = Connection::new(stream, source, Arc::clone(service))
                && connection.go_on()
            {
                connections.push(connection);
            }
        });
    }
}

impl Work for Serving {
    type Owner = Owner;

    fn wait_for<'w>(&'w self, waits: &mut Waits<'w, Owner>) -> Option<Instant> {
        if self.gate.is_open(self.connections.len()) {
            for (index, (listener, _)) in self.sockets.tcp.iter().enumerate() {
                waits.add(Owner::Tcp(index), listener, PollFlags::IN);
            }
        }
        for (index, listener) in self.sockets.udp.iter().enumerate() {
            waits.add(Owner::Udp(index), listener, PollFlags::IN);
        }
        for (index, watch) in self.sockets.echo.iter().enumerate() {
            for socket in watch.sockets() {
                waits.add(Owner::Echo(index), socket, PollFlags::IN);
            }
        }
        for (index, connection) in self.connections.iter().enumerate() {
            waits.add(Owner::Connection(index), connection, connection.waits_for());
        }
        let deadlines = self.connections.iter().map(|connection| connection.deadline);
        deadlines.chain(self.gate.opens(self.connections.len())).min()
    }

    fn go_on(&mut self, ready: &[(Owner, PollFlags)]) {
        let mut connections = vec![false; self.connections.len()];
        let mut listeners = Vec::new();
        for (owner, _) in ready {
            match *owner {
                Owner::Udp(index) => self.sockets.udp[index].serve(),
                Owner::Echo(index) => self.sockets.echo[index].serve(),
                Owner::Connection(index) => connections[index] = true,
                Owner::Tcp(index) => listeners.push(index),
            }
        }
        self.serve(&connections);
        for index in listeners {
            self.accept(index);
        }
    }
}

//! Any number of places, served by one thread with one poll loop.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::PollFlags;
use unmasq_probe::connection::Service;
use unmasq_probe::datagram;
use unmasq_probe::net::listener::{self, addresses};
use unmasq_probe::net::worker::{self, Waits, Work, Worker};
use unmasq_probe::reports::{Header, Reports};
use unmasq_probe::serving::{self, Serving, Sockets};

use super::echo::Watch;
use super::health::Health;
use super::sighting::Notes;
use super::{inside, when_free};

/// Connections at once; others wait in the listening sockets' queues.
const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take for everything.
const LONGEST: Duration = Duration::from_secs(10);

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
        let mut all = Opened::default();
        for place in places {
            let opened = inside(place.namespace.as_deref(), || Opened::open(place));
            let opened = opened.and_then(|opened| opened);
            all.extend(opened.with_context(|| format!("listen at {}", place.name))?);
        }
        for Health { namespace, port, status } in health {
            let service: Arc<dyn Service> = Arc::new(status.clone());
            let opened = inside(namespace.as_deref(), || listen(*port, &service));
            let opened = opened.and_then(|opened| opened);
            all.sockets
                .tcp
                .extend(opened.with_context(|| format!("listen at health port {port}"))?);
        }
        let serving = Serving::new(all.sockets, MAX_CONNECTIONS, LONGEST);
        let places = Places { serving, echo: all.echo };
        let worker = Worker::start("server", |stop| worker::run(places, stop));
        Ok(Server { _worker: worker.context("start a thread")? })
    }
}

#[derive(Debug, Default)]
struct Opened {
    sockets: Sockets,
    echo: Vec<Arc<Watch>>,
}

impl Opened {
    /// In the calling thread's namespace.
    fn open(place: &Place) -> Result<Opened> {
        let mut opened = Opened::default();
        let header = if place.proxy_protocol { Header::Always } else { Header::Never };
        let service = Arc::new(Reports::new(&place.name, header, Arc::new(Notes)));
        for port in &place.tcp {
            let service: Arc<dyn Service> = Arc::<Reports>::clone(&service);
            opened.sockets.tcp.extend(listen(*port, &service)?);
        }
        for port in &place.udp {
            for any in addresses() {
                let at = SocketAddr::new(any, *port);
                let open = || datagram::Listener::open(&at, Arc::clone(&service));
                let listener = when_free(open).with_context(|| format!("UDP port {port} of {any}"));
                opened.sockets.udp.push(listener?);
            }
        }
        if place.icmp {
            let v6 = addresses().any(|any| any.is_ipv6());
            opened.echo.push(Watch::open(&place.name, v6).context("watch echo requests")?);
        }
        Ok(opened)
    }

    fn extend(&mut self, other: Opened) {
        self.sockets.tcp.extend(other.sockets.tcp);
        self.sockets.udp.extend(other.sockets.udp);
        self.echo.extend(other.echo);
    }
}

/// What listens at a port of both families.
fn listen(port: u16, service: &Arc<dyn Service>) -> Result<Vec<(TcpListener, Arc<dyn Service>)>> {
    let open = |any: IpAddr| {
        let listener = when_free(|| listener::open(&SocketAddr::new(any, port)))
            .with_context(|| format!("TCP port {port} of {any}"))?;
        Ok((listener, Arc::clone(service)))
    };
    addresses().map(open).collect()
}

#[derive(Debug)]
struct Places {
    serving: Serving,
    echo: Vec<Arc<Watch>>,
}

/// Who waits.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Serving(serving::Owner),
    /// By index.
    Echo(usize),
}

impl Work for Places {
    type Owner = Owner;

    fn wait_for<'w>(&'w self, waits: &mut Waits<'w, Owner>) -> Option<Instant> {
        for (index, watch) in self.echo.iter().enumerate() {
            for socket in watch.sockets() {
                waits.add(Owner::Echo(index), socket, PollFlags::IN);
            }
        }
        self.serving.wait_for(waits, Owner::Serving)
    }

    fn go_on(&mut self, ready: &[(Owner, PollFlags)]) -> bool {
        let mut others = Vec::new();
        for (owner, _) in ready {
            match *owner {
                Owner::Echo(index) => self.echo[index].serve(),
                Owner::Serving(owner) => others.push(owner),
            }
        }
        self.serving.go_on(others);
        true
    }
}

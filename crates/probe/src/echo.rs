//! A server that says whom it saw, for a person on a host: `unmasq echo`.
//!
//! In: where to listen and what to speak. Out: an answer to each request, and each request to a
//! [`Witness`]. It ends by itself after a time or a number of requests, if that is wished.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fd::OwnedFd;

use crate::connection::{Service, Unanswered};
use crate::datagram;
use crate::net::listener;
use crate::net::worker::{self, Waits, Work};
use crate::proxy_protocol::Ends;
use crate::report::{Protocol, Report};
use crate::reports::{Header, Reports, Witness};
use crate::serving::{Owner, Serving, Sockets};

/// The port where nobody asked for another.
pub const PORT: u16 = 28080;

/// Connections at once; others wait in the sockets' queues.
const MAX_CONNECTIONS: usize = 512;
/// How long a client may take for everything.
const LONGEST: Duration = Duration::from_secs(10);
/// How often a port is chosen that is free for everything.
const TRIES: usize = 16;

/// What to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen. The address `::` stands for both families. Port 0: one that is free.
    pub listen: Vec<SocketAddr>,
    /// What it calls itself in answers.
    pub name: String,
    /// Whether TCP connections are answered that don't speak HTTP.
    pub tcp: bool,
    /// Whether HTTP is answered as HTTP.
    pub http: bool,
    /// Whether datagrams are answered.
    pub udp: bool,
    /// Whether connections begin with a PROXY protocol header.
    pub header: Header,
    /// How many requests are answered at most.
    pub most: Option<u64>,
    /// For how long.
    pub duration: Option<Duration>,
}

/// Where it can't listen.
#[derive(Debug, thiserror::Error)]
#[error("listen at {at} ({transport}): {cause}{advice}")]
pub struct Error {
    /// The address and port.
    at: SocketAddr,
    transport: &'static str,
    cause: io::Error,
    advice: String,
}

/// Sockets that listen, all of them.
#[derive(Debug)]
pub struct Echo {
    serving: Serving,
    bound: Vec<(Protocol, SocketAddr)>,
    count: Arc<Count>,
    duration: Option<Duration>,
}

impl Echo {
    /// Listens everywhere: requests that are sent from now on are answered once it serves.
    pub fn open(options: &Options, witness: Arc<dyn Witness>) -> Result<Echo, Error> {
        let left = AtomicU64::new(options.most.unwrap_or(u64::MAX));
        let count = Arc::new(Count { witness, left, over: AtomicBool::new(false) });
        let witness: Arc<dyn Witness> = Arc::<Count>::clone(&count);
        let reports = Arc::new(Reports {
            by: options.name.clone(),
            header: options.header,
            line: options.tcp,
            http: options.http,
            witness,
        });
        let (mut sockets, mut bound) = (Sockets::default(), Vec::new());
        for at in addresses(&options.listen) {
            let opened = open_one(options, &at, &reports)?;
            sockets.tcp.extend(opened.sockets.tcp);
            sockets.udp.extend(opened.sockets.udp);
            bound.extend(opened.bound);
        }
        let serving = Serving::new(sockets, MAX_CONNECTIONS, LONGEST);
        Ok(Echo { serving, bound, count, duration: options.duration })
    }

    /// Where it listens: by TCP (be it HTTP) and by UDP.
    pub fn bound(&self) -> &[(Protocol, SocketAddr)] {
        &self.bound
    }

    /// Answers until the file becomes readable, or time or number are up.
    pub fn serve(self, stop: &OwnedFd) {
        let until = self.duration.and_then(|duration| Instant::now().checked_add(duration));
        let (serving, count) = (self.serving, self.count);
        let work = Answering { serving, count, until, closed: false };
        worker::run(work, stop);
    }
}

struct Answering {
    serving: Serving,
    count: Arc<Count>,
    until: Option<Instant>,
    /// What is under way is ended still, nothing new is begun.
    closed: bool,
}

impl Work for Answering {
    type Owner = Owner;

    fn wait_for<'w>(&'w self, waits: &mut Waits<'w, Owner>) -> Option<Instant> {
        let deadline = self.serving.wait_for(waits, |owner| owner);
        deadline.into_iter().chain(self.until.filter(|_| !self.closed)).min()
    }

    fn go_on(&mut self, ready: &[(Owner, PollFlags)]) -> bool {
        self.serving.go_on(ready.iter().map(|(owner, _)| *owner));
        let late = self.until.is_some_and(|until| until <= Instant::now());
        if !self.closed && (late || self.count.is_over()) {
            self.serving.close(Unanswered::Enough);
            self.closed = true;
        }
        !(self.closed && self.serving.is_idle())
    }
}

/// Passes on to a witness, as long as there are not enough.
#[derive(Debug)]
struct Count {
    witness: Arc<dyn Witness>,
    left: AtomicU64,
    over: AtomicBool,
}

impl Count {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Witness for Count {
    fn saw(&self, report: &Report) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if self.is_over() || left == 0 {
            return false;
        }
        // One thread serves.
        self.left.store(left - 1, Ordering::Relaxed);
        let more = self.witness.saw(report);
        self.over.store(left == 1 || !more, Ordering::Relaxed);
        more
    }

    fn unanswered(&self, ends: &Ends, why: Unanswered) {
        self.witness.unanswered(ends, why);
    }
}

/// Where to listen really, once each. Both families have sockets of their own, so that an IPv4
/// client is one everywhere.
fn addresses(listen: &[SocketAddr]) -> Vec<Vec<SocketAddr>> {
    let mut all: Vec<Vec<SocketAddr>> = Vec::new();
    for at in listen {
        let any = at.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let wanted: Vec<SocketAddr> = if any {
            listener::addresses().map(|any| SocketAddr::new(any, at.port())).collect()
        } else {
            vec![*at]
        };
        // Of port 0 each is another.
        let fresh = |at: &SocketAddr| at.port() == 0 || !all.iter().flatten().any(|a| a == at);
        let wanted: Vec<SocketAddr> = wanted.into_iter().filter(fresh).collect();
        all.push(wanted);
    }
    all
}

#[derive(Default)]
struct Opened {
    sockets: Sockets,
    bound: Vec<(Protocol, SocketAddr)>,
}

/// Opens what belongs together, at one port. A port that the kernel chooses for the first socket
/// can be taken for another; then it is to choose again.
fn open_one(options: &Options, at: &[SocketAddr], reports: &Arc<Reports>) -> Result<Opened, Error> {
    let mut tried = try_one(options, at, reports);
    for _ in 1..TRIES {
        match &tried {
            Err(error)
                if error.cause.kind() == io::ErrorKind::AddrInUse
                    && at.iter().all(|at| at.port() == 0) =>
            {
                tried = try_one(options, at, reports);
            }
            Ok(_) | Err(_) => break,
        }
    }
    tried
}

fn try_one(options: &Options, at: &[SocketAddr], reports: &Arc<Reports>) -> Result<Opened, Error> {
    let mut opened = Opened::default();
    let mut chosen = None;
    for at in at {
        let mut at = *at;
        at.set_port(chosen.unwrap_or(at.port()));
        if options.tcp || options.http {
            let fail = |cause| Error::new(at, "tcp", cause);
            let listener = listener::open(&at).map_err(fail)?;
            at = listener.local_addr().map_err(fail)?;
            let service: Arc<dyn Service> = Arc::<Reports>::clone(reports);
            opened.sockets.tcp.push((listener, service));
            opened.bound.push((Protocol::Tcp, at));
        }
        if options.udp {
            let fail = |cause| Error::new(at, "udp", cause);
            let listener = datagram::Listener::open(&at, Arc::clone(reports)).map_err(fail)?;
            at.set_port(listener.port());
            opened.sockets.udp.push(listener);
            opened.bound.push((Protocol::Udp, at));
        }
        chosen = Some(at.port());
    }
    Ok(opened)
}

impl Error {
    fn new(at: SocketAddr, transport: &'static str, cause: io::Error) -> Error {
        let port = at.port();
        let advice = match cause.kind() {
            io::ErrorKind::AddrInUse => {
                let option = if transport == "udp" { "-lunp" } else { "-ltnp" };
                format!(
                    ". `ss {option} 'sport = :{port}'` says who has it; \
                     --listen takes another port"
                )
            }
            io::ErrorKind::PermissionDenied => {
                ". Ports that low need root; --listen takes another port".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => ". This host has no such address".to_owned(),
            _ => String::new(),
        };
        Error { at, transport, cause, advice }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT)],
            name: String::new(),
            tcp: true,
            http: true,
            udp: true,
            header: Header::Never,
            most: None,
            duration: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_listened_at_once() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all = addresses(&[at("0.0.0.0:7"), at("[::]:7"), at("[::]:7"), at("192.0.2.1:7")]);
        let mut all = all.concat();
        // Where the kernel has no IPv6 there is one less.
        all.retain(|at| at.is_ipv4());
        assert_eq!(all, [at("0.0.0.0:7"), at("192.0.2.1:7")]);
    }
}

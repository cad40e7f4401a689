//! A hop between client and server that has connections of its own: the server sees the hop's
//! address, and is told the client's in another way, or not at all.
//!
//! One thread with one poll loop for each hop. It stays inside the hop's namespace, where it makes
//! the connections to the upstreams.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;

use super::listener::{self, addresses};
use super::pair::{Broken, Pair, Upstream};
use super::proxy_protocol::Version;
use super::worker::{Worker, until};
use crate::namespace;

/// Connections of clients at once; others wait in the listening sockets' queues.
const MAX_PAIRS: usize = 1024;

/// A proxy's place and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The file of its network namespace. `None`: the current one.
    pub namespace: Option<PathBuf>,
    /// The TCP port that it listens at, on all addresses of both families.
    pub port: u16,
    /// Whether its clients begin with a PROXY protocol header. What that tells is passed on in the
    /// place of the connection's own addresses.
    pub proxy_protocol: bool,
    /// How it tells the upstreams who the client is.
    pub forward: Forward,
    /// Where it connects to, in turns.
    pub upstreams: Vec<SocketAddr>,
}

/// How upstreams are told who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// By HTTP, one request for each connection: the client is added to `X-Forwarded-For`. Answers
    /// 502 if there is no upstream.
    Http,
    /// By a header of the PROXY protocol; what follows is passed on as it is.
    ProxyProtocol(Version),
    /// Not at all: bytes are passed on as they are.
    Nothing,
}

/// A thread that is a hop. Dropping it closes all sockets and resets what is unfinished.
#[derive(Debug)]
pub struct Proxy {
    _worker: Worker,
}

impl Proxy {
    /// Listens, and then begins to pass on.
    pub fn start(hop: &Hop) -> Result<Proxy> {
        let (hop, shown) = (hop.clone(), hop.port);
        let (tell, told) = mpsc::sync_channel(1);
        let worker = Worker::start("proxy", move |stop| {
            let opened = Passing::open(hop);
            match opened {
                Ok(passing) => {
                    // The receiver waits for it below.
                    let _ = tell.send(Ok(()));
                    passing.run(stop);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        let started = told.recv().map_err(|_| anyhow!("the thread ended")).and_then(|told| told);
        started.with_context(|| format!("a proxy at port {shown}"))?;
        Ok(Proxy { _worker: worker })
    }
}

#[derive(Debug)]
struct Passing {
    hop: Hop,
    listeners: Vec<TcpListener>,
    pairs: Vec<Pair>,
    /// How many upstreams have been chosen.
    turns: usize,
    /// When accepting goes on after a pause.
    resume: Option<Instant>,
}

/// What is ready, by index.
#[derive(Default)]
struct Ready {
    stop: bool,
    listeners: Vec<usize>,
    pairs: Vec<Option<Broken>>,
}

impl Passing {
    /// Moves the calling thread into the hop's namespace, and listens there.
    fn open(hop: Hop) -> Result<Passing> {
        if let Some(path) = &hop.namespace {
            namespace::move_into(path)?;
        }
        let listeners = addresses().map(|any| listener::open(any, hop.port));
        let listeners = listeners.collect::<io::Result<_>>().context("listen")?;
        Ok(Passing { hop, listeners, pairs: Vec::new(), turns: 0, resume: None })
    }

    fn run(mut self, stop: &OwnedFd) {
        loop {
            let ready = match self.wait(stop) {
                Ok(ready) if ready.stop => return,
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Without poll there is nothing that could be passed on; clients see it.
                Err(_) => return,
            };
            self.go_on(&ready.pairs);
            for index in ready.listeners {
                self.accept(index);
            }
        }
    }

    fn wait(&self, stop: &OwnedFd) -> io::Result<Ready> {
        enum Owner {
            Stop,
            Listener(usize),
            Client(usize),
            Upstream(usize),
        }
        let mut owners = vec![Owner::Stop];
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        let accepts = self.resume.is_none_or(|resume| resume <= Instant::now())
            && self.pairs.len() < MAX_PAIRS;
        for (index, listener) in self.listeners.iter().enumerate().filter(|_| accepts) {
            owners.push(Owner::Listener(index));
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        for (index, pair) in self.pairs.iter().enumerate() {
            owners.push(Owner::Client(index));
            fds.push(PollFd::new(&pair.client, pair.client_waits_for()));
            if let Upstream::Connecting(stream) | Upstream::Connected(stream) = &pair.upstream {
                owners.push(Owner::Upstream(index));
                fds.push(PollFd::new(stream, pair.upstream_waits_for()));
            }
        }
        let deadlines = self.pairs.iter().map(|pair| pair.deadline);
        let resume = self.resume.filter(|_| !accepts);
        poll(&mut fds, until(deadlines.chain(resume).min()).as_ref())?;
        let mut ready = Ready { pairs: vec![None; self.pairs.len()], ..Ready::default() };
        for (owner, fd) in owners.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()) {
            let broken = fd.revents().intersects(PollFlags::ERR | PollFlags::HUP);
            match owner {
                Owner::Stop => ready.stop = true,
                Owner::Listener(index) => ready.listeners.push(*index),
                Owner::Client(index) => {
                    ready.pairs[*index].get_or_insert_default().client = broken;
                }
                Owner::Upstream(index) => {
                    ready.pairs[*index].get_or_insert_default().upstream = broken;
                }
            }
        }
        Ok(ready)
    }

    /// Goes on with the pairs that are ready, and ends those that took too long.
    fn go_on(&mut self, ready: &[Option<Broken>]) {
        let now = Instant::now();
        let (hop, turns) = (&self.hop, &mut self.turns);
        let mut ready = ready.iter();
        self.pairs.retain_mut(|pair| {
            let more = match ready.next() {
                Some(Some(broken)) => pair.go_on(hop.forward, *broken, || hop.choose(turns)),
                Some(None) | None => true,
            };
            more && now < pair.deadline
        });
    }

    fn accept(&mut self, index: usize) {
        let (hop, turns, pairs) = (&self.hop, &mut self.turns, &mut self.pairs);
        let room = MAX_PAIRS.saturating_sub(pairs.len());
        self.resume = listener::accept(&self.listeners[index], room, |stream, source| {
            // One that fails here is gone already.
            if let Ok(mut pair) = Pair::new(stream, source, hop.proxy_protocol)
                && pair.go_on(hop.forward, Broken::default(), || hop.choose(turns))
            {
                pairs.push(pair);
            }
        });
    }
}

impl Hop {
    /// The next upstream.
    fn choose(&self, turns: &mut usize) -> Option<SocketAddr> {
        let turn = turns.checked_rem(self.upstreams.len())?;
        *turns = turn + 1;
        self.upstreams.get(turn).copied()
    }
}

//! A hop between client and server that has connections of its own: the server sees the hop's
//! address, and is told the client's in another way, or not at all.
//!
//! One thread for each hop. It stays inside the hop's namespace, where it makes
//! the connections to the upstreams.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rustix::event::PollFlags;
use unmasq_probe::net::listener::{self, Gate, addresses};
use unmasq_probe::net::worker::{self, Waits, Work, Worker};
use unmasq_probe::proxy_protocol::Version;

use super::pair::{Broken, Pair, Upstream};
use super::when_free;
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
                    worker::run(passing, stop);
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
    gate: Gate,
}

/// Who waits, by index.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Listener(usize),
    Client(usize),
    Upstream(usize),
}

impl Passing {
    /// Moves the calling thread into the hop's namespace, and listens there.
    fn open(hop: Hop) -> Result<Passing> {
        if let Some(path) = &hop.namespace {
            namespace::move_into(path)?;
        }
        let listeners =
            addresses().map(|any| when_free(|| listener::open(&SocketAddr::new(any, hop.port))));
        let listeners = listeners.collect::<io::Result<_>>().context("listen")?;
        let gate = Gate::new(MAX_PAIRS);
        Ok(Passing { hop, listeners, pairs: Vec::new(), turns: 0, gate })
    }

    /// Goes on with the pairs that are ready, and ends those that took too long.
    fn pass_on(&mut self, ready: &[Option<Broken>]) {
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
        let count = pairs.len();
        self.gate.accept(&self.listeners[index], count, |stream, source| {
            // One that fails here is gone already.
            if let Ok(mut pair) = Pair::new(stream, source, hop.proxy_protocol)
                && pair.go_on(hop.forward, Broken::default(), || hop.choose(turns))
            {
                pairs.push(pair);
            }
        });
    }
}

impl Work for Passing {
    type Owner = Owner;

    fn wait_for<'w>(&'w self, waits: &mut Waits<'w, Owner>) -> Option<Instant> {
        if self.gate.is_open(self.pairs.len()) {
            for (index, listener) in self.listeners.iter().enumerate() {
                waits.add(Owner::Listener(index), listener, PollFlags::IN);
            }
        }
        for (index, pair) in self.pairs.iter().enumerate() {
            waits.add(Owner::Client(index), &pair.client, pair.client_waits_for());
            if let Upstream::Connecting(stream) | Upstream::Connected(stream) = &pair.upstream {
                waits.add(Owner::Upstream(index), stream, pair.upstream_waits_for());
            }
        }
        let deadlines = self.pairs.iter().map(|pair| pair.deadline);
        deadlines.chain(self.gate.opens(self.pairs.len())).min()
    }

    fn go_on(&mut self, ready: &[(Owner, PollFlags)]) -> bool {
        let mut pairs: Vec<Option<Broken>> = vec![None; self.pairs.len()];
        let mut listeners = Vec::new();
        for (owner, events) in ready {
            let broken = events.intersects(PollFlags::ERR | PollFlags::HUP);
            match *owner {
                Owner::Listener(index) => listeners.push(index),
                Owner::Client(index) => pairs[index].get_or_insert_default().client = broken,
                Owner::Upstream(index) => pairs[index].get_or_insert_default().upstream = broken,
            }
        }
        self.pass_on(&pairs);
        for index in listeners {
            self.accept(index);
        }
        true
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

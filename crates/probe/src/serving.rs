//! Everything that one thread serves: sockets that listen, and the connections that they got.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::connection::{Connection, Service, Unanswered};
use crate::datagram;
use crate::net::listener::Gate;
use crate::net::worker::Waits;

/// Sockets that listen, each with what it is for.
#[derive(Debug, Default)]
pub struct Sockets {
    /// TCP.
    pub tcp: Vec<(TcpListener, Arc<dyn Service>)>,
    /// UDP.
    pub udp: Vec<datagram::Listener>,
}

/// Sockets and connections.
#[derive(Debug)]
pub struct Serving {
    sockets: Sockets,
    connections: Vec<Connection>,
    gate: Gate,
    longest: Duration,
}

/// Who waits, by index.
#[derive(Debug, Clone, Copy)]
pub enum Owner {
    /// A socket that listens for connections.
    Tcp(usize),
    /// A socket for datagrams.
    Udp(usize),
    /// A connection.
    Connection(usize),
}

impl Serving {
    /// Serves so many connections at once (others wait in the sockets' queues), each for so long at
    /// most.
    pub fn new(sockets: Sockets, most: usize, longest: Duration) -> Serving {
        Serving { sockets, connections: Vec::new(), gate: Gate::new(most), longest }
    }

    /// Takes no more requests, and gives up those that weren't answered yet.
    pub fn close(&mut self, why: Unanswered) {
        self.sockets = Sockets::default();
        self.connections.retain(|connection| {
            connection.give_up(why);
            connection.is_answered()
        });
    }

    /// Whether no answer is under way.
    pub fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }

    /// Adds everything that it waits for. Gives until when at most.
    pub fn wait_for<'w, O>(
        &'w self,
        waits: &mut Waits<'w, O>,
        own: impl Fn(Owner) -> O,
    ) -> Option<Instant> {
        if self.gate.is_open(self.connections.len()) {
            for (index, (listener, _)) in self.sockets.tcp.iter().enumerate() {
                waits.add(own(Owner::Tcp(index)), listener, PollFlags::IN);
            }
        }
        for (index, listener) in self.sockets.udp.iter().enumerate() {
            waits.add(own(Owner::Udp(index)), listener, PollFlags::IN);
        }
        for (index, connection) in self.connections.iter().enumerate() {
            waits.add(own(Owner::Connection(index)), connection, connection.waits_for());
        }
        let deadlines = self.connections.iter().map(|connection| connection.deadline);
        deadlines.chain(self.gate.opens(self.connections.len())).min()
    }

    /// Goes on with what is ready, and ends what took too long.
    pub fn go_on(&mut self, ready: impl IntoIterator<Item = Owner>) {
        let mut connections = vec![false; self.connections.len()];
        let mut listeners = Vec::new();
        for owner in ready {
            match owner {
                Owner::Udp(index) => self.sockets.udp[index].serve(),
                Owner::Connection(index) => connections[index] = true,
                Owner::Tcp(index) => listeners.push(index),
            }
        }
        self.serve(&connections);
        for index in listeners {
            self.accept(index);
        }
    }

    /// Goes on with the connections that are ready, and ends those that took too long.
    fn serve(&mut self, ready: &[bool]) {
        let now = Instant::now();
        let mut ready = ready.iter();
        self.connections.retain_mut(|connection| {
            let ready = ready.next().copied().unwrap_or_default();
            if ready && !connection.go_on() {
                return false;
            }
            let late = connection.deadline <= now;
            if late {
                connection.give_up(Unanswered::Late);
            }
            !late
        });
    }

    fn accept(&mut self, index: usize) {
        let (listener, service) = &self.sockets.tcp[index];
        let (connections, deadline) = (&mut self.connections, Instant::now() + self.longest);
        let count = connections.len();
        self.gate.accept(listener, count, |stream, source: SocketAddr| {
            // One that fails here is gone already.
            let connection = Connection::new(stream, source, Arc::clone(service), deadline);
            if let Ok(mut connection) = connection
                && connection.go_on()
            {
                connections.push(connection);
            }
        });
    }
}

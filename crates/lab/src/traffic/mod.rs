//! Real traffic: servers that say whom they saw, clients that say who answered.
//!
//! ```text
//!   send(&[Attempt])                                       Server::start(&[Place], &[Health])
//!   ┌────────────────┐   TCP: a line or HTTP GET            ┌──────────────────────────────┐
//!   │ one poll loop, │ ─ UDP: a datagram           ──────▶  │ one thread, one poll loop,   │
//!   │ every attempt  │   ICMP: an echo request              │ sockets in every place's     │
//!   │ under way      │                                      │ namespace, both families     │
//!   └────────────────┘ ◀ Report {by, source, …} as JSON ──  └──────────────────────────────┘
//!                        (of an echo request: kept, and asked for in this process)
//! ```
//!
//! Between both there may be a [`Proxy`], which takes part at layer 7, or tells the source in a
//! PROXY protocol header.
//!
//! A place or an attempt names the file of a network namespace, or none for the current one.
//! Sockets, what is spoken and what is answered are `unmasq-probe`'s, which has the same for hosts.
//! Nothing here makes namespaces or knows what an answer ought to be. Sockets keep their namespace
//! alive, so a server is to be dropped before the namespaces that it serves.

mod attempt;
mod client;
mod echo;
mod health;
mod pair;
mod proxy;
mod server;
mod sighting;

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;

pub use attempt::{Answer, Ask, Attempt, Outcome, PATIENCE};
pub use client::send;
pub use health::{Health, HealthStatus, ServiceHealth};
pub use proxy::{Forward, Hop, Proxy};
pub use server::{Place, Server};
pub use unmasq_probe::net::refusal::Refusal;
pub use unmasq_probe::report::{Protocol, Report};
pub use unmasq_probe::{http, proxy_protocol};

/// How often, and in between how long, a port is waited for.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Runs a closure in a namespace, if there is one to be entered.
fn inside<R: Send>(namespace: Option<&Path>, run: impl FnOnce() -> R + Send) -> Result<R> {
    match namespace {
        Some(path) => crate::namespace::enter(path, run),
        None => Ok(run()),
    }
}

/// Opens a socket that serves. A port of a server that has ended can be taken for a moment still: a
/// child that another thread makes has all file descriptors until it executes its program. Nothing
/// tells when that is.
fn when_free<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(PAUSE),
            opened => return opened,
        }
    }
    open()
}

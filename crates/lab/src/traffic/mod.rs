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
//! Nothing here makes namespaces or knows what an answer ought to be. Sockets keep their namespace
//! alive, so a server is to be dropped before the namespaces that it serves.

mod attempt;
mod call;
mod client;
mod connection;
mod datagram;
mod echo;
mod health;
pub mod http;
mod limit;
mod listener;
mod message;
mod pair;
mod proxy;
pub mod proxy_protocol;
mod refusal;
mod server;
mod worker;

use std::path::Path;

use anyhow::Result;

pub use attempt::{Answer, Ask, Attempt, Outcome, PATIENCE};
pub use client::send;
pub use health::{Health, HealthStatus, ServiceHealth};
pub use message::Report;
pub use proxy::{Forward, Hop, Proxy};
pub use refusal::Refusal;
pub use server::{Place, Server};

/// Runs a closure in a namespace, if there is one to be entered.
fn inside<R: Send>(namespace: Option<&Path>, run: impl FnOnce() -> R + Send) -> Result<R> {
    match namespace {
        Some(path) => crate::namespace::enter(path, run),
        None => Ok(run()),
    }
}

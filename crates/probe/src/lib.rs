//! Which source does the other side see? Questions and answers with real packets.
//!
//! ```text
//!  Asker::ask(target)                                            Echo::serve()
//!  ┌──────────────────┐  TCP: a line, or an HTTP request,     ┌──────────────────────┐
//!  │ a new source port│  after a PROXY header if wanted,      │ one thread, one poll │
//!  │ each time        │  UDP: a datagram           ────────▶  │ loop, any number of  │
//!  │                  │                                       │ sockets              │
//!  └──────────────────┘  ◀─── Report {by, source, …} as JSON  └──────────────────────┘
//!        │
//!        └▶ Observation: the address used here beside the one seen there
//! ```
//!
//! [`ask`] and [`echo`] are what a person starts on hosts, [`by_hand`] writes the command lines.
//! The rest is what they share with the servers and clients of the lab: [`net`] has sockets,
//! [`http`] and [`proxy_protocol`] what is spoken, [`report`] the answer.
//!
//! It needs no rights, enters no namespaces, and doesn't know what an answer ought to be.

pub mod ask;
pub mod by_hand;
pub mod call;
pub mod connection;
pub mod datagram;
pub mod echo;
pub mod http;
pub mod net;
pub mod observation;
pub mod proxy_protocol;
pub mod report;
pub mod reports;
pub mod serving;
pub mod token;

pub use ask::{Asker, Options, ask};
pub use observation::{Observation, Outcome, Source};
pub use report::Report;

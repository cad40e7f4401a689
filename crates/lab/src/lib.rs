//! Networks in namespaces, real rules, real packets: the judge of the evaluator.
//!
//! In: a script that sets a node up, and a [`Probe`]. Out: what the kernel did with it
//! ([`Observation`]: where it left, addresses and ports, which rules' counters rose), and whether
//! the evaluator had said so ([`judge`]).
//!
//! ```text
//!            outside                          node
//!   ┌──────────────────────┐        ┌────────────────────┐
//!   │ eth0 ── packet socket ├─ veth ─┤ eth0               │  one pair for each device,
//!   │ eth1 ── packet socket ├─ veth ─┤ eth1  rules, routes │  the same name at both ends
//!   │ fence0 ═══ fence1     │        │       raw socket    │
//!   └──────────────────────┘        └────────────────────┘
//! ```
//!
//! Nothing answers unless a test builds the answer ([`reply`]): the outside has no addresses, and
//! the node's own answers and errors are dropped, counted, by a guard table ahead of every other
//! hook. So each counter that rises rose for the probe.
//!
//! Needs root, or a kernel that lets users make namespaces ([`privilege`]); of other crates only
//! the command needs it at run time. It does not read captures and has no opinion on what a packet
//! should do.
//!
//! Whole clusters are built from a [`scenario`] by [`cluster`]. What their nodes are loaded with is
//! text that [`unmasq_provider`] writes.

pub mod cluster;
pub mod connect;
pub mod connections;
pub mod counter;
pub mod differential;
pub mod exec;
pub mod findings;
pub mod frame;
pub mod judge;
pub mod matrix;
pub mod namespace;
pub mod network;
pub mod observation;
pub mod page;
pub mod pids;
pub mod privilege;
pub mod probe;
pub mod random_cluster;
pub mod reply;
pub mod run;
pub mod scenario;
pub mod session;
mod socket;
pub mod spread;
pub mod summary;
pub mod traffic;

pub use namespace::Namespace;
pub use network::Network;
pub use observation::Observation;
pub use probe::Probe;

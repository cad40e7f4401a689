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
//! Nothing answers: the outside has no addresses, and the node's own answers and errors are
//! dropped, counted, by a guard table ahead of every other hook. So each counter that rises rose
//! for the probe.
//!
//! [`provider`] writes the rules that other network systems program, as text.
//!
//! Needs root; never needed at run time by another crate. It does not read captures and has no
//! opinion on what a packet should do.

pub mod counter;
pub mod differential;
pub mod frame;
pub mod judge;
pub mod namespace;
pub mod network;
pub mod observation;
pub mod probe;
pub mod provider;
mod socket;

pub use namespace::Namespace;
pub use network::Network;
pub use observation::Observation;
pub use probe::Probe;

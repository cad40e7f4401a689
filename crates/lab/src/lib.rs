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
//! Programs that do talk to each other are in [`traffic`].
//!
//! Needs root, or a kernel that lets users make namespaces ([`privilege`]); never needed at run time by another crate. It does not read captures and has no
//! opinion on what a packet should do.

mod control;
pub mod counter;
pub mod differential;
pub mod frame;
pub mod judge;
pub mod namespace;
pub mod network;
pub mod observation;
pub mod privilege;
pub mod probe;
pub mod reply;
mod socket;
pub mod traffic;

pub use namespace::Namespace;
pub use network::Network;
pub use observation::Observation;
pub use probe::Probe;

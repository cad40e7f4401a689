//! Walks a packet through a host as the kernel does: hooks, NAT, connection tracking, routing.
pub mod trace;

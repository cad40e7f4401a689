//! What a node's network state *is*: packets, rules, sets, routes and links, each with its origin.
//!
//! Both rule languages (iptables and nftables) are held in one form, [`rule::Rule`]: an ordered
//! list of tests and actions. This crate has data and the lookups that belong to the data
//! (membership in a set, longest prefix), no I/O and no semantics of a packet's walk: that is
//! `unmasq-eval`.
//!
//! ```text
//! Host ─┬─ Ruleset ── Table ─┬─ Chain ── Rule ── Step (Test | Action) ── Expr ── Field
//!       │                    └─ Set (nftables sets and maps, named and anonymous)
//!       ├─ IpSet             (ipset, shared by all iptables tables)
//!       ├─ Link ── Address
//!       ├─ Route, RoutingRule
//!       └─ Sysctls, Presence (what no ruleset shows)
//! ```

pub mod expr;
pub mod host;
pub mod ipset;
pub mod link;
pub mod origin;
pub mod packet;
pub mod renumber;
pub mod route;
pub mod rule;
pub mod ruleset;
pub mod set;
pub mod sysctl;

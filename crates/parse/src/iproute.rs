//! Reads iproute2's JSON: `ip -j -d addr`, `link`, `route`, `rule`, `neigh` and `bridge -j fdb`.
//!
//! Each function takes a whole listing and gives what it lists, with diagnostics. `None` means
//! that the text is no such listing at all (an error message, a truncated file), which is not an
//! empty one. An entry that can't be placed costs that entry; of a route or a policy rule with
//! something that is not understood everything else is kept, and the entry's text goes into its
//! `opaque`. Text output of `ip` without `-j` is not read here.

mod entry;
mod link;
mod neighbour;
mod route;
mod rule;

pub use link::{addresses, links};
pub use neighbour::{fdb, neighbours};
pub use route::routes;
pub use rule::rules;

#[cfg(test)]
mod tests;

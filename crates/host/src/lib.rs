//! Runs commands on a node, reads and writes captures.
//!
//! The only crate that touches a node. [`collect`] lists a node's network state with its own tools
//! and changes nothing; [`capture`] reads and writes captures as folders and archives; [`live`] is
//! the first with the parser behind it. What the files mean is `unmasq-parse`'s business.

pub mod capture;
pub mod collect;
mod live;

pub use live::{Live, LiveError, live};

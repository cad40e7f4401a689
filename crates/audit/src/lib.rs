//! Whose rule it is, and what can be found wrong.
//!
//! A rule of a host goes in, the program that wrote it comes out ([`owner()`]), and what a person
//! would call the rule ([`label()`]). Recognition reads names (tables, chains, sets, comments)
//! first and a rule's shape last; what fits nothing is [`Owner::Unclaimed`], never a guess.
//! It does not look at packets: that is `unmasq-eval`.
//!
//! What can be found wrong has a name, [`FindingId`], and a page, [`explain`].

pub mod explain;
mod finding;
mod label;
mod names;
mod owner;
mod shape;

pub use finding::FindingId;
pub use label::{label, short_text};
pub use owner::{Owner, chain_owner, owner};

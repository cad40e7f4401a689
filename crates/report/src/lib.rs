//! Views of an answer: for a person at a terminal, and as JSON.
//!
//! A [`Trace`](unmasq_eval::trace::Trace) and its [`Host`](unmasq_model::host::Host) go in, the
//! [`Way`](unmasq_cluster::paths::Way)s of a call over several hosts, or what was found in a
//! cluster ([`Audit`](unmasq_audit::Audit)); text or a serialisable document comes out. Nothing is
//! decided here: what happened is the evaluator's, whose rule it is and what is wrong
//! `unmasq-audit`'s. No output is written and no terminal is asked for its colours: that is the
//! caller's.

pub mod audit;
mod comments;
mod difference;
mod evidence;
#[cfg(test)]
mod fixture;
pub mod json;
mod names;
mod patches;
mod policies;
mod script;
pub mod terminal;
pub mod verify;
mod yaml;

pub use patches::patches;
pub use policies::policies;
pub use script::script;

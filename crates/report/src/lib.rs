//! Views of an answer: for a person at a terminal, and as JSON.
//!
//! A [`Trace`](unmasq_eval::trace::Trace) and its [`Host`](unmasq_model::host::Host) go in, text
//! or a serialisable document comes out. Nothing is decided here: what happened is the
//! evaluator's, whose rule it is `unmasq-audit`'s. No output is written and no terminal is asked
//! for its colours: that is the caller's.

mod evidence;
#[cfg(test)]
mod fixture;
pub mod json;
pub mod terminal;

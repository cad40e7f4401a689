//! Does what a plan says, and takes it back.
//!
//! ```text
//!  deeds ─▶ Journal (before the first) ─▶ for each: is it still as it was? ─ do ─ is it done? ─▶ end
//!                                              │ no                        │ no
//!                                              ▼                           ▼
//!                                           refused                   taken back, in reverse
//! ```
//!
//! In: [`Deed`]s, each of which knows both states. Out: nodes and objects in the one or the other,
//! and a [`Journal`] that says which. A deed is one transaction of one program, one file renamed, or
//! one patch: killed at any moment, each is as it was or as it should be, and a look at it tells. So
//! going on and taking back need no more than the journal's first line.
//!
//! What a target is made of is behind [`Target`]: this machine, or namespaces of a test.

mod deed;
mod journal;
mod listing;
mod local;
mod transaction;

pub use deed::{DeedError, back, forth, standing};
pub use journal::{Entry, Event, Head, Journal, JournalError, SCHEMA};
pub use local::{Local, TurnError};

use std::io;

use serde_json::Value;
use unmasq_fix::deed::{Deed, ObjectDeed, Standing};

/// What is changed: nodes, their files, and Kubernetes objects.
pub trait Target {
    /// Runs a program on a node with this input, and gives its standard output.
    fn run(&self, node: &str, command: &[&str], input: &str) -> Result<String, CommandError>;
    /// A file's text; `None`: there is none.
    fn read(&self, node: &str, path: &str) -> io::Result<Option<String>>;
    /// Puts a file there as a whole, or takes it away.
    fn write(&self, node: &str, path: &str, text: Option<&str>) -> io::Result<()>;
    /// A Kubernetes object; `None`: there is none.
    fn object(&self, deed: &ObjectDeed) -> Result<Option<Value>, CommandError>;
    /// Merges a patch into an object.
    fn patch(&self, deed: &ObjectDeed, patch: &Value) -> Result<(), CommandError>;
}

/// A command that failed.
#[derive(Debug, thiserror::Error)]
#[error("on {node}: `{command}` failed: {why}")]
pub struct CommandError {
    /// The node.
    pub node: String,
    /// The command with its arguments.
    pub command: String,
    /// Its status and what it said, or why it could not be run.
    pub why: String,
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// All is done.
    Applied,
    /// Something went wrong, and all that was done is taken back.
    TakenBack {
        /// What went wrong.
        why: DeedError,
    },
    /// Something went wrong, and not all could be taken back.
    Stuck {
        /// What went wrong first.
        why: DeedError,
        /// What went wrong when it was taken back.
        then: Vec<DeedError>,
    },
}

/// Checks that every deed's state is still the one before, and clear: nothing is done yet.
pub fn check(target: &dyn Target, deeds: &[Deed]) -> Result<(), DeedError> {
    for deed in deeds {
        match standing(target, deed)? {
            Standing::Before => deed::clear(deed)?,
            Standing::After => return Err(DeedError::Done { subject: deed.subject() }),
            Standing::Neither => return Err(DeedError::Changed { subject: deed.subject() }),
        }
    }
    Ok(())
}

/// Does all deeds of a journal that aren't done, in order. If one fails, those that are done are
/// taken back. `told` hears of each.
pub fn apply(
    target: &dyn Target,
    journal: &mut Journal,
    told: &mut dyn FnMut(&Entry),
) -> Result<Outcome, JournalError> {
    let deeds = journal.head().deeds.clone();
    for (index, deed) in deeds.iter().enumerate() {
        journal.note(Entry::of(index, deed, Event::Begun), told)?;
        match forth(target, deed) {
            Ok(()) => journal.note(Entry::of(index, deed, Event::Done), told)?,
            Err(why) => {
                journal.note(Entry::failed(index, deed, &why), told)?;
                let then = take_back(target, journal, told)?;
                return Ok(match then.is_empty() {
                    true => Outcome::TakenBack { why },
                    false => Outcome::Stuck { why, then },
                });
            }
        }
    }
    journal.end(Event::Applied, told)?;
    Ok(Outcome::Applied)
}

/// Takes all deeds of a journal back that are done, the last first. What went wrong: that deed stays
/// done, the others are taken back nevertheless.
pub fn take_back(
    target: &dyn Target,
    journal: &mut Journal,
    told: &mut dyn FnMut(&Entry),
) -> Result<Vec<DeedError>, JournalError> {
    let deeds = journal.head().deeds.clone();
    let mut wrong = Vec::new();
    for (index, deed) in deeds.iter().enumerate().rev() {
        match back(target, deed) {
            Ok(()) => journal.note(Entry::of(index, deed, Event::TakenBack), told)?,
            Err(why) => {
                journal.note(Entry::failed(index, deed, &why), told)?;
                wrong.push(why);
            }
        }
    }
    if wrong.is_empty() {
        journal.end(Event::Undone, told)?;
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests;

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
//! one patch: killed at any moment, each is as it was or as it should be, and a look at it tells, with
//! the journal's entries for who did it. What has not begun is not taken back.
//!
//! What a target is made of is behind [`Target`]: this machine, or namespaces of a test.

pub mod connections;
mod deed;
mod journal;
mod listing;
mod local;
mod lock;

pub use deed::{DeedError, Left, back, forth, standing};
pub use journal::{Entry, Event, Head, Journal, JournalError, SCHEMA, Stage};
pub use local::{Local, TurnError};
pub use lock::{Lock, LockError};

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
    /// Something stood against it before anything had begun.
    Refused {
        /// What.
        why: DeedError,
    },
    /// Something went wrong, and all that was done is taken back.
    TakenBack {
        /// What went wrong.
        why: DeedError,
        /// Where others have written meanwhile, which stays.
        others: Vec<String>,
    },
    /// Something went wrong, and not all could be taken back.
    Stuck {
        /// What went wrong first.
        why: DeedError,
        /// What went wrong when it was taken back.
        then: Vec<DeedError>,
    },
}

/// What came of taking back.
#[derive(Debug, Default)]
pub struct TakenBack {
    /// How many deeds had begun.
    pub deeds: usize,
    /// Where others have written since, which stays.
    pub others: Vec<String>,
    /// What could not be taken back.
    pub wrong: Vec<DeedError>,
}

/// Checks that all is as it was before, and clear: nothing is done yet. What a second deed finds in the same
/// place is what the first one leaves.
pub fn check(target: &dyn Target, deeds: &[Deed]) -> Result<(), DeedError> {
    for (index, deed) in deeds.iter().enumerate() {
        if deeds[..index].iter().any(|earlier| earlier.is_of_same(deed)) {
            deed::clear(deed)?;
            continue;
        }
        match standing(target, deed)? {
            Standing::Before => deed::clear(deed)?,
            Standing::After => return Err(DeedError::Done { subject: deed.subject() }),
            Standing::Neither => return Err(DeedError::Changed { subject: deed.subject() }),
        }
    }
    Ok(())
}

/// Does all deeds of a journal that aren't done, in order. If one fails, or can't be noted, those
/// that are done are taken back. `told` hears of each.
pub fn apply(target: &dyn Target, journal: &mut Journal, told: &mut dyn FnMut(&Entry)) -> Outcome {
    let deeds = journal.head().deeds.clone();
    for (index, deed) in deeds.iter().enumerate() {
        if let Err(why) = step(target, journal, (index, deed), told) {
            journal.note_if_possible(Entry::failed(index, deed, &why), told);
            return after_failure(target, journal, why, told);
        }
    }
    match journal.end(Event::Applied, told) {
        Ok(()) => Outcome::Applied,
        Err(why) => after_failure(target, journal, why.into(), told),
    }
}

fn step(
    target: &dyn Target,
    journal: &mut Journal,
    (index, deed): (usize, &Deed),
    told: &mut dyn FnMut(&Entry),
) -> Result<(), DeedError> {
    let stage = journal.stage(index);
    if stage == Stage::Done {
        return Ok(());
    }
    match (standing(target, deed)?, stage) {
        (Standing::Before, _) => {
            journal.note(Entry::of(index, deed, Event::Begun), told)?;
            deed::carry_out(target, deed)?;
        }
        // It was broken off between being done and being noted.
        (Standing::After, Stage::Begun) => {}
        (Standing::After, Stage::NotBegun | Stage::Done) => {
            return Err(DeedError::Done { subject: deed.subject() });
        }
        (Standing::Neither, _) => return Err(DeedError::Changed { subject: deed.subject() }),
    }
    Ok(journal.note(Entry::of(index, deed, Event::Done), told)?)
}

fn after_failure(
    target: &dyn Target,
    journal: &mut Journal,
    why: DeedError,
    told: &mut dyn FnMut(&Entry),
) -> Outcome {
    let TakenBack { deeds, others, wrong } = take_back(target, journal, told);
    match (deeds, wrong.is_empty()) {
        (0, _) => Outcome::Refused { why },
        (_, true) => Outcome::TakenBack { why, others },
        (_, false) => Outcome::Stuck { why, then: wrong },
    }
}

/// Takes all deeds of a journal back that had begun, the last first. What went wrong: that deed stays
/// done, the others are taken back nevertheless. It needs no journal that can be written:
/// [`Journal::trouble`] tells.
pub fn take_back(
    target: &dyn Target,
    journal: &mut Journal,
    told: &mut dyn FnMut(&Entry),
) -> TakenBack {
    let deeds = journal.head().deeds.clone();
    let mut came = TakenBack::default();
    for (index, deed) in deeds.iter().enumerate().rev() {
        let stage = journal.stage(index);
        if stage == Stage::NotBegun {
            continue;
        }
        came.deeds += 1;
        let taken = match back(target, deed, stage) {
            Err(_) if is_further_back(target, &deeds[..index], deed) => Ok(Left::AsBefore),
            taken => taken,
        };
        match taken {
            Ok(left) => {
                journal.note_if_possible(Entry::of(index, deed, Event::TakenBack), told);
                if left == Left::Others {
                    came.others.push(deed.subject());
                }
            }
            Err(why) => {
                journal.note_if_possible(Entry::failed(index, deed, &why), told);
                came.wrong.push(why);
            }
        }
    }
    if came.wrong.is_empty() {
        journal.end_if_possible(Event::Undone, told);
    }
    came
}

/// Whether an earlier deed in the same place is taken back already, which nobody could note.
fn is_further_back(target: &dyn Target, earlier: &[Deed], deed: &Deed) -> bool {
    let mut earlier = earlier.iter().filter(|one| one.is_of_same(deed));
    earlier.any(|one| standing(target, one).is_ok_and(|there| there == Standing::Before))
}

#[cfg(test)]
mod tests;

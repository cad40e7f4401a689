//! One deed: whether it is done, doing it, taking it back.

use std::io;

use serde_json::Value;
use unmasq_fix::deed::{Deed, FileDeed, ObjectDeed, RulesDeed, Standing, TableDeed};

use crate::listing::{self, Listed};
use crate::{CommandError, Target, transaction};

/// Why a deed could not be done.
#[derive(Debug, thiserror::Error)]
pub enum DeedError {
    /// It isn't as it was when the plan was made.
    #[error("{subject} is no longer as it was when it was read: make the plan again")]
    Changed {
        /// What.
        subject: String,
    },
    /// It is done already.
    #[error("{subject} is already as it should be: make the plan again")]
    Done {
        /// What.
        subject: String,
    },
    /// A rule stands there more than once, so which one is meant can't be told.
    #[error(
        "{subject} has the rule `{rule}` {times} times: several programs wrote it, or one twice; \
         take away those that nobody owns first"
    )]
    Several {
        /// Where.
        subject: String,
        /// The rule.
        rule: String,
        /// How often.
        times: usize,
    },
    /// It was done, and the state is another than it should be.
    #[error("{subject} is not as it should be afterwards")]
    NotAsForetold {
        /// What.
        subject: String,
    },
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file could not be read or written.
    #[error("{subject}: {error}{}", hint(error))]
    File {
        /// Which.
        subject: String,
        /// Why.
        error: io::Error,
    },
}

/// What to do about a file that can't be written.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            ": what its folder is mounted from may not be written; mount it so that it may, or change the \
             file where it comes from"
        }
        io::ErrorKind::PermissionDenied => {
            ": lsattr says whether it is immutable (chattr -i ends it)"
        }
        // What the error says has to do.
        _ => "",
    }
}

/// Which of a deed's two states is there.
pub fn standing(target: &dyn Target, deed: &Deed) -> Result<Standing, DeedError> {
    Ok(match deed {
        Deed::Rules(rules) => {
            let there = texts(&listing::chain(target, rules)?);
            Standing::of(&there, &rules.before, &rules.after)
        }
        Deed::Table(table) => {
            let there = listing::table(target, table)?;
            let there = there.is_some();
            Standing::of(&there, &table.before.is_some(), &table.after.is_some())
        }
        Deed::File(file) => Standing::of(&read(target, deed, file)?, &file.before, &file.after),
        Deed::Object(object) => match target.object(object)? {
            Some(there) => of_object(&there, object),
            None => Standing::Neither,
        },
    })
}

/// An object is in a state if the patch that leads to it changes nothing.
fn of_object(there: &Value, object: &ObjectDeed) -> Standing {
    let is = |patch: &Value| {
        let mut merged = there.clone();
        unmasq_fix::merge(&mut merged, patch);
        merged == *there
    };
    match (is(&object.patch), is(&object.back)) {
        (true, _) => Standing::After,
        (false, true) => Standing::Before,
        (false, false) => Standing::Neither,
    }
}

/// Does a deed, if it isn't done.
pub fn forth(target: &dyn Target, deed: &Deed) -> Result<(), DeedError> {
    match standing(target, deed)? {
        Standing::After => Ok(()),
        Standing::Before => carry_out(target, deed),
        Standing::Neither => Err(DeedError::Changed { subject: deed.subject() }),
    }
}

/// Takes a deed back, if it is done. Rules that others have put into the chain since then stay.
pub fn back(target: &dyn Target, deed: &Deed) -> Result<(), DeedError> {
    let inverse = deed.inverse();
    match (standing(target, &inverse)?, &inverse) {
        (Standing::After, _) => Ok(()),
        (Standing::Before, _) => carry_out(target, &inverse),
        (Standing::Neither, Deed::Rules(rules)) => {
            let there = texts(&listing::chain(target, rules)?);
            let Some(rebased) = rules.rebased(&there) else {
                return Err(DeedError::Changed { subject: deed.subject() });
            };
            carry_out(target, &Deed::Rules(rebased))
        }
        (Standing::Neither, Deed::Table(_) | Deed::File(_) | Deed::Object(_)) => {
            Err(DeedError::Changed { subject: deed.subject() })
        }
    }
}

fn carry_out(target: &dyn Target, deed: &Deed) -> Result<(), DeedError> {
    match deed {
        Deed::Rules(rules) => change_rules(target, deed, rules)?,
        Deed::Table(table) => change_table(target, table)?,
        Deed::File(file) => target
            .write(&file.node, &file.path, file.after.as_deref())
            .map_err(|error| DeedError::File { subject: deed.subject(), error })?,
        Deed::Object(object) => target.patch(object, &object.patch)?,
    }
    match standing(target, deed)? {
        Standing::After => Ok(()),
        Standing::Before | Standing::Neither => {
            Err(DeedError::NotAsForetold { subject: deed.subject() })
        }
    }
}

/// Whether it is clear what a deed is about.
pub(crate) fn clear(deed: &Deed) -> Result<(), DeedError> {
    let several = match deed {
        Deed::Rules(rules) => rules.deleted_of_several(),
        Deed::Table(_) | Deed::File(_) | Deed::Object(_) => None,
    };
    match several {
        Some((rule, times)) => Err(DeedError::Several { subject: deed.subject(), rule, times }),
        None => Ok(()),
    }
}

fn change_rules(target: &dyn Target, deed: &Deed, rules: &RulesDeed) -> Result<(), DeedError> {
    let there = listing::chain(target, rules)?;
    clear(deed)?;
    let text = transaction::of(rules, &there);
    target.run(&rules.node, rules.program.restore(), &text)?;
    Ok(())
}

fn change_table(target: &dyn Target, table: &TableDeed) -> Result<(), DeedError> {
    let (family, name) = (table.program.family(), &table.name);
    let mut text = String::new();
    if table.before.is_some() {
        text += &format!("delete table {family} {name}\n");
    }
    text += table.after.as_deref().unwrap_or_default();
    target.run(&table.node, table.program.restore(), &text)?;
    Ok(())
}

fn read(target: &dyn Target, deed: &Deed, file: &FileDeed) -> Result<Option<String>, DeedError> {
    let text = target.read(&file.node, &file.path);
    text.map_err(|error| DeedError::File { subject: deed.subject(), error })
}

fn texts(rules: &[Listed]) -> Vec<String> {
    rules.iter().map(|rule| rule.text.clone()).collect()
}

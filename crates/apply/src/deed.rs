//! One deed: whether it is done, doing it, taking it back.

use std::io;

use serde_json::{Value, json};
use unmasq_fix::deed::{
    Deed, Edit, FileDeed, Misfit, ObjectDeed, Program, RulesDeed, Standing, TableDeed,
};
use unmasq_fix::{file, transaction};

use crate::journal::{JournalError, Stage};
use crate::listing::{self, Listed};
use crate::{CommandError, Target};

/// How often a chain that others write at the same time is changed back.
const TRIES: usize = 5;

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
    /// A file doesn't say what is edited.
    #[error("{subject} is no longer as it was when it was read: {why}. Make the plan again")]
    Edited {
        /// Which.
        subject: String,
        /// What it says, or doesn't.
        why: String,
    },
    /// It was done, and the state is another than it should be.
    #[error(
        "{subject} is not as it should be afterwards: others may have changed it at the same time"
    )]
    NotAsForetold {
        /// What.
        subject: String,
    },
    /// Others have changed it since it was done.
    #[error(
        "{subject} has been changed by others since, so it is left as it is: what of it is to be \
         taken back has to be done by hand"
    )]
    Since {
        /// What.
        subject: String,
    },
    /// It was broken off, others have changed the chain since, and nothing shows whether it was done.
    #[error(
        "{subject} has been changed by others since, and whether these rules went by then can't be \
         told: {rules}. Put back by hand what should be there"
    )]
    Untold {
        /// Where.
        subject: String,
        /// The rules that were to go.
        rules: String,
    },
    /// A rule can't be put back.
    #[error("{subject}: {why}")]
    Misfit {
        /// Where.
        subject: String,
        /// Why.
        why: Misfit,
    },
    /// It can't be noted, and nothing is done that isn't noted.
    #[error(transparent)]
    Journal(#[from] JournalError),
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
        Deed::Table(table) => of_table(target, table)?,
        Deed::File(file) => {
            let there = read(target, deed, file)?;
            match &file.edit {
                Some(edit) => {
                    file::standing(there.as_deref(), edit).map_err(|why| not(deed, why))?
                }
                None => Standing::of(&there, &file.before, &file.after),
            }
        }
        Deed::Object(object) => match target.object(object)? {
            Some(there) => of_object(&there, object),
            None => Standing::Neither,
        },
    })
}

/// A table is what was written if nft lists it as it lists that.
fn of_table(target: &dyn Target, table: &TableDeed) -> Result<Standing, DeedError> {
    let there = listing::table(target, table)?;
    let listed = |text: &Option<String>| match (text, &there) {
        (Some(text), Some(_)) => listing::as_listed(target, table, text).map(Some),
        // Nothing is listed, so it is another, whatever it says.
        (text, None) => Ok(text.clone()),
        (None, Some(_)) => Ok(None),
    };
    Ok(Standing::of(&there, &listed(&table.before)?, &listed(&table.after)?))
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

/// Does a deed that isn't done.
pub fn forth(target: &dyn Target, deed: &Deed) -> Result<(), DeedError> {
    match standing(target, deed)? {
        Standing::After => Ok(()),
        Standing::Before => carry_out(target, deed),
        Standing::Neither => Err(DeedError::Changed { subject: deed.subject() }),
    }
}

/// What is there once a deed is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// All is as it was before.
    AsBefore,
    /// What others have put there or taken away since is as they left it; else it is as before.
    Others,
}

/// Takes back a deed that is at this stage. Rules that others have put into the chain since then
/// stay.
pub fn back(target: &dyn Target, deed: &Deed, stage: Stage) -> Result<Left, DeedError> {
    if stage == Stage::NotBegun {
        return Ok(Left::AsBefore);
    }
    let inverse = deed.inverse();
    let standing = match standing(target, &inverse) {
        Err(DeedError::Edited { subject, .. }) => return Err(DeedError::Since { subject }),
        known => known?,
    };
    match (standing, &inverse) {
        (Standing::After, _) => Ok(Left::AsBefore),
        (Standing::Before | Standing::Neither, Deed::Rules(rules)) => {
            rules_back(target, deed, rules, stage)
        }
        (Standing::Before, _) => carry_out(target, &inverse).map(|()| Left::AsBefore),
        (Standing::Neither, Deed::Table(_) | Deed::File(_) | Deed::Object(_)) => {
            Err(DeedError::Since { subject: deed.subject() })
        }
    }
}

/// Others may write the chain at any time, also between a look at it and the change of it, whose
/// places are then another's: so it is looked at again, until the rules stand where they belong.
fn rules_back(
    target: &dyn Target,
    deed: &Deed,
    rules: &RulesDeed,
    stage: Stage,
) -> Result<Left, DeedError> {
    let subject = || deed.subject();
    for _ in 0..TRIES {
        let there = texts(&listing::chain(target, rules)?);
        if there == rules.after {
            return Ok(Left::AsBefore);
        }
        match rules.among_others(&there) {
            Standing::After if rules.is_in_order(&there) => return Ok(Left::Others),
            Standing::Before if there != rules.before && !shows(rules, stage) => {
                return Err(untold(rules, subject()));
            }
            Standing::After | Standing::Before => {}
            Standing::Neither => return Err(DeedError::Since { subject: subject() }),
        }
        let rebased = rules.rebased(&there);
        let rebased = rebased.map_err(|why| DeedError::Misfit { subject: subject(), why })?;
        change_rules(target, deed, &rebased)?;
    }
    Err(DeedError::NotAsForetold { subject: subject() })
}

/// Whether it is known that the inverse's opposite was done: it was noted, or its rules are there.
fn shows(inverse: &RulesDeed, stage: Stage) -> bool {
    let had_come = inverse.edits().iter().any(|edit| matches!(edit, Edit::Delete { .. }));
    had_come || stage == Stage::Done
}

fn untold(inverse: &RulesDeed, subject: String) -> DeedError {
    let edits = inverse.edits();
    let rules: Vec<String> = edits.iter().map(|edit| format!("`{}`", edit.rule())).collect();
    DeedError::Untold { subject, rules: rules.join(", ") }
}

pub(crate) fn carry_out(target: &dyn Target, deed: &Deed) -> Result<(), DeedError> {
    match deed {
        Deed::Rules(rules) => change_rules(target, deed, rules)?,
        Deed::Table(table) => change_table(target, table)?,
        Deed::File(file) => change_file(target, deed, file)?,
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
    let handles: Vec<String> = there.iter().map(|rule| rule.handle.clone()).collect();
    let text = transaction::of(rules, &handles);
    let mut command = rules.program.restore().to_vec();
    match rules.program {
        // Owners of rules hold its lock again and again, for moments.
        Program::IptablesLegacy | Program::Ip6tablesLegacy => command.push("--wait=10"),
        // There is none.
        Program::IptablesNft | Program::Ip6tablesNft => {}
        Program::NftIp | Program::NftIp6 | Program::NftInet => {}
    }
    target.run(&rules.node, &command, &text)?;
    Ok(())
}

/// A table that is there already is not added to: the transaction fails.
fn change_table(target: &dyn Target, table: &TableDeed) -> Result<(), DeedError> {
    let (family, name) = (table.program.family(), &table.name);
    let mut text = String::new();
    if table.before.is_some() {
        text += &format!("delete table {family} {name}\n");
    }
    if let Some(after) = &table.after {
        text += &format!("create table {family} {name}\n{after}");
    }
    target.run(&table.node, table.program.restore(), &text)?;
    Ok(())
}

/// Only what is edited changes: a capture leaves out what else the file says.
fn change_file(target: &dyn Target, deed: &Deed, file: &FileDeed) -> Result<(), DeedError> {
    let text = match &file.edit {
        Some(edit) => {
            let there = read(target, deed, file)?;
            let text = file::edited(there.as_deref(), edit).map_err(|why| not(deed, why))?;
            // One that was made for a single value, and has no other by now, goes with it.
            let empty = serde_json::from_str(&text).is_ok_and(|value: Value| value == json!({}));
            (file.after.is_some() || !empty).then_some(text)
        }
        None => file.after.clone(),
    };
    let written = target.write(&file.node, &file.path, text.as_deref());
    written.map_err(|error| DeedError::File { subject: deed.subject(), error })
}

fn not(deed: &Deed, why: String) -> DeedError {
    DeedError::Edited { subject: deed.subject(), why }
}

fn read(target: &dyn Target, deed: &Deed, file: &FileDeed) -> Result<Option<String>, DeedError> {
    let text = target.read(&file.node, &file.path);
    text.map_err(|error| DeedError::File { subject: deed.subject(), error })
}

fn texts(rules: &[Listed]) -> Vec<String> {
    rules.iter().map(|rule| rule.text.clone()).collect()
}

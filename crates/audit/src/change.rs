//! A node's rules changed, as data: a program can apply a change to the model, write it as a
//! transaction of its back end, and turn it round.
//!
//! ```text
//! RuleChange (replace, delete, insert) ─┬─ apply ─────────▶ Ruleset, without any parser
//!                                       ├─ inverse ───────▶ the changes that undo it
//!                                       └─ transactions ──▶ iptables-restore, nft -f -
//! TableChange (a table of our own) ─────┘
//! ```
//!
//! Several changes are one: every position is that of the chain as it was before all of them. No
//! change makes or removes a chain of others.

mod write;

use std::fmt;

use unmasq_model::rule::Rule;
use unmasq_model::ruleset::{Backend, Ruleset, Table, TableFamily};

pub(crate) use write::delete_table;
pub use write::{
    Transaction, Unwritable, commands, table_commands, table_text, table_transaction, transactions,
};

/// One rule replaced, deleted or inserted.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleChange {
    /// The program family of the table.
    pub backend: Backend,
    /// The table's family.
    pub family: TableFamily,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Index of the old rule in its chain, from 0; without an old one, of the rule that the new one
    /// is put in front of (the chain's length: at its end).
    pub position: usize,
    /// What stands there; `None`: the new rule is inserted.
    pub old: Option<Rule>,
    /// What comes there; `None`: the old rule is deleted.
    pub new: Option<Rule>,
}

/// A table of nft, made or deleted as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct TableChange {
    /// What is there; `None`: there must be no table of this name.
    pub old: Option<Table>,
    /// What comes; `None`: it is deleted.
    pub new: Option<Table>,
}

impl RuleChange {
    /// The change that undoes this one, if it is the only one in its chain; [`inverse`] is for
    /// several.
    pub fn inverse(&self) -> RuleChange {
        RuleChange { old: self.new.clone(), new: self.old.clone(), ..self.clone() }
    }

    fn place(&self) -> (Backend, TableFamily, &str, &str) {
        (self.backend, self.family, &self.table, &self.chain)
    }

    /// An insertion at a position comes in front of the rule there.
    fn order(&self) -> (usize, bool) {
        (self.position, self.old.is_some())
    }
}

impl TableChange {
    /// The change that undoes this one.
    pub fn inverse(&self) -> TableChange {
        TableChange { old: self.new.clone(), new: self.old.clone() }
    }
}

/// The changes that undo all of these: positions are those of the chains as they are then.
pub fn inverse(changes: &[RuleChange]) -> Vec<RuleChange> {
    let mut sorted: Vec<&RuleChange> = changes.iter().collect();
    sorted.sort_by_key(|change| change.order());
    let undone = |(index, change): (usize, &&RuleChange)| {
        let before = sorted[..index].iter().filter(|one| one.place() == change.place());
        let (mut inserted, mut deleted) = (0, 0);
        for one in before {
            inserted += usize::from(one.old.is_none() && one.new.is_some());
            deleted += usize::from(one.old.is_some() && one.new.is_none());
        }
        let position = (change.position + inserted).saturating_sub(deleted);
        RuleChange { position, ..change.inverse() }
    };
    sorted.iter().enumerate().map(undone).collect()
}

/// Changes by descending position in their chains, so that none moves what another one names.
fn last_first(changes: &[RuleChange]) -> Vec<&RuleChange> {
    let mut sorted: Vec<&RuleChange> = changes.iter().collect();
    sorted.sort_by_key(|change| change.order());
    sorted.reverse();
    sorted
}

/// A change that doesn't fit what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// There is no such chain.
    #[error("there is no chain {0}")]
    NoChain(String),
    /// Another rule, or none, stands at the position.
    #[error("rule {} of chain {chain} is another one", position + 1)]
    Moved {
        /// The table and the chain.
        chain: String,
        /// The index, from 0.
        position: usize,
    },
}

/// Applies changes to the model: all of them, or none.
pub fn apply(ruleset: &mut Ruleset, changes: &[RuleChange]) -> Result<(), Misfit> {
    let mut places = Vec::new();
    for change in last_first(changes) {
        let place = place_of(ruleset, change)?;
        let rules = &ruleset.tables[place.0].chains[place.1].rules;
        if change.old.is_none() && change.position > rules.len() {
            return Err(moved(change));
        }
        old_rule(ruleset, place, change)?;
        places.push((place, change));
    }
    for ((table, chain), change) in places {
        let end = change.position + usize::from(change.old.is_some());
        let rules = &mut ruleset.tables[table].chains[chain].rules;
        rules.splice(change.position..end, change.new.clone());
    }
    Ok(())
}

/// The same changes with the old rules as they stand in the ruleset, and so with the handles that
/// they have now: an inverse doesn't know those that the kernel gave to new rules.
pub fn locate(changes: &[RuleChange], ruleset: &Ruleset) -> Result<Vec<RuleChange>, Misfit> {
    let located = |change: &RuleChange| {
        let there = old_rule(ruleset, place_of(ruleset, change)?, change)?;
        Ok(RuleChange { old: there.cloned(), ..change.clone() })
    };
    changes.iter().map(located).collect()
}

/// Indices of the table and of the chain.
fn place_of(ruleset: &Ruleset, change: &RuleChange) -> Result<(usize, usize), Misfit> {
    let named = |table: &Table| {
        let wanted = (change.backend, change.family, &*change.table);
        (table.backend, table.family, &*table.name) == wanted
    };
    let missing = || Misfit::NoChain(Place(change).to_string());
    let table = ruleset.tables.iter().position(named).ok_or_else(missing)?;
    let mut chains = ruleset.tables[table].chains.iter();
    let chain = chains.position(|chain| *chain.name == *change.chain).ok_or_else(missing)?;
    Ok((table, chain))
}

/// The rule that a change takes away, as it stands there.
fn old_rule<'r>(
    ruleset: &'r Ruleset,
    (table, chain): (usize, usize),
    change: &RuleChange,
) -> Result<Option<&'r Rule>, Misfit> {
    let Some(old) = &change.old else { return Ok(None) };
    let there = ruleset.tables[table].chains[chain].rules.get(change.position);
    match there.filter(|there| is_same(old, there)) {
        Some(there) => Ok(Some(there)),
        None => Err(moved(change)),
    }
}

fn moved(change: &RuleChange) -> Misfit {
    Misfit::Moved { chain: Place(change).to_string(), position: change.position }
}

/// Whether two rules read the same, whatever their counters and places are.
fn is_same(one: &Rule, other: &Rule) -> bool {
    uncounted(&one.text) == uncounted(&other.text)
}

/// nft's text without what its counters counted.
pub(crate) fn uncounted(text: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut after = None;
    for word in crate::label::words(text) {
        let counted = matches!(after, Some("packets" | "bytes")) && word.parse::<u64>().is_ok();
        words.push(if counted { "0" } else { word });
        after = Some(word);
    }
    words.join(" ")
}

/// `nat POSTROUTING`, `ip mytable mychain`
struct Place<'a>(&'a RuleChange);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleChange { family, table, chain, .. } = self.0;
        match self.0.backend {
            Backend::Legacy | Backend::IptablesNft => write!(f, "{table} {chain}"),
            Backend::Nft => write!(f, "{family} {table} {chain}"),
        }
    }
}

#[cfg(test)]
mod tests;

//! What a program changes in its rules, carried over to the rules that it left on a node.
//!
//! A writer of rules is trusted as far as it can be checked: it writes what the program has now,
//! and what it will have, and only the difference is carried over to what was captured. Where the
//! node's rules aren't those that the writer says are there now, the program is another version or
//! configured in a way that isn't known, and nothing is foretold ([`Strange`]).
//!
//! ```text
//!  captured ─────────────────────────┐
//!  before ─┐                         ▼
//!          ├─ rules gone, rules new ─┴─▶ captured, changed
//!  after ──┘
//! ```

use std::collections::BTreeMap;

use crate::deed::Edit;
use unmasq_model::renumber::Numbers;
use unmasq_model::rule::Rule;
use unmasq_model::ruleset::{Chain, ChainId, Table};
use unmasq_model::set::{Set, SetId};

/// What a node has isn't what the writer says it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Strange {
    /// A chain that would change isn't there.
    #[error("there is no chain {0}")]
    NoChain(String),
    /// A rule that would go isn't there.
    #[error("chain {chain} has no rule `{rule}`")]
    NoRule {
        /// The chain.
        chain: String,
        /// The rule.
        rule: String,
    },
    /// A rule that would come is there already.
    #[error("chain {chain} has the rule `{rule}` already")]
    RuleAlready {
        /// The chain.
        chain: String,
        /// The rule.
        rule: String,
    },
    /// The rules of a chain that would change are others.
    #[error("chain {0} has other rules")]
    Rules(String),
    /// The elements of a set that would change are others.
    #[error("set {0} has other elements")]
    Set(String),
}

/// Carries over to `captured` what differs between `before` and `after`.
pub(crate) fn transplant(
    captured: &mut Table,
    before: &Table,
    after: &Table,
) -> Result<(), Strange> {
    let mut graft = Graft { after, captured: Captured::new(captured), sets: BTreeMap::new() };
    for chain in &after.chains {
        let old = before.chain_by_name(&chain.name).map(|id| before.chain(id));
        let old = old.map_or(&[][..], |chain| &chain.rules);
        if keys(old) != keys(&chain.rules) {
            graft.chain(&chain.name, old, &chain.rules)?;
        }
    }
    // A chain that is no more is left without rules: nothing jumps to it, and numbers stay.
    for chain in before.chains.iter().filter(|chain| after.chain_by_name(&chain.name).is_none()) {
        if !chain.rules.is_empty() {
            graft.chain(&chain.name, &chain.rules, &[])?;
        }
    }
    for set in &after.sets {
        let Some(name) = &set.name else { continue };
        let old = before.sets.iter().find(|old| old.name.as_ref() == Some(name));
        graft.named_set(name, before, old, set)?;
    }
    Ok(())
}

/// How many chains of a captured table have just the rules that a writer gives them.
pub(crate) fn agreeing(captured: &Table, written: &Table) -> usize {
    let agrees = |chain: &&Chain| {
        let there = captured.chain_by_name(&chain.name).map(|id| captured.chain(id));
        there.is_some_and(|there| keys(&there.rules) == keys(&chain.rules))
    };
    written.chains.iter().filter(agrees).count()
}

/// Edits one chain, whose rules are those of `before`, by their texts. `new` has the rules that
/// come, in order, in a chain of the same name.
pub(crate) fn edit(
    captured: &mut Table,
    chain: &str,
    before: &[String],
    edits: &[Edit],
    new: &Table,
) -> Result<(), Strange> {
    let mut graft = Graft { after: new, captured: Captured::new(captured), sets: BTreeMap::new() };
    let Some(id) = graft.captured.chains.get(chain).copied() else {
        return Err(Strange::NoChain(chain.to_owned()));
    };
    let place = id.0 as usize;
    let there = keys(&graft.captured.table.chains[place].rules);
    if !there.into_iter().eq(before.iter().map(|text| key(text))) {
        return Err(Strange::Rules(chain.to_owned()));
    }
    let new = new.chain_by_name(chain).map_or(&[][..], |id| &new.chain(id).rules);
    let mut coming = new.iter();
    for edit in edits {
        match edit {
            Edit::Delete { at, .. } => {
                graft.captured.table.chains[place].rules.remove(*at);
            }
            Edit::Insert { at, rule } => {
                let Some(new) = coming.next() else {
                    let (chain, rule) = (chain.to_owned(), rule.clone());
                    return Err(Strange::NoRule { chain, rule });
                };
                let new = graft.rule(new);
                graft.captured.table.chains[place].rules.insert(*at, new);
            }
        }
    }
    Ok(())
}

/// What tells rules apart: their text without comment and counter.
pub(crate) fn key(text: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut rest = text;
    // iptables' comment is a match, nft's the last word.
    while let Some((before, after)) = rest.split_once("-m comment --comment ") {
        words.extend(before.split_whitespace());
        rest = after_word(after);
    }
    let rest = rest.split_once(" comment \"").map_or(rest, |(before, _)| before);
    let mut parts = rest.split_whitespace();
    while let Some(word) = parts.next() {
        match word {
            // `counter packets 3 bytes 180`
            "counter" => {
                let mut ahead = parts.clone();
                if ahead.next() == Some("packets") {
                    parts = ahead;
                    parts.by_ref().take(3).for_each(drop);
                }
                words.push("counter");
            }
            _ => words.push(word),
        }
    }
    words.join(" ")
}

/// What follows the first word, which may be quoted.
fn after_word(text: &str) -> &str {
    let Some(quoted) = text.strip_prefix('"') else {
        return text.split_once(' ').map_or("", |(_, rest)| rest);
    };
    let mut escaped = false;
    for (at, letter) in quoted.char_indices() {
        match letter {
            '"' if !escaped => return &quoted[at + 1..],
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    ""
}

fn keys(rules: &[Rule]) -> Vec<String> {
    rules.iter().map(|rule| key(&rule.text)).collect()
}

struct Graft<'t> {
    after: &'t Table,
    captured: Captured<'t>,
    /// Numbers in the captured table of sets that were carried over.
    sets: BTreeMap<SetId, SetId>,
}

impl Graft<'_> {
    fn chain(&mut self, name: &str, before: &[Rule], after: &[Rule]) -> Result<(), Strange> {
        let id = match self.captured.chains.get(name) {
            Some(id) => *id,
            None if before.is_empty() => self.captured.number(name),
            None => return Err(Strange::NoChain(name.to_owned())),
        };
        let there = keys(&self.captured.table.chain(id).rules);
        let (before, wanted) = (keys(before), keys(after));
        let rules = if there == before {
            after.iter().map(|rule| self.rule(rule)).collect()
        } else {
            self.merged(id, name, &before, after, &wanted)?
        };
        self.captured.table.chains[id.0 as usize].rules = rules;
        Ok(())
    }

    /// A chain with rules of others too: only what differs goes and comes. A new rule stands behind
    /// the one that it follows in the writer's order.
    fn merged(
        &mut self,
        id: ChainId,
        name: &str,
        before: &[String],
        after: &[Rule],
        wanted: &[String],
    ) -> Result<Vec<Rule>, Strange> {
        let mut rules = self.captured.table.chain(id).rules.clone();
        let mut there = keys(&rules);
        let at = |there: &[String], key: &String| there.iter().position(|one| one == key);
        for gone in without(before, wanted) {
            let Some(place) = at(&there, gone) else {
                return Err(Strange::NoRule { chain: name.to_owned(), rule: gone.clone() });
            };
            rules.remove(place);
            there.remove(place);
        }
        let new = without(wanted, before);
        for (index, key) in wanted.iter().enumerate() {
            if !new.contains(&key) {
                continue;
            }
            if at(&there, key).is_some() {
                return Err(Strange::RuleAlready { chain: name.to_owned(), rule: key.clone() });
            }
            let mut ahead = wanted[..index].iter().rev();
            let place = ahead.find_map(|one| at(&there, one)).map_or(0, |place| place + 1);
            rules.insert(place, self.rule(&after[index]));
            there.insert(place, key.clone());
        }
        Ok(rules)
    }

    /// A rule of the table `after`, with the numbers of the captured one.
    fn rule(&mut self, rule: &Rule) -> Rule {
        let mut rule = rule.clone();
        rule.renumber(self);
        rule
    }

    fn named_set(
        &mut self,
        name: &str,
        before: &Table,
        old: Option<&Set>,
        new: &Set,
    ) -> Result<(), Strange> {
        let Some(place) = self.captured.set(name) else {
            // One that the program makes when it is needed.
            let differs = old.is_none_or(|old| old.elements.len() != new.elements.len());
            return if differs { Err(Strange::Set(name.to_owned())) } else { Ok(()) };
        };
        let Some(old) = old else { return Err(Strange::Set(name.to_owned())) };
        // With the captured table's numbers, so that those of the other two don't count.
        let captured = &mut self.captured;
        let old = old.elements.clone();
        let old = old.renumbered(&mut |id| captured.number(&before.chain(id).name));
        let new = new.elements.clone();
        let new = new.renumbered(&mut |id| captured.number(&self.after.chain(id).name));
        let there = &mut captured.table.sets[place].elements;
        match there.carried_over(&old, &new) {
            Some(carried) => *there = carried,
            None => return Err(Strange::Set(name.to_owned())),
        }
        Ok(())
    }
}

/// The table that is changed, with its chains' numbers by name.
struct Captured<'t> {
    table: &'t mut Table,
    chains: BTreeMap<Box<str>, ChainId>,
}

impl<'t> Captured<'t> {
    fn new(table: &'t mut Table) -> Self {
        let chains = (0..).zip(&table.chains).map(|(id, chain)| (chain.name.clone(), ChainId(id)));
        let chains = chains.collect();
        Captured { table, chains }
    }

    /// The number of the chain of that name, which is added if there is none.
    fn number(&mut self, name: &str) -> ChainId {
        if let Some(id) = self.chains.get(name) {
            return *id;
        }
        let id = ChainId(u32::try_from(self.table.chains.len()).unwrap_or(u32::MAX));
        let (base, rules, origin) = (None, Vec::new(), self.table.origin);
        self.table.chains.push(Chain { name: name.into(), base, rules, origin });
        self.chains.insert(name.into(), id);
        id
    }

    fn set(&self, name: &str) -> Option<usize> {
        self.table.sets.iter().position(|set| set.name.as_deref() == Some(name))
    }
}

/// What is in `all` more often than in `others`.
pub(crate) fn without<'a>(all: &'a [String], others: &[String]) -> Vec<&'a String> {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for one in others {
        *left.entry(one).or_default() += 1;
    }
    let mut is_left = |one: &&String| match left.get_mut(one.as_str()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        Some(_) | None => true,
    };
    all.iter().filter(|one| is_left(one)).collect()
}

impl Numbers for Graft<'_> {
    fn chain(&mut self, id: ChainId) -> ChainId {
        self.captured.number(&self.after.chain(id).name)
    }

    fn set(&mut self, id: SetId) -> SetId {
        let set = self.after.set(id);
        if let Some(place) = set.name.as_ref().and_then(|name| self.captured.set(name)) {
            return SetId(u32::try_from(place).unwrap_or(u32::MAX));
        }
        if let Some(known) = self.sets.get(&id) {
            return *known;
        }
        let elements = set.elements.clone();
        let elements = elements.renumbered(&mut |id| Numbers::chain(self, id));
        let sets = &mut self.captured.table.sets;
        let number = SetId(u32::try_from(sets.len()).unwrap_or(u32::MAX));
        sets.push(Set { elements, ..set.clone() });
        self.sets.insert(id, number);
        number
    }
}

//! A table while it is read, with its names.

use std::collections::HashMap;

use unmasq_model::origin::Origin;
use unmasq_model::rule::Verdict;
use unmasq_model::ruleset::{Backend, Chain, ChainId, Table, TableFamily};
use unmasq_model::set::{Set, SetId};

use super::json::Node;
use super::set::SetType;

/// A table, and what finds its chains and sets by name.
pub(super) struct Scope {
    pub(super) table: Table,
    chains: HashMap<Box<str>, ChainId>,
    sets: HashMap<Box<str>, SetId>,
    /// By [`SetId`].
    types: Vec<SetType>,
}

impl Scope {
    /// A table without content.
    pub(super) fn new(family: TableFamily, name: &str, origin: Origin) -> Scope {
        let table = Table {
            backend: Backend::Nft,
            family,
            name: name.into(),
            chains: Vec::new(),
            sets: Vec::new(),
            dormant: false,
            unreadable: None,
            origin,
        };
        Scope { table, chains: HashMap::new(), sets: HashMap::new(), types: Vec::new() }
    }

    /// Adds a chain.
    pub(super) fn add_chain(&mut self, chain: Chain) {
        let id = ChainId(index(self.table.chains.len()));
        self.chains.insert(chain.name.clone(), id);
        self.table.chains.push(chain);
    }

    /// The chain of that name.
    pub(super) fn chain(&self, name: &str) -> Option<ChainId> {
        self.chains.get(name).copied()
    }

    /// Adds a set; an anonymous one can only be found by its id.
    pub(super) fn add_set(&mut self, set: Set, kind: SetType) -> SetId {
        let id = SetId(index(self.table.sets.len()));
        if let Some(name) = &set.name {
            self.sets.insert(name.clone(), id);
        }
        self.table.sets.push(set);
        self.types.push(kind);
        id
    }

    /// The set of that name.
    pub(super) fn set(&self, name: &str) -> Option<SetId> {
        self.sets.get(name).copied()
    }

    /// What a set holds.
    pub(super) fn set_type(&self, id: SetId) -> &SetType {
        &self.types[id.0 as usize]
    }

    /// A rule changes the set.
    pub(super) fn mark_dynamic(&mut self, id: SetId) {
        self.table.sets[id.0 as usize].dynamic = true;
    }

    /// Adds one element to a set.
    pub(super) fn insert(&mut self, id: SetId, element: &Node<'_>) {
        let chains = &self.chains;
        let kind = &self.types[id.0 as usize];
        kind.insert(&mut self.table.sets[id.0 as usize], element, &|node| verdict(chains, node));
    }

    /// A verdict; `None` for what is none, and for a jump to a chain that the listing lacks.
    pub(super) fn verdict(&self, node: &Node<'_>) -> Option<Verdict> {
        verdict(&self.chains, node)
    }
}

fn verdict(chains: &HashMap<Box<str>, ChainId>, node: &Node<'_>) -> Option<Verdict> {
    let (name, body) = node.single()?;
    let target = || chains.get(body.get("target")?.text()?).copied();
    Some(match name {
        "accept" => Verdict::Accept,
        "drop" => Verdict::Drop,
        "continue" => Verdict::Continue,
        "return" => Verdict::Return,
        "jump" => Verdict::Jump(target()?),
        "goto" => Verdict::Goto(target()?),
        _ => return None,
    })
}

/// No table has 2^32 of anything: a handle alone takes more memory than that.
fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

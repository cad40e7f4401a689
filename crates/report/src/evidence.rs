//! A hit in words: where it stands, and what it did. Shared by all views.

use unmasq_audit::{Owner, chain_owner, owner};
use unmasq_eval::trace::{By, Effect, Hit, Reason, RuleId};
use unmasq_model::host::Host;
use unmasq_model::origin::Origin;
use unmasq_model::rule::Rule;
use unmasq_model::ruleset::{Backend, Chain, ChainId, Policy, Table};

/// Where a hit stands. All `None` for what the kernel does outside any rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place<'a> {
    /// `nat` for iptables, `ip kube-proxy` for nftables.
    pub(crate) table: Option<String>,
    /// The chain.
    pub(crate) chain: Option<&'a Chain>,
    /// The rule; `None` for a policy.
    pub(crate) rule: Option<&'a Rule>,
    /// The captured file.
    pub(crate) file: Option<&'a str>,
    /// The rule's position, or its chain's.
    pub(crate) origin: Option<Origin>,
    /// Who wrote it.
    pub(crate) owner: Option<Owner>,
}

impl<'a> Place<'a> {
    /// Of a hit.
    pub(crate) fn of(host: &'a Host, by: &By) -> Place<'a> {
        match by {
            By::Rule(id) => Place::of_rule(host, *id),
            By::Policy { table, chain } => {
                let mut place = Place::of_chain(host, *table, *chain);
                place.owner = Some(chain_owner(host, *table, *chain));
                place
            }
            By::Kernel(_) => Place::default(),
        }
    }

    /// Of a rule.
    pub(crate) fn of_rule(host: &'a Host, id: RuleId) -> Place<'a> {
        let mut place = Place::of_chain(host, id.table, id.chain);
        place.rule = place.chain.and_then(|chain| chain.rules.get(id.rule as usize));
        place.owner = Some(owner(host, id));
        if let Some(rule) = place.rule {
            place.set_origin(host, rule.origin);
        }
        place
    }

    fn of_chain(host: &'a Host, table: u32, chain: ChainId) -> Place<'a> {
        let mut place = Place::default();
        let Some(table) = host.ruleset.tables.get(table as usize) else {
            return place;
        };
        place.table = Some(table_name(table));
        place.chain = table.chains.get(chain.0 as usize);
        if let Some(chain) = place.chain {
            place.set_origin(host, chain.origin);
        }
        place
    }

    fn set_origin(&mut self, host: &'a Host, origin: Origin) {
        self.origin = Some(origin);
        self.file = Some(host.file(origin.file));
    }

    /// `nat KUBE-SERVICES`.
    pub(crate) fn name(&self) -> Option<String> {
        Some(format!("{} {}", self.table.as_deref()?, self.chain?.name))
    }

    /// `iptables-save:12`; for rules of a listing in one line, with the kernel's handle.
    pub(crate) fn position(&self) -> Option<String> {
        let (file, origin) = (self.file?, self.origin?);
        Some(match origin.handle {
            Some(handle) => format!("{file}:{} handle {handle}", origin.line),
            None => format!("{file}:{}", origin.line),
        })
    }
}

fn table_name(table: &Table) -> String {
    match table.backend {
        Backend::Legacy | Backend::IptablesNft => table.name.to_string(),
        Backend::Nft => format!("{} {}", table.family, table.name),
    }
}

/// What a hit did, in words: `mark 0x0 -> 0x4000`, `jump KUBE-SERVICES`, `strict rp_filter on
/// eth0: drop`.
pub(crate) fn effects(host: &Host, hit: &Hit) -> String {
    let table = match &hit.by {
        By::Rule(id) => host.ruleset.tables.get(id.table as usize),
        By::Policy { table, .. } => host.ruleset.tables.get(*table as usize),
        By::Kernel(_) => None,
    };
    let parts: Vec<String> = hit.effects.iter().map(|effect| words(table, effect)).collect();
    let done = parts.join(", ");
    match &hit.by {
        By::Rule(_) if done.is_empty() => "no match".to_owned(),
        By::Rule(_) => done,
        By::Policy { table, chain } if done.is_empty() => policy(host, *table, *chain).to_owned(),
        By::Policy { .. } => format!("policy {done}"),
        By::Kernel(what) if done.is_empty() => what.clone(),
        By::Kernel(what) if parts.iter().any(|part| part == what) => done,
        By::Kernel(what) => format!("{what}: {done}"),
    }
}

fn policy(host: &Host, table: u32, chain: ChainId) -> &'static str {
    let chain =
        host.ruleset.tables.get(table as usize).and_then(|t| t.chains.get(chain.0 as usize));
    match chain.and_then(|chain| chain.base).map(|base| base.policy) {
        Some(Policy::Accept) => "policy accept",
        Some(Policy::Drop) => "policy drop",
        None => "policy",
    }
}

fn words(table: Option<&Table>, effect: &Effect) -> String {
    match effect {
        Effect::Jump(chain) => format!("jump {}", chain_name(table, *chain)),
        Effect::Goto(chain) => format!("goto {}", chain_name(table, *chain)),
        Effect::Return => "return".to_owned(),
        Effect::Accept => "accept".to_owned(),
        Effect::Drop => "drop".to_owned(),
        Effect::Reject(with) if with.is_empty() => "reject".to_owned(),
        Effect::Reject(with) => format!("reject with {with}"),
        Effect::Mark { before, after } => format!("mark {before:#x} -> {after:#x}"),
        Effect::CtMark { before, after } => format!("ct mark {before:#x} -> {after:#x}"),
        Effect::Snat(to) => format!("source -> {to}"),
        Effect::Dnat(to) => format!("destination -> {to}"),
        Effect::NoTrack => "no connection tracking".to_owned(),
        Effect::Log => "log".to_owned(),
        Effect::Remember => "update kept state".to_owned(),
        Effect::Nothing => "match".to_owned(),
        Effect::Rerouted { out } => format!("routed again, out of {out}"),
        Effect::Unknown(why) => format!("unknown: {why}"),
        Effect::Kernel(what) => what.clone(),
    }
}

fn chain_name(table: Option<&Table>, id: ChainId) -> &str {
    table.and_then(|table| table.chains.get(id.0 as usize)).map_or("?", |chain| &chain.name)
}

/// A reason's name in documents.
pub(crate) fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Rule => "rule",
        Reason::Policy => "policy",
        Reason::RpFilter => "rp_filter",
        Reason::Martian => "martian",
        Reason::NoRoute => "no_route",
        Reason::Unreachable => "unreachable",
        Reason::Blackhole => "blackhole",
        Reason::Prohibit => "prohibit",
        Reason::Ttl => "ttl",
        Reason::NoForwarding => "no_forwarding",
        Reason::Hairpin => "hairpin",
        Reason::Moved => "moved",
    }
}

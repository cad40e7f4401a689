//! Which chains a packet meets at each hook, in which order.
//!
//! nat chains don't run at their own priority: conntrack has one dispatcher for each hook, and
//! all nat chains run inside it, ordered among themselves by priority
//! (net/netfilter/nf_nat_core.c, `nf_nat_inet_fn`).

use unmasq_model::expr::{Expr, Field};
use unmasq_model::host::{Host, Seen};
use unmasq_model::packet::Family;
use unmasq_model::rule::{Action, Step, Test};
use unmasq_model::ruleset::{
    Backend, Chain, ChainId, ChainKind, Hook, Policy, Table, XTABLES_NAMES, xtables_base,
};

/// `NF_IP_PRI_CONNTRACK`: where connection tracking begins in prerouting and output.
const CONNTRACK: i32 = -200;

/// A base chain by its place in the ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) table: u32,
    pub(crate) chain: ChainId,
    pub(crate) kind: ChainKind,
}

/// What runs at a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A base chain that is not of type nat.
    Chain(Base),
    /// Connection tracking.
    Conntrack,
    /// All nat chains.
    NatDispatcher,
    /// A table whose rules can't be read: index in the ruleset.
    Unreadable(u32),
}

/// Entries of one priority. Their order is known only within a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group<T> {
    pub(crate) priority: i32,
    /// Sequences: the order inside one is certain, between them it is not.
    pub(crate) sequences: Vec<Vec<T>>,
}

/// All that runs at one hook for one family.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) entries: Vec<Group<Entry>>,
    pub(crate) nat: Vec<Group<Base>>,
}

/// What runs for one family.
#[derive(Debug)]
pub(crate) struct Plans {
    plans: [Plan; 5],
    /// Whether connection tracking is switched on.
    pub(crate) conntrack: Switch,
    /// Why rules may be missing from the plans; each makes every hook unknown.
    pub(crate) missing: Vec<String>,
    /// Rule back ends that were not captured and are taken to be empty.
    pub(crate) assumed_empty: Vec<String>,
}

/// Whether something is switched on by some rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    Off,
    /// A rule that is not understood may do it: why.
    Unknown(String),
}

impl Plans {
    /// Orders the host's chains.
    pub(crate) fn new(host: &Host, family: Family) -> Plans {
        let tables: Vec<(u32, &Table)> = (0..)
            .zip(&host.ruleset.tables)
            .filter(|(_, table)| table.family.covers(family) && !table.dormant)
            .collect();
        let conntrack = conntrack(&tables, family);
        let plans = Hook::ALL.map(|hook| plan(&tables, hook));
        let mut missing: Vec<String> =
            tables.iter().filter_map(|(_, table)| unreadable_everywhere(table)).collect();
        let mut assumed_empty = Vec::new();
        let backends = &host.backends;
        let (nft_xtables, legacy) = match family {
            Family::V4 => (&backends.iptables_nft, &backends.iptables_legacy),
            Family::V6 => (&backends.ip6tables_nft, &backends.ip6tables_legacy),
        };
        for (seen, what) in [(&backends.nft, "nftables"), (nft_xtables, "iptables-nft")] {
            if let Some(why) = not_seen(seen) {
                missing.push(format!("the {what} rules are not known: {why}"));
            }
        }
        match legacy {
            Seen::Withheld(why) => {
                missing.push(format!("iptables-legacy has rules that are not known: {why}"));
            }
            Seen::Captured | Seen::Missing(_) | Seen::NotAsked => {
                assumed_empty.extend(
                    not_seen(legacy)
                        .map(|why| format!("iptables-legacy has no {family} rules ({why})")),
                );
            }
        }
        Plans { plans, conntrack, missing, assumed_empty }
    }

    pub(crate) fn plan(&self, hook: Hook) -> &Plan {
        let index = match hook {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        };
        &self.plans[index]
    }
}

fn not_seen(seen: &Seen) -> Option<String> {
    match seen {
        Seen::Captured => None,
        Seen::Missing(why) | Seen::Withheld(why) => Some(why.to_string()),
        Seen::NotAsked => Some("nobody looked for them".to_owned()),
    }
}

fn plan(tables: &[(u32, &Table)], hook: Hook) -> Plan {
    let mut entries: Vec<(i32, u32, u64, Entry)> = Vec::new();
    let mut nat: Vec<(i32, u32, u64, Base)> = Vec::new();
    for (index, table) in tables {
        let built_in = xtables_base(table.backend, &table.name, &hook.name().to_uppercase());
        if let (Some(_), Some((_, kind, priority))) = (&table.unreadable, built_in) {
            let priority = if kind == ChainKind::Nat { nat_priority(hook) } else { priority };
            entries.push((priority, *index, 0, Entry::Unreadable(*index)));
        }
        for (number, chain) in (0..).zip(&table.chains) {
            let Some(base) = chain.base.filter(|base| base.hook == Some(hook)) else {
                continue;
            };
            if is_idle(chain) {
                continue;
            }
            let place = Base { table: *index, chain: ChainId(number), kind: base.kind };
            // Within a table the later chain has the greater handle, was registered later, and
            // so runs first (nf_hook_entries_grow).
            let order = u64::MAX - chain.origin.handle.unwrap_or(u64::from(number));
            match base.kind {
                ChainKind::Nat => nat.push((base.priority, *index, order, place)),
                ChainKind::Filter | ChainKind::Route => {
                    entries.push((base.priority, *index, order, Entry::Chain(place)));
                }
            }
        }
    }
    // Groups of their own: whether they run before or after chains of the same priority depends
    // on the order of registration as well.
    const OWN: u32 = u32::MAX;
    if matches!(hook, Hook::Prerouting | Hook::Output) {
        entries.push((CONNTRACK, OWN, 0, Entry::Conntrack));
    }
    // nf_nat_register_fn: the first nat chain, wherever it is attached, brings the dispatcher of
    // all hooks. Without a chain of its own a hook's dispatcher makes a null binding.
    if hook != Hook::Forward && tables.iter().any(|(_, table)| has_nat(table)) {
        entries.push((nat_priority(hook), OWN - 1, 0, Entry::NatDispatcher));
    }
    Plan { entries: groups(entries), nat: groups(nat) }
}

fn has_nat(table: &Table) -> bool {
    let is_nat = |chain: &Chain| chain.base.is_some_and(|base| base.kind == ChainKind::Nat);
    table.chains.iter().any(is_nat)
}

/// `NF_IP_PRI_NAT_DST`, `NF_IP_PRI_NAT_SRC`.
fn nat_priority(hook: Hook) -> i32 {
    match hook {
        Hook::Prerouting | Hook::Output => -100,
        Hook::Input | Hook::Postrouting | Hook::Forward => 100,
    }
}

/// A base chain without rules that accepts does nothing, whatever its order.
fn is_idle(chain: &Chain) -> bool {
    chain.rules.is_empty() && chain.base.is_none_or(|base| base.policy == Policy::Accept)
}

fn groups<T>(mut items: Vec<(i32, u32, u64, T)>) -> Vec<Group<T>> {
    items.sort_by_key(|(priority, table, order, _)| (*priority, *table, *order));
    let mut groups: Vec<Group<T>> = Vec::new();
    let mut last_table = None;
    for (priority, table, _, item) in items {
        match groups.last_mut().filter(|group| group.priority == priority) {
            None => groups.push(Group { priority, sequences: vec![vec![item]] }),
            Some(group) => match group.sequences.last_mut() {
                Some(sequence) if last_table == Some(table) => sequence.push(item),
                Some(_) | None => group.sequences.push(vec![item]),
            },
        }
        last_table = Some(table);
    }
    groups
}

/// A table whose hooks are not known: any but those of iptables.
fn unreadable_everywhere(table: &Table) -> Option<String> {
    let why = table.unreadable.as_ref()?;
    let of_iptables = table.backend != Backend::Nft && XTABLES_NAMES.contains(&&*table.name);
    let name = format!("{} {}", table.family, table.name);
    (!of_iptables).then(|| format!("the rules of table {name} can't be read: {why}"))
}

/// Whether a rule switches connection tracking on: a test of the connection or a translation does
/// (their `checkentry`/`init` call `nf_ct_netns_get`), a nat chain alone, or `notrack`, does not.
fn conntrack(tables: &[(u32, &Table)], family: Family) -> Switch {
    let mut switch = Switch::Off;
    let chains = tables.iter().flat_map(|(_, table)| &table.chains);
    for step in chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps) {
        match step_uses_conntrack(step, family) {
            Switch::On => return Switch::On,
            Switch::Off => {}
            unknown @ Switch::Unknown(_) => switch = unknown,
        }
    }
    switch
}

fn step_uses_conntrack(step: &Step, family: Family) -> Switch {
    let read = |expr: &Expr| if expr_reads(expr) { Switch::On } else { Switch::Off };
    match step {
        Step::Test(test) => match test {
            Test::Compare { right, .. } if expr_reads(right) => Switch::On,
            Test::Compare { left, .. } | Test::Range { left, .. } | Test::AnyBit { left, .. } => {
                read(left)
            }
            Test::Member { key, .. } => read(key),
            Test::State { what, .. } if looks_at_connections(what) => Switch::On,
            Test::Opaque(opaque) => not_understood(&opaque.text),
            Test::State { .. }
            | Test::DeviceName { .. }
            | Test::Ports { .. }
            | Test::IpSet { .. }
            | Test::AddressType { .. }
            | Test::Random { .. }
            | Test::Accounting { .. } => Switch::Off,
        },
        Step::Do(action) => match action {
            Action::SetCtMark(_) | Action::CtTemplate | Action::CtExtra => Switch::On,
            // `dnat ip to` in an inet table switches it on for IPv4 alone (nft_nat_init).
            Action::Nat(nat) if nat.family.is_none_or(|only| only == family) => Switch::On,
            Action::SetMark(expr) | Action::VerdictMap { key: expr, .. } => read(expr),
            Action::UpdateSet { key, .. } => read(key),
            Action::Opaque(opaque) => not_understood(&opaque.text),
            Action::Nat(_)
            | Action::Count
            | Action::Verdict(_)
            | Action::Reject { .. }
            | Action::Log
            | Action::NoTrack => Switch::Off,
        },
    }
}

/// Matches and statements whose state is of connections.
fn looks_at_connections(what: &str) -> bool {
    ["connlimit ", "connbytes ", "ct count "].iter().any(|name| what.starts_with(name))
}

fn not_understood(text: &str) -> Switch {
    Switch::Unknown(format!("a rule that is not understood may switch tracking on: {text}"))
}

fn expr_reads(expr: &Expr) -> bool {
    match expr {
        Expr::Field(field) => match field {
            Field::CtState
            | Field::CtStateAndNat
            | Field::CtStatus
            | Field::CtMark
            | Field::CtDirection
            | Field::CtAddress(..)
            | Field::CtPort(..)
            | Field::CtProtocol => true,
            Field::Address(..)
            | Field::Nfproto
            | Field::L4Proto
            | Field::IpProtocol(_)
            | Field::Port(..)
            | Field::IcmpType(_)
            | Field::IcmpCode(_)
            | Field::IcmpTypeAndCode(_)
            | Field::TcpFlags
            | Field::Ttl(_)
            | Field::Mark
            | Field::DeviceName(_)
            | Field::DeviceIndex(_)
            | Field::Fib(_) => false,
        },
        Expr::Bits { left, right, .. } => expr_reads(left) || expr_reads(right),
        Expr::Concat(parts) => parts.iter().any(expr_reads),
        Expr::Lookup { key, .. } => expr_reads(key),
        Expr::Const(_) | Expr::Numgen { .. } | Expr::Hash { .. } | Expr::Opaque(_) => false,
    }
}

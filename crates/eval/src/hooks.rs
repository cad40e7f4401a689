//! Which chains a packet meets at each hook, in which order.
//!
//! nat chains don't run at their own priority: conntrack has one dispatcher for each hook, and
//! all nat chains run inside it, ordered among themselves by priority
//! (net/netfilter/nf_nat_core.c, `nf_nat_inet_fn`).

use unmasq_model::expr::{Expr, Field};
use unmasq_model::host::{Host, Seen};
use unmasq_model::packet::Family;
use unmasq_model::rule::{Action, Rule, Step, Test};
use unmasq_model::ruleset::{
    Backend, Chain, ChainId, ChainKind, Hook, Policy, Table, TableFamily, xtables_base,
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
    /// Whether connection tracking is switched on: a rule needs it.
    pub(crate) conntrack: bool,
    /// Why rules may be missing from the plans; each makes every hook unknown.
    pub(crate) missing: Vec<String>,
    /// Rule back ends that were not captured and are taken to be empty.
    pub(crate) assumed_empty: Vec<String>,
}

impl Plans {
    /// Orders the host's chains.
    pub(crate) fn new(host: &Host, family: Family) -> Plans {
        let tables: Vec<(u32, &Table)> = (0..)
            .zip(&host.ruleset.tables)
            .filter(|(_, table)| table.family.covers(family) && !table.dormant)
            .collect();
        let conntrack = tables.iter().any(|(_, table)| uses_conntrack(table, family));
        let plans = Hook::ALL.map(|hook| plan(&tables, hook));
        let mut missing = Vec::new();
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
        let built_in = xtables_base(&table.name, &hook.name().to_uppercase());
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
    if hook != Hook::Forward && !nat.is_empty() {
        entries.push((nat_priority(hook), OWN - 1, 0, Entry::NatDispatcher));
    }
    Plan { entries: groups(entries), nat: groups(nat) }
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

/// Whether a rule of the table switches connection tracking on: a test of the connection or a
/// translation does (their `checkentry`/`init` call `nf_ct_netns_get`), a nat chain alone, or
/// `notrack`, does not.
fn uses_conntrack(table: &Table, family: Family) -> bool {
    table.chains.iter().flat_map(|chain| &chain.rules).any(|rule| rule_uses_conntrack(rule, family))
        || (table.family != TableFamily::Inet
            && table.backend != Backend::Nft
            && table.unreadable.is_some()
            && &*table.name == "nat")
}

fn rule_uses_conntrack(rule: &Rule, family: Family) -> bool {
    rule.steps.iter().any(|step| match step {
        Step::Test(test) => test_uses_conntrack(test),
        Step::Do(action) => match action {
            Action::SetCtMark(_) | Action::CtTemplate => true,
            // `dnat ip to` in an inet table switches it on for IPv4 alone (nft_nat_init).
            Action::Nat(nat) => nat.family.is_none_or(|only| only == family),
            Action::SetMark(expr) | Action::VerdictMap { key: expr, .. } => expr_reads(expr),
            Action::UpdateSet { key, .. } => expr_reads(key),
            Action::Opaque(opaque) => mentions_connections(&opaque.text),
            Action::Count
            | Action::Verdict(_)
            | Action::Reject { .. }
            | Action::Log
            | Action::NoTrack => false,
        },
    })
}

fn test_uses_conntrack(test: &Test) -> bool {
    match test {
        Test::Compare { left, right, .. } => expr_reads(left) || expr_reads(right),
        Test::Range { left, .. } | Test::AnyBit { left, .. } => expr_reads(left),
        Test::Member { key, .. } => expr_reads(key),
        Test::State { what, .. } => mentions_connections(what),
        Test::Opaque(opaque) => mentions_connections(&opaque.text),
        Test::DeviceName { .. }
        | Test::Ports { .. }
        | Test::IpSet { .. }
        | Test::AddressType { .. }
        | Test::Random { .. }
        | Test::Accounting { .. } => false,
    }
}

/// connlimit, connbytes, connlabel, `ct …`, helper: all of them look at connections.
fn mentions_connections(text: &str) -> bool {
    text.contains("conn") || text.contains("ct ") || text.contains("helper")
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
        Expr::Opaque(opaque) => mentions_connections(&opaque.text),
        Expr::Const(_) | Expr::Numgen { .. } | Expr::Hash { .. } => false,
    }
}

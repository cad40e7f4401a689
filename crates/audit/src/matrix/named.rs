//! Whom rules name: the rules that take a source away, or that set a mark which such a rule may
//! ask for, and the addresses and ports in them.
//!
//! In: a host's rules. Out: for each such rule the networks of either end and the ports. What a
//! rule asks of a source and can't be put in networks is said, not left out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use unmasq_model::expr::{BitOp, Direction, End, Expr, Field, Value};
use unmasq_model::host::Host;
use unmasq_model::ipset::{Content, IpSet};
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::{Action, Comparison, NatAddress, Rule, Step, Test, Verdict};
use unmasq_model::ruleset::{BaseChain, Chain, ChainId, ChainKind, Hook, Table};
use unmasq_model::set::{Data, SetId};

use super::clients::ANYBODY;
use crate::shape::{masked_field, prefix_length};

/// A rule that matters.
pub(super) struct Relevant<'h> {
    pub(super) table: &'h Table,
    pub(super) chain: &'h Chain,
    pub(super) rule: &'h Rule,
    /// Whether it stands on the way to a translation of the source, or sets a mark; else it only
    /// stands in the table of one.
    pub(super) loses: bool,
}

/// The rules of the tables that translate sources, and those elsewhere that set a mark which these
/// ask for.
pub(super) fn rules(host: &Host) -> Vec<Relevant<'_>> {
    let tables = host.ruleset.tables.iter().filter(|table| !table.dormant);
    let tables: Vec<(&Table, Vec<u32>)> =
        tables.map(|table| (table, marks_of_chains(table))).collect();
    let asked = asked_marks(&tables);
    let mut all = Vec::new();
    for (table, marks) in &tables {
        let translates = table.chains.iter().any(translates_sources);
        if !translates && asked == 0 {
            continue;
        }
        let after = after_routing(table);
        for (index, chain) in table.chains.iter().enumerate() {
            for rule in &chain.rules {
                let sets_mark = marks_of_rule(table, marks, rule) & asked != 0;
                if translates || sets_mark {
                    let loses = sets_mark || after.contains(&index);
                    all.push(Relevant { table, chain, rule, loses });
                }
            }
        }
    }
    all
}

fn translates_sources(chain: &Chain) -> bool {
    let here =
        |base: BaseChain| base.kind == ChainKind::Nat && base.hook == Some(Hook::Postrouting);
    chain.base.is_some_and(here)
}

/// The chains that a packet whose source may be translated can come to.
fn after_routing(table: &Table) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let bases = table.chains.iter().enumerate().filter(|(_, chain)| translates_sources(chain));
    let mut left: Vec<usize> = bases.map(|(index, _)| index).collect();
    while let Some(index) = left.pop() {
        if let Some(chain) = table.chains.get(index).filter(|_| found.insert(index)) {
            left.extend(chain.rules.iter().flat_map(|rule| targets(table, rule)));
        }
    }
    found
}

/// Indices of the chains that a rule may go to.
fn targets<'t>(table: &'t Table, rule: &'t Rule) -> impl Iterator<Item = usize> + 't {
    let to = |verdict: Verdict| match verdict {
        Verdict::Jump(ChainId(to)) | Verdict::Goto(ChainId(to)) => Some(to as usize),
        Verdict::Accept | Verdict::Drop | Verdict::Continue | Verdict::Return => None,
    };
    rule.steps.iter().flat_map(move |step| {
        let (own, map) = match step {
            Step::Do(Action::Verdict(verdict)) => (to(*verdict), None),
            Step::Do(Action::VerdictMap { map, .. }) => (None, Some(table.set(*map))),
            Step::Do(_) | Step::Test(_) => (None, None),
        };
        let of_map = map.into_iter().flat_map(|map| map.elements.data());
        own.into_iter().chain(of_map.filter_map(move |data| match data {
            Data::Verdict(verdict) => to(*verdict),
            Data::Nothing | Data::Value(_) | Data::Opaque(_) => None,
        }))
    })
}

// ---- marks ----

/// The bits of marks that each chain may set, with the chains that it goes to.
fn marks_of_chains(table: &Table) -> Vec<u32> {
    let own = |chain: &Chain| chain.rules.iter().fold(0, |bits, rule| bits | set_by(rule));
    let mut marks: Vec<u32> = table.chains.iter().map(own).collect();
    if marks.iter().all(|bits| *bits == 0) {
        return marks;
    }
    let to = |chain: &Chain| -> BTreeSet<usize> {
        chain.rules.iter().flat_map(|rule| targets(table, rule)).collect()
    };
    let to: Vec<BTreeSet<usize>> = table.chains.iter().map(to).collect();
    loop {
        let mut changed = false;
        for (index, to) in to.iter().enumerate() {
            let more = to.iter().filter_map(|to| marks.get(*to)).fold(0, |all, bits| all | bits);
            changed |= marks[index] | more != marks[index];
            marks[index] |= more;
        }
        if !changed {
            return marks;
        }
    }
}

fn marks_of_rule(table: &Table, marks: &[u32], rule: &Rule) -> u32 {
    let called = targets(table, rule).filter_map(|to| marks.get(to));
    called.fold(set_by(rule), |all, bits| all | bits)
}

fn set_by(rule: &Rule) -> u32 {
    rule.steps.iter().fold(0, |all, step| match step {
        Step::Do(Action::SetMark(expr) | Action::SetCtMark(expr)) => all | changed_bits(expr),
        Step::Do(_) | Step::Test(_) => all,
    })
}

/// The bits of a mark that may be others once it is set to this. One mark may be kept in the other.
fn changed_bits(expr: &Expr) -> u32 {
    match expr {
        Expr::Field(Field::Mark | Field::CtMark) => 0,
        Expr::Bits { op, left, right } => {
            let Expr::Const(value) = &**right else { return u32::MAX };
            match op {
                BitOp::And => changed_bits(left) | !low_bits(value),
                BitOp::Or | BitOp::Xor => changed_bits(left) | low_bits(value),
                BitOp::Shl | BitOp::Shr => u32::MAX,
            }
        }
        Expr::Const(_)
        | Expr::Field(_)
        | Expr::Concat(_)
        | Expr::Numgen { .. }
        | Expr::Hash { .. }
        | Expr::Lookup { .. }
        | Expr::Opaque(_) => u32::MAX,
    }
}

fn low_bits(value: &Value) -> u32 {
    value.as_number().and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX)
}

/// The bits that tables which translate sources ask for, and those that whoever sets them asks for.
fn asked_marks(tables: &[(&Table, Vec<u32>)]) -> u32 {
    let mut asked = 0;
    for (table, _) in tables {
        if table.chains.iter().any(translates_sources) {
            asked |= table.chains.iter().flat_map(|chain| &chain.rules).fold(0, tested_too);
        }
    }
    while asked != 0 {
        let before = asked;
        for (table, marks) in tables {
            let rules = table.chains.iter().flat_map(|chain| &chain.rules);
            let setting = rules.filter(|rule| marks_of_rule(table, marks, rule) & before != 0);
            asked |= setting.fold(0, tested_too);
        }
        if asked == before {
            break;
        }
    }
    asked
}

/// Bits, and those that a rule asks for.
fn tested_too(bits: u32, rule: &Rule) -> u32 {
    rule.steps.iter().fold(bits, |all, step| {
        all | match step {
            Step::Test(Test::AnyBit { left, bits, .. }) => mark_bits(left) & *bits as u32,
            Step::Test(Test::Compare { left, .. } | Test::Range { left, .. }) => mark_bits(left),
            Step::Test(Test::Member { key, .. }) | Step::Do(Action::VerdictMap { key, .. }) => {
                mark_bits(key)
            }
            Step::Test(_) | Step::Do(_) => 0,
        }
    })
}

fn mark_bits(expr: &Expr) -> u32 {
    match expr {
        Expr::Field(Field::Mark | Field::CtMark) => u32::MAX,
        Expr::Bits { op: BitOp::And, left, right } => match &**right {
            Expr::Const(mask) => mark_bits(left) & low_bits(mask),
            other => mark_bits(left) | mark_bits(other),
        },
        Expr::Bits { left, right, .. } => mark_bits(left) | mark_bits(right),
        Expr::Concat(all) => all.iter().fold(0, |bits, one| bits | mark_bits(one)),
        Expr::Lookup { key, .. } => mark_bits(key),
        Expr::Field(_)
        | Expr::Const(_)
        | Expr::Numgen { .. }
        | Expr::Hash { .. }
        | Expr::Opaque(_) => 0,
    }
}

// ---- addresses ----

/// Networks of which one is enough: a rule treats all alike.
pub(super) type Group = Vec<IpNet>;

/// Whom a rule wants at one end.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Named {
    pub(super) groups: Vec<Group>,
    /// Whether it asks something else of that end's address, for which nobody can be found.
    pub(super) untold: bool,
}

/// Whom a rule wants at an end.
pub(super) fn end(host: &Host, table: &Table, rule: &Rule, end: End) -> Named {
    let mut named = Named::default();
    for step in &rule.steps {
        match step {
            Step::Test(test) => named.add_test(host, table, test, end),
            Step::Do(Action::VerdictMap { key, map }) => {
                named.add_member(table, key, *map, false, end);
            }
            Step::Do(Action::Nat(nat)) => {
                if let Some(NatAddress::Expr(Expr::Lookup { key, map })) = &nat.address {
                    named.add_member(table, key, *map, false, end);
                }
            }
            Step::Do(Action::SetMark(Expr::Lookup { key, map })) => {
                named.add_member(table, key, *map, false, end);
            }
            Step::Do(_) => {}
        }
    }
    named
}

/// The family of a field that is an end's address, or was before any translation.
fn address_of(field: Field, end: End) -> Option<Family> {
    if let Field::Address(family, of) | Field::CtAddress(Direction::Original, family, of) = field {
        return (of == end).then_some(family);
    }
    // The answer goes back to the source.
    let Field::CtAddress(Direction::Reply, family, End::Destination) = field else { return None };
    (end == End::Source).then_some(family)
}

/// Whether an expression is made of an end's address.
fn has_address(expr: &Expr, end: End) -> bool {
    match expr {
        Expr::Field(field) => address_of(*field, end).is_some(),
        Expr::Bits { left, right, .. } => has_address(left, end) || has_address(right, end),
        Expr::Concat(all) => all.iter().any(|one| has_address(one, end)),
        Expr::Lookup { key, .. } => has_address(key, end),
        Expr::Const(_) | Expr::Numgen { .. } | Expr::Hash { .. } | Expr::Opaque(_) => false,
    }
}

impl Named {
    fn add_test(&mut self, host: &Host, table: &Table, test: &Test, end: End) {
        match test {
            Test::Compare { left, op, right } => self.add_compare(left, *op, right, end),
            Test::Range { left, low, high, negated } => match left {
                Expr::Field(field) => {
                    if let Some(family) = address_of(*field, end) {
                        self.add_range(family, *low, *high, *negated);
                    }
                }
                other => self.untold |= has_address(other, end),
            },
            Test::AnyBit { left, .. } => self.untold |= has_address(left, end),
            Test::Member { key, set, negated } => self.add_member(table, key, *set, *negated, end),
            Test::IpSet { set, ends, negated, .. } => {
                for (dimension, _) in ends.iter().enumerate().filter(|(_, of)| **of == end) {
                    let groups = of_ipset(host, set, dimension);
                    self.add(groups, *negated);
                }
            }
            Test::DeviceName { .. }
            | Test::Ports { .. }
            | Test::AddressType { .. }
            | Test::Random { .. }
            | Test::State { .. }
            | Test::Accounting { .. }
            | Test::Opaque(_) => {}
        }
    }

    fn add_compare(&mut self, left: &Expr, op: Comparison, right: &Expr, end: End) {
        let read = || {
            let (field, mask) = masked_field(left)?;
            let family = address_of(field, end)?;
            let Expr::Const(value) = right else { return None };
            Some((family, mask, value.as_number()?))
        };
        let Some((family, mask, number)) = read() else {
            self.untold |= has_address(left, end) || has_address(right, end);
            return;
        };
        let highest = highest(family);
        let prefix = mask.map_or(Some(family.bits()), |mask| prefix_length(family, mask));
        let host_bits = prefix.map(|prefix| highest.checked_shr(u32::from(prefix)).unwrap_or(0));
        match (op, host_bits) {
            (Comparison::Eq, Some(bits)) => self.add_range(family, number, number | bits, false),
            (Comparison::Ne, Some(bits)) => self.add_range(family, number, number | bits, true),
            (Comparison::Lt, Some(0)) if number > 0 => self.add_range(family, 0, number - 1, false),
            (Comparison::Le, Some(0)) => self.add_range(family, 0, number, false),
            (Comparison::Gt, Some(0)) if number < highest => {
                self.add_range(family, number + 1, highest, false);
            }
            (Comparison::Ge, Some(0)) => self.add_range(family, number, highest, false),
            (
                Comparison::Eq
                | Comparison::Ne
                | Comparison::Lt
                | Comparison::Le
                | Comparison::Gt
                | Comparison::Ge,
                _,
            ) => self.untold = true,
        }
    }

    fn add_range(&mut self, family: Family, low: u128, high: u128, negated: bool) {
        self.add(pieces(family, low, high).into_iter().collect(), negated);
    }

    fn add_member(&mut self, table: &Table, key: &Expr, set: SetId, negated: bool, end: End) {
        let set = table.set(set);
        let fields = match key {
            Expr::Concat(fields) => &fields[..],
            other => std::slice::from_ref(other),
        };
        for (place, field) in fields.iter().enumerate().filter(|(_, one)| has_address(one, end)) {
            let family = match field {
                Expr::Field(field) => address_of(*field, end),
                _ => None,
            };
            let Some(family) = family else {
                self.untold = true;
                continue;
            };
            // Of a set that packets change both answers are walked.
            if set.dynamic {
                continue;
            }
            let ranges = set.elements.ranges(place);
            let (single, wide): (Vec<_>, Vec<_>) = ranges.partition(|(low, high)| low == high);
            let mut groups: Vec<Group> =
                wide.into_iter().filter_map(|(low, high)| pieces(family, low, high)).collect();
            let single = single.into_iter().filter_map(|(one, _)| pieces(family, one, one));
            groups.push(single.flatten().collect());
            self.add(groups, negated);
        }
    }

    /// A negated test is true for anybody, if it doesn't name just those who are asked as such.
    fn add(&mut self, groups: Vec<Group>, negated: bool) {
        if negated {
            let of_anybody = |net: &IpNet| ANYBODY.iter().any(|address| net.contains(address));
            self.untold |= groups.iter().flatten().any(of_anybody);
        } else {
            self.groups.extend(groups.into_iter().filter(|group| !group.is_empty()));
        }
    }
}

fn highest(family: Family) -> u128 {
    match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    }
}

/// The networks that a range is made of, the largest first.
fn pieces(family: Family, low: u128, high: u128) -> Option<Group> {
    let address = |number| Value::Number(number).as_address(family);
    if low > high {
        return None;
    }
    let subnets = match (address(low)?, address(high)?) {
        (IpAddr::V4(low), IpAddr::V4(high)) => IpSubnets::V4(Ipv4Subnets::new(low, high, 0)),
        (IpAddr::V6(low), IpAddr::V6(high)) => IpSubnets::V6(Ipv6Subnets::new(low, high, 0)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let mut nets: Group = subnets.collect();
    nets.sort_by_key(|net| (net.prefix_len(), *net));
    Some(nets)
}

/// The set of that name, captured or assumed.
fn ipset<'h>(host: &'h Host, name: &str) -> Option<&'h IpSet> {
    let captured = host.ipsets.as_ref().and_then(|sets| sets.get(name));
    captured.or_else(|| host.assumed_sets.get(name).map(|assumed| &assumed.set))
}

/// The networks of a set, each by itself, and all of its single addresses, of which it may have
/// thousands, as one group.
fn of_ipset(host: &Host, name: &str, dimension: usize) -> Vec<Group> {
    let mut single = Group::new();
    let mut groups = Vec::new();
    let sets: Vec<&IpSet> = match ipset(host, name) {
        Some(IpSet { content: Content::List(names), .. }) => {
            names.iter().filter_map(|name| ipset(host, name)).collect()
        }
        found => found.into_iter().collect(),
    };
    for set in sets {
        let Content::Hash(set) = &set.content else { continue };
        for (element, _) in set.iter().filter(|(_, flags)| !flags.nomatch) {
            let net = match dimension {
                0 => Some(element.first),
                2 => element.second,
                _ => None,
            };
            match net.map(|net| wide(net, set.netmask)) {
                Some(net) if net.prefix_len() == net.max_prefix_len() => single.push(net),
                Some(net) => groups.push(vec![net]),
                None => {}
            }
        }
    }
    groups.push(single);
    groups
}

/// An element of a set that compares only the first bits.
fn wide(net: IpNet, netmask: Option<u8>) -> IpNet {
    let length = netmask.map_or(net.prefix_len(), |bits| bits.min(net.prefix_len()));
    IpNet::new(net.addr(), length).map_or(net, |net| net.trunc())
}

/// Sets that rules want the source to be in and whose contents are not known, with their host.
pub(super) fn unknown_sets(host: &Host) -> BTreeSet<String> {
    let rules = rules(host);
    let steps = rules.iter().flat_map(|one| &one.rule.steps);
    let sets = steps.filter_map(|step| match step {
        Step::Test(Test::IpSet { set, ends, negated: false, .. })
            if ends.contains(&End::Source) && ipset(host, set).is_none() =>
        {
            Some(format!("{set} on {}", host.name))
        }
        Step::Test(_) | Step::Do(_) => None,
    });
    sets.collect()
}

// ---- ports ----

/// The ports that a rule wants to be called, one of each range, by protocol; `None`: it asks for
/// none.
pub(super) fn ports(table: &Table, rule: &Rule) -> Vec<(Protocol, Option<u16>)> {
    let mut protocol = Protocol::TCP;
    let mut ports = BTreeSet::new();
    for step in &rule.steps {
        let Step::Test(test) = step else { continue };
        match test {
            Test::Compare {
                left: Expr::Field(field),
                op: Comparison::Eq,
                right: Expr::Const(value),
            } => {
                let number = value.as_number();
                if *field == Field::L4Proto {
                    protocol = number.and_then(|n| u8::try_from(n).ok()).map_or(protocol, Protocol);
                }
                if let Some(of) = called_port(*field) {
                    protocol = of.unwrap_or(protocol);
                    ports.extend(number.and_then(|number| u16::try_from(number).ok()));
                }
            }
            Test::Range { left: Expr::Field(field), low, negated: false, .. } => {
                if let Some(of) = called_port(*field) {
                    protocol = of.unwrap_or(protocol);
                    ports.extend(u16::try_from(*low).ok());
                }
            }
            Test::Ports { end: None | Some(End::Destination), ranges, negated: false } => {
                ports.extend(ranges.iter().map(|(low, _)| *low));
            }
            Test::Member { key, set, negated: false } => {
                let fields = match key {
                    Expr::Concat(fields) => &fields[..],
                    other => std::slice::from_ref(other),
                };
                for (place, field) in fields.iter().enumerate() {
                    let Expr::Field(field) = field else { continue };
                    let Some(of) = called_port(*field) else { continue };
                    protocol = of.unwrap_or(protocol);
                    let ranges = table.set(*set).elements.ranges(place);
                    ports.extend(ranges.filter_map(|(low, _)| u16::try_from(low).ok()));
                }
            }
            Test::Compare { .. }
            | Test::Range { .. }
            | Test::AnyBit { .. }
            | Test::Member { .. }
            | Test::DeviceName { .. }
            | Test::Ports { .. }
            | Test::IpSet { .. }
            | Test::AddressType { .. }
            | Test::Random { .. }
            | Test::State { .. }
            | Test::Accounting { .. }
            | Test::Opaque(_) => {}
        }
    }
    if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol) {
        return Vec::new();
    }
    if ports.is_empty() {
        return vec![(protocol, None)];
    }
    ports.into_iter().map(|port| (protocol, Some(port))).collect()
}

/// Whether a field is the port that is called, and of which protocol only.
fn called_port(field: Field) -> Option<Option<Protocol>> {
    if let Field::Port(protocol, End::Destination) = field {
        return Some(protocol);
    }
    (field == Field::CtPort(Direction::Original, End::Destination)).then_some(None)
}

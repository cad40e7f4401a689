//! Whether a test holds, here and now.

use std::collections::BTreeMap;
use std::net::IpAddr;

use unmasq_model::expr::{Device, End, Expr, Field, NumgenMode, Value, ct_status};
use unmasq_model::ipset::{Content, Flags, Found, HashKind, IpSet};
use unmasq_model::packet::Family;
use unmasq_model::route::RouteKind;
use unmasq_model::rule::{Comparison, Test};
use unmasq_model::set::SetId;

use super::Walk;
use super::expr::Loaded;
use super::rules::Run;
use crate::trace::Port;

/// The result of a test. Break and false both end the rule; they differ in that negation doesn't
/// turn a break around, which each test sees to itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tested {
    True,
    False,
    Break,
    /// True with this probability.
    Random(f64),
    /// Depends on kept state; with a key, the same throughout the walk. `negated`: turned around.
    State {
        key: Option<String>,
        negated: bool,
    },
    /// Not known; with a key, the same throughout the walk.
    Unknown {
        why: String,
        key: Option<String>,
        negated: bool,
    },
}

impl Tested {
    fn of(holds: bool) -> Tested {
        if holds { Tested::True } else { Tested::False }
    }

    fn unknown(why: String) -> Tested {
        Tested::Unknown { why, key: None, negated: false }
    }

    /// Whether no question is left open.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Tested::True | Tested::False | Tested::Break => true,
            Tested::Random(_) | Tested::State { .. } | Tested::Unknown { .. } => false,
        }
    }
}

/// What an ipset lookup gives before negation.
enum Member {
    No,
    Yes,
    State,
    Unknown(String),
}

impl<'h> Walk<'_, 'h, '_> {
    pub(super) fn test(&mut self, run: &mut Run<'h>, test: &'h Test) -> Tested {
        match test {
            Test::Compare { left, op, right } => match self.chosen_port(left) {
                Some(chosen) => compare_chosen(chosen, *op, right),
                None => self.compare(run, left, *op, right),
            },
            Test::Range { left, low, high, negated } if self.chosen_port(left).is_some() => {
                let chosen = self.chosen_port(left).unwrap_or_default();
                within(chosen, (*low, *high), *negated)
            }
            Test::Range { left, low, high, negated } => {
                self.number(run, left, |n| (*low <= n && n <= *high) != *negated)
            }
            Test::AnyBit { left, bits, negated } => {
                let wanted = u32::try_from(*bits).unwrap_or(u32::MAX);
                match self.some_bits(run, left, wanted) {
                    Some(Loaded::Is(value)) => Tested::of((value != Value::from(0)) != *negated),
                    Some(Loaded::Unknown(why) | Loaded::Partly(_, why)) => Tested::unknown(why),
                    Some(Loaded::Absent) => Tested::Break,
                    None => self.number(run, left, |n| (n & bits != 0) != *negated),
                }
            }
            Test::Member { key, set, negated } if self.chosen_in(run, key, *set).is_some() => {
                Tested::of((self.chosen_in(run, key, *set) == Some(true)) != *negated)
            }
            Test::Member { key, set, negated } => {
                let key = self.load(run, key);
                if key == Loaded::Absent {
                    return Tested::Break;
                }
                match self.find(run, *set, key) {
                    Ok(found) => Tested::of(found.is_some() != *negated),
                    Err(why) => Tested::unknown(why),
                }
            }
            Test::DeviceName { device, pattern, negated } => {
                Tested::of(pattern.matches(self.device_name(*device)) != *negated)
            }
            Test::Ports { end, ranges, negated } => self.ports(*end, ranges, *negated),
            Test::IpSet { set, ends, negated, return_nomatch } => {
                self.ipset(set, ends, *negated, *return_nomatch)
            }
            Test::AddressType { of, types, limit, negated } => {
                self.address_type(*of, *types, *limit, *negated)
            }
            Test::Random { numerator, negated } => {
                let probability = (f64::from(*numerator) / f64::from(1_u32 << 31)).min(1.0);
                let probability = if *negated { 1.0 - probability } else { probability };
                match probability {
                    p if p <= 0.0 => Tested::False,
                    p if p >= 1.0 => Tested::True,
                    p => Tested::Random(p),
                }
            }
            Test::State { what: _, key, sets } => {
                let key = key.as_ref().map(|key| format!("state {key}"));
                if *sets {
                    if let Some(key) = key {
                        self.decided.insert(key, true);
                    }
                    return Tested::True;
                }
                Tested::State { key, negated: false }
            }
            Test::Accounting { name } => self.accounting(name),
            Test::Opaque(opaque) => Tested::Unknown {
                why: format!("a match is not understood: {opaque}"),
                key: None,
                negated: false,
            },
        }
    }

    /// Whether a test has no effect on the walk: it draws no number and leaves nothing behind.
    pub(super) fn asks_nothing(&self, run: &Run<'h>, test: &Test) -> bool {
        let fixed = |set: &SetId| !run.table.set(*set).dynamic;
        match test {
            Test::Compare { left, right, .. } => is_plain(left) && is_plain(right),
            Test::Range { left, .. } | Test::AnyBit { left, .. } => is_plain(left),
            Test::Member { key, set, .. } => is_plain(key) && fixed(set),
            Test::DeviceName { .. }
            | Test::Ports { .. }
            | Test::IpSet { .. }
            | Test::AddressType { .. } => true,
            Test::Random { .. }
            | Test::State { .. }
            | Test::Accounting { .. }
            | Test::Opaque(_) => false,
        }
    }

    fn compare(
        &mut self,
        run: &mut Run<'h>,
        left: &'h Expr,
        op: Comparison,
        right: &'h Expr,
    ) -> Tested {
        if let (Expr::Numgen { mode: NumgenMode::Random, modulus, offset }, Some(constant)) =
            (left, constant(right))
        {
            return chance(*modulus, *offset, op, constant);
        }
        if let (Expr::Field(Field::CtStatus), Some(wanted)) = (left, constant(right))
            && let Some(tested) = self.compare_status(run, op, wanted)
        {
            return tested;
        }
        let loaded = self.load(run, left);
        let constant;
        let right = match right {
            Expr::Const(value) => value,
            other => match self.load(run, other) {
                Loaded::Is(value) => {
                    constant = value;
                    &constant
                }
                Loaded::Absent => return Tested::Break,
                Loaded::Partly(_, why) | Loaded::Unknown(why) => return Tested::unknown(why),
            },
        };
        let left = match loaded {
            Loaded::Is(value) => value,
            Loaded::Absent => return Tested::Break,
            Loaded::Partly(_, why) | Loaded::Unknown(why) => return Tested::unknown(why),
        };
        compare_values(&left, op, right)
    }

    /// Compares the connection's status with another one. That it is assured or not need not be
    /// known where another bit is different.
    fn compare_status(
        &mut self,
        run: &mut Run<'h>,
        op: Comparison,
        wanted: u128,
    ) -> Option<Tested> {
        let known = !ct_status::ASSURED;
        let Some(Loaded::Is(Value::Number(status))) =
            self.some_bits(run, &Expr::Field(Field::CtStatus), known)
        else {
            return None;
        };
        let differs = (status ^ wanted) & u128::from(known) != 0;
        match op {
            Comparison::Eq if differs => Some(Tested::False),
            Comparison::Ne if differs => Some(Tested::True),
            Comparison::Eq
            | Comparison::Ne
            | Comparison::Lt
            | Comparison::Le
            | Comparison::Gt
            | Comparison::Ge => None,
        }
    }

    fn number(
        &mut self,
        run: &mut Run<'h>,
        expr: &'h Expr,
        holds: impl Fn(u128) -> bool,
    ) -> Tested {
        match self.load(run, expr) {
            Loaded::Is(Value::Number(n)) => Tested::of(holds(n)),
            Loaded::Is(Value::Name(_) | Value::Tuple(_)) => {
                Tested::unknown("a number is compared with something else".to_owned())
            }
            Loaded::Absent => Tested::Break,
            Loaded::Partly(_, why) | Loaded::Unknown(why) => Tested::unknown(why),
        }
    }

    /// The range from which the kernel chooses a port, if it does.
    fn chosen(&self, end: End) -> Option<(u16, u16)> {
        match if end == End::Source { self.source_port } else { self.destination_port } {
            Port::Between(low, high) => Some((low, high)),
            Port::None | Port::Exactly(_) | Port::Unknown => None,
        }
    }

    /// Whether such a port is in a set, where it does not matter which of the range it is.
    fn chosen_in(&self, run: &Run<'h>, key: &Expr, set: SetId) -> Option<bool> {
        let (low, high) = self.chosen_port(key)?;
        let set = run.table.set(set);
        if set.dynamic || set.opaque.is_some() {
            return None;
        }
        set.elements.holds_range(u128::from(low), u128::from(high))
    }

    /// The same for an expression that is such a port.
    pub(super) fn chosen_port(&self, expr: &Expr) -> Option<(u16, u16)> {
        match expr {
            Expr::Field(Field::Port(None, end)) => self.chosen(*end),
            Expr::Field(Field::Port(Some(protocol), end)) if *protocol == self.packet.protocol => {
                self.chosen(*end)
            }
            _ => None,
        }
    }

    fn ports(&self, end: Option<End>, ranges: &[(u16, u16)], negated: bool) -> Tested {
        let ends = match end {
            Some(End::Source) => &[End::Source][..],
            Some(End::Destination) => &[End::Destination],
            None => &[End::Source, End::Destination],
        };
        let mut unknown = None;
        for end in ends {
            match self.current_port(*end) {
                None => return Tested::Break,
                Some(None) => match self.chosen(*end) {
                    Some((from, to))
                        if ranges.iter().all(|(low, high)| to < *low || *high < from) => {}
                    Some((from, to))
                        if ranges.iter().any(|(low, high)| *low <= from && to <= *high) =>
                    {
                        return Tested::of(!negated);
                    }
                    Some(_) | None => unknown = Some(*end),
                },
                Some(Some(port)) => {
                    if ranges.iter().any(|(low, high)| (*low..=*high).contains(&port)) {
                        return Tested::of(!negated);
                    }
                }
            }
        }
        match unknown {
            None => Tested::of(negated),
            Some(end) => Tested::Unknown {
                why: format!("the packet's {end} port is not known"),
                key: None,
                negated: false,
            },
        }
    }

    fn ipset(&mut self, name: &str, ends: &[End], negated: bool, return_nomatch: bool) -> Tested {
        let member = self.ipset_member(name, ends, return_nomatch);
        // Two lookups of one set with one key agree, even if nobody knows what they find.
        let key = || {
            let packet = &self.packet;
            let fields: Vec<String> = ends
                .iter()
                .map(|end| match end {
                    End::Source => format!("{} {:?}", packet.source, self.source_port),
                    End::Destination => {
                        format!("{} {:?}", packet.destination, self.destination_port)
                    }
                })
                .collect();
            format!("ipset {name} {return_nomatch} {}", fields.join(" "))
        };
        match member {
            Member::No => Tested::of(negated),
            Member::Yes => Tested::of(!negated),
            Member::State => Tested::State { key: Some(key()), negated },
            Member::Unknown(why) => Tested::Unknown { why, key: Some(key()), negated },
        }
    }

    /// A set that was not captured may follow from something else, which is then an assumption.
    fn ipset_member(&mut self, name: &str, ends: &[End], return_nomatch: bool) -> Member {
        let host = self.evaluator.host;
        if let Some(set) = host.ipsets.as_ref().and_then(|sets| sets.get(name)) {
            return self.in_set(set, ends, return_nomatch);
        }
        if let Some(assumed) = host.assumed_sets.get(name)
            && self.assume(assumed.text.to_string()).is_ok()
        {
            return self.in_set(&assumed.set, ends, return_nomatch);
        }
        Member::Unknown(match host.ipsets {
            None => {
                format!("the content of ipset {name} is not known: ipset.save was not captured")
            }
            Some(_) => format!("ipset {name} is not in ipset.save"),
        })
    }

    /// `ip_set_test` (net/netfilter/ipset/ip_set_core.c).
    fn in_set(&mut self, set: &IpSet, ends: &[End], return_nomatch: bool) -> Member {
        let found = match &set.content {
            Content::Opaque(opaque) => {
                return Member::Unknown(format!("ipset {} is not understood: {opaque}", set.name));
            }
            Content::List(names) => return self.in_list(set, names, ends, return_nomatch),
            Content::BitmapPort(ports) => match self.bitmap_port(ports, ends) {
                Err(why) => return Member::Unknown(why),
                Ok(port) => port.and_then(|port| ports.get(&port)).copied(),
            },
            Content::Hash(hash) => match hash.find(&self.packet, ends, |end| self.chosen(end)) {
                Err(_) => {
                    return Member::Unknown(format!(
                        "ipset {} is asked for a port that is not known",
                        set.name
                    ));
                }
                Ok(Found::No) => None,
                Ok(Found::Yes(flags)) => Some(flags),
            },
        };
        match found {
            Some(flags) if flags.expires => Member::State,
            Some(flags) if flags.nomatch != (return_nomatch && has_exceptions(set)) => Member::No,
            Some(_) => Member::Yes,
            None => match &set.opaque {
                Some(opaque) => Member::Unknown(format!(
                    "an element of ipset {} is not understood: {opaque}",
                    set.name
                )),
                None => Member::No,
            },
        }
    }

    /// `list_set_ktest` (net/netfilter/ipset/ip_set_list_set.c): the members in order.
    fn in_list(
        &mut self,
        list: &IpSet,
        names: &[Box<str>],
        ends: &[End],
        return_nomatch: bool,
    ) -> Member {
        let mut open = None;
        for name in names {
            let member = self.evaluator.host.ipsets.as_ref().and_then(|sets| sets.get(name));
            let found = match member.map(|set| &set.content) {
                // The kernel refuses a list in a list (IPSET_ERR_LOOP).
                Some(Content::List(_)) => {
                    Member::Unknown(format!("ipset {} has the list {name} as a member", list.name))
                }
                Some(_) | None => self.ipset_member(name, ends, return_nomatch),
            };
            match found {
                Member::No => {}
                Member::Yes => return Member::Yes,
                unsure @ (Member::State | Member::Unknown(_)) => open = open.or(Some(unsure)),
            }
        }
        open.unwrap_or(Member::No)
    }

    /// The port that `bitmap:port` compares: TCP and UDP alone have one
    /// (`ip_set_get_ip_port`, net/netfilter/ipset/ip_set_bitmap_port.c).
    fn bitmap_port(
        &self,
        ports: &BTreeMap<u16, Flags>,
        ends: &[End],
    ) -> Result<Option<u16>, String> {
        use unmasq_model::packet::Protocol;
        let Some(end) = ends.first() else {
            return Ok(None);
        };
        if !matches!(self.packet.protocol, Protocol::TCP | Protocol::UDP) {
            return Ok(None);
        }
        match self.current_port(*end) {
            None => Ok(None),
            Some(Some(port)) => Ok(Some(port)),
            Some(None)
                if self
                    .chosen(*end)
                    .is_some_and(|(low, high)| ports.range(low..=high).next().is_none()) =>
            {
                Ok(None)
            }
            Some(None) => Err(format!("the packet's {end} port is not known")),
        }
    }

    /// xt_addrtype: IPv4 asks the local table (`inet_dev_addr_type`); IPv6 combines the address's
    /// own kind with a route lookup (`match_type6`, net/netfilter/xt_addrtype.c).
    fn address_type(&self, of: End, types: u16, limit: Option<Device>, negated: bool) -> Tested {
        let address = match of {
            End::Source => self.packet.source,
            End::Destination => self.packet.destination,
        };
        let device = limit.map(|device| self.device_name(device));
        let holds = match self.family() {
            Family::V4 => self
                .evaluator
                .fib
                .address_type4(address, device)
                .map(|kind| types & (1 << kind) != 0),
            Family::V6 => self.address_type6(address, types, device),
        };
        match holds {
            Ok(holds) => Tested::of(holds != negated),
            Err(why) => Tested::unknown(why),
        }
    }

    fn address_type6(
        &self,
        address: IpAddr,
        types: u16,
        device: Option<&str>,
    ) -> Result<bool, String> {
        let bit = |kind: RouteKind| 1_u16 << kind.rtn();
        let IpAddr::V6(v6) = address else {
            return Ok(false);
        };
        let unicast = !v6.is_multicast() && !v6.is_unspecified();
        if types & bit(RouteKind::Multicast) != 0 && !v6.is_multicast()
            || types & bit(RouteKind::Unicast) != 0 && !unicast
            || types & 1 != 0 && !v6.is_unspecified()
        {
            return Ok(false);
        }
        let routed = bit(RouteKind::Local)
            | bit(RouteKind::Anycast)
            | bit(RouteKind::Prohibit)
            | bit(RouteKind::Unreachable);
        if types & routed == 0 {
            return Ok(true);
        }
        Ok(types & routed & self.evaluator.fib.xt_address_types6(address, device)? != 0)
    }

    /// xt_nfacct is false only below a quota. kube-proxy's objects have none
    /// (pkg/proxy/iptables/proxier.go creates them by name alone).
    fn accounting(&mut self, name: &str) -> Tested {
        const KUBE_PROXY: [&str; 2] =
            ["ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"];
        let key = Some(format!("nfacct {name}"));
        let why = format!("whether the accounting object {name} has a quota is not known");
        if !KUBE_PROXY.contains(&name) || self.evaluator.options.strict {
            return Tested::Unknown { why, key, negated: false };
        }
        let assumption =
            format!("the accounting object {name} has no quota (kube-proxy makes it without one)");
        match self.assume(assumption) {
            Ok(()) => Tested::True,
            Err(_) => Tested::Unknown { why, key, negated: false },
        }
    }
}

/// An expression of fields and constants alone.
fn is_plain(expr: &Expr) -> bool {
    match expr {
        Expr::Const(_) | Expr::Field(_) => true,
        Expr::Bits { left, right, .. } => is_plain(left) && is_plain(right),
        Expr::Concat(parts) => parts.iter().all(is_plain),
        Expr::Numgen { .. } | Expr::Hash { .. } | Expr::Lookup { .. } | Expr::Opaque(_) => false,
    }
}

/// `IPSET_TYPE_NOMATCH`: types of networks, in which an element can be an exception.
fn has_exceptions(set: &IpSet) -> bool {
    match &set.content {
        Content::Hash(hash) => match hash.kind {
            HashKind::Net | HashKind::IpPortNet => true,
            HashKind::Ip | HashKind::IpPort | HashKind::IpPortIp => false,
        },
        Content::BitmapPort(_) | Content::List(_) | Content::Opaque(_) => false,
    }
}

/// The name under which a walk remembers whether a dynamic set holds a key.
pub(super) fn member_key(run: &Run<'_>, set: SetId, key: &Value) -> String {
    format!("set {} {} {key:?}", run.table_index, set.0)
}

/// A port that the kernel chooses from a range, compared with a constant.
fn compare_chosen((from, to): (u16, u16), op: Comparison, right: &Expr) -> Tested {
    let Some(constant) = constant(right) else {
        return Tested::unknown("the kernel chooses the port that is compared".to_owned());
    };
    let below = constant.checked_sub(1);
    match op {
        Comparison::Eq => within((from, to), (constant, constant), false),
        Comparison::Ne => within((from, to), (constant, constant), true),
        Comparison::Le => within((from, to), (0, constant), false),
        Comparison::Gt => within((from, to), (0, constant), true),
        Comparison::Lt | Comparison::Ge => match below {
            Some(below) => within((from, to), (0, below), op == Comparison::Ge),
            None => Tested::of(op == Comparison::Ge),
        },
    }
}

/// Whether a port that the kernel chooses from one range is in another.
fn within((from, to): (u16, u16), (low, high): (u128, u128), negated: bool) -> Tested {
    let (from, to) = (u128::from(from), u128::from(to));
    if low <= from && to <= high {
        Tested::of(!negated)
    } else if to < low || high < from {
        Tested::of(negated)
    } else {
        Tested::unknown("the kernel chooses the port that is compared".to_owned())
    }
}

/// The probability that a number below `modulus`, plus `offset`, compares so with a constant.
fn chance(modulus: u32, offset: u32, op: Comparison, constant: u128) -> Tested {
    let modulus = u128::from(modulus.max(1));
    let constant = constant.checked_sub(u128::from(offset));
    // How many of the numbers 0 to modulus - 1 are less than the constant, and equal to it.
    let less = constant.map_or(0, |constant| constant.min(modulus));
    let equal = u128::from(constant.is_some_and(|constant| constant < modulus));
    let hits = match op {
        Comparison::Eq => equal,
        Comparison::Ne => modulus - equal,
        Comparison::Lt => less,
        Comparison::Le => less + equal,
        Comparison::Gt => modulus - less - equal,
        Comparison::Ge => modulus - less,
    };
    if hits == 0 || hits == modulus {
        return Tested::of(hits > 0);
    }
    #[allow(clippy::cast_precision_loss)]
    Tested::Random(hits as f64 / modulus as f64)
}

fn constant(expr: &Expr) -> Option<u128> {
    match expr {
        Expr::Const(value) => value.as_number(),
        _ => None,
    }
}

fn compare_values(left: &Value, op: Comparison, right: &Value) -> Tested {
    match (left, right) {
        (Value::Number(_), Value::Number(_))
        | (Value::Name(_), Value::Name(_))
        | (Value::Tuple(_), Value::Tuple(_)) => Tested::of(match op {
            Comparison::Eq => left == right,
            Comparison::Ne => left != right,
            Comparison::Lt => left < right,
            Comparison::Le => left <= right,
            Comparison::Gt => left > right,
            Comparison::Ge => left >= right,
        }),
        // A device that nft prints by its number is gone: no packet has it.
        (Value::Name(_), Value::Number(_)) => Tested::of(op == Comparison::Ne),
        _ => Tested::unknown("two different kinds of value are compared".to_owned()),
    }
}

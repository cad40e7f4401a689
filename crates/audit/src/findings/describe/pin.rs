//! Pins: the immediate remedy. An identity translation in a chain of our own, ahead of everybody
//! else's masquerade, keeps a source; no rule of others is touched.

use std::collections::BTreeSet;

use ipnet::IpNet;
use unmasq_cluster::Node;
use unmasq_model::expr::{BitOp, End, Expr, Field};
use unmasq_model::packet::Family;
use unmasq_model::rule::{self, Nat, NatAddress, NatKind, Rule, Step as Part};
use unmasq_model::ruleset::{
    Backend, BaseChain, Chain, ChainKind, Hook, Policy, Table, TableFamily,
};
use unmasq_model::set::Set;

use super::networks::{listed, nft_set};
use super::{Context, Group, command, computed, few, step, test, unseen};
use crate::change::TableChange;
use crate::matrix::{Client, Entry};
use crate::{Action, Remedy, Requirement};

/// kube-proxy's mark for what needs its masquerade, by default (`masqueradeBit: 14` in iptables and
/// nftables mode). It takes it off after our chain.
const DEFAULT: u32 = 0x4000;
/// srcnat, where iptables and others have their chains, is 100.
const BEFORE_SRCNAT: i32 = 99;

/// What is pinned, in one family.
pub(super) struct Pin {
    pub(super) family: Family,
    from: From,
    to: Vec<IpNet>,
    /// Whether it is what doesn't go there.
    elsewhere: bool,
    /// Whose address is kept, on the way to whom.
    text: String,
}

enum From {
    Networks(Vec<IpNet>),
    /// Anybody but the node itself.
    Others,
}

impl Pin {
    /// From networks to networks.
    pub(super) fn between(family: Family, from: &[IpNet], to: &[IpNet]) -> Option<Pin> {
        if from.is_empty() || to.is_empty() {
            return None;
        }
        let text = format!("from {} to {}", listed(from), listed(to));
        let (from, to) = (From::Networks(from.to_vec()), to.to_vec());
        Some(Pin { family, from, to, elsewhere: false, text })
    }

    /// From anybody but the nodes themselves, whose own calls need what masquerades them.
    pub(super) fn to(family: Family, to: &[IpNet]) -> Option<Pin> {
        if to.is_empty() {
            return None;
        }
        let text = format!("from pods and from outside to {}", listed(to));
        Some(Pin { family, from: From::Others, to: to.to_vec(), elsewhere: false, text })
    }

    /// From networks to everybody outside of them.
    pub(super) fn out_of(family: Family, nets: &[IpNet]) -> Option<Pin> {
        let pin = Pin::between(family, nets, nets)?;
        let text = format!("from {} to everybody outside", listed(nets));
        Some(Pin { elsewhere: true, text, ..pin })
    }

    /// `mark`: the bits of what it leaves alone.
    fn rule(&self, sets: &mut Vec<Set>, mark: u32) -> Option<Rule> {
        let ip = word(self.family);
        let mut text = String::new();
        let mut tests = Vec::new();
        match &self.from {
            From::Networks(nets) => {
                tests.push(test::address(End::Source, nets, false, sets)?);
                text.push_str(&format!("{ip} saddr {}", nft_set(nets)));
            }
            From::Others => {
                tests.push(test::not_from_here());
                text.push_str("fib saddr type != local");
            }
        }
        tests.push(test::address(End::Destination, &self.to, self.elsewhere, sets)?);
        tests.push(test::not_marked(mark));
        let not = if self.elsewhere { "!= " } else { "" };
        text.push_str(&format!(
            " {ip} daddr {not}{} meta mark & {mark:#010x} == 0x00000000 snat to {ip} saddr",
            nft_set(&self.to)
        ));
        let own = Expr::Field(Field::Address(self.family, End::Source));
        let nat = Nat {
            kind: NatKind::Snat,
            family: None,
            address: Some(NatAddress::Expr(own)),
            ports: None,
            random: false,
        };
        let tests = tests.into_iter().map(Part::Test);
        let steps = tests.chain([Part::Do(rule::Action::Nat(nat))]).collect();
        Some(Rule { steps, text: text.into(), comment: None, origin: test::NOWHERE })
    }
}

/// One table for each family, with all its pins.
fn tables(pins: &[Pin], mark: u32) -> Vec<TableChange> {
    let families: BTreeSet<Family> = pins.iter().map(|pin| pin.family).collect();
    let table = |family: Family| {
        let mut sets = Vec::new();
        let mine = pins.iter().filter(|pin| pin.family == family);
        let rules = mine.filter_map(|pin| pin.rule(&mut sets, mark)).collect();
        let base = BaseChain {
            hook: Some(Hook::Postrouting),
            kind: ChainKind::Nat,
            priority: BEFORE_SRCNAT,
            policy: Policy::Accept,
        };
        let chain = Chain { name: "pin".into(), base: Some(base), rules, origin: test::NOWHERE };
        let table = Table {
            backend: Backend::Nft,
            family: match family {
                Family::V4 => TableFamily::Ip,
                Family::V6 => TableFamily::Ip6,
            },
            name: "unmasq".into(),
            chains: vec![chain],
            sets,
            dormant: false,
            unreadable: None,
            origin: test::NOWHERE,
        };
        TableChange { old: None, new: Some(table) }
    };
    families.into_iter().map(table).collect()
}

/// The pin of what arrives at pods: from other pods, or from anybody, as the rows need it.
pub(super) fn at_pods(context: &Context<'_, '_>, group: &Group, family: Family) -> Option<Pin> {
    let pods = super::networks::pod_networks(context.cluster, family);
    let rows = group.rows.iter().filter_map(|row| context.matrix.rows.get(*row));
    let mut at_pods = rows.filter(|row| {
        row.cell.family == family && !matches!(row.cell.entry, Entry::Outside | Entry::Node)
    });
    let outside = at_pods.clone().any(|row| matches!(row.cell.client, Client::Outside(_)));
    match (outside, at_pods.next()) {
        (true, _) => Pin::to(family, &pods),
        (false, Some(_)) => Pin::between(family, &pods, &pods),
        (false, None) => None,
    }
}

/// The remedy that pins on nodes; `None`: nothing or nowhere to.
pub(super) fn remedy(context: &Context<'_, '_>, nodes: &[usize], pins: &[Pin]) -> Option<Remedy> {
    if pins.is_empty() || nodes.is_empty() {
        return None;
    }
    let what = pins.iter().map(|pin| pin.text.as_str()).collect::<Vec<_>>().join("; ");
    let nodes = nodes.iter().filter_map(|node| context.cluster.nodes.get(*node));
    let marks: Vec<(&Node, Mark)> = nodes.map(|node| (node, Mark::of(context, node))).collect();
    let steps = marks.iter().map(|(node, mark)| {
        let node = node.name.clone();
        let text = format!("On {node}, keep the source of new connections {what}");
        step(text, Action::Tables { node, changes: tables(pins, mark.bits()) })
    });
    Some(Remedy {
        lasting: false,
        title: "Pin the source in a table of its own, until the lasting remedy works".to_owned(),
        steps: steps.collect(),
        requires: requires(&marks),
    })
}

/// How kube-proxy marks on a node what it will masquerade.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    /// With these bits, by its rule.
    Bits(u32),
    /// No rule of it that marks is there, and no kube-proxy was seen.
    Nobody,
    /// Its rule wasn't captured, or can't be read.
    Unknown,
}

impl Mark {
    fn of(context: &Context<'_, '_>, node: &Node) -> Mark {
        let tables = node.host.iter().flat_map(|host| &host.ruleset.tables);
        let chains = tables.flat_map(|table| &table.chains);
        let marking = chains
            .filter(|chain| matches!(&*chain.name, "KUBE-MARK-MASQ" | "mark-for-masquerade"))
            .flat_map(|chain| &chain.rules);
        // Two back ends may have one each: a pin leaves alone what either marks.
        let mut all = None;
        for rule in marking {
            let Some(bits) = marked_by(rule) else { return Mark::Unknown };
            all = Some(all.unwrap_or(0) | bits);
        }
        match all {
            Some(bits) => Mark::Bits(bits),
            None if context.cluster.settings.kube_proxy.places.is_empty() => Mark::Nobody,
            None => Mark::Unknown,
        }
    }

    /// What a pin leaves alone.
    fn bits(self) -> u32 {
        match self {
            Mark::Bits(bits) => bits,
            Mark::Nobody | Mark::Unknown => DEFAULT,
        }
    }
}

/// The bits that a rule sets, if it leaves the others alone.
fn marked_by(rule: &Rule) -> Option<u32> {
    let mut set = rule.steps.iter().filter_map(|step| match step {
        Part::Do(rule::Action::SetMark(mark)) => Some(mark),
        Part::Do(_) | Part::Test(_) => None,
    });
    let mark = set.next()?;
    let (none, all) = (computed_mark(mark, 0)?, computed_mark(mark, u32::MAX)?);
    (none != 0 && all == u32::MAX).then_some(none)
}

/// What an expression makes of a mark.
fn computed_mark(expr: &Expr, mark: u32) -> Option<u32> {
    match expr {
        Expr::Field(Field::Mark) => Some(mark),
        Expr::Const(value) => u32::try_from(value.as_number()?).ok(),
        Expr::Bits { op, left, right } => {
            let (left, right) = (computed_mark(left, mark)?, computed_mark(right, mark)?);
            match op {
                BitOp::And => Some(left & right),
                BitOp::Or => Some(left | right),
                BitOp::Xor => Some(left ^ right),
                BitOp::Shl | BitOp::Shr => None,
            }
        }
        Expr::Field(_)
        | Expr::Concat(_)
        | Expr::Lookup { .. }
        | Expr::Numgen { .. }
        | Expr::Hash { .. }
        | Expr::Opaque(_) => None,
    }
}

/// That pins leave alone what kube-proxy marks.
fn requires(marks: &[(&Node, Mark)]) -> Vec<Requirement> {
    let mut all = Vec::new();
    let kinds: BTreeSet<Mark> = marks.iter().map(|(_, mark)| *mark).collect();
    for kind in &kinds {
        let of_it = marks.iter().filter(|(_, mark)| mark == kind);
        let names: Vec<&str> = of_it.map(|(node, _)| &*node.name).collect();
        let on = if kinds.len() == 1 { String::new() } else { format!(" on {}", few(&names)) };
        all.push(match kind {
            Mark::Bits(bits) => computed(
                true,
                format!(
                    "what kube-proxy marks for masquerading is left alone{on}: its mark is {bits:#x}"
                ),
            ),
            Mark::Nobody => computed(
                true,
                format!("no kube-proxy was seen{on}, whose mark would have to be left alone"),
            ),
            Mark::Unknown => unseen(
                format!(
                    "what kube-proxy marks for masquerading is left alone{on}: its mark is unknown, \
                     and taken for its default, {DEFAULT:#x}"
                ),
                command("iptables-save -t nat | grep KUBE-MARK-MASQ; nft list ruleset"),
            ),
        });
    }
    all
}

/// The family in nft.
pub(super) fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

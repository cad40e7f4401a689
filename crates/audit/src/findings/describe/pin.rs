//! Pins: the immediate remedy. An identity translation in a chain of our own, ahead of everybody
//! else's masquerade, keeps a source; no rule of others is touched.

use std::collections::BTreeSet;

use ipnet::IpNet;
use unmasq_model::expr::{End, Expr, Field};
use unmasq_model::packet::Family;
use unmasq_model::rule::{self, Nat, NatAddress, NatKind, Rule, Step as Part};
use unmasq_model::ruleset::{
    Backend, BaseChain, Chain, ChainKind, Hook, Policy, Table, TableFamily,
};
use unmasq_model::set::Set;

use super::networks::{listed, nft_set};
use super::{Context, Group, command, computed, step, test, unseen};
use crate::change::TableChange;
use crate::matrix::{Client, Entry};
use crate::{Action, Remedy};

/// kube-proxy's mark for what needs its masquerade (`masqueradeBit: 14`, its default, in iptables
/// and nftables mode). It takes it off after our chain.
const MARK: u32 = 0x4000;
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

    fn rule(&self, sets: &mut Vec<Set>) -> Option<Rule> {
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
        tests.push(test::not_marked(MARK));
        let not = if self.elsewhere { "!= " } else { "" };
        text.push_str(&format!(
            " {ip} daddr {not}{} meta mark & {MARK:#010x} == 0x00000000 snat to {ip} saddr",
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
fn tables(pins: &[Pin]) -> Vec<TableChange> {
    let families: BTreeSet<Family> = pins.iter().map(|pin| pin.family).collect();
    let table = |family: Family| {
        let mut sets = Vec::new();
        let mine = pins.iter().filter(|pin| pin.family == family);
        let rules = mine.filter_map(|pin| pin.rule(&mut sets)).collect();
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
    let changes = tables(pins);
    let what = pins.iter().map(|pin| pin.text.as_str()).collect::<Vec<_>>().join("; ");
    let steps = nodes.iter().filter_map(|node| {
        let node = context.cluster.nodes.get(*node)?.name.clone();
        let text = format!("On {node}, keep the source of new connections {what}");
        Some(step(text, Action::Tables { node, changes: changes.clone() }))
    });
    Some(Remedy {
        lasting: false,
        title: "Pin the source in a table of its own, until the lasting remedy works".to_owned(),
        steps: steps.collect(),
        requires: vec![mark(context)],
    })
}

/// Whether kube-proxy's mark is the one that pins leave alone.
fn mark(context: &Context<'_, '_>) -> crate::Requirement {
    let text = "what kube-proxy marks for masquerading is left alone: its mark is 0x4000";
    if context.cluster.settings.kube_proxy.places.is_empty() {
        return computed(true, "no kube-proxy was seen, whose mark would have to be left alone");
    }
    let hosts = context.cluster.nodes.iter().filter_map(|node| node.host.as_ref());
    let chains = hosts.flat_map(|host| &host.ruleset.tables).flat_map(|table| &table.chains);
    let mut marking = chains
        .filter(|chain| matches!(&*chain.name, "KUBE-MARK-MASQ" | "mark-for-masquerade"))
        .flat_map(|chain| &chain.rules)
        .peekable();
    if marking.peek().is_none() {
        return unseen(
            text,
            command("iptables-save -t nat | grep KUBE-MARK-MASQ; nft list ruleset"),
        );
    }
    computed(
        marking.all(|rule| rule.text.contains("0x4000") || rule.text.contains("0x00004000")),
        text,
    )
}

/// The family in nft.
pub(super) fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

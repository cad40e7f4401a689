//! Pins: the immediate remedy. An identity translation in a chain of our own, ahead of everybody
//! else's masquerade, keeps a source; no rule of others is touched.

use std::collections::BTreeSet;

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::networks::{listed, nft_set};
use super::{Context, Group, computed, step, unseen};
use crate::matrix::{Client, Entry};
use crate::{Action, Remedy};

/// kube-proxy's mark for what needs its masquerade (`masqueradeBit: 14`, its default, in iptables
/// and nftables mode). It takes it off after our chain.
const NOT_MARKED: &str = "meta mark & 0x4000 == 0";

/// What is pinned, in one family.
pub(super) struct Pin {
    pub(super) family: Family,
    /// Tests of a rule, before the one of the mark.
    pub(super) tests: String,
    /// Whose address is kept, on the way to whom.
    pub(super) text: String,
}

impl Pin {
    /// From networks to networks.
    pub(super) fn between(family: Family, from: &[IpNet], to: &[IpNet]) -> Option<Pin> {
        if from.is_empty() || to.is_empty() {
            return None;
        }
        let ip = word(family);
        let tests = format!("{ip} saddr {} {ip} daddr {}", nft_set(from), nft_set(to));
        let text = format!("from {} to {}", listed(from), listed(to));
        Some(Pin { family, tests, text })
    }

    /// From anybody but the nodes themselves, whose own calls need what masquerades them.
    pub(super) fn to(family: Family, to: &[IpNet]) -> Option<Pin> {
        if to.is_empty() {
            return None;
        }
        let ip = word(family);
        let tests = format!("fib saddr type != local {ip} daddr {}", nft_set(to));
        Some(Pin { family, tests, text: format!("from pods and from outside to {}", listed(to)) })
    }

    fn rule(&self) -> String {
        format!("{} {NOT_MARKED} snat to {} saddr", self.tests, word(self.family))
    }
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
    let commands: Vec<String> = pins.iter().map(command).collect();
    let what = pins.iter().map(|pin| pin.text.as_str()).collect::<Vec<_>>().join("; ");
    let steps = nodes.iter().filter_map(|node| {
        let node = context.cluster.nodes.get(*node)?.name.clone();
        let text = format!("On {node}, keep the source of new connections {what}");
        Some(step(text, Action::Rules { node, commands: commands.clone() }))
    });
    let families: BTreeSet<Family> = pins.iter().map(|pin| pin.family).collect();
    let undo = families.iter().map(|family| format!("nft delete table {} unmasq", word(*family)));
    Some(Remedy {
        lasting: false,
        title: "Pin the source in a table of its own, until the lasting remedy works".to_owned(),
        steps: steps.collect(),
        requires: vec![mark(context)],
        undo: undo.collect(),
    })
}

fn command(pin: &Pin) -> String {
    let (ip, rule) = (word(pin.family), pin.rule());
    format!(
        "nft 'table {ip} unmasq {{ chain pin {{ type nat hook postrouting priority srcnat - 1; \
         policy accept; {rule}; }}; }}'"
    )
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
        return unseen(text, "iptables-save -t nat | grep KUBE-MARK-MASQ; nft list ruleset");
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

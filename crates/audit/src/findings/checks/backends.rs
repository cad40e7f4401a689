//! Nodes with rules in both back ends of iptables.
//!
//! In: the rules of nodes. Out: one finding of `mixed-backends`. Chains that programs only make to
//! be found by others (kubelet's hint and canary) are no rules.

use std::collections::{BTreeMap, BTreeSet};

use unmasq_eval::trace::RuleId;
use unmasq_model::host::Host;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::{Backend, ChainId, TableFamily};

use super::super::Context;
use super::super::describe::{
    Described, by_hand, command, count, few, restart_of_node, sentence, title, undone, unseen,
};
use super::finding;
use crate::{Cause, Confidence, Evidence, Finding, FindingId, Owner, Remedy, Severity, owner};

/// pkg/kubelet/kubelet_network_linux.go, pkg/util/iptables of kubernetes.
const SIGNS: [&str; 3] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY", "KUBE-PROXY-CANARY"];

pub(super) fn add(context: &Context<'_, '_>, findings: &mut Vec<Finding>) {
    let mut evidence = Vec::new();
    let mut nodes = BTreeSet::new();
    let mut families = BTreeSet::new();
    for node in &context.cluster.nodes {
        let Some(host) = &node.host else { continue };
        for family in [Family::V4, Family::V6] {
            let legacy = owners(host, Backend::Legacy, family);
            let nft = owners(host, Backend::IptablesNft, family);
            if legacy.is_empty() || nft.is_empty() {
                continue;
            }
            let text = format!(
                "{}, {family}: iptables-legacy has {}; iptables-nft has {}",
                node.name,
                listed(&legacy),
                listed(&nft)
            );
            evidence.push(Evidence { text, trace: None, rule: None });
            nodes.insert(node.name.clone());
            families.insert(family);
        }
    }
    if evidence.is_empty() {
        return;
    }
    let nodes: Vec<String> = nodes.into_iter().collect();
    let described = described(&nodes);
    let mut found = finding(
        FindingId::MixedBackends,
        String::new(),
        Severity::Warning,
        Owner::Unclaimed,
        described,
    );
    found.evidence = evidence;
    found.affected.nodes = nodes;
    found.families = families.into_iter().collect();
    findings.push(found);
}

/// How many rules each owner has there.
fn owners(host: &Host, backend: Backend, family: Family) -> BTreeMap<Owner, usize> {
    let wanted = match family {
        Family::V4 => TableFamily::Ip,
        Family::V6 => TableFamily::Ip6,
    };
    let mut all = BTreeMap::new();
    let tables = (0..).zip(&host.ruleset.tables);
    for (number, table) in tables.filter(|(_, one)| one.backend == backend && one.family == wanted)
    {
        for (place, chain) in (0..).zip(&table.chains) {
            // A rule's text begins with its chain.
            for (index, rule) in (0..).zip(&chain.rules) {
                if !SIGNS.iter().any(|sign| rule.text.contains(sign)) {
                    let id = RuleId { table: number, chain: ChainId(place), rule: index };
                    *all.entry(owner(host, id)).or_default() += 1;
                }
            }
        }
    }
    all
}

fn listed(owners: &BTreeMap<Owner, usize>) -> String {
    let all: Vec<String> = owners
        .iter()
        .map(|(owner, number)| match owner {
            Owner::Unclaimed => format!("{} that nobody claims", count(*number, "rule")),
            known => format!("{} of {}", count(*number, "rule"), known.name()),
        })
        .collect();
    few(&all)
}

fn described(nodes: &[String]) -> Described {
    Described {
        title: title(
            format!("Rules stand in iptables-legacy and in iptables-nft on {}", few(nodes)),
            "Rules stand in iptables-legacy and in iptables-nft",
        ),
        confidence: Confidence::Certain,
        cause: Cause {
            text: "The kernel runs the rules of both, and each program lists its own alone. Each program \
                   that writes rules chooses by itself; after a change, those of the other back end stay \
                   until the node restarts."
                .to_owned(),
            setting: None,
            place: None,
        },
        remedies: vec![Remedy {
            lasting: true,
            title: "One back end for all programs, and a restart of each node".to_owned(),
            steps: vec![
                undone(
                    "The node's own programs and each network plugin: the same back end (Calico: \
                     iptablesBackend in its FelixConfiguration)",
                    [
                        command("update-alternatives --set iptables /usr/sbin/iptables-nft"),
                        command("update-alternatives --set ip6tables /usr/sbin/ip6tables-nft"),
                    ],
                    [
                        command("update-alternatives --auto iptables"),
                        command("update-alternatives --auto ip6tables"),
                    ],
                ),
                by_hand(
                    "Node by node: only a restart is rid of all that was left",
                    nodes.iter().map(|one| restart_of_node(one)),
                ),
            ],
            requires: vec![unseen(
                "no program still writes iptables-legacy's",
                sentence("iptables-legacy-save -c, twice: which counters and rules change (only on nodes that have legacy rules: it makes their tables)."),
            )],
        }],
    }
}

//! Rules that nobody looks after any more, whether or not a packet meets them.
//!
//! In: the rules of nodes, what runs there. Out: a finding of `leftover-rules` for Calico's chains
//! where no Calico runs and for those of a mode of kube-proxy that isn't used, and one of
//! `stale-flannel-rules` if no row made it. Where nothing was seen of what runs, nothing is found.

use std::collections::{BTreeMap, BTreeSet};

use unmasq_cluster::Node;
use unmasq_eval::trace::RuleId;
use unmasq_model::host::Host;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::{Backend, Chain, ChainId, Table, TableFamily};

use super::super::describe::{
    Described, by_hand, command, count, few, flannel, restart_of_node, title, undone, unseen,
};
use super::super::{Context, Group};
use super::{finding, known};
use crate::change;
use crate::judge::Suspect;
use crate::matrix::{Cause as Rewriter, Why};
use crate::{
    Cause, Confidence, Evidence, Finding, FindingId, Owner, Remedy, RuleText, Severity, Step,
    chain_owner, label, owner, quoted, short_text,
};

/// Whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// Calico runs nowhere.
    Calico,
    /// kube-proxy runs in another mode, or nowhere.
    KubeProxy(Mode),
}

/// How kube-proxy keeps the promises of Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Iptables,
    Ipvs,
    Nftables,
}

const MODES: [Mode; 3] = [Mode::Iptables, Mode::Ipvs, Mode::Nftables];

/// A table and its chains, with their indices.
type Found<'h> = Vec<(u32, &'h Table, Vec<(u32, &'h Chain)>)>;

pub(super) fn add(context: &Context<'_, '_>, findings: &mut Vec<Finding>) {
    let mut left: BTreeMap<Left, Vec<(&Node, &Host, Confidence)>> = BTreeMap::new();
    for node in &context.cluster.nodes {
        let Some(host) = &node.host else { continue };
        for (what, confidence) in of_node(context, node, host) {
            left.entry(what).or_default().push((node, host, confidence));
        }
    }
    findings.extend(left.into_iter().map(|(what, nodes)| made(context, what, &nodes)));
    if known(findings, FindingId::StaleFlannelRules, "").is_none() {
        findings.extend(stale_flannel(context));
    }
}

/// What is left on a node, and how sure that is.
fn of_node(context: &Context<'_, '_>, node: &Node, host: &Host) -> Vec<(Left, Confidence)> {
    let settings = &context.cluster.settings;
    let mut all = Vec::new();
    if !settings.calico.is_present() && !chains(host, Left::Calico).is_empty() {
        all.extend(runs_nowhere(context, node).map(|sure| (Left::Calico, sure)));
    }
    let there = MODES.into_iter().filter(|one| !chains(host, Left::KubeProxy(*one)).is_empty());
    let there: Vec<Mode> = there.collect();
    match mode(context) {
        // Beside those of the mode that is used.
        Some(used) if there.contains(&used) => {
            let others = there.iter().filter(|one| **one != used);
            all.extend(others.map(|one| (Left::KubeProxy(*one), Confidence::Certain)));
        }
        Some(_) => {}
        // Another program may have it built in, under a name of its own.
        None if is_without_proxy(context, node) => {
            all.extend(there.iter().map(|one| (Left::KubeProxy(*one), Confidence::Likely)));
        }
        None => {}
    }
    all
}

/// How sure it is that a program runs nowhere of which no object and no process is one; `None`:
/// nothing was seen that would be.
fn runs_nowhere(context: &Context<'_, '_>, node: &Node) -> Option<Confidence> {
    let objects = &context.cluster.objects;
    if node.processes.is_some() {
        return Some(Confidence::Certain);
    }
    let seen = !objects.daemon_sets.is_empty() || !objects.pods.is_empty();
    seen.then_some(Confidence::Likely)
}

/// Programs that are kube-proxy, or have it in them.
const PROXIES: [&str; 7] =
    ["kube-proxy", "k3s", "k3s-server", "k3s-agent", "kubelite", "k0s", "rke2"];

fn is_without_proxy(context: &Context<'_, '_>, node: &Node) -> bool {
    let settings = &context.cluster.settings;
    let seen = !settings.kube_proxy.places.is_empty() || settings.rancher.is_present();
    !seen
        && node
            .processes
            .as_ref()
            .is_some_and(|all| !all.iter().any(|one| PROXIES.contains(&&*one.name)))
}

/// The mode that kube-proxy is told to run in, if it is told the same everywhere.
fn mode(context: &Context<'_, '_>) -> Option<Mode> {
    let told = context.cluster.settings.kube_proxy.mode.all();
    let mut modes = told.iter().map(|one| match &*one.value {
        "iptables" => Some(Mode::Iptables),
        "ipvs" => Some(Mode::Ipvs),
        "nftables" => Some(Mode::Nftables),
        _ => None,
    });
    let first = modes.next()??;
    modes.all(|one| one == Some(first)).then_some(first)
}

/// The chains with rules that tell of somebody (pkg/proxy of kubernetes/kubernetes: iptables,
/// ipvs, nftables). What kubelet makes, and what several modes have, tells of none.
fn chains(host: &Host, whose: Left) -> Found<'_> {
    let mut all = Vec::new();
    for (number, table) in (0..).zip(&host.ruleset.tables) {
        let is_its = |place: u32, chain: &Chain| {
            let begins = |names: &[&str]| names.iter().any(|one| chain.name.starts_with(one));
            match (whose, table.backend) {
                (Left::Calico, _) => {
                    chain.base.is_none()
                        && chain_owner(host, number, ChainId(place)) == Owner::Calico
                }
                (Left::KubeProxy(Mode::Nftables), Backend::Nft) => *table.name == *"kube-proxy",
                (Left::KubeProxy(Mode::Iptables), Backend::Legacy | Backend::IptablesNft) => {
                    begins(&["KUBE-SVC-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-XLB-"])
                }
                (Left::KubeProxy(Mode::Ipvs), Backend::Legacy | Backend::IptablesNft) => {
                    begins(&["KUBE-LOAD-BALANCER", "KUBE-NODE-PORT"])
                        && *chain.name != *"KUBE-NODEPORTS"
                }
                (Left::KubeProxy(Mode::Nftables), Backend::Legacy | Backend::IptablesNft)
                | (Left::KubeProxy(Mode::Iptables | Mode::Ipvs), Backend::Nft) => false,
            }
        };
        let found = (0..).zip(&table.chains);
        let found: Vec<_> =
            found.filter(|(at, one)| !one.rules.is_empty() && is_its(*at, one)).collect();
        if !found.is_empty() {
            all.push((number, table, found));
        }
    }
    all
}

impl Left {
    fn owner(self) -> Owner {
        match self {
            Left::Calico => Owner::Calico,
            Left::KubeProxy(_) => Owner::KubeProxy,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Left::Calico => "Calico",
            Left::KubeProxy(Mode::Iptables) => "kube-proxy's iptables mode",
            Left::KubeProxy(Mode::Ipvs) => "kube-proxy's IPVS mode",
            Left::KubeProxy(Mode::Nftables) => "kube-proxy's nftables mode",
        }
    }
}

fn made(context: &Context<'_, '_>, what: Left, left: &[(&Node, &Host, Confidence)]) -> Finding {
    let nodes: Vec<String> = left.iter().map(|(node, _, _)| node.name.clone()).collect();
    let certain = left.iter().all(|(_, _, confidence)| *confidence == Confidence::Certain);
    let kube_proxy = &context.cluster.settings.kube_proxy;
    let setting = match what {
        Left::Calico => None,
        Left::KubeProxy(_) => kube_proxy.mode.first(),
    };
    let why = match (what, setting) {
        (Left::Calico, _) => {
            "No Calico was seen to run, so nobody writes these rules any more or takes them away."
                .to_owned()
        }
        (Left::KubeProxy(_), Some(mode)) => format!(
            "kube-proxy runs in mode {}, and neither writes these rules any more nor takes them away. \
             They still say where Services lead, as it was when they were written.",
            mode.value
        ),
        (Left::KubeProxy(_), None) => {
            "No kube-proxy was seen to run, so these rules say where Services lead as it was when \
             they were written."
                .to_owned()
        }
    };
    let name = what.name();
    let on = few(&nodes);
    let described = Described {
        title: title(
            format!("Rules of {name} are left on {on}"),
            format!("Rules of {name} are left on {}", count(nodes.len(), "node")),
        ),
        confidence: if certain { Confidence::Certain } else { Confidence::Likely },
        cause: Cause {
            text: format!(
                "{why} Whether a call meets one depends on what stands before it: that none of those \
                 that were asked does is luck. A restart of the node is rid of them."
            ),
            setting: setting.map(|one| format!("mode: {}", one.value)),
            place: setting.map(|one| one.place.to_string()),
        },
        remedies: vec![delete(what, left), restart(&nodes)],
    };
    let subject = name.to_owned();
    let mut found =
        finding(FindingId::LeftoverRules, subject, Severity::Warning, what.owner(), described);
    let all = left.iter().map(|(node, host, _)| (&**node, &**host, chains(host, what)));
    let all: Vec<_> = all.collect();
    found.evidence = all.iter().map(|(node, host, chains)| shown(node, host, chains)).collect();
    let families: BTreeSet<Family> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| {
            let mut tables = all.iter().flat_map(|(_, _, found)| found);
            tables.any(|(_, table, _)| table.family.covers(*family))
        })
        .collect();
    found.families = families.into_iter().collect();
    found.affected.nodes = nodes;
    found
}

/// How many there are on a node, with the first of their rules.
fn shown(node: &Node, host: &Host, found: &Found<'_>) -> Evidence {
    let chains = || found.iter().flat_map(|(_, _, chains)| chains).map(|(_, chain)| *chain);
    let names: Vec<&str> = chains().map(|chain| &*chain.name).collect();
    let rules: usize = chains().map(|chain| chain.rules.len()).sum();
    let text = format!(
        "{}: {} with {}: {}",
        node.name,
        count(names.len(), "chain"),
        count(rules, "rule"),
        few(&names)
    );
    let first = chains().find_map(|chain| chain.rules.first());
    let rule = first.map(|rule| RuleText {
        host: node.name.clone(),
        place: format!("{}:{}", host.file(rule.origin.file), rule.origin.line),
        text: short_text(rule),
    });
    Evidence { text, trace: None, rule }
}

fn delete(what: Left, left: &[(&Node, &Host, Confidence)]) -> Remedy {
    let steps = left.iter().map(|(node, host, _)| {
        let commands: BTreeSet<String> =
            chains(host, what).iter().filter_map(|(_, table, _)| removal(what, table)).collect();
        let text = format!("On {}, as root", node.name);
        undone(text, commands.into_iter().map(command), back())
    });
    let mut steps: Vec<Step> = steps.collect();
    let sets = "ipset list -n | grep '^cali' | xargs -r -n1 ipset destroy".to_owned();
    let check = match what {
        Left::Calico => {
            steps.push(by_hand("Then its sets, which no rule names any more", [command(sets)]));
            "kubectl get pods -A -o wide | grep calico; pgrep -a calico"
        }
        Left::KubeProxy(_) => "kubectl -n kube-system get pods -o wide | grep kube-proxy",
    };
    Remedy {
        lasting: true,
        title: format!("Take the rules of {} away", what.name()),
        steps,
        requires: vec![
            unseen("nobody writes them any more", command(check)),
            unseen(
                "what there is now is saved, and no other program changes the table in the meantime",
                command(
                    "iptables-save > before.txt; ip6tables-save > before6.txt; nft list ruleset > before.nft",
                ),
            ),
        ],
    }
}

/// What was saved before.
fn back() -> [crate::Instruction; 1] {
    [command("iptables-restore < before.txt; ip6tables-restore < before6.txt")]
}

/// What takes the chains of a table away. kube-proxy's own clean-up knows what it wrote.
fn removal(what: Left, table: &Table) -> Option<String> {
    let program = match (table.backend, table.family) {
        (Backend::Legacy, TableFamily::Ip) => "iptables-legacy",
        (Backend::Legacy, TableFamily::Ip6) => "ip6tables-legacy",
        (Backend::IptablesNft, TableFamily::Ip) => "iptables-nft",
        (Backend::IptablesNft, TableFamily::Ip6) => "ip6tables-nft",
        (Backend::Nft, family) => {
            // A name that nft can't read is nobody's whom we know.
            return change::delete_table(family, &table.name).ok();
        }
        (
            Backend::Legacy | Backend::IptablesNft,
            TableFamily::Inet | TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev,
        ) => return None,
    };
    let name = quoted(&table.name);
    Some(match what {
        Left::Calico => {
            format!("{program}-save -t {name} | grep -v cali | {program}-restore -T {name}")
        }
        Left::KubeProxy(_) => {
            "kube-proxy --cleanup   # of iptables and IPVS; a running kube-proxy writes its own again"
                .to_owned()
        }
    })
}

fn restart(nodes: &[String]) -> Remedy {
    Remedy {
        lasting: true,
        title: "Or restart the nodes".to_owned(),
        steps: vec![by_hand(
            "Rules that no file keeps are gone after a restart; one node after the other",
            nodes.iter().map(|name| restart_of_node(name)),
        )],
        requires: Vec::new(),
    }
}

/// Rules of an older flannel that nobody writes any more.
fn stale_flannel(context: &Context<'_, '_>) -> Option<Finding> {
    let mut rules: Vec<(&Node, String, Option<Family>)> = Vec::new();
    for node in &context.cluster.nodes {
        let Some(host) = &node.host else { continue };
        if flannel::writer(context.cluster, node) != flannel::Writer::Gone {
            continue;
        }
        rules.extend(in_postrouting(host).map(|(name, family)| (node, name, family)));
    }
    let (_, rule, _) = rules.first()?;
    let families = rules.iter().filter_map(|(_, _, family)| *family).collect();
    let cause = Rewriter { owner: Owner::Flannel, rule: rule.clone(), why: Why::ItsTests };
    let suspect = Suspect { id: FindingId::StaleFlannelRules, cause };
    let group = Group::without_rows(suspect, Severity::Warning, families);
    let mut found = context.finding("", &group);
    found.evidence = rules
        .iter()
        .map(|(node, rule, _)| Evidence {
            text: format!("{}: {rule}", node.name),
            trace: None,
            rule: None,
        })
        .collect();
    found.affected.nodes = rules.iter().map(|(node, _, _)| node.name.clone()).collect();
    found.affected.nodes.dedup();
    Some(found)
}

/// flannel's rules in a base chain that rewrite, as a person would call them.
fn in_postrouting(host: &Host) -> impl Iterator<Item = (String, Option<Family>)> + '_ {
    (0..).zip(&host.ruleset.tables).flat_map(move |(number, table)| {
        let family = match table.family {
            TableFamily::Ip => Some(Family::V4),
            TableFamily::Ip6 => Some(Family::V6),
            TableFamily::Inet | TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => {
                None
            }
        };
        let chains = (0..).zip(&table.chains).filter(|(_, chain)| chain.base.is_some());
        chains.flat_map(move |(place, chain)| {
            (0..).zip(&chain.rules).filter_map(move |(index, rule)| {
                let id = RuleId { table: number, chain: ChainId(place), rule: index };
                let is_old = rule.text.contains("MASQUERADE") && owner(host, id) == Owner::Flannel;
                is_old.then(|| (label(host, id), family))
            })
        })
    })
}

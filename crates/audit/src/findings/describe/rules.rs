//! The rules that a finding is about, on every node that has them, and the changes that take them
//! away or narrow them.

use ipnet::IpNet;
use unmasq_eval::trace::RuleId;
use unmasq_model::host::Host;
use unmasq_model::origin::Origin;
use unmasq_model::packet::Family;
use unmasq_model::rule::{Action, NatKind, Rule, Step, Test};
use unmasq_model::ruleset::{Backend, Chain, ChainId, Table, TableFamily};

use super::{Context, pin, test};
use crate::change::RuleChange;
use crate::judge::Suspect;
use crate::label::words;
use crate::matrix::texts_of_node;
use crate::shape::source_network;
use crate::{Owner, label, owner};

/// A rule on a node.
#[derive(Clone, Copy)]
pub(super) struct Standing<'c> {
    /// Index of the node.
    pub(super) node: usize,
    pub(super) table: &'c Table,
    pub(super) chain: &'c Chain,
    /// Its index in the chain.
    pub(super) position: usize,
    pub(super) rule: &'c Rule,
}

/// The rules of all nodes that are called as the suspect's rule is.
pub(super) fn alike<'c>(context: &Context<'_, 'c>, suspect: &Suspect) -> Vec<Standing<'c>> {
    let Suspect { cause, .. } = suspect;
    of(context, cause.owner, |node, host, id| {
        let mut name = label(host, id);
        for (text, what) in texts_of_node(context.cluster, &context.cluster.nodes[node].name) {
            name = name.replace(&text, what);
        }
        name == cause.rule
    })
}

/// The rules of an owner, on all nodes, that rewrite sources.
pub(super) fn of<'c>(
    context: &Context<'_, 'c>,
    whose: Owner,
    wanted: impl Fn(usize, &Host, RuleId) -> bool,
) -> Vec<Standing<'c>> {
    let mut found = Vec::new();
    for (node, state) in context.cluster.nodes.iter().enumerate() {
        let Some(host) = &state.host else { continue };
        for (number, table) in (0..).zip(&host.ruleset.tables) {
            for (place, chain) in (0..).zip(&table.chains) {
                for (index, rule) in (0..).zip(&chain.rules) {
                    let id = RuleId { table: number, chain: ChainId(place), rule: index };
                    let rewrites = rule.steps.iter().any(rewrites);
                    if rewrites && owner(host, id) == whose && wanted(node, host, id) {
                        let position = index as usize;
                        found.push(Standing { node, table, chain, position, rule });
                    }
                }
            }
        }
    }
    found
}

fn rewrites(step: &Step) -> bool {
    match step {
        Step::Do(Action::Nat(nat)) => matches!(nat.kind, NatKind::Snat | NatKind::Masquerade),
        Step::Do(_) | Step::Test(_) => false,
    }
}

/// Indices of the nodes that have them, once each.
pub(super) fn nodes(found: &[Standing<'_>]) -> Vec<usize> {
    let mut nodes: Vec<usize> = found.iter().map(|one| one.node).collect();
    nodes.dedup();
    nodes
}

impl Standing<'_> {
    /// The family of a table's rules, if they are of one.
    pub(super) fn family_of(table: TableFamily) -> Option<Family> {
        match table {
            TableFamily::Ip => Some(Family::V4),
            TableFamily::Ip6 => Some(Family::V6),
            TableFamily::Inet | TableFamily::Bridge | TableFamily::Arp | TableFamily::Netdev => {
                None
            }
        }
    }

    /// The network that its packets come from.
    pub(super) fn source(&self) -> Option<IpNet> {
        self.rule.steps.iter().find_map(|step| match step {
            Step::Test(test) => source_network(test),
            Step::Do(_) => None,
        })
    }

    /// Whether iptables wrote it.
    pub(super) fn is_xtables(&self) -> bool {
        match self.table.backend {
            Backend::Legacy | Backend::IptablesNft => true,
            Backend::Nft => false,
        }
    }

    /// The program that lists it, if it is iptables'.
    pub(super) fn saved_by(&self, family: Family) -> &'static str {
        saves(Some(self.table.backend), family)
    }

    /// It is deleted.
    pub(super) fn deleted(&self) -> RuleChange {
        RuleChange {
            backend: self.table.backend,
            family: self.table.family,
            table: self.table.name.to_string(),
            chain: self.chain.name.to_string(),
            position: self.position,
            old: Some(self.rule.clone()),
            new: None,
        }
    }

    /// The same rule for fewer packets: a test more, after its test of the source.
    pub(super) fn narrowed(&self, added: &Exception) -> Option<RuleChange> {
        let is_source = |step: &Step| match step {
            Step::Test(test) => source_network(test).is_some(),
            Step::Do(_) => false,
        };
        let at = 1 + self.rule.steps.iter().position(is_source)?;
        let mut steps = self.rule.steps.to_vec();
        for (index, test) in added.tests.iter().enumerate() {
            // iptables makes the tests of its matches after the rule's own.
            let first = at + index;
            let end = || steps.iter().position(|step| matches!(step, Step::Do(_)));
            let at = if index > 0 && self.is_xtables() { end()? } else { first };
            steps.insert(at, Step::Test(test.clone()));
        }
        let text = if self.is_xtables() {
            added.in_saved(&self.rule.text)?
        } else {
            added.in_listed(&self.rule.text)?
        };
        // The kernel has yet to give it a handle.
        let origin = Origin { handle: None, ..self.rule.origin };
        let new = Rule {
            steps: steps.into(),
            text: text.into(),
            comment: self.rule.comment.clone(),
            origin,
        };
        Some(RuleChange { new: Some(new), ..self.deleted() })
    }
}

/// The program that lists iptables' rules of a back end; without one, the node's default.
pub(super) fn saves(backend: Option<Backend>, family: Family) -> &'static str {
    match (backend, family) {
        (Some(Backend::Legacy), Family::V4) => "iptables-legacy-save",
        (Some(Backend::Legacy), Family::V6) => "ip6tables-legacy-save",
        (Some(Backend::IptablesNft), Family::V4) => "iptables-nft-save",
        (Some(Backend::IptablesNft), Family::V6) => "ip6tables-nft-save",
        (Some(Backend::Nft) | None, Family::V4) => "iptables-save",
        (Some(Backend::Nft) | None, Family::V6) => "ip6tables-save",
    }
}

/// Destinations that a rule leaves out: a network, and another one that iptables can only say as a
/// range of addresses (a rule has one `-d`).
pub(super) struct Exception {
    networks: Vec<IpNet>,
    tests: Vec<Test>,
}

impl Exception {
    /// Leaves out one or two networks of a family.
    pub(super) fn new(network: IpNet, other: Option<IpNet>) -> Exception {
        let networks: Vec<IpNet> = [network].into_iter().chain(other).collect();
        let tests = networks.iter().map(|net| test::not_to(*net)).collect();
        Exception { networks, tests }
    }

    /// In a rule of iptables-save; `None`: it has a destination already.
    fn in_saved(&self, text: &str) -> Option<String> {
        let all: Vec<&str> = words(text).collect();
        if all.contains(&"-d") {
            return None;
        }
        let source = all.iter().position(|word| *word == "-s")? + 2;
        let mut new: Vec<String> = all.iter().map(|word| (*word).to_owned()).collect();
        let mut at = source.min(new.len());
        for (index, net) in self.networks.iter().enumerate() {
            let added = match index {
                0 => vec!["!".to_owned(), "-d".to_owned(), net.to_string()],
                // Matches come after the rule's own tests, and are made in the order written.
                _ => {
                    let range = format!("{}-{}", net.network(), net.broadcast());
                    at = new.iter().position(|word| word == "-j")?;
                    ["-m", "iprange", "!", "--dst-range", &range].map(str::to_owned).to_vec()
                }
            };
            new.splice(at..at, added);
        }
        Some(new.join(" "))
    }

    /// In a rule as nft lists it.
    fn in_listed(&self, text: &str) -> Option<String> {
        let ip = pin::word(Family::of(self.networks.first()?.addr()));
        let mut all = words(text).collect::<Vec<_>>();
        let at = all.windows(2).position(|two| two == [ip, "saddr"])? + 3;
        if at > all.len() || all.windows(2).any(|two| two == [ip, "daddr"]) {
            return None;
        }
        let added: Vec<String> =
            self.networks.iter().map(|net| format!("{ip} daddr != {net}")).collect();
        all.splice(at..at, added.iter().map(String::as_str));
        Some(all.join(" "))
    }
}

//! The rules of other systems, loaded into a kernel: it takes them, lists them in the order that
//! they have on a node, and each that translates a source is known as its system's.

#![allow(clippy::unwrap_used, reason = "addresses and networks are written here")]

mod calico;
mod engine;
mod flannel;
mod others;
#[path = "../trials/mod.rs"]
mod trials;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use unmasq_audit::{Owner, owner};
use unmasq_eval::trace::RuleId;
use unmasq_lab::Namespace;
use unmasq_model::host::Host;
use unmasq_model::origin::FileId;
use unmasq_model::packet::Family;
use unmasq_model::rule::{Action, NatKind, Rule, Step};
use unmasq_model::ruleset::{Backend, ChainId, Ruleset, Table, TableFamily};
use unmasq_provider::Rules;

fn main() -> ExitCode {
    let states = || [flannel::STATES, calico::STATES, engine::STATES, others::STATES];
    let iptables = states().into_iter().flatten().flat_map(|state| {
        [("legacy", Backend::Legacy), ("nft", Backend::IptablesNft)].map(|(program, backend)| {
            let name: &'static str = format!("{}_{program}", state.name).leak();
            (name, Box::new(move || state.check(program, backend)) as Run)
        })
    });
    let nft = flannel::NFT_STATES
        .iter()
        .map(|state| (state.name, Box::new(move || state.check()) as Run));
    trials::run(iptables.chain(nft))
}

type Run = Box<dyn FnOnce() -> Result<()> + Send>;

/// What systems program one after another.
struct State {
    name: &'static str,
    rules: fn() -> Vec<Rules>,
    /// What iptables-save must list: all chains with rules, but chains of Felix may be missing.
    chains: &'static [&'static str],
    /// Whose the rules are that translate a source: part of a rule's text, and the owner. The first
    /// that fits counts.
    owners: &'static [(&'static str, Owner)],
}

/// Lists of rules by table and chain, and what a base chain does after its rules if it isn't ACCEPT.
type Chains = BTreeMap<(String, String), Vec<String>>;

impl State {
    fn check(&self, program: &str, backend: Backend) -> Result<()> {
        let list = (self.rules)();
        let family = list.first().context("no rules")?.family;
        let (program, table_family) = match family {
            Family::V4 => (format!("iptables-{program}"), TableFamily::Ip),
            Family::V6 => (format!("ip6tables-{program}"), TableFamily::Ip6),
        };
        let namespace = Namespace::new("rules")?;
        for rules in &list {
            ensure!(rules.family == family, "one family in a state");
            ensure!(rules.nft().is_empty(), "nftables in a state of iptables");
            namespace.exec_with(&["ipset", "restore"], &rules.ipset())?;
            let restore = format!("{program}-restore");
            namespace
                .exec_with(&[&restore, "--noflush"], &rules.iptables())
                .with_context(|| rules.iptables())?;
        }
        let saved = namespace.exec(&[&format!("{program}-save")])?;
        self.compare(&saved, &list)?;
        let (tables, diagnostics) =
            unmasq_parse::iptables::parse(&saved, FileId(0), table_family, backend);
        ensure!(diagnostics.is_empty(), "{diagnostics:?} in {saved}");
        check_owners(tables, self.owners)
    }

    fn compare(&self, saved: &str, list: &[Rules]) -> Result<()> {
        let (found, expected) = (chains(saved), chains(&self.chains.join("\n")));
        for (chain, rules) in &expected {
            let found = found.get(chain).with_context(|| format!("no {chain:?} in {saved}"))?;
            ensure!(found == rules, "{chain:?} is {found:#?}, not {rules:#?}");
        }
        let written = chains(&list.iter().map(Rules::iptables).collect::<String>());
        for (chain, rules) in found.iter().filter(|(chain, _)| !expected.contains_key(chain)) {
            ensure!(chain.1.starts_with("cali-"), "{chain:?} isn't expected: {rules:#?}");
            let (found, written) = (hashes(rules), hashes(&written[chain]));
            ensure!(found == written, "{chain:?} is {found:?}, not {written:?}");
            ensure!(found.len() == rules.len(), "a rule of {chain:?} without a hash: {rules:#?}");
        }
        Ok(())
    }
}

fn chains(text: &str) -> Chains {
    let mut table = String::new();
    let mut chains = Chains::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, rule) = rule.split_once(' ').unwrap_or((rule, ""));
            chains.entry((table.clone(), chain.into())).or_default().push(rule.into());
        } else if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split(' ');
            let (chain, policy) = (words.next().unwrap_or_default(), words.next());
            if let Some(policy @ ("DROP" | "QUEUE")) = policy {
                chains
                    .entry((table.clone(), format!("{chain}'s policy")))
                    .or_default()
                    .push(policy.into());
            }
        }
    }
    chains
}

/// Felix's hashes, one a rule.
fn hashes(rules: &[String]) -> Vec<&str> {
    let hash = |rule: &String| -> Option<std::ops::Range<usize>> {
        let start = rule.find("\"cali:")?;
        Some(start..start + 1 + rule[start + 1..].find('"')?)
    };
    rules.iter().filter_map(|rule| Some(&rule[hash(rule)?])).collect()
}

/// Each rule that translates a source is of the owner expected, and there is one for each.
fn check_owners(tables: Vec<Table>, expected: &[(&str, Owner)]) -> Result<()> {
    let host = Host { ruleset: Ruleset { tables }, ..Host::default() };
    let mut seen = vec![false; expected.len()];
    for (table, rules) in (0u32..).zip(&host.ruleset.tables) {
        for (chain, rules) in (0u32..).zip(&rules.chains) {
            for (rule, content) in (0u32..).zip(&rules.rules).filter(|(_, rule)| hides(rule)) {
                let found = owner(&host, RuleId { table, chain: ChainId(chain), rule });
                let text = &*content.text;
                let at = expected.iter().position(|(part, _)| text.contains(part));
                let at = at.with_context(|| format!("whose is {text}? Found {found}"))?;
                ensure!(found == expected[at].1, "{text} is of {found}, not {}", expected[at].1);
                seen[at] = true;
            }
        }
    }
    for (seen, (part, owner)) in seen.iter().zip(expected) {
        ensure!(seen, "no rule of {owner} with {part:?}");
    }
    Ok(())
}

fn hides(rule: &Rule) -> bool {
    rule.steps.iter().any(|step| match step {
        Step::Do(Action::Nat(nat)) => matches!(nat.kind, NatKind::Masquerade | NatKind::Snat),
        Step::Do(_) | Step::Test(_) => false,
    })
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

//! What a reboot of nodes leaves of what deeds did to rules.
//!
//! The kernel forgets all rules. Programs write theirs again, so those are taken for the same; what
//! deeds put into chains of others is there again only if a file has it that rules are loaded from,
//! and what they took out is back if such a file still has it. Where no such file was captured,
//! that is said, and nothing is assumed.

use std::collections::{BTreeMap, BTreeSet};

use unmasq_cluster::Node;
use unmasq_model::host::Host;
use unmasq_model::ruleset::{Backend, Table};

use crate::deed::{Deed, Program, RulesDeed, TableDeed};
use crate::deeds::texts;
use crate::state::{State, backend, family};
use crate::transplant::{key, without};

/// What is otherwise then.
#[derive(Debug, Default)]
pub(crate) struct Reboot {
    /// A sentence each.
    pub(crate) told: Vec<String>,
    /// Whether any rule is known to be another.
    pub(crate) changed: bool,
}

/// Reboots the nodes of `after`, which deeds made of `original`.
pub(crate) fn reboot(original: &State, after: &mut State, deeds: &[Deed]) -> Reboot {
    let mut found = Found::default();
    for (place, (before, now)) in chains(deeds) {
        let nodes = &mut after.cluster.nodes;
        let Some(node) = nodes.iter_mut().find(|node| node.name == place.node) else { continue };
        let old = original.cluster.node(place.node).and_then(|node| node.host.as_ref());
        if let Some(old) = old {
            of_chain(&place, before, now, node, old, &mut found);
        }
    }
    for deed in deeds {
        let Deed::Table(deed @ TableDeed { after: Some(_), .. }) = deed else { continue };
        let nodes = &mut after.cluster.nodes;
        if let Some(node) = nodes.iter_mut().find(|node| node.name == deed.node) {
            of_table(deed, node, &mut found);
        }
    }
    let changed = found.changed;
    let told = found.about.into_iter().map(|(about, nodes)| about.sentence(&nodes)).collect();
    Reboot { told, changed }
}

/// A chain of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place<'d> {
    node: &'d str,
    program: Program,
    table: &'d str,
    chain: &'d str,
}

/// Each chain that deeds change, as it was before the first of them and is after the last.
fn chains(deeds: &[Deed]) -> BTreeMap<Place<'_>, (&[String], &[String])> {
    let mut all: BTreeMap<Place<'_>, (&[String], &[String])> = BTreeMap::new();
    for deed in deeds {
        let Deed::Rules(RulesDeed { node, program, table, chain, before, after }) = deed else {
            continue;
        };
        let place = Place { node, program: *program, table, chain };
        all.entry(place).or_insert((before, after)).1 = after;
    }
    all
}

#[derive(Debug, Default)]
struct Found {
    changed: bool,
    /// With the nodes where it is so.
    about: BTreeMap<About, BTreeSet<String>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Table(String),
    Lost { chain: String, files: String },
    Back { chain: String, files: String },
    Unknown { chain: String, files: String },
}

impl Found {
    fn say(&mut self, about: About, node: &str) {
        self.about.entry(about).or_default().insert(node.to_owned());
    }
}

impl About {
    fn sentence(&self, nodes: &BTreeSet<String>) -> String {
        const FEW: usize = 4;
        let names: Vec<&str> = nodes.iter().take(FEW).map(String::as_str).collect();
        let mut names = names.join(", ");
        if nodes.len() > FEW {
            names += &format!(" and {} more", nodes.len() - FEW);
        }
        match self {
            About::Table(table) => {
                format!("A reboot of {names} takes {table} away: it is in the kernel only.")
            }
            About::Lost { chain, files } => format!(
                "A reboot of {names} takes away what is new in chain {chain}: {files} doesn't have it."
            ),
            About::Back { chain, files } => format!(
                "A reboot of {names} brings back what is taken out of chain {chain}: {files} still \
                 has it."
            ),
            About::Unknown { chain, files } => format!(
                "Whether chain {chain} is still so after a reboot of {names} isn't known: none of \
                 {files} was captured."
            ),
        }
    }
}

fn of_chain(
    place: &Place<'_>,
    before: &[String],
    now: &[String],
    node: &mut Node,
    old: &Host,
    found: &mut Found,
) {
    let Node { name, files, host: Some(host), .. } = node else { return };
    let kept: Vec<(&String, &String)> =
        files.iter().filter(|(path, _)| is_loaded(path, place.program)).collect();
    let chain = place.chain.to_owned();
    if kept.is_empty() {
        let files = files_of(place.program).join(", ");
        found.say(About::Unknown { chain, files }, name);
        return;
    }
    let has = |rule: &str| {
        let mut lines = kept.iter().flat_map(|(_, text)| text.lines());
        lines.any(|line| key(counted(line)) == key(rule))
    };
    let paths: Vec<&str> = kept.iter().map(|(path, _)| path.as_str()).collect();
    let paths = paths.join(", ");
    let lost: Vec<&String> = without(now, before).into_iter().filter(|rule| !has(rule)).collect();
    let back: Vec<&String> = without(before, now).into_iter().filter(|rule| has(rule)).collect();
    if !lost.is_empty() {
        found.say(About::Lost { chain: chain.clone(), files: paths.clone() }, name);
    }
    if !back.is_empty() {
        found.say(About::Back { chain, files: paths }, name);
    }
    found.changed |= !lost.is_empty() || !back.is_empty();
    let is_it = |table: &Table| {
        *table.name == *place.table
            && table.backend == backend(place.program)
            && table.family == family(place.program)
    };
    let was = old.ruleset.tables.iter().find(|table| is_it(table));
    let there = host.ruleset.tables.iter_mut().find(|table| is_it(table));
    let (Some(was), Some(there)) = (was, there) else { return };
    let ids = (was.chain_by_name(place.chain), there.chain_by_name(place.chain));
    let (Some(old), Some(new)) = ids else { return };
    for rule in lost {
        let at = texts(there, there.chain(new)).iter().position(|text| text == rule);
        at.into_iter().for_each(|at| drop(there.chains[new.0 as usize].rules.remove(at)));
    }
    for rule in back {
        let at = texts(was, was.chain(old)).iter().position(|text| text == rule);
        if let Some(at) = at {
            let rules = &mut there.chains[new.0 as usize].rules;
            rules.insert(at.min(rules.len()), was.chain(old).rules[at].clone());
        }
    }
}

fn of_table(deed: &TableDeed, node: &mut Node, found: &mut Found) {
    let Node { name, files, host: Some(host), .. } = node else { return };
    let family_name = deed.program.family();
    let begins = format!("table {family_name} {}", deed.name);
    let mut loaded = files.iter().filter(|(path, _)| is_loaded(path, deed.program));
    let line_is = |line: &str| line.trim().trim_end_matches('{').trim_end() == begins;
    if loaded.any(|(_, text)| text.lines().any(line_is)) {
        return;
    }
    let family = family(deed.program);
    host.ruleset.tables.retain(|table| {
        table.backend != Backend::Nft || table.family != family || *table.name != *deed.name
    });
    found.changed = true;
    found.say(About::Table(format!("nft's table {family_name} {}", deed.name)), name);
}

/// Files that rules are loaded from when a host starts: those of iptables-services (Red Hat),
/// iptables-persistent (Debian) and nftables.
fn files_of(program: Program) -> &'static [&'static str] {
    match program {
        Program::IptablesLegacy | Program::IptablesNft => {
            &["/etc/sysconfig/iptables", "/etc/iptables/rules.v4"]
        }
        Program::Ip6tablesLegacy | Program::Ip6tablesNft => {
            &["/etc/sysconfig/ip6tables", "/etc/iptables/rules.v6"]
        }
        Program::NftIp | Program::NftIp6 | Program::NftInet => &["/etc/nftables.conf"],
    }
}

fn is_loaded(path: &str, program: Program) -> bool {
    let of_nft = matches!(program, Program::NftIp | Program::NftIp6 | Program::NftInet);
    files_of(program).contains(&path) || (of_nft && path.starts_with("/etc/nftables.d/"))
}

/// A line of iptables-save without the counters in front of it.
fn counted(line: &str) -> &str {
    let line = line.trim();
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, rule)) => rule,
        None => line,
    }
}

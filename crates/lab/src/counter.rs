//! Rule counters of all back ends, by the rule's place.
//!
//! In: what `iptables-save -c` of both back ends and `nft -j list ruleset` print. Out: packets
//! counted so far, and each rule's comment. Policies' counters are left out: iptables-nft keeps
//! none unless they were restored with some.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;
use unmasq_model::ruleset::{Backend, TableFamily};

use crate::namespace::Namespace;

/// A rule's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The program family that made it.
    pub backend: Backend,
    /// The table's family.
    pub family: TableFamily,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Index in the chain, from 0.
    pub index: usize,
}

/// A rule's counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// Packets counted.
    pub packets: u64,
    /// The rule's comment.
    pub comment: Option<String>,
}

/// All counters of a namespace.
pub type Counters = BTreeMap<Place, Counter>;

/// Reads all counters. Rules without one (nft) are left out.
pub fn read(namespace: &Namespace) -> Result<Counters> {
    let mut counters = Counters::new();
    let mut saved = BTreeSet::new();
    for (program, backend, family) in [
        ("iptables-legacy-save", Backend::Legacy, TableFamily::Ip),
        ("ip6tables-legacy-save", Backend::Legacy, TableFamily::Ip6),
        ("iptables-nft-save", Backend::IptablesNft, TableFamily::Ip),
        ("ip6tables-nft-save", Backend::IptablesNft, TableFamily::Ip6),
    ] {
        // Neither program makes a table: legacy lists those of /proc/net/ip_tables_names.
        let text = namespace.exec(&[program, "-c"])?;
        xtables(&text, backend, family, &mut counters)?;
        if backend == Backend::IptablesNft {
            let tables = text.lines().filter_map(|line| line.strip_prefix('*'));
            saved.extend(tables.map(|table| (family, table.to_owned())));
        }
    }
    nft(&namespace.exec(&["nft", "-j", "list", "ruleset"])?, &mut counters)?;
    // nft lists iptables-nft's tables too.
    counters.retain(|place, _| {
        place.backend != Backend::Nft || !saved.contains(&(place.family, place.table.clone()))
    });
    Ok(counters)
}

/// What has risen from `before` to `after`, and by how much.
pub fn raised(before: &Counters, after: &Counters) -> BTreeMap<Place, u64> {
    let count = |place| before.get(place).map_or(0, |counter| counter.packets);
    after
        .iter()
        .map(|(place, counter)| (place.clone(), counter.packets.saturating_sub(count(place))))
        .filter(|(_, packets)| *packets > 0)
        .collect()
}

fn xtables(
    text: &str,
    backend: Backend,
    family: TableFamily,
    counters: &mut Counters,
) -> Result<()> {
    let mut table = "";
    let mut lengths: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        let Some((count, rule)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] -A "))
        else {
            continue;
        };
        let packets = count.split(':').next().unwrap_or(count);
        let chain = rule.split(' ').next().unwrap_or(rule);
        let length = lengths.entry((table, chain)).or_default();
        let place =
            Place { backend, family, table: table.into(), chain: chain.into(), index: *length };
        *length += 1;
        let packets = packets.parse().with_context(|| format!("counter in {line}"))?;
        counters.insert(place, Counter { packets, comment: xtables_comment(rule) });
    }
    Ok(())
}

fn xtables_comment(rule: &str) -> Option<String> {
    let (_, rest) = rule.split_once("--comment ")?;
    let text = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split(' ').next(),
    };
    text.map(String::from)
}

fn nft(json: &str, counters: &mut Counters) -> Result<()> {
    let listing: Value = serde_json::from_str(json).context("nft -j list ruleset")?;
    let mut lengths: BTreeMap<(TableFamily, &str, &str), usize> = BTreeMap::new();
    for object in listing["nftables"].as_array().into_iter().flatten() {
        let rule = &object["rule"];
        let text = |key: &str| rule[key].as_str();
        let (Some(family), Some(table), Some(chain)) =
            (text("family").and_then(family), text("table"), text("chain"))
        else {
            continue;
        };
        let length = lengths.entry((family, table, chain)).or_default();
        let index = *length;
        *length += 1;
        let mut statements = rule["expr"].as_array().into_iter().flatten();
        let Some(packets) =
            statements.find_map(|statement| statement["counter"]["packets"].as_u64())
        else {
            continue;
        };
        let place = Place {
            backend: Backend::Nft,
            family,
            table: table.into(),
            chain: chain.into(),
            index,
        };
        counters.insert(place, Counter { packets, comment: text("comment").map(String::from) });
    }
    Ok(())
}

fn family(name: &str) -> Option<TableFamily> {
    Some(match name {
        "ip" => TableFamily::Ip,
        "ip6" => TableFamily::Ip6,
        "inet" => TableFamily::Inet,
        "arp" => TableFamily::Arp,
        "bridge" => TableFamily::Bridge,
        "netdev" => TableFamily::Netdev,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_counted_by_chain_and_their_comments_kept() {
        let mut counters = Counters::new();
        let text = "*nat\n:POSTROUTING ACCEPT [9:9]\n:X - [0:0]\n\
                    [3:180] -A POSTROUTING -m comment --comment \"two words\" -j X\n\
                    [1:60] -A X -m comment --comment one -j MASQUERADE\n\
                    [2:120] -A POSTROUTING -j ACCEPT\nCOMMIT\n";
        xtables(text, Backend::Legacy, TableFamily::Ip, &mut counters).unwrap();
        let flat: Vec<_> = counters
            .iter()
            .map(|(place, c)| (&*place.chain, place.index, c.packets, c.comment.as_deref()))
            .collect();
        assert_eq!(
            flat,
            [
                ("POSTROUTING", 0, 3, Some("two words")),
                ("POSTROUTING", 1, 2, None),
                ("X", 0, 1, Some("one"))
            ]
        );
    }

    #[test]
    fn nft_rules_without_counter_still_take_a_place() {
        let mut counters = Counters::new();
        let rule = |expr: &str| {
            format!(
                r#"{{"rule": {{"family": "ip", "table": "t", "chain": "c", "comment": "x",
                "handle": 4, "expr": [{expr}]}}}}"#
            )
        };
        let json = format!(
            r#"{{"nftables": [{}, {}]}}"#,
            rule(r#"{"accept": null}"#),
            rule(r#"{"counter": {"packets": 5, "bytes": 6}}, {"drop": null}"#)
        );
        nft(&json, &mut counters).unwrap();
        let (place, counter) = counters.first_key_value().unwrap();
        assert_eq!((counters.len(), place.index, counter.packets), (1, 1, 5));
    }
}

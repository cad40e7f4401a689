//! Texts of iptables-save and for iptables-restore, in a form that can be compared.
//!
//! What doesn't count:
//!
//! - counters, policies of built-in chains, comment lines with dates;
//! - the order of chains: iptables-save sorts them, and rules of different chains don't meet;
//! - chains and rules of other programs;
//! - in the chains that are shared by Services, which Service comes first: kube-proxy walks a Go
//!   map, so it is another at each start. What one Service has there stays in order, and so does
//!   everything around the Services.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// Rules by table and chain.
pub(crate) type Chains = BTreeMap<(String, String), Vec<String>>;

/// The chains in which each Service has rules.
const SHARED: [&str; 4] =
    ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"];

/// kube-proxy's chains, and what leads to them from built-in chains.
pub(crate) fn kube_chains(text: &str) -> Result<Chains> {
    let mut chains = Chains::new();
    let mut table = String::new();
    for line in text.lines() {
        let line = without_counters(line);
        match line.split_once(' ') {
            None if line == "COMMIT" => {}
            None if line.starts_with('*') => table = line[1..].into(),
            Some(("#", _)) => {}
            Some((name, _)) if name.starts_with(":KUBE-") => {
                chains.entry((table.clone(), name[1..].into())).or_default();
            }
            Some((name, _)) if name.starts_with(':') => {}
            Some((command @ ("-A" | "-I"), rule)) => {
                let chain = rule.split(' ').next().context("a rule without a chain")?;
                if !chain.starts_with("KUBE-") && !rule.contains(" -j KUBE-") {
                    continue;
                }
                let rules = chains.entry((table.clone(), chain.into())).or_default();
                let place = if command == "-I" { 0 } else { rules.len() };
                rules.insert(place, rule.into());
            }
            _ => bail!("what is this? {line}"),
        }
    }
    for ((_, chain), rules) in &mut chains {
        if SHARED.contains(&chain.as_str()) {
            // Rules that are of no Service stay where they are.
            for run in rules.chunk_by_mut(|a, b| service(a).is_some() && service(b).is_some()) {
                run.sort_by(|a, b| service(a).cmp(&service(b)));
            }
        }
    }
    Ok(chains)
}

/// `[0:0] -A …` of iptables-save with counters.
fn without_counters(line: &str) -> &str {
    let counted = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    counted.map_or(line, |(_, rule)| rule)
}

/// `namespace/name:port` from a rule's comment.
fn service(rule: &str) -> Option<&str> {
    let comment = rule.split("--comment \"").nth(1)?;
    comment.split([' ', '"']).next().filter(|word| word.contains('/'))
}

//! Listings of a table and text for `nft -f`, in a form that can be compared.
//!
//! What doesn't count:
//!
//! - handles;
//! - the order of sets, maps and chains, which nothing depends on;
//! - the order and the folding of elements, of named sets and of those within a rule;
//! - braces around the single element of a set in a rule, which nft drops.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use unmasq_model::packet::Family;

/// Lines of each set, map and chain by its head; elements are lines too, sorted.
pub(crate) type Blocks = BTreeMap<String, Vec<String>>;

/// What kube-proxy's table of a family has.
pub(crate) fn blocks(text: &str, family: Family) -> Result<Blocks> {
    let ip = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let mut lines = text.lines().map(without_handle);
    let table = format!("table {ip} kube-proxy {{");
    lines.find(|line| *line == table).with_context(|| format!("no {table}"))?;
    let mut blocks = Blocks::new();
    loop {
        match lines.next().context("the table doesn't end")? {
            "}" => return Ok(blocks),
            "" => {}
            line => match line.trim_start().strip_suffix(" {") {
                Some(head) => {
                    let block = block(&mut lines).with_context(|| head.to_owned())?;
                    let before = blocks.insert(head.into(), block);
                    ensure!(before.is_none(), "{head} is there twice");
                }
                None => {
                    blocks.entry("table".into()).or_default().push(line.trim().into());
                }
            },
        }
    }
}

fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let mut block = Vec::new();
    loop {
        let line = lines.next().context("the block doesn't end")?.trim();
        if line == "}" {
            return Ok(block);
        }
        let Some(first) = line.strip_prefix("elements = { ") else {
            block.push(without_order(line)?);
            continue;
        };
        let mut elements = first.to_owned();
        while !elements.ends_with(" }") {
            elements.push(' ');
            elements.push_str(lines.next().context("the elements don't end")?.trim());
        }
        let elements = elements.trim_end_matches(" }").split(", ");
        let mut elements: Vec<String> = elements.map(|one| format!("element {one}")).collect();
        elements.sort_unstable();
        block.extend(elements);
    }
}

/// A rule with the elements of its set in order.
fn without_order(rule: &str) -> Result<String> {
    let Some((before, rest)) = rule.split_once("{ ") else { return Ok(rule.into()) };
    let (elements, after) = rest.split_once(" }").context("a set that doesn't end")?;
    if after.contains('{') {
        bail!("two sets in one rule");
    }
    let mut elements: Vec<&str> = elements.split(", ").collect();
    elements.sort_unstable();
    let elements = elements.join(", ");
    let single = !elements.contains(", ") && !elements.contains(" : ");
    // `update @set { ip saddr }` has no set.
    if single && !before.starts_with("update ") {
        return Ok(format!("{before}{elements}{after}"));
    }
    Ok(format!("{before}{{ {elements} }}{after}"))
}

fn without_handle(line: &str) -> &str {
    line.split_once(" # handle ").map_or(line, |(line, _)| line)
}

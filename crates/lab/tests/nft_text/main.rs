//! The text of `nft list ruleset` is read as the JSON of the same moment is: rulesets are loaded
//! into a kernel, listed in both ways, and give the same tables.

#![allow(clippy::unwrap_used, reason = "addresses and networks are written here")]

#[path = "../kube_proxy/cluster.rs"]
mod cluster;
mod hand;
#[path = "../trials/mod.rs"]
mod trials;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use unmasq_lab::Namespace;
use unmasq_lab::differential::nft_ruleset;
use unmasq_model::origin::FileId;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::{Table, TableFamily};
use unmasq_parse::nft::{parse, text};
use unmasq_provider::kube_proxy::{Mode, rules};

const JSON: FileId = FileId(3);
const TEXT: FileId = FileId(4);

fn main() -> ExitCode {
    let mut tests: Vec<trials::Test> =
        vec![("kube_proxy", kube_proxy), ("random_rulesets", random_rulesets)];
    tests.extend(hand::TESTS);
    trials::run(tests)
}

fn kube_proxy() -> Result<()> {
    let objects = cluster::objects()?;
    let namespace = Namespace::new("text")?;
    for variant in cluster::VARIANTS {
        let config = cluster::config(Mode::Nftables, variant)?;
        for family in [Family::V4, Family::V6] {
            let written = rules(&objects, &config, family);
            // Without a kernel: nothing that is written is strange to the reader.
            let (tables, diagnostics) = text::parse(&written, TEXT, &nothing);
            ensure!(diagnostics.is_empty(), "{}: {diagnostics:?}", variant.0);
            ensure!(!format!("{tables:?}").contains("Opaque"), "{}: {tables:#?}", variant.0);
            namespace.exec_with(&["nft", "-f", "-"], &written)?;
        }
        same(&namespace).context(variant.0)?;
    }
    Ok(())
}

/// Those of `cargo xtask differential`.
fn random_rulesets() -> Result<()> {
    let namespace = Namespace::new("text")?;
    for number in 0..40 {
        for family in [Family::V4, Family::V6] {
            let ruleset = nft_ruleset(29, number, family);
            let input = format!("flush ruleset\n{ruleset}");
            namespace.exec_with(&["nft", "-f", "-"], &input)?;
            same(&namespace).with_context(|| format!("{family} {number}: {ruleset}"))?;
        }
    }
    Ok(())
}

/// Loads a ruleset and compares.
fn check(ruleset: &str) -> Result<Vec<Table>> {
    let namespace = Namespace::new("text")?;
    namespace.exec_with(&["nft", "-f", "-"], ruleset)?;
    same(&namespace)
}

/// What is loaded, from the text as from the JSON.
fn same(namespace: &Namespace) -> Result<Vec<Table>> {
    let json = namespace.exec(&["nft", "-j", "list", "ruleset"])?;
    let listing = namespace.exec(&["nft", "-a", "list", "ruleset"])?;
    let (expected, diagnostics) = parse(&json, JSON, Some((&listing, TEXT)), &nothing);
    ensure!(diagnostics.is_empty(), "JSON: {diagnostics:?}");
    let (found, diagnostics) = text::parse(&listing, TEXT, &nothing);
    ensure!(diagnostics.is_empty(), "text: {diagnostics:?} in {listing}");
    compare(&found, &expected).with_context(|| format!("{listing}\n{json}"))?;

    let plain = namespace.exec(&["nft", "-s", "list", "ruleset"])?;
    let (found, diagnostics) = text::parse(&plain, TEXT, &nothing);
    ensure!(diagnostics.is_empty(), "without handles: {diagnostics:?} in {plain}");
    for (found, expected) in found.iter().zip(&expected) {
        for (found, expected) in found.chains.iter().zip(&expected.chains) {
            let steps = |chain: &unmasq_model::ruleset::Chain| {
                chain.rules.iter().map(|rule| rule.steps.clone()).collect::<Vec<_>>()
            };
            let (found, expected) = (steps(found), steps(expected));
            ensure!(found == expected, "without handles: {found:#?} is not {expected:#?}");
        }
    }
    Ok(expected)
}

fn compare(found: &[Table], expected: &[Table]) -> Result<()> {
    ensure!(found.len() == expected.len(), "{} tables, not {}", found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        for (found, expected) in found.chains.iter().zip(&expected.chains) {
            for (found, expected) in found.rules.iter().zip(&expected.rules) {
                ensure!(found == expected, "{found:#?} is not {expected:#?}");
            }
            let rules = (found.rules.len(), expected.rules.len());
            ensure!(found == expected, "{}: {:?} {rules:?}", found.name, found.base);
        }
        for (found, expected) in found.sets.iter().zip(&expected.sets) {
            ensure!(found == expected, "{found:#?} is not {expected:#?}");
        }
        ensure!(found == expected, "{found:#?} is not {expected:#?}");
    }
    Ok(())
}

fn nothing(_: TableFamily, _: &str) -> bool {
    false
}

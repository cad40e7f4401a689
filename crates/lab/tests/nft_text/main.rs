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
use unmasq_model::origin::{FileId, Opaque};
use unmasq_model::packet::Family;
use unmasq_model::rule::{Action, Rule, Step, Test};
use unmasq_model::ruleset::{Chain, Table, TableFamily};
use unmasq_parse::nft::{parse, text};
use unmasq_provider::kube_proxy::{Mode, rules};

const JSON: FileId = FileId(3);
const TEXT: FileId = FileId(4);

fn main() -> ExitCode {
    let mut tests: Vec<trials::Test> =
        vec![("kube_proxy", kube_proxy), ("random_rulesets", random_rulesets)];
    tests.push(("other_projects", other_projects));
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

/// The rulesets of other projects that this kernel takes.
fn other_projects() -> Result<()> {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus");
    let Ok(entries) = std::fs::read_dir(corpus) else {
        eprintln!("other_projects: nothing was looked at: {corpus} isn't there");
        return Ok(());
    };
    let mut loaded = 0;
    let mut wrong = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.to_string_lossy().into_owned();
        let options: &[&str] = match () {
            () if name.ends_with(".nft.json") => &["nft", "-j", "-f"],
            () if name.ends_with(".nft") => &["nft", "-f"],
            () => continue,
        };
        let namespace = Namespace::new("text")?;
        if namespace.exec(&[options, &[name.as_str()]].concat()).is_err() {
            continue;
        }
        loaded += 1;
        if let Err(error) = same(&namespace) {
            wrong.push(format!("{name}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of {loaded} {}", wrong.len(), wrong.join("\n\n=====\n"));
    ensure!(loaded > 50, "only {loaded} could be loaded");
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
            let steps = |chain: &Chain| {
                chain.rules.iter().map(|rule| rule.steps.iter().map(plainly).collect()).collect()
            };
            let (found, expected): (Vec<Vec<Step>>, Vec<Vec<Step>>) =
                (steps(found), steps(expected));
            ensure!(found == expected, "without handles: {found:#?} is not {expected:#?}");
        }
    }
    Ok(expected)
}

/// A step, without the text of what is not understood: that is JSON in the JSON.
fn plainly(step: &Step) -> Step {
    match step {
        Step::Test(Test::Opaque(_)) => Step::Test(Test::Opaque(Opaque::new(""))),
        Step::Do(Action::Opaque(_)) => Step::Do(Action::Opaque(Opaque::new(""))),
        Step::Test(_) | Step::Do(_) => step.clone(),
    }
}

/// What text and JSON say in their own ways is taken from the text.
fn alike(found: &Table, mut expected: Table) -> Table {
    for (found, expected) in found.chains.iter().zip(&mut expected.chains) {
        for (found, expected) in found.rules.iter().zip(&mut expected.rules) {
            let steps = |rule: &Rule| rule.steps.iter().map(plainly).collect::<Vec<_>>();
            if steps(found) == steps(expected) {
                expected.steps = found.steps.clone();
            }
        }
    }
    for (found, expected) in found.sets.iter().zip(&mut expected.sets) {
        // The JSON of nft 1.0.6 doesn't say that rules may change a set.
        expected.dynamic |= found.dynamic;
        // The text has the expression that a set was declared by, the JSON its type.
        let unknown = found.opaque.as_ref().filter(|why| why.text.starts_with("type typeof "));
        if unknown.is_some() {
            (expected.opaque, expected.elements) = (found.opaque.clone(), found.elements.clone());
        }
    }
    expected
}

fn compare(found: &[Table], expected: &[Table]) -> Result<()> {
    ensure!(found.len() == expected.len(), "{} tables, not {}", found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let expected = &alike(found, expected.clone());
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

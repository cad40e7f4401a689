//! `cargo xtask mutants`: does the comparison with the kernel notice errors in the evaluator?
//!
//! In: the workspace's files as git knows them, and the deliberate errors of [`table`]. Out: a
//! Markdown table of how many cases `cargo xtask differential` needs for each error, by seed.
//! Errors are made in a copy of the workspace, `target/mutants/tree`, one at a time. The copy is
//! built and sends the packets; the working tree is only read.
//!
//! Whether unit tests would notice an error is not asked.

mod table;
mod tree;

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use unmasq_lab::Namespace;

use table::MUTANTS;
use tree::{Ran, Tree};

/// Arguments of `cargo xtask mutants`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What rulesets and packets are drawn from; each error is tried with each
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seed: Vec<u64>,
    /// How many packets are sent, for each seed, before an error counts as not noticed
    #[arg(long, default_value_t = 20_000)]
    cases: u64,
    /// Only errors whose description has this text in it
    #[arg(long)]
    only: Option<String>,
    /// Only say which errors there are
    #[arg(long)]
    list: bool,
}

/// A deliberate error.
struct Mutant {
    /// What the evaluator does wrong, in words.
    error: &'static str,
    /// The file, below crates/eval/src.
    file: &'static str,
    /// What is replaced; it is there once.
    from: &'static str,
    /// By what.
    to: &'static str,
}

/// Where the files of mutants are, in the workspace.
const SOURCES: &str = "crates/eval/src";

/// Makes one error after the other; fails if one is not noticed with every seed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let only = args.only.as_deref().unwrap_or_default();
    let mutants: Vec<&Mutant> =
        MUTANTS.iter().filter(|mutant| mutant.error.contains(only)).collect();
    if mutants.is_empty() {
        bail!("no error has {only:?} in its description; --list shows them");
    }
    if args.list {
        for Mutant { error, file, .. } in mutants {
            println!("{error} ({file})");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Err(reason) = Namespace::available() {
        bail!("can't run: {reason}");
    }
    let tree = Tree::copy()?;
    let texts: Vec<String> =
        mutants.iter().map(|mutant| mutated(mutant, &tree)).collect::<Result<_>>()?;
    agrees(&tree, args)?;
    let seeds: Vec<String> = args.seed.iter().map(|seed| format!("seed {seed}")).collect();
    println!("| error | file | {} |\n|---|---|{}", seeds.join(" | "), "--:|".repeat(seeds.len()));
    let mut noticed = 0;
    for (mutant, text) in mutants.iter().zip(texts) {
        let begin = Instant::now();
        let ran = one(mutant, &text, &tree, args)?;
        noticed += usize::from(ran.iter().all(|ran| matches!(ran, Ran::Noticed(_))));
        let cells = ran.into_iter().map(|ran| match ran {
            Ran::Noticed(case) => case,
            Ran::Agreed => "**not noticed**".to_owned(),
        });
        let cells: Vec<String> = cells.collect();
        println!("| {} | `{}` | {} |", mutant.error, mutant.file, cells.join(" | "));
        eprintln!("{}: {} s", mutant.error, begin.elapsed().as_secs());
    }
    println!("\n{noticed} of {} errors noticed within {} cases", mutants.len(), args.cases);
    Ok(if noticed == mutants.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Without any error there must be no disagreement: else the table would say nothing.
fn agrees(tree: &Tree, args: &Args) -> Result<()> {
    tree.build()?;
    for seed in &args.seed {
        if let Ran::Noticed(case) = tree.compare(args.cases, *seed)? {
            bail!("without any error, the kernel disagrees: seed {seed}, case {case}");
        }
    }
    Ok(())
}

/// Makes one error in the copy, looks who notices, and takes it back.
fn one(mutant: &Mutant, text: &str, tree: &Tree, args: &Args) -> Result<Vec<Ran>> {
    let path = tree.file(SOURCES, mutant.file);
    let original = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    let ran = tree
        .build()
        .and_then(|()| args.seed.iter().map(|seed| tree.compare(args.cases, *seed)).collect());
    fs::write(&path, original).with_context(|| format!("write {}", path.display()))?;
    ran.with_context(|| format!("with the error: {}", mutant.error))
}

/// The mutant's file with its error.
fn mutated(mutant: &Mutant, tree: &Tree) -> Result<String> {
    let path = tree.file(SOURCES, mutant.file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    apply(mutant, &text)
}

fn apply(Mutant { error, file, from, to }: &Mutant, text: &str) -> Result<String> {
    match text.matches(from).count() {
        1 => Ok(text.replacen(from, to, 1)),
        count => bail!("{error}: what it replaces is {count} times in {SOURCES}/{file}: {from}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::workspace;

    fn read(path: &str) -> String {
        fs::read_to_string(workspace::root().join(path)).unwrap()
    }

    #[test]
    fn every_error_can_be_made() {
        for mutant in MUTANTS {
            let text = read(&format!("{SOURCES}/{}", mutant.file));
            assert_ne!(apply(mutant, &text).unwrap(), text, "{}", mutant.error);
        }
    }

    #[test]
    fn there_are_twenty_different_errors() {
        assert!(MUTANTS.len() >= 20);
        let errors: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.error).collect();
        assert_eq!(errors.len(), MUTANTS.len());
        let edits: BTreeSet<_> = MUTANTS.iter().map(|m| (m.file, m.from, m.to)).collect();
        assert_eq!(edits.len(), MUTANTS.len());
    }

    #[test]
    fn what_is_replaced_must_be_there_once() {
        let mutant = Mutant { error: "e", file: "f.rs", from: "a", to: "b" };
        assert_eq!(apply(&mutant, "xay").unwrap(), "xby");
        assert!(apply(&mutant, "xy").is_err());
        let twice = apply(&mutant, "xaya").unwrap_err().to_string();
        assert!(twice.contains("e: ") && twice.contains("2 times") && twice.contains("f.rs"));
    }

    #[test]
    fn the_documented_table_has_these_errors() {
        let page = read("docs/kernel-agreement.md");
        let (_, section) = page.split_once("## How sharp the comparison is\n").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows: Vec<(&str, &str)> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split_once(" | `"))
            .filter_map(|(error, rest)| Some((error, rest.split_once('`')?.0)))
            .collect();
        let made: Vec<_> = MUTANTS.iter().map(|mutant| (mutant.error, mutant.file)).collect();
        assert_eq!(rows, made);
    }
}

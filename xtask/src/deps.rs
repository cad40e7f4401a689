//! `cargo xtask deps`: what ARCHITECTURE.md and deny.toml promise, checked.
//!
//! In: the crate table of ARCHITECTURE.md, `cargo metadata`, the crates' manifests and sources,
//! the licence list of deny.toml. Out: a sentence for each broken promise, and exit code 1 if
//! there is one. It doesn't look for iteration over unordered maps; that is left to review.

mod graph;
mod licences;
mod source;
mod table;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::workspace::{self, Metadata};

/// Runs all checks.
pub(crate) fn run() -> Result<ExitCode> {
    let root = workspace::root();
    let architecture = root.join("ARCHITECTURE.md");
    let text = fs::read_to_string(&architecture)
        .with_context(|| format!("{} can't be read", architecture.display()))?;
    let table = table::parse(&text).context("ARCHITECTURE.md")?;
    let deny = root.join("deny.toml");
    let deny_text =
        fs::read_to_string(&deny).with_context(|| format!("{} can't be read", deny.display()))?;
    let allowed = licences::allowed(&deny_text).context("deny.toml")?;
    let metadata = Metadata::load()?;

    let mut problems = graph::check(&table, &metadata);
    problems.extend(licences::check(&metadata, &allowed));
    problems.extend(source::check_lints(&root, &metadata)?);
    let mut files = 0;
    for package in &metadata.packages {
        let pure = package
            .crate_name()
            .and_then(|name| table.iter().find(|row| row.name == name))
            .is_some_and(|row| row.pure);
        if metadata.is_member(&package.id) && pure {
            let scan = source::scan(&root, package.folder())?;
            files += scan.files;
            problems.extend(scan.problems);
        }
    }

    if problems.is_empty() {
        println!(
            "{} crates, {} packages, {files} source files of pure crates: as ARCHITECTURE.md and \
             deny.toml say",
            table.len(),
            metadata.packages.len()
        );
        return Ok(ExitCode::SUCCESS);
    }
    for problem in &problems {
        println!("{problem}");
    }
    let noun = if problems.len() == 1 { "problem" } else { "problems" };
    println!("{} {noun}", problems.len());
    Ok(ExitCode::FAILURE)
}

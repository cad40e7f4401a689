//! `cargo xtask scenarios`: runs the lab's scenarios and writes a page of docs/scenarios for each, and
//! the table of what audits find in them.
//!
//! The pages are checked by the lab's tests, so that they can't drift.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use unmasq_lab::scenario::BUILTIN;
use unmasq_lab::{Namespace, findings, page, privilege, run};

use crate::workspace;

/// Arguments of `cargo xtask scenarios`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only scenarios whose names have this in them
    filter: Option<String>,
}

/// Runs and writes; fails where a run is not as foreseen and expected.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Err(reason) = privilege::isolate().and_then(|()| Namespace::available()) {
        bail!("can't run: {reason}");
    }
    let folder = workspace::root().join("docs/scenarios");
    fs::create_dir_all(&folder)?;
    let table = folder.join("findings.md");
    let kept = fs::read_to_string(&table).unwrap_or_default();
    let mut lines = String::from(findings::HEAD);
    let mut good = true;
    for (name, text) in BUILTIN {
        if args.filter.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
            // Its line stays as it is.
            let begin = format!("| [{name}](");
            let line = kept.lines().find(|line| line.starts_with(&begin));
            lines.extend(line.into_iter().flat_map(|line| [line, "\n"]));
            continue;
        }
        let report = run::run(text, &std::env::temp_dir(), &|_| {}).context(*name)?;
        eprintln!("{name}: {}", if report.is_good() { "good" } else { "NOT as foreseen" });
        good &= report.is_good();
        let path = folder.join(format!("{name}.md"));
        fs::write(&path, page::page(&report))
            .with_context(|| format!("write {}", path.display()))?;
        lines.push_str(&findings::audited(text).context(*name)?.line(name));
        lines.push('\n');
    }
    fs::write(&table, lines).with_context(|| format!("write {}", table.display()))?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

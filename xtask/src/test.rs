//! `cargo xtask test`: all tests, with what the kernel tests need.
//!
//! Installs missing Debian packages when it may, says plainly when it may not, runs
//! `cargo test --workspace` with its output as it comes, and lists at the end what was skipped
//! and why. A skipped test is never counted as passed. The exit code is that of `cargo test`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::workspace;

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Don't install packages
    #[arg(long)]
    no_install: bool,
    /// Passed on to `cargo test --workspace`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo_args: Vec<String>,
}

/// A program that kernel tests run, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("iptables-nft-restore", "iptables"),
    ("iptables-legacy-restore", "iptables"),
    ("nft", "nftables"),
    ("ipset", "ipset"),
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("sysctl", "procps"),
];

/// Runs the tests.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    prepare(args.no_install)?;

    let mut child = workspace::cargo()
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .args(&args.cargo_args)
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo test can't be run")?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        let mut out = std::io::stdout();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line.context("reading cargo test")?).into_owned();
            writeln!(out, "{line}").context("writing to standard output")?;
            tally.line(&line);
        }
    }
    let status = child.wait().context("waiting for cargo test")?;
    print!("{}", tally.summary(start.elapsed()));
    if !status.success() {
        println!("cargo test failed: {status}");
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// Installs what is missing, or says why not and what follows from it.
fn prepare(no_install: bool) -> Result<()> {
    let root = is_root();
    if !root {
        println!("not root: tests that make network namespaces will be skipped");
    }
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    let refusal = if no_install {
        Some("--no-install was given")
    } else if !root {
        Some("only root may install packages")
    } else if find("apt-get").is_none() {
        Some("there is no apt-get here")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        println!(
            "missing: {}; not installed: {refusal}. Tests that need them will be skipped. \
             Debian packages: {}",
            programs.join(", "),
            packages.join(" ")
        );
        return Ok(());
    }
    println!("missing: {}; installing {}", programs.join(", "), packages.join(" "));
    if !apt_get(&["install"], &packages)? {
        apt_get(&["update"], &[])?;
        apt_get(&["install"], &packages)?;
    }
    let still: Vec<&str> = self::missing().iter().map(|(program, _)| *program).collect();
    if !still.is_empty() {
        println!("still missing: {}. Tests that need them will be skipped", still.join(", "));
    }
    Ok(())
}

fn apt_get(command: &[&str], packages: &[&str]) -> Result<bool> {
    let status = Command::new("apt-get")
        .args(["--yes", "--quiet", "--no-install-recommends"])
        .args(command)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .with_context(|| format!("apt-get {} can't be run", command.join(" ")))?;
    Ok(status.success())
}

fn missing() -> Vec<(&'static str, &'static str)> {
    PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).copied().collect()
}

/// The program's path. Debian keeps these in sbin, which an ordinary user's PATH lacks.
fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether the effective user is root (`Uid:` in proc_pid_status(5): real, effective, …).
fn is_root() -> bool {
    fs::read_to_string(Path::new("/proc/self/status")).is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1))
            == Some("0")
    })
}

/// What the lines of `cargo test` add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Names of skipped tests by reason.
    skipped: BTreeMap<String, Vec<String>>,
}

impl Tally {
    /// Reads one line of libtest or libtest-mimic.
    fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.ignored += count(result, "ignored");
        } else if let Some((name, reason)) = ignored(line) {
            self.skipped.entry(reason.to_owned()).or_default().push(name.to_owned());
        }
    }

    fn summary(&self, took: Duration) -> String {
        let mut text = format!(
            "\n{} passed, {} failed, {} skipped, in {:.1} s\n",
            self.passed,
            self.failed,
            self.ignored,
            took.as_secs_f64()
        );
        for (reason, names) in &self.skipped {
            let reason = if reason.is_empty() { "no reason given" } else { reason };
            text.push_str(&format!("skipped, {reason}:\n"));
            for name in names {
                text.push_str(&format!("    {name}\n"));
            }
        }
        let named: usize = self.skipped.values().map(Vec::len).sum();
        let unnamed = self.ignored.saturating_sub(named as u64);
        if unnamed > 0 {
            text.push_str(&format!("skipped, not named in the output above: {unnamed}\n"));
        }
        text
    }
}

/// The number before `what` in `ok. 3 passed; 0 failed; 1 ignored; …`.
fn count(result: &str, what: &str) -> u64 {
    result
        .split([';', '.'])
        .filter_map(|part| part.trim().strip_suffix(what))
        .find_map(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// Name and reason of a skipped test. libtest prints `test NAME ... ignored, REASON`;
/// libtest-mimic 0.8 pads the name and prints `ignored (REASON)` (print_outcome_pretty in its
/// src/printer.rs). Both leave the reason out where there is none.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ignored")?;
    let reason = match outcome.trim() {
        "" => "",
        outcome => outcome
            .strip_prefix(", ")
            .or_else(|| outcome.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')))?,
    };
    Some((name.trim(), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_are_read_with_their_reasons() {
        let cases = [
            ("test a::b ... ignored", Some(("a::b", ""))),
            ("test a::b ... ignored, needs root", Some(("a::b", "needs root"))),
            ("test a      ... ignored (nft is missing (1.0))", Some(("a", "nft is missing (1.0)"))),
            ("test [kernel] a ... ignored (x)", Some(("[kernel] a", "x"))),
            ("test src/lib.rs - f (line 3) ... ignored", Some(("src/lib.rs - f (line 3)", ""))),
            ("test a ... ok", None),
            ("test a ... FAILED", None),
            ("the test a ... ignored", None),
        ];
        for (line, expected) in cases {
            assert_eq!(ignored(line), expected, "{line}");
        }
    }

    #[test]
    fn results_add_up_and_nothing_skipped_is_lost() {
        let mut tally = Tally::default();
        for line in [
            "test a ... ignored, why",
            "test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "test b    ... ignored (why)",
            "test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.50s",
        ] {
            tally.line(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.ignored), (15, 1, 3));
        let summary = tally.summary(Duration::from_millis(2500));
        assert!(summary.contains("15 passed, 1 failed, 3 skipped, in 2.5 s"), "{summary}");
        assert!(summary.contains("skipped, why:\n    a\n    b\n"), "{summary}");
        assert!(summary.contains("not named in the output above: 1"), "{summary}");
    }
}

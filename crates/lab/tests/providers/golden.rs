//! Saves states as captures, for golden answers.
//!
//! Out, for each state with a question that has one: `STATE/capture/`, as `unmasq collect` would
//! make it, without what differs from one run to the next; and `STATE/QUESTION/command`, the
//! arguments after `unmasq trace CAPTURE`. The answers themselves are the command's, and are
//! written elsewhere (`crates/cli/tests/golden.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use unmasq_host::collect::{self, Collected, Step, collect};
use unmasq_lab::network::GUARD_TABLE;
use unmasq_lab::probe::{Probe, show};
use unmasq_lab::{Namespace, Network};
use unmasq_parse::capture::{MANIFEST, Manifest, Status};

use crate::{Question, State};

/// Where golden answers are kept.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden");

/// Of bridges and their ports (`ip -d link`).
const TIMERS: [&str; 7] =
    ["hello", "tcn", "topology_change", "gc", "forward_delay", "message_age", "hold"];

/// How long a device's state takes to settle: at most a second (net/core/link_watch.c).
const SETTLED: Duration = Duration::from_secs(2);

/// Loads each state into a kernel and saves it below `folder`.
pub(crate) fn save<'a>(states: impl Iterator<Item = &'a State>, folder: &Path) -> Result<()> {
    Namespace::available().map_err(anyhow::Error::msg)?;
    for state in states.filter(|state| golden(state).next().is_some()) {
        let files = capture(&(state.load)()?).with_context(|| state.name)?;
        let place = folder.join(state.name);
        let capture = place.join("capture");
        if capture.exists() {
            fs::remove_dir_all(&capture).with_context(|| capture.display().to_string())?;
        }
        unmasq_host::capture::write(&capture, &files)?;
        for (name, question) in golden(state) {
            let place = place.join(name);
            fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
            fs::write(place.join("command"), command(question)?)?;
        }
        println!("saved {}", place.display());
    }
    Ok(())
}

/// Whether the golden folders are those of the states: none stale, none missing, none changed.
pub(crate) fn are_of<'a>(states: impl Iterator<Item = &'a State>) -> Result<()> {
    let mut expected = BTreeMap::new();
    for state in states {
        for (name, question) in golden(state) {
            expected.insert(format!("{}/{name}", state.name), command(question)?);
        }
    }
    let mut found = BTreeMap::new();
    for state in folders(Path::new(FOLDER))? {
        let place = Path::new(FOLDER).join(&state);
        for name in folders(&place)?.into_iter().filter(|name| name != "capture") {
            let command = place.join(&name).join("command");
            let text = fs::read_to_string(&command);
            let text = text.with_context(|| format!("read {}", command.display()))?;
            found.insert(format!("{state}/{name}"), text);
        }
    }
    ensure!(
        found == expected,
        "tests/golden has {found:#?}, not {expected:#?}: run cargo xtask bless --captures"
    );
    Ok(())
}

fn golden(state: &State) -> impl Iterator<Item = (&'static str, &'static Question)> {
    state.questions.iter().filter_map(|question| Some((question.golden?, question)))
}

fn folders(path: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().is_dir() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// The way in is left to the route back to the source, as a user would leave it.
fn command(question: &Question) -> Result<String> {
    let probe: Probe = question.probe.parse()?;
    let mut command = format!("--from {} --to {}", show(probe.source), show(probe.destination));
    let protocol = probe.protocol.to_string();
    if protocol != "tcp" {
        command += &format!(" --proto {}", protocol.trim_end_matches("v6"));
    }
    Ok(command + "\n")
}

/// What `unmasq collect` writes, normalised.
fn capture(network: &Network) -> Result<BTreeMap<String, Vec<u8>>> {
    // It keeps a node silent for real packets; there are none here.
    network.nft(&format!("delete table inet {GUARD_TABLE}"))?;
    thread::sleep(SETTLED);
    let Collected { files, report, .. } = collect(&collect::Options {
        node: Some("n1".into()),
        netns: Some(network.node.path()),
        ..collect::Options::default()
    })?;
    // bpftool need not be there: the lab's node has no BPF programs.
    let needed = |step: &&Step| step.status == Status::Failed && step.file != "bpf";
    if let Some(step) = report.iter().find(needed) {
        bail!("{} failed: {}", step.command, step.detail);
    }
    let normal = |(path, content): (String, Vec<u8>)| {
        let text = String::from_utf8(content).with_context(|| path.clone())?;
        let text = normalised(&path, &text).with_context(|| path.clone())?;
        Ok((path, text.into_bytes()))
    };
    files.into_iter().map(normal).collect()
}

/// Without dates, counters, hash seeds and running timers.
fn normalised(path: &str, text: &str) -> Result<String> {
    Ok(match path.rsplit('/').next().unwrap_or(path) {
        MANIFEST => {
            let mut manifest: Manifest = serde_json::from_str(text)?;
            manifest.created = Some("1970-01-01T00:00:00Z".to_owned());
            serde_json::to_string_pretty(&manifest)? + "\n"
        }
        "iptables-save" | "ip6tables-save" | "iptables-legacy-save" | "ip6tables-legacy-save" => {
            text.lines().map(|line| undated(line) + "\n").collect()
        }
        "nft.json" => zeroed(&zeroed(text, "\"packets\": "), "\"bytes\": "),
        "nft.txt" => zeroed(&zeroed(text, "counter packets "), " bytes "),
        "ipset.save" => sorted(text),
        "ip-link.json" | "ip-addr.json" => TIMERS
            .into_iter()
            .fold(text.to_owned(), |text, timer| zeroed(&text, &format!("\"{timer}_timer\":"))),
        _ => text.to_owned(),
    })
}

/// A line of iptables-save without its date, and with a policy's counters at zero.
fn undated(line: &str) -> String {
    let cut = match line.as_bytes().first() {
        Some(b'#') => line.split_once(" on ").map(|(head, _)| head.to_owned()),
        Some(b':') => line.rsplit_once(" [").map(|(head, _)| format!("{head} [0:0]")),
        _ => None,
    };
    cut.unwrap_or_else(|| line.to_owned())
}

/// `ipset save` without the seeds of hashes, and with the elements of each in order; the kernel
/// lists them by their hash.
fn sorted(text: &str) -> String {
    let mut sets: Vec<Vec<String>> = Vec::new();
    for line in text.lines() {
        match sets.last_mut() {
            Some(set) if line.starts_with("add ") => set.push(line.to_owned()),
            Some(_) | None => sets.push(vec![unseeded(line)]),
        }
    }
    for set in &mut sets {
        if let [create, elements @ ..] = &mut set[..]
            && create.contains(" hash:")
        {
            elements.sort();
        }
    }
    sets.into_iter().flatten().map(|line| line + "\n").collect()
}

/// A line of `ipset save` without ` initval 0x…`.
fn unseeded(line: &str) -> String {
    match line.split_once(" initval ") {
        Some((head, tail)) => {
            format!("{head}{}", tail.split_once(' ').map_or("", |(seed, _)| &tail[seed.len()..]))
        }
        None => line.to_owned(),
    }
}

/// With 0 for each number that follows `marker`.
fn zeroed(text: &str, marker: &str) -> String {
    let mut parts = text.split(marker);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        result += marker;
        result += if rest.len() < part.len() { "0" } else { "" };
        result += rest;
    }
    result
}

//! Every scenario of the lab, with real packets: all that happens was foreseen, and the remedy
//! does what it says.

#[path = "../trials/mod.rs"]
mod trials;

mod capture;
mod change;
mod spread;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use unmasq_lab::run::State;
use unmasq_lab::scenario::BUILTIN;
use unmasq_lab::{page, run};

fn main() -> ExitCode {
    let trial = |(name, text): &(&'static str, &'static str)| {
        let (name, text) = (*name, *text);
        (name, Box::new(move || scenario(name, text)) as Run)
    };
    let all = BUILTIN.iter().map(trial);
    trials::run(all.chain([
        ("change::refused_before_anything_is_changed", Box::new(change::refused) as Run),
        ("change::half_way_is_said_and_stays", Box::new(change::half_way) as Run),
        ("spread::uneven", Box::new(spread::uneven) as Run),
        ("capture::settings", Box::new(capture::settings) as Run),
        ("spread::extra_hop", Box::new(spread::extra_hop) as Run),
    ]))
}

type Run = Box<dyn FnOnce() -> Result<()> + Send>;

/// Everything was as foreseen and as expected, and the scenario's page says so.
fn scenario(name: &str, text: &str) -> Result<()> {
    let begin = Instant::now();
    let say = |what: &str| eprintln!("{:6} ms: {what}", begin.elapsed().as_millis());
    let report = run::run(text, &std::env::temp_dir(), &say)?;
    let wrong: Vec<String> = report.states.iter().flat_map(wrong).collect();
    if !wrong.is_empty() {
        let shown: Vec<&str> = wrong.iter().take(40).map(String::as_str).collect();
        bail!("{} things are wrong:\n{}", wrong.len(), shown.join("\n"));
    }
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/scenarios/{name}.md"));
    let kept =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let page = page::page(&report);
    if let Some((now, then)) = page.lines().zip(kept.lines()).find(|(now, then)| now != then) {
        bail!("docs/scenarios/{name}.md is old (cargo xtask scenarios):\n{then}\n{now}");
    }
    if page != kept {
        bail!("docs/scenarios/{name}.md is old (cargo xtask scenarios): another length");
    }
    Ok(())
}

/// What is not as foreseen or as expected.
fn wrong(state: &State) -> Vec<String> {
    let mut wrong = Vec::new();
    if state.connections == 0 {
        wrong.push(format!("{}: nothing was asked", state.title));
    }
    wrong.extend(state.disagreements.iter().map(|one| format!("{}: {one}", state.title)));
    let unmet = state.expectations.iter().filter(|one| !one.met);
    wrong.extend(unmet.map(|one| format!("{}: {one:?}", state.title)));
    wrong
}

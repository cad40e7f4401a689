//! `up`, and what is done with a lab that is up.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::given::{Lab, SCENARIO, UNMASQ, await_end, ends};
use crate::run::fits;

/// Every command that needs one says so; `exec` in its own way.
pub(crate) fn nothing_is_up() -> Result<()> {
    let lab = Lab::new()?;
    for (arguments, code) in [
        (&["matrix"][..], 2),
        (&["step"], 2),
        (&["capture", "-o", "capture"], 2),
        (&["down"], 2),
        (&["exec", "n1", "true"], 125),
    ] {
        let said = lab.ends(arguments, code)?.stderr;
        ensure!(said.starts_with("error: no cluster is up"), "{arguments:?}: {said}");
    }
    ensure!(!lab.folder().join("capture").exists(), "a capture of nothing");
    Ok(())
}

/// The fate of one kind of connection in a matrix.
fn fate(document: &Value, entry: &str) -> Result<String> {
    let lines = document["states"][0]["lines"].as_array().context("no lines")?;
    let line = lines.iter().find(|line| line["client"] == "customer" && line["entry"] == entry);
    Ok(line.with_context(|| format!("no {entry}"))?["fates"].to_string())
}

/// Up, the matrix, the remedy, the matrix, down.
pub(crate) fn matrix_step_down() -> Result<()> {
    let lab = Lab::up()?;
    let keeper = lab.keeper("small")?;
    let listed = lab.ends(&["list"], 0)?.stdout;
    ensure!(listed.contains("small") && listed.contains("a file's (up)"), "{listed}");
    let again = lab.ends(&["up", "small.yaml"], 2)?.stderr;
    ensure!(again.contains("small is up already"), "{again}");
    let matrix = || -> Result<Value> {
        let document = serde_json::from_str(&lab.ends(&["matrix", "-q", "--json"], 0)?.stdout)?;
        fits(&document)?;
        Ok(document)
    };
    let without = "node-port of a node without an endpoint";
    ensure!(fate(&matrix()?, without)?.contains("rewritten by kube-proxy"));
    let step = lab.ends(&["step"], 0)?.stderr;
    ensure!(step.starts_with("step 1 of 1: Set externalTrafficPolicy to Local\n"), "{step}");
    // The command, to be copied.
    ensure!(step.contains("\n  kubectl patch service web -p '{\"spec\": "), "{step}");
    ensure!(fate(&matrix()?, without)?.contains("silent"));
    let step = lab.ends(&["step"], 2)?.stderr;
    ensure!(step == "error: all 1 steps of the remedy are taken\n", "{step}");
    ensure!(lab.ends(&["down"], 0)?.stderr == "small is down\n");
    lab.nothing_is_left(keeper)
}

/// What happens is not what the captured state says: a node has a wrong hardware address of the pod,
/// which `trace` doesn't look at. The matrix ends with 1, and with a command that works.
pub(crate) fn disagreement() -> Result<()> {
    let lab = Lab::up()?;
    let spoil = "ip neigh replace 10.42.1.3 lladdr 02:00:00:00:00:99 nud permanent dev cni0";
    let pod = lab.inside("web", &["hostname", "-I"])?;
    lab.inside("n1", &["sh", "-c", &spoil.replace("10.42.1.3", pod.trim())])?;
    let text = ends(lab.command(&["matrix", "-q"]).env("COLUMNS", "60"), 1)?.stdout;
    ensure!(
        text.contains("NOT as foreseen") && text.contains("Not as foreseen, as found"),
        "{text}"
    );
    let (_, command) = text.split_once("To look at the first:\n").context("no command")?;
    works(&lab, command)?;
    let document = lab.ends(&["matrix", "-q", "--json"], 1)?.stdout;
    let document: Value = serde_json::from_str(&document)?;
    fits(&document)?;
    let all = document["states"][0]["disagreements"].as_array().context("none")?;
    ensure!(!all.is_empty(), "{document:#}");
    for one in all {
        works(&lab, one["trace"].as_str().with_context(|| format!("{one}"))?)?;
    }
    Ok(())
}

/// A shell takes the command as it stands, and it answers.
fn works(lab: &Lab, command: &str) -> Result<()> {
    let mut shell = Command::new("sh");
    let path = std::env::var("PATH").unwrap_or_default();
    let binary = Path::new(UNMASQ).parent().context("no folder")?;
    shell.args(["-ec", command]).env("PATH", format!("{}:{path}", binary.display()));
    let said = ends(shell.current_dir(lab.folder().join("..")), 0)?;
    let kept = said.stdout.contains("source PRESERVED") || said.stdout.contains("source REWRITTEN");
    ensure!(kept && said.stderr.is_empty(), "{command}: {}{}", said.stdout, said.stderr);
    Ok(())
}

/// Of the one that is up, by name or not; of one that is built for it.
pub(crate) fn capture() -> Result<()> {
    let lab = Lab::up()?;
    lab.ends(&["step"], 0)?;
    // What is up has taken a step, which what is built for it has not.
    for (arguments, fate) in [
        (&["capture", "-o", "one"][..], "preserved"),
        (&["capture", "small", "-o", "two.tar.gz"], "preserved"),
    ] {
        captured(&lab, arguments, fate)?;
    }
    lab.ends(&["down"], 0)?;
    captured(&lab, &["capture", "-q", "small.yaml", "-o", "three"], "rewritten")?;
    let said = lab.ends(&["capture", "small.yaml", "-o", "three"], 2)?.stderr;
    ensure!(said.contains("three is not empty"), "{said}");
    Ok(())
}

fn captured(lab: &Lab, arguments: &[&str], fate: &str) -> Result<()> {
    let output = arguments.last().context("no file")?;
    let said = lab.ends(arguments, 0)?.stderr;
    ensure!(said.contains("captured small into ") && said.contains(output), "{said}");
    let mut trace = Command::new(UNMASQ);
    trace.args(["trace", output, "--node", "n1", "--expect", fate]);
    trace.args(["--from", "198.51.100.20:41000", "--to", "10.0.0.11:30080"]);
    ends(trace.current_dir(lab.folder()), 0).map(drop)
}

/// Each is asked by its name; without one it is told which there are.
pub(crate) fn two_at_once() -> Result<()> {
    let lab = Lab::up()?;
    let other = SCENARIO.replace("name: small", "name: other").replace("n2", "n9");
    let file = lab.file("other.yaml", &other)?;
    lab.ends(&["up", "-q", &file], 0)?;
    let said = lab.ends(&["exec", "n1", "true"], 125)?.stderr;
    ensure!(said == "error: several clusters are up, say which: other, small\n", "{said}");
    let name = |scenario: &str, host: &str| {
        lab.ends(&["exec", "--scenario", scenario, host, "hostname"], 0)
    };
    ensure!(name("other", "n9")?.stdout == "n9\n" && name("small", "n2")?.stdout == "n2\n");
    let said = lab.ends(&["exec", "--scenario", "other", "n2", "true"], 125)?.stderr;
    ensure!(said.contains("other has no host \"n2\"; it has "), "{said}");
    // The same addresses, and neither hears the other.
    lab.ends(&["matrix", "-q", "small"], 0)?;
    lab.ends(&["matrix", "-q", "other"], 0)?;
    lab.ends(&["down", "other"], 0)?;
    ensure!(lab.inside("n2", &["hostname"])? == "n2\n", "the other one went too");
    lab.ends(&["up", "-q", &file], 0)?;
    let said = lab.ends(&["down", "--all"], 0)?.stderr;
    ensure!(said == "other is down\nsmall is down\n", "{said}");
    lab.nothing_runs()
}

/// Its process is killed: nothing is left, in the background of a host neither.
pub(crate) fn killed() -> Result<()> {
    let lab = Lab::up()?;
    let keeper: Pid = lab.keeper("small")?;
    lab.inside("web", &["sh", "-c", "setsid sleep 4711 >/dev/null 2>&1 &"])?;
    ensure!(lab.runs("sleep 4711")?, "{:?}", lab.processes()?);
    let process = pidfd_open(keeper, PidfdFlags::empty())?;
    pidfd_send_signal(process, Signal::KILL)?;
    await_end(keeper)?;
    lab.nothing_is_left(keeper)?;
    let listed = lab.ends(&["list"], 0)?.stdout;
    ensure!(!listed.contains("(up)"), "{listed}");
    lab.ends(&["up", "-q", "small.yaml"], 0)?;
    ensure!(lab.inside("n1", &["hostname"])? == "n1\n");
    lab.ends(&["down", "small"], 0)?;
    let files = fs::read_dir(lab.folder())?.count();
    ensure!(files == 2, "more than the scenario and the list");
    Ok(())
}

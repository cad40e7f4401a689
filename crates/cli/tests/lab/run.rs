//! `list`, `show`, `run`.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use unmasq_lab::scenario::BUILTIN;

use crate::given::{Lab, SCENARIO, ends};

/// Every scenario, and with `--json` each with what it shows.
pub(crate) fn list() -> Result<()> {
    let lab = Lab::new()?;
    let text = lab.ends(&["list"], 0)?.stdout;
    let listed: Value = serde_json::from_str(&lab.ends(&["list", "--json"], 0)?.stdout)?;
    let listed = listed.as_array().context("no array")?;
    ensure!(listed.len() == BUILTIN.len(), "{listed:?}");
    for ((name, _), one) in BUILTIN.iter().zip(listed) {
        ensure!(text.lines().any(|line| line.starts_with(name)), "{name} is not in {text}");
        ensure!(one["name"] == *name && one["up"] == false, "{one}");
        ensure!(one["title"].is_string() && one["about"].is_string(), "{one}");
    }
    Ok(())
}

/// The file as it is.
pub(crate) fn show() -> Result<()> {
    let lab = Lab::new()?;
    let (name, text) = BUILTIN.first().context("no scenario")?;
    ensure!(lab.ends(&["show", name], 0)?.stdout == *text, "another text");
    Ok(())
}

/// Whatever is wrong with a file: code 2, its name, and `error:` once.
pub(crate) fn wrong_scenarios() -> Result<()> {
    let lab = Lab::new()?;
    let nodes = "nodes: [10.0.0.0/24]}";
    for (wrong, reason) in [
        (SCENARIO.replace("title: A", "titel: A"), "unknown field `titel`"),
        (SCENARIO.replace("pods:\n", "pods: [\n"), "line"),
        (SCENARIO.replace("{from: customer", "{from: nobody"), "nobody"),
        (SCENARIO.replace(nodes, "nodes: [10.9.0.0/24]}"), "10.0.0.11 is not in network: nodes"),
        (
            SCENARIO.replace("clusterIPs: [10.43.0.80]", "clusterIPs: nothing"),
            "Service default/web",
        ),
    ] {
        ensure!(wrong != SCENARIO, "{reason}: nothing is wrong");
        let file = lab.file("wrong.yaml", &wrong)?;
        for command in ["run", "up", "matrix"] {
            let said = lab.ends(&[command, &file], 2)?.stderr;
            let start = format!("error: {file}: ");
            ensure!(said.starts_with(&start) && said.contains(reason), "{reason}: {said}");
            ensure!(said.matches("error").count() == 1, "{said}");
        }
    }
    let said = lab.ends(&["run", "nonsense"], 2)?.stderr;
    ensure!(said.starts_with("error: \"nonsense\" is no file and no scenario"), "{said}");
    Ok(())
}

/// All is as foreseen and as expected.
pub(crate) fn good() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.file("small.yaml", SCENARIO)?;
    let said = lab.ends(&["run", &file], 0)?;
    for part in [
        "small: A node port hides its clients\n",
        "\nExpected, as found\n",
        "  ok  customer to service/default/web by node-port of n2: rewritten\n",
        "\nExpected, Set externalTrafficPolicy to Local\n",
        "  ok  customer to service/default/web by node-port of n2: silent\n",
        "\nChanged by the remedy\n  customer -> node-port of a node with an endpoint, ipv4\n",
        "\nRules that rewrote sources, as found\n",
    ] {
        ensure!(said.stdout.contains(part), "{part:?} is not in {}", said.stdout);
    }
    ensure!(!said.stdout.contains('\x1b'), "colours in a pipe: {}", said.stdout);
    ensure!(said.stderr.contains("step 1 of 1: Set externalTrafficPolicy to Local …"));
    ensure!(lab.ends(&["run", "-q", &file], 0)?.stderr.is_empty(), "-q says something");
    lab.nothing_runs()
}

/// An expectation that is wrong: code 1, with what was seen.
pub(crate) fn not_met() -> Result<()> {
    let lab = Lab::new()?;
    let wrong = SCENARIO.replace("via: n1, before: rewritten", "via: n1, before: preserved");
    ensure!(wrong != SCENARIO);
    let file = lab.file("wrong.yaml", &wrong)?;
    let text = lab.ends(&["run", "-q", &file], 1)?.stdout;
    for part in [
        "all as foreseen, 1 of 2 expectations NOT met",
        "  NO  customer to service/default/web by node-port of n1: preserved, but it",
    ] {
        ensure!(text.contains(part), "{part:?} is not in {text}");
    }
    Ok(())
}

/// A real run's document, and what is wrong with it when a field of it is broken.
pub(crate) fn json() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.file("small.yaml", SCENARIO)?;
    let good: Value = serde_json::from_str(&lab.ends(&["run", "-q", "--json", &file], 0)?.stdout)?;
    fits(&good)?;
    ensure!(good["states"].as_array().map(Vec::len) == Some(2), "{good:#}");
    ensure!(good["states"][0]["expectations"][0]["seen"]["rewritten"] == 1, "{good:#}");
    for field in ["/states/0/lines/0/client", "/states/1/rewriters", "/remedy/0/how", "/schema"] {
        let mut broken = good.clone();
        *broken.pointer_mut(field).with_context(|| format!("no {field}"))? = Value::Bool(true);
        ensure!(fits(&broken).is_err(), "{field} may be anything");
    }
    let mut more = good;
    more["states"][0]["lines"][0]["extra"] = Value::Null;
    ensure!(fits(&more).is_err(), "a field that the schema doesn't have is let through");
    Ok(())
}

/// Whether a document fits schemas/lab-run.v1.json.
pub(crate) fn fits(document: &Value) -> Result<()> {
    let schema: Value = serde_json::from_str(include_str!("../../../../schemas/lab-run.v1.json"))?;
    let validator = jsonschema::validator_for(&schema)?;
    let errors: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    ensure!(errors.is_empty(), "{errors:#?}\n{document:#}");
    Ok(())
}

/// Nothing is wider than the terminal, whatever its width.
pub(crate) fn narrow() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.file("small.yaml", SCENARIO)?;
    for (width, arguments, code) in [
        ("40", vec!["list"], 0),
        ("60", vec!["list"], 0),
        ("50", vec!["run", &file], 0),
        ("100", vec!["run", &file], 0),
        ("45", vec!["run", "nonsense"], 2),
        ("45", vec!["step"], 2),
    ] {
        let said = ends(lab.command(&arguments).env("COLUMNS", width), code)?;
        let columns: usize = width.parse()?;
        for line in said.stdout.lines().chain(said.stderr.lines()) {
            // A word that is too long has a line of its own.
            let word = line.trim_start().contains(' ');
            ensure!(!word || line.chars().count() <= columns, "{arguments:?} at {width}: {line}");
        }
        ensure!(said.stdout.len() + said.stderr.len() > columns, "{arguments:?}: nothing to wrap");
    }
    Ok(())
}

/// Ctrl-C in the middle leaves nothing.
pub(crate) fn interrupted() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.file("small.yaml", SCENARIO)?;
    let run = lab.command(&["run", &file]);
    // What a script starts with `&` ignores it, and so does all that this starts in turn.
    let mut heard = Command::new("env");
    heard.arg("--default-signal=INT").arg(run.get_program()).args(run.get_args());
    heard.current_dir(lab.folder()).env("TMPDIR", lab.folder()).stdin(Stdio::null());
    let mut child = heard.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let pid = Pid::from_child(&child);
    let stderr = BufReader::new(child.stderr.take().context("no stderr")?);
    let mut lines = stderr.lines();
    let asking = lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with("; asking …")));
    ensure!(asking.is_some(), "it never asked");
    kill_process(pid, Signal::INT)?;
    let status = child.wait()?;
    ensure!(status.signal() == Some(Signal::INT.as_raw()), "{status}");
    lab.nothing_is_left(pid)?;
    let files: Vec<_> = std::fs::read_dir(lab.folder())?.collect::<Result<_, _>>()?;
    ensure!(files.len() == 1, "more than the scenario: {files:?}");
    Ok(())
}

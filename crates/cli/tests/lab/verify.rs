//! `unmasq verify --lab`: a scenario before and after its remedy.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::given::{Lab, Said, ends};

const NAME: &str = "canal-unused-pool";
const FINDING: &str = "calico-unused-pool";

fn verify(lab: &Lab, arguments: &[&str], code: i32) -> Result<Said> {
    let mut command: Command = lab.unmasq(&["verify", "-q", "--lab", NAME]);
    ends(command.args(arguments), code)
}

/// What it prints as JSON, which fits its schema.
fn document(lab: &Lab, arguments: &[&str], code: i32) -> Result<Value> {
    let said = verify(lab, &[&["--json"], arguments].concat(), code)?;
    let document: Value = serde_json::from_str(&said.stdout)?;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/verify.v1.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let validator = jsonschema::validator_for(&schema)?;
    let errors: Vec<String> =
        validator.iter_errors(&document).map(|error| error.to_string()).collect();
    ensure!(errors.is_empty(), "{errors:?}\n{document:#}");
    let totals = &document["totals"];
    let count = |name: &str| totals[name].as_u64().context("a total");
    let checks = document["checks"].as_array().context("checks")?.len() as u64;
    ensure!(count("concerned")? == checks + count("left_out")?, "{totals}");
    Ok(document)
}

/// What was predicted and what was observed of a call of the laptop's by TCP.
fn laptop(document: &Value, to: &str) -> Result<(Value, Value)> {
    let checks = document["checks"].as_array().context("checks")?;
    let is_it = |check: &&Value| {
        check["from"]["name"] == "laptop" && check["to"] == to && check["protocol"] == "tcp"
    };
    let check = checks.iter().find(is_it).with_context(|| format!("no call of {to}"))?;
    Ok((check["predicted"][0].clone(), check["observed"][0].clone()))
}

fn is(one: &Value, what: &str, source: Option<&str>) -> Result<()> {
    ensure!(one["is"] == what, "{one}");
    if let Some(source) = source {
        let seen = one["source"].as_str().context("a source")?;
        ensure!(seen == source || seen.starts_with(&format!("{source}:")), "{one}");
    }
    Ok(())
}

/// Predictions hold before the remedy and after it; those of before don't hold after it.
pub(crate) fn before_and_after() -> Result<()> {
    let lab = Lab::new()?;
    lab.ends(&["up", "-q", NAME], 0)?;
    let all = document(&lab, &[], 0)?;
    ensure!(all["verdict"] == "as_predicted" && all["totals"]["differs"] == 0, "{all:#}");
    for entry in ["pod", "node", "outside", "cluster_ip", "node_port"] {
        let checks = all["checks"].as_array().context("checks")?;
        ensure!(checks.iter().any(|check| check["entry"] == entry), "nothing by {entry}");
    }
    let (predicted, observed) = laptop(&all, "10.0.0.11:30080")?;
    is(&predicted, "rewritten", Some("10.0.0.11"))?;
    is(&observed, "rewritten", Some("10.0.0.11"))?;
    let (predicted, observed) = laptop(&all, "10.0.0.13:30080")?;
    is(&predicted, "silence", None)?;
    is(&observed, "silence", None)?;

    // Only the laptop is hurt by the pool.
    let own = document(&lab, &[FINDING], 0)?;
    let callers = own["checks"].as_array().context("checks")?;
    ensure!(!callers.is_empty() && callers.iter().all(|one| one["from"]["name"] == "laptop"));
    lab.ends(&["capture", "-o", "before"], 0)?;
    lab.ends(&["step"], 0)?;

    let all = document(&lab, &[], 0)?;
    ensure!(all["verdict"] == "as_predicted", "{all:#}");
    let (predicted, observed) = laptop(&all, "10.0.0.11:30080")?;
    is(&predicted, "preserved", None)?;
    is(&observed, "preserved", Some("192.168.7.20"))?;

    // What has changed, by a capture of now, and as the plan foretold it then.
    for arguments in [&["--since", "before"][..], &[FINDING, "before", "--fixed"]] {
        let changed = document(&lab, arguments, 0)?;
        let (predicted, observed) = laptop(&changed, "10.0.0.12:30080")?;
        is(&predicted, "preserved", None)?;
        is(&observed, "preserved", Some("192.168.7.20"))?;
        let callers = changed["checks"].as_array().context("checks")?;
        ensure!(callers.iter().all(|one| one["from"]["name"] == "laptop"), "{changed:#}");
    }
    let said = verify(&lab, &[FINDING], 2)?.stderr;
    ensure!(said.contains("there is no finding calico-unused-pool here"), "{said}");

    // A prediction of before the remedy is wrong by now.
    let old = document(&lab, &[FINDING, "before"], 1)?;
    ensure!(old["verdict"] == "differs", "{old:#}");
    let said = verify(&lab, &[FINDING, "before"], 1)?.stdout;
    for line in [
        "DIFFERS: ",
        "Otherwise than predicted",
        "  tcp laptop -> node port 10.0.0.11:30080 of default/web\n",
        "    predicted  source rewritten to 10.0.0.11, at pod default/web-1,",
        "    observed   source preserved, at pod default/web-1,",
    ] {
        ensure!(said.contains(line), "{line}: {said}");
    }
    Ok(())
}

/// A cluster that is built for it, and ends with it; a bound that is told.
pub(crate) fn alone() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.file("small.yaml", crate::given::SCENARIO)?;
    let mut command = lab.unmasq(&["verify", "-q", "--lab", &file, "--max", "9"]);
    let said = ends(&mut command, 0)?.stdout;
    ensure!(said.starts_with("AS PREDICTED: "), "{said}");
    ensure!(said.contains("more than are to be tried"), "{said}");
    lab.nothing_runs()
}

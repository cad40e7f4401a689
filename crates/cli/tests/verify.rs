//! `unmasq verify` on a capture: what to start on hosts, and what came of it.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

fn verify(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unmasq"));
    command.args(["verify", "examples/canal-rke"]).args(arguments).env_remove("COLUMNS");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).output().unwrap()
}

fn said(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}{told}");
    text
}

const LAPTOP: [&str; 2] = ["--outside", "laptop=192.168.7.20"];

fn of_pool() -> Output {
    Command::new(env!("CARGO_BIN_EXE_unmasq"))
        .args(["verify", "calico-unused-pool", "examples/canal-rke"])
        .args(LAPTOP)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .unwrap()
}

#[test]
fn what_to_start_where() {
    let text = said(&of_pool(), 0);
    for line in [
        "# on pod default/web-1 on node n1, and leave it running:",
        "# on laptop, when the others run:",
        "#   10.0.0.11:30080: source rewritten to 10.0.0.11, at pod default/web-1,",
        "unmasq probe --json --tcp --from 192.168.7.20 10.0.0.11:30080 10.0.0.12:30080 > observed-1.json",
        "unmasq probe --json --udp --from 192.168.7.20 10.0.0.11:30080 10.0.0.12:30080 > observed-2.json",
        "# Left out, 3: what a router outside does with it is not known",
        "# then the same command with --observed observed-*.json",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // A shell may take all of it: every line is a comment or a command of ours.
    let odd = |line: &&str| {
        !["# ", "#   ", "unmasq echo ", "unmasq probe "].iter().any(|one| line.starts_with(one))
    };
    assert_eq!(text.lines().find(odd), None);
}

#[test]
fn clients_that_are_not_named_are_to_be_found() {
    let text = said(&verify(&[]), 0);
    for line in [
        "# on somebody outside of 192.168.0.0/16, when the others run:",
        "# on somebody outside, when the others run:",
        "# Hosts outside are named with --outside NAME=ADDR.",
        ": no host outside is named that could be called",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("203.0.113.77"), "an address that stands for anybody: {text}");
}

/// A probe's answer about one connection of the laptop's.
fn observation(to: &str, seen: Option<&str>) -> Value {
    let from = "192.168.7.20:41000";
    let outcome = match seen {
        Some(seen) => json!({"is": "answered", "report": {
            "by": "web", "protocol": "tcp", "source": seen, "destination": at(to), "request": "",
        }}),
        None => json!({"is": "silent", "connected": false}),
    };
    let source = match seen {
        Some(seen) if seen.starts_with("192.168.7.20:") => "preserved",
        Some(_) => "rewritten",
        None => "unknown",
    };
    let mut all = json!({
        "protocol": "tcp", "target": to, "from": from, "source": source, "outcome": outcome,
        "milliseconds": 3,
    });
    if let Some(seen) = seen {
        all["seen"] = seen.into();
    }
    all
}

/// Where the example's endpoints are, by the node.
fn at(to: &str) -> String {
    let text = said(&of_pool(), 0);
    let line = text.lines().find(|line| line.starts_with(&format!("#   {to}: "))).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

fn judged(observations: &[Value], code: i32) -> Value {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("observed-1.json");
    let document = json!({"schema": "unmasq.probe/v1", "observations": observations});
    std::fs::write(&file, document.to_string()).unwrap();
    let file = file.display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_unmasq"))
        .args(["verify", "calico-unused-pool", "examples/canal-rke"])
        .args(LAPTOP)
        .args(["--json", "--observed", &file])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .unwrap();
    let document: Value = serde_json::from_str(&said(&output, code)).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/verify.v1.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{document:#}");
    document
}

#[test]
fn what_was_observed_is_set_beside_it() {
    let (one, two) = ("10.0.0.11:30080", "10.0.0.12:30080");
    // Two of four: UDP is not seen.
    let some = [
        observation(one, Some("10.0.0.11:1024")),
        observation(two, Some("10.0.0.12:1024")),
        observation("192.0.2.1:9", None),
    ];
    let document = judged(&some, 3);
    assert_eq!(document["totals"]["as_predicted"], 2, "{document:#}");
    assert_eq!(document["totals"]["strays"], 1);
    assert_eq!(document["totals"]["unseen"], 2);
    // One is enough to say that it isn't so.
    for other in [Some("192.168.7.20:41000"), Some("10.0.0.12:1024"), None] {
        let document = judged(&[observation(one, other)], 1);
        assert_eq!(document["verdict"], "differs", "{document:#}");
    }
}

#[test]
fn what_does_not_fit_together_is_said() {
    for (arguments, expected) in [
        (&["--fixed"][..], "--fixed is for findings"),
        (&["--observed", "Cargo.toml"], "not what unmasq probe --json prints"),
        (&["--outside", "laptop"], "a name and addresses are expected"),
        (&["--outside", "laptop=x"], "\"x\" is no address"),
    ] {
        let output = verify(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(expected), "{told}");
    }
}

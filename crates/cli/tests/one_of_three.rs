//! A finding that is an error for one of three Services and for information for the others, from the
//! verdict to the plan that mends the one.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

#[path = "../../audit/tests/three_services/mod.rs"]
mod three_services;

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const ERROR: &str = "external-traffic-policy-cluster/breaking";
const INFO: &str = "external-traffic-policy-cluster/rest";

/// The capture, with an expectation of one of its Services.
fn capture() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let expected = "schema: unmasq.expect/v1\npreserved:\n\
                    \x20 - {name: customers, from: [outside], to: [service/shop/web]}\n";
    let mut files = three_services::capture("");
    files.insert("expect.yaml".to_owned(), expected.into());
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn unmasq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_unmasq")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What it prints with `--json`, held against its schema.
fn document(arguments: &[&str], schema: &str) -> Value {
    let output = unmasq(&[arguments, &["--json"]].concat());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = format!("{}/../../schemas/{schema}", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&document).map(|one| one.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{document:#}");
    document
}

/// Subject, severity and Services of the findings about the policy.
fn findings(document: &Value) -> Vec<(String, String, usize)> {
    let all = document["findings"].as_array().unwrap().iter();
    let found = all.filter(|one| one["id"] == "external-traffic-policy-cluster");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let services = |one: &Value| one["affected"]["services"].as_array().unwrap().len();
    found.map(|one| (text(&one["subject"]), text(&one["severity"]), services(one))).collect()
}

#[test]
fn an_audit_tells_them_apart() {
    let capture = capture();
    let path = capture.path().to_str().unwrap();
    let found =
        |of: &[&str]| findings(&document(&[&["audit", path], of].concat(), "audit.v1.json"));
    let one =
        |subject: &str, severity: &str, count| (subject.to_owned(), severity.to_owned(), count);
    let (error, info) = (one("breaking", "error", 1), one("rest", "info", 2));
    assert_eq!(found(&[]), [error.clone(), info.clone()]);
    // They have rows in common: a Service's own audit has its own finding alone.
    assert_eq!(found(&["--service", "shop/web"]), [error]);
    assert_eq!(found(&["--service", "shop/api"]), [info]);
    let text = said(&unmasq(&["audit", path]));
    assert!(text.starts_with("1 error: 1 of 3 Services loses its clients' addresses\n"), "{text}");
    let good = unmasq(&["audit", path, "--service", "shop/api", "--fail-on", "error"]);
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
}

/// The Services that a plan patches, and what an audit finds then that it doesn't find now.
fn planned(finding: &str, path: &str) -> (Vec<String>, usize) {
    // A pod that calls the node port of another node may get an endpoint of its own node, whose
    // answer doesn't come back by the other one.
    let accepted = [
        "--accept",
        "unanswered/node-port/shop/api",
        "--accept",
        "unanswered/node-port/shop/docs",
        "--accept",
        "unanswered/node-port/shop/web",
    ];
    let plan = document(&[&["fix", finding, path], &accepted[..]].concat(), "fix.v1.json");
    let steps = plan["plan"]["steps"].as_array().unwrap_or_else(|| panic!("{plan:#}"));
    let deeds = steps.iter().flat_map(|step| step["deeds"].as_array().unwrap());
    let patched = deeds.map(|deed| {
        assert_eq!(deed["patch"]["spec"]["externalTrafficPolicy"], "Local", "{deed:#}");
        let [kind, namespace, name] =
            ["resource", "namespace", "name"].map(|field| deed[field].as_str().unwrap());
        format!("{kind} {namespace}/{name}")
    });
    (patched.collect(), plan["plan"]["new_findings"].as_array().unwrap().len())
}

#[test]
fn a_plan_touches_no_other_service() {
    let capture = capture();
    let path = capture.path().to_str().unwrap();
    assert_eq!(planned(ERROR, path), (vec!["service shop/web".to_owned()], 0));
    // All errors are this one.
    assert_eq!(planned("--all", path).0, ["service shop/web"]);
    let others = ["service shop/api".to_owned(), "service shop/docs".to_owned()];
    assert_eq!(planned(INFO, path), (others.to_vec(), 0));
    // Without a subject it is all of that kind.
    assert_eq!(planned("external-traffic-policy-cluster", path).0.len(), 3);
}

#[test]
fn a_single_finding_is_explained_by_the_page_of_its_kind() {
    let [one, kind] =
        [ERROR, "external-traffic-policy-cluster"].map(|name| unmasq(&["explain", name]));
    assert!(one.status.success(), "{}", said(&one));
    assert_eq!(said(&one), said(&kind));
    let wrong = unmasq(&["explain", "docs/findings"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
}

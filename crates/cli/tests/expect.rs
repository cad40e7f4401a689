//! `unmasq expect init`, on a capture that the test writes.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const SERVICES: &str = r#"{"kind": "List", "apiVersion": "v1", "items": [
{"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "shop", "name": "web"},
 "spec": {"type": "NodePort", "externalTrafficPolicy": "Local", "clusterIP": "10.43.0.80",
          "ports": [{"port": 80, "nodePort": 30080}]}}]}"#;

fn init(capture: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unmasq"));
    command.args(["expect", "init"]).arg(capture).args(more).output().unwrap()
}

fn capture() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("kubernetes")).unwrap();
    fs::write(folder.path().join("kubernetes/services.json"), SERVICES).unwrap();
    folder
}

#[test]
fn a_proposal_is_printed_and_can_be_read() {
    let capture = capture();
    let output = init(capture.path(), &[]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("to: [service/shop/web]"), "{text}");
    let found = unmasq_audit::expect::parse(&text, "expect.yaml").unwrap();
    assert_eq!(found.preserved.len(), 1);
}

#[test]
fn a_file_is_written_once() {
    let capture = capture();
    let path = capture.path().join("expect.yaml");
    let arguments = ["-o", path.to_str().unwrap()];
    assert!(init(capture.path(), &arguments).status.success());
    let first = fs::read_to_string(&path).unwrap();
    assert!(first.contains("schema: unmasq.expect/v1"), "{first}");
    fs::write(&path, "mine").unwrap();
    let output = init(capture.path(), &arguments);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn a_capture_that_is_not_there() {
    assert_eq!(init(Path::new("/no/such/capture"), &[]).status.code(), Some(2));
}

//! `unmasq diff`: settings by their names, and the document.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");

/// A copy of an example with texts of its files replaced.
fn changed(example: &str, changes: &[(&str, &str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = Path::new(EXAMPLES).join(example);
    let copied = Command::new("cp").arg("-r").arg(from).arg(folder.path().join("c")).status();
    assert!(copied.unwrap().success());
    for (file, old, new) in changes {
        let path = folder.path().join("c").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{file}: {old}");
        fs::write(&path, text.replace(old, new)).unwrap();
    }
    folder
}

/// What `unmasq diff` of an example and its copy prints, and its exit code.
fn diff(example: &str, after: &TempDir, more: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unmasq"));
    command.arg("diff").arg(Path::new(EXAMPLES).join(example)).arg(after.path().join("c"));
    let output = command.args(more).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

/// The document, held against its schema.
fn document(example: &str, after: &TempDir) -> (Value, Option<i32>) {
    let (text, code) = diff(example, after, &["--json"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/diff.v1.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{document:#}");
    (document, code)
}

#[test]
fn settings_are_compared_by_name_wherever_they_stand() {
    let after = changed(
        "flannel-host",
        &[
            (
                "nodes/hdss7-21/processes",
                "--cluster-cidr=172.7.0.0/16",
                "--cluster-cidr=172.7.21.0/24",
            ),
            (
                "nodes/hdss7-22/processes",
                "--cluster-cidr=172.7.0.0/16",
                "--cluster-cidr=172.7.21.0/24",
            ),
            ("nodes/hdss7-23/files/etc/docker/daemon.json", "{", "{\n  \"ip-masq\": false,"),
        ],
    );
    let (document, code) = document("flannel-host", &after);
    assert_eq!((code, &document["differs"]), (Some(1), &json!(true)));
    assert_eq!(
        document["settings"],
        json!([
            {
                "component": "Docker", "setting": "ip-masq", "before": null, "after": "false",
                "places": ["node hdss7-23, /etc/docker/daemon.json: ip-masq"],
            },
            {
                "component": "kube-proxy", "setting": "clusterCIDR",
                "before": "172.7.0.0/16", "after": "172.7.21.0/24",
                "places": [
                    "node hdss7-21, kube-proxy --cluster-cidr",
                    "node hdss7-22, kube-proxy --cluster-cidr",
                ],
            },
        ])
    );
    let (text, _) = diff("flannel-host", &after, &[]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in [
        "Docker ip-masq: not set -> false (node hdss7-23, /etc/docker/daemon.json: ip-masq)",
        "kube-proxy clusterCIDR: 172.7.0.0/16 -> 172.7.21.0/24 (node hdss7-21, kube-proxy --cluster-cidr, node hdss7-22, kube-proxy --cluster-cidr)",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn a_pool_its_object_and_the_answers_that_change() {
    let pools = "kubernetes/ippools.crd.projectcalico.org.json";
    let rule = "-A cali-nat-outgoing -m comment";
    let after = changed(
        "canal-rke",
        &[
            (pools, "\"natOutgoing\": true", "\"natOutgoing\": false"),
            ("nodes/n1/iptables-save", rule, "-A cali-nat-outgoing -s 10.9.9.9/32 -m comment"),
        ],
    );
    let (document, code) = document("canal-rke", &after);
    assert_eq!(code, Some(1));
    let setting = &document["settings"][0];
    assert_eq!(setting["component"], "Calico");
    assert_eq!(setting["setting"], "natOutgoing of pool default-ipv4-ippool");
    assert_eq!((&setting["before"], &setting["after"]), (&json!("true"), &json!("false")));
    assert_eq!(document["objects"][0]["patch"], json!({"spec": {"natOutgoing": false}}));
    assert_eq!(document["objects"][0]["back"], json!({"spec": {"natOutgoing": true}}));
    let [chain] = &document["rules"].as_array().unwrap()[..] else { panic!("{document:#}") };
    assert_eq!((&chain["node"], &chain["chain"]), (&json!("n1"), &json!("cali-nat-outgoing")));
    assert!(document["asked"].as_u64().unwrap() > 0);
    let better = document["changes"].as_array().unwrap().iter();
    assert!(better.clone().count() > 0 && better.clone().all(|one| one["direction"] == "better"));
}

#[test]
fn of_equal_captures_nothing_differs() {
    let after = changed("canal-rke", &[]);
    let (document, code) = document("canal-rke", &after);
    assert_eq!((code, &document["differs"]), (Some(0), &json!(false)));
    for list in ["gone", "new", "settings", "objects", "files", "rules", "changes"] {
        assert_eq!(document[list], json!([]), "{list}");
    }
    assert_eq!(document["not_asked"], Value::Null);
}

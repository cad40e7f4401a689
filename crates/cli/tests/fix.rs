//! `unmasq fix` on the examples: what it plans, what it refuses, and how it says so.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use std::process::{Command, Output};

use serde_json::Value;

fn fix(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unmasq"));
    command.arg("fix").args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it with `--json`, and holds what it prints against the schema.
fn document(arguments: &[&str]) -> (Value, Option<i32>) {
    let output = fix(&[arguments, &["--json"]].concat());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/fix.v1.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{document:#}");
    (document, output.status.code())
}

#[test]
fn an_unused_pool_is_switched_off_and_felix_does_the_rest() {
    let output = fix(&["calico-unused-pool", "examples/canal-rke"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    for line in [
        "PLAN: mends 1 finding;",
        "- spec.natOutgoing: true",
        "+ spec.natOutgoing: false",
        "Felix withdraws its masquerade rule, because no pool has natOutgoing",
        "+ REWRITTEN -> PRESERVED  somebody outside",
        "conntrack -L --src-nat",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let (plan, code) = document(&["calico-unused-pool", "examples/canal-rke"]);
    let patch = &plan["plan"]["steps"][0]["deeds"][0];
    assert_eq!((code, &patch["kind"]), (Some(0), &Value::from("object")));
    assert_eq!(patch["patch"]["spec"]["natOutgoing"], false);
    assert_eq!(patch["back"]["spec"]["natOutgoing"], true);
    assert_eq!(plan["plan"]["worse"], Value::Array(Vec::new()));
    // They were not captured, so nobody knows how many there are.
    let connections = plan["plan"]["connections"].as_array().unwrap();
    assert_eq!(connections.len(), 3);
    assert!(connections.iter().all(|node| node["count"].is_null()), "{connections:?}");
}

/// One that the withdrawn rule translated, one that another does, one that nobody did.
#[test]
fn connections_that_keep_a_translation_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flannel-host");
    let capture = folder.path().join("c");
    assert!(Command::new("cp").args(["-r", root]).arg(&capture).status().unwrap().success());
    let line = |to: &str, port: u16, answer: &str| {
        format!(
            "ipv4     2 tcp      6 300 ESTABLISHED src=172.7.21.2 dst={to} sport={port} dport=80 \
             src={to} dst={answer} sport=80 dport={port} [ASSURED] mark=0 use=1\n"
        )
    };
    let table = line("172.7.22.2", 41001, "10.4.7.21")
        + &line("203.0.113.9", 41002, "10.4.7.21")
        + &line("172.7.21.3", 41003, "172.7.21.2");
    std::fs::write(capture.join("nodes/hdss7-21/conntrack"), table).unwrap();
    let capture = capture.display().to_string();
    let (plan, _) = document(&["--all", &capture]);
    let count = |name: &str| {
        let nodes = plan["plan"]["connections"].as_array().unwrap();
        nodes.iter().find(|node| node["node"] == name).unwrap()["count"].clone()
    };
    assert_eq!((count("hdss7-21"), count("hdss7-22")), (Value::from(1), Value::Null));
    let said = text(&fix(&["--all", &capture]).stdout);
    assert!(said.contains("hdss7-21: 1 keeps its old translation until it ends"), "{said}");
    assert!(said.contains("tcp 172.7.21.2:41001 -> 172.7.22.2:80, as 10.4.7.21"), "{said}");
}

#[test]
fn rules_of_hosts_change_in_one_place_each() {
    let (plan, code) = document(&["--all", "examples/flannel-host"]);
    assert_eq!(code, Some(0));
    let steps = plan["plan"]["steps"].as_array().unwrap();
    let deeds = steps.iter().flat_map(|step| step["deeds"].as_array().unwrap());
    let rules: Vec<&Value> = deeds.filter(|deed| deed["kind"] == "rules").collect();
    assert_eq!(rules.len(), 3);
    for deed in rules {
        let of = |when: &str| -> Vec<String> {
            let rules = deed[when].as_array().unwrap().iter();
            rules.map(|rule| rule.as_str().unwrap().to_owned()).collect()
        };
        let (before, after) = (of("before"), of("after"));
        let changed: Vec<(&String, &String)> =
            before.iter().zip(&after).filter(|(old, new)| old != new).collect();
        let [(old, new)] = changed[..] else { panic!("{changed:?}") };
        assert_eq!(new.replace(" ! -d 172.7.0.0/16", ""), *old);
    }
}

#[test]
fn what_gets_worse_is_refused_until_it_is_accepted() {
    let example = "examples/kube-proxy-cluster-policy";
    let (refused, code) = document(&["external-traffic-policy-cluster", example]);
    assert_eq!(code, Some(1));
    assert_eq!(refused["refusal"]["reason"], "unmet");
    let name = refused["refusal"]["accept"][0].as_str().unwrap().to_owned();
    let (plan, code) = document(&["external-traffic-policy-cluster", example, "--accept", &name]);
    assert_eq!(code, Some(0), "{plan:#}");
    let worse = plan["plan"]["worse"].as_array().unwrap();
    assert!(worse.iter().all(|one| one["named"] == true), "{worse:?}");
}

#[test]
fn wrong_usage_says_what_to_do() {
    for (arguments, code, said) in [
        (&["calico-unused-pol", "examples/canal-rke"][..], 2, "did you mean calico-unused-pool?"),
        (&["examples/canal-rke"], 2, "name a finding"),
        (&["--all", "no/such/folder"], 2, "neither a finding"),
        (&["--undo", "README.md"], 2, "README.md is no journal of unmasq"),
        (&["--undo", "no/such/journal"], 2, "journal no/such/journal: No such file"),
        (&["calico-unused-pool", "examples/canal-rke", "--remedy", "9"], 1, "no number 9"),
        (&["klipper-lb", "examples/canal-rke"], 1, "there is no finding klipper-lb here"),
        (
            &["calico-unused-pool", "examples/canal-rke", "--apply"],
            2,
            "the plan has nothing for this host",
        ),
    ] {
        let output = fix(arguments);
        let all = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {all}");
        assert!(all.contains(said), "{arguments:?}: {all}");
    }
}

#[test]
fn a_script_is_one_for_any_shell() {
    for (arguments, changes) in [
        (&["--all", "examples/flannel-host"][..], 6),
        (&["--all", "examples/canal-rke"], 2),
        (&["--all", "examples/kube-router-dualstack"], 1),
    ] {
        let output = fix(&[arguments, &["--output", "script"]].concat());
        let script = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(script.matches("\napply_").count(), changes, "{script}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &script).unwrap();
        for shell in ["sh", "bash"] {
            let read = Command::new(shell).arg("-n").arg(file.path()).output().unwrap();
            assert!(read.status.success(), "{}", text(&read.stderr));
            // Not told what to do, it says what can be told.
            let run = Command::new(shell).arg(file.path()).output().unwrap();
            assert_eq!(run.status.code(), Some(2), "{}", text(&run.stderr));
            assert!(text(&run.stderr).contains("apply|undo PLACE"), "{}", text(&run.stderr));
        }
    }
}

/// What reads a script runs no refusal.
#[test]
fn a_refusal_is_no_script() {
    let example = "examples/kube-proxy-cluster-policy";
    for form in ["script", "patches"] {
        let output = fix(&["external-traffic-policy-cluster", example, "--output", form]);
        assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(1), ""));
        assert!(text(&output.stderr).contains("REFUSED: "), "{}", text(&output.stderr));
    }
    let output = fix(&["--all", "examples/canal-rke", "--output", "script", "--json"]);
    assert_eq!(output.status.code(), Some(2));
}

/// On which nodes, of which ranges, and the policies alike in all three forms.
#[test]
fn what_becomes_visible_outside_is_told_and_can_be_limited() {
    let arguments = ["--all", "examples/kube-router-dualstack"];
    let (plan, _) = document(&arguments);
    let revealed = &plan["plan"]["revealed"];
    let pods: Vec<String> =
        revealed["pods"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(
        pods,
        [
            r#"{"node":"k3s-1","ranges":["10.42.1.0/24","2001:db8:42:1::/64"]}"#,
            r#"{"node":"k3s-2","ranges":["10.42.2.0/24","2001:db8:42:2::/64"]}"#,
        ]
    );
    let output = fix(&[&arguments[..], &["--output", "policies"]].concat());
    let documents = unmasq_cluster::read::values(&output.stdout);
    let documents: Vec<Value> = documents.into_iter().filter(|one| !one.is_null()).collect();
    let policies = revealed["policies"].as_array().unwrap();
    assert_eq!((policies.len(), &documents), (2, policies), "{}", text(&output.stdout));
    let said = text(&fix(&[&arguments[..], &["-v"]].concat()).stdout);
    for line in [
        "  k3s-1: 10.42.1.0/24, 2001:db8:42:1::/64\n",
        "  2 NetworkPolicies limit that",
        "  kind: NetworkPolicy\n",
        "              - \"192.168.0.0/16\"\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // Nothing of the kind where only somebody outside becomes visible to pods.
    let (plan, _) = document(&["--all", "examples/canal-rke"]);
    let none = serde_json::json!({"pods": [], "policies": [], "not_limited": []});
    assert_eq!(plan["plan"]["revealed"], none);
}

/// Merged into the captured objects, they make of them what the plan says.
#[test]
fn patches_lead_to_what_is_planned() {
    let local = "unmet/external-traffic-policy-cluster/2";
    for (arguments, count) in [
        (&["--all", "examples/canal-rke"][..], 2),
        (&["--all", "examples/kube-router-dualstack"], 1),
        (
            &[
                "external-traffic-policy-cluster",
                "examples/kube-proxy-cluster-policy",
                "--accept",
                local,
            ],
            1,
        ),
        (&["--all", "examples/flannel-host"], 0),
    ] {
        let output = fix(&[arguments, &["--output", "patches"]].concat());
        let documents = unmasq_cluster::read::values(&output.stdout);
        let documents: Vec<&Value> = documents.iter().filter(|one| !one.is_null()).collect();
        assert_eq!(documents.len(), count, "{}", text(&output.stdout));
        let (plan, _) = document(arguments);
        let steps = plan["plan"]["steps"].as_array().unwrap();
        let deeds = steps.iter().flat_map(|step| step["deeds"].as_array().unwrap());
        let deeds: Vec<&Value> = deeds.filter(|deed| deed["kind"] == "object").collect();
        assert_eq!(deeds.len(), count);
        for (document, deed) in documents.into_iter().zip(deeds) {
            let captured = captured(arguments, document);
            let mut expected = captured.clone();
            unmasq_fix::merge(&mut expected, &deed["patch"]);
            let mut there = captured;
            strategic(&mut there, document);
            assert_eq!(there, expected);
        }
    }
}

/// The captured object that a patch is for.
fn captured(arguments: &[&str], patch: &Value) -> Value {
    let example = arguments.iter().find(|word| word.starts_with("examples/")).unwrap();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let folder = std::path::Path::new(root).join(example).join("kubernetes");
    let files =
        std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()));
    let all = files.flat_map(|bytes| unmasq_cluster::read::values(&bytes.unwrap()));
    let keys = ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"];
    let is_it = |object: &Value| keys.iter().all(|key| object.pointer(key) == patch.pointer(key));
    let found: Vec<Value> = all.filter(is_it).collect();
    assert_eq!(found.len(), 1, "{patch}");
    found.into_iter().next().unwrap()
}

/// A strategic merge, as far as these patches need one: containers and variables by their names.
fn strategic(object: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            for (key, value) in fields {
                let Some(items) =
                    value.as_array().filter(|_| ["containers", "env"].contains(&&**key))
                else {
                    let fields = object.as_object_mut().unwrap();
                    strategic(fields.entry(key.clone()).or_insert(Value::Null), value);
                    continue;
                };
                let there = object[key].as_array_mut().unwrap();
                for item in items {
                    match there.iter_mut().find(|one| one["name"] == item["name"]) {
                        Some(one) => strategic(one, item),
                        None => there.push(item.clone()),
                    }
                }
            }
        }
        other => *object = other.clone(),
    }
}

#[test]
fn two_captures_differ_in_what_was_changed() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/canal-rke");
    let after = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").args(["-r", root]).arg(after.path().join("c")).status();
    assert!(copied.unwrap().success());
    let capture = after.path().join("c");
    let edit = |file: &str, change: &dyn Fn(&str) -> String| {
        let path = capture.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, change(&text)).unwrap();
    };
    edit("kubernetes/ippools.crd.projectcalico.org.json", &|text| {
        text.replace("\"natOutgoing\": true", "\"natOutgoing\": false")
    });
    edit("nodes/n1/iptables-save", &|text| {
        let kept = text.lines().filter(|line| !line.contains("masq-ipam-pools src"));
        kept.map(|line| format!("{line}\n")).collect()
    });
    let diff = |second: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_unmasq"));
        command.args(["diff", root]).arg(second).output().unwrap()
    };
    let output = diff(&capture);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for line in [
        "node n1, iptables-nft table nat, chain cali-nat-outgoing",
        "- -A cali-nat-outgoing -m comment",
        "- spec.natOutgoing: true",
        "+ REWRITTEN -> PRESERVED  somebody outside",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("node n2"), "{said}");
    let output = diff(std::path::Path::new(root));
    assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(0), "Nothing differs.\n"));
}

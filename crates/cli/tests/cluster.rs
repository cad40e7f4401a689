//! Questions about several nodes, asked of the binary: `trace` with names, and `audit`. The
//! clusters are those of `examples`, where the lab sent the same packets for real.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use std::process::{Command, Output};

use serde_json::Value;

const EXAMPLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/kube-proxy-cluster-policy");

fn unmasq(command: &str, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_unmasq"))
        .args([command, EXAMPLE])
        .args(arguments.split_whitespace())
        .env_remove("CLICOLOR_FORCE")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn exits_with(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(output), stderr(output));
}

#[test]
fn names_lead_over_the_nodes() {
    for (question, first, way) in [
        (
            "--from pod/default/tool-1 --to service/default/web:http",
            "source PRESERVED 10.42.1.3 -> 10.42.1.2:8080",
            "pod default/tool-1 -> n1 -> pod default/web-1",
        ),
        (
            "--from pod/default/tool-2 --to pod/default/web-1:8080 --family ipv6",
            "source PRESERVED fd00:42:0:2::2 -> [fd00:42:0:1::2]:8080",
            "pod default/tool-2 -> n2 -> flannel-v6.1 -> n1 -> pod default/web-1",
        ),
        (
            "--from 198.51.100.7 --to svc/default/web:80 --proto udp --entry nodeport --via n3",
            "source REWRITTEN 198.51.100.7 -> 10.42.3.0 by masquerading (kube-proxy) on n3",
            "198.51.100.7 -> n3 -> flannel.1 -> n1 -> pod default/web-1",
        ),
        (
            "--from node/n1 --to node/n2:22",
            "source PRESERVED 10.0.0.11 -> 10.0.0.12:22",
            "n1 -> eth0 -> n2",
        ),
        // Addresses alone, and no node: the capture has several.
        (
            "--from 10.42.2.2 --to 10.42.1.2:8080",
            "source PRESERVED 10.42.2.2 -> 10.42.1.2:8080",
            "pod default/tool-2 -> n2 -> flannel.1 -> n1 -> pod default/web-1",
        ),
    ] {
        let output = unmasq("trace", question);
        exits_with(&output, 0);
        let text = stdout(&output);
        assert!(text.starts_with(&format!("{first}\n")), "{question}: {text}");
        assert!(text.contains(&format!("\n{way}\n")), "{question}: {text}");
        assert_eq!(stderr(&output), "", "{question}");
    }
}

#[test]
fn what_was_chosen_is_noted() {
    for (question, expected) in [
        (
            "--from 198.51.100.7 --to service/default/web:http",
            "note: the caller is outside and calls by the load balancer's address; others with \
             --entry\n\
             note: the packet comes in by node n2, the first without an endpoint; another with \
             --via\n",
        ),
        (
            "--from pod/default/tool-1 --to service/default/web:http --entry nodeport",
            "note: the port of node n2 is called, the first without an endpoint; another with \
             --via\n",
        ),
    ] {
        let output = unmasq("trace", question);
        exits_with(&output, 0);
        assert_eq!(stderr(&output), expected, "{question}");
    }
}

#[test]
fn errors_name_what_there_is() {
    for (question, expected) in [
        (
            "--from pod/default/tool-1 --to service/default/wbe",
            "there is no Service default/wbe; did you mean default/web?",
        ),
        (
            "--from pod/default/tool-1 --to service/default/web",
            "which port of Service default/web? It has http (80/tcp), udp (80/udp)",
        ),
        (
            "--from pod/default/tool-1 --to service/default/web:https",
            "Service default/web has no such port; it has http (80/tcp), udp (80/udp)",
        ),
        (
            "--from pod/default/tol-1 --to node/n1",
            "there is no pod default/tol-1; did you mean default/tool-1?",
        ),
        ("--from node/worker --to node/n1", "there is no node worker; there are n1, n2, n3"),
        ("--from node/n1 --to node/n2 --entry lb", "--entry is about a Service"),
        (
            "--from node/n1 --to service/default/gone:http --entry external-ip",
            "Service default/gone has no external IP of ipv4",
        ),
        ("--from 198.51.100.7 --to 203.0.113.1", "Name it with --via"),
        ("--from 10.42.3.0 --to node/n2:22", "is an address of node n3, which takes 10.0.0.13"),
        ("--from 10.42.2.2 --to node/n1 --family ipv6", "--family ipv6, and an address of ipv4"),
        ("--from node/n1 --to node/n2 --node n1", "--node walks one node's rules"),
        ("--from node/n1 --to node/n2 --in eth0", "--in and --mark are of one node's trace"),
        ("--from node/n1 --to node/n2:22 --proto icmp", "icmp has no ports"),
        ("--from service/default/web --to node/n1", "a Service calls nobody"),
    ] {
        let output = unmasq("trace", question);
        exits_with(&output, 2);
        assert!(stderr(&output).contains(expected), "{question}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{question}");
    }
}

#[test]
fn expectations_are_of_the_whole_way() {
    let node_port = "--from 198.51.100.7 --to service/default/web:http --entry nodeport --via n3";
    let refused = "--from node/n2 --to service/default/gone:http";
    for (question, expected, code) in [
        (node_port, "rewritten", 0),
        (node_port, "preserved", 1),
        (node_port, "dropped", 1),
        (refused, "dropped", 0),
        (refused, "preserved", 1),
    ] {
        let output = unmasq("trace", &format!("{question} --expect {expected}"));
        assert_eq!(output.status.code(), Some(code), "{question}: {}", stdout(&output));
    }
}

#[test]
fn documents_say_what_they_are() {
    for (command, arguments, schema) in [
        ("trace", "--from node/n1 --to node/n2:22 --json", "unmasq.path/v1"),
        ("trace", "--node n1 --from 10.42.1.3 --to 10.42.1.2:80 --json", "unmasq.trace/v1"),
        ("audit", "--json", "unmasq.audit/v1"),
        ("audit", "--json --service default/web", "unmasq.audit/v1"),
    ] {
        let output = unmasq(command, arguments);
        exits_with(&output, 0);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["schema"], schema, "{arguments}");
        assert!(!stderr(&output).contains("Service 1 of"), "{}", stderr(&output));
    }
}

/// What the matrix says of a row is what `trace` says if it is asked the row's question.
#[test]
fn witnesses_of_the_matrix_can_be_asked_again() {
    let document: Value = serde_json::from_slice(&unmasq("audit", "--json").stdout).unwrap();
    let rows = document["matrix"]["rows"].as_array().unwrap();
    assert!(rows.len() > 10, "{}", rows.len());
    for row in rows {
        let command = row["witness"]["trace"].as_str().unwrap().replace('\'', "");
        let question = command.split_once(EXAMPLE).unwrap().1;
        let output = unmasq("trace", &format!("{question} --json"));
        exits_with(&output, 0);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ways = answer["ways"].as_array().unwrap();
        let same = ways
            .iter()
            .any(|way| way["fate"] == row["fate"] && way["seen"] == row["witness"]["seen"]);
        assert!(same, "{command}: {row:#}");
    }
}

#[test]
fn an_audit_begins_with_its_verdict() {
    let brief = unmasq("audit", "-q");
    exits_with(&brief, 0);
    let brief = stdout(&brief);
    assert!(brief.lines().count() <= 24, "{brief}");
    let whole = stdout(&unmasq("audit", ""));
    assert!(whole.starts_with(&brief), "{whole}");
    assert!(whole.contains("\nWho calls whom"), "{whole}");
    for (arguments, code, expected) in [
        ("--service default/wbe", 2, "there is no Service default/wbe; did you mean default/web?"),
        ("--service default/web --fail-on error", 1, ""),
        ("--cluster-cidr ten", 2, "ten"),
        ("-q -v", 2, "cannot be used with"),
    ] {
        let output = unmasq("audit", arguments);
        exits_with(&output, code);
        assert!(stderr(&output).contains(expected), "{arguments}: {}", stderr(&output));
    }
}

#[test]
fn the_range_of_a_port_that_a_node_chose_is_kept_on_the_way() {
    let asked =
        "--from 192.168.7.20:41000 --to service/default/web:http --entry node-port --via n3";
    let text = stdout(&unmasq("trace", asked));
    let seen = text.lines().filter(|line| line.contains(" sees ")).collect::<Vec<_>>().join("\n");
    assert!(seen.contains(":1024-65535"), "{text}");
    assert!(!seen.contains(":?"), "{text}");
}

#[test]
fn an_answer_says_that_it_rests_on_the_addresses_of_services() {
    let sentence = "of IPv4 addresses only those that Services have are taken for cluster IPs";
    let text = |to: &str| {
        let text = stdout(&unmasq("trace", &format!("--from pod/default/tool-1 --to {to}")));
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let outside = text("203.0.113.77:443");
    assert!(outside.contains(sentence), "{outside}");
    let inside = text("service/default/web:http");
    assert!(!inside.contains(sentence), "{inside}");
}

/// The example without one of its files of objects.
fn audited_without(left_out: &str) -> String {
    audited(|capture| {
        std::fs::remove_file(capture.join("kubernetes").join(left_out)).unwrap();
    })
}

/// The example with something done to it.
fn audited(change: impl Fn(&std::path::Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(EXAMPLE).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let capture = folder.path().join("kube-proxy-cluster-policy");
    change(&capture);
    let mut command = Command::new(env!("CARGO_BIN_EXE_unmasq"));
    let output = command.arg("audit").arg(&capture).output().unwrap();
    exits_with(&output, 0);
    stdout(&output)
}

#[test]
fn lines_of_a_node_that_cannot_be_read_are_told() {
    let line = "lines that can't be read:";
    let text = audited(|_| {});
    assert!(!text.contains(line), "{text}");
    let text = audited(|capture| {
        let nodes = std::fs::read_dir(capture.join("nodes")).unwrap();
        let node = nodes.map(|node| node.unwrap().path()).min().unwrap();
        std::fs::write(node.join("ip-neigh.json"), "[{\"dst\": 5}]\n").unwrap();
    });
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(line) && words.contains("/ip-neigh.json:1:"), "{text}");
}

#[test]
fn rows_are_honest_without_endpoints_and_pods_and_the_missing_file_is_named() {
    for left_out in ["endpointslices.discovery.k8s.io", "pods"] {
        let text = audited_without(&format!("{left_out}.json"));
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&format!("kubectl get {left_out} ")), "{left_out}: {text}");
        // Without EndpointSlices it calls itself by the port of another node.
        let around = words.contains("the endpoint itself by another node");
        assert_eq!(around, left_out != "pods", "{left_out}: {text}");
        for line in text.lines().filter(|line| line.contains("the endpoint itself")) {
            assert!(!line.contains("to another node"), "{line}");
        }
    }
}

/// The table of README.md, and of `audit --help`.
#[test]
fn an_audit_ends_with_the_codes_that_are_documented() {
    // The example has an error, by its own expect.yaml.
    exits_with(&unmasq("audit", "-q"), 0);
    exits_with(&unmasq("audit", "-q --fail-on error"), 1);
    exits_with(&unmasq("audit", "-q --json --fail-on warning"), 1);
    for wrong in
        ["--fail-on info", "--service default/wbe", "--cluster-cidr x", "--expect /no/such"]
    {
        exits_with(&unmasq("audit", wrong), 2);
    }
    // Nothing is expected, so nothing is wrong; then a node is missing, which could hide something.
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("nothing.yaml");
    std::fs::write(&nothing, "schema: unmasq.expect/v1\n").unwrap();
    let copied = Command::new("cp").arg("-r").arg(EXAMPLE).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let capture = folder.path().join("kube-proxy-cluster-policy");
    let audit = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_unmasq"));
        command.args(["audit", "-q", "--fail-on", "error", "--expect"]).arg(&nothing);
        command.arg(&capture).output().unwrap()
    };
    exits_with(&audit(), 0);
    std::fs::remove_dir_all(capture.join("nodes/n3")).unwrap();
    exits_with(&audit(), 3);
}

#[test]
fn a_range_of_pods_that_is_none_is_refused() {
    let wrong = unmasq("audit", "-q --cluster-cidr 10.99.0.0/16");
    exits_with(&wrong, 2);
    let error = stderr(&wrong);
    assert!(error.contains("--cluster-cidr 10.99.0.0/16 holds no pod: pods have "), "{error}");
    assert!(error.contains("status.podIPs)"), "{error}");
    exits_with(&unmasq("audit", "-q --cluster-cidr 10.42.0.0/16"), 0);
}

#[test]
fn expectations_that_are_wrong_for_the_cluster_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wanted.yaml");
    let file = path.display().to_string();
    for (lines, expected) in [
        (
            "preserved:\n  - from: [outside]\n    to: [service/default/wbe]\n",
            format!("{file}:3: there is no Service default/wbe; did you mean default/web?"),
        ),
        (
            "preserved:\n  - from: [10.42.0.0/16]\n    to: [services]\n",
            "10.42.0.0/16 is the range of all pods (".to_owned(),
        ),
        (
            "preserved:\n  - {from: [outside], to: [services]}\ntranslated:\n  - {from: \
             [outside], to: [service/default/web]}\n",
            format!("{file}:3 wants the source preserved and {file}:5 wants it translated"),
        ),
        (
            "preserved:\n  - from: outside\n",
            format!("{file}:3:11: a list is expected here, such as from: [outside"),
        ),
    ] {
        std::fs::write(&path, format!("schema: unmasq.expect/v1\n{lines}")).unwrap();
        let output = unmasq("audit", &format!("-q --expect {file}"));
        exits_with(&output, 2);
        assert!(stderr(&output).contains(&expected), "{expected}: {}", stderr(&output));
    }
}

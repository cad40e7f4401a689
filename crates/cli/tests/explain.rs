//! `unmasq explain`, run as a person would.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use std::process::{Command, Output};

fn unmasq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_unmasq"))
        .args(arguments)
        .env_remove("CLICOLOR_FORCE")
        .env_remove("NO_COLOR")
        .output()
        .unwrap()
}

#[track_caller]
fn answer(arguments: &[&str]) -> String {
    let output = unmasq(arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn without_a_name_it_lists_them() {
    let text = answer(&["explain"]);
    for name in ["calico-unused-pool", "no-reply", "kube-proxy", "k3s"] {
        let lists = text.lines().any(|line| line.split_whitespace().next() == Some(name));
        assert!(lists, "{name}: {text}");
    }
    assert!(text.starts_with("Findings\n") && text.contains("\nComponents\n"), "{text}");
}

#[test]
fn a_page_has_its_cause_and_the_commands_of_its_fix_whole() {
    let text = answer(&["explain", "calico-unused-pool"]);
    assert!(text.starts_with("A Calico pool that no pod uses masquerades clients\n"), "{text}");
    for heading in ["Cause", "Picture", "Fix", "Check", "References"] {
        assert!(text.lines().any(|line| line == heading), "{heading}: {text}");
    }
    let command = "    kubectl get ippools.crd.projectcalico.org -o yaml";
    assert!(text.lines().any(|line| line.starts_with(command)), "{text}");
    // For a pipe: no colours, and text within 80 columns.
    assert!(!text.contains('\x1b') && !text.contains("```"), "{text}");
    let text_lines = text.lines().filter(|line| !line.starts_with("    "));
    assert!(text_lines.clone().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn markdown_is_the_page_as_it_is_written() {
    let written = include_str!("../../../docs/findings/calico-unused-pool.md");
    assert_eq!(answer(&["explain", "--markdown", "calico-unused-pool"]), written);
    let index = include_str!("../../../docs/findings/README.md");
    assert_eq!(answer(&["explain", "--markdown"]), index);
}

#[test]
fn an_alias_leads_to_the_component() {
    assert_eq!(answer(&["explain", "containerd"]), answer(&["explain", "docker"]));
}

#[test]
fn a_wrong_name_is_answered_with_the_nearest() {
    let output = unmasq(&["explain", "calico-unsed-pool"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(output.stdout, b"");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("nearest: calico-unused-pool"), "{text}");

    let output = unmasq(&["explain", "x\x1b[31mz"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!output.stderr.contains(&0x1b), "{output:?}");
}

/// clap_complete writes no values of positional arguments for fish.
#[test]
fn shells_complete_the_names() {
    for shell in ["bash", "zsh"] {
        let script = answer(&["completions", shell]);
        for name in ["kube-router-pod-egress", "ip-masq-agent"] {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

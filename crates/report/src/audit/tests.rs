use unmasq_audit::FindingId;
use unmasq_cluster::paths::Caller;

use super::*;

#[path = "../../../audit/tests/shells/mod.rs"]
#[allow(dead_code, reason = "no cluster is made here")]
mod shells;

fn text(text: &str) -> String {
    text.to_owned()
}

fn patch(undo: Option<&str>) -> Action {
    Action::Patch {
        resource: text("service"),
        namespace: Some(text("shop")),
        name: text("api"),
        patch: text(r#"{"spec":{"externalTrafficPolicy":"Local"}}"#),
        undo: undo.map(text),
    }
}

/// Each with what kind of instruction it is.
fn told(instructions: Vec<Instruction>) -> Vec<String> {
    let one = |instruction: Instruction| match instruction {
        Instruction::Command(text) => format!("$ {text}"),
        Instruction::Sentence(text) => text,
        Instruction::Literal(text) => format!("> {text}"),
    };
    instructions.into_iter().map(one).collect()
}

#[test]
fn instructions_of_a_step_and_of_its_opposite() {
    let workload = |container| fixture::workload("canal", container);
    let value = |old: Option<&str>, new: Option<&str>| Action::File {
        nodes: vec![text("n1")],
        path: text("/etc/cni/net.d/a"),
        edit: Edit::Value {
            syntax: Syntax::Json,
            pointer: text("/plugins/0/snat"),
            old: old.map(text),
            new: new.map(text),
        },
    };
    let argument = |program, old: Option<&str>| Action::Argument {
        program,
        argument: Some(text("--x=false")),
        old: old.map(text),
    };
    let everywhere = Program::OfNode { node: None, name: text("tool") };
    let cases: Vec<(Action, Vec<&str>, Vec<&str>)> = vec![
        (
            patch(Some(r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#)),
            vec![
                r#"$ kubectl patch service/api -n shop --type merge -p '{"spec":{"externalTrafficPolicy":"Local"}}'"#,
            ],
            vec![
                r#"$ kubectl patch service/api -n shop --type merge -p '{"spec":{"externalTrafficPolicy":"Cluster"}}'"#,
            ],
        ),
        (
            Action::Environment {
                workload: workload(Some("calico-node")),
                name: text("LIST"),
                value: Some(text("it's one")),
                old: None,
            },
            vec![
                r"$ kubectl set env daemonset/canal -n kube-system -c calico-node 'LIST=it'\''s one'",
            ],
            vec!["$ kubectl set env daemonset/canal -n kube-system -c calico-node LIST-"],
        ),
        (
            argument(Program::Workload(workload(Some("router"))), Some("--x")),
            vec![
                "In the arguments of container router, in place of --x: --x=false",
                "$ kubectl edit daemonset/canal -n kube-system",
            ],
            vec![
                "In the arguments of container router, in place of --x=false: --x",
                "$ kubectl edit daemonset/canal -n kube-system",
            ],
        ),
        (
            argument(everywhere.clone(), None),
            vec![
                "Among the arguments of tool on every node (its unit, script or static pod): --x=false",
            ],
            vec![
                "From the arguments of tool on every node (its unit, script or static pod), take away: --x=false",
            ],
        ),
        (
            Action::Rules {
                node: text("n1"),
                changes: vec![fixture::inserted("-A POSTROUTING x")],
            },
            vec![
                "$ iptables-nft-restore --noflush --counters <<'EOF'\n*nat\n-I POSTROUTING 1 x\nCOMMIT\nEOF",
            ],
            vec![
                "$ iptables-nft-restore --noflush --counters <<'EOF'\n*nat\n-D POSTROUTING x\nCOMMIT\nEOF",
            ],
        ),
        (
            Action::Restart { program: Program::Workload(workload(None)) },
            vec!["$ kubectl rollout restart daemonset/canal -n kube-system"],
            vec!["$ kubectl rollout restart daemonset/canal -n kube-system"],
        ),
        (
            Action::Restart { program: everywhere },
            vec!["On every node that runs it:", "$ systemctl restart tool"],
            vec!["On every node that runs it:", "$ systemctl restart tool"],
        ),
        (
            value(Some("true"), Some("false")),
            vec![
                "In /etc/cni/net.d/a, at /plugins/0, in place of \"snat\": true:",
                "> \"snat\": false",
            ],
            vec![
                "In /etc/cni/net.d/a, at /plugins/0, in place of \"snat\": false:",
                "> \"snat\": true",
            ],
        ),
        (
            value(None, Some("false")),
            vec!["In /etc/cni/net.d/a, at /plugins/0:", "> \"snat\": false"],
            vec!["From /etc/cni/net.d/a, at /plugins/0, take out:", "> \"snat\": false"],
        ),
        (
            Action::File {
                nodes: vec![text("n1")],
                path: text("/a"),
                edit: Edit::Line { old: text("x"), new: text("# x") },
            },
            vec!["In /a, this line:", "> x", "becomes:", "> # x"],
            vec!["In /a, this line:", "> # x", "becomes:", "> x"],
        ),
        (
            Action::ByHand {
                instructions: vec![Instruction::Command(text("reboot"))],
                undo: vec![Instruction::Sentence(text("Nothing."))],
            },
            vec!["$ reboot"],
            vec!["Nothing."],
        ),
    ];
    for (action, expected, opposite) in cases {
        assert_eq!(told(instructions(&action)), expected);
        let back = action.undo();
        assert_eq!(told(back.iter().flat_map(undo).collect()), opposite);
        // Twice undone, it is done.
        if let [Undo::Action(back)] = &back[..] {
            assert_eq!(back.undo(), [Undo::Action(action)]);
        }
    }
}

/// What was not read can't be brought back: a workload has its own memory.
#[test]
fn a_patch_over_what_was_not_read() {
    let back = |action: Action| told(action.undo().iter().flat_map(undo).collect());
    let [saved] = &back(patch(None))[..] else { panic!() };
    assert!(saved.contains("kubectl get service/api -n shop -o yaml"), "{saved}");
    let mut deployed = patch(None);
    if let Action::Patch { resource, .. } = &mut deployed {
        *resource = text("deployment");
    }
    assert_eq!(back(deployed), ["$ kubectl rollout undo deployment/api -n shop"]);
}

#[test]
fn a_witness_can_be_asked_again() {
    let cluster = fixture::cluster();
    let subject = fixture::subject(&cluster);
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    for (from, to, port, protocol, expected) in [
        (
            Caller::Pod { node: 1, address: address("10.42.1.5") },
            "10.43.0.9",
            Some(80),
            Protocol::TCP,
            "--from 10.42.1.5:40000 --to 10.43.0.9:80",
        ),
        (
            Caller::Outside { node: 1, address: address("2001:db8::9") },
            "fd00::9",
            Some(53),
            Protocol::UDP,
            "--from '[2001:db8::9]:40000' --to '[fd00::9]:53' --via n2 --proto udp",
        ),
        (
            Caller::Node(2),
            "10.43.0.9",
            None,
            Protocol::SCTP,
            "--from node/n3:40000 --to 10.43.0.9 --proto sctp",
        ),
    ] {
        let call = Call { from, source_port: Some(40000), to: address(to), port, protocol };
        assert_eq!(subject.question(&call), expected);
    }
    let live = Subject { capture: None, ..subject };
    assert_eq!(subject.trace("unmasq trace --x"), "unmasq trace 'my cluster.tar.gz' --x");
    assert_eq!(subject.trace("--x"), "unmasq trace 'my cluster.tar.gz' --x");
    assert_eq!(live.trace("unmasq trace --x"), "unmasq trace --x");
    assert_eq!(subject.trace("unmasq lab up"), "unmasq lab up");
    assert_eq!(subject.service_port(0, 0), "default/web:http");
    assert_eq!(subject.service_port(4, 0), "dns/dns:53");
}

#[test]
fn the_part_of_one_service() {
    let cluster = fixture::cluster();
    let whole = fixture::audit();
    let part = of_service(&whole, &cluster, "shop/api");
    let ids: Vec<FindingId> = part.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, [FindingId::CalicoUnusedPool, FindingId::LocalYetRewritten]);
    assert_eq!(part.matrix.rows.len(), 3);
    // Rows 0, 1 and 2 stay where they are here, so another Service shows that indices move.
    let dns = of_service(&whole, &cluster, "dns/dns");
    assert_eq!(dns.findings.len(), 1);
    assert_eq!(dns.findings[0].affected.rows, [1]);
    assert_eq!(dns.matrix.rows[1], whole.matrix.rows[3]);
    let nobody = of_service(&whole, &cluster, "shop/nobody");
    assert!(nobody.findings.is_empty() && nobody.matrix.rows.is_empty());
}

#[test]
fn what_is_lost_is_what_a_warning_is_about() {
    let counts: Vec<usize> = lost(&fixture::audit()).map(|row| row.count).collect();
    // Row 3 is rewritten too, and its finding is for information only.
    assert_eq!(counts, [36, 1]);
}

/// A capture's names may be anything: no shell reads more into a command of a step, of what undoes
/// it, or of a question.
#[test]
fn hostile_names_stay_words() {
    let name = |name: &str| shells::hostile(name);
    let workload = || Workload {
        kind: unmasq_audit::WorkloadKind::DaemonSet,
        namespace: name("ns"),
        name: name("ds"),
        container: Some(name("c")),
    };
    let program = || Program::OfNode { node: Some(name("n1")), name: name("unit") };
    let patch = |namespace: Option<String>, undo: Option<String>| Action::Patch {
        resource: text("deployment"),
        namespace,
        name: name("api"),
        patch: serde_json::json!({ "data": { name("key"): name("value") } }).to_string(),
        undo,
    };
    let argument = |program| Action::Argument { program, argument: Some(name("--a")), old: None };
    let actions = [
        patch(Some(name("ns")), Some(text("{}"))),
        patch(None, None),
        Action::Environment {
            workload: workload(),
            name: text("LIST"),
            value: Some(name("v")),
            old: None,
        },
        argument(Program::Workload(workload())),
        argument(program()),
        Action::Restart { program: Program::Workload(workload()) },
        Action::Restart { program: program() },
        Action::File {
            nodes: vec![name("n1")],
            path: name("/etc/x"),
            edit: Edit::Line { old: name("a"), new: name("b") },
        },
        Action::Rules {
            node: name("n1"),
            changes: vec![fixture::inserted(&name("-A POSTROUTING"))],
        },
    ];
    let mut checked = 0;
    for action in &actions {
        let undone = action.undo();
        let all = instructions(action).into_iter().chain(undone.iter().flat_map(undo));
        for instruction in all {
            if let Instruction::Command(text) = instruction {
                shells::check(&text);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 12);
    let node = unmasq_cluster::Node { name: name("n1"), ..unmasq_cluster::Node::default() };
    let cluster = Cluster { nodes: vec![node], ..Cluster::default() };
    let subject =
        Subject { cluster: &cluster, capture: Some(&name("x")), service: None, version: "" };
    let address = "192.0.2.1".parse().unwrap();
    for from in [Caller::Node(0), Caller::Outside { node: 0, address }] {
        let call = Call {
            from,
            source_port: Some(1024),
            to: address,
            port: Some(80),
            protocol: Protocol::TCP,
        };
        shells::check(&subject.trace(&format!("unmasq trace {}", subject.question(&call))));
    }
}

use unmasq_audit::FindingId;
use unmasq_cluster::paths::Caller;

use super::*;

#[test]
fn commands_of_a_step() {
    let text = |text: &str| text.to_owned();
    for (action, expected) in [
        (
            Action::Patch {
                resource: text("service"),
                namespace: Some(text("shop")),
                name: text("api"),
                patch: text(r#"{"spec":{"externalTrafficPolicy":"Local"}}"#),
            },
            vec![
                r#"kubectl patch service api -n shop --type merge -p '{"spec":{"externalTrafficPolicy":"Local"}}'"#,
            ],
        ),
        (
            Action::Environment {
                workload: text("daemonset/canal"),
                namespace: text("kube-system"),
                container: text("calico-node"),
                name: text("LIST"),
                value: text("it's one"),
            },
            vec![
                r"kubectl set env daemonset/canal -n kube-system -c calico-node 'LIST=it'\''s one'",
            ],
        ),
        (
            Action::Argument {
                place: text("daemonset/kube-router"),
                namespace: Some(text("kube-system")),
                argument: text("--x"),
            },
            vec!["kubectl edit daemonset/kube-router -n kube-system"],
        ),
        (
            Action::Argument { place: text("a unit"), namespace: None, argument: text("--x") },
            vec![],
        ),
        (
            Action::Rules {
                node: text("n1"),
                changes: vec![fixture::inserted("-A POSTROUTING x")],
            },
            vec![
                "iptables-nft-restore --noflush --counters <<'EOF'\n*nat\n-I POSTROUTING 1 x\nCOMMIT\nEOF",
            ],
        ),
        (Action::File { node: None, path: text("/a"), content: text("b") }, vec![]),
        (Action::ByHand(vec![text("reboot")]), vec!["reboot"]),
    ] {
        assert_eq!(commands(&action), expected);
    }
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

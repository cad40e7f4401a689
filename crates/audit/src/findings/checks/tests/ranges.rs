//! Networks that share addresses.

use super::*;

const LINKS: &str = r#"[{"ifindex": 2, "ifname": "eth0", "flags": ["UP"], "link_type": "ether"},
    {"ifindex": 3, "ifname": "docker0", "flags": ["UP"], "link_type": "ether", "linkinfo": {"info_kind": "bridge"}}]"#;
const ADDRESSES: &str = r#"[{"ifindex": 2, "ifname": "eth0", "flags": ["UP"], "link_type": "ether",
      "addr_info": [{"family": "inet", "local": "10.0.0.11", "prefixlen": 24, "scope": "global"}]},
    {"ifindex": 3, "ifname": "docker0", "flags": ["UP"], "link_type": "ether",
      "addr_info": [{"family": "inet", "local": "172.17.0.1", "prefixlen": 16, "scope": "global"}]}]"#;
const FILES: [(&str, &str); 3] = [
    ("nodes/n1/iptables-save", ""),
    ("nodes/n1/ip-link.json", LINKS),
    ("nodes/n1/ip-addr.json", ADDRESSES),
];

fn severities(cluster: &Cluster, lines: &str) -> Vec<(String, Severity)> {
    let all = found(cluster, lines);
    let of = of(&all, FindingId::OverlappingRanges);
    of.into_iter().map(|one| (one.subject.clone(), one.severity)).collect()
}

#[test]
fn pods_in_the_range_of_the_nodes() {
    let objects = "kind: Node\nmetadata: {name: n1}\nspec: {podCIDRs: [10.0.0.0/25]}\n\
        status: {addresses: [{type: InternalIP, address: 10.0.0.11}]}\n";
    let cluster = cluster(objects, &FILES);
    let all = found(&cluster, "");
    let found = of(&all, FindingId::OverlappingRanges);
    assert!(!found.is_empty());
    let first = found[0];
    assert_eq!(first.severity, Severity::Warning);
    assert!(
        first.subject.contains("10.0.0.0/24") && first.subject.contains("10.0.0.0/25"),
        "{}",
        first.subject
    );
    assert_eq!(first.evidence.len(), 2);
    let place = first.cause.place.as_deref().unwrap();
    assert!(place.contains("node n1") && place.contains("eth0 10.0.0.11/24"), "{place}");
    assert_eq!(first.affected.nodes, ["n1"]);
}

#[test]
fn networks_apart_and_by_design() {
    let objects = "kind: Node\nmetadata: {name: n1}\nspec: {podCIDRs: [10.42.1.0/24]}\n\
        status: {addresses: [{type: InternalIP, address: 10.0.0.11}]}\n";
    assert_eq!(severities(&cluster(objects, &FILES), ""), []);
}

#[test]
fn clients_in_the_range_of_a_bridge() {
    let cluster = cluster(&nodes(&["n1"]), &FILES);
    let line = |net: &str| format!("preserved: [{{from: [{net}], to: [nodes]}}]");
    let subject = |net: &str| format!("clients {net}, bridge 172.17.0.0/16");
    for (net, severity) in [
        ("172.17.5.0/24", Severity::Warning),
        ("172.16.0.0/14", Severity::Warning),
        ("172.16.0.0/12", Severity::Info),
    ] {
        assert_eq!(severities(&cluster, &line(net)), [(subject(net), severity)]);
    }
    assert_eq!(severities(&cluster, &line("172.20.0.0/16")), []);
    let all = found(&cluster, &line("172.17.5.0/24"));
    let first = &all[0].remedies[0].steps[0].action;
    let expected = Action::File {
        nodes: vec!["n1".to_owned()],
        path: "/etc/docker/daemon.json".to_owned(),
        edit: Edit::Value {
            syntax: Syntax::Json,
            pointer: "/bridge".to_owned(),
            old: None,
            new: Some("\"none\"".to_owned()),
        },
    };
    assert_eq!(*first, expected);
}

/// Only kubectl can make it: the inner pool's natOutgoing: false is no use, as Felix looks at all
/// pools that have it.
#[test]
fn a_pool_of_calico_inside_another() {
    let pools = |outer: bool, inner: bool| {
        format!(
            "kind: Node\nmetadata: {{name: n1}}\n---\n\
             kind: IPPool\nmetadata: {{name: wide}}\nspec: {{cidr: 10.42.0.0/16, natOutgoing: {outer}}}\n---\n\
             kind: IPPool\nmetadata: {{name: plain}}\nspec: {{cidr: 10.42.8.0/24, natOutgoing: {inner}}}\n---\n\
             kind: Pod\nmetadata: {{name: a, namespace: x}}\nspec: {{nodeName: n1}}\nstatus: {{podIP: 10.42.8.5}}\n"
        )
    };
    let of_pools = |outer, inner| {
        let cluster = cluster(&pools(outer, inner), &[]);
        let all = found(&cluster, "");
        let [one] = of(&all, FindingId::OverlappingRanges)[..] else { panic!("{all:?}") };
        (one.subject.clone(), one.owner, one.cause.text.clone())
    };
    let (subject, owner, text) = of_pools(true, false);
    assert_eq!(subject, "Calico's pool wide 10.42.0.0/16, Calico's pool plain 10.42.8.0/24");
    assert_eq!(owner, Owner::Calico);
    assert!(text.contains("is masqueraded all the same"), "{text}");
    for (outer, inner) in [(true, true), (false, true), (false, false)] {
        let (_, _, text) = of_pools(outer, inner);
        assert!(text.contains("nobody says") && !text.contains("all the same"), "{text}");
    }
    let apart = pools(true, false).replace("10.42.0.0/16", "10.43.0.0/16");
    assert_eq!(severities(&cluster(&apart, &[]), ""), []);
}

//! Named sets and maps.

use std::net::IpAddr;

use unmasq_model::expr::Value;
use unmasq_model::rule::Verdict;
use unmasq_model::ruleset::ChainId;
use unmasq_model::set::{Data, Set};

use super::table;

/// A set "s" of a table of that family, with those members besides its names.
fn set(kind: &str, members: &str) -> Set {
    let object = format!(
        r#"{{"{kind}": {{"family": "inet", "name": "s", "table": "t", "handle": 9, {members}}}}}"#
    );
    let (mut table, diagnostics) = table("inet", &[object]);
    assert_eq!(diagnostics, [], "{members}");
    assert_eq!(table.sets[0].name.as_deref(), Some("s"));
    table.sets.remove(0)
}

fn n(n: u128) -> Value {
    Value::Number(n)
}

fn ip(text: &str) -> Value {
    Value::address(text.parse::<IpAddr>().unwrap())
}

fn name(text: &str) -> Value {
    Value::Name(text.into())
}

fn tuple<const N: usize>(fields: [Value; N]) -> Value {
    Value::Tuple(fields.into())
}

#[test]
fn sets_hold_their_elements_and_nothing_else() {
    let cases: &[(&str, &[Value], &[Value])] = &[
        (
            r#""type": "ipv4_addr", "flags": ["interval"], "elem": ["1.2.3.4",
            {"prefix": {"addr": "10.0.0.0", "len": 8}}, {"range": ["192.168.1.1", "192.168.1.9"]}]"#,
            &[ip("1.2.3.4"), ip("10.255.255.255"), ip("10.0.0.0"), ip("192.168.1.9")],
            &[ip("1.2.3.5"), ip("11.0.0.0"), ip("9.255.255.255"), ip("192.168.1.10")],
        ),
        (
            r#""type": ["ipv4_addr", "inet_service"], "flags": ["interval"], "elem": [
            {"concat": [{"prefix": {"addr": "10.0.0.0", "len": 8}}, {"range": [80, 90]}]},
            {"concat": ["1.2.3.4", 443]}]"#,
            &[tuple([ip("10.3.2.1"), n(85)]), tuple([ip("1.2.3.4"), n(443)])],
            &[tuple([ip("10.3.2.1"), n(91)]), tuple([ip("1.2.3.4"), n(80)]), ip("1.2.3.4")],
        ),
        (
            r#""type": "ifname", "flags": ["interval"], "elem": ["eth*", "lo"]"#,
            &[name("eth0"), name("eth"), name("lo")],
            &[name("lo0"), name("et")],
        ),
        (
            r#""type": ["ipv6_addr", "inet_proto", "ifname"],
            "elem": [{"concat": ["fd00::1", "udp", "eth9"]}]"#,
            &[tuple([ip("fd00::1"), n(17), name("eth9")])],
            &[tuple([ip("fd00::1"), n(6), name("eth9")])],
        ),
        (
            r#""type": "ct_state", "elem": ["established", "related"]"#,
            &[n(2), n(4)],
            &[n(6), n(8), n(1)],
        ),
        (r#""type": "tcp_flag", "elem": [{"|": ["syn", "ack"]}]"#, &[n(18)], &[n(2), n(16)]),
        (r#""type": "mark", "elem": [16, {"range": [32, 47]}]"#, &[n(16), n(40)], &[n(17)]),
        // nft 1.1: the key as an expression.
        (
            r#""type": {"typeof": {"concat": [{"payload": {"protocol": "ip", "field": "saddr"}},
            {"meta": {"key": "mark"}}]}}, "elem": [{"concat": ["1.2.3.4", 7]}]"#,
            &[tuple([ip("1.2.3.4"), n(7)])],
            &[tuple([ip("1.2.3.4"), n(8)])],
        ),
    ];
    for (members, held, others) in cases {
        let set = set("set", members);
        assert_eq!((&set.opaque, set.dynamic), (&None, false), "{members}");
        for key in *held {
            assert_eq!(set.elements.get(key), Some(&Data::Nothing), "{key:?} in {members}");
        }
        for key in *others {
            assert_eq!(set.elements.get(key), None, "{key:?} in {members}");
        }
    }
}

#[test]
fn maps_have_data() {
    let cases: &[(&str, Value, Data)] = &[
        (
            r#""type": ["ipv4_addr", "inet_proto", "inet_service"], "map": "verdict",
            "elem": [[{"concat": ["10.96.0.1", "tcp", 443]}, {"goto": {"target": "other"}}]]"#,
            tuple([ip("10.96.0.1"), n(6), n(443)]),
            Data::Verdict(Verdict::Goto(ChainId(1))),
        ),
        (
            r#""type": "inet_service", "map": "verdict", "elem": [[80, {"accept": null}],
            ["*", {"drop": null}]]"#,
            n(81),
            Data::Verdict(Verdict::Drop),
        ),
        (
            r#""type": ["inet_proto", "inet_service"], "map": "verdict", "elem": [[{"elem":
            {"val": {"concat": ["tcp", 30082]}, "comment": "ns/svc:p80"}}, {"drop": null}]]"#,
            tuple([n(6), n(30082)]),
            Data::Verdict(Verdict::Drop),
        ),
        // A typeof map: nft 1.0.6 joins the types of its data.
        (
            r#""type": ["integer", "ipv4_addr", "inet_proto", "inet_service"],
            "map": "ipv4_addr . inet_service", "elem": [[{"concat": [1, "10.96.0.1", "tcp", 443]},
            {"concat": ["10.0.0.2", 6443]}]]"#,
            tuple([n(1), ip("10.96.0.1"), n(6), n(443)]),
            Data::Value(tuple([ip("10.0.0.2"), n(6443)])),
        ),
        (
            r#""type": "ipv4_addr", "map": "mark", "flags": ["interval"],
            "elem": [[{"prefix": {"addr": "10.0.0.0", "len": 24}}, 16], ["*", 32]]"#,
            ip("10.0.0.255"),
            Data::Value(n(16)),
        ),
        (
            r#""type": "ipv4_addr", "map": "counter", "elem": [["10.1.1.1", "named"]]"#,
            ip("10.1.1.1"),
            Data::Nothing,
        ),
    ];
    for (members, key, data) in cases {
        let map = set("map", members);
        assert_eq!(map.opaque, None, "{members}");
        assert_eq!(map.elements.get(key), Some(data), "{members}");
    }
}

#[test]
fn what_depends_on_state_is_dynamic() {
    for members in [
        r#""type": "ipv4_addr", "flags": ["dynamic"]"#,
        r#""type": "ipv4_addr", "flags": "timeout", "timeout": 600"#,
        r#""type": "ipv4_addr", "stmt": [{"limit": {"rate": 5, "burst": 5, "per": "second"}}]"#,
        r#""type": "ipv4_addr", "elem": [{"elem": {"val": "10.1.1.1", "expires": 5}}]"#,
        r#""type": "ipv4_addr", "elem": [{"elem": {"val": "10.1.1.1", "limit": {"rate": 5}}}]"#,
    ] {
        assert!(set("set", members).dynamic, "{members}");
    }
    for members in [
        r#""type": "ipv4_addr", "size": 65535, "flags": ["interval"], "stmt": [{"counter": null}]"#,
        r#""type": "ipv4_addr", "elem": [{"elem": {"val": "10.1.1.1", "comment": "a",
        "counter": {"packets": 0, "bytes": 0}}}]"#,
    ] {
        assert!(!set("set", members).dynamic, "{members}");
    }
    assert!(set("meter", r#""type": "ipv4_addr", "flags": ["dynamic"]"#).dynamic);
}

#[test]
fn what_is_not_understood_is_kept() {
    let opaque = |members| set("set", members).opaque.map(|opaque| opaque.text.into_string());
    assert_eq!(
        opaque(r#""type": "ether_addr", "elem": ["00:11:22:33:44:55"]"#),
        Some("type ether_addr".to_owned())
    );
    // What nft 1.0.6 makes of { "a*", "b" } in a rule.
    assert_eq!(
        opaque(r#""type": "ifname", "elem": [{"range": ["", ""]}]"#),
        Some(r#"element {"range":["",""]}"#.to_owned())
    );
    assert!(opaque(r#""type": "ipv4_addr", "elem": ["fd00::1"]"#).is_some());
    assert!(opaque(r#""type": "inet_service", "elem": [65536]"#).is_some());
    assert!(opaque(r#""elem": [1]"#).is_some());

    // One strange element costs the certainty of misses, not the others.
    let mixed = set("set", r#""type": "ipv4_addr", "elem": ["nonsense", "10.1.1.1"]"#);
    assert!(mixed.opaque.is_some());
    assert_eq!(mixed.elements.get(&ip("10.1.1.1")), Some(&Data::Nothing));

    let map = set(
        "map",
        r#""type": "ipv4_addr", "map": "ipv4_addr", "elem": [["10.1.1.1", {"prefix":
        {"addr": "10.2.0.0", "len": 24}}]]"#,
    );
    assert!(matches!(map.elements.get(&ip("10.1.1.1")), Some(Data::Opaque(_))));
}

#[test]
fn elements_may_stand_apart() {
    let head = r#"{"set": {"family": "inet", "name": "s", "table": "t", "type": "inet_service",
        "elem": [80]}}"#;
    for elem in ["[81, 82]", r#"{"set": [81, 82]}"#] {
        let element = format!(
            r#"{{"element": {{"family": "inet", "table": "t", "name": "s", "elem": {elem}}}}}"#
        );
        let (table, diagnostics) = table("inet", &[head.to_owned(), element]);
        assert_eq!(diagnostics, []);
        assert_eq!(table.sets[0].elements.len(), 3, "{elem}");
    }
}

//! Statements, and the steps that they become.

use std::net::IpAddr;

use unmasq_model::expr::{
    BitOp, Device, Direction, End, Expr, Fib, FibResult, Field, NumgenMode, Value,
};
use unmasq_model::origin::Opaque;
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::{
    Action, Comparison, NamePattern, Nat, NatAddress, NatKind, NatPorts, SetUpdate, Step, Test,
    Verdict,
};
use unmasq_model::ruleset::{ChainId, Table};
use unmasq_model::set::{Data, SetId};

use super::{rule, table};

const SADDR: &str = r#"{"payload": {"protocol": "ip", "field": "saddr"}}"#;
const DPORT: &str = r#"{"payload": {"protocol": "tcp", "field": "dport"}}"#;
const MARK: &str = r#"{"meta": {"key": "mark"}}"#;
const STATE: &str = r#"{"ct": {"key": "state"}}"#;
const FLAGS: &str = r#"{"payload": {"protocol": "tcp", "field": "flags"}}"#;
const NUMGEN: &str = r#"{"numgen": {"mode": "random", "mod": 2, "offset": 0}}"#;

/// Lowers the statements of one rule, in a table that has a set of addresses, a dynamic one, and
/// a map from ports to verdicts, in that order.
fn lower(family: &str, statements: &str) -> (Vec<Step>, Table, String) {
    let set = |kind: &str, name: &str, members: &str| {
        format!(
            r#"{{"{kind}": {{"family": "{family}", "name": "{name}", "table": "t", {members}}}}}"#
        )
    };
    let objects = [
        set("set", "addresses", r#""type": "ipv4_addr", "elem": ["10.9.9.9"]"#),
        set("set", "seen", r#""type": "ipv4_addr", "size": 100"#),
        set("map", "ports", r#""type": "inet_service", "map": "verdict""#),
        rule(family, 7, statements),
    ];
    let (mut table, diagnostics) = table(family, &objects);
    assert_eq!(diagnostics, [], "{statements}");
    let rule = table.chains[0].rules.remove(0);
    (rule.steps.into_vec(), table, rule.text.into())
}

fn check(family: &str, statements: &str, text: &str, expected: Vec<Step>) {
    let (steps, _, written) = lower(family, statements);
    assert_eq!(written, text, "{statements}");
    assert_eq!(steps, expected, "{text}");
}

fn compare(op: &str, left: &str, right: &str) -> String {
    format!(r#"{{"match": {{"op": "{op}", "left": {left}, "right": {right}}}}}"#)
}

fn f(field: Field) -> Expr {
    Expr::Field(field)
}

fn n(n: u32) -> Expr {
    Expr::number(n)
}

fn name(text: &str) -> Expr {
    Expr::Const(Value::Name(text.into()))
}

fn bits(ip: &str) -> u128 {
    Value::address(ip.parse().unwrap()).as_number().unwrap()
}

fn saddr() -> Expr {
    f(Field::Address(Family::V4, End::Source))
}

fn dport() -> Expr {
    f(Field::Port(Some(Protocol::TCP), End::Destination))
}

fn is(left: Expr, op: Comparison, right: Expr) -> Step {
    Step::Test(Test::Compare { left, op, right })
}

fn eq(left: Expr, right: Expr) -> Step {
    is(left, Comparison::Eq, right)
}

fn range(left: Expr, low: u128, high: u128, negated: bool) -> Step {
    Step::Test(Test::Range { left, low, high, negated })
}

fn any(field: Field, bits: u128, negated: bool) -> Step {
    Step::Test(Test::AnyBit { left: f(field), bits, negated })
}

fn member(key: Expr, set: u32, negated: bool) -> Step {
    Step::Test(Test::Member { key, set: SetId(set), negated })
}

fn device(device: Device, name: &str, negated: bool) -> Step {
    let pattern = NamePattern { name: name.into(), wildcard: true };
    Step::Test(Test::DeviceName { device, pattern, negated })
}

fn state(what: &str) -> Step {
    Step::Test(Test::State { what: what.into(), key: None, sets: false })
}

fn verdict(verdict: Verdict) -> Step {
    Step::Do(Action::Verdict(verdict))
}

fn unknown_test(text: &str) -> Step {
    Step::Test(Test::Opaque(Opaque::new(text)))
}

fn unknown_action(text: &str) -> Step {
    Step::Do(Action::Opaque(Opaque::new(text)))
}

fn fib(of: End, iif: bool, mark: bool, result: FibResult) -> Expr {
    f(Field::Fib(Fib { of, iif, oif: false, mark, result }))
}

#[test]
fn comparisons_of_addresses_ports_and_marks() {
    let mark = || f(Field::Mark);
    let and = |left, right| Expr::bits(BitOp::And, left, right);
    for (op, left, right, text, step) in [
        ("==", SADDR, r#""10.1.2.3""#, "ip saddr 10.1.2.3", eq(saddr(), n(0x0a01_0203))),
        (
            "!=",
            SADDR,
            r#"{"prefix": {"addr": "10.0.0.0", "len": 8}}"#,
            "ip saddr != 10.0.0.0/8",
            range(saddr(), bits("10.0.0.0"), bits("10.255.255.255"), true),
        ),
        (
            "==",
            SADDR,
            r#"{"range": ["10.0.0.1", "10.0.0.9"]}"#,
            "ip saddr 10.0.0.1-10.0.0.9",
            range(saddr(), bits("10.0.0.1"), bits("10.0.0.9"), false),
        ),
        (
            "==",
            r#"{"&": [{"payload": {"protocol": "ip", "field": "saddr"}}, "0.0.0.255"]}"#,
            r#""0.0.0.5""#,
            "ip saddr & 0.0.0.255 == 0.0.0.5",
            eq(and(saddr(), n(255)), n(5)),
        ),
        (
            ">",
            SADDR,
            r#""10.0.0.1""#,
            "ip saddr > 10.0.0.1",
            is(saddr(), Comparison::Gt, n(0x0a00_0001)),
        ),
        ("==", SADDR, r#""@addresses""#, "ip saddr @addresses", member(saddr(), 0, false)),
        ("!=", SADDR, r#""@addresses""#, "ip saddr != @addresses", member(saddr(), 0, true)),
        ("==", SADDR, r#""fd00::1""#, "ip saddr fd00::1", unknown_test("ip saddr fd00::1")),
        ("==", SADDR, r#""@nowhere""#, "ip saddr @nowhere", unknown_test("ip saddr @nowhere")),
        ("==", DPORT, "80", "tcp dport 80", eq(dport(), n(80))),
        ("!=", DPORT, r#"{"range": [80, 90]}"#, "tcp dport != 80-90", range(dport(), 80, 90, true)),
        (
            "==",
            r#"{"payload": {"protocol": "th", "field": "sport"}}"#,
            "53",
            "th sport 53",
            eq(f(Field::Port(None, End::Source)), n(53)),
        ),
        (
            "!=",
            r#"{"&": [{"meta": {"key": "mark"}}, 16384]}"#,
            "0",
            "meta mark & 0x00004000 != 0x00000000",
            is(and(mark(), n(0x4000)), Comparison::Ne, n(0)),
        ),
        (
            "==",
            r#"{"&": [{">>": [{"meta": {"key": "mark"}}, 8]}, 15]}"#,
            "3",
            "meta mark >> 8 & 0x0000000f == 0x00000003",
            eq(and(Expr::bits(BitOp::Shr, mark(), n(8)), n(15)), n(3)),
        ),
        ("==", MARK, "4294967296", "meta mark 0x100000000", unknown_test("meta mark 0x100000000")),
        ("==", r#"{"ct": {"key": "mark"}}"#, "5", "ct mark 0x00000005", eq(f(Field::CtMark), n(5))),
        (
            "<",
            r#"{"payload": {"protocol": "ip", "field": "ttl"}}"#,
            "5",
            "ip ttl < 5",
            is(f(Field::Ttl(Family::V4)), Comparison::Lt, n(5)),
        ),
        (
            "==",
            r#"{"payload": {"protocol": "ip", "field": "dscp"}}"#,
            r#""cs1""#,
            "ip dscp cs1",
            unknown_test("ip dscp cs1"),
        ),
        // The same field of a packet in a tunnel is another field.
        (
            "==",
            r#"{"payload": {"tunnel": "vxlan", "protocol": "ip", "field": "saddr"}}"#,
            r#""10.1.2.3""#,
            "vxlan ip saddr 10.1.2.3",
            unknown_test("vxlan ip saddr 10.1.2.3"),
        ),
    ] {
        check("ip", &compare(op, left, right), text, vec![step]);
    }
}

#[test]
fn comparisons_of_symbols() {
    let meta = |key: &str| format!(r#"{{"meta": {{"key": "{key}"}}}}"#);
    let payload = |protocol: &str, field: &str| {
        format!(r#"{{"payload": {{"protocol": "{protocol}", "field": "{field}"}}}}"#)
    };
    for (op, left, right, text, step) in [
        ("==", meta("l4proto"), r#""tcp""#, "meta l4proto tcp", eq(f(Field::L4Proto), n(6))),
        ("==", meta("nfproto"), r#""ipv6""#, "meta nfproto ipv6", eq(f(Field::Nfproto), n(10))),
        ("==", meta("protocol"), r#""ip""#, "meta protocol ip", eq(f(Field::Nfproto), n(2))),
        (
            "==",
            meta("protocol"),
            r#""arp""#,
            "meta protocol arp",
            unknown_test("meta protocol arp"),
        ),
        (
            "==",
            payload("ip6", "nexthdr"),
            r#""udp""#,
            "ip6 nexthdr udp",
            eq(f(Field::IpProtocol(Family::V6)), n(17)),
        ),
        (
            "==",
            payload("icmp", "type"),
            r#""echo-request""#,
            "icmp type echo-request",
            eq(f(Field::IcmpType(Family::V4)), n(8)),
        ),
        (
            "==",
            payload("icmpv6", "code"),
            r#""port-unreachable""#,
            "icmpv6 code port-unreachable",
            eq(f(Field::IcmpCode(Family::V6)), n(4)),
        ),
        (
            "==",
            meta("iifname"),
            r#""eth0""#,
            "iifname \"eth0\"",
            eq(f(Field::DeviceName(Device::In)), name("eth0")),
        ),
        (
            "!=",
            meta("oifname"),
            r#""cali*""#,
            "oifname != \"cali*\"",
            device(Device::Out, "cali", true),
        ),
        (
            "==",
            meta("iifname"),
            r#""eth\\*""#,
            "iifname \"eth\\*\"",
            eq(f(Field::DeviceName(Device::In)), name("eth*")),
        ),
        (
            "==",
            meta("iif"),
            r#""lo""#,
            "iif \"lo\"",
            eq(f(Field::DeviceIndex(Device::In)), name("lo")),
        ),
        ("!=", meta("oif"), r#""0""#, "oif != 0", {
            is(f(Field::DeviceIndex(Device::Out)), Comparison::Ne, name(""))
        }),
        ("==", meta("oif"), r#""99""#, "oif 99", unknown_test("oif 99")),
        ("==", meta("skuid"), "0", "meta skuid 0", unknown_test("meta skuid 0")),
    ] {
        check("inet", &compare(op, &left, right), text, vec![step]);
    }
}

#[test]
fn flags_are_compared_exactly_or_one_by_one() {
    let masked = |bits| Expr::bits(BitOp::And, f(Field::TcpFlags), n(bits));
    let status = r#"{"ct": {"key": "status"}}"#;
    for (op, left, right, text, step) in [
        // What the kernel is given is in `nft --debug=netlink list ruleset`: `ct state new` is a
        // test of one bit, `ct state != new` compares all of them.
        ("in", STATE, r#""new""#, "ct state new", any(Field::CtState, 8, false)),
        (
            "in",
            STATE,
            r#"["established", "related"]"#,
            "ct state established,related",
            any(Field::CtState, 6, false),
        ),
        ("!", STATE, r#""new""#, "ct state ! new", any(Field::CtState, 8, true)),
        ("!=", STATE, r#""new""#, "ct state != new", is(f(Field::CtState), Comparison::Ne, n(8))),
        ("==", STATE, r#""new""#, "ct state == new", eq(f(Field::CtState), n(8))),
        (
            "!=",
            STATE,
            r#"{"|": ["established", "related"]}"#,
            "ct state != established | related",
            is(f(Field::CtState), Comparison::Ne, n(6)),
        ),
        ("in", status, r#""dnat""#, "ct status dnat", any(Field::CtStatus, 32, false)),
        ("in", FLAGS, r#"["fin", "syn"]"#, "tcp flags fin,syn", any(Field::TcpFlags, 3, false)),
        ("==", FLAGS, r#""syn""#, "tcp flags == syn", eq(f(Field::TcpFlags), n(2))),
        (
            "==",
            r#"{"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["fin", "syn", "rst", "ack"]]}"#,
            r#""syn""#,
            "tcp flags syn / fin,syn,rst,ack",
            eq(masked(0x17), n(2)),
        ),
        // Nested operators up to nft 1.0.7, one list of operands from 1.0.8 on.
        (
            "!=",
            r#"{"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, {"|": [{"|": ["fin", "syn"]}, "rst"]}]}"#,
            r#""syn""#,
            "tcp flags & (fin | syn | rst) != syn",
            is(masked(7), Comparison::Ne, n(2)),
        ),
        (
            "!=",
            r#"{"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, {"|": ["fin", "syn", "rst"]}]}"#,
            r#""syn""#,
            "tcp flags & (fin | syn | rst) != syn",
            is(masked(7), Comparison::Ne, n(2)),
        ),
        ("in", r#"{"ct": {"key": "label"}}"#, "1", "ct label 1", unknown_test("ct label 1")),
    ] {
        check("ip", &compare(op, left, right), text, vec![step]);
    }
}

#[test]
fn connections_and_routes() {
    let ct = |key: &str, dir: &str| format!(r#"{{"ct": {{"key": "{key}", "dir": "{dir}"}}}}"#);
    let lookup = |result: &str, flags: &str| {
        format!(r#"{{"fib": {{"result": "{result}", "flags": [{flags}]}}}}"#)
    };
    let address = |direction, end| f(Field::CtAddress(direction, Family::V4, end));
    for (left, right, text, step) in [
        (
            ct("ip saddr", "original"),
            r#""10.1.2.3""#,
            "ct original ip saddr 10.1.2.3",
            eq(address(Direction::Original, End::Source), n(0x0a01_0203)),
        ),
        (
            ct("daddr", "reply"),
            r#"{"prefix": {"addr": "10.0.0.0", "len": 8}}"#,
            "ct reply daddr 10.0.0.0/8",
            range(
                address(Direction::Reply, End::Destination),
                bits("10.0.0.0"),
                bits("10.255.255.255"),
                false,
            ),
        ),
        (
            ct("proto-dst", "original"),
            "80",
            "ct original proto-dst 80",
            eq(f(Field::CtPort(Direction::Original, End::Destination)), n(80)),
        ),
        (
            r#"{"ct": {"key": "direction"}}"#.to_owned(),
            r#""reply""#,
            "ct direction reply",
            eq(f(Field::CtDirection), n(1)),
        ),
        (
            r#"{"ct": {"key": "protocol"}}"#.to_owned(),
            r#""udp""#,
            "ct protocol udp",
            eq(f(Field::CtProtocol), n(17)),
        ),
        (
            lookup("type", r#""saddr""#),
            r#""local""#,
            "fib saddr type local",
            eq(fib(End::Source, false, false, FibResult::Type), n(2)),
        ),
        (
            lookup("oif", r#""saddr", "mark", "iif""#),
            r#""0""#,
            "fib saddr . mark . iif oif 0",
            eq(fib(End::Source, true, true, FibResult::Device), name("")),
        ),
        (
            lookup("oif", r#""saddr", "iif""#),
            "false",
            "fib saddr . iif oif missing",
            eq(fib(End::Source, true, false, FibResult::Exists), n(0)),
        ),
        (
            lookup("check", r#""daddr""#),
            "true",
            "fib daddr check exists",
            eq(fib(End::Destination, false, false, FibResult::Exists), n(1)),
        ),
        (
            lookup("oifname", r#""daddr""#),
            r#""eth*""#,
            "fib daddr oifname \"eth*\"",
            unknown_test("fib daddr oifname \"eth*\""),
        ),
        (
            lookup("type", r#""iif""#),
            r#""local""#,
            "fib iif type local",
            unknown_test("fib iif type local"),
        ),
    ] {
        check("ip", &compare("==", &left, right), text, vec![step]);
    }
    // In an inet table an address without family could be either.
    let either = compare("==", &ct("saddr", "original"), r#""10.1.2.3""#);
    let text = "ct original saddr 10.1.2.3";
    check("inet", &either, text, vec![unknown_test(text)]);
}

#[test]
fn anonymous_sets() {
    let statement =
        compare("!=", SADDR, r#"{"set": ["10.1.2.3", {"range": ["10.5.0.0", "10.5.0.7"]}]}"#);
    let (steps, table, text) = lower("ip", &statement);
    assert_eq!(text, "ip saddr != { 10.1.2.3, 10.5.0.0-10.5.0.7 }");
    assert_eq!(steps, [member(saddr(), 3, true)]);
    let set = table.set(SetId(3));
    assert_eq!((&set.name, set.dynamic, &set.opaque), (&None, false, &None));
    assert!(set.elements.get(&Value::Number(bits("10.5.0.6"))).is_some());

    // A constant in the key is of the kind that the set has there.
    let left = format!(r#"{{"concat": [{SADDR}, {DPORT}]}}"#);
    let right = r#"{"set": [{"concat": ["10.1.2.3", 80]}]}"#;
    let (steps, table, text) = lower("ip", &compare("==", &left, right));
    assert_eq!(text, "ip saddr . tcp dport { 10.1.2.3 . 80 }");
    assert_eq!(steps, [member(Expr::Concat([saddr(), dport()].into()), 3, false)]);
    let key = Value::Tuple([Value::Number(bits("10.1.2.3")), Value::Number(80)].into());
    assert!(table.set(SetId(3)).elements.get(&key).is_some());
}

#[test]
fn verdicts_and_maps_of_them() {
    use Verdict::{Accept, Continue, Drop, Goto, Jump, Return};
    for (name, expected) in
        [("accept", Accept), ("drop", Drop), ("continue", Continue), ("return", Return)]
    {
        check("ip", &format!(r#"{{"{name}": null}}"#), name, vec![verdict(expected)]);
    }
    let other = ChainId(1);
    check("ip", r#"{"jump": {"target": "other"}}"#, "jump other", vec![verdict(Jump(other))]);
    check("ip", r#"{"goto": {"target": "other"}}"#, "goto other", vec![verdict(Goto(other))]);
    check("ip", r#"{"jump": {"target": "no"}}"#, "jump no", vec![unknown_action("jump no")]);

    let named = format!(r#"{{"vmap": {{"key": {DPORT}, "data": "@ports"}}}}"#);
    let step = Step::Do(Action::VerdictMap { key: dport(), map: SetId(2) });
    check("ip", &named, "tcp dport vmap @ports", vec![step]);

    let anonymous = format!(
        r#"{{"vmap": {{"key": {NUMGEN}, "data": {{"set": [[0, {{"goto": {{"target": "other"}}}}],
        [1, {{"drop": null}}]]}}}}}}"#
    );
    let (steps, table, text) = lower("ip", &anonymous);
    assert_eq!(text, "numgen random mod 2 vmap { 0 : goto other, 1 : drop }");
    let key = Expr::Numgen { mode: NumgenMode::Random, modulus: 2, offset: 0 };
    assert_eq!(steps, [Step::Do(Action::VerdictMap { key, map: SetId(3) })]);
    let data = table.set(SetId(3)).elements.get(&Value::Number(0));
    assert_eq!(data, Some(&Data::Verdict(Goto(other))));
}

#[test]
fn marks() {
    let set = |key: &str, value: &str| {
        format!(r#"{{"mangle": {{"key": {{"{key}": {{"key": "mark"}}}}, "value": {value}}}}}"#)
    };
    let mark = || f(Field::Mark);
    let meta = |expr| vec![Step::Do(Action::SetMark(expr))];
    check("ip", &set("meta", "16"), "meta mark set 0x00000010", meta(n(16)));
    check(
        "ip",
        &set("meta", r#"{"|": [{"&": [{"meta": {"key": "mark"}}, 4294934527]}, 16384]}"#),
        "meta mark set meta mark & 0xffff7fff | 0x00004000",
        meta(Expr::bits(BitOp::Or, Expr::bits(BitOp::And, mark(), n(0xffff_7fff)), n(0x4000))),
    );
    check(
        "ip",
        &set("ct", MARK),
        "ct mark set meta mark",
        vec![Step::Do(Action::SetCtMark(mark()))],
    );
    check(
        "ip",
        &set("meta", r#"{"numgen": {"mode": "inc", "mod": 4, "offset": 1}}"#),
        "meta mark set numgen inc mod 4 offset 1",
        meta(Expr::Numgen { mode: NumgenMode::Increment, modulus: 4, offset: 1 }),
    );
    let dscp = r#"{"<<": [{"payload": {"protocol": "ip", "field": "dscp"}}, 2]}"#;
    check(
        "ip",
        &set("meta", dscp),
        "meta mark set ip dscp << 2",
        meta(Expr::Opaque(Opaque::new("ip dscp << 2"))),
    );
    let map = format!(r#"{{"map": {{"key": {SADDR}, "data": {{"set": [["10.1.2.3", 5]]}}}}}}"#);
    check(
        "ip",
        &set("ct", &map),
        "ct mark set ip saddr map { 10.1.2.3 : 0x00000005 }",
        vec![Step::Do(Action::SetCtMark(Expr::Lookup { key: Box::new(saddr()), map: SetId(3) }))],
    );
}

fn nat(kind: NatKind) -> Nat {
    Nat { kind, family: None, address: None, ports: None, random: false }
}

fn ip(text: &str) -> Option<NatAddress> {
    let address: IpAddr = text.parse().unwrap();
    Some(NatAddress::Expr(Expr::Const(Value::address(address))))
}

#[test]
fn translations() {
    use NatKind::{Dnat, Masquerade, Redirect, Snat};
    let between = |low: &str, high: &str| {
        Some(NatAddress::Range(low.parse().unwrap(), high.parse().unwrap()))
    };
    let port = |port| Some(NatPorts::Expr(n(port)));
    for (family, statement, text, expected) in [
        ("ip", r#"{"masquerade": null}"#, "masquerade", nat(Masquerade)),
        (
            "ip",
            r#"{"masquerade": {"flags": "fully-random"}}"#,
            "masquerade fully-random",
            Nat { random: true, ..nat(Masquerade) },
        ),
        (
            "ip",
            r#"{"masquerade": {"port": {"range": [1024, 65535]}}}"#,
            "masquerade to :1024-65535",
            Nat { ports: Some(NatPorts::Range(1024, 65535)), ..nat(Masquerade) },
        ),
        ("ip", r#"{"redirect": {"port": 8080}}"#, "redirect to :8080", {
            Nat { ports: port(8080), ..nat(Redirect) }
        }),
        (
            "ip",
            r#"{"dnat": {"addr": "10.128.0.10", "port": 8080}}"#,
            "dnat to 10.128.0.10:8080",
            Nat { address: ip("10.128.0.10"), ports: port(8080), ..nat(Dnat) },
        ),
        (
            "inet",
            r#"{"dnat": {"family": "ip6", "addr": "fd00::1", "port": 80}}"#,
            "dnat ip6 to [fd00::1]:80",
            Nat { family: Some(Family::V6), address: ip("fd00::1"), ports: port(80), ..nat(Dnat) },
        ),
        (
            "ip",
            r#"{"snat": {"addr": {"range": ["10.1.1.1", "10.1.1.4"]}, "port": {"range": [1000, 2000]}, "flags": ["random", "persistent"]}}"#,
            "snat to 10.1.1.1-10.1.1.4:1000-2000 random,persistent",
            Nat {
                address: between("10.1.1.1", "10.1.1.4"),
                ports: Some(NatPorts::Range(1000, 2000)),
                random: true,
                ..nat(Snat)
            },
        ),
        (
            "ip",
            r#"{"dnat": {"addr": {"prefix": {"addr": "11.0.0.0", "len": 24}}}}"#,
            "dnat to 11.0.0.0/24",
            Nat { address: between("11.0.0.0", "11.0.0.255"), ..nat(Dnat) },
        ),
        (
            "ip",
            r#"{"snat": {"addr": {"prefix": {"addr": "11.0.0.0", "len": 8}}, "flags": "netmap", "type_flags": "prefix"}}"#,
            "snat prefix to 11.0.0.0/8",
            nat(NatKind::Netmap("11.0.0.0/8".parse().unwrap())),
        ),
        (
            "ip",
            r#"{"snat": {"addr": {"payload": {"protocol": "ip", "field": "saddr"}}}}"#,
            "snat to ip saddr",
            Nat { address: Some(NatAddress::Expr(saddr())), ..nat(Snat) },
        ),
    ] {
        check(family, statement, text, vec![Step::Do(Action::Nat(expected))]);
    }
}

#[test]
fn translations_by_map() {
    let statement = format!(
        r#"{{"dnat": {{"family": "ip", "addr": {{"map": {{"key": {NUMGEN}, "data": {{"set":
        [[0, {{"concat": ["10.1.1.1", 8080]}}], [1, "10.1.1.2"]]}}}}}}}}}}"#
    );
    let (steps, table, text) = lower("inet", &statement);
    assert_eq!(text, "dnat ip to numgen random mod 2 map { 0 : 10.1.1.1 . 8080, 1 : 10.1.1.2 }");
    let key = Box::new(Expr::Numgen { mode: NumgenMode::Random, modulus: 2, offset: 0 });
    let address = Some(NatAddress::Expr(Expr::Lookup { key, map: SetId(3) }));
    let expected = Nat { family: Some(Family::V4), address, ..nat(NatKind::Dnat) };
    assert_eq!(steps, [Step::Do(Action::Nat(expected))]);
    let data = |key| table.set(SetId(3)).elements.get(&Value::Number(key)).cloned();
    let first = Value::Tuple([Value::Number(bits("10.1.1.1")), Value::Number(8080)].into());
    assert_eq!(data(0), Some(Data::Value(first)));
    assert_eq!(data(1), Some(Data::Value(Value::Number(bits("10.1.1.2")))));
}

#[test]
fn a_hash_breaks_where_its_fields_are_absent() {
    let statement = format!(
        r#"{{"dnat": {{"addr": {{"map": {{"key": {{"jhash": {{"mod": 2, "seed": 1, "expr":
        {{"concat": [{SADDR}, {DPORT}]}}}}}}, "data": {{"set": [[0, "10.1.1.1"]]}}}}}}}}}}"#
    );
    let key = Box::new(Expr::Hash { modulus: 2, offset: 0 });
    let address = Some(NatAddress::Expr(Expr::Lookup { key, map: SetId(3) }));
    check(
        "ip",
        &statement,
        "dnat to jhash ip saddr . tcp dport mod 2 seed 0x1 map { 0 : 10.1.1.1 }",
        vec![
            range(saddr(), 0, u128::from(u32::MAX), false),
            eq(f(Field::L4Proto), n(6)),
            Step::Do(Action::Nat(Nat { address, ..nat(NatKind::Dnat) })),
        ],
    );
}

#[test]
fn translations_that_are_not_understood() {
    for (family, statement, text) in [
        (
            "ip",
            r#"{"dnat": {"family": "ip", "addr": {"map": {"key": {"payload": {"protocol": "ip", "field": "daddr"}}, "data": {"set": [[{"prefix": {"addr": "10.0.0.0", "len": 8}}, {"prefix": {"addr": "11.0.0.0", "len": 8}}]]}}}, "flags": "netmap", "type_flags": "prefix"}}"#,
            "dnat ip prefix to ip daddr map { 10.0.0.0/8 : 11.0.0.0/8 }",
        ),
        ("inet", r#"{"dnat": {"addr": "10.1.1.1"}}"#, "dnat to 10.1.1.1"),
        ("ip", r#"{"dnat": {"addr": "fd00::1"}}"#, "dnat to fd00::1"),
        ("ip", r#"{"masquerade": {"flags": "sideways"}}"#, "masquerade sideways"),
    ] {
        check(family, statement, text, vec![unknown_action(text)]);
    }
}

#[test]
fn rejects_imply_a_protocol_or_a_family() {
    let reject =
        |kind: &str, code: &str| format!(r#"{{"reject": {{"type": "{kind}", "expr": "{code}"}}}}"#);
    let done = |with: &str| Step::Do(Action::Reject { with: with.into() });
    let family = |family: Family| eq(f(Field::Nfproto), n(family.nfproto().into()));
    for (table, statement, text, steps) in [
        ("ip", reject("icmp", "port-unreachable"), "reject", vec![done("icmp port-unreachable")]),
        (
            "inet",
            reject("icmp", "port-unreachable"),
            "reject with icmp port-unreachable",
            vec![family(Family::V4), done("icmp port-unreachable")],
        ),
        (
            "inet",
            reject("icmpv6", "no-route"),
            "reject with icmpv6 no-route",
            vec![family(Family::V6), done("icmpv6 no-route")],
        ),
        (
            "inet",
            reject("icmpx", "port-unreachable"),
            "reject",
            vec![done("icmpx port-unreachable")],
        ),
        (
            "ip",
            r#"{"reject": {"type": "tcp reset"}}"#.to_owned(),
            "reject with tcp reset",
            vec![eq(f(Field::L4Proto), n(6)), done("tcp reset")],
        ),
    ] {
        check(table, &statement, text, steps);
    }
}

#[test]
fn state_that_is_kept() {
    let update = |op: &str, elem: &str, more: &str| {
        format!(r#"{{"set": {{"op": "{op}", "elem": {elem}, "set": "@seen"{more}}}}}"#)
    };
    let done = |op| Step::Do(Action::UpdateSet { set: SetId(1), key: saddr(), op });
    let timed = format!(r#"{{"elem": {{"val": {SADDR}, "timeout": 90}}}}"#);
    let limit = r#", "stmt": [{"limit": {"rate": 5, "burst": 5, "per": "second"}}]"#;
    for (statement, text, steps) in [
        (update("add", SADDR, ""), "add @seen { ip saddr }", vec![done(SetUpdate::Put)]),
        (update("delete", SADDR, ""), "delete @seen { ip saddr }", vec![done(SetUpdate::Delete)]),
        (
            update("update", &timed, limit),
            "update @seen { ip saddr timeout 1m30s limit rate 5/second }",
            vec![done(SetUpdate::Put), state("limit rate 5/second")],
        ),
        (
            update("update", SADDR, r#", "stmt": [{"counter": null}]"#),
            "update @seen { ip saddr counter }",
            vec![done(SetUpdate::Put)],
        ),
        (
            r#"{"limit": {"rate": 5, "burst": 10, "per": "minute"}}"#.to_owned(),
            "limit rate 5/minute burst 10 packets",
            vec![state("limit rate 5/minute burst 10 packets")],
        ),
        (
            r#"{"limit": {"rate": 400, "burst": 0, "per": "second", "inv": true, "rate_unit": "kbytes", "burst_unit": "bytes"}}"#.to_owned(),
            "limit rate over 400 kbytes/second",
            vec![state("limit rate over 400 kbytes/second")],
        ),
        (
            r#"{"quota": {"val": 25, "val_unit": "mbytes", "inv": true}}"#.to_owned(),
            "quota over 25 mbytes",
            vec![state("quota over 25 mbytes")],
        ),
        (
            r#"{"ct count": {"val": 5, "inv": true}}"#.to_owned(),
            "ct count over 5",
            vec![state("ct count over 5")],
        ),
    ] {
        let (lowered, table, written) = lower("ip", &statement);
        assert_eq!((written.as_str(), &lowered), (text, &steps));
        assert_eq!(table.set(SetId(1)).dynamic, text.contains("@seen"), "{text}");
    }
}

/// nft 1.0.6 prints this statement as text even in its JSON, 1.1 as an object.
#[test]
fn updates_of_maps_are_read_from_text() {
    let map = r#"{"map": {"family": "inet", "name": "m", "table": "t", "type": "ipv4_addr", "map": ["ipv4_addr", "inet_service"]}}"#;
    let lower = |statement: &str| {
        let objects = [map.to_owned(), rule("inet", 7, statement)];
        let (mut table, diagnostics) = table("inet", &objects);
        assert_eq!(diagnostics, [], "{statement}");
        let rule = table.chains[0].rules.remove(0);
        (rule.steps.into_vec(), table.sets[0].dynamic, rule.text.to_string())
    };
    let daddr = f(Field::Address(Family::V4, End::Destination));
    let put = Step::Do(Action::UpdateSet { set: SetId(0), key: saddr(), op: SetUpdate::Put });
    let present = range(daddr, 0, u128::from(u32::MAX), false);
    let tcp = eq(f(Field::L4Proto), n(6));
    let plain = "update @m { ip saddr : ip daddr . tcp dport }";
    let timed = "update @m { ip saddr timeout 1h : ip daddr . tcp dport }";
    for text in [plain, timed] {
        let (steps, dynamic, written) = lower(&format!("\"{text}\""));
        assert_eq!(steps, [present.clone(), tcp.clone(), put.clone()], "{text}");
        assert!(dynamic);
        assert_eq!(written, text);
    }
    let daddr = r#"{"payload": {"protocol": "ip", "field": "daddr"}}"#;
    let json = format!(
        r#"{{"map": {{"op": "update", "elem": {SADDR}, "data": {{"concat": [{daddr}, {DPORT}]}}, "map": "@m"}}}}"#
    );
    assert_eq!(lower(&json).0, [present.clone(), tcp.clone(), put.clone()]);
    let limit =
        Step::Test(Test::State { what: "limit rate 1/hour".into(), key: None, sets: false });
    let limited = "update @m { ip saddr limit rate 1/hour : ip daddr . tcp dport }";
    assert_eq!(lower(&format!("\"{limited}\"")).0, [present, tcp, put, limit]);
    // Not understood, and the map is known to change all the same.
    for text in
        ["update @m { ip dscp : ip daddr . tcp dport }", "add @m { ip saddr : ip daddr . ip dscp }"]
    {
        let (steps, dynamic, _) = lower(&format!("\"{text}\""));
        assert_eq!(steps.last(), Some(&unknown_action(text)), "{text}");
        assert!(dynamic, "{text}");
    }
}

#[test]
fn what_tells_somebody_or_leaves_the_packet_alone() {
    for (statement, text, action) in [
        (
            r#"{"counter": {"packets": 3, "bytes": 120}}"#,
            "counter packets 3 bytes 120",
            Action::Count,
        ),
        (r#"{"counter": "named"}"#, "counter name \"named\"", Action::Log),
        (r#"{"log": null}"#, "log", Action::Log),
        (r#"{"log": {"prefix": "x: ", "group": 5}}"#, "log prefix \"x: \" group 5", Action::Log),
        (r#"{"flow": {"op": "add", "flowtable": "@f"}}"#, "flow add @f", Action::Log),
        (r#"{"notrack": null}"#, "notrack", Action::NoTrack),
        (r#"{"ct helper": "ftp"}"#, "ct helper set \"ftp\"", Action::CtExtra),
        (
            r#"{"mangle": {"key": {"ct": {"key": "zone"}}, "value": 5}}"#,
            "ct zone set 5",
            Action::CtTemplate,
        ),
        (
            r#"{"mangle": {"key": {"meta": {"key": "nftrace"}}, "value": 1}}"#,
            "meta nftrace set 1",
            Action::Log,
        ),
    ] {
        check("ip", statement, text, vec![Step::Do(action)]);
    }
    // A map of objects is a test of its key.
    let (steps, _, _) = lower(
        "ip",
        &format!(
            r#"{{"counter": {{"map": {{"key": {SADDR}, "data": {{"set": [["10.1.2.3", "named"]]}}}}}}}}"#
        ),
    );
    assert_eq!(steps, [member(saddr(), 3, false), Step::Do(Action::Log)]);
}

#[test]
fn unknown_statements_may_do_anything() {
    for (statement, text) in [
        (r#"{"queue": {"num": 0, "flags": "bypass"}}"#, "queue flags bypass to 0"),
        (r#"{"xt": {"type": "target", "name": "DNAT"}}"#, "xt target \"DNAT\""),
        (r#"{"synproxy": {"mss": 1460}}"#, r#"{"synproxy":{"mss":1460}}"#),
        (r#""future words""#, "future words"),
        (
            r#"{"mangle": {"key": {"payload": {"protocol": "ip", "field": "dscp"}}, "value": "cs1"}}"#,
            "ip dscp set cs1",
        ),
    ] {
        check("ip", statement, text, vec![unknown_action(text)]);
    }
    let comment = r#"{"xt": {"type": "match", "name": "comment"}}, {"accept": null}"#;
    let text = "xt match \"comment\" accept";
    let steps = vec![unknown_test("xt match \"comment\""), verdict(Verdict::Accept)];
    check("ip", comment, text, steps);
}

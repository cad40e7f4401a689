//! Small states and packets with the outcome that the kernel's code gives, by hand.
//!
//! The node: eth0 10.0.0.11/24 with the default route, cni0 10.42.0.1/24 with the pods, wg0
//! without an address. `unmasq-lab` shows the same points with real packets.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::BTreeMap;

use unmasq_eval::Evaluator;
use unmasq_eval::trace::{By, Options, Outcome, Query, RuleId, Trace};
use unmasq_model::host::{AssumedSet, Beyond, Host};
use unmasq_model::origin::FileId;
use unmasq_model::packet::{Packet, Protocol};

const ADDRESSES: &str = r#"[
 {"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"addr_info":[
  {"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"},
  {"family":"inet6","local":"::1","prefixlen":128,"scope":"host"}]},
 {"ifindex":2,"ifname":"eth0","flags":["UP"],"addr_info":[
  {"family":"inet","local":"10.0.0.11","prefixlen":24,"scope":"global"},
  {"family":"inet","local":"10.0.0.12","prefixlen":24,"scope":"global","secondary":true},
  {"family":"inet","local":"172.31.5.11","prefixlen":16,"scope":"global"},
  {"family":"inet6","local":"fd00:10::11","prefixlen":64,"scope":"global"}]},
 {"ifindex":3,"ifname":"cni0","flags":["UP"],"addr_info":[
  {"family":"inet","local":"10.42.0.1","prefixlen":24,"scope":"global"},
  {"family":"inet6","local":"fd00:42::1","prefixlen":64,"scope":"global"}]},
 {"ifindex":4,"ifname":"wg0","flags":["UP"],"addr_info":[]}]"#;

const ROUTES: &str = r#"[
 {"dst":"default","gateway":"10.0.0.1","dev":"eth0","prefsrc":"172.31.5.11","flags":[]},
 {"dst":"10.0.0.0/24","dev":"eth0","scope":"link","flags":[]},
 {"dst":"172.31.0.0/16","dev":"eth0","scope":"link","flags":[]},
 {"dst":"10.42.0.0/24","dev":"cni0","scope":"link","flags":[]},
 {"dst":"10.99.0.0/24","dev":"wg0","scope":"link","flags":[]},
 {"type":"blackhole","dst":"10.66.1.0/24","flags":[]},
 {"type":"unreachable","dst":"10.66.2.0/24","flags":[]},
 {"type":"prohibit","dst":"10.66.3.0/24","flags":[]},
 {"dst":"default","gateway":"10.42.0.254","dev":"cni0","table":"100","flags":[]},
 {"type":"local","dst":"10.0.0.11","dev":"eth0","table":"local","scope":"host","flags":[]},
 {"type":"local","dst":"10.0.0.12","dev":"eth0","table":"local","scope":"host","flags":[]},
 {"type":"local","dst":"172.31.5.11","dev":"eth0","table":"local","scope":"host","flags":[]},
 {"type":"local","dst":"10.42.0.1","dev":"cni0","table":"local","scope":"host","flags":[]},
 {"type":"local","dst":"127.0.0.0/8","dev":"lo","table":"local","scope":"host","flags":[]}]"#;

const RULES: &str = r#"[{"priority":0,"src":"all","table":"local"},
 {"priority":100,"src":"all","fwmark":"0x7","table":"100"},
 {"priority":32766,"src":"all","table":"main"},{"priority":32767,"src":"all","table":"default"}]"#;

const SYSCTL: &str = "net.ipv4.ip_forward = 1
net.ipv4.conf.all.rp_filter = 0
net.ipv4.conf.eth0.rp_filter = 1
net.ipv4.conf.cni0.rp_filter = 0
net.ipv4.conf.wg0.rp_filter = 0
net.ipv4.conf.all.route_localnet = 0
net.ipv4.conf.eth0.route_localnet = 0
net.ipv4.conf.all.accept_local = 0
net.ipv4.conf.eth0.accept_local = 0
net.ipv4.conf.all.src_valid_mark = 0
net.ipv4.conf.eth0.src_valid_mark = 0
net.ipv4.conf.eth0.forwarding = 1
net.ipv4.conf.cni0.forwarding = 1
net.ipv4.conf.wg0.forwarding = 0
net.ipv6.conf.all.forwarding = 1
";

const LEGACY: &str = "iptables-legacy-save";

/// A node with the given files besides its devices, routes and settings.
fn host(files: &[(&str, &str)]) -> Host {
    let mut all: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut add = |name: &str, text: &str| {
        all.insert(format!("nodes/n1/{name}"), text.as_bytes().to_vec());
    };
    add("ip-addr.json", ADDRESSES);
    add("ip-route.json", ROUTES);
    add("ip-rule.json", RULES);
    add("sysctl", SYSCTL);
    add("nft.json", r#"{"nftables":[]}"#);
    for (name, text) in files {
        add(name, text);
    }
    all.insert(
        "capture.json".to_owned(),
        br#"{"schema":"unmasq.capture/v1","created":"2026-01-01T00:00:00Z","by":"test"}"#.to_vec(),
    );
    let capture = unmasq_parse::capture::parse(&all).expect("a capture");
    let node = capture.node("n1").expect("the node");
    assert_eq!(node.diagnostics, []);
    node.host
}

/// A node with one iptables-legacy table.
fn host_with(table: &str, chains: &[&str], rules: &[&str]) -> Host {
    host(&[(LEGACY, &save(table, chains, rules))])
}

fn save(table: &str, chains: &[&str], rules: &[&str]) -> String {
    let chains: Vec<String> = chains.iter().map(|chain| format!(":{chain} [0:0]\n")).collect();
    format!("*{table}\n{}{}\nCOMMIT\n", chains.concat(), rules.join("\n"))
}

fn trace_with(host: &Host, from: &str, to: &str, device: Option<&str>, options: Options) -> Trace {
    let (from, to): (std::net::SocketAddr, std::net::SocketAddr) =
        (from.parse().expect("from"), to.parse().expect("to"));
    let packet =
        Packet::open(Protocol::TCP, from.ip(), Some(from.port()), to.ip(), Some(to.port()));
    let query = Query::opening(packet, device);
    Evaluator::new(host, options).trace(&query)
}

fn trace(host: &Host, from: &str, to: &str, device: Option<&str>) -> Trace {
    trace_with(host, from, to, device, Options::default())
}

/// The only outcome.
#[track_caller]
fn only(host: &Host, from: &str, to: &str) -> Outcome {
    let outcomes = trace(host, from, to, None).outcomes;
    assert_eq!(outcomes.len(), 1, "{outcomes:#?}");
    outcomes[0].clone()
}

/// An outcome in one line.
fn line(outcome: &Outcome) -> String {
    let reason = outcome.reason.map(|reason| format!(" {reason:?}")).unwrap_or_default();
    let out = outcome.out.as_deref().map(|out| format!(" out {out}")).unwrap_or_default();
    format!(
        "{:?}{reason} {} -> {}{out}",
        outcome.verdict, outcome.source.after, outcome.destination.after
    )
}

#[track_caller]
fn check(host: &Host, from: &str, to: &str, device: Option<&str>, expected: &str) {
    let trace = trace(host, from, to, device);
    let got: Vec<String> = trace.outcomes.iter().map(line).collect();
    assert_eq!(got, [expected], "{from} -> {to}: {:#?}", trace.outcomes);
}

#[test]
fn routing_decides_without_any_rule() {
    let host = host(&[]);
    let pod = "10.42.0.7:40000";
    let cases: &[(&str, &str, Option<&str>, &str)] = &[
        (pod, "8.8.8.8:53", None, "Forwarded 10.42.0.7:40000 -> 8.8.8.8:53 out eth0"),
        (pod, "10.0.0.11:22", None, "Delivered 10.42.0.7:40000 -> 10.0.0.11:22"),
        (pod, "10.66.1.1:1", None, "Dropped Blackhole 10.42.0.7:40000 -> 10.66.1.1:1"),
        (pod, "10.66.2.1:1", None, "Rejected Unreachable 10.42.0.7:40000 -> 10.66.2.1:1"),
        (pod, "10.66.3.1:1", None, "Rejected Prohibit 10.42.0.7:40000 -> 10.66.3.1:1"),
        // Strict rp_filter on eth0: the way back to a pod is not by it.
        (pod, "8.8.8.8:53", Some("eth0"), "Dropped RpFilter 10.42.0.7:40000 -> 8.8.8.8:53"),
        ("127.0.0.1:1", "8.8.8.8:53", Some("eth0"), "Dropped Martian 127.0.0.1:1 -> 8.8.8.8:53"),
        ("10.0.0.12:1", "10.0.0.11:2", Some("eth0"), "Dropped Martian 10.0.0.12:1 -> 10.0.0.11:2"),
        ("10.99.0.5:1", "8.8.8.8:53", None, "Dropped NoForwarding 10.99.0.5:1 -> 8.8.8.8:53"),
        ("10.99.0.5:1", "10.0.0.11:53", None, "Delivered 10.99.0.5:1 -> 10.0.0.11:53"),
        ("10.0.0.11:1", "8.8.8.8:53", None, "Forwarded 10.0.0.11:1 -> 8.8.8.8:53 out eth0"),
        ("10.0.0.11:1", "10.42.0.1:53", None, "Delivered 10.0.0.11:1 -> 10.42.0.1:53"),
        ("10.0.0.11:1", "10.66.1.1:1", None, "Rejected Blackhole 10.0.0.11:1 -> 10.66.1.1:1"),
        ("127.0.0.1:1", "8.8.8.8:1", None, "Rejected Martian 127.0.0.1:1 -> 8.8.8.8:1"),
    ];
    for (from, to, device, expected) in cases {
        check(&host, from, to, *device, expected);
    }
}

#[test]
fn masquerade_takes_the_next_hops_subnet_not_the_routes_hint() {
    let host = host_with("nat", &["POSTROUTING ACCEPT"], &["-A POSTROUTING -j MASQUERADE"]);
    let cases = [
        // The gateway 10.0.0.1 is in the first address's subnet; `src 172.31.5.11` is no matter.
        ("8.8.8.8:53", "Forwarded 10.0.0.11:40000 -> 8.8.8.8:53 out eth0"),
        ("172.31.9.9:53", "Forwarded 172.31.5.11:40000 -> 172.31.9.9:53 out eth0"),
        // wg0 has no address: the first of another device that is global.
        ("10.99.0.5:53", "Forwarded 10.0.0.11:40000 -> 10.99.0.5:53 out wg0"),
    ];
    for (to, expected) in cases {
        check(&host, "10.42.0.7:40000", to, None, expected);
    }
}

#[test]
fn a_random_port_comes_from_the_range_that_the_old_one_is_in() {
    let rules = ["-A POSTROUTING -j MASQUERADE --random-fully"];
    let host = host_with("nat", &["POSTROUTING ACCEPT"], &rules);
    for (port, range) in [("80", "1-511"), ("600", "600-1023"), ("1024", "1024-65535")] {
        let expected = format!("Forwarded 10.0.0.11:{range} -> 8.8.8.8:53 out eth0");
        check(&host, &format!("10.42.0.7:{port}"), "8.8.8.8:53", None, &expected);
    }
}

#[test]
fn a_mark_in_mangle_output_routes_again_and_one_elsewhere_does_not() {
    for (table, out) in [("mangle", "cni0"), ("raw", "eth0"), ("filter", "eth0")] {
        let rules = ["-A OUTPUT -j MARK --set-xmark 0x7/0x7"];
        let host = host_with(table, &["OUTPUT ACCEPT"], &rules);
        let expected = format!("Forwarded 10.0.0.11:40000 -> 8.8.8.8:53 out {out}");
        check(&host, "10.0.0.11:40000", "8.8.8.8:53", None, &expected);
    }
}

#[test]
fn over_loopback_nat_prerouting_is_not_asked_again() {
    let rules = [
        "-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.42.0.9:1",
        "-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.42.0.9:2",
        "-A OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080",
    ];
    let host = host_with("nat", &["PREROUTING ACCEPT", "OUTPUT ACCEPT"], &rules);
    let redirected = "Delivered 10.0.0.11:40000 -> 127.0.0.1:8080";
    check(&host, "10.0.0.11:40000", "10.0.0.11:80", None, redirected);
    let untouched = "Delivered 10.0.0.11:40000 -> 10.0.0.11:8080";
    check(&host, "10.0.0.11:40000", "10.0.0.11:8080", None, untouched);
}

#[test]
fn untracked_packets_pass_nat_by() {
    let raw = save("raw", &["PREROUTING ACCEPT"], &["-A PREROUTING -s 10.42.0.7/32 -j NOTRACK"]);
    let nat = save("nat", &["POSTROUTING ACCEPT"], &["-A POSTROUTING -j MASQUERADE"]);
    let host = host(&[(LEGACY, &(raw + &nat))]);
    let kept = "Forwarded 10.42.0.7:40000 -> 8.8.8.8:53 out eth0";
    check(&host, "10.42.0.7:40000", "8.8.8.8:53", None, kept);
    let lost = "Forwarded 10.0.0.11:40000 -> 8.8.8.8:53 out eth0";
    check(&host, "10.42.0.8:40000", "8.8.8.8:53", None, lost);
}

#[test]
fn the_mark_that_made_a_masquerade_is_named_with_the_jump_to_it() {
    let jump = "-A PREROUTING -p tcp -m tcp --dport 53 -j MARKIT";
    let mark = "-A MARKIT -j MARK --set-xmark 0x4000/0x4000";
    // Sets another bit: not a reason.
    let other = "-A MARKIT -j MARK --set-xmark 0x8/0x8";
    let masquerade = "-A KP -j MASQUERADE";
    let rules = [
        jump,
        mark,
        other,
        "-A POSTROUTING -j KP",
        "-A KP -m mark ! --mark 0x4000/0x4000 -j RETURN",
        // Changes the mark after it was looked at: not a reason.
        "-A KP -j MARK --set-xmark 0x0/0x4000",
        masquerade,
    ];
    let chains = ["PREROUTING ACCEPT", "POSTROUTING ACCEPT", "MARKIT -", "KP -"];
    let host = host_with("nat", &chains, &rules);
    let outcome = only(&host, "10.42.0.7:40000", "8.8.8.8:53");
    let text = |rule: RuleId| {
        let table = &host.ruleset.tables[rule.table as usize];
        table.chain(rule.chain).rules[rule.rule as usize].text.to_string()
    };
    assert_eq!(outcome.rewritten_by.map(text).as_deref(), Some(masquerade), "{outcome:#?}");
    let because: Vec<String> = outcome
        .because
        .iter()
        .filter_map(|hit| match &outcome.hits[*hit].by {
            By::Rule(rule) => Some(text(*rule)),
            By::Policy { .. } | By::Kernel(_) => None,
        })
        .collect();
    assert_eq!(because, [jump, mark]);
}

#[test]
fn a_set_that_was_not_captured_is_unknown_only_where_it_matters() {
    let host_with = |target: &str| {
        let rule = format!("-A POSTROUTING -d 8.8.8.8/32 -m set --match-set pool src -j {target}");
        host_with("nat", &["POSTROUTING ACCEPT"], &[&rule])
    };
    let masquerade = host_with("MASQUERADE");
    // Whether it is forwarded is certain; from which address is not.
    let outcome = only(&masquerade, "10.42.0.7:40000", "8.8.8.8:53");
    assert_eq!(line(&outcome), "Forwarded ? -> 8.8.8.8:53 out eth0");
    assert!(outcome.unknown[0].contains("ipset.save"), "{:?}", outcome.unknown);
    let none: [String; 0] = [];
    assert_eq!(only(&masquerade, "10.42.0.7:40000", "9.9.9.9:53").unknown, none);
    assert_eq!(only(&host_with("LOG"), "10.42.0.7:40000", "8.8.8.8:53").unknown, none);
}

#[test]
fn a_set_that_follows_from_something_else_is_an_assumption() {
    let rules =
        ["-A POSTROUTING -m set --match-set pods src -m set ! --match-set pods dst -j MASQUERADE"];
    let (sets, diagnostics) =
        unmasq_parse::ipset::parse("create pods hash:net\nadd pods 10.42.0.0/16\n", FileId(0));
    assert!(diagnostics.is_empty());
    let assumed = AssumedSet { set: sets["pods"].clone(), text: "pods is 10.42.0.0/16".into() };
    let without = host_with("nat", &["POSTROUTING ACCEPT"], &rules);
    let host = Host { assumed_sets: [("pods".into(), assumed)].into(), ..without.clone() };

    let plain = "Forwarded ? -> 8.8.8.8:53 out eth0";
    check(&without, "10.42.0.7:40000", "8.8.8.8:53", None, plain);
    let masqueraded = "Forwarded 10.0.0.11:40000 -> 8.8.8.8:53 out eth0";
    check(&host, "10.42.0.7:40000", "8.8.8.8:53", None, masqueraded);
    let said = |host: &Host| {
        let assumptions = trace(host, "10.42.0.7:40000", "8.8.8.8:53", None).assumptions;
        assumptions.iter().filter(|text| *text == "pods is 10.42.0.0/16").count()
    };
    assert_eq!((said(&host), said(&without)), (1, 0));

    // What was captured counts, and says nothing of the kind.
    let (captured, _) = unmasq_parse::ipset::parse("create pods hash:net\n", FileId(0));
    let captured = Host { ipsets: Some(captured), ..host.clone() };
    let untouched = "Forwarded 10.42.0.7:40000 -> 8.8.8.8:53 out eth0";
    check(&captured, "10.42.0.7:40000", "8.8.8.8:53", None, untouched);
    assert_eq!(said(&captured), 0);

    // Nothing else is taken for granted of this host, so --strict finds this one.
    let nothing = Beyond {
        tc: Some(Vec::new()),
        bpf: Some(Vec::new()),
        ipvs: Some(Vec::new()),
        xfrm: Some(Vec::new()),
    };
    let host = Host { beyond: nothing, ..host };
    let strict = Options { strict: true, ..Options::default() };
    let trace = trace_with(&host, "10.42.0.7:40000", "8.8.8.8:53", None, strict);
    let lines: Vec<String> = trace.outcomes.iter().map(line).collect();
    assert_eq!(lines, [plain]);
    assert_eq!(trace.assumptions, [""; 0]);
    let why = &trace.outcomes[0].unknown[0];
    assert!(why.contains("ipset pods is not known: ipset.save was not captured"), "{why}");
}

#[test]
fn two_lookups_of_an_unknown_set_agree() {
    // Whatever the set holds, one of the two rules accepts and the last is never reached.
    let rules = [
        "-A FORWARD -m set --match-set s src -j ACCEPT",
        "-A FORWARD -m set ! --match-set s src -j ACCEPT",
        "-A FORWARD -j DROP",
    ];
    let host = host_with("filter", &["FORWARD ACCEPT"], &rules);
    let expected = "Forwarded 10.42.0.7:40000 -> 8.8.8.8:53 out eth0";
    check(&host, "10.42.0.7:40000", "8.8.8.8:53", None, expected);
}

#[test]
fn random_rules_give_outcomes_with_their_probabilities() {
    let rules = [
        "-A PREROUTING -p tcp -m statistic --mode random --probability 0.25000000000 -j DNAT --to-destination 10.42.0.5",
        "-A PREROUTING -p tcp -j DNAT --to-destination 10.42.0.6",
    ];
    let host = host_with("nat", &["PREROUTING ACCEPT"], &rules);
    let trace = trace(&host, "10.0.0.99:40000", "10.0.0.11:80", Some("eth0"));
    let got: BTreeMap<String, f64> = trace
        .outcomes
        .iter()
        .map(|o| (o.destination.after.to_string(), o.probability.expect("a probability")))
        .collect();
    assert_eq!(got.len(), 2, "{got:?}");
    assert!((got["10.42.0.5:80"] - 0.25).abs() < 1e-6, "{got:?}");
    assert!((got["10.42.0.6:80"] - 0.75).abs() < 1e-6, "{got:?}");
}

#[test]
fn missing_files_are_assumed_only_where_the_design_allows_it() {
    let host = host(&[]);
    let assumed = trace(&host, "10.42.0.7:1", "8.8.8.8:53", None).assumptions;
    assert_eq!(assumed.len(), 2, "{assumed:?}");
    for (assumption, what) in assumed.iter().zip(["tc filters", "iptables-legacy"]) {
        assert!(assumption.contains(what), "{assumed:?}");
    }
    let strict = Options { strict: true, ..Options::default() };
    let trace = trace_with(&host, "10.42.0.7:1", "8.8.8.8:53", None, strict);
    assert_eq!(line(&trace.outcomes[0]), "Unknown ? -> ?");
}

#[test]
fn policy_and_reject_say_who_decided() {
    let rules = ["-A FORWARD -p tcp -m tcp --dport 53 -j REJECT --reject-with tcp-reset"];
    let host = host_with("filter", &["INPUT DROP", "FORWARD ACCEPT"], &rules);
    let rejected = "Rejected Rule 10.42.0.7:1 -> 8.8.8.8:53";
    check(&host, "10.42.0.7:1", "8.8.8.8:53", None, rejected);
    let dropped = "Dropped Policy 10.42.0.7:1 -> 10.0.0.11:53";
    check(&host, "10.42.0.7:1", "10.0.0.11:53", None, dropped);
}

#[test]
fn a_connection_that_began_before_nat_gets_no_translation_from_it() {
    let filter = save(
        "filter",
        &["FORWARD ACCEPT"],
        &["-A FORWARD -m conntrack --ctstate NEW -m comment --comment new"],
    );
    let nat = save(
        "nat",
        &["PREROUTING ACCEPT", "POSTROUTING ACCEPT"],
        &["-A PREROUTING -j DNAT --to-destination 10.42.0.9", "-A POSTROUTING -j MASQUERADE"],
    );
    let before = host(&[(LEGACY, &filter)]);
    let after = host(&[(LEGACY, &(filter + &nat))]);
    let (from, to) = ("10.42.0.7:40000", "8.8.8.8:53");
    let opening = only(&before, from, to);
    let (source, destination): (std::net::SocketAddr, std::net::SocketAddr) =
        (from.parse().unwrap(), to.parse().unwrap());
    let ports = (Some(source.port()), Some(destination.port()));
    let packet = Packet::open(Protocol::TCP, source.ip(), ports.0, destination.ip(), ports.1);
    let opening_query = Query::opening(packet, None);
    // Until the answer its rules count all the same.
    for (answered, counted) in [(false, 3), (true, 0)] {
        let query = opening.further(&opening_query, answered);
        let trace = Evaluator::new(&after, Options::default()).trace(&query);
        let [outcome] = &trace.outcomes[..] else { panic!("{:#?}", trace.outcomes) };
        assert_eq!(line(outcome), "Forwarded 10.42.0.7:40000 -> 8.8.8.8:53 out eth0");
        let hits = outcome.hits.iter().filter(|hit| hit.counted).count();
        assert_eq!(hits, counted, "answered {answered}: {:#?}", outcome.hits);
    }
}

/// A node with an nft table of a set, and a rule in forward: `add @s { ip saddr } drop`.
fn host_with_set(size: u32, elements: &str) -> Host {
    let objects = [
        r#"{"table": {"family": "ip", "name": "t", "handle": 1}}"#.to_owned(),
        r#"{"chain": {"family": "ip", "table": "t", "name": "c", "handle": 2, "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}}"#.to_owned(),
        format!(
            r#"{{"set": {{"family": "ip", "table": "t", "name": "s", "handle": 3, "type": "ipv4_addr", "size": {size}, "elem": [{elements}]}}}}"#
        ),
        r#"{"rule": {"family": "ip", "table": "t", "chain": "c", "handle": 4, "expr": [{"set": {"op": "add", "elem": {"payload": {"protocol": "ip", "field": "saddr"}}, "set": "@s"}}, {"drop": null}]}}"#.to_owned(),
    ];
    let json = format!(r#"{{"nftables": [{}]}}"#, objects.join(","));
    let text = "table ip t { # handle 1\n}\n";
    host(&[("nft.json", &json), ("nft.txt", text)])
}

#[test]
fn a_full_set_may_break_the_rule_that_adds_to_it() {
    let dropped = "Dropped Rule 10.42.0.7:40000 -> 8.8.8.8:53";
    let passed = "Forwarded 10.42.0.7:40000 -> 8.8.8.8:53 out eth0";
    for (size, elements, expected) in [
        (2, r#""10.42.0.8""#, &[dropped][..]),
        (1, r#""10.42.0.7""#, &[dropped]),
        (1, r#""10.42.0.8""#, &[passed, dropped]),
    ] {
        let host = host_with_set(size, elements);
        let outcomes = trace(&host, "10.42.0.7:40000", "8.8.8.8:53", None).outcomes;
        let got: Vec<String> = outcomes.iter().map(line).collect();
        assert_eq!(got, expected, "size {size}, {elements}");
    }
}

#[test]
fn a_template_looks_like_a_new_connection() {
    let host = host_with(
        "raw",
        &["PREROUTING ACCEPT"],
        &["-A PREROUTING -j CT --zone 5", "-A PREROUTING -m conntrack --ctstate NEW -j DROP"],
    );
    let dropped = "Dropped Rule 10.42.0.7:40000 -> 8.8.8.8:53";
    check(&host, "10.42.0.7:40000", "8.8.8.8:53", None, dropped);
}

/// Two outcomes that differ only in the connection's mark are one for people, and two for who
/// follows the answer.
#[test]
fn entries_are_kept_apart_where_the_answer_needs_them() {
    let rules = [
        "-A FORWARD -m statistic --mode random --probability 0.5 -j CONNMARK --set-xmark 0x1/0xffffffff",
    ];
    let host = host_with("mangle", &["FORWARD ACCEPT"], &rules);
    let (from, to) = ("192.0.2.7:4000", "10.42.0.7:80");
    let marks = |every_entry| -> Vec<Option<u32>> {
        let options = Options { every_entry, ..Options::default() };
        let trace = trace_with(&host, from, to, Some("eth0"), options);
        trace.outcomes.iter().map(|one| Some(one.tracked.as_ref()?.mark)).collect()
    };
    assert_eq!(marks(false).len(), 1);
    assert_eq!(marks(true), [Some(0), Some(1)]);
}

#[test]
fn only_questions_are_answered() {
    use unmasq_model::packet::Transport;
    let host = host(&[]);
    let (from, to) = ("192.0.2.7".parse().unwrap(), "10.42.0.7".parse().unwrap());
    let answer = |kind: u8| {
        let mut packet = Packet::open(Protocol::ICMP, from, None, to, None);
        packet.transport = Transport::Icmp { kind, code: 0 };
        let query = Query::opening(packet.clone(), Some("eth0"));
        let outcome = Evaluator::new(&host, Options::default()).trace(&query).outcomes[0].clone();
        Some(outcome.answer(&packet, None)?.packet.transport)
    };
    assert_eq!(answer(8), Some(Transport::Icmp { kind: 0, code: 0 }));
    assert_eq!(answer(13), Some(Transport::Icmp { kind: 14, code: 0 }));
    assert_eq!((answer(3), answer(0), answer(255)), (None, None, None));
}

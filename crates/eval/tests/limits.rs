//! What hostile or damaged input must not do: hang, fill the memory, or make an answer certain
//! that is not.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use unmasq_eval::Evaluator;
use unmasq_eval::trace::{Disposition, Options, Outcome, Query, Verdict};
use unmasq_model::host::Host;
use unmasq_model::packet::{Packet, Protocol};

const ADDRESSES: &str = r#"[
 {"ifindex":2,"ifname":"eth0","flags":["UP"],"addr_info":[
  {"family":"inet","local":"10.0.0.11","prefixlen":24,"scope":"global"}]},
 {"ifindex":3,"ifname":"eth1","flags":["UP"],"addr_info":[
  {"family":"inet","local":"10.1.0.11","prefixlen":24,"scope":"global"}]}]"#;
const ROUTES: &str = r#"[{"dst":"default","gateway":"10.0.0.1","dev":"eth0","flags":[]},
 {"dst":"10.9.0.0/16","gateway":"10.1.0.2","dev":"eth1","flags":[]},
 {"type":"local","dst":"10.0.0.11","dev":"eth0","table":"local","scope":"host","flags":[]}]"#;
const RULES: &str = r#"[{"priority":0,"src":"all","table":"local"},
 {"priority":32766,"src":"all","table":"main"},{"priority":32767,"src":"all","table":"default"}]"#;
const EMPTY_NFT: &str = r#"{"nftables":[]}"#;

fn host(files: &[(&str, &str)]) -> Host {
    let mut all: BTreeMap<&str, &str> = BTreeMap::from([
        ("ip-addr.json", ADDRESSES),
        ("ip-route.json", ROUTES),
        ("ip-rule.json", RULES),
        ("nft.json", EMPTY_NFT),
    ]);
    all.extend(files.iter().copied());
    let mut files: BTreeMap<String, Vec<u8>> = all
        .iter()
        .map(|(name, text)| (format!("nodes/n1/{name}"), text.as_bytes().to_vec()))
        .collect();
    files.insert("capture.json".into(), br#"{"schema":"unmasq.capture/v1"}"#.to_vec());
    let capture = unmasq_parse::capture::parse(&files).expect("a capture");
    capture.node("n1").expect("the node").host
}

/// Traces a UDP packet through eth0 to eth1; no test may take longer than a minute, unoptimised and on a busy machine.
fn trace(files: &[(&str, &str)], source_port: Option<u16>) -> Vec<Outcome> {
    let host = host(files);
    let begun = Instant::now();
    let address = |text: &str| text.parse().expect("an address");
    let packet = Packet::open(
        Protocol::UDP,
        address("192.0.2.7"),
        source_port,
        address("10.9.0.5"),
        Some(53),
    );
    let query = Query::opening(packet, Some("eth0"));
    let outcomes = Evaluator::new(&host, Options::default()).trace(&query).outcomes;
    assert!(begun.elapsed() < Duration::from_secs(60), "took {:?}", begun.elapsed());
    outcomes
}

fn legacy(rules: &str) -> Vec<Outcome> {
    trace(&[("iptables-legacy-save", rules)], Some(4000))
}

#[track_caller]
fn assert_unknown(outcomes: &[Outcome], word: &str) {
    let reasons: Vec<&String> = outcomes.iter().flat_map(|outcome| &outcome.unknown).collect();
    assert!(reasons.iter().any(|reason| reason.contains(word)), "{outcomes:#?}");
}

#[test]
fn branches_that_were_not_walked_are_unknown() {
    // 2^14 marks, of which the first decides; 8,192 are walked.
    let mut rules = String::from("*mangle\n:PREROUTING ACCEPT [0:0]\n");
    for bit in 0..14 {
        let mark = 1 << bit;
        writeln!(
            rules,
            "-A PREROUTING -m limit --limit 1/sec -j MARK --set-xmark {mark:#x}/{mark:#x}"
        )
        .unwrap();
    }
    rules += "COMMIT\n*nat\n:POSTROUTING ACCEPT [0:0]\n";
    for value in 0..(1 << 14) {
        // Each mark its own source, so that no two branches look alike.
        if value & 1 == 1 {
            writeln!(
                rules,
                "-A POSTROUTING -m mark --mark {value:#x} -j SNAT --to-source 10.1.{}.{}",
                value >> 8,
                value & 255
            )
            .unwrap();
        }
    }
    rules += "COMMIT\n";
    assert_unknown(&legacy(&rules), "more ways");
}

#[test]
fn limits_of_rules_that_only_log_are_no_question() {
    let mut rules = String::from("*filter\n:FORWARD ACCEPT [0:0]\n");
    for _ in 0..40 {
        rules += "-A FORWARD -m limit --limit 5/min -j LOG\n";
    }
    let outcomes = legacy(&(rules + "COMMIT\n"));
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].verdict, Verdict::Forwarded);
    assert_eq!(outcomes[0].probability, Some(1.0));
}

#[test]
fn chains_without_end() {
    let endless = "*filter\n:FORWARD ACCEPT [0:0]\n:A - [0:0]\n\
        -A FORWARD -j A\n-A A -g A\nCOMMIT\n";
    assert_unknown(&legacy(endless), "without end");
    // 40 chains, each of which calls the next twice: 2^40 rules.
    let mut doubling = String::from("*filter\n:FORWARD ACCEPT [0:0]\n");
    for number in 0..=40 {
        writeln!(doubling, ":C{number} - [0:0]").unwrap();
    }
    doubling += "-A FORWARD -j C0\n";
    for number in 0..40 {
        let call = format!("-A C{number} -j C{}\n", number + 1);
        doubling += &call;
        doubling += &call;
    }
    assert_unknown(&legacy(&(doubling + "COMMIT\n")), "without end");
}

/// One nft rule in a nat postrouting chain.
fn nft(expr: &str) -> String {
    format!(
        r#"{{"nftables":[{{"table":{{"family":"ip","name":"t","handle":1}}}},
        {{"chain":{{"family":"ip","table":"t","name":"c","handle":1,"type":"nat",
          "hook":"postrouting","prio":100,"policy":"accept"}}}},
        {{"rule":{{"family":"ip","table":"t","chain":"c","handle":2,"expr":[{expr}]}}}}]}}"#
    )
}

#[test]
fn a_number_of_very_many_is_one_question_where_it_is_compared() {
    let numgen = r#"{"numgen":{"mode":"random","mod":4294967295,"offset":0}}"#;
    let rule = format!(
        r#"{{"match":{{"op":">=","left":{numgen},"right":1073741824}}}},{{"masquerade":null}}"#
    );
    let outcomes = trace(&[("nft.json", &nft(&rule))], Some(4000));
    let rewritten: f64 = outcomes
        .iter()
        .filter(|outcome| outcome.source.disposition == Disposition::Rewritten)
        .filter_map(|outcome| outcome.probability)
        .sum();
    assert!((rewritten - 0.75).abs() < 1e-6, "{outcomes:#?}");
}

#[test]
fn eight_thousand_endpoints_in_one_chain() {
    let count = 8000;
    let mut rules = String::from("*nat\n:PREROUTING ACCEPT [0:0]\n");
    for endpoint in 0..count {
        let chance = 1.0 / f64::from(count - endpoint);
        writeln!(
            rules,
            "-A PREROUTING -p udp -m statistic --mode random --probability {chance:.11} \
            -j DNAT --to-destination 10.9.{}.{}",
            endpoint >> 8,
            endpoint & 255
        )
        .unwrap();
    }
    let outcomes = legacy(&(rules + "COMMIT\n"));
    let sum: f64 = outcomes.iter().filter_map(|outcome| outcome.probability).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    // Some hundreds are walked; the others are one outcome of which nothing is known.
    assert!(outcomes.len() > 400, "{}", outcomes.len());
    assert_unknown(&outcomes, "more ways");
}

#[test]
fn many_policy_rules_about_an_unknown_port() {
    let mut rules = String::from(r#"[{"priority":0,"src":"all","table":"local"}"#);
    for priority in 1..30_000 {
        write!(
            rules,
            r#",{{"priority":{priority},"src":"all","ipproto":"udp","sport":9,"goto":{}}}"#,
            priority + 1
        )
        .unwrap();
    }
    rules += r#",{"priority":32766,"src":"all","table":"main"}]"#;
    let outcomes = trace(&[("ip-rule.json", &rules)], None);
    // Whichever of them select, the main table is asked in the end.
    assert_eq!(outcomes[0].verdict, Verdict::Forwarded, "{outcomes:#?}");
}

#[test]
fn tables_that_could_not_be_read_make_answers_unknown() {
    let damaged = "*nat\n:POSTROUTING ACCEPT [0:0]\nXA POSTROUTING -j MASQUERADE\nCOMMIT\n";
    let cut_off = "*nat\n:POSTROUTING ACCEPT [0:0]\n";
    for rules in [damaged, cut_off] {
        let outcomes = legacy(rules);
        assert_eq!(outcomes[0].verdict, Verdict::Unknown, "{rules}: {outcomes:#?}");
    }
    let weird = nft(r#"{"masquerade":null}"#).replace(r#""type":"nat""#, r#""type":"weird""#);
    let outcomes = trace(&[("nft.json", &weird)], Some(4000));
    assert_eq!(outcomes[0].verdict, Verdict::Unknown, "{outcomes:#?}");
}

#[test]
fn a_nat_rule_that_is_not_understood_may_translate() {
    // Nothing else switches connection tracking on.
    let shifted = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -m udp --dport 50:59 \
        -j DNAT --to-destination 10.9.0.9:150-159/50\nCOMMIT\n";
    assert_unknown(&legacy(shifted), "not understood");
}

#[test]
fn chains_outside_the_ip_hooks_are_not_passed_over() {
    let ingress = r#"{"nftables":[{"table":{"family":"inet","name":"t","handle":1}},
        {"chain":{"family":"inet","table":"t","name":"c","handle":1,"type":"filter",
          "hook":"ingress","prio":0,"policy":"accept","dev":"eth0"}},
        {"rule":{"family":"inet","table":"t","chain":"c","handle":2,"expr":[{"drop":null}]}}]}"#;
    assert_unknown(&trace(&[("nft.json", ingress)], Some(4000)), "ingress");
}

#[test]
fn a_program_on_a_bridges_port_is_not_passed_over() {
    let links = r#"[{"ifindex":2,"ifname":"eth0","flags":["UP"],"linkinfo":{"info_kind":"bridge"}},
        {"ifindex":9,"ifname":"port0","flags":["UP"],"master":"eth0"}]"#;
    let tc = "filter dev port0 ingress protocol all pref 1 bpf chain 0\n";
    let outcomes = trace(&[("ip-link.json", links), ("tc", tc)], Some(4000));
    assert_unknown(&outcomes, "port0");
}

#[test]
fn rp_filter_is_at_least_that_of_all() {
    let outcomes = trace(
        &[
            ("sysctl", "net.ipv4.conf.all.rp_filter = 1\n"),
            (
                "ip-route.json",
                &ROUTES.replace(
                    r#"{"dst":"default""#,
                    r#"{"dst":"192.0.2.0/24","dev":"eth1","flags":[]},{"dst":"default""#,
                ),
            ),
        ],
        Some(4000),
    );
    assert_eq!(outcomes[0].verdict, Verdict::Dropped, "{outcomes:#?}");
}

#[test]
fn an_index_gives_what_reading_the_chain_gives() {
    // `th dport` of a protocol without ports is unknown, in a short chain and in a long one.
    let rule = r#"{"match":{"op":"==","left":{"payload":{"protocol":"th","field":"dport"}},"right":7}},{"drop":null}"#;
    for count in [3, 40] {
        let chain = nft(rule).replace(r#""type":"nat""#, r#""type":"filter""#);
        let one = chain.split("{\"rule\"").nth(1).expect("the rule").trim_end_matches("]}");
        let more = format!(",{{\"rule\"{one}").repeat(count);
        let all = format!("{}{more}]}}", chain.trim_end_matches("]}"));
        let host = host(&[("nft.json", &all)]);
        let address = |text: &str| text.parse().expect("an address");
        let packet =
            Packet::open(Protocol::ICMP, address("192.0.2.7"), None, address("10.9.0.5"), None);
        let query = Query::opening(packet, Some("eth0"));
        let outcomes = Evaluator::new(&host, Options::default()).trace(&query).outcomes;
        assert_eq!(outcomes[0].verdict, Verdict::Unknown, "{count} rules: {outcomes:#?}");
    }
}

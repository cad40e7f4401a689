//! Tables, chains, listings, and JSON that is not what it should be.

use unmasq_model::origin::Origin;
use unmasq_model::rule::{Action, Step};
use unmasq_model::ruleset::{BaseChain, ChainKind, Hook, Policy, TableFamily};

use super::super::{TableSummary, parse, tables};
use super::{JSON, TEXT, nothing, rule, table};

const RULESET: &str = r#"{"nftables": [
{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
{"table": {"family": "ip", "name": "filter", "handle": 4}},
{"chain": {"family": "ip", "table": "filter", "name": "IN", "handle": 1}},
{"rule": {"family": "ip", "table": "filter", "chain": "IN", "handle": 2, "expr": [{"xt": {"type": "match", "name": "comment"}}, {"drop": null}]}},
{"table": {"family": "ip", "name": "own", "handle": 9}},
{"counter": {"family": "ip", "name": "n", "table": "own", "handle": 4, "packets": 0, "bytes": 0}},
{"flowtable": {"family": "ip", "name": "f", "table": "own", "handle": 5, "hook": "ingress", "prio": 0, "dev": "lo"}},
{"set": {"family": "ip", "name": "s", "table": "own", "type": "ipv4_addr", "handle": 6}},
{"chain": {"family": "ip", "table": "own", "name": "pre", "handle": 7, "type": "nat", "hook": "prerouting", "prio": -100, "policy": "drop"}},
{"chain": {"family": "ip", "table": "own", "name": "sub/x", "handle": 8}},
{"rule": {"family": "ip", "table": "own", "chain": "pre", "handle": 11, "comment": "to x", "expr": [{"jump": {"target": "sub/x"}}]}},
{"rule": {"family": "ip", "table": "own", "chain": "sub/x", "handle": 12, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@s"}}, {"accept": null}]}}
]}"#;

const LISTING: &str = "table ip filter { # handle 4
\tchain IN { # handle 1
\t\t# xt_comment drop # handle 2
\t}
}
table ip own { # handle 9
\tcounter n { # handle 4
\t\tpackets 0 bytes 0
\t}

\tset s { # handle 6
\t\ttype ipv4_addr
\t\telements = { 10.0.0.1,
\t\t\t     10.0.0.2 }
\t}

\tchain pre { # handle 7
\t\tcomment \"first # handle 99\"
\t\ttype nat hook prerouting priority dstnat; policy drop;
\t\tjump sub/x comment \"to x\" # handle 11
\t}

\tchain sub/x { # handle 8
\t\tip saddr { 10.0.0.1,
\t\t\t   10.0.0.2 } accept # handle 12
\t}
}
";

fn iptables(family: TableFamily, name: &str) -> bool {
    family == TableFamily::Ip && name == "filter"
}

#[test]
fn tables_and_chains() {
    let (tables, diagnostics) = parse(RULESET, JSON, None, &nothing);
    assert_eq!(diagnostics, []);
    let [filter, own] = tables.as_slice() else { panic!("{tables:?}") };
    assert_eq!((&*filter.name, &*own.name), ("filter", "own"));
    assert_eq!(own.origin, Origin { file: JSON, line: 6, handle: Some(9) });
    assert_eq!(own.sets[0].origin, Origin { file: JSON, line: 9, handle: Some(6) });
    let base = BaseChain {
        hook: Some(Hook::Prerouting),
        kind: ChainKind::Nat,
        priority: -100,
        policy: Policy::Drop,
    };
    assert_eq!(own.chains[0].base, Some(base));
    assert_eq!(own.chains[1].base, None);
    let rule = &own.chains[0].rules[0];
    assert_eq!(rule.origin, Origin { file: JSON, line: 12, handle: Some(11) });
    assert_eq!(&*rule.text, "jump sub/x comment \"to x\"");
    assert_eq!(rule.comment.as_deref(), Some("to x"));
}

#[test]
fn a_listing_gives_lines_and_text() {
    let (tables, diagnostics) = parse(RULESET, JSON, Some((LISTING, TEXT)), &iptables);
    assert_eq!(diagnostics, []);
    let [own] = tables.as_slice() else { panic!("{tables:?}") };
    let at = |line, handle| Origin { file: TEXT, line, handle: Some(handle) };
    assert_eq!(own.origin, at(6, 9));
    assert_eq!(own.sets[0].origin, at(11, 6));
    assert_eq!(own.chains[0].origin, at(17, 7));
    assert_eq!(own.chains[0].rules[0].origin, at(20, 11));
    assert_eq!(&*own.chains[0].rules[0].text, "jump sub/x comment \"to x\"");
    assert_eq!(own.chains[1].rules[0].origin, at(24, 12));
    assert_eq!(&*own.chains[1].rules[0].text, "ip saddr { 10.0.0.1, 10.0.0.2 } accept");
}

#[test]
fn skipped_tables_are_not_decoded() {
    // Would be reported if anybody looked.
    let json = RULESET.replace(r#"{"drop": null}]"#, r#"{"drop": null}], "comment": 5"#);
    assert_ne!(json, RULESET);
    let (tables, diagnostics) = parse(&json, JSON, None, &iptables);
    assert_eq!((tables.len(), diagnostics), (1, vec![]));
    let (tables, diagnostics) = parse(&json, JSON, None, &nothing);
    assert_eq!((tables.len(), diagnostics.len()), (2, 1));
}

#[test]
fn tables_are_listed() {
    let summary = |name: &str, handle, xt| TableSummary {
        family: TableFamily::Ip,
        name: name.into(),
        handle: Some(handle),
        xt,
    };
    assert_eq!(tables(RULESET), [summary("filter", 4, true), summary("own", 9, false)]);
    assert_eq!(tables("no JSON"), []);
}

#[test]
fn a_malformed_rule_stays_in_its_place() {
    let objects = [
        rule("ip", 5, r#"{"accept": null}"#),
        rule("ip", 6, r#"{"drop": null}"#).replace(": 6", ": \"six\""),
        rule("ip", 7, r#"{"return": null}"#),
    ];
    let (table, diagnostics) = table("ip", &objects);
    assert_eq!(diagnostics.len(), 1);
    assert_eq!((diagnostics[0].origin.file, diagnostics[0].origin.line), (JSON, 6));
    assert!(diagnostics[0].message.starts_with("a rule that can't be read"));
    assert_eq!(table.unreadable, None);
    let rules = &table.chains[0].rules;
    assert_eq!(rules.len(), 3);
    assert!(matches!(&*rules[1].steps, [Step::Do(Action::Opaque(_))]));
    assert_eq!(&*rules[2].text, "return");
}

#[test]
fn what_has_no_place_makes_the_table_unreadable() {
    let cases = [
        rule("ip", 5, r#"{"accept": null}"#).replace("\"c\"", "\"nowhere\""),
        r#"{"chain": {"family": "ip", "table": "t", "name": "x", "type": "nat", "hook": "up", "prio": 1}}"#.into(),
        r#"{"chain": {"family": "ip", "table": "t", "name": "x", "type": "nat", "hook": "input"}}"#.into(),
        r#"{"set": {"family": "ip", "table": "t", "name": ["x"]}}"#.into(),
    ];
    for case in cases {
        let (table, diagnostics) = table("ip", std::slice::from_ref(&case));
        assert_eq!(diagnostics.len(), 1, "{case}");
        assert!(table.unreadable.is_some(), "{case}");
    }
}

#[test]
fn what_has_no_table_makes_one_that_is_unreadable() {
    let at = r#""family": "ip6", "table": "lost""#;
    let cases = [
        (rule("ip6", 5, r#"{"accept": null}"#).replace("\"t\"", "\"lost\""), ("ip6", "lost")),
        (format!(r#"{{"chain": {{{at}, "name": "x", "handle": 4}}}}"#), ("ip6", "lost")),
        (
            format!(r#"{{"set": {{{at}, "name": "x", "type": "ipv4_addr", "handle": 4}}}}"#),
            ("ip6", "lost"),
        ),
        (format!(r#"{{"element": {{{at}, "name": "x", "elem": [1]}}}}"#), ("ip6", "lost")),
        // Malformed as well.
        (format!(r#"{{"chain": {{{at}, "name": 7}}}}"#), ("ip6", "lost")),
        (r#"{"rule": {"family": 7}}"#.into(), ("inet", "(not read)")),
        (r#"[]"#.into(), ("inet", "(not read)")),
        // A family that is to come.
        (rule("ip9", 5, r#"{"accept": null}"#).replace("\"t\"", "\"new\""), ("inet", "new")),
    ];
    for (case, (family, name)) in cases {
        let json = format!(
            r#"{{"nftables": [{{"table": {{"family": "ip", "name": "t", "handle": 1}}}}, {case}]}}"#
        );
        let (tables, diagnostics) = parse(&json, JSON, None, &nothing);
        assert!(!diagnostics.is_empty(), "{case}");
        let found: Vec<_> = tables
            .iter()
            .map(|t| (t.family.to_string(), &*t.name, t.unreadable.is_some()))
            .collect();
        let expected = [("ip".to_owned(), "t", false), (family.to_owned(), name, true)];
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn json_that_ends_early() {
    let end = RULESET.find("{\"accept\"").unwrap();
    let (tables, diagnostics) = parse(&RULESET[..end], JSON, None, &nothing);
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].origin.line, 13);
    let read: Vec<_> =
        tables.iter().map(|table| (&*table.name, table.unreadable.is_some())).collect();
    assert_eq!(read, [("filter", false), ("own", true), ("(not read)", true)]);
    assert_eq!(tables[1].chains[0].rules.len(), 1);

    // The listing tells what else there is.
    let end = RULESET.find("{\"table\": {\"family\": \"ip\", \"name\": \"own\"").unwrap();
    let (tables, _) = parse(&RULESET[..end], JSON, Some((LISTING, TEXT)), &nothing);
    let read: Vec<_> =
        tables.iter().map(|table| (&*table.name, table.unreadable.is_some())).collect();
    assert_eq!(read, [("filter", true), ("(not read)", true), ("own", true)]);

    for nothing_at_all in ["", "[]", "{}", "nft: command not found"] {
        let (tables, diagnostics) = parse(nothing_at_all, JSON, None, &nothing);
        assert_eq!((tables.len(), diagnostics.len()), (0, 1), "{nothing_at_all:?}");
    }
}

#[test]
fn table_flags() {
    let json = |flags: &str| {
        format!(
            r#"{{"nftables": [{{"table": {{"family": "ip", "name": "t", "flags": {flags}}}}}]}}"#
        )
    };
    let check = |flags: &str, listing, dormant, readable| {
        let (tables, diagnostics) = parse(&json(flags), JSON, listing, &nothing);
        let table = &tables[0];
        assert_eq!((table.dormant, table.unreadable.is_none()), (dormant, readable), "{flags}");
        assert_eq!(diagnostics.is_empty(), readable, "{flags}");
    };
    check(r#""dormant""#, None, true, true);
    check(r#"["dormant", "owner"]"#, None, true, true);
    check(r#"["owner", "persist"]"#, None, false, true);
    check("null", None, false, true);
    // nft 1.0.6 prints what it finds in freed memory; the listing knows better.
    check(r#""q1""#, None, false, false);
    let dormant = "table ip t { # handle 1\n\tflags dormant\n}\n";
    check(r#""q1""#, Some((dormant, TEXT)), true, true);
}

#[test]
fn families_outside_the_ip_path_keep_their_rules_unread() {
    let objects = [
        r#"{"chain": {"family": "netdev", "table": "t", "name": "in", "handle": 4, "dev": "lo", "type": "filter", "hook": "ingress", "prio": -5, "policy": "accept"}}"#.into(),
        rule("netdev", 5, r#"{"drop": null}"#),
    ];
    let (table, diagnostics) = table("netdev", &objects);
    assert_eq!(diagnostics, []);
    let base = table.chains[2].base.unwrap();
    assert_eq!((base.hook, base.priority), (None, -5));
    let rule = &table.chains[0].rules[0];
    assert!(matches!(&*rule.steps, [Step::Do(Action::Opaque(_))]));
    assert_eq!(&*rule.text, "drop");
}

#[test]
fn a_rule_without_statements_is_not_an_empty_one() {
    for expr in ["", r#", "expr": []"#] {
        let object = format!(
            r#"{{"rule": {{"family": "ip", "table": "t", "chain": "c", "handle": 5{expr}}}}}"#
        );
        let (table, diagnostics) = table("ip", &[object]);
        assert_eq!(diagnostics, []);
        assert!(matches!(&*table.chains[0].rules[0].steps, [Step::Do(Action::Opaque(_))]));
    }
}

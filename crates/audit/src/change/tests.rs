use unmasq_model::origin::{FileId, Origin};
use unmasq_model::ruleset::Chain;

use super::*;

fn rule(text: &str, handle: Option<u64>) -> Rule {
    let origin = Origin { file: FileId(0), line: 1, handle };
    Rule { steps: Box::default(), text: text.into(), comment: None, origin }
}

fn change(position: usize, old: Option<&str>, new: Option<&str>) -> RuleChange {
    RuleChange {
        backend: Backend::Legacy,
        family: TableFamily::Ip,
        table: "nat".to_owned(),
        chain: "C".to_owned(),
        position,
        old: old.map(|text| rule(text, None)),
        new: new.map(|text| rule(text, None)),
    }
}

fn native(position: usize, old: Option<Rule>, new: Option<Rule>) -> RuleChange {
    RuleChange {
        backend: Backend::Nft,
        family: TableFamily::Inet,
        table: "t".to_owned(),
        old,
        new,
        ..change(position, None, None)
    }
}

fn ruleset(rules: &[&str]) -> Ruleset {
    let origin = Origin::new(FileId(0), 1);
    let rules = rules.iter().map(|text| rule(text, None)).collect();
    let chain = Chain { name: "C".into(), base: None, rules, origin };
    let table = Table {
        backend: Backend::Legacy,
        family: TableFamily::Ip,
        name: "nat".into(),
        chains: vec![chain],
        sets: Vec::new(),
        dormant: false,
        unreadable: None,
        origin,
    };
    Ruleset { tables: vec![table] }
}

fn texts(ruleset: &Ruleset) -> Vec<&str> {
    ruleset.tables[0].chains[0].rules.iter().map(|rule| &*rule.text).collect()
}

/// Every way to keep, replace or delete each of three rules and to insert none, one or two in
/// front of each and at the end.
#[test]
fn changes_do_what_they_say_and_are_undone() {
    const OLD: [&str; 3] = ["a", "b", "c"];
    for number in 0..3_usize.pow(7) {
        let digit = |place: u32| number / 3_usize.pow(place) % 3;
        let (mut changes, mut expected) = (Vec::new(), Vec::new());
        for position in 0..=OLD.len() {
            let names = [["i0", "j0"], ["i1", "j1"], ["i2", "j2"], ["i3", "j3"]][position];
            for name in &names[..digit(position as u32)] {
                changes.push(change(position, None, Some(name)));
                expected.push(*name);
            }
            let Some(old) = OLD.get(position) else { continue };
            let new = ["A", "B", "C"][position];
            match digit(4 + position as u32) {
                0 => expected.push(*old),
                1 => {
                    changes.push(change(position, Some(old), Some(new)));
                    expected.push(new);
                }
                _ => changes.push(change(position, Some(old), None)),
            }
        }
        let mut rules = ruleset(&OLD);
        apply(&mut rules, &changes).unwrap();
        assert_eq!(texts(&rules), expected, "{changes:?}");
        apply(&mut rules, &inverse(&changes)).unwrap();
        assert_eq!(texts(&rules), OLD, "{changes:?}");
    }
}

#[test]
fn all_or_nothing() {
    let mut rules = ruleset(&["a", "b"]);
    let moved = Misfit::Moved { chain: "nat C".to_owned(), position: 0 };
    let changes = [change(1, Some("b"), None), change(0, Some("x"), None)];
    assert_eq!(apply(&mut rules, &changes), Err(moved));
    assert_eq!(texts(&rules), ["a", "b"]);
    let beyond = apply(&mut rules, &[change(3, None, Some("x"))]).unwrap_err();
    assert_eq!(beyond.to_string(), "rule 4 of chain nat C is another one");
    let elsewhere = RuleChange { chain: "D".to_owned(), ..change(0, None, Some("x")) };
    assert_eq!(apply(&mut rules, &[elsewhere]), Err(Misfit::NoChain("nat D".to_owned())));
}

/// What a counter has counted is no difference, and the handle is that of today.
#[test]
fn a_rule_is_found_again() {
    let old = rule("counter packets 1 bytes 2 masquerade", None);
    let mut rules = ruleset(&[]);
    let table = &mut rules.tables[0];
    (table.backend, table.family, table.name) = (Backend::Nft, TableFamily::Inet, "t".into());
    let there = rule("counter packets 30 bytes 4000 masquerade", Some(7));
    table.chains[0].rules.push(there.clone());
    let found = locate(&[native(0, Some(old), None)], &rules).unwrap();
    assert_eq!(found[0].old, Some(there));
    let other = rule("counter packets 1 bytes 2 accept", None);
    assert!(locate(&[native(0, Some(other), None)], &rules).is_err());
}

#[test]
fn one_transaction_for_each_program() {
    let six = |change: RuleChange| RuleChange { family: TableFamily::Ip6, ..change };
    let nft = |change: RuleChange| RuleChange { backend: Backend::IptablesNft, ..change };
    let changes = [
        change(2, Some("-A C -s 10.0.0.0/8 -j RETURN"), Some("-A C -j ACCEPT")),
        change(0, None, Some("-A C -m comment --comment \"it's $x\" -j RETURN")),
        RuleChange { table: "filter".to_owned(), ..change(4, Some("-A C -j DROP"), None) },
        six(nft(change(0, Some("-A C -j DROP"), None))),
        native(0, None, Some(rule("accept", None))),
        native(3, Some(rule("drop", Some(9))), Some(rule("accept", None))),
    ];
    let expected = [
        "iptables-legacy-restore --noflush --counters <<'EOF'\n*filter\n-D C -j DROP\nCOMMIT\n*nat\n\
         -D C -s 10.0.0.0/8 -j RETURN\n-I C 3 -j ACCEPT\n\
         -I C 1 -m comment --comment \"it's $x\" -j RETURN\nCOMMIT\nEOF",
        "ip6tables-nft-restore --noflush --counters <<'EOF'\n*nat\n-D C -j DROP\nCOMMIT\nEOF",
        "nft -f - <<'EOF'\nreplace rule inet t C handle 9 accept\ninsert rule inet t C accept\nEOF",
    ];
    let written: Vec<String> =
        transactions(&changes).unwrap().iter().map(Transaction::heredoc).collect();
    assert_eq!(written, expected);
    assert_eq!(commands(&changes).unwrap(), expected);
}

#[test]
fn what_has_no_text() {
    let saved = transactions(&[change(0, None, Some("accept"))]).unwrap_err();
    assert_eq!(saved.to_string(), "the rule isn't as iptables-save prints it: accept");
    let family = RuleChange { family: TableFamily::Inet, ..change(0, None, Some("-A C -j X")) };
    assert_eq!(transactions(&[family]), Err(Unwritable::Family(TableFamily::Inet)));
    let unknown = transactions(&[native(0, Some(rule("accept", None)), None)]).unwrap_err();
    assert_eq!(unknown.to_string(), "the handle of this rule of inet t C isn't known: accept");
}

/// nft reads a whole text at once: a name or a rule that ends early would begin another command.
#[test]
fn nft_gets_no_command_of_a_captures() {
    let deleted = || native(0, Some(rule("accept", Some(7))), None);
    let added = |text: &str| native(0, None, Some(rule(text, None)));
    assert!(transactions(&[deleted(), added("tcp dport 80 accept comment \"a; b # c\"")]).is_ok());
    for odd in ["t; flush ruleset", "t{", "$(id)", "a b", "-t", "\"t\"", ""] {
        let table = RuleChange { table: odd.to_owned(), ..deleted() };
        let chain = RuleChange { chain: odd.to_owned(), ..deleted() };
        for change in [table, chain] {
            assert_eq!(commands(&[change]), Err(Unwritable::Nft(odd.to_owned())));
        }
        assert!(delete_table(TableFamily::Ip, odd).is_err(), "{odd}");
    }
    for odd in ["accept; flush ruleset", "accept comment \"x\" ; flush ruleset; \"", "accept # x"] {
        assert_eq!(commands(&[added(odd)]), Err(Unwritable::Nft(odd.to_owned())));
    }
    assert_eq!(
        delete_table(TableFamily::Ip, "calico").as_deref(),
        Ok("nft delete table ip calico")
    );
    let lines = commands(&[added("accept\nEOF\nid")]);
    assert_eq!(lines, Err(Unwritable::ControlCharacters("accept\nEOF\nid".to_owned())));
}

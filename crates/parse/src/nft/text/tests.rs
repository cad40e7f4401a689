//! What texts of nft give where no kernel can list them so: cut short, malformed, written by hand.
//! Whether text and JSON give the same is asked of a kernel (the lab's test `nft_text`).

use unmasq_model::origin::{Diagnostic, FileId};
use unmasq_model::rule::{Action, Step, Verdict};
use unmasq_model::ruleset::{ChainId, Table, TableFamily};

use super::parse;

const FILE: FileId = FileId(4);

fn read(text: &str) -> (Vec<Table>, Vec<Diagnostic>) {
    parse(text, FILE, &|_, _| false)
}

/// The lines and messages of diagnostics.
fn said(diagnostics: &[Diagnostic]) -> Vec<(u32, &str)> {
    diagnostics.iter().map(|found| (found.origin.line, found.message.as_str())).collect()
}

/// Most of what a listing can have.
const RULESET: &str = r#"# Warning: table ip nat is managed by iptables-nft, do not touch!
table ip nat { # handle 1
	chain POSTROUTING { # handle 2
		type nat hook postrouting priority srcnat + 5; policy drop;
		ip saddr 10.244.0.0/16 counter packets 3 bytes 180 xt target "MASQUERADE" # handle 3
	}
}
table inet t { # handle 2
	comment "it's # a { table"
	flags dormant
	counter hits { # handle 9
		packets 0 bytes 0
	}
	flowtable f { # handle 8
		hook ingress priority filter
		devices = { eth0, eth1 }
	}
	set s { # handle 4
		type ipv4_addr . inet_service
		flags interval,timeout
		timeout 1h
		elements = { 10.0.0.0/8 . 80-90 timeout 5m expires 4m59s120ms comment "a } b",
			     10.9.0.1 . 443 counter packets 0 bytes 0 }
	}
	map m { # handle 5
		type mark : verdict
		elements = { 0x00000001 : jump other, * : drop }
	}
	chain c { # handle 6
		type filter hook prerouting priority -110; policy accept;
		comment "first"
		ip saddr . tcp dport @s meta mark vmap @m
		tcp flags syn / fin,syn,rst,ack ct state established,related accept
		meta mark set (ct mark & 0x0000ff00) | 0x00000003 ^ 0x1
		dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 81 }
		ip6 daddr fd00::1 dnat ip6 to [fd00::2]:80 fully-random,persistent
		limit rate over 10/second burst 5 packets log prefix "x y" level warn drop
		update @s { ip saddr . tcp dport timeout 1m limit rate 3/second }
	}
	chain other { # handle 7
	}
}
"#;

#[test]
fn a_text_cut_short_anywhere_is_read() {
    let (whole, diagnostics) = read(RULESET);
    assert_eq!(said(&diagnostics), []);
    assert!(whole.iter().all(|table| table.unreadable.is_none()));
    for end in (0..RULESET.len()).filter(|end| RULESET.is_char_boundary(*end)) {
        let (tables, diagnostics) = read(&RULESET[..end]);
        for (cut, table) in tables.iter().zip(&whole) {
            let complete = cut.unreadable.is_none();
            assert!(!complete || cut == table, "to {end}: {cut:#?} passes for {table:#?}");
            assert!(complete || !diagnostics.is_empty(), "to {end}: nothing is said");
        }
    }
}

#[test]
fn words_and_signs_in_any_order_are_read() {
    let words: Vec<&str> = RULESET.split_inclusive([' ', '\n', '\t']).collect();
    let mut state = 7_usize;
    for _ in 0..3_000 {
        let mut text = "table ip t {\n chain c {\n".to_owned();
        for _ in 0..25 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.push_str(words[(state >> 33) % words.len()]);
        }
        read(&text);
        read(&text[text.len() / 2..]);
    }
    for deep in ["(", "{ ", "1 . ", "1 | ", "ip saddr map { ", "~", "@nh,", "jump {\n"] {
        read(&format!("table ip t {{\n chain c {{\n meta mark {}\n}}\n}}\n", deep.repeat(50_000)));
    }
}

#[test]
fn a_malformed_line_costs_that_line() {
    let (tables, diagnostics) = read(
        "table ip t {\n chain c {\n  ip saddr { 10.0.0.1, 10.0.0.2\n  drop\n  log prefix \"x\n  \
         accept\n }\n chain d {\n  drop\n }\n}\ntable ip u {\n}\nnonsense\n",
    );
    assert_eq!(
        said(&diagnostics),
        [
            (14, "not understood: nonsense"),
            (3, "not understood: ip saddr { 10.0.0.1, 10.0.0.2"),
            (5, "not understood: log prefix \"x"),
        ]
    );
    assert_eq!(tables.len(), 2);
    let [c, d] = &tables[0].chains[..] else { panic!("{tables:#?}") };
    assert_eq!(tables[0].unreadable, None);
    let known: Vec<bool> = c.rules.iter().map(|rule| !is_opaque(&rule.steps[0])).collect();
    assert_eq!((known, d.rules.len()), (vec![false, true, false, true], 1));
}

fn is_opaque(step: &Step) -> bool {
    matches!(step, Step::Do(Action::Opaque(_)))
}

/// What comes before is kept, and so is the comment.
#[test]
fn a_statement_that_is_not_understood_is_kept_as_text() {
    let (tables, diagnostics) = read(
        "table ip t {\n chain c {\n  meta l4proto tcp frobnicate 7 accept comment \"x\"\n  \
         meta l4proto tcp # xt_recent counter packets 0 bytes 0 drop # handle 7\n  \
         # xt_comment drop # handle 8\n  # a remark\n }\n}\n",
    );
    assert_eq!(said(&diagnostics), []);
    let rules = &tables[0].chains[0].rules;
    let opaque = |rule: usize| match &rules[rule].steps[..] {
        [Step::Test(_), Step::Do(Action::Opaque(opaque))] => opaque.text.to_string(),
        other => panic!("{other:#?}"),
    };
    assert_eq!(opaque(0), "frobnicate 7 accept");
    assert_eq!(rules[0].comment.as_deref(), Some("x"));
    // As nft writes without libxtables: there is more than it says.
    assert_eq!(opaque(1), "xt_recent counter packets 0 bytes 0 drop");
    assert_eq!(rules[1].origin.handle, Some(7));
    assert_eq!((rules.len(), rules[2].origin.handle), (3, Some(8)));
    assert!(is_opaque(&rules[2].steps[0]), "{:?}", rules[2]);
    assert_eq!(&*rules[2].text, "# xt_comment drop");
}

#[test]
fn a_table_with_lines_that_no_table_has_is_unreadable() {
    for (text, line, message) in [
        ("table ip t {\n what is this\n}\n", 2, "not understood: what is this"),
        ("table ip t {\n thing x {\n  y\n }\n}\n", 2, "not understood: thing x"),
        ("table ip t {\n chain c {\n", 2, "chain c has no end"),
        ("table ip t {\ntable ip u {\n}\n", 2, "table ip t has no end"),
    ] {
        let (tables, diagnostics) = read(text);
        assert_eq!(said(&diagnostics), [(line, message)], "{text}");
        assert_eq!(&*tables[0].unreadable.as_ref().unwrap().text, message, "{text}");
    }
}

/// Nobody knows what else there was.
#[test]
fn what_is_lost_outside_of_tables_is_a_table_that_is_not_read() {
    for (text, message) in [
        ("table other t {\n chain c {\n  drop\n }\n}\n", "not a table: table other t"),
        ("add rule ip t c drop\n", "not understood: add rule ip t c drop"),
        ("}\n", "a } that closes nothing"),
    ] {
        let (tables, diagnostics) = read(text);
        assert_eq!(said(&diagnostics), [(1, message)], "{text}");
        assert_eq!(&*tables[0].unreadable.as_ref().unwrap().text, message, "{text}");
    }
    let (tables, diagnostics) = read("root@n1:~$ nft list ruleset\n");
    assert_eq!((tables.len(), diagnostics.len()), (0, 1));
}

#[test]
fn a_set_that_is_not_understood_is_opaque() {
    let (tables, diagnostics) = read(
        "table ip t {\n set a {\n  type ipv4_addr\n  elements = { 10.0.0.1, ) }\n }\n \
         set b {\n  type ipv4_addr\n  strange thing\n }\n set c {\n  type ipv4_addr\n }\n}\n",
    );
    assert_eq!(
        said(&diagnostics),
        [(8, "not understood in set b: strange thing"), (2, "elements that can't be read")]
    );
    let opaque: Vec<bool> = tables[0].sets.iter().map(|set| set.opaque.is_some()).collect();
    assert_eq!(opaque, [true, true, false]);
}

/// A file for `nft -f`, as writers have it: a table is deleted and made again, several blocks and
/// several things on a line.
#[test]
fn commands_before_a_table_are_obeyed() {
    let (tables, diagnostics) = read(
        "table ip old { chain x { drop; } }\ntable ip t\ndelete table ip t\ndelete table ip old\n\
         table ip t { chain c { accept; drop }; chain d { jump c } }\n\
         table ip t { chain e { goto d; } }\n",
    );
    assert_eq!(said(&diagnostics), []);
    let [table] = &tables[..] else { panic!("{tables:#?}") };
    let steps: Vec<Vec<&Step>> = table
        .chains
        .iter()
        .map(|chain| chain.rules.iter().flat_map(|rule| &rule.steps).collect())
        .collect();
    let verdict = |verdict| Step::Do(Action::Verdict(verdict));
    let (accept, drop) = (verdict(Verdict::Accept), verdict(Verdict::Drop));
    let (jump, goto) = (verdict(Verdict::Jump(ChainId(0))), verdict(Verdict::Goto(ChainId(1))));
    assert_eq!(steps, [vec![&accept, &drop], vec![&jump], vec![&goto]]);
}

#[test]
fn priorities_have_names() {
    for (family, words, expected) in [
        (TableFamily::Ip, "dstnat - 10", Some(-110)),
        (TableFamily::Inet, "filter + 10", Some(10)),
        (TableFamily::Ip6, "-110", Some(-110)),
        (TableFamily::Bridge, "filter", Some(-200)),
        (TableFamily::Bridge, "dstnat", Some(-300)),
        (TableFamily::Netdev, "filter", Some(0)),
        (TableFamily::Netdev, "mangle", None),
        (TableFamily::Ip, "frobnicate", None),
        (TableFamily::Ip, "raw - -2147483648", None),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(super::priority(family, &words), expected, "{words:?}");
    }
}

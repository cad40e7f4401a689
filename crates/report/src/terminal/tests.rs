use unmasq_eval::trace::{By, Effect, Reason, Stage};
use unmasq_model::ruleset::Hook;

use super::*;
use crate::fixture::{self, endpoint, hit, rule};

const STYLE: Style = Style { color: false, verbose: false, width: 80 };

fn show(outcomes: Vec<Outcome>) -> String {
    show_as(outcomes, STYLE)
}

fn show_as(outcomes: Vec<Outcome>, style: Style) -> String {
    super::trace(&fixture::trace(outcomes), &fixture::host(), &style)
}

/// The lines up to the first empty one, joined where they were wrapped.
fn answer(outcomes: Vec<Outcome>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in show(outcomes).lines().take_while(|line| !line.is_empty()) {
        let more = line.strip_prefix("  ").filter(|more| !more.starts_with(' '));
        match (more, lines.last_mut()) {
            (Some(more), Some(last)) => *last = format!("{last} {more}"),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

#[test]
fn the_whole_story_of_kube_proxys_masquerade() {
    let text = show(vec![fixture::by_kube_proxy(endpoint([10, 42, 3, 7], 8080), 1.0)]);
    let expected = r#"source REWRITTEN 192.168.7.20 -> 10.42.0.1 by KUBE-POSTROUTING (kube-proxy)

tcp 192.168.7.20:41000 -> 10.0.0.11:30080, into node w1 by eth0
10.42.3.7:8080 sees 10.42.0.1:1024-65535 instead of 192.168.7.20:41000.
The rule: nodes/w1/iptables-save:172, because of the mark set by
  nodes/w1/iptables-save:151 ("masquerade traffic for default/web:http external
  destinations").
Answers go to 10.42.0.1; node w1 translates them back.

files in nodes/w1/
prerouting
* nat PREROUTING -> KUBE-SERVICES                              iptables-save:101
      kube-proxy  "kubernetes service portals"
* nat KUBE-SERVICES -> KUBE-NODEPORTS                          iptables-save:121
      kube-proxy  -m addrtype --dst-type LOCAL
* nat KUBE-NODEPORTS -> KUBE-EXT-4CRUJHTV5RT5YMFY              iptables-save:131
      kube-proxy  "default/web:http"
* nat KUBE-EXT-4CRUJHTV5RT5YMFY -> KUBE-MARK-MASQ              iptables-save:141
      kube-proxy  "masquerade traffic for default/web:http external destination…
* nat KUBE-MARK-MASQ: mark 0x0 -> 0x4000                       iptables-save:151
      kube-proxy  -j MARK --set-xmark 0x4000/0x4000
  nat KUBE-EXT-4CRUJHTV5RT5YMFY -> KUBE-SEP-BGDPW3ZVTRB3SQTX   iptables-save:142
      kube-proxy
  nat KUBE-SEP-BGDPW3ZVTRB3SQTX: destination -> 10.42.3.7:8080
      iptables-save:161  kube-proxy  "default/web:http"
      -p tcp -j DNAT --to-destination 10.42.3.7:8080
routing
  10.42.3.0/24 via 10.42.3.0 dev flannel.1 (table main)
postrouting
* nat POSTROUTING -> KUBE-POSTROUTING                          iptables-save:112
      kube-proxy  "kubernetes postrouting rules"
! nat KUBE-POSTROUTING: source -> 10.42.0.1:1024-65535         iptables-save:172
      kube-proxy  "kubernetes service traffic requiring SNAT"
      -j MASQUERADE --random-fully
* without it the source would not have been rewritten
leaves by flannel.1 to 10.42.3.0
"#;
    assert_eq!(text, expected);
}

#[test]
fn first_lines() {
    let to = endpoint([10, 42, 3, 7], 8080);
    let rp_filter = fixture::ended(
        Verdict::Dropped,
        Reason::RpFilter,
        hit(
            Stage::Routing,
            0,
            By::Kernel("strict rp_filter on eth0".to_owned()),
            vec![Effect::Drop],
        ),
    );
    let by_mark_rule = fixture::ended(
        Verdict::Dropped,
        Reason::Rule,
        hit(
            Stage::Hook(Hook::Forward),
            1,
            By::Rule(rule(0, fixture::MARK_MASQ, 0)),
            vec![Effect::Drop],
        ),
    );
    let mut no_rule = fixture::by_calico();
    no_rule.rewritten_by = None;
    no_rule.source.after = endpoint([192, 168, 7, 20], 1025);
    let mut source_unknown = fixture::unknown(&["two base chains have one priority"]);
    source_unknown.verdict = Verdict::Forwarded;
    for (outcome, expected) in [
        (
            fixture::by_calico(),
            "source REWRITTEN 192.168.7.20 -> 10.42.0.1 by cali-nat-outgoing (Calico)",
        ),
        (
            fixture::by_kube_proxy(to, 1.0),
            "source REWRITTEN 192.168.7.20 -> 10.42.0.1 by KUBE-POSTROUTING (kube-proxy)",
        ),
        (
            no_rule,
            "source REWRITTEN 192.168.7.20:41000 -> 192.168.7.20:1025 by the kernel, without a rule",
        ),
        (fixture::preserved(), "source PRESERVED 192.168.7.20 -> 10.42.3.7:8080"),
        (fixture::dropped_by_policy(), "DROPPED by filter FORWARD: policy drop"),
        (by_mark_rule, "DROPPED by KUBE-MARK-MASQ (kube-proxy): drop"),
        (rp_filter, "DROPPED by the kernel (rp_filter): strict rp_filter on eth0: drop"),
        (
            fixture::rejected(),
            "REJECTED by filter FORWARD (unclaimed): default/gone:http has no endpoints",
        ),
        (
            fixture::unknown(&["ipset.save was not captured"]),
            "UNKNOWN: ipset.save was not captured",
        ),
        (fixture::unknown(&["a is missing", "b is missing"]), "UNKNOWN: a is missing (and 1 more)"),
        (source_unknown, "source UNKNOWN: two base chains have one priority"),
    ] {
        assert_eq!(answer(vec![outcome]), [expected]);
    }
    assert_eq!(answer(Vec::new()), ["UNKNOWN: the packet could not be followed"]);
}

#[test]
fn several_outcomes_that_end_alike_have_one_answer_and_one_path() {
    let endpoints: u16 = 1000;
    let outcomes: Vec<Outcome> = (0..endpoints)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            fixture::by_kube_proxy(endpoint([10, 42, high, low], 8080), 0.001)
        })
        .collect();
    let text = show(outcomes);
    let first = "source REWRITTEN 192.168.7.20 -> 10.42.0.1 by KUBE-POSTROUTING (kube-proxy)";
    assert!(text.starts_with(&format!("{first}\n  (1000 outcomes)\n")), "{text}");
    assert_eq!(text.matches("postrouting\n").count(), 1, "{text}");
    assert!(text.contains(" <1%  10.42.0.7:8080 sees 10.42.0.1:1024-65535\n"), "{text}");
    assert!(text.contains("and 992 more ways\n"), "{text}");
    assert!(text.lines().count() < 60, "{text}");
}

#[test]
fn answers_that_differ_are_listed_most_alarming_first() {
    let mut preserved = fixture::preserved();
    preserved.probability = Some(0.25);
    let mut dropped = fixture::dropped_by_policy();
    dropped.probability = Some(0.25);
    let rewritten = fixture::by_kube_proxy(endpoint([10, 42, 3, 8], 8080), 0.5);
    let unknown = fixture::unknown(&["ipset.save was not captured"]);
    assert_eq!(
        answer(vec![preserved, unknown, rewritten, dropped]),
        [
            " 25%  DROPPED by filter FORWARD: policy drop",
            " 50%  source REWRITTEN 192.168.7.20 -> 10.42.0.1 by KUBE-POSTROUTING (kube-proxy)",
            "   ?  UNKNOWN: ipset.save was not captured",
            " 25%  source PRESERVED 192.168.7.20 -> 10.42.3.7:8080",
        ]
    );
}

#[test]
fn only_what_mattered_unless_everything_is_asked_for() {
    let outcome = || fixture::by_kube_proxy(endpoint([10, 42, 3, 7], 8080), 1.0);
    assert!(!show(vec![outcome()]).contains("cali-"));
    let everything = show_as(vec![outcome()], Style { verbose: true, ..STYLE });
    assert!(everything.contains("nat cali-POSTROUTING -> cali-nat-outgoing"), "{everything}");
    assert!(!everything.contains('…'), "{everything}");
    // A return is worth a line where it is why the source stayed.
    assert!(show(vec![fixture::preserved()]).contains("nat KUBE-POSTROUTING: return"));
}

#[test]
fn lines_fit_the_width() {
    for width in [80, 100, 120] {
        let outcomes = vec![
            fixture::by_kube_proxy(endpoint([10, 42, 3, 7], 8080), 0.5),
            fixture::rejected(),
            fixture::by_calico(),
        ];
        for line in show_as(outcomes, Style { width, ..STYLE }).lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
}

#[test]
fn colour_only_if_asked_and_nothing_else_of_the_terminals() {
    let mut host = fixture::host();
    host.ruleset.tables[0].chains[7].rules[1].comment = Some("\x1b[2Jgone".into());
    let trace = fixture::trace(vec![fixture::by_kube_proxy(endpoint([10, 42, 3, 7], 8080), 1.0)]);
    let plain = super::trace(&trace, &host, &STYLE);
    assert!(!plain.contains('\x1b'), "{plain}");
    assert!(plain.contains("\"\u{fffd}[2Jgone\""), "{plain}");
    let coloured = super::trace(&trace, &host, &Style { color: true, ..STYLE });
    assert!(coloured.starts_with("source \x1b[1;31mREWRITTEN\x1b[0m 192.168.7.20"), "{coloured}");
    assert!(!coloured.contains("\x1b[2J"), "{coloured}");
}

#[test]
fn what_was_taken_for_granted_and_what_is_not_known() {
    let mut trace = fixture::trace(vec![fixture::unknown(&["a is missing", "b is missing"])]);
    trace.assumptions.push("the node forwards packets (sysctl was not captured)".to_owned());
    let text = super::trace(&trace, &fixture::host(), &STYLE);
    let end = "
Not known:
  a is missing
  b is missing

Taken for granted:
  the node forwards packets (sysctl was not captured)
";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn a_cleared_mark_is_no_reason() {
    let mut outcome = fixture::by_kube_proxy(endpoint([10, 42, 3, 7], 8080), 1.0);
    outcome.hits[4].effects = vec![Effect::Mark { before: 0x4000, after: 0 }];
    let text = show(vec![outcome]);
    assert!(text.contains("The rule: nodes/w1/iptables-save:172.\n"), "{text}");
}

#[test]
fn where_answers_go() {
    let to = |n| endpoint([10, 42, 3, n], 8080);
    let mut other = fixture::by_kube_proxy(to(8), 0.5);
    let both = |other: &Outcome| show(vec![fixture::by_kube_proxy(to(7), 0.5), other.clone()]);
    assert!(both(&other).contains("Answers go to 10.42.0.1; node w1 translates them back.\n"));
    // Not an address of the node: nobody knows who answers for it.
    other.source.after = endpoint([192, 0, 2, 1], 1024);
    let text = both(&other);
    assert!(!text.contains("Answers go to"), "{text}");
    assert!(
        text.starts_with("source REWRITTEN 192.168.7.20 -> 10.42.0.1 or 192.0.2.1 by"),
        "{text}"
    );
}

#[test]
fn paragraphs_are_broken_at_blanks_and_colours_take_no_room() {
    let style = Style { width: 40, ..STYLE };
    let text = style.wrapped(
        "  ok  ",
        "      ",
        "\x1b[31mlaptop\x1b[0m to service/default/web by node-port",
    );
    let expected = "  ok  \x1b[31mlaptop\x1b[0m to service/default/web by\n      node-port\n";
    assert_eq!(text, expected);
    let long = "a-word-that-is-longer-than-any-line-of-forty-columns";
    assert_eq!(style.wrapped("", "  ", &format!("x {long} y")), format!("x\n  {long}\n  y\n"));
}

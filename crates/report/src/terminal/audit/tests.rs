use unmasq_audit::matrix::Matrix;
use unmasq_audit::{Affected, FindingId, Owner, Reference, Remedy, Requirement, Totals};
use unmasq_model::packet::{Family, Protocol};

use super::*;
use crate::audit::{fixture, of_service};

const STYLE: Style = Style { color: false, verbose: false, width: 80 };

fn show(whole: &Audit, extent: Extent, style: &Style) -> String {
    let cluster = fixture::cluster();
    super::audit(whole, &fixture::subject(&cluster), extent, style)
}

fn verdict_of(audit: &Audit) -> String {
    let text = show(audit, Extent::FirstScreen, &STYLE);
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    lines.join(" ").replace("   ", " ")
}

/// The file is written anew with `UNMASQ_BLESS=1`, and then read before it is committed.
fn check(name: &str, text: &str) {
    let path = format!("{}/src/terminal/audit/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UNMASQ_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, "{name}");
}

#[test]
fn the_whole_story() {
    check("everything.txt", &show(&fixture::audit(), Extent::Everything, &STYLE));
}

#[test]
fn nothing_wrong() {
    check("healthy.txt", &show(&fixture::healthy(), Extent::Everything, &STYLE));
}

#[test]
fn the_first_screen_is_one_screen_and_the_beginning_of_everything() {
    let mut audit = fixture::audit();
    for finding in &mut audit.findings {
        finding.affected.services = vec!["a-long-namespace/a-long-name-of-a-service".to_owned(); 9];
    }
    for verbose in [false, true] {
        let style = Style { verbose, ..STYLE };
        let first = show(&audit, Extent::FirstScreen, &style);
        // Each finding takes a line more for names as long as these.
        assert!(first.lines().count() <= 23 + 3, "{first}");
        assert!(show(&audit, Extent::Everything, &style).starts_with(&first));
    }
}

#[test]
fn verdicts() {
    let whole = fixture::audit();
    assert_eq!(
        verdict_of(&whole),
        "2 errors, 2 warnings: 4 of 5 Services lose their clients' addresses"
    );
    let one = Audit { findings: whole.findings[1..2].to_vec(), ..whole.clone() };
    assert_eq!(verdict_of(&one), "1 error: 1 of 5 Services loses its clients' addresses");
    // Nothing of a Service: calls are counted.
    let mut calls = one.clone();
    calls.matrix.rows[2].services.clear();
    assert_eq!(verdict_of(&calls), "1 error: 1 of 204 ways loses its source");
    let warning = Audit { findings: whole.findings[2..3].to_vec(), ..whole.clone() };
    assert_eq!(verdict_of(&warning), "1 warning");
    let info = Audit { findings: whole.findings[4..].to_vec(), ..fixture::healthy() };
    assert_eq!(verdict_of(&info), "No source is lost that the settings promise to keep");
    let unseen = Audit { findings: Vec::new(), ..whole };
    assert_eq!(
        verdict_of(&unseen),
        "No source was seen lost that the settings promise to keep, and not everything could be seen"
    );
    let nothing = Audit { matrix: Matrix::default(), ..Audit::default() };
    assert_eq!(verdict_of(&nothing), "Nothing can be said: no call could be followed");
}

/// Mended with their cause: they are no errors more, and are told of all the same.
#[test]
fn what_follows_from_another_finding() {
    let mut audit = fixture::audit();
    let name = |finding: &Finding| Reference { id: finding.id, subject: finding.subject.clone() };
    let cause = name(&audit.findings[0]);
    audit.findings[1].caused_by = vec![cause.clone()];
    let verdict = "1 error and 1 that follows from it, 2 warnings: 4 of 5 Services lose their \
                   clients' addresses";
    assert_eq!(verdict_of(&audit), verdict);
    let text = show(&audit, Extent::Everything, &STYLE);
    let told = "    It follows from calico-unused-pool (old-pool), and is mended with it.\n";
    assert_eq!(text.matches(told).count(), 1, "{text}");
    let another = Finding { caused_by: vec![cause], ..audit.findings[1].clone() };
    let first = Finding { caused_by: Vec::new(), ..another.clone() };
    audit.findings.splice(1..2, [first, another.clone(), another]);
    assert!(verdict_of(&audit).starts_with("2 errors and 2 that follow from them, 2 warnings: "));
}

/// What wasn't seen is told in its own place of the first screen, and isn't something bad.
#[test]
fn a_finding_about_what_was_not_seen() {
    let mut audit = fixture::audit();
    let blind = Finding {
        id: FindingId::MissingNodeState,
        severity: Severity::Warning,
        title: "ipset.save of n1 was not captured".to_owned(),
        ..audit.findings[0].clone()
    };
    let before = verdict_of(&audit);
    audit.findings.insert(0, blind.clone());
    assert_eq!(verdict_of(&audit), before);
    let first = show(&audit, Extent::FirstScreen, &STYLE);
    assert!(!first.contains(&blind.title) && first.contains("and 3 more findings"), "{first}");
    assert!(show(&audit, Extent::Everything, &STYLE).contains(&blind.title));
    audit.findings = vec![blind];
    audit.matrix.rows.clear();
    let first = show(&audit, Extent::FirstScreen, &STYLE);
    assert!(first.starts_with("No source was seen lost"), "{first}");
    assert!(first.contains("\n1 finding about what was not seen\n"), "{first}");
}

/// Nobody has to answer for what is about no rule.
#[test]
fn a_finding_without_an_owner() {
    let mut audit = fixture::audit();
    audit.findings.truncate(1);
    audit.findings[0].owner = Owner::Unclaimed;
    let told = |audit: &Audit| {
        show(audit, Extent::FirstScreen, &STYLE).contains("a rule that no known program claims")
    };
    assert!(told(&audit));
    audit.findings[0].evidence.clear();
    assert!(!told(&audit));
}

#[test]
fn one_service_only() {
    let cluster = fixture::cluster();
    let subject = Subject { service: Some("shop/api"), ..fixture::subject(&cluster) };
    let part = of_service(&fixture::audit(), &cluster, "shop/api");
    let text = super::audit(&part, &subject, Extent::Everything, &STYLE);
    assert!(text.starts_with("shop/api: 2 errors: it loses its clients' addresses\n"), "{text}");
    for other in ["flannel", "a load balancer's address", "external-traffic-policy-cluster"] {
        assert!(!text.contains(other), "{other}: {text}");
    }
    assert!(!text.contains("calls were asked"), "{text}");
}

#[test]
fn with_v_nothing_is_shortened() {
    let mut audit = fixture::audit();
    audit.findings[0].affected.services = (0..20).map(|n| format!("ns/service-{n}")).collect();
    audit.findings[0].affected.flows = (0..20).map(|n| format!("flow {n}")).collect();
    let short = show(&audit, Extent::Everything, &STYLE);
    assert!(short.contains("ns/service-11 and 8 more"), "{short}");
    assert!(!short.contains("flow 19"), "{short}");
    let long = show(&audit, Extent::Everything, &Style { verbose: true, width: 120, ..STYLE });
    for part in [
        "ns/service-19\n",
        "flow 19\n",
        "default/web, shop/api, shop/cart, shop/stock, dns/dns\n",
        "unmasq trace 'my cluster.tar.gz' --from 10.42.1.5:40000 --to 10.43.0.0:80\n",
    ] {
        assert!(long.contains(part), "{part}: {long}");
    }
}

#[test]
fn lines_fit_the_width_and_commands_can_be_copied() {
    for width in [80, 100, 120] {
        let style = Style { width, ..STYLE };
        let text = show(&fixture::audit(), Extent::Everything, &style);
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        let joined: String = text.replace(" \\\n", " ");
        let words: Vec<&str> = joined.split_whitespace().collect();
        let joined = words.join(" ");
        for command in [
            "kubectl patch ippools.crd.projectcalico.org/old-pool --type merge -p \
             '{\"spec\":{\"natOutgoing\":false}}'",
            "*nat -I POSTROUTING 1 -s 192.168.0.0/16 -d 10.42.0.0/16 -j ACCEPT COMMIT",
        ] {
            assert!(joined.contains(command), "{width}: {command}");
        }
    }
}

#[test]
fn a_word_in_quotes_is_never_broken() {
    let style = Style { width: 40, ..STYLE };
    let mut text = String::new();
    let command = "tool --flag 'a long word that has blanks in it' -x \"one more of them\" end";
    finding::command(&mut text, "  ", command, &Paint::new(&style));
    assert_eq!(
        text,
        "  tool \\\n    --flag 'a long word that has blanks in it' \\\n    \
         -x \"one more of them\" end\n"
    );
}

#[test]
fn colour_only_if_asked_and_nothing_else_of_the_terminals() {
    let mut audit = fixture::audit();
    audit.findings[0].title = "\x1b[2Jgone".to_owned();
    audit.findings[0].affected =
        Affected { services: vec!["\x1b[2J".into()], ..Affected::default() };
    audit.missing.push("\x1b[2J".to_owned());
    let plain = show(&audit, Extent::Everything, &STYLE);
    assert!(!plain.contains('\x1b'), "{plain}");
    let coloured = show(&audit, Extent::Everything, &Style { color: true, ..STYLE });
    assert!(coloured.starts_with("\x1b[1;31m2 errors"), "{coloured}");
    assert!(!coloured.contains("\x1b[2J"), "{coloured}");
}

#[test]
fn what_was_not_seen() {
    let everything = Audit { matrix: Matrix { asked: 9, ..Matrix::default() }, ..Audit::default() };
    let ends = |audit: &Audit, end: &str| {
        let text = show(audit, Extent::FirstScreen, &STYLE);
        assert!(text.ends_with(end), "{text}");
    };
    for (nodes, nodes_not_captured, services, pods, why) in [
        (0, 0, 0, 0, "no nodes, no Services and no pods are known"),
        (0, 0, 3, 5, "no nodes are known"),
        (1, 0, 0, 0, "no Services and no pods are known"),
    ] {
        let totals = Totals { nodes, nodes_not_captured, services, pods, ..Totals::default() };
        let nothing = Audit { totals, ..Audit::default() };
        ends(&nothing, &format!("\n\nNot seen: who calls whom: {why}.\n"));
    }
    // There are nodes, and of none it is known what it does.
    let totals = Totals { nodes_not_captured: 2, services: 3, pods: 5, ..Totals::default() };
    let ending = "\n\nNot seen: who calls whom: the state of no node was captured; 2 of 2 nodes \
                  were\n  not captured.\n";
    ends(&Audit { totals, ..Audit::default() }, ending);
    ends(&everything, "\n\nNothing that was asked is unknown.\n");
    let missing = Audit { missing: vec!["a file".to_owned()], ..everything.clone() };
    ends(
        &missing,
        "\nNot seen: all that was asked could be told; more would be known with:\n  a file\n",
    );
    let totals = Totals { unknown: 1, ..Totals::default() };
    ends(&Audit { totals, ..everything }, "\nNot seen: 1 of 1 ways can't be told.\n");
}

#[test]
fn rows_that_differ_in_family_and_protocol_share_a_line() {
    let mut audit = fixture::healthy();
    let row = audit.matrix.rows[0].clone();
    let with = |family, protocol| {
        let mut row = row.clone();
        (row.cell.family, row.cell.protocol) = (family, protocol);
        row
    };
    let all = [
        with(Family::V4, Protocol::TCP),
        with(Family::V4, Protocol::UDP),
        with(Family::V6, Protocol::TCP),
        with(Family::V6, Protocol::UDP),
    ];
    audit.matrix.rows = all.to_vec();
    let text = show(&audit, Extent::Everything, &STYLE);
    assert!(text.contains("to the same node  ipv4+6 tcp+udp    400 calls\n"), "{text}");
    assert_eq!(text.matches("PRESERVED").count(), 1, "{text}");
    // Not of all families and protocols: which ones must be told.
    audit.matrix.rows = vec![all[0].clone(), all[3].clone()];
    let text = show(&audit, Extent::Everything, &STYLE);
    assert_eq!(text.matches("PRESERVED").count(), 2, "{text}");
    // Other Services are another line.
    audit.matrix.rows = all[..2].to_vec();
    audit.matrix.rows[1].services = vec![0];
    let text = show(&audit, Extent::Everything, &STYLE);
    assert_eq!(text.matches("PRESERVED").count(), 2, "{text}");
}

#[test]
fn the_first_screen_says_what_is_taken_for_granted_in_two_lines() {
    let mut audit = fixture::audit();
    let long = "a sentence of many words, which goes on ".repeat(8);
    audit.assumptions = vec![long, "b".to_owned(), "c".to_owned()];
    let text = show(&audit, Extent::FirstScreen, &STYLE);
    let told = text.lines().skip_while(|line| !line.starts_with("Taken for granted: "));
    let told: Vec<&str> = told.take(3).collect();
    let fits = told.iter().all(|line| line.chars().count() <= 80);
    assert!(told[1].ends_with('…') && fits && told.get(2) == Some(&"  and 2 more"), "{told:?}");
    let without = show(&fixture::healthy(), Extent::FirstScreen, &STYLE);
    assert!(!without.contains("Taken for granted"), "{without}");
}

#[test]
fn the_first_screen_ends_its_lines_between_words() {
    let mut audit = fixture::audit();
    let words = "lorem ipsum dolor sit amet consetetur sadipscing elitr sed diam nonumy eirmod ";
    audit.findings[0].remedies[0].title = words.repeat(4);
    audit.findings[0].remedies[0].requires.clear();
    let text = show(&audit, Extent::FirstScreen, &STYLE);
    let at = text.lines().position(|line| line.starts_with("  mend: ")).unwrap();
    let told: Vec<&str> = text.lines().skip(at).take(3).collect();
    assert!(told[2].starts_with("  more: "), "{told:?}");
    let last = told[1].split_whitespace().next_back().unwrap().trim_end_matches('…');
    assert!(told[1].ends_with('…') && words.split(' ').any(|word| word == last), "{told:?}");
}

#[test]
fn a_remedy_that_is_known_not_to_do_is_not_recommended() {
    let requirement =
        |holds| Requirement { text: "the gateway knows the pods".to_owned(), holds, check: None };
    let remedy = |title: &str, lasting, holds| Remedy {
        lasting,
        title: title.to_owned(),
        steps: Vec::new(),
        requires: vec![requirement(Some(true)), requirement(holds)],
    };
    let no = Some(false);
    for (remedies, expected) in [
        (vec![remedy("a", true, no), remedy("b", true, None)], "mend: b"),
        (vec![remedy("a", true, no), remedy("b", false, None)], "mend: b (until the next restart)"),
        (vec![remedy("a", false, None), remedy("b", true, Some(true))], "mend: b"),
        (
            vec![remedy("a", true, no), remedy("b", false, no)],
            "mend: no remedy holds yet: \"a\" needs that the gateway knows the pods",
        ),
        (Vec::new(), "mend: no remedy is known"),
    ] {
        let mut audit = fixture::audit();
        audit.findings[0].remedies = remedies;
        let text = show(&audit, Extent::FirstScreen, &STYLE);
        let line = text.lines().find(|line| line.contains("mend: ")).unwrap();
        assert_eq!(line.trim(), expected, "{text}");
    }
}

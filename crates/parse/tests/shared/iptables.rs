//! iptables-save of both back ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use unmasq_model::expr::Expr;
use unmasq_model::origin::FileId;
use unmasq_model::rule::{Action, Rule, Step, Test};
use unmasq_model::ruleset::{Backend, Table, TableFamily};
use unmasq_parse::iptables::parse;

use crate::Case;
use crate::folder::{files, name};

pub(crate) const TESTS: &[Case] = &[
    ("iptables::captures_are_understood_in_full", "captures", captures_are_understood_in_full),
    ("iptables::the_corpus_loses_no_rule", "corpus", the_corpus_loses_no_rule),
];

fn rules(tables: &[Table]) -> impl Iterator<Item = &Rule> {
    tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules)
}

/// What of a rule is opaque.
fn opaque(rule: &Rule) -> Vec<&str> {
    let expr = |expr: &Expr| matches!(expr, Expr::Opaque(_));
    let part = |step| match step {
        &Step::Test(Test::Opaque(ref opaque)) | &Step::Do(Action::Opaque(ref opaque)) => {
            Some(&*opaque.text)
        }
        Step::Test(Test::Compare { left, right, .. }) if expr(left) || expr(right) => Some("expr"),
        Step::Test(_) | Step::Do(_) => None,
    };
    rule.steps.iter().filter_map(part).collect()
}

fn rule_lines(text: &str) -> usize {
    let is_rule = |line: &&str| {
        let rule = match line.strip_prefix('[') {
            Some(_) => line.split_once("] ").map_or("", |(_, rule)| rule),
            None => line,
        };
        rule.starts_with("-A ") || rule.starts_with("-I ")
    };
    text.lines().map(str::trim).filter(is_rule).count()
}

fn captures_are_understood_in_full(captures: &Path) {
    let mut seen = 0;
    for path in files(captures) {
        let (family, backend) = match name(&path) {
            "iptables-save" => (TableFamily::Ip, Backend::IptablesNft),
            "iptables-legacy-save" => (TableFamily::Ip, Backend::Legacy),
            "ip6tables-save" => (TableFamily::Ip6, Backend::IptablesNft),
            "ip6tables-legacy-save" => (TableFamily::Ip6, Backend::Legacy),
            _ => continue,
        };
        let text = fs::read_to_string(&path).expect("a capture is text");
        let (tables, diagnostics) = parse(&text, FileId(0), family, backend);
        assert_eq!(diagnostics, [], "{}", path.display());
        assert_eq!(rules(&tables).count(), rule_lines(&text), "{}", path.display());
        for rule in rules(&tables) {
            assert!(opaque(rule).is_empty(), "{}: {}", path.display(), rule.text);
        }
        assert!(tables.iter().all(|t| t.unreadable.is_none() && t.backend == backend));
        seen += rules(&tables).count();
    }
    assert!(seen > 100, "only {seen} rules in all captures");
}

/// Matches of the corpus that the model has no words for.
const NOT_MODELLED: [&str; 8] =
    ["ipvs", "mac", "owner", "physdev", "pkttype", "rpfilter", "rt", "socket"];

/// Every rule line of the corpus gives a rule, and what is opaque in them is one of the matches
/// and targets that are meant to be.
fn the_corpus_loses_no_rule(corpus: &Path) {
    let mut kept = BTreeSet::new();
    let mut seen = 0;
    for path in files(corpus) {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let family = match extension {
            "iptables-save" | "iptables-S" | "iptables-restore" => TableFamily::Ip,
            "ip6tables-save" | "ip6tables-S" => TableFamily::Ip6,
            _ => continue,
        };
        let mut text = fs::read_to_string(&path).expect("a listing is text");
        if !text.lines().any(|line| line.starts_with('*')) {
            text.insert_str(0, "*nat\n");
        }
        let (tables, _) = parse(&text, FileId(0), family, Backend::Legacy);
        let unclear = |rule: &&Rule| !rule.text.starts_with('-');
        let found = rules(&tables).count() - rules(&tables).filter(unclear).count();
        assert_eq!(found, rule_lines(&text), "{}", path.display());
        seen += found;
        for rule in rules(&tables) {
            for text in opaque(rule) {
                let words: Vec<&str> = text.split_whitespace().take(2).collect();
                kept.insert(words.join(" "));
            }
        }
    }
    for text in &kept {
        let meant = match text.strip_prefix("-m ") {
            Some(name) => NOT_MODELLED.contains(&name),
            // Options of matches that are modelled.
            None => !text.trim_start_matches("! ").starts_with("--"),
        };
        assert!(meant, "{text} is opaque");
    }
    assert!(seen > 10_000, "only {seen} rules in the corpus");
}

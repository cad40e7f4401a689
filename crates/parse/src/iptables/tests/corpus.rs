//! Listings that real systems wrote. They are not part of the repository; where they are missing
//! these tests say so and do nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use unmasq_model::expr::Expr;
use unmasq_model::origin::FileId;
use unmasq_model::rule::{Action, Rule, Step, Test};
use unmasq_model::ruleset::{Backend, Table, TableFamily};

use crate::iptables::parse;

/// The files below a folder of the shared data, or `None` with the reason printed.
fn shared(folder: &str) -> Option<Vec<PathBuf>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let root = Path::new(root).join(folder);
    if !root.is_dir() {
        println!("skipped: {} is not there", root.display());
        return None;
    }
    let mut files = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder can be listed") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Some(files)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

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

#[test]
fn captures_are_understood_in_full() {
    let Some(files) = shared("captures") else { return };
    let mut seen = 0;
    for path in files {
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
#[test]
fn the_corpus_loses_no_rule() {
    let Some(files) = shared("corpus") else { return };
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    let mut seen = 0;
    for path in files {
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
                *kept.entry(words.join(" ")).or_default() += 1;
            }
        }
    }
    for (text, count) in &kept {
        println!("opaque {count:6} {text}");
        let meant = match text.strip_prefix("-m ") {
            Some(name) => NOT_MODELLED.contains(&name),
            // Options of matches that are modelled.
            None => !text.trim_start_matches("! ").starts_with("--"),
        };
        assert!(meant, "{text} is opaque");
    }
    println!("{seen} rules");
    assert!(seen > 10_000, "only {seen} rules in the corpus");
}

//! Rulesets of real nodes and of other projects, where they are at hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use unmasq_model::expr::Expr;
use unmasq_model::rule::{Action, NatAddress, NatPorts, Rule, Step, Test};
use unmasq_model::ruleset::{Table, TableFamily};
use unmasq_model::set::Data;

use super::super::{parse, tables};
use super::{JSON, TEXT, nothing};

#[test]
fn other_projects_rulesets_are_read() {
    let Some(folder) = shared("corpus") else { return };
    let mut opaque: BTreeMap<String, usize> = BTreeMap::new();
    let (mut files, mut rules) = (0, 0);
    for path in files_in(&folder, ".nft.json") {
        let json = fs::read_to_string(&path).unwrap();
        let (tables, diagnostics) = parse(&json, JSON, None, &nothing);
        files += 1;
        assert_eq!(diagnostics, [], "{}", path.display());
        let listed = json.matches("{\"rule\":").count() + json.matches("\"rule\": {").count();
        let read: usize = rules_of(&tables).count();
        assert!(read >= listed / 2, "{}: {read} of {listed} rules", path.display());
        rules += read;
        for text in tables.iter().filter(|table| walked(table)).flat_map(opaque_parts) {
            *opaque.entry(text).or_default() += 1;
        }
    }
    assert!(files > 100, "only {files} files");
    eprintln!("{files} rulesets, {rules} rules; opaque:");
    for (text, count) in opaque {
        eprintln!("{count:5} {text}");
    }
}

#[test]
fn captured_nodes_have_nothing_opaque() {
    let Some(folder) = shared("captures") else { return };
    let mut nodes = 0;
    for path in captures(&folder) {
        let json = fs::read_to_string(&path).unwrap();
        let xtables: Vec<_> = tables(&json).into_iter().filter(|table| table.xt).collect();
        let skip = |family: TableFamily, name: &str| {
            xtables.iter().any(|table| table.family == family && *table.name == *name)
        };
        let (tables, diagnostics) = parse(&json, JSON, None, &skip);
        assert_eq!(diagnostics, [], "{}", path.display());
        let opaque: Vec<_> = tables.iter().flat_map(opaque_parts).collect();
        assert_eq!(opaque, [""; 0], "{}", path.display());
        nodes += 1;
    }
    assert!(nodes >= 5, "only {nodes} captured nodes");
}

#[test]
fn rules_are_written_as_nft_writes_them() {
    let Some(folder) = shared("captures") else { return };
    let mut compared = 0;
    for path in captures(&folder) {
        let Ok(listing) = fs::read_to_string(path.with_file_name("nft.txt")) else { continue };
        let json = fs::read_to_string(&path).unwrap();
        let (own, _) = parse(&json, JSON, None, &nothing);
        let (listed, diagnostics) = parse(&json, JSON, Some((&listing, TEXT)), &nothing);
        assert_eq!(diagnostics, []);
        for (own, listed) in rules_of(&own).zip(rules_of(&listed)) {
            assert_eq!(listed.origin.file, TEXT, "{}", listed.text);
            let line = listing.lines().nth(listed.origin.line as usize - 1).unwrap();
            let handle = listed.origin.handle.unwrap();
            assert_eq!(line.trim(), format!("{} # handle {handle}", listed.text));
            // nft hides what xt matches and targets do.
            if !own.text.contains("xt match") && !own.text.contains("xt target") {
                assert_eq!(own.text, listed.text);
                compared += 1;
            }
        }
    }
    assert!(compared > 300, "only {compared} rules compared");
}

fn walked(table: &Table) -> bool {
    matches!(table.family, TableFamily::Ip | TableFamily::Ip6 | TableFamily::Inet)
}

fn rules_of(tables: &[Table]) -> impl Iterator<Item = &Rule> {
    tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules)
}

fn opaque_parts(table: &Table) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(table.unreadable.iter().map(|opaque| format!("table: {opaque}")));
    for set in &table.sets {
        found.extend(set.opaque.iter().map(|opaque| format!("set: {opaque}")));
        found.extend(set.elements.data().filter_map(|data| match data {
            Data::Opaque(opaque) => Some(format!("data: {opaque}")),
            Data::Nothing | Data::Value(_) | Data::Verdict(_) => None,
        }));
    }
    for step in table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps) {
        found.extend(opaque_step(step));
    }
    found
}

fn opaque_step(step: &Step) -> Option<String> {
    match step {
        Step::Test(Test::Opaque(opaque)) => Some(format!("test: {opaque}")),
        Step::Do(Action::Opaque(opaque)) => Some(format!("action: {opaque}")),
        Step::Do(
            Action::SetMark(Expr::Opaque(opaque)) | Action::SetCtMark(Expr::Opaque(opaque)),
        ) => Some(format!("mark: {opaque}")),
        Step::Do(Action::Nat(nat)) => {
            let address = matches!(nat.address, Some(NatAddress::Expr(Expr::Opaque(_))));
            let port = matches!(nat.ports, Some(NatPorts::Expr(Expr::Opaque(_))));
            (address || port).then(|| format!("nat: {nat:?}"))
        }
        Step::Test(_) | Step::Do(_) => None,
    }
}

/// A folder of data that is not part of the repository.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")).join(name);
    if !path.is_dir() {
        eprintln!("skipped: no folder {}", path.display());
        return None;
    }
    Some(path)
}

fn files_in(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(ending));
    paths.sort();
    paths
}

fn captures(folder: &Path) -> Vec<PathBuf> {
    let captures = files_in(folder, "");
    let nodes = captures.iter().filter(|path| path.join("nodes").is_dir());
    nodes
        .flat_map(|path| files_in(&path.join("nodes"), ""))
        .map(|node| node.join("nft.json"))
        .filter(|path| path.is_file())
        .collect()
}

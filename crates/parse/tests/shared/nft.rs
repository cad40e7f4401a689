//! Rulesets of real nodes and of other projects.

use std::fs;
use std::path::{Path, PathBuf};

use unmasq_model::expr::Expr;
use unmasq_model::origin::FileId;
use unmasq_model::rule::{Action, NatAddress, NatPorts, Rule, Step, Test};
use unmasq_model::ruleset::{Table, TableFamily};
use unmasq_model::set::Data;
use unmasq_parse::nft::{parse, tables};

use crate::Case;
use crate::folder::{files, name};

pub(crate) const TESTS: &[Case] = &[
    ("nft::other_projects_rulesets_are_read", "corpus", other_projects_rulesets_are_read),
    ("nft::captured_nodes_have_nothing_opaque", "captures", captured_nodes_have_nothing_opaque),
    ("nft::rules_are_written_as_nft_writes_them", "captures", rules_are_written_as_nft_writes_them),
];

/// The file of the JSON.
const JSON: FileId = FileId(3);
/// The file of the listing.
const TEXT: FileId = FileId(4);

fn nothing(_: TableFamily, _: &str) -> bool {
    false
}

fn other_projects_rulesets_are_read(corpus: &Path) {
    let mut opaque = Vec::new();
    let (mut count, mut rules) = (0, 0);
    for path in files(corpus).iter().filter(|path| name(path).ends_with(".nft.json")) {
        let json = fs::read_to_string(path).unwrap();
        let (tables, diagnostics) = parse(&json, JSON, None, &nothing);
        count += 1;
        assert_eq!(diagnostics, [], "{}", path.display());
        let listed = json.matches("{\"rule\":").count() + json.matches("\"rule\": {").count();
        let read: usize = rules_of(&tables).count();
        assert!(read >= listed / 2, "{}: {read} of {listed} rules", path.display());
        rules += read;
        let walked = tables.iter().filter(|table| walked(table));
        // nft shows no parameters of xt matches and targets, so these are opaque by nature.
        opaque.extend(walked.flat_map(opaque_parts).filter(|text| !text.contains(": xt ")));
    }
    assert!(count > 100, "only {count} files");
    assert!(opaque.len() * 10 < rules, "of {rules} rules: {opaque:#?}");
}

fn captured_nodes_have_nothing_opaque(captures: &Path) {
    let mut nodes = 0;
    for path in listings(captures) {
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

fn rules_are_written_as_nft_writes_them(captures: &Path) {
    let mut compared = 0;
    for path in listings(captures) {
        let Ok(listing) = fs::read_to_string(path.with_file_name("nft.txt")) else { continue };
        let json = fs::read_to_string(&path).unwrap();
        let (own, _) = parse(&json, JSON, None, &nothing);
        let (listed, diagnostics) = parse(&json, JSON, Some((&listing, TEXT)), &nothing);
        assert_eq!(diagnostics, []);
        for (own, listed) in rules_of(&own).zip(rules_of(&listed)) {
            assert_eq!(listed.origin.file, TEXT, "{}", listed.text);
            let line = listing.lines().nth(listed.origin.line as usize - 1).unwrap();
            let handle = listed.origin.handle.unwrap();
            // What libxtables translates to nothing leaves a space.
            let (shown, number) = line.trim().rsplit_once(" # handle ").unwrap();
            assert_eq!((shown.trim_end(), number), (&*listed.text, &*handle.to_string()));
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

/// The `nft.json` of every captured node.
fn listings(captures: &Path) -> Vec<PathBuf> {
    let mut paths = files(captures);
    paths.retain(|path| name(path) == "nft.json");
    paths
}

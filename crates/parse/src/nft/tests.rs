//! What nft prints, and what it is lowered to. The JSON is that of nft 1.0.6 in a network
//! namespace, unless a test says otherwise.

mod objects;
mod sets;
mod statements;

use unmasq_model::origin::{Diagnostic, FileId};
use unmasq_model::ruleset::{Table, TableFamily};

/// The file of the JSON.
const JSON: FileId = FileId(3);
/// The file of the listing.
const TEXT: FileId = FileId(4);

/// A table named "t" of that family with a chain "c" and those objects.
fn table(family: &str, objects: &[String]) -> (Table, Vec<Diagnostic>) {
    let head = [
        format!(r#"{{"table": {{"family": "{family}", "name": "t", "handle": 1}}}}"#),
        chain(family, "c"),
        chain(family, "other"),
    ];
    let all: Vec<&str> = head.iter().chain(objects).map(String::as_str).collect();
    let json = format!("{{\"nftables\": [{}]}}", all.join(",\n"));
    let (mut tables, diagnostics) = super::parse(&json, JSON, None, &nothing);
    assert_eq!(tables.len(), 1, "{json}");
    (tables.remove(0), diagnostics)
}

fn chain(family: &str, name: &str) -> String {
    format!(r#"{{"chain": {{"family": "{family}", "table": "t", "name": "{name}", "handle": 2}}}}"#)
}

/// A rule of chain "c".
fn rule(family: &str, handle: u64, statements: &str) -> String {
    format!(
        r#"{{"rule": {{"family": "{family}", "table": "t", "chain": "c", "handle": {handle},
        "expr": [{statements}]}}}}"#
    )
}

fn nothing(_: TableFamily, _: &str) -> bool {
    false
}

//! Who depends on whom, against the crate table.
//!
//! In: the table and cargo's graph. Out: a sentence for each crate without a row, each dependency
//! that the table doesn't allow, and each way from a pure crate to I/O, async or a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::table::Row;
use crate::workspace::{Metadata, Package};

/// Packages that do I/O, wait, or read a clock. A pure crate reaches none of them, not even
/// through others.
const IMPURE: &[&str] = &[
    "async-std",
    "chrono",
    "errno",
    "getrandom",
    "hyper",
    "jiff",
    "kube",
    "kube-client",
    "libc",
    "mio",
    "netlink-sys",
    "nix",
    "rand",
    "reqwest",
    "rtnetlink",
    "rustix",
    "signal-hook",
    "smol",
    "socket2",
    "tar",
    "tempfile",
    "time",
    "tokio",
    "ureq",
    "walkdir",
];

/// Crates that a pure crate mustn't use in tests either: its tests would need a node.
const NOT_EVEN_IN_TESTS: &[&str] = &["host", "lab"];

/// All broken promises of the graph.
pub(super) fn check(table: &[Row], metadata: &Metadata) -> Vec<String> {
    let by_id = metadata.by_id();
    let crates: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .filter(|package| metadata.is_member(&package.id))
        .filter_map(|package| Some((package.crate_name()?, package)))
        .collect();
    let mut problems = Vec::new();
    for row in table {
        if !crates.contains_key(&*row.name) {
            problems.push(format!(
                "ARCHITECTURE.md has a row for `{0}`, but there is no crates/{0}",
                row.name
            ));
        }
    }
    for (name, package) in &crates {
        let Some(row) = table.iter().find(|row| row.name == *name) else {
            problems.push(format!("crates/{name} has no row in the table of ARCHITECTURE.md"));
            continue;
        };
        check_crate(row, package, metadata, &by_id, &mut problems);
        if row.pure {
            problems.extend(check_purity(row, package, metadata, &by_id));
        }
    }
    problems
}

fn check_crate(
    row: &Row,
    package: &Package,
    metadata: &Metadata,
    by_id: &BTreeMap<&str, &Package>,
    problems: &mut Vec<String>,
) {
    for dependency in metadata.dependencies(&package.id) {
        let Some(used) = by_id.get(&*dependency.pkg) else {
            continue;
        };
        let Some(name) = used.crate_name().filter(|_| metadata.is_member(&used.id)) else {
            continue;
        };
        if dependency.only_dev() {
            if row.pure && NOT_EVEN_IN_TESTS.contains(&name) {
                problems.push(format!(
                    "`{}` is pure, so its tests mustn't use `{name}` (dev-dependencies of \
                     crates/{}/Cargo.toml)",
                    row.name, row.name
                ));
            }
        } else if !row.allows(name) {
            problems.push(format!(
                "`{}` uses `{name}`, which the table of ARCHITECTURE.md doesn't allow",
                row.name
            ));
        }
    }
}

/// The shortest way from a pure crate to each impure package.
fn check_purity(
    row: &Row,
    package: &Package,
    metadata: &Metadata,
    by_id: &BTreeMap<&str, &Package>,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::from([&*package.id]);
    let mut queue: VecDeque<(&str, Vec<&str>)> = VecDeque::from([(&*package.id, Vec::new())]);
    while let Some((id, way)) = queue.pop_front() {
        for dependency in metadata.dependencies(id).iter().filter(|d| !d.only_dev()) {
            let Some(used) = by_id.get(&*dependency.pkg) else {
                continue;
            };
            if !seen.insert(&used.id) {
                continue;
            }
            let mut way = way.clone();
            way.push(&used.name);
            if IMPURE.contains(&&*used.name) {
                problems.push(format!(
                    "`{}` is pure, but reaches {} ({})",
                    row.name,
                    used.name,
                    way.join(" -> ")
                ));
            } else {
                queue.push_back((&used.id, way));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    /// A workspace `model <- parse <- cli`, and tests of parse that use host.
    fn metadata(edges: &[(&str, &str, Option<&str>)]) -> Metadata {
        let own = ["model", "parse", "host", "cli"];
        let foreign = ["serde", "libc"];
        let node = |name: &str| {
            let deps: Vec<String> = edges
                .iter()
                .filter(|(from, _, _)| *from == name)
                .map(|(_, to, kind)| {
                    let kind = kind.map_or("null".into(), |kind| format!("{kind:?}"));
                    format!(r#"{{"pkg":"{to}","dep_kinds":[{{"kind":{kind}}}]}}"#)
                })
                .collect();
            format!(r#"{{"id":"{name}","deps":[{}]}}"#, deps.join(","))
        };
        let package = |name: &str, folder: &str| {
            format!(
                r#"{{"id":"{name}","name":"{name}","version":"1.0.0","license":"MIT",
                    "manifest_path":"/w/{folder}/{name}/Cargo.toml"}}"#
            )
        };
        let mut packages: Vec<String> = own.iter().map(|name| package(name, "crates")).collect();
        packages.extend(foreign.iter().map(|name| package(name, "registry")));
        let nodes: Vec<String> = own.iter().chain(&foreign).map(|name| node(name)).collect();
        let text = format!(
            r#"{{"packages":[{}],"workspace_members":{own:?},"resolve":{{"nodes":[{}]}}}}"#,
            packages.join(","),
            nodes.join(",")
        );
        serde_json::from_str(&text).unwrap()
    }

    fn check_edges(edges: &[(&str, &str, Option<&str>)]) -> Vec<String> {
        let table = table::parse(
            "<!-- crates: begin -->\n| `model` | m | yes | – |\n| `parse` | p | yes | `model` |\n\
             | `host` | h | no | `model`, `parse` |\n| `cli` | c | no | all |\n<!-- crates: end -->",
        )
        .unwrap();
        check(&table, &metadata(edges))
    }

    #[test]
    fn allowed_edges_are_silent() {
        let edges = [
            ("parse", "model", None),
            ("parse", "serde", None),
            ("host", "libc", None),
            ("host", "parse", None),
            ("cli", "host", None),
            ("parse", "cli", Some("dev")),
            ("parse", "libc", Some("dev")),
        ];
        assert_eq!(check_edges(&edges), Vec::<String>::new());
    }

    #[test]
    fn forbidden_edges_are_named() {
        let cases = [
            (("model", "parse", None), "`model` uses `parse`"),
            (("model", "parse", Some("build")), "`model` uses `parse`"),
            (("parse", "host", Some("dev")), "its tests mustn't use `host`"),
            (("model", "libc", None), "reaches libc (libc)"),
        ];
        for (edge, expected) in cases {
            let problems = check_edges(&[edge]);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(expected), "{problems:?}");
        }
    }

    #[test]
    fn a_way_through_others_is_found_and_shown() {
        let problems = check_edges(&[("parse", "serde", None), ("serde", "libc", None)]);
        assert_eq!(problems, ["`parse` is pure, but reaches libc (serde -> libc)"]);
    }

    #[test]
    fn rows_and_crates_must_agree() {
        let text = "<!-- crates: begin -->\n| `model` | m | yes | – |\n| `ghost` | g | no | all |\n\
                    <!-- crates: end -->";
        let problems = check(&table::parse(text).unwrap(), &metadata(&[]));
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems[0].contains("no crates/ghost"), "{problems:?}");
        assert!(problems[1].contains("crates/cli has no row"), "{problems:?}");
    }
}

//! Parts of nodes' state that were not captured and that answers hang on.
//!
//! In: rows that can't be told, with their reasons. Out: findings of `missing-node-state`, one for
//! each part, a warning each. What is missing and hangs on nothing is only told of as not seen
//! ([`unseen`](super::unseen)); so is what isn't of a node (a router, a load balancer).

use std::collections::{BTreeMap, BTreeSet};

use unmasq_cluster::Node;
use unmasq_model::host::Host;

use super::super::Context;
use super::super::describe::{Described, by_hand, command, few, title};
use super::finding;
use crate::matrix::{Fate, Row};
use crate::{
    Cause, Confidence, Evidence, Finding, FindingId, Owner, Remedy, Severity, quoted, shell,
};

/// A file of a node in a capture.
struct Part {
    file: &'static str,
    /// What prints it.
    command: &'static str,
    is_missing: fn(&Host) -> bool,
}

/// Files that reasons name, as `collect` takes them.
const PARTS: [Part; 6] = [
    Part { file: "ipset.save", command: "ipset save", is_missing: |host| host.ipsets.is_none() },
    Part {
        file: "ip-addr.json",
        command: "ip -j -d addr",
        is_missing: |host| host.links.is_none(),
    },
    Part {
        file: "ip-route.json",
        command: "ip -j -d route show table all",
        is_missing: |host| host.routes4.is_none(),
    },
    Part {
        file: "ip6-route.json",
        command: "ip -j -6 -d route show table all",
        is_missing: |host| host.routes6.is_none(),
    },
    Part {
        file: "ip-rule.json",
        command: "ip -j -d rule",
        is_missing: |host| host.rules4.is_none(),
    },
    Part {
        file: "ip6-rule.json",
        command: "ip -j -6 -d rule",
        is_missing: |host| host.rules6.is_none(),
    },
];

/// Adds what answers hang on.
pub(super) fn add(context: &Context<'_, '_>, findings: &mut Vec<Finding>) {
    let nodes = &context.cluster.nodes;
    let absent = || nodes.iter().filter(|node| node.host.is_none());
    let (mut whole, mut of_nodes) = (Vec::new(), BTreeSet::new());
    let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, row) in context.matrix.rows.iter().enumerate() {
        let Fate::Unknown(why) = &row.cell.fate else { continue };
        let words = || why.split(|c: char| c.is_whitespace() || "(),:".contains(c));
        let hanging = absent().filter(|node| hangs_on(why, node)).map(|node| node.name.clone());
        let hanging: Vec<String> = hanging.collect();
        if !hanging.is_empty() {
            whole.push(index);
            of_nodes.extend(hanging);
        } else if let Some(part) = PARTS.iter().position(|part| words().any(|w| w == part.file)) {
            parts.entry(part).or_default().push(index);
        }
    }
    if !whole.is_empty() {
        findings.push(of_whole(context, &of_nodes.into_iter().collect::<Vec<_>>(), whole));
    }
    for (part, rows) in parts {
        let part = &PARTS[part];
        let lacking = nodes.iter().filter(|node| node.host.as_ref().is_some_and(part.is_missing));
        let names: Vec<String> = lacking.map(|node| node.name.clone()).collect();
        // It was captured everywhere, and can't be read in whole: that is told with each answer.
        if !names.is_empty() {
            findings.push(of_part(context, part, &names, rows));
        }
    }
}

/// Whether a reason is that a node wasn't captured, or that what is at the other end of a tunnel
/// wasn't, which may be any of those (`unmasq_cluster::paths`).
fn hangs_on(why: &str, node: &Node) -> bool {
    why.contains(&format!("the state of node {} was not captured", node.name))
        || why.contains("none of the captured nodes")
}

fn of_whole(context: &Context<'_, '_>, nodes: &[String], rows: Vec<usize>) -> Finding {
    let what = format!("The state of {}", few(nodes));
    let collect = nodes.iter().map(|node| {
        let folder = shell::file(&format!("{node}/"));
        command(format!("unmasq collect -o {folder} {}", shell::option("--node", node)))
    });
    let join = nodes.iter().map(|node| {
        command(format!("mv {} CAPTURE/nodes/", shell::file(&format!("{node}/nodes/{node}"))))
    });
    let steps = vec![
        by_hand("On each of them, as root; it changes nothing there", collect),
        by_hand("Then put it beside the others in the capture", join),
    ];
    made(context, "state", &what, nodes, rows, steps)
}

fn of_part(context: &Context<'_, '_>, part: &Part, nodes: &[String], rows: Vec<usize>) -> Finding {
    let Part { file, command: program, .. } = part;
    let what = format!("{file} of {}", few(nodes));
    let collect = nodes.iter().map(|node| {
        let to = quoted(&format!("CAPTURE/nodes/{node}/{file}"));
        command(format!("{program} > {to}   # on {}", quoted(node)))
    });
    let steps = vec![by_hand(
        "On each of them, as root (or all anew: unmasq collect). A command that fails leaves no file: \
         an empty one would say that there is nothing",
        collect,
    )];
    made(context, file, &what, nodes, rows, steps)
}

fn made(
    context: &Context<'_, '_>,
    subject: &str,
    what: &str,
    nodes: &[String],
    rows: Vec<usize>,
    steps: Vec<crate::Step>,
) -> Finding {
    let found = || rows.iter().filter_map(|index| context.matrix.rows.get(*index));
    let ways: usize = found().map(|row| row.count).sum();
    let hang = match ways {
        1 => "1 way hangs on it".to_owned(),
        ways => format!("{ways} ways hang on it"),
    };
    let described = Described {
        title: title(
            format!("{what} was not captured, and {hang}"),
            format!("A part of nodes' state was not captured, and {hang}"),
        ),
        confidence: Confidence::Certain,
        cause: Cause {
            text: "What becomes of these calls depends on it, so it can't be told whether they keep \
                   their source: a loss could be among them. Missing is not empty: nothing is assumed \
                   of it."
                .to_owned(),
            setting: None,
            place: None,
        },
        remedies: vec![Remedy {
            lasting: true,
            title: format!("Collect what is missing of {}", few(nodes)),
            steps,
            requires: Vec::new(),
        }],
    };
    let id = FindingId::MissingNodeState;
    let mut missing =
        finding(id, subject.to_owned(), Severity::Warning, Owner::Unclaimed, described);
    let services: BTreeSet<u32> = found().flat_map(|row| &row.services).copied().collect();
    let families: BTreeSet<_> = found().map(|row| row.cell.family).collect();
    missing.evidence = evidence(context, found());
    missing.affected = context.affected_by(&rows, services);
    missing.affected.nodes = nodes.to_vec();
    missing.families = families.into_iter().collect();
    missing
}

/// The first witness of each reason, a few at most.
fn evidence<'r>(context: &Context<'_, '_>, rows: impl Iterator<Item = &'r Row>) -> Vec<Evidence> {
    const FEW: usize = 3;
    let mut known = BTreeSet::new();
    let new = rows.filter_map(|row| match &row.cell.fate {
        Fate::Unknown(why) if known.insert(why.clone()) => Some((row, why)),
        Fate::Unknown(_)
        | Fate::Preserved
        | Fate::Rewritten(_)
        | Fate::NoAnswer(_)
        | Fate::Dropped(_)
        | Fate::Rejected(_)
        | Fate::Lost => None,
    });
    let shown = new.take(FEW).map(|(row, why)| {
        let Evidence { text, trace, rule } = context.witness(row);
        // Nothing is known of what the receiver sees.
        let call = text.rsplit_once(": ").map_or(&*text, |(call, _)| call);
        Evidence { text: format!("{call}: {why}"), trace, rule }
    });
    shown.collect()
}

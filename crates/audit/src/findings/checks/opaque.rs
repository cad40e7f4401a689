//! What translates packets and is in no ruleset: Cilium's programs, other BPF programs, IPVS.
//!
//! In: settings, what was captured beside the rules, unknown rows. Out: findings of
//! `opaque-dataplane`, one for each kind: for information, or a warning if calls can't be told
//! because of it.

use unmasq_model::host::Host;

use super::super::Context;
use super::super::describe::{Described, by_hand, command, few, title};
use super::finding;
use crate::matrix::Fate;
use crate::{Cause, Confidence, Finding, FindingId, Owner, Remedy, Severity};

pub(super) fn add(context: &Context<'_, '_>, findings: &mut Vec<Finding>) {
    let has = |of: fn(&Host) -> bool| -> Vec<String> {
        let nodes = context.cluster.nodes.iter();
        let nodes = nodes.filter(|node| node.host.as_ref().is_some_and(of));
        nodes.map(|node| node.name.clone()).collect()
    };
    let cilium = &context.cluster.settings.cilium;
    let bpf = has(|host| host.beyond.bpf.as_ref().is_some_and(|all| !all.is_empty()));
    let ipvs = has(|host| host.beyond.ipvs.as_ref().is_some_and(|all| !all.is_empty()));
    if cilium.is_present() {
        let place = cilium.places.first().map(ToString::to_string);
        findings.push(made(context, Owner::Cilium, "Cilium", ["BPF", "Cilium"], place, bpf));
    } else if !bpf.is_empty() {
        let place = Some(format!("nodes/{}/bpf", bpf[0]));
        findings.push(made(context, Owner::Unclaimed, "BPF programs", ["BPF", "BPF"], place, bpf));
    }
    if !ipvs.is_empty() {
        let place = Some(format!("nodes/{}/ipvs", ipvs[0]));
        findings.push(made(context, Owner::Unclaimed, "IPVS", ["IPVS", "IPVS"], place, ipvs));
    }
}

fn made(
    context: &Context<'_, '_>,
    owner: Owner,
    what: &str,
    words: [&str; 2],
    place: Option<String>,
    nodes: Vec<String>,
) -> Finding {
    let rows = (0..).zip(&context.matrix.rows).filter(|(_, row)| match &row.cell.fate {
        Fate::Unknown(why) => words.iter().any(|word| why.contains(word)),
        Fate::Preserved
        | Fate::Rewritten(_)
        | Fate::NoAnswer(_)
        | Fate::Dropped(_)
        | Fate::Rejected(_)
        | Fate::Lost => false,
    });
    let rows: Vec<usize> = rows.map(|(index, _)| index).collect();
    let severity = if rows.is_empty() { Severity::Info } else { Severity::Warning };
    let on = if nodes.is_empty() { String::new() } else { format!(" on {}", few(&nodes)) };
    let described = Described {
        title: title(
            format!("{what} may translate packets{on}, and no rule shows it"),
            format!("{what} may translate packets, and no rule shows it"),
        ),
        confidence: Confidence::Likely,
        cause: Cause {
            text: format!(
                "What {what} does to sources is in no ruleset, so it isn't judged here: a call that is \
                 shown as preserved may still be translated there."
            ),
            setting: None,
            place,
        },
        remedies: vec![Remedy {
            lasting: true,
            title: "Look at what it does itself".to_owned(),
            steps: vec![by_hand(
                "Nothing has to be changed for being there; see what becomes of a source at the pod",
                [
                    command("tcpdump -ni any host CLIENT"),
                    command("bpftool net; ipvsadm -Ln; cilium bpf nat list"),
                ],
            )],
            requires: Vec::new(),
        }],
    };
    let mut found =
        finding(FindingId::OpaqueDataplane, what.to_owned(), severity, owner, described);
    found.affected.nodes = nodes;
    found.affected.rows = rows;
    found
}

//! A matrix in few lines: clients and entries of one kind together, with counts.
//!
//! In: a [`Matrix`]. Out: [`Line`]s, in the order of the clients' and entries' kinds, and texts for
//! the rules that rewrite. Pure.

use std::collections::{BTreeMap, BTreeSet};

use unmasq_audit::{Owner, owner};
use unmasq_eval::trace::RuleId;
use unmasq_model::packet::Family;

use crate::cluster::Cluster;
use crate::cluster::plan::Kind;
use crate::matrix::{Foreseen, Matrix, Question, Row, Target};
use crate::scenario::{Entry, Fate};

/// Rows of one kind together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What kind of client.
    pub client: String,
    /// What it calls.
    pub entry: String,
    /// Address family.
    pub family: Family,
    /// What became of them, with how many, most first.
    pub fates: Vec<(String, usize)>,
    /// What may become of them: where chance chooses an endpoint, more than was seen this time.
    pub possible: BTreeSet<String>,
}

/// The lines of a matrix.
pub fn lines(cluster: &Cluster, matrix: &Matrix) -> Vec<Line> {
    let mut groups: BTreeMap<(u8, String, String, Family), Group> = BTreeMap::new();
    for row in &matrix.rows {
        let (rank, client, entry) = kind(cluster, &row.question);
        let key = (rank, client, entry, Family::of(row.question.address));
        let group = groups.entry(key).or_default();
        *group.seen.entry(fate(cluster, matrix, row)).or_insert(0) += 1;
        group
            .possible
            .extend(row.foreseen.iter().map(|one| ending(cluster, matrix, &row.question, one)));
    }
    let line = |((_, client, entry, family), group): (_, Group)| {
        let mut fates: Vec<(String, usize)> = group.seen.into_iter().collect();
        fates.sort_by(|(a, one), (b, other)| other.cmp(one).then(a.cmp(b)));
        Line { client, entry, family, fates, possible: group.possible }
    };
    groups.into_iter().map(line).collect()
}

/// Rows of one kind.
#[derive(Default)]
struct Group {
    seen: BTreeMap<String, usize>,
    possible: BTreeSet<String>,
}

/// What became of a row: `preserved`, `rewritten by Calico`, `silent` …
pub fn fate(cluster: &Cluster, matrix: &Matrix, row: &Row) -> String {
    match row.agreed() {
        Some(foreseen) => ending(cluster, matrix, &row.question, foreseen),
        None => row.seen.fate.name().to_owned(),
    }
}

/// The same of what was foreseen.
fn ending(cluster: &Cluster, matrix: &Matrix, question: &Question, foreseen: &Foreseen) -> String {
    let proxied = matches!(question.to, Target::Service { entry: Entry::Proxy, .. });
    let mut owners: Vec<String> = Vec::new();
    for (host, rule) in &foreseen.rewriters {
        let owner = rewriter(cluster, matrix, *host, *rule);
        if owners.last() != Some(&owner) {
            owners.push(owner);
        }
    }
    match (foreseen.result.fate, &owners[..]) {
        (Fate::Rewritten, _) if proxied => "rewritten by the proxy".to_owned(),
        (Fate::Rewritten, [_, ..]) => format!("rewritten by {}", owners.join(", then ")),
        (fate, _) => fate.name().to_owned(),
    }
}

/// Whose rule it is: its owner, or the host that has it.
pub fn rewriter(cluster: &Cluster, matrix: &Matrix, host: usize, rule: RuleId) -> String {
    let plan = &cluster.plan.hosts[host];
    match (&matrix.hosts[host], plan.kind) {
        (Some(state), Kind::Node | Kind::Pod) => match owner(state, rule) {
            Owner::Unclaimed => "a rule of no known program".to_owned(),
            owner => owner.to_string(),
        },
        _ => plan.name.clone(),
    }
}

/// The way of a packet, host by host, with what happens to its source:
/// `laptop -> gateway -> n1 (Calico rewrites the source) -> web-1, which sees 10.0.0.11`.
pub fn way(cluster: &Cluster, matrix: &Matrix, foreseen: &Foreseen) -> String {
    let mut text = String::new();
    for host in &foreseen.way {
        if !text.is_empty() {
            text += " -> ";
        }
        text += &cluster.plan.hosts[*host].name;
        for (at, rule) in foreseen.rewriters.iter().filter(|(at, _)| at == host) {
            let owner = rewriter(cluster, matrix, *at, *rule);
            text += &format!(" ({owner} rewrites the source)");
        }
    }
    match (foreseen.result.source, foreseen.result.fate) {
        (Some(source), _) => text + &format!(", which sees {source}"),
        (None, fate) => text + &format!(": {}", fate.name()),
    }
}

/// The rule's text.
pub fn rule_text(matrix: &Matrix, host: usize, rule: RuleId) -> Option<String> {
    let table = matrix.hosts[host].as_ref()?.ruleset.tables.get(rule.table as usize)?;
    let rule = table.chain(rule.chain).rules.get(rule.rule as usize)?;
    Some(rule.text.to_string())
}

/// The kinds of a question's client and entry; lower ranks come first.
fn kind(cluster: &Cluster, question: &Question) -> (u8, String, String) {
    let hosts = &cluster.plan.hosts;
    let from = &hosts[question.from];
    match &question.to {
        Target::Host(to) if hosts[*to].kind == Kind::Outside => {
            let client = if from.kind == Kind::Pod { "pod" } else { "node" };
            (5, client.to_owned(), format!("{} (egress)", hosts[*to].name))
        }
        Target::Host(to) => {
            let pod = &hosts[*to];
            let client = match from.kind {
                Kind::Pod if question.from == *to => "the pod itself".to_owned(),
                Kind::Pod if from.node == pod.node => "pod on the same node".to_owned(),
                Kind::Pod => "pod on another node".to_owned(),
                Kind::Node if Some(question.from) == pod.node => "its own node".to_owned(),
                Kind::Node => "another node".to_owned(),
                Kind::Outside | Kind::Gateway | Kind::Proxy | Kind::Switch => from.name.clone(),
            };
            (1, client, "pod".to_owned())
        }
        Target::Service { name, entry, via } => {
            let endpoint = serves(cluster, name, &from.name);
            let client = match from.kind {
                Kind::Pod if endpoint => "an endpoint".to_owned(),
                Kind::Pod => "pod".to_owned(),
                Kind::Node => "node".to_owned(),
                Kind::Outside | Kind::Gateway | Kind::Proxy | Kind::Switch => from.name.clone(),
            };
            let rank = if from.kind == Kind::Outside { 0 } else { 2 };
            (rank, client, entry_name(cluster, name, *entry, *via))
        }
    }
}

fn entry_name(cluster: &Cluster, service: &str, entry: Entry, via: Option<usize>) -> String {
    let many = cluster.objects.services.len() > 1;
    let of = if many { format!("{service} ") } else { String::new() };
    let Some(node) = via else { return format!("{of}{}", entry.name()) };
    let with = endpoints(cluster, service).any(|pod| pod.node == cluster.plan.hosts[node].name);
    let which = if with { "with" } else { "without" };
    format!("{of}{} of a node {which} an endpoint", entry.name())
}

fn serves(cluster: &Cluster, service: &str, pod: &str) -> bool {
    endpoints(cluster, service).any(|endpoint| endpoint.name == pod)
}

/// The pods behind a Service.
fn endpoints<'c>(
    cluster: &'c Cluster,
    service: &str,
) -> impl Iterator<Item = &'c crate::scenario::Pod> {
    let found = cluster.service(service).map(|service| cluster.endpoints(service));
    found.unwrap_or_default().into_iter()
}

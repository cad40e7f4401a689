//! An audit: the matrix asked for, its rows judged, and what belongs together put into findings.
//!
//! ```text
//! Cluster ─ Clients ─ Paths ─▶ Matrix ─ judge ─▶ Group (kind, subject, rows) ─ describe ─▶ Finding
//!                                      └ expectations, settings that depend on the source
//! ```
//!
//! What is found without a row (a pool that nobody uses, overlapping networks) comes from
//! [`checks`].

mod checks;
mod describe;

use std::collections::{BTreeMap, BTreeSet};

use unmasq_cluster::Cluster;
use unmasq_cluster::paths::{Caller, Paths};
use unmasq_eval::trace::{Options, RuleId};
use unmasq_model::host::Host;
use unmasq_model::packet::{Family, Protocol};

use crate::judge::{Judgement, Suspect, judge};
use crate::matrix::{self, Clients, Matrix, Row};
use crate::{
    Affected, Audit, Evidence, Finding, FindingId, Owner, RuleText, Severity, Totals, short_text,
};

/// How to audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    /// Take nothing for granted: what would be an assumption becomes unknown.
    pub strict: bool,
}

/// Audits a cluster. `progress` hears how many of how many Services are done, from any thread.
pub fn audit(
    cluster: &Cluster,
    request: Request,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Audit {
    let clients = Clients::of(cluster);
    let paths = Paths::new(cluster, Options { strict: request.strict, ..Options::default() });
    let matrix = matrix::build(&paths, &clients, progress);
    let context = Context { cluster, paths: &paths, matrix: &matrix };
    let mut groups: BTreeMap<(FindingId, String), Group> = BTreeMap::new();
    let mut totals = totals(cluster);
    for (index, row) in matrix.rows.iter().enumerate() {
        let count = row.count;
        match judge(&row.cell) {
            Judgement::Fine => totals.preserved += count,
            Judgement::Expected(_) => totals.rewritten_as_expected += count,
            Judgement::NotAnswered => totals.not_answered += count,
            Judgement::Unknown => totals.unknown += count,
            Judgement::Found(suspect, severity) => {
                totals.rewritten += count;
                let subject = context.subject(row, &suspect);
                let group = groups
                    .entry((suspect.id, subject))
                    .or_insert_with(|| Group::new(suspect.clone(), severity));
                group.add(index, row, severity);
            }
        }
    }
    let found = groups.iter().map(|((_, subject), group)| context.finding(subject, group));
    let mut findings: Vec<Finding> = found.collect();
    checks::add(&context, &mut findings);
    findings.sort_by(|a, b| order(b).cmp(&order(a)).then_with(|| name(a).cmp(&name(b))));
    let mut missing = cluster.missing.clone();
    missing.extend(clients.left_out.iter().cloned());
    let assumptions = assumptions(cluster, &matrix);
    Audit { findings, matrix, totals, assumptions, missing }
}

/// The worst first; then what takes sources from most.
fn order(finding: &Finding) -> (Severity, usize, usize) {
    (finding.severity, finding.affected.services.len(), finding.affected.flows.len())
}

fn name(finding: &Finding) -> (FindingId, &str) {
    (finding.id, &finding.subject)
}

/// What findings are made from.
pub(crate) struct Context<'a, 'c> {
    pub(crate) cluster: &'c Cluster,
    pub(crate) paths: &'a Paths<'c>,
    pub(crate) matrix: &'a Matrix,
}

/// Rows that belong to one finding.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) suspect: Suspect,
    pub(crate) severity: Severity,
    pub(crate) rows: Vec<usize>,
    pub(crate) families: BTreeSet<Family>,
    pub(crate) breaks: Vec<String>,
}

impl Group {
    fn new(suspect: Suspect, severity: Severity) -> Group {
        let (rows, families, breaks) = (Vec::new(), BTreeSet::new(), Vec::new());
        Group { suspect, severity, rows, families, breaks }
    }

    fn add(&mut self, index: usize, row: &Row, severity: Severity) {
        self.severity = self.severity.max(severity);
        self.rows.push(index);
        self.families.insert(row.cell.family);
    }
}

impl<'c> Context<'_, 'c> {
    /// Which one of its kind a suspect is.
    fn subject(&self, row: &Row, suspect: &Suspect) -> String {
        match suspect.id {
            FindingId::CalicoUnusedPool | FindingId::CalicoPoolMasquerade => {
                let pools = &self.cluster.objects.ip_pools;
                let caller = self.caller(row);
                let of = caller
                    .and_then(|caller| pools.iter().find(|pool| pool.spec.cidr.contains(&caller)));
                of.map_or_else(String::new, |pool| pool.metadata.name.clone())
            }
            FindingId::KubeRouterPodEgress => row.cell.family.to_string(),
            FindingId::StrayMasquerade => suspect.cause.rule.clone(),
            _ => String::new(),
        }
    }

    /// The caller's address of a row's witness.
    pub(crate) fn caller(&self, row: &Row) -> Option<std::net::IpAddr> {
        match &row.witness.call.from {
            Caller::Pod { address, .. } | Caller::Outside { address, .. } => Some(*address),
            Caller::Node(node) => self.paths.node_address(*node, row.witness.call.to).ok(),
        }
    }

    fn finding(&self, subject: &str, group: &Group) -> Finding {
        let described = describe::describe(self, subject, group);
        Finding {
            id: group.suspect.id,
            subject: subject.to_owned(),
            severity: group.severity,
            confidence: described.confidence,
            title: described.title,
            owner: group.suspect.cause.owner,
            families: group.families.iter().copied().collect(),
            affected: self.affected(group),
            breaks: group.breaks.clone(),
            evidence: self.evidence(group),
            cause: described.cause,
            remedies: described.remedies,
        }
    }

    fn affected(&self, group: &Group) -> Affected {
        let rows = || group.rows.iter().filter_map(|index| self.matrix.rows.get(*index));
        let mut flows: Vec<String> = Vec::new();
        for row in rows() {
            let flow = describe::flow(&row.cell);
            if !flows.contains(&flow) {
                flows.push(flow);
            }
        }
        let services: BTreeSet<u32> = rows().flat_map(|row| &row.services).copied().collect();
        let services = services.into_iter().filter_map(|index| {
            Some(self.cluster.objects.services.get(index as usize)?.full_name())
        });
        let nodes = rows().filter_map(|row| {
            let (host, _) = row.witness.rewriters.first()?;
            Some(self.cluster.nodes.get(self.paths.node_of(*host)?)?.name.clone())
        });
        let nodes: BTreeSet<String> = nodes.collect();
        Affected {
            flows,
            services: services.collect(),
            nodes: nodes.into_iter().collect(),
            rows: group.rows.clone(),
        }
    }

    /// The witnesses of the worst rows, no more than a few.
    fn evidence(&self, group: &Group) -> Vec<Evidence> {
        const FEW: usize = 3;
        let mut rows: Vec<&Row> =
            group.rows.iter().filter_map(|index| self.matrix.rows.get(*index)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(found_severity(row)));
        rows.into_iter().take(FEW).map(|row| self.witness(row)).collect()
    }

    /// What a row's witness shows.
    pub(crate) fn witness(&self, row: &Row) -> Evidence {
        let call = &row.witness.call;
        let from = self.caller(row).map_or_else(|| "?".to_owned(), |one| one.to_string());
        let port = call.port.map_or_else(String::new, |port| format!(" port {port}"));
        let outcome = match (row.witness.seen, row.witness.reached) {
            (Some(seen), Some(reached)) => format!("{reached} sees {seen}"),
            (Some(seen), None) => format!("the receiver sees {seen}"),
            (None, _) => "it is not answered".to_owned(),
        };
        let protocol = call.protocol;
        let who = describe::client(&row.cell.client);
        Evidence {
            text: format!("{who} {from} calls {protocol} {}{port}: {outcome}", call.to),
            trace: self.trace(row),
            rule: row.witness.rewriters.first().and_then(|(host, rule)| self.rule(*host, *rule)),
        }
    }

    /// The command that asks a witness again.
    fn trace(&self, row: &Row) -> Option<String> {
        let call = &row.witness.call;
        let node = &self.cluster.nodes.get(call.from.node())?.name;
        let from = match &call.from {
            Caller::Node(_) => format!("node/{node}"),
            Caller::Pod { address, .. } | Caller::Outside { address, .. } => {
                endpoint(*address, call.source_port)
            }
        };
        let to = endpoint(call.to, call.port);
        let protocol = match call.protocol {
            Protocol::TCP => String::new(),
            other => format!(" --proto {other}"),
        };
        let via = match &call.from {
            Caller::Outside { .. } => format!(" --via {node}"),
            Caller::Pod { .. } | Caller::Node(_) => String::new(),
        };
        Some(format!("--from {from} --to {to}{protocol}{via}"))
    }

    /// A rule with where it stands.
    pub(crate) fn rule(&self, host: usize, rule: RuleId) -> Option<RuleText> {
        let state: &'c Host = self.paths.host(host)?;
        let (_, _, found) = crate::owner::find(state, rule)?;
        let node = &self.cluster.nodes.get(self.paths.node_of(host)?)?.name;
        let name = match self.paths.walked(host)? {
            unmasq_cluster::paths::Walked::Node(_) => node.clone(),
            unmasq_cluster::paths::Walked::Pod { node: at, pod } => {
                let pod = self.cluster.nodes.get(at)?.pods.get(pod)?;
                format!("{}/{} on {node}", pod.namespace, pod.name)
            }
        };
        Some(RuleText {
            host: name,
            place: format!("{}:{}", state.file(found.origin.file), found.origin.line),
            text: short_text(found),
        })
    }
}

fn found_severity(row: &Row) -> Option<Severity> {
    match judge(&row.cell) {
        Judgement::Found(_, severity) => Some(severity),
        Judgement::Fine | Judgement::Expected(_) | Judgement::NotAnswered | Judgement::Unknown => {
            None
        }
    }
}

fn endpoint(address: std::net::IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

fn totals(cluster: &Cluster) -> Totals {
    let captured = cluster.nodes.iter().filter_map(|node| node.host.as_ref());
    let rules = |host: &Host| -> usize {
        let chains = host.ruleset.tables.iter().flat_map(|table| &table.chains);
        chains.map(|chain| chain.rules.len()).sum()
    };
    let nodes = captured.clone().count();
    Totals {
        nodes,
        nodes_not_captured: cluster.nodes.len() - nodes,
        pods: cluster.objects.pods.len(),
        services: cluster.objects.services.len(),
        rules: captured.map(rules).sum(),
        ..Totals::default()
    }
}

/// What the cluster's model and the walks took for granted; what differs in the host alone is one
/// sentence.
fn assumptions(cluster: &Cluster, matrix: &Matrix) -> Vec<String> {
    let mut all: Vec<String> = cluster.assumptions.iter().map(|one| one.text.clone()).collect();
    let mut alike: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for sentence in matrix.assumptions.keys() {
        let mut host = String::new();
        let words = sentence.split(' ').map(|word| {
            let bare = word.trim_start_matches('(');
            let Some(path) = bare.strip_prefix("nodes/") else { return word };
            let Some((folder, file)) = path.rsplit_once('/') else { return word };
            host = folder.to_owned();
            file
        });
        let without = words.collect::<Vec<_>>().join(" ");
        alike.entry(without).or_default().insert(host);
    }
    for (sentence, hosts) in alike {
        let hosts: Vec<&str> =
            hosts.iter().filter(|host| !host.is_empty()).map(String::as_str).collect();
        all.push(match hosts[..] {
            [] => sentence,
            [one] => format!("{one}: {sentence}"),
            [one, ..] => format!("{one} and {} more: {sentence}", hosts.len() - 1),
        });
    }
    let bare = cluster.pod_addresses().count();
    let captured: usize = cluster.nodes.iter().map(|node| node.pods.len()).sum();
    if bare > 0 && captured == 0 {
        all.push("pods have no rules of their own (their namespaces were not captured)".to_owned());
    }
    all
}

/// Whose rule a group is about, for people.
pub(crate) fn owner_name(owner: Owner) -> &'static str {
    match owner {
        Owner::Unclaimed => "a rule that no known program claims",
        known => known.name(),
    }
}

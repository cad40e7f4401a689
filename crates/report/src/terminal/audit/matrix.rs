//! The source matrix as a table: one line for equal answers, whatever their family and protocol, with the cause and the Services below.
//!
//! ```text
//! Services, called by a node's port (externalTrafficPolicy: Cluster)
//! ! REWRITTEN  somebody outside     to another node   ipv4+6 tcp    1204 calls
//!              by KUBE-POSTROUTING (kube-proxy), because externalTrafficPolicy is Cluster
//!              default/api, default/web, shop/cart and 409 more
//!   PRESERVED  a pod                to the same node  ipv4 tcp        37 calls
//! ```

use std::collections::BTreeSet;

use unmasq_audit::matrix::{
    Cause, Cell, Client, Entry, Fate, Outside, Placement, Policy, Refusal, Row, Why,
};
use unmasq_audit::{Audit, Finding, Owner, Severity};
use unmasq_model::packet::{Family, Protocol};

use super::super::paint::{Colour, Paint, clean};
use super::super::plural;
use super::{finding, heading, shortened};
use crate::audit::Subject;
use crate::evidence;

/// Names of Services below a line.
const FEW_NAMES: usize = 3;
/// Where text below a line begins: behind the sign and the longest fate.
const INDENT: &str = "             ";

/// The matrix, grouped by what is called and the policy that governs it.
pub(super) fn write(text: &mut String, audit: &Audit, subject: &Subject<'_>, paint: &Paint) {
    let rows = &audit.matrix.rows;
    if rows.is_empty() {
        return;
    }
    heading(text, "Who calls whom, and what becomes of the caller's address", paint);
    let mut group = None;
    for line in lines(rows) {
        let of = (line.row.cell.entry, line.row.cell.policy);
        if group != Some(of) {
            heading(text, &title(of.0, of.1), paint);
            group = Some(of);
        }
        write_line(text, &line, audit, subject, paint);
    }
}

/// Rows that differ only in family and protocol, for all of these families and protocols.
struct Line<'a> {
    /// The first of them.
    row: &'a Row,
    /// All of them, by index.
    rows: Vec<usize>,
    families: Vec<Family>,
    protocols: Vec<Protocol>,
}

fn lines(rows: &[Row]) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        match lines.iter_mut().find(|line| alike(line.row, row)) {
            Some(line) => line.rows.push(index),
            None => {
                lines.push(Line { row, rows: vec![index], families: vec![], protocols: vec![] })
            }
        }
    }
    let split = lines.into_iter().flat_map(|line| {
        let family = |index: &usize| rows[*index].cell.family;
        let protocol = |index: &usize| rows[*index].cell.protocol;
        let families: BTreeSet<Family> = line.rows.iter().map(family).collect();
        let protocols: BTreeSet<Protocol> = line.rows.iter().map(protocol).collect();
        if families.len() * protocols.len() == line.rows.len() {
            let (families, protocols) = (Vec::from_iter(families), Vec::from_iter(protocols));
            return vec![Line { families, protocols, ..line }];
        }
        let alone = |index: &usize| Line {
            row: &rows[*index],
            rows: vec![*index],
            families: vec![family(index)],
            protocols: vec![protocol(index)],
        };
        line.rows.iter().map(alone).collect()
    });
    split.collect()
}

fn alike(one: &Row, other: &Row) -> bool {
    let Cell { family, protocol, destination, .. } = one.cell;
    let other_cell = Cell { family, protocol, destination, ..other.cell.clone() };
    one.services == other.services && one.cell == other_cell
}

/// `ipv4 tcp`, `ipv4+6 tcp+udp`.
fn packets(line: &Line<'_>) -> String {
    let families = match line.families[..] {
        [family] => family.to_string(),
        [..] => "ipv4+6".to_owned(),
    };
    let protocols: Vec<String> = line.protocols.iter().map(ToString::to_string).collect();
    format!("{families} {}", protocols.join("+"))
}

/// What is called, and the policy that governs it.
pub(in crate::terminal) fn title(entry: Entry, policy: Option<Policy>) -> String {
    let what = match entry {
        Entry::Pod => "Pods, called by their own addresses",
        Entry::Node => "Nodes, called by their own addresses",
        Entry::Outside => "Somebody outside of the cluster is called",
        Entry::ClusterIp => "Services, called by their cluster IPs",
        Entry::NodePort => "Services, called by a node's port",
        Entry::LoadBalancer => "Services, called by a load balancer's address",
        Entry::ExternalIp => "Services, called by an external IP",
    };
    let field = match entry {
        Entry::ClusterIp => "internalTrafficPolicy",
        Entry::Pod
        | Entry::Node
        | Entry::Outside
        | Entry::NodePort
        | Entry::LoadBalancer
        | Entry::ExternalIp => "externalTrafficPolicy",
    };
    match policy {
        None => what.to_owned(),
        Some(Policy::Cluster) => format!("{what} ({field}: Cluster)"),
        Some(Policy::Local) => format!("{what} ({field}: Local)"),
    }
}

fn write_line(
    text: &mut String,
    line: &Line<'_>,
    audit: &Audit,
    subject: &Subject<'_>,
    paint: &Paint,
) {
    let Line { row, rows, .. } = line;
    let cell = &row.cell;
    let is_about = |finding: &&Finding| rows.iter().any(|row| finding.affected.rows.contains(row));
    let findings: Vec<&Finding> = audit.findings.iter().filter(is_about).collect();
    let hurts = findings.iter().any(|finding| finding.severity >= Severity::Warning);
    let word = word(&cell.fate);
    let sign = if hurts { '!' } else { ' ' };
    let count: usize = rows.iter().map(|index| audit.matrix.rows[*index].count).sum();
    let calls = format!("{count} {}", plural(count, "call", "calls"));
    let packets = packets(line);
    let (client, network) = client(&cell.client);
    // The calls end in the same column.
    let room = 27_usize.saturating_sub(packets.len());
    let line = format!(
        "{sign} {word:<9}  {client:<20} {:<16}  {packets}{calls:>room$}\n",
        placement(cell.placement, &cell.client),
    );
    text.push_str(&match colour(&cell.fate, hurts) {
        Some(colour) => line.replacen(word, &paint.colour(colour, word), 1),
        None => line,
    });
    for reason in network.into_iter().chain(reasons(&cell.fate, cell.policy)) {
        below(text, &reason, paint);
    }
    let called = rows.iter().filter_map(|index| audit.matrix.rows[*index].cell.destination);
    let called: BTreeSet<std::net::IpAddr> = called.collect();
    if !called.is_empty() {
        let called: Vec<String> = called.iter().map(ToString::to_string).collect();
        below(text, &format!("calls {}", called.join(" and ")), paint);
    }
    let direct = match cell.placement {
        Placement::Here | Placement::None => 0,
        Placement::Elsewhere => 1,
    };
    if cell.hops > direct {
        let times = plural(cell.hops, "once", "times");
        let often =
            if cell.hops == 1 { times.to_owned() } else { format!("{} {times}", cell.hops) };
        below(text, &format!("goes from one node to another {often}"), paint);
    }
    if !findings.is_empty() {
        let mut named = BTreeSet::new();
        let ids = findings.iter().map(|finding| finding.id.id());
        let ids: Vec<&str> = ids.filter(|id| named.insert(*id)).collect();
        below(text, &format!("finding: {}", ids.join(", ")), paint);
    }
    let names = subject.services(row);
    if !names.is_empty() {
        let names = paint.wrapped_from(INDENT, 0, &shortened(&names, FEW_NAMES, paint));
        text.push_str(&paint.dim_lines(&names));
    }
    for index in rows.iter().filter(|_| paint.verbose) {
        let witness = &audit.matrix.rows[*index].witness;
        finding::command(text, INDENT, &subject.witness(witness), paint);
    }
}

fn below(text: &mut String, sentence: &str, paint: &Paint) {
    text.push_str(&paint.wrapped(INDENT, &clean(sentence)));
}

pub(in crate::terminal) fn word(fate: &Fate) -> &'static str {
    match fate {
        Fate::Preserved => "PRESERVED",
        Fate::Rewritten(_) => "REWRITTEN",
        Fate::NoAnswer(_) => "NO ANSWER",
        Fate::Dropped(_) => "DROPPED",
        Fate::Rejected(_) => "REJECTED",
        Fate::Lost => "UNREACHED",
        Fate::Unknown(_) => "UNKNOWN",
    }
}

/// What is as it should be has no alarming colour.
fn colour(fate: &Fate, hurts: bool) -> Option<Colour> {
    match fate {
        Fate::Preserved => Some(Colour::Green),
        Fate::Unknown(_) => Some(Colour::Yellow),
        Fate::Rewritten(_)
        | Fate::NoAnswer(_)
        | Fate::Dropped(_)
        | Fate::Rejected(_)
        | Fate::Lost => hurts.then_some(Colour::Red),
    }
}

/// Who calls, and which network that stands for.
pub(in crate::terminal) fn client(client: &Client) -> (&'static str, Option<String>) {
    match client {
        Client::Pod => ("a pod", None),
        Client::PodElsewhere => ("a pod elsewhere", None),
        Client::Endpoint => ("the endpoint itself", None),
        Client::Node => ("the node itself", None),
        Client::NodeElsewhere => ("another node", None),
        Client::Outside(Outside::Anybody) => (OUTSIDE, None),
        Client::Outside(Outside::NamedByRule(network)) => {
            (OUTSIDE, Some(format!("from {network}, which a rule names")))
        }
        Client::Outside(Outside::NamedBySetting(network)) => {
            (OUTSIDE, Some(format!("from {network}, which a setting names")))
        }
    }
}

const OUTSIDE: &str = "somebody outside";

/// Where the endpoint is, from the node that is called. An endpoint that reaches itself by another
/// node is on its own.
pub(in crate::terminal) fn placement(placement: Placement, client: &Client) -> &'static str {
    match (placement, client) {
        (Placement::Here, _) => "to the same node",
        (Placement::Elsewhere, Client::Endpoint) => "by another node",
        (
            Placement::Elsewhere,
            Client::Pod
            | Client::PodElsewhere
            | Client::Node
            | Client::NodeElsewhere
            | Client::Outside(_),
        ) => "to another node",
        (Placement::None, _) => "",
    }
}

/// Why, a line each.
pub(in crate::terminal) fn reasons(fate: &Fate, policy: Option<Policy>) -> Vec<String> {
    match fate {
        Fate::Preserved => Vec::new(),
        Fate::Rewritten(causes) => causes.iter().map(|cause| by(cause, policy)).collect(),
        Fate::NoAnswer(why) | Fate::Unknown(why) => vec![why.clone()],
        Fate::Dropped(refusal) | Fate::Rejected(refusal) => vec![refused(refusal)],
        Fate::Lost => vec!["nobody has the address that it is sent to".to_owned()],
    }
}

/// `by KUBE-POSTROUTING (kube-proxy), because …`.
fn by(cause: &Cause, policy: Option<Policy>) -> String {
    let why = match (cause.why, policy) {
        (Why::ItsTests, _) => "",
        (Why::ExternalPolicy, Some(Policy::Local)) => {
            ", because a call to a Local Service from inside is masqueraded"
        }
        (Why::ExternalPolicy, Some(Policy::Cluster) | None) => {
            ", because externalTrafficPolicy is Cluster"
        }
        (Why::NotAPod, _) => ", because kube-proxy does not take the source for a pod's",
        (Why::MasqueradeAll, _) => ", because kube-proxy masquerades every call (masqueradeAll)",
        (Why::Hairpin, _) => ", because the endpoint calls itself",
        (Why::Marked, _) => ", because of a mark that an earlier rule set",
    };
    format!("by {} ({}){why}", cause.rule, cause.owner)
}

fn refused(refusal: &Refusal) -> String {
    let reason = refusal.reason.map(evidence::reason_name);
    match (refusal.owner, reason) {
        (Some(Owner::Unclaimed), _) => "by a rule that no known program claims".to_owned(),
        (Some(owner), _) => format!("by a rule of {owner}"),
        (None, Some(reason)) => format!("by the kernel ({reason})"),
        (None, None) => "the reason is not known".to_owned(),
    }
}

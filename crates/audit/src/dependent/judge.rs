//! Which settings can't work, by what becomes of sources.
//!
//! Where a setting judges decides what it sees. A NetworkPolicy's rules stand in the forward hook
//! of the endpoint's node, before that node's own masquerade in postrouting; kube-proxy judges
//! source ranges where the packet comes in; a controller sees what arrives.

use std::collections::BTreeMap;
use std::net::IpAddr;

use unmasq_cluster::Cluster;
use unmasq_cluster::paths::Caller;

use super::policy::{Admission, Doors};
use super::{Broken, Dependence, Kind};
use crate::expect::ToldBy;
use crate::matrix::{Client, Entry, Fate, Matrix, Row};
use crate::{FindingId, Owner};

/// The settings that can't work, in their order.
pub fn broken(cluster: &Cluster, matrix: &Matrix, dependences: &[Dependence]) -> Vec<Broken> {
    let mut all = Vec::new();
    let nodes: Vec<IpAddr> = node_addresses(cluster).collect();
    let rows = Rows::of(matrix);
    let doors = Doors::new(cluster);
    for (index, dependence) in dependences.iter().enumerate() {
        let mut found: BTreeMap<(FindingId, bool), Broken> = BTreeMap::new();
        for (number, about) in rows.about(&dependence.services) {
            let row = &matrix.rows[number];
            let Some(caller) = outside(row) else { continue };
            if !dependence.families.contains(&row.cell.family) {
                continue;
            }
            let Some(judged) = judge(&nodes, dependence, row, caller) else { continue };
            let services = services(&doors, dependence, row, &judged, about);
            if services.is_empty() {
                continue;
            }
            let Judged { finding, by_rewriting, why, unless_let_in: _ } = judged;
            let broken = found.entry((finding, by_rewriting)).or_insert_with(|| Broken {
                dependence: index,
                rows: Vec::new(),
                services: Vec::new(),
                sentence: format!("{}: {}, {why}", dependence.place(), dependence.what),
                finding,
                by_rewriting,
            });
            broken.rows.push(number);
            broken.services.extend(services);
        }
        all.extend(found.into_values().map(|mut broken| {
            broken.services.sort_unstable();
            broken.services.dedup();
            broken
        }));
    }
    all
}

/// Rows of callers outside by the Services that they are about.
struct Rows(BTreeMap<u32, Vec<usize>>);

impl Rows {
    fn of(matrix: &Matrix) -> Rows {
        let mut all: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let rows = matrix.rows.iter().enumerate().filter(|(_, row)| outside(row).is_some());
        for (number, row) in rows {
            row.services.iter().for_each(|one| all.entry(*one).or_default().push(number));
        }
        Rows(all)
    }

    /// Those that are about some of these Services, in order, each with these.
    fn about(&self, services: &[u32]) -> BTreeMap<usize, Vec<u32>> {
        let mut all: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for service in services {
            for number in self.0.get(service).into_iter().flatten() {
                all.entry(*number).or_default().push(*service);
            }
        }
        all
    }
}

/// The Services of a row for which a setting is wrong.
fn services<'a>(
    doors: &Doors<'a>,
    dependence: &'a Dependence,
    row: &Row,
    judged: &Judged,
    about: Vec<u32>,
) -> Vec<u32> {
    match dependence.kind {
        Kind::NetworkPolicy => {
            let is_out = |at: &&Admission| {
                row.ports.binary_search(&at.port).is_ok()
                    && !judged.unless_let_in.is_some_and(|address| doors.may_enter(address, at))
            };
            let mut found: Vec<u32> =
                dependence.admissions.iter().filter(is_out).map(|at| at.port.0).collect();
            found.dedup();
            found
        }
        Kind::SourceRanges
        | Kind::IngressAllowList
        | Kind::IngressDenyList
        | Kind::IngressRateLimit
        | Kind::TrustedProxies => about,
    }
}

/// What is wrong with a setting, by one row.
struct Judged {
    finding: FindingId,
    by_rewriting: bool,
    /// Nothing is wrong for a NetworkPolicy where another of its rules, or another policy's, lets
    /// this address in.
    unless_let_in: Option<IpAddr>,
    /// The rest of the sentence.
    why: String,
}

impl Judged {
    fn rewritten(finding: FindingId, why: String) -> Judged {
        Judged { finding, by_rewriting: true, unless_let_in: None, why }
    }

    fn unless(self, let_in: IpAddr) -> Judged {
        Judged { unless_let_in: Some(let_in), ..self }
    }
}

/// The address of a caller outside, of a row that is about a Service's outer entries.
fn outside(row: &Row) -> Option<IpAddr> {
    let external = match row.cell.entry {
        Entry::NodePort | Entry::LoadBalancer | Entry::ExternalIp => true,
        Entry::Pod | Entry::Node | Entry::Outside | Entry::ClusterIp => false,
    };
    match (&row.cell.client, &row.witness.call.from) {
        (Client::Outside(_), Caller::Outside { address, .. }) if external => Some(*address),
        _ => None,
    }
}

fn judge(nodes: &[IpAddr], dependence: &Dependence, row: &Row, caller: IpAddr) -> Option<Judged> {
    match dependence.kind {
        Kind::NetworkPolicy => policy(nodes, dependence, row, caller),
        Kind::SourceRanges => ranges(dependence, row, caller),
        Kind::IngressAllowList | Kind::IngressDenyList => listed(dependence, row, caller),
        Kind::IngressRateLimit => {
            let seen = seen_by_controller(dependence, row)?;
            let why = format!("and its controller sees {seen} in place of {caller}");
            Some(Judged::rewritten(FindingId::SourceRangesSeeNode, why))
        }
        Kind::TrustedProxies => trusted(dependence, row, caller),
    }
}

/// kube-proxy judges at addresses that it serves itself. Where a load balancer's own pod takes the
/// call, what becomes of the packet says whether anybody judged, and whom.
fn ranges(dependence: &Dependence, row: &Row, caller: IpAddr) -> Option<Judged> {
    if row.cell.entry != Entry::LoadBalancer {
        return None;
    }
    let why = match dependence.names(caller) {
        true if is_dropped_by_kube_proxy_after_rewriting(row) => {
            format!("and {caller} is rewritten on the way there, and dropped")
        }
        false if is_rewritten_in_a_pod(row) => format!(
            "and {caller}, whom it doesn't name, gets in: a pod of the load balancer takes the call, \
             and nobody judges it"
        ),
        true | false => return None,
    };
    Some(Judged::rewritten(FindingId::SourceRangesSeeNode, why))
}

/// A list is right where it says the same of the caller and of the address in its place.
fn listed(dependence: &Dependence, row: &Row, caller: IpAddr) -> Option<Judged> {
    let seen = seen_by_controller(dependence, row)?;
    let names = dependence.names(seen);
    (names != dependence.names(caller)).then(|| {
        let so = if names { "which it names" } else { "which it doesn't name" };
        let why = format!("and its controller sees {seen}, {so}, in place of {caller}");
        Judged::rewritten(FindingId::SourceRangesSeeNode, why)
    })
}

fn seen_by_controller(dependence: &Dependence, row: &Row) -> Option<IpAddr> {
    rewritten_to(row).filter(|_| dependence.told_by.is_none())
}

fn policy(nodes: &[IpAddr], dependence: &Dependence, row: &Row, caller: IpAddr) -> Option<Judged> {
    if !is_rewritten_before_its_node(row) {
        return None;
    }
    let seen = row.witness.seen;
    if dependence.names(caller) {
        return match seen {
            Some(seen) if dependence.names(seen) => None,
            Some(seen) => {
                let why = format!("and {caller} reaches them as {seen}, which it doesn't name");
                let judged = Judged::rewritten(FindingId::PolicyCannotMatchClient, why);
                Some(judged.unless(seen))
            }
            None => {
                let why = format!("and {caller} is rewritten on the way, and dropped");
                Some(Judged::rewritten(FindingId::PolicyCannotMatchClient, why))
            }
        };
    }
    // Somebody whom it doesn't name gets in by the address of a node.
    let seen = seen?;
    let allowed = match dependence.names(seen) {
        true => Some(seen),
        false => {
            let named = || nodes.iter().find(|address| dependence.names(**address)).copied();
            nodes.contains(&seen).then(named).flatten()
        }
    }?;
    let why = format!(
        "with {allowed}, which others' addresses are rewritten to: {caller} gets in as {seen}"
    );
    Some(Judged::rewritten(FindingId::PolicyAllowsNode, why).unless(caller))
}

fn trusted(dependence: &Dependence, row: &Row, caller: IpAddr) -> Option<Judged> {
    if !dependence.unread.is_empty() {
        return None;
    }
    let finding = FindingId::ForwardedForUntrusted;
    let by_header = match dependence.told_by? {
        ToldBy::ForwardedFor => true,
        ToldBy::ProxyProtocol => false,
    };
    if let Some(seen) = rewritten_to(row).filter(|seen| !dependence.names(*seen)) {
        let why = format!("and sees {seen} in place of {caller}, which isn't among them");
        return Some(Judged::rewritten(finding, why));
    }
    let everybody =
        dependence.networks.iter().any(|net| net.prefix_len() == 0 && net.contains(&caller));
    let arrives = row.witness.seen.is_some();
    (by_header && everybody && arrives).then(|| {
        let why = format!("so {caller}, who reaches it directly, can claim any address");
        Judged { finding, by_rewriting: false, unless_let_in: None, why }
    })
}

/// The address that arrives in place of the caller's.
fn rewritten_to(row: &Row) -> Option<IpAddr> {
    match &row.cell.fate {
        Fate::Rewritten(_) => row.witness.seen,
        Fate::Preserved
        | Fate::NoAnswer(_)
        | Fate::Dropped(_)
        | Fate::Rejected(_)
        | Fate::Lost
        | Fate::Unknown(_) => None,
    }
}

/// Whether the source is another before the endpoint's node gets the packet.
fn is_rewritten_before_its_node(row: &Row) -> bool {
    match &row.cell.fate {
        Fate::Rewritten(_) => row.cell.hops > 0 || is_rewritten_in_a_pod(row),
        // It was rewritten, so it got past the node that rewrote it, and was thrown away later.
        Fate::Dropped(_) | Fate::Rejected(_) => !row.witness.rewriters.is_empty(),
        Fate::Preserved | Fate::NoAnswer(_) | Fate::Lost | Fate::Unknown(_) => false,
    }
}

/// Its rules stand before its own masquerade, so whoever rewrote came before them.
fn is_dropped_by_kube_proxy_after_rewriting(row: &Row) -> bool {
    match &row.cell.fate {
        Fate::Dropped(refusal) | Fate::Rejected(refusal) => {
            refusal.owner == Some(Owner::KubeProxy) && !row.witness.rewriters.is_empty()
        }
        Fate::Preserved
        | Fate::Rewritten(_)
        | Fate::NoAnswer(_)
        | Fate::Lost
        | Fate::Unknown(_) => false,
    }
}

/// Whether a pod of a load balancer rewrites it, before the rules of the Service see it.
fn is_rewritten_in_a_pod(row: &Row) -> bool {
    match &row.cell.fate {
        Fate::Rewritten(causes) => causes
            .iter()
            .any(|cause| cause.owner == Owner::KlipperLb || cause.rule.ends_with("(in a pod)")),
        Fate::Preserved
        | Fate::NoAnswer(_)
        | Fate::Dropped(_)
        | Fate::Rejected(_)
        | Fate::Lost
        | Fate::Unknown(_) => false,
    }
}

fn node_addresses(cluster: &Cluster) -> impl Iterator<Item = IpAddr> {
    let all = cluster.objects.nodes.iter().flat_map(|node| &node.status.addresses);
    all.filter_map(|one| one.address.parse().ok())
}

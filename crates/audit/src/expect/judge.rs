//! Rows of the matrix under expectations.
//!
//! A row is many equal answers, about many Services. All that a line says but the Service is the
//! same for the whole row, so a row is judged once for each line and Service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::Service;
use unmasq_cluster::paths::Caller;

use super::{Destination, Expectations, Flow, Source, ToldBy, is_external, is_named};
use crate::matrix::{Client, Entry, Fate, Matrix, Row};

/// What expectations say of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Unspecified,
    /// It is as expected.
    Kept,
    /// It isn't: sentences, one for each line that is broken.
    Broken(Vec<String>),
    /// It doesn't arrive or has no answer, or what becomes of the source is unknown: nothing can
    /// be said.
    Open,
}

/// A line that a row breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// A sentence that names the line.
    pub sentence: String,
    /// The line in the file.
    pub line: u64,
    /// For which of the row's Services: indices in `objects.services`, in order. Empty: the row is
    /// about none.
    pub services: Vec<u32>,
}

/// What a line wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Preserved,
    Translated,
}

/// How a line stands to an answer that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Kept,
    Broken,
    Open,
}

/// Expectations of a cluster, with their lines by the Services that they name: a file may have a line
/// for each of thousands.
#[derive(Debug, Clone)]
pub struct Judge<'a> {
    expectations: &'a Expectations,
    cluster: &'a Cluster,
    /// Those of `preserved` first.
    lines: Vec<(Wanted, &'a Flow)>,
    /// Lines by namespace and Service; `None`: all Services of the namespace.
    named: BTreeMap<(&'a str, Option<&'a str>), Vec<usize>>,
    /// Lines that (also) name others than single Services.
    others: Vec<usize>,
    /// Networks outside that lines name.
    destinations: Vec<IpNet>,
}

impl<'a> Judge<'a> {
    /// Looks at each line once.
    pub fn new(expectations: &'a Expectations, cluster: &'a Cluster) -> Judge<'a> {
        let preserved = expectations.preserved.iter().map(|flow| (Wanted::Preserved, flow));
        let translated = expectations.translated.iter().map(|flow| (Wanted::Translated, flow));
        let lines: Vec<(Wanted, &Flow)> = preserved.chain(translated).collect();
        let mut named: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        let mut others = Vec::new();
        for (index, (_, flow)) in lines.iter().enumerate() {
            for to in &flow.to {
                match to {
                    Destination::Service { namespace, name } => {
                        let of = (namespace.as_str(), name.as_deref());
                        named.entry(of).or_default().push(index);
                    }
                    Destination::Services
                    | Destination::Pods
                    | Destination::Nodes
                    | Destination::Internet
                    | Destination::Network(_) => others.push(index),
                }
            }
        }
        let destinations = expectations.destinations();
        Judge { expectations, cluster, lines, named, others, destinations }
    }

    /// What is expected of a row, for one of its Services if it has some.
    pub fn judge(&self, row: &Row, service: Option<u32>) -> Verdict {
        let mut verdict = Verdict::Unspecified;
        for (wanted, flow) in self.about(row, service).map(|index| self.lines[index]) {
            verdict = match (standing(wanted, flow, row), verdict) {
                (Standing::Broken, before) => {
                    let mut sentences = match before {
                        Verdict::Broken(sentences) => sentences,
                        Verdict::Unspecified | Verdict::Kept | Verdict::Open => Vec::new(),
                    };
                    let services: Vec<u32> = service.into_iter().collect();
                    sentences.push(self.sentence(wanted, flow, row, &services));
                    Verdict::Broken(sentences)
                }
                (_, before @ Verdict::Broken(_)) => before,
                (Standing::Open, _) | (_, Verdict::Open) => Verdict::Open,
                (Standing::Kept, Verdict::Unspecified | Verdict::Kept) => Verdict::Kept,
            };
        }
        verdict
    }

    /// The line that wants a source preserved of an answer that never came, as a sentence.
    pub fn unanswered(&self, row: &Row, service: Option<u32>) -> Option<String> {
        match &row.cell.fate {
            Fate::NoAnswer(_) | Fate::Dropped(_) | Fate::Rejected(_) | Fate::Lost => {}
            Fate::Preserved | Fate::Rewritten(_) | Fate::Unknown(_) => return None,
        }
        let mut about = self.about(row, service).map(|index| self.lines[index]);
        let (_, flow) = about.find(|(wanted, _)| *wanted == Wanted::Preserved)?;
        let services: Vec<u32> = service.into_iter().collect();
        let (place, who) = (self.expectations.place(flow), caller(row));
        let what = called(self.cluster, row, &services);
        Some(format!("{place}: {who} must reach {what} with their own address, and get no answer"))
    }

    /// The lines that a row breaks, each with the Services for which it does.
    pub fn broken(&self, row: &Row) -> Vec<Breach> {
        let mut found: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for service in services(row) {
            for index in self.about(row, service) {
                let (wanted, flow) = self.lines[index];
                if standing(wanted, flow, row) == Standing::Broken {
                    found.entry(index).or_default().extend(service);
                }
            }
        }
        let breach = |(index, services): (usize, Vec<u32>)| {
            let (wanted, flow) = self.lines[index];
            let sentence = self.sentence(wanted, flow, row, &services);
            Breach { sentence, line: flow.line, services }
        };
        found.into_iter().map(breach).collect()
    }

    /// The lines that no answer of the matrix was about, a sentence each: they weren't judged.
    pub fn unjudged(&self, matrix: &Matrix) -> Vec<String> {
        let mut judged = vec![false; self.lines.len()];
        for row in &matrix.rows {
            for service in services(row) {
                self.about(row, service).for_each(|index| judged[index] = true);
            }
        }
        let left = self.lines.iter().zip(judged).filter(|(_, judged)| !judged);
        left.map(|((_, flow), _)| {
            format!(
                "{}: nothing that was asked is such a call, so it was not judged",
                self.expectations.place(flow)
            )
        })
        .collect()
    }

    /// The lines that are about a row, for one of its Services if it has some: indices, in order.
    fn about<'r>(&'r self, row: &'r Row, service: Option<u32>) -> impl Iterator<Item = usize> + 'r {
        let service = service.and_then(|index| self.cluster.objects.services.get(index as usize));
        let names = service.map(|service| {
            let of = &service.metadata;
            [Some(of.name.as_str()), None].map(|name| (of.namespace.as_str(), name))
        });
        let named = names.into_iter().flatten().filter_map(|of| self.named.get(&of));
        let mut all: Vec<usize> = named.flatten().chain(&self.others).copied().collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().filter(move |index| self.is_about(self.lines[*index].1, row, service))
    }

    fn is_about(&self, flow: &Flow, row: &Row, service: Option<&Service>) -> bool {
        let cell = &row.cell;
        (flow.families.is_empty() || flow.families.contains(&cell.family))
            && flow.from.iter().any(|from| calls(from, row))
            && flow.to.iter().any(|to| self.is_called(flow, to, row, service))
    }

    fn is_called(
        &self,
        flow: &Flow,
        to: &Destination,
        row: &Row,
        service: Option<&Service>,
    ) -> bool {
        let called = row.cell.destination.unwrap_or(row.witness.call.to);
        let by_entry = flow.entries.is_empty() || flow.entries.contains(&row.cell.entry);
        match row.cell.entry {
            Entry::Pod => *to == Destination::Pods,
            Entry::Node => *to == Destination::Nodes,
            Entry::Outside => match to {
                Destination::Network(net) => net.contains(&called),
                Destination::Internet => {
                    !is_private(called) && !self.destinations.iter().any(|n| n.contains(&called))
                }
                Destination::Service { .. }
                | Destination::Services
                | Destination::Pods
                | Destination::Nodes => false,
            },
            Entry::ClusterIp | Entry::NodePort | Entry::LoadBalancer | Entry::ExternalIp => {
                let Some(service) = service.filter(|_| by_entry) else { return false };
                match to {
                    Destination::Service { namespace, name } => {
                        is_named(service, namespace, name.as_deref())
                    }
                    Destination::Services => is_external(service),
                    Destination::Pods
                    | Destination::Nodes
                    | Destination::Internet
                    | Destination::Network(_) => false,
                }
            }
        }
    }

    fn sentence(&self, wanted: Wanted, flow: &Flow, row: &Row, services: &[u32]) -> String {
        let place = self.expectations.place(flow);
        let who = caller(row);
        let what = called(self.cluster, row, services);
        match wanted {
            Wanted::Preserved => {
                let seen = match row.witness.seen {
                    Some(seen) => format!("the receiver sees another, such as {seen}"),
                    None => "the receiver sees another".to_owned(),
                };
                format!("{place}: {who} must reach {what} with their own address, and {seen}")
            }
            Wanted::Translated => {
                format!("{place}: {who} must not reach {what} with their own address, and they do")
            }
        }
    }
}

/// The Services that a row is about, each by itself; once `None`: it is about none.
fn services(row: &Row) -> impl Iterator<Item = Option<u32>> + '_ {
    let none = row.services.is_empty().then_some(None);
    row.services.iter().copied().map(Some).chain(none)
}

fn standing(wanted: Wanted, flow: &Flow, row: &Row) -> Standing {
    match (&row.cell.fate, wanted) {
        (Fate::Preserved, Wanted::Preserved) | (Fate::Rewritten(_), Wanted::Translated) => {
            Standing::Kept
        }
        (Fate::Preserved, Wanted::Translated) => Standing::Broken,
        (Fate::Rewritten(_), Wanted::Preserved) => match flow.told_by {
            Some(ToldBy::ProxyProtocol | ToldBy::ForwardedFor) => Standing::Kept,
            None => Standing::Broken,
        },
        (
            Fate::NoAnswer(_)
            | Fate::Dropped(_)
            | Fate::Rejected(_)
            | Fate::Lost
            | Fate::Unknown(_),
            Wanted::Preserved | Wanted::Translated,
        ) => Standing::Open,
    }
}

/// Whether a caller of a line is the one of a row. All callers of a row that are outside are of
/// the network that its cell names, so the witness stands for them.
fn calls(from: &Source, row: &Row) -> bool {
    match (from, &row.cell.client) {
        (Source::Outside, Client::Outside(_))
        | (Source::Pods, Client::Pod | Client::PodElsewhere)
        | (Source::Nodes, Client::Node | Client::NodeElsewhere) => true,
        (Source::Network(net), Client::Outside(_)) => match &row.witness.call.from {
            Caller::Outside { address, .. } => net.contains(address),
            Caller::Pod { .. } | Caller::Node(_) => false,
        },
        // A pod that reaches itself must be translated, or its answer would never leave it.
        (_, Client::Endpoint)
        | (
            Source::Outside | Source::Nodes | Source::Network(_),
            Client::Pod | Client::PodElsewhere,
        )
        | (
            Source::Outside | Source::Pods | Source::Network(_),
            Client::Node | Client::NodeElsewhere,
        )
        | (Source::Pods | Source::Nodes, Client::Outside(_)) => false,
    }
}

/// Addresses that nobody on the internet has: RFC 1918, 6598, 3927, 4193, 4291.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private() || address.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}

fn caller(row: &Row) -> String {
    match (&row.cell.client, &row.witness.call.from) {
        (Client::Pod | Client::PodElsewhere | Client::Endpoint, _) => "pods".to_owned(),
        (Client::Node | Client::NodeElsewhere, _) => "nodes".to_owned(),
        (Client::Outside(_), Caller::Outside { address, .. }) => {
            format!("clients outside, such as {address},")
        }
        (Client::Outside(_), Caller::Pod { .. } | Caller::Node(_)) => "clients outside".to_owned(),
    }
}

/// No more Services than this are named in a sentence.
const NAMED: usize = 3;

fn called(cluster: &Cluster, row: &Row, services: &[u32]) -> String {
    let entry = match row.cell.entry {
        Entry::Pod => return "pods".to_owned(),
        Entry::Node => return "nodes".to_owned(),
        Entry::Outside => {
            return row.cell.destination.unwrap_or(row.witness.call.to).to_string();
        }
        Entry::ClusterIp => "cluster IP",
        Entry::NodePort => "node port",
        Entry::LoadBalancer => "load balancer",
        Entry::ExternalIp => "external IP",
    };
    let service = |index: &u32| cluster.objects.services.get(*index as usize);
    let mut names: Vec<String> =
        services.iter().take(NAMED).filter_map(service).map(Service::full_name).collect();
    if services.len() > NAMED {
        names.push(format!("{} more", services.len() - NAMED));
    }
    let plural = if names.len() == 1 { "Service" } else { "Services" };
    let list = match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
        None => "a Service".to_owned(),
    };
    format!("{plural} {list} by {entry}")
}

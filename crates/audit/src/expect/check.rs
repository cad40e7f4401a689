//! An `expect.yaml` beside the cluster that it is for.
//!
//! In: [`Expectations`] and a [`Cluster`]. Out: what is an error of the file ([`errors`]: a name
//! that nothing has, a network of the cluster's own, two lines that can't both hold), and what
//! can't be about this cluster, or can't be told ([`mismatches`]). A sentence each, with the line.

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{Node, Service};
use unmasq_model::packet::Family;

use super::{ALL, Destination, Expectations, Flow, Source, is_external, is_named, services};
use crate::explain::meant;
use crate::matrix::Entry;

/// Errors of the file.
pub(super) fn errors(file: &Expectations, cluster: &Cluster) -> Vec<String> {
    let mut all = Vec::new();
    for flow in file.flows() {
        let place = file.place(flow);
        for from in &flow.from {
            if let Source::Network(net) = from
                && let Some(whose) = own_range(cluster, *net)
            {
                all.push(format!("{place}: {net} is {whose}: write pods or nodes for its callers"));
            }
        }
        for to in &flow.to {
            all.extend(wrong_target(cluster, to).map(|what| format!("{place}: {what}")));
        }
    }
    for balancer in &file.load_balancers {
        for (namespace, name) in &balancer.services {
            let name = Some(name.as_str()).filter(|name| *name != ALL);
            all.extend(no_service(cluster, namespace, name).map(|what| {
                format!("{}:{}: outside.load-balancers: {what}", file.path, balancer.line)
            }));
        }
    }
    all.extend(contradictions(file, cluster));
    all
}

/// What can't be about this cluster, or can't be told.
pub(super) fn mismatches(file: &Expectations, cluster: &Cluster) -> Vec<String> {
    let mut all = Vec::new();
    for flow in file.flows() {
        let place = file.place(flow);
        for to in &flow.to {
            let Destination::Service { namespace, name } = to else { continue };
            let mut named =
                services(cluster).filter(|one| is_named(one, namespace, name.as_deref()));
            match named.next() {
                None if !knows_services(cluster) => all.push(format!(
                    "{place}: Services were not captured (kubernetes/services.json), so whether \
                     there is {} is not known",
                    words(to)
                )),
                Some(first)
                    if flow.from.iter().all(is_outside)
                        && !is_external(first)
                        && !named.any(is_external) =>
                {
                    all.push(format!(
                        "{place}: nobody outside can call Service {}",
                        first.full_name()
                    ));
                }
                None | Some(_) => {}
            }
        }
    }
    all
}

fn knows_services(cluster: &Cluster) -> bool {
    !cluster.objects.services.is_empty()
}

fn is_outside(from: &Source) -> bool {
    match from {
        Source::Outside | Source::Network(_) => true,
        Source::Pods | Source::Nodes => false,
    }
}

/// Whose network it is, if all of it belongs to the cluster.
fn own_range(cluster: &Cluster, net: IpNet) -> Option<String> {
    let family = Family::of(net.addr());
    let pods = cluster.networks.cluster_pods(family);
    if pods.covers(&net) {
        let place = pods.places.first().map(|place| format!(" ({place})")).unwrap_or_default();
        return Some(match pods.ranges.contains(&net) {
            true => format!("the range of all pods{place}"),
            false => format!("within the range of all pods{place}"),
        });
    }
    let pods = cluster.objects.nodes.iter().flat_map(Node::pod_cidrs);
    let ips = services(cluster).flat_map(|one| &one.spec.cluster_ips).copied().map(IpNet::from);
    let nodes = cluster.objects.nodes.iter().flat_map(|node| &node.status.addresses);
    let nodes = nodes.filter_map(|one| one.address.parse::<IpAddr>().ok()).map(IpNet::from);
    let all: Vec<IpNet> = pods.chain(ips).chain(nodes).collect();
    let inside = IpNet::aggregate(&all).iter().any(|known| known.contains(&net));
    inside.then(|| "within the cluster".to_owned())
}

fn wrong_target(cluster: &Cluster, to: &Destination) -> Option<String> {
    match to {
        Destination::Service { namespace, name } => no_service(cluster, namespace, name.as_deref()),
        Destination::Network(net) => own_range(cluster, *net).map(|whose| {
            format!("{net} is {whose}: write pods, nodes or a Service for what is called there")
        }),
        Destination::Services | Destination::Pods | Destination::Nodes | Destination::Internet => {
            None
        }
    }
}

/// That there is no such Service, where Services are known, and which is meant.
fn no_service(cluster: &Cluster, namespace: &str, name: Option<&str>) -> Option<String> {
    if !knows_services(cluster) || services(cluster).any(|one| is_named(one, namespace, name)) {
        return None;
    }
    Some(match name {
        Some(name) => {
            let wanted = format!("{namespace}/{name}");
            let names: Vec<String> = services(cluster).map(Service::full_name).collect();
            let near = meant(&wanted, names.iter().map(String::as_str));
            format!("there is no Service {wanted}{near}")
        }
        None => {
            let names = services(cluster).map(|one| one.metadata.namespace.as_str());
            let near = meant(namespace, names);
            format!("there is no Service in the namespace {namespace}{near}")
        }
    })
}

/// Lines that want the opposite of the same flow. Where the receiver is told the address at layer 7
/// a packet may have either source.
fn contradictions(file: &Expectations, cluster: &Cluster) -> Vec<String> {
    let mut all = Vec::new();
    for kept in file.preserved.iter().filter(|flow| flow.told_by.is_none()) {
        for lost in &file.translated {
            if let Some(both) = common(cluster, kept, lost) {
                all.push(format!(
                    "{} wants the source preserved and {} wants it translated, of the same flow: \
                     {both}; narrow one of them, or take it out",
                    file.place(kept),
                    file.place(lost)
                ));
            }
        }
    }
    all
}

/// A flow that both lines are about.
fn common(cluster: &Cluster, one: &Flow, other: &Flow) -> Option<String> {
    let entries = one.entries.is_empty()
        || other.entries.is_empty()
        || one.entries.iter().any(|entry| other.entries.contains(entry));
    for family in [Family::V4, Family::V6] {
        let is_of = |flow: &Flow| flow.families.is_empty() || flow.families.contains(&family);
        if !is_of(one) || !is_of(other) {
            continue;
        }
        let from = first_pair(&one.from, &other.from, |a, b| same_caller(a, b, family));
        let to = first_pair(&one.to, &other.to, |a, b| same_called(cluster, a, b, family, entries));
        if let (Some(from), Some(to)) = (from, to) {
            let by = match &one.entries[..] {
                [entry, ..] => {
                    let both = one.entries.iter().find(|entry| other.entries.contains(entry));
                    format!(" by {}", entry_name(*both.unwrap_or(entry)))
                }
                [] => String::new(),
            };
            return Some(format!("{} to {}{by}", caller_word(&from), words(&to)));
        }
    }
    None
}

fn first_pair<T>(one: &[T], other: &[T], common: impl Fn(&T, &T) -> Option<T>) -> Option<T> {
    one.iter().find_map(|a| other.iter().find_map(|b| common(a, b)))
}

/// The narrower of two callers, if one is among the other.
fn same_caller(one: &Source, other: &Source, family: Family) -> Option<Source> {
    match (one, other) {
        (Source::Outside, Source::Outside)
        | (Source::Pods, Source::Pods)
        | (Source::Nodes, Source::Nodes) => Some(one.clone()),
        (Source::Outside, Source::Network(net)) | (Source::Network(net), Source::Outside) => {
            (Family::of(net.addr()) == family).then_some(Source::Network(*net))
        }
        (Source::Network(a), Source::Network(b)) => smaller(*a, *b, family).map(Source::Network),
        (Source::Outside | Source::Network(_), Source::Pods | Source::Nodes)
        | (Source::Pods, Source::Outside | Source::Nodes | Source::Network(_))
        | (Source::Nodes, Source::Outside | Source::Pods | Source::Network(_)) => None,
    }
}

/// The narrower of two that are called, if one is among the other. `entries`: whether Services are
/// called in a way that both lines are about.
fn same_called(
    cluster: &Cluster,
    one: &Destination,
    other: &Destination,
    family: Family,
    entries: bool,
) -> Option<Destination> {
    match (one, other) {
        (
            Destination::Service { namespace, name },
            Destination::Service { namespace: of, name: its },
        ) => {
            let same = namespace == of && (name.is_none() || its.is_none() || name == its);
            let narrower = if name.is_some() { one } else { other };
            (entries && same).then(|| narrower.clone())
        }
        (Destination::Services, named @ Destination::Service { namespace, name })
        | (named @ Destination::Service { namespace, name }, Destination::Services) => {
            let is_it = |service: &&Service| is_named(service, namespace, name.as_deref());
            let external = services(cluster).filter(is_it).any(is_external);
            (entries && external).then(|| named.clone())
        }
        (Destination::Services, Destination::Services) => entries.then(|| one.clone()),
        (Destination::Pods, Destination::Pods)
        | (Destination::Nodes, Destination::Nodes)
        | (Destination::Internet, Destination::Internet) => Some(one.clone()),
        (Destination::Network(a), Destination::Network(b)) => {
            smaller(*a, *b, family).map(Destination::Network)
        }
        // The internet is what no line names.
        (
            Destination::Service { .. }
            | Destination::Services
            | Destination::Pods
            | Destination::Nodes
            | Destination::Internet
            | Destination::Network(_),
            _,
        ) => None,
    }
}

fn smaller(one: IpNet, other: IpNet, family: Family) -> Option<IpNet> {
    let found = match (one.contains(&other), other.contains(&one)) {
        (true, _) => other,
        (_, true) => one,
        (false, false) => return None,
    };
    (Family::of(found.addr()) == family).then_some(found)
}

fn caller_word(from: &Source) -> String {
    match from {
        Source::Outside => "outside".to_owned(),
        Source::Pods => "pods".to_owned(),
        Source::Nodes => "nodes".to_owned(),
        Source::Network(net) => net.to_string(),
    }
}

fn words(to: &Destination) -> String {
    match to {
        Destination::Service { namespace, name } => {
            format!("service/{namespace}/{}", name.as_deref().unwrap_or(ALL))
        }
        Destination::Services => "services".to_owned(),
        Destination::Pods => "pods".to_owned(),
        Destination::Nodes => "nodes".to_owned(),
        Destination::Internet => "internet".to_owned(),
        Destination::Network(net) => net.to_string(),
    }
}

fn entry_name(entry: Entry) -> &'static str {
    match entry {
        Entry::ClusterIp => "cluster-ip",
        Entry::NodePort => "node-port",
        Entry::LoadBalancer => "load-balancer",
        Entry::ExternalIp => "external-ip",
        Entry::Pod => "pod",
        Entry::Node => "node",
        Entry::Outside => "outside",
    }
}

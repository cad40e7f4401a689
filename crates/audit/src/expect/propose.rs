//! A proposal of `expect.yaml` for a cluster as it is, with a reason for each line.
//!
//! What already depends on sources is proposed to be preserved; egress is proposed to stay as it
//! is. The same cluster gives the same bytes. Names of objects may be anything: what a reader
//! would take for more than a word is quoted.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{Service, ServiceType, TrafficPolicy};
use unmasq_model::packet::Family;

use super::judge::is_private;
use super::{SCHEMA, is_external};
use crate::dependent::{Dependence, Kind, by_service};
use crate::expect::ToldBy;
use crate::matrix::{Client, Entry, Fate, Matrix, Row};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

const HEAD: &str = "\
# What is expected of sources in this cluster. This is a proposal, written by unmasq expect init:
# each line says why it is here. Change or delete what isn't meant.
";

const OUTSIDE: &str = "\
# What no capture shows, for the remedies. Uncomment what holds.
# outside:
";

/// Proposes a file. `dependences` are the settings that depend on the source, and the matrix says
/// what becomes of egress today.
pub fn propose(cluster: &Cluster, matrix: &Matrix, dependences: &[Dependence]) -> String {
    let mut text = format!("{HEAD}schema: {SCHEMA}\n");
    let mut preserved = String::new();
    let behind = by_service(dependences);
    for (index, service) in services(cluster) {
        let its = behind.get(&index).into_iter().flatten().map(|one| &dependences[*one]);
        preserved.push_str(&of_service(service, &its.collect::<Vec<_>>()));
    }
    let egress = egress(matrix);
    preserved.push_str(&of_egress(&egress, Egress::Preserved));
    let translated = of_egress(&egress, Egress::Translated);
    add_list(&mut text, "preserved", &preserved);
    add_list(&mut text, "translated", &translated);
    for (family, egress) in &egress {
        if *egress == Egress::Mixed {
            let _ = writeln!(
                text,
                "\n# Pods keep their {family} address to the internet on some nodes and not on \
                 others: write\n# which of the two is meant."
            );
        }
    }
    text.push('\n');
    text.push_str(&outside(cluster));
    text
}

fn add_list(text: &mut String, field: &str, lines: &str) {
    match lines.is_empty() {
        true => drop(write!(text, "\n{field}: []\n")),
        false => drop(write!(text, "\n{field}:\n{lines}")),
    }
}

/// Services in order of their names.
fn services(cluster: &Cluster) -> Vec<(u32, &Service)> {
    let mut all: Vec<(u32, &Service)> = (0..).zip(&cluster.objects.services).collect();
    all.sort_by_key(|(_, service)| (&service.metadata.namespace, &service.metadata.name));
    all.retain(|(_, service)| {
        let parts = [&service.metadata.namespace, &service.metadata.name];
        // Kubernetes has no such names.
        parts.iter().all(|part| !part.is_empty() && !part.contains(['/', '*']))
            && parts
                .iter()
                .all(|part| !part.contains(|c: char| c.is_whitespace() || c.is_control()))
    });
    all
}

/// The line of a Service whose clients matter to some of its settings.
fn of_service(service: &Service, dependences: &[&Dependence]) -> String {
    if !is_external(service) {
        return String::new();
    }
    let mut why = Vec::new();
    if service.spec.external_traffic_policy == TrafficPolicy::Local {
        why.push("externalTrafficPolicy: Local asks for its clients' addresses.".to_owned());
    }
    for dependence in dependences {
        let note = match dependence.kind {
            // These are judged before kube-proxy rewrites anything.
            Kind::SourceRanges => ". Delete this line if the pods needn't see clients too.",
            // Whose word is believed says nothing about whose address is needed.
            Kind::TrustedProxies => continue,
            Kind::NetworkPolicy
            | Kind::IngressAllowList
            | Kind::IngressDenyList
            | Kind::IngressRateLimit => ".",
        };
        why.push(format!("{}: {}{note}", dependence.place(), dependence.what));
    }
    if why.is_empty() {
        return String::new();
    }
    let name = service.full_name();
    let mut text = String::new();
    why.iter().for_each(|why| add_comment(&mut text, why));
    let _ = writeln!(text, "  - name: {}", quoted(&format!("clients of {name}")));
    let _ = writeln!(text, "    from: [outside]");
    let _ = writeln!(text, "    to: [{}]", quoted(&format!("service/{name}")));
    let told =
        dependences.iter().find_map(|dependence| dependence.told_by).map(|told| match told {
            ToldBy::ProxyProtocol => "proxy-protocol",
            ToldBy::ForwardedFor => "forwarded-for",
        });
    if let Some(told) = told {
        add_comment(&mut text, "Its ConfigMap says that a proxy in front tells the address.");
        let _ = writeln!(text, "    told-by: {told}");
    }
    text
}

/// What becomes of pods' calls to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Egress {
    Preserved,
    Translated,
    Mixed,
}

/// By family, for those with an answer.
fn egress(matrix: &Matrix) -> BTreeMap<Family, Egress> {
    let is_one = |row: &&Row| {
        let is_pod = matches!(row.cell.client, Client::Pod | Client::PodElsewhere);
        row.cell.entry == Entry::Outside && is_pod && !is_private(row.witness.call.to)
    };
    let mut all = BTreeMap::new();
    for row in matrix.rows.iter().filter(is_one) {
        let found = match row.cell.fate {
            Fate::Preserved => Egress::Preserved,
            Fate::Rewritten(_) => Egress::Translated,
            Fate::NoAnswer(_)
            | Fate::Dropped(_)
            | Fate::Rejected(_)
            | Fate::Lost
            | Fate::Unknown(_) => continue,
        };
        let known = all.entry(row.cell.family).or_insert(found);
        if *known != found {
            *known = Egress::Mixed;
        }
    }
    all
}

fn of_egress(egress: &BTreeMap<Family, Egress>, wanted: Egress) -> String {
    let families: Vec<&Family> =
        FAMILIES.iter().filter(|family| egress.get(family) == Some(&wanted)).collect();
    let why = match (families.is_empty(), wanted) {
        (true, _) | (_, Egress::Mixed) => return String::new(),
        (_, Egress::Preserved) => "Pods reach the internet with their own address today.",
        (_, Egress::Translated) => {
            "Pods reach the internet by another address today, and nobody there may know theirs."
        }
    };
    let names: Vec<&str> = families
        .iter()
        .map(|family| match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        })
        .collect();
    let mut text = String::new();
    add_comment(&mut text, why);
    let _ = writeln!(text, "  - from: [pods]\n    to: [internet]");
    let _ = writeln!(text, "    families: [{}]", names.join(", "));
    text
}

fn outside(cluster: &Cluster) -> String {
    let mut text = OUTSIDE.to_owned();
    let balanced = services(cluster).into_iter().map(|(_, service)| service);
    let balanced = balanced.filter(|one| one.spec.kind == ServiceType::LoadBalancer);
    let names: Vec<String> = balanced.map(|one| quoted(&one.full_name())).collect();
    let names = if names.is_empty() { "NAMESPACE/NAME".to_owned() } else { names.join(", ") };
    let _ = writeln!(text, "#   load-balancers:");
    let _ = writeln!(text, "#     - services: [{names}]");
    let _ = writeln!(text, "#       health-checks: true # nodes without an endpoint are left out");
    let cidrs: Vec<IpNet> = cluster
        .objects
        .nodes
        .iter()
        .flat_map(unmasq_cluster::kubernetes::Node::pod_cidrs)
        .collect();
    let cidrs: Vec<String> =
        IpNet::aggregate(&cidrs).iter().map(|net| quoted(&net.to_string())).collect();
    let cidrs = if cidrs.is_empty() { "10.42.0.0/16".to_owned() } else { cidrs.join(", ") };
    let _ = writeln!(text, "#   gateways:");
    let _ = writeln!(text, "#     - knows-pods: [{cidrs}] # it has routes to pods");
    let _ = writeln!(text, "#       masquerades: [{cidrs}] # it translates them on their way out");
    text
}

/// A comment's line. What objects say must not end it.
fn add_comment(text: &mut String, why: &str) {
    let why = why.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ");
    let _ = writeln!(text, "  # {why}");
}

/// A word as it is, or in quotes where YAML would read more into it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '.' | ' ' | '_');
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

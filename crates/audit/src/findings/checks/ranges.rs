//! Networks that share addresses, without a packet that shows it.
//!
//! In: the ranges in use, and clients' networks that settings and expectations name. Out: findings
//! of `overlapping-ranges`, a warning each: what is broken shows in rows. Ranges that contain each
//! other by design aren't there ([`Networks::overlaps`](unmasq_cluster::networks::Networks)).

use std::collections::BTreeSet;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_cluster::networks::{Network, NetworkKind};
use unmasq_model::packet::Family;

use super::super::Context;
use super::super::describe::answers::other_bridge;
use super::super::describe::{
    Described, command, few, patch, sentence, step, title, undone, unseen,
};
use super::finding;
use crate::matrix::{Client, Outside};
use crate::{Affected, Cause, Confidence, Evidence, Finding, FindingId, Owner, Remedy, Severity};

pub(super) fn add(context: &Context<'_, '_>, findings: &mut Vec<Finding>) {
    let mut all: Vec<Finding> = Vec::new();
    for overlap in context.cluster.networks.overlaps() {
        all.push(of_cluster(context.cluster, overlap.outer, overlap.inner));
    }
    for net in clients(context) {
        let bridges = context.cluster.networks.all.iter();
        let bridges = bridges.filter(|one| one.kind == NetworkKind::Bridge);
        for bridge in bridges.filter(|one| overlap(&one.range, &net)) {
            if !is_known(context, findings, &bridge.range) {
                all.push(of_clients(context.cluster, net, bridge));
            }
        }
    }
    let mut subjects = BTreeSet::new();
    all.retain(|one| subjects.insert(one.subject.clone()));
    findings.extend(all);
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// Networks of clients that expectations and settings name; everybody is no network.
fn clients(context: &Context<'_, '_>) -> BTreeSet<IpNet> {
    let named = context.matrix.rows.iter().filter_map(|row| match &row.cell.client {
        Client::Outside(Outside::NamedBySetting(net)) => Some(*net),
        Client::Outside(Outside::Anybody | Outside::NamedByRule(_))
        | Client::Pod
        | Client::PodElsewhere
        | Client::Endpoint
        | Client::Node
        | Client::NodeElsewhere => None,
    });
    let mut all: BTreeSet<IpNet> = named.collect();
    all.extend(context.expectations.callers());
    all.retain(|net| net.prefix_len() > 0);
    all
}

/// Whether rows made a finding of clients in a bridge's range already.
fn is_known(context: &Context<'_, '_>, findings: &[Finding], bridge: &IpNet) -> bool {
    let known = findings.iter().filter(|one| one.id == FindingId::OverlappingRanges);
    let mut rows = known.flat_map(|one| &one.affected.rows);
    rows.any(|index| {
        let row = context.matrix.rows.get(*index);
        row.and_then(|row| context.caller(row)).is_some_and(|caller| bridge.contains(&caller))
    })
}

fn of_clients(cluster: &Cluster, net: IpNet, bridge: &Network) -> Finding {
    let range = bridge.range;
    let text = format!(
        "Clients in {net} are named by an expectation or a setting, and {range} is the range of a \
         bridge on nodes. A node that has the bridge sends answers for {range} into it, so those \
         clients get none; if only the engine's masquerade of {range} is left, it hides them."
    );
    let described = Described {
        title: title(
            format!("Clients in {net} and a bridge on nodes ({range}) share addresses"),
            "Clients and a bridge on nodes share addresses",
        ),
        confidence: Confidence::Likely,
        cause: cause(bridge, text),
        remedies: vec![other_bridge(cluster, &[range])],
    };
    // A wide network is often named for what else is in it.
    let severity =
        if range.contains(&net) { Severity::Warning } else { severity_of_wide(net, range) };
    let subject = format!("clients {net}, bridge {range}");
    let flows = vec![format!(
        "clients in {} -> anything on a node that has the bridge",
        smaller(net, range)
    )];
    with(
        finding(FindingId::OverlappingRanges, subject, severity, Owner::Unclaimed, described),
        flows,
        &[bridge],
    )
}

/// Some of a few thousand clients are likely to have such addresses; of whole classes it isn't.
fn severity_of_wide(net: IpNet, range: IpNet) -> Severity {
    match range.prefix_len().saturating_sub(net.prefix_len()) {
        0..=2 => Severity::Warning,
        _ => Severity::Info,
    }
}

fn smaller(one: IpNet, other: IpNet) -> IpNet {
    if one.prefix_len() >= other.prefix_len() { one } else { other }
}

fn of_cluster(cluster: &Cluster, outer: &Network, inner: &Network) -> Finding {
    let (one, other) = (named(outer), named(inner));
    let text = format!(
        "{one} and {other} have addresses in common. {} {}",
        effect(outer, inner),
        "Rules and routes tell networks apart by addresses alone, so one is taken for the other."
    );
    let described = Described {
        title: title(
            format!("{one} and {other} share addresses"),
            format!("{} and {} share addresses", kind(outer), kind(inner)),
        ),
        confidence: Confidence::Certain,
        cause: Cause {
            text,
            setting: Some(format!("{} and {}", outer.range, inner.range)),
            place: Some(format!("{}; {}", places(outer), places(inner))),
        },
        remedies: vec![remedy(cluster, outer, inner)],
    };
    let subject = format!("{one}, {other}");
    let flows = vec![format!("anything to or from {}", inner.range)];
    let pools = [outer, inner].iter().all(|one| matches!(one.kind, NetworkKind::Pool(_)));
    let whose = if pools { Owner::Calico } else { Owner::Unclaimed };
    let found = finding(FindingId::OverlappingRanges, subject, Severity::Warning, whose, described);
    with(found, flows, &[outer, inner])
}

fn with(mut found: Finding, flows: Vec<String>, networks: &[&Network]) -> Finding {
    let places = networks.iter().flat_map(|network| &network.places);
    let nodes: BTreeSet<&str> = places.filter_map(|place| place.node()).collect();
    let nodes = nodes.into_iter().map(str::to_owned).collect();
    found.affected = Affected { flows, nodes, ..Affected::default() };
    let evidence = networks.iter().map(|network| Evidence {
        text: format!("{}: {}", named(network), places_of(network)),
        trace: None,
        rule: None,
    });
    found.evidence = evidence.collect();
    found.families = networks.first().map(|one| Family::of(one.range.addr())).into_iter().collect();
    found
}

fn cause(bridge: &Network, text: String) -> Cause {
    Cause { text, setting: Some(bridge.range.to_string()), place: Some(places(bridge)) }
}

fn places(network: &Network) -> String {
    network.places.first().map_or_else(|| "?".to_owned(), ToString::to_string)
}

fn places_of(network: &Network) -> String {
    few(&network.places)
}

fn kind(network: &Network) -> String {
    match &network.kind {
        NetworkKind::ClusterPods => "the pods' network".to_owned(),
        NetworkKind::NodePods { node } => format!("the pods' network of {node}"),
        NetworkKind::Services => "the Services' network".to_owned(),
        NetworkKind::Pool(pool) => format!("Calico's pool {}", pool.name),
        NetworkKind::Lan => "the nodes' network".to_owned(),
        NetworkKind::Bridge => "a container bridge".to_owned(),
        NetworkKind::Route => "a routed network".to_owned(),
    }
}

fn named(network: &Network) -> String {
    format!("{} {}", kind(network), network.range)
}

fn is_pods(network: &Network) -> bool {
    match &network.kind {
        NetworkKind::ClusterPods | NetworkKind::NodePods { .. } => true,
        NetworkKind::Pool(pool) => pool.used != Some(false),
        NetworkKind::Services | NetworkKind::Lan | NetworkKind::Bridge | NetworkKind::Route => {
            false
        }
    }
}

fn has(both: [&Network; 2], kind: &NetworkKind) -> bool {
    both.iter().any(|one| one.kind == *kind)
}

/// What comes of it.
fn effect(outer: &Network, inner: &Network) -> &'static str {
    let both = [outer, inner];
    if let (NetworkKind::Pool(around), NetworkKind::Pool(pool)) = (&outer.kind, &inner.kind) {
        return match around.nat_outgoing && !pool.nat_outgoing {
            true => {
                "Calico masquerades what comes from any pool with natOutgoing: the inner one has none, \
                 and is masqueraded all the same, by the outer one's. Calico's own API refuses such a \
                 pool; only kubectl, on the object itself, makes one."
            }
            false => {
                "Of which pool an address in both is, and whose settings count for it, nobody says. \
                 Calico's own API refuses such a pool; only kubectl, on the object itself, makes one."
            }
        };
    }
    if both
        .iter()
        .any(|one| matches!(&one.kind, NetworkKind::Pool(pool) if pool.used == Some(false)))
    {
        "Whoever is in the pool and isn't a pod is masqueraded as one, if the pool has natOutgoing."
    } else if has(both, &NetworkKind::Services) {
        "A cluster IP may be somebody's address: whoever calls that one gets the Service, or nothing."
    } else if has(both, &NetworkKind::Bridge) {
        "A node that has the bridge sends packets for these addresses into it, and they are lost."
    } else if both.iter().all(|one| is_pods(one)) {
        "Two nodes may give two pods the same address."
    } else {
        "Machines there are taken for pods: masquerading spares them or hides them, routes miss them."
    }
}

fn remedy(cluster: &Cluster, outer: &Network, inner: &Network) -> Remedy {
    for network in [outer, inner] {
        match &network.kind {
            NetworkKind::Pool(pool) if pool.used == Some(false) => return without_pool(&pool.name),
            NetworkKind::Bridge => return other_bridge(cluster, &[network.range]),
            NetworkKind::ClusterPods
            | NetworkKind::NodePods { .. }
            | NetworkKind::Services
            | NetworkKind::Pool(_)
            | NetworkKind::Lan
            | NetworkKind::Route => {}
        }
    }
    Remedy {
        lasting: true,
        title: "Give the network that is easiest to move a range of its own".to_owned(),
        steps: vec![undone(
            format!(
                "A network of machines, or a route that is too wide, is moved at the router; a pool of \
                 Calico's by a new one beside it; all pods' or Services' range in practice with a new \
                 cluster. The two are {} ({}) and {} ({})",
                named(outer),
                places(outer),
                named(inner),
                places(inner)
            ),
            [command(format!("ip route show root {}; ip -br addr", outer.range))],
            [sentence("The old range again.")],
        )],
        requires: vec![unseen(
            "nothing else names the old range (firewalls, NetworkPolicies, gateways' routes, trusted proxies)",
            command(format!(
                "grep -rn -F {} /etc; kubectl get networkpolicies -A -o yaml | grep -F {}",
                inner.range, inner.range
            )),
        )],
    }
}

fn without_pool(name: &str) -> Remedy {
    let pools = "ippools.crd.projectcalico.org";
    let set = |value: bool| format!(r#"{{"spec":{{"natOutgoing":{value}}}}}"#);
    Remedy {
        lasting: true,
        title: "Take natOutgoing from the pool that no pod uses".to_owned(),
        steps: vec![step(
            "Calico deletes its rule by itself",
            patch(pools, None, name, &set(false), set(true)),
        )],
        requires: vec![unseen(
            "no pod gets an address from it later",
            command("calicoctl ipam show --show-blocks"),
        )],
    }
}

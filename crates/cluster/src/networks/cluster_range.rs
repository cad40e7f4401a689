//! The ranges of all pods and of Services: the first place that says them counts.

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{Conflict, FoundPool, Ranges, object_place};
use crate::Overrides;
use crate::kubernetes::Objects;
use crate::settings::{Place, Settings};

/// Ranges that are said at a place.
struct Candidate {
    ranges: Vec<IpNet>,
    places: Vec<Place>,
}

/// The ranges of all pods: what the user said, flannel's network, Calico's pools that pods have
/// addresses of, what kube-proxy or the control plane was told, and at last what nodes were
/// assigned.
pub(super) fn pods(
    family: Family,
    objects: &Objects,
    settings: &Settings,
    overrides: &Overrides,
    pools: &[FoundPool],
) -> Ranges {
    let mut candidates = Vec::new();
    let mut add = |ranges: &[IpNet], places: Vec<Place>| {
        let ranges = normal(ranges.iter().copied().filter(|range| is_of(family, range)));
        if !ranges.is_empty() {
            candidates.push(Candidate { ranges, places });
        }
    };
    add(&overrides.cluster_cidrs, vec![given("--cluster-cidr")]);
    for setting in settings.flannel.networks(family).all() {
        add(&[setting.value], vec![setting.place.clone()]);
    }
    let used: Vec<&FoundPool> =
        pools.iter().filter(|(_, pool, _)| pool.used == Some(true)).collect();
    let ranges: Vec<IpNet> = used.iter().map(|(range, _, _)| *range).collect();
    let of_family = used.iter().filter(|(range, _, _)| is_of(family, range));
    add(&ranges, of_family.map(|(_, _, place)| place.clone()).collect());
    let told = settings.kube_proxy.cluster_cidrs.all();
    for setting in told.iter().chain(settings.control_plane.cluster_cidrs.all()) {
        add(&setting.value, vec![setting.place.clone()]);
    }
    let mut found = chosen(candidates);
    add_assigned(&mut found, family, objects, !used.is_empty());
    found
}

/// What nodes were assigned: the ranges, as an assumption, where nothing says them; else those
/// outside of them are conflicts. Calico's own address management doesn't use them.
fn add_assigned(found: &mut Ranges, family: Family, objects: &Objects, pools_are_used: bool) {
    let mut assigned = Vec::new();
    for node in &objects.nodes {
        let place = object_place("Node", "", &node.metadata.name, "spec.podCIDRs");
        for range in node.pod_cidrs().filter(|range| is_of(family, range)) {
            assigned.push((range, place.clone()));
        }
    }
    if found.ranges.is_empty() && !assigned.is_empty() {
        found.ranges = normal(assigned.iter().map(|(range, _)| *range));
        found.places = assigned.into_iter().map(|(_, place)| place).collect();
        found.assumption = Some(format!(
            "pods have {} addresses of the ranges that nodes were assigned, and of no others: \
             nothing that was captured says the range of all pods",
            family_name(family)
        ));
    } else if !pools_are_used {
        assigned.retain(|(range, _)| !found.covers(range));
        let conflict = |(range, place)| Conflict { ranges: vec![range], place };
        found.conflicts.extend(assigned.into_iter().map(conflict));
    }
}

/// The ranges of Services: what the user said, the API server's argument, ServiceCIDRs, kubeadm's
/// configuration; else the addresses that Services have.
pub(super) fn services(
    family: Family,
    objects: &Objects,
    settings: &Settings,
    overrides: &Overrides,
) -> Ranges {
    let mut candidates = Vec::new();
    let mut add = |ranges: &[IpNet], places: Vec<Place>| {
        let ranges = normal(ranges.iter().copied().filter(|range| is_of(family, range)));
        if !ranges.is_empty() {
            candidates.push(Candidate { ranges, places });
        }
    };
    add(&overrides.service_cidrs, vec![given("--service-cidr")]);
    let (commands, documents): (Vec<_>, Vec<_>) = settings
        .control_plane
        .service_cidrs
        .all()
        .iter()
        .partition(|setting| !matches!(setting.place, Place::Object { kind: "ConfigMap", .. }));
    for setting in commands.into_iter().chain(settings.rancher.service_cidrs.all()) {
        add(&setting.value, vec![setting.place.clone()]);
    }
    // There may be several, and all count.
    let all: Vec<IpNet> =
        objects.service_cidrs.iter().flat_map(|object| &object.spec.cidrs).copied().collect();
    let place = |name: &str| object_place("ServiceCIDR", "", name, "spec.cidrs");
    let places = objects.service_cidrs.iter().map(|object| place(&object.metadata.name));
    add(&all, places.collect());
    for setting in documents {
        add(&setting.value, vec![setting.place.clone()]);
    }
    let mut found = chosen(candidates);
    if found.ranges.is_empty() {
        let addresses = objects.services.iter().filter_map(|service| service.cluster_ip(family));
        let mut single: Vec<IpNet> = addresses.map(IpNet::from).collect();
        single.sort();
        single.dedup();
        found.assumption = (!single.is_empty()).then(|| {
            format!(
                "of {} addresses only those that Services have are taken for cluster IPs: \
                 nothing that was captured says the range of Services",
                family_name(family)
            )
        });
        found.ranges = single;
    }
    found
}

/// The first candidate, with the places that say the same; the others are conflicts.
fn chosen(candidates: Vec<Candidate>) -> Ranges {
    let mut found = Ranges::default();
    for candidate in candidates {
        if found.ranges.is_empty() {
            found.ranges = candidate.ranges;
            found.places = candidate.places;
        } else if found.ranges == candidate.ranges {
            found.places.extend(candidate.places);
        } else {
            let conflict = |place| Conflict { ranges: candidate.ranges.clone(), place };
            found.conflicts.extend(candidate.places.into_iter().map(conflict));
        }
    }
    found
}

/// In order, none inside another, neighbours joined.
fn normal(ranges: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let ranges: Vec<IpNet> = ranges.map(|range| range.trunc()).collect();
    let mut ranges = IpNet::aggregate(&ranges);
    ranges.sort();
    ranges
}

fn is_of(family: Family, range: &IpNet) -> bool {
    Family::of(range.addr()) == family
}

pub(super) fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn given(option: &str) -> Place {
    Place::Given { option: option.to_owned() }
}

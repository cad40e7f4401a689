//! `--cluster-cidr` beside what pods and nodes have.
//!
//! In: a [`Cluster`] with the ranges that a person gave. Out: why they can't be those of all pods,
//! with an address and the place where it stands, or a note where nothing says either way.

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{NetworkKind, family_name, object_place};
use crate::Cluster;
use crate::settings::Place;

/// Addresses that are shown.
const FEW: usize = 3;

impl Cluster {
    /// Whether the ranges that were given for all pods can be theirs: notes about those that can't
    /// be judged, or what contradicts them.
    pub fn check_given_pods(&self) -> Result<Vec<String>, String> {
        let mut notes = Vec::new();
        for family in [Family::V4, Family::V6] {
            let given = self.overrides.cluster_cidrs.iter().map(IpNet::trunc);
            let given: Vec<IpNet> = given.filter(|one| Family::of(one.addr()) == family).collect();
            if given.is_empty() {
                continue;
            }
            let known = self.known_pods(family);
            if known.is_empty() {
                notes.push(format!(
                    "{} is taken as it is given: no {} address of a pod and no podCIDR was captured \
                     to compare it with",
                    options(&given),
                    family_name(family)
                ));
                continue;
            }
            let outside: Vec<&(IpNet, Place)> = known
                .iter()
                .filter(|(net, _)| !given.iter().any(|range| range.contains(net)))
                .collect();
            let pools = || self.networks.all.iter().filter(|one| is_pool(&one.kind));
            let unused = given.iter().find(|range| {
                !known.iter().any(|(net, _)| range.contains(net) || net.contains(*range))
                    && !pools().any(|pool| pool.range == **range)
            });
            match (unused, &outside[..]) {
                (Some(range), outside) => {
                    let shown =
                        if outside.is_empty() { known.iter().collect() } else { outside.to_vec() };
                    return Err(format!(
                        "--cluster-cidr {range} holds no pod: pods have {}",
                        listed(&shown)
                    ));
                }
                (None, [_, ..]) => {
                    return Err(format!(
                        "{} isn't the range of all pods: others have {}; name it once for each \
                         range",
                        options(&given),
                        listed(&outside)
                    ));
                }
                (None, []) => {}
            }
        }
        Ok(notes)
    }

    /// Addresses of pods and the ranges that nodes give them, each with its place. Calico's own
    /// address management doesn't use nodes' ranges.
    fn known_pods(&self, family: Family) -> Vec<(IpNet, Place)> {
        let mut all = Vec::new();
        let own = self.objects.pods.iter().filter(|pod| !pod.spec.host_network && !pod.has_ended());
        for pod in own {
            let of = &pod.metadata;
            let place = object_place("Pod", &of.namespace, &of.name, "status.podIPs");
            let ips = pod.ips().filter(|ip| Family::of(*ip) == family);
            all.extend(ips.map(|ip: IpAddr| (IpNet::from(ip), place.clone())));
        }
        let pools_are_used = self.networks.all.iter().any(|one| match &one.kind {
            NetworkKind::Pool(pool) => pool.used == Some(true),
            NetworkKind::ClusterPods
            | NetworkKind::NodePods { .. }
            | NetworkKind::Services
            | NetworkKind::Lan
            | NetworkKind::Bridge
            | NetworkKind::Route => false,
        });
        if !pools_are_used {
            for node in &self.objects.nodes {
                let place = object_place("Node", "", &node.metadata.name, "spec.podCIDRs");
                let ranges = node.pod_cidrs().filter(|one| Family::of(one.addr()) == family);
                all.extend(ranges.map(|range| (range, place.clone())));
            }
        }
        all
    }
}

fn is_pool(kind: &NetworkKind) -> bool {
    match kind {
        NetworkKind::Pool(_) => true,
        NetworkKind::ClusterPods
        | NetworkKind::NodePods { .. }
        | NetworkKind::Services
        | NetworkKind::Lan
        | NetworkKind::Bridge
        | NetworkKind::Route => false,
    }
}

fn options(given: &[IpNet]) -> String {
    let all: Vec<String> = given.iter().map(|one| format!("--cluster-cidr {one}")).collect();
    all.join(" ")
}

/// `10.42.1.2 (Pod default/web-1: status.podIPs), … and 4 more`
fn listed(known: &[&(IpNet, Place)]) -> String {
    let shown = known.iter().take(FEW).map(|(net, place)| {
        let single = net.prefix_len() == net.max_prefix_len();
        let what = if single { net.addr().to_string() } else { net.to_string() };
        format!("{what} ({place})")
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match known.len().saturating_sub(FEW) {
        0 => shown,
        rest => format!("{shown} and {rest} more"),
    }
}

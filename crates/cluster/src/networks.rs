//! The address ranges that are in use, each with what it is for and where that is said.
//!
//! ```text
//! overrides, settings ──▶ pods of the cluster, Services ─┐
//! nodes' objects, subnet.env ──▶ pods of each node ──────┤
//! IPPools, pods ──▶ pools, used or not ──────────────────┼─▶ Networks ─▶ overlaps
//! nodes' devices and routes ──▶ LANs, bridges, routes ───┘
//! ```
//!
//! In: what was read of a cluster. Out: [`Networks`]. Where places contradict each other the one
//! that counts most is taken, and the others are kept as [`Conflict`]s. What follows from other
//! things only is marked as an assumption; nothing is guessed from single addresses.

mod cluster_range;
mod given;
mod node_range;
mod overlap;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::packet::Family;

use crate::kubernetes::{IpPool, Objects};
use crate::settings::{Place, Settings};
use crate::{Node, Overrides};

use cluster_range::family_name;

/// The address ranges that are in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// Every range with its kind, in order of the addresses, larger ones first.
    pub all: Vec<Network>,
    cluster_pods: [Ranges; 2],
    services: [Ranges; 2],
}

/// A range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its addresses.
    pub range: IpNet,
    /// What they are for.
    pub kind: NetworkKind,
    /// Where that is said.
    pub places: Vec<Place>,
}

/// What a range is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkKind {
    /// All pods.
    ClusterPods,
    /// Pods of one node.
    NodePods {
        /// The node.
        node: String,
    },
    /// Cluster IPs of Services.
    Services,
    /// A pool of Calico's.
    Pool(Pool),
    /// A network that nodes have a device in.
    Lan,
    /// A bridge for containers that a container engine or a hypervisor made.
    Bridge,
    /// Something behind a gateway.
    Route,
}

/// A pool of Calico's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Whether a pod has an address of it; `None`: pods weren't captured.
    pub used: Option<bool>,
    /// Whether packets from it to addresses that no pool has are masqueraded.
    pub nat_outgoing: bool,
    /// Whether no more pods get addresses from it.
    pub disabled: bool,
}

/// Ranges for one purpose and of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// The ranges in order, none inside another; empty: not known.
    pub ranges: Vec<IpNet>,
    /// Where they are said.
    pub places: Vec<Place>,
    /// Why they are only an assumption, if they are.
    pub assumption: Option<String>,
    /// Other places that say something else.
    pub conflicts: Vec<Conflict>,
}

/// A place that says something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The ranges that it says.
    pub ranges: Vec<IpNet>,
    /// The place.
    pub place: Place,
}

impl Ranges {
    /// Whether an address is in one.
    pub fn contains(&self, address: IpAddr) -> bool {
        let after = self.ranges.partition_point(|range| range.network() <= address);
        let last = after.checked_sub(1).and_then(|index| self.ranges.get(index));
        last.is_some_and(|range| range.contains(&address))
    }

    /// Whether a whole network is in one.
    pub fn covers(&self, network: &IpNet) -> bool {
        self.ranges.iter().any(|range| range.contains(network))
    }
}

/// Two ranges that have addresses in common and shouldn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap<'a> {
    /// The larger one.
    pub outer: &'a Network,
    /// The one inside it.
    pub inner: &'a Network,
}

impl Networks {
    /// Gathers the ranges.
    pub fn new(
        nodes: &[Node],
        objects: &Objects,
        settings: &Settings,
        overrides: &Overrides,
    ) -> Networks {
        let pools = pools(objects);
        let families = [Family::V4, Family::V6];
        let cluster_pods = families
            .map(|family| cluster_range::pods(family, objects, settings, overrides, &pools));
        let services =
            families.map(|family| cluster_range::services(family, objects, settings, overrides));
        let mut gathered = Gathered::default();
        for ranges in &cluster_pods {
            gathered.add_all(ranges, &NetworkKind::ClusterPods);
        }
        for ranges in services.iter().filter(|ranges| ranges.assumption.is_none()) {
            gathered.add_all(ranges, &NetworkKind::Services);
        }
        for (range, pool, place) in pools {
            gathered.add(range, NetworkKind::Pool(pool), place);
        }
        node_range::add(&mut gathered, nodes, objects, settings, &cluster_pods);
        Networks { all: gathered.into_networks(), cluster_pods, services }
    }

    /// The ranges of all pods.
    pub fn cluster_pods(&self, family: Family) -> &Ranges {
        of(&self.cluster_pods, family)
    }

    /// The ranges of Services' cluster IPs. Where they are only assumed they are single addresses:
    /// those that Services have.
    pub fn services(&self, family: Family) -> &Ranges {
        of(&self.services, family)
    }

    /// What an address is in, the smallest range first.
    pub fn at(&self, address: IpAddr) -> Vec<&Network> {
        let mut found: Vec<&Network> =
            self.all.iter().filter(|network| network.range.contains(&address)).collect();
        found.sort_by_key(|network| std::cmp::Reverse(network.range.prefix_len()));
        found
    }

    /// The pool of Calico's that an address is in.
    pub fn pool_at(&self, address: IpAddr) -> Option<(&Network, &Pool)> {
        self.at(address).into_iter().find_map(|network| match &network.kind {
            NetworkKind::Pool(pool) => Some((network, pool)),
            NetworkKind::ClusterPods
            | NetworkKind::NodePods { .. }
            | NetworkKind::Services
            | NetworkKind::Lan
            | NetworkKind::Bridge
            | NetworkKind::Route => None,
        })
    }

    /// The ranges of a node's pods.
    pub fn pods_of(&self, node: &str) -> impl Iterator<Item = &Network> {
        self.all.iter().filter(move |network| {
            matches!(&network.kind, NetworkKind::NodePods { node: of } if of == node)
        })
    }

    /// Ranges of different purposes that have addresses in common, those left out that contain
    /// each other by design: a node's pods in the cluster's, a pool for pods.
    pub fn overlaps(&self) -> Vec<Overlap<'_>> {
        overlap::overlaps(&self.all)
    }
}

fn of(both: &[Ranges; 2], family: Family) -> &Ranges {
    let [v4, v6] = both;
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

/// Ranges as they are found: one of the same kind that is found twice has two places.
#[derive(Default)]
struct Gathered(BTreeMap<(IpNet, NetworkKind), Vec<Place>>);

impl Gathered {
    fn add(&mut self, range: IpNet, kind: NetworkKind, place: Place) {
        let places = self.0.entry((range.trunc(), kind)).or_default();
        if !places.contains(&place) {
            places.push(place);
        }
    }

    fn add_all(&mut self, ranges: &Ranges, kind: &NetworkKind) {
        for range in &ranges.ranges {
            self.0.insert((*range, kind.clone()), ranges.places.clone());
        }
    }

    fn into_networks(self) -> Vec<Network> {
        let networks = self.0.into_iter();
        let mut all: Vec<Network> =
            networks.map(|((range, kind), places)| Network { range, kind, places }).collect();
        all.sort_by_key(|network| (network.range.network(), network.range.prefix_len()));
        all
    }
}

type FoundPool = (IpNet, Pool, Place);

fn pools(objects: &Objects) -> Vec<FoundPool> {
    let pods = objects.pods.iter().filter(|pod| !pod.spec.host_network);
    let addresses: Vec<IpAddr> = pods.flat_map(|pod| pod.ips()).collect();
    let used = |pool: &IpPool| {
        let family = Family::of(pool.spec.cidr.addr());
        let mut of_family = addresses.iter().filter(|ip| Family::of(**ip) == family).peekable();
        of_family.peek()?;
        Some(of_family.any(|ip| pool.spec.cidr.contains(ip)))
    };
    let found = |pool: &IpPool| {
        let described = Pool {
            name: pool.metadata.name.clone(),
            used: used(pool),
            nat_outgoing: pool.spec.nat_outgoing,
            disabled: pool.spec.disabled,
        };
        (pool.spec.cidr, described, object_place("IPPool", "", &pool.metadata.name, "spec.cidr"))
    };
    objects.ip_pools.iter().map(found).collect()
}

/// A field of an object.
fn object_place(kind: &'static str, namespace: &str, name: &str, key: &str) -> Place {
    Place::Object {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        part: String::new(),
        key: key.to_owned(),
    }
}

#[cfg(test)]
mod tests;

//! Ranges that have addresses in common and shouldn't.

use super::{Network, NetworkKind, Overlap};

/// `networks`: in order of the addresses, larger ones first. Of two prefixes that have an address
/// in common one is inside the other.
pub(super) fn overlaps(networks: &[Network]) -> Vec<Overlap<'_>> {
    let mut found = Vec::new();
    let mut around: Vec<&Network> = Vec::new();
    for inner in networks {
        while around.last().is_some_and(|outer| !outer.range.contains(&inner.range)) {
            around.pop();
        }
        let wrong = around.iter().filter(|outer| !is_by_design(outer, inner));
        found.extend(wrong.map(|outer| Overlap { outer, inner }));
        around.push(inner);
    }
    found
}

/// Whether one range may be inside another. Both may be equal, so each order counts.
fn is_by_design(outer: &Network, inner: &Network) -> bool {
    use NetworkKind::{Bridge, ClusterPods, Lan, NodePods, Pool, Route, Services};
    match (&outer.kind, &inner.kind) {
        (NodePods { node }, NodePods { node: other }) => node == other,
        // Calico's own API refuses one inside another (libcalico-go/lib/clientv3/ippool.go).
        (Pool(one), Pool(other)) => one.name == other.name,
        (ClusterPods, ClusterPods)
        | (Services, Services)
        | (Lan, Lan)
        | (Bridge, Bridge)
        | (Route, Route) => true,
        (ClusterPods | Pool(_), NodePods { .. })
        | (NodePods { .. }, ClusterPods | Pool(_))
        | (ClusterPods, Pool(_))
        | (Pool(_), ClusterPods) => true,
        // Pods may have the container engine's bridge, a different one on each node.
        (ClusterPods | NodePods { .. } | Pool(_), Bridge)
        | (Bridge, ClusterPods | NodePods { .. } | Pool(_)) => {
            let bridge = if outer.kind == Bridge { outer } else { inner };
            is_on_one_node(bridge) && !is_unused(outer) && !is_unused(inner)
        }
        // A route to a larger network is the way to all others in it.
        (Route, ClusterPods | NodePods { .. } | Pool(_) | Services | Bridge) => {
            outer.range != inner.range
        }
        (Route, Lan) | (Lan, Route) => true,
        // Routes to pods were left out where it is known that they are.
        (ClusterPods | NodePods { .. } | Pool(_) | Services | Bridge, Route) => false,
        (ClusterPods | NodePods { .. } | Pool(_), Services | Lan)
        | (Services | Lan, ClusterPods | NodePods { .. } | Pool(_))
        | (Services, Lan | Bridge)
        | (Lan | Bridge, Services)
        | (Lan, Bridge)
        | (Bridge, Lan) => false,
    }
}

fn is_on_one_node(network: &Network) -> bool {
    let mut nodes: Vec<_> = network.places.iter().filter_map(|place| place.node()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.len() == 1
}

fn is_unused(network: &Network) -> bool {
    match &network.kind {
        NetworkKind::Pool(pool) => pool.used == Some(false),
        NetworkKind::ClusterPods
        | NetworkKind::NodePods { .. }
        | NetworkKind::Services
        | NetworkKind::Lan
        | NetworkKind::Bridge
        | NetworkKind::Route => false,
    }
}

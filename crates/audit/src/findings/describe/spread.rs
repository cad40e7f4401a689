//! How a Service's ready endpoints are spread over nodes, and what that means with
//! `externalTrafficPolicy: Local`: a load balancer shares connections out over nodes, not pods.

use std::collections::{BTreeMap, BTreeSet};

use unmasq_cluster::kubernetes::Service;
use unmasq_model::packet::Family;

use super::Context;

/// Ready endpoints of a Service by node.
pub(in crate::findings) struct Spread {
    /// How many each node has that has any.
    pub(in crate::findings) on: BTreeMap<String, usize>,
    /// Nodes that have none.
    pub(in crate::findings) without: Vec<String>,
}

impl Spread {
    pub(in crate::findings) fn of(context: &Context<'_, '_>, service: &Service) -> Spread {
        // A pod of two families is in two slices: the family that has more of a node's counts.
        let mut on = Spread::of_family(context, service, Family::V4).on;
        for (node, count) in Spread::of_family(context, service, Family::V6).on {
            let known = on.entry(node).or_default();
            *known = count.max(*known);
        }
        Spread::over(context, on)
    }

    /// The endpoints of one family.
    pub(in crate::findings) fn of_family(
        context: &Context<'_, '_>,
        service: &Service,
        family: Family,
    ) -> Spread {
        let mut pods: BTreeSet<(&str, std::net::IpAddr)> = BTreeSet::new();
        for slice in context.lookup.slices_of(service) {
            let ready = slice.endpoints.iter().filter(|one| one.conditions.ready != Some(false));
            for endpoint in ready {
                let address = endpoint.addresses.first();
                if let (Some(node), Some(address)) = (endpoint.node_name.as_deref(), address) {
                    pods.insert((node, *address));
                }
            }
        }
        let mut on: BTreeMap<String, usize> = BTreeMap::new();
        for (node, _) in pods.into_iter().filter(|(_, one)| Family::of(*one) == family) {
            *on.entry(node.to_owned()).or_default() += 1;
        }
        Spread::over(context, on)
    }

    fn over(context: &Context<'_, '_>, on: BTreeMap<String, usize>) -> Spread {
        let names = context.cluster.nodes.iter().map(|node| node.name.clone());
        let without = names.filter(|name| !on.contains_key(name)).collect();
        Spread { on, without }
    }

    /// What the hottest pod gets, in tenths of what a pod gets on average: with P pods on N nodes,
    /// a pod that shares its node with c - 1 others gets 1 / (N c) of all connections, the average
    /// is 1 / P.
    pub(in crate::findings) fn hottest(&self) -> Option<usize> {
        let least = *self.on.values().min()?;
        let pods: usize = self.on.values().sum();
        Some((pods * 10 + self.on.len() * least / 2) / (self.on.len() * least))
    }

    pub(super) fn is_even(&self) -> bool {
        self.on.values().min() == self.on.values().max()
    }

    /// `1 on n1, 8 on n3: the hottest pod would get 3.3 times the average, 8 times the coolest`
    pub(super) fn sentence(&self) -> Option<String> {
        let tenths = self.hottest()?;
        let (least, most) = (*self.on.values().min()?, *self.on.values().max()?);
        let on: Vec<String> =
            self.on.iter().map(|(node, number)| format!("{number} on {node}")).collect();
        let (whole, part) = (most / least, most % least * 10 / least);
        let times = if part == 0 { whole.to_string() } else { format!("{whole}.{part}") };
        Some(format!(
            "{}: the hottest pod would get {}.{} times the average of connections, {times} times as many as the coolest",
            super::few(&on),
            tenths / 10,
            tenths % 10
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(on: &[(&str, usize)]) -> Spread {
        let on = on.iter().map(|(node, number)| ((*node).to_owned(), *number)).collect();
        Spread { on, without: Vec::new() }
    }

    /// Three nodes with 1, 1 and 8 pods: a node gets a third of the connections. A lonely pod gets
    /// 1/3 of all, one of eight 1/24; the average is 1/10.
    #[test]
    fn the_lonely_pods_of_three_nodes() {
        let uneven = spread(&[("a", 1), ("b", 1), ("c", 8)]);
        assert_eq!(uneven.hottest(), Some(33));
        assert!(!uneven.is_even());
        let expected = "1 on a, 1 on b, 8 on c: the hottest pod would get 3.3 times the average of \
                        connections, 8 times as many as the coolest";
        assert_eq!(uneven.sentence().as_deref(), Some(expected));
    }

    #[test]
    fn the_same_everywhere_and_nothing_anywhere() {
        assert_eq!(spread(&[("a", 2), ("b", 2)]).hottest(), Some(10));
        assert!(spread(&[("a", 2), ("b", 2)]).is_even());
        assert_eq!(spread(&[]).sentence(), None);
    }
}

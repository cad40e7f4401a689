//! Packets that a node sends into a bridge of its own, whose network others outside have too.
//!
//! In: a way that left the hosts that are walked. Out: the bridge that has it, if one has.

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_eval::journey::{Arrival, Journey};
use unmasq_model::link::Address;

use super::Paths;

impl Paths<'_> {
    /// The bridge into which a node sends what is for somebody outside, because that one has the
    /// caller's network: nobody there is the caller.
    pub(super) fn astray<'w>(&self, back: &'w [Journey]) -> Option<&'w str> {
        back.iter().find_map(|way| Some(self.swallowed_by_bridge(way)?.1))
    }

    /// What a node sends into a bridge of its own that has the destination's network stays there:
    /// it reaches a container, or nobody, and never the one outside who has that address too.
    pub(super) fn told_apart(&self, there: Journey) -> Journey {
        let Some((host, device, to)) = self.swallowed_by_bridge(&there) else { return there };
        if self.is_for_pods(to) {
            return there;
        }
        let node = self.node_of(host).map_or("?", |node| &self.cluster.nodes[node].name);
        let why = format!(
            "{to} is in the network of {device} on node {node}: who has it there was not captured"
        );
        Journey { arrival: Arrival::Unknown(vec![why]), ..there }
    }

    /// The host whose bridge swallows a packet that left, the bridge, and the packet's destination:
    /// one on whose network that is, other than the device that leads outside.
    fn swallowed_by_bridge<'w>(&self, way: &'w Journey) -> Option<(usize, &'w str, IpAddr)> {
        let last = way.legs.last().filter(|_| way.arrival == Arrival::Left)?;
        let device = last.outcome.out.as_deref()?;
        let link = self.evaluators.get(last.host)?.link(device)?;
        let to = way.ends()?.1.address?;
        let mut nets = link.addresses.iter().filter_map(Address::network);
        let is_uplink = || self.uplink(last.host, to).is_ok_and(|uplink| *uplink == *device);
        let swallows = link.is_bridge() && nets.any(|net: IpNet| net.contains(&to)) && !is_uplink();
        swallows.then_some((last.host, device, to))
    }

    /// Whether an address is one of a node's pods, or may become one.
    fn is_for_pods(&self, address: IpAddr) -> bool {
        let nodes = self.cluster.nodes.iter();
        let objects = nodes.filter_map(|node| self.cluster.objects.node(&node.name));
        let mut nets = objects.flat_map(|node| node.pod_cidrs());
        self.wires.is_pod(address) || nets.any(|net| net.contains(&address))
    }
}

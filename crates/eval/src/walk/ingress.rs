//! Route lookups with the checks that go with them, and what bridges do.
//!
//! IPv4: `ip_route_input_slow`, `fib_validate_source`, `ip_forward`, `__mkroute_output`.
//! IPv6: `ipv6_rcv`, `ip6_forward`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use unmasq_model::link::Link;
use unmasq_model::packet::{Family, Protocol, Transport};
use unmasq_model::route::{Route, RouteKind};

use super::{Step, Stop, Walk};
use crate::choice::Kind;
use crate::fib::{Flow, Found, Refusal};
use crate::trace::{Reason, Stage, Verdict};

/// Where routing sends a packet.
pub(super) enum Routed {
    Local,
    Out { device: Box<str>, next_hop: IpAddr },
}

impl<'h> Walk<'_, 'h, '_> {
    /// What `ipv6_rcv` drops before any hook.
    pub(super) fn before_ip(&mut self, device: &str) -> Step {
        let (IpAddr::V6(source), IpAddr::V6(destination)) =
            (self.packet.source, self.packet.destination)
        else {
            return Ok(());
        };
        if device != "lo" && (source.is_loopback() || destination.is_loopback()) {
            return self.martian("::1 on the wire");
        }
        if source.is_multicast() {
            return self.martian("a multicast source");
        }
        Ok(())
    }

    fn martian<T>(&mut self, what: &str) -> Step<T> {
        self.refuse(Verdict::Dropped, Reason::Martian, what)
    }

    /// Routes a packet that came in by `device`.
    pub(super) fn route_in(&mut self, device: &str) -> Step<Routed> {
        let evaluator = self.evaluator;
        let master = evaluator.link(device).and_then(|link| link.master.as_deref());
        if let Some(vrf) = master.and_then(|master| evaluator.link(master))
            && vrf.kind.as_deref() == Some("vrf")
        {
            let why = format!("{device} is in the VRF {}, which is not modelled", vrf.name);
            return Err(Stop::Unknown(why));
        }
        match self.family() {
            Family::V4 => self.route_in4(device),
            Family::V6 => self.route_in6(device),
        }
    }

    fn route_in4(&mut self, device: &str) -> Step<Routed> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) =
            (self.packet.source, self.packet.destination)
        else {
            return Err(Stop::Unknown("the packet's addresses are of two families".to_owned()));
        };
        if source.is_multicast() || source.is_broadcast() {
            return self.martian("a source that can't be a host's");
        }
        // With the source 0.0.0.0 too: DHCP.
        if destination.is_multicast() || destination.is_broadcast() {
            return Err(Stop::Unknown("multicast and broadcast are not modelled".to_owned()));
        }
        if source.is_unspecified() {
            return self.martian("a source that can't be a host's");
        }
        // ipv4_is_zeronet (include/linux/in.h): the rest of 0.0.0.0/8 is ordinary.
        if destination.is_unspecified() {
            return self.martian("the destination 0.0.0.0");
        }
        if source.is_loopback() || destination.is_loopback() {
            match self.either("route_localnet", device) {
                None => {
                    let why = "route_localnet was not captured (sysctl), and 127.0.0.0/8 needs it";
                    return Err(Stop::Unknown(why.to_owned()));
                }
                Some(true) => {}
                Some(false) => return self.martian("127.0.0.0/8 without route_localnet"),
            }
        }
        let flow = Flow::of(&self.packet, self.mark.clone(), device);
        let route = match self.evaluator.fib.lookup(&flow) {
            Found::Unknown(why) => return Err(Stop::Unknown(why)),
            Found::Refused(refusal) => {
                self.forwarding4(device)?;
                return self.refused(refusal);
            }
            Found::Route(route) => route,
        };
        match route.kind {
            RouteKind::Local => {
                self.validate_source(device, source, None)?;
                Ok(self.keep(route))
            }
            RouteKind::Broadcast => Err(Stop::Unknown("broadcast is not modelled".to_owned())),
            RouteKind::Unicast => {
                self.forwarding4(device)?;
                let routed = self.take_hop(route, &flow)?;
                let out = match &routed {
                    Routed::Out { device, .. } => Some(&**device),
                    Routed::Local => None,
                };
                self.validate_source(device, source, out)?;
                Ok(routed)
            }
            RouteKind::Anycast
            | RouteKind::Multicast
            | RouteKind::Blackhole
            | RouteKind::Unreachable
            | RouteKind::Prohibit
            | RouteKind::Throw => self.martian("a destination that can't be forwarded to"),
        }
    }

    fn route_in6(&mut self, device: &str) -> Step<Routed> {
        if self.packet.destination.is_multicast() {
            return Err(Stop::Unknown("multicast is not modelled".to_owned()));
        }
        // rt6_need_strict (net/ipv6/route.c): a translation back can bring ::1 here.
        let strict = match self.packet.destination {
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        let flow = Flow {
            strict: strict.then_some(device),
            ..Flow::of(&self.packet, self.mark.clone(), device)
        };
        let route = match self.evaluator.fib.lookup(&flow) {
            Found::Unknown(why) => return Err(Stop::Unknown(why)),
            // ip6_pkt_discard and its kind answer whether the host forwards or not.
            Found::Refused(refusal) => return self.refused(refusal),
            Found::Route(route) => route,
        };
        match route.kind {
            RouteKind::Local | RouteKind::Anycast => Ok(self.keep(route)),
            RouteKind::Unicast => self.take_hop(route, &flow),
            RouteKind::Broadcast
            | RouteKind::Multicast
            | RouteKind::Blackhole
            | RouteKind::Unreachable
            | RouteKind::Prohibit
            | RouteKind::Throw => self.martian("a destination that can't be forwarded to"),
        }
    }

    fn refused<T>(&mut self, refusal: Refusal) -> Step<T> {
        let to = self.packet.destination;
        match refusal {
            Refusal::NoRoute => {
                let did = format!("no route to {to}");
                self.refuse(Verdict::Rejected, Reason::NoRoute, &did)
            }
            Refusal::Unreachable => {
                let did = format!("the route to {to} is unreachable");
                self.refuse(Verdict::Rejected, Reason::Unreachable, &did)
            }
            Refusal::Prohibit => {
                let did = format!("the route to {to} is prohibited");
                self.refuse(Verdict::Rejected, Reason::Prohibit, &did)
            }
            Refusal::Blackhole => {
                let did = format!("the route to {to} is a blackhole");
                self.refuse(Verdict::Dropped, Reason::Blackhole, &did)
            }
        }
    }

    /// One of the route's next hops, by a hash of the flow.
    fn take_hop(&mut self, route: &'h Route, flow: &Flow<'_>) -> Step<Routed> {
        let hops: Vec<_> = self.evaluator.fib.hops(route, flow).collect();
        let chosen = self.choices.choose(Kind::State, hops.len());
        let Some(hop) = hops.get(chosen) else {
            return Err(Stop::Unknown(format!(
                "the route to {} has no next hop",
                flow.destination
            )));
        };
        let Some(device) = hop.device.clone() else {
            return Err(Stop::Unknown(format!("the route to {} has no device", flow.destination)));
        };
        let via = hop.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        let route = format!("{}{via} dev {device} (table {})", prefix(route), route.table);
        self.note(Stage::Routing, &route, format!("out by {device}"));
        Ok(Routed::Out { device, next_hop: hop.gateway.unwrap_or(flow.destination) })
    }

    /// The route leads to the host itself.
    fn keep(&mut self, route: &Route) -> Routed {
        let by = format!("local {} (table {})", prefix(route), route.table);
        self.note(Stage::Routing, &by, "to the host itself");
        Routed::Local
    }

    /// `IN_DEV_FORWARD`.
    fn forwarding4(&mut self, device: &str) -> Step {
        let sysctls = self.evaluator.host.sysctls.as_ref();
        let value = sysctls.and_then(|sysctls| {
            sysctls
                .device("ipv4", device, "forwarding")
                .or_else(|| sysctls.number("net.ipv4.ip_forward"))
        });
        match value {
            None => {
                self.assume(format!("IPv4 forwarding is on for {device} (sysctl not captured)"))
            }
            Some(0) => {
                let did = format!("IPv4 forwarding is off on {device}");
                self.refuse(Verdict::Dropped, Reason::NoForwarding, &did)
            }
            Some(_) => Ok(()),
        }
    }

    /// The checks of `ip_forward` and `ip6_forward` before the forward hook.
    pub(super) fn may_forward(&mut self, device: &str) -> Step {
        if let IpAddr::V6(source) = self.packet.source {
            let sysctls = self.evaluator.host.sysctls.as_ref();
            let forced = sysctls.and_then(|s| s.device("ipv6", device, "force_forwarding"));
            match sysctls.and_then(|s| s.number("net.ipv6.conf.all.forwarding")) {
                _ if forced.is_some_and(|forced| forced != 0) => {}
                None => self.assume("IPv6 forwarding is on (sysctl not captured)".to_owned())?,
                Some(0) => {
                    let did = "IPv6 forwarding is off";
                    return self.refuse(Verdict::Dropped, Reason::NoForwarding, did);
                }
                Some(_) => {}
            }
            if source == Ipv6Addr::UNSPECIFIED || source.is_loopback() {
                return self.martian("a source that can't be forwarded");
            }
        }
        match &mut self.packet.ttl {
            Some(ttl) if *ttl <= 1 => {
                let did = "time to live ran out";
                return self.refuse(Verdict::Rejected, Reason::Ttl, did);
            }
            Some(ttl) => *ttl -= 1,
            None => {}
        }
        if let IpAddr::V6(source) = self.packet.source
            && source.is_unicast_link_local()
        {
            let did = "a link-local source does not leave its link";
            return self.refuse(Verdict::Rejected, Reason::Martian, did);
        }
        Ok(())
    }

    /// `fib_validate_source`: the reverse-path filter and own addresses as a source. `out`: the
    /// device that the packet leaves by.
    fn validate_source(&mut self, device: &str, source: Ipv4Addr, out: Option<&str>) -> Step {
        let strictness = self.rp_filter(device)?;
        let source = IpAddr::V4(source);
        if strictness == 0 && out != Some(device) {
            let full = self.evaluator.fib.has_custom_rules4();
            if !full {
                return self.own_source(device, source);
            }
        }
        let mark = match self.either("src_valid_mark", device) {
            Some(true) => self.mark.clone(),
            Some(false) => Ok(0),
            None if self.mark == Ok(0) => Ok(0),
            None => Err("src_valid_mark was not captured (sysctl)".to_owned()),
        };
        let flow = Flow {
            source: Some(self.packet.destination),
            mark,
            protocol: Some(self.packet.protocol).filter(|p| *p != Protocol(0)),
            transport: turned_around(self.packet.transport),
            // `flowi4_iif = oif ? : LOOPBACK_IFINDEX`
            iif: out.unwrap_or("lo"),
            ..Flow::to(source)
        };
        let filtered = |walk: &mut Self| {
            let did = match strictness {
                1 => format!("strict rp_filter on {device}: the way back to {source} is not by it"),
                _ => format!("rp_filter on {device}: there is no way back to {source}"),
            };
            walk.refuse(Verdict::Dropped, Reason::RpFilter, &did)
        };
        let has_address = self
            .evaluator
            .link(device)
            .is_none_or(|link| link.addresses.iter().any(|address| address.local.is_ipv4()));
        let route = match self.evaluator.fib.lookup(&flow) {
            // Without a filter any route will do; only an own address is refused.
            Found::Unknown(_) if strictness == 0 => return self.own_source(device, source),
            Found::Unknown(why) => return Err(Stop::Unknown(why)),
            Found::Refused(_) if strictness != 0 => return filtered(self),
            Found::Refused(_) => return Ok(()),
            Found::Route(route) => route,
        };
        match route.kind {
            RouteKind::Unicast => {}
            // accept_local lifts this check alone: the device is still compared.
            RouteKind::Local => self.own_source(device, source)?,
            RouteKind::Broadcast
            | RouteKind::Anycast
            | RouteKind::Multicast
            | RouteKind::Blackhole
            | RouteKind::Unreachable
            | RouteKind::Prohibit
            | RouteKind::Throw => return self.martian("a source that can't be a host's"),
        }
        if route.next_hops.iter().any(|hop| hop.device.as_deref() == Some(device)) {
            return Ok(());
        }
        if strictness == 1 || (!has_address && strictness != 0) {
            return filtered(self);
        }
        Ok(())
    }

    /// A source that the host itself owns is a martian, unless `accept_local` is on.
    fn own_source(&mut self, device: &str, source: IpAddr) -> Step {
        match self.evaluator.fib.owns(source) {
            Err(why) => Err(Stop::Unknown(why)),
            Ok(false) => Ok(()),
            Ok(true) => match self.either("accept_local", device) {
                Some(true) => Ok(()),
                Some(false) => self.martian("the host's own address as a source"),
                None => Err(Stop::Unknown("accept_local was not captured (sysctl)".to_owned())),
            },
        }
    }

    /// The larger of the device's value and that of `all`.
    fn rp_filter(&mut self, device: &str) -> Step<i64> {
        let sysctls = self.evaluator.host.sysctls.as_ref();
        let value = |name: &str| sysctls.and_then(|s| s.device("ipv4", name, "rp_filter"));
        match (value(device), value("all")) {
            (Some(own), Some(all)) => Ok(own.max(all)),
            (Some(one), None) | (None, Some(one)) if one > 0 => {
                self.assume(format!("rp_filter on {device} is {one} (not all of it captured)"))?;
                Ok(one)
            }
            (Some(_), None) | (None, Some(_)) | (None, None) => {
                self.assume(format!("rp_filter is off on {device} (sysctl not captured)"))?;
                Ok(0)
            }
        }
    }

    /// A setting that is on if it is on for the device or for all; `None`: not captured.
    fn either(&self, setting: &str, device: &str) -> Option<bool> {
        let sysctls = self.evaluator.host.sysctls.as_ref()?;
        let value = |name: &str| sysctls.device("ipv4", name, setting).map(|value| value != 0);
        match (value(device), value("all")) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            (None, _) | (_, None) => None,
        }
    }

    /// Routes a packet of the host itself. `first`: before any hook, so that the sender is told
    /// of a failure; later lookups drop.
    pub(super) fn route_out(&mut self, first: bool) -> Step<Routed> {
        let destination = self.packet.destination;
        // ip_route_output_key_hash_rcu and __mkroute_output (net/ipv4/route.c) treat these by
        // themselves, whatever routes say; 0.0.0.0 becomes the host's own address.
        let special = match destination {
            IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified(),
            IpAddr::V6(v6) => v6.is_multicast() || v6.is_unspecified(),
        };
        if special {
            return Err(Stop::Unknown(format!("sending to {destination} is not modelled")));
        }
        let flow = Flow { local: true, ..Flow::of(&self.packet, self.mark.clone(), "lo") };
        let route = match self.evaluator.fib.lookup(&flow) {
            Found::Unknown(why) => return Err(Stop::Unknown(why)),
            Found::Refused(refusal) => {
                // At first the sender's connect() fails, for a blackhole too (EINVAL).
                let verdict = if first { Verdict::Rejected } else { Verdict::Dropped };
                return match self.refused(refusal) {
                    Err(Stop::End(_, reason)) => Err(Stop::End(verdict, reason)),
                    other => other,
                };
            }
            Found::Route(route) => route,
        };
        let routed = match route.kind {
            RouteKind::Local | RouteKind::Anycast => return Ok(self.keep(route)),
            RouteKind::Unicast => self.take_hop(route, &flow)?,
            RouteKind::Broadcast
            | RouteKind::Multicast
            | RouteKind::Blackhole
            | RouteKind::Unreachable
            | RouteKind::Prohibit
            | RouteKind::Throw => {
                let why = format!("sending to {destination} is not modelled");
                return Err(Stop::Unknown(why));
            }
        };
        self.loopback_leaves(&routed, first)?;
        Ok(routed)
    }

    /// `__mkroute_output`: 127.0.0.0/8 leaves only by a device with route_localnet.
    fn loopback_leaves(&mut self, routed: &Routed, first: bool) -> Step {
        let Routed::Out { device, .. } = routed else {
            return Ok(());
        };
        let from_loopback = matches!(self.packet.source, IpAddr::V4(v4) if v4.is_loopback());
        if !from_loopback || **device == *"lo" {
            return Ok(());
        }
        match self.either("route_localnet", device) {
            Some(true) => Ok(()),
            None => Err(Stop::Unknown("route_localnet was not captured (sysctl)".to_owned())),
            Some(false) => {
                let verdict = if first { Verdict::Rejected } else { Verdict::Dropped };
                let did = format!("127.0.0.0/8 does not leave by {device}");
                self.refuse(verdict, Reason::Martian, &did)
            }
        }
    }

    /// Whether the sender reaches the destination over the bridge itself, so that the host's
    /// routing is not asked: both are neighbours on it.
    pub(super) fn is_bridged(&mut self, device: &str) -> Step<bool> {
        if !self.is_bridge(device) {
            return Ok(false);
        }
        Ok(self.neighbour_on(device, self.packet.destination)?
            && self.neighbour_on(device, self.packet.source)?)
    }

    fn is_bridge(&self, device: &str) -> bool {
        self.evaluator.link(device).is_some_and(Link::is_bridge)
    }

    fn neighbour_on(&self, device: &str, address: IpAddr) -> Step<bool> {
        match self.evaluator.fib.lookup(&Flow::to(address)) {
            Found::Unknown(why) => Err(Stop::Unknown(why)),
            Found::Refused(_) => Ok(false),
            Found::Route(route) => Ok(route.kind == RouteKind::Unicast
                && route
                    .next_hops
                    .iter()
                    .any(|hop| hop.gateway.is_none() && hop.device.as_deref() == Some(device))),
        }
    }

    /// br_netfilter's `bridge-nf-call-iptables`.
    pub(super) fn bridge_calls_hooks(&mut self, device: &str) -> Step<bool> {
        let name = match self.family() {
            Family::V4 => "net.bridge.bridge-nf-call-iptables",
            Family::V6 => "net.bridge.bridge-nf-call-ip6tables",
        };
        let own = self.evaluator.link(device).is_some_and(|link| match self.family() {
            Family::V4 => link.calls_iptables,
            Family::V6 => link.calls_ip6tables,
        });
        // br_netfilter_hooks.c: the bridge's own setting is enough.
        match self.evaluator.host.sysctls.as_ref().and_then(|s| s.number(name)) {
            _ if own => Ok(true),
            Some(value) => Ok(value != 0),
            None => {
                self.assume(format!("{name} is off, so {device} alone handles bridged packets"))?;
                Ok(false)
            }
        }
    }

    /// A packet that a DNAT turned back onto its bridge: with bridge-nf-call-iptables the bridge
    /// itself sends it on (br_netfilter_hooks.c, `br_nf_pre_routing_finish`), else it is routed.
    pub(super) fn stays_on_bridge(&mut self, device: &str) -> Step<bool> {
        Ok(self.is_bridge(device) && self.bridge_calls_hooks(device)?)
    }

    /// A bridge does not send a packet out of the port it came in by, unless hairpin mode is on.
    pub(super) fn hairpin(&mut self, bridge: &str) -> Step {
        let host = self.evaluator.host;
        let ports: Vec<_> = host
            .links
            .iter()
            .flatten()
            .filter(|link| link.master.as_deref() == Some(bridge))
            .collect();
        if !ports.is_empty() && ports.iter().all(|port| port.hairpin == Some(true)) {
            return Ok(());
        }
        let (from, to) = (self.original.source, self.packet.destination);
        let same = if from == to {
            true
        } else {
            match (self.port_of(bridge, from), self.port_of(bridge, to)) {
                (Some(from), Some(to)) => from == to,
                _ => {
                    let which = format!("{from} and {to} are behind different ports of {bridge}");
                    self.assume(format!("{which} (bridge-fdb.json or ip-neigh.json don't tell)"))?;
                    false
                }
            }
        };
        if !same {
            return Ok(());
        }
        let hairpin = match self.port_of(bridge, to) {
            Some(name) => self.evaluator.link(name).and_then(|link| link.hairpin),
            None if ports.iter().all(|port| port.hairpin == Some(false)) => Some(false),
            None => None,
        };
        match hairpin {
            Some(true) => Ok(()),
            Some(false) => {
                self.note(
                    Stage::Link,
                    "bridge",
                    format!("{bridge} does not send it back out of the port it came in by"),
                );
                Err(Stop::End(Verdict::Dropped, Some(Reason::Hairpin)))
            }
            None => Err(Stop::Unknown(format!(
                "whether the port of {to} on {bridge} is in hairpin mode is not known"
            ))),
        }
    }

    /// The bridge port behind which an address is, by neighbours and the forwarding table.
    fn port_of(&self, bridge: &str, address: IpAddr) -> Option<&'h str> {
        let host = self.evaluator.host;
        let neighbour = host
            .neighbours
            .as_ref()?
            .iter()
            .find(|n| n.address == address && *n.device == *bridge)?;
        let mac = neighbour.mac.as_ref()?;
        host.fdb
            .as_ref()?
            .iter()
            .find(|entry| entry.mac == *mac && entry.master.as_deref() == Some(bridge))
            .map(|entry| &*entry.device)
    }
}

/// The ports as the answer has them.
fn turned_around(transport: Transport) -> Transport {
    match transport {
        Transport::Ports { source, destination } => {
            Transport::Ports { source: destination, destination: source }
        }
        Transport::Icmp { .. } | Transport::Other => transport,
    }
}

/// A route's destination as iproute2 writes it.
fn prefix(route: &Route) -> String {
    let net = route.destination;
    match net.prefix_len() {
        0 => "default".to_owned(),
        length if length == route.family().bits() => net.addr().to_string(),
        _ => net.to_string(),
    }
}

//! Route lookups: policy rules, tables, longest prefix, next hops; and address types.
//!
//! IPv4: net/ipv4/fib_rules.c, fib_trie.c, fib_semantics.c. IPv6: net/ipv6/fib6_rules.c,
//! ip6_fib.c, route.c. What is not here: the checks on a packet that comes in (`ingress.rs`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::host::Host;
use unmasq_model::link::Link;
use unmasq_model::packet::{Family, Packet, Protocol, Transport};
use unmasq_model::route::{NextHop, Route, RouteKind, RoutingRule, RuleAction, TableId};

use crate::select;

/// What a lookup is made for.
#[derive(Debug, Clone)]
pub(crate) struct Flow<'f> {
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: IpAddr,
    /// `Err`: why it is not known.
    pub(crate) mark: Result<u32, String>,
    /// The device it came in by; `lo` for what the host sends and for checks of a source.
    pub(crate) iif: &'f str,
    /// Only routes over this device.
    pub(crate) oif: Option<&'f str>,
    /// The same, where the destination means something on one link only; rules don't look at it.
    pub(crate) strict: Option<&'f str>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) transport: Transport,
    /// Whether the host itself sends it, so that user ids matter and none is known.
    pub(crate) local: bool,
}

impl<'f> Flow<'f> {
    /// The lookup for a packet that came in by `iif`.
    pub(crate) fn of(packet: &Packet, mark: Result<u32, String>, iif: &'f str) -> Flow<'f> {
        Flow {
            source: Some(packet.source),
            destination: packet.destination,
            mark,
            iif,
            oif: None,
            strict: None,
            protocol: Some(packet.protocol),
            transport: packet.transport,
            local: false,
        }
    }

    /// The only device whose routes count, if not all do.
    fn only(&self) -> Option<&'f str> {
        self.oif.or(self.strict)
    }

    /// The lookup for a destination alone, as the host makes it for itself.
    pub(crate) fn to(destination: IpAddr) -> Flow<'static> {
        Flow {
            source: None,
            destination,
            mark: Ok(0),
            iif: "lo",
            oif: None,
            strict: None,
            protocol: None,
            transport: Transport::Other,
            local: false,
        }
    }
}

/// The result of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found<'h> {
    /// A route to somewhere. Several next hops: the kernel takes one by a hash of the flow.
    Route(&'h Route),
    /// None, or one that refuses.
    Refused(Refusal),
    /// Can't be told.
    Unknown(String),
}

/// Why a lookup gave no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoRoute,
    Unreachable,
    Blackhole,
    Prohibit,
}

/// What a policy rule does.
enum Acted<'h> {
    Found(Found<'h>),
    /// The lookup goes on with the rule of this index.
    OnAt(usize),
}

/// A host's routes, ordered as the kernel tries them, and its devices.
pub(crate) struct Fib<'h> {
    host: &'h Host,
    tables: [Tables<'h>; 2],
    links: HashMap<&'h str, &'h Link>,
}

type Tables<'h> = BTreeMap<&'h TableId, Table<'h>>;

/// Routes by the length of their prefixes, the longest first, and by network: those for certain
/// sources first, then the lowest metric, then as listed.
#[derive(Default)]
struct Table<'h>(BTreeMap<Reverse<u8>, HashMap<IpAddr, Vec<&'h Route>>>);

impl<'h> Table<'h> {
    fn add(&mut self, route: &'h Route) {
        let net = route.destination;
        let length = self.0.entry(Reverse(net.prefix_len())).or_default();
        length.entry(net.network()).or_default().push(route);
    }

    /// Those that have the address in their prefix.
    fn with(&self, address: IpAddr) -> impl Iterator<Item = &'h Route> {
        let found = self.0.iter().filter_map(move |(Reverse(length), nets)| {
            nets.get(&IpNet::new(address, *length).ok()?.network())
        });
        found.flatten().copied()
    }
}

impl<'h> Fib<'h> {
    pub(crate) fn new(host: &'h Host) -> Self {
        let tables = [tables(host.routes4.as_deref()), tables(host.routes6.as_deref())];
        let links = host.links.iter().flatten().rev().map(|link| (&*link.name, link));
        Fib { host, tables, links: links.collect() }
    }

    /// The device of that name.
    pub(crate) fn link(&self, name: &str) -> Option<&'h Link> {
        self.links.get(name).copied()
    }

    fn tables(&self, family: Family) -> &Tables<'h> {
        match family {
            Family::V4 => &self.tables[0],
            Family::V6 => &self.tables[1],
        }
    }

    /// The route for a flow.
    pub(crate) fn lookup(&self, flow: &Flow<'_>) -> Found<'h> {
        let family = Family::of(flow.destination);
        let (routes, rules, v) = match family {
            Family::V4 => (&self.host.routes4, &self.host.rules4, ""),
            Family::V6 => (&self.host.routes6, &self.host.rules6, "6"),
        };
        if routes.is_none() {
            return Found::Unknown(format!(
                "the {family} routes were not captured, or not all can be read (ip{v}-route.json)"
            ));
        }
        match rules {
            None => Found::Unknown(format!(
                "the {family} policy rules were not captured, or not all can be read \
                 (ip{v}-rule.json)"
            )),
            Some(rules) => self.lookup_from(rules, 0, flow),
        }
    }

    fn lookup_from(&self, rules: &'h [RoutingRule], first: usize, flow: &Flow<'_>) -> Found<'h> {
        let mut index = first;
        while let Some(rule) = rules.get(index) {
            match selects(rule, flow) {
                Ok(false) => index += 1,
                Ok(true) => match self.act(rules, index, flow) {
                    Acted::Found(found) => return found,
                    Acted::OnAt(next) => index = next,
                },
                Err(why) => return self.lookup_with_open_questions(rules, index, flow, why),
            }
        }
        // No rule left: fib_rules_lookup gives -ESRCH, which becomes "network unreachable".
        Found::Refused(Refusal::NoRoute)
    }

    /// The lookup from a rule on of which nobody knows whether it selects. It does not matter
    /// where both ways lead to one route. From the last rule back, so that each is asked once.
    fn lookup_with_open_questions(
        &self,
        rules: &'h [RoutingRule],
        first: usize,
        flow: &Flow<'_>,
        why: String,
    ) -> Found<'h> {
        let mut from: Vec<Found<'h>> = vec![Found::Refused(Refusal::NoRoute)];
        // `from` holds the results of the later rules, the last one first.
        let result_at =
            |from: &[Found<'h>], index: usize| from.get(rules.len().saturating_sub(index)).cloned();
        for index in (first..rules.len()).rev() {
            let without = result_at(&from, index + 1);
            let with = || match self.act(rules, index, flow) {
                Acted::Found(found) => Some(found),
                Acted::OnAt(next) => result_at(&from, next),
            };
            let found = match selects(&rules[index], flow) {
                Ok(false) => without,
                Ok(true) => with(),
                Err(why) => {
                    let with = with();
                    if with == without { with } else { Some(Found::Unknown(why)) }
                }
            };
            from.push(found.unwrap_or_else(|| Found::Unknown(why.clone())));
        }
        from.pop().unwrap_or(Found::Unknown(why))
    }

    /// What a rule does that selects.
    fn act(&self, rules: &'h [RoutingRule], index: usize, flow: &Flow<'_>) -> Acted<'h> {
        let rule = &rules[index];
        match &rule.action {
            RuleAction::Lookup(table) => {
                let found = self.in_table(table, flow);
                match (found, rule.suppress_prefix_length) {
                    (None, _) => Acted::OnAt(index + 1),
                    (Some(Found::Route(route)), Some(length))
                        if route.destination.prefix_len() <= length =>
                    {
                        Acted::OnAt(index + 1)
                    }
                    (Some(found), _) => Acted::Found(found),
                }
            }
            // fib_rules.c: a goto only leads forward.
            RuleAction::Goto(priority) => {
                let target = rules.iter().position(|r| r.priority >= *priority);
                Acted::OnAt(target.filter(|target| *target > index).unwrap_or(index + 1))
            }
            RuleAction::Nop => Acted::OnAt(index + 1),
            RuleAction::Blackhole => Acted::Found(Found::Refused(Refusal::Blackhole)),
            RuleAction::Unreachable => Acted::Found(Found::Refused(Refusal::Unreachable)),
            RuleAction::Prohibit => Acted::Found(Found::Refused(Refusal::Prohibit)),
        }
    }

    /// The longest prefix of one table; `None`: nothing there, or a `throw` route.
    fn in_table(&self, table: &TableId, flow: &Flow<'_>) -> Option<Found<'h>> {
        let routes = self.tables(Family::of(flow.destination)).get(table)?;
        // fib6_node_lookup_1: where a prefix has routes for certain sources, another source finds
        // nothing there, not even a route for all; the lookup goes on with a shorter prefix.
        let mut hidden = None;
        for route in routes.with(flow.destination).filter(|route| route.tos == 0) {
            if let Some(opaque) = &route.opaque {
                return Some(Found::Unknown(format!("a route is not understood: {opaque}")));
            }
            if !route.from.is_none_or(|from| flow.source.is_some_and(|s| from.contains(&s))) {
                hidden = Some(route.destination);
                continue;
            }
            if route.from.is_none() && hidden == Some(route.destination) {
                continue;
            }
            let refuses = matches!(
                route.kind,
                RouteKind::Blackhole
                    | RouteKind::Unreachable
                    | RouteKind::Prohibit
                    | RouteKind::Throw
            );
            if refuses && flow.only().is_some() && route.family() == Family::V6 {
                // A route that refuses is one by lo: another device's it is not (rt6_score_route).
                continue;
            }
            match route.kind {
                RouteKind::Throw => return None,
                RouteKind::Blackhole => return Some(Found::Refused(Refusal::Blackhole)),
                RouteKind::Unreachable => return Some(Found::Refused(Refusal::Unreachable)),
                RouteKind::Prohibit => return Some(Found::Refused(Refusal::Prohibit)),
                RouteKind::Unicast
                | RouteKind::Local
                | RouteKind::Broadcast
                | RouteKind::Anycast
                | RouteKind::Multicast => {
                    if route.next_hops.is_empty() || self.hops(route, flow).next().is_some() {
                        return Some(Found::Route(route));
                    }
                }
            }
        }
        None
    }

    /// The next hops of a route that the kernel would use for the flow.
    pub(crate) fn hops<'r>(
        &self,
        route: &'r Route,
        flow: &Flow<'_>,
    ) -> impl Iterator<Item = &'r NextHop> {
        let ignore_linkdown = |device: Option<&str>| {
            device.is_some_and(|device| {
                let family = if route.family() == Family::V4 { "ipv4" } else { "ipv6" };
                let setting = "ignore_routes_with_linkdown";
                self.host
                    .sysctls
                    .as_ref()
                    .and_then(|sysctls| sysctls.device(family, device, setting))
                    .is_some_and(|value| value != 0)
            })
        };
        let oif = flow.only().map(str::to_owned);
        route.next_hops.iter().filter(move |hop| {
            let down = hop.dead || hop.linkdown && ignore_linkdown(hop.device.as_deref());
            !down && oif.as_deref().is_none_or(|oif| hop.device.as_deref() == Some(oif))
        })
    }

    /// `inet_dev_addr_type` (net/ipv4/fib_frontend.c): the type of an IPv4 address as an `RTN_*`
    /// number, by the local table alone; `device`: only as seen from it.
    pub(crate) fn address_type4(
        &self,
        address: IpAddr,
        device: Option<&str>,
    ) -> Result<u8, String> {
        let IpAddr::V4(v4) = address else {
            return Err("not an IPv4 address".to_owned());
        };
        if v4.is_unspecified() || v4.is_broadcast() {
            return Ok(RouteKind::Broadcast.rtn());
        }
        if v4.is_multicast() {
            return Ok(RouteKind::Multicast.rtn());
        }
        if self.host.routes4.is_none() {
            return Err("the ipv4 routes were not captured (ip-route.json)".to_owned());
        }
        Ok(match self.in_table(&TableId::LOCAL, &Flow::to(address)) {
            Some(Found::Route(route)) => {
                let seen = device.is_none_or(|device| {
                    route.next_hops.first().and_then(|hop| hop.device.as_deref()) == Some(device)
                });
                if seen { route.kind.rtn() } else { RouteKind::Unicast.rtn() }
            }
            Some(Found::Refused(_)) | None => RouteKind::Unicast.rtn(),
            Some(Found::Unknown(why)) => return Err(why),
        })
    }

    /// The type of an IPv6 address (`__nft_fib6_eval_type`, net/ipv6/netfilter/nft_fib_ipv6.c), as
    /// an `RTN_*` number.
    pub(crate) fn address_type6(
        &self,
        flow: &Flow<'_>,
        device: Option<&str>,
    ) -> Result<u8, String> {
        let IpAddr::V6(address) = flow.destination else {
            return Err("not an IPv6 address".to_owned());
        };
        if self.is_on(device, flow.destination)? {
            return Ok(RouteKind::Local.rtn());
        }
        match self.lookup(flow) {
            Found::Unknown(why) => return Err(why),
            Found::Refused(refusal) => {
                let kind = match refusal {
                    Refusal::NoRoute | Refusal::Unreachable => RouteKind::Unreachable,
                    Refusal::Blackhole => RouteKind::Blackhole,
                    Refusal::Prohibit => RouteKind::Prohibit,
                };
                return Ok(kind.rtn());
            }
            Found::Route(route) => match route.kind {
                RouteKind::Anycast => return Ok(RouteKind::Anycast.rtn()),
                RouteKind::Local if device.is_none() => return Ok(RouteKind::Local.rtn()),
                RouteKind::Local
                | RouteKind::Unicast
                | RouteKind::Broadcast
                | RouteKind::Multicast
                | RouteKind::Blackhole
                | RouteKind::Unreachable
                | RouteKind::Prohibit
                | RouteKind::Throw => {}
            },
        }
        Ok(if address.is_multicast() {
            RouteKind::Multicast.rtn()
        } else if address.is_unspecified() {
            0
        } else {
            RouteKind::Unicast.rtn()
        })
    }

    /// The types of an IPv6 address that a route lookup tells (`match_lookup_rt6`,
    /// net/netfilter/xt_addrtype.c): a bit for each `RTN_*` number. With a device only its routes
    /// count, and every refusal is "unreachable".
    pub(crate) fn xt_address_types6(
        &self,
        address: IpAddr,
        device: Option<&str>,
    ) -> Result<u16, String> {
        let bit = |kind: RouteKind| 1_u16 << kind.rtn();
        let mut types = if self.is_on(device, address)? { bit(RouteKind::Local) } else { 0 };
        let flow = Flow { oif: device, ..Flow::to(address) };
        match self.lookup(&flow) {
            Found::Unknown(why) => return Err(why),
            Found::Refused(_) => return Ok(bit(RouteKind::Unreachable)),
            Found::Route(route) if route.kind == RouteKind::Anycast => {
                types |= bit(RouteKind::Anycast);
            }
            Found::Route(route) if route.kind == RouteKind::Local && device.is_none() => {
                types |= bit(RouteKind::Local);
            }
            Found::Route(_) => {}
        }
        Ok(types)
    }

    /// Whether the address is one of the device's own; `false` without a device.
    fn is_on(&self, device: Option<&str>, address: IpAddr) -> Result<bool, String> {
        let Some(device) = device else { return Ok(false) };
        if self.host.links.is_none() {
            return Err("the devices were not captured (ip-addr.json)".to_owned());
        }
        let mut own = self.link(device).into_iter().flat_map(|link| &link.addresses);
        Ok(own.any(|one| one.local == address && !one.tentative))
    }

    /// Whether the host owns the address: the local table says so.
    pub(crate) fn owns(&self, address: IpAddr) -> Result<bool, String> {
        match address {
            IpAddr::V4(_) => Ok(self.address_type4(address, None)? == RouteKind::Local.rtn()),
            IpAddr::V6(_) => {
                if self.host.routes6.is_none() {
                    return Err("the ipv6 routes were not captured (ip6-route.json)".to_owned());
                }
                Ok(matches!(
                    self.in_table(&TableId::LOCAL, &Flow::to(address)),
                    Some(Found::Route(route)) if route.kind == RouteKind::Local
                ))
            }
        }
    }

    /// Whether policy rules other than the three that every host has exist
    /// (`fib4_has_custom_rules`).
    pub(crate) fn has_custom_rules4(&self) -> bool {
        self.host.rules4.as_ref().is_none_or(|rules| {
            rules.len() != 3
                || rules.iter().any(|rule| {
                    rule.from.is_some() || rule.to.is_some() || rule.mark.is_some() || rule.inverted
                })
        })
    }

    /// The address that the host itself takes for what it sends to `destination`, if the program
    /// doesn't choose one: the route's preferred source, else one of the device's
    /// (`ip_route_output_key_hash_rcu` in net/ipv4/route.c, `ip6_dst_lookup_tail` in
    /// net/ipv6/ip6_output.c).
    pub(crate) fn own_address(&self, destination: IpAddr) -> Result<Option<IpAddr>, String> {
        let flow = Flow { iif: "lo", local: true, ..Flow::to(destination) };
        let route = match self.lookup(&flow) {
            Found::Unknown(why) => return Err(why),
            Found::Refused(_) => return Ok(None),
            Found::Route(route) => route,
        };
        if route.preferred_source.is_some() {
            return Ok(route.preferred_source);
        }
        let Some(hop) = self.hops(route, &flow).next() else { return Ok(Some(destination)) };
        let Some(device) = hop.device.as_deref() else { return Ok(None) };
        self.masquerade_address(device, hop.gateway.unwrap_or(destination), destination)
    }

    /// The address that masquerade gives on `device` for a packet to `destination` that is sent
    /// to `next_hop`; `Ok(None)`: there is none, and the packet is dropped.
    pub(crate) fn masquerade_address(
        &self,
        device: &str,
        next_hop: IpAddr,
        destination: IpAddr,
    ) -> Result<Option<IpAddr>, String> {
        let links = self
            .host
            .links
            .as_deref()
            .ok_or("the addresses of the devices were not captured (ip-addr.json)")?;
        let setting = |name: &str, family: &str, setting: &str| {
            self.host.sysctls.as_ref().and_then(|sysctls| sysctls.device(family, name, setting))
        };
        match destination {
            IpAddr::V4(_) => Ok(select::masquerade4(links, self.link(device), next_hop, &setting)),
            IpAddr::V6(v6) => Ok(select::source6(links, device, v6, &setting)),
        }
    }
}

fn tables(routes: Option<&[Route]>) -> Tables<'_> {
    let mut routes: Vec<&Route> = routes.unwrap_or_default().iter().collect();
    routes.sort_by_key(|route| {
        let from = route.from.map_or(0, |from| from.prefix_len());
        (Reverse(from), route.metric)
    });
    let mut tables = Tables::new();
    routes.into_iter().for_each(|route| tables.entry(&route.table).or_default().add(route));
    tables
}

/// Whether a policy rule selects a flow (`fib_rule_match`, `fib4_rule_match`).
fn selects(rule: &RoutingRule, flow: &Flow<'_>) -> Result<bool, String> {
    let mut unknown = None;
    let mut all = true;
    let mut require = |selected: Result<bool, String>| match selected {
        Ok(selected) => all &= selected,
        Err(why) => unknown = Some(why),
    };
    if let Some(net) = rule.from {
        require(Ok(flow.source.is_some_and(|source| net.contains(&source))));
    }
    if let Some(net) = rule.to {
        require(Ok(net.contains(&flow.destination)));
    }
    if let Some((value, mask)) = rule.mark {
        require(flow.mark.clone().map(|mark| (mark ^ value) & mask == 0));
    }
    if let Some(iif) = &rule.iif {
        require(Ok(**iif == *flow.iif));
    }
    if let Some(oif) = &rule.oif {
        require(Ok(flow.oif == Some(&**oif)));
    }
    if let Some(protocol) = rule.protocol {
        require(Ok(flow.protocol == Some(protocol)));
    }
    let (source_port, destination_port) = match flow.transport {
        Transport::Ports { source, destination } => (Some(source), Some(destination)),
        Transport::Icmp { .. } | Transport::Other => (None, None),
    };
    for (range, port) in
        [(rule.source_ports, source_port), (rule.destination_ports, destination_port)]
    {
        if let Some((low, high)) = range {
            require(match port {
                None => Ok(false),
                Some(None) => Err("a policy rule looks at a port that was not given".to_owned()),
                Some(Some(port)) => Ok((low..=high).contains(&port)),
            });
        }
    }
    if let Some((low, high)) = rule.uids {
        // A forwarded packet has the user id of the namespace's owner, 0 (ip_route_input_slow).
        require(if flow.local {
            Err("a policy rule looks at the sender's user id".to_owned())
        } else {
            Ok(low == 0 && high >= low)
        });
    }
    if rule.tos.is_some_and(|tos| tos != 0) {
        require(Ok(false));
    }
    if let Some(opaque) = &rule.opaque {
        require(Err(format!("a policy rule is not understood: {opaque}")));
    }
    match (all, unknown) {
        (false, _) => Ok(rule.inverted),
        (true, None) => Ok(!rule.inverted),
        (true, Some(why)) => Err(why),
    }
}

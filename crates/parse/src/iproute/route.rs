//! `ip -j -d route show table all`, with and without `-6` (ip/iproute.c, `print_route`).

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::value::RawValue;
use unmasq_model::link::Scope;
use unmasq_model::origin::{Diagnostic, FileId, Opaque};
use unmasq_model::packet::Family;
use unmasq_model::route::{NextHop, Route, RouteKind, TableId};

use super::entry::{Entry, Fields, entries, everything, network, tos};

/// Routes of `family`. Without `-4` or `-6` the listing has both families; those of the other are
/// passed over.
pub fn routes(text: &str, file: FileId, family: Family) -> (Option<Vec<Route>>, Vec<Diagnostic>) {
    let listing = match entries(text, file) {
        Ok(listing) => listing,
        Err(diagnostic) => return (None, vec![diagnostic]),
    };
    let mut found = Vec::with_capacity(listing.len());
    let mut diagnostics = Vec::new();
    for entry in &listing {
        match listed(entry, family) {
            Ok(Some(route)) => found.push(route),
            Ok(None) => {}
            Err(message) => {
                diagnostics.push(entry.diagnostic(format!("{message}: {}", entry.text)));
            }
        }
    }
    distrust_preferences(&mut found);
    (Some(found.into_iter().map(|listed| listed.route).collect()), diagnostics)
}

/// Keys that say nothing about where packets of a new connection go: who made the route, what its
/// metrics are, statistics. `nh_info` repeats what `gateway` and `nexthops` say.
const HARMLESS: &[&str] = &[
    "protocol", "metrics", "flow", "nh_info", "expires", "cache", "error", "users", "age", "used",
];

/// Flags that don't change where packets go. `offload` and `trap` are not among them: then
/// hardware forwards, past all rules.
const HARMLESS_FLAGS: &[&str] = &["onlink", "pervasive", "notify", "dead", "linkdown"];

struct Listed<'a> {
    route: Route,
    /// Router preference of RFC 4191 (IPv6).
    preference: Option<String>,
    text: &'a str,
}

/// What is noticed while a route's fields are read.
#[derive(Default)]
struct Notes {
    /// Something is not understood.
    opaque: bool,
    /// The family that a gateway or a source shows.
    family: Option<Family>,
}

impl Notes {
    /// A value that a route can do without: if it is unreadable, the route is opaque.
    fn soft<T>(&mut self, read: Result<Option<T>, String>) -> Option<T> {
        self.known(read.ok()).flatten()
    }

    /// A value that must be there; its absence makes the route opaque.
    fn known<T>(&mut self, value: Option<T>) -> Option<T> {
        self.opaque |= value.is_none();
        value
    }
}

/// `Ok(None)`: a route of the other family. `Err`: it can't be told where it belongs.
fn listed<'a>(entry: &Entry<'a>, family: Family) -> Result<Option<Listed<'a>>, String> {
    let mut fields = entry.fields()?;
    let mut notes = Notes::default();
    let destination = fields.take_text("dst")?.ok_or("no dst")?;
    let table = fields.take_text("table")?.map_or(TableId::MAIN, |name| TableId::from_name(&name));
    let preference = notes.soft(fields.take_text("pref"));
    let metric: Option<u32> = notes.soft(fields.take_number("metric"));
    let scope = notes.soft(fields.take_text("scope"));
    let preferred_source = notes.soft(fields.take_address("prefsrc"));
    notes.family = preferred_source.map(Family::of);
    let next_hops = next_hops(&mut fields, &mut notes);

    // "default" doesn't say of which family. `pref` (RTA_PREF, net/ipv6/route.c) and a metric of
    // 0 are printed for IPv6 only, and a scope other than global is IPv4's.
    let default_family = if preference.is_some() {
        Family::V6
    } else if let Some(shown) = notes.family {
        shown
    } else if metric.is_none() || scope.as_deref().is_some_and(|scope| scope != "global") {
        Family::V4
    } else {
        family
    };
    let destination = network(&destination, default_family)
        .ok_or_else(|| format!("unreadable dst {destination}"))?;
    if Family::of(destination.addr()) != family {
        return Ok(None);
    }

    let kind = notes.soft(fields.take_text("type"));
    let kind = kind.map_or(Some(RouteKind::Unicast), |name| RouteKind::from_name(&name));
    let kind = notes.known(kind).unwrap_or(RouteKind::Unicast);
    let scope = scope.map_or(Some(Scope::GLOBAL), |name| Scope::from_name(&name));
    let tos = notes.soft(fields.take_text("tos")).map_or(Some(0), |text| tos(&text));
    let from = match notes.soft(fields.take_text("from")) {
        None => None,
        Some(text) => notes.known(network(&text, family)),
    };
    // With nothing else a nexthop object is one that iproute2 did not resolve.
    fields.take("nhid");
    notes.opaque |= kind == RouteKind::Unicast && next_hops.is_empty();
    notes.opaque |= fields.has_others_than(HARMLESS);

    let route = Route {
        kind,
        destination,
        table,
        metric: metric.unwrap_or(0),
        scope: notes.known(scope).unwrap_or(Scope::GLOBAL),
        tos: notes.known(tos).unwrap_or(0),
        from: from.filter(|net| *net != everything(family)),
        preferred_source,
        next_hops: if sends_nothing(kind) { Vec::new() } else { next_hops },
        opaque: notes.opaque.then(|| Opaque::new(entry.text)),
        origin: entry.origin,
    };
    Ok(Some(Listed { route, preference, text: entry.text }))
}

/// Among routes of one destination and metric the router preference decides
/// (net/ipv6/route.c, `rt6_score_route`), which is not modelled.
fn distrust_preferences(listed: &mut [Listed<'_>]) {
    let same = |a: &Route, b: &Route| {
        a.destination == b.destination && a.table == b.table && a.metric == b.metric
    };
    let preferred: Vec<usize> = (0..listed.len())
        .filter(|&i| !matches!(listed[i].preference.as_deref(), None | Some("medium")))
        .collect();
    for i in preferred {
        for j in 0..listed.len() {
            if i != j && same(&listed[i].route, &listed[j].route) {
                for k in [i, j] {
                    let text = listed[k].text;
                    listed[k].route.opaque.get_or_insert_with(|| Opaque::new(text));
                }
            }
        }
    }
}

fn sends_nothing(kind: RouteKind) -> bool {
    match kind {
        RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw => {
            true
        }
        RouteKind::Unicast
        | RouteKind::Local
        | RouteKind::Broadcast
        | RouteKind::Anycast
        | RouteKind::Multicast => false,
    }
}

#[derive(Deserialize)]
struct Via {
    host: IpAddr,
}

fn next_hops(fields: &mut Fields<'_>, notes: &mut Notes) -> Vec<NextHop> {
    let Some(list) = fields.take("nexthops") else {
        return Vec::from_iter(next_hop(fields, notes));
    };
    flags(fields, notes);
    let list = serde_json::from_str::<Vec<&RawValue>>(list.get()).ok();
    let mut hops = Vec::new();
    for raw in notes.known(list).unwrap_or_default() {
        let fields = serde_json::from_str::<Fields<'_>>(raw.get()).ok();
        let Some(mut fields) = notes.known(fields) else {
            continue;
        };
        let hop = next_hop(&mut fields, notes);
        hops.extend(notes.known(hop));
        notes.opaque |= fields.has_others_than(&[]);
    }
    hops
}

/// The next hop that the fields describe; `None` without gateway and device.
fn next_hop(fields: &mut Fields<'_>, notes: &mut Notes) -> Option<NextHop> {
    let gateway = notes.soft(fields.take_address("gateway"));
    if let Some(gateway) = gateway {
        notes.family.get_or_insert(Family::of(gateway));
    }
    // A gateway of the other family (RFC 5549) is printed as `via`.
    let via = fields.take("via").and_then(|raw| {
        let via = notes.known(serde_json::from_str::<Via>(raw.get()).ok())?;
        notes.family.get_or_insert(match via.host {
            IpAddr::V4(_) => Family::V6,
            IpAddr::V6(_) => Family::V4,
        });
        Some(via.host)
    });
    let device = notes.soft(fields.take_text("dev"));
    let weight = notes.soft(fields.take_number("weight")).unwrap_or(1);
    let flags = flags(fields, notes);
    let gateway = gateway.or(via);
    if gateway.is_none() && device.is_none() {
        return None;
    }
    Some(NextHop {
        gateway,
        device: device.map(Into::into),
        weight,
        dead: flags.iter().any(|flag| flag == "dead"),
        linkdown: flags.iter().any(|flag| flag == "linkdown"),
    })
}

fn flags(fields: &mut Fields<'_>, notes: &mut Notes) -> Vec<String> {
    let flags = notes.known(fields.take_list("flags").ok()).unwrap_or_default();
    notes.opaque |= flags.iter().any(|flag| !HARMLESS_FLAGS.contains(&flag.as_str()));
    flags
}

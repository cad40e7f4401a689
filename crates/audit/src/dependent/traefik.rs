//! Traefik's Middlewares that judge clients by their address.
//!
//! One that no route, no chain and no entry point refers to does nothing, and is not judged.

use std::collections::{BTreeMap, BTreeSet};

use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{IpAllowList, IpStrategy, Lookup, Middleware, MiddlewareRef};

use super::controller::services_of;
use super::find::{Listed, families, names};
use super::{Dependence, Kind, no_admissions};
use crate::expect::ToldBy;

const PREFIX: &str = "traefik.ingress.kubernetes.io";

/// Those that somebody refers to.
pub(super) fn dependences(lookup: &Lookup<'_>, cluster: &Cluster) -> Vec<Dependence> {
    let used = used(cluster);
    let traefik = Traefik::of(lookup, cluster);
    let all = cluster.objects.middlewares.iter().filter(|one| used.contains(&name(one)));
    all.flat_map(|one| of_middleware(&traefik, one)).collect()
}

/// Those that nobody refers to, as far as was seen, a sentence each.
pub(super) fn unused(cluster: &Cluster) -> Vec<String> {
    let used = used(cluster);
    let all = cluster.objects.middlewares.iter().filter(|one| !used.contains(&name(one)));
    let anybody = Traefik { services: Vec::new(), proxied: None };
    let judging = all.filter(|one| !of_middleware(&anybody, one).is_empty());
    let sentence = |one: &Middleware| {
        let what = "ingressroutes.traefik.io";
        format!(
            "Middleware {}: no route that uses it was seen, so it was not judged: kubectl get {what} \
             -A -o json > kubernetes/{what}.json",
            one.metadata.full_name()
        )
    };
    judging.map(sentence).collect()
}

/// Namespace and name.
type Name = (String, String);

fn name(one: &Middleware) -> Name {
    (one.metadata.namespace.clone(), one.metadata.name.clone())
}

/// All that are referred to, by chains of these too.
fn used(cluster: &Cluster) -> BTreeSet<Name> {
    let objects = &cluster.objects;
    // As other providers name them: NAMESPACE-NAME@kubernetescrd.
    let mut texts: Vec<&str> = Vec::new();
    for ingress in &objects.ingresses {
        let found = ingress.metadata.annotations.get(&format!("{PREFIX}/router.middlewares"));
        texts.extend(found.iter().flat_map(|text| text.split(',')));
    }
    let sets = [&objects.deployments, &objects.daemon_sets, &objects.stateful_sets];
    let templates = sets.into_iter().flatten().map(|one| &one.spec.template.spec);
    let pods = templates.chain(objects.pods.iter().map(|pod| &pod.spec));
    for word in pods.flat_map(|pod| pod.all_containers()).flat_map(|one| one.words()) {
        let option = word.trim_start_matches('-').split_once('=');
        if let Some((_, value)) =
            option.filter(|(option, _)| option.to_lowercase().ends_with(".http.middlewares"))
        {
            texts.extend(value.split(','));
        }
    }
    let all = &objects.middlewares;
    let mut named: BTreeMap<String, Vec<&Middleware>> = BTreeMap::new();
    for one in all {
        let own = format!("{}-{}", one.metadata.namespace, one.metadata.name);
        named.entry(own).or_default().push(one);
    }
    let by_text = |text: &str| -> &[&Middleware] {
        let own = text.trim().strip_suffix("@kubernetescrd");
        own.and_then(|own| named.get(own)).map_or(&[], Vec::as_slice)
    };
    // By the own name of another provider's, or by that of a Middleware of its namespace.
    let referred = |namespace: &str, reference: &MiddlewareRef| -> Vec<Name> {
        match by_text(&reference.name) {
            [] => {
                let namespace = reference.namespace.as_deref().unwrap_or(namespace);
                vec![(namespace.to_owned(), reference.name.clone())]
            }
            found => found.iter().map(|one| name(one)).collect(),
        }
    };
    let mut left: Vec<Name> =
        texts.iter().flat_map(|text| by_text(text)).map(|one| name(one)).collect();
    for route in &objects.ingress_routes {
        for reference in route.spec.routes.iter().flat_map(|one| &one.middlewares) {
            left.extend(referred(&route.metadata.namespace, reference));
        }
    }
    // A chain may have chains in it.
    let by_name: BTreeMap<Name, &Middleware> = all.iter().map(|one| (name(one), one)).collect();
    let mut used = BTreeSet::new();
    while let Some(next) = left.pop() {
        let inner = by_name.get(&next).into_iter().flat_map(|one| &one.spec.chain);
        let inner = inner.flat_map(|chain| &chain.middlewares);
        let inner: Vec<Name> = inner.flat_map(|of| referred(&next.0, of)).collect();
        if used.insert(next) {
            left.extend(inner);
        }
    }
    used
}

fn of_middleware(traefik: &Traefik, one: &Middleware) -> Vec<Dependence> {
    let spec = &one.spec;
    let made = |what: &str, field: &str, kind, listed: &[String], strategy: Option<&IpStrategy>| {
        let Listed { networks, unread } = Listed::read(&listed.join(","));
        // Without a strategy it is the address of the connection, whatever headers are believed.
        let by_header = strategy.is_some_and(IpStrategy::is_by_header);
        let told = by_header.then_some(ToldBy::ForwardedFor).or(traefik.proxied);
        Dependence {
            what: what.to_owned(),
            object: format!("Middleware {}", one.metadata.full_name()),
            field: format!("spec.{field}"),
            kind,
            services: traefik.services.clone(),
            unknown: None,
            pods: Vec::new(),
            families: families(&networks),
            networks,
            except: Vec::new(),
            unread,
            told_by: told,
            admissions: no_admissions(),
        }
    };
    let mut all = Vec::new();
    for (list, field) in [
        (&spec.ip_allow_list, "ipAllowList.sourceRange"),
        (&spec.ip_white_list, "ipWhiteList.sourceRange"),
    ] {
        let Some(IpAllowList { source_range, ip_strategy }) = list else { continue };
        let what = "it lets in clients by their address";
        let kind = Kind::IngressAllowList;
        all.push(made(what, field, kind, source_range, ip_strategy.as_ref()));
    }
    let what = "it counts requests by client";
    let kind = Kind::IngressRateLimit;
    if let Some(limit) = &spec.rate_limit {
        match &limit.source_criterion {
            None => all.push(made(what, "rateLimit", kind, &[], None)),
            Some(by) => all.extend(
                by.ip_strategy.as_ref().map(|one| made(what, "rateLimit", kind, &[], Some(one))),
            ),
        }
    }
    // By default it counts by the host that is asked for.
    let by = spec.in_flight_req.iter().filter_map(|limit| limit.source_criterion.as_ref());
    let by = by.filter_map(|by| by.ip_strategy.as_ref());
    all.extend(by.map(|one| made(what, "inFlightReq", kind, &[], Some(one))));
    all
}

/// Traefik itself.
struct Traefik {
    /// By which it is called.
    services: Vec<u32>,
    /// Whether it takes the address from the PROXY protocol, on any of its entry points.
    proxied: Option<ToldBy>,
}

impl Traefik {
    fn of(lookup: &Lookup<'_>, cluster: &Cluster) -> Traefik {
        let services = services_of(cluster, names(PREFIX));
        let own = services.iter().filter_map(|one| cluster.objects.services.get(*one as usize));
        let mut words = own
            .flat_map(|service| lookup.workloads_of(service))
            .flat_map(|(_, one)| one.spec.template.spec.all_containers())
            .flat_map(|container| container.words());
        let is_on = |word: &str| word.to_lowercase().contains(".proxyprotocol.");
        let proxied = words.any(is_on).then_some(ToldBy::ProxyProtocol);
        Traefik { services, proxied }
    }
}

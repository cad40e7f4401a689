//! Settings of a cluster that only work if sources arrive.
//!
//! In: a cluster's objects. Out: [`Dependence`]s, a sentence and a place each ([`dependences`]),
//! whose networks are asked for in the matrix ([`add_to`]); and, with the matrix, those that can't
//! work ([`broken`]) or couldn't be judged ([`unjudged`]).
//!
//! Of controllers' own kinds of objects Traefik's Middlewares are read, with the routes that use
//! them; others aren't.

mod controller;
mod find;
mod judge;
mod let_in;
mod policy;
mod traefik;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_model::packet::Family;

use crate::FindingId;
use crate::expect::ToldBy;
use crate::matrix::Clients;

pub(crate) use controller::{Config, config_of, containers, is_external};
pub use find::dependences;
pub(crate) use find::{Controller, controller_of, dependences_by};
pub use judge::broken;
pub(crate) use let_in::let_in;
pub use policy::Admission;

/// A setting whose effect depends on the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependence {
    /// A sentence: what it does.
    pub what: String,
    /// The object (`NetworkPolicy shop/web`).
    pub object: String,
    /// Its field (`spec.ingress[0].from[1].ipBlock`).
    pub field: String,
    /// Of which kind.
    pub kind: Kind,
    /// The Services behind or in front of which it acts: indices in `objects.services`, in order.
    /// Empty: none was found.
    pub services: Vec<u32>,
    /// Why no Service is known, if it isn't that none was found.
    pub unknown: Option<String>,
    /// The pods that it is for, if it is for pods.
    pub pods: Vec<IpAddr>,
    /// The networks that it names.
    pub networks: Vec<IpNet>,
    /// What is left out of them.
    pub except: Vec<IpNet>,
    /// Words of its list that are no network: then whom it names isn't known, and `networks` is empty.
    pub unread: Vec<String>,
    /// The families that it can be about.
    pub families: Vec<Family>,
    /// How the one who judges learns the client's address, if not from the packet.
    pub told_by: Option<ToldBy>,
    /// At which ports of its Services a NetworkPolicy's rule matters, and who else gets in there.
    pub admissions: Arc<[Admission]>,
}

/// Of what is no NetworkPolicy.
fn no_admissions() -> Arc<[Admission]> {
    Arc::new([])
}

impl Dependence {
    /// Object and field.
    pub fn place(&self) -> String {
        format!("{}, {}", self.object, self.field)
    }

    /// Whether it is about an address.
    pub(crate) fn names(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(&address))
            && !self.except.iter().any(|net| net.contains(&address))
    }
}

/// Kinds of settings that depend on the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An `ipBlock` that a NetworkPolicy lets in.
    NetworkPolicy,
    /// `loadBalancerSourceRanges`
    SourceRanges,
    /// Who may ask an Ingress.
    IngressAllowList,
    /// Who may not ask an Ingress.
    IngressDenyList,
    /// How often each client may ask an Ingress.
    IngressRateLimit,
    /// Whose word about clients a controller believes.
    TrustedProxies,
}

/// A setting that can't work as it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which: an index in what was judged.
    pub dependence: usize,
    /// The rows that show it, by index.
    pub rows: Vec<usize>,
    /// For which Services: indices in `objects.services`, in order.
    pub services: Vec<u32>,
    /// A sentence with its place.
    pub sentence: String,
    /// What is found.
    pub finding: FindingId,
    /// Whether it would work if the source were kept: then what rewrites it is the cause.
    pub by_rewriting: bool,
}

/// Adds the networks that settings name as clients to those who are asked.
pub fn add_to(dependences: &[Dependence], cluster: &Cluster, clients: &mut Clients) {
    let named = dependences.iter().filter(|dependence| match dependence.kind {
        Kind::NetworkPolicy | Kind::IngressAllowList | Kind::IngressDenyList => true,
        // The matrix asks for these with the Service that has them; proxies aren't clients.
        Kind::SourceRanges | Kind::IngressRateLimit | Kind::TrustedProxies => false,
    });
    let mut networks: BTreeMap<IpNet, Vec<IpNet>> = BTreeMap::new();
    for one in named {
        for net in &one.networks {
            let left_out = one.except.iter().filter(|one| net.contains(*one));
            networks.entry(*net).or_default().extend(left_out);
        }
    }
    clients.add_of_settings(cluster, &networks);
}

/// Settings by the Services behind or in front of which they act: their indices, in order.
pub(crate) fn by_service(dependences: &[Dependence]) -> BTreeMap<u32, Vec<usize>> {
    let mut all: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, one) in dependences.iter().enumerate() {
        one.services.iter().for_each(|service| all.entry(*service).or_default().push(index));
    }
    all
}

/// Settings that nobody was seen to use, a sentence each.
pub fn unused(cluster: &Cluster) -> Vec<String> {
    traefik::unused(cluster)
}

/// Settings that no Service or pod was found for, a sentence each.
pub fn unjudged(dependences: &[Dependence]) -> Vec<String> {
    let left = dependences.iter().filter(|one| one.services.is_empty() && one.pods.is_empty());
    left.map(|one| {
        let found = match one.kind {
            Kind::NetworkPolicy => "no pod is selected",
            Kind::SourceRanges => "there is no Service",
            Kind::IngressAllowList
            | Kind::IngressDenyList
            | Kind::IngressRateLimit
            | Kind::TrustedProxies => "the Service of its controller was not found by its labels",
        };
        let of = one.unknown.as_deref().unwrap_or(found);
        format!("{}: {of}, so it was not judged", one.place())
    })
    .collect()
}

#[cfg(test)]
mod tests;

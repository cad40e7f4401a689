//! What is expected of sources: `expect.yaml`.
//!
//! In: the text of the file ([`parse`]; docs/expectations.md is its guide, schemas/expect.v1.json
//! checks it). Out: [`Expectations`], which say whom else to ask for in the matrix
//! ([`Expectations::add_to`]), and judge its rows ([`Judge`]). And the other way round: [`propose`] writes such a file for a
//! cluster as it is.
//!
//! ```text
//! expect.yaml ─ parse ─▶ Expectations ─┬─ add_to ─▶ Clients ─▶ Matrix ─┐
//!                                      └─ Judge ◀───────────────────────┘
//! ```
//!
//! Without a file nothing is expected. What objects promise (`externalTrafficPolicy: Local`, a
//! NetworkPolicy) isn't judged here, and no file is opened.

mod check;
mod judge;
mod propose;
mod read;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{Service, ServiceType};
use unmasq_model::packet::Family;

use crate::matrix::{Clients, Entry};

pub use judge::{Breach, Judge, Verdict};
pub use propose::propose;
pub use read::{Error, parse};

/// The `schema` of the format.
pub const SCHEMA: &str = "unmasq.expect/v1";

/// What is expected of sources, and what no capture shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectations {
    /// The file's name, for sentences.
    pub path: String,
    /// Flows whose source must arrive.
    pub preserved: Vec<Flow>,
    /// Flows that must not show their own source.
    pub translated: Vec<Flow>,
    /// Load balancers in front of the nodes.
    pub load_balancers: Vec<LoadBalancer>,
    /// Routers between the nodes and the outside.
    pub gateways: Vec<Gateway>,
}

/// Who calls whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// What a person calls it.
    pub name: Option<String>,
    /// Where it begins in the file, counted from 1.
    pub line: u64,
    /// Any of these calls.
    pub from: Vec<Source>,
    /// Any of these is called.
    pub to: Vec<Destination>,
    /// How Services are called; empty: in any way.
    pub entries: Vec<Entry>,
    /// Of which families; empty: of both.
    pub families: Vec<Family>,
    /// How the receiver learns the address if the packet doesn't have it.
    pub told_by: Option<ToldBy>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Anybody outside of the cluster.
    Outside,
    /// Pods, but not one that reaches itself through its Service.
    Pods,
    /// Nodes.
    Nodes,
    /// Those outside of the cluster who have an address of this network.
    Network(IpNet),
}

/// Who is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A Service, or all of a namespace.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name; `None`: every Service of the namespace.
        name: Option<String>,
    },
    /// All Services that can be reached from outside.
    Services,
    /// Pods by their own addresses.
    Pods,
    /// Nodes by their own addresses.
    Nodes,
    /// Everybody outside who has a public address that no other line names.
    Internet,
    /// Somebody outside who has an address of this network.
    Network(IpNet),
}

/// How a receiver learns the address of the client at layer 7, whatever the packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldBy {
    /// The PROXY protocol.
    ProxyProtocol,
    /// A header: `X-Forwarded-For`, `Forwarded`.
    ForwardedFor,
}

/// A load balancer in front of the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Whose: namespace and name of Services.
    pub services: Vec<(String, String)>,
    /// Where it begins in the file, counted from 1.
    pub line: u64,
    /// Whether it leaves out nodes whose `healthCheckNodePort` doesn't answer 200.
    pub health_checks: Option<bool>,
}

/// A router between the nodes and the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Networks of pods that it, and whoever is behind it, has routes to.
    pub knows_pods: Vec<IpNet>,
    /// Networks that it masquerades on their way out.
    pub masquerades: Vec<IpNet>,
}

impl Expectations {
    /// Adds the networks that the lines name to those who are asked.
    pub fn add_to(&self, cluster: &Cluster, clients: &mut Clients) {
        self.callers().into_iter().for_each(|net| clients.add(cluster, net));
        self.destinations().into_iter().for_each(|net| clients.add_destination(cluster, net));
    }

    /// The networks outside that are named as callers, in the order of the file, each once.
    pub fn callers(&self) -> Vec<IpNet> {
        let named = self.flows().flat_map(|flow| &flow.from).filter_map(|from| match from {
            Source::Network(net) => Some(*net),
            Source::Outside | Source::Pods | Source::Nodes => None,
        });
        once(named)
    }

    /// The networks outside that are named as called, in the order of the file, each once.
    pub fn destinations(&self) -> Vec<IpNet> {
        let named = self.flows().flat_map(|flow| &flow.to).filter_map(|to| match to {
            Destination::Network(net) => Some(*net),
            Destination::Service { .. }
            | Destination::Services
            | Destination::Pods
            | Destination::Nodes
            | Destination::Internet => None,
        });
        once(named)
    }

    /// All lines, those of `preserved` first.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.preserved.iter().chain(&self.translated)
    }

    /// Whether the load balancer of a Service leaves out nodes without an endpoint; `None`: the
    /// file doesn't say.
    pub fn health_checks(&self, service: &Service) -> Option<bool> {
        let of = &service.metadata;
        let is_its = |(namespace, name): &(String, String)| {
            *namespace == of.namespace && (*name == of.name || name == ALL)
        };
        let mut all = self.load_balancers.iter().filter(|one| one.services.iter().any(is_its));
        all.find_map(|one| one.health_checks)
    }

    /// Whether the gateways have routes to a network of pods; `None`: the file has no gateway.
    pub fn gateways_know(&self, pods: IpNet) -> Option<bool> {
        self.gateways_have(pods, |gateway| &gateway.knows_pods)
    }

    /// Whether the gateways masquerade a network on its way out; `None`: the file has no gateway.
    pub fn gateways_masquerade(&self, net: IpNet) -> Option<bool> {
        self.gateways_have(net, |gateway| &gateway.masquerades)
    }

    /// All of them must: a packet may leave by any.
    fn gateways_have(&self, net: IpNet, of: impl Fn(&Gateway) -> &Vec<IpNet>) -> Option<bool> {
        let covers = |gateway: &Gateway| {
            IpNet::aggregate(of(gateway)).iter().any(|known| known.contains(&net))
        };
        (!self.gateways.is_empty()).then(|| self.gateways.iter().all(covers))
    }

    /// What is wrong in the file for this cluster, a sentence each with its line: a name that
    /// nothing has, a network of the cluster's own, lines that can't both hold.
    pub fn errors(&self, cluster: &Cluster) -> Vec<String> {
        check::errors(self, cluster)
    }

    /// What in the file can't be about this cluster, or can't be told, a sentence each.
    pub fn mismatches(&self, cluster: &Cluster) -> Vec<String> {
        check::mismatches(self, cluster)
    }

    /// Where a line stands, and its name.
    pub fn place(&self, flow: &Flow) -> String {
        match &flow.name {
            Some(name) => format!("{}:{} ({name})", self.path, flow.line),
            None => format!("{}:{}", self.path, flow.line),
        }
    }
}

/// In the place of a name: every Service of a namespace.
const ALL: &str = "*";

fn once(nets: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let mut all = Vec::new();
    for net in nets {
        if !all.contains(&net) {
            all.push(net);
        }
    }
    all
}

fn services(cluster: &Cluster) -> impl Iterator<Item = &Service> {
    cluster.objects.services.iter()
}

fn is_named(service: &Service, namespace: &str, name: Option<&str>) -> bool {
    let of = &service.metadata;
    of.namespace == namespace && name.is_none_or(|name| of.name == name)
}

/// Whether it can be called from outside.
fn is_external(service: &Service) -> bool {
    match service.spec.kind {
        ServiceType::NodePort | ServiceType::LoadBalancer => true,
        ServiceType::ClusterIp => !service.spec.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    }
}

#[cfg(test)]
mod tests;

//! Kubernetes objects: the fields that say what a cluster wants, and how its network is set up.
//!
//! In: what `kubectl get -o json` prints, or a manifest in another form that serde reads: single
//! objects and Lists. Out: [`Objects`]. Unknown fields are passed over, other kinds are only
//! counted, `null` is as good as absent, and what is absent has the API server's default
//! (kubernetes pkg/apis/core/v1/defaults.go, pkg/apis/discovery/v1/defaults.go). What the API
//! server assigns, cluster IPs and node ports, is not assigned here. Files are read by
//! [`crate::read`].

mod calico;
mod document;
mod endpoint_slice;
mod endpoints;
mod field;
mod ingress;
mod lookup;
mod network_policy;
mod node;
mod plain;
mod pod;
mod selector;
mod service;
mod traefik;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

pub use calico::{FelixConfiguration, FelixConfigurationSpec, IpPool, IpPoolSpec};
pub use document::{Error, Found, Wrong};
pub use endpoint_slice::{
    AddressType, Conditions, Endpoint, EndpointPort, EndpointSlice, Hint, Hints,
};
pub use endpoints::{EndpointAddress, Endpoints, Subset};
use field::{annotations, nullable};
pub use ingress::{
    Backend, BackendPort, ClientRule, ClientRuleKind, HostRule, Ingress, IngressClass,
    IngressClassSpec, IngressSpec, PathRule, Paths, ServiceBackend,
};
pub use lookup::Lookup;
pub use network_policy::{
    EgressRule, IngressRule, IpBlock, NetworkPolicy, NetworkPolicySpec, Peer, PolicyPort,
    PolicyType,
};
pub use node::{Node, NodeAddress, NodeSpec, NodeStatus, Taint};
pub use plain::{ConfigMap, Namespace, ServiceCidr, ServiceCidrSpec};
pub use pod::{
    Container, ContainerPort, EnvVar, Pod, PodIp, PodSpec, PodStatus, PodTemplate,
    TemplateMetadata, Workload, WorkloadSpec,
};
pub use selector::{LabelSelector, Operator, Requirement};
pub use service::{
    ClientIpConfig, IpMode, LoadBalancer, LoadBalancerIngress, Protocol, Service, ServicePort,
    ServiceSpec, ServiceStatus, ServiceType, SessionAffinity, SessionAffinityConfig, TargetPort,
    TrafficPolicy,
};
pub use traefik::{
    IngressRoute, IngressRouteSpec, IpAllowList, IpStrategy, Limit, Middleware, MiddlewareRef,
    MiddlewareSpec, Middlewares, SourceCriterion,
};

/// The objects of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Objects {
    /// Services.
    pub services: Vec<Service>,
    /// EndpointSlices with addresses; those with host names are left out, as no proxy uses them.
    pub endpoint_slices: Vec<EndpointSlice>,
    /// Endpoints, until [`Objects::settle`] makes slices of those that are needed.
    pub endpoints: Vec<Endpoints>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// NetworkPolicies.
    pub network_policies: Vec<NetworkPolicy>,
    /// Ingresses.
    pub ingresses: Vec<Ingress>,
    /// IngressClasses.
    pub ingress_classes: Vec<IngressClass>,
    /// ConfigMaps.
    pub config_maps: Vec<ConfigMap>,
    /// DaemonSets.
    pub daemon_sets: Vec<Workload>,
    /// Deployments.
    pub deployments: Vec<Workload>,
    /// StatefulSets.
    pub stateful_sets: Vec<Workload>,
    /// Traefik's Middlewares.
    pub middlewares: Vec<Middleware>,
    /// Traefik's IngressRoutes.
    pub ingress_routes: Vec<IngressRoute>,
    /// ServiceCIDRs.
    pub service_cidrs: Vec<ServiceCidr>,
    /// Calico's IPPools.
    pub ip_pools: Vec<IpPool>,
    /// Calico's FelixConfigurations.
    pub felix_configurations: Vec<FelixConfiguration>,
    /// How many objects there were of other kinds, by `Kind` or `Kind.group`.
    pub others: BTreeMap<String, usize>,
}

impl Objects {
    /// Adds the objects of one JSON document: an object, or those of a List. The first that can't
    /// be read is the error; the others are added nevertheless.
    pub fn add_json(&mut self, text: &str) -> Result<(), Error> {
        let mut first = None;
        self.add_each(text, &mut |found| {
            first.get_or_insert(found.error);
        });
        first.map_or(Ok(()), Err)
    }

    /// Adds an object, or those of a List.
    pub fn add(&mut self, document: &Value) -> Result<(), Error> {
        self.add_json(&document.to_string())
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.metadata.name == name)
    }

    /// The Service of that name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.metadata.is(namespace, name))
    }

    /// The pod of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.metadata.is(namespace, name))
    }

    /// The pod that has that address in a network namespace of its own.
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        let own = self.pods.iter().filter(|pod| !pod.spec.host_network);
        own.into_iter().find(|pod| pod.ips().any(|ip| ip == address))
    }

    /// The ConfigMap of that name.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&ConfigMap> {
        self.config_maps.iter().find(|found| found.metadata.is(namespace, name))
    }

    /// The Namespace of that name.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.metadata.name == name)
    }

    /// To be called when all objects were added: of objects that were read twice the last is kept,
    /// and Endpoints become EndpointSlices for Services that have none. The objects of which there
    /// were two that differ are given back by `Kind namespace/name`.
    pub fn settle(&mut self) -> Vec<String> {
        let mut differing = Vec::new();
        keep_last(&mut self.services, "Service", |o| &o.metadata, &mut differing);
        keep_last(&mut self.endpoint_slices, "EndpointSlice", |o| &o.metadata, &mut differing);
        keep_last(&mut self.endpoints, "Endpoints", |o| &o.metadata, &mut differing);
        keep_last(&mut self.nodes, "Node", |o| &o.metadata, &mut differing);
        keep_last(&mut self.pods, "Pod", |o| &o.metadata, &mut differing);
        keep_last(&mut self.namespaces, "Namespace", |o| &o.metadata, &mut differing);
        keep_last(&mut self.network_policies, "NetworkPolicy", |o| &o.metadata, &mut differing);
        keep_last(&mut self.ingresses, "Ingress", |o| &o.metadata, &mut differing);
        keep_last(&mut self.ingress_classes, "IngressClass", |o| &o.metadata, &mut differing);
        keep_last(&mut self.config_maps, "ConfigMap", |o| &o.metadata, &mut differing);
        keep_last(&mut self.daemon_sets, "DaemonSet", |o| &o.metadata, &mut differing);
        keep_last(&mut self.deployments, "Deployment", |o| &o.metadata, &mut differing);
        keep_last(&mut self.stateful_sets, "StatefulSet", |o| &o.metadata, &mut differing);
        keep_last(&mut self.middlewares, "Middleware", |o| &o.metadata, &mut differing);
        keep_last(&mut self.ingress_routes, "IngressRoute", |o| &o.metadata, &mut differing);
        keep_last(&mut self.service_cidrs, "ServiceCIDR", |o| &o.metadata, &mut differing);
        keep_last(&mut self.ip_pools, "IPPool", |o| &o.metadata, &mut differing);
        let felix = &mut self.felix_configurations;
        keep_last(felix, "FelixConfiguration", |o| &o.metadata, &mut differing);
        let endpoints = std::mem::take(&mut self.endpoints);
        let made = endpoints::as_slices(endpoints, &self.endpoint_slices);
        self.endpoint_slices.extend(made);
        differing
    }
}

/// What every object has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace; of no meaning for a Node and other kinds of the whole cluster.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Its labels.
    #[serde(default, deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations, without kubectl's copy of the whole object.
    #[serde(default, deserialize_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// `namespace/name`
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && self.namespace == namespace
    }
}

fn default_namespace() -> String {
    "default".into()
}

/// Of objects with the same name the last is kept, where the first was.
fn keep_last<T: PartialEq>(
    objects: &mut Vec<T>,
    kind: &str,
    metadata: impl Fn(&T) -> &Metadata,
    differing: &mut Vec<String>,
) {
    let mut last: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut place = Vec::with_capacity(objects.len());
    let mut distinct = 0;
    for object in objects.iter() {
        let Metadata { namespace, name, .. } = metadata(object);
        let index = *last.entry((namespace, name)).or_insert(distinct);
        distinct = distinct.max(index + 1);
        place.push(index);
    }
    if distinct == objects.len() {
        return;
    }
    let mut kept: Vec<T> = Vec::with_capacity(distinct);
    let mut told = BTreeSet::new();
    for (object, place) in std::mem::take(objects).into_iter().zip(place) {
        match kept.get_mut(place) {
            Some(before) => {
                if *before != object && told.insert(place) {
                    differing.push(format!("{kind} {}", metadata(&object).full_name()));
                }
                *before = object;
            }
            None => kept.push(object),
        }
    }
    *objects = kept;
}

#[cfg(test)]
mod tests;

//! The ports of Services, each with the endpoints that its clients get on this node.
//!
//! In: Services and EndpointSlices. Out: what both modes program, for one family. The facts are
//! those of kubernetes pkg/proxy/serviceport.go, servicechangetracker.go, endpointslicecache.go
//! and topology.go.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::proxy::Proxy;
use unmasq_cluster::kubernetes::{
    self, Conditions, EndpointSlice, Hint, IpMode, Metadata, Objects, Protocol, Service,
    ServiceType, TrafficPolicy,
};

/// Another program proxies the Service (pkg/proxy/apis/well_known_labels.go).
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// The slice belongs to a headless Service (k8s.io/api/core/v1/well_known_labels.go).
const HEADLESS: &str = "service.kubernetes.io/headless";

/// A port of a Service.
#[derive(Debug)]
pub(super) struct ServicePort<'a> {
    pub(super) service: &'a Metadata,
    pub(super) port_name: &'a str,
    /// `namespace/name:port`, as comments name it.
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) cluster_ip: IpAddr,
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
    pub(super) external_ips: Vec<IpAddr>,
    /// Those that packets arrive with.
    pub(super) load_balancer_ips: Vec<IpAddr>,
    pub(super) source_ranges: Vec<IpNet>,
    pub(super) health_check_node_port: Option<u16>,
    /// For how many seconds a client keeps its endpoint.
    pub(super) affinity: Option<u32>,
    pub(super) external_local: bool,
    pub(super) internal_local: bool,
    /// Whether any endpoint of the cluster takes connections.
    pub(super) has_endpoints: bool,
    /// In the order of their text, also those that nobody gets.
    pub(super) endpoints: Vec<Endpoint<'a>>,
}

/// An endpoint of a Service's port.
#[derive(Debug, Clone)]
pub(super) struct Endpoint<'a> {
    pub(super) address: SocketAddr,
    /// `address:port`
    pub(super) text: String,
    /// It is on this node.
    pub(super) local: bool,
    /// Policy Cluster chooses among these.
    pub(super) for_cluster: bool,
    /// Policy Local chooses among these.
    pub(super) for_local: bool,
    conditions: Conditions,
    hints: &'a kubernetes::Hints,
}

/// What becomes of a client for whom there is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is none anywhere.
    Reject,
    /// There are some on other nodes.
    Drop,
}

/// The ports of all Services that a proxy serves, by name.
pub(super) fn of<'a>(objects: &'a Objects, proxy: &Proxy<'_>) -> Vec<ServicePort<'a>> {
    let mut endpoints = endpoints(&objects.endpoint_slices, proxy);
    let mut ports = Vec::new();
    // Of two with one name the later counts.
    let services: BTreeMap<_, _> = objects
        .services
        .iter()
        .map(|service| ((&service.metadata.namespace, &service.metadata.name), service))
        .collect();
    for service in services.into_values() {
        let Some(cluster_ip) = service.cluster_ip(proxy.family) else { continue };
        if service.spec.kind == ServiceType::ExternalName
            || service.metadata.labels.contains_key(OTHER_PROXY)
        {
            continue;
        }
        let first = ports.len();
        for port in &service.spec.ports {
            let key = key(&service.metadata, &service.metadata.name, &port.name, port.protocol);
            let found = endpoints.remove(&key).unwrap_or_default();
            let mut port = service_port(service, port, cluster_ip, proxy.family);
            port.choose(found.into_values().collect(), proxy);
            ports.push(port);
        }
        ports[first..].sort_by_key(|port| (port.port_name, port.protocol));
    }
    ports
}

impl<'a> ServicePort<'a> {
    /// Whether anything but its cluster IP leads to it.
    pub(super) fn externally_accessible(&self) -> bool {
        self.node_port.is_some()
            || !self.load_balancer_ips.is_empty()
            || !self.external_ips.is_empty()
    }

    /// Whether its load balancer's addresses are for some clients only.
    pub(super) fn has_firewall(&self) -> bool {
        !self.load_balancer_ips.is_empty() && !self.source_ranges.is_empty()
    }

    /// The endpoints among which policy Cluster chooses.
    pub(super) fn cluster(&self) -> impl Iterator<Item = &Endpoint<'a>> {
        self.endpoints.iter().filter(|endpoint| endpoint.for_cluster)
    }

    /// The endpoints among which policy Local chooses.
    pub(super) fn local(&self) -> impl Iterator<Item = &Endpoint<'a>> {
        self.endpoints.iter().filter(|endpoint| endpoint.for_local)
    }

    /// The endpoints that any policy chooses.
    pub(super) fn reachable(&self) -> impl Iterator<Item = &Endpoint<'a>> {
        self.endpoints.iter().filter(|endpoint| endpoint.for_cluster || endpoint.for_local)
    }

    /// What becomes of clients of its cluster IP, if there is no endpoint for them.
    pub(super) fn internal_refusal(&self) -> Option<Refusal> {
        self.refusal(self.internal_local)
    }

    /// The same for clients from outside.
    pub(super) fn external_refusal(&self) -> Option<Refusal> {
        self.refusal(self.external_local)
    }

    fn refusal(&self, local: bool) -> Option<Refusal> {
        if !self.has_endpoints {
            Some(Refusal::Reject)
        } else if local && self.local().next().is_none() {
            Some(Refusal::Drop)
        } else {
            None
        }
    }

    /// Whether policy Cluster ever applies. With external policy Local it does: to pods and to
    /// the node itself.
    fn uses_cluster(&self) -> bool {
        !self.internal_local || self.externally_accessible()
    }

    fn uses_local(&self) -> bool {
        self.internal_local || self.external_local && self.externally_accessible()
    }

    /// Takes over its endpoints and decides who gets them: ready ones, and if there are none,
    /// terminating ones that still serve; for each policy separately.
    fn choose(&mut self, mut endpoints: Vec<Endpoint<'a>>, proxy: &Proxy<'_>) {
        if self.uses_cluster() {
            let topology = Topology::of(&endpoints, proxy);
            let ready = |found: &Endpoint<'_>| found.is_ready() && topology.admits(found, proxy);
            let any = endpoints.iter().any(ready);
            for found in &mut endpoints {
                found.for_cluster = if any { ready(found) } else { found.still_serves() };
            }
        }
        if self.uses_local() {
            let any = endpoints.iter().any(|found| found.local && found.is_ready());
            for found in &mut endpoints {
                let chosen = if any { found.is_ready() } else { found.still_serves() };
                found.for_local = found.local && chosen;
            }
        }
        self.has_endpoints = endpoints.iter().any(|found| found.is_ready() || found.still_serves());
        self.endpoints = endpoints;
    }
}

impl Endpoint<'_> {
    /// What isn't said is taken for ready.
    fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }

    fn still_serves(&self) -> bool {
        self.conditions.serving.unwrap_or(true) && self.conditions.terminating.unwrap_or(false)
    }
}

/// Which ready endpoints policy Cluster leaves to this node's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    SameNode,
    SameZone,
    All,
}

impl Topology {
    /// Hints count if every ready endpoint has some and at least one of them is for us.
    fn of(endpoints: &[Endpoint<'_>], proxy: &Proxy<'_>) -> Topology {
        let hinted = |topology: Topology, hints: fn(&kubernetes::Hints) -> &[Hint]| {
            let mut ready = endpoints.iter().filter(|found| found.is_ready());
            let ours = ready.clone().any(|found| topology.admits(found, proxy));
            (ours && ready.all(|found| !hints(found.hints).is_empty())).then_some(topology)
        };
        hinted(Topology::SameNode, |hints| &hints.for_nodes)
            .or_else(|| hinted(Topology::SameZone, |hints| &hints.for_zones))
            .unwrap_or(Topology::All)
    }

    fn admits(self, endpoint: &Endpoint<'_>, proxy: &Proxy<'_>) -> bool {
        let names = |hints: &[Hint], name: &str| hints.iter().any(|hint| hint.name == name);
        match self {
            Topology::SameNode => names(&endpoint.hints.for_nodes, &proxy.config.node),
            // A node without a zone is in the zone with the empty name.
            Topology::SameZone => names(&endpoint.hints.for_zones, proxy.zone.unwrap_or_default()),
            Topology::All => true,
        }
    }
}

fn service_port<'a>(
    service: &'a Service,
    port: &'a kubernetes::ServicePort,
    cluster_ip: IpAddr,
    family: Family,
) -> ServicePort<'a> {
    let spec = &service.spec;
    let metadata = &service.metadata;
    let of_family = |address: &IpAddr| Family::of(*address) == family;
    let published = match spec.kind {
        ServiceType::LoadBalancer | ServiceType::NodePort => true,
        ServiceType::ClusterIp => !spec.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    };
    let external_local = published && spec.external_traffic_policy == TrafficPolicy::Local;
    let asked = external_local && spec.kind == ServiceType::LoadBalancer;
    let ingress = service.status.load_balancer.ingress.iter();
    let vips = ingress.filter(|ingress| ingress.ip_mode == IpMode::Vip);
    let colon = if port.name.is_empty() { "" } else { ":" };
    ServicePort {
        service: metadata,
        port_name: &port.name,
        name: format!("{}/{}{colon}{}", metadata.namespace, metadata.name, port.name),
        protocol: port.protocol,
        cluster_ip,
        port: port.port,
        node_port: port.node_port,
        external_ips: spec.external_ips.iter().copied().filter(of_family).collect(),
        load_balancer_ips: vips.filter_map(|ingress| ingress.ip).filter(of_family).collect(),
        source_ranges: spec
            .load_balancer_source_ranges
            .iter()
            .copied()
            .filter(|network| of_family(&network.addr()))
            .collect(),
        health_check_node_port: spec.health_check_node_port.filter(|_| asked),
        affinity: service.affinity_seconds(),
        external_local,
        internal_local: spec.internal_traffic_policy == TrafficPolicy::Local,
        has_endpoints: false,
        endpoints: Vec::new(),
    }
}

/// Namespace, Service, port, protocol.
type Key<'a> = (&'a str, &'a str, &'a str, Protocol);

fn key<'a>(metadata: &'a Metadata, service: &'a str, port: &'a str, protocol: Protocol) -> Key<'a> {
    (&metadata.namespace, service, port, protocol)
}

/// The endpoints of each port, by text.
fn endpoints<'a>(
    slices: &'a [EndpointSlice],
    proxy: &Proxy<'_>,
) -> BTreeMap<Key<'a>, BTreeMap<String, Endpoint<'a>>> {
    let mut all: BTreeMap<Key<'_>, BTreeMap<String, Endpoint<'_>>> = BTreeMap::new();
    for slice in slices {
        let Some(service) = slice.service() else { continue };
        if Family::from(slice.address_type) != proxy.family
            || slice.metadata.labels.contains_key(HEADLESS)
        {
            continue;
        }
        for port in &slice.ports {
            let Some(number) = port.port else { continue };
            let key = key(&slice.metadata, service, &port.name, port.protocol);
            let found = all.entry(key).or_default();
            for endpoint in slice.endpoints.iter().filter_map(|e| endpoint(e, number, proxy)) {
                // The same endpoint in two slices: one that says where it runs wins.
                if endpoint.local || !found.contains_key(&endpoint.text) {
                    found.insert(endpoint.text.clone(), endpoint);
                }
            }
        }
    }
    all
}

fn endpoint<'a>(
    endpoint: &'a kubernetes::Endpoint,
    port: u16,
    proxy: &Proxy<'_>,
) -> Option<Endpoint<'a>> {
    let address = *endpoint.addresses.first()?;
    if Family::of(address) != proxy.family {
        return None;
    }
    let address = SocketAddr::new(address, port);
    Some(Endpoint {
        address,
        text: address.to_string(),
        local: endpoint.node_name.as_deref() == Some(proxy.config.node.as_str()),
        for_cluster: false,
        for_local: false,
        conditions: endpoint.conditions,
        hints: &endpoint.hints,
    })
}

#[cfg(test)]
mod tests;

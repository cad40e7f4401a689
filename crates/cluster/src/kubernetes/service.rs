//! A Service.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use unmasq_model::packet::Family;

use super::Metadata;
use super::field::{address, addresses, networks, nullable, optional_port};
use super::selector::has_labels;

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Service {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: ServiceSpec,
    /// What was assigned by a load balancer.
    #[serde(default, deserialize_with = "nullable")]
    pub status: ServiceStatus,
}

impl Service {
    /// `namespace/name`
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Its cluster IP of a family. A headless Service has none.
    pub fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.spec.cluster_ips.iter().chain(&self.spec.cluster_ip).copied();
        addresses.find(|address| Family::of(*address) == family)
    }

    /// Whether a pod with these labels, in its namespace, is one of its endpoints.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.spec.selector.is_empty() && has_labels(&self.spec.selector, labels)
    }

    /// For how many seconds a client keeps its endpoint, if it does at all.
    pub fn affinity_seconds(&self) -> Option<u32> {
        let configured = self.spec.session_affinity_config.client_ip.timeout_seconds;
        match self.spec.session_affinity {
            SessionAffinity::None => None,
            SessionAffinity::ClientIp => Some(configured.unwrap_or(10_800)),
        }
    }
}

/// What is wanted of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// How it is reached.
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: ServiceType,
    /// The first cluster IP, if it isn't `None`.
    #[serde(rename = "clusterIP", deserialize_with = "address")]
    pub cluster_ip: Option<IpAddr>,
    /// One cluster IP for each family.
    #[serde(rename = "clusterIPs", deserialize_with = "addresses")]
    pub cluster_ips: Vec<IpAddr>,
    /// Ports.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ServicePort>,
    /// More addresses that it is reached by.
    #[serde(rename = "externalIPs", deserialize_with = "nullable")]
    pub external_ips: Vec<IpAddr>,
    /// Which endpoints clients from outside get.
    #[serde(deserialize_with = "nullable")]
    pub external_traffic_policy: TrafficPolicy,
    /// Which endpoints clients of the cluster IP get.
    #[serde(deserialize_with = "nullable")]
    pub internal_traffic_policy: TrafficPolicy,
    /// Whether a client keeps its endpoint.
    #[serde(deserialize_with = "nullable")]
    pub session_affinity: SessionAffinity,
    /// For how long it does.
    #[serde(deserialize_with = "nullable")]
    pub session_affinity_config: SessionAffinityConfig,
    /// Who may reach the load balancer's address; empty: everybody.
    #[serde(deserialize_with = "networks")]
    pub load_balancer_source_ranges: Vec<IpNet>,
    /// Where a load balancer asks whether this node has endpoints.
    #[serde(deserialize_with = "optional_port")]
    pub health_check_node_port: Option<u16>,
    /// Labels of its pods; empty: somebody else writes its endpoints.
    #[serde(deserialize_with = "nullable")]
    pub selector: BTreeMap<String, String>,
    /// Whose load balancer it is; absent: the default one's.
    pub load_balancer_class: Option<String>,
    /// Whether a load balancer's Service gets node ports too: unless it is `false`.
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Whether pods that aren't ready are endpoints too.
    #[serde(deserialize_with = "nullable")]
    pub publish_not_ready_addresses: bool,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// May be empty.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// Transport protocol.
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: Protocol,
    /// The port that clients use.
    pub port: u16,
    /// The port that endpoints listen on, if it is another.
    #[serde(default)]
    pub target_port: Option<TargetPort>,
    /// The port of every node.
    #[serde(default, deserialize_with = "optional_port")]
    pub node_port: Option<u16>,
}

/// What a load balancer assigned.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// Its addresses.
    #[serde(deserialize_with = "nullable")]
    pub load_balancer: LoadBalancer,
}

/// A load balancer's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancer {
    /// One by one.
    #[serde(deserialize_with = "nullable")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// An address of a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// Absent if it has a host name only.
    #[serde(deserialize_with = "address")]
    pub ip: Option<IpAddr>,
    /// How packets reach the nodes.
    #[serde(deserialize_with = "nullable")]
    pub ip_mode: IpMode,
}

/// The container of an affinity's options.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct SessionAffinityConfig {
    /// Of an affinity to the client's address.
    #[serde(rename = "clientIP", deserialize_with = "nullable")]
    pub client_ip: ClientIpConfig,
}

/// Options of an affinity to the client's address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// How long it lasts.
    pub timeout_seconds: Option<u32>,
}

/// How a Service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum ServiceType {
    /// By its cluster IP.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// By a port of every node too.
    NodePort,
    /// By a load balancer too.
    LoadBalancer,
    /// By another name: not proxied.
    ExternalName,
}

/// Which endpoints a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum TrafficPolicy {
    /// Those of all nodes.
    #[default]
    Cluster,
    /// Those of this node.
    Local,
}

/// Whether a client keeps its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum SessionAffinity {
    /// No.
    #[default]
    None,
    /// By its address.
    #[serde(rename = "ClientIP")]
    ClientIp,
}

/// How packets for a load balancer's address reach the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum IpMode {
    /// With that address as destination.
    #[default]
    #[serde(rename = "VIP")]
    Vip,
    /// With a node's or a pod's address as destination.
    Proxy,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    /// As rules name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// A port of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that a container gave it.
    Name(String),
}

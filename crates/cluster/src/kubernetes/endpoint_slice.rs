//! An EndpointSlice: some of a Service's endpoints.

use std::net::IpAddr;

use serde::Deserialize;
use unmasq_model::packet::Family;

use super::field::{nullable, optional_port};
use super::{Metadata, Protocol};

/// Some of a Service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Name, namespace, labels: one names the Service.
    pub metadata: Metadata,
    /// Family of all addresses.
    pub address_type: AddressType,
    /// Endpoints.
    #[serde(default, deserialize_with = "nullable")]
    pub endpoints: Vec<Endpoint>,
    /// Ports of every endpoint.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<EndpointPort>,
}

impl EndpointSlice {
    /// The name of its Service.
    pub fn service(&self) -> Option<&str> {
        self.metadata.labels.get(super::endpoints::SERVICE_NAME).map(String::as_str)
    }
}

/// Family of an EndpointSlice's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum AddressType {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl From<AddressType> for Family {
    fn from(kind: AddressType) -> Self {
        match kind {
            AddressType::V4 => Family::V4,
            AddressType::V6 => Family::V6,
        }
    }
}

/// An endpoint: a pod, for the most part.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The first is used, the others have no defined meaning.
    pub addresses: Vec<IpAddr>,
    /// Whether it takes connections.
    #[serde(default, deserialize_with = "nullable")]
    pub conditions: Conditions,
    /// Where it runs.
    #[serde(default)]
    pub node_name: Option<String>,
    /// For whom it is.
    #[serde(default, deserialize_with = "nullable")]
    pub hints: Hints,
}

/// Whether an endpoint takes connections. Absent is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Conditions {
    /// Ready and not terminating.
    pub ready: Option<bool>,
    /// Ready, terminating or not.
    pub serving: Option<bool>,
    /// Going away.
    pub terminating: Option<bool>,
}

/// For whom an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    /// Clients in these zones.
    #[serde(deserialize_with = "nullable")]
    pub for_zones: Vec<Hint>,
    /// Clients on these nodes.
    #[serde(deserialize_with = "nullable")]
    pub for_nodes: Vec<Hint>,
}

/// A zone or a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hint {
    /// Its name.
    pub name: String,
}

/// A port of every endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EndpointPort {
    /// That of the Service's port.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// Transport protocol.
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: Protocol,
    /// Absent: all ports, which no proxy supports.
    #[serde(default, deserialize_with = "optional_port")]
    pub port: Option<u16>,
}

//! A node.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use unmasq_model::packet::Family;

use super::Metadata;
use super::field::{networks, nullable};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// Name and labels: one names the zone.
    pub metadata: Metadata,
    /// What was assigned to it.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: NodeSpec,
    /// What it says of itself.
    #[serde(default, deserialize_with = "nullable")]
    pub status: NodeStatus,
}

impl Node {
    /// Its address of a family: an internal one, else an external one.
    pub fn ip(&self, family: Family) -> Option<IpAddr> {
        ["InternalIP", "ExternalIP"].iter().find_map(|kind| {
            let mut addresses = self.status.addresses.iter().filter(|found| found.kind == *kind);
            addresses.find_map(|found| {
                let address = found.address.parse().ok()?;
                (Family::of(address) == family).then_some(address)
            })
        })
    }

    /// The zone that it is in.
    pub fn zone(&self) -> Option<&str> {
        self.metadata.labels.get("topology.kubernetes.io/zone").map(String::as_str)
    }
}

/// What was assigned to a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// The networks of its pods, one for each family.
    #[serde(rename = "podCIDRs", deserialize_with = "networks")]
    pub pod_cidrs: Vec<IpNet>,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Addresses and host names.
    #[serde(deserialize_with = "nullable")]
    pub addresses: Vec<NodeAddress>,
}

/// An address or a host name of a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The address or the name.
    pub address: String,
}

//! A node.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use unmasq_model::packet::Family;

use super::Metadata;
use super::field::{networks, nullable, optional_network};

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

    /// The networks of its pods, one for each family.
    pub fn pod_cidrs(&self) -> impl Iterator<Item = IpNet> {
        let alone = self.spec.pod_cidr.filter(|_| self.spec.pod_cidrs.is_empty());
        self.spec.pod_cidrs.iter().copied().chain(alone)
    }

    /// Its internal addresses.
    pub fn internal_ips(&self) -> impl Iterator<Item = IpAddr> {
        let internal = self.status.addresses.iter().filter(|found| found.kind == "InternalIP");
        internal.filter_map(|found| found.address.parse().ok())
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
    /// The first of them, which older clusters have alone.
    #[serde(rename = "podCIDR", deserialize_with = "optional_network")]
    pub pod_cidr: Option<IpNet>,
    /// What keeps pods off it.
    #[serde(deserialize_with = "nullable")]
    pub taints: Vec<Taint>,
}

/// What keeps pods off a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Its name.
    #[serde(deserialize_with = "nullable")]
    pub key: String,
    /// Its value.
    #[serde(deserialize_with = "nullable")]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    #[serde(deserialize_with = "nullable")]
    pub effect: String,
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

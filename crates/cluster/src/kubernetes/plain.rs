//! Kinds of few fields: Namespace, ConfigMap, ServiceCIDR.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Deserialize;

use super::Metadata;
use super::field::{networks, nullable};

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Namespace {
    /// Its name and its labels.
    pub metadata: Metadata,
}

/// A ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ConfigMap {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// Texts by key.
    #[serde(default, deserialize_with = "nullable")]
    pub data: BTreeMap<String, String>,
}

/// Addresses that Services get their cluster IPs from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServiceCidr {
    /// Its name.
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: ServiceCidrSpec,
}

/// What is wanted of a ServiceCIDR.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidrSpec {
    /// One range for each family.
    #[serde(deserialize_with = "networks")]
    pub cidrs: Vec<IpNet>,
}

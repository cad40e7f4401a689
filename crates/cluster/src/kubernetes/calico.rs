//! Calico's own objects, as its CRDs and its API server have them (projectcalico/calico
//! api/pkg/apis/projectcalico/v3).

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::Metadata;
use super::field::{network, nullable};

/// Addresses for pods.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IpPool {
    /// Its name.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: IpPoolSpec,
}

/// What is wanted of a pool (ippool.go).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolSpec {
    /// The addresses.
    #[serde(deserialize_with = "network")]
    pub cidr: IpNet,
    /// Whether packets from it to addresses that no pool has are masqueraded.
    #[serde(default, deserialize_with = "nullable")]
    pub nat_outgoing: bool,
    /// Whether no more pods get addresses from it.
    #[serde(default, deserialize_with = "nullable")]
    pub disabled: bool,
    /// `Always`, `CrossSubnet` or `Never`.
    #[serde(default)]
    pub ipip_mode: Option<String>,
    /// `Always`, `CrossSubnet` or `Never`.
    #[serde(default)]
    pub vxlan_mode: Option<String>,
    /// Nodes whose pods get addresses from it; all, if there is none.
    #[serde(default)]
    pub node_selector: Option<String>,
}

/// Settings of Felix, which programs Calico's rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FelixConfiguration {
    /// Its name: `default` for all nodes, `node.NAME` for one.
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: FelixConfigurationSpec,
}

/// What is wanted of Felix (felixconfig.go); the part that is about outgoing NAT.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FelixConfigurationSpec {
    /// The address to translate to, in place of the outgoing device's.
    pub nat_outgoing_address: Option<String>,
    /// `IPPoolsOnly` or `IPPoolsAndHostIPs`: destinations that packets aren't masqueraded to.
    pub nat_outgoing_exclusions: Option<String>,
    /// Ports to translate to: `MIN:MAX`.
    #[serde(rename = "natPortRange", deserialize_with = "text_or_number")]
    pub nat_port_range: Option<String>,
    /// The devices that masquerading is for.
    #[serde(rename = "iptablesNATOutgoingInterfaceFilter")]
    pub nat_outgoing_interface_filter: Option<String>,
}

/// numorstring.Port is a number, or a text with a range.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TextOrNumber {
        Text(String),
        Number(u64),
    }
    Ok(Option::deserialize(deserializer)?.map(|found| match found {
        TextOrNumber::Text(text) => text,
        TextOrNumber::Number(number) => number.to_string(),
    }))
}

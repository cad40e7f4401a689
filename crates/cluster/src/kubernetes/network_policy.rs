//! A NetworkPolicy: which peers may reach which pods, and the other way round.

use ipnet::IpNet;
use serde::Deserialize;

use super::field::{network, networks, nullable};
use super::{LabelSelector, Metadata, Protocol, TargetPort};

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NetworkPolicy {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What it says.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: NetworkPolicySpec,
}

impl NetworkPolicy {
    /// Whether it restricts what reaches its pods: unless it says that it doesn't (kubernetes
    /// pkg/apis/networking/v1/defaults.go).
    pub fn is_for_ingress(&self) -> bool {
        self.spec.policy_types.is_empty() || self.spec.policy_types.contains(&PolicyType::Ingress)
    }

    /// Whether it restricts what its pods reach: if it says so, or has such rules without saying
    /// which types it is of.
    pub fn is_for_egress(&self) -> bool {
        let types = &self.spec.policy_types;
        types.contains(&PolicyType::Egress) || (types.is_empty() && !self.spec.egress.is_empty())
    }
}

/// What a NetworkPolicy says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// The pods of its namespace that it is for.
    #[serde(deserialize_with = "nullable")]
    pub pod_selector: LabelSelector,
    /// Which directions it restricts; empty: see [`NetworkPolicy::is_for_ingress`].
    #[serde(deserialize_with = "nullable")]
    pub policy_types: Vec<PolicyType>,
    /// What may reach the pods; nothing, if there is no rule.
    #[serde(deserialize_with = "nullable")]
    pub ingress: Vec<IngressRule>,
    /// What the pods may reach.
    #[serde(deserialize_with = "nullable")]
    pub egress: Vec<EgressRule>,
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum PolicyType {
    /// To the pods.
    Ingress,
    /// From the pods.
    Egress,
}

/// Who may reach the pods, at which ports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// Who; empty: everybody.
    #[serde(deserialize_with = "nullable")]
    pub from: Vec<Peer>,
    /// At which ports; empty: at all.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<PolicyPort>,
}

/// Whom the pods may reach, at which ports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct EgressRule {
    /// Whom; empty: everybody.
    #[serde(deserialize_with = "nullable")]
    pub to: Vec<Peer>,
    /// At which ports; empty: at all.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<PolicyPort>,
}

/// Pods, or addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    /// These pods, of the policy's namespace unless there is a selector of namespaces.
    pub pod_selector: Option<LabelSelector>,
    /// Pods of these namespaces.
    pub namespace_selector: Option<LabelSelector>,
    /// These addresses.
    pub ip_block: Option<IpBlock>,
}

/// Addresses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IpBlock {
    /// These.
    #[serde(deserialize_with = "network")]
    pub cidr: IpNet,
    /// But not these.
    #[serde(default, deserialize_with = "networks")]
    pub except: Vec<IpNet>,
}

/// A port, several, or all of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyPort {
    /// Transport protocol.
    #[serde(deserialize_with = "nullable")]
    pub protocol: Protocol,
    /// The port; absent: all.
    pub port: Option<TargetPort>,
    /// The last port of a range that begins with `port`.
    pub end_port: Option<u16>,
}

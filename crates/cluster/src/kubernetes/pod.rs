//! A pod, and what the templates of DaemonSets and Deployments say of theirs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use unmasq_model::packet::Family;

use super::field::{address, nullable, optional_port};
use super::{LabelSelector, Metadata, Protocol, TargetPort};

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pod {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: PodSpec,
    /// What became of it.
    #[serde(default, deserialize_with = "nullable")]
    pub status: PodStatus,
}

impl Pod {
    /// Its addresses, the first of which is the main one. A pod of the host's network has the
    /// node's; one that has ended has none any more, as they may be another's by now.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        let ended = self.has_ended();
        let all = self.status.pod_ips.iter().filter_map(|found| found.ip);
        let main = self.status.pod_ip.filter(|_| self.status.pod_ips.is_empty());
        all.chain(main).filter(move |_| !ended)
    }

    /// Its address of a family.
    pub fn ip(&self, family: Family) -> Option<IpAddr> {
        self.ips().find(|address| Family::of(*address) == family)
    }

    /// Whether its containers have ended for good.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// The number of a Service's target port in this pod: a name is one of a container's ports.
    pub fn port(&self, wanted: &TargetPort, protocol: Protocol) -> Option<u16> {
        match wanted {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => {
                let is_it = |port: &&ContainerPort| port.name == *name && port.protocol == protocol;
                self.listening_ports().find(is_it).map(|port| port.container_port)
            }
        }
    }

    /// The ports that names are looked for among: those of its containers, then of the initial ones
    /// that go on running beside them (kubernetes pkg/api/v1/pod/util.go, `FindPort`).
    pub fn listening_ports(&self) -> impl Iterator<Item = &ContainerPort> {
        let beside = self.spec.init_containers.iter().filter(|one| one.is_sidecar());
        self.spec.containers.iter().chain(beside).flat_map(|one| &one.ports)
    }
}

/// What is wanted of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Where it runs.
    pub node_name: Option<String>,
    /// Whether it is in the node's own network namespace.
    #[serde(deserialize_with = "nullable")]
    pub host_network: bool,
    /// Containers that run before the others.
    #[serde(deserialize_with = "nullable")]
    pub init_containers: Vec<Container>,
    /// Containers.
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<Container>,
}

impl PodSpec {
    /// All containers, those that run first before the others.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Its image.
    #[serde(deserialize_with = "nullable")]
    pub image: String,
    /// The program and arguments, in place of the image's own.
    #[serde(deserialize_with = "nullable")]
    pub command: Vec<String>,
    /// More arguments.
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<EnvVar>,
    /// Ports that it names.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ContainerPort>,
    /// `Always` for an initial container that goes on running.
    #[serde(rename = "restartPolicy")]
    pub restart_policy: Option<String>,
}

impl Container {
    /// Whether it goes on running though it is one of those that run first.
    fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }

    /// The value of a variable of its environment that is written there.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find(|variable| variable.name == name)?.value.as_deref()
    }

    /// Command and arguments.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.command.iter().chain(&self.args).map(String::as_str)
    }
}

/// A variable of a container's environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct EnvVar {
    /// Its name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Its value; `None`: it comes from somewhere else.
    pub value: Option<String>,
}

/// A port that a container names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// May be empty.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// Its number in the pod.
    pub container_port: u16,
    /// Its number on the node.
    #[serde(default, deserialize_with = "optional_port")]
    pub host_port: Option<u16>,
    /// The node's address that `host_port` is at; all, if there is none.
    #[serde(default, rename = "hostIP", deserialize_with = "address")]
    pub host_ip: Option<IpAddr>,
    /// Transport protocol.
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: Protocol,
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    #[serde(deserialize_with = "nullable")]
    pub phase: String,
    /// Its main address.
    #[serde(rename = "podIP", deserialize_with = "address")]
    pub pod_ip: Option<IpAddr>,
    /// One address for each family; empty in clusters before Kubernetes 1.16.
    #[serde(rename = "podIPs", deserialize_with = "nullable")]
    pub pod_ips: Vec<PodIp>,
    /// The node's main address.
    #[serde(rename = "hostIP", deserialize_with = "address")]
    pub host_ip: Option<IpAddr>,
}

/// An address of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    #[serde(deserialize_with = "address")]
    pub ip: Option<IpAddr>,
}

/// A DaemonSet or a Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Workload {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: WorkloadSpec,
}

/// What is wanted of a DaemonSet or a Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct WorkloadSpec {
    /// How many pods; a DaemonSet has none, as it has one on each node.
    pub replicas: Option<u32>,
    /// Which pods are its own.
    #[serde(deserialize_with = "nullable")]
    pub selector: LabelSelector,
    /// What its pods are like.
    #[serde(deserialize_with = "nullable")]
    pub template: PodTemplate,
}

/// What the pods of a DaemonSet or a Deployment are like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    #[serde(deserialize_with = "nullable")]
    pub metadata: TemplateMetadata,
    /// The rest.
    #[serde(deserialize_with = "nullable")]
    pub spec: PodSpec,
}

/// Labels and annotations of pods that have no name yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct TemplateMetadata {
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
}

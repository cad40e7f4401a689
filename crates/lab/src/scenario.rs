//! A cluster to build, with what is wrong in it and how that is mended: the scenario file.
//!
//! In: YAML (docs/scenarios/README.md describes it, schemas/scenario.v1.json checks it). Out: a
//! [`Scenario`] whose names and addresses are known to fit together, and one more for the state
//! after each step of its remedy: a step is a change of settings (RFC 7386 merge patch), as a
//! person would change a DaemonSet or a Service, and what the owners of the rules then do follows
//! from the settings.
//!
//! It builds nothing: that is [`crate::cluster`].

mod builtin;
mod check;
mod program;

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};
use unmasq_model::packet::Family;

pub use builtin::{BUILTIN, builtin};
pub use program::{
    CalicoSettings, Distribution, EngineSettings, FlannelSettings, IpMasqAgentSettings,
    IptablesProgram, KlipperSettings, KubeProxySettings, KubeRouterSettings, Pool, Programs,
    ProxyMode, StaleFlannel, StraySettings,
};

/// The `schema` of the format.
pub const SCHEMA: &str = "unmasq.scenario/v1";

/// A cluster, what is wrong in it, and the remedy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// [`SCHEMA`].
    pub schema: String,
    /// A short name of letters, digits and hyphens.
    pub name: String,
    /// One line.
    pub title: String,
    /// What happens and why, in a few sentences.
    pub about: String,
    /// The entry of the catalogue of causes that it shows, or an issue.
    #[serde(default)]
    pub references: Vec<String>,
    /// Address ranges, and how packets get from node to node.
    pub network: Network,
    /// What is between the nodes and the outside.
    #[serde(default)]
    pub gateway: Gateway,
    /// Hosts outside of the cluster, behind the gateway: clients, and servers for egress.
    #[serde(default)]
    pub outside: Vec<OutsideHost>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pods; each answers on TCP and UDP port 8080.
    pub pods: Vec<Pod>,
    /// A load balancer for Services of that type.
    #[serde(default)]
    pub load_balancer: Option<LoadBalancer>,
    /// A proxy in front of a Service.
    #[serde(default)]
    pub proxy: Option<Proxy>,
    /// What programs rules on every node.
    #[serde(default)]
    pub programs: Programs,
    /// Kubernetes manifests of Services. Endpoints follow from the selectors.
    #[serde(default)]
    pub manifests: Vec<Value>,
    /// What mends it.
    #[serde(default)]
    pub remedy: Vec<RemedyStep>,
    /// What must be seen before the remedy and after it.
    #[serde(default)]
    pub expect: Vec<Expectation>,
    /// What the cluster's owner wants to hold, in the form `unmasq.expect/v1`: goes into captures as
    /// it is, and isn't looked at here.
    #[serde(default)]
    pub wants: Option<Map<String, Value>>,
}

/// Address ranges, and how packets get from node to node.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// How packets get from node to node.
    pub between: Between,
    /// How pods are attached to their node.
    #[serde(default)]
    pub pods_by: PodLink,
    /// The cluster's pods, one network for each family.
    pub pods: Vec<IpNet>,
    /// The cluster's Services.
    pub services: Vec<IpNet>,
    /// The nodes' own network.
    pub nodes: Vec<IpNet>,
}

/// How packets get from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Between {
    /// flannel's VXLAN: a device `flannel.1`.
    FlannelVxlan,
    /// flannel's host-gw: a route to each node.
    FlannelHostGw,
    /// A route to each node, which the gateway has too: what BGP gives (kube-router, Calico).
    Routed,
}

/// How pods are attached to their node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodLink {
    /// All to one bridge that has the first address of the node's range.
    #[default]
    Bridge,
    /// Each by a device of its own with a /32 route, the way of Calico.
    Route,
}

/// What is between the nodes and the outside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gateway {
    /// Sources that it translates to its own address on the way out; nothing by default.
    #[serde(default)]
    pub masquerades: Vec<IpNet>,
    /// Pods' networks that it has routes to, by BGP or by hand.
    #[serde(default)]
    pub knows_pods: Vec<IpNet>,
}

/// A host outside of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OutsideHost {
    /// Its name.
    pub name: String,
    /// Its addresses with their prefix lengths. The gateway has the first of each network.
    pub addresses: Vec<IpNet>,
    /// The networks that it has a way to, by the gateway; everything by default. A host on the
    /// Internet knows no private ones.
    #[serde(default)]
    pub reaches: Option<Vec<IpNet>>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses, one of each family.
    pub addresses: Vec<IpAddr>,
    /// Its part of the cluster's pod network, one of each family.
    pub pods: Vec<IpNet>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The node that it runs on.
    pub node: String,
    /// Labels that Services select by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A load balancer at the gateway, which spreads connections over nodes and passes the client's
/// address on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LoadBalancer {
    /// Whether it leaves out nodes whose `healthCheckNodePort` says that they have no endpoint.
    #[serde(default = "yes")]
    pub health_checks: bool,
}

/// A proxy with an address in the nodes' network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Proxy {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The port that it listens on.
    pub port: u16,
    /// The Service that it forwards to (`namespace/name`), by its node ports.
    pub service: String,
    /// How it says who the client is.
    pub tells: Tells,
    /// Whether the Service's pods read it.
    #[serde(default)]
    pub pods_read_it: bool,
}

/// How a proxy says who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tells {
    /// Not at all.
    Nothing,
    /// The header X-Forwarded-For.
    ForwardedFor,
    /// The PROXY protocol, version 1.
    ProxyV1,
    /// The PROXY protocol, version 2.
    ProxyV2,
}

/// One change, and what it is in words.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RemedyStep {
    /// What is done, in one line.
    pub title: String,
    /// How: the commands or settings of the real system.
    pub how: String,
    /// What changes in the scenario (RFC 7386).
    pub change: Value,
}

/// A way that must be seen: who asks whom, and what the server must see.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expectation {
    /// The client: a pod, a node, or an outside host.
    pub from: String,
    /// What is called: a pod, an outside host, or `service/NAMESPACE/NAME`.
    pub to: String,
    /// How a Service is entered.
    #[serde(default)]
    pub entry: Option<Entry>,
    /// The node of a node port.
    #[serde(default)]
    pub via: Option<String>,
    /// One family only.
    #[serde(default)]
    pub family: Option<IpFamily>,
    /// Before the remedy.
    pub before: Fate,
    /// What may be seen before the remedy instead, by chance: where a load balancer picks a node.
    #[serde(default)]
    pub sometimes_before: Option<Fate>,
    /// After the first steps of the remedy, of as many as are listed.
    #[serde(default)]
    pub between: Vec<Fate>,
    /// After the remedy.
    pub after: Fate,
    /// The hosts that forward the packet, before the remedy and after it, of what tells (not TCP).
    #[serde(default)]
    pub hops: Option<Hops>,
}

/// Hosts that forward a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Hops {
    /// Before the remedy.
    #[serde(default)]
    pub before: Option<usize>,
    /// After it.
    #[serde(default)]
    pub after: Option<usize>,
}

/// How a Service is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// Its cluster IP.
    ClusterIp,
    /// A port of a node.
    NodePort,
    /// The load balancer's address.
    LoadBalancer,
    /// An address in `externalIPs`.
    ExternalIp,
    /// The proxy in front of it.
    Proxy,
}

impl Entry {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Entry::ClusterIp => "cluster-ip",
            Entry::NodePort => "node-port",
            Entry::LoadBalancer => "load-balancer",
            Entry::ExternalIp => "external-ip",
            Entry::Proxy => "proxy",
        }
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl IpFamily {
    /// The model's name of it.
    pub fn family(self) -> Family {
        match self {
            IpFamily::Ipv4 => Family::V4,
            IpFamily::Ipv6 => Family::V6,
        }
    }
}

/// What became of a client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The server saw it.
    Preserved,
    /// The server saw another one.
    Rewritten,
    /// The connection's address is another, but the server was told the client's (a header, the
    /// PROXY protocol).
    Told,
    /// No answer came.
    Silent,
    /// The client was told that it can't be.
    Refused,
}

impl Fate {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Fate::Preserved => "preserved",
            Fate::Rewritten => "rewritten",
            Fate::Told => "told",
            Fate::Silent => "silent",
            Fate::Refused => "refused",
        }
    }
}

fn yes() -> bool {
    true
}

impl Scenario {
    /// Reads and checks a scenario.
    pub fn parse(text: &str) -> Result<Scenario> {
        let scenario: Scenario = read(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The states after each step of the remedy, with the step's number from 1.
    pub fn after_steps(text: &str) -> Result<Vec<Scenario>> {
        let mut document: Value = read(text)?;
        let scenario = Scenario::parse(text)?;
        let mut states = Vec::new();
        for (number, step) in (1..).zip(&scenario.remedy) {
            let place = || format!("step {number} of the remedy, {:?}", step.title);
            merge(&mut document, &step.change);
            let after: Scenario = serde_json::from_value(document.clone()).with_context(place)?;
            after.check().with_context(place)?;
            if after.nodes != scenario.nodes || after.pods != scenario.pods {
                bail!("{}: nodes and pods stay as they are", place());
            }
            states.push(after);
        }
        Ok(states)
    }

    /// The addresses in `externalIPs` of the Services, each once.
    pub fn external_addresses(&self) -> Vec<IpAddr> {
        let services = self.manifests.iter().filter(|object| object["kind"] == "Service");
        let texts = services
            .filter_map(|service| service["spec"]["externalIPs"].as_array())
            .flatten()
            .filter_map(Value::as_str);
        let mut addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// Families that the cluster's pods have.
    pub fn families(&self) -> Vec<Family> {
        let has =
            |family: &Family| self.network.pods.iter().any(|net| Family::of(net.addr()) == *family);
        [Family::V4, Family::V6].into_iter().filter(has).collect()
    }
}

/// YAML. The parser's message says where; the lines that it shows besides have it once more.
fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_saphyr::from_str(text).map_err(|error| anyhow!("{}", error.without_snippet()))
}

/// RFC 7386: objects are merged, `null` removes, everything else replaces.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests;

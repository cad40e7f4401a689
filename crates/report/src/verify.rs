//! Words for connections that are tried: who calls whom, what is predicted, and what was seen.
//!
//! Shared by the terminal's view, the document, and command lines that a person starts on hosts.

use std::net::{IpAddr, SocketAddr};

use unmasq_audit::matrix::verify::{Check, Happened, Predicted, Seen, Vantage, What};
use unmasq_audit::matrix::{Entry, Outside};
use unmasq_cluster::Cluster;
use unmasq_cluster::paths::Caller;

use crate::names::Names;

/// What things are called.
pub struct Words<'a> {
    cluster: &'a Cluster,
    vantage: &'a Vantage,
    names: Names,
}

impl<'a> Words<'a> {
    /// Those of a cluster and of what is outside of it.
    pub fn new(cluster: &'a Cluster, vantage: &'a Vantage) -> Words<'a> {
        Words { cluster, vantage, names: Names::of(cluster) }
    }

    /// The host with an address: `pod default/web-1 on node n1`, `node n1`, `laptop`; else the
    /// address.
    pub fn host(&self, address: IpAddr) -> String {
        let mut hosts = self.vantage.hosts.iter();
        if let Some(host) = hosts.find(|host| host.addresses.contains(&address)) {
            return host.name.clone();
        }
        let name = self.names.or_address(address);
        let node = self.cluster.pod_addresses().find(|(pod, _)| *pod == address);
        match node.and_then(|(_, node)| self.cluster.nodes.get(node)) {
            Some(node) if name.starts_with("pod ") => format!("{name} on node {}", node.name),
            Some(_) | None => name,
        }
    }

    /// Who calls.
    pub fn caller(&self, check: &Check) -> String {
        match check.call().from {
            Caller::Pod { address, .. } => self.host(address),
            Caller::Node(node) => {
                let name = self.cluster.nodes.get(node).map_or("?", |node| node.name.as_str());
                format!("node {name}")
            }
            Caller::Outside { .. } => match (&check.name, &check.outside) {
                (Some(name), _) => name.clone(),
                (None, Some(Outside::NamedByRule(net) | Outside::NamedBySetting(net))) => {
                    format!("somebody outside of {net}")
                }
                (None, Some(Outside::Anybody) | None) => "somebody outside".to_owned(),
            },
        }
    }

    /// `namespace/name` of the Service.
    pub(crate) fn service(&self, check: &Check) -> Option<String> {
        let (service, _) = check.service?;
        Some(self.cluster.objects.services.get(service as usize)?.full_name())
    }

    /// Who is called: `node port 10.0.0.11:30080 of default/web`.
    pub fn called(&self, check: &Check) -> String {
        let call = check.call();
        let to = end(call.to, call.port);
        match self.service(check) {
            Some(service) => format!("{} {to} of {service}", entry(check.entry)),
            None if check.entry == Entry::Node => {
                format!("{} {to}", self.names.or_address(call.to))
            }
            None => format!("{} {to}", self.host(call.to)),
        }
    }

    /// Nodes by name that the packet may come to.
    pub(crate) fn nodes(&self, check: &Check) -> Vec<String> {
        let node = |index: usize| self.cluster.nodes.get(index).map(|node| node.name.clone());
        check.calls.iter().filter_map(|call| node(call.from.node())).collect()
    }

    /// What is predicted.
    pub fn predicted(&self, predicted: &Predicted) -> String {
        let at = predicted.at.map(|(address, port)| self.at(address, port)).unwrap_or_default();
        match &predicted.what {
            What::Preserved => format!("source preserved{at}"),
            What::Rewritten(source) => format!("source rewritten to {source}{at}"),
            What::Silence => "no answer".to_owned(),
            What::Nobody => "no answer, or an error: nobody has the address".to_owned(),
            What::Refusal => "refused".to_owned(),
            What::Unknown(why) => format!("unknown: {}", why.join("; ")),
        }
    }

    /// All that can come of a check.
    pub fn all_predicted(&self, check: &Check) -> String {
        let all: Vec<String> = check.predicted.iter().map(|one| self.predicted(one)).collect();
        all.join("; or ")
    }

    /// What was seen.
    pub(crate) fn seen(&self, seen: &Seen) -> String {
        let from = seen.from.map(|from| from.ip());
        match &seen.what {
            Happened::Answered { source, at } => {
                let at = self.at(at.ip(), Some(at.port()));
                match from == Some(source.ip()) {
                    true => format!("source preserved{at}"),
                    false => format!("source rewritten to {}{at}", source.ip()),
                }
            }
            Happened::Foreign(what) => {
                format!("answered by another program, which doesn't say what it sees: {what}")
            }
            Happened::Refused { unreachable: true } => "refused: unreachable".to_owned(),
            Happened::Refused { unreachable: false } => "refused".to_owned(),
            Happened::Silent => "no answer".to_owned(),
            Happened::Failed(why) => format!("not made: {why}"),
        }
    }

    fn at(&self, address: IpAddr, port: Option<u16>) -> String {
        match self.names.get(address) {
            Some(name) => format!(", at {name}, {}", end(address, port)),
            None => format!(", at {}", end(address, port)),
        }
    }
}

/// How a Service is entered.
pub(crate) fn entry(entry: Entry) -> &'static str {
    match entry {
        Entry::Pod => "pod",
        Entry::Node => "node",
        Entry::Outside => "outside",
        Entry::ClusterIp => "cluster IP",
        Entry::NodePort => "node port",
        Entry::LoadBalancer => "load balancer",
        Entry::ExternalIp => "external IP",
    }
}

pub(crate) fn end(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

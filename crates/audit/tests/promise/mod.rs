//! What kube-proxy promises for every entry of every Service of a real capture, computed from the
//! Kubernetes objects alone: no rule is looked at, and nothing of what this project reads objects
//! with.
//!
//! | destination | source | endpoints | masquerade |
//! |---|---|---|---|
//! | ClusterIP | pod | eligible in the cluster | no |
//! | ClusterIP | node, outside | the same | yes (a local detector is configured) |
//! | ClusterIP, internal policy Local | any | local | as above |
//! | external, policy Cluster | any | eligible in the cluster | yes |
//! | external, policy Local | pod | eligible in the cluster | no |
//! | external, policy Local | node | the same | yes |
//! | external, policy Local | outside | local | no |
//! | any | an endpoint reaching itself | as above | yes |
//!
//! Of the captures in shared/captures: node n1, with the addresses below.

use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;
use unmasq_model::packet::Protocol;

/// The captures, each of one node.
pub(crate) const CAPTURES: [&str; 6] = [
    "kube-proxy-1.30-iptables",
    "kube-proxy-1.36-iptables",
    "kube-proxy-1.36-iptables-and-ip-masq-agent",
    "kube-proxy-1.36-iptables-legacy",
    "kube-proxy-1.36-nftables",
    "kube-proxy-1.36-nftables-and-ip-masq-agent",
];

/// Why a capture isn't read.
pub(crate) const ABSENT: &str = "real systems' data are not beside the repository: shared/captures";

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Pod,
    Node,
    Outside,
}

/// What a Service entry should do for a client.
#[derive(Debug, Clone)]
pub(crate) enum Promise {
    /// To one of these, with or without masquerade (which an endpoint that reaches itself has in
    /// any case).
    Endpoints {
        endpoints: Vec<Backend>,
        masquerade: bool,
    },
    Rejected,
    Dropped,
}

/// An endpoint of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) node: String,
    ready: bool,
    serving: bool,
    terminating: bool,
    for_nodes: Vec<String>,
}

/// How a Service is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    ClusterIp,
    NodePort,
    ExternalIp,
    LoadBalancer,
}

/// A Service's port in one family.
#[derive(Debug)]
pub(crate) struct Port<'o> {
    /// The Service's name.
    pub(crate) name: &'o str,
    /// Its `spec`.
    pub(crate) spec: &'o Value,
    pub(crate) protocol: Protocol,
    pub(crate) v4: bool,
    /// Addresses and ports that it is called by.
    pub(crate) entries: Vec<(Entry, IpAddr, u16)>,
    /// All endpoints, eligible or not.
    pub(crate) backends: Vec<Backend>,
}

/// The objects of a capture.
pub(crate) struct Objects {
    services: Vec<Value>,
    slices: Vec<Value>,
    /// 1.36 knows `trafficDistribution: PreferSameNode`, 1.30 does not.
    same_node: bool,
}

impl Objects {
    pub(crate) fn read(path: &Path) -> Objects {
        let items = |name: &str| -> Vec<Value> {
            let text = std::fs::read_to_string(path.join("kubernetes").join(name)).expect(name);
            let list: Value = serde_json::from_str(&text).expect(name);
            list["items"].as_array().expect("items").clone()
        };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Objects {
            services: items("services.json"),
            slices: items("endpointslices.discovery.k8s.io.json"),
            same_node: !name.contains("1.30"),
        }
    }

    /// All ports of all Services that have an address, in each family.
    pub(crate) fn ports(&self) -> Vec<Port<'_>> {
        let mut all = Vec::new();
        for service in &self.services {
            if service["spec"]["clusterIP"] == "None" {
                continue;
            }
            for address in strings(&service["spec"]["clusterIPs"]) {
                let cluster_ip: IpAddr = address.parse().expect("a ClusterIP");
                let ports = service["spec"]["ports"].as_array().expect("ports");
                all.extend(ports.iter().map(|port| self.port(service, port, cluster_ip)));
            }
        }
        all
    }

    fn port<'o>(&'o self, service: &'o Value, port: &'o Value, vip: IpAddr) -> Port<'o> {
        let spec = &service["spec"];
        let name = service["metadata"]["name"].as_str().expect("a name");
        let number = |key: &str| port[key].as_u64().and_then(|n| u16::try_from(n).ok());
        let port_number = number("port").expect("a port");
        let mut entries = vec![(Entry::ClusterIp, vip, port_number)];
        if let Some(node_port) = number("nodePort") {
            entries.push((Entry::NodePort, node_address(vip.is_ipv4()), node_port));
        }
        for address in strings(&spec["externalIPs"]) {
            entries.push((Entry::ExternalIp, address.parse().expect("an address"), port_number));
        }
        for ingress in service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten()
        {
            if let (Some(ip), Some("VIP")) = (ingress["ip"].as_str(), ingress["ipMode"].as_str()) {
                let ip = ip.parse().expect("an address");
                entries.push((Entry::LoadBalancer, ip, port_number));
            }
        }
        entries.retain(|(_, address, _)| address.is_ipv4() == vip.is_ipv4());
        let protocol = port["protocol"].as_str().map(str::to_lowercase).unwrap_or_default();
        Port {
            name,
            spec,
            protocol: Protocol::from_name(&protocol).expect("a protocol"),
            v4: vip.is_ipv4(),
            entries,
            backends: self.endpoints(name, port["name"].as_str(), vip.is_ipv4()),
        }
    }

    /// What a client gets.
    pub(crate) fn promise(
        &self,
        port: &Port,
        entry: Entry,
        source: Source,
        client: IpAddr,
    ) -> Promise {
        let local_policy = |key: &str| port.spec[key] == "Local";
        let all = &port.backends;
        let cluster = self.eligible(all);
        let local: Vec<Backend> = {
            let here: Vec<Backend> = all.iter().filter(|b| b.node == "n1").cloned().collect();
            ready_or_terminating(&here)
        };
        if entry == Entry::LoadBalancer && !in_source_ranges(port.spec, client) {
            return Promise::Dropped;
        }
        if cluster.is_empty() {
            return Promise::Rejected;
        }
        let pod = source == Source::Pod;
        let (endpoints, masquerade) = if entry == Entry::ClusterIp {
            let eligible = if local_policy("internalTrafficPolicy") { local } else { cluster };
            (eligible, !pod)
        } else if local_policy("externalTrafficPolicy") {
            match source {
                Source::Pod => (cluster, false),
                Source::Node => (cluster, true),
                Source::Outside => (local, false),
            }
        } else {
            (cluster, true)
        };
        if endpoints.is_empty() {
            return Promise::Dropped;
        }
        Promise::Endpoints { endpoints, masquerade }
    }

    /// Ready endpoints after topology hints; if none is ready, serving and terminating ones.
    fn eligible(&self, all: &[Backend]) -> Vec<Backend> {
        let eligible = ready_or_terminating(all);
        let hinted: Vec<Backend> =
            eligible.iter().filter(|b| b.for_nodes.contains(&"n1".to_owned())).cloned().collect();
        let every_one_has_hints = eligible.iter().all(|b| !b.for_nodes.is_empty());
        if self.same_node && every_one_has_hints && !hinted.is_empty() { hinted } else { eligible }
    }

    fn endpoints(&self, service: &str, port: Option<&str>, v4: bool) -> Vec<Backend> {
        let family = if v4 { "IPv4" } else { "IPv6" };
        let mut backends = Vec::new();
        for slice in &self.slices {
            let of = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
            if of != service || slice["addressType"] != family {
                continue;
            }
            let number = slice["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|p| p["name"].as_str() == port)
                .and_then(|p| p["port"].as_u64())
                .and_then(|n| u16::try_from(n).ok());
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                let (Some(number), Some(address)) = (number, endpoint["addresses"][0].as_str())
                else {
                    continue;
                };
                let condition = |key: &str| endpoint["conditions"][key].as_bool();
                backends.push(Backend {
                    address: address.parse().expect("an address"),
                    port: number,
                    node: endpoint["nodeName"].as_str().unwrap_or_default().to_owned(),
                    ready: condition("ready").unwrap_or(true),
                    serving: condition("serving").unwrap_or(true),
                    terminating: condition("terminating").unwrap_or(false),
                    for_nodes: endpoint["hints"]["forNodes"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|hint| hint["name"].as_str().map(str::to_owned))
                        .collect(),
                });
            }
        }
        backends
    }
}

/// The source that an endpoint sees. Masquerade gives the address of the device towards it; an
/// endpoint on the node itself is reached without postrouting, so without masquerade.
pub(crate) fn seen_source(client: IpAddr, endpoint: IpAddr, masquerade: bool) -> IpAddr {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let node = endpoint == address("10.250.0.2");
    // Hairpin.
    let masquerade = masquerade || endpoint == client;
    if !masquerade || node {
        return client;
    }
    match (endpoint.is_ipv4(), is_local_pod(endpoint)) {
        (true, true) => address("10.128.0.1"),
        (true, false) => address("10.250.0.2"),
        (false, true) => address("fd00:128::1"),
        (false, false) => address("fd00:250::2"),
    }
}

/// Whether an address is in the node's range of pods.
pub(crate) fn is_local_pod(address: IpAddr) -> bool {
    let text = address.to_string();
    text.starts_with("10.128.0.")
        || (text.starts_with("fd00:128::") && !text.starts_with("fd00:128:0:1"))
}

/// The node's own address.
pub(crate) fn node_address(v4: bool) -> IpAddr {
    if v4 { "10.250.0.2" } else { "fd00:250::2" }.parse().expect("an address")
}

fn ready_or_terminating(all: &[Backend]) -> Vec<Backend> {
    let ready: Vec<Backend> = all.iter().filter(|b| b.ready).cloned().collect();
    if !ready.is_empty() {
        return ready;
    }
    all.iter().filter(|b| b.serving && b.terminating).cloned().collect()
}

fn in_source_ranges(spec: &Value, address: IpAddr) -> bool {
    let ranges: Vec<ipnet::IpNet> = strings(&spec["loadBalancerSourceRanges"])
        .filter_map(|range| range.parse().ok())
        .filter(|range: &ipnet::IpNet| range.addr().is_ipv4() == address.is_ipv4())
        .collect();
    ranges.is_empty() || ranges.iter().any(|range| range.contains(&address))
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

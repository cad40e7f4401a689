//! Every Service entry of real kube-proxy captures, traced from a pod, an endpoint, the node and
//! outside clients, against what kube-proxy promises: which endpoints are eligible, and whether
//! the source is masqueraded. Expectations are computed from the Kubernetes objects alone.
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

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;
use unmasq_eval::Evaluator;
use unmasq_eval::trace::{Disposition, Options, Outcome, Query, Reason, Verdict};
use unmasq_model::packet::{Packet, Protocol};

const CAPTURES: [&str; 6] = [
    "kube-proxy-1.30-iptables",
    "kube-proxy-1.36-iptables",
    "kube-proxy-1.36-iptables-and-ip-masq-agent",
    "kube-proxy-1.36-iptables-legacy",
    "kube-proxy-1.36-nftables",
    "kube-proxy-1.36-nftables-and-ip-masq-agent",
];

fn main() {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures");
    let trials = CAPTURES
        .iter()
        .map(|name| {
            let path = folder.join(name);
            Trial::ignorable_test(*name, move || {
                if !path.is_dir() {
                    return Ok(Completion::ignored_with(
                        "real systems' data are not beside the repository: shared/captures",
                    ));
                }
                check_capture(path).map(|()| Completion::Completed)
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn check_capture(path: PathBuf) -> Result<(), Failed> {
    let files = unmasq_host::capture::read(&path)?;
    let capture = unmasq_parse::capture::parse(&files)?;
    let node = capture.node("n1").ok_or("no node n1")?;
    if !node.diagnostics.is_empty() {
        return Err(format!("diagnostics: {:?}", node.diagnostics).into());
    }
    let cluster = Cluster::read(&path);
    let evaluator = Evaluator::new(&node.host, Options::default());
    let mut failures = Vec::new();
    let mut checked = 0;
    for case in cluster.cases() {
        checked += 1;
        let packet =
            Packet::open(case.protocol, case.from.address, Some(40000), case.to, Some(case.port));
        let in_device = case.from.device.map(Into::into);
        let trace = evaluator.trace(&Query { packet, in_device, later: None });
        if let Err(why) = case.expected.check(&trace.outcomes) {
            failures.push(format!("{}: {why}", case.name));
        }
    }
    println!("{}: {checked} entries", path.display());
    // 41 Service ports with their entries, 5 kinds of client each.
    if checked < 200 {
        failures.push(format!("only {checked} entries were found"));
    }
    if failures.is_empty() {
        return Ok(());
    }
    let count = failures.len();
    failures.truncate(25);
    Err(format!("{count} of {checked} entries differ:\n{}", failures.join("\n")).into())
}

/// A kind of client.
#[derive(Debug, Clone, Copy)]
struct Client {
    name: &'static str,
    kind: ClientKind,
    address: IpAddr,
    /// `None`: left to the evaluator.
    device: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum ClientKind {
    Pod,
    Node,
    Outside,
}

/// What a Service entry should do for a client.
enum Expected {
    /// To one of the endpoints with equal chance (`None`: by session affinity, so any), from one
    /// of these sources.
    Endpoints {
        endpoints: Vec<(IpAddr, u16)>,
        masquerade: bool,
        equal: bool,
        client: IpAddr,
    },
    Rejected,
    Dropped,
    /// No rule is about it: as routing alone would have it.
    Untouched(Verdict),
}

struct Case {
    name: String,
    from: Client,
    to: IpAddr,
    port: u16,
    protocol: Protocol,
    expected: Expected,
}

impl Expected {
    fn check(&self, outcomes: &[Outcome]) -> Result<(), String> {
        if let Some(unknown) = outcomes.iter().find(|o| !o.unknown.is_empty()) {
            return Err(format!("unknown: {}", unknown.unknown.join("; ")));
        }
        match self {
            Expected::Rejected => {
                one(outcomes, |o| o.verdict == Verdict::Rejected && o.reason == Some(Reason::Rule))
            }
            Expected::Dropped => {
                one(outcomes, |o| o.verdict == Verdict::Dropped && o.reason == Some(Reason::Rule))
            }
            Expected::Untouched(verdict) => one(outcomes, |o| {
                o.verdict == *verdict && o.destination.disposition == Disposition::Preserved
            }),
            Expected::Endpoints { endpoints, masquerade, equal, client } => {
                check_endpoints(outcomes, endpoints, *masquerade, *equal, *client)
            }
        }
    }
}

fn one(outcomes: &[Outcome], is: impl Fn(&Outcome) -> bool) -> Result<(), String> {
    match outcomes {
        [outcome] if is(outcome) => Ok(()),
        _ => Err(format!("{:?}", summary(outcomes))),
    }
}

fn summary(outcomes: &[Outcome]) -> Vec<String> {
    outcomes
        .iter()
        .map(|o| {
            format!(
                "{:?} {:?} {} -> {} (p {:?})",
                o.verdict, o.reason, o.source.after, o.destination.after, o.probability
            )
        })
        .collect()
}

fn check_endpoints(
    outcomes: &[Outcome],
    endpoints: &[(IpAddr, u16)],
    masquerade: bool,
    equal: bool,
    client: IpAddr,
) -> Result<(), String> {
    let mut seen: BTreeMap<String, &Outcome> = BTreeMap::new();
    for outcome in outcomes {
        seen.insert(outcome.destination.after.to_string(), outcome);
    }
    let mut wanted: Vec<String> = endpoints
        .iter()
        .map(|(address, port)| std::net::SocketAddr::new(*address, *port).to_string())
        .collect();
    wanted.sort();
    let got: Vec<String> = seen.keys().cloned().collect();
    if got != wanted || (equal && outcomes.len() != wanted.len()) {
        return Err(format!("wanted {wanted:?}, got {:?}", summary(outcomes)));
    }
    #[allow(clippy::cast_precision_loss)]
    let chance = 1.0 / endpoints.len() as f64;
    for outcome in outcomes {
        let to = outcome.destination.after.address.ok_or("no destination")?;
        let hairpin = to == client;
        let expected = expected_source(client, to, masquerade || hairpin);
        if outcome.source.after.address != Some(expected) {
            return Err(format!("wanted source {expected}, got {:?}", summary(outcomes)));
        }
        match outcome.probability {
            Some(p) if equal && (p - chance).abs() > 1e-4 => {
                return Err(format!("wanted chance {chance}, got {:?}", summary(outcomes)));
            }
            None if equal => return Err(format!("no chance: {:?}", summary(outcomes))),
            _ => {}
        }
    }
    Ok(())
}

/// The source that the endpoint sees. Masquerade gives the address of the device towards it; an
/// endpoint on the node itself is reached without postrouting, so without masquerade.
fn expected_source(client: IpAddr, endpoint: IpAddr, masquerade: bool) -> IpAddr {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let node = endpoint == address("10.250.0.2");
    if !masquerade || node {
        return client;
    }
    let text = endpoint.to_string();
    let local_pod = text.starts_with("10.128.0.")
        || (text.starts_with("fd00:128::") && !text.starts_with("fd00:128:0:1"));
    match (endpoint.is_ipv4(), local_pod) {
        (true, true) => address("10.128.0.1"),
        (true, false) => address("10.250.0.2"),
        (false, true) => address("fd00:128::1"),
        (false, false) => address("fd00:250::2"),
    }
}

/// The objects of a capture.
struct Cluster {
    services: Vec<Value>,
    slices: Vec<Value>,
    mode: Mode,
    /// 1.36 knows `trafficDistribution: PreferSameNode`, 1.30 does not.
    same_node: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Iptables,
    Nftables,
}

impl Cluster {
    fn read(path: &Path) -> Cluster {
        let items = |name: &str| -> Vec<Value> {
            let text = std::fs::read_to_string(path.join("kubernetes").join(name)).expect(name);
            let list: Value = serde_json::from_str(&text).expect(name);
            list["items"].as_array().expect("items").clone()
        };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Cluster {
            services: items("services.json"),
            slices: items("endpointslices.discovery.k8s.io.json"),
            mode: if name.contains("nftables") { Mode::Nftables } else { Mode::Iptables },
            same_node: !name.contains("1.30"),
        }
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for service in &self.services {
            if service["spec"]["clusterIP"] == "None" {
                continue;
            }
            for address in strings(&service["spec"]["clusterIPs"]) {
                let cluster_ip: IpAddr = address.parse().expect("a ClusterIP");
                for port in service["spec"]["ports"].as_array().expect("ports") {
                    self.service_cases(&mut cases, service, port, cluster_ip);
                }
            }
        }
        self.address_cases(&mut cases);
        cases
    }

    /// All entries of one port in one family, from all clients.
    fn service_cases(&self, cases: &mut Vec<Case>, service: &Value, port: &Value, vip: IpAddr) {
        let spec = &service["spec"];
        let name = service["metadata"]["name"].as_str().expect("a name");
        let number = |key: &str| port[key].as_u64().and_then(|n| u16::try_from(n).ok());
        let port_number = number("port").expect("a port");
        let mut entries = vec![("ClusterIP", vip, port_number)];
        if let Some(node_port) = number("nodePort") {
            entries.push(("NodePort", node_address(vip.is_ipv4()), node_port));
        }
        for address in strings(&spec["externalIPs"]) {
            entries.push(("external IP", address.parse().expect("an address"), port_number));
        }
        for ingress in service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten()
        {
            if let (Some(ip), Some("VIP")) = (ingress["ip"].as_str(), ingress["ipMode"].as_str()) {
                entries.push(("LB IP", ip.parse().expect("an address"), port_number));
            }
        }
        entries.retain(|(_, address, _)| address.is_ipv4() == vip.is_ipv4());
        let protocol = port["protocol"].as_str().map(str::to_lowercase).unwrap_or_default();
        let protocol = Protocol::from_name(&protocol).expect("a protocol");
        let backends = self.endpoints(name, port["name"].as_str(), vip.is_ipv4());
        for (entry, to, to_port) in entries {
            for from in clients(vip.is_ipv4()) {
                cases.push(Case {
                    name: format!("{name} {entry} {to}:{to_port} from {}", from.name),
                    from,
                    to,
                    port: to_port,
                    protocol,
                    expected: self.expected(spec, entry, from, &backends),
                });
            }
        }
    }

    fn expected(&self, spec: &Value, entry: &str, from: Client, all: &[Backend]) -> Expected {
        let local_policy = |key: &str| spec[key] == "Local";
        let cluster = self.eligible(all);
        let local: Vec<Backend> = {
            let here: Vec<Backend> = all.iter().filter(|b| b.node == "n1").cloned().collect();
            ready_or_terminating(&here)
        };
        if entry == "LB IP" && !in_source_ranges(spec, from.address) {
            return Expected::Dropped;
        }
        if cluster.is_empty() {
            return Expected::Rejected;
        }
        let pod = from.kind == ClientKind::Pod;
        let (eligible, masquerade) = if entry == "ClusterIP" {
            let eligible = if local_policy("internalTrafficPolicy") { local } else { cluster };
            (eligible, !pod)
        } else if local_policy("externalTrafficPolicy") {
            match from.kind {
                ClientKind::Pod => (cluster, false),
                ClientKind::Node => (cluster, true),
                ClientKind::Outside => (local, false),
            }
        } else {
            (cluster, true)
        };
        if eligible.is_empty() {
            return Expected::Dropped;
        }
        Expected::Endpoints {
            endpoints: eligible.iter().map(|b| (b.address, b.port)).collect(),
            masquerade,
            equal: spec["sessionAffinity"] != "ClientIP",
            client: from.address,
        }
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

    /// Addresses without a Service port.
    fn address_cases(&self, cases: &mut Vec<Case>) {
        let mut add = |name: &str, from: Client, to: &str, port, expected| {
            cases.push(Case {
                name: format!("{name} from {}", from.name),
                from,
                to: to.parse().expect("an address"),
                port,
                protocol: Protocol::TCP,
                expected,
            });
        };
        for from in clients(true) {
            // In iptables mode no rule is about them: they follow the default route.
            let (undefined, free) = match self.mode {
                Mode::Nftables => (Expected::Rejected, Expected::Dropped),
                Mode::Iptables => (
                    Expected::Untouched(Verdict::Forwarded),
                    Expected::Untouched(Verdict::Forwarded),
                ),
            };
            add("undefined port of a ClusterIP", from, "10.96.0.10", 81, undefined);
            add("free address of the Service range", from, "10.96.77.77", 80, free);
        }
    }
}

#[derive(Debug, Clone)]
struct Backend {
    address: IpAddr,
    port: u16,
    node: String,
    ready: bool,
    serving: bool,
    terminating: bool,
    for_nodes: Vec<String>,
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

fn node_address(v4: bool) -> IpAddr {
    if v4 { "10.250.0.2" } else { "fd00:250::2" }.parse().expect("an address")
}

fn clients(v4: bool) -> [Client; 5] {
    let client = |name, kind, v4_address: &str, v6_address: &str, device| Client {
        name,
        kind,
        address: if v4 { v4_address } else { v6_address }.parse().expect("an address"),
        device,
    };
    [
        client("a pod", ClientKind::Pod, "10.128.0.99", "fd00:128::99", None),
        client("an endpoint", ClientKind::Pod, "10.128.0.10", "fd00:128::a", None),
        client("the node", ClientKind::Node, "10.250.0.2", "fd00:250::2", None),
        client("outside", ClientKind::Outside, "203.0.113.9", "2001:db8::9", Some("eth0")),
        client("far outside", ClientKind::Outside, "172.20.9.9", "2a00:9::9", Some("eth0")),
    ]
}

//! A capture of a cluster of two nodes with three Services, each with a load balancer's address, a
//! node port, `externalTrafficPolicy: Cluster` and a pod on each node. kube-proxy's rules are those
//! that its writer makes of these objects.

use std::collections::BTreeMap;

use unmasq_cluster::read;
use unmasq_model::packet::Family;
use unmasq_provider::kube_proxy::{Config, DetectLocal, Mode, rules};

/// The Services, in the namespace `shop`: the numbers in their addresses and ports are their places.
const SERVICES: [&str; 3] = ["api", "docs", "web"];
const NODES: [u8; 2] = [1, 2];

/// The capture's files, with more objects, by their paths.
pub(crate) fn capture(more: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let about = r#"{"schema": "unmasq.capture/v1"}"#;
    files.insert("capture.json".to_owned(), about.into());
    files.insert("kubernetes/all.yaml".to_owned(), objects(more).into());
    let objects = read::capture(&files).unwrap().objects;
    for number in NODES {
        let name = format!("n{number}");
        let cluster_cidr = DetectLocal::ClusterCidr(vec!["10.42.0.0/16".parse().unwrap()]);
        let config = Config { detect_local: cluster_cidr, ..Config::new(Mode::Nftables, &*name) };
        let written = [Family::V4, Family::V6].map(|family| rules(&objects, &config, family));
        let (addresses, routes) = network(number);
        let all = [
            ("nft.txt", written.concat()),
            ("ip-addr.json", addresses),
            ("ip-route.json", routes),
            ("ip-rule.json", RULES.to_owned()),
            ("sysctl", SYSCTL.to_owned()),
            ("processes", format!("{PROXY} --hostname-override={name}\n")),
        ];
        files.extend(all.map(|(file, text)| (format!("nodes/{name}/{file}"), text.into())));
    }
    files
}

const PROXY: &str = "/usr/local/bin/kube-proxy --proxy-mode=nftables --cluster-cidr=10.42.0.0/16";
const SYSCTL: &str = "net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.route_localnet = 0\n";
const RULES: &str = r#"[{"priority":0,"src":"all","table":"local"},
    {"priority":32766,"src":"all","table":"main"}]"#;

/// The address of a Service's pod on a node, both counted from 1.
fn pod(node: u8, place: usize) -> String {
    format!("10.42.{node}.{}", place + 1)
}

fn objects(more: &str) -> String {
    let mut documents: Vec<String> = NODES.iter().map(node).collect();
    for (place, name) in (1..).zip(SERVICES) {
        documents.push(service(place, name));
        let pods = NODES.map(|node| {
            let address = pod(node, place);
            format!(
                "kind: Pod\nmetadata: {{name: {name}-{node}, namespace: shop, labels: {{app: {name}}}}}\n\
                 spec: {{nodeName: n{node}}}\nstatus: {{podIP: {address}}}"
            )
        });
        documents.extend(pods);
    }
    documents.push(more.to_owned());
    documents.join("\n---\n")
}

fn node(number: &u8) -> String {
    format!(
        "kind: Node\nmetadata: {{name: n{number}}}\nspec: {{podCIDR: 10.42.{number}.0/24}}\n\
         status: {{addresses: [{{type: InternalIP, address: 10.0.0.1{number}}}]}}"
    )
}

fn service(place: usize, name: &str) -> String {
    let endpoints = NODES.map(|node| {
        let address = pod(node, place);
        format!("{{addresses: [{address}], nodeName: n{node}, conditions: {{ready: true}}}}")
    });
    format!(
        "kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  type: LoadBalancer
  selector: {{app: {name}}}
  clusterIP: 10.43.0.{place}
  clusterIPs: [10.43.0.{place}]
  externalTrafficPolicy: Cluster
  ports: [{{name: http, port: 80, targetPort: 8080, nodePort: 3000{place}, protocol: TCP}}]
status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.{place}}}]}}}}
---
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{}]
ports: [{{name: http, port: 8080, protocol: TCP}}]",
        endpoints.join(", ")
    )
}

/// A node's addresses and routes: each pod has a device of its own.
fn network(number: u8) -> (String, String) {
    let link = |index: usize, name: &str, addresses: &[(&str, u8)]| {
        let scope = if name == "lo" { "host" } else { "global" };
        let addresses = addresses.iter().map(|(address, length)| {
            format!(
                r#"{{"family":"inet","local":"{address}","prefixlen":{length},"scope":"{scope}"}}"#
            )
        });
        let addresses: Vec<String> = addresses.collect();
        format!(
            r#"{{"ifindex":{index},"ifname":"{name}","flags":["UP","LOWER_UP"],"mtu":1500,"operstate":"UP","link_type":"ether","addr_info":[{}]}}"#,
            addresses.join(",")
        )
    };
    let route = |destination: &str, device: &str, gateway: Option<&str>| {
        let gateway = gateway.map(|one| format!(r#","gateway":"{one}""#)).unwrap_or_default();
        format!(
            r#"{{"type":"unicast","dst":"{destination}","dev":"{device}","table":"main"{gateway},"flags":[]}}"#
        )
    };
    let local = |address: &str, device: &str| {
        format!(
            r#"{{"type":"local","dst":"{address}","dev":"{device}","table":"local","scope":"host","prefsrc":"{address}","flags":[]}}"#
        )
    };
    let (own, other) = (format!("10.0.0.1{number}"), 3 - number);
    let mut links = vec![link(1, "lo", &[("127.0.0.1", 8)]), link(2, "eth0", &[(&own, 24)])];
    let mut routes = vec![
        route("default", "eth0", Some("10.0.0.254")),
        route("10.0.0.0/24", "eth0", None),
        route(&format!("10.42.{other}.0/24"), "eth0", Some(&format!("10.0.0.1{other}"))),
        local(&own, "eth0"),
        local("127.0.0.1", "lo"),
    ];
    for place in 1..=SERVICES.len() {
        let device = format!("cali{place}");
        links.push(link(place + 2, &device, &[]));
        routes.push(route(&pod(number, place), &device, None));
    }
    (format!("[{}]", links.join(",")), format!("[{}]", routes.join(",")))
}

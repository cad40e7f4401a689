//! A cluster with a namespace of each kind, and what gets through its policies.

use std::collections::BTreeMap;

use unmasq_cluster::Overrides;
use unmasq_cluster::kubernetes::{Peer, PolicyPort};
use unmasq_cluster::read;

use super::*;

const OBJECTS: &str = "
apiVersion: v1
kind: Node
metadata: {name: a}
spec: {podCIDRs: [10.42.1.0/24, 'fd42:1::/64']}
status: {addresses: [{type: InternalIP, address: 192.0.2.11}]}
---
apiVersion: v1
kind: Node
metadata: {name: b}
spec: {podCIDRs: [10.42.2.0/24, 'fd42:2::/64']}
status: {addresses: [{type: InternalIP, address: 192.0.2.12}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {nodeName: a, containers: [{name: web, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.42.1.2}, {ip: 'fd42:1::2'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, namespace: shop, labels: {app: db}}
spec: {nodeName: a}
status: {podIPs: [{ip: 10.42.1.3}, {ip: 'fd42:1::3'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: own}
spec: {nodeName: a}
status: {podIPs: [{ip: 10.42.1.4}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: mine, namespace: own}
spec: {podSelector: {}, ingress: []}
---
apiVersion: v1
kind: Pod
metadata: {name: proxy, namespace: edge}
spec: {nodeName: a, containers: [{name: x, ports: [{containerPort: 80, hostPort: 80}]}]}
status: {podIPs: [{ip: 10.42.1.5}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: other}
spec: {nodeName: b}
status: {podIPs: [{ip: 10.42.2.6}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
endpoints: [{addresses: [192.168.9.9]}]
ports: [{name: https, port: 6443}]
";

fn cluster() -> Cluster {
    let files = BTreeMap::from([("kubernetes/all.yaml".to_owned(), OBJECTS.into())]);
    Cluster::of(read::capture(&files).unwrap(), Overrides::default())
}

/// The pods of node a are seen by their IPv4 addresses.
fn policies() -> (Vec<NetworkPolicy>, Vec<String>) {
    let cluster = cluster();
    let seen = BTreeSet::from(["10.42.1.0/24".parse().unwrap()]);
    let ranges = BTreeMap::from([(cluster.node_index("a").unwrap(), seen)]);
    let (policies, left) = Limits::new(&cluster, &ranges).policies();
    (policies.into_iter().map(|one| serde_json::from_value(one).unwrap()).collect(), left)
}

#[test]
fn each_namespace_has_those_that_limit_it_without_widening_its_own() {
    let (policies, left) = policies();
    let names: Vec<String> = policies.iter().map(|one| one.metadata.full_name()).collect();
    assert_eq!(
        names,
        [
            "edge/to-the-cluster-and-the-internet",
            "own/to-the-cluster-and-the-internet",
            "shop/from-the-cluster",
            "shop/from-outside-to-web",
            "shop/to-the-cluster-and-the-internet",
        ]
    );
    assert_eq!(
        left,
        [
            "what reaches pods of namespace edge: pod proxy has a hostPort, which is for the outside \
             too",
            "what reaches pods of namespace own: NetworkPolicies of its own (mine) say that, and \
             another would only let more through",
        ]
    );
}

/// Whether policies of `shop` let an address through to or from pods of a label, at a named port or
/// a number.
fn passes(policies: &[NetworkPolicy], app: &str, into: bool, other: &str, at: &TargetPort) -> bool {
    let other: IpAddr = other.parse().unwrap();
    let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    let peer = |peer: &Peer| {
        peer.ip_block.as_ref().is_some_and(|block| {
            block.cidr.contains(&other) && !block.except.iter().any(|net| net.contains(&other))
        })
    };
    let rule = |peers: &[Peer], ports: &[PolicyPort]| {
        (peers.is_empty() || peers.iter().any(peer))
            && (ports.is_empty() || ports.iter().any(|port| port.port.as_ref() == Some(at)))
    };
    let mut of_pod = policies
        .iter()
        .filter(|one| one.metadata.namespace == "shop" && one.spec.pod_selector.matches(&labels));
    of_pod.any(|one| match into {
        true => one.spec.ingress.iter().any(|it| rule(&it.from, &it.ports)),
        false => one.spec.egress.iter().any(|it| rule(&it.to, &it.ports)),
    })
}

#[test]
fn the_cluster_gets_through_and_the_outside_where_it_is_meant_to() {
    let (policies, _) = policies();
    let (http, postgres) = (TargetPort::Name("http".to_owned()), TargetPort::Number(5432));
    let (dns, https) = (TargetPort::Number(53), TargetPort::Number(443));
    for (app, into, other, at, expected) in [
        // Somebody outside, at what is for the outside and at what isn't.
        ("web", true, "203.0.113.9", &http, true),
        ("web", true, "192.168.7.7", &http, true),
        ("web", true, "203.0.113.9", &postgres, false),
        ("db", true, "203.0.113.9", &postgres, false),
        ("db", true, "192.168.7.7", &postgres, false),
        // Another node, by its own address and by its overlay device's.
        ("db", true, "192.0.2.12", &postgres, true),
        ("db", true, "10.42.2.0", &postgres, true),
        // Pods, the internet, a private network, a resolver in it, the API server in it.
        ("db", false, "10.42.2.6", &postgres, true),
        ("db", false, "203.0.113.9", &https, true),
        ("db", false, "192.168.7.7", &https, false),
        ("db", false, "192.168.7.7", &dns, true),
        ("db", false, "192.168.9.9", &https, true),
        // IPv6 stays as it is.
        ("db", true, "fd99::1", &postgres, true),
        ("db", false, "fd99::1", &https, true),
    ] {
        let passes = passes(&policies, app, into, other, at);
        assert_eq!(passes, expected, "{app}, into: {into}, {other}, {at:?}");
    }
}

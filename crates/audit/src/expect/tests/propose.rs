use serde_json::{Value, json};
use unmasq_cluster::kubernetes::Objects;

use super::super::*;
use super::judge::{egress, rewritten};
use crate::dependent::dependences;
use crate::matrix::{Fate, Matrix, Row};

fn cluster(documents: &[Value]) -> Cluster {
    let mut objects = Objects::default();
    documents.iter().for_each(|one| objects.add(one).unwrap());
    Cluster::new(Vec::new(), objects, unmasq_cluster::Overrides::default())
}

fn service(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"kind": "Service", "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

fn proposed(cluster: &Cluster, rows: Vec<Row>) -> String {
    let matrix = Matrix { rows, ..Matrix::default() };
    propose(cluster, &matrix, &dependences(cluster))
}

const SHOP: &str = "\
# What is expected of sources in this cluster. This is a proposal, written by unmasq expect init:
# each line says why it is here. Change or delete what isn't meant.
schema: unmasq.expect/v1

preserved:
  # Service shop/api, spec.loadBalancerSourceRanges: it lets 198.51.100.0/24 reach the load balancer's address. Delete this line if the pods needn't see clients too.
  - name: clients of shop/api
    from: [outside]
    to: [service/shop/api]
  # externalTrafficPolicy: Local asks for its clients' addresses.
  - name: clients of shop/web
    from: [outside]
    to: [service/shop/web]
  # Pods reach the internet with their own address today.
  - from: [pods]
    to: [internet]
    families: [ipv6]

translated:
  # Pods reach the internet by another address today, and nobody there may know theirs.
  - from: [pods]
    to: [internet]
    families: [ipv4]

# What no capture shows, for the remedies. Uncomment what holds.
# outside:
#   load-balancers:
#     - services: [shop/api]
#       health-checks: true # nodes without an endpoint are left out
#   gateways:
#     - knows-pods: [10.42.0.0/23] # it has routes to pods
#       masquerades: [10.42.0.0/23] # it translates them on their way out
";

#[test]
fn a_proposal_says_why() {
    let local = json!({"type": "NodePort", "externalTrafficPolicy": "Local"});
    let ranges = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["198.51.100.0/24"]});
    let node = |name: &str, cidr: &str| json!({"kind": "Node", "metadata": {"name": name}, "spec": {"podCIDRs": [cidr]}});
    let cluster = cluster(&[
        service("shop", "web", local),
        service("shop", "plain", json!({"type": "NodePort"})),
        service("bank", "db", json!({"externalTrafficPolicy": "Local"})),
        service("shop", "api", ranges),
        node("n2", "10.42.1.0/24"),
        node("n1", "10.42.0.0/24"),
    ]);
    let rows = || {
        vec![
            egress("203.0.113.77", rewritten()),
            egress("10.200.7.20", Fate::Preserved),
            egress("2001:db8:ffff::77", Fate::Preserved),
        ]
    };
    let text = proposed(&cluster, rows());
    assert_eq!(text, SHOP);
    let found = parse(&text, "x.yaml").unwrap();
    assert_eq!(found.mismatches(&cluster), [""; 0]);
    assert_eq!((found.preserved.len(), found.translated.len()), (3, 1));
    // What is commented out is right too, and today's egress is as proposed.
    let uncommented = text.split_once("# outside:\n").unwrap().1.replace("\n# ", "\n");
    let outside = uncommented.strip_prefix("# ").unwrap();
    let outside = format!("schema: {SCHEMA}\noutside:\n{outside}");
    assert_eq!(parse(&outside, "x.yaml").unwrap().gateways.len(), 1);
    for row in rows() {
        assert_eq!(Judge::new(&found, &cluster).broken(&row), []);
    }
}

#[test]
fn nothing_to_propose_and_egress_of_two_minds() {
    let rows = vec![egress("203.0.113.77", rewritten()), egress("203.0.113.77", Fate::Preserved)];
    let text = proposed(&cluster(&[]), rows);
    assert!(text.contains("\npreserved: []\n\ntranslated: []\n"), "{text}");
    assert!(text.contains("# Pods keep their ipv4 address"), "{text}");
    let found = parse(&text, "x.yaml").unwrap();
    assert_eq!(found, Expectations { path: "x.yaml".into(), ..Expectations::default() });
}

#[test]
fn names_of_objects_stay_words() {
    let local = || json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let hostile = cluster(&[
        service("a", "b: \"c\\]", local()),
        service("a", "b]", local()),
        service("a", "x\ny", local()),
        service("a", "*", local()),
        service("a", "#\"\\", local()),
    ]);
    let found = parse(&proposed(&hostile, Vec::new()), "x.yaml").unwrap();
    let named = found.preserved.iter().map(|flow| match &flow.to[..] {
        [Destination::Service { name: Some(name), .. }] => name.as_str(),
        other => panic!("{other:?}"),
    });
    assert_eq!(named.collect::<Vec<_>>(), ["#\"\\", "b]"]);
}

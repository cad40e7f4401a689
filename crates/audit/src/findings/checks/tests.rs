//! Small clusters, and what is found in them. Expected values are reckoned by hand, from what the
//! programs' documentation says.

mod forwarded;
mod local;
mod ranges;
mod rules;

use std::collections::BTreeMap;

use unmasq_cluster::kubernetes::Lookup;
use unmasq_cluster::paths::Paths;
use unmasq_cluster::{Cluster, Overrides, read};
use unmasq_eval::trace::Options;

use super::*;
use crate::expect::{Expectations, parse};
use crate::matrix::{self, Matrix};
use crate::{Action, Edit, Instruction, Syntax};

/// A capture's files: the objects as YAML, and others by path.
fn cluster(objects: &str, files: &[(&str, &str)]) -> Cluster {
    let mut all: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    all.insert("capture.json".into(), br#"{"schema": "unmasq.capture/v1"}"#.to_vec());
    if !objects.is_empty() {
        all.insert("kubernetes/all.yaml".into(), objects.as_bytes().to_vec());
    }
    for (path, text) in files {
        all.insert((*path).to_owned(), text.as_bytes().to_vec());
    }
    let contents = read::capture(&all).unwrap();
    assert_eq!(contents.problems, []);
    Cluster::of(contents, Overrides::default())
}

fn expected(lines: &str) -> Expectations {
    parse(&format!("schema: unmasq.expect/v1\n{lines}"), "x.yaml").unwrap()
}

/// What the checks add to what there is, without any row.
fn added(cluster: &Cluster, expectations: &Expectations, before: Vec<Finding>) -> Vec<Finding> {
    let paths = Paths::new(cluster, Options::default());
    let matrix = Matrix::default();
    let clients = matrix::Clients::default();
    let asker = &matrix::Asker::new(&paths, &clients);
    let lookup = &Lookup::new(&cluster.objects);
    let judge = &crate::expect::Judge::new(expectations, cluster);
    let context =
        Context { cluster, lookup, paths: &paths, matrix: &matrix, expectations, judge, asker };
    let mut findings = before;
    add(&context, &mut findings);
    for finding in &findings {
        assert!(finding.title.chars().count() <= 100, "{}", finding.title);
        for action in finding.remedies.iter().flat_map(|one| &one.steps).map(|step| &step.action) {
            if let Action::Patch { patch, .. } = action {
                assert!(serde_json::from_str::<serde_json::Value>(patch).is_ok(), "{patch}");
            }
        }
    }
    findings
}

fn found(cluster: &Cluster, lines: &str) -> Vec<Finding> {
    added(cluster, &expected(lines), Vec::new())
}

fn of(findings: &[Finding], id: FindingId) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.id == id).collect()
}

/// Id, subject and severity of each.
fn names(findings: &[Finding]) -> Vec<(FindingId, &str, Severity)> {
    findings.iter().map(|one| (one.id, &*one.subject, one.severity)).collect()
}

#[test]
fn settings_that_are_not_read_are_told() {
    let told = |files: &[(&str, &str)]| {
        let mut all: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        all.insert("capture.json".into(), br#"{"schema": "unmasq.capture/v1"}"#.to_vec());
        all.insert("kubernetes/nodes.json".into(), br#"{"kind": "List", "items": []}"#.to_vec());
        for (path, text) in files {
            all.insert((*path).to_owned(), text.as_bytes().to_vec());
        }
        unread_settings(&Cluster::of(read::capture(&all).unwrap(), Overrides::default()))
    };
    let policies = "kubernetes/networkpolicies.networking.k8s.io.json";
    assert_eq!(told(&[]), Vec::<String>::new());
    assert_eq!(told(&[(policies, r#"{"kind": "List", "items": []}"#)]), Vec::<String>::new());
    // kubectl leaves the same of a kind that the cluster doesn't have.
    assert_eq!(told(&[("kubernetes/middlewares.json", "")]), Vec::<String>::new());
    let empty = "NetworkPolicies were not captured: kubernetes/networkpolicies.networking.k8s.io.json \
                 is empty, as a kubectl that failed or may not read them leaves it";
    assert_eq!(told(&[(policies, "")]), [empty]);
    let other = "kind: GlobalNetworkPolicy\napiVersion: crd.projectcalico.org/v1\n\
                 metadata: {name: g}\n---\nkind: MiddlewareTCP\napiVersion: traefik.io/v1alpha1\n\
                 metadata: {name: t}\n---\nkind: Secret\nmetadata: {name: s}\n";
    let kinds = "objects of these kinds may judge by the source, and aren't read: \
                 GlobalNetworkPolicy.crd.projectcalico.org (1), MiddlewareTCP.traefik.io (1)";
    assert_eq!(told(&[("kubernetes/all.yaml", other)]), [kinds]);
}

/// Nodes with an address each: 10.0.0.11 and on.
fn nodes(names: &[&str]) -> String {
    let node = |(number, name): (usize, &&str)| {
        format!(
            "kind: Node\nmetadata: {{name: {name}}}\n\
             status: {{addresses: [{{type: InternalIP, address: 10.0.0.1{number}}}]}}\n---\n"
        )
    };
    (1..).zip(names).map(node).collect()
}

/// An object of a Service and the EndpointSlice with ready endpoints on these nodes.
fn service(spec: &str, on: &[&str]) -> String {
    let endpoint = |(number, node): (usize, &&str)| {
        format!("{{addresses: [10.42.0.{number}], nodeName: {node}, conditions: {{ready: true}}}}")
    };
    let endpoints: Vec<String> = (1..).zip(on).map(endpoint).collect();
    format!(
        "kind: Service\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{selector: {{app: web}}, ports: [{{port: 80}}], {spec}}}\n---\n\
         kind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
         endpoints: [{}]\n---\n",
        endpoints.join(", ")
    )
}

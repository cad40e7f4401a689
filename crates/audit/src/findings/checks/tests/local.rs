//! Services with a `Local` policy, and what was not seen.

use super::*;

const BALANCER: &str =
    "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 32000";
const UNASKED: &str = "outside: {load-balancers: [{services: [shop/web], health-checks: false}]}";
const ASKED: &str = "outside: {load-balancers: [{services: [shop/web], health-checks: true}]}";

#[test]
fn a_balancer_that_does_not_ask_and_nodes_without_a_pod() {
    let objects = nodes(&["n1", "n2", "n3"]) + &service(BALANCER, &["n1", "n2"]);
    let cluster = cluster(&objects, &[]);
    let findings = found(&cluster, UNASKED);
    assert_eq!(names(&findings), [(FindingId::LocalPolicyUnsafe, "shop/web", Severity::Warning)]);
    let [found] = &findings[..] else { panic!() };
    assert_eq!(found.affected.nodes, ["n3"]);
    assert_eq!(found.evidence[0].text, "ready endpoints: 1 on n1, 1 on n2, none on n3");
    let Some(Instruction::Command(check)) = &found.remedies[0].requires[0].check else { panic!() };
    assert!(check.contains("http://10.0.0.13:32000/healthz"), "{check}");
    // Nobody knows whether it asks: that is something to look at, not a finding.
    assert_eq!(names(&super::found(&cluster, "")), []);
    assert_eq!(names(&super::found(&cluster, ASKED)), []);
}

/// Load balancers leave such nodes out (KEP-1143).
#[test]
fn a_node_that_no_balancer_uses() {
    let objects = nodes(&["n1", "n2"])
        + "kind: Node\nmetadata: {name: n3, labels: {node.kubernetes.io/exclude-from-external-load-balancers: ''}}\n---\n"
        + &service(BALANCER, &["n1", "n2"]);
    assert_eq!(names(&found(&cluster(&objects, &[]), UNASKED)), []);
}

#[test]
fn what_rows_found_is_not_found_again() {
    let objects = nodes(&["n1", "n2", "n3"]) + &service(BALANCER, &["n1", "n2"]);
    let cluster = cluster(&objects, &[]);
    let mut before = found(&cluster, UNASKED);
    before[0].severity = Severity::Error;
    before[0].evidence.clear();
    before[0].affected.nodes = vec!["n1".to_owned()];
    let after = added(&cluster, &expected(UNASKED), before);
    assert_eq!(names(&after), [(FindingId::LocalPolicyUnsafe, "shop/web", Severity::Error)]);
    assert_eq!(
        (after[0].evidence.len(), &after[0].affected.nodes[..]),
        (1, &["n1".to_owned(), "n3".to_owned()][..])
    );
}

#[test]
fn all_pods_on_one_node() {
    let objects = nodes(&["n1", "n2"]) + &service(BALANCER, &["n1", "n1"]);
    let findings = found(&cluster(&objects, &[]), ASKED);
    assert_eq!(names(&findings), [(FindingId::LocalPolicyUnsafe, "shop/web", Severity::Info)]);
    assert_eq!(findings[0].title, "Service shop/web with Local has pods on one node only, n1");
    // In a cluster of one node there is no other place.
    let single = nodes(&["n1"]) + &service(BALANCER, &["n1", "n1"]);
    assert_eq!(names(&found(&cluster(&single, &[]), "")), []);
}

/// Three nodes with 1, 1 and 8 pods get a third each: 33.3 % for each lonely pod, 4.2 % for each of
/// eight. The average of ten is 10 %: 3.3 times. As 4, 3 and 3 the hottest gets 1/9: 1.1 times.
#[test]
fn lonely_pods_get_more_than_the_average() {
    let on = ["n1", "n2", "n3", "n3", "n3", "n3", "n3", "n3", "n3", "n3"];
    let deployment = "kind: Deployment\nmetadata: {name: shop-web, namespace: shop}\n\
        spec: {template: {metadata: {labels: {app: web, tier: front}}}}\n---\n";
    let objects = nodes(&["n1", "n2", "n3"]) + &service(BALANCER, &on) + deployment;
    let findings = found(&cluster(&objects, &[]), "");
    let [found] = of(&findings, FindingId::LocalPolicyImbalance)[..] else { panic!() };
    assert_eq!(found.severity, Severity::Info);
    assert_eq!(
        found.title,
        "Service shop/web: with Local the hottest pod gets 3.3 times the average"
    );
    assert_eq!(
        found.evidence[0].text,
        "ipv4 pods and their shares: n1: 1, each 33.3 %, n2: 1, each 33.3 %, n3: 8, each 4.2 %"
    );
    assert!(
        found.cause.text.ends_with("Spread evenly over 3 nodes it would be 1.1 times."),
        "{}",
        found.cause.text
    );
    let Action::Patch { resource, namespace, name, patch, .. } = &found.remedies[0].steps[0].action
    else {
        panic!()
    };
    assert_eq!(
        (&**resource, namespace.as_deref(), &**name),
        ("deployment", Some("shop"), "shop-web")
    );
    let read: serde_json::Value = serde_json::from_str(patch).unwrap();
    let term = "/spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm";
    assert_eq!(
        read.pointer(term).unwrap(),
        &serde_json::json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"})
    );
}

/// 2 and 1 pods: the lonely one gets 1/2, the average is 1/3: 1.5 times. 3 and 2: 1/4 against 1/5,
/// 1.25 times.
#[test]
fn a_little_uneven_is_no_finding() {
    let of_nodes = |on: &[&str]| {
        let objects = nodes(&["n1", "n2"]) + &service(BALANCER, on);
        found(&cluster(&objects, &[]), "").len()
    };
    assert_eq!(of_nodes(&["n1", "n1", "n2"]), 1);
    assert_eq!(of_nodes(&["n1", "n1", "n1", "n2", "n2"]), 0);
}

/// The endpoints of IPv6 are even, those of IPv4 are not.
#[test]
fn each_family_by_its_own_endpoints() {
    let v6 = "kind: EndpointSlice\naddressType: IPv6\n\
        metadata: {name: web-2, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
        endpoints: [{addresses: ['fd00::1'], nodeName: n1}, {addresses: ['fd00::2'], nodeName: n2}]\n---\n";
    let objects = nodes(&["n1", "n2"]) + &service(BALANCER, &["n1", "n1", "n2"]) + v6;
    let findings = found(&cluster(&objects, &[]), "");
    let families: Vec<_> = findings.iter().map(|one| one.families.clone()).collect();
    assert_eq!(families, [vec![unmasq_model::packet::Family::V4]]);
}

#[test]
fn policies_that_do_nothing_or_little() {
    let plain = "type: ClusterIP, clusterIP: 10.43.0.9, externalTrafficPolicy: Local";
    let objects = nodes(&["n1", "n2"]) + &service(plain, &["n1", "n2"]);
    let invalid = (FindingId::LocalPolicyInvalid, "shop/web", Severity::Warning);
    assert_eq!(names(&found(&cluster(&objects, &[]), "")), [invalid]);
    let reachable = objects.replace("type: ClusterIP", "type: ClusterIP, externalIPs: [10.0.0.99]");
    assert_eq!(names(&found(&cluster(&reachable, &[]), "")), []);
    let inside = "type: ClusterIP, clusterIP: 10.43.0.9, internalTrafficPolicy: Local";
    let objects = nodes(&["n1", "n2"]) + &service(inside, &["n2"]);
    let findings = found(&cluster(&objects, &[]), "");
    let expected = (FindingId::LocalPolicyUnsafe, "shop/web, cluster IP", Severity::Info);
    assert_eq!(names(&findings), [expected]);
    assert_eq!(findings[0].affected.nodes, ["n1"]);
}

#[test]
fn what_was_not_seen() {
    let rules = "*nat\n:POSTROUTING ACCEPT [0:0]\n:cali-nat-outgoing - [0:0]\nCOMMIT\n";
    let captured = [("nodes/n1/iptables-save", rules)];
    let alone = unseen(&cluster("", &captured));
    assert_eq!(alone.len(), 3, "{alone:?}");
    assert!(alone[0].starts_with(
        "Kubernetes objects, so no Service and no pod was asked for: kubectl get nodes"
    ));
    assert!(alone[1].contains("kubectl get ippools.crd.projectcalico.org -o json"));
    assert!(alone[2].starts_with("programs and files of 1 node (n1)"));
    let pod = |name: &str, more: &str| {
        format!(
            "kind: Pod\nmetadata: {{name: {name}}}\nspec: {{nodeName: n1{more}}}\nstatus: {{podIP: 10.42.1.5}}\n---\n"
        )
    };
    let objects = nodes(&["n2", "n3"])
        + "kind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\n"
        + &pod("a", "")
        + &pod("b", ", hostNetwork: true");
    let files = [captured[0], ("nodes/n1/processes", "kubelet\n")];
    let sentences = unseen(&cluster(&objects, &files));
    let begins = [
        "the state of 2 nodes (n2, n3): ",
        "the objects of 1 captured node (n1): ",
        "EndpointSlices of 1 Service: ",
        "Calico's pools, ",
        "the network namespaces of 1 pod, ",
    ];
    assert_eq!(sentences.len(), begins.len(), "{sentences:?}");
    for (sentence, beginning) in sentences.iter().zip(begins) {
        assert!(sentence.starts_with(beginning), "{sentence}");
    }
}

//! The captures in `examples/`, audited: what a person reads first, and what mends it. Expected
//! values are the settings that the scenarios of these captures were made with.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

mod captured;

use std::path::Path;

use unmasq_audit::change::commands;
use unmasq_audit::expect::Expectations;
use unmasq_audit::{
    Action, Audit, Confidence, Finding, FindingId, Program, Request, Severity, Workload,
    WorkloadKind, audit,
};
use unmasq_cluster::{Cluster, Overrides, read};

fn example(name: &str) -> Audit {
    expecting(name, &Expectations::default())
}

fn expecting(name: &str, expectations: &Expectations) -> Audit {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let contents = read::capture(&captured::files(&root)).unwrap();
    let cluster = Cluster::of(contents, Overrides::default());
    audit(&cluster, expectations, Request::default(), &|_, _| {})
}

fn of(audit: &Audit, id: FindingId) -> Vec<&Finding> {
    audit.findings.iter().filter(|finding| finding.id == id).collect()
}

fn first(finding: &Finding) -> &Action {
    &finding.remedies[0].steps[0].action
}

#[test]
fn canal_with_a_pool_that_nobody_uses() {
    let audit = example("canal-rke");
    let [found] = of(&audit, FindingId::CalicoUnusedPool)[..] else { panic!("{audit:?}") };
    assert_eq!(
        found.title,
        "Calico pool default-ipv4-ippool (192.168.0.0/16) gives no pod an address but masquerades clients"
    );
    assert_eq!((found.severity, found.confidence), (Severity::Error, Confidence::Certain));
    assert_eq!(found.affected.nodes, ["n1", "n2", "n3"]);
    let expected = Action::Patch {
        resource: "ippools.crd.projectcalico.org".to_owned(),
        namespace: None,
        name: "default-ipv4-ippool".to_owned(),
        patch: r#"{"spec":{"natOutgoing":false}}"#.to_owned(),
        undo: Some(r#"{"spec":{"natOutgoing":true}}"#.to_owned()),
    };
    assert_eq!(*first(found), expected);
    assert_eq!(found.remedies[0].requires[0].holds, Some(true));
}

#[test]
fn docker_under_flannel() {
    let audit = example("flannel-host");
    let [found] = of(&audit, FindingId::HostMasquerade)[..] else { panic!("{audit:?}") };
    let names = ["hdss7-21", "hdss7-22", "hdss7-23"];
    assert_eq!(found.affected.nodes, names);
    let rules = found.remedies[0].steps.iter().filter_map(|step| match &step.action {
        Action::Rules { node, changes } => Some((node.as_str(), commands(changes).unwrap())),
        Action::Patch { .. }
        | Action::Environment { .. }
        | Action::Argument { .. }
        | Action::Tables { .. }
        | Action::File { .. }
        | Action::Restart { .. }
        | Action::ByHand { .. } => None,
    });
    let rules: Vec<(&str, Vec<String>)> = rules.collect();
    // Docker's rule stands behind kube-proxy's.
    let expected = names.iter().zip(["172.7.21.0/24", "172.7.22.0/24", "172.7.23.0/24"]);
    let expected = expected.map(|(name, pods)| {
        let command = format!(
            "iptables-legacy-restore --noflush --counters <<'EOF'\n*nat\n\
             -D POSTROUTING -s {pods} ! -o docker0 -j MASQUERADE\n\
             -I POSTROUTING 2 -s {pods} ! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE\nCOMMIT\nEOF"
        );
        (*name, vec![command])
    });
    assert_eq!(rules, expected.collect::<Vec<_>>());
}

#[test]
fn kube_router_has_a_finding_for_each_family() {
    let audit = example("kube-router-dualstack");
    let found = of(&audit, FindingId::KubeRouterPodEgress);
    let seen: Vec<_> = found.iter().map(|one| (one.subject.as_str(), one.severity)).collect();
    assert_eq!(seen, [("ipv4", Severity::Info), ("ipv6", Severity::Info)]);
    for one in found {
        let expected = Action::Argument {
            program: Program::Workload(Workload {
                kind: WorkloadKind::DaemonSet,
                namespace: "kube-system".to_owned(),
                name: "kube-router".to_owned(),
                container: Some("kube-router".to_owned()),
            }),
            argument: Some("--enable-pod-egress=false".to_owned()),
            old: None,
        };
        let steps = &one.remedies[0].steps;
        // A gateway that masquerades IPv4 for pods comes first.
        let place = usize::from(one.subject == "ipv4");
        assert_eq!(steps[place].action, expected);
    }
}

#[test]
fn a_service_with_the_default_policy() {
    let audit = example("kube-proxy-cluster-policy");
    let [found] = of(&audit, FindingId::ExternalTrafficPolicyCluster)[..] else {
        panic!("{audit:?}");
    };
    assert_eq!(
        found.title,
        "Service default/web hides its clients: externalTrafficPolicy is Cluster"
    );
    assert_eq!(
        found.cause.place.as_deref(),
        Some("Service default/web, spec.externalTrafficPolicy")
    );
    let expected = Action::Patch {
        resource: "service".to_owned(),
        namespace: Some("default".to_owned()),
        name: "web".to_owned(),
        patch: r#"{"spec":{"externalTrafficPolicy":"Local"}}"#.to_owned(),
        undo: Some(r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#.to_owned()),
    };
    assert_eq!(*first(found), expected);
    // The masquerade is needed under this policy: nothing pins it away.
    assert!(found.remedies.iter().all(|remedy| remedy.lasting));
}

/// Each destination is an answer of its own: what is expected of one says nothing of the other.
#[test]
fn a_line_about_one_destination() {
    let lines = "schema: unmasq.expect/v1\n\
                 translated: [{from: [pods], to: [10.200.0.0/16]}, {from: [pods], to: [internet]}]";
    let expectations = unmasq_audit::expect::parse(lines, "x.yaml").unwrap();
    let audit = expecting("canal-rke", &expectations);
    let left: Vec<&String> =
        audit.missing.iter().filter(|one| one.contains("was not judged")).collect();
    assert!(left.is_empty(), "{left:?}");
    let called = audit.matrix.rows.iter().filter_map(|row| row.cell.destination);
    let called: std::collections::BTreeSet<std::net::IpAddr> = called.collect();
    let lan: ipnet::IpNet = "10.200.0.0/16".parse().unwrap();
    assert_eq!(called.iter().filter(|one| lan.contains(*one)).count(), 1, "{called:?}");
    assert!(called.iter().any(|one| one.is_ipv4() && !lan.contains(one)), "{called:?}");
}

/// A Service whose pods are gone: kube-proxy refuses its calls on every node.
#[test]
fn a_service_without_endpoints_breaks_nothing_and_is_counted() {
    let objects = "kind: Service\nmetadata: {name: empty, namespace: default}\nspec: {type: NodePort, \
                   clusterIP: 10.43.0.99, ports: [{name: http, port: 80, nodePort: 30999}]}\n---\n\
                   kind: EndpointSlice\naddressType: IPv4\nmetadata: {name: empty-1, namespace: \
                   default, labels: {kubernetes.io/service-name: empty}}\nendpoints: []\n";
    let refused = "-A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment \"default/empty:http has no \
                   endpoints\" -m addrtype --dst-type LOCAL -m tcp --dport 30999 -j REJECT \
                   --reject-with icmp-port-unreachable\nCOMMIT";
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/canal-rke");
    let mut files = captured::files(&root);
    files.insert("kubernetes/empty.yaml".to_owned(), objects.as_bytes().to_vec());
    for node in ["n1", "n2", "n3"] {
        let text = files.get_mut(&format!("nodes/{node}/iptables-save")).unwrap();
        let saved = String::from_utf8(text.clone()).unwrap();
        let (before, filter) = saved.split_once("*filter").unwrap();
        *text = format!("{before}*filter{}", filter.replacen("COMMIT", refused, 1)).into_bytes();
    }
    let contents = read::capture(&files).unwrap();
    let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
    let lines =
        "schema: unmasq.expect/v1\npreserved: [{from: [outside], to: [service/default/empty]}]";
    let expectations = unmasq_audit::expect::parse(lines, "x.yaml").unwrap();
    assert_eq!(expectations.errors(&cluster), [""; 0]);
    let audit = audit(&cluster, &expectations, Request::default(), &|_, _| {});
    let breaks: Vec<&String> = audit.findings.iter().flat_map(|one| &one.breaks).collect();
    assert!(breaks.is_empty(), "{breaks:?}");
    assert_eq!(audit.totals.services_without_endpoint, 1);
    assert_eq!(example("canal-rke").totals.services_without_endpoint, 0);
}

/// A node where somebody switched iptables to legacy, and whose capture has neither that back end's
/// rules nor its processes.
#[test]
fn a_node_whose_rules_may_be_in_another_back_end_is_unknown() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/canal-rke");
    let without_rules = |legacy: Option<&str>| {
        let mut files = captured::files(&root);
        for name in ["iptables-save", "ip6tables-save", "nft.txt"] {
            files.insert(format!("nodes/n1/{name}"), Vec::new());
        }
        files.insert("nodes/n1/nft.json".to_owned(), br#"{"nftables": []}"#.to_vec());
        files.insert("capture.json".to_owned(), br#"{"schema": "unmasq.capture/v1"}"#.to_vec());
        for name in ["processes", "iptables-legacy-save", "ip6tables-legacy-save"] {
            files.remove(&format!("nodes/n1/{name}"));
        }
        for name in ["iptables-legacy-save", "ip6tables-legacy-save"] {
            if let Some(text) = legacy {
                files.insert(format!("nodes/n1/{name}"), text.as_bytes().to_vec());
            }
        }
        let contents = read::capture(&files).unwrap();
        let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
        audit(&cluster, &Expectations::default(), Request::default(), &|_, _| {})
    };
    let doubtful = without_rules(None);
    assert!(doubtful.in_doubt());
    let told = doubtful.hidden.join("\n");
    assert!(
        told.contains("node n1: no rule for any Service was captured, and iptables-legacy-save"),
        "{told}"
    );
    let unknown = |audit: &Audit| {
        let rows = audit.matrix.rows.iter().filter(|row| {
            row.cell.entry == unmasq_audit::matrix::Entry::ClusterIp
                && matches!(&row.cell.fate, unmasq_audit::matrix::Fate::Unknown(why)
                    if why.contains("iptables-legacy-save"))
        });
        rows.count()
    };
    assert!(unknown(&doubtful) > 0);
    // Where that back end was looked at and has nothing, there is nothing.
    let certain = without_rules(Some(""));
    assert_eq!(unknown(&certain), 0);
    assert!(!certain.hidden.join("\n").contains("no rule for any Service"), "{:?}", certain.hidden);
}

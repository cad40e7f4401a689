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
    let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
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

//! What breaks for one Service, and is done to three: an error for the one, with what mends that one,
//! and for information for the others.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

mod three_services;

use unmasq_audit::expect::{Expectations, parse};
use unmasq_audit::{Action, Audit, Finding, FindingId, Reference, Request, Severity, audit};
use unmasq_cluster::{Cluster, Overrides, read};

const CLUSTER: FindingId = FindingId::ExternalTrafficPolicyCluster;

fn audited(more: &str, rules: &str, expectations: &Expectations) -> Audit {
    let mut files = three_services::capture(more);
    for (path, text) in &mut files {
        if path.ends_with("/nft.txt") {
            text.extend(rules.bytes());
        }
    }
    let contents = read::capture(&files).unwrap();
    assert_eq!(contents.problems, []);
    let cluster = Cluster::of(contents, Overrides::default());
    let audit = audit(&cluster, expectations, Request::default(), &|_, _| {});
    assert_eq!(audit.totals.unknown, 0, "{:?}", audit.hidden);
    audit
}

fn expecting(lines: &str) -> Audit {
    let text = format!("schema: unmasq.expect/v1\npreserved:\n{lines}");
    audited("", "", &parse(&text, "expect.yaml").unwrap())
}

fn of(audit: &Audit, id: FindingId) -> Vec<&Finding> {
    audit.findings.iter().filter(|finding| finding.id == id).collect()
}

/// Which findings there are of the policy, how bad, and for whom.
fn seen(audit: &Audit) -> Vec<(&str, Severity, Vec<&str>)> {
    let found = of(audit, CLUSTER).into_iter();
    let services = |one: &'_ Finding| -> Vec<String> { one.affected.services.clone() };
    found
        .map(|one| {
            assert_eq!(patched(one), services(one), "a remedy for others");
            let names = one.affected.services.iter().map(String::as_str).collect();
            (&*one.subject, one.severity, names)
        })
        .collect()
}

/// The objects that a finding's remedies patch.
fn patched(finding: &Finding) -> Vec<String> {
    let steps = finding.remedies.iter().flat_map(|one| &one.steps);
    let of = |action: &Action| match action {
        Action::Patch { resource, namespace, name, .. } => {
            assert_eq!(resource, "service");
            Some(format!("{}/{name}", namespace.as_deref().unwrap()))
        }
        Action::Environment { .. }
        | Action::Argument { .. }
        | Action::Rules { .. }
        | Action::Tables { .. }
        | Action::File { .. }
        | Action::Restart { .. }
        | Action::ByHand { .. } => None,
    };
    steps.filter_map(|step| of(&step.action)).collect()
}

/// Every packet that is shown is one to a Service that the finding is about: by the places of these
/// Services, which are in their addresses and ports.
fn shows_calls_of(finding: &Finding, places: &[&str]) {
    assert!(!finding.evidence.is_empty());
    for one in &finding.evidence {
        let trace = one.trace.as_deref().unwrap();
        let called = trace.split("--to ").nth(1).unwrap().split(' ').next().unwrap();
        let is_it = |place: &&str| {
            called == format!("192.0.2.{place}:80") || called.ends_with(&format!(":3000{place}"))
        };
        assert!(places.iter().any(is_it), "{trace}");
    }
}

#[test]
fn nobody_expects_anything() {
    let audit = audited("", "", &Expectations::default());
    let all = vec!["shop/api", "shop/docs", "shop/web"];
    assert_eq!(seen(&audit), [("", Severity::Info, all)]);
}

#[test]
fn an_expectation_of_one() {
    let audit = expecting("  - {name: customers, from: [outside], to: [service/shop/web]}\n");
    let breaking = ("breaking", Severity::Error, vec!["shop/web"]);
    let rest = ("rest", Severity::Info, vec!["shop/api", "shop/docs"]);
    assert_eq!(seen(&audit), [breaking, rest]);
    let [error, info] = of(&audit, CLUSTER)[..] else { panic!("{audit:?}") };
    assert_eq!(error.title, "Service shop/web hides its clients: externalTrafficPolicy is Cluster");
    assert_eq!(info.title, "2 Services hide their clients: externalTrafficPolicy is Cluster");
    assert_eq!(error.cause.place.as_deref(), Some("Service shop/web, spec.externalTrafficPolicy"));
    assert!(!error.breaks.is_empty() && info.breaks.is_empty());
    for sentence in &error.breaks {
        assert!(sentence.starts_with("expect.yaml:3 (customers): "), "{sentence}");
        assert!(sentence.contains("Service shop/web by "), "{sentence}");
    }
    shows_calls_of(error, &["3"]);
    shows_calls_of(info, &["1", "2"]);
    // The rows of both are the same ones: each is about all three.
    assert!(error.affected.rows.iter().any(|row| info.affected.rows.contains(row)));
}

/// An expectation of one way to call it: what else is done to the Service is mended with it.
#[test]
fn an_expectation_of_one_entry() {
    let line = "  - {from: [outside], to: [service/shop/docs], entries: [load-balancer]}\n";
    let breaking = ("breaking", Severity::Error, vec!["shop/docs"]);
    let rest = ("rest", Severity::Info, vec!["shop/api", "shop/web"]);
    assert_eq!(seen(&expecting(line)), [breaking, rest]);
}

#[test]
fn an_expectation_of_all() {
    let audit = expecting("  - {from: [outside], to: [services]}\n");
    let all = vec!["shop/api", "shop/docs", "shop/web"];
    assert_eq!(seen(&audit), [("", Severity::Error, all)]);
}

/// The address of clients of docs is told in another way: that is as somebody wants it.
#[test]
fn one_is_told_in_another_way() {
    let audit = expecting(
        "  - {from: [outside, pods], to: [service/shop/docs], told-by: proxy-protocol}\n\
         \x20 - {from: [outside], to: [service/shop/web]}\n",
    );
    let breaking = ("breaking", Severity::Error, vec!["shop/web"]);
    assert_eq!(seen(&audit), [breaking, ("rest", Severity::Info, vec!["shop/api"])]);
}

const POLICY: &str = "
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]";

fn a_policy_of_one(rules: &str) -> Audit {
    let audit = audited(POLICY, rules, &Expectations::default());
    let breaking = ("breaking", Severity::Error, vec!["shop/api"]);
    let rest = ("rest", Severity::Info, vec!["shop/docs", "shop/web"]);
    assert_eq!(seen(&audit), [breaking, rest]);
    let [following] = of(&audit, FindingId::PolicyCannotMatchClient)[..] else { panic!() };
    let cause = Reference { id: CLUSTER, subject: "breaking".to_owned() };
    assert_eq!(following.caused_by, [cause]);
    assert_eq!(following.affected.services, ["shop/api"]);
    shows_calls_of(following, &["1"]);
    let [error, info] = of(&audit, CLUSTER)[..] else { panic!() };
    let [told] = &error.breaks[..] else { panic!("{:?}", error.breaks) };
    assert!(told.starts_with("NetworkPolicy shop/api, spec.ingress[0].from[0].ipBlock"), "{told}");
    assert!(info.breaks.is_empty());
    audit
}

#[test]
fn a_network_policy_over_the_pods_of_one() {
    a_policy_of_one("");
}

/// Whoever carries the policy out drops what comes as a node: no row is rewritten that the policy is
/// about, and the rule that others met is to blame all the same.
#[test]
fn a_network_policy_that_is_carried_out() {
    let drop = "table ip firewall {\n\tchain forward {\n\
        \t\ttype filter hook forward priority 0; policy accept;\n\
        \t\tip saddr 10.0.0.0/24 ip daddr { 10.42.1.2, 10.42.2.2 } drop\n\t}\n}\n";
    let audit = a_policy_of_one(drop);
    let [following] = of(&audit, FindingId::PolicyCannotMatchClient)[..] else { panic!() };
    assert!(following.cause.text.contains("They were seen to be dropped."), "{following:?}");
}

//! What is to be tried of a captured cluster, and what must come of it. Expected values follow from
//! the settings that `examples/canal-rke` was made with: `lab/scenarios/canal-unused-pool.yaml`.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

mod captured;

use std::net::IpAddr;
use std::path::Path;

use unmasq_audit::dependent::dependences;
use unmasq_audit::expect::{self, Expectations};
use unmasq_audit::matrix::verify::{
    Check, Checks, Concern, HostOutside, LeftOut, Vantage, What, checks,
};
use unmasq_audit::matrix::{Entry, Row};
use unmasq_audit::{FindingId, Request, audit, clients};
use unmasq_cluster::paths::{Caller, Paths};
use unmasq_cluster::{Cluster, Overrides, read};
use unmasq_eval::trace::Options;
use unmasq_model::packet::Protocol;

const LAPTOP: &str = "192.168.7.20";
const OFFICE: &str = "172.20.7.21";

fn canal() -> Cluster {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/canal-rke");
    let contents = read::capture(&captured::files(&root)).unwrap();
    Cluster::of(contents, Overrides::default())
}

fn host(name: &str, addresses: &[&str]) -> HostOutside {
    let addresses = addresses.iter().map(|one| one.parse().unwrap()).collect();
    HostOutside { name: name.to_owned(), addresses, reaches: None }
}

/// The hosts of the scenario, and its gateway: it translates nodes, and doesn't know the pods.
fn vantage() -> Vantage {
    Vantage {
        hosts: vec![host("laptop", &[LAPTOP, "fd00:7::20"]), host("office", &[OFFICE])],
        anybody: false,
        masquerades: Some(vec!["10.0.0.0/24".parse().unwrap()]),
        knows_pods: Some(Vec::new()),
        want_header: Vec::new(),
    }
}

fn of(cluster: &Cluster, concern: Concern<'_>, vantage: &Vantage, most: usize) -> Checks {
    let paths = Paths::new(cluster, Options::default());
    let clients = clients(cluster, &Expectations::default(), &dependences(cluster));
    checks(&paths, &clients, concern, vantage, most, &|_, _| {})
}

fn from(check: &Check) -> Option<IpAddr> {
    match check.call().from {
        Caller::Outside { address, .. } => Some(address),
        Caller::Pod { .. } | Caller::Node(_) => None,
    }
}

fn what(all: &Checks, caller: &str, to: &str, protocol: Protocol) -> Vec<What> {
    let (caller, to): (IpAddr, IpAddr) = (caller.parse().unwrap(), to.parse().unwrap());
    let is_it = |check: &&Check| {
        let call = check.call();
        from(check) == Some(caller) && call.to == to && call.protocol == protocol
    };
    let check = all.checks.iter().find(is_it).unwrap();
    check.predicted.iter().map(|one| one.what.clone()).collect()
}

#[test]
fn hosts_outside_stand_in_for_those_that_rules_name() {
    let all = of(&canal(), Concern::Everything, &vantage(), 5000);
    for (caller, to, expected) in [
        // The pool's range, masqueraded to the node's own address; Local drops where there is no
        // endpoint.
        (LAPTOP, "10.0.0.11", What::Rewritten("10.0.0.11".parse().unwrap())),
        (LAPTOP, "10.0.0.12", What::Rewritten("10.0.0.12".parse().unwrap())),
        (LAPTOP, "10.0.0.13", What::Silence),
        (OFFICE, "10.0.0.11", What::Preserved),
        (OFFICE, "10.0.0.13", What::Silence),
        ("fd00:7::20", "fd00:10::11", What::Preserved),
    ] {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            assert_eq!(
                what(&all, caller, to, protocol),
                std::slice::from_ref(&expected),
                "{caller} {to}"
            );
        }
    }
    // Nobody of documentation's addresses is left, and all that isn't tried is counted.
    let left: usize = all.left_out.values().sum();
    assert_eq!(all.checks.len() + left, all.concerned);
    assert!(all.left_out[&LeftOut::TranslatedOutside] > 0, "{:?}", all.left_out);
    assert!(all.left_out[&LeftOut::PodsUnknown] > 0, "{:?}", all.left_out);
    let callers = all.checks.iter().filter_map(from);
    let known: Vec<IpAddr> =
        [LAPTOP, OFFICE, "fd00:7::20"].iter().map(|one| one.parse().unwrap()).collect();
    assert!(callers.into_iter().all(|one| known.contains(&one)));
}

#[test]
fn a_finding_concerns_its_own_connections() {
    let cluster = canal();
    let audit = audit(&cluster, &Expectations::default(), Request::default(), &|_, _| {});
    let is_it = |finding: &&unmasq_audit::Finding| finding.id == FindingId::CalicoUnusedPool;
    let finding = audit.findings.iter().find(is_it).unwrap();
    let rows: Vec<&Row> =
        finding.affected.rows.iter().map(|row| &audit.matrix.rows[*row]).collect();
    let all = of(&cluster, Concern::Rows(&rows), &vantage(), 5000);
    let laptop: IpAddr = LAPTOP.parse().unwrap();
    let mut found: Vec<(IpAddr, String)> = Vec::new();
    for check in all.checks.iter().filter(|check| check.entry == Entry::NodePort) {
        assert_eq!(from(check), Some(laptop));
        found.push((check.call().to, check.call().protocol.to_string()));
    }
    let expected = ["10.0.0.11", "10.0.0.12"].map(|to| to.parse::<IpAddr>().unwrap());
    let expected: Vec<(IpAddr, String)> = ["tcp", "udp"]
        .iter()
        .flat_map(|protocol| expected.map(|to| (to, (*protocol).into())))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn an_expectation_concerns_what_it_is_about() {
    let text =
        "schema: unmasq.expect/v1\npreserved:\n  - {from: [outside], to: [service/default/web]}\n";
    let expectations = expect::parse(text, "expect.yaml").unwrap();
    let all = of(&canal(), Concern::Expected(&expectations), &vantage(), 5000);
    assert!(!all.checks.is_empty());
    let odd = |check: &&Check| check.service.is_none() || from(check).is_none();
    assert_eq!(all.checks.iter().find(odd), None);
}

#[test]
fn without_hosts_outside_somebody_is_to_be_found_or_it_is_left_out() {
    let cluster = canal();
    let anybody = Vantage { anybody: true, ..Vantage::default() };
    let all = of(&cluster, Concern::Everything, &anybody, 5000);
    assert!(all.checks.iter().any(|check| check.outside.is_some()));
    assert!(all.left_out[&LeftOut::NobodyOutside] > 0, "{:?}", all.left_out);
    // Nobody has said what routers outside do: who calls pods by their own addresses may get lost
    // there, and who is called may see the router.
    let is_direct = |check: &&Check| check.outside.is_some() && check.entry == Entry::Pod;
    assert_eq!(all.checks.iter().find(is_direct), None);
    let named = Vantage { hosts: vantage().hosts, ..anybody };
    let all = of(&cluster, Concern::Everything, &named, 5000);
    assert_eq!(all.checks.iter().find(|check| check.entry == Entry::Outside), None);
    assert!(all.left_out[&LeftOut::RouterUnknown] > 0, "{:?}", all.left_out);
    let nobody = of(&cluster, Concern::Everything, &Vantage::default(), 5000);
    assert_eq!(nobody.checks.iter().find(|check| check.outside.is_some()), None);
    let callers = nobody.left_out.keys().filter(|why| matches!(why, LeftOut::NoCaller(_))).count();
    assert!(callers > 0);
}

#[test]
fn what_is_beyond_a_bound_is_counted() {
    let cluster = canal();
    let all = of(&cluster, Concern::Everything, &vantage(), 5000);
    assert_eq!(all.left_out.get(&LeftOut::TooMany), None);
    let some = of(&cluster, Concern::Everything, &vantage(), 10);
    assert!(some.checks.len() <= 10);
    assert_eq!(some.concerned, all.concerned);
    assert_eq!(some.checks.len() + some.left_out.values().sum::<usize>(), some.concerned);
}

#[test]
fn nothing_changes_between_a_cluster_and_itself() {
    let cluster = canal();
    let same = Paths::new(&cluster, Options::default());
    let all = of(&cluster, Concern::Changed(&same), &vantage(), 5000);
    assert_eq!((all.concerned, all.checks.len()), (0, 0));
}

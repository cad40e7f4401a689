use serde_json::{Value, json};

use unmasq_eval::trace::{By, Effect, Reason, Stage};
use unmasq_model::packet::Protocol;
use unmasq_model::ruleset::{ChainId, Hook};

use super::schema::{fits, schema};
use super::*;
use crate::fixture::{self, endpoint, hit, rule};

fn document(trace: &Trace) -> Value {
    serde_json::to_value(super::trace(trace, &fixture::host())).unwrap()
}

#[track_caller]
fn check(document: &Value) {
    fits("trace", document);
}

/// All kinds of outcomes.
fn all() -> Trace {
    let to = endpoint([10, 42, 3, 7], 8080);
    let mut outcomes = vec![
        fixture::by_calico(),
        fixture::by_kube_proxy(to, 0.5),
        fixture::preserved(),
        fixture::dropped_by_policy(),
        fixture::rejected(),
        fixture::unknown(&["ipset.save was not captured"]),
    ];
    for reason in [
        Reason::RpFilter,
        Reason::Martian,
        Reason::NoRoute,
        Reason::Unreachable,
        Reason::Blackhole,
        Reason::Prohibit,
        Reason::Ttl,
        Reason::NoForwarding,
        Reason::Hairpin,
        Reason::Moved,
    ] {
        let by = By::Kernel("the kernel's reason".to_owned());
        let last = hit(Stage::Routing, 0, by, vec![Effect::Drop]);
        outcomes.push(fixture::ended(Verdict::Dropped, reason, last));
    }
    let mut native = fixture::by_calico();
    native.rewritten_by = Some(rule(2, 0, 0));
    let by = By::Rule(rule(2, 0, 0));
    native.hits.push(hit(Stage::Hook(Hook::Postrouting), 1, by, Vec::new()));
    native.hits.push(hit(Stage::Link, 0, By::Kernel("bridged".to_owned()), Vec::new()));
    native.verdict = Verdict::Delivered;
    outcomes.push(native);
    let mut trace = fixture::trace(outcomes);
    trace.assumptions.push("the node forwards packets".to_owned());
    trace
}

#[test]
fn documents_fit_the_schema() {
    let trace = all();
    check(&document(&trace));
    check(&document(&Trace { outcomes: Vec::new(), ..trace.clone() }));
    check(&document(&Trace { start: Start::Output, ..trace }));
    let mut v6 = fixture::trace(Vec::new());
    let (from, to) = ("fd00:42::7".parse().unwrap(), "fd00:43::9".parse().unwrap());
    for protocol in [Protocol::UDP, Protocol::ICMPV6, Protocol(47)] {
        v6.packet = Packet::open(protocol, from, None, to, Some(53));
        check(&document(&v6));
    }
}

#[test]
fn the_schema_refuses_what_it_does_not_know() {
    let good = document(&all());
    let validator = jsonschema::validator_for(&schema("trace")).unwrap();
    for (pointer, value) in [
        ("/packet", json!({"family": "ipv4"})),
        ("/packet/family", json!("ip")),
        ("/packet/source", json!("10.0.0.1:80:90")),
        ("/outcomes/0/verdict", json!("lost")),
        ("/outcomes/0/probability", json!(1.5)),
        ("/outcomes/0/hits/0/hook", json!("ingress")),
        ("/outcomes/0/source/disposition", json!("kept")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
    for pointer in ["", "/packet", "/outcomes/0", "/outcomes/0/hits/0", "/outcomes/0/rewritten_by"]
    {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).unwrap()["extra"] = json!(1);
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
}

#[test]
fn the_document_of_calicos_masquerade() {
    let document = document(&fixture::trace(vec![fixture::by_calico()]));
    let outcome = &document["outcomes"][0];
    assert_eq!(document["schema"], "unmasq.trace/v1");
    assert_eq!(
        document["packet"],
        json!({
            "family": "ipv4", "protocol": "tcp", "source": "192.168.7.20:41000",
            "destination": "10.0.0.11:30080", "node": "w1", "in": "eth0",
        })
    );
    assert_eq!(
        outcome["source"],
        json!({
            "disposition": "rewritten", "before": "192.168.7.20:41000", "after": "10.42.0.1:41000",
        })
    );
    assert_eq!(
        outcome["destination"],
        json!({"before": "10.0.0.11:30080", "after": "10.42.3.7:8080"})
    );
    assert_eq!(outcome["next_hop"], "10.42.3.0");
    assert_eq!(outcome["rewritten_by"]["table"], "nat");
    assert_eq!(outcome["rewritten_by"]["chain"], "cali-nat-outgoing");
    assert_eq!(outcome["rewritten_by"]["file"], "nodes/w1/iptables-save");
    assert_eq!(outcome["rewritten_by"]["line"], 191);
    assert_eq!(outcome["rewritten_by"]["owner"], "Calico");
    assert_eq!(outcome["because"].as_array().unwrap().len(), 2);
    assert_eq!(
        outcome["because"][0],
        json!({
            "hook": "postrouting", "table": "nat", "chain": "POSTROUTING",
            "rule": "-A POSTROUTING -m comment --comment \"cali:O3lYWMrLQYEMJtB5\" -j cali-POSTROUTING",
            "file": "nodes/w1/iptables-save", "line": 111, "handle": null,
            "effect": "jump cali-POSTROUTING",
        })
    );
}

#[test]
fn hits_without_a_rule() {
    let document = document(&all());
    let policy = document["outcomes"][3]["hits"].as_array().unwrap().last().unwrap();
    assert_eq!(
        *policy,
        json!({
            "hook": "forward", "table": "filter", "chain": "FORWARD", "rule": null,
            "file": "nodes/w1/iptables-save", "line": 200, "handle": null, "effect": "policy drop",
        })
    );
    let kernel = document["outcomes"][6]["hits"].as_array().unwrap().last().unwrap();
    assert_eq!(
        *kernel,
        json!({
            "hook": "routing", "table": null, "chain": null, "rule": null, "file": null,
            "line": null, "handle": null, "effect": "the kernel's reason: drop",
        })
    );
    let native = &document["outcomes"].as_array().unwrap().last().unwrap()["rewritten_by"];
    assert_eq!(native["table"], "ip kube-proxy");
    assert_eq!(native["handle"], 301);
    assert_eq!(native["owner"], "kube-proxy");
}

#[test]
fn effects_in_words() {
    let host = fixture::host();
    let to = endpoint([10, 42, 3, 7], 8080);
    for (effects, expected) in [
        (vec![], "no match"),
        (vec![Effect::Nothing], "match"),
        (vec![Effect::Jump(ChainId(5))], "jump KUBE-MARK-MASQ"),
        (vec![Effect::Goto(ChainId(99))], "goto ?"),
        (vec![Effect::Return], "return"),
        (vec![Effect::Mark { before: 1, after: 0x4001 }], "mark 0x1 -> 0x4001"),
        (
            vec![Effect::CtMark { before: 0, after: 2 }, Effect::Accept],
            "ct mark 0x0 -> 0x2, accept",
        ),
        (vec![Effect::Dnat(to), Effect::Accept], "destination -> 10.42.3.7:8080, accept"),
        (vec![Effect::Reject("tcp-reset".into())], "reject with tcp-reset"),
        (vec![Effect::NoTrack], "no connection tracking"),
        (vec![Effect::Rerouted { out: "eth1".into() }], "routed again, out of eth1"),
        (vec![Effect::Unknown("-m foo".to_owned())], "unknown: -m foo"),
    ] {
        let hit = hit(Stage::Hook(Hook::Output), 0, By::Rule(rule(0, 0, 0)), effects);
        assert_eq!(evidence::effects(&host, &hit), expected);
    }
}

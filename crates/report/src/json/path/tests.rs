use serde_json::{Value, json};
use unmasq_cluster::Cluster;
use unmasq_eval::trace::Options;
use unmasq_model::packet::Protocol;

use super::*;
use crate::fixture::example;
use crate::json::schema::{fits, schema};

fn ask(cluster: &Cluster, from: Caller, to: &str, change: impl FnOnce(&mut Way)) -> Value {
    let call = Call {
        from,
        source_port: Some(40000),
        to: to.parse().unwrap(),
        port: Some(30080),
        protocol: Protocol::TCP,
    };
    let paths = Paths::new(cluster, Options::default());
    let mut ways = paths.ways(&call).unwrap();
    change(&mut ways[0]);
    serde_json::to_value(super::path_of_hosts(&ways, &call, &paths)).unwrap()
}

fn outside() -> Caller {
    Caller::Outside { node: 2, address: "198.51.100.7".parse().unwrap() }
}

#[track_caller]
fn check(document: &Value) {
    fits("path", document);
}

#[test]
fn documents_fit_the_schema() {
    let cluster = example("kube-proxy-cluster-policy");
    let pod = Caller::Pod { node: 1, address: "fd00:42:0:2::2".parse().unwrap() };
    check(&ask(&cluster, pod, "fd00:10::13", |_| {}));
    check(&ask(&cluster, Caller::Node(0), "10.0.0.13", |_| {}));
    let sentence = || "nobody knows".to_owned();
    for fate in [
        Fate::Preserved,
        Fate::Rewritten,
        Fate::NoAnswer(sentence()),
        Fate::Dropped(None),
        Fate::Rejected(Some(unmasq_eval::trace::Reason::Policy)),
        Fate::Lost,
        Fate::Unknown(vec![sentence()]),
    ] {
        check(&ask(&cluster, outside(), "10.0.0.13", |way| way.fate = fate));
    }
    for arrival in [
        Arrival::Left,
        Arrival::Dropped(None),
        Arrival::Rejected(None),
        Arrival::Lost,
        Arrival::Unknown(vec![sentence()]),
    ] {
        check(&ask(&cluster, outside(), "10.0.0.13", |way| way.there.arrival = arrival));
    }
}

#[test]
fn the_schema_refuses_what_it_does_not_know() {
    let good = ask(&example("kube-proxy-cluster-policy"), outside(), "10.0.0.13", |_| {});
    let validator = jsonschema::validator_for(&schema("path")).unwrap();
    assert!(validator.is_valid(&good));
    for (pointer, value) in [
        ("/schema", json!("unmasq.trace/v1")),
        ("/call/from/kind", json!("stranger")),
        ("/call/to/port", json!(0)),
        ("/ways/0/fate", json!("lost")),
        ("/ways/0/probability", json!(2)),
        ("/ways/0/there/arrival", json!("gone")),
        ("/ways/0/there/legs/0/outcome/verdict", json!("lost")),
        ("/ways/0/back/0/comes_back", json!("yes")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
    for pointer in [
        "",
        "/call",
        "/call/from",
        "/call/to",
        "/ways/0",
        "/ways/0/reached",
        "/ways/0/rewritten_by/0",
        "/ways/0/there",
        "/ways/0/there/legs/0",
        "/ways/0/back/0",
    ] {
        let mut more = good.clone();
        more.pointer_mut(pointer).unwrap()["extra"] = json!(1);
        assert!(!validator.is_valid(&more), "{pointer} with another field");
        for name in good.pointer(pointer).unwrap().as_object().unwrap().keys() {
            let mut less = good.clone();
            less.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(name);
            assert!(!validator.is_valid(&less), "{pointer} without {name}");
        }
    }
}

/// A reader needs one file only, and so what both documents have stands in both schemas.
#[test]
fn what_a_trace_has_too_is_the_same_there() {
    let (path, trace) = (schema("path"), schema("trace"));
    for (name, definition) in trace["$defs"].as_object().unwrap() {
        assert_eq!(&path["$defs"][name], definition, "{name}");
    }
}

#[test]
fn the_document_of_a_node_port() {
    let document = ask(&example("kube-proxy-cluster-policy"), outside(), "10.0.0.13", |_| {});
    assert_eq!(
        document["call"],
        json!({
            "from": {
                "kind": "outside", "node": "n3", "address": "198.51.100.7", "port": 40000,
                "name": null,
            },
            "to": { "address": "10.0.0.13", "port": 30080, "name": "node n3" },
            "protocol": "tcp",
        })
    );
    let way = &document["ways"][0];
    assert_eq!(way["fate"], "rewritten");
    assert_eq!(way["caller"], "198.51.100.7");
    // n3's own address on the overlay, as the packet goes on to n1.
    assert_eq!(way["seen"], "10.42.3.0");
    assert_eq!(way["reached"], json!({"endpoint": "10.42.1.2:8080", "name": "pod default/web-1"}));
    assert_eq!(way["rewritten_by"][0]["node"], "n3");
    assert_eq!(way["rewritten_by"][0]["rule"]["owner"], "kube-proxy");
    let hosts: Vec<(&Value, &Value)> = way["there"]["legs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|leg| (&leg["node"], &leg["pod"]))
        .collect();
    let pod = json!("default/web-1");
    assert_eq!(
        hosts,
        [(&json!("n3"), &Value::Null), (&json!("n1"), &Value::Null), (&json!("n1"), &pod)]
    );
    assert_eq!(way["back"][0]["comes_back"], true);
}

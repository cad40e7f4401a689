use serde_json::{Value, json};

use super::*;

fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/lab-run.v1.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A report with everything in it that a report can have.
fn report() -> Report {
    let ended = |fate: &str, connections: usize| Ended { fate: fate.to_owned(), connections };
    let state = State {
        title: "as found".to_owned(),
        connections: 21,
        took_ms: 1234,
        lines: vec![Line {
            client: "laptop".to_owned(),
            entry: "node-port of a node with an endpoint".to_owned(),
            family: "ipv4".to_owned(),
            fates: vec![ended("rewritten by Calico, then gateway", 12), ended("silent", 9)],
            possible: vec!["preserved".to_owned(), "rewritten by the proxy".to_owned()],
        }],
        rewriters: vec![Rewriter {
            host: "n1".to_owned(),
            owner: "Calico".to_owned(),
            rule: "-j MASQUERADE --random-fully".to_owned(),
            connections: 12,
        }],
        expectations: vec![Checked {
            what: "laptop to service/default/web by node-port of n1, ipv4".to_owned(),
            wanted: "rewritten".to_owned(),
            seen: BTreeMap::from([("rewritten".to_owned(), 3)]),
            met: true,
            way: Some("laptop -> gateway -> n1 -> web-1, which sees 10.0.0.11".to_owned()),
        }],
        disagreements: vec![Disagreement {
            what: "laptop -> tcp 10.0.0.11:30080: silent; foreseen: preserved".to_owned(),
            trace: Some("unmasq trace /tmp/kept --node n1 --from 192.168.7.20".to_owned()),
        }],
        kept: Some("/tmp/kept".into()),
    };
    let empty = State {
        title: "after 1 of 2 steps of the remedy".to_owned(),
        connections: 0,
        lines: Vec::new(),
        rewriters: Vec::new(),
        expectations: Vec::new(),
        disagreements: Vec::new(),
        kept: None,
        ..state.clone()
    };
    Report {
        schema: SCHEMA.to_owned(),
        scenario: "canal-unused-pool".to_owned(),
        title: "An unused pool".to_owned(),
        about: "What happens.".to_owned(),
        remedy: vec![Step { title: "Switch it off".to_owned(), how: "calicoctl patch".to_owned() }],
        sources: vec!["Calico v3.30".to_owned()],
        states: vec![state, empty],
    }
}

#[test]
fn a_report_fits_the_schema_and_comes_back_the_same() {
    let schema = schema();
    jsonschema::meta::validate(&schema).unwrap();
    assert_eq!(schema["properties"]["schema"]["const"], SCHEMA);
    let document = serde_json::to_value(report()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{document:#}");
    assert_eq!(serde_json::from_value::<Report>(document).unwrap(), report());
}

/// The pointers of all values in a document.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), all));
        }
        Value::Array(items) => {
            (0..)
                .zip(items)
                .for_each(|(n, item): (usize, _)| pointers(item, &format!("{at}/{n}"), all));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_schema_refuses_every_broken_field() {
    let good = serde_json::to_value(report()).unwrap();
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut all = Vec::new();
    pointers(&good, "", &mut all);
    for pointer in &all {
        // No value of this format is a number below 0.
        let mut broken = good.clone();
        *broken.pointer_mut(pointer).unwrap() = json!(-1);
        assert!(!validator.is_valid(&broken), "{pointer}: another type is let through");
        // What an expectation saw is keyed by words.
        if pointer.ends_with("/seen") {
            continue;
        }
        let Some(fields) = good.pointer(pointer).unwrap().as_object() else { continue };
        let mut more = good.clone();
        more.pointer_mut(pointer).unwrap()["extra"] = json!(1);
        assert!(!validator.is_valid(&more), "{pointer}: an unknown field is let through");
        for key in fields.keys() {
            let mut less = good.clone();
            less.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
            assert!(!validator.is_valid(&less), "{pointer}: it may be without {key}");
        }
    }
    for (pointer, value) in [
        ("/schema", json!("unmasq.lab-run/v2")),
        ("/scenario", json!("A name")),
        ("/title", json!("")),
        ("/states", json!([])),
        ("/states/0/lines/0/family", json!("ip")),
        ("/states/0/lines/0/fates/0/fate", json!("lost")),
        ("/states/0/lines/0/fates/0/connections", json!(0)),
        ("/states/0/took_ms", json!(1.5)),
        ("/states/0/disagreements/0/trace", json!("trace it")),
    ] {
        let mut broken = good.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        assert!(!validator.is_valid(&broken), "{pointer}");
    }
}

/// The schema's objects describe each of their fields.
#[test]
fn every_field_of_the_schema_is_described() {
    let schema = schema();
    let defs = schema["$defs"].as_object().unwrap();
    let described = |field: &Value| {
        let of = field["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/"));
        field["description"].is_string() || of.is_some_and(|of| defs[of]["description"].is_string())
    };
    for object in defs.values().chain([&schema]).filter(|one| one["type"] == "object") {
        for (name, field) in object["properties"].as_object().unwrap() {
            assert!(described(field), "{name}: {field}");
        }
    }
}

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::audit::fixture;
use crate::json::schema::{fits, schema};

fn document(audit: &Audit) -> Value {
    let cluster = fixture::cluster();
    serde_json::to_value(super::audit(audit, &fixture::subject(&cluster))).unwrap()
}

/// With a finding that follows from another.
fn followed() -> Audit {
    let mut audit = fixture::audit();
    let cause = &audit.findings[0];
    let cause = Reference { id: cause.id, subject: cause.subject.clone() };
    audit.findings[1].caused_by = vec![cause];
    audit
}

#[track_caller]
fn check(document: &Value) {
    fits("audit", document);
}

#[test]
fn documents_fit_the_schema() {
    check(&document(&fixture::audit()));
    let followed = document(&followed());
    check(&followed);
    let cause = json!([{"id": "calico-unused-pool", "subject": "old-pool"}]);
    assert_eq!(followed["findings"][1]["caused_by"], cause);
    check(&document(&fixture::healthy()));
    check(&document(&Audit::default()));
    let cluster = fixture::cluster();
    let live = Subject { capture: None, service: Some("shop/api"), ..fixture::subject(&cluster) };
    let part = crate::audit::of_service(&fixture::audit(), &cluster, "shop/api");
    let part = serde_json::to_value(super::audit(&part, &live)).unwrap();
    check(&part);
    assert_eq!(part["service"], "shop/api");
    assert_eq!(part["capture"], Value::Null);
}

#[test]
fn the_schema_refuses_what_it_does_not_know() {
    let good = document(&fixture::audit());
    let validator = jsonschema::validator_for(&schema("audit")).unwrap();
    for (pointer, value) in [
        ("/schema", json!("unmasq.audit/v2")),
        ("/service", json!("web")),
        ("/findings/0/id", json!("Calico")),
        ("/findings/0/severity", json!("fatal")),
        ("/findings/0/confidence", json!(null)),
        ("/findings/0/families/0", json!("ip")),
        ("/findings/0/affected/services/0", json!("web")),
        ("/findings/0/affected/rows/0", json!(-1)),
        ("/findings/0/remedies/0/requires/0/holds", json!("yes")),
        ("/findings/0/remedies/0/steps/0/action/kind", json!("reboot")),
        ("/findings/0/remedies/0/steps/0/action/patch", json!({"spec": {}})),
        ("/matrix/rows/0/entry", json!("door")),
        ("/matrix/rows/0/policy", json!("cluster")),
        ("/matrix/rows/0/fate", json!("lost")),
        ("/matrix/rows/0/count", json!(0)),
        ("/matrix/rows/0/client", json!("pod")),
        ("/matrix/rows/0/witness/seen", json!("somebody")),
        ("/matrix/rows/1/causes/0/why", json!("because")),
        ("/matrix/rows/8/refusal/reason", json!("bad luck")),
        ("/totals/unknown", json!(1.5)),
        ("/missing/0", json!("")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
}

/// The pointers of all objects in a document.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.push(at.to_owned());
            for (name, field) in fields {
                objects(field, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                objects(item, &format!("{at}/{index}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_schema_knows_every_field_and_wants_each() {
    let good = document(&followed());
    let validator = jsonschema::validator_for(&schema("audit")).unwrap();
    let mut all = Vec::new();
    objects(&good, "", &mut all);
    assert!(all.len() > 100, "{all:?}");
    for pointer in &all {
        let mut more = good.clone();
        more.pointer_mut(pointer).unwrap()["extra"] = json!(1);
        assert!(!validator.is_valid(&more), "{pointer} with another field");
        let fields = good.pointer(pointer).unwrap().as_object().unwrap();
        for name in fields.keys() {
            let mut less = good.clone();
            less.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(name);
            assert!(!validator.is_valid(&less), "{pointer} without {name}");
        }
    }
}

#[test]
fn every_field_is_described() {
    fn undescribed(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
                    for (name, property) in properties {
                        if property.get("description").is_none() && property.get("$ref").is_none() {
                            found.push(format!("{at}/{name}"));
                        }
                    }
                }
                for (name, field) in fields {
                    undescribed(field, &format!("{at}/{name}"), found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| undescribed(item, at, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let schema = schema("audit");
    let mut found = Vec::new();
    undescribed(&schema, "", &mut found);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        if definition.get("description").is_none() {
            found.push(name.clone());
        }
    }
    assert!(found.is_empty(), "{found:?}");
}

/// The schema lists no word that the program doesn't say, and the fixture has them all.
#[test]
fn all_words_of_the_schema_are_said() {
    let document = document(&fixture::audit());
    let said = |pointer: &str, pick: &dyn Fn(&Value) -> Vec<Value>| {
        let items = document.pointer(pointer).unwrap().as_array().unwrap();
        items.iter().flat_map(pick).map(|value| value.to_string()).collect::<BTreeSet<String>>()
    };
    let one = |name: &'static str| move |item: &Value| vec![item[name].clone()];
    let rows = "/matrix/rows";
    for (definition, field, values) in [
        ("finding", "severity", said("/findings", &one("severity"))),
        ("finding", "confidence", said("/findings", &one("confidence"))),
        ("row", "entry", said(rows, &one("entry"))),
        ("row", "policy", said(rows, &one("policy"))),
        ("row", "placement", said(rows, &one("placement"))),
        ("row", "fate", said(rows, &one("fate"))),
        ("client", "kind", said(rows, &|row| vec![row["client"]["kind"].clone()])),
        ("client", "named_by", said(rows, &|row| vec![row["client"]["named_by"].clone()])),
        ("rewriter", "why", {
            let why = |cause: &Value| cause["why"].clone();
            said(rows, &|row| row["causes"].as_array().unwrap().iter().map(why).collect())
        }),
    ] {
        let schema = schema("audit");
        let listed = schema["$defs"][definition]["properties"][field]["enum"].as_array().unwrap();
        let listed: BTreeSet<String> = listed.iter().map(ToString::to_string).collect();
        assert_eq!(values, listed, "{definition}.{field}");
    }
}

#[test]
fn the_document_of_a_finding() {
    let document = document(&fixture::audit());
    assert_eq!(document["schema"], AUDIT_SCHEMA);
    assert_eq!(document["capture"], "my cluster.tar.gz");
    let finding = &document["findings"][0];
    assert_eq!(finding["id"], "calico-unused-pool");
    assert_eq!(finding["severity"], "error");
    assert_eq!(finding["owner"], "Calico");
    assert_eq!(
        finding["evidence"][0]["trace"],
        "unmasq trace 'my cluster.tar.gz' --from 192.168.7.20:41000 --to 10.0.0.11:30080 --via n1"
    );
    assert_eq!(
        finding["remedies"][0]["steps"][0],
        json!({
            "text": "Switch masquerading off for this pool.",
            "action": {
                "kind": "patch", "resource": "ippools.crd.projectcalico.org", "namespace": null,
                "name": "old-pool", "patch": "{\"spec\":{\"natOutgoing\":false}}",
                "undo": "{\"spec\":{\"natOutgoing\":true}}",
            },
            "instructions": [{
                "kind": "command",
                "text": "kubectl patch ippools.crd.projectcalico.org/old-pool --type merge \
                         -p '{\"spec\":{\"natOutgoing\":false}}'",
            }],
        })
    );
    let rules = &finding["remedies"][1];
    let change = json!({
        "backend": "iptables-nft", "family": "ip", "table": "nat", "chain": "POSTROUTING",
        "position": 0, "old": null,
        "new": "-A POSTROUTING -s 192.168.0.0/16 -d 10.42.0.0/16 -j ACCEPT",
    });
    let action = json!({"kind": "rules", "node": "n1", "changes": [change]});
    assert_eq!(rules["steps"][0]["action"], action);
    // What a person does is undone by a person, what a program does by the opposite.
    assert_eq!(rules["undo"][0]["action"], json!(null));
    assert_eq!(rules["undo"][0]["instructions"][0]["kind"], "sentence");
    assert_eq!(rules["undo"][1]["action"]["changes"][0]["new"], json!(null));
    assert_eq!(rules["undo"][1]["instructions"][0]["kind"], "command");
    assert_eq!(
        document["matrix"]["rows"][1]["causes"][0],
        json!({"owner": "kube-proxy", "rule": "KUBE-POSTROUTING", "why": "external_policy"})
    );
    assert_eq!(document["matrix"]["rows"][0]["witness"]["service"], "default/web:http");
}

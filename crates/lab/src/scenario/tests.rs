use super::*;

#[test]
fn every_builtin_scenario_fits_together_through_its_whole_remedy() {
    for (name, text) in BUILTIN {
        let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(scenario.name, *name);
        let states = Scenario::after_steps(text).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(states.len(), scenario.remedy.len(), "{name}");
        assert!(!scenario.expect.is_empty(), "{name} expects nothing");
        let changes = scenario
            .expect
            .iter()
            .any(|expect| expect.before != expect.after || expect.sometimes_before.is_some());
        assert!(changes, "{name}: the remedy changes nothing that is expected");
    }
}

#[test]
fn a_patch_merges_replaces_and_removes() {
    let merged = |mut target: Value, patch: Value| {
        merge(&mut target, &patch);
        target
    };
    use serde_json::json;
    // RFC 7386, appendix A.
    assert_eq!(merged(json!({"a": "b"}), json!({"a": "c"})), json!({"a": "c"}));
    assert_eq!(merged(json!({"a": "b"}), json!({"b": "c"})), json!({"a": "b", "b": "c"}));
    assert_eq!(merged(json!({"a": "b"}), json!({"a": null})), json!({}));
    assert_eq!(merged(json!({"a": ["b"]}), json!({"a": "c"})), json!({"a": "c"}));
    assert_eq!(
        merged(json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}})),
        json!({"a": {"b": "d"}})
    );
    assert_eq!(merged(json!({}), json!({"a": {"bb": {"ccc": null}}})), json!({"a": {"bb": {}}}));
}

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

const SCHEMA_TEXT: &str = include_str!("../../../../schemas/scenario.v1.json");
const GUIDE: &str = include_str!("../../../../docs/scenarios/README.md");

/// The example of the guide.
fn example() -> &'static str {
    let (_, rest) = GUIDE.split_once("```yaml\n").unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn every_builtin_scenario_and_the_example_fit_the_schema() {
    let schema: Value = serde_json::from_str(SCHEMA_TEXT).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    assert_eq!(schema["properties"]["schema"]["const"], SCHEMA);
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (name, text) in BUILTIN.iter().copied().chain([("the example", example())]) {
        let document: Value = serde_saphyr::from_str(text).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&document)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
        let mut wanting = document.clone();
        wanting["wants"] = serde_json::json!({"schema": "unmasq.expect/v1"});
        assert!(validator.is_valid(&wanting), "{name}: wants is refused");
        let mut wrong = document;
        wrong["network"]["betwen"] = Value::Null;
        assert!(!validator.is_valid(&wrong), "{name}: an unknown field is let through");
    }
}

#[test]
fn the_example_of_the_guide_fits_together_and_the_guide_lists_all_scenarios() {
    let states = Scenario::after_steps(example()).unwrap();
    assert_eq!(states.len(), 1);
    for (name, _) in BUILTIN {
        assert!(GUIDE.contains(&format!("| `{name}` |")), "{name}");
    }
}

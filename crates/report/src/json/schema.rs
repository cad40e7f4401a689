//! Documents against their schemas in the repository.

use serde_json::Value;

/// `schemas/NAME.v1.json`.
pub(super) fn schema(name: &str) -> Value {
    let path = format!("{}/../../schemas/{name}.v1.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Fails with all that doesn't fit.
#[track_caller]
pub(super) fn fits(name: &str, document: &Value) {
    let schema = schema(name);
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{document:#}");
}

//! What journals say, held against `schemas/journal.v1.json`.

use std::collections::BTreeSet;

use super::*;

fn schema(name: &str) -> Value {
    let path = format!("{}/../../schemas/{name}.v1.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Every event there is, and every kind of deed.
#[test]
fn each_line_of_a_journal_is_as_the_schema_says() {
    let schema = schema("journal");
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut kinds: BTreeSet<String> = BTreeSet::new();
    let mut lines = 0;
    for succeed in [usize::MAX, 2, 3] {
        let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
        let mut deeds = deeds();
        let edit = Edit::Line { old: "old".into(), new: "new".into() };
        if let Some(Deed::File(file)) = deeds.last_mut() {
            file.edit = (succeed == 2).then_some(edit);
        }
        let path = folder.path().join("j");
        let mut journal = Journal::create(&path, vec!["host-masquerade/x".into()], deeds).unwrap();
        fake.left.set(succeed);
        let _ = apply(&fake, &mut journal, &mut |_| {});
        fake.left.set(usize::MAX);
        let _ = take_back(&fake, &mut journal, &mut |_| {});
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            let errors: Vec<String> =
                validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}\n{line}");
            kinds.extend(value["event"].as_str().map(str::to_owned));
            lines += 1;
        }
    }
    assert!(lines > 20, "{lines}");
    let all = ["applied", "begun", "done", "failed", "taken-back", "undone"];
    assert_eq!(Vec::from_iter(kinds), all);
    for wrong in [
        json!({"deed": 0, "event": "began", "subject": "x"}),
        json!({"event": "failed", "why": "x"}),
        json!({"deed": 0, "event": "failed", "subject": "x"}),
        json!({"schema": "unmasq.journal/v2", "findings": [], "deeds": []}),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

/// A deed is the same in a plan and in a journal.
#[test]
fn deeds_are_those_of_plans() {
    let (journal, plan) = (schema("journal"), schema("fix"));
    for name in ["deed", "edit"] {
        assert_eq!(journal["$defs"][name], plan["$defs"][name], "{name}");
    }
}

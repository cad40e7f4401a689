//! From a scenario's text to a [`Scenario`], and to one for the state after each step of its remedy.
//!
//! What doesn't fit is said with its line and its path in the text, also where it shows only after
//! a step: the value is then the step's, below `remedy[N].change`.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::Scenario;
use super::manifest::check_manifests;
use super::place::{Lines, Misfit, Path, Segment};

/// YAML. The parser's message says where; the lines that it shows besides have it once more.
fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_saphyr::from_str(text).map_err(|error| anyhow!("{}", error.without_snippet()))
}

impl Scenario {
    /// Reads and checks a scenario.
    pub fn parse(text: &str) -> Result<Scenario> {
        let scenario: Scenario = yaml(text)?;
        check_manifests(&scenario.manifests)
            .map_err(|misfit| located(text, Path::default(), misfit))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The states after each step of the remedy, with the step's number from 1.
    pub fn after_steps(text: &str) -> Result<Vec<Scenario>> {
        let mut document: Value = yaml(text)?;
        let scenario = Scenario::parse(text)?;
        let mut states = Vec::new();
        for (index, step) in scenario.remedy.iter().enumerate() {
            let place = || format!("step {} of the remedy, {:?}", index + 1, step.title);
            merge(&mut document, &step.change);
            let after = read(&document).map_err(|misfit| {
                let change = ["remedy".into(), Segment::Index(index), "change".into()];
                located(text, Path::from_iter(change), misfit).context(place())
            })?;
            after.check().with_context(place)?;
            if after.nodes != scenario.nodes || after.pods != scenario.pods {
                bail!("{}: nodes and pods stay as they are", place());
            }
            states.push(after);
        }
        Ok(states)
    }
}

fn read(document: &Value) -> Result<Scenario, Misfit> {
    let scenario: Scenario = serde_path_to_error::deserialize(document.clone())
        .map_err(|error| Misfit::new(Path::from(error.path()), error.inner()))?;
    check_manifests(&scenario.manifests)?;
    Ok(scenario)
}

/// An error with its place in the text, where the document in which the misfit is begins at a path.
fn located(text: &str, begin: Path, misfit: Misfit) -> anyhow::Error {
    let path = begin.join(&misfit.path);
    match Lines::of(text).and_then(|lines| lines.line(&path)) {
        Some(line) => anyhow!("line {line}: {path}: {}", misfit.what),
        None => anyhow!("{path}: {}", misfit.what),
    }
}

/// RFC 7386: objects are merged, `null` removes, everything else replaces.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

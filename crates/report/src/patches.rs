//! A plan's changes of Kubernetes objects as patches for a repository of manifests: one YAML
//! document for each object, as kustomize and `kubectl patch --patch-file` take it.
//!
//! The lists of a workload that Kubernetes merges by name (containers, variables) have only what
//! changes: a patch that is kept pins no image.

use serde_json::{Map, Value, json};
use unmasq_fix::deed::{Deed, ObjectDeed};
use unmasq_fix::{By, ObjectName, Plan};

use crate::audit::Subject;
use crate::comments::{Comments, difference, finding, person, step_title};
use crate::yaml;

/// The plan as YAML documents; what isn't about objects is told in comments.
pub fn patches(plan: &Plan, subject: &Subject<'_>) -> String {
    let mut text = String::new();
    let mut comments = Comments::new(&mut text);
    let of =
        subject.capture.map_or("this host".to_owned(), |capture| format!("the capture {capture}"));
    comments.say(&format!("Made by unmasq {} from {of}. It mends:", subject.version));
    for mended in &plan.mended {
        comments.below(&format!("{}: {}", finding(mended), mended.remedy.title));
    }
    comments
        .say("Each document is a patch of one object: for kustomize (patches: [{path: FILE}]) or");
    comments.line("  kubectl patch RESOURCE NAME --type TYPE --patch-file FILE");
    for object in objects(plan) {
        document(&mut text, &object, plan);
    }
    others(&mut text, plan);
    text
}

/// All that is done to one object.
struct Patched {
    deed: ObjectDeed,
    /// Of its steps.
    steps: Vec<usize>,
}

fn objects(plan: &Plan) -> Vec<Patched> {
    let mut all: Vec<Patched> = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        for deed in step.by.deeds() {
            let Deed::Object(deed) = deed else { continue };
            let is_it = |one: &&mut Patched| {
                let name = |deed: &ObjectDeed| {
                    (deed.resource.clone(), deed.namespace.clone(), deed.name.clone())
                };
                name(&one.deed) == name(deed)
            };
            match all.iter_mut().find(is_it) {
                Some(one) => {
                    compose(&mut one.deed.patch, &deed.patch);
                    let mut back = deed.back.clone();
                    compose(&mut back, &one.deed.back);
                    one.deed.back = back;
                    one.steps.push(index);
                }
                None => all.push(Patched { deed: deed.clone(), steps: vec![index] }),
            }
        }
    }
    all
}

/// The patch that does what `first` and then `second` do.
fn compose(first: &mut Value, second: &Value) {
    match (first, second) {
        (Value::Object(first), Value::Object(second)) => {
            for (key, value) in second {
                compose(first.entry(key.clone()).or_insert(json!({})), value);
            }
        }
        (first, second) => *first = second.clone(),
    }
}

fn document(text: &mut String, object: &Patched, plan: &Plan) {
    let deed = Deed::Object(object.deed.clone());
    let patch = Patch::of(&object.deed, plan);
    text.push_str("---\n");
    let mut comments = Comments::new(text);
    for index in &object.steps {
        let Some(step) = plan.steps.get(*index) else { continue };
        comments.say(&step_title(*index, step, plan));
        comments.say(&step.text);
    }
    comments.line(&format!("{}, type {}", deed.subject(), patch.kind.name()));
    difference(&mut comments, &deed);
    comments.say("To take it back, with kubectl, or take this document away again:");
    comments.line(&format!("  -p {}", unmasq_audit::quoted(&patch.back.to_string())));
    text.push_str(&yaml::document(&patch.document(&object.deed)));
}

/// What the documents don't do.
fn others(text: &mut String, plan: &Plan) {
    let mut comments = Comments::new(text);
    let mut is_first = true;
    for (index, step) in plan.steps.iter().enumerate() {
        let deeds: Vec<&Deed> =
            step.by.deeds().iter().filter(|deed| deed.node().is_some()).collect();
        let is_person = matches!(step.by, By::Person(_));
        if deeds.is_empty() && !is_person {
            continue;
        }
        if is_first {
            comments.say("");
            comments.say("NOT IN THESE PATCHES:");
            is_first = false;
        }
        comments.say("");
        comments.say(&step_title(index, step, plan));
        comments.say(&step.text);
        if let By::Person(which) = step.by {
            person(&mut comments, step, which, plan);
        }
        for deed in deeds {
            comments.line(&deed.subject());
            difference(&mut comments, deed);
        }
    }
}

/// A patch in the words of the object's own kind.
pub(crate) struct Patch {
    /// How lists are merged.
    pub(crate) kind: Kind,
    /// Does it.
    pub(crate) forth: Value,
    /// Takes it back.
    pub(crate) back: Value,
    api_version: Option<Value>,
    object_kind: Option<Value>,
}

/// How the API server merges a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lists of some fields by their items' names: Kubernetes' own resources.
    Strategic,
    /// Lists as a whole (RFC 7386): all others.
    Merge,
}

impl Kind {
    /// What `kubectl patch --type` takes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Strategic => "strategic",
            Kind::Merge => "merge",
        }
    }
}

/// Groups whose resources know strategic patches.
const OWN: [&str; 4] = ["v1", "apps/v1", "batch/v1", "networking.k8s.io/v1"];

impl Patch {
    pub(crate) fn of(deed: &ObjectDeed, plan: &Plan) -> Patch {
        let ObjectDeed { resource, namespace, name, patch, back } = deed.clone();
        let object = plan.after.manifests.find(&ObjectName { resource, namespace, name });
        let field = |key: &str| object.as_ref().and_then(|object| object.get(key)).cloned();
        let (api_version, object_kind) = (field("apiVersion"), field("kind"));
        let own = api_version.as_ref().and_then(Value::as_str).is_some_and(|it| OWN.contains(&it));
        if !own {
            return Patch { kind: Kind::Merge, forth: patch, back, api_version, object_kind };
        }
        let forth = strategic(&back, &patch).unwrap_or(json!({}));
        let back = strategic(&patch, &back).unwrap_or(json!({}));
        Patch { kind: Kind::Strategic, forth, back, api_version, object_kind }
    }

    /// With the object's name.
    fn document(&self, deed: &ObjectDeed) -> Value {
        let mut metadata = Map::from_iter([("name".to_owned(), json!(deed.name))]);
        if let Some(namespace) = &deed.namespace {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        let mut document = json!({ "metadata": metadata });
        for (key, value) in [("apiVersion", &self.api_version), ("kind", &self.object_kind)] {
            if let Some(value) = value {
                document[key] = value.clone();
            }
        }
        compose(&mut document, &self.forth);
        document
    }
}

/// What leads from one value to another; `None`: nothing, they are equal.
fn strategic(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => Some(Value::Object(fields(from, to))),
        (Value::Array(old), Value::Array(new)) => {
            let (Some(old), Some(new)) = (named(old), named(new)) else { return Some(to.clone()) };
            let mut items = Vec::new();
            for (name, item) in &new {
                let there = old.iter().find(|(one, _)| one == name);
                match there.map(|(_, there)| fields(there, item)) {
                    Some(changed) if changed.is_empty() => {}
                    Some(mut changed) => {
                        changed.insert("name".to_owned(), json!(name));
                        items.push(Value::Object(changed));
                    }
                    None => items.push(Value::Object((*item).clone())),
                }
            }
            for (name, _) in old.iter().filter(|(name, _)| !new.iter().any(|(one, _)| one == name))
            {
                items.push(json!({"name": name, "$patch": "delete"}));
            }
            Some(Value::Array(items))
        }
        (_, to) => Some(to.clone()),
    }
}

fn fields(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let gone = from.keys().filter(|key| !to.contains_key(*key));
    let mut changed: Map<String, Value> = gone.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in to {
        let there = from.get(key).unwrap_or(&Value::Null);
        if let Some(value) = strategic(there, value) {
            changed.insert(key.clone(), value);
        }
    }
    changed
}

type Named<'v> = Vec<(&'v str, &'v Map<String, Value>)>;

/// The items of a list, if each has a name; `None`: it is another list.
fn named(items: &[Value]) -> Option<Named<'_>> {
    let name = |item: &Value| item.get("name").and_then(Value::as_str).is_some();
    if items.is_empty() || !items.iter().all(name) {
        return None;
    }
    let each = items.iter().map(|item| Some((item.get("name")?.as_str()?, item.as_object()?)));
    each.collect()
}

/// A field that a patch changes.
pub(crate) struct Leaf {
    /// In kubectl's JSONPath, without braces.
    pub(crate) path: String,
    /// What kubectl prints of it before.
    pub(crate) before: String,
    /// What kubectl prints of it after.
    pub(crate) after: String,
}

/// The fields that a patch changes; `None`: one of them isn't printed so that it can be compared.
pub(crate) fn leaves(forth: &Value, back: &Value) -> Option<Vec<Leaf>> {
    let mut all = Vec::new();
    descend(String::new(), back, forth, &mut all)?;
    (!all.is_empty()).then_some(all)
}

fn descend(path: String, before: &Value, after: &Value, all: &mut Vec<Leaf>) -> Option<()> {
    if before.is_object() || after.is_object() {
        let none = Map::new();
        let (before, after) =
            (before.as_object().unwrap_or(&none), after.as_object().unwrap_or(&none));
        for key in after.keys().chain(before.keys().filter(|key| !after.contains_key(*key))) {
            let of = |fields: &Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
            let path = format!("{path}.{}", key.replace('.', "\\."));
            descend(path, &of(before), &of(after), all)?;
        }
        return Some(());
    }
    let (old, new) = (named_items(before), named_items(after));
    if old.is_none() && new.is_none() {
        let is_list = before.is_array() || after.is_array();
        let path = if is_list { format!("{path}[*]") } else { path };
        all.push(Leaf { path, before: printed(before)?, after: printed(after)? });
        return Some(());
    }
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    let gone = old.iter().filter(|(name, _)| !new.iter().any(|(one, _)| one == name));
    for (name, _) in new.iter().chain(gone) {
        // What a quote would end, isn't compared.
        let plain = !name.contains(['"', '\\']);
        let path = plain.then(|| format!("{path}[?(@.name==\"{name}\")]"))?;
        descend(path, &item(&old, name), &item(&new, name), all)?;
    }
    Some(())
}

fn named_items(value: &Value) -> Option<Named<'_>> {
    named(value.as_array()?)
}

/// What else an item has than its name.
fn item(items: &Named<'_>, name: &str) -> Value {
    let Some((_, fields)) = items.iter().find(|(one, _)| *one == name) else { return Value::Null };
    let mut fields = (*fields).clone();
    ["name", "$patch"].iter().for_each(|key| drop(fields.remove(*key)));
    Value::Object(fields)
}

/// A value as kubectl's JSONPath prints it; `None`: an object within a list.
fn printed(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items = items.iter().map(|item| match item {
                Value::Array(_) | Value::Object(_) => None,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => printed(item),
            });
            items.collect::<Option<Vec<String>>>()?.join(" ")
        }
        Value::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests;

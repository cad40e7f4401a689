//! `unmasq.diff/v1`: what differs between two captures, as a document.
//!
//! `schemas/diff.v1.json` describes it, and a test holds the two together.

use serde::Serialize;
use serde_json::Value;

use unmasq_fix::deed::{Deed, FileDeed, ObjectDeed, Program, RulesDeed, TableDeed};
use unmasq_fix::{Difference, SettingChange};

use super::plan::{ChangeView, change};
use crate::audit::Subject;

/// The document's schema.
pub const DIFF_SCHEMA: &str = "unmasq.diff/v1";

/// The document. `subject` is of the capture before, `after` names the other one.
pub fn difference(found: &Difference, subject: &Subject<'_>, after: &str) -> impl Serialize {
    let mut document = Document {
        schema: DIFF_SCHEMA,
        version: subject.version.to_owned(),
        before: subject.capture.map(ToOwned::to_owned),
        after: after.to_owned(),
        differs: !found.is_none(),
        gone: found.gone.clone(),
        new: found.new.clone(),
        settings: found.settings.iter().map(setting).collect(),
        objects: Vec::new(),
        files: Vec::new(),
        rules: Vec::new(),
        asked: found.changes.as_ref().ok().map(|changes| changes.asked),
        not_asked: found.changes.as_ref().err().cloned(),
        changes: Vec::new(),
    };
    for deed in &found.deeds {
        document.add(deed.clone());
    }
    let rows = found.changes.iter().flat_map(|changes| &changes.rows);
    document.changes.extend(rows.map(|row| change(row, subject)));
    document
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    version: String,
    before: Option<String>,
    after: String,
    differs: bool,
    gone: Vec<String>,
    new: Vec<String>,
    settings: Vec<SettingView>,
    objects: Vec<ObjectView>,
    files: Vec<FileView>,
    rules: Vec<RulesView>,
    asked: Option<usize>,
    not_asked: Option<String>,
    changes: Vec<ChangeView>,
}

#[derive(Serialize)]
struct SettingView {
    component: String,
    setting: String,
    before: Option<String>,
    after: Option<String>,
    places: Vec<String>,
}

#[derive(Serialize)]
struct ObjectView {
    resource: String,
    namespace: Option<String>,
    name: String,
    patch: Value,
    back: Value,
}

#[derive(Serialize)]
struct FileView {
    node: String,
    path: String,
    before: Option<String>,
    after: Option<String>,
}

#[derive(Serialize)]
struct RulesView {
    node: String,
    program: Program,
    table: String,
    chain: String,
    before: Vec<String>,
    after: Vec<String>,
}

impl Document {
    fn add(&mut self, deed: Deed) {
        match deed {
            Deed::Object(ObjectDeed { resource, namespace, name, patch, back }) => {
                self.objects.push(ObjectView { resource, namespace, name, patch, back });
            }
            Deed::File(FileDeed { node, path, before, after, .. }) => {
                self.files.push(FileView { node, path, before, after });
            }
            Deed::Rules(RulesDeed { node, program, table, chain, before, after }) => {
                self.rules.push(RulesView { node, program, table, chain, before, after });
            }
            // Two captures are compared chain by chain: only plans have tables of their own.
            Deed::Table(TableDeed { .. }) => {}
        }
    }
}

fn setting(change: &SettingChange) -> SettingView {
    let SettingChange { component, setting, before, after, places } = change.clone();
    let places = places.iter().map(ToString::to_string).collect();
    SettingView { component, setting, before, after, places }
}

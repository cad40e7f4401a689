//! A deed as lines that go and come.

use std::fmt::Write as _;

use serde_json::Value;
use similar::{ChangeTag, TextDiff};
use unmasq_fix::deed::{Deed, FileDeed, RulesDeed, TableDeed};

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It goes.
    Gone,
    /// It comes.
    New,
    /// It stays, beside one that goes or comes.
    Same,
}

impl Sign {
    /// As it stands before the line.
    pub(crate) fn letter(self) -> char {
        match self {
            Sign::Gone => '-',
            Sign::New => '+',
            Sign::Same => ' ',
        }
    }
}

/// The lines that go and come, with one around.
pub(crate) fn lines(deed: &Deed) -> Vec<(Sign, String)> {
    match deed {
        Deed::Object(object) => {
            let (mut before, mut after) = (String::new(), String::new());
            fields(&object.back, "", &mut before);
            fields(&object.patch, "", &mut after);
            between(&before, &after)
        }
        Deed::Rules(RulesDeed { before, after, .. }) => {
            let lines = |rules: &[String]| rules.iter().map(|rule| format!("{rule}\n")).collect();
            let (before, after): (String, String) = (lines(before), lines(after));
            between(&before, &after)
        }
        Deed::Table(TableDeed { before, after, .. })
        | Deed::File(FileDeed { before, after, .. }) => {
            let of = |text: &Option<String>| text.clone().unwrap_or_default();
            between(&of(before), &of(after))
        }
    }
}

/// Each field of a patch by its path, a line each; lists line by line.
fn fields(value: &Value, path: &str, text: &mut String) {
    match value {
        Value::Object(fields_of) => {
            for (key, value) in fields_of {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                fields(value, &path, text);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                fields(item, &format!("{path}[{index}]"), text);
            }
        }
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _ = writeln!(text, "{path}: {value}");
        }
    }
}

fn between(before: &str, after: &str) -> Vec<(Sign, String)> {
    let difference = TextDiff::from_lines(before, after);
    let groups = difference.grouped_ops(1);
    let changes = groups.iter().flatten().flat_map(|operation| difference.iter_changes(operation));
    let line = |change: similar::Change<&str>| {
        let sign = match change.tag() {
            ChangeTag::Delete => Sign::Gone,
            ChangeTag::Insert => Sign::New,
            ChangeTag::Equal => Sign::Same,
        };
        (sign, change.value().trim_end_matches('\n').to_owned())
    };
    changes.map(line).collect()
}

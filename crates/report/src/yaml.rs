//! YAML of a JSON value, in blocks.

use std::fmt::Write as _;

use serde_json::Value;

/// A document, ending with a newline.
pub(crate) fn document(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value, 0, true);
    text
}

/// `begins`: the value begins a line, or stands behind a list's dash.
fn write(text: &mut String, value: &Value, indent: usize, begins: bool) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            if !begins {
                text.push('\n');
            }
            for (index, (key, value)) in in_order(fields).into_iter().enumerate() {
                if index > 0 || !begins || indent == 0 {
                    let _ = write!(text, "{:indent$}", "");
                }
                let _ = write!(text, "{}:", scalar(key));
                write(text, value, indent + 2, false);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            for item in items {
                let _ = write!(text, "{:indent$}- ", "");
                write(text, item, indent + 2, true);
            }
        }
        Value::String(lines) if is_block(lines) => {
            let keep = if lines.ends_with('\n') { "|" } else { "|-" };
            let _ = writeln!(text, "{}{keep}", if begins { "" } else { " " });
            for line in lines.lines() {
                let line = format!("{:indent$}{line}", "");
                let _ = writeln!(text, "{}", if line.trim().is_empty() { "" } else { &line });
            }
        }
        Value::String(word) => {
            let _ = writeln!(text, "{}{}", if begins { "" } else { " " }, scalar(word));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) | Value::Array(_) => {
            let _ = writeln!(text, "{}{value}", if begins { "" } else { " " });
        }
    }
}

/// What people look for first comes first.
fn in_order(fields: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let rank = |key: &str| {
        let first = ["apiVersion", "kind", "metadata", "name"];
        first.iter().position(|one| *one == key).unwrap_or(first.len())
    };
    let mut all: Vec<(&String, &Value)> = fields.iter().collect();
    all.sort_by_key(|(key, _)| rank(key));
    all
}

/// Several lines that can stand as they are.
fn is_block(text: &str) -> bool {
    let odd = |c: char| c != '\n' && unmasq_audit::steers(c);
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n'])
        && !text.ends_with("\n\n")
        && !text.contains(odd)
        && !text.lines().any(|line| !line.is_empty() && line.trim().is_empty())
}

/// A word that YAML can take for nothing else, or a quoted one: JSON's strings are YAML's.
fn scalar(text: &str) -> String {
    let begins = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    // YAML 1.1, which kubectl reads, has more words for true and false, and `e` and `x` in numbers.
    let taken = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let is_word = begins && text.chars().all(plain);
    match is_word && !taken.contains(&&*text.to_ascii_lowercase()) {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}

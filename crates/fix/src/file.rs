//! Files with one thing changed, and all else as it was.
//!
//! A capture leaves out what isn't about the network, so a file is told by the thing that changes.

use serde_json::Value;
use unmasq_audit::{Edit, Syntax};

use crate::deed::Standing;

/// What a file says after an edit. `Err`: why it can't be edited, a fragment.
pub fn edited(text: Option<&str>, edit: &Edit) -> Result<String, String> {
    match edit {
        Edit::Line { old, new } => line(text.unwrap_or_default(), old, new),
        Edit::Value { syntax: Syntax::Json, pointer, new, .. } => {
            value(text, pointer, new.as_deref())
        }
        Edit::Value { syntax: Syntax::Yaml, .. } => {
            Err("it is YAML, which is edited by hand".to_owned())
        }
    }
}

/// Whether a file is as it is before an edit, or after it. `Err`: neither, and why, a fragment.
pub fn standing(text: Option<&str>, edit: &Edit) -> Result<Standing, String> {
    match edit {
        Edit::Line { old, new } => {
            let count = |one: &str| {
                text.unwrap_or_default().lines().filter(|line| line.trim() == one).count()
            };
            match (count(old), count(new)) {
                (1, 0) => Ok(Standing::Before),
                (0, 1) => Ok(Standing::After),
                (0, 0) => Err(format!("it has no line `{old}`")),
                (olds, 0) => Err(format!("it has the line `{old}` {olds} times")),
                (_, _) => Err(format!("it has the line `{new}` already")),
            }
        }
        Edit::Value { pointer, old, new, .. } => {
            let text = text.map(str::trim).filter(|text| !text.is_empty()).unwrap_or("{}");
            let there = serde_json::from_str::<Value>(text)
                .map_err(|error| format!("it is no JSON: {error}"))?;
            let there = there.pointer(pointer);
            let is = |wanted: &Option<String>| match wanted {
                Some(wanted) => serde_json::from_str(wanted).ok().as_ref() == there,
                None => there.is_none(),
            };
            match (is(new), is(old)) {
                (true, _) => Ok(Standing::After),
                (false, true) => Ok(Standing::Before),
                (false, false) => {
                    let there = there.map_or("not there".to_owned(), Value::to_string);
                    Err(format!("{pointer} is {there}"))
                }
            }
        }
    }
}

/// The only line that says it, with its blanks kept.
fn line(text: &str, old: &str, new: &str) -> Result<String, String> {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut places = (0..lines.len()).filter(|index| lines[*index].trim() == old);
    match (places.next(), places.next()) {
        (Some(at), None) => {
            let changed = lines[at].replacen(old, new, 1);
            let lines = lines.iter().enumerate();
            let lines: Vec<&str> = lines
                .map(|(index, line)| if index == at { changed.as_str() } else { line })
                .collect();
            Ok(lines.join("\n"))
        }
        (None, _) => Err(format!("it has no line `{old}`")),
        (Some(_), Some(_)) => Err(format!("it has the line `{old}` more than once")),
    }
}

/// A field of the outermost object of a JSON document. Only its text changes; that nothing else does
/// is checked by reading both.
fn value(text: Option<&str>, pointer: &str, new: Option<&str>) -> Result<String, String> {
    let key = pointer.strip_prefix('/').filter(|key| !key.contains(['/', '~', '"', '\\']));
    let Some(key) = key else {
        return Err(format!("{pointer} is no field of the outermost object"));
    };
    let text = match text.map(str::trim) {
        None | Some("") => "{\n}\n",
        Some(_) => text.unwrap_or_default(),
    };
    let Ok(Value::Object(before)) = serde_json::from_str::<Value>(text) else {
        return Err("it is no JSON object".to_owned());
    };
    let mut wanted = before.clone();
    match new {
        Some(new) => {
            let value = serde_json::from_str(new).map_err(|error| format!("`{new}`: {error}"))?;
            wanted.insert(key.to_owned(), value);
        }
        None => drop(wanted.remove(key)),
    }
    let quoted = format!("\"{key}\"");
    let mut candidates: Vec<String> = Vec::new();
    for (at, _) in text.match_indices(&quoted) {
        candidates.extend(replaced(text, at, quoted.len(), new));
    }
    if let (Some(new), Some(open)) = (new, text.find('{')) {
        candidates.push(inserted(text, open, &format!("{quoted}: {new}"), before.is_empty()));
    }
    candidates.push(text.to_owned());
    let wanted = Value::Object(wanted);
    let fits = |text: &String| serde_json::from_str::<Value>(text).is_ok_and(|it| it == wanted);
    candidates
        .into_iter()
        .find(fits)
        .ok_or_else(|| format!("{key} can't be set without rewriting it"))
}

/// The text with the value of the key at `at` replaced, or with both taken out.
fn replaced(text: &str, at: usize, length: usize, new: Option<&str>) -> Option<String> {
    let behind = &text[at + length..];
    let colon = behind.find(':')?;
    let start = at + length + colon + 1;
    let start = start + (text[start..].len() - text[start..].trim_start().len());
    let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
    values.next()?.ok()?;
    let end = start + values.byte_offset();
    let Some(new) = new else {
        // With the comma behind it, or else the one before it.
        let rest = text[end..].trim_start();
        return Some(match rest.strip_prefix(',') {
            Some(rest) => format!("{}{}", &text[..at], rest.trim_start()),
            None => {
                let head = text[..at].trim_end();
                format!("{}{}", head.strip_suffix(',').unwrap_or(head), &text[end..])
            }
        });
    };
    Some(format!("{}{new}{}", &text[..start], &text[end..]))
}

/// The text with a field more, first in the object that opens at `open`, indented as what follows.
fn inserted(text: &str, open: usize, field: &str, alone: bool) -> String {
    let (head, rest) = text.split_at(open + 1);
    let comma = if alone { "" } else { "," };
    let blanks: String = rest.chars().take_while(|c| c.is_whitespace()).collect();
    match blanks.rsplit_once('\n') {
        Some((_, indent)) => {
            let indent = if alone { "  " } else { indent };
            format!("{head}\n{indent}{field}{comma}{rest}")
        }
        None => format!("{head}{field}{comma}{}{rest}", if alone { "" } else { " " }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_changes_and_nothing_else() {
        for (text, new, expected) in [
            (None, Some("false"), "{\n  \"ip-masq\": false\n}\n"),
            (Some("{}"), Some("false"), "{\"ip-masq\": false}"),
            (Some("{\"bip\": \"1/2\"}"), Some("false"), "{\"ip-masq\": false, \"bip\": \"1/2\"}"),
            (
                Some("{\n    \"z\": [1,  2],\n    \"a\": {}\n}\n"),
                Some("false"),
                "{\n    \"ip-masq\": false,\n    \"z\": [1,  2],\n    \"a\": {}\n}\n",
            ),
            (
                Some("{ \"x\": \"ip-masq\", \"ip-masq\" : true,\n \"a\": 1}"),
                Some("false"),
                "{ \"x\": \"ip-masq\", \"ip-masq\" : false,\n \"a\": 1}",
            ),
            (
                Some("{\"deep\": {\"ip-masq\": true}}"),
                Some("false"),
                "{\"ip-masq\": false, \"deep\": {\"ip-masq\": true}}",
            ),
            (Some("{\n  \"ip-masq\": false,\n  \"a\": 1\n}"), None, "{\n  \"a\": 1\n}"),
            (Some("{\n  \"a\": 1,\n  \"ip-masq\": false\n}"), None, "{\n  \"a\": 1\n}"),
        ] {
            assert_eq!(value(text, "/ip-masq", new).as_deref(), Ok(expected), "{text:?}");
        }
        assert!(value(Some("no"), "/a", Some("1")).is_err());
        assert!(value(Some("{}"), "/a/b", Some("1")).is_err());
    }

    #[test]
    fn a_file_is_told_by_what_changes_in_it() {
        let line = Edit::Line { old: "-A X".into(), new: "# -A X".into() };
        let value = |old: Option<&str>| Edit::Value {
            syntax: Syntax::Json,
            pointer: "/ip-masq".into(),
            old: old.map(str::to_owned),
            new: Some("false".into()),
        };
        let (absent, there) = (value(None), value(Some("true")));
        for (text, edit, expected) in [
            (Some("# by hand\n -A X \n"), &line, Ok(Standing::Before)),
            (Some("# by hand\n # -A X\n"), &line, Ok(Standing::After)),
            (Some("-A X\n-A X\n"), &line, Err("it has the line `-A X` 2 times")),
            (Some("-A X\n# -A X\n"), &line, Err("it has the line `# -A X` already")),
            (None, &line, Err("it has no line `-A X`")),
            (None, &absent, Ok(Standing::Before)),
            (Some(""), &absent, Ok(Standing::Before)),
            (Some("{\"proxies\": {\"x\": \"user:secret@\"}}"), &absent, Ok(Standing::Before)),
            (Some("{\"ip-masq\": false}"), &absent, Ok(Standing::After)),
            (Some("{\"ip-masq\": true}"), &absent, Err("/ip-masq is true")),
            (Some("{\"ip-masq\": true}"), &there, Ok(Standing::Before)),
            (Some("{}"), &there, Err("/ip-masq is not there")),
        ] {
            assert_eq!(standing(text, edit), expected.map_err(str::to_owned), "{text:?} {edit:?}");
        }
        assert!(standing(Some("no"), &absent).unwrap_err().starts_with("it is no JSON"));
    }

    #[test]
    fn one_line_changes_and_nothing_else() {
        let text = "*nat\n -A X -j MASQUERADE \n-A Y\nCOMMIT\n";
        let expected = "*nat\n -A X ! -d 10.0.0.0/8 -j MASQUERADE \n-A Y\nCOMMIT\n";
        let (old, new) = ("-A X -j MASQUERADE", "-A X ! -d 10.0.0.0/8 -j MASQUERADE");
        assert_eq!(line(text, old, new).as_deref(), Ok(expected));
        assert_eq!(line(expected, new, old).as_deref(), Ok(text));
        assert!(line("a\na\n", "a", "b").is_err());
        assert!(line("b\n", "a", "b").is_err());
    }
}

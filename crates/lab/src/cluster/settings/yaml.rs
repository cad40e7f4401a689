//! JSON values as YAML in block style.
//!
//! Out: text that YAML 1.1 and 1.2 readers read back as the same value. Strings are quoted where
//! they aren't plainly strings. Mappings are in their map's order.

use serde_json::Value;

/// The text; a mapping or a list has a line for each member.
pub(in super::super) fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(members) if !members.is_empty() => mapping(&mut text, members, 0),
        Value::Array(items) if !items.is_empty() => list(&mut text, items, 0),
        _ => text = scalar(value) + "\n",
    }
    text
}

fn mapping(text: &mut String, members: &serde_json::Map<String, Value>, depth: usize) {
    for (key, value) in members {
        *text += &format!("{}{}:", "  ".repeat(depth), string(key));
        nested(text, value, depth);
    }
}

/// What follows a key.
fn nested(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            text.push('\n');
            mapping(text, members, depth + 1);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            list(text, items, depth + 1);
        }
        _ => *text += &format!(" {}\n", scalar(value)),
    }
}

fn list(text: &mut String, items: &[Value], depth: usize) {
    for item in items {
        let dash = format!("{}- ", "  ".repeat(depth));
        match item {
            Value::Object(members) if !members.is_empty() => {
                let mut inner = String::new();
                mapping(&mut inner, members, depth + 1);
                // The first key stands behind the dash.
                *text += &dash;
                *text += inner.trim_start();
            }
            Value::Array(inner) if !inner.is_empty() => {
                *text += dash.trim_end();
                text.push('\n');
                list(text, inner, depth + 1);
            }
            _ => *text += &format!("{dash}{}\n", scalar(item)),
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        // Empty ones: of others each member has its line.
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Plain where no reader takes it for anything else, else as JSON has it, which YAML reads too.
fn string(text: &str) -> String {
    // Words that YAML 1.1 has for booleans and null.
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let is_word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    let fits = |c: char| c.is_ascii_alphanumeric() || "_./,:-".contains(c);
    // Numbers, dates and times begin with a digit; networks and addresses do too.
    let is_named = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_address = text.starts_with(|c: char| c.is_ascii_digit())
        && (text.contains('/') || text.matches('.').count() == 3);
    let plain =
        (is_named || is_address) && text.chars().all(fits) && !text.ends_with(':') && !is_word;
    if plain { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_text_is_what_a_person_would_write() {
        let value = json!({
            "networks": ["10.0.0.0/8", "fd00::/8"], "none": [], "empty": {}, "off": "off",
            "deep": [{"a": 1, "b": ["x"]}, [true, null]], "port": "80", "say": "a: \"b\"\nc",
        });
        let expected = "\
deep:
  - a: 1
    b:
      - x
  -
    - true
    - null
empty: {}
networks:
  - 10.0.0.0/8
  - fd00::/8
none: []
\"off\": \"off\"
port: \"80\"
say: \"a: \\\"b\\\"\\nc\"
";
        assert_eq!(to_yaml(&value), expected);
        assert_eq!(to_yaml(&json!({})), "{}\n");
        assert_eq!(to_yaml(&json!([])), "[]\n");
    }

    #[test]
    fn a_reader_gets_the_same_back() {
        let strings = [
            "/",
            "/etc/x: y",
            "",
            " ",
            "~",
            "null",
            "NO",
            "y",
            "true",
            "1",
            "1.5",
            "0x1f",
            "1e3",
            "12:30:45",
            "::1",
            "fd00::",
            "2026-11-24",
            "1.2.3.4",
            "10.0.0.0/8,fd00::/8",
            "- a",
            "a: b",
            "a #b",
            "#",
            "&x",
            "*x",
            "!x",
            "%x",
            "@x",
            "`",
            "'",
            "\"",
            "\\",
            "a\tb",
            "line\nline\n",
            "{}",
            "[",
            "ä",
            "=",
            "<<",
            "---",
            "...",
            ".inf",
            "e5",
        ];
        for text in strings {
            let one = json!({text: [text, {"k": text}]});
            let read: Value = serde_saphyr::from_str(&to_yaml(&one)).unwrap();
            assert_eq!(read, one, "{text:?}");
        }
        let nested = json!({"a": {"b": {"c": [[1, [2, {"d": -3.5}]], {}, []]}}, "z": false});
        assert_eq!(serde_saphyr::from_str::<Value>(&to_yaml(&nested)).unwrap(), nested);
    }
}

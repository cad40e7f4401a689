//! Texts of settings: values of flags, and files of simple forms.

use std::str::FromStr;

use ipnet::IpNet;
use serde_json::Value;

/// A value that is written as text.
pub(super) trait FromText: Sized {
    /// `None`: the text can't be one.
    fn from_text(text: &str) -> Option<Self>;
}

impl FromText for String {
    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

/// What Go's strconv.ParseBool takes.
impl FromText for bool {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        }
    }
}

/// The bits of a host are kept: an address of a device has some.
impl FromText for IpNet {
    fn from_text(text: &str) -> Option<Self> {
        IpNet::from_str(text.trim()).ok()
    }
}

impl FromText for Vec<IpNet> {
    fn from_text(text: &str) -> Option<Self> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| IpNet::from_text(part).map(|net| net.trunc())).collect()
    }
}

impl FromText for Vec<String> {
    fn from_text(text: &str) -> Option<Self> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Some(parts.map(str::to_owned).collect())
    }
}

/// The value at a JSON pointer as text, lists with commas. `None`: absent, null or an object.
pub(super) fn at(document: &Value, pointer: &str) -> Option<String> {
    scalar(document.pointer(pointer)?)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::Bool(on) => Some(on.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(scalar).collect();
            items.map(|items| items.join(","))
        }
    }
}

/// A YAML or JSON document with settings, or why it is none and on which line, from 1. An empty
/// one has no settings.
pub(super) fn document(text: &str) -> Result<Value, (Option<usize>, &'static str)> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let (read, line) = match serde_json::from_str(text) {
        Ok(value) => (Some(value), None),
        Err(json) => match serde_saphyr::from_str(text) {
            Ok(value) => (Some(value), None),
            Err(_) if text.trim_start().starts_with(['{', '[']) => (None, Some(json.line())),
            Err(yaml) => {
                let line = yaml.location().and_then(|at| usize::try_from(at.line()).ok());
                (None, line.filter(|line| *line > 0))
            }
        },
    };
    match read {
        Some(value @ (Value::Object(_) | Value::Null)) => Ok(value),
        Some(_) => Err((None, "it has no settings, by their names")),
        None => Err((line, "it is no JSON and no YAML")),
    }
}

/// A line of a file with settings: its number, the setting, its value.
pub(super) type Line<'a> = (usize, &'a str, String);

/// `NAME=value` lines.
pub(super) fn environment(text: &str) -> Vec<Line<'_>> {
    let lines = (1..).zip(text.lines());
    lines
        .filter_map(|(number, line)| {
            let (name, value) = line.trim().split_once('=')?;
            Some((number, name, unquoted(value.trim()).to_owned()))
        })
        .collect()
}

/// Top-level settings of k3s' and rke2's YAML. It is not read as YAML, because what was left out
/// of it (`***`) would be an alias there. A list's items are joined with commas, or, where the
/// setting is one of flags, are lines of their own.
pub(super) fn flat_yaml(text: &str) -> Vec<Line<'_>> {
    let mut found: Vec<Line<'_>> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = without_comment(line);
        if let Some(item) = line.trim_start().strip_prefix("- ") {
            let item = unquoted(item.trim());
            if let Some((first, name, value)) = found.last().cloned() {
                if value.is_empty() {
                    found.pop();
                    found.push((number, name, item.to_owned()));
                } else if is_of_flags(name) {
                    found.push((number, name, item.to_owned()));
                } else {
                    found.pop();
                    found.push((first, name, format!("{value},{item}")));
                }
            }
            continue;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.is_empty() || name.starts_with([' ', '\t', '-', '#']) {
            continue;
        }
        let name = unquoted(name.strip_suffix('+').unwrap_or(name));
        let value = value.trim();
        match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(items) if is_of_flags(name) => {
                let items = items.split(',').map(|item| unquoted(item.trim()).to_owned());
                found.extend(items.map(|item| (number, name, item)));
            }
            Some(items) => {
                let items: Vec<&str> = items.split(',').map(|item| unquoted(item.trim())).collect();
                found.push((number, name, items.join(",")));
            }
            None => found.push((number, name, unquoted(value).to_owned())),
        }
    }
    found
}

/// Settings whose values are flags of another program, which may have commas.
fn is_of_flags(name: &str) -> bool {
    name.ends_with("-arg")
}

fn without_comment(line: &str) -> &str {
    let end = if line.starts_with('#') { Some(0) } else { line.find(" #") };
    end.map_or(line, |end| &line[..end]).trim_end()
}

fn unquoted(value: &str) -> &str {
    let inside = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

/// The line, from 1, on which a JSON member of that name first stands.
pub(super) fn line_of(text: &str, member: &str) -> Option<usize> {
    let name = format!("\"{member}\"");
    text.lines().position(|line| line.contains(&name)).map(|index| index + 1)
}

//! The documents of one file, in JSON or YAML, and the lines they are at.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use super::Problem;
use crate::kubernetes::{Error, Found, Objects};

/// Adds the objects of a file.
pub(super) fn add(file: &str, bytes: &[u8], objects: &mut Objects, problems: &mut Vec<Problem>) {
    let mut report = Report { file, problems };
    let text = decoded(bytes);
    if text.contains('\u{fffd}') && !is_utf8(bytes) {
        report.add(None, None, "not all of it is UTF-8: other bytes are read as U+FFFD");
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if text.trim().is_empty() {
        return report.add(None, None, "the file is empty");
    }
    let is_yaml = [".yaml", ".yml"].iter().any(|ending| file.ends_with(ending));
    // JSON is YAML too, but the other way is faster.
    if !text.trim_start().starts_with(['{', '[']) || (is_yaml && !is_json(text)) {
        yaml(text, objects, &mut report);
    } else {
        json(text, objects, &mut report);
    }
}

/// The objects of a file as they stand there, those of Lists each by itself. What can't be read is
/// left out: [`add`] tells it.
pub(super) fn values(bytes: &[u8]) -> Vec<Value> {
    let text = decoded(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut found = Vec::new();
    if is_json(text) {
        let documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        documents.flatten().for_each(|value| flatten(value, &mut found));
    } else {
        for Document { text, .. } in documents(text) {
            let value = serde_saphyr::from_str_with_options::<Value>(text, options());
            value.into_iter().for_each(|value| flatten(value, &mut found));
        }
    }
    found
}

fn flatten(value: Value, found: &mut Vec<Value>) {
    match value {
        Value::Array(items) => items.into_iter().for_each(|item| flatten(item, found)),
        Value::Object(mut fields) => {
            let kind = fields.get("kind").and_then(Value::as_str);
            let is_list = kind.is_some_and(|kind| kind.ends_with("List"));
            match fields.get_mut("items").filter(|_| is_list) {
                Some(items) => flatten(items.take(), found),
                None => found.push(Value::Object(fields)),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Where problems of one file go.
struct Report<'a> {
    file: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Report<'_> {
    fn add(&mut self, document: Option<usize>, line: Option<usize>, message: &str) {
        let (file, message) = (self.file.to_owned(), message.to_owned());
        self.problems.push(Problem { file, document, line, message, wrong: None });
    }

    fn add_error(&mut self, document: Option<usize>, line: usize, error: Error) {
        self.add(document, Some(line), &error.to_string());
        let wrong = match error {
            Error::Field(wrong, _) => Some(*wrong),
            Error::Json(_) | Error::NoKind => None,
        };
        if let Some(last) = self.problems.last_mut() {
            last.wrong = wrong;
        }
    }
}

/// Windows' own tools write UTF-16 with a byte-order mark.
fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    let wide = |rest: &[u8], number: fn([u8; 2]) -> u16| {
        let pairs = rest.chunks_exact(2).map(|pair| number([pair[0], pair[1]]));
        let characters = char::decode_utf16(pairs);
        characters.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => Cow::Owned(wide(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(wide(rest, u16::from_be_bytes)),
        _ => String::from_utf8_lossy(bytes),
    }
}

fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

fn is_json(text: &str) -> bool {
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    documents.all(|document| document.is_ok())
}

/// JSON: one document after the other, each an object, a List, or an array of objects.
fn json(text: &str, objects: &mut Objects, report: &mut Report<'_>) {
    let documents = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    for document in documents {
        let document = match document {
            Ok(document) => document.get(),
            Err(error) => {
                // Its position may be that of the end of what is missing.
                let message = format!("this is no JSON: {error}");
                return report.add(None, Some(error.line()), &message);
            }
        };
        let start = offset(text, document);
        let mut add = |part: &str| {
            let before = start + offset(document, part);
            objects.add_each(part, &mut |Found { offset, error }| {
                let line = line_at(text, before + offset);
                report.add_error(None, line, error);
            });
        };
        match serde_json::from_str::<Vec<&RawValue>>(document) {
            Ok(parts) if document.starts_with('[') => {
                parts.into_iter().for_each(|part| add(part.get()));
            }
            Ok(_) | Err(_) => add(document),
        }
    }
}

/// Bytes of a text before a part of it.
fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// YAML: documents are separated by lines that begin with `---`.
fn yaml(text: &str, objects: &mut Objects, report: &mut Report<'_>) {
    let documents = documents(text);
    let several = documents.len() > 1;
    for (index, Document { line, text }) in documents.into_iter().enumerate() {
        let number = several.then_some(index + 1);
        let value = match serde_saphyr::from_str_with_options::<Value>(text, options()) {
            Ok(value) => value,
            Err(error) => {
                let at = error.location().and_then(|at| usize::try_from(at.line()).ok());
                let line = line + at.map_or(0, |at| at.saturating_sub(1));
                let why = error.without_snippet().to_string();
                let message = format!("this is no YAML: {}", first_line(&why));
                report.add(number, Some(line), &message);
                continue;
            }
        };
        match value {
            Value::Null => {}
            Value::Object(_) => objects.add_each(&value.to_string(), &mut |found| {
                report.add_error(number, line, found.error);
            }),
            Value::Array(items) => {
                for item in items {
                    objects.add_each(&item.to_string(), &mut |found| {
                        report.add_error(number, line, found.error);
                    });
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                report.add(number, Some(line), &Error::NoKind.to_string());
            }
        }
    }
}

/// A document and the line that it begins at.
struct Document<'a> {
    line: usize,
    text: &'a str,
}

/// A marker at the beginning of a line ends a document, whatever is open in it (YAML 1.2.2, 9.1.2:
/// c-forbidden). Documents without anything but comments and directives are left out.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut found = Vec::new();
    let (mut start, mut line_of_start) = (0, 1);
    let mut end = 0;
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        if is_marker(content, "---") {
            found.push(Document { line: line_of_start, text: &text[start..end] });
            (start, line_of_start) = (end, line);
        }
        end += content.len();
        if is_marker(content, "...") {
            found.push(Document { line: line_of_start, text: &text[start..end] });
            (start, line_of_start) = (end, line + 1);
        }
    }
    found.push(Document { line: line_of_start, text: &text[start..] });
    found.retain(|document| !is_empty(document.text));
    found
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_empty(document: &str) -> bool {
    let lines = document.lines().map(str::trim_end);
    lines.into_iter().all(|line| {
        let content = line.trim_start();
        content.is_empty()
            || content.starts_with('#')
            || line.starts_with('%')
            || matches!(line, "---" | "...")
    })
}

/// A cluster's objects are more than the limits for configuration files; those against documents
/// that grow without end when they are read stay.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

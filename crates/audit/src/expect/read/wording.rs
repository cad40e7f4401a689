//! What the YAML reader says, in words of somebody who writes such a file.
//!
//! In: an error of the reader, and the text it read. Out: a sentence that says what was expected,
//! with an example of the line. Errors of our own words are passed on as they are.

use serde_saphyr::Error;

use crate::explain::distance;

/// A line of each field, as it is written.
const EXAMPLES: &[(&str, &str)] = &[
    ("schema", "schema: unmasq.expect/v1"),
    ("preserved", "preserved: [{from: [outside], to: [services]}]"),
    ("translated", "translated: [{from: [pods], to: [internet]}]"),
    ("name", "name: \"customers of the shop\""),
    ("from", "from: [outside, 192.0.2.0/24]"),
    ("to", "to: [service/shop/web]"),
    ("entries", "entries: [node-port, load-balancer]"),
    ("families", "families: [ipv4, ipv6]"),
    ("told-by", "told-by: proxy-protocol"),
    ("outside", "outside: {gateways: [{knows-pods: [10.42.0.0/16]}]}"),
    ("load-balancers", "load-balancers: [{services: [shop/web], health-checks: true}]"),
    ("services", "services: [shop/web]"),
    ("health-checks", "health-checks: true"),
    ("gateways", "gateways: [{knows-pods: [10.42.0.0/16]}]"),
    ("knows-pods", "knows-pods: [10.42.0.0/16]"),
    ("masquerades", "masquerades: [10.42.0.0/16]"),
];

/// Spellings that are taken and not offered.
const OTHER_SPELLINGS: &[&str] = &["clusterip", "nodeport", "lb", "loadbalancer", "externalip"];

/// The sentence.
pub(super) fn told(error: &Error, text: &str) -> String {
    let error = error.without_snippet();
    let what = match error {
        Error::Unexpected { expected, .. } => match *expected {
            "sequence start" => "a list is expected here".to_owned(),
            "mapping start" => "fields are expected here, as NAME: VALUE".to_owned(),
            "string scalar" => "one word is expected here".to_owned(),
            other => format!("expected {other} here"),
        },
        Error::Eof { .. } => {
            return format!("nothing is written here; the first line is {}", of_field("schema"));
        }
        Error::MultipleDocuments { .. } => {
            return "a second document begins here, and one is read: take out the line ---"
                .to_owned();
        }
        Error::SerdeUnknownField { field, expected, .. } => {
            return unknown(&format!("there is no field {field} here"), field, expected);
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            return unknown(&format!("{variant} isn't known here"), variant, expected);
        }
        Error::SerdeMissingField { field, .. } => {
            return format!("the field {field} is missing, such as {}", of_field(field));
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            return format!("{key} was said before: say it once");
        }
        Error::UnknownAnchor { .. } => {
            return "a word that begins with * is a reference in YAML, and nothing has that name: \
                    write it in quotes, or a name"
                .to_owned();
        }
        // The reader grows new ones; and these are our own words, or about how YAML is written.
        other => {
            let said = words(other);
            match syntax(&said) {
                Some(meant) => meant.to_owned(),
                None => return said,
            }
        }
    };
    match error.location().and_then(|at| field_at(text, at.line())) {
        Some(example) => format!("{what}, such as {example}"),
        None => what,
    }
}

/// What the scanner of YAML means.
fn syntax(said: &str) -> Option<&'static str> {
    const MEANT: &[(&str, &str)] = &[
        ("invalid boolean", "true or false is expected here"),
        ("tabs disallowed", "a tab is no indentation in YAML: write spaces"),
        ("unclosed quote", "a quote that is opened here is never closed"),
        ("unclosed bracket", "a bracket that is opened here is never closed"),
        ("illegal placement of ':'", "a bracket or a quote before this is not closed"),
        (
            "mapping values are not allowed",
            "a colon inside of a value: write the value in quotes, or begin a new line",
        ),
        ("did not find expected", "this is not indented like the lines before it, or not closed"),
        ("while parsing", "this is not indented like the lines before it, or not closed"),
    ];
    MEANT.iter().find(|(words, _)| said.contains(words)).map(|(_, meant)| *meant)
}

/// The reader's words, without the position that stands before them, and in one line.
fn words(error: &Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let known: Vec<&str> =
        known.iter().copied().filter(|word| !OTHER_SPELLINGS.contains(word)).collect();
    let there = known.join(", ");
    match near(word, &known) {
        Some(near) => format!("{what}; did you mean {near}? There are {there}"),
        None => format!("{what}; there are {there}"),
    }
}

/// The word that was meant, if one is near.
pub(super) fn near<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let written = word.to_ascii_lowercase();
    let close = known.iter().map(|known| (distance(&written, known), *known)).min();
    close.filter(|(far, known)| far * 3 <= known.len().max(word.len())).map(|(_, known)| known)
}

fn of_field(field: &str) -> &'static str {
    let found = EXAMPLES.iter().find(|(name, _)| *name == field);
    found.map_or("NAME: VALUE", |(_, example)| example)
}

/// An example of the field that a line has, or of the last one before it.
fn field_at(text: &str, line: u64) -> Option<&'static str> {
    let upto = text.lines().take(usize::try_from(line).ok()?).collect::<Vec<_>>();
    upto.iter().rev().find_map(|line| {
        let written = line.trim_start_matches([' ', '\t', '-', '{', '[']);
        let (name, _) = written.split_once(':')?;
        EXAMPLES.iter().find(|(field, _)| *field == name.trim()).map(|(_, example)| *example)
    })
}

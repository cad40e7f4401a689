//! The YAML of k3s and rke2: top-level settings, each a flag without dashes, line by line.
//!
//! What is not the simplest form is left out: `name: value`, `name: [value, …]`, and a list with a
//! line for each item. A value that a line leaves open ends the reading, because nobody knows which
//! line is its last.

use super::{MASK, is_for_another, is_kept, is_name, is_network, is_plain};

/// The settings that are known, the names of others, and nothing else.
pub(in super::super) fn yaml(text: &str) -> String {
    let mut kept = String::new();
    // The setting whose list may follow.
    let mut list: Option<&str> = None;
    for line in text.lines() {
        let entry = without_comment(line);
        if entry.trim().is_empty() || entry == "---" {
            continue;
        }
        if let Some(item) = item(entry) {
            match list {
                Some(name) if is_kept(name, item) => kept += &format!("  - {item}\n"),
                Some(_) => {
                    kept += &format!("  - {MASK}\n");
                    // More lines of it may look like items.
                    list = None;
                }
                None => {}
            }
            continue;
        }
        list = None;
        let Some((name, value)) = setting(entry) else {
            // Not indented, it may leave open what it begins; indented, it is of a setting before.
            if line.starts_with([' ', '\t']) {
                continue;
            }
            kept += &format!("{MASK}\n");
            break;
        };
        let known = is_network(name) || is_for_another(name);
        if known && value.is_empty() {
            list = Some(name);
            kept += &format!("{name}:\n");
        } else if known && is_value(name, value) {
            kept += &format!("{name}: {value}\n");
        } else {
            kept += &format!("{name}: {MASK}\n");
        }
        if is_open(value) {
            kept += &format!("{MASK}\n");
            break;
        }
    }
    kept
}

/// The line without what stands after ` #`. A `#` in quotes is of no value that is kept.
fn without_comment(line: &str) -> &str {
    let end = if line.starts_with('#') { Some(0) } else { line.find(" #") };
    end.map_or(line, |end| &line[..end]).trim_end()
}

/// `value` of `- value`.
fn item(line: &str) -> Option<&str> {
    Some(unquoted(line.trim_start().strip_prefix("- ")?.trim()))
}

/// `name: value` at the beginning of a line; k3s has `name+:` to add to another file's list.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let name = name.strip_suffix('+').unwrap_or(name);
    let separate = value.is_empty() || value.starts_with(' ');
    (is_name(name) && separate).then_some((name, value.trim()))
}

fn is_value(name: &str, value: &str) -> bool {
    match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(items) => items.split(',').all(|item| is_kept(name, unquoted(item.trim()))),
        None => is_kept(name, unquoted(value)),
    }
}

fn unquoted(value: &str) -> &str {
    let inside = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

/// Whether the value may go on at the beginning of the next line. Plain and block scalars (`|`,
/// `>`) can't: their lines are indented. Of others only those that are whole at a glance don't.
fn is_open(value: &str) -> bool {
    let is_plain_or_block = |c: char| c.is_alphanumeric() || "|>/.-_~*".contains(c);
    if value.is_empty() || value.starts_with(is_plain_or_block) {
        return false;
    }
    let items = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
    let whole = |item: &str| item.is_empty() || is_whole(item);
    !items.split(',').map(str::trim).all(whole)
}

/// Whether it is a plain word, or one thing between quotes without another quote.
fn is_whole(value: &str) -> bool {
    let inside = unquoted(value);
    let quoted = inside.len() < value.len();
    (quoted && !inside.contains(['"', '\'', '\\'])) || is_plain(value)
}

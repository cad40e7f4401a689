//! Sets, maps and chains as `nft list ruleset` lists them within a table.

use std::fmt::{self, Display, Write};

/// The blocks of a table, in the order written.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Text {
    /// A set with a comment.
    pub(super) fn set<T: Display>(
        &mut self,
        name: &str,
        kind: &str,
        comment: &str,
        elements: impl IntoIterator<Item = T>,
    ) {
        self.container("set", name, kind, comment, &lines(elements));
    }

    /// A map with a comment.
    pub(super) fn map(&mut self, name: &str, kind: &str, comment: &str, elements: &[String]) {
        self.container("map", name, kind, comment, &lines(elements));
    }

    /// A set that rules put addresses into, for so many seconds.
    pub(super) fn affinity_set(&mut self, name: &str, kind: &str, seconds: u32) {
        let seconds = duration(seconds);
        self.block(
            "set",
            name,
            // nft gives a dynamic set this size if nobody names one (src/rule.c).
            &[
                format!("type {kind}"),
                "size 65535".into(),
                "flags dynamic,timeout".into(),
                format!("timeout {seconds}"),
            ],
        );
    }

    /// A chain that is called by the kernel.
    pub(super) fn base_chain(
        &mut self,
        name: &str,
        kind: &str,
        hook: &str,
        priority: &str,
        rules: &[&str],
    ) {
        let head = format!("type {kind} hook {hook} priority {priority}; policy accept;");
        self.block("chain", name, &[&[head.as_str()], rules].concat());
    }

    /// A chain that is called by other chains.
    pub(super) fn chain<T: Display>(&mut self, name: &str, rules: &[T]) {
        self.block("chain", name, rules);
    }

    /// The same with a comment.
    pub(super) fn commented_chain(&mut self, name: &str, comment: &str, rules: &[&str]) {
        let comment = format!("comment \"{comment}\"");
        self.block("chain", name, &[&[comment.as_str()], rules].concat());
    }

    fn container(&mut self, block: &str, name: &str, kind: &str, comment: &str, elements: &str) {
        let mut parts = vec![format!("type {kind}"), format!("comment \"{comment}\"")];
        if !elements.is_empty() {
            parts.push(format!("elements = {{ {elements} }}"));
        }
        self.block(block, name, &parts);
    }

    fn block<T: Display>(&mut self, block: &str, name: &str, lines: &[T]) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "\n\t{block} {name} {{");
        for line in lines {
            let _ = writeln!(self.0, "\t\t{line}");
        }
        let _ = writeln!(self.0, "\t}}");
    }
}

/// `a, b`
pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    joined(items, ", ")
}

/// Elements, one a line.
fn lines<T: Display>(elements: impl IntoIterator<Item = T>) -> String {
    joined(elements, ",\n\t\t\t     ")
}

fn joined<T: Display>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push_str(separator);
        }
        let _ = write!(text, "{item}");
    }
    text
}

/// `1d2h3m4s`, without what is 0 (nft src/datatype.c, `time_print`).
fn duration(seconds: u32) -> String {
    let parts = [
        (seconds / 86_400, 'd'),
        (seconds / 3_600 % 24, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let some = parts.iter().filter(|(count, _)| *count > 0);
    some.map(|(count, unit)| format!("{count}{unit}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_nft_does() {
        for (seconds, expected) in
            [(10_800, "3h"), (600, "10m"), (86_400, "1d"), (93_784, "1d2h3m4s"), (1, "1s")]
        {
            assert_eq!(duration(seconds), expected);
        }
    }
}

//! One change as bodies of shell functions.

use std::fmt::Write as _;

use serde_json::Value;
use unmasq_audit::{Edit, Syntax};
use unmasq_fix::deed::{Deed, FileDeed, ObjectDeed, Program, RulesDeed, TableDeed};
use unmasq_fix::{Plan, transaction};

use crate::patches::{Patch, leaves};

/// What a change's functions do. Each body is lines that end with a newline.
pub(super) struct Change {
    /// What `now` prints before.
    pub(super) before: Vec<String>,
    /// What `now` prints after.
    pub(super) after: Vec<String>,
    /// Prints what is there.
    pub(super) now: String,
    /// Does it.
    pub(super) apply: String,
    /// Takes it back.
    pub(super) undo: String,
}

impl Change {
    /// `Err`: why a script can't do it, a fragment.
    pub(super) fn of(deed: &Deed, plan: &Plan) -> Result<Change, String> {
        match deed {
            Deed::Rules(rules) => of_rules(rules),
            Deed::Table(table) => Ok(of_table(table)),
            Deed::File(file) => of_file(file),
            Deed::Object(object) => of_object(object, plan),
        }
    }
}

/// A word of a command: unlike [`unmasq_audit::quoted`], for any POSIX shell, and for words without
/// characters that steer a terminal.
pub(super) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// A command with lines for its input, as they are.
pub(super) fn heredoc(command: &str, lines: &str) -> String {
    let end = end_of(lines);
    format!("    {command} <<'{end}'\n{lines}{end}\n")
}

/// A word that no line consists of.
fn end_of(lines: &str) -> String {
    let mut end = "EOF".to_owned();
    while lines.lines().any(|line| line == end) {
        end.push('_');
    }
    end
}

fn of_rules(deed: &RulesDeed) -> Result<Change, String> {
    if let Some((rule, times)) = deed.deleted_of_several() {
        return Err(format!("the rule `{rule}` stands there {times} times"));
    }
    let Deed::Rules(back) = Deed::Rules(deed.clone()).inverse() else {
        return Err("it has no opposite".to_owned());
    };
    let restore = deed.program.restore().join(" ");
    let (now, apply, undo) = match deed.program {
        Program::IptablesLegacy
        | Program::Ip6tablesLegacy
        | Program::IptablesNft
        | Program::Ip6tablesNft => {
            let save = format!("{}-save", deed.program.name());
            let now = format!(
                "    {save} -t {} | grep {} | sed 's/[[:space:]]*$//'\n",
                word(&deed.table),
                word(&format!("^-A {} ", basic(&deed.chain)))
            );
            let text = |deed: &RulesDeed| heredoc(&restore, &transaction::of(deed, &[]));
            (now, text(deed), text(&back))
        }
        Program::NftIp | Program::NftIp6 | Program::NftInet => {
            let family = deed.program.family();
            let list =
                format!("nft -a list chain {family} {} {}", word(&deed.table), word(&deed.chain));
            let now = format!(
                "    {list} |\n        sed -n -e 's/^[[:space:]]*//' -e '/{{ # handle [0-9]*$/d' \\\n            \
                 -e 's/counter packets [0-9]* bytes [0-9]*/counter/g' -e 's/ # handle [0-9]*$//p'\n"
            );
            let text = |deed: &RulesDeed| by_handles(deed, &list, &restore);
            (now, text(deed), text(&back))
        }
    };
    Ok(Change { before: deed.before.clone(), after: deed.after.clone(), now, apply, undo })
}

/// nft names rules by the kernel's numbers, which are looked up by their places.
fn by_handles(deed: &RulesDeed, list: &str, restore: &str) -> String {
    let handles: Vec<String> =
        (1..=deed.before.len()).map(|place| format!("\u{0}{place}\u{0}")).collect();
    let input = transaction::of(deed, &handles);
    let mut lines = String::new();
    for (index, part) in input.split('\u{0}').enumerate() {
        if index % 2 == 1 {
            let _ = write!(lines, "${{{part}}}");
            continue;
        }
        for letter in part.chars() {
            if matches!(letter, '$' | '`' | '\\') {
                lines.push('\\');
            }
            lines.push(letter);
        }
    }
    let end = end_of(&lines);
    format!(
        "    # The kernel's numbers of the rules, in their order.\n    \
         set -- $({list} | sed -n -e '/{{ # handle [0-9]*$/d' -e 's/.* # handle \\([0-9]*\\)$/\\1/p')\n    \
         {restore} <<{end}\n{lines}{end}\n"
    )
}

fn of_table(deed: &TableDeed) -> Change {
    let (family, name) = (deed.program.family(), &deed.name);
    let listed = format!("table {family} {name}");
    let lines = |text: &Option<String>| text.iter().map(|_| listed.clone()).collect();
    let now = format!("    nft list tables | grep -Fx {} || :\n", word(&listed));
    let put = |from: &Option<String>, to: &Option<String>| {
        let delete = from.as_ref().map(|_| format!("delete {listed}\n")).unwrap_or_default();
        heredoc("nft -f -", &(delete + to.as_deref().unwrap_or_default()))
    };
    Change {
        before: lines(&deed.before),
        after: lines(&deed.after),
        now,
        apply: put(&deed.before, &deed.after),
        undo: put(&deed.after, &deed.before),
    }
}

fn of_file(deed: &FileDeed) -> Result<Change, String> {
    let path = word(&deed.path);
    match &deed.edit {
        Some(Edit::Line { old, new }) => {
            let (from, to) = (word(old), word(new));
            Ok(Change {
                before: vec![old.clone()],
                after: vec![new.clone()],
                now: format!(
                    "    sed -e 's/^[[:space:]]*//' -e 's/[[:space:]]*$//' {path} |\n        \
                     grep -Fx -e {from} -e {to} || :\n"
                ),
                apply: format!("    replace_line {path} {from} {to}\n"),
                undo: format!("    replace_line {path} {to} {from}\n"),
            })
        }
        Some(Edit::Value { syntax: Syntax::Json, pointer, old, new }) => {
            let key = pointer.trim_start_matches('/');
            let field = format!(".[{}]", Value::from(key));
            let value = |text: &Option<String>| -> Result<String, String> {
                let value = text.as_deref().map(serde_json::from_str::<Value>).transpose();
                let value = value.map_err(|error| format!("{pointer}: {error}"))?;
                Ok(value.unwrap_or(Value::Null).to_string())
            };
            let filter = |text: &Option<String>| -> Result<String, String> {
                Ok(match text {
                    Some(_) => word(&format!("{field} = {}", value(text)?)),
                    None => word(&format!("del({field})")),
                })
            };
            let made = if deed.before.is_none() { " made" } else { "" };
            Ok(Change {
                before: vec![value(old)?],
                after: vec![value(new)?],
                now: format!(
                    "    if [ -e {path} ]; then jq -cS {} {path}; else echo null; fi\n",
                    word(&field)
                ),
                apply: format!("    edit_json {path} {}\n", filter(new)?),
                undo: format!("    edit_json {path} {}{made}\n", filter(old)?),
            })
        }
        Some(Edit::Value { syntax: Syntax::Yaml, .. }) => Err("it is a YAML file".to_owned()),
        None => Err("what else the file says was not captured".to_owned()),
    }
}

/// kubectl prints each field that changes, a line each, and nothing for one that isn't there.
fn of_object(deed: &ObjectDeed, plan: &Plan) -> Result<Change, String> {
    let patch = Patch::of(deed, plan);
    let fields = leaves(&patch.forth, &patch.back)
        .ok_or("kubectl doesn't print what changes so that it can be compared")?;
    let template: String =
        fields.iter().map(|leaf| format!("{{{}}}{{\"\\n\"}}", leaf.path)).collect();
    let namespace =
        deed.namespace.as_deref().map(|name| format!(" -n {}", word(name))).unwrap_or_default();
    let object = format!("{} {}{namespace}", word(&deed.resource), word(&deed.name));
    let put = |patch: &Value, kind: &str| {
        format!(
            "    kubectl patch {object} --type {kind} -p {} >/dev/null\n",
            word(&patch.to_string())
        )
    };
    Ok(Change {
        before: fields.iter().map(|leaf| leaf.before.clone()).collect(),
        after: fields.iter().map(|leaf| leaf.after.clone()).collect(),
        now: format!("    kubectl get {object} -o jsonpath={}\n", word(&template)),
        apply: put(&patch.forth, patch.kind.name()),
        undo: put(&patch.back, patch.kind.name()),
    })
}

/// A text in a basic regular expression that means itself.
fn basic(text: &str) -> String {
    let mut pattern = String::new();
    for letter in text.chars() {
        if matches!(letter, '.' | '*' | '[' | ']' | '^' | '$' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_plain_shell_reads_words_and_lines_back() {
        for text in ["", "n1", "it's", "$(id)`id`\\", "x'; touch /tmp/pwn #", "a\nEOF\nb", "-n é"]
        {
            let run = |line: &str| {
                let output = Command::new("sh").args(["-c", line]).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            };
            assert_eq!(run(&format!("printf %s {}", word(text))), text);
            let lines = format!("{text}\n");
            assert_eq!(run(&heredoc("cat", &lines)), lines);
        }
    }
}

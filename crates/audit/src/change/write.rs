//! Changes as their programs take them: one transaction for each program.
//!
//! iptables-restore deletes a rule by its words and fails where there is none, so a ruleset that
//! has changed since is left as it is. nft names the old rule by its handle. Both carry out the
//! whole input or nothing (of several tables, iptables-legacy-restore commits one after the other).

use std::fmt::Write as _;

use unmasq_model::rule::Rule;
use unmasq_model::ruleset::{Backend, BaseChain, Chain, ChainKind, Policy, Table, TableFamily};

use super::{Place, RuleChange, TableChange, last_first};
use crate::quoted;

/// A program and what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its standard input.
    pub input: String,
}

/// Why a change has no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// The rule's text isn't what iptables-save prints for its chain.
    #[error("the rule isn't as iptables-save prints it: {0}")]
    NotSaved(String),
    /// nft needs the handle of the rule that is there.
    #[error("the handle of this rule of {chain} isn't known: {rule}")]
    NoHandle {
        /// Family, table and chain.
        chain: String,
        /// The rule.
        rule: String,
    },
    /// iptables has no tables of this family.
    #[error("iptables has no tables of family {0}")]
    Family(TableFamily),
    /// A line break would end the rule and begin another, or end the program's input.
    #[error("there are control characters in it: {0:?}")]
    ControlCharacters(String),
    /// nft's language has no quotes for names, and a `;` begins another command.
    #[error("nft would not read it as one name or rule: {0:?}")]
    Nft(String),
    /// A chain outside the IP hooks.
    #[error("no hook is known for chain {0}")]
    Hook(String),
}

impl Transaction {
    /// One command with its input, for a shell.
    pub fn heredoc(&self) -> String {
        format!("{} <<'EOF'\n{}EOF", self.command.join(" "), self.input)
    }
}

/// One transaction for each program that is needed.
pub fn transactions(changes: &[RuleChange]) -> Result<Vec<Transaction>, Unwritable> {
    written(changes, &mut |change, old| {
        let handle = old.origin.handle;
        handle.map(|handle| handle.to_string()).ok_or_else(|| Unwritable::NoHandle {
            chain: Place(change).to_string(),
            rule: old.text.to_string(),
        })
    })
}

/// The same for a person's shell, which looks up the handles that aren't known: those of rules that
/// the kernel has yet to take.
pub fn commands(changes: &[RuleChange]) -> Result<Vec<String>, Unwritable> {
    let mut lookups: Vec<String> = Vec::new();
    let all = written(changes, &mut |change, old| match old.origin.handle {
        Some(handle) => Ok(handle.to_string()),
        None => {
            let name = format!("handle{}", lookups.len() + 1);
            lookups.push(format!("{name}=$({})", lookup(change, old)));
            Ok(format!("\u{0}{name}\u{0}"))
        }
    })?;
    let command = |one: Transaction| {
        if !one.input.contains('\u{0}') {
            return one.heredoc();
        }
        // The shell fills in the handles, and must leave the rest as it is.
        let mut input = String::new();
        for (index, part) in one.input.split('\u{0}').enumerate() {
            match index % 2 {
                0 => input.push_str(&shell_escaped(part)),
                _ => input.push_str(&format!("${part}")),
            }
        }
        let lookups = lookups.join("\n");
        format!("{lookups}\n{} <<EOF\n{input}EOF", one.command.join(" "))
    };
    Ok(all.into_iter().map(command).collect())
}

fn shell_escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if matches!(letter, '$' | '`' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// Finds a rule by its text, whatever it has counted.
fn lookup(change: &RuleChange, rule: &Rule) -> String {
    let mut pattern = String::new();
    let mut before = "";
    for (index, word) in rule.text.split(' ').enumerate() {
        if index > 0 {
            pattern.push(' ');
        }
        if matches!(before, "packets" | "bytes") && word.parse::<u64>().is_ok() {
            pattern.push_str("[0-9]*");
        } else {
            for letter in word.chars() {
                match letter {
                    '.' | '*' | '[' | ']' | '^' | '$' | '\\' | '/' => {
                        pattern.push('\\');
                        pattern.push(letter);
                    }
                    '\'' => pattern.push('.'),
                    other => pattern.push(other),
                }
            }
        }
        before = word;
    }
    let RuleChange { family, table, chain, .. } = change;
    let (table, chain) = (quoted(table), quoted(chain));
    format!(
        "nft -a list chain {family} {table} {chain} | sed -n 's/^[[:space:]]*{pattern} # handle \\([0-9]*\\)$/\\1/p'"
    )
}

type Handle<'h> = dyn FnMut(&RuleChange, &Rule) -> Result<String, Unwritable> + 'h;

fn written(
    changes: &[RuleChange],
    handle: &mut Handle<'_>,
) -> Result<Vec<Transaction>, Unwritable> {
    let mut all = Vec::new();
    for change in changes {
        let rules = change.old.iter().chain(&change.new).map(|rule| &*rule.text);
        in_one_line([&*change.table, &change.chain].into_iter().chain(rules))?;
    }
    for backend in [Backend::Legacy, Backend::IptablesNft] {
        for family in [TableFamily::Ip, TableFamily::Ip6] {
            let mine: Vec<RuleChange> = changes
                .iter()
                .filter(|one| one.backend == backend && one.family == family)
                .cloned()
                .collect();
            if !mine.is_empty() {
                all.push(restored(backend, family, &mine)?);
            }
        }
    }
    let xtables = |one: &&RuleChange| match one.backend {
        Backend::Legacy | Backend::IptablesNft => {
            !matches!(one.family, TableFamily::Ip | TableFamily::Ip6)
        }
        Backend::Nft => false,
    };
    if let Some(other) = changes.iter().find(xtables) {
        return Err(Unwritable::Family(other.family));
    }
    let native: Vec<RuleChange> =
        changes.iter().filter(|one| one.backend == Backend::Nft).cloned().collect();
    if !native.is_empty() {
        for change in &native {
            nft_name(&change.table)?;
            nft_name(&change.chain)?;
            change.new.as_ref().map_or(Ok(()), |rule| nft_rule(&rule.text))?;
        }
        let mut input = String::new();
        for change in last_first(&native) {
            let _ = writeln!(input, "{}", native_line(change, &native, handle)?);
        }
        all.push(nft(input));
    }
    Ok(all)
}

fn in_one_line<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<(), Unwritable> {
    match texts.into_iter().find(|text| text.contains(char::is_control)) {
        Some(odd) => Err(Unwritable::ControlCharacters(odd.to_owned())),
        None => Ok(()),
    }
}

/// A name that nft can read (src/scanner.l: `string`).
fn nft_name(name: &str) -> Result<(), Unwritable> {
    let first = |c: char| c.is_ascii_alphabetic() || "_.".contains(c);
    let rest = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    match name.starts_with(first) && name.chars().all(rest) {
        true => Ok(()),
        false => Err(Unwritable::Nft(name.to_owned())),
    }
}

/// A rule's text that is one rule. What stands between double quotes has none in it.
fn nft_rule(text: &str) -> Result<(), Unwritable> {
    let even = text.split('"').count() % 2 == 1;
    match even && !text.split('"').step_by(2).any(|part| part.contains([';', '#'])) {
        true => Ok(()),
        false => Err(Unwritable::Nft(text.to_owned())),
    }
}

/// The command that deletes a table of nft, which joins its arguments and reads them as one text.
pub(crate) fn delete_table(family: TableFamily, name: &str) -> Result<String, Unwritable> {
    nft_name(name)?;
    Ok(format!("nft delete table {family} {name}"))
}

fn nft(input: String) -> Transaction {
    Transaction { command: ["nft", "-f", "-"].map(str::to_owned).to_vec(), input }
}

/// What iptables-restore reads.
fn restored(
    backend: Backend,
    family: TableFamily,
    changes: &[RuleChange],
) -> Result<Transaction, Unwritable> {
    let ip = if family == TableFamily::Ip6 { "ip6tables" } else { "iptables" };
    let kind = if backend == Backend::Legacy { "legacy" } else { "nft" };
    let mut tables: Vec<&str> = changes.iter().map(|one| &*one.table).collect();
    tables.sort_unstable();
    tables.dedup();
    let mut input = String::new();
    for table in tables {
        let _ = writeln!(input, "*{table}");
        for change in last_first(changes).into_iter().filter(|one| one.table == table) {
            let chain = &change.chain;
            if let Some(old) = &change.old {
                let _ = writeln!(input, "-D {chain} {}", saved_words(old, chain)?);
            }
            if let Some(new) = &change.new {
                let number = change.position + 1;
                let _ = writeln!(input, "-I {chain} {number} {}", saved_words(new, chain)?);
            }
        }
        let _ = writeln!(input, "COMMIT");
    }
    let command =
        vec![format!("{ip}-{kind}-restore"), "--noflush".to_owned(), "--counters".to_owned()];
    Ok(Transaction { command, input })
}

/// A rule's words after its chain: iptables-restore reads quotes as iptables-save writes them.
fn saved_words<'r>(rule: &'r Rule, chain: &str) -> Result<&'r str, Unwritable> {
    let rest = rule.text.strip_prefix("-A ").and_then(|rest| rest.strip_prefix(chain));
    rest.and_then(|rest| rest.strip_prefix(' '))
        .filter(|rest| !rest.contains('\n'))
        .ok_or_else(|| Unwritable::NotSaved(rule.text.to_string()))
}

fn native_line(
    change: &RuleChange,
    all: &[RuleChange],
    handle: &mut Handle<'_>,
) -> Result<String, Unwritable> {
    let place = Place(change);
    Ok(match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            format!("replace rule {place} handle {} {}", handle(change, old)?, new.text)
        }
        (Some(old), None) => format!("delete rule {place} handle {}", handle(change, old)?),
        (None, Some(new)) => match change.position.checked_sub(1) {
            None => format!("insert rule {place} {}", new.text),
            Some(before) => {
                let after = after(change, before, all, handle)?;
                format!("add rule {place} {after} {}", new.text)
            }
        },
        (None, None) => String::new(),
    })
}

/// A rule is put after the one before it, which no earlier line has moved. nft loses count of an
/// `index` whose rule a later line of the same input replaces (seen with 1.0.6: the new rule ends
/// up last), so that one is named by its handle.
fn after(
    change: &RuleChange,
    before: usize,
    all: &[RuleChange],
    handle: &mut Handle<'_>,
) -> Result<String, Unwritable> {
    let mut others = all.iter().filter(|one| one.place() == change.place());
    let other = others.find(|one| one.position == before && one.old.is_some());
    match other.and_then(|other| Some((other, other.old.as_ref()?))) {
        Some((other, old)) => Ok(format!("position {}", handle(other, old)?)),
        None => Ok(format!("index {before}")),
    }
}

/// Tables of our own, in one transaction: it fails where there is one of that name already.
pub fn table_transaction(changes: &[TableChange]) -> Result<Transaction, Unwritable> {
    let mut input = String::new();
    for table in changes.iter().flat_map(|change| change.old.iter().chain(&change.new)) {
        nft_name(&table.name)?;
        for chain in &table.chains {
            nft_name(&chain.name)?;
            in_one_line(chain.rules.iter().map(|rule| &*rule.text))?;
            chain.rules.iter().try_for_each(|rule| nft_rule(&rule.text))?;
        }
    }
    for change in changes {
        if let Some(Table { family, name, .. }) = &change.old {
            let _ = writeln!(input, "delete table {family} {name}");
        }
        if let Some(table) = &change.new {
            create(&mut input, table)?;
        }
    }
    Ok(nft(input))
}

/// The same for a person's shell.
pub fn table_commands(changes: &[TableChange]) -> Result<Vec<String>, Unwritable> {
    let deleted = |change: &TableChange| match (&change.old, &change.new) {
        (Some(old), None) => Some(delete_table(old.family, &old.name)),
        (Some(_) | None, _) => None,
    };
    let lines = changes.iter().map(deleted).collect::<Option<Result<Vec<String>, Unwritable>>>();
    if let Some(lines) = lines {
        return lines;
    }
    Ok(vec![table_transaction(changes)?.heredoc()])
}

fn create(input: &mut String, table: &Table) -> Result<(), Unwritable> {
    let _ = writeln!(input, "create table {} {}", table.family, table.name);
    input.push_str(&table_text(table)?);
    Ok(())
}

/// A table as nft reads it, adding to what is there of it. Without its sets: our own tables have
/// anonymous ones only, which stand in their rules' text.
pub fn table_text(table: &Table) -> Result<String, Unwritable> {
    let mut text = format!("table {} {} {{\n", table.family, table.name);
    for chain in &table.chains {
        let _ = writeln!(text, "\tchain {} {{", chain.name);
        if let Some(base) = chain.base {
            let _ = writeln!(text, "\t\t{}", hooked(chain, base)?);
        }
        for rule in &chain.rules {
            let _ = writeln!(text, "\t\t{}", rule.text);
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    Ok(text)
}

fn hooked(chain: &Chain, base: BaseChain) -> Result<String, Unwritable> {
    let kind = match base.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    };
    let policy = match base.policy {
        Policy::Accept => "accept",
        Policy::Drop => "drop",
    };
    let hook = base.hook.ok_or_else(|| Unwritable::Hook(chain.name.to_string()))?;
    Ok(format!("type {kind} hook {hook} priority {}; policy {policy};", base.priority))
}

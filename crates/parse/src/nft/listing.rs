//! The text of `nft -a list ruleset`, read for where each object stands and how nft prints it.
//!
//! Only lines with a handle are of interest; what they mean is taken from the JSON. Handles are
//! unique within a table (`nf_tables_alloc_handle`, net/netfilter/nf_tables_api.c).

use std::borrow::Cow;
use std::collections::HashMap;

use unmasq_model::origin::{FileId, Origin};
use unmasq_model::ruleset::TableFamily;

use super::family;

/// A listing.
pub(super) struct Listing<'a> {
    pub(super) file: FileId,
    pub(super) tables: Vec<ListedTable<'a>>,
}

/// A table of a listing.
pub(super) struct ListedTable<'a> {
    pub(super) family: TableFamily,
    pub(super) name: &'a str,
    pub(super) line: u32,
    pub(super) handle: Option<u64>,
    pub(super) dormant: bool,
    entries: HashMap<u64, Entry<'a>>,
}

/// A line with a handle: a rule, or the head of a chain or set.
pub(super) struct Entry<'a> {
    line: u32,
    /// The chain that the rule stands in.
    chain: &'a str,
    text: Cow<'a, str>,
}

impl<'a> Listing<'a> {
    /// Reads a listing; the tables that `skip` names are passed over.
    pub(super) fn read(
        text: &'a str,
        file: FileId,
        skip: &dyn Fn(TableFamily, &str) -> bool,
    ) -> Listing<'a> {
        let mut reader = Reader { tables: Vec::new(), state: State::Outside };
        for (line, number) in text.lines().zip(1u32..) {
            reader.line(line, number, skip);
        }
        Listing { file, tables: reader.tables }
    }

    /// The table of that name.
    pub(super) fn table(&self, family: TableFamily, name: &str) -> Option<&ListedTable<'a>> {
        self.tables.iter().find(|table| table.family == family && table.name == name)
    }

    /// Where the table begins.
    pub(super) fn table_origin(&self, table: &ListedTable<'_>) -> Origin {
        Origin { file: self.file, line: table.line, handle: table.handle }
    }

    /// Where a chain or a set begins.
    pub(super) fn head(&self, table: &ListedTable<'_>, handle: u64) -> Option<Origin> {
        let entry = table.entries.get(&handle)?;
        Some(Origin { file: self.file, line: entry.line, handle: Some(handle) })
    }

    /// Where a rule stands, and its text.
    pub(super) fn rule(
        &self,
        table: &ListedTable<'_>,
        chain: &str,
        handle: u64,
    ) -> Option<(Origin, Box<str>)> {
        let entry = table.entries.get(&handle).filter(|entry| entry.chain == chain)?;
        let origin = Origin { file: self.file, line: entry.line, handle: Some(handle) };
        Some((origin, entry.text.as_ref().into()))
    }
}

/// Where the reader stands.
enum State<'a> {
    Outside,
    /// In a table that is passed over.
    Skipped,
    Table,
    /// In a set, map, counter …
    Block,
    /// In a chain, with the lines so far of a rule that is not complete.
    Chain(&'a str, Option<(u32, String)>),
}

struct Reader<'a> {
    tables: Vec<ListedTable<'a>>,
    state: State<'a>,
}

impl<'a> Reader<'a> {
    fn line(&mut self, line: &'a str, number: u32, skip: &dyn Fn(TableFamily, &str) -> bool) {
        let trimmed = line.trim();
        let (text, handle) = split_handle(trimmed);
        match (&mut self.state, trimmed) {
            (State::Outside, _) => self.table_head(text, handle, number, skip),
            // Only a table's own end stands at the beginning of a line.
            (State::Skipped, _) if line != "}" => {}
            (State::Skipped | State::Table, "}") => self.state = State::Outside,
            (State::Block | State::Chain(..), "}") => self.state = State::Table,
            (State::Table, _) => self.in_table(text, handle, number),
            (State::Block | State::Skipped, _) => {}
            (State::Chain(chain, pending), _) => {
                let chain = *chain;
                let rule = rule_line(pending, text, handle, number);
                if let (Some((line, text)), Some(handle)) = (rule, handle) {
                    self.entry(handle, Entry { line, chain, text });
                }
            }
        }
    }

    fn table_head(
        &mut self,
        text: &'a str,
        handle: Option<u64>,
        line: u32,
        skip: &dyn Fn(TableFamily, &str) -> bool,
    ) {
        let head = text.strip_prefix("table ").and_then(|rest| rest.strip_suffix('{'));
        let Some((family, name)) = head
            .and_then(|head| head.trim().split_once(' '))
            .and_then(|(word, name)| Some((family(word)?, unquoted(name))))
        else {
            return;
        };
        if skip(family, name) {
            self.state = State::Skipped;
            return;
        }
        let entries = HashMap::new();
        self.tables.push(ListedTable { family, name, line, handle, dormant: false, entries });
        self.state = State::Table;
    }

    fn in_table(&mut self, text: &'a str, handle: Option<u64>, line: u32) {
        if let Some(flags) = text.strip_prefix("flags ") {
            let dormant = flags.split([',', ' ']).any(|flag| flag == "dormant");
            if let Some(table) = self.tables.last_mut() {
                table.dormant |= dormant;
            }
        }
        let Some(head) = text.strip_suffix('{') else { return };
        if let Some(handle) = handle {
            self.entry(handle, Entry { line, chain: "", text: Cow::Borrowed("") });
        }
        self.state = match head.trim().strip_prefix("chain ") {
            Some(name) => State::Chain(unquoted(name), None),
            None => State::Block,
        };
    }

    fn entry(&mut self, handle: u64, entry: Entry<'a>) {
        if let Some(table) = self.tables.last_mut() {
            table.entries.insert(handle, entry);
        }
    }
}

/// A line in a chain: first line and whole text of the rule that it completes, if it does.
fn rule_line<'a>(
    pending: &mut Option<(u32, String)>,
    text: &'a str,
    handle: Option<u64>,
    number: u32,
) -> Option<(u32, Cow<'a, str>)> {
    let joined = match pending.take() {
        Some((line, begun)) => (line, Cow::Owned(format!("{begun} {text}"))),
        None => (number, Cow::Borrowed(text)),
    };
    if handle.is_some() {
        return Some(joined);
    }
    // The chain's own lines: its hook, and its comment.
    let own = text.is_empty() || text.starts_with("type ") || text.starts_with("comment ");
    if !own || matches!(joined.1, Cow::Owned(_)) {
        *pending = Some((joined.0, joined.1.into_owned()));
    }
    None
}

/// The line without its ` # handle 7`, and the 7.
fn split_handle(line: &str) -> (&str, Option<u64>) {
    match line.rsplit_once(" # handle ") {
        Some((text, handle)) => match handle.parse() {
            Ok(handle) => (text, Some(handle)),
            Err(_) => (line, None),
        },
        None => (line, None),
    }
}

fn unquoted(name: &str) -> &str {
    let name = name.trim();
    name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name)
}

//! The text of `nft -a list ruleset`, read for where each object stands and how nft prints it.
//!
//! Only lines with a handle are of interest; what they mean is taken from the JSON. Handles are
//! unique within a table (`nf_tables_alloc_handle`, net/netfilter/nf_tables_api.c).

use std::borrow::Cow;
use std::collections::HashMap;

use unmasq_model::origin::{FileId, Origin};
use unmasq_model::ruleset::TableFamily;

use super::text::block::{self, Line, TableText};

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
        let (tables, _) = block::read(text, skip);
        Listing { file, tables: tables.into_iter().map(ListedTable::new).collect() }
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

impl<'a> ListedTable<'a> {
    fn new(table: TableText<'a>) -> ListedTable<'a> {
        let mut entries = HashMap::new();
        for block in table.blocks {
            let head = Entry { line: block.line, chain: "", text: Cow::Borrowed("") };
            entries.extend(block.handle.map(|handle| (handle, head)));
            if block.kind == "chain" {
                let rule = |line: &Line<'a>| {
                    let entry = Entry { line: line.line, chain: block.name, text: line.one_line() };
                    Some((line.handle?, entry))
                };
                entries.extend(block.lines.iter().filter_map(rule));
            }
        }
        ListedTable {
            family: table.family,
            name: table.name,
            line: table.line,
            handle: table.handle,
            dormant: block::flags(&table.lines).any(|flag| flag == "dormant"),
            entries,
        }
    }
}

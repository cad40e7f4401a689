//! The structure of a listing: tables, the blocks in them, and the lines of each block with their
//! numbers and handles. What a line means is not known here.
//!
//! ```text
//! table ip kube-proxy { # handle 3        TableText
//!     comment "rules for kube-proxy"        lines
//!     set cluster-ips { # handle 7          blocks: Block
//!         type ipv4_addr                      lines
//!         elements = { 10.96.0.1,
//!                      10.96.0.10 }           (one Line)
//!     }
//! ```
//!
//! The commands of a file for `nft -f` that come before a table's block are obeyed as well:
//! `table …`, `delete table …`, `flush ruleset`.

use std::borrow::Cow;

use unmasq_model::ruleset::TableFamily;

use super::super::family;

/// A table's text.
#[derive(Debug)]
pub(in crate::nft) struct TableText<'a> {
    pub(in crate::nft) family: TableFamily,
    pub(in crate::nft) name: &'a str,
    pub(in crate::nft) line: u32,
    pub(in crate::nft) handle: Option<u64>,
    /// What stands in no block: flags and comment.
    pub(in crate::nft) lines: Vec<Line<'a>>,
    pub(in crate::nft) blocks: Vec<Block<'a>>,
    /// Why not all that it has is here.
    pub(in crate::nft) broken: Option<Problem>,
}

/// A chain, a set, a map, a counter …
#[derive(Debug)]
pub(in crate::nft) struct Block<'a> {
    /// What it is: `chain`, `set`.
    pub(in crate::nft) kind: &'a str,
    pub(in crate::nft) name: &'a str,
    pub(in crate::nft) line: u32,
    pub(in crate::nft) handle: Option<u64>,
    pub(in crate::nft) lines: Vec<Line<'a>>,
}

/// A line of a block; with sets in it, it may be several.
#[derive(Debug, Clone, Copy)]
pub(in crate::nft) struct Line<'a> {
    /// Without the handle.
    pub(in crate::nft) text: &'a str,
    pub(in crate::nft) line: u32,
    pub(in crate::nft) handle: Option<u64>,
    /// What stands behind a `#` and is no handle: nft without libxtables writes so what it can't
    /// translate.
    pub(in crate::nft) hidden: &'a str,
    /// Braces or quotes without an end.
    pub(in crate::nft) broken: bool,
}

impl<'a> Line<'a> {
    /// The text in one line, with what is hidden in it.
    pub(in crate::nft) fn one_line(&self) -> Cow<'a, str> {
        if !self.text.contains('\n') && self.hidden.is_empty() {
            return Cow::Borrowed(self.text);
        }
        let mut text = self.text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        if !self.hidden.is_empty() {
            text.extend([" # ", self.hidden]);
        }
        Cow::Owned(text.trim_start().to_owned())
    }
}

/// A table's flags.
pub(in crate::nft) fn flags<'a>(lines: &[Line<'a>]) -> impl Iterator<Item = &'a str> {
    let flags = lines.iter().filter_map(|line| line.text.strip_prefix("flags "));
    flags.flat_map(|flags| flags.split([',', ' '])).filter(|flag| !flag.is_empty())
}

/// What is wrong, and in which line.
#[derive(Debug, Clone)]
pub(in crate::nft) struct Problem {
    pub(in crate::nft) line: u32,
    pub(in crate::nft) message: String,
    /// Rules that may be anywhere were lost with it.
    pub(in crate::nft) lost: bool,
}

/// Reads a listing; the tables that `skip` names are passed over.
pub(in crate::nft) fn read<'a>(
    text: &'a str,
    skip: &dyn Fn(TableFamily, &str) -> bool,
) -> (Vec<TableText<'a>>, Vec<Problem>) {
    let mut reader = Reader {
        scanner: Scanner { text, at: 0, line: 1 },
        tables: Vec::new(),
        problems: Vec::new(),
    };
    while let Some(item) = reader.scanner.item(true) {
        match item {
            Item::Open(head) => reader.open(head, skip),
            Item::Line(line) => reader.command(line),
            Item::Close => {
                reader.problem(reader.scanner.line, "a } that closes nothing".into(), true);
            }
        }
    }
    reader.tables.retain(|table| !skip(table.family, table.name));
    (reader.tables, reader.problems)
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    tables: Vec<TableText<'a>>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn problem(&mut self, line: u32, message: String, lost: bool) {
        self.problems.push(Problem { line, message, lost });
    }

    /// The block of a table, and those that follow it where its end is missing.
    fn open(&mut self, head: Line<'a>, skip: &dyn Fn(TableFamily, &str) -> bool) {
        let mut next = Some(head);
        while let Some(head) = next.take() {
            let Some((family, name)) = table_name(head.text) else {
                self.problem(head.line, format!("not a table: {}", head.text), true);
                self.pass_over();
                return;
            };
            let begun = self.tables.iter().position(|t| t.family == family && t.name == name);
            let mut table = match begun {
                Some(index) => self.tables.remove(index),
                None => TableText {
                    family,
                    name,
                    line: head.line,
                    handle: head.handle,
                    lines: Vec::new(),
                    blocks: Vec::new(),
                    broken: None,
                },
            };
            next = self.table(&mut table);
            if skip(family, name) {
                (table.lines, table.blocks, table.broken) = (Vec::new(), Vec::new(), None);
            }
            if let Some(problem) = &table.broken {
                self.problems.push(problem.clone());
            }
            let place = begun.unwrap_or(self.tables.len());
            self.tables.insert(place, table);
        }
    }

    /// The content of a table. `Some`: the head of the next one, which stands in it.
    fn table(&mut self, table: &mut TableText<'a>) -> Option<Line<'a>> {
        let broken = |table: &mut TableText<'a>, line, message| {
            table.broken.get_or_insert(Problem { line, message, lost: false });
        };
        loop {
            let (family, name) = (table.family, table.name);
            match self.scanner.item(true) {
                Some(Item::Close) => return None,
                None => {
                    let message = format!("the text ends within table {family} {name}");
                    broken(table, self.scanner.line, message);
                    return None;
                }
                Some(Item::Open(head)) if table_name(head.text).is_some() => {
                    let message = format!("table {family} {name} has no end");
                    broken(table, head.line, message);
                    return Some(head);
                }
                Some(Item::Line(line)) => match line.text.split_whitespace().next() {
                    Some("flags" | "comment") if !line.broken => table.lines.push(line),
                    Some(_) | None => {
                        broken(table, line.line, format!("not understood: {}", line.text));
                    }
                },
                Some(Item::Open(head)) => match self.block(head) {
                    Ok(block) => table.blocks.push(block),
                    Err(message) => broken(table, head.line, message),
                },
            }
        }
    }

    fn block(&mut self, head: Line<'a>) -> Result<Block<'a>, String> {
        let lines = self.lines();
        let (kind, name) = head.text.rsplit_once(char::is_whitespace).unwrap_or((head.text, ""));
        let block = Block {
            kind: kind.trim_end(),
            name: unquoted(name),
            line: head.line,
            handle: head.handle,
            lines: lines.ok_or_else(|| format!("{} has no end", head.text))?,
        };
        let known = [
            "chain",
            "set",
            "map",
            "meter",
            "flowtable",
            "counter",
            "quota",
            "limit",
            "secmark",
            "synproxy",
            "tunnel",
            "ct helper",
            "ct timeout",
            "ct expectation",
        ];
        if known.contains(&block.kind) {
            Ok(block)
        } else {
            Err(format!("not understood: {}", head.text))
        }
    }

    /// The lines of a block to its end; `None` without an end.
    fn lines(&mut self) -> Option<Vec<Line<'a>>> {
        let mut lines = Vec::new();
        loop {
            match self.scanner.item(false)? {
                Item::Line(line) | Item::Open(line) => lines.push(line),
                Item::Close => return Some(lines),
            }
        }
    }

    fn pass_over(&mut self) {
        let mut depth = 1_u32;
        while depth > 0 {
            match self.scanner.item(true) {
                Some(Item::Open(_)) => depth += 1,
                Some(Item::Close) => depth -= 1,
                Some(Item::Line(_)) => {}
                None => return,
            }
        }
    }

    /// A line outside of tables.
    fn command(&mut self, line: Line<'a>) {
        let words: Vec<&str> = line.text.split_whitespace().collect();
        match words[..] {
            ["flush", "ruleset"] => self.tables.clear(),
            ["table", ..] | ["add", "table", ..] if table_name(line.text).is_some() => {}
            ["delete" | "destroy", "table", ..] if table_name(line.text).is_some() => {
                let gone = table_name(line.text);
                self.tables.retain(|table| gone != Some((table.family, table.name)));
            }
            _ => {
                // A command that would change a table, not a word of another program.
                let lost = matches!(
                    words.first(),
                    Some(
                        &("add"
                            | "create"
                            | "insert"
                            | "replace"
                            | "delete"
                            | "destroy"
                            | "flush"
                            | "rename"
                            | "reset"
                            | "include")
                    )
                );
                self.problem(line.line, format!("not understood: {}", line.text), lost);
            }
        }
    }
}

/// Family and name of `table ip nat`, whatever is done with it.
fn table_name(text: &str) -> Option<(TableFamily, &str)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["table", word, name] | [_, "table", word, name] => Some((family(word)?, unquoted(name))),
        // nft's own default.
        ["table", name] | [_, "table", name] => Some((TableFamily::Ip, unquoted(name))),
        _ => None,
    }
}

fn unquoted(name: &str) -> &str {
    name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name)
}

/// One thing of a block.
enum Item<'a> {
    /// The head of a block in it.
    Open(Line<'a>),
    Line(Line<'a>),
    /// The block's end.
    Close,
}

/// Finds where lines end.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Scanner<'a> {
    /// The next thing. `blocks`: a brace begins a block, not a set.
    fn item(&mut self, blocks: bool) -> Option<Item<'a>> {
        loop {
            match self.byte()? {
                b'\n' => {
                    self.line += 1;
                    self.at += 1;
                }
                b' ' | b'\t' | b'\r' | b';' => self.at += 1,
                b'#' => {
                    let (handle, hidden) = self.comment();
                    // A rule of which nothing else is shown.
                    if !blocks && (handle.is_some() || hidden.starts_with("xt_")) {
                        let (text, line, broken) = ("", self.line, false);
                        return Some(Item::Line(Line { text, line, handle, hidden, broken }));
                    }
                }
                b'}' => {
                    self.at += 1;
                    return Some(Item::Close);
                }
                _ => break,
            }
        }
        let (begin, line) = (self.at, self.line);
        let end = self.item_end(blocks);
        let text = self.text[begin..self.at].trim_end();
        let opened = end == End::Brace;
        if opened {
            self.at += 1;
        }
        let (handle, hidden) = self.comment();
        let broken = end == End::Broken;
        let line = Line { text, line, handle, hidden, broken };
        Some(if opened { Item::Open(line) } else { Item::Line(line) })
    }

    /// Goes to the end of a line that may have braces and quotes in it.
    fn item_end(&mut self, blocks: bool) -> End {
        // For each open brace, whether rules stand in it, which are lines of their own.
        let mut open: Vec<bool> = Vec::new();
        let begin = self.at;
        while let Some(byte) = self.byte() {
            match byte {
                b'"' => {
                    let line = self.to_line_end();
                    match line[1..].find('"') {
                        Some(length) => self.at += length + 1,
                        None => {
                            self.at += line.len();
                            return End::Broken;
                        }
                    }
                }
                b'{' if blocks => return End::Brace,
                b'{' => open.push(is_binding(&self.text[begin..self.at])),
                b'}' if open.pop().is_none() => return End::Line,
                b'#' if open.is_empty() => return End::Line,
                b'#' => {
                    self.at += self.to_line_end().len();
                    continue;
                }
                b';' if open.is_empty() => return End::Line,
                b'\n' if open.is_empty() => return End::Line,
                b'\n' => {
                    if !open.contains(&true) && !self.goes_on(begin) {
                        return End::Broken;
                    }
                    self.line += 1;
                }
                _ => {}
            }
            self.at += 1;
        }
        if open.is_empty() { End::Line } else { End::Broken }
    }

    /// Whether the elements of a set go on in the next line.
    fn goes_on(&self, begin: usize) -> bool {
        let next = self.text[self.at..].trim_start().as_bytes().first();
        self.text[begin..self.at].trim_end().ends_with([',', '{', '='])
            || matches!(next, Some(b'}' | b','))
    }

    /// Takes the rest of a line if it is a comment: a handle, and what else it says.
    fn comment(&mut self) -> (Option<u64>, &'a str) {
        let line = self.to_line_end();
        let Some(comment) = line.trim_start().strip_prefix('#') else { return (None, "") };
        self.at += line.len();
        match comment.rsplit_once("handle ") {
            Some((before, number)) if before.trim_end().is_empty() || before.ends_with("# ") => {
                match number.trim().parse() {
                    Ok(handle) => {
                        let hidden = before.trim_end().trim_end_matches('#').trim();
                        (Some(handle), hidden)
                    }
                    Err(_) => (None, comment.trim()),
                }
            }
            Some(_) | None => (None, comment.trim()),
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn to_line_end(&self) -> &'a str {
        let rest = &self.text[self.at..];
        rest.split_once('\n').map_or(rest, |(line, _)| line)
    }
}

/// How a line ends.
#[derive(PartialEq)]
enum End {
    Line,
    Brace,
    /// With open braces or quotes.
    Broken,
}

/// Whether a brace after this begins a chain without a name (`jump {`).
fn is_binding(text: &str) -> bool {
    let word = text.split_whitespace().next_back();
    matches!(word, Some("jump" | "goto"))
}

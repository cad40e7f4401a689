//! `nft list ruleset` (with or without `-a` and `-s`) -> tables.
//!
//! ```text
//! text ── block ── TableText ─┬─ heads of tables, chains, sets ──> Reader ─┐
//!                             └─ rules, elements: unread ── Parser: Node ──┴─ Lowerer ──> Rule, Set
//! ```
//!
//! Statements and expressions become the nodes that nft's JSON has for them, and all behind that is
//! the JSON's. The text says less in two places: of a set that was declared by `typeof` it has the
//! expression, not the type; and what iptables-nft wrote is shown as libxtables translates it.

pub(super) mod block;
mod expr;
mod field;
mod nat;
mod set;
mod statement;
#[cfg(test)]
mod tests;
mod token;

use std::borrow::Cow;

use unmasq_model::origin::{Diagnostic, FileId, Opaque, Origin};
use unmasq_model::rule::{Action, Rule, Step};
use unmasq_model::ruleset::{ChainId, Table, TableFamily};

use super::json::{ChainObject, Node, TableObject};
use super::{Later, NOT_READ, Reader, walked};
use block::{Block, Line, TableText};

/// Reads the text of `nft list ruleset`. `skip` says which tables to pass over.
///
/// A table that is cut short, and one with a line that no table has, is marked unreadable.
pub fn parse(
    text: &str,
    file: FileId,
    skip: &dyn Fn(TableFamily, &str) -> bool,
) -> (Vec<Table>, Vec<Diagnostic>) {
    let (tables, problems) = block::read(text, skip);
    let mut reader = Reader::new(file, None);
    for table in &tables {
        reader.written_table(table);
    }
    for problem in problems {
        let origin = Origin::new(file, problem.line);
        if problem.lost {
            reader.unlisted(TableFamily::Inet, NOT_READ, origin, &problem.message);
        }
        reader.report(origin, problem.message);
    }
    reader.lower();
    reader.finish()
}

/// Calls `each` with every element of a set.
pub(super) fn each_element<'a>(elements: &'a str, each: &mut dyn FnMut(Node<'a>)) -> bool {
    set::each_element(elements, each)
}

/// A statement that older versions have no JSON for, and print as text there too (nft 1.0.6 the
/// update of a map).
pub(super) fn statement(text: &str) -> Option<Node<'_>> {
    statement::only(text)
}

impl<'a> Reader<'a> {
    fn written_table(&mut self, table: &TableText<'a>) {
        let origin = Origin { file: self.file, line: table.line, handle: table.handle };
        let flags = block::flags(&table.lines).map(expr::text).collect();
        let head = TableObject {
            family: Cow::Borrowed(""),
            name: table.name.into(),
            handle: table.handle,
            flags: Node::List(flags),
        };
        self.table(table.family, head, origin);
        if let Some(problem) = &table.broken {
            self.unreadable(problem.message.clone());
        }
        let (chains, others): (Vec<_>, Vec<_>) =
            table.blocks.iter().partition(|block| block.kind == "chain");
        // No IP hook runs what looks into them.
        let others = others.into_iter().filter(|_| walked(table.family));
        for block in others.filter(|block| matches!(block.kind, "set" | "map" | "meter")) {
            self.written_set(block);
        }
        for block in chains {
            self.written_chain(block);
        }
    }

    fn written_origin(&self, line: u32, handle: Option<u64>) -> Origin {
        Origin { file: self.file, line, handle }
    }

    fn written_set(&mut self, block: &Block<'a>) {
        let origin = self.written_origin(block.line, block.handle);
        let written = set::read(block);
        self.set(&written.object, origin);
        for problem in written.problems {
            let origin = self.written_origin(problem.line, block.handle);
            self.set_opaque(block.name, &problem.message);
            self.report(origin, problem.message);
        }
        if let (Some(elements), Some(id)) =
            (written.elements, self.scopes[self.current].set(block.name))
        {
            self.later.push((self.current, Later::WrittenElements(id, elements, origin)));
        }
    }

    fn set_opaque(&mut self, name: &str, why: &str) {
        let scope = &mut self.scopes[self.current];
        if let Some(id) = scope.set(name) {
            scope.table.sets[id.0 as usize].opaque.get_or_insert_with(|| Opaque::new(why));
        }
    }

    fn written_chain(&mut self, block: &Block<'a>) {
        let origin = self.written_origin(block.line, block.handle);
        let own = block.lines.iter().take_while(|line| is_chains_own(line)).count();
        let (own, rules) = block.lines.split_at(own);
        let family = self.scopes[self.current].table.family;
        let head = chain_object(family, block, own);
        self.chain(head, origin);
        let Some(chain) = self.scopes[self.current].chain(block.name) else { return };
        for rule in rules {
            let origin = self.written_origin(rule.line, rule.handle);
            self.later.push((self.current, Later::WrittenRule(chain, *rule, origin)));
        }
    }

    /// The rule of a line.
    pub(super) fn written_rule(&mut self, chain: ChainId, line: &Line<'a>, origin: Origin) {
        let text = line.one_line();
        if line.broken {
            self.report(origin, format!("not understood: {text}"));
            let steps = [Step::Do(Action::Opaque(Opaque::new(&*text)))].into();
            return self.push_rule(chain, Rule { steps, text: text.into(), comment: None, origin });
        }
        let (mut statements, comment) = statement::rule(line.text);
        if !line.hidden.is_empty() {
            statements.push(expr::text(line.hidden));
        }
        let rule = self.finish_rule(&statements, text.into(), comment.map(Into::into), origin);
        self.push_rule(chain, rule);
    }
}

/// Whether a line at the beginning of a chain is no rule.
fn is_chains_own(line: &Line<'_>) -> bool {
    let word = line.text.split_whitespace().next();
    let own = matches!(word, Some("type" | "policy" | "comment" | "devices" | "flags"));
    own && line.handle.is_none()
}

/// `type filter hook input priority filter + 10; policy drop;`
fn chain_object<'a>(family: TableFamily, block: &Block<'a>, lines: &[Line<'a>]) -> ChainObject<'a> {
    let mut object = ChainObject {
        family: Cow::Borrowed(""),
        table: Cow::Borrowed(""),
        name: block.name.into(),
        handle: block.handle,
        kind: None,
        hook: None,
        prio: None,
        policy: None,
    };
    for line in lines {
        let mut words = line.text.split_whitespace();
        match words.next() {
            Some("type") => {
                object.kind = words.next().map(Cow::Borrowed);
                while let Some(word) = words.next() {
                    match word {
                        "hook" => object.hook = words.next().map(Cow::Borrowed),
                        "priority" => {
                            let rest: Vec<&str> = words.by_ref().collect();
                            object.prio = priority(family, &rest);
                        }
                        _ => {}
                    }
                }
            }
            Some("policy") => object.policy = words.next().map(Cow::Borrowed),
            Some(_) | None => {}
        }
    }
    object
}

/// `-110`, `dstnat`, `filter + 10` (`std_prios`, src/rule.c).
fn priority(family: TableFamily, words: &[&str]) -> Option<i32> {
    let (name, offset) = match words {
        [name] => (*name, 0),
        [name, "+", offset] => (*name, offset.parse::<i32>().ok()?),
        [name, "-", offset] => (*name, offset.parse::<i32>().ok()?.checked_neg()?),
        _ => return None,
    };
    if let Ok(number) = name.parse::<i32>() {
        return number.checked_add(offset);
    }
    let base = match (family, name) {
        (TableFamily::Bridge, "dstnat") => -300,
        (TableFamily::Bridge, "filter") => -200,
        (TableFamily::Bridge, "out") => 100,
        (TableFamily::Bridge, "srcnat") => 300,
        (TableFamily::Netdev | TableFamily::Arp, "filter") => 0,
        (TableFamily::Ip | TableFamily::Ip6 | TableFamily::Inet, name) => match name {
            "raw" => -300,
            "mangle" => -150,
            "dstnat" => -100,
            "filter" => 0,
            "security" => 50,
            "srcnat" => 100,
            _ => return None,
        },
        (TableFamily::Bridge | TableFamily::Netdev | TableFamily::Arp, _) => return None,
    };
    offset.checked_add(base)
}

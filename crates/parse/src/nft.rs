//! `nft -j list ruleset` -> tables; [`text`] reads `nft list ruleset` in the same way.
//!
//! ```text
//! JSON ── objects ─┬─ tables, chains, sets ──> Scope (names -> ids) ─┐
//!                  └─ rules, elements: undecoded ────────────────────┴─ Lowerer ──> Rule, Set
//! nft -a list ruleset ── Listing ──> line and text of each handle
//! ```
//!
//! Tables that the caller has from iptables-save are passed over without decoding their rules.
//! What is not understood stays in its place as opaque. Tables of the families arp, bridge and
//! netdev are kept with their chains, but their rules are not read: no IP hook runs them.

mod comparison;
mod expr;
mod json;
mod kind;
mod listing;
mod nat;
mod render;
mod scope;
mod set;
mod statement;
#[cfg(test)]
mod tests;
pub mod text;

use serde_json::value::RawValue;
use unmasq_model::origin::{Diagnostic, FileId, Opaque, Origin};
use unmasq_model::rule::{Action, Rule, Step};
use unmasq_model::ruleset::{
    BaseChain, Chain, ChainId, ChainKind, Hook, Policy, Table, TableFamily,
};
use unmasq_model::set::SetId;

use expr::Lowerer;
use json::{ChainObject, Node, Object, RuleObject, SetObject, TableObject};
use listing::{ListedTable, Listing};
use scope::Scope;
use text::block::Line;

/// The name of a table that stands for what nobody knows the table of.
const NOT_READ: &str = "(not read)";

/// Reads the JSON of `nft -j list ruleset`.
///
/// `listing` is the text of `nft -a list ruleset` of the same moment, if there is one: rules then
/// carry nft's own text and their line in it. `skip` says which tables to pass over.
///
/// JSON that can't be read to its end gives what comes before, and a table "(not read)" that is marked
/// unreadable, because nobody knows what else there was.
pub fn parse(
    json: &str,
    file: FileId,
    listing: Option<(&str, FileId)>,
    skip: &dyn Fn(TableFamily, &str) -> bool,
) -> (Vec<Table>, Vec<Diagnostic>) {
    let mut reader = Reader::new(file, listing.map(|(text, file)| Listing::read(text, file, skip)));
    let (objects, error) = json::objects(json);
    let mut lines = Lines::new(json);
    let complete = error.is_none() && objects.is_some();
    for raw in objects.iter().flatten() {
        let origin = Origin::new(file, lines.line_of(raw.get()));
        reader.object(raw, origin, skip);
    }
    reader.lower();
    if let Some(error) = error {
        reader.cut_short(&error, objects.is_some());
    } else if !complete {
        reader.report(Origin::new(file, 1), "no member \"nftables\"".to_owned());
    }
    reader.compare_with_listing();
    reader.finish()
}

/// Whether the tables are those of a JSON that can't be read to its end.
pub fn is_cut_short(tables: &[Table]) -> bool {
    tables.iter().any(|table| &*table.name == NOT_READ)
}

/// A table, and whose it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSummary {
    /// Family.
    pub family: TableFamily,
    /// Name.
    pub name: Box<str>,
    /// The kernel's handle.
    pub handle: Option<u64>,
    /// Whether some rule has an `xt` match or target: iptables-nft wrote it.
    pub xt: bool,
}

/// Lists the tables without decoding their rules. What can't be read is left out: [`parse`]
/// reports it.
pub fn tables(json: &str) -> Vec<TableSummary> {
    let (objects, _) = json::objects(json);
    let mut found: Vec<TableSummary> = Vec::new();
    for raw in objects.into_iter().flatten() {
        if let Some((word, name)) = json::rule_place(raw) {
            note_xt(&mut found, word, name, raw.get());
            continue;
        }
        match serde_json::from_str::<Object<'_>>(raw.get()) {
            Ok(Object::Table(object)) => found.extend(family(&object.family).map(|family| {
                let name = object.name.as_ref().into();
                TableSummary { family, name, handle: object.handle, xt: false }
            })),
            Ok(Object::Rule(rule)) => note_xt(&mut found, &rule.family, &rule.table, raw.get()),
            Ok(Object::Chain(_) | Object::Set(_) | Object::Element(_) | Object::Other) | Err(_) => {
            }
        }
    }
    found
}

fn note_xt(tables: &mut [TableSummary], word: &str, name: &str, rule: &str) {
    let family = family(word);
    let is = |table: &&mut TableSummary| Some(table.family) == family && *table.name == *name;
    if let Some(table) = tables.iter_mut().rev().find(is).filter(|table| !table.xt) {
        table.xt = rule.contains("\"xt\":");
    }
}

/// A family by nft's word for it.
fn family(word: &str) -> Option<TableFamily> {
    Some(match word {
        "ip" => TableFamily::Ip,
        "ip6" => TableFamily::Ip6,
        "inet" => TableFamily::Inet,
        "arp" => TableFamily::Arp,
        "bridge" => TableFamily::Bridge,
        "netdev" => TableFamily::Netdev,
        _ => return None,
    })
}

struct Reader<'a> {
    file: FileId,
    listing: Option<Listing<'a>>,
    scopes: Vec<Scope>,
    /// The table of the last object: nft lists tables one after the other.
    current: usize,
    /// What needs all names first.
    later: Vec<(usize, Later<'a>)>,
    diagnostics: Vec<Diagnostic>,
}

enum Later<'a> {
    Rule(ChainId, RuleObject<'a>, Origin),
    /// A rule of which no more is known than its chain.
    Malformed(ChainId, &'a RawValue, Origin),
    Elements(SetId, &'a RawValue, Origin),
    WrittenRule(ChainId, Line<'a>, Origin),
    WrittenElements(SetId, &'a str, Origin),
}

impl<'a> Reader<'a> {
    fn new(file: FileId, listing: Option<Listing<'a>>) -> Reader<'a> {
        let (scopes, later, diagnostics) = (Vec::new(), Vec::new(), Vec::new());
        Reader { file, listing, scopes, current: 0, later, diagnostics }
    }

    fn finish(self) -> (Vec<Table>, Vec<Diagnostic>) {
        (self.scopes.into_iter().map(|scope| scope.table).collect(), self.diagnostics)
    }

    fn object(
        &mut self,
        raw: &'a RawValue,
        origin: Origin,
        skip: &dyn Fn(TableFamily, &str) -> bool,
    ) {
        if let Some((word, name)) = json::rule_place(raw)
            && family(word).is_some_and(|family| skip(family, name))
        {
            return;
        }
        let object = match serde_json::from_str::<Object<'a>>(raw.get()) {
            Ok(object) => object,
            Err(error) => return self.malformed(raw, origin, skip, &error.to_string()),
        };
        let (word, name) = match &object {
            Object::Table(object) => (&object.family, &object.name),
            Object::Chain(object) => (&object.family, &object.table),
            Object::Rule(object) => (&object.family, &object.table),
            Object::Set(object) => (&object.family, &object.table),
            Object::Element(object) => (&object.family, &object.table),
            Object::Other => return,
        };
        let Some(family) = family(word) else {
            let message = format!("unknown family \"{word}\" of table {name}");
            // Its packets may be any.
            self.unlisted(TableFamily::Inet, name, origin, &message);
            return self.report(origin, message);
        };
        if skip(family, name) {
            return;
        }
        if let Object::Table(object) = object {
            return self.table(family, object, origin);
        }
        let index = self.find(family, name).unwrap_or_else(|| {
            let message = format!("table {family} {name} is not listed");
            self.report(origin, message.clone());
            self.unlisted(family, name, origin, &message)
        });
        self.current = index;
        match object {
            Object::Table(_) | Object::Other => {}
            Object::Chain(object) => self.chain(object, origin),
            Object::Rule(object) => self.rule(object, origin),
            // No IP hook runs what looks into them.
            Object::Set(_) | Object::Element(_) if !walked(family) => {}
            Object::Set(object) => self.set(&object, origin),
            Object::Element(object) => match self.scopes[index].set(&object.name) {
                Some(set) => self.later.push((index, Later::Elements(set, object.elem, origin))),
                None => self.report(origin, format!("set {} is not listed", object.name)),
            },
        }
    }

    /// A table in place of one of which no more is known than that there is something in it.
    fn unlisted(&mut self, family: TableFamily, name: &str, origin: Origin, why: &str) -> usize {
        let index = self.find(family, name).unwrap_or_else(|| {
            self.scopes.push(Scope::new(family, name, origin));
            self.scopes.len() - 1
        });
        self.scopes[index].table.unreadable.get_or_insert_with(|| Opaque::new(why));
        index
    }

    fn find(&self, family: TableFamily, name: &str) -> Option<usize> {
        let is = |scope: &Scope| scope.table.family == family && *scope.table.name == *name;
        match self.scopes.get(self.current) {
            Some(scope) if is(scope) => Some(self.current),
            Some(_) | None => self.scopes.iter().position(is),
        }
    }

    fn table(&mut self, family: TableFamily, object: TableObject<'_>, origin: Origin) {
        if self.find(family, &object.name).is_some() {
            let message = format!("table {family} {} is listed twice", object.name);
            return self.report(origin, message);
        }
        let listed = self.listing.as_ref().and_then(|listing| {
            let table = listing.table(family, &object.name)?;
            Some((listing.table_origin(table), table.dormant))
        });
        let origin =
            Origin { handle: object.handle, ..listed.map_or(origin, |(origin, _)| origin) };
        let mut scope = Scope::new(family, &object.name, origin);
        match (listed, flags(&object.flags)) {
            (Some((_, dormant)), _) | (None, Ok(dormant)) => scope.table.dormant = dormant,
            (None, Err(text)) => {
                self.report(origin, format!("unknown flags {text} of table {}", object.name));
                let text = format!("table {} with unknown flags {text}", object.name);
                scope.table.unreadable = Some(Opaque::new(text));
            }
        }
        self.current = self.scopes.len();
        self.scopes.push(scope);
    }

    fn chain(&mut self, object: ChainObject<'_>, origin: Origin) {
        let origin = self.head(object.handle, origin);
        let base = match base_chain(&object) {
            Ok(base) => base,
            Err(message) => {
                let message = format!("chain {}: {message}", object.name);
                self.unreadable(message.clone());
                self.report(origin, message);
                None
            }
        };
        let chain = Chain { name: object.name.into(), base, rules: Vec::new(), origin };
        self.scopes[self.current].add_chain(chain);
    }

    fn set(&mut self, object: &SetObject<'a>, origin: Origin) {
        let origin = self.head(object.handle, origin);
        let scope = &mut self.scopes[self.current];
        set::declare(scope, object, origin);
        if let (Some(elements), Some(set)) = (object.elem, scope.set(&object.name)) {
            self.later.push((self.current, Later::Elements(set, elements, origin)));
        }
    }

    /// Where a chain or a set is declared: in the listing, if that has it.
    fn head(&self, handle: Option<u64>, origin: Origin) -> Origin {
        let origin = Origin { handle, ..origin };
        let listed = self.listed().and_then(|(listing, table)| listing.head(table, handle?));
        listed.unwrap_or(origin)
    }

    fn listed(&self) -> Option<(&Listing<'a>, &ListedTable<'a>)> {
        let table = &self.scopes.get(self.current)?.table;
        let listing = self.listing.as_ref()?;
        Some((listing, listing.table(table.family, &table.name)?))
    }

    fn rule(&mut self, object: RuleObject<'a>, origin: Origin) {
        let Some(chain) = self.scopes[self.current].chain(&object.chain) else {
            let message = format!("chain {} is not listed", object.chain);
            self.unreadable(message.clone());
            return self.report(origin, message);
        };
        let origin = Origin { handle: object.handle, ..origin };
        self.later.push((self.current, Later::Rule(chain, object, origin)));
    }

    fn lower(&mut self) {
        for (index, later) in std::mem::take(&mut self.later) {
            self.current = index;
            let scope = &mut self.scopes[index];
            match later {
                Later::Elements(set, elements, origin) => {
                    let result = json::each_element(elements, &mut |node| scope.insert(set, &node));
                    if let Err(error) = result {
                        self.elements_lost(set, origin, &format!(": {error}"));
                    }
                }
                Later::WrittenElements(set, elements, origin) => {
                    if !text::each_element(elements, &mut |node| scope.insert(set, &node)) {
                        self.elements_lost(set, origin, "");
                    }
                }
                Later::WrittenRule(chain, line, origin) => self.written_rule(chain, &line, origin),
                Later::Rule(chain, object, origin) => {
                    let rule = self.lower_rule(object, origin);
                    self.push_rule(chain, rule);
                }
                Later::Malformed(chain, raw, origin) => {
                    let text: Box<str> = raw.get().into();
                    let steps = [Step::Do(Action::Opaque(Opaque::new(text.clone())))].into();
                    self.push_rule(chain, Rule { steps, text, comment: None, origin });
                }
            }
        }
    }

    fn elements_lost(&mut self, set: SetId, origin: Origin, why: &str) {
        let text = format!("elements that can't be read{why}");
        let sets = &mut self.scopes[self.current].table.sets;
        sets[set.0 as usize].opaque = Some(Opaque::new(text.clone()));
        self.report(origin, text);
    }

    fn push_rule(&mut self, chain: ChainId, rule: Rule) {
        self.scopes[self.current].table.chains[chain.0 as usize].rules.push(rule);
    }

    fn lower_rule(&mut self, object: RuleObject<'_>, origin: Origin) -> Rule {
        let listed = self
            .listed()
            .and_then(|(listing, table)| listing.rule(table, &object.chain, object.handle?));
        let (origin, text) = match listed {
            Some((origin, text)) => (origin, Some(text)),
            None => (origin, None),
        };
        let raw = object.expr.map_or("[]", RawValue::get);
        let comment: Option<Box<str>> = object.comment.map(Into::into);
        let statements = match serde_json::from_str::<Node<'_>>(raw) {
            Ok(Node::List(statements)) => statements,
            Ok(other) => vec![other],
            Err(error) => {
                self.report(origin, format!("statements that can't be read: {error}"));
                Vec::new()
            }
        };
        let family = self.scopes[self.current].table.family;
        let text =
            text.unwrap_or_else(|| render::rule(family, &statements, comment.as_deref()).into());
        self.finish_rule(&statements, text, comment, origin)
    }

    fn finish_rule(
        &mut self,
        statements: &[Node<'_>],
        text: Box<str>,
        comment: Option<Box<str>>,
        origin: Origin,
    ) -> Rule {
        let scope = &mut self.scopes[self.current];
        let steps = if statements.is_empty() || !walked(scope.table.family) {
            // A rule that nft shows without statements has some that it doesn't know.
            vec![Step::Do(Action::Opaque(Opaque::new(text.clone())))]
        } else {
            let mut lowerer = Lowerer::new(scope, origin);
            for statement in statements {
                lowerer.statement(statement);
            }
            lowerer.steps
        };
        Rule { steps: steps.into(), text, comment, origin }
    }

    /// An object that is not what its name says: a rule is kept as opaque, anything else makes its
    /// table unreadable.
    fn malformed(
        &mut self,
        raw: &'a RawValue,
        origin: Origin,
        skip: &dyn Fn(TableFamily, &str) -> bool,
        error: &str,
    ) {
        let node: Node<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
        let Some((kind, body)) = node.single() else {
            let message = format!("an object that can't be read: {error}");
            self.unlisted(TableFamily::Inet, NOT_READ, origin, &message);
            return self.report(origin, message);
        };
        let word = |key| body.get(key).and_then(Node::text);
        let name = word(if kind == "table" { "name" } else { "table" });
        let place = word("family").and_then(family).zip(name);
        if place.is_some_and(|(family, name)| skip(family, name)) {
            return;
        }
        let message = format!("a {kind} that can't be read: {error}");
        self.report(origin, message.clone());
        let (family, name) = place.unwrap_or((TableFamily::Inet, NOT_READ));
        let index = self
            .find(family, name)
            .unwrap_or_else(|| self.unlisted(family, name, origin, &message));
        self.current = index;
        let scope = &mut self.scopes[index];
        let chain = word("chain").filter(|_| kind == "rule").and_then(|name| scope.chain(name));
        match chain {
            Some(chain) => self.later.push((index, Later::Malformed(chain, raw, origin))),
            None => self.unreadable(format!("a {kind} that can't be read: {raw}")),
        }
    }

    fn cut_short(&mut self, error: &serde_json::Error, begun: bool) {
        let line = u32::try_from(error.line()).unwrap_or(u32::MAX);
        let origin = Origin::new(self.file, line.max(1));
        self.report(origin, format!("the ruleset can't be read to its end: {error}"));
        if !begun {
            return;
        }
        let text = format!("the ruleset can't be read to its end: {error}");
        self.current = self.scopes.len().saturating_sub(1);
        self.unreadable(text.clone());
        self.unlisted(TableFamily::Inet, NOT_READ, origin, &text);
    }

    /// Tables that the listing shows and the JSON lacks.
    fn compare_with_listing(&mut self) {
        let Some(listing) = self.listing.take() else { return };
        for listed in &listing.tables {
            if self.find(listed.family, listed.name).is_some() {
                continue;
            }
            let origin = listing.table_origin(listed);
            let mut scope = Scope::new(listed.family, listed.name, origin);
            scope.table.dormant = listed.dormant;
            let text = format!("table {} {} is not in the JSON", listed.family, listed.name);
            scope.table.unreadable = Some(Opaque::new(text.clone()));
            self.scopes.push(scope);
            self.report(origin, text);
        }
    }

    /// The current table's rules are not all known.
    fn unreadable(&mut self, why: String) {
        if let Some(scope) = self.scopes.get_mut(self.current) {
            scope.table.unreadable.get_or_insert_with(|| Opaque::new(why));
        }
    }

    fn report(&mut self, origin: Origin, message: String) {
        self.diagnostics.push(Diagnostic { origin, message });
    }
}

/// Whether IP packets meet the family's chains.
fn walked(family: TableFamily) -> bool {
    match family {
        TableFamily::Ip | TableFamily::Ip6 | TableFamily::Inet => true,
        TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => false,
    }
}

/// Whether a table's flags say that it is dormant. nft 1.0.6 prints freed memory in their place
/// (`table_print_json`, src/json.c), so words that no version knows mean nothing.
fn flags(node: &Node<'_>) -> Result<bool, String> {
    let mut dormant = false;
    for flag in node.one_or_more() {
        match flag.text() {
            Some("dormant") => dormant = true,
            Some("owner" | "persist") => {}
            Some(_) | None => return Err(node.to_string()),
        }
    }
    Ok(dormant)
}

fn base_chain(object: &ChainObject<'_>) -> Result<Option<BaseChain>, String> {
    let (Some(hook), Some(kind)) = (object.hook.as_deref(), object.kind.as_deref()) else {
        return match (&object.hook, &object.kind) {
            (None, None) => Ok(None),
            _ => Err("a base chain without type or hook".to_owned()),
        };
    };
    let hook = match hook {
        "ingress" | "egress" => None,
        name => match Hook::ALL.into_iter().find(|hook| hook.name() == name) {
            Some(hook) => Some(hook),
            None => return Err(format!("unknown hook \"{name}\"")),
        },
    };
    let kind = match kind {
        "filter" => ChainKind::Filter,
        "nat" => ChainKind::Nat,
        "route" => ChainKind::Route,
        other => return Err(format!("unknown type \"{other}\"")),
    };
    let policy = match object.policy.as_deref() {
        None | Some("accept") => Policy::Accept,
        Some("drop") => Policy::Drop,
        Some(other) => return Err(format!("unknown policy \"{other}\"")),
    };
    let Some(priority) = object.prio else {
        return Err("a base chain without priority".to_owned());
    };
    Ok(Some(BaseChain { hook, kind, priority, policy }))
}

/// Line numbers of parts of a text that are asked for in order.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Lines<'a> {
        Lines { text, at: 0, line: 1 }
    }

    /// The line on which `part`, a slice of the text, begins.
    fn line_of(&mut self, part: &str) -> u32 {
        let begin = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        if let Some(passed) = self.text.as_bytes().get(self.at..begin) {
            let breaks = passed.iter().filter(|byte| **byte == b'\n').count();
            self.line = self.line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
            self.at = begin;
        }
        self.line
    }
}

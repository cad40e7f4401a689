//! Sets and maps: from nft's text to the form of its JSON. Elements stay unread.

use std::borrow::Cow;

use super::super::json::{Node, SetObject};
use super::block::{Block, Line, Problem};
use super::expr::{Mode, Parser, number, object, text};

/// A set as it is written.
pub(super) struct WrittenSet<'a> {
    pub(super) object: SetObject<'a>,
    /// What stands between the braces.
    pub(super) elements: Option<&'a str>,
    pub(super) problems: Vec<Problem>,
}

/// Reads a set's lines.
pub(super) fn read<'a>(block: &Block<'a>) -> WrittenSet<'a> {
    let mut set = WrittenSet {
        object: SetObject {
            family: Cow::Borrowed(""),
            table: Cow::Borrowed(""),
            name: block.name.into(),
            handle: block.handle,
            kind: Node::Null,
            map: Node::Null,
            flags: Node::Null,
            timeout: Node::Null,
            size: Node::Null,
            stmt: Node::Null,
            elem: None,
        },
        elements: None,
        problems: Vec::new(),
    };
    for line in &block.lines {
        if line.broken || set.line(line).is_none() {
            let message = format!("not understood in {} {}: {}", block.kind, block.name, line.text);
            set.problems.push(Problem { line: line.line, message, lost: false });
        }
    }
    set
}

impl<'a> WrittenSet<'a> {
    fn line(&mut self, line: &Line<'a>) -> Option<()> {
        let (word, rest) = line.text.split_once(char::is_whitespace).unwrap_or((line.text, ""));
        let object = &mut self.object;
        match word {
            "type" => {
                let (key, data) =
                    rest.split_once(" : ").map_or((rest, None), |(k, d)| (k, Some(d)));
                object.kind = text(key.trim());
                object.map = data.map_or(Node::Null, |data| text(without_interval(data.trim())));
            }
            "typeof" => {
                let (key, data) =
                    rest.split_once(" : ").map_or((rest, None), |(k, d)| (k, Some(d)));
                object.kind = type_of(key)?;
                object.map = match data.map(|data| without_interval(data.trim())) {
                    None => Node::Null,
                    Some("verdict") => text("verdict"),
                    Some(data) => type_of(data)?,
                };
            }
            "flags" => object.flags = Node::List(words(rest)),
            "timeout" => object.timeout = Parser::new(rest).duration()?,
            "size" => object.size = number(words_only(rest))?,
            // What it is for, and how the kernel keeps it.
            "comment" | "gc-interval" | "policy" | "auto-merge" => {}
            "elements" => {
                let inner = rest.trim_start().strip_prefix('=')?.trim_start();
                self.elements = Some(inner.strip_prefix('{')?.strip_suffix('}')?);
            }
            _ => object.stmt = statements(line.text)?,
        }
        Some(())
    }
}

/// `typeof` has an expression for the type that it has.
fn type_of(of: &str) -> Option<Node<'_>> {
    let mut parser = Parser::new(of);
    let node = parser.expression(Mode::Field)?;
    parser.tokens.peek().is_none().then(|| object("typeof", node))
}

/// Data of a map may be intervals of the type: a flag that elements show anyhow.
fn without_interval(data: &str) -> &str {
    data.strip_prefix("interval ").unwrap_or(data)
}

fn words(list: &str) -> Vec<Node<'_>> {
    list.split([',', ' ']).filter(|word| !word.is_empty()).map(text).collect()
}

/// Newer versions count: `size 65535 # count 3`.
fn words_only(rest: &str) -> &str {
    rest.split_whitespace().next().unwrap_or("")
}

/// `counter limit rate 1/second`: what each element gets.
fn statements(line: &str) -> Option<Node<'_>> {
    let mut parser = Parser::new(line);
    let mut list = Vec::new();
    while parser.tokens.peek().is_some() {
        list.push(parser.stateful()?);
    }
    Some(Node::List(list))
}

/// Calls `each` with every element; `false`: it can't be read to its end.
pub(super) fn each_element<'a>(elements: &'a str, each: &mut dyn FnMut(Node<'a>)) -> bool {
    let mut parser = Parser::new(elements);
    while parser.tokens.peek().is_some() {
        let Some(element) = parser.element() else { return false };
        each(element);
        if !parser.tokens.sign(",") && parser.tokens.peek().is_some() {
            return false;
        }
    }
    true
}

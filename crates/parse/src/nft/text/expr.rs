//! Expressions: from nft's text to the form of its JSON.
//!
//! nft's own grammar (src/parser_bison.y) binds `<< >>`, `&`, `^`, `|`, ` . `, `map` in this
//! order, the first most tightly.

use std::borrow::Cow;
use std::net::IpAddr;

use super::super::json::Node;
use super::token::{Token, Tokens};

/// How deep parentheses and maps may be nested, and how many operators may stand in a row: more
/// than nft prints, few enough for any stack.
const MOST: u8 = 40;

/// What a word is taken for that could be both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A field of a packet: `tcp dport`.
    Field,
    /// A constant. nft compares with nothing else, so that `ip protocol tcp tcp dport 80` has one
    /// meaning.
    Constant,
    /// A constant in a set, where commas have another meaning: only flags are joined by them.
    Element,
}

/// Reads expressions and statements.
pub(super) struct Parser<'a> {
    pub(super) tokens: Tokens<'a>,
    depth: u8,
}

pub(super) fn object<'a>(name: &'static str, body: Node<'a>) -> Node<'a> {
    Node::Object(vec![(name.into(), body)])
}

/// An object of these members; those without a value are left out.
pub(super) fn members<'a, const N: usize>(of: [(&'static str, Option<Node<'a>>); N]) -> Node<'a> {
    let some = of.into_iter().filter_map(|(name, node)| Some((Cow::Borrowed(name), node?)));
    Node::Object(some.collect())
}

pub(super) fn text(text: &str) -> Node<'_> {
    Node::Text(Cow::Borrowed(text))
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Parser<'a> {
        Parser { tokens: Tokens::new(text), depth: 0 }
    }

    /// A whole expression: a concatenation, and what a map has for it.
    pub(super) fn expression(&mut self, mode: Mode) -> Option<Node<'a>> {
        self.nested(|parser| {
            let key = parser.concatenation(mode)?;
            if !parser.tokens.is("map") {
                return Some(key);
            }
            let data = parser.set_or_name()?;
            Some(object("map", members([("key", Some(key)), ("data", Some(data))])))
        })
    }

    /// `@name`, or `{ … }`.
    pub(super) fn set_or_name(&mut self) -> Option<Node<'a>> {
        match self.tokens.peek()? {
            Token::Sign("{") => self.set(),
            Token::Word(name) if name.starts_with('@') => {
                self.tokens.take();
                Some(text(name))
            }
            Token::Word(_) | Token::Quoted(_) | Token::Sign(_) | Token::Broken => None,
        }
    }

    /// `{ 80, 443 }`
    fn set(&mut self) -> Option<Node<'a>> {
        if !self.tokens.sign("{") {
            return None;
        }
        let mut elements = Vec::new();
        while !self.tokens.sign("}") {
            elements.push(self.nested(Parser::element)?);
            if !self.tokens.sign(",") && self.tokens.peek() != Some(Token::Sign("}")) {
                return None;
            }
        }
        Some(object("set", Node::List(elements)))
    }

    /// An element of a set or a map: its key, what it has of its own, its data.
    pub(super) fn element(&mut self) -> Option<Node<'a>> {
        let key = self.concatenation(Mode::Element)?;
        let key = self.element_of(key, &mut Vec::new())?;
        if !self.tokens.colon() {
            return Some(key);
        }
        let data = match self.verdict() {
            Some(verdict) => verdict,
            None => self.concatenation(Mode::Element)?,
        };
        Some(Node::List(vec![key, data]))
    }

    /// A key with what follows it. Statements go to `statements`, where that is not empty in the
    /// element itself.
    pub(super) fn element_of(
        &mut self,
        key: Node<'a>,
        statements: &mut Vec<Node<'a>>,
    ) -> Option<Node<'a>> {
        let mut own = Vec::new();
        loop {
            if self.tokens.is("timeout") {
                own.push(("timeout".into(), self.duration()?));
            } else if self.tokens.is("expires") {
                own.push(("expires".into(), self.duration()?));
            } else if self.tokens.is("comment") {
                own.push(("comment".into(), text(self.tokens.name()?)));
            } else if let Some(statement) = self.stateful() {
                match &statement {
                    Node::Object(members) => own.extend(members.iter().cloned()),
                    Node::Null
                    | Node::Bool(_)
                    | Node::Number(_)
                    | Node::Text(_)
                    | Node::List(_) => {}
                }
                statements.push(statement);
            } else {
                break;
            }
        }
        if own.is_empty() {
            return Some(key);
        }
        own.insert(0, ("val".into(), key));
        Some(object("elem", Node::Object(own)))
    }

    /// `accept`, `jump x`.
    pub(super) fn verdict(&mut self) -> Option<Node<'a>> {
        let Token::Word(word) = self.tokens.peek()? else { return None };
        let verdict = match word {
            "accept" => "accept",
            "drop" => "drop",
            "continue" => "continue",
            "return" => "return",
            "jump" => return self.branch("jump"),
            "goto" => return self.branch("goto"),
            _ => return None,
        };
        self.tokens.take();
        Some(object(verdict, Node::Null))
    }

    fn branch(&mut self, word: &'static str) -> Option<Node<'a>> {
        let before = self.tokens;
        self.tokens.take();
        let Some(target) = self.tokens.name() else {
            self.tokens = before;
            return None;
        };
        Some(object(word, members([("target", Some(text(target)))])))
    }

    pub(super) fn concatenation(&mut self, mode: Mode) -> Option<Node<'a>> {
        let first = self.operation(mode, 0)?;
        if self.tokens.peek() != Some(Token::Word(".")) {
            return Some(first);
        }
        let mut fields = vec![first];
        while self.tokens.is(".") {
            fields.push(self.operation(mode, 0)?);
        }
        Some(object("concat", Node::List(fields)))
    }

    /// Operators that bind at least so tightly.
    fn operation(&mut self, mode: Mode, least: u8) -> Option<Node<'a>> {
        let mut left = self.primary(mode)?;
        let mut count = 0;
        while let Some((op, tightness)) = self.operator().filter(|(_, tight)| *tight >= least) {
            self.tokens.take();
            count += 1;
            if count > MOST {
                return None;
            }
            let right = self.nested(|parser| parser.operation(mode, tightness + 1))?;
            left = object(op, Node::List(vec![left, right]));
        }
        Some(left)
    }

    fn operator(&self) -> Option<(&'static str, u8)> {
        Some(match self.tokens.peek()? {
            Token::Sign("|") | Token::Word("or") => ("|", 0),
            Token::Sign("^") | Token::Word("xor") => ("^", 1),
            Token::Sign("&") | Token::Word("and") => ("&", 2),
            Token::Sign("<<") | Token::Word("lshift") => ("<<", 3),
            Token::Sign(">>") | Token::Word("rshift") => (">>", 3),
            Token::Word(_) | Token::Quoted(_) | Token::Sign(_) | Token::Broken => return None,
        })
    }

    fn primary(&mut self, mode: Mode) -> Option<Node<'a>> {
        if self.tokens.sign("(") {
            let inner = self.nested(|parser| parser.concatenation(mode))?;
            return self.tokens.sign(")").then_some(inner);
        }
        if mode == Mode::Field
            && let Token::Word(word) = self.tokens.peek()?
        {
            let before = self.tokens;
            self.tokens.take();
            if let Some(field) = self.field(word) {
                return Some(field);
            }
            self.tokens = before;
        }
        self.constants(mode)
    }

    /// A constant, or flags without space between them: `established,related`.
    fn constants(&mut self, mode: Mode) -> Option<Node<'a>> {
        let first = self.constant()?;
        let joined = |parser: &Parser<'a>, node: &Node<'a>| {
            parser.tokens.peek() == Some(Token::Sign(","))
                && !parser.tokens.spaced()
                && node.text().is_some_and(|text| mode != Mode::Element || is_flag(text))
        };
        if !joined(self, &first) {
            return Some(first);
        }
        let mut list = vec![first];
        while joined(self, &list[list.len() - 1]) {
            let before = self.tokens;
            self.tokens.take();
            if self.tokens.spaced() {
                self.tokens = before;
                break;
            }
            list.push(self.constant()?);
        }
        if list.len() == 1 { list.pop() } else { Some(Node::List(list)) }
    }

    fn constant(&mut self) -> Option<Node<'a>> {
        match self.tokens.peek()? {
            Token::Quoted(low) => {
                self.tokens.take();
                // `"12:00"-"13:00"`
                if self.tokens.spaced() || !self.tokens.is("-") {
                    return Some(text(low));
                }
                let high = text(self.tokens.name()?);
                Some(object("range", Node::List(vec![text(low), high])))
            }
            Token::Word(word) => {
                let constant = constant(word)?;
                self.tokens.take();
                Some(constant)
            }
            Token::Sign(_) | Token::Broken => None,
        }
    }

    /// Runs it one level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Parser<'a>) -> Option<T>) -> Option<T> {
        if self.depth >= MOST {
            return None;
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// `1h30m`
    pub(super) fn duration(&mut self) -> Option<Node<'a>> {
        let word = self.tokens.word()?;
        Some(seconds(word).map_or(text(word), |seconds| Node::Number(seconds.into())))
    }
}

/// A word that is a constant; `None` for one that has another meaning.
fn constant(word: &str) -> Option<Node<'_>> {
    if let Some(number) = number(word) {
        return Some(number);
    }
    match word {
        "exists" => return Some(Node::Bool(true)),
        "missing" => return Some(Node::Bool(false)),
        "." | ":" | "/" | "-" | "map" | "vmap" => return None,
        _ => {}
    }
    if let Some((address, length)) = word.split_once('/')
        && let (Some(address), Some(length)) = (value(address), number(length))
    {
        let members = members([("addr", Some(address)), ("len", Some(length))]);
        return Some(object("prefix", members));
    }
    if let Some((low, high)) = word.split_once('-')
        && let (Some(low), Some(high)) = (value(low), value(high))
    {
        return Some(object("range", Node::List(vec![low, high])));
    }
    Some(text(word))
}

/// A number, or an address.
fn value(word: &str) -> Option<Node<'_>> {
    number(word).or_else(|| word.parse::<IpAddr>().is_ok().then(|| text(word)))
}

pub(super) fn number<'a>(word: &str) -> Option<Node<'a>> {
    if !word.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let number = match word.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16),
        None => word.parse(),
    };
    // Beyond 64 bits, they are text in the JSON too.
    number.ok().filter(|number| u64::try_from(*number).is_ok()).map(Node::Number)
}

/// The seconds of `1d2h3m4s5ms`; what is less than one is dropped.
fn seconds(word: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = word;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let length = match &rest[..unit] {
            "w" => 604_800,
            "d" => 86_400,
            "h" => 3_600,
            "m" => 60,
            "s" => 1,
            "ms" => 0,
            _ => return None,
        };
        total = total.checked_add(count.checked_mul(length)?)?;
        rest = &rest[unit..];
    }
    Some(total)
}

/// Whether several of them can be one value.
fn is_flag(text: &str) -> bool {
    matches!(
        text,
        "invalid"
            | "established"
            | "related"
            | "new"
            | "untracked"
            | "expected"
            | "seen-reply"
            | "assured"
            | "confirmed"
            | "snat"
            | "dnat"
            | "dying"
            | "fin"
            | "syn"
            | "rst"
            | "psh"
            | "ack"
            | "urg"
            | "ecn"
            | "cwr"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("3h", Some(10_800)),
            ("1d2h3m4s", Some(93_784)),
            ("1s500ms", Some(1)),
            ("1y", None),
            ("h", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}

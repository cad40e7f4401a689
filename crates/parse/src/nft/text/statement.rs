//! Statements: from nft's text to the form of its JSON.

use super::super::json::Node;
use super::expr::{Mode, Parser, members, number, object, text};
use super::token::Token;

/// A rule: its statements, and its comment. What is not understood stays text, from there to the
/// end of the rule: nobody knows where the next statement begins.
pub(super) fn rule(rule: &str) -> (Vec<Node<'_>>, Option<&str>) {
    let mut parser = Parser::new(rule);
    let mut statements = Vec::new();
    while parser.tokens.peek().is_some() {
        let before = parser.tokens;
        if let Some(comment) = parser.comment() {
            return (statements, Some(comment));
        }
        match parser.statement() {
            Some(statement) => statements.push(statement),
            None => {
                let rest = before.rest().trim_end();
                let (rest, comment) = split_comment(rest);
                statements.push(text(rest));
                return (statements, comment);
            }
        }
    }
    (statements, None)
}

/// One statement and nothing else.
pub(super) fn only(statement: &str) -> Option<Node<'_>> {
    let mut parser = Parser::new(statement);
    let node = parser.statement()?;
    parser.tokens.peek().is_none().then_some(node)
}

/// The comment is the last thing in a rule.
fn split_comment(rule: &str) -> (&str, Option<&str>) {
    let found = rule.strip_suffix('"').and_then(|rule| {
        let (before, comment) = rule.rsplit_once('"')?;
        Some((before.trim_end().strip_suffix("comment")?.trim_end(), comment))
    });
    match found {
        Some((before, comment)) if !before.is_empty() => (before, Some(comment)),
        Some(_) | None => (rule, None),
    }
}

impl<'a> Parser<'a> {
    /// `comment "…"` at the end of a rule.
    fn comment(&mut self) -> Option<&'a str> {
        let before = self.tokens;
        if self.tokens.is("comment")
            && let Some(comment) = self.tokens.name()
            && self.tokens.peek().is_none()
        {
            return Some(comment);
        }
        self.tokens = before;
        None
    }

    pub(super) fn statement(&mut self) -> Option<Node<'a>> {
        if let Some(verdict) = self.verdict() {
            return Some(verdict);
        }
        if let Some(stateful) = self.stateful() {
            return Some(stateful);
        }
        let before = self.tokens;
        let Token::Word(word) = self.tokens.peek()? else { return self.expression_statement() };
        self.tokens.take();
        match word {
            "dnat" => self.nat("dnat"),
            "snat" => self.nat("snat"),
            "masquerade" => self.nat("masquerade"),
            "redirect" => self.nat("redirect"),
            "reject" => self.reject(),
            "notrack" => Some(object("notrack", Node::Null)),
            "log" => self.log(),
            "flow" => self.flow(),
            "add" => self.update("add"),
            "update" => self.update("update"),
            "delete" => self.update("delete"),
            "meter" => self.meter(),
            "queue" => self.queue(),
            "tproxy" | "dup" | "fwd" | "synproxy" => {
                self.unmodelled(word)?;
                Some(text(before.rest_until(&self.tokens)))
            }
            "xt" => {
                let kind = self.tokens.word()?;
                let name = self.tokens.name()?;
                Some(object(
                    "xt",
                    members([("type", Some(text(kind))), ("name", Some(text(name)))]),
                ))
            }
            _ => {
                self.tokens = before;
                self.expression_statement()
            }
        }
    }

    /// Statements that elements of sets can have too.
    pub(super) fn stateful(&mut self) -> Option<Node<'a>> {
        let before = self.tokens;
        let found = match self.tokens.word() {
            Some("counter") => self.counter(),
            Some("limit") => self.limit(),
            Some("quota") => self.quota(),
            Some("last") => self.last(),
            Some("ct") if self.tokens.is("count") => {
                let inv = self.over();
                self.number()
                    .map(|val| object("ct count", members([("val", Some(val)), ("inv", inv)])))
            }
            Some(_) | None => None,
        };
        if found.is_none() {
            self.tokens = before;
        }
        found
    }

    fn number(&mut self) -> Option<Node<'a>> {
        number(self.tokens.word()?)
    }

    fn over(&mut self) -> Option<Node<'a>> {
        let over = self.tokens.is("over");
        (over || self.tokens.is("until")).then_some(Node::Bool(over)).filter(|_| over)
    }

    /// `name "x"`, `name … map …`: an object of the table.
    fn reference(&mut self) -> Option<Node<'a>> {
        if let Some(Token::Quoted(name)) = self.tokens.peek() {
            self.tokens.take();
            return Some(text(name));
        }
        let before = self.tokens;
        let found = self.expression(Mode::Field).and_then(|node| match node {
            Node::Object(mut members) if members.len() == 1 && members[0].0 == "map" => {
                members.pop().map(|(_, body)| object("map", body))
            }
            Node::Null
            | Node::Bool(_)
            | Node::Number(_)
            | Node::Text(_)
            | Node::List(_)
            | Node::Object(_) => None,
        });
        if found.is_some() {
            return found;
        }
        self.tokens = before;
        self.tokens.name().map(text)
    }

    fn counter(&mut self) -> Option<Node<'a>> {
        let body = if self.tokens.is("name") {
            self.reference()?
        } else if self.tokens.is("packets") {
            let packets = self.number()?;
            let bytes = self.tokens.is("bytes").then(|| self.number())??;
            members([("packets", Some(packets)), ("bytes", Some(bytes))])
        } else {
            Node::Null
        };
        Some(object("counter", body))
    }

    /// `rate over 400/minute burst 5 packets`, `rate 1 mbytes/second burst 5 kbytes`
    fn limit(&mut self) -> Option<Node<'a>> {
        if self.tokens.is("name") {
            return Some(object("limit", self.reference()?));
        }
        if !self.tokens.is("rate") {
            return None;
        }
        let inv = self.over();
        let word = self.tokens.word()?;
        let (rate, unit, per) = match word.split_once('/') {
            Some((rate, per)) => (rate, None, per),
            None => {
                let (unit, per) = self.tokens.word()?.split_once('/')?;
                (word, Some(text(unit)), per)
            }
        };
        let rate = number(rate)?;
        let (mut burst, mut burst_unit) = (Node::Number(if unit.is_some() { 0 } else { 5 }), None);
        if self.tokens.is("burst") {
            burst = self.number()?;
            burst_unit = Some(self.tokens.word()?).filter(|unit| *unit != "packets").map(text);
        }
        Some(object(
            "limit",
            members([
                ("rate", Some(rate)),
                ("burst", Some(burst)),
                ("per", Some(text(per))),
                ("inv", inv),
                ("rate_unit", unit),
                ("burst_unit", burst_unit),
            ]),
        ))
    }

    /// `over 25 mbytes used 3 bytes`
    fn quota(&mut self) -> Option<Node<'a>> {
        if self.tokens.is("name") {
            return Some(object("quota", self.reference()?));
        }
        let inv = self.over();
        let (val, unit) = (self.number()?, text(self.tokens.word()?));
        let (mut used, mut used_unit) = (None, None);
        if self.tokens.is("used") {
            (used, used_unit) = (Some(self.number()?), Some(text(self.tokens.word()?)));
        }
        Some(object(
            "quota",
            members([
                ("val", Some(val)),
                ("val_unit", Some(unit)),
                ("used", used),
                ("used_unit", used_unit),
                ("inv", inv),
            ]),
        ))
    }

    fn last(&mut self) -> Option<Node<'a>> {
        let mut body = Node::Null;
        if self.tokens.is("used") && !self.tokens.is("never") {
            body = members([("used", Some(self.duration()?))]);
        }
        Some(object("last", body))
    }

    /// `reject with icmp port-unreachable`; older versions write `icmp type port-unreachable`.
    fn reject(&mut self) -> Option<Node<'a>> {
        if !self.tokens.is("with") {
            return Some(object("reject", Node::Null));
        }
        let (kind, code) = match self.tokens.word()? {
            "tcp" => (self.tokens.is("reset").then_some("tcp reset")?, None),
            kind @ ("icmp" | "icmpv6" | "icmpx") => {
                self.tokens.is("type");
                let code = self.tokens.word()?;
                (kind, Some(number(code).unwrap_or(text(code))))
            }
            _ => return None,
        };
        Some(object("reject", members([("type", Some(text(kind))), ("expr", code)])))
    }

    fn log(&mut self) -> Option<Node<'a>> {
        let mut body = Vec::new();
        while let Some(Token::Word(word)) = self.tokens.peek() {
            let name = match word {
                "prefix" | "group" | "snaplen" | "queue-threshold" | "level" | "flags" => word,
                _ => break,
            };
            self.tokens.take();
            let value = match self.tokens.peek()? {
                Token::Quoted(value) => {
                    self.tokens.take();
                    text(value)
                }
                Token::Word(value) => {
                    self.tokens.take();
                    number(value).unwrap_or(text(value))
                }
                Token::Sign(_) | Token::Broken => return None,
            };
            // `flags tcp sequence,options flags ip options`: whatever it is, it is only logged.
            while name == "flags"
                && (self.tokens.sign(",")
                    || self.tokens.is("sequence")
                    || self.tokens.is("options"))
            {
                self.tokens.is("options");
            }
            body.push((name.into(), value));
        }
        let body = if body.is_empty() { Node::Null } else { Node::Object(body) };
        Some(object("log", body))
    }

    /// `flow add @f`
    fn flow(&mut self) -> Option<Node<'a>> {
        if !self.tokens.is("add") && !self.tokens.is("offload") {
            return None;
        }
        let table = text(self.tokens.word()?);
        Some(object("flow", members([("op", Some(text("add"))), ("flowtable", Some(table))])))
    }

    /// `flags bypass to 1`; older versions write `num 1 bypass`.
    fn queue(&mut self) -> Option<Node<'a>> {
        let (mut flags, mut num) = (None, None);
        if self.tokens.is("flags") {
            flags = Some(self.expression(Mode::Constant)?);
        }
        if self.tokens.is("to") || self.tokens.is("num") {
            num = Some(self.expression(Mode::Field)?);
        }
        if flags.is_none() && self.tokens.is("bypass") {
            flags = Some(text("bypass"));
        }
        Some(object("queue", members([("flags", flags), ("num", num)])))
    }

    /// Statements that stay text, passed over to their end: `tproxy ip to 127.0.0.1:1080`,
    /// `dup to 10.0.0.1 device "eth0"`, `synproxy mss 1460 wscale 7 timestamp sack-perm`.
    fn unmodelled(&mut self, word: &str) -> Option<()> {
        if word != "synproxy" {
            self.nat("dnat")?;
            if self.tokens.is("device") {
                self.tokens.name()?;
            }
            return Some(());
        }
        if self.tokens.is("name") {
            self.reference()?;
        }
        while let Some(Token::Word("mss" | "wscale" | "timestamp" | "sack-perm")) =
            self.tokens.peek()
        {
            if matches!(self.tokens.word(), Some("mss" | "wscale")) {
                self.number()?;
            }
        }
        Some(())
    }

    /// `@s { ip saddr timeout 1m limit rate 3/second : 0x1 }`
    fn update(&mut self, op: &'static str) -> Option<Node<'a>> {
        let set = self.tokens.word().filter(|set| set.starts_with('@'))?;
        if !self.tokens.sign("{") {
            return None;
        }
        let key = self.concatenation(Mode::Field)?;
        let mut statements = Vec::new();
        let elem = self.update_key(key, &mut statements)?;
        let mut data = None;
        if self.tokens.colon() {
            data = Some(self.expression(Mode::Field)?);
        }
        if !self.tokens.sign("}") {
            return None;
        }
        let name = if data.is_some() { "map" } else { "set" };
        let statements = (!statements.is_empty()).then_some(Node::List(statements));
        Some(object(
            name,
            members([
                ("op", Some(text(op))),
                ("elem", Some(elem)),
                ("data", data),
                (name, Some(text(set))),
                ("stmt", statements),
            ]),
        ))
    }

    /// The key of an update: unlike an element's, its statements stand beside it.
    fn update_key(&mut self, key: Node<'a>, statements: &mut Vec<Node<'a>>) -> Option<Node<'a>> {
        let elem = self.element_of(key, statements)?;
        Some(match elem {
            Node::Object(mut outer) if outer.len() == 1 && outer[0].0 == "elem" => {
                let (_, body) = outer.pop()?;
                let Node::Object(mut own) = body else { return None };
                own.retain(|(name, _)| {
                    matches!(&**name, "val" | "timeout" | "expires" | "comment")
                });
                if own.len() == 1 { own.pop()?.1 } else { object("elem", Node::Object(own)) }
            }
            other => other,
        })
    }

    /// `m size 65535 { ip saddr limit rate 3/second }`
    fn meter(&mut self) -> Option<Node<'a>> {
        let name = text(self.tokens.name()?);
        let size = if self.tokens.is("size") { Some(self.number()?) } else { None };
        if !self.tokens.sign("{") {
            return None;
        }
        let key = self.concatenation(Mode::Field)?;
        let mut statements = Vec::new();
        let key = self.update_key(key, &mut statements)?;
        if !self.tokens.sign("}") || statements.len() != 1 {
            return None;
        }
        Some(object(
            "meter",
            members([
                ("name", Some(name)),
                ("key", Some(key)),
                ("stmt", statements.pop()),
                ("size", size),
            ]),
        ))
    }

    /// What begins with a field: a comparison, a verdict map, or that something is set to a value.
    fn expression_statement(&mut self) -> Option<Node<'a>> {
        // Of a word that is no field nobody knows that it begins a comparison.
        let left = self.concatenation(Mode::Field).filter(is_computed)?;
        if self.tokens.is("vmap") {
            let data = self.set_or_name()?;
            return Some(object("vmap", members([("key", Some(left)), ("data", Some(data))])));
        }
        if self.tokens.is("set") {
            return self.assignment(left);
        }
        self.comparison(left)
    }

    fn assignment(&mut self, left: Node<'a>) -> Option<Node<'a>> {
        if let Some(("ct", body)) = left.single() {
            let object_of = match body.get("key").and_then(Node::text) {
                Some("helper") => Some("ct helper"),
                Some("timeout") => Some("ct timeout"),
                Some("expectation") => Some("ct expectation"),
                Some(_) | None => None,
            };
            if let Some(name) = object_of {
                return Some(object(name, self.reference()?));
            }
        }
        let value = self.expression(Mode::Field)?;
        Some(object("mangle", members([("key", Some(left)), ("value", Some(value))])))
    }

    fn comparison(&mut self, left: Node<'a>) -> Option<Node<'a>> {
        let op = match self.tokens.peek()? {
            Token::Sign("==") | Token::Word("eq") => Some("=="),
            Token::Sign("!=") | Token::Word("ne" | "neq") => Some("!="),
            Token::Sign("<") | Token::Word("lt") => Some("<"),
            Token::Sign("<=") | Token::Word("le") => Some("<="),
            Token::Sign(">") | Token::Word("gt") => Some(">"),
            Token::Sign(">=") | Token::Word("ge") => Some(">="),
            Token::Sign("!") => Some("!"),
            Token::Word(_) | Token::Quoted(_) | Token::Sign(_) | Token::Broken => None,
        };
        if op.is_some() {
            self.tokens.take();
        }
        if let Some(set) = self.set_or_name() {
            return Some(matched(op.unwrap_or("=="), left, set));
        }
        let right = self.concatenation(Mode::Constant)?;
        // `tcp flags syn / fin,syn,rst,ack`
        if self.tokens.is("/") {
            let mask = self.concatenation(Mode::Constant)?;
            let left = object("&", Node::List(vec![left, mask]));
            return Some(matched(op.unwrap_or("=="), left, right));
        }
        let several = matches!(right.single(), Some(("range" | "prefix" | "|", _)));
        let op = op.unwrap_or(if is_flags(&left) && !several { "in" } else { "==" });
        Some(matched(op, left, right))
    }
}

fn matched<'a>(op: &'static str, left: Node<'a>, right: Node<'a>) -> Node<'a> {
    object("match", members([("op", Some(text(op))), ("left", Some(left)), ("right", Some(right))]))
}

/// Whether it depends on the packet.
fn is_computed(left: &Node<'_>) -> bool {
    match left.single() {
        Some(("concat", body)) => body.one_or_more().iter().all(is_computed),
        Some(("&" | "|" | "^" | "<<" | ">>", body)) => {
            body.one_or_more().first().is_some_and(is_computed)
        }
        Some(("range" | "prefix", _)) | None => false,
        Some(_) => true,
    }
}

/// Whether a comparison without an operator asks for some of the bits (`must_print_eq_op`,
/// src/expression.c: with `==`, and for `new | related`, it asks for all of them).
fn is_flags(left: &Node<'_>) -> bool {
    match left.single() {
        Some(("ct", body)) => matches!(
            body.get("key").and_then(Node::text),
            Some("state" | "status" | "event" | "label")
        ),
        Some(("payload", body)) => {
            body.get("protocol").and_then(Node::text) == Some("tcp")
                && body.get("field").and_then(Node::text) == Some("flags")
        }
        Some(_) | None => false,
    }
}

//! The NAT statements: from nft's text to the form of its JSON.

use std::net::{IpAddr, Ipv4Addr};

use super::super::json::Node;
use super::expr::{Mode, Parser, members, object, text};
use super::token::Token;

impl<'a> Parser<'a> {
    /// What follows `dnat`, `snat`, `masquerade` or `redirect`.
    pub(super) fn nat(&mut self, name: &'static str) -> Option<Node<'a>> {
        let mut family = None;
        for word in ["ip", "ip6"] {
            if self.tokens.is(word) {
                family = Some(text(word));
            }
        }
        let mut kinds = Vec::new();
        for word in ["interval", "prefix"] {
            if self.tokens.is(word) {
                kinds.push(text(word));
            }
        }
        // Older versions say so of a map with addresses and ports.
        if self.tokens.is("addr") && !(self.tokens.is(".") && self.tokens.is("port")) {
            return None;
        }
        let (mut address, mut port) = (None, None);
        if self.tokens.is("to") {
            (address, port) = self.target()?;
        }
        let mut flags = Vec::new();
        while let Some(Token::Word(word @ ("random" | "fully-random" | "persistent"))) =
            self.tokens.peek()
        {
            self.tokens.take();
            flags.push(text(word));
            self.tokens.sign(",");
        }
        let list = |list: Vec<Node<'a>>| (!list.is_empty()).then_some(Node::List(list));
        let body = members([
            ("family", family),
            ("addr", address),
            ("port", port),
            ("flags", list(flags)),
            ("type_flags", list(kinds)),
        ]);
        let empty = body.members().is_empty();
        Some(object(name, if empty { Node::Null } else { body }))
    }

    /// `10.0.0.1:80`, `[fd00::1]:80`, `:8080-8090`, `ip saddr map { … }:tcp dport map { … }`
    fn target(&mut self) -> Option<(Option<Node<'a>>, Option<Node<'a>>)> {
        let address = match self.tokens.peek()? {
            Token::Word(word) if word.starts_with(':') && word.parse::<IpAddr>().is_err() => None,
            Token::Word(word) => match before_port(word) {
                Some((address, length)) => {
                    self.tokens.part(length);
                    Some(address)
                }
                None => Some(self.expression(Mode::Field)?),
            },
            Token::Sign("[") => Some(self.bracketed()?),
            Token::Sign(_) => Some(self.expression(Mode::Field)?),
            Token::Quoted(_) | Token::Broken => return None,
        };
        let port = if self.tokens.colon() { Some(self.expression(Mode::Field)?) } else { None };
        Some((address, port))
    }

    /// `[fd00::1]`, `[fd00::1]-[fd00::9]`
    fn bracketed(&mut self) -> Option<Node<'a>> {
        let low = self.in_brackets()?;
        if !self.tokens.is("-") {
            return Some(low);
        }
        let high = self.in_brackets()?;
        Some(object("range", Node::List(vec![low, high])))
    }

    fn in_brackets(&mut self) -> Option<Node<'a>> {
        if !self.tokens.sign("[") {
            return None;
        }
        let address = self.expression(Mode::Constant)?;
        self.tokens.sign("]").then_some(address)
    }
}

/// IPv4 addresses before a port, and how long they are: `10.0.0.1:80`, `10.0.0.1-10.0.0.9:80`.
fn before_port(word: &str) -> Option<(Node<'_>, usize)> {
    let (address, _) = word.split_once(':')?;
    let length = address.len();
    let is_address = |word: &str| word.parse::<Ipv4Addr>().is_ok();
    let address = match address.split_once('-') {
        Some((low, high)) if is_address(low) && is_address(high) => {
            object("range", Node::List(vec![text(low), text(high)]))
        }
        None if is_address(address) => text(address),
        Some(_) | None => return None,
    };
    Some((address, length))
}

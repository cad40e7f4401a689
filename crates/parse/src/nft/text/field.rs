//! Fields of packets and what is computed from them: from nft's text to the form of its JSON.

use std::borrow::Cow;

use super::super::json::Node;
use super::expr::{Mode, Parser, members, number, object, text};
use super::token::Token;

impl<'a> Parser<'a> {
    /// The field of a packet that begins with this word.
    pub(super) fn field(&mut self, word: &'a str) -> Option<Node<'a>> {
        match word {
            "meta" => Some(meta(self.tokens.word()?)),
            "iif" | "oif" | "iifname" | "oifname" | "iiftype" | "oiftype" | "iifgroup"
            | "oifgroup" | "ibrname" | "obrname" | "skuid" | "skgid" | "rtclassid" | "pkttype"
            | "cpu" | "cgroup" | "mark" => Some(meta(word)),
            "ct" => self.conntrack(),
            "fib" => self.fib(),
            "numgen" => self.numgen(),
            "jhash" => self.hash(true),
            "symhash" => self.hash(false),
            "tcp" if self.tokens.is("option") => self.option("tcp option"),
            "ip" if self.tokens.is("option") => self.option("ip option"),
            "dccp" if self.tokens.is("option") => self.option("dccp option"),
            "sctp" if self.tokens.is("chunk") => self.option("sctp chunk"),
            "ether" | "vlan" | "arp" | "ip" | "icmp" | "igmp" | "ip6" | "icmpv6" | "tcp"
            | "udp" | "udplite" | "sctp" | "dccp" | "ah" | "esp" | "comp" | "th" | "gre"
            | "gretap" | "vxlan" | "geneve" => {
                let field = self.tokens.word()?;
                // `arp saddr ip`
                let more = word == "arp" && matches!(field, "saddr" | "daddr");
                if more {
                    self.tokens.word()?;
                    return Some(object("arp", text(field)));
                }
                Some(payload(word, field))
            }
            "rt" | "socket" => {
                let key = self.tokens.word()?;
                let name = if word == "rt" { "rt" } else { "socket" };
                Some(object(name, members([("key", Some(text(key)))])))
            }
            "ipsec" => {
                let dir = text(self.tokens.word()?);
                let spnum = self.after("spnum");
                let mut key = text(self.tokens.word()?);
                if matches!(key.text(), Some("ip" | "ip6")) {
                    key = text(self.tokens.word()?);
                }
                let all = [("key", Some(key)), ("dir", Some(dir)), ("spnum", spnum)];
                Some(object("ipsec", members(all)))
            }
            "osf" => {
                if self.tokens.is("ttl") {
                    self.tokens.word()?;
                }
                Some(object("osf", members([("key", Some(text(self.tokens.word()?)))])))
            }
            "hbh" | "frag" | "dst" | "mh" | "srh" | "rt0" | "rt2" | "exthdr" => {
                let field = self.tokens.word()?;
                let (name, field) =
                    if word == "exthdr" { (field, None) } else { (word, Some(text(field))) };
                Some(object("exthdr", members([("name", Some(text(name))), ("field", field)])))
            }
            "@ll" | "@nh" | "@th" | "@ih" => self.raw(&word[1..]),
            _ => None,
        }
    }

    fn conntrack(&mut self) -> Option<Node<'a>> {
        let mut dir = None;
        for word in ["original", "reply"] {
            if self.tokens.is(word) {
                dir = Some(text(word));
            }
        }
        let word = self.tokens.word()?;
        let key = match word {
            "ip" => Cow::Owned(format!("ip {}", self.tokens.word()?)),
            "ip6" => Cow::Owned(format!("ip6 {}", self.tokens.word()?)),
            _ => Cow::Borrowed(word),
        };
        Some(object("ct", members([("key", Some(Node::Text(key))), ("dir", dir)])))
    }

    /// `fib saddr . iif oif`
    fn fib(&mut self) -> Option<Node<'a>> {
        let mut flags = vec![text(self.tokens.word()?)];
        while self.tokens.is(".") {
            flags.push(text(self.tokens.word()?));
        }
        let result = self.tokens.word()?;
        if !matches!(result, "oif" | "oifname" | "type" | "check") {
            return None;
        }
        let flags = if flags.len() == 1 { flags.pop()? } else { Node::List(flags) };
        Some(object("fib", members([("result", Some(text(result))), ("flags", Some(flags))])))
    }

    fn numgen(&mut self) -> Option<Node<'a>> {
        let mode = text(self.tokens.word()?);
        let modulus = self.after("mod")?;
        let offset = self.after("offset");
        Some(object(
            "numgen",
            members([("mode", Some(mode)), ("mod", Some(modulus)), ("offset", offset)]),
        ))
    }

    fn hash(&mut self, of: bool) -> Option<Node<'a>> {
        let of = if of { Some(self.concatenation(Mode::Field)?) } else { None };
        let name = if of.is_some() { "jhash" } else { "symhash" };
        let modulus = self.after("mod")?;
        let seed = self.after("seed");
        let offset = self.after("offset");
        Some(object(
            name,
            members([("mod", Some(modulus)), ("seed", seed), ("offset", offset), ("expr", of)]),
        ))
    }

    /// A number behind a word.
    fn after(&mut self, word: &str) -> Option<Node<'a>> {
        if !self.tokens.is(word) {
            return None;
        }
        number(self.tokens.word()?)
    }

    /// `tcp option maxseg size`
    fn option(&mut self, kind: &'static str) -> Option<Node<'a>> {
        let name = text(self.tokens.word()?);
        let mut field = None;
        let fields = [
            "kind", "length", "size", "count", "left", "right", "tsval", "tsecr", "type", "ptr",
            "addr", "value", "flags", "tsn", "stream", "ssn", "ppid",
        ];
        if let Some(Token::Word(word)) = self.tokens.peek()
            && fields.contains(&word)
        {
            self.tokens.take();
            field = Some(text(word));
        }
        Some(object(kind, members([("name", Some(name)), ("field", field)])))
    }

    /// `@nh,96,32`
    fn raw(&mut self, base: &'a str) -> Option<Node<'a>> {
        let mut part = || {
            let offset = self.tokens.sign(",").then(|| self.tokens.word())??;
            number(offset)
        };
        let (offset, length) = (part()?, part()?);
        Some(object(
            "payload",
            members([("base", Some(text(base))), ("offset", Some(offset)), ("len", Some(length))]),
        ))
    }
}

fn meta(key: &str) -> Node<'_> {
    object("meta", members([("key", Some(text(key)))]))
}

fn payload<'a>(protocol: &'a str, field: &'a str) -> Node<'a> {
    object("payload", members([("protocol", Some(text(protocol))), ("field", Some(text(field)))]))
}

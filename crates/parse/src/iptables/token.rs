//! A rule line in words and options.
//!
//! Text in, [`Token`]s and then [`Line`] out: which option has which arguments, is negated, and
//! belongs to which match or target. Knows no match's meaning, only iptables' command syntax.

use std::borrow::Cow;

use unmasq_model::packet::Protocol;

/// A word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token<'t> {
    /// Without quotes and escapes.
    pub(super) text: Cow<'t, str>,
    /// Whether any part of it was in quotes: then it is never an option or a `!`.
    quoted: bool,
    start: usize,
    end: usize,
}

/// Splits `line` as `add_param_to_argv` of iptables/xshared.c does: blanks separate, `"` quotes,
/// and inside quotes `\` escapes. `false`: a quote is not closed.
pub(super) fn split<'t>(line: &'t str, tokens: &mut Vec<Token<'t>>) -> bool {
    tokens.clear();
    let bytes = line.as_bytes();
    let mut at = 0;
    loop {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        if at == bytes.len() {
            return true;
        }
        let start = at;
        while bytes.get(at).is_some_and(|b| !b.is_ascii_whitespace() && *b != b'"') {
            at += 1;
        }
        if bytes.get(at) != Some(&b'"') {
            let text = Cow::Borrowed(&line[start..at]);
            tokens.push(Token { text, quoted: false, start, end: at });
            continue;
        }
        let Some((text, end)) = quoted(line, start, at) else { return false };
        tokens.push(Token { text, quoted: true, start, end });
        at = end;
    }
}

/// The word that begins at `start` and has its first quote at `quote`; a closing quote ends it.
fn quoted(line: &str, start: usize, quote: usize) -> Option<(Cow<'_, str>, usize)> {
    let inside = &line[quote + 1..];
    let stop = inside.find(['"', '\\'])?;
    if start == quote && inside.as_bytes()[stop] == b'"' {
        return Some((Cow::Borrowed(&inside[..stop]), quote + 1 + stop + 1));
    }
    let mut text = line[start..quote].to_owned();
    let mut escaped = false;
    for (offset, c) in inside.char_indices() {
        match c {
            _ if escaped => {
                text.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((Cow::Owned(text), quote + 1 + offset + 1)),
            _ => text.push(c),
        }
    }
    None
}

impl Token<'_> {
    fn is_option(&self) -> bool {
        let bytes = self.text.as_bytes();
        !self.quoted
            && match bytes {
                [b'-', b'-', _, ..] => true,
                [b'-', letter] => letter.is_ascii_alphabetic(),
                _ => false,
            }
    }

    fn is_not(&self) -> bool {
        !self.quoted && self.text == "!"
    }
}

/// What an option belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The rule itself: `-s`, `-p` …
    Rule,
    /// The match of that index in [`Line::matches`].
    Match(usize),
    /// The target.
    Target,
}

/// An option with its arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opt {
    name: usize,
    args: (usize, usize),
    negated: bool,
    owner: Owner,
    span: (usize, usize),
}

/// A line whose options are sorted to their owners. Buffers are kept from line to line.
#[derive(Debug, Default)]
pub(super) struct Line<'t> {
    text: &'t str,
    tokens: Vec<Token<'t>>,
    options: Vec<Opt>,
    /// Names of matches in order; `None` for the one that `-p` implies.
    matches: Vec<Option<Cow<'t, str>>>,
}

/// Options whose argument may be any text, also one that looks like an option:
/// `xtables_save_string` writes `-m` without quotes.
const FREE_TEXT: [&str; 7] = [
    "--comment",
    "--log-prefix",
    "--nflog-prefix",
    "--ulog-prefix",
    "--string",
    "--hex-string",
    "--name",
];

/// Options of the matches that `-p` loads by itself.
const OF_PROTOCOL: [&str; 10] = [
    "--dport",
    "--sport",
    "--destination-port",
    "--source-port",
    "--tcp-flags",
    "--syn",
    "--tcp-option",
    "--icmp-type",
    "--icmpv6-type",
    "--chunk-types",
];

impl<'t> Line<'t> {
    /// Reads a line. Its first option is the command (`-A`).
    pub(super) fn read(&mut self, text: &'t str) -> Result<(), &'static str> {
        self.text = text;
        self.options.clear();
        self.matches.clear();
        if !split(text, &mut self.tokens) {
            return Err("a quote is not closed");
        }
        let mut owner = Owner::Rule;
        let mut at = 0;
        while at < self.tokens.len() {
            let first = at;
            let negated = self.tokens[at].is_not();
            at += usize::from(negated);
            let name = at;
            match self.tokens.get(name) {
                Some(token) if token.is_option() => {}
                Some(_) | None => return Err("an option is missing"),
            }
            at = self.arguments_end(name);
            owner = self.owner(name, at, owner);
            let span = (self.tokens[first].start, self.tokens[at - 1].end);
            self.options.push(Opt { name, args: (name + 1, at), negated, owner, span });
        }
        Ok(())
    }

    /// The options of one owner in order.
    pub(super) fn options(&self, owner: Owner) -> impl Iterator<Item = OptionRef<'_>> {
        self.options
            .iter()
            .filter(move |option| option.owner == owner)
            .map(|option| self.resolve(option))
    }

    /// The matches in order: index and name. The one that `-p` implies has the protocol's name.
    pub(super) fn matches(&self, protocol: Option<Protocol>) -> impl Iterator<Item = Match<'_>> {
        self.matches.iter().enumerate().map(move |(index, name)| {
            let name = match name {
                Some(name) => name,
                None => protocol.map_or("", protocol_match),
            };
            Match { line: self, index, name }
        })
    }

    fn resolve(&self, option: &Opt) -> OptionRef<'_> {
        let args = &self.tokens[option.args.0..option.args.1];
        // `-s ! 10.0.0.1`, the only position before iptables 1.4.3.
        let (negated, args) = match args {
            [first, rest @ ..] if first.is_not() => (!option.negated, rest),
            _ => (option.negated, args),
        };
        let name = &self.tokens[option.name].text;
        OptionRef { name, negated, args, text: &self.text[option.span.0..option.span.1] }
    }

    /// The index behind the last argument of the option at `name`.
    fn arguments_end(&self, name: usize) -> usize {
        if FREE_TEXT.contains(&&*self.tokens[name].text) {
            return (name + 2).min(self.tokens.len());
        }
        let mut end = name + 1;
        while let Some(token) = self.tokens.get(end) {
            let starts_option = token.is_option()
                || token.is_not() && self.tokens.get(end + 1).is_some_and(Token::is_option);
            if starts_option {
                break;
            }
            end += 1;
        }
        end
    }

    /// Whom the option at `name` belongs to, when those before it belong to `current`; opens a
    /// new match for `-m`. A general option doesn't end a match for those behind it.
    fn owner(&mut self, name: usize, end: usize, current: Owner) -> Owner {
        let option = &*self.tokens[name].text;
        match option {
            "-m" | "--match" => {
                let called = self.tokens.get(name + 1).filter(|_| end > name + 1);
                let called = called.map_or(Cow::Borrowed(""), |token| token.text.clone());
                self.matches.push(Some(called));
                Owner::Match(self.matches.len() - 1)
            }
            "-j" | "--jump" | "-g" | "--goto" => Owner::Target,
            _ if general(option) => Owner::Rule,
            _ if OF_PROTOCOL.contains(&option) && !self.takes_protocol_options(current) => {
                self.protocol_match()
            }
            _ => match current {
                Owner::Rule => match self.matches.len().checked_sub(1) {
                    Some(last) => Owner::Match(last),
                    None => self.protocol_match(),
                },
                Owner::Match(_) | Owner::Target => current,
            },
        }
    }

    /// Whether `--dport` behind options of `owner` is that one's: a protocol's match, or one that
    /// is not known and may have such an option of its own.
    fn takes_protocol_options(&self, owner: Owner) -> bool {
        match owner {
            Owner::Rule | Owner::Target => false,
            Owner::Match(index) => match self.matches.get(index).and_then(Option::as_deref) {
                Some(name) => is_protocol_match(name) || !super::matches::is_known(name),
                None => true,
            },
        }
    }

    fn protocol_match(&mut self) -> Owner {
        let named = |name: &Option<Cow<'_, str>>| name.as_deref().is_none_or(is_protocol_match);
        let index = self.matches.iter().position(named).unwrap_or_else(|| {
            self.matches.push(None);
            self.matches.len() - 1
        });
        Owner::Match(index)
    }
}

/// Options of the rule itself, and commands.
fn general(option: &str) -> bool {
    if !option.starts_with("--") {
        return true;
    }
    matches!(
        option,
        "--source"
            | "--src"
            | "--destination"
            | "--dst"
            | "--in-interface"
            | "--out-interface"
            | "--protocol"
            | "--proto"
            | "--fragment"
            | "--set-counters"
            | "--append"
            | "--insert"
    )
}

fn is_protocol_match(name: &str) -> bool {
    matches!(name, "tcp" | "udp" | "udplite" | "sctp" | "dccp" | "icmp" | "icmp6" | "icmpv6")
}

/// The match that iptables loads for `-p`.
fn protocol_match(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        Protocol::UDPLITE => "udplite",
        Protocol::SCTP => "sctp",
        Protocol::DCCP => "dccp",
        Protocol::ICMP => "icmp",
        Protocol::ICMPV6 => "icmp6",
        Protocol(_) => "",
    }
}

/// A match with its options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Match<'l> {
    line: &'l Line<'l>,
    index: usize,
    /// Its name; empty where neither `-m` nor `-p` names one.
    pub(super) name: &'l str,
}

impl<'l> Match<'l> {
    /// Its options, without `-m` itself.
    pub(super) fn options(self) -> impl Iterator<Item = OptionRef<'l>> {
        self.line.options(Owner::Match(self.index)).filter(|option| !option.is(&["-m", "--match"]))
    }

    /// Whether `-m` is written as it should be: one name, no `!`.
    pub(super) fn is_well_formed(self) -> bool {
        let mut heads = self.line.options(Owner::Match(self.index));
        heads.all(|option| {
            !option.is(&["-m", "--match"]) || option.args.len() == 1 && !option.negated
        })
    }

    /// The match as it is written.
    pub(super) fn text(self) -> String {
        join(self.line.options(Owner::Match(self.index)))
    }
}

/// Options as they are written, with a blank between them.
pub(super) fn join<'l>(options: impl Iterator<Item = OptionRef<'l>>) -> String {
    let mut text = String::new();
    for option in options {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(option.text);
    }
    text
}

/// An option, ready to be understood.
#[derive(Debug, Clone, Copy)]
pub(super) struct OptionRef<'l> {
    /// With its dashes.
    pub(super) name: &'l str,
    /// `!` stands before it or before its first argument.
    pub(super) negated: bool,
    /// Its arguments, without a `!`.
    pub(super) args: &'l [Token<'l>],
    /// As it is written, with its `!` and arguments.
    pub(super) text: &'l str,
}

impl<'l> OptionRef<'l> {
    /// Whether it has one of these names.
    pub(super) fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name)
    }

    /// The argument, if there is exactly one.
    pub(super) fn one(&self) -> Option<&'l str> {
        match self.args {
            [token] => Some(&token.text),
            _ => None,
        }
    }

    /// Both arguments, if there are exactly two.
    pub(super) fn two(&self) -> Option<(&'l str, &'l str)> {
        match self.args {
            [first, second] => Some((&first.text, &second.text)),
            _ => None,
        }
    }

    /// Whether it is a plain switch: neither argument nor `!`.
    pub(super) fn is_switch(&self) -> bool {
        self.args.is_empty() && !self.negated
    }
}

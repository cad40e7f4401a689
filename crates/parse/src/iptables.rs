//! iptables-save and ip6tables-save output of both back ends.
//!
//! Text in, [`Table`]s and diagnostics out. A rule becomes its tests in the order in which the
//! kernel makes them, [`Action::Count`], and its target:
//!
//! ```text
//! [5:300] -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-X
//!             │                │              │             │            └ Verdict(Jump)
//!             │                │              │             └ Compare Port = 443    ^ Count
//!             │                │              └ Compare L4Proto = 6
//!             │                └ Compare Address = 10.96.0.1
//!             └ chain          counters are not kept
//! ```
//!
//! What a rule can't be said to mean stays in its chain as `Opaque`. Declarations count wherever
//! they stand in a table, so that listings without `:CHAIN` lines first (`-N`, `-P`) read well.
//! Commands other than `-A`, `-I`, `-N` and `-P` are not carried out but reported.
//!
//! A line that could be a lost rule makes its table unreadable, with all that was read kept in it:
//! one that is neither a rule nor a declaration, and a command that is not carried out. So does a
//! missing COMMIT, and where the file ends without it, tables that are not listed are unreadable too.
//! A rule in no table may belong to any (`iptables -S` names none): then all of them are.

use std::collections::HashMap;

use unmasq_model::origin::{Diagnostic, FileId, Opaque, Origin};
use unmasq_model::packet::Family;
use unmasq_model::rule::{Action, Rule, Step};
use unmasq_model::ruleset::{
    Backend, BaseChain, Chain, ChainId, Policy, Table, TableFamily, XTABLES_NAMES, xtables_base,
};

pub(crate) mod icmp;
mod matches;
mod rule;
mod target;
#[cfg(test)]
mod tests;
mod token;
mod value;

/// Reads the tables of one file. `family` is [`TableFamily::Ip`] or [`TableFamily::Ip6`];
/// `default_backend` counts for tables without a header that says `(nf_tables)`.
pub fn parse(
    text: &str,
    file: FileId,
    family: TableFamily,
    default_backend: Backend,
) -> (Vec<Table>, Vec<Diagnostic>) {
    let packets = match family {
        TableFamily::Ip => Family::V4,
        TableFamily::Ip6 => Family::V6,
        TableFamily::Inet | TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => {
            let message = format!("iptables has no tables of family {family}");
            return (Vec::new(), vec![Diagnostic { origin: Origin::new(file, 1), message }]);
        }
    };
    let mut reader = Reader {
        family,
        packets,
        default_backend,
        backend: default_backend,
        section: None,
        incompatible: Vec::new(),
        stray: None,
        tables: Vec::new(),
        diagnostics: Vec::new(),
        line: token::Line::default(),
        steps: Vec::new(),
    };
    let mut number = 0;
    for line in text.lines() {
        number += 1;
        reader.read(Origin::new(file, number), line.trim());
    }
    reader.finish()
}

struct Reader<'t> {
    family: TableFamily,
    packets: Family,
    default_backend: Backend,
    backend: Backend,
    section: Option<Section<'t>>,
    /// Tables that a comment says are not listed, or not in full.
    incompatible: Vec<(Origin, &'t str, &'t str)>,
    /// The first line that belongs into some table and stands in none, and what is wrong with it.
    stray: Option<(Origin, String)>,
    tables: Vec<Table>,
    diagnostics: Vec<Diagnostic>,
    line: token::Line<'t>,
    steps: Vec<Step>,
}

/// A table that is being read: declarations are taken at once, rules when it ends.
struct Section<'t> {
    table: Table,
    chains: HashMap<&'t str, ChainId>,
    rules: Vec<(Origin, &'t str)>,
    /// Base chains whose policy is not known, with what the listing says of it.
    unclear: Vec<(ChainId, Origin, String)>,
}

impl<'t> Reader<'t> {
    fn report(&mut self, origin: Origin, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic { origin, message: message.into() });
    }

    fn read(&mut self, origin: Origin, line: &'t str) {
        let Some(first) = line.bytes().next() else { return };
        match first {
            b'#' => self.comment(origin, line),
            b'*' => {
                let _ = self.end_without_commit();
                self.begin(origin, line[1..].trim());
            }
            b':' => self.chain_line(origin, line),
            b'-' => self.command(origin, line),
            b'[' => match without_counters(line) {
                Some(rule) => self.command(origin, rule),
                None => self.lost(origin, "neither a rule nor a declaration", line),
            },
            _ if line == "COMMIT" => match self.section.take() {
                Some(section) => self.end(section),
                None => self.report(origin, "COMMIT outside a table"),
            },
            _ => self.lost(origin, "neither a rule nor a declaration", line),
        }
    }

    /// Reports a line that could have been a rule or a chain of the table that is being read.
    fn lost(&mut self, origin: Origin, message: impl Into<String>, line: &str) {
        let message = message.into();
        if let Some(section) = &mut self.section {
            section.table.unreadable.get_or_insert_with(|| why(origin, &message, line));
        }
        self.report(origin, message);
    }

    /// Reports a rule or a chain that stands in no table: it may be one of any.
    fn stray(&mut self, origin: Origin, message: String, line: &str) {
        if self.stray.is_none() {
            self.stray = Some((origin, why(origin, &message, line).text.into()));
        }
        self.report(origin, message);
    }

    /// Headers tell the back end; iptables-nft-save writes no more than a comment for a table
    /// that has what iptables can't say (nft_table_is_compatible in iptables/nft.c).
    fn comment(&mut self, origin: Origin, line: &'t str) {
        if line.starts_with("# Generated by ") {
            // xtables-save was iptables-nft-save's name up to 1.8.2.
            let nft = line.contains("(nf_tables)") || line.contains(" xtables-save ");
            self.backend = if nft { Backend::IptablesNft } else { self.default_backend };
        } else if let Some(rest) = line.strip_prefix("# Table `")
            && let Some((name, said)) = rest.split_once('\'')
            && said.contains("incompatible")
            && XTABLES_NAMES.contains(&name)
        {
            self.incompatible.push((origin, name, line.trim_start_matches("# ")));
        }
    }

    fn begin(&mut self, origin: Origin, name: &str) {
        let known = XTABLES_NAMES.contains(&name);
        let unreadable = (!known).then(|| Opaque::new(format!("*{name}")));
        if !known {
            self.report(origin, format!("iptables has no table {name}"));
        }
        let table = self.table(origin, self.backend, name, unreadable);
        self.section =
            Some(Section { table, chains: HashMap::new(), rules: Vec::new(), unclear: Vec::new() });
    }

    fn table(
        &self,
        origin: Origin,
        backend: Backend,
        name: &str,
        unreadable: Option<Opaque>,
    ) -> Table {
        Table {
            backend,
            family: self.family,
            name: name.into(),
            chains: Vec::new(),
            sets: Vec::new(),
            dormant: false,
            unreadable,
            origin,
        }
    }

    /// `:NAME POLICY [n:m]`
    fn chain_line(&mut self, origin: Origin, line: &'t str) {
        let mut words = line[1..].split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some(name), Some(policy)) => self.declare(origin, name, policy, line),
            _ => self.lost(origin, "a chain needs a name and a policy", line),
        }
    }

    fn declare(&mut self, origin: Origin, name: &'t str, policy: &str, line: &str) {
        let Some(section) = &mut self.section else {
            return self.stray(origin, format!("chain {name} outside a table"), line);
        };
        if section.chains.contains_key(name) {
            return self.lost(origin, format!("chain {name} is declared twice"), line);
        }
        if let Err(message) = section.declare(origin, name, policy) {
            self.report(origin, message);
        }
    }

    /// A line that begins with a command. Rules wait until all chains are known.
    fn command(&mut self, origin: Origin, line: &'t str) {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("-A" | "--append" | "-I" | "--insert"), Some(chain), _) => {
                let Some(section) = &mut self.section else {
                    let message = format!("a rule of chain {chain} outside a table");
                    return self.stray(origin, message, line);
                };
                section.rules.push((origin, line));
            }
            (Some("-N" | "--new-chain"), Some(name), None) => self.declare(origin, name, "-", line),
            (Some("-P" | "--policy"), Some(name), Some(policy)) => {
                self.declare(origin, name, policy, line);
            }
            (Some(command), ..) => {
                let message = format!("command {command} can't be followed");
                match &self.section {
                    Some(_) => self.lost(origin, message, line),
                    None => self.stray(origin, message, line),
                }
            }
            (None, ..) => {}
        }
    }

    /// Ends the table that is being read, if there is one: where it began, and what is wrong.
    fn end_without_commit(&mut self) -> Option<(Origin, String)> {
        let mut section = self.section.take()?;
        let origin = section.table.origin;
        let message = format!("table {} ends without COMMIT", section.table.name);
        section.table.unreadable.get_or_insert_with(|| Opaque::new(message.as_str()));
        self.report(origin, message.clone());
        self.end(section);
        Some((origin, message))
    }

    fn end(&mut self, mut section: Section<'t>) {
        let rules = std::mem::take(&mut section.rules);
        // Listings have the rules of a chain together.
        for rules in rules.chunk_by(|(_, a), (_, b)| chain_of(a) == chain_of(b)) {
            self.rules(&mut section, rules);
        }
        section.table.chains.shrink_to_fit();
        for (chain, origin, said) in std::mem::take(&mut section.unclear) {
            let text: Box<str> = said.into();
            let steps = Box::new([Step::Do(Action::Opaque(Opaque::new(text.clone())))]);
            section.append(chain, None, Rule { steps, text, comment: None, origin });
        }
        let mut table = section.table;
        let (backend, name, origin) = (table.backend, table.name.clone(), table.origin);
        let earlier =
            self.tables.iter_mut().find(|other| other.backend == backend && other.name == name);
        if let Some(earlier) = earlier {
            let twice = Opaque::new(format!("table {name} is listed twice"));
            earlier.unreadable.get_or_insert_with(|| twice.clone());
            table.unreadable.get_or_insert(twice);
            self.report(origin, format!("table {name} is listed twice"));
        }
        self.tables.push(table);
    }

    /// Reads rules of one chain.
    fn rules(&mut self, section: &mut Section<'t>, rules: &[(Origin, &'t str)]) {
        let Some((origin, name)) = rules.first().map(|(origin, text)| (*origin, chain_of(text)))
        else {
            return;
        };
        let chain = match section.chains.get(name) {
            Some(&chain) => chain,
            None => {
                self.report(origin, format!("chain {name} is not declared"));
                let added = section.declare_unseen(origin, name);
                let Some(chain) = added else { return };
                chain
            }
        };
        section.reserve(chain, rules.len());
        for (origin, text) in rules {
            let chains = &section.chains;
            let find = |name: &str| chains.get(name).copied();
            let mut tools = rule::Tools { line: &mut self.line, steps: &mut self.steps };
            let read = rule::lower(text, *origin, self.packets, find, &mut tools);
            for message in read.problems {
                self.report(*origin, message);
            }
            section.append(chain, read.insert_at, read.rule);
        }
    }

    fn finish(mut self) -> (Vec<Table>, Vec<Diagnostic>) {
        let cut = self.end_without_commit();
        for (origin, name, said) in std::mem::take(&mut self.incompatible) {
            let opaque = Opaque::new(said);
            let listed = self
                .tables
                .iter_mut()
                .find(|table| table.backend == Backend::IptablesNft && *table.name == *name);
            match listed {
                Some(table) => {
                    table.unreadable.get_or_insert(opaque);
                }
                None => {
                    let table = self.table(origin, Backend::IptablesNft, name, Some(opaque));
                    self.tables.push(table);
                }
            }
        }
        if let Some((origin, said)) = self.stray.take() {
            for table in &mut self.tables {
                table.unreadable.get_or_insert_with(|| Opaque::new(said.as_str()));
            }
            self.doubt_unlisted(origin, &said);
        }
        // What comes after the end of a file that is cut off is not known either.
        if let Some((origin, said)) = cut {
            self.doubt_unlisted(origin, &said);
        }
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.origin.line);
        (self.tables, self.diagnostics)
    }

    /// Tables that are not listed may exist all the same.
    fn doubt_unlisted(&mut self, origin: Origin, said: &str) {
        for name in XTABLES_NAMES {
            if !self.tables.iter().any(|table| *table.name == *name) {
                let table = self.table(origin, self.backend, name, Some(Opaque::new(said)));
                self.tables.push(table);
            }
        }
    }
}

impl<'t> Section<'t> {
    fn declare(&mut self, origin: Origin, name: &'t str, policy: &str) -> Result<(), String> {
        let base = xtables_base(self.table.backend, &self.table.name, name);
        let unclear = match (base, policy) {
            (Some(_), "ACCEPT" | "DROP") | (None, "-") => None,
            (Some(_), _) => Some(format!("policy {policy} of chain {name} is not known")),
            (None, _) => Some(format!("chain {name} has a policy and is not iptables' own")),
        };
        let base = base.map(|(hook, kind, priority)| BaseChain {
            hook: Some(hook),
            kind,
            priority,
            policy: if policy == "DROP" { Policy::Drop } else { Policy::Accept },
        });
        let is_base = base.is_some();
        let Some(id) = self.add(origin, name, base) else {
            return Err(format!("chain {name} is one too many"));
        };
        let Some(message) = unclear else { return Ok(()) };
        if is_base {
            self.unclear.push((id, origin, message.clone()));
        } else {
            // Nobody knows where it is attached.
            self.table.unreadable.get_or_insert_with(|| Opaque::new(message.clone()));
        }
        Err(message)
    }

    /// A chain that has rules and no declaration: what a base chain does at its end is not known.
    fn declare_unseen(&mut self, origin: Origin, name: &'t str) -> Option<ChainId> {
        let policy = if xtables_base(self.table.backend, &self.table.name, name).is_some() {
            "?"
        } else {
            "-"
        };
        // The caller reports that it is not declared, which says enough.
        let _ = self.declare(origin, name, policy);
        self.chains.get(name).copied()
    }

    fn add(&mut self, origin: Origin, name: &'t str, base: Option<BaseChain>) -> Option<ChainId> {
        let id = ChainId(u32::try_from(self.table.chains.len()).ok()?);
        self.table.chains.push(Chain { name: name.into(), base, rules: Vec::new(), origin });
        self.chains.insert(name, id);
        Some(id)
    }

    /// Makes room in a chain that has no rules yet: exactly so much, for most chains are small and
    /// there are many. Rules that come in another order take room by themselves.
    fn reserve(&mut self, chain: ChainId, rules: usize) {
        if let Some(chain) = self.table.chains.get_mut(chain.0 as usize)
            && chain.rules.is_empty()
        {
            chain.rules.reserve_exact(rules);
        }
    }

    /// Adds a rule at the end, or before the rule of that index.
    fn append(&mut self, chain: ChainId, at: Option<usize>, rule: Rule) {
        let Some(chain) = self.table.chains.get_mut(chain.0 as usize) else { return };
        let end = chain.rules.len();
        match at.unwrap_or(end) {
            at if at < end => chain.rules.insert(at, rule),
            _ => chain.rules.push(rule),
        }
    }
}

/// The chain of a rule: [`Reader::command`] has seen that there is a second word.
fn chain_of(rule: &str) -> &str {
    rule.split_ascii_whitespace().nth(1).unwrap_or_default()
}

fn why(origin: Origin, message: &str, line: &str) -> Opaque {
    Opaque::new(format!("line {}: {message}: {line}", origin.line))
}

/// What follows `[n:m]`.
fn without_counters(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(']')?;
    let rest = rest.trim_start();
    rest.starts_with('-').then_some(rest)
}

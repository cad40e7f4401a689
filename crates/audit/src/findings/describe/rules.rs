//! The rules that a finding is about, on every node that has them, and the commands that take them
//! away.

use unmasq_eval::trace::RuleId;
use unmasq_model::host::Host;
use unmasq_model::packet::Family;
use unmasq_model::rule::{Action, NatKind, Rule, Step};
use unmasq_model::ruleset::{Backend, Chain, ChainId, Table, TableFamily};

use super::Context;
use crate::judge::Suspect;
use crate::label::words;
use crate::matrix::texts_of_node;
use crate::{Owner, label, owner};

/// A rule on a node.
#[derive(Clone, Copy)]
pub(super) struct Standing<'c> {
    /// Index of the node.
    pub(super) node: usize,
    pub(super) table: &'c Table,
    pub(super) chain: &'c Chain,
    pub(super) rule: &'c Rule,
}

/// The rules of all nodes that are called as the suspect's rule is.
pub(super) fn alike<'c>(context: &Context<'_, 'c>, suspect: &Suspect) -> Vec<Standing<'c>> {
    let Suspect { cause, .. } = suspect;
    of(context, cause.owner, |node, host, id| {
        let mut name = label(host, id);
        for (text, what) in texts_of_node(context.cluster, &context.cluster.nodes[node].name) {
            name = name.replace(&text, what);
        }
        name == cause.rule
    })
}

/// The rules of an owner, on all nodes, that rewrite sources.
pub(super) fn of<'c>(
    context: &Context<'_, 'c>,
    whose: Owner,
    wanted: impl Fn(usize, &Host, RuleId) -> bool,
) -> Vec<Standing<'c>> {
    let mut found = Vec::new();
    for (node, state) in context.cluster.nodes.iter().enumerate() {
        let Some(host) = &state.host else { continue };
        for (number, table) in (0..).zip(&host.ruleset.tables) {
            for (place, chain) in (0..).zip(&table.chains) {
                for (index, rule) in (0..).zip(&chain.rules) {
                    let id = RuleId { table: number, chain: ChainId(place), rule: index };
                    let rewrites = rule.steps.iter().any(rewrites);
                    if rewrites && owner(host, id) == whose && wanted(node, host, id) {
                        found.push(Standing { node, table, chain, rule });
                    }
                }
            }
        }
    }
    found
}

fn rewrites(step: &Step) -> bool {
    match step {
        Step::Do(Action::Nat(nat)) => matches!(nat.kind, NatKind::Snat | NatKind::Masquerade),
        Step::Do(_) | Step::Test(_) => false,
    }
}

/// Indices of the nodes that have them, once each.
pub(super) fn nodes(found: &[Standing<'_>]) -> Vec<usize> {
    let mut nodes: Vec<usize> = found.iter().map(|one| one.node).collect();
    nodes.dedup();
    nodes
}

impl Standing<'_> {
    /// The family that the rule is of, if it is of one.
    pub(super) fn family(&self) -> Option<Family> {
        match self.table.family {
            TableFamily::Ip => Some(Family::V4),
            TableFamily::Ip6 => Some(Family::V6),
            TableFamily::Inet | TableFamily::Bridge | TableFamily::Arp | TableFamily::Netdev => {
                None
            }
        }
    }

    /// The program that writes rules like this one.
    fn program(&self) -> Option<&'static str> {
        match (self.table.backend, self.family()?) {
            (Backend::Legacy, Family::V4) => Some("iptables-legacy"),
            (Backend::Legacy, Family::V6) => Some("ip6tables-legacy"),
            (Backend::IptablesNft, Family::V4) => Some("iptables-nft"),
            (Backend::IptablesNft, Family::V6) => Some("ip6tables-nft"),
            (Backend::Nft, _) => None,
        }
    }

    /// The rule's words after its chain, for a shell; `None`: it isn't iptables'.
    pub(super) fn arguments(&self) -> Option<Vec<String>> {
        self.program()?;
        let mut words = words(&self.rule.text);
        (words.next() == Some("-A") && words.next() == Some(&self.chain.name))
            .then(|| words.map(for_shell).collect())
    }

    /// The command that deletes it.
    pub(super) fn deletion(&self) -> Option<String> {
        if self.program().is_some() {
            return self.deletion_of(&self.arguments()?);
        }
        let (table, chain) = (&self.table.name, &self.chain.name);
        let handle = self.rule.origin.handle?;
        let family = self.table.family;
        Some(format!("nft delete rule {family} {table} {chain} handle {handle}"))
    }

    /// The command that deletes the rule of the chain that has these arguments; `None`: it isn't
    /// iptables'.
    pub(super) fn deletion_of(&self, arguments: &[String]) -> Option<String> {
        let (table, chain) = (&self.table.name, &self.chain.name);
        Some(format!("{} -t {table} -D {chain} {}", self.program()?, arguments.join(" ")))
    }

    /// The command that puts it back, at its chain's end.
    pub(super) fn addition(&self) -> Option<String> {
        let (table, chain) = (&self.table.name, &self.chain.name);
        if let Some(program) = self.program() {
            let rule = self.arguments()?.join(" ");
            return Some(format!("{program} -t {table} -A {chain} {rule}"));
        }
        let (family, rule) =
            (self.table.family, crate::short_text(self.rule).replace('\'', r"'\''"));
        Some(format!("nft 'add rule {family} {table} {chain} {rule}'"))
    }

    /// The command that puts other arguments in front of the chain; `None`: it isn't iptables'.
    pub(super) fn insertion(&self, arguments: &[String]) -> Option<String> {
        let (table, chain) = (&self.table.name, &self.chain.name);
        Some(format!("{} -t {table} -I {chain} 1 {}", self.program()?, arguments.join(" ")))
    }
}

/// A word of iptables-save as a shell takes it literally: iptables' own quotes hide neither `$` nor
/// a backtick from a shell.
fn for_shell(word: &str) -> String {
    let mut text = String::new();
    let mut letters = word.chars();
    let mut quoted = false;
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            '\\' if quoted => text.extend(letters.next()),
            _ => text.push(letter),
        }
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if text == "!" || (!text.is_empty() && text.chars().all(plain)) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::for_shell;

    #[test]
    fn a_shell_takes_words_literally() {
        for (word, expected) in [
            ("172.7.21.0/24", "172.7.21.0/24"),
            ("!", "!"),
            (r#""flanneld masq""#, "'flanneld masq'"),
            (r#""$(reboot) `x`""#, "'$(reboot) `x`'"),
            (r#""a \"b\" c\\d""#, r#"'a "b" c\d'"#),
            (r#""it's""#, r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(for_shell(word), expected, "{word}");
        }
    }
}

//! What a person calls a rule.

use unmasq_eval::trace::RuleId;
use unmasq_model::host::Host;
use unmasq_model::rule::Rule;
use unmasq_model::ruleset::{Backend, Chain, Table};

use crate::owner::{find, set_names};

/// The name of the user chain that the rule stands in (`cali-nat-outgoing`); for a rule of a base
/// chain its place, and the set that it tests or its text (`nat POSTROUTING: -s 172.7.21.0/24
/// ! -o docker0 -j MASQUERADE`).
pub fn label(host: &Host, rule: RuleId) -> String {
    let Some((table, chain, rule)) = find(host, rule) else {
        return "an unknown rule".to_owned();
    };
    if chain.base.is_none() {
        return chain.name.to_string();
    }
    let place = place(table, chain);
    match set_names(table, rule).next() {
        Some(set) => format!("{place}: {set}"),
        None => format!("{place}: {}", short_text(rule)),
    }
}

/// A rule's text without its chain, its comment and the matches that only name the protocol again.
pub fn short_text(rule: &Rule) -> String {
    let mut words = words(&rule.text).peekable();
    let mut kept: Vec<&str> = Vec::new();
    while let Some(word) = words.next() {
        let next = words.peek().copied();
        let skipped = match (word, next) {
            ("-A" | "--append" | "--comment", Some(_)) => true,
            // `-m tcp` only repeats `-p tcp`.
            ("-m" | "--match", Some("comment" | "tcp" | "udp" | "sctp" | "icmp" | "icmp6")) => true,
            // nft: the comment is the last thing in a rule.
            ("comment", Some(text)) => text.starts_with('"'),
            _ => false,
        };
        if skipped {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

fn place(table: &Table, chain: &Chain) -> String {
    match table.backend {
        Backend::Legacy | Backend::IptablesNft => format!("{} {}", table.name, chain.name),
        Backend::Nft => format!("{} {} {}", table.family, table.name, chain.name),
    }
}

/// Splits at blanks outside double quotes; a backslash in quotes keeps the character after it
/// (iptables' xtables_save_string quotes so).
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let mut escaped = false;
        let end = rest.find(|c: char| {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ => return c.is_whitespace() && !quoted,
            }
            false
        });
        let (word, tail) = rest.split_at(end.unwrap_or(rest.len()));
        rest = tail;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use unmasq_model::origin::{FileId, Origin};

    use super::*;

    fn rule(text: &str) -> Rule {
        Rule {
            steps: Box::default(),
            text: text.into(),
            comment: None,
            origin: Origin::new(FileId(0), 1),
        }
    }

    #[test]
    fn text_without_chain_and_comment() {
        for (text, expected) in [
            ("-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE", "-s 10.0.0.0/8 -j MASQUERADE"),
            (
                r#"-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "a \"quoted -j DROP\" one" -m tcp --dport 443 -j KUBE-SVC-X"#,
                "-d 10.96.0.1/32 -p tcp --dport 443 -j KUBE-SVC-X",
            ),
            ("-A X -m comment --comment word -j RETURN", "-j RETURN"),
            (r#"ip saddr 10.0.0.1 masquerade comment "from pods""#, "ip saddr 10.0.0.1 masquerade"),
            ("-A X -m comment --comment", "--comment"),
            ("", ""),
        ] {
            assert_eq!(short_text(&rule(text)), expected, "{text}");
        }
    }
}

//! What a chain has now, in the words of a deed.

use unmasq_fix::deed::{Program, RulesDeed, TableDeed};

use crate::{CommandError, Target};

/// A rule as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its text, as a deed has it.
    pub(crate) text: String,
    /// The kernel's number of it, in nft.
    pub(crate) handle: String,
}

/// The rules of the deed's chain.
pub(crate) fn chain(target: &dyn Target, deed: &RulesDeed) -> Result<Vec<Listed>, CommandError> {
    let RulesDeed { node, program, table, chain, .. } = deed;
    match program {
        Program::IptablesLegacy => saved(target, deed, "iptables-legacy-save"),
        Program::Ip6tablesLegacy => saved(target, deed, "ip6tables-legacy-save"),
        Program::IptablesNft => saved(target, deed, "iptables-nft-save"),
        Program::Ip6tablesNft => saved(target, deed, "ip6tables-nft-save"),
        Program::NftIp | Program::NftIp6 | Program::NftInet => {
            let command = ["nft", "-a", "list", "chain", program.family(), table, chain];
            Ok(of_nft(&target.run(node, &command, "")?))
        }
    }
}

fn saved(
    target: &dyn Target,
    deed: &RulesDeed,
    program: &str,
) -> Result<Vec<Listed>, CommandError> {
    let text = target.run(&deed.node, &[program, "-t", &deed.table], "")?;
    let beginning = format!("-A {} ", deed.chain);
    let rules = text.lines().map(str::trim_end).filter(|line| line.starts_with(&beginning));
    Ok(rules.map(|line| Listed { text: line.to_owned(), handle: String::new() }).collect())
}

/// Lines that end with a handle are rules, but for those that open the table and the chain.
fn of_nft(text: &str) -> Vec<Listed> {
    let rule = |line: &str| {
        let (text, handle) = line.rsplit_once(" # handle ")?;
        let is_header = text.ends_with('{');
        (!is_header).then(|| Listed {
            text: unmasq_fix::deed::without_counts(text.trim()),
            handle: handle.trim().to_owned(),
        })
    };
    text.lines().filter_map(rule).collect()
}

/// What the deed's table says; `None`: it isn't there.
pub(crate) fn table(target: &dyn Target, deed: &TableDeed) -> Result<Option<String>, CommandError> {
    let tables = target.run(&deed.node, &["nft", "list", "tables"], "")?;
    let line = format!("table {} {}", deed.program.family(), deed.name);
    if !tables.lines().any(|one| one.trim() == line) {
        return Ok(None);
    }
    let command = ["nft", "-s", "list", "table", deed.program.family(), &deed.name];
    target.run(&deed.node, &command, "").map(Some)
}

/// How nft would list a table that this text makes, in its own words: it is made in a network
/// namespace that goes away with the command, and no packet ever sees it.
pub(crate) fn as_listed(
    target: &dyn Target,
    deed: &TableDeed,
    text: &str,
) -> Result<String, CommandError> {
    let script = "nft -f - && exec nft -s list table \"$1\" \"$2\"";
    let (family, name) = (deed.program.family(), &*deed.name);
    let command = ["unshare", "--net", "--", "sh", "-c", script, "sh", family, name];
    target.run(&deed.node, &command, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_chain_of_nft() {
        let text = "table ip nat { # handle 1\n\
            \tchain POSTROUTING { # handle 2\n\
            \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
            \t\tip saddr 10.0.0.0/8 counter packets 3 bytes 180 masquerade # handle 7\n\
            \t\tip daddr { 10.1.0.1, 10.1.0.2 } accept comment \"a # handle 9\" # handle 8\n\
            \t}\n}\n";
        let rule =
            |text: &str, handle: u64| Listed { text: text.to_owned(), handle: handle.to_string() };
        let expected = [
            rule("ip saddr 10.0.0.0/8 counter masquerade", 7),
            rule("ip daddr { 10.1.0.1, 10.1.0.2 } accept comment \"a # handle 9\"", 8),
        ];
        assert_eq!(of_nft(text), expected);
    }
}

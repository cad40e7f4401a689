//! The text of one transaction that changes a chain.

use std::fmt::Write as _;

use crate::deed::{Edit, Program, RulesDeed};

/// What the deed's program reads. `handles`: the kernel's numbers of the chain's rules before, which
/// only nft needs.
///
/// iptables' rules are deleted by their words: if one isn't there, nothing happens at all. nft's are
/// deleted by the kernel's number, which no other rule of the table ever gets.
pub fn of(deed: &RulesDeed, handles: &[String]) -> String {
    match deed.program {
        Program::IptablesLegacy
        | Program::Ip6tablesLegacy
        | Program::IptablesNft
        | Program::Ip6tablesNft => of_iptables(deed),
        Program::NftIp | Program::NftIp6 | Program::NftInet => of_nft(deed, handles),
    }
}

fn of_iptables(deed: &RulesDeed) -> String {
    let mut text = format!("*{}\n", deed.table);
    let words = |rule: &str| {
        let beginning = format!("-A {} ", deed.chain);
        rule.strip_prefix(&beginning).unwrap_or(rule).to_owned()
    };
    for edit in deed.edits() {
        let _ = match &edit {
            Edit::Delete { rule, .. } => writeln!(text, "-D {} {}", deed.chain, words(rule)),
            Edit::Insert { at, rule } => {
                writeln!(text, "-I {} {} {}", deed.chain, at + 1, words(rule))
            }
        };
    }
    text + "COMMIT\n"
}

fn of_nft(deed: &RulesDeed, handles: &[String]) -> String {
    let place = format!("{} {} {}", deed.program.family(), deed.table, deed.chain);
    let mut handles: Vec<Option<&String>> = handles.iter().map(Some).collect();
    let mut text = String::new();
    for edit in deed.edits() {
        let _ = match edit {
            Edit::Delete { at, .. } => match handles.remove(at) {
                Some(handle) => writeln!(text, "delete rule {place} handle {handle}"),
                None => Ok(()),
            },
            Edit::Insert { at, rule } => {
                // Ahead of the next rule that was there before and stays.
                let next = handles[at..].iter().flatten().next().copied();
                handles.insert(at, None);
                match next {
                    Some(handle) => writeln!(text, "insert rule {place} position {handle} {rule}"),
                    None => writeln!(text, "add rule {place} {rule}"),
                }
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(program: Program, before: &[&str], after: &[&str], expected: &str) {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        let deed = RulesDeed {
            node: "n1".into(),
            program,
            table: "nat".into(),
            chain: "POSTROUTING".into(),
            before: texts(before),
            after: texts(after),
        };
        let handles: Vec<String> = (40..).take(before.len()).map(|at| at.to_string()).collect();
        assert_eq!(of(&deed, &handles), expected);
    }

    #[test]
    fn one_transaction_a_chain() {
        check(
            Program::IptablesLegacy,
            &["-A POSTROUTING -j X", "-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE"],
            &["-A POSTROUTING -j X", "-A POSTROUTING -s 10.0.0.0/8 ! -d 10.0.0.0/8 -j MASQUERADE"],
            "*nat\n-D POSTROUTING -s 10.0.0.0/8 -j MASQUERADE\n\
             -I POSTROUTING 2 -s 10.0.0.0/8 ! -d 10.0.0.0/8 -j MASQUERADE\nCOMMIT\n",
        );
        check(
            Program::NftIp,
            &["counter", "masquerade", "accept"],
            &["counter", "oif \"lo\" masquerade", "return", "accept", "drop"],
            "delete rule ip nat POSTROUTING handle 41\n\
             insert rule ip nat POSTROUTING position 42 oif \"lo\" masquerade\n\
             insert rule ip nat POSTROUTING position 42 return\n\
             add rule ip nat POSTROUTING drop\n",
        );
    }
}

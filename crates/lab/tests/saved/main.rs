//! Rules that the kernel took and iptables-save wrote again mean the same.

#[path = "../trials/mod.rs"]
mod trials;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use unmasq_lab::Namespace;
use unmasq_model::origin::FileId;
use unmasq_model::rule::{Rule, Step};
use unmasq_model::ruleset::{Backend, Chain, Table, TableFamily};
use unmasq_parse::iptables::parse;

use trials::Test;

const TESTS: [Test; 4] = [
    ("iptables_legacy", || given_back(TableFamily::Ip, V4, "iptables-legacy", Backend::Legacy)),
    ("iptables_nft", || given_back(TableFamily::Ip, V4, "iptables-nft", Backend::IptablesNft)),
    ("ip6tables_legacy", || given_back(TableFamily::Ip6, V6, "ip6tables-legacy", Backend::Legacy)),
    ("ip6tables_nft", || given_back(TableFamily::Ip6, V6, "ip6tables-nft", Backend::IptablesNft)),
];

fn main() -> ExitCode {
    trials::run(TESTS)
}

const V4: &str = r#"*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 10.7.0.1 -j CT --notrack
-A PREROUTING -p udp -j CT --zone 5
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:OUTPUT DROP [0:0]
:U - [0:0]
:U2 - [0:0]
-A PREROUTING ! -s 10.1.2.0/24 ! -i eth+ -m comment --comment "it's \"q\" \\b -j DROP" -j MARK --set-mark 5
-A OUTPUT -s 10.0.7.0/255.0.255.0 -o veth1 -j MARK --or-mark 0x4000
-A U -m mark ! --mark 0x5/0x7 -j CONNMARK --save-mark --nfmask 0xf --ctmask 0xff
-A U -m connmark --mark 0x3 -j CONNMARK --restore-mark --mask 0x80
-A U -j CONNMARK --set-mark 0x1/0x3
-A U -p tcp -m multiport ! --dports 1:5,7 -m tcp ! --sport 1000:2000 --syn
-A U -p icmp -m icmp ! --icmp-type host-unreachable
-A U -p icmp --icmp-type any
-A U -m conntrack ! --ctstate NEW,DNAT
-A U -m conntrack --ctstate ESTABLISHED ! --ctproto 6 --ctorigdst 10.0.0.0/8 --ctorigdstport 5:9 --ctstatus ASSURED --ctdir REPLY
-A U -m state --state RELATED,NEW -g U2
-A U -m statistic --mode random ! --probability 0.33333333349
-A U -m statistic --mode nth --every 3 --packet 1 -j RETURN
-A U -m addrtype ! --src-type LOCAL,UNICAST --dst-type BROADCAST --limit-iface-in
-A U -m recent --set --name a --mask 255.255.255.255 --rsource
-A U -m recent --rcheck --seconds 5 --name a --mask 255.255.255.255 --rsource
-A U -m set ! --match-set unmasq-parse src --return-nomatch
-A U -m iprange --src-range 10.0.0.3-10.0.0.5 -m ttl --ttl-gt 5 -m limit --limit 3/sec
-A PREROUTING -p sctp -m sctp --dport 4:5 -j U
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -j DNAT --to-destination 10.1.1.1:100-200
-A PREROUTING -p tcp -j DNAT --to-destination :80
-A PREROUTING -p tcp -j REDIRECT --to-ports 80-90 --random
-A PREROUTING -d 10.0.0.0/16 -j NETMAP --to 10.1.0.0/16
-A POSTROUTING -p tcp -j SNAT --to-source 10.1.1.1-10.1.1.9:100-200 --random --persistent
-A POSTROUTING -p tcp -j MASQUERADE --to-ports 100-200 --random-fully
COMMIT
*filter
:INPUT ACCEPT [0:0]
-A INPUT -j REJECT
-A INPUT -p tcp -j REJECT --reject-with tcp-reset
-A INPUT -j LOG --log-prefix "no: "
COMMIT
"#;

const V6: &str = r#"*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING DROP [0:0]
-A PREROUTING -s fe80::/10 ! -d fd00::7 -p tcp -j DNAT --to-destination [fd00::1]:80
-A POSTROUTING -p tcp -j SNAT --to-source [fd00::1-fd00::5]:80
-A POSTROUTING -j SNAT --to-source fd00::5
-A POSTROUTING -j NETMAP --to fd00::/64
COMMIT
*filter
:INPUT ACCEPT [0:0]
-A INPUT -s fe80::/ffff::ff00 -p icmpv6 --icmpv6-type echo-request -j REJECT
-A INPUT -p icmpv6 -m icmp6 ! --icmpv6-type 1/4 -m hl --hl-lt 9
COMMIT
"#;

fn given_back(family: TableFamily, rules: &str, tool: &str, backend: Backend) -> Result<()> {
    let (meant, diagnostics) = parse(rules, FileId(0), family, Backend::Legacy);
    ensure!(diagnostics.is_empty(), "{diagnostics:?}");
    let saved = load_and_save(rules, tool)?;
    let (tables, diagnostics) = parse(&saved, FileId(0), family, Backend::Legacy);
    ensure!(diagnostics.is_empty(), "{diagnostics:?} in {saved}");
    for table in &meant {
        let found = tables.iter().find(|found| found.name == table.name);
        let found = found.with_context(|| format!("table {} is not in {saved}", table.name))?;
        ensure!(found.backend == backend, "{:?}", found.backend);
        let (found, meant) = (lowered(found), lowered(table));
        ensure!(found == meant, "{found:#?} is not {meant:#?}: {saved}");
    }
    Ok(())
}

/// Steps and comments by chain, without chains that have no rules. Chains are listed in another
/// order than declared, so jumps are by name.
fn lowered(table: &Table) -> Vec<(String, Vec<String>)> {
    let step = |step: &Step| match step {
        Step::Test(test) => format!("{test:?}"),
        Step::Do(action) => {
            let mut text = format!("{action:?}");
            for (index, chain) in table.chains.iter().enumerate() {
                text = text.replace(&format!("ChainId({index})"), &chain.name);
            }
            text
        }
    };
    let mut chains: Vec<_> = table.chains.iter().filter(|chain| !chain.rules.is_empty()).collect();
    chains.sort_by_key(|chain| chain.name.clone());
    let rules = |chain: &Chain| {
        let rule = |rule: &Rule| {
            let steps: Vec<String> = rule.steps.iter().map(step).collect();
            format!("{:?} {}", rule.comment, steps.join("; "))
        };
        chain.rules.iter().map(rule).collect()
    };
    chains
        .into_iter()
        .map(|chain| (format!("{} {:?}", chain.name, chain.base), rules(chain)))
        .collect()
}

/// Loads rules in a network namespace of their own and lists them.
fn load_and_save(rules: &str, tool: &str) -> Result<String> {
    let namespace = Namespace::new("saved")?;
    namespace.exec(&["ipset", "create", "unmasq-parse", "hash:net"])?;
    namespace.exec_with(&[&format!("{tool}-restore")], rules)?;
    namespace.exec(&[&format!("{tool}-save")])
}

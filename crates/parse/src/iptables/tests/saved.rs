//! Rules that the kernel took and iptables-save wrote again mean the same. Needs root:
//! `cargo test -p unmasq-parse iptables::tests::saved -- --ignored`.

use std::io::Write;
use std::process::{Command, Stdio};

use unmasq_model::origin::FileId;
use unmasq_model::rule::Step;
use unmasq_model::ruleset::{Backend, Table, TableFamily};

use crate::iptables::parse;

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

#[test]
#[ignore = "needs root, iptables of both back ends and ipset"]
fn the_kernel_gives_back_what_was_meant() {
    for (family, rules, tool) in
        [(TableFamily::Ip, V4, "iptables"), (TableFamily::Ip6, V6, "ip6tables")]
    {
        let meant = parse(rules, FileId(0), family, Backend::Legacy);
        assert_eq!(meant.1, [], "{tool}");
        for (variant, backend) in [("legacy", Backend::Legacy), ("nft", Backend::IptablesNft)] {
            let saved = load_and_save(rules, &format!("{tool}-{variant}"));
            let (tables, diagnostics) = parse(&saved, FileId(0), family, Backend::Legacy);
            assert_eq!(diagnostics, [], "{saved}");
            for table in &meant.0 {
                let same = |other: &&Table| other.name == table.name;
                let found = tables.iter().find(same).expect("the table is saved");
                assert_eq!(found.backend, backend);
                assert_eq!(lowered(found), lowered(table), "{saved}");
            }
        }
    }
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
    let rules = |chain: &unmasq_model::ruleset::Chain| {
        let rule = |rule: &unmasq_model::rule::Rule| {
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
fn load_and_save(rules: &str, tool: &str) -> String {
    let script =
        format!("ipset create unmasq-parse hash:net && {tool}-restore && {tool}-save 2>/dev/null");
    let mut child = Command::new("unshare")
        .args(["-n", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(rules.as_bytes()).expect("the rules are written");
    drop(stdin);
    let output = child.wait_with_output().expect("the script ends");
    assert!(output.status.success(), "{tool}: {}", output.status);
    String::from_utf8(output.stdout).expect("listings are text")
}

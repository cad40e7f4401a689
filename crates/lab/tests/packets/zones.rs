//! Point 19: zones, in which one tuple is several connections.

use anyhow::{Context, Result, ensure};
use unmasq_lab::Network;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("zones::without_them_it_is_one_connection", without),
    ("zones::one_tuple_is_two_connections", two),
    ("zones::of_one_direction_share_the_answers", one_direction),
    ("zones::from_a_map", from_map),
    ("zones::what_rules_see_of_a_template", template),
];

const FROM_ETH0: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";
const FROM_ETH1: &str = "eth1 udp 192.0.2.7:4000 > 10.9.0.5:53";
const MASQUERADED: &str = "eth1 10.1.0.11:4000 > 10.9.0.5:53";
const BACK: &str = "eth0 10.9.0.5:53 > 192.0.2.7:4000";

/// Rules of each back end that put what comes in by a device into a zone: `both` in both
/// directions, else in the original direction alone.
fn back_ends(both: bool) -> [(&'static str, String); 3] {
    let option = if both { "--zone" } else { "--zone-orig" };
    let xtables = format!(
        "*raw
-A PREROUTING -i eth0 -p udp -m udp --dport 53 -j CT {option} 1
-A PREROUTING -i eth1 -p udp -m udp --dport 53 -j CT {option} 2
COMMIT
*nat
-A POSTROUTING -s 192.0.2.0/24 -o eth1 -m comment --comment masq -j MASQUERADE
COMMIT
"
    );
    let zone = if both { "ct zone" } else { "ct original zone" };
    let nft = format!(
        "table inet t {{
 chain raw {{ type filter hook prerouting priority raw;
  iifname \"eth0\" udp dport 53 {zone} set 1
  iifname \"eth1\" udp dport 53 {zone} set 2; }}
 chain post {{ type nat hook postrouting priority srcnat;
  ip saddr 192.0.2.0/24 oifname \"eth1\" counter masquerade comment \"masq\"; }}
}}"
    );
    [("iptables-legacy", xtables.clone()), ("iptables-nft", xtables), ("nft", nft)]
}

fn loaded(program: &str, rules: &str) -> Result<Network> {
    let network = router()?;
    match program {
        "nft" => network.nft(rules)?,
        program => network.restore(program, rules)?,
    }
    Ok(network)
}

/// How many connections the zone has: a zone of one direction is said in another way.
fn in_zone(network: &Network, zone: &str) -> Result<usize> {
    let zone = format!(" {zone} ");
    Ok(network.connections()?.iter().filter(|line| line.contains(&zone)).count())
}

fn without() -> Result<()> {
    let [_, (_, rules), _] = back_ends(true);
    let nat = rules.split_once("*nat").context("two tables")?.1;
    let network = loaded("iptables-nft", &format!("*nat{nat}"))?;
    shoot(&network, FROM_ETH0)?.ended(MASQUERADED)?.counted(&[("masq", 1)])?.foreseen()?;
    let second = network.observe(&FROM_ETH1.parse()?)?;
    second.ended(MASQUERADED)?;
    second.counted(&[("masq", 0)])?;
    ensure!(network.connections()?.len() == 1);
    Ok(())
}

/// Each is new in its own, and may have the same port.
fn two() -> Result<()> {
    for (program, rules) in back_ends(true) {
        let network = loaded(program, &rules)?;
        let check = || -> Result<()> {
            for probe in [FROM_ETH0, FROM_ETH1] {
                shoot(&network, probe)?.ended(MASQUERADED)?.counted(&[("masq", 1)])?.foreseen()?;
            }
            ensure!((in_zone(&network, "zone=1")?, in_zone(&network, "zone=2")?) == (1, 1));
            // An answer that no rule puts into a zone belongs to neither, and is for the node.
            let again = network.observe(&FROM_ETH0.parse()?)?;
            again.ended(MASQUERADED)?;
            again.counted(&[("masq", 0)])?;
            network.answer(again.only()?)?.ended("local 10.9.0.5:53 > 10.1.0.11:4000")
        };
        check().context(program)?;
    }
    Ok(())
}

/// Answers come in the zone of all, so there the tuples must differ: the second gets another port.
fn one_direction() -> Result<()> {
    for (program, rules) in back_ends(false) {
        let network = loaded(program, &rules)?;
        let check = || -> Result<()> {
            let first = shoot(&network, FROM_ETH0)?;
            first.ended(MASQUERADED)?.counted(&[("masq", 1)])?.foreseen()?;
            let second = network.observe(&FROM_ETH1.parse()?)?;
            second.counted(&[("masq", 1)])?;
            let source = second.only()?.flow.source;
            ensure!(source.ip().to_string() == "10.1.0.11" && source.port() != 4000, "{second}");
            for seen in [&first.seen, &second] {
                let answer = network.answer(seen.only()?)?;
                answer.ended(BACK)?;
                answer.counted(&[("masq", 0)])?;
            }
            Ok(())
        };
        check().context(program)?;
    }
    Ok(())
}

/// A device that the map lacks breaks the rule, and its packets are in no zone.
fn from_map() -> Result<()> {
    let network = router()?;
    network.nft(
        "table inet t {
 chain raw { type filter hook prerouting priority raw;
  ct zone set iifname map { \"eth1\" : 2 } counter comment \"zoned\"; }
 chain post { type nat hook postrouting priority srcnat;
  oifname \"eth1\" counter masquerade comment \"masq\"; }
}",
    )?;
    shoot(&network, FROM_ETH0)?
        .ended(MASQUERADED)?
        .counted(&[("zoned", 0), ("masq", 1)])?
        .foreseen()?;
    shoot(&network, FROM_ETH1)?
        .ended(MASQUERADED)?
        .counted(&[("zoned", 1), ("masq", 1)])?
        .foreseen()?;
    ensure!((in_zone(&network, "zone=0")?, in_zone(&network, "zone=2")?) == (1, 1));
    Ok(())
}

/// Before tracking begins, a packet with a zone has a template, which looks like a new connection.
fn template() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = router()?;
        network.restore(
            program,
            "*raw
-A PREROUTING -m conntrack --ctstate INVALID -m comment --comment before
-A PREROUTING -j CT --zone 1
-A PREROUTING -m conntrack --ctstate INVALID -m comment --comment invalid
-A PREROUTING -m conntrack --ctstate NEW -m comment --comment new
-A PREROUTING -m conntrack --ctstate UNTRACKED -m comment --comment untracked
COMMIT
",
        )?;
        let counts = [("before", 1), ("invalid", 0), ("new", 1), ("untracked", 0)];
        shoot(&network, FROM_ETH0)?.counted(&counts)?.foreseen().context(program)?;
    }
    let network = router()?;
    network.nft(
        "table inet t { chain raw { type filter hook prerouting priority raw;
  ct state invalid counter comment \"before\"
  ct zone set 1
  ct state invalid counter comment \"invalid\"
  ct state new counter comment \"new\"
  notrack
  ct state untracked counter comment \"untracked\"; }
}",
    )?;
    shoot(&network, FROM_ETH0)?
        .counted(&[("before", 1), ("invalid", 0), ("new", 1), ("untracked", 0)])?
        .foreseen()
}

//! Point 15: nftables sets that packets fill (net/netfilter/nft_dynset.c).

use anyhow::{Context, Result, ensure};
use unmasq_lab::Network;
use unmasq_lab::judge::Shot;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("sets::what_a_rule_adds_the_next_finds", add_then_find),
    ("sets::order_inside_a_rule", order),
    ("sets::delete", delete),
    ("sets::time_is_up", timeouts),
    ("sets::add_keeps_and_update_renews_the_time", renewal),
    ("sets::limits_of_elements", limits),
    ("sets::counts_of_connections", counts_of_connections),
    ("sets::a_name_switches_nothing_on", names),
    ("sets::a_full_set_breaks_the_rule", full),
    ("sets::remembered_in_a_map", affinity),
    ("sets::a_map_of_what_the_packet_lacks", map_data),
    ("sets::concatenations_of_both_families", concatenations),
];

const PROBE: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";
const OTHER: &str = "eth0 udp 192.0.2.8:4000 > 10.9.0.5:53";
const PROBE_V6: &str = "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53";

/// A probe, counters by comment, and among how many outcomes it must be.
type Packet<'t> = (&'t str, &'t [(&'t str, u64)], usize);

fn table(body: &str) -> Result<Network> {
    let network = router()?;
    network.nft(&format!("table inet t {{\n{body}\n}}"))?;
    Ok(network)
}

fn send(network: &Network, packets: &[Packet<'_>]) -> Result<()> {
    for (number, (probe, counts, outcomes)) in packets.iter().enumerate() {
        let check = || shoot(network, probe)?.counted(counts)?.foreseen_among(*outcomes);
        check().with_context(|| format!("packet {}", number + 1))?;
    }
    Ok(())
}

fn elements(network: &Network, set: &str) -> Result<String> {
    let kind = if set == "m" { "map" } else { "set" };
    let text = network.script(&format!("nft list {kind} inet t {set}"))?;
    let inner = text.split("elements = {").nth(1).and_then(|rest| rest.split('}').next());
    Ok(inner.unwrap_or("").split_whitespace().collect::<Vec<_>>().join(" "))
}

fn add_then_find() -> Result<()> {
    let network = table(
        "set s { type ipv4_addr; flags dynamic; }
 chain through { type filter hook forward priority filter;
  ip saddr @s counter comment \"early\"
  add @s { ip saddr } counter comment \"add\"
  ip saddr @s counter comment \"late\"
  ip daddr @s counter comment \"other\"; }",
    )?;
    send(
        &network,
        &[
            (PROBE, &[("early", 0), ("add", 1), ("late", 1), ("other", 0)], 4),
            (PROBE, &[("early", 1), ("add", 1), ("late", 1), ("other", 0)], 4),
            (OTHER, &[("early", 0), ("add", 1), ("late", 1), ("other", 0)], 4),
        ],
    )?;
    ensure!(elements(&network, "s")? == "192.0.2.7, 192.0.2.8");
    Ok(())
}

/// A statement acts where it stands: what fails after it doesn't undo it, what fails before it
/// leaves it out.
fn order() -> Result<()> {
    let network = table(
        "set a { type ipv4_addr; flags dynamic; }
 set b { type ipv4_addr; flags dynamic; }
 chain through { type filter hook forward priority filter;
  add @a { ip saddr } udp dport 99 counter comment \"after\"
  udp dport 99 add @b { ip saddr } counter comment \"before\"
  ip saddr @a counter comment \"a\"
  ip saddr @b counter comment \"b\"
  counter add @b { ip saddr } ip saddr @b counter comment \"twice\"; }",
    )?;
    let counts: &[_] = &[("after", 0), ("before", 0), ("a", 1), ("b", 0)];
    send(&network, &[(PROBE, counts, 2)])?;
    ensure!(elements(&network, "a")? == "192.0.2.7");
    ensure!(elements(&network, "b")? == "192.0.2.7");
    Ok(())
}

/// `delete` of what isn't there doesn't break the rule.
fn delete() -> Result<()> {
    let network = table(
        "set s { type ipv4_addr; flags dynamic; elements = { 192.0.2.7 } }
 chain through { type filter hook forward priority filter;
  delete @s { ip saddr } counter comment \"delete\"
  ip saddr @s counter comment \"there\"; }",
    )?;
    let counts: &[_] = &[("delete", 1), ("there", 0)];
    send(&network, &[(OTHER, counts, 1), (PROBE, counts, 1)])?;
    ensure!(elements(&network, "s")?.is_empty());
    Ok(())
}

/// An element with a time of one millisecond is gone when the next packet comes: between two
/// packets of a test programs are run, which takes longer.
fn timeouts() -> Result<()> {
    let network = table(
        "set s { type ipv4_addr; flags dynamic, timeout; }
 chain through { type filter hook forward priority filter;
  ip saddr @s counter comment \"there\"
  update @s { ip saddr timeout 1ms } counter comment \"update\"; }",
    )?;
    let counts: &[_] = &[("there", 0), ("update", 1)];
    send(&network, &[(PROBE, counts, 2), (PROBE, counts, 2)])?;
    network.nft("add element inet t s { 192.0.2.8 timeout 1h }")?;
    send(&network, &[(OTHER, &[("there", 1), ("update", 1)], 2), (OTHER, &[("there", 0)], 2)])
}

fn renewal() -> Result<()> {
    for (op, renewed) in [("add", false), ("update", true)] {
        let network = table(&format!(
            "set s {{ type ipv4_addr; flags dynamic, timeout; timeout 5h; }}
 chain through {{ type filter hook forward priority filter;
  {op} @s {{ ip saddr }} counter comment \"x\"; }}"
        ))?;
        network.nft("add element inet t s { 192.0.2.7 timeout 1h expires 10m }")?;
        send(&network, &[(PROBE, &[("x", 1)], 1)]).context(op)?;
        let seen = elements(&network, "s")?;
        // Of the ten minutes that were left, or of the set's five hours.
        ensure!(seen.contains("expires 9m") != renewed, "{op}: {seen}");
        ensure!(seen.contains("expires 4h59m") == renewed, "{op}: {seen}");
    }
    Ok(())
}

fn limits() -> Result<()> {
    let cases = [
        "set s { type ipv4_addr; flags dynamic; limit rate 1/hour burst 2 packets; }
 chain through { type filter hook forward priority filter;
  add @s { ip saddr } counter comment \"x\"; }",
        "set s { type ipv4_addr; flags dynamic; }
 chain through { type filter hook forward priority filter;
  update @s { ip saddr limit rate 1/hour burst 2 packets } counter comment \"x\"; }",
        "chain through { type filter hook forward priority filter;
  meter m { ip saddr limit rate 1/hour burst 2 packets } counter comment \"x\"; }",
    ];
    for body in cases {
        let network = table(body)?;
        let (on, off): (&[_], &[_]) = (&[("x", 1)], &[("x", 0)]);
        send(&network, &[(PROBE, on, 2), (PROBE, on, 2), (PROBE, off, 2), (OTHER, on, 2)])
            .context(body)?;
    }
    Ok(())
}

/// The usual limit of connections for each client.
fn counts_of_connections() -> Result<()> {
    let network = table(
        "set s { type ipv4_addr; flags dynamic; }
 chain through { type filter hook forward priority filter;
  ct state new add @s { ip saddr ct count over 2 } counter reject comment \"many\"
  counter comment \"few\"; }",
    )?;
    for (client, port, many) in [(7, 1, 0), (7, 2, 0), (7, 3, 1), (8, 1, 0)] {
        let probe = format!("eth0 udp 192.0.2.{client}:{port} > 10.9.0.5:53");
        shoot(&network, &probe)?
            .counted(&[("many", many), ("few", 1 - many)])?
            .foreseen_among(2)
            .with_context(|| probe.clone())?;
    }
    Ok(())
}

/// Limits have nothing to do with connections, whatever they are called.
fn names() -> Result<()> {
    let network = table(
        "set conns { type ipv4_addr; flags dynamic; limit rate 1/hour burst 2 packets; }
 chain through { type filter hook forward priority filter;
  add @conns { ip saddr } counter comment \"x\"; }
 chain post { type nat hook postrouting priority srcnat; counter comment \"post\"; }",
    )?;
    network.restore(
        "iptables-legacy",
        "*filter
-A FORWARD -m hashlimit --hashlimit-upto 1/hour --hashlimit-mode srcip --hashlimit-name conns -m comment --comment y
COMMIT
",
    )?;
    send(&network, &[(PROBE, &[("x", 1), ("y", 1), ("post", 0)], 4)])
}

fn full() -> Result<()> {
    let network = table(
        "set s { type ipv4_addr; size 1; flags dynamic; }
 chain through { type filter hook forward priority filter;
  add @s { ip saddr } counter comment \"add\"
  ip saddr @s counter comment \"there\"; }",
    )?;
    send(
        &network,
        &[
            (PROBE, &[("add", 1), ("there", 1)], 1),
            (OTHER, &[("add", 0), ("there", 0)], 2),
            (PROBE, &[("add", 1), ("there", 1)], 1),
        ],
    )
}

/// Session affinity: where a client went is remembered after routing, and asked before. nft 1.0.6
/// doesn't list the flag `dynamic`, so that rules fill the map is said by its timeout or by the rule
/// alone.
fn affinity() -> Result<()> {
    for flags in ["flags dynamic; timeout 1h;", "flags dynamic; size 100;"] {
        remembered(flags).context(flags)?;
    }
    Ok(())
}

fn remembered(flags: &str) -> Result<()> {
    let network = table(&format!(
        "map m {{ type ipv4_addr : ipv4_addr; {flags} }}
 chain pre {{ type nat hook prerouting priority dstnat;
  ip daddr 203.0.113.80 counter dnat ip to ip saddr map @m comment \"again\"
  ip daddr 203.0.113.80 counter dnat ip to numgen inc mod 2 map {{ 0 : 10.9.0.6, 1 : 10.9.0.7 }} comment \"first\"; }}
 chain post {{ type filter hook postrouting priority filter;
  ct original ip daddr 203.0.113.80 update @m {{ ip saddr : ip daddr }} counter comment \"note\"; }}"
    ))?;
    for (port, client, server, again) in
        [(4000, 7, 6, 0), (4001, 7, 6, 1), (4000, 8, 7, 0), (4002, 7, 6, 1), (4003, 8, 7, 1)]
    {
        let probe = format!("eth0 udp 192.0.2.{client}:{port} > 203.0.113.80:53");
        let shot = shoot(&network, &probe)?;
        shot.ended(&format!("eth1 192.0.2.{client}:{port} > 10.9.0.{server}:53"))?.counted(&[
            ("again", 1),
            ("first", 1 - again),
            ("note", 1),
        ])?;
        if again == 1 {
            shot.foreseen_among(3)?;
            continue;
        }
        // It was not there, and may be by now.
        shot.unknown_because("packets fill map m")?;
        let Shot { seen, prediction } = &shot;
        let outcomes = &prediction.trace.outcomes;
        let told = outcomes.iter().any(|outcome| prediction.differences(outcome, seen).is_empty());
        ensure!(outcomes.len() == 3 && told, "{outcomes:#?}");
    }
    let remembered = elements(&network, "m")?;
    let both = ["7", "8"].iter().all(|host| remembered.contains(&format!("192.0.2.{host} ")));
    ensure!(both, "{remembered}");
    Ok(())
}

/// A rule that fills a map breaks where the packet has not what the map is to hold.
fn map_data() -> Result<()> {
    let network = table(
        "map m { type ipv4_addr : inet_service; flags dynamic; }
 chain through { type filter hook forward priority filter;
  update @m { ip saddr : tcp dport } counter comment \"tcp\"
  update @m { ip saddr : udp dport } counter comment \"udp\"
  }",
    )?;
    send(&network, &[(PROBE, &[("tcp", 0), ("udp", 1)], 1)])?;
    ensure!(elements(&network, "m")? == "192.0.2.7 : 53");
    Ok(())
}

fn concatenations() -> Result<()> {
    let network = table(
        "set four { type ipv4_addr . inet_service; flags dynamic; }
 set six { type ipv6_addr . inet_service; flags dynamic; }
 chain through { type filter hook forward priority filter;
  add @four { ip saddr . udp dport } counter comment \"four\"
  add @six { ip6 saddr . udp dport } counter comment \"six\"
  ip saddr . udp sport @four counter comment \"other\"
  ip6 saddr . udp dport @six counter comment \"same\"; }",
    )?;
    send(
        &network,
        &[
            (PROBE, &[("four", 1), ("six", 0), ("other", 0), ("same", 0)], 2),
            (PROBE_V6, &[("four", 0), ("six", 1), ("other", 0), ("same", 1)], 1),
        ],
    )?;
    ensure!(elements(&network, "four")? == "192.0.2.7 . 53");
    ensure!(elements(&network, "six")? == "2001:db8::7 . 53");
    Ok(())
}

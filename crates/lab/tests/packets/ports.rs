//! Point 7: a port can change without any rule that asks for it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use unmasq_lab::Network;
use unmasq_lab::observation::Observation;
use unmasq_lab::reply::arrived;

use crate::trials::Test;
use crate::{none, router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("ports::the_second_of_two_equal_tuples_gets_another_port", masqueraded),
    ("ports::a_clash_without_any_source_rule", without_rule),
    ("ports::of_all_protocols_and_families", protocols),
    ("ports::low_ports_stay_low", low),
    ("ports::identifiers_of_echoes_clash_too", echoes),
    ("ports::random_ports", random),
    ("ports::a_range_that_is_used_up", used_up),
    ("ports::a_range_of_destination_ports", destinations),
];

fn masqueraded() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t { chain post { type nat hook postrouting priority srcnat;
          oifname \"eth1\" counter masquerade comment \"masq\"; }
}",
    )?;
    shoot(&network, "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53")?
        .ended("eth1 10.1.0.11:4000 > 10.9.0.5:53")?
        .foreseen()?;
    // What follows depends on the connection that exists, which the evaluator does not read.
    let second = network.send(&"eth0 udp 192.0.2.8:4000 > 10.9.0.5:53".parse()?)?;
    let flow = second.left[0].flow;
    ensure!(flow.source.ip().to_string() == "10.1.0.11" && flow.source.port() != 4000, "{second}");
    Ok(())
}

fn without_rule() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t { chain pre { type nat hook prerouting priority dstnat;
          ip daddr { 203.0.113.1, 203.0.113.2 } counter dnat to 10.9.0.5 comment \"dnat\"; }
}",
    )?;
    shoot(&network, "eth0 udp 192.0.2.7:4000 > 203.0.113.1:53")?
        .ended("eth1 192.0.2.7:4000 > 10.9.0.5:53")?
        .foreseen()?;
    let second = network.send(&"eth0 udp 192.0.2.7:4000 > 203.0.113.2:53".parse()?)?;
    let flow = second.left[0].flow;
    ensure!(flow.source.ip().to_string() == "192.0.2.7" && flow.source.port() != 4000, "{second}");
    Ok(())
}

/// A node that masquerades both families.
fn masquerading(how: &str) -> Result<Network> {
    let network = router()?;
    network.nft(&format!(
        "table inet t {{ chain post {{ type nat hook postrouting priority srcnat;
          oifname \"eth1\" counter {how} comment \"nat\"; }}
}}"
    ))?;
    Ok(network)
}

/// Sends a probe whose port may be anything: it must leave with this source address.
fn leaves(network: &Network, probe: &str, address: &str) -> Result<(SocketAddr, Observation)> {
    let seen = network.observe(&probe.parse()?)?;
    let source = seen.only()?.flow.source;
    ensure!(source.ip().to_string() == address, "{probe}: {seen}");
    seen.counted(&[("nat", 1)])?;
    Ok((source, seen))
}

/// Towards another server, or of another protocol, it is another tuple; and each answer finds its
/// own way back. A source that is mapped keeps its mapping for other servers (`find_appropriate_src`
/// in net/netfilter/nf_nat_core.c), except with a random port.
fn protocols() -> Result<()> {
    let network = masquerading("masquerade")?;
    let mut failures = Vec::new();
    for protocol in ["tcp", "udp"] {
        for (clients, servers, node) in [
            (
                ["192.0.2.7", "192.0.2.8", "192.0.2.9"],
                ["10.9.0.5", "10.9.0.6", "10.9.0.7"],
                "10.1.0.11",
            ),
            (
                ["[2001:db8::7]", "[2001:db8::8]", "[2001:db8::9]"],
                ["[fd00:9::5]", "[fd00:9::6]", "[fd00:9::7]"],
                "[fd00:b::11]",
            ),
        ] {
            let check = || -> Result<()> {
                let ([first, second, third], [server, other, elsewhere]) = (clients, servers);
                let opened =
                    shoot(&network, &format!("eth0 {protocol} {first}:4000 > {server}:80"))?;
                opened.ended(&format!("eth1 {node}:4000 > {server}:80"))?.foreseen()?;
                let probe = format!("eth0 {protocol} {second}:4000 > {server}:80");
                let (source, seen) = leaves(&network, &probe, node.trim_matches(['[', ']']))?;
                ensure!(source.port() >= 1024 && source.port() != 4000, "{source}");
                for (client, seen) in [(first, &opened.seen), (second, &seen)] {
                    let back = network.answer(seen.only()?)?;
                    back.ended(&format!("eth0 {server}:80 > {client}:4000"))?;
                }
                shoot(&network, &format!("eth0 {protocol} {third}:4000 > {other}:80"))?
                    .ended(&format!("eth1 {node}:4000 > {other}:80"))?
                    .foreseen()?;
                // Who has a mapping keeps it, towards others too, where its port would be free.
                let probe = format!("eth0 {protocol} {second}:4000 > {elsewhere}:80");
                let (again, _) = leaves(&network, &probe, node.trim_matches(['[', ']']))?;
                ensure!(again == source, "{again} and {source}");
                Ok(())
            };
            failures.extend(check().with_context(|| format!("{protocol} to {servers:?}")).err());
        }
    }
    none(failures)
}

/// The new port is from the old one's range: below 512, 600 to 1023, or from 1024 on
/// (`nf_nat_l4proto_unique_tuple`).
fn low() -> Result<()> {
    let network = masquerading("masquerade")?;
    for (port, range) in
        [(511, 1..=511), (512, 600..=1023), (1023, 600..=1023), (1024, 1024..=65535)]
    {
        for client in 7..=9 {
            let probe = format!("eth0 udp 192.0.2.{client}:{port} > 10.9.0.5:53");
            let (source, _) = leaves(&network, &probe, "10.1.0.11")?;
            ensure!((client == 7) == (source.port() == port), "{probe}: {source}");
            ensure!(client == 7 || range.contains(&source.port()), "{probe}: {source}");
        }
    }
    Ok(())
}

/// All echo requests of tests have one identifier.
fn echoes() -> Result<()> {
    let network = masquerading("masquerade")?;
    for (clients, server, node) in [
        (["192.0.2.7", "192.0.2.8"], "10.9.0.5", "10.1.0.11"),
        (["2001:db8::7", "2001:db8::8"], "fd00:9::5", "fd00:b::11"),
    ] {
        let mut sent = Vec::new();
        for client in clients {
            let shot = shoot(&network, &format!("eth0 icmp {client} > {server}"))?;
            shot.ended(&format!("eth1 {node} > {server}"))?.counted(&[("nat", 1)])?.foreseen()?;
            let identifier =
                arrived(&shot.seen.only()?.frame).context("a packet")?.bytes[4..6].to_vec();
            sent.push((client, identifier, shot));
        }
        ensure!(sent[0].1 != sent[1].1, "{:?}", sent[0].1);
        for (client, _, shot) in &sent {
            let answer = network.answer(shot.seen.only()?)?;
            answer.ended(&format!("eth0 {server} > {client}"))?;
            let bytes = arrived(&answer.only()?.frame).context("a packet")?.bytes.to_vec();
            ensure!(bytes[4..6] == sent[0].1, "the identifier of the first is the clients' own");
        }
    }
    Ok(())
}

/// `--random-fully` and nft's `fully-random`: any port of the range, whether the old one is free or
/// not. That three connections keep theirs by chance is as good as excluded.
fn random() -> Result<()> {
    for rule in
        ["masquerade random", "masquerade fully-random", "snat ip to 10.1.0.11 fully-random"]
    {
        let network = masquerading(rule)?;
        let mut ports = Vec::new();
        for client in 7..=9 {
            let probe = format!("eth0 udp 192.0.2.{client}:4000 > 10.9.0.{client}:53");
            let shot = shoot(&network, &probe)?;
            shot.counted(&[("nat", 1)])?.foreseen().context(rule)?;
            ports.push(shot.seen.only()?.flow.source.port());
        }
        ensure!(ports.iter().all(|port| *port >= 1024), "{rule}: {ports:?}");
        ensure!(ports.iter().any(|port| *port != 4000), "{rule}: {ports:?}");
    }
    Ok(())
}

/// Rules count, and the packet for which no port is left is dropped at the end of the way, when its
/// connection is to be confirmed. One port is a range too.
fn used_up() -> Result<()> {
    for (rule, protocol, address, ports) in [
        ("snat ip to 10.1.0.99:30000-30001", "udp", "10.1.0.99", &[30000, 30001][..]),
        ("snat ip to 10.1.0.99:30000-30001", "tcp", "10.1.0.99", &[30000, 30001]),
        ("masquerade to :30000-30001", "udp", "10.1.0.11", &[30000, 30001]),
        ("snat ip to 10.1.0.99:30000", "udp", "10.1.0.99", &[30000]),
    ] {
        let network = masquerading(&format!("meta l4proto {protocol} {rule}"))?;
        let mut taken = Vec::new();
        let mut check = || -> Result<()> {
            for client in 0..ports.len() {
                let probe = format!("eth0 {protocol} 192.0.2.{client}:4000 > 10.9.0.5:53");
                taken.push(leaves(&network, &probe, address)?.0.port());
            }
            taken.sort_unstable();
            ensure!(taken == ports, "{taken:?}");
            let one_more = format!("eth0 {protocol} 192.0.2.99:4000 > 10.9.0.5:53");
            let seen = network.observe(&one_more.parse()?)?;
            seen.ended("dropped")?;
            seen.counted(&[("nat", 1)])?;
            // To another server there is room.
            leaves(&network, &one_more.replace("0.5:53", "0.6:53"), address)?;
            Ok(())
        };
        check().with_context(|| format!("{protocol} {rule}"))?;
    }
    Ok(())
}

/// A range for a destination gives its first port that is free for this client, and after the last
/// one the client's port changes.
fn destinations() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t { chain pre { type nat hook prerouting priority dstnat;
          ip daddr 203.0.113.0/24 meta l4proto udp counter dnat to 10.9.0.5:8000-8001 comment \"nat\"; }
}",
    )?;
    let client = "192.0.2.7:4000";
    shoot(&network, &format!("eth0 udp {client} > 203.0.113.1:53"))?
        .ended(&format!("eth1 {client} > 10.9.0.5:8000"))?
        .foreseen()?;
    network
        .observe(&format!("eth0 udp {client} > 203.0.113.2:53").parse()?)?
        .ended(&format!("eth1 {client} > 10.9.0.5:8001"))?;
    let (source, _) =
        leaves(&network, &format!("eth0 udp {client} > 203.0.113.3:53"), "192.0.2.7")?;
    ensure!(source.port() != 4000, "{source}");
    Ok(())
}

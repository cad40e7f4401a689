//! Point 18: ICMP errors about translated connections (`nf_nat_icmp_reply_translation`,
//! `nf_nat_icmpv6_reply_translation`). The evaluator answers for the packet that opens the
//! connection; what follows is what the kernel does.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use unmasq_lab::Network;
use unmasq_lab::frame::checksums_hold;
use unmasq_lab::observation::{Left, Observation};
use unmasq_lab::probe::show;
use unmasq_lab::reply::{Complaint, arrived, error_about, quoted};

use crate::trials::Test;
use crate::{none, router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("icmp_errors::both_headers_are_translated", both),
    ("icmp_errors::a_clients_error_is_translated_too", from_client),
    ("icmp_errors::of_a_router_on_the_way", from_router),
    ("icmp_errors::of_a_masqueraded_connection", masqueraded),
    ("icmp_errors::of_nothing_that_is_known", unrelated),
    ("icmp_errors::without_tracking", untracked),
];

const WATCH: &str = "
 chain first { type filter hook prerouting priority -190;
  ct state related ct mark 7 counter comment \"marked\"; }
 chain through { type filter hook forward priority filter;
  ct state established counter comment \"established\"
  ct state related counter comment \"related\"
  ct state invalid counter comment \"invalid\"; }
 chain in { type filter hook input priority filter;
  ct state invalid counter comment \"invalid here\"
  ct state related counter comment \"related here\"; }
 chain prenat { type nat hook prerouting priority -110; counter comment \"pre\"; }
 chain postnat { type nat hook postrouting priority 90; counter comment \"post\"; }
 chain note { type filter hook postrouting priority 0; ct state new ct mark set 7; }
";

const RELATED: &[(&str, u64)] =
    &[("related", 1), ("established", 0), ("invalid", 0), ("pre", 0), ("post", 0), ("marked", 1)];

/// The router, with a DNAT of the service to 10.9.0.5:8080 or fd00:9::5 and a masquerade behind
/// eth1.
fn service() -> Result<Network> {
    let network = router()?;
    network.nft(&format!(
        "table inet t {{{WATCH}
 chain pre {{ type nat hook prerouting priority dstnat;
  ip daddr 203.0.113.80 meta l4proto {{ tcp, udp }} dnat ip to 10.9.0.5:8080
  ip daddr 203.0.113.80 dnat ip to 10.9.0.5
  ip6 daddr 2001:db8:80::80 meta l4proto {{ tcp, udp }} dnat ip6 to [fd00:9::5]:8080
  ip6 daddr 2001:db8:80::80 dnat ip6 to fd00:9::5; }}
 chain post {{ type nat hook postrouting priority srcnat; oifname \"eth1\" masquerade; }}
}}"
    ))?;
    Ok(network)
}

/// Probes to the service, with their ends.
const FLOWS: [(&str, &str); 6] = [
    ("eth0 udp 192.0.2.7:4000 > 203.0.113.80:80", "eth1 10.1.0.11:4000 > 10.9.0.5:8080"),
    ("eth0 tcp 192.0.2.7:4000 > 203.0.113.80:80", "eth1 10.1.0.11:4000 > 10.9.0.5:8080"),
    ("eth0 icmp 192.0.2.7 > 203.0.113.80", "eth1 10.1.0.11 > 10.9.0.5"),
    (
        "eth0 udp [2001:db8::7]:4000 > [2001:db8:80::80]:80",
        "eth1 [fd00:b::11]:4000 > [fd00:9::5]:8080",
    ),
    (
        "eth0 tcp [2001:db8::7]:4000 > [2001:db8:80::80]:80",
        "eth1 [fd00:b::11]:4000 > [fd00:9::5]:8080",
    ),
    ("eth0 icmp 2001:db8::7 > 2001:db8:80::80", "eth1 fd00:b::11 > fd00:9::5"),
];

/// Sends an error about a packet that left, from somebody where it went.
fn complain(network: &Network, left: &Left, from: IpAddr, what: Complaint) -> Result<Observation> {
    let error = error_about(&left.frame, from, what).context("no packet to complain of")?;
    network.observe_frame(&left.device, &error)
}

/// The packet that an error which left is about, as a probe's addresses.
fn about(seen: &Observation) -> Result<String> {
    let left = seen.only()?;
    ensure!(checksums_hold(&left.frame), "a wrong checksum");
    let flow = quoted(&left.frame).context("no error left")?;
    Ok(format!("{} > {}", show(flow.source), show(flow.destination)))
}

/// `DEVICE PROTOCOL SOURCE > DESTINATION` without the first two.
fn addresses(probe: &str) -> &str {
    probe.splitn(3, ' ').nth(2).unwrap_or_default()
}

fn both() -> Result<()> {
    let network = service()?;
    let mut failures = Vec::new();
    for (probe, there) in FLOWS {
        let check = || -> Result<()> {
            let first = shoot(&network, probe)?;
            first.ended(there)?.counted(&[("pre", 1), ("post", 1)])?.foreseen()?;
            let left = first.seen.only()?;
            let (client, service) =
                (first.seen.probe.source.ip(), first.seen.probe.destination.ip());
            for what in [Complaint::PortUnreachable, Complaint::TooBig(1400)] {
                let error = complain(&network, left, left.flow.destination.ip(), what)?;
                error.ended(&format!("eth0 {service} > {client}"))?;
                error.counted(RELATED)?;
                let inner = about(&error)?;
                ensure!(inner == addresses(probe), "{what:?} is about {inner}");
                let bytes = arrived(&error.only()?.frame).context("a packet")?.bytes.to_vec();
                ensure!(what != Complaint::TooBig(1400) || bytes[6..8] == 1400u16.to_be_bytes());
            }
            // Nor does an error answer the connection.
            network.observe(&probe.parse()?)?.counted(&[("established", 0), ("pre", 0)])
        };
        failures.extend(check().with_context(|| probe.to_owned()).err());
    }
    none(failures)
}

/// About an answer: the same the other way around.
fn from_client() -> Result<()> {
    let network = service()?;
    let mut failures = Vec::new();
    for (probe, there) in FLOWS {
        let check = || -> Result<()> {
            let first = shoot(&network, probe)?;
            first.ended(there)?.foreseen()?;
            let left = first.seen.only()?;
            let answer = network.answer(left)?;
            let client = first.seen.probe.source.ip();
            let error = complain(&network, answer.only()?, client, Complaint::PortUnreachable)?;
            let (node, server) = (left.flow.source, left.flow.destination);
            error.ended(&format!("eth1 {} > {}", node.ip(), server.ip()))?;
            error.counted(RELATED)?;
            let inner = about(&error)?;
            ensure!(inner == format!("{} > {}", show(server), show(node)), "it is about {inner}");
            Ok(())
        };
        failures.extend(check().with_context(|| probe.to_owned()).err());
    }
    none(failures)
}

/// Somebody between the node and the server: the error's own source becomes the service's, as if
/// the service had sent it.
fn from_router() -> Result<()> {
    let network = service()?;
    for (probe, router) in [(FLOWS[0], "10.1.0.2"), (FLOWS[3], "fd00:b::2")] {
        let (probe, there) = probe;
        let first = shoot(&network, probe)?;
        first.ended(there)?.foreseen()?;
        let left = first.seen.only()?;
        let error = complain(&network, left, router.parse()?, Complaint::TimeExceeded)?;
        let (client, service) = (first.seen.probe.source.ip(), first.seen.probe.destination.ip());
        error.ended(&format!("eth0 {service} > {client}"))?;
        error.counted(RELATED)?;
        let inner = about(&error)?;
        ensure!(inner == addresses(probe), "it is about {inner}");
    }
    Ok(())
}

/// Where the destination is not translated, a router's error keeps its source.
fn masqueraded() -> Result<()> {
    for (program, probe, there, router) in [
        (
            "iptables-legacy",
            "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53",
            "eth1 10.1.0.11:4000 > 10.9.0.5:53",
            "10.1.0.2",
        ),
        (
            "ip6tables-nft",
            "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53",
            "eth1 [fd00:b::11]:4000 > [fd00:9::5]:53",
            "fd00:b::2",
        ),
    ] {
        let network = router_with(WATCH)?;
        network.restore(
            program,
            "*nat\n-A POSTROUTING -o eth1 -m comment --comment masq -j MASQUERADE\nCOMMIT\n",
        )?;
        let first = shoot(&network, probe)?;
        first.ended(there)?.counted(&[("masq", 1)])?.foreseen()?;
        let left = first.seen.only()?;
        let server = left.flow.destination.ip();
        let client = first.seen.probe.source.ip();
        for from in [router.parse()?, server] {
            let error = complain(&network, left, from, Complaint::HostUnreachable)?;
            error.ended(&format!("eth0 {from} > {client}"))?;
            error.counted(RELATED)?;
            error.counted(&[("masq", 0)])?;
            let inner = about(&error)?;
            ensure!(inner == addresses(probe), "it is about {inner}");
        }
    }
    Ok(())
}

fn router_with(chains: &str) -> Result<Network> {
    let network = router()?;
    network.nft(&format!("table inet t {{{chains}}}"))?;
    Ok(network)
}

/// An error about a connection that is not there is invalid; nothing translates it.
fn unrelated() -> Result<()> {
    let network = service()?;
    for (probe, there) in [FLOWS[0], FLOWS[4]] {
        let first = shoot(&network, probe)?;
        first.ended(there)?.foreseen()?;
        network.forget_connections()?;
        let left = first.seen.only()?;
        let server = left.flow.destination.ip();
        let error = complain(&network, left, server, Complaint::PortUnreachable)?;
        error.ended(&format!("local {server} > {}", left.flow.source.ip()))?;
        error.counted(&[("invalid here", 1), ("related here", 0), ("pre", 0), ("post", 0)])?;
    }
    Ok(())
}

/// Without tracking nobody knows what an error belongs to.
fn untracked() -> Result<()> {
    let network = router_with(
        " chain raw { type filter hook prerouting priority raw; meta l4proto { udp, icmp } notrack; }
 chain through { type filter hook forward priority filter;
  ct state untracked counter comment \"untracked\"
  ct state related counter comment \"related\"; }
",
    )?;
    let first = shoot(&network, "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53")?;
    first.ended("eth1 192.0.2.7:4000 > 10.9.0.5:53")?.counted(&[("untracked", 1)])?.foreseen()?;
    let left = first.seen.only()?;
    let error = complain(&network, left, "10.9.0.5".parse()?, Complaint::PortUnreachable)?;
    error.ended("eth0 10.9.0.5 > 192.0.2.7")?;
    error.counted(&[("untracked", 1), ("related", 0)])?;
    ensure!(about(&error)? == "192.0.2.7:4000 > 10.9.0.5:53");
    Ok(())
}

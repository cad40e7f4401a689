//! What the kernel does with packets, and whether the evaluator had said so. Each module is one
//! numbered point of a lab note in docs/lab-notes.

mod bridge;
mod conntrack;
mod conversation;
mod details;
mod edges;
mod equal_priority;
mod foreign;
mod icmp_errors;
mod marks;
mod masquerade;
mod namespaces;
mod nat_order;
mod pin;
mod plain;
mod ports;
mod random;
mod recent;
mod reroute;
mod routing;
mod sequence;
mod sets;
mod state;
mod targets;
#[path = "../trials/mod.rs"]
mod trials;
mod verdicts;
mod zones;

use std::process::ExitCode;

use anyhow::{Result, bail};
use unmasq_lab::Network;
use unmasq_lab::judge::{Shot, judge};

fn main() -> ExitCode {
    let modules = [
        namespaces::TESTS,
        plain::TESTS,
        nat_order::TESTS,
        equal_priority::TESTS,
        conntrack::TESTS,
        conversation::TESTS,
        reroute::TESTS,
        routing::TESTS,
        masquerade::TESTS,
        ports::TESTS,
        pin::TESTS,
        marks::TESTS,
        bridge::TESTS,
        verdicts::TESTS,
        foreign::TESTS,
        targets::TESTS,
        edges::TESTS,
        details::TESTS,
        sequence::TESTS,
        recent::TESTS,
        sets::TESTS,
        state::TESTS,
        icmp_errors::TESTS,
        zones::TESTS,
    ];
    trials::run(modules.into_iter().flatten().copied())
}

/// A node between two networks: eth0 towards clients and the default gateway, eth1 towards
/// servers in 10.1.0.0/24 and, through 10.1.0.2, in 10.9.0.0/16; the same in IPv6.
fn router() -> Result<Network> {
    let network = Network::new(&["eth0", "eth1"])?;
    network.script(
        "ip addr add 10.0.0.11/24 dev eth0
         ip addr add 10.1.0.11/24 dev eth1
         ip addr add fd00:a::11/64 dev eth0 nodad
         ip addr add fd00:b::11/64 dev eth1 nodad
         ip route add default via 10.0.0.1
         ip route add 10.9.0.0/16 via 10.1.0.2
         ip route add default via fd00:a::1
         ip route add fd00:9::/64 via fd00:b::2",
    )?;
    Ok(network)
}

/// Predicts a probe and sends it.
fn shoot(network: &Network, probe: &str) -> Result<Shot> {
    judge(network, &probe.parse()?)
}

/// Fails with all failures of a table, if there are any.
fn none(failures: Vec<anyhow::Error>) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    bail!("{} failed:\n{}", texts.len(), texts.join("\n"))
}

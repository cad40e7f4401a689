//! Random routing around fixed devices and addresses.
//!
//! Out: input of `ip -batch`, and kernel settings. The devices eth0 to eth3 have the addresses of
//! [`super::address::OWN`] (eth0 three, eth3 none).

use std::fmt::Write as _;

use unmasq_model::packet::Family;

use super::address::{Net, OWN};
use super::random::Random;

/// How a node is set up.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    /// Input of `ip -batch` for the family.
    pub(super) batch: String,
    /// Settings below /proc/sys, and their values.
    pub(super) settings: Vec<(String, &'static str)>,
}

/// A setup.
pub(super) fn topology(random: &mut Random, family: Family) -> Topology {
    let mut batch = String::new();
    let dad = if family == Family::V6 { " nodad" } else { "" };
    for (net, device) in OWN.iter().zip(["eth0", "eth0", "eth0", "eth1", "eth2"]) {
        let _ = writeln!(batch, "addr add {} dev {device}{dad}", net.show(family));
    }
    let n = |a, b, c, d, length| Net([a, b, c, d], length).show(family);
    let gateways = [
        format!("via {} dev eth0", n(10, 0, 0, 1, 32)),
        format!("via {} dev eth1", n(10, 1, 0, 2, 32)),
        format!("via {} dev eth2", n(10, 2, 0, 9, 32)),
        "dev eth3".to_owned(),
    ];
    let way = |random: &mut Random| gateways[random.below(4)].clone();
    let _ = writeln!(batch, "route add default {}", gateways[0]);
    let _ = writeln!(batch, "route add {} dev eth3", n(10, 3, 0, 0, 24));
    let _ = writeln!(batch, "route add {} {}", n(10, 9, 0, 0, 16), gateways[1]);
    let refusals = [("unreachable", 8), ("blackhole", 7), ("prohibit", 6)];
    for (kind, number) in refusals {
        let _ = writeln!(batch, "route add {kind} {}", n(10, number, 0, 0, 24));
    }
    for (chance, net) in [(30, n(10, 9, 1, 0, 24)), (20, n(203, 0, 113, 80, 31))] {
        if random.percent(chance) {
            let way = way(random);
            let _ = writeln!(batch, "route add {net} {way}");
        }
    }
    if random.percent(20) {
        let way = way(random);
        let metric = random.pick(&["50", "2000"]);
        let _ = writeln!(batch, "route add {} {way} metric {metric}", n(10, 9, 0, 0, 16));
    }
    for table in 100..103 {
        if random.percent(70) {
            let way = way(random);
            let _ = writeln!(batch, "route add default {way} table {table}");
        }
        match random.below(5) {
            0 => {
                let way = way(random);
                let _ = writeln!(batch, "route add {} {way} table {table}", n(10, 9, 0, 0, 16));
            }
            1 => {
                let _ = writeln!(batch, "route add throw {} table {table}", n(10, 9, 0, 0, 16));
            }
            2 => {
                let kind = random.pick(&["unreachable", "blackhole", "prohibit"]);
                let _ = writeln!(batch, "route add {kind} {} table {table}", n(10, 9, 1, 0, 24));
            }
            _ => {}
        }
    }
    for preference in 0..random.below(6) {
        let rule = policy(random, family);
        let _ = writeln!(batch, "rule add pref {} {rule}", 100 + preference);
    }
    Topology { batch, settings: settings(random, family) }
}

fn policy(random: &mut Random, family: Family) -> String {
    let n = |a, b, c, d, length| Net([a, b, c, d], length).show(family);
    let selector = match random.below(10) {
        0 => "fwmark 0x1".to_owned(),
        1 => "fwmark 0x1/0x1".to_owned(),
        2 => "fwmark 0x4000/0xc000".to_owned(),
        3 => "not fwmark 0x0/0xff".to_owned(),
        4 => format!("from {}", n(10, 0, 0, 12, 32)),
        5 => format!("from {}", n(192, 0, 2, 8, 29)),
        6 => format!("to {}", n(10, 9, 0, 0, 16)),
        7 => format!("iif {}", random.pick(&["eth0", "eth1", "lo"])),
        8 => format!("fwmark 0x3/0xff from {}", n(10, 0, 0, 0, 8)),
        _ => "ipproto udp".to_owned(),
    };
    let action = match random.below(12) {
        0 => "unreachable".to_owned(),
        1 => "blackhole".to_owned(),
        2 => "prohibit".to_owned(),
        3 => "lookup main suppress_prefixlength 0".to_owned(),
        _ => format!("lookup {}", 100 + random.below(3)),
    };
    format!("{selector} {action}")
}

fn settings(random: &mut Random, family: Family) -> Vec<(String, &'static str)> {
    let mut settings = Vec::new();
    let kind = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    if random.percent(10) {
        let device = random.pick(&["eth0", "eth1"]);
        settings.push((format!("net/{kind}/conf/{device}/forwarding"), "0"));
    }
    if family == Family::V4 {
        for device in ["eth0", "eth1", "eth2", "eth3", "all"] {
            if random.percent(15) {
                let value = random.pick(&["1", "2"]);
                settings.push((format!("net/ipv4/conf/{device}/rp_filter"), value));
            }
        }
        for (name, chance) in [("src_valid_mark", 40), ("route_localnet", 10), ("accept_local", 10)]
        {
            if random.percent(chance) {
                let device = random.pick(&["eth0", "eth1", "all"]);
                settings.push((format!("net/ipv4/conf/{device}/{name}"), "1"));
            }
        }
    }
    settings
}

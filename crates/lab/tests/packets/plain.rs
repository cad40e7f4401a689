//! Forwarded, from the host, to the host, over loopback: in every back end and both families.

use anyhow::Result;
use unmasq_lab::Network;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("plain::iptables_legacy_v4", || walk(V4, |network| xtables(network, "iptables-legacy", V4))),
    ("plain::iptables_nft_v4", || walk(V4, |network| xtables(network, "iptables-nft", V4))),
    ("plain::nft_v4", || walk(V4, |network| nft(network, V4))),
    ("plain::ip6tables_legacy_v6", || walk(V6, |network| xtables(network, "ip6tables-legacy", V6))),
    ("plain::ip6tables_nft_v6", || walk(V6, |network| xtables(network, "ip6tables-nft", V6))),
    ("plain::nft_v6", || walk(V6, |network| nft(network, V6))),
];

/// Addresses of one family, as they stand beside a port and alone.
#[derive(Clone, Copy)]
struct Family {
    nft: &'static str,
    client: &'static str,
    near: &'static str,
    far: &'static str,
    server: &'static str,
    vip: &'static str,
}

const V4: Family = Family {
    nft: "ip",
    client: "192.0.2.7",
    near: "10.0.0.11",
    far: "10.1.0.11",
    server: "10.9.0.5",
    vip: "203.0.113.80",
};
const V6: Family = Family {
    nft: "ip6",
    client: "[2001:db8::7]",
    near: "[fd00:a::11]",
    far: "[fd00:b::11]",
    server: "[fd00:9::5]",
    vip: "[2001:db8:80::80]",
};

fn walk(family: Family, load: fn(&Network) -> Result<()>) -> Result<()> {
    let network = router()?;
    load(&network)?;
    let Family { client, near, far, server, vip, .. } = family;
    // From, to, the end, and the counters of: dnat, masq, pre, in, forward, out, post.
    let cases = [
        (
            format!("eth0 tcp {client}:4000 > {vip}:80"),
            format!("eth1 {far}:4000 > {server}:8080"),
            [1, 1, 1, 0, 1, 0, 1],
        ),
        (
            format!("eth0 udp {client}:4001 > {server}:53"),
            format!("eth1 {far}:4001 > {server}:53"),
            [0, 1, 1, 0, 1, 0, 1],
        ),
        (
            format!("host udp {far}:4002 > {server}:53"),
            format!("eth1 {far}:4002 > {server}:53"),
            [0, 0, 0, 0, 0, 1, 1],
        ),
        (
            format!("host tcp {far}:4003 > {server}:80"),
            format!("eth1 {far}:4003 > {server}:80"),
            [0, 0, 0, 0, 0, 1, 1],
        ),
        (
            format!("eth0 tcp {client}:4004 > {near}:22"),
            format!("local {client}:4004 > {near}:22"),
            [0, 0, 1, 1, 0, 0, 0],
        ),
        // Prerouting is passed, but the nat chain in it is not asked again.
        (
            format!("host tcp {near}:4005 > {near}:22"),
            format!("local {near}:4005 > {near}:22"),
            [0, 0, 1, 1, 0, 1, 1],
        ),
        (
            format!("host tcp {near}:4006 > {vip}:80"),
            format!("eth1 {near}:4006 > {server}:8080"),
            [0, 0, 0, 0, 0, 1, 1],
        ),
        (
            format!("eth0 icmp {} > {}", bare(client), bare(server)),
            format!("eth1 {} > {}", bare(far), bare(server)),
            [0, 1, 1, 0, 1, 0, 1],
        ),
        (
            format!("eth0 icmp {} > {}", bare(client), bare(near)),
            format!("local {} > {}", bare(client), bare(near)),
            [0, 0, 1, 1, 0, 0, 0],
        ),
        (
            format!("host icmp {} > {}", bare(far), bare(server)),
            format!("eth1 {} > {}", bare(far), bare(server)),
            [0, 0, 0, 0, 0, 1, 1],
        ),
    ];
    for (probe, end, counts) in cases {
        let names = ["dnat", "masq", "pre", "in", "forward", "out", "post"];
        let counts: Vec<(&str, u64)> = names.into_iter().zip(counts).collect();
        shoot(&network, &probe)?.ended(&end)?.counted(&counts)?.foreseen()?;
    }
    Ok(())
}

fn xtables(network: &Network, program: &str, family: Family) -> Result<()> {
    let Family { client, server, vip, .. } = family;
    let (client, vip) = (bare(client), bare(vip));
    network.restore(
        program,
        &format!(
            "*mangle
-A PREROUTING -m comment --comment pre
-A POSTROUTING -m comment --comment post
COMMIT
*nat
-A PREROUTING -d {vip} -p tcp -m tcp --dport 80 -m comment --comment dnat -j DNAT --to-destination {server}:8080
-A OUTPUT -d {vip} -p tcp -m tcp --dport 80 -m comment --comment dnat-out -j DNAT --to-destination {server}:8080
-A POSTROUTING -s {client} -o eth1 -m comment --comment masq -j MASQUERADE
COMMIT
*filter
-A INPUT -m comment --comment in
-A FORWARD -i eth0 -o eth1 -m comment --comment forward
-A OUTPUT -m comment --comment out
COMMIT
"
        ),
    )
}

fn nft(network: &Network, family: Family) -> Result<()> {
    let Family { nft, client, server, vip, .. } = family;
    let (client, vip) = (bare(client), bare(vip));
    network.nft(&format!(
        "table {nft} t {{
 chain pre {{ type filter hook prerouting priority mangle; counter comment \"pre\"; }}
 chain prenat {{ type nat hook prerouting priority dstnat;
  {nft} daddr {vip} tcp dport 80 counter dnat to {server}:8080 comment \"dnat\"; }}
 chain outnat {{ type nat hook output priority -100;
  {nft} daddr {vip} tcp dport 80 counter dnat to {server}:8080 comment \"dnat-out\"; }}
 chain in {{ type filter hook input priority filter; counter comment \"in\"; }}
 chain through {{ type filter hook forward priority filter;
  iifname \"eth0\" oifname \"eth1\" counter comment \"forward\"; }}
 chain out {{ type filter hook output priority filter; counter comment \"out\"; }}
 chain post {{ type filter hook postrouting priority mangle; counter comment \"post\"; }}
 chain postnat {{ type nat hook postrouting priority srcnat;
  {nft} saddr {client} oifname \"eth1\" counter masquerade comment \"masq\"; }}
}}"
    ))
}

fn bare(address: &str) -> &str {
    address.trim_matches(['[', ']'])
}

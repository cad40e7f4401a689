//! Point 4: what makes a packet of the host be routed again.

use anyhow::Result;
use unmasq_lab::Network;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("reroute::which_output_chains_route_again_when_the_mark_changes", mark_tables),
    ("reroute::which_nft_chains_route_again_when_the_mark_changes", mark_nft),
    ("reroute::dnat_in_output_routes_again", dnat),
    ("reroute::later_output_chains_see_the_old_device", devices),
    ("reroute::without_a_first_route_no_hook_is_passed", no_first_route),
    ("reroute::marks_route_again_in_ipv6", mark_v6),
    ("reroute::protocol_and_ports_count_again", protocol_and_ports),
];

/// Mark 1 is routed out of eth1; unmarked packets to the Internet leave by eth0.
fn marked() -> Result<Network> {
    let network = router()?;
    network.script(
        "ip rule add fwmark 0x1 table 100
         ip route add default via 10.1.0.2 dev eth1 table 100
         ip -6 rule add fwmark 0x1 table 100
         ip -6 route add default via fd00:b::2 dev eth1 table 100",
    )?;
    Ok(network)
}

const PROBE: &str = "host udp 10.0.0.11:4000 > 198.51.100.9:53";

fn mark_tables() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        for (table, out) in
            [("mangle", "eth1"), ("raw", "eth0"), ("nat", "eth0"), ("filter", "eth0")]
        {
            let network = marked()?;
            let rule = "-A OUTPUT -m comment --comment mark -j MARK --set-xmark 0x1/0xffffffff";
            // NAT chains are asked only where something tracks connections.
            let ct = "*filter\n-A FORWARD -m conntrack --ctstate NEW\nCOMMIT\n";
            network.restore(program, &format!("*{table}\n{rule}\nCOMMIT\n{ct}"))?;
            shoot(&network, PROBE)?
                .ended(&format!("{out} 10.0.0.11:4000 > 198.51.100.9:53"))?
                .counted(&[("mark", 1)])?
                .foreseen()?;
        }
    }
    Ok(())
}

fn mark_nft() -> Result<()> {
    for (kind, priority, out) in
        [("route", -150, "eth1"), ("route", 10, "eth1"), ("filter", -150, "eth0")]
    {
        let network = marked()?;
        network.nft(&format!(
            "table ip t {{ chain out {{ type {kind} hook output priority {priority};
              counter meta mark set 0x1 comment \"mark\"; }}
}}"
        ))?;
        shoot(&network, PROBE)?
            .ended(&format!("{out} 10.0.0.11:4000 > 198.51.100.9:53"))?
            .counted(&[("mark", 1)])?
            .foreseen()?;
    }
    Ok(())
}

fn dnat() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = router()?;
        network.restore(
            program,
            "*nat
-A OUTPUT -d 198.51.100.9 -m comment --comment dnat -j DNAT --to-destination 10.9.0.5
COMMIT
*filter
-A OUTPUT -o eth0 -m comment --comment old-device
-A OUTPUT -o eth1 -m comment --comment new-device
COMMIT
*mangle
-A POSTROUTING -o eth1 -m comment --comment post
COMMIT
",
        )?;
        shoot(&network, PROBE)?
            .ended("eth1 10.0.0.11:4000 > 10.9.0.5:53")?
            .counted(&[("dnat", 1), ("old-device", 1), ("new-device", 0), ("post", 1)])?
            .foreseen()?;
    }
    Ok(())
}

fn devices() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = marked()?;
        network.restore(
            program,
            "*mangle
-A OUTPUT -m comment --comment mark -j MARK --set-xmark 0x1/0xffffffff
-A POSTROUTING -o eth0 -m comment --comment post-old
-A POSTROUTING -o eth1 -m comment --comment post-new
COMMIT
*filter
-A OUTPUT -o eth0 -m comment --comment old-device
-A OUTPUT -o eth1 -m comment --comment new-device
COMMIT
",
        )?;
        shoot(&network, PROBE)?
            .ended("eth1 10.0.0.11:4000 > 198.51.100.9:53")?
            .counted(&[
                ("mark", 1),
                ("old-device", 1),
                ("new-device", 0),
                ("post-old", 0),
                ("post-new", 1),
            ])?
            .foreseen()?;
    }
    Ok(())
}

fn no_first_route() -> Result<()> {
    let network = marked()?;
    network.script("ip route del default")?;
    network.restore(
        "iptables-legacy",
        "*raw
-A OUTPUT -m comment --comment raw
COMMIT
*mangle
-A OUTPUT -m comment --comment mark -j MARK --set-xmark 0x1/0xffffffff
COMMIT
",
    )?;
    shoot(&network, PROBE)?
        .ended("error Network is unreachable")?
        .counted(&[("raw", 0), ("mark", 0)])?
        .foreseen()
}

fn mark_v6() -> Result<()> {
    let probe = "host udp [fd00:a::11]:4000 > [2001:db8:9::9]:53";
    for (program, table, out) in [
        ("ip6tables-legacy", "mangle", "eth1"),
        ("ip6tables-nft", "mangle", "eth1"),
        ("ip6tables-legacy", "filter", "eth0"),
    ] {
        let network = marked()?;
        let rule = "-A OUTPUT -m comment --comment mark -j MARK --set-xmark 0x1/0xffffffff";
        network.restore(program, &format!("*{table}\n{rule}\nCOMMIT\n"))?;
        shoot(&network, probe)?
            .ended(&format!("{out} [fd00:a::11]:4000 > [2001:db8:9::9]:53"))?
            .counted(&[("mark", 1)])?
            .foreseen()?;
    }
    Ok(())
}

/// What is routed again is looked up with its protocol and ports, like the first time.
fn protocol_and_ports() -> Result<()> {
    for (probe, ended) in [
        (PROBE, "eth1 10.0.0.11:4000 > 198.51.100.9:53"),
        (
            "host udp [fd00:a::11]:4000 > [2001:db8::9]:53",
            "eth1 [fd00:a::11]:4000 > [2001:db8::9]:53",
        ),
    ] {
        for selector in ["ipproto udp", "ipproto udp dport 53"] {
            let network = router()?;
            network.script(&format!(
                "ip rule add {selector} table 100
                 ip route add default via 10.1.0.2 dev eth1 table 100
                 ip -6 rule add {selector} table 100
                 ip -6 route add default via fd00:b::2 dev eth1 table 100"
            ))?;
            network.nft(
                "table inet t { chain out { type route hook output priority -150;
                 counter meta mark set 0x5 comment \"mark\"; }\n}",
            )?;
            shoot(&network, probe)?.ended(ended)?.counted(&[("mark", 1)])?.foreseen()?;
        }
    }
    Ok(())
}

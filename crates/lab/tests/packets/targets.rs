//! NAT targets of all back ends, and what later chains see of them.

use anyhow::{Context, Result, ensure};

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("targets::xtables", xtables),
    ("targets::xtables_v6", xtables_v6),
    ("targets::nft", nft),
    ("targets::a_random_port_is_in_the_predicted_range", random_port),
    ("targets::loopback_keeps_mark_and_connection", loopback),
    ("targets::drop_in_a_nat_chain", drop_in_nat),
];

/// A name, rules of the nat table, a probe, its end, and how often the rule "x" counts.
type Case = (&'static str, &'static str, &'static str, &'static str, u64);

const XTABLES: &[Case] = &[
    (
        "redirect of what comes in",
        "-A PREROUTING -p tcp -m tcp --dport 80 -m comment --comment x -j REDIRECT --to-ports 8080",
        "eth0 tcp 192.0.2.7:4000 > 203.0.113.80:80",
        "local 192.0.2.7:4000 > 10.0.0.11:8080",
        1,
    ),
    (
        "redirect without port",
        "-A PREROUTING -p udp -m comment --comment x -j REDIRECT",
        "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53",
        "local 192.0.2.7:4000 > 10.0.0.11:53",
        1,
    ),
    (
        "redirect of what the host sends",
        "-A OUTPUT -p udp -m comment --comment x -j REDIRECT --to-ports 5353",
        "host udp 10.1.0.11:4000 > 10.9.0.5:53",
        "local 10.1.0.11:4000 > 127.0.0.1:5353",
        1,
    ),
    (
        "netmap of the destination",
        "-A PREROUTING -d 203.0.113.0/24 -m comment --comment x -j NETMAP --to 10.9.0.0/24",
        "eth0 tcp 192.0.2.7:4000 > 203.0.113.80:80",
        "eth1 192.0.2.7:4000 > 10.9.0.80:80",
        1,
    ),
    (
        "netmap of the source",
        "-A POSTROUTING -s 192.0.2.0/24 -m comment --comment x -j NETMAP --to 10.77.0.0/24",
        "eth0 tcp 192.0.2.7:4000 > 10.9.0.5:80",
        "eth1 10.77.0.7:4000 > 10.9.0.5:80",
        1,
    ),
    (
        "snat with a port",
        "-A POSTROUTING -p tcp -m comment --comment x -j SNAT --to-source 10.1.0.99:5000",
        "eth0 tcp 192.0.2.7:4000 > 10.9.0.5:80",
        "eth1 10.1.0.99:5000 > 10.9.0.5:80",
        1,
    ),
    (
        "snat of icmp",
        "-A POSTROUTING -m comment --comment x -j SNAT --to-source 10.1.0.99",
        "eth0 icmp 192.0.2.7 > 10.9.0.5",
        "eth1 10.1.0.99 > 10.9.0.5",
        1,
    ),
    (
        "snat in input",
        "-A INPUT -p tcp -m comment --comment x -j SNAT --to-source 10.5.5.5",
        "eth0 tcp 192.0.2.7:4000 > 10.0.0.11:80",
        "local 10.5.5.5:4000 > 10.0.0.11:80",
        1,
    ),
    (
        "dnat to the loopback address is a martian",
        "-A PREROUTING -p tcp -m comment --comment x -j DNAT --to-destination 127.0.0.1:80",
        "eth0 tcp 192.0.2.7:4000 > 10.0.0.11:80",
        "dropped",
        1,
    ),
    (
        "dnat of an own address to an own address",
        "-A PREROUTING -p tcp -m comment --comment x -j DNAT --to-destination 10.1.0.11:81",
        "eth0 tcp 192.0.2.7:4000 > 10.0.0.11:80",
        "local 192.0.2.7:4000 > 10.1.0.11:81",
        1,
    ),
    (
        "accept in a nat chain leaves later rules out",
        "-A POSTROUTING -s 192.0.2.0/24 -m comment --comment x -j ACCEPT\n\
         -A POSTROUTING -j MASQUERADE",
        "eth0 tcp 192.0.2.7:4000 > 10.9.0.5:80",
        "eth1 192.0.2.7:4000 > 10.9.0.5:80",
        1,
    ),
    (
        "masquerade sees the translated destination",
        "-A PREROUTING -d 203.0.113.80 -j DNAT --to-destination 10.9.0.5\n\
         -A POSTROUTING -d 10.9.0.5 -m comment --comment x -j MASQUERADE",
        "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53",
        "eth1 10.1.0.11:4000 > 10.9.0.5:53",
        1,
    ),
    (
        "ctstate DNAT and the original destination",
        "-A PREROUTING -d 203.0.113.80 -j DNAT --to-destination 10.9.0.5\n\
         -A POSTROUTING -m conntrack --ctstate DNAT --ctorigdst 203.0.113.80 -m comment --comment x -j MASQUERADE",
        "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53",
        "eth1 10.1.0.11:4000 > 10.9.0.5:53",
        1,
    ),
    (
        "masquerade of the host's own packet from another address",
        "-A POSTROUTING -o eth1 -m comment --comment x -j MASQUERADE",
        "host udp 10.0.0.11:4000 > 10.9.0.5:53",
        "eth1 10.1.0.11:4000 > 10.9.0.5:53",
        1,
    ),
    (
        "masquerade of what stays on the host",
        "-A POSTROUTING -m comment --comment x -j MASQUERADE",
        "host udp 10.0.0.11:4000 > 10.1.0.11:53",
        "local 10.0.0.11:4000 > 10.1.0.11:53",
        1,
    ),
    (
        "source and destination types",
        "-A PREROUTING -m addrtype --dst-type LOCAL -m addrtype ! --src-type LOCAL --limit-iface-in \
         -m comment --comment x -j DNAT --to-destination 10.9.0.5",
        "eth0 udp 192.0.2.7:4000 > 10.1.0.11:53",
        "eth1 192.0.2.7:4000 > 10.9.0.5:53",
        1,
    ),
    (
        "multiport and an interface prefix",
        "-A PREROUTING -i eth+ -p udp -m multiport --dports 50:52,53 -m comment --comment x -j DNAT --to-destination 10.9.0.5",
        "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53",
        "eth1 192.0.2.7:4000 > 10.9.0.5:53",
        1,
    ),
];

fn xtables() -> Result<()> {
    let mut failures = Vec::new();
    for program in ["iptables-legacy", "iptables-nft"] {
        for case in XTABLES {
            let check = || one(program, case);
            failures.extend(check().with_context(|| format!("{program}: {}", case.0)).err());
        }
    }
    crate::none(failures)
}

fn one(program: &str, (_, rules, probe, end, count): &Case) -> Result<()> {
    let network = router()?;
    network.restore(program, &format!("*nat\n{rules}\nCOMMIT\n"))?;
    shoot(&network, probe)?.ended(end)?.counted(&[("x", *count)])?.foreseen()
}

const XTABLES_V6: &[Case] = &[
    (
        "redirect of what comes in",
        "-A PREROUTING -p tcp -m tcp --dport 80 -m comment --comment x -j REDIRECT --to-ports 8080",
        "eth0 tcp [2001:db8::7]:4000 > [2001:db8:80::80]:80",
        "local [2001:db8::7]:4000 > [fd00:a::11]:8080",
        1,
    ),
    (
        "redirect of what the host sends",
        "-A OUTPUT -p udp -m comment --comment x -j REDIRECT --to-ports 5353",
        "host udp [fd00:b::11]:4000 > [fd00:9::5]:53",
        "local [fd00:b::11]:4000 > [::1]:5353",
        1,
    ),
    (
        "netmap of the destination",
        "-A PREROUTING -d 2001:db8:80::/64 -m comment --comment x -j NETMAP --to fd00:9::/64",
        "eth0 tcp [2001:db8::7]:4000 > [2001:db8:80::80]:80",
        "eth1 [2001:db8::7]:4000 > [fd00:9::80]:80",
        1,
    ),
    (
        "masquerade of icmp",
        "-A POSTROUTING -o eth1 -m comment --comment x -j MASQUERADE",
        "eth0 icmp 2001:db8::7 > fd00:9::5",
        "eth1 fd00:b::11 > fd00:9::5",
        1,
    ),
];

fn xtables_v6() -> Result<()> {
    let mut failures = Vec::new();
    for program in ["ip6tables-legacy", "ip6tables-nft"] {
        for case in XTABLES_V6 {
            let check = || one(program, case);
            failures.extend(check().with_context(|| format!("{program}: {}", case.0)).err());
        }
    }
    crate::none(failures)
}

/// Chains of an inet table.
const NFT: &[Case] = &[
    (
        "redirect in an inet table",
        "chain pre { type nat hook prerouting priority -100; udp dport 53 counter redirect to :5353 comment \"x\"; }",
        "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53",
        "local 192.0.2.7:4000 > 10.0.0.11:5353",
        1,
    ),
    (
        "dnat ip to does nothing to the other family",
        "chain through { type filter hook forward priority 0; ct state established drop; }
         chain pre { type nat hook prerouting priority -100; udp dport 53 counter dnat ip to 10.9.0.5:5353 comment \"x\"; }",
        "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53",
        "eth1 [2001:db8::7]:4000 > [fd00:9::5]:53",
        1,
    ),
    (
        "a verdict map over a concatenation with intervals",
        "map services { type ipv4_addr . inet_proto . inet_service : verdict; flags interval;
           elements = { 203.0.113.0/24 . udp . 50-60 : goto found, 10.0.0.0/8 . tcp . 80 : drop } }
         chain found { counter meta l4proto udp dnat ip to 10.9.0.5:5353 comment \"x\"; }
         chain pre { type nat hook prerouting priority -100; ip daddr . meta l4proto . th dport vmap @services; }",
        "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53",
        "eth1 192.0.2.7:4000 > 10.9.0.5:5353",
        1,
    ),
    (
        "an address from a map, the port kept",
        "map to { type ipv4_addr : ipv4_addr; elements = { 203.0.113.80 : 10.9.0.5, 203.0.113.81 : 10.9.0.6 } }
         chain pre { type nat hook prerouting priority -100; counter dnat ip to ip daddr map @to comment \"x\"; }",
        "eth0 udp 192.0.2.7:4000 > 203.0.113.81:53",
        "eth1 192.0.2.7:4000 > 10.9.0.6:53",
        1,
    ),
    (
        "a map without the key breaks the rule",
        "map to { type ipv4_addr : ipv4_addr; elements = { 203.0.113.80 : 10.9.0.5 } }
         chain pre { type nat hook prerouting priority -100; dnat ip to ip daddr map @to; counter comment \"x\"; }",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.8:53",
        "eth1 192.0.2.7:4000 > 10.9.0.8:53",
        1,
    ),
    (
        "fib daddr type local, and a mark as reason to masquerade",
        "chain pre { type nat hook prerouting priority -100; fib daddr type local counter meta mark set mark or 0x4000 meta l4proto udp dnat ip to 10.9.0.5:53 comment \"x\"; }
         chain post { type nat hook postrouting priority 100; meta mark & 0x4000 != 0 masquerade; }",
        "eth0 udp 192.0.2.7:4000 > 10.0.0.11:53",
        "eth1 10.1.0.11:4000 > 10.9.0.5:53",
        1,
    ),
    (
        "ct original addresses in postrouting",
        "chain pre { type nat hook prerouting priority -100; ip daddr 203.0.113.80 dnat ip to 10.9.0.5; }
         chain post { type nat hook postrouting priority 100;
  ct original ip daddr 203.0.113.80 ct status dnat counter snat ip to 10.1.0.99 comment \"x\"; }",
        "eth0 tcp 192.0.2.7:4000 > 203.0.113.80:80",
        "eth1 10.1.0.99:4000 > 10.9.0.5:80",
        1,
    ),
    (
        "snat in input",
        "chain in { type nat hook input priority 100; counter snat ip to 10.5.5.5 comment \"x\"; }",
        "eth0 udp 192.0.2.7:4000 > 10.0.0.11:53",
        "local 10.5.5.5:4000 > 10.0.0.11:53",
        1,
    ),
    (
        "a set with an interval, negated",
        "set pods { type ipv4_addr; flags interval; elements = { 10.9.0.0/24, 10.10.0.1-10.10.0.9 } }
         chain post { type nat hook postrouting priority 100; ip daddr != @pods counter masquerade comment \"x\"; }",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.8:53",
        "eth1 192.0.2.7:4000 > 10.9.0.8:53",
        0,
    ),
    (
        "counter before the match counts, after it does not",
        "chain through { type filter hook forward priority 0; counter tcp dport 53 drop comment \"x\"
           meta l4proto udp counter comment \"y\"; }",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.8:53",
        "eth1 192.0.2.7:4000 > 10.9.0.8:53",
        1,
    ),
];

fn nft() -> Result<()> {
    let mut failures = Vec::new();
    for (name, chains, probe, end, count) in NFT {
        let check = || -> Result<()> {
            let network = router()?;
            network.nft(&format!("table inet t {{\n{chains}\n}}"))?;
            shoot(&network, probe)?.ended(end)?.counted(&[("x", *count)])?.foreseen()
        };
        failures.extend(check().context(*name).err());
    }
    crate::none(failures)
}

fn random_port() -> Result<()> {
    for rule in [
        "MASQUERADE --random-fully",
        "MASQUERADE --to-ports 30000-30010",
        "SNAT --to-source 10.1.0.11:30000-30010",
    ] {
        let network = router()?;
        network
            .restore("iptables-nft", &format!("*nat\n-A POSTROUTING -p udp -j {rule}\nCOMMIT\n"))?;
        let shot = shoot(&network, "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53")?;
        let flow = shot.seen.sighting.left.first().context("it did not leave")?.flow;
        ensure!(flow.source.ip().to_string() == "10.1.0.11", "{rule}: {}", shot.seen);
        ensure!(flow.source.port() != 4000, "{rule}: the port was kept");
        shot.foreseen().context(rule)?;
    }
    Ok(())
}

fn loopback() -> Result<()> {
    let network = router()?;
    network.nft(
        "table inet t {
 chain out { type filter hook output priority 0; meta mark set 0x5 ct mark set 0x6 counter comment \"out\"; }
 chain pre { type filter hook prerouting priority -150; meta mark 0x5 ct mark 0x6 counter comment \"pre\"; }
 chain prenat { type nat hook prerouting priority -100; counter comment \"prenat\"; }
 chain innat { type nat hook input priority 100; counter comment \"innat\"; }
 chain outnat { type nat hook output priority -100; udp dport 53 counter dnat ip to 10.1.0.11:5353 comment \"outnat\"; }
 chain postnat { type nat hook postrouting priority 100; oifname \"lo\" counter comment \"postnat\"; }
 chain in { type filter hook input priority 0; iifname \"lo\" udp dport 5353 counter comment \"in\"; }
}",
    )?;
    shoot(&network, "host udp 10.0.0.11:4000 > 10.0.0.11:53")?
        .ended("local 10.0.0.11:4000 > 10.1.0.11:5353")?
        .counted(&[
            ("out", 1),
            ("pre", 1),
            ("prenat", 0),
            ("innat", 0),
            ("outnat", 1),
            ("postnat", 1),
            ("in", 1),
        ])?
        .foreseen()
}

fn drop_in_nat() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain pre { type nat hook prerouting priority -100; ct state new counter drop comment \"drop\"; }
 chain late { type nat hook prerouting priority -90; counter comment \"late\"; }
 chain through { type filter hook forward priority 0; counter comment \"forward\"; }
}",
    )?;
    shoot(&network, "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53")?
        .ended("dropped")?
        .counted(&[("drop", 1), ("late", 0), ("forward", 0)])?
        .foreseen()
}

//! Point 6: which address masquerade takes.

use anyhow::{Context, Result};
use unmasq_lab::Network;

use crate::shoot;
use crate::trials::Test;

pub(crate) const TESTS: &[Test] = &[
    ("masquerade::address_v4", || all(V4)),
    ("masquerade::address_v6", || all(V6)),
    ("masquerade::same_in_iptables", iptables),
];

/// A name, eth1's addresses and routes, the probe, the source that it leaves with.
type Case = (&'static str, &'static str, &'static str, &'static str);

const RULES: &str = "table inet t { chain post { type nat hook postrouting priority srcnat;
 oifname \"eth1\" counter masquerade comment \"masq\"; }
}";

fn network(script: &str) -> Result<Network> {
    let network = Network::new(&["eth0", "eth1"])?;
    network.script("ip addr add 10.0.0.11/24 dev eth0; ip route add default via 10.0.0.1")?;
    network.script("ip addr add 2001:db8:5::11/64 dev eth0 nodad")?;
    network.script(script)?;
    Ok(network)
}

fn all(cases: &[Case]) -> Result<()> {
    crate::none(cases.iter().filter_map(|case| one(case).err()).collect())
}

fn one(case: &Case) -> Result<()> {
    let (name, script, probe, source) = *case;
    let check = || {
        let network = network(script)?;
        network.nft(RULES)?;
        let to = probe.split("> ").nth(1).context("no destination")?;
        shoot(&network, probe)?
            .ended(&format!("eth1 {source}:4000 > {to}"))?
            .counted(&[("masq", 1)])?
            .foreseen()
    };
    check().context(name)
}

fn iptables() -> Result<()> {
    let (_, script, probe, source) = V4[1];
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = network(script)?;
        let rules =
            "*nat\n-A POSTROUTING -o eth1 -m comment --comment masq -j MASQUERADE\nCOMMIT\n";
        network.restore(program, rules)?;
        shoot(&network, probe)?
            .ended(&format!("eth1 {source}:4000 > 10.9.0.5:53"))?
            .counted(&[("masq", 1)])?
            .foreseen()?;
    }
    Ok(())
}

const PROBE: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";

const V4: &[Case] = &[
    (
        "the only one",
        "ip addr add 10.1.0.11/24 dev eth1; ip route add 10.9.0.0/16 via 10.1.0.2",
        PROBE,
        "10.1.0.11",
    ),
    (
        "the one in the next hop's subnet",
        "ip addr add 10.1.0.11/24 dev eth1; ip addr add 10.2.0.12/24 dev eth1
         ip route add 10.9.0.0/16 via 10.2.0.2",
        PROBE,
        "10.2.0.12",
    ),
    (
        "never a secondary",
        "ip addr add 10.1.0.11/24 dev eth1; ip addr add 10.1.0.12/24 dev eth1
         ip route add 10.9.0.0/16 via 10.1.0.2",
        PROBE,
        "10.1.0.11",
    ),
    (
        "not the route's source",
        "ip addr add 10.1.0.11/24 dev eth1; ip addr add 10.1.0.12/24 dev eth1
         ip route add 10.9.0.0/16 via 10.1.0.2 src 10.1.0.12",
        PROBE,
        "10.1.0.11",
    ),
    (
        "the first, where the next hop is in no subnet",
        "ip addr add 10.3.0.13/24 dev eth1; ip addr add 10.4.0.14/24 dev eth1
         ip route add 10.9.0.0/16 via 10.77.0.1 dev eth1 onlink",
        PROBE,
        "10.3.0.13",
    ),
    (
        "for a neighbour the destination counts",
        "ip addr add 10.3.0.13/24 dev eth1; ip addr add 10.9.0.14/24 dev eth1",
        PROBE,
        "10.9.0.14",
    ),
    (
        "borrowed, where the device has none",
        "ip route add 10.9.0.0/16 dev eth1",
        PROBE,
        "10.0.0.11",
    ),
    (
        "not one of link scope",
        "ip addr add 10.1.0.11/24 dev eth1 scope link; ip route add 10.9.0.0/16 dev eth1",
        PROBE,
        "10.0.0.11",
    ),
    (
        "not one of host scope",
        "ip addr add 10.9.0.11/32 dev eth1 scope host; ip addr add 10.1.0.12/24 dev eth1
         ip route add 10.9.0.0/16 dev eth1",
        PROBE,
        "10.1.0.12",
    ),
    (
        "an address of prefix length 32",
        "ip addr add 10.1.0.11/32 dev eth1; ip route add 10.9.0.0/16 via 10.1.0.2 dev eth1 onlink",
        PROBE,
        "10.1.0.11",
    ),
    (
        "borrowed from the first device that has one: loopback",
        "ip addr add 10.50.0.1/32 dev lo; ip route add 10.9.0.0/16 dev eth1",
        PROBE,
        "10.50.0.1",
    ),
    (
        "a point-to-point address counts by its peer",
        "ip addr add 10.3.0.13/24 dev eth1; ip addr add 10.4.0.14 peer 10.9.0.0/16 dev eth1",
        PROBE,
        "10.4.0.14",
    ),
];

const GLOBAL: &str = "eth0 udp [2001:db8::7]:4000 > [2001:db8:9::5]:53";

const V6: &[Case] = &[
    (
        "the only one of the device, before other devices' (rule 5)",
        "ip addr add 2001:db8:1::11/64 dev eth1 nodad; ip route add 2001:db8:9::/64 dev eth1",
        GLOBAL,
        "[2001:db8:1::11]",
    ),
    (
        "another device's, where it has none",
        "ip route add 2001:db8:9::/64 dev eth1",
        GLOBAL,
        "[2001:db8:5::11]",
    ),
    (
        "the one of the destination's label (rule 6): unique local",
        "ip addr add 2001:db8:1::11/64 dev eth1 nodad; ip addr add fd00:b::12/64 dev eth1 nodad
         ip route add fd00:9::/64 dev eth1",
        "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53",
        "[fd00:b::12]",
    ),
    (
        "the one of the destination's label (rule 6): global",
        "ip addr add fd00:b::12/64 dev eth1 nodad; ip addr add 2001:db8:1::11/64 dev eth1 nodad
         ip route add 2001:db8:9::/64 dev eth1",
        GLOBAL,
        "[2001:db8:1::11]",
    ),
    (
        "not a deprecated one (rule 3)",
        "ip addr add 2001:db8:9::11/64 dev eth1 nodad preferred_lft 0
         ip addr add 2001:db8:1::12/64 dev eth1 nodad",
        GLOBAL,
        "[2001:db8:1::12]",
    ),
    (
        "the longest matching prefix (rule 8)",
        "ip addr add 2001:db8:1::11/64 dev eth1 nodad; ip addr add 2001:db8:8::12/64 dev eth1 nodad
         ip route add 2001:db8:9::/64 dev eth1",
        GLOBAL,
        "[2001:db8:8::12]",
    ),
    (
        "not the route's source",
        "ip addr add 2001:db8:1::11/64 dev eth1 nodad; ip addr add 2001:db8:8::12/64 dev eth1 nodad
         ip route add 2001:db8:9::/64 dev eth1 src 2001:db8:1::11",
        GLOBAL,
        "[2001:db8:8::12]",
    ),
    (
        "not one of link scope for a global destination (rule 2)",
        "ip addr add fe80::11/64 dev eth1 nodad; ip route add 2001:db8:9::/64 dev eth1",
        GLOBAL,
        "[2001:db8:5::11]",
    ),
];

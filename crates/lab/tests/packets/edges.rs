//! Routing and NAT together, at their edges.

use anyhow::{Context, Result};

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("edges::routing_and_nat_together", table),
    ("edges::several_next_hops_are_several_outcomes", multipath),
];

/// A name, a script, iptables rules, a probe, its end.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

const DNAT_OUT: &str = "*nat
-A OUTPUT -p udp -m udp --dport 53 -j DNAT --to-destination 10.9.0.5:5353
-A POSTROUTING -o eth1 -j MASQUERADE
COMMIT
";

const CASES: &[Case] = &[
    (
        "a loopback source does not leave",
        "true",
        "",
        "host udp 127.0.0.1:4000 > 10.9.0.5:99",
        "error Invalid argument",
    ),
    (
        "a localhost port mapped to another host, without route_localnet",
        "true",
        DNAT_OUT,
        "host udp 127.0.0.1:4000 > 127.0.0.1:53",
        "error Invalid argument",
    ),
    (
        "a localhost port mapped to another host, with route_localnet",
        "sysctl -qw net.ipv4.conf.all.route_localnet=1",
        DNAT_OUT,
        "host udp 127.0.0.1:4000 > 127.0.0.1:53",
        "eth1 10.1.0.11:4000 > 10.9.0.5:5353",
    ),
    (
        "dnat in output to an unreachable destination",
        "ip route add unreachable 10.9.0.0/24",
        DNAT_OUT,
        "host udp 10.0.0.11:4000 > 198.51.100.9:53",
        "error No route to host",
    ),
    (
        "dnat in output to itself",
        "true",
        "*nat\n-A OUTPUT -d 203.0.113.80 -j DNAT --to-destination 10.1.0.11\nCOMMIT\n",
        "host udp 10.0.0.11:4000 > 203.0.113.80:53",
        "local 10.0.0.11:4000 > 10.1.0.11:53",
    ),
    (
        "drop in output",
        "true",
        "*filter\n-A OUTPUT -p udp -j DROP\nCOMMIT\n",
        "host udp 10.1.0.11:4000 > 10.9.0.5:53",
        "error Operation not permitted",
    ),
    (
        "reject in input",
        "true",
        "*filter\n-A INPUT -p udp -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n",
        "eth0 udp 192.0.2.7:4000 > 10.0.0.11:53",
        "rejected",
    ),
    (
        "a mark set in nat PREROUTING chooses the route",
        "ip rule add fwmark 0x1 table 100; ip route add default via 10.0.0.1 table 100",
        "*nat\n-A PREROUTING -j MARK --set-xmark 0x1/0x1\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53",
        "eth0 10.0.0.11:4000 > 10.9.0.5:53",
    ),
    (
        "policy rules see the translated destination",
        "ip rule add to 10.9.0.5 table 100; ip route add blackhole default table 100",
        "*nat\n-A PREROUTING -d 203.0.113.80 -j DNAT --to-destination 10.9.0.5\nCOMMIT\n",
        "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53",
        "dropped",
    ),
    (
        "strict rp_filter after dnat",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
        "*nat\n-A PREROUTING -d 203.0.113.80 -j DNAT --to-destination 10.9.0.5\nCOMMIT\n",
        "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53",
        "eth1 192.0.2.7:4000 > 10.9.0.5:53",
    ),
    (
        "a device that is down takes its routes away",
        "ip link set eth1 down",
        "",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53",
        "eth0 192.0.2.7:4000 > 10.9.0.5:53",
    ),
    (
        "an address of a device that is down is still local",
        "ip link set eth1 down",
        "",
        "eth0 udp 192.0.2.7:4000 > 10.1.0.11:53",
        "local 192.0.2.7:4000 > 10.1.0.11:53",
    ),
    (
        "a gateway of the other family",
        "ip route add 10.8.0.0/16 via inet6 fd00:b::2 dev eth1",
        "*nat\n-A POSTROUTING -o eth1 -j MASQUERADE\nCOMMIT\n",
        "eth0 udp 192.0.2.7:4000 > 10.8.0.5:53",
        "eth1 10.1.0.11:4000 > 10.8.0.5:53",
    ),
    (
        "sport in a policy rule, of the host's own packet",
        "ip rule add ipproto udp sport 4000 table 100; ip route add default via 10.0.0.1 table 100",
        "",
        "host udp 10.1.0.11:4000 > 10.9.0.5:53",
        "eth0 10.1.0.11:4000 > 10.9.0.5:53",
    ),
    (
        "the sending socket's mark chooses the route",
        "ip rule add fwmark 0x10/0xf0 table 100; ip route add default via 10.0.0.1 table 100",
        "",
        "host udp 10.1.0.11:4000 > 10.9.0.5:53 mark 0x1f",
        "eth0 10.1.0.11:4000 > 10.9.0.5:53",
    ),
    (
        "a source route of IPv6",
        "ip -6 route add fd00:9::/64 from 2001:db8::/64 via fd00:a::1 dev eth0",
        "",
        "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53",
        "eth0 [2001:db8::7]:4000 > [fd00:9::5]:53",
    ),
    (
        // net/ipv6/ip6_fib.c, fib6_node_lookup_1: a miss in the subtree of sources goes on with
        // the next shorter prefix, past the plain route of the same prefix.
        "a source route of IPv6 hides the plain one from other sources",
        "ip -6 route add fd00:9::/64 from 2001:db8:1::/64 via fd00:c::1 dev eth1 onlink",
        "",
        "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53",
        "eth0 [2001:db8::7]:4000 > [fd00:9::5]:53",
    ),
    (
        "the same, the plain route added last",
        "ip -6 route del fd00:9::/64
         ip -6 route add fd00:9::/64 from 2001:db8:1::/64 via fd00:c::1 dev eth1 onlink
         ip -6 route add fd00:9::/64 via fd00:b::2 dev eth1",
        "",
        "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53",
        "eth0 [2001:db8::7]:4000 > [fd00:9::5]:53",
    ),
    (
        "out of the device that it came in by",
        "ip route add 10.9.0.0/24 via 10.0.0.77",
        "*nat\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53",
        "eth0 10.0.0.11:4000 > 10.9.0.5:53",
    ),
    (
        "hop limit 1 after dnat in prerouting",
        "true",
        "*nat\n-A PREROUTING -d 203.0.113.80 -j DNAT --to-destination 10.9.0.5\nCOMMIT\n",
        "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53 ttl 1",
        "rejected",
    ),
];

fn table() -> Result<()> {
    let check = |(_, script, rules, probe, end): &Case| -> Result<()> {
        let network = router()?;
        network.script(script)?;
        network.restore("iptables-nft", rules)?;
        shoot(&network, probe)?.ended(end)?.foreseen()
    };
    let fail = |case: &Case| check(case).context(case.0).err();
    crate::none(CASES.iter().filter_map(fail).collect())
}

fn multipath() -> Result<()> {
    let network = router()?;
    network.script("ip route add 10.8.0.0/16 nexthop via 10.1.0.2 nexthop via 10.0.0.1")?;
    for port in 4000..4008 {
        shoot(&network, &format!("eth0 udp 192.0.2.7:{port} > 10.8.0.5:53"))?.foreseen_among(2)?;
    }
    Ok(())
}

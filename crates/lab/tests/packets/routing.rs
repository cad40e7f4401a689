//! Point 5: routes, policy rules, and the checks that drop.

use anyhow::{Context, Result};
use unmasq_lab::Network;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("routing::policy_rules", || all(POLICY)),
    ("routing::policy_rules_v6", || all(POLICY_V6)),
    ("routing::route_types", || all(TYPES)),
    ("routing::checks_of_the_source", || all(SOURCES)),
    ("routing::checks_of_the_source_v6", || all(SOURCES_V6)),
    ("routing::forwarding_and_ttl", || all(FORWARDING)),
];

/// A name, what is added to the router, the probe, its end, and whether the forward hook saw it.
type Case = (&'static str, &'static str, &'static str, &'static str, u64);

/// Counters in prerouting and in forward.
const COUNTERS: &str = "table inet t {
 chain pre { type filter hook prerouting priority -150;
  udp dport 99 meta mark set 0x7 comment \"mark\"
  counter comment \"pre\"; }
 chain through { type filter hook forward priority 0; counter comment \"forward\"; }
}";

fn all(cases: &[Case]) -> Result<()> {
    let fail = |case: &Case| one(case).with_context(|| case.0).err();
    crate::none(cases.iter().filter_map(fail).collect())
}

fn one((_, script, probe, end, forwarded): &Case) -> Result<()> {
    let network: Network = router()?;
    network.nft(COUNTERS)?;
    network.script(script)?;
    let shot = shoot(&network, probe)?;
    shot.ended(end)?;
    if !probe.starts_with("host") {
        shot.counted(&[("pre", 1), ("forward", *forwarded)])?;
    }
    shot.foreseen()
}

const TO_SERVER: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";
const PASSED: &str = "eth1 192.0.2.7:4000 > 10.9.0.5:53";
const TURNED: &str = "eth0 192.0.2.7:4000 > 10.9.0.5:53";

const POLICY: &[Case] = &[
    ("main", "true", TO_SERVER, PASSED, 1),
    (
        "by mark set in prerouting",
        "ip rule add fwmark 0x5/0xd table 100; ip route add default via 10.0.0.1 table 100",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.5:99",
        "eth0 192.0.2.7:4000 > 10.9.0.5:99",
        1,
    ),
    (
        "by another mark",
        "ip rule add fwmark 0x8/0x8 table 100; ip route add default via 10.0.0.1 table 100",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.5:99",
        "eth1 192.0.2.7:4000 > 10.9.0.5:99",
        1,
    ),
    (
        "by source",
        "ip rule add from 192.0.2.0/24 table 100; ip route add default via 10.0.0.1 table 100",
        TO_SERVER,
        TURNED,
        1,
    ),
    (
        "not by source",
        "ip rule add not from 192.0.2.0/24 table 100; ip route add default via 10.0.0.1 table 100",
        TO_SERVER,
        PASSED,
        1,
    ),
    (
        "by destination and protocol",
        "ip rule add to 10.9.0.0/24 ipproto udp dport 50-60 table 100
         ip route add default via 10.0.0.1 table 100",
        TO_SERVER,
        TURNED,
        1,
    ),
    (
        "by incoming device",
        "ip rule add iif eth0 table 100; ip route add default via 10.0.0.1 table 100",
        TO_SERVER,
        TURNED,
        1,
    ),
    (
        "by another incoming device",
        "ip rule add iif eth1 table 100; ip route add default via 10.0.0.1 table 100",
        TO_SERVER,
        PASSED,
        1,
    ),
    (
        "lo is the device of what the host sends",
        "ip rule add iif lo table 100; ip route add default via 10.0.0.1 table 100",
        "host udp 10.1.0.11:4000 > 10.9.0.5:53",
        "eth0 10.1.0.11:4000 > 10.9.0.5:53",
        0,
    ),
    (
        "a table without a route falls through",
        "ip rule add from all table 100; ip route add 10.8.0.0/16 via 10.0.0.1 table 100",
        TO_SERVER,
        PASSED,
        1,
    ),
    (
        "throw goes on with the next rule",
        "ip rule add from all table 100; ip route add throw 10.9.0.0/16 table 100
         ip route add default via 10.0.0.1 table 100",
        TO_SERVER,
        PASSED,
        1,
    ),
    (
        "suppress_prefixlength 0 leaves out the default route",
        "ip rule add pref 10 table main suppress_prefixlength 0
         ip rule add pref 20 table 100; ip route add default via 10.1.0.2 table 100",
        "eth0 udp 192.0.2.7:4000 > 198.51.100.9:53",
        "eth1 192.0.2.7:4000 > 198.51.100.9:53",
        1,
    ),
    (
        "suppress_prefixlength 0 keeps longer routes",
        "ip rule add pref 10 table main suppress_prefixlength 0
         ip rule add pref 20 table 100; ip route add default via 10.0.0.1 table 100",
        TO_SERVER,
        PASSED,
        1,
    ),
    (
        "goto skips rules",
        "ip rule add pref 10 goto 30; ip rule add pref 20 table 100; ip rule add pref 30 nop
         ip route add default via 10.0.0.1 table 100",
        TO_SERVER,
        PASSED,
        1,
    ),
    (
        "the lower metric of one prefix wins",
        "ip route add 10.9.0.0/24 via 10.0.0.1 metric 5; ip route add 10.9.0.0/24 via 10.1.0.2 metric 9",
        TO_SERVER,
        TURNED,
        1,
    ),
    ("prohibit rule", "ip rule add from 192.0.2.0/24 prohibit", TO_SERVER, "rejected", 0),
    ("blackhole rule", "ip rule add from 192.0.2.0/24 blackhole", TO_SERVER, "dropped", 0),
];

const TO_SERVER_V6: &str = "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53";
const PASSED_V6: &str = "eth1 [2001:db8::7]:4000 > [fd00:9::5]:53";
const TURNED_V6: &str = "eth0 [2001:db8::7]:4000 > [fd00:9::5]:53";

const POLICY_V6: &[Case] = &[
    ("main", "true", TO_SERVER_V6, PASSED_V6, 1),
    (
        "by source",
        "ip -6 rule add from 2001:db8::/64 table 100
         ip -6 route add default via fd00:a::1 table 100",
        TO_SERVER_V6,
        TURNED_V6,
        1,
    ),
    (
        "by mark set in prerouting",
        "ip -6 rule add fwmark 0x5/0xd table 100; ip -6 route add default via fd00:a::1 table 100",
        "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:99",
        "eth0 [2001:db8::7]:4000 > [fd00:9::5]:99",
        1,
    ),
    (
        "by incoming device",
        "ip -6 rule add iif eth1 table 100; ip -6 route add default via fd00:a::1 table 100",
        TO_SERVER_V6,
        PASSED_V6,
        1,
    ),
    (
        "suppress_prefixlength 0",
        "ip -6 rule add pref 10 table main suppress_prefixlength 0
         ip -6 rule add pref 20 table 100; ip -6 route add default via fd00:b::2 table 100",
        "eth0 udp [2001:db8::7]:4000 > [2001:db8:9::9]:53",
        "eth1 [2001:db8::7]:4000 > [2001:db8:9::9]:53",
        1,
    ),
];

const TYPES: &[Case] = &[
    ("blackhole", "ip route add blackhole 10.9.0.0/24", TO_SERVER, "dropped", 0),
    ("unreachable", "ip route add unreachable 10.9.0.0/24", TO_SERVER, "rejected", 0),
    ("prohibit", "ip route add prohibit 10.9.0.0/24", TO_SERVER, "rejected", 0),
    (
        "no route",
        "ip route del 10.9.0.0/16; ip route del default; ip route add 192.0.2.0/24 via 10.0.0.1",
        TO_SERVER,
        "rejected",
        0,
    ),
    (
        "blackhole from the host",
        "ip route add blackhole 10.9.0.0/24",
        "host udp 10.1.0.11:4000 > 10.9.0.5:53",
        "error Invalid argument",
        0,
    ),
    (
        "unreachable from the host",
        "ip route add unreachable 10.9.0.0/24",
        "host udp 10.1.0.11:4000 > 10.9.0.5:53",
        "error No route to host",
        0,
    ),
    (
        "prohibit from the host",
        "ip route add prohibit 10.9.0.0/24",
        "host udp 10.1.0.11:4000 > 10.9.0.5:53",
        "error Permission denied",
        0,
    ),
    (
        "a local route delivers",
        "ip route add local 10.9.0.0/24 dev lo",
        TO_SERVER,
        "local 192.0.2.7:4000 > 10.9.0.5:53",
        0,
    ),
    ("blackhole v6", "ip route add blackhole fd00:9::/80", TO_SERVER_V6, "dropped", 0),
    ("unreachable v6", "ip route add unreachable fd00:9::/80", TO_SERVER_V6, "rejected", 0),
    ("prohibit v6", "ip route add prohibit fd00:9::/80", TO_SERVER_V6, "rejected", 0),
];

const SOURCES: &[Case] = &[
    (
        "strict rp_filter, way back by another device",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
        "eth0 udp 10.9.0.7:4000 > 10.1.0.20:53",
        "dropped",
        0,
    ),
    (
        "loose rp_filter",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=2",
        "eth0 udp 10.9.0.7:4000 > 10.1.0.20:53",
        "eth1 10.9.0.7:4000 > 10.1.0.20:53",
        1,
    ),
    (
        "loose rp_filter, no way back at all",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=2; ip route del default",
        TO_SERVER,
        "dropped",
        0,
    ),
    (
        "strict by `all`",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "eth0 udp 10.9.0.7:4000 > 10.1.0.20:53",
        "dropped",
        0,
    ),
    (
        "the larger of `all` and the device's: loose",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.eth0.rp_filter=2",
        "eth0 udp 10.9.0.7:4000 > 10.1.0.20:53",
        "eth1 10.9.0.7:4000 > 10.1.0.20:53",
        1,
    ),
    (
        "off on the device, strict on another",
        "sysctl -qw net.ipv4.conf.eth1.rp_filter=1",
        "eth0 udp 10.9.0.7:4000 > 10.1.0.20:53",
        "eth1 10.9.0.7:4000 > 10.1.0.20:53",
        1,
    ),
    (
        "the way back ignores the mark",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=1
         ip rule add fwmark 0x7 to 192.0.2.0/24 table 100
         ip route add default via 10.1.0.2 table 100",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.5:99",
        "eth1 192.0.2.7:4000 > 10.9.0.5:99",
        1,
    ),
    (
        "src_valid_mark: the way back with the mark",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=1 net.ipv4.conf.all.src_valid_mark=1
         ip rule add fwmark 0x7 to 192.0.2.0/24 table 100
         ip route add default via 10.1.0.2 table 100",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.5:99",
        "dropped",
        0,
    ),
    (
        "strict: the way back is looked up as if it came in by the outgoing device",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=1
         ip rule add iif eth1 lookup 100; ip route add 10.9.0.0/24 dev eth0 table 100",
        "eth0 udp 10.9.0.7:4000 > 10.1.0.20:53",
        "eth1 10.9.0.7:4000 > 10.1.0.20:53",
        1,
    ),
    (
        "strict: the way back has the ports turned around",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=1
         ip rule add ipproto udp sport 53 lookup 100; ip route add 10.9.0.0/24 dev eth0 table 100",
        "eth0 udp 10.9.0.7:4000 > 10.1.0.20:53",
        "eth1 10.9.0.7:4000 > 10.1.0.20:53",
        1,
    ),
    ("own address as source", "true", "eth0 udp 10.1.0.11:4000 > 10.9.0.5:53", "dropped", 0),
    (
        "own address as source with accept_local",
        "sysctl -qw net.ipv4.conf.eth0.accept_local=1",
        "eth0 udp 10.1.0.11:4000 > 10.9.0.5:53",
        "eth1 10.1.0.11:4000 > 10.9.0.5:53",
        1,
    ),
    ("loopback source", "true", "eth0 udp 127.0.0.5:4000 > 10.9.0.5:53", "dropped", 0),
    ("loopback destination", "true", "eth0 udp 192.0.2.7:4000 > 127.0.0.1:53", "dropped", 0),
    (
        "loopback destination with route_localnet",
        "sysctl -qw net.ipv4.conf.eth0.route_localnet=1",
        "eth0 udp 192.0.2.7:4000 > 127.0.0.1:53",
        "local 192.0.2.7:4000 > 127.0.0.1:53",
        0,
    ),
    ("multicast source", "true", "eth0 udp 224.0.0.9:4000 > 10.9.0.5:53", "dropped", 0),
    ("source 0.0.0.0", "true", "eth0 udp 0.0.0.0:4000 > 10.9.0.5:53", "dropped", 0),
    (
        "the rest of 0/8 is ordinary (include/linux/in.h, ipv4_is_zeronet)",
        "true",
        "eth0 udp 0.0.0.5:4000 > 10.9.0.5:53",
        "eth1 0.0.0.5:4000 > 10.9.0.5:53",
        1,
    ),
    ("broadcast source", "true", "eth0 udp 255.255.255.255:4000 > 10.9.0.5:53", "dropped", 0),
];

const SOURCES_V6: &[Case] = &[
    (
        "IPv6 has no rp_filter",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "eth0 udp [fd00:9::7]:4000 > [fd00:b::20]:53",
        "eth1 [fd00:9::7]:4000 > [fd00:b::20]:53",
        1,
    ),
    (
        "own address as source",
        "true",
        "eth0 udp [fd00:b::11]:4000 > [fd00:9::5]:53",
        "eth1 [fd00:b::11]:4000 > [fd00:9::5]:53",
        1,
    ),
];

const FORWARDING: &[Case] = &[
    ("off", "sysctl -qw net.ipv4.ip_forward=0", TO_SERVER, "dropped", 0),
    (
        "off on the incoming device",
        "sysctl -qw net.ipv4.conf.eth0.forwarding=0",
        TO_SERVER,
        "dropped",
        0,
    ),
    (
        "off on the outgoing device only",
        "sysctl -qw net.ipv4.conf.eth1.forwarding=0",
        TO_SERVER,
        PASSED,
        1,
    ),
    ("off, IPv6", "sysctl -qw net.ipv6.conf.all.forwarding=0", TO_SERVER_V6, "dropped", 0),
    (
        "off on the incoming device only, IPv6",
        "sysctl -qw net.ipv6.conf.eth0.forwarding=0",
        TO_SERVER_V6,
        PASSED_V6,
        1,
    ),
    ("ttl 1", "true", "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53 ttl 1", "rejected", 0),
    (
        "ttl 2",
        "true",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53 ttl 2",
        "eth1 192.0.2.7:4000 > 10.9.0.5:53",
        1,
    ),
    ("hop limit 1", "true", "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53 ttl 1", "rejected", 0),
    (
        "ttl 1 to the host",
        "true",
        "eth0 udp 192.0.2.7:4000 > 10.0.0.11:53 ttl 1",
        "local 192.0.2.7:4000 > 10.0.0.11:53",
        0,
    ),
];

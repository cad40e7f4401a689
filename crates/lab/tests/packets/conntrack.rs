//! Point 3: NAT needs connection tracking, and sees only the first packet.

use anyhow::{Context, Result};

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("conntrack::a_nat_chain_that_only_counts_switches_nothing_on", nft_counter_only),
    ("conntrack::a_legacy_nat_table_that_only_counts", legacy_counter_only),
    ("conntrack::a_ct_match_anywhere_switches_nat_on", ct_match),
    ("conntrack::each_family_is_switched_on_by_itself", families),
    ("conntrack::an_untracked_packet_skips_nat", notrack),
    ("conntrack::replies_are_translated_without_rules", replies),
];

const PROBE: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";
const COUNTING: &str = "table ip t {
 chain pre { type nat hook prerouting priority dstnat; counter comment \"pre\"; }
 chain post { type nat hook postrouting priority srcnat; counter comment \"post\"; }
}";

fn nft_counter_only() -> Result<()> {
    let network = router()?;
    network.nft(COUNTING)?;
    shoot(&network, PROBE)?
        .ended("eth1 192.0.2.7:4000 > 10.9.0.5:53")?
        .counted(&[("pre", 0), ("post", 0)])?
        .foreseen()
}

fn legacy_counter_only() -> Result<()> {
    let network = router()?;
    let rules = "*nat\n-A PREROUTING -m comment --comment pre\n\
                 -A POSTROUTING -m comment --comment post\nCOMMIT\n";
    network.restore("iptables-legacy", rules)?;
    shoot(&network, PROBE)?
        .ended("eth1 192.0.2.7:4000 > 10.9.0.5:53")?
        .counted(&[("pre", 0), ("post", 0)])?
        .foreseen()
}

fn ct_match() -> Result<()> {
    let network = router()?;
    network.nft(COUNTING)?;
    network.nft(
        "table inet f { chain through { type filter hook forward priority filter;
          ct state new counter comment \"new\"; }
}",
    )?;
    shoot(&network, PROBE)?
        .ended("eth1 192.0.2.7:4000 > 10.9.0.5:53")?
        .counted(&[("pre", 1), ("post", 1), ("new", 1)])?
        .foreseen()
}

/// `dnat ip to` in an inet table, and a ct match in an ip table, need IPv4's tracking alone
/// (net/netfilter/nft_nat.c, nft_ct.c: `nf_ct_netns_get` with the statement's or table's family).
fn families() -> Result<()> {
    let v6 = "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53";
    let mut failures = Vec::new();
    for (family, needs_v6, rule) in [
        ("inet", 0, "udp dport 99 dnat ip to 10.9.0.9"),
        ("ip", 0, "ct state established drop"),
        ("inet", 1, "ct state established drop"),
        ("inet", 1, "udp dport 99 redirect"),
    ] {
        let network = router()?;
        network.nft(&format!(
            "table {family} t {{ chain other {{ type nat hook prerouting priority -90; {rule}; }}
}}
table inet c {{ chain pre {{ type nat hook prerouting priority -110; counter comment \"pre\"; }}
}}"
        ))?;
        let check = || {
            shoot(&network, PROBE)?.counted(&[("pre", 1)])?.foreseen()?;
            shoot(&network, v6)?
                .ended("eth1 [2001:db8::7]:4000 > [fd00:9::5]:53")?
                .counted(&[("pre", needs_v6)])?
                .foreseen()
        };
        failures.extend(check().context(rule).err());
    }
    crate::none(failures)
}

fn notrack() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = router()?;
        network.restore(
            program,
            "*raw
-A PREROUTING -p udp -m udp --dport 53 -m comment --comment notrack -j CT --notrack
COMMIT
*nat
-A POSTROUTING -m comment --comment masq -j MASQUERADE
COMMIT
*filter
-A FORWARD -m conntrack --ctstate UNTRACKED -m comment --comment untracked
-A FORWARD -m conntrack --ctstate NEW -m comment --comment new
COMMIT
",
        )?;
        shoot(&network, PROBE)?
            .ended("eth1 192.0.2.7:4000 > 10.9.0.5:53")?
            .counted(&[("notrack", 1), ("untracked", 1), ("new", 0), ("masq", 0)])?
            .foreseen()?;
        shoot(&network, "eth0 udp 192.0.2.7:4000 > 10.9.0.5:54")?
            .ended("eth1 10.1.0.11:4000 > 10.9.0.5:54")?
            .counted(&[("notrack", 0), ("untracked", 0), ("new", 1), ("masq", 1)])?
            .foreseen()?;
    }
    Ok(())
}

fn replies() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain pre { type nat hook prerouting priority dstnat; counter comment \"pre\"; }
 chain post { type nat hook postrouting priority srcnat;
  oifname \"eth1\" counter masquerade comment \"masq\"
  counter comment \"post\"; }
}",
    )?;
    shoot(&network, PROBE)?
        .ended("eth1 10.1.0.11:4000 > 10.9.0.5:53")?
        .counted(&[("pre", 1), ("masq", 1), ("post", 0)])?
        .foreseen()?;
    // Not a first packet: only what the kernel does, the evaluator is not asked.
    let reply = network.observe(&"eth1 udp 10.9.0.5:53 > 10.1.0.11:4000".parse()?)?;
    reply.ended("eth0 10.9.0.5:53 > 192.0.2.7:4000")?;
    reply.counted(&[("pre", 0), ("masq", 0), ("post", 0)])
}

//! Point 1: nat chains run inside one dispatcher for each hook.

use anyhow::Result;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("nat_order::filter_chain_before_the_dispatcher_sees_the_old_source", old_source),
    ("nat_order::filter_chain_after_the_dispatcher_sees_the_new_destination", new_destination),
    ("nat_order::first_binding_wins_and_later_chains_count_nothing", first_binding),
];

fn old_source() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain nat { type nat hook postrouting priority 90; counter snat to 10.1.0.99 comment \"snat\"; }
 chain at95 { type filter hook postrouting priority 95;
  ip saddr 192.0.2.7 counter comment \"old at 95\"
  ip saddr 10.1.0.99 counter comment \"new at 95\"; }
 chain at101 { type filter hook postrouting priority 101;
  ip saddr 192.0.2.7 counter comment \"old at 101\"
  ip saddr 10.1.0.99 counter comment \"new at 101\"; }
}",
    )?;
    shoot(&network, "eth0 tcp 192.0.2.7:4000 > 10.9.0.5:80")?
        .ended("eth1 10.1.0.99:4000 > 10.9.0.5:80")?
        .counted(&[
            ("snat", 1),
            ("old at 95", 1),
            ("new at 95", 0),
            ("old at 101", 0),
            ("new at 101", 1),
        ])?
        .foreseen()
}

fn new_destination() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain nat { type nat hook prerouting priority -50;
  ip daddr 203.0.113.80 counter dnat to 10.9.0.5 comment \"dnat\"; }
 chain before { type filter hook prerouting priority -101;
  ip daddr 203.0.113.80 counter comment \"old at -101\"; }
 chain after { type filter hook prerouting priority -95;
  ip daddr 203.0.113.80 counter comment \"old at -95\"
  ip daddr 10.9.0.5 counter comment \"new at -95\"; }
}",
    )?;
    shoot(&network, "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53")?
        .ended("eth1 192.0.2.7:4000 > 10.9.0.5:53")?
        .counted(&[("dnat", 1), ("old at -101", 1), ("old at -95", 0), ("new at -95", 1)])?
        .foreseen()
}

fn first_binding() -> Result<()> {
    let network = router()?;
    network.restore(
        "iptables-legacy",
        "*nat
-A PREROUTING -m comment --comment legacy-pre
-A POSTROUTING -m comment --comment legacy-post -j MASQUERADE
COMMIT
",
    )?;
    network.nft(
        "table ip t {
 chain first { type nat hook prerouting priority -110; counter dnat to 10.9.0.5 comment \"first\"; }
 chain second { type nat hook prerouting priority -90; counter dnat to 10.9.0.6 comment \"second\"; }
 chain sfirst { type nat hook postrouting priority 90;
  counter snat to 10.1.0.98 comment \"sfirst\"; }
 chain ssecond { type nat hook postrouting priority 110;
  counter snat to 10.1.0.97 comment \"ssecond\"; }
}",
    )?;
    shoot(&network, "eth0 tcp 192.0.2.7:4000 > 203.0.113.80:80")?
        .ended("eth1 10.1.0.98:4000 > 10.9.0.5:80")?
        .counted(&[
            ("first", 1),
            ("second", 0),
            ("legacy-pre", 0),
            ("sfirst", 1),
            ("ssecond", 0),
            ("legacy-post", 0),
        ])?
        .foreseen()
}

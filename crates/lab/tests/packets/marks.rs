//! Point 9: marks with masks, connection marks, and random choices.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use unmasq_lab::{Network, Probe};

use crate::trials::Test;
use crate::{random, router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("marks::set_xmark_with_masks", set_xmark),
    ("marks::connection_marks_saved_and_restored", connmark),
    ("marks::nft_bitwise_forms", nft_bits),
    ("marks::statistic_random_in_order", statistic),
    ("marks::numgen_random_in_a_verdict_map", numgen_vmap),
    ("marks::numgen_random_in_dnat", numgen_dnat),
];

const PROBE: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";
const PASSED: &str = "eth1 192.0.2.7:4000 > 10.9.0.5:53";

fn set_xmark() -> Result<()> {
    // The mark before, the target, the mark after: (mark & ~mask) ^ value, kernel's xt_mark.c.
    let cases = [
        ("0x0", "--set-xmark 0x4000/0x4000", "0x4000"),
        ("0x4001", "--set-xmark 0x0/0x4000", "0x1"),
        ("0x5", "--set-xmark 0x4/0x0", "0x1"),
        ("0xff", "--set-mark 0x10/0x1f", "0xf0"),
        ("0xff", "--and-mark 0xf", "0xf"),
        ("0xf0", "--or-mark 0xf", "0xff"),
        ("0xff", "--xor-mark 0xf", "0xf0"),
    ];
    for program in ["iptables-legacy", "iptables-nft"] {
        for (before, target, after) in cases {
            let network = router()?;
            network.restore(
                program,
                &format!(
                    "*mangle
-A PREROUTING -m comment --comment before -j MARK --set-xmark {before}/0xffffffff
-A PREROUTING -m comment --comment target -j MARK {target}
-A FORWARD -m mark --mark {after} -m comment --comment after
-A FORWARD -m mark ! --mark {after} -m comment --comment other
COMMIT
"
                ),
            )?;
            shoot(&network, PROBE)?
                .ended(PASSED)?
                .counted(&[("target", 1), ("after", 1), ("other", 0)])?
                .foreseen()?;
        }
    }
    Ok(())
}

fn connmark() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = router()?;
        network.restore(
            program,
            "*mangle
-A PREROUTING -m comment --comment set -j MARK --set-xmark 0x1234/0xffffffff
-A PREROUTING -m comment --comment save -j CONNMARK --save-mark --nfmask 0xff00 --ctmask 0xff00
-A PREROUTING -m comment --comment clear -j MARK --set-xmark 0x0/0xffffffff
-A FORWARD -m connmark --mark 0x1200 -m comment --comment saved
-A FORWARD -m comment --comment restore -j CONNMARK --restore-mark --nfmask 0xf000 --ctmask 0xf000
-A FORWARD -m mark --mark 0x1000 -m comment --comment restored
-A POSTROUTING -m comment --comment ctset -j CONNMARK --set-xmark 0x1/0x1
-A POSTROUTING -m connmark --mark 0x1201 -m comment --comment ctmark
COMMIT
",
        )?;
        shoot(&network, PROBE)?
            .ended(PASSED)?
            .counted(&[("saved", 1), ("restored", 1), ("ctmark", 1)])?
            .foreseen()?;
    }
    Ok(())
}

fn nft_bits() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain pre { type filter hook prerouting priority -150;
  meta mark set meta mark or 0x4100
  meta mark & 0x4000 == 0x4000 counter comment \"or\"
  ct mark set meta mark and 0xf00
  meta mark set mark xor 0x100
  meta mark 0x4000 counter comment \"xor\"; }
 chain through { type filter hook forward priority 0;
  ct mark 0x100 counter comment \"ct\"
  meta mark set ct mark
  meta mark 0x100 counter comment \"restored\"
  meta mark set ip saddr map { 192.0.2.7 : 0x55 }
  meta mark 0x55 counter comment \"map\"
  meta mark != 0x55 counter comment \"not\"; }
}",
    )?;
    shoot(&network, PROBE)?
        .ended(PASSED)?
        .counted(&[("or", 1), ("xor", 1), ("ct", 1), ("restored", 1), ("map", 1), ("not", 0)])?
        .foreseen()
}

/// Sends many packets, each of a connection of its own: none may end otherwise than predicted,
/// and every ending of a probability of at least a fifth must occur. With 200 packets the chance
/// that such a one stays out is below 0.8^200, or 5e-20.
fn many(network: &Network, text: &str, endings: usize) -> Result<()> {
    let probe: Probe = text.parse()?;
    let prediction = random::predict(network, &probe)?;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for port in 20_000..20_200 {
        let sighting = network.send(&probe.from_port(port))?;
        prediction.covers(&sighting, port)?;
        let end = sighting.left.first().map(|left| left.flow.destination.to_string());
        *seen.entry(end.unwrap_or_default()).or_default() += 1;
    }
    ensure!(seen.len() == endings, "{text}: saw {seen:?}");
    prediction.exhausted()
}

fn statistic() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = router()?;
        network.restore(
            program,
            "*nat
:SVC - [0:0]
-A PREROUTING -d 203.0.113.80 -j SVC
-A SVC -p tcp -m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination 10.9.0.5:8080
-A SVC -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.9.0.6:8080
-A SVC -p tcp -j DNAT --to-destination 10.9.0.7:8080
COMMIT
",
        )?;
        many(&network, "eth0 tcp 192.0.2.7:4000 > 203.0.113.80:80", 3)?;
    }
    Ok(())
}

fn numgen_vmap() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain one { meta l4proto tcp dnat to 10.9.0.5:8080; }
 chain two { meta l4proto tcp dnat to 10.9.0.6:8080; }
 chain pre { type nat hook prerouting priority dstnat;
  ip daddr 203.0.113.80 tcp dport 80 numgen random mod 2 vmap { 0 : goto one, 1 : goto two }; }
}",
    )?;
    many(&network, "eth0 tcp 192.0.2.7:4000 > 203.0.113.80:80", 2)
}

fn numgen_dnat() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain pre { type nat hook prerouting priority dstnat;
  ip daddr 203.0.113.80 meta l4proto tcp dnat ip to numgen random mod 3 map {
   0 : 10.9.0.5 . 8080, 1 : 10.9.0.6 . 8081, 2 : 10.9.0.7 . 8082 }; }
}",
    )?;
    many(&network, "eth0 tcp 192.0.2.7:4000 > 203.0.113.80:80", 3)
}

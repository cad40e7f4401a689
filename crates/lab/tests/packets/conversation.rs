//! What follows the first packet of a connection: answers and further packets.

use anyhow::Result;
use unmasq_lab::judge::{Shot, judge_query};
use unmasq_lab::{Network, Probe};

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("conversation::an_answer_is_translated_back", answered),
    ("conversation::an_answer_of_the_host_is_translated_back", answered_by_host),
    ("conversation::rules_see_what_has_begun", seen_by_rules),
    ("conversation::a_masqueraded_connection_that_leaves_by_another_device_ends", moved),
    ("conversation::an_answer_that_becomes_loopback_is_routed_strictly", loopback),
    ("conversation::an_answer_to_nothing_is_invalid_or_new", untracked),
    ("conversation::over_loopback_a_new_connection_is_confirmed", confirmed),
];

const PROBE: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";

/// A further packet, and the shot that opened its connection.
fn again(network: &Network, opening: &Shot, answered: bool) -> Result<Shot> {
    judge_query(network, &opening.seen.probe, &opening.further(answered)?)
}

/// The answer, sent from where the opening packet came out.
fn answer(network: &Network, opening: &Shot, probe: &str) -> Result<Shot> {
    let probe: Probe = probe.parse()?;
    judge_query(network, &probe, &opening.answer(probe.device())?)
}

fn answered() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain pre { type nat hook prerouting priority dstnat; meta l4proto udp counter dnat to 10.9.0.6:5353 comment \"dnat\"; }
 chain post { type nat hook postrouting priority srcnat; counter masquerade comment \"masq\"; }
}",
    )?;
    let opening = shoot(&network, PROBE)?;
    opening.ended("eth1 10.1.0.11:4000 > 10.9.0.6:5353")?.foreseen()?;
    answer(&network, &opening, "eth1 udp 10.9.0.6:5353 > 10.1.0.11:4000")?
        .ended("eth0 10.9.0.5:53 > 192.0.2.7:4000")?
        .counted(&[("dnat", 0), ("masq", 0)])?
        .foreseen()?;
    again(&network, &opening, true)?
        .ended("eth1 10.1.0.11:4000 > 10.9.0.6:5353")?
        .counted(&[("dnat", 0), ("masq", 0)])?
        .foreseen()
}

fn answered_by_host() -> Result<()> {
    let network = router()?;
    network.restore(
        "iptables-nft",
        "*nat
-A PREROUTING -p udp -m comment --comment redirect -j REDIRECT --to-ports 5353
-A OUTPUT -m comment --comment out
COMMIT
*mangle
-A OUTPUT -s 10.0.0.11 -m conntrack --ctstate ESTABLISHED -m comment --comment established
COMMIT
",
    )?;
    let opening = shoot(&network, PROBE)?;
    opening.ended("local 192.0.2.7:4000 > 10.0.0.11:5353")?.foreseen()?;
    answer(&network, &opening, "host udp 10.0.0.11:5353 > 192.0.2.7:4000")?
        .ended("eth0 10.9.0.5:53 > 192.0.2.7:4000")?
        .counted(&[("redirect", 0), ("out", 0), ("established", 1)])?
        .foreseen()
}

fn seen_by_rules() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain nat { type nat hook postrouting priority srcnat; masquerade; }
 chain forward { type filter hook forward priority 0;
  ct state new counter comment \"new\"
  ct state established counter comment \"established\"
  ct direction original counter comment \"original\"
  ct direction reply counter comment \"reply\"
  ct status seen-reply counter comment \"seen-reply\"
  ct status != dnat counter comment \"not exactly dnat\"
  ct status snat counter comment \"snat\"
  ct original ip saddr 192.0.2.7 counter comment \"as it came\"
  ct reply ip daddr 10.1.0.11 counter comment \"as it is answered\"
  ct mark 7 counter comment \"marked\"
  ct mark set 7 counter comment \"mark\"
 }
}",
    )?;
    let always = [("not exactly dnat", 1), ("as it came", 1), ("mark", 1)];
    let check =
        |shot: &Shot, counted: &[(&str, u64)]| shot.counted(&always)?.counted(counted)?.foreseen();
    let opening = shoot(&network, PROBE)?;
    check(&opening, &[("new", 1), ("original", 1), ("seen-reply", 0), ("snat", 0), ("marked", 0)])?;
    check(
        &again(&network, &opening, false)?,
        &[("new", 1), ("established", 0), ("original", 1), ("snat", 1), ("as it is answered", 1)],
    )?;
    check(
        &answer(&network, &opening, "eth1 udp 10.9.0.5:53 > 10.1.0.11:4000")?,
        &[("new", 0), ("established", 1), ("reply", 1), ("seen-reply", 1), ("snat", 1)],
    )?;
    check(
        &again(&network, &opening, true)?,
        &[("new", 0), ("established", 1), ("original", 1), ("seen-reply", 1)],
    )
}

fn moved() -> Result<()> {
    let network = router()?;
    network.script(
        "ip rule add fwmark 0x1 table 100
         ip route add default via 10.0.0.1 dev eth0 table 100",
    )?;
    network.nft(
        "table ip t {
 chain pre { type filter hook prerouting priority mangle; ct mark 1 meta mark set 1; }
 chain post { type nat hook postrouting priority srcnat; counter masquerade comment \"masq\"; }
 chain late { type filter hook postrouting priority 200; ct mark set 1; }
}",
    )?;
    let opening = shoot(&network, PROBE)?;
    opening.ended("eth1 10.1.0.11:4000 > 10.9.0.5:53")?.counted(&[("masq", 1)])?.foreseen()?;
    again(&network, &opening, false)?.ended("dropped")?.counted(&[("masq", 0)])?.foreseen()?;
    // The entry is gone with it: the next packet opens a connection.
    shoot(&network, PROBE)?
        .ended("eth1 10.1.0.11:4000 > 10.9.0.5:53")?
        .counted(&[("masq", 1)])?
        .foreseen()
}

fn loopback() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip6 t {
 chain out { type nat hook output priority -100; ip6 daddr ::1 dnat to 2001:db8::5; }
 chain post { type nat hook postrouting priority srcnat; ip6 saddr ::1 snat to fd00:a::11; }
}",
    )?;
    let opening = shoot(&network, "host udp [::1]:4000 > [::1]:53")?;
    opening.ended("eth0 [fd00:a::11]:4000 > [2001:db8::5]:53")?.foreseen()?;
    // ::1 is an address of lo; from another device only that device's routes count.
    answer(&network, &opening, "eth0 udp [2001:db8::5]:53 > [fd00:a::11]:4000")?
        .ended("eth0 [::1]:53 > [::1]:4000")?
        .foreseen()?;
    answer(&network, &opening, "eth1 udp [2001:db8::5]:53 > [fd00:a::11]:4000")?
        .ended("rejected")?
        .foreseen()
}

fn untracked() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain pre { type filter hook prerouting priority raw; ip saddr 192.0.2.7 notrack; }
 chain forward { type filter hook forward priority 0;
  ct state invalid counter comment \"invalid\"
  ct state new counter comment \"new\"
  ct direction original counter comment \"original\"
  ct direction reply counter comment \"reply\"
 }
}",
    )?;
    for (opening, back, counted) in [
        (
            PROBE,
            "eth1 udp 10.9.0.5:53 > 192.0.2.7:4000",
            [("invalid", 0), ("new", 1), ("original", 1), ("reply", 0)],
        ),
        (
            "eth0 tcp 192.0.2.7:4001 > 10.9.0.5:80",
            "eth1 tcp 10.9.0.5:80 > 192.0.2.7:4001",
            [("invalid", 1), ("new", 0), ("original", 0), ("reply", 0)],
        ),
    ] {
        let opening = shoot(&network, opening)?;
        let back: Probe = back.parse()?;
        let query = opening.answer(back.device())?;
        let shot = match opening.seen.sighting.left.first() {
            Some(left) => opening.then_answer(&network, left, &query)?,
            None => anyhow::bail!("{} came out nowhere", opening.seen.probe),
        };
        let ended = format!("eth0 {} > {}", back.source, back.destination);
        shot.ended(&ended)?.counted(&counted)?.foreseen()?;
    }
    Ok(())
}

fn confirmed() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain out { type filter hook output priority 0;
  ct status confirmed counter comment \"in output\"
 }
 chain pre { type filter hook prerouting priority -150;
  iifname lo ct state new ct status confirmed counter comment \"in prerouting\"
 }
}",
    )?;
    // The end of postrouting lies between both.
    shoot(&network, "host udp 127.0.0.1:4000 > 127.0.0.1:53")?
        .ended("local 127.0.0.1:4000 > 127.0.0.1:53")?
        .counted(&[("in output", 0), ("in prerouting", 1)])?
        .foreseen()
}

//! Point 15: matches that depend on the packets before. The evaluator gives every outcome that is
//! possible; the kernel takes one of them for each packet, in an order that the tests fix.

use anyhow::{Context, Result, ensure};
use unmasq_eval::trace::Port;
use unmasq_lab::judge::{Shot, judge};
use unmasq_lab::observation::Sighting;
use unmasq_lab::{Network, Probe};

use crate::trials::Test;
use crate::{none, router};

pub(crate) const TESTS: &[Test] = &[
    ("sequence::every_nth", nth),
    ("sequence::every_nth_spreads_connections", nth_dnat),
    ("sequence::every_nth_counts_what_reaches_it", nth_reached),
    ("sequence::counts_after_another_rule_was_added", reloaded),
    ("sequence::numgen_inc", numgen),
    ("sequence::limit", limit),
    ("sequence::nft_limit", nft_limit),
    ("sequence::a_named_limit_is_shared", named_limit),
    ("sequence::limits_of_bytes", bytes),
    ("sequence::hashlimit", hashlimit),
    ("sequence::quota", quota),
    ("sequence::counts_of_connections", connections),
];

/// The source port of the first packet of a sequence; each next one has the next.
const FIRST_PORT: u16 = 20_000;

/// Where a packet went (its destination as it left, or `dropped`), and counters by comment.
type Packet<'t> = (&'t str, &'t [(&'t str, u64)]);

const BACK_ENDS: [&str; 2] = ["iptables-legacy", "iptables-nft"];
const BACK_ENDS_V6: [&str; 2] = ["ip6tables-legacy", "ip6tables-nft"];
const PROBE: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";
const PROBE_V6: &str = "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53";
const THERE: &str = "10.9.0.5:53";
const THERE_V6: &str = "[fd00:9::5]:53";

/// Sends one packet after the other, each of a connection of its own. Each must be among so many
/// outcomes. The state that the packets change is in no capture, so the evaluator is asked once.
fn sequence(network: &Network, probe: &str, outcomes: usize, packets: &[Packet<'_>]) -> Result<()> {
    let mut probe: Probe = probe.parse()?;
    let mut before: Option<Shot> = None;
    for (number, (end, counts)) in packets.iter().enumerate() {
        let port = FIRST_PORT + u16::try_from(number)?;
        probe = probe.from_port(port);
        let shot = match before.take() {
            None => judge(network, &probe)?,
            Some(Shot { mut prediction, .. }) => {
                for outcome in &mut prediction.trace.outcomes {
                    if outcome.source.after.port == Port::Exactly(port - 1) {
                        outcome.source.after.port = Port::Exactly(port);
                    }
                }
                Shot { seen: network.observe(&probe)?, prediction }
            }
        };
        let check = || -> Result<()> {
            ensure!(went(&shot.seen.sighting) == *end, "expected {end}: {}", shot.seen);
            shot.counted(counts)?.foreseen_among(outcomes)
        };
        check().with_context(|| format!("packet {}", number + 1))?;
        before = Some(shot);
    }
    Ok(())
}

fn went(sighting: &Sighting) -> String {
    match (&sighting.left[..], &sighting.delivered[..]) {
        ([left], []) => left.flow.destination.to_string(),
        ([], [delivered]) => format!("local {}", delivered.destination),
        ([], []) => "dropped".into(),
        _ => "several times".into(),
    }
}

const ON: Packet<'_> = (THERE, &[("x", 1)]);
const OFF: Packet<'_> = (THERE, &[("x", 0)]);
const ON_V6: Packet<'_> = (THERE_V6, &[("x", 1)]);
const OFF_V6: Packet<'_> = (THERE_V6, &[("x", 0)]);

/// Runs a match in a rule of FORWARD that only counts, in all back ends of both families.
fn counting(m: &str, pattern: &[bool]) -> Result<()> {
    counting_in(&BACK_ENDS, m, pattern)?;
    counting_in(&BACK_ENDS_V6, m, pattern)
}

fn counting_in(programs: &[&str], m: &str, pattern: &[bool]) -> Result<()> {
    let rules = format!("*filter\n-A FORWARD {m} -m comment --comment x\nCOMMIT\n");
    for program in programs {
        let (probe, on, off) = match program.starts_with("ip6") {
            false => (PROBE, ON, OFF),
            true => (PROBE_V6, ON_V6, OFF_V6),
        };
        let packets: Vec<_> = pattern.iter().map(|is_on| if *is_on { on } else { off }).collect();
        let network = router()?;
        network.restore(program, &rules)?;
        sequence(&network, probe, 2, &packets).with_context(|| format!("{program} {m}"))?;
    }
    Ok(())
}

/// Of each round of `--every` packets the one numbered `--packet` matches, from 0: libxt_statistic.c
/// gives the kernel the count that the round begins with (`every - packet - 1`), and statistic_mt in
/// net/netfilter/xt_statistic.c matches where the count wraps.
fn nth() -> Result<()> {
    let (x, o) = (true, false);
    let cases: [(&str, &[bool]); 4] = [
        ("-m statistic --mode nth --every 3 --packet 0", &[x, o, o, x]),
        ("-m statistic --mode nth --every 3 --packet 1", &[o, x, o, o, x]),
        ("-m statistic --mode nth --every 3 --packet 2", &[o, o, x, o, o, x]),
        ("-m statistic --mode nth ! --every 3 --packet 1", &[x, o, x, x]),
    ];
    none(cases.into_iter().filter_map(|(m, pattern)| counting(m, pattern).err()).collect())
}

fn nth_dnat() -> Result<()> {
    for program in BACK_ENDS {
        let network = router()?;
        network.restore(
            program,
            "*nat
-A PREROUTING -d 203.0.113.80 -p udp -m statistic --mode nth --every 3 --packet 0 -m comment --comment a -j DNAT --to-destination 10.9.0.6
-A PREROUTING -d 203.0.113.80 -p udp -m statistic --mode nth --every 2 --packet 0 -m comment --comment b -j DNAT --to-destination 10.9.0.7
-A PREROUTING -d 203.0.113.80 -p udp -m comment --comment c -j DNAT --to-destination 10.9.0.8
COMMIT
",
        )?;
        let (a, b, c): (Packet<'_>, Packet<'_>, Packet<'_>) = (
            ("10.9.0.6:53", &[("a", 1), ("b", 0), ("c", 0)]),
            ("10.9.0.7:53", &[("a", 0), ("b", 1), ("c", 0)]),
            ("10.9.0.8:53", &[("a", 0), ("b", 0), ("c", 1)]),
        );
        let probe = "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53";
        sequence(&network, probe, 3, &[a, b, c, a, b, c]).context(program)?;
    }
    Ok(())
}

/// What fails before it doesn't count; what fails after it does.
fn nth_reached() -> Result<()> {
    let nth = "-m statistic --mode nth --every 2 --packet 0";
    for program in BACK_ENDS {
        let network = router()?;
        network.restore(
            program,
            &format!(
                "*filter
-A FORWARD -p udp -m udp --dport 53 {nth} -m comment --comment before
-A FORWARD -p udp {nth} -m udp --dport 53 -m comment --comment after
COMMIT
"
            ),
        )?;
        let other = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:99";
        let at = "10.9.0.5:99";
        let run = || -> Result<()> {
            sequence(&network, PROBE, 4, &[(THERE, &[("before", 1), ("after", 1)])])?;
            sequence(&network, other, 1, &[(at, &[("before", 0), ("after", 0)])])?;
            sequence(&network, PROBE, 4, &[(THERE, &[("before", 0), ("after", 1)])])?;
            sequence(&network, PROBE, 4, &[(THERE, &[("before", 1), ("after", 0)])])
        };
        run().context(program)?;
    }
    Ok(())
}

/// iptables-legacy replaces the whole table, and with it every count that a match keeps for itself.
fn reloaded() -> Result<()> {
    for m in [
        "-m statistic --mode nth --every 2 --packet 0",
        "-m limit --limit 1/hour --limit-burst 1",
        "-m quota --quota 40",
    ] {
        let rules = format!("*filter\n-A FORWARD {m} -m comment --comment x\nCOMMIT\n");
        for (program, second) in BACK_ENDS.into_iter().zip([ON, OFF]) {
            let network = router()?;
            network.restore(program, &rules)?;
            sequence(&network, PROBE, 2, &[ON]).with_context(|| format!("{program} {m}"))?;
            network.restore(program, "*filter\n-A FORWARD -m comment --comment other\nCOMMIT\n")?;
            sequence(&network, PROBE, 2, &[second]).with_context(|| format!("{program} {m}"))?;
        }
    }
    Ok(())
}

/// Begins with its offset (nft_ng_inc_init in net/netfilter/nft_numgen.c), each rule for itself.
fn numgen() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 chain a { counter dnat to 10.9.0.6 comment \"a\"; }
 chain b { counter dnat to 10.9.0.7 comment \"b\"; }
 chain pre { type nat hook prerouting priority dstnat;
  ip daddr 203.0.113.80 numgen inc mod 2 vmap { 0 : goto a, 1 : goto b }
  ip daddr 203.0.113.81 dnat to numgen inc mod 3 offset 10 map { 10 : 10.9.0.8, 11 : 10.9.0.9, 12 : 10.9.0.10 }; }
 chain through { type filter hook forward priority filter;
  ip daddr 10.9.0.5 numgen inc mod 3 1 counter comment \"x\"; }
}",
    )?;
    let (a, b): (Packet<'_>, Packet<'_>) =
        (("10.9.0.6:53", &[("a", 1), ("b", 0)]), ("10.9.0.7:53", &[("a", 0), ("b", 1)]));
    sequence(&network, "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53", 2, &[a, b, a, b])?;
    let [c, d, e]: [Packet<'_>; 3] =
        ["10.9.0.8:53", "10.9.0.9:53", "10.9.0.10:53"].map(|to| (to, &[][..]));
    sequence(&network, "eth0 udp 192.0.2.7:4000 > 203.0.113.81:53", 3, &[c, d, e, c])?;
    sequence(&network, PROBE, 3, &[OFF, ON, OFF, OFF, ON])
}

/// The rate is so low that nothing comes back during the test.
fn limit() -> Result<()> {
    let (x, o) = (true, false);
    counting("-m limit --limit 1/hour --limit-burst 2", &[x, x, o, o])?;
    counting_in(&["iptables-nft"], "-m limit --limit 1/hour", &[x, x, x, x, x, o])
}

fn nft_limit() -> Result<()> {
    let (x, o) = (true, false);
    let cases: [(&str, &[bool]); 6] = [
        ("limit rate 1/hour burst 2 packets", &[x, x, o, o]),
        ("limit rate 1/hour", &[x, x, x, x, x, o]),
        ("limit rate over 1/hour burst 2 packets", &[o, o, x, x]),
        ("limit rate 3/hour burst 1 packets", &[x, o]),
        ("limit name \"named\"", &[x, x, o]),
        ("udp dport 53 limit name ip daddr map { 10.9.0.5 : \"named\" }", &[x, x, o]),
    ];
    let run = |(rule, pattern): (&str, &[bool])| -> Result<()> {
        let network = router()?;
        network.nft(&format!(
            "table ip t {{
 limit named {{ rate 1/hour burst 2 packets; }}
 chain through {{ type filter hook forward priority filter; {rule} counter comment \"x\"; }}
}}"
        ))?;
        let packets: Vec<_> = pattern.iter().map(|on| if *on { ON } else { OFF }).collect();
        sequence(&network, PROBE, 2, &packets).with_context(|| rule.to_owned())
    };
    none(cases.into_iter().filter_map(|case| run(case).err()).collect())
}

/// Two rules draw from one bucket.
fn named_limit() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t {
 limit named { rate 1/hour burst 3 packets; }
 chain through { type filter hook forward priority filter;
  limit name \"named\" counter comment \"x\"
  limit name \"named\" counter comment \"y\"; }
}",
    )?;
    let packets: [Packet<'_>; 3] = [
        (THERE, &[("x", 1), ("y", 1)]),
        (THERE, &[("x", 1), ("y", 0)]),
        (THERE, &[("x", 0), ("y", 0)]),
    ];
    sequence(&network, PROBE, 4, &packets)
}

fn bytes() -> Result<()> {
    let network = router()?;
    // A probe has 36 bytes.
    network.nft(
        "table ip t {
 chain through { type filter hook forward priority filter;
  limit rate 40 bytes/hour burst 40 bytes counter comment \"x\"; }
}",
    )?;
    sequence(&network, PROBE, 2, &[ON, ON, OFF])
}

fn hashlimit() -> Result<()> {
    let (x, o) = (true, false);
    let name = "--hashlimit-mode srcip --hashlimit-name h";
    counting(
        &format!("-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 2 {name}"),
        &[x, x, o],
    )?;
    counting(
        &format!("-m hashlimit --hashlimit-above 1/hour --hashlimit-burst 2 {name}"),
        &[o, o, x],
    )
}

/// A packet that is too large for what is left of xt_quota's ends it for smaller ones too; nft's
/// counts on beyond its end.
fn quota() -> Result<()> {
    let (x, o) = (true, false);
    // A UDP probe has 36 bytes in IPv4 and 56 in IPv6, a TCP one 48.
    counting_in(&BACK_ENDS, "-m quota --quota 108", &[x, x, x, o])?;
    counting_in(&BACK_ENDS_V6, "-m quota --quota 112", &[x, x, o])?;
    let tcp = ("eth0 tcp 192.0.2.7:4000 > 10.9.0.5:53", OFF);
    let udp = |packet| (PROBE, packet);
    for program in BACK_ENDS {
        let network = router()?;
        let rule = "-m quota --quota 80 -m comment --comment x";
        network.restore(program, &format!("*filter\n-A FORWARD {rule}\nCOMMIT\n"))?;
        for (probe, packet) in [udp(ON), tcp, udp(OFF)] {
            sequence(&network, probe, 2, &[packet]).context(program)?;
        }
    }
    for (rule, on, off) in [("quota 80 bytes", ON, OFF), ("quota over 80 bytes", OFF, ON)] {
        let network = router()?;
        network.nft(&format!(
            "table ip t {{ chain through {{ type filter hook forward priority filter; {rule} counter comment \"x\"; }}
}}"
        ))?;
        sequence(&network, PROBE, 2, &[on, on, off, off]).context(rule)?;
    }
    Ok(())
}

/// `ct count over` and `connlimit` count the connections that there are, this one too.
fn connections() -> Result<()> {
    let (x, o) = (true, false);
    counting("-m connlimit --connlimit-above 2", &[o, o, x])?;
    counting("-m connlimit --connlimit-upto 2", &[x, x, o])?;
    let network = router()?;
    network.nft(
        "table ip t { chain through { type filter hook forward priority filter; ct count over 2 counter comment \"x\"; }
}",
    )?;
    sequence(&network, PROBE, 2, &[OFF, OFF, ON])
}

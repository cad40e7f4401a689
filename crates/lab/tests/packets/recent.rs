//! Point 15: `-m recent`, which remembers addresses (net/netfilter/xt_recent.c).

use anyhow::{Context, Result, ensure};
use unmasq_lab::Network;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("recent::set_then_check", set_then_check),
    ("recent::set_acts_even_if_the_rule_fails_later", set_before_a_miss),
    ("recent::update_counts_and_check_does_not", update_counts),
    ("recent::remove_and_names", remove),
    ("recent::destinations_and_masks", destinations),
    ("recent::negated", negated),
    ("recent::survives_another_rule", survives),
];

const BACK_ENDS: [&str; 2] = ["iptables-legacy", "iptables-nft"];
const PROBE: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";
const OTHER: &str = "eth0 udp 192.0.2.8:4000 > 10.9.0.5:53";
const PROBE_V6: &str = "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53";

/// A probe, counters by comment, and among how many outcomes it must be.
type Packet<'t> = (&'t str, &'t [(&'t str, u64)], usize);

/// Loads rules of FORWARD, and sends packets.
fn run(program: &str, rules: &str, packets: &[Packet<'_>]) -> Result<Network> {
    let network = router()?;
    network.restore(program, &format!("*filter\n{rules}\nCOMMIT\n"))?;
    send(&network, packets).context(program.to_owned())?;
    Ok(network)
}

fn send(network: &Network, packets: &[Packet<'_>]) -> Result<()> {
    for (number, (probe, counts, outcomes)) in packets.iter().enumerate() {
        let check = || shoot(network, probe)?.counted(counts)?.foreseen_among(*outcomes);
        check().with_context(|| format!("packet {}", number + 1))?;
    }
    Ok(())
}

/// The addresses that a list holds.
fn listed(network: &Network, name: &str) -> Result<Vec<String>> {
    let text = network.script(&format!("cat /proc/net/xt_recent/{name}"))?;
    let address = |line: &str| line.strip_prefix("src=")?.split(' ').next().map(String::from);
    Ok(text.lines().filter_map(address).collect())
}

fn set_then_check() -> Result<()> {
    for (programs, probe) in [(BACK_ENDS, PROBE), (["ip6tables-legacy", "ip6tables-nft"], PROBE_V6)]
    {
        for program in programs {
            run(
                program,
                "-A FORWARD -m recent --rcheck --name r -m comment --comment early
-A FORWARD -m recent --set --name r -m comment --comment set
-A FORWARD -m recent --rcheck --name r -m comment --comment late",
                &[
                    (probe, &[("early", 0), ("set", 1), ("late", 1)], 4),
                    (probe, &[("early", 1), ("set", 1), ("late", 1)], 4),
                ],
            )?;
        }
    }
    Ok(())
}

/// A match that stands after another that fails does nothing; one that stands before it has done
/// its work.
fn set_before_a_miss() -> Result<()> {
    for program in BACK_ENDS {
        let network = run(
            program,
            "-A FORWARD -p udp -m recent --set --name first -m udp --dport 99 -m comment --comment first
-A FORWARD -p udp -m udp --dport 99 -m recent --set --name second -m comment --comment second
-A FORWARD -m recent --rcheck --name first -m comment --comment found
-A FORWARD -m recent --rcheck --name second -m comment --comment lost",
            &[(PROBE, &[("first", 0), ("second", 0), ("found", 1), ("lost", 0)], 4)],
        )?;
        ensure!(listed(&network, "first")? == ["192.0.2.7"]);
        ensure!(listed(&network, "second")?.is_empty());
    }
    Ok(())
}

/// The usual guard against too many tries: a rule that drops after so many hits, and one that
/// notes each. `--update` notes the packet only if it is true.
fn update_counts() -> Result<()> {
    for program in BACK_ENDS {
        let pass: &[(&str, u64)] = &[("drop", 0), ("set", 1)];
        let drop: &[(&str, u64)] = &[("drop", 1), ("set", 0)];
        let rules = |check: &str| {
            format!(
                "-A FORWARD -m recent {check} --seconds 600 --hitcount 2 --name r -m comment --comment drop -j DROP
-A FORWARD -m recent --set --name r -m comment --comment set"
            )
        };
        for check in ["--rcheck", "--update"] {
            let packets =
                [(PROBE, pass), (PROBE, pass), (PROBE, drop), (OTHER, pass), (PROBE, drop)]
                    .map(|(probe, counts)| (probe, counts, 2));
            let network = run(program, &rules(check), &packets)?;
            let text = network.script("grep 192.0.2.7 /proc/net/xt_recent/r")?;
            let stamps = text.split("oldest_pkt: ").nth(1).map(|rest| rest.split(',').count());
            ensure!(stamps == Some(if check == "--update" { 4 } else { 2 }), "{check}: {text}");
        }
    }
    Ok(())
}

fn remove() -> Result<()> {
    for program in BACK_ENDS {
        let first = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:1";
        let last = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:2";
        let network = run(
            program,
            "-A FORWARD -p udp -m udp --dport 1 -m recent --set --name a -m comment --comment set
-A FORWARD -m recent --rcheck --name b -m comment --comment other
-A FORWARD -p udp -m udp --dport 2 -m recent --remove --name a -m comment --comment remove
-A FORWARD -m recent --rcheck --name a -m comment --comment there",
            &[
                (last, &[("other", 0), ("remove", 0), ("there", 0)], 8),
                (first, &[("set", 1), ("other", 0), ("there", 1)], 4),
                (PROBE, &[("set", 0), ("other", 0), ("there", 1)], 4),
                (last, &[("other", 0), ("remove", 1), ("there", 0)], 8),
                (PROBE, &[("there", 0)], 4),
            ],
        )?;
        ensure!(listed(&network, "a")?.is_empty());
    }
    Ok(())
}

fn destinations() -> Result<()> {
    for program in BACK_ENDS {
        let elsewhere = "eth0 udp 192.0.2.8:4000 > 10.9.0.6:53";
        let network = run(
            program,
            "-A FORWARD -d 10.9.0.5/32 -m recent --set --name d --mask 255.255.255.0 --rdest -m comment --comment set
-A FORWARD -m recent --rcheck --name d --mask 255.255.255.0 --rdest -m comment --comment near
-A FORWARD -m recent --rcheck --name d --mask 255.255.255.0 --rsource -m comment --comment source",
            &[
                (PROBE, &[("set", 1), ("near", 1), ("source", 0)], 4),
                (elsewhere, &[("set", 0), ("near", 1), ("source", 0)], 4),
            ],
        )?;
        ensure!(listed(&network, "d")? == ["10.9.0.0"]);
    }
    Ok(())
}

/// `! --set` is never true, and sets all the same.
fn negated() -> Result<()> {
    for program in BACK_ENDS {
        let network = run(
            program,
            "-A FORWARD -m recent ! --rcheck --name n -m comment --comment absent
-A FORWARD -m recent ! --set --name n -m comment --comment never
-A FORWARD -m recent ! --rcheck --name n -m comment --comment gone",
            &[
                (PROBE, &[("absent", 1), ("never", 0), ("gone", 0)], 4),
                (PROBE, &[("absent", 0), ("never", 0), ("gone", 0)], 4),
            ],
        )?;
        ensure!(listed(&network, "n")? == ["192.0.2.7"]);
    }
    Ok(())
}

/// A list lives as long as some rule names it, in whichever table of whichever back end; it is not
/// the rule's.
fn survives() -> Result<()> {
    for program in BACK_ENDS {
        let network = run(program, "-A FORWARD -m recent --set --name s", &[(PROBE, &[], 1)])?;
        network.restore(
            program,
            "*filter\n-A FORWARD -m recent --rcheck --name s -m comment --comment same\nCOMMIT\n",
        )?;
        let other = if program == BACK_ENDS[0] { BACK_ENDS[1] } else { BACK_ENDS[0] };
        network.restore(
            other,
            "*mangle\n-A PREROUTING -m recent --rcheck --name s -m comment --comment other\nCOMMIT\n",
        )?;
        send(&network, &[(PROBE, &[("same", 1), ("other", 1)], 4)]).context(program)?;
    }
    Ok(())
}

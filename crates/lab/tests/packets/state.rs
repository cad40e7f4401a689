//! Point 17: what a connection keeps, and for how long.

use anyhow::{Context, Result, ensure};
use unmasq_lab::Network;
use unmasq_lab::frame::checksums_hold;
use unmasq_lab::judge::{Shot, judge_query};

use crate::trials::Test;
use crate::{none, router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("state::new_until_it_is_answered", unanswered),
    ("state::a_whole_tcp_connection", tcp),
    ("state::nat_that_comes_late", late_nat),
    ("state::nat_chains_that_come_late", late_chains),
    ("state::tracking_that_comes_late", late_tracking),
    ("state::tracking_that_comes_in_the_middle_of_tcp", late_tcp),
    ("state::a_changed_rule_is_for_new_connections", changed_rule),
    ("state::the_last_nat_chain_goes", no_nat_left),
    ("state::a_masqueraded_connection_does_not_change_its_device", other_device),
    ("state::hairpin", hairpin),
    ("state::hairpin_without_masquerade", straight_hairpin),
];

/// Counts each packet at each stage by what it is.
const WATCH: &str = "table inet watch {
 chain through { type filter hook forward priority filter - 1;
  ct state new counter comment \"new\"
  ct state established counter comment \"established\"
  ct state related counter comment \"related\"
  ct state invalid counter comment \"invalid\"; }
}";

const NEW: &[(&str, u64)] = &[("new", 1), ("established", 0), ("related", 0), ("invalid", 0)];
const ESTABLISHED: &[(&str, u64)] =
    &[("new", 0), ("established", 1), ("related", 0), ("invalid", 0)];

/// Rules of all back ends that mean the same: DNAT of the service's address to 10.9.0.5:8080 or
/// fd00:9::5, and masquerade of all that leaves by eth1; "dnat" and "masq" count.
fn services() -> Vec<(&'static str, &'static str)> {
    vec![
        (
            "iptables-legacy",
            "*nat
-A PREROUTING -d 203.0.113.80 -m comment --comment dnat -j DNAT --to-destination 10.9.0.5
-A POSTROUTING -o eth1 -m comment --comment masq -j MASQUERADE
COMMIT
",
        ),
        (
            "ip6tables-nft",
            "*nat
-A PREROUTING -d 2001:db8:80::80 -m comment --comment dnat -j DNAT --to-destination fd00:9::5
-A POSTROUTING -o eth1 -m comment --comment masq -j MASQUERADE
COMMIT
",
        ),
        (
            "nft",
            "table inet nat {
 chain pre { type nat hook prerouting priority dstnat;
  ip daddr 203.0.113.80 counter dnat ip to 10.9.0.5 comment \"dnat\"
  ip6 daddr 2001:db8:80::80 counter dnat ip6 to fd00:9::5 comment \"dnat\"; }
 chain post { type nat hook postrouting priority srcnat;
  oifname \"eth1\" counter masquerade comment \"masq\"; }
}",
        ),
    ]
}

/// A node that watches, with one of [`services`].
fn service(program: &str, rules: &str) -> Result<Network> {
    let network = router()?;
    network.nft(WATCH)?;
    match program {
        "nft" => network.nft(rules)?,
        program => network.restore(program, rules)?,
    }
    Ok(network)
}

/// A probe of a protocol to the service, its end there, the end of its answer; by what a back end
/// translates.
fn flows(program: &str) -> Vec<[String; 3]> {
    let v4 = ["192.0.2.7", "203.0.113.80", "10.1.0.11", "10.9.0.5"].map(String::from);
    let v6 =
        ["[2001:db8::7]", "[2001:db8:80::80]", "[fd00:b::11]", "[fd00:9::5]"].map(String::from);
    let families = match program {
        "nft" => vec![v4, v6],
        program if program.starts_with("ip6") => vec![v6],
        _ => vec![v4],
    };
    let mut all = Vec::new();
    for [client, service, node, server] in families {
        for protocol in ["tcp", "udp"] {
            all.push([
                format!("eth0 {protocol} {client}:4000 > {service}:80"),
                format!("eth1 {node}:4000 > {server}:80"),
                format!("eth0 {service}:80 > {client}:4000"),
            ]);
        }
        let [client, service, node, server] =
            [client, service, node, server].map(|address| address.replace(['[', ']'], ""));
        all.push([
            format!("eth0 icmp {client} > {service}"),
            format!("eth1 {node} > {server}"),
            format!("eth0 {service} > {client}"),
        ]);
    }
    all
}

/// A further packet like the one that opened the connection.
fn again(network: &Network, opening: &Shot, answered: bool) -> Result<Shot> {
    judge_query(network, &opening.seen.probe, &opening.further(answered)?)
}

/// The answer from where the opening packet left.
fn answer(network: &Network, opening: &Shot) -> Result<Shot> {
    let left = opening.seen.only()?;
    opening.then_answer(network, left, &opening.answer(Some(&left.device))?)
}

fn unanswered() -> Result<()> {
    let mut failures = Vec::new();
    for (program, rules) in services() {
        let network = service(program, rules)?;
        for [probe, there, back] in flows(program) {
            let check = || -> Result<()> {
                let first = shoot(&network, &probe)?;
                first
                    .ended(&there)?
                    .counted(NEW)?
                    .counted(&[("dnat", 1), ("masq", 1)])?
                    .foreseen()?;
                let untouched = [("dnat", 0), ("masq", 0)];
                // The same packet again, a TCP one as its sender repeats it.
                again(&network, &first, false)?
                    .ended(&there)?
                    .counted(NEW)?
                    .counted(&untouched)?
                    .foreseen()?;
                let answer = answer(&network, &first)?;
                answer.ended(&back)?.counted(ESTABLISHED)?.counted(&untouched)?.foreseen()?;
                ensure!(checksums_hold(&answer.seen.only()?.frame), "a wrong checksum");
                // An echo request that is repeated has the number of one that is answered; a SYN
                // of an answered connection is ignored, and let through as what it is.
                again(&network, &first, true)?
                    .ended(&there)?
                    .counted(ESTABLISHED)?
                    .counted(&untouched)?
                    .foreseen()
            };
            failures.extend(check().with_context(|| format!("{program}: {probe}")).err());
        }
    }
    none(failures)
}

fn tcp() -> Result<()> {
    for (program, rules) in services() {
        let network = service(program, rules)?;
        for [probe, there, back] in flows(program) {
            if !probe.contains(" tcp ") {
                continue;
            }
            let check = || -> Result<()> {
                let established = |shot: &Shot, end: &str| {
                    let untouched = [("dnat", 0), ("masq", 0)];
                    shot.ended(end)?.counted(ESTABLISHED)?.counted(&untouched)?.foreseen()
                };
                let syn = shoot(&network, &probe)?;
                syn.ended(&there)?.foreseen()?;
                let syn_ack = answer(&network, &syn)?;
                established(&syn_ack, &back)?;
                let ack = syn.then_answer(&network, syn_ack.seen.only()?, &syn.further(true)?)?;
                established(&ack, &there)?;
                let data = network.answer(ack.seen.only()?)?;
                data.ended(&back)?;
                data.counted(ESTABLISHED)?;
                let listed = network.connections()?;
                let assured = listed
                    .iter()
                    .any(|line| line.contains("tcp 6 ESTABLISHED") && line.contains("[ASSURED]"));
                ensure!(assured, "{listed:#?}");
                Ok(())
            };
            check().with_context(|| format!("{program}: {probe}"))?;
        }
    }
    Ok(())
}

const PROBE: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";
const PLAIN: &str = "eth1 192.0.2.7:4000 > 10.9.0.5:53";
const MASQUERADED: &str = "eth1 10.1.0.11:4000 > 10.9.0.5:53";
const MASQUERADE: &str = "table ip late { chain post { type nat hook postrouting priority srcnat;
  oifname \"eth1\" counter masquerade comment \"masq\"; }
}";
const MASQUERADE_LEGACY: &str =
    "*nat\n-A POSTROUTING -o eth1 -m comment --comment masq -j MASQUERADE\nCOMMIT\n";

/// A connection that is tracked already can get no translation (`nf_nat_setup_info` returns for a
/// confirmed one), but its packets ask the rules until it is answered.
fn late_nat() -> Result<()> {
    for legacy in [false, true] {
        let network = router()?;
        network.nft(WATCH)?;
        let first = shoot(&network, PROBE)?;
        first.ended(PLAIN)?.counted(NEW)?.foreseen()?;
        match legacy {
            false => network.nft(MASQUERADE)?,
            true => network.restore("iptables-legacy", MASQUERADE_LEGACY)?,
        }
        for _ in 0..2 {
            let untranslated = again(&network, &first, false)?;
            untranslated.ended(PLAIN)?.counted(NEW)?.counted(&[("masq", 1)])?.foreseen()?;
        }
        answer(&network, &first)?
            .ended("eth0 10.9.0.5:53 > 192.0.2.7:4000")?
            .counted(ESTABLISHED)?
            .foreseen()?;
        again(&network, &first, true)?.ended(PLAIN)?.counted(&[("masq", 0)])?.foreseen()?;
        // A new connection is translated.
        let other = PROBE.replace("4000", "4001");
        shoot(&network, &other)?
            .ended("eth1 10.1.0.11:4001 > 10.9.0.5:53")?
            .counted(&[("masq", 1)])?
            .foreseen()?;
    }
    Ok(())
}

/// Of several nat chains each is asked, for none of them settles the matter. One that drops does.
fn late_chains() -> Result<()> {
    for (drop, end) in [(false, PLAIN), (true, "dropped")] {
        let network = router()?;
        network.nft(WATCH)?;
        let first = shoot(&network, PROBE)?;
        first.ended(PLAIN)?.foreseen()?;
        network.nft(&format!(
            "table ip late {{
 chain pre {{ type nat hook prerouting priority dstnat;
  udp dport 53 counter dnat to 10.9.0.6 comment \"dnat\"; counter comment \"after\"; }}
 chain pre2 {{ type nat hook prerouting priority -90; counter comment \"pre2\"; }}
 chain post {{ type nat hook postrouting priority srcnat; counter snat to 10.1.0.99 comment \"snat\"; }}
 chain post2 {{ type nat hook postrouting priority 110; counter {} comment \"post2\"; }}
}}",
            if drop { "drop" } else { "masquerade" }
        ))?;
        again(&network, &first, false)?
            .ended(end)?
            .counted(&[("dnat", 1), ("after", 0), ("pre2", 1), ("snat", 1), ("post2", 1)])?
            .foreseen()?;
        // The answer settles it, without asking anybody.
        answer(&network, &first)?
            .ended("eth0 10.9.0.5:53 > 192.0.2.7:4000")?
            .counted(&[("dnat", 0), ("pre2", 0), ("snat", 0), ("post2", 0)])?
            .foreseen()?;
        again(&network, &first, true)?
            .ended(PLAIN)?
            .counted(&[("dnat", 0), ("pre2", 0), ("snat", 0), ("post2", 0)])?
            .foreseen()?;
    }
    Ok(())
}

/// What passed while nothing was tracked is not remembered.
fn late_tracking() -> Result<()> {
    for legacy in [false, true] {
        let network = router()?;
        let first = shoot(&network, PROBE)?;
        first.ended(PLAIN)?.foreseen()?;
        match legacy {
            false => network.nft(MASQUERADE)?,
            true => network.restore("iptables-legacy", MASQUERADE_LEGACY)?,
        }
        again(&network, &first, false)?.ended(MASQUERADED)?.counted(&[("masq", 1)])?.foreseen()?;
    }
    Ok(())
}

/// The same of a TCP connection: a packet in its middle opens one for the kernel
/// (net.netfilter.nf_conntrack_tcp_loose), and the server hears of a stranger.
fn late_tcp() -> Result<()> {
    for loose in [true, false] {
        let network = router()?;
        let syn = network.observe(&"eth0 tcp 192.0.2.7:4000 > 10.9.0.5:80".parse()?)?;
        let syn_ack = network.answer(syn.only()?)?;
        syn_ack.ended("eth0 10.9.0.5:80 > 192.0.2.7:4000")?;
        network.nft(WATCH)?;
        network.nft(MASQUERADE)?;
        if !loose {
            network.script("sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0")?;
        }
        let ack = network.answer(syn_ack.only()?)?;
        if loose {
            ack.ended("eth1 10.1.0.11:4000 > 10.9.0.5:80")?;
            ack.counted(NEW)?;
            ack.counted(&[("masq", 1)])?;
        } else {
            ack.ended("eth1 192.0.2.7:4000 > 10.9.0.5:80")?;
            ack.counted(&[("new", 0), ("invalid", 1), ("masq", 0)])?;
        }
    }
    Ok(())
}

fn changed_rule() -> Result<()> {
    let dnat = |to: u8| {
        format!(
            "*nat
-F PREROUTING
-A PREROUTING -d 203.0.113.80 -m comment --comment dnat -j DNAT --to-destination 10.9.0.{to}
COMMIT
"
        )
    };
    let probe = "eth0 udp 192.0.2.7:4000 > 203.0.113.80:53";
    let (five, six) = ("eth1 192.0.2.7:4000 > 10.9.0.5:53", "eth1 192.0.2.7:4000 > 10.9.0.6:53");
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = router()?;
        network.nft(WATCH)?;
        network.restore(program, &dnat(5))?;
        let first = shoot(&network, probe)?;
        first.ended(five)?.foreseen()?;
        answer(&network, &first)?.ended("eth0 203.0.113.80:53 > 192.0.2.7:4000")?.foreseen()?;
        network.restore(program, &dnat(6))?;
        again(&network, &first, true)?.ended(five)?.counted(&[("dnat", 0)])?.foreseen()?;
        network.restore(program, "*nat\n-F PREROUTING\nCOMMIT\n")?;
        again(&network, &first, true)?.ended(five)?.foreseen()?;
        // Without its entry it is a new connection.
        network.restore(program, &dnat(6))?;
        network.forget_connections()?;
        shoot(&network, probe)?.ended(six)?.counted(&[("dnat", 1)])?.foreseen()?;
    }
    Ok(())
}

/// Connections are translated by the NAT dispatcher, which is there as long as a nat chain is.
fn no_nat_left() -> Result<()> {
    let network = router()?;
    network.nft(WATCH)?;
    network.nft(MASQUERADE)?;
    let first = shoot(&network, PROBE)?;
    first.ended(MASQUERADED)?.foreseen()?;
    answer(&network, &first)?.ended("eth0 10.9.0.5:53 > 192.0.2.7:4000")?.foreseen()?;
    network.nft("flush chain ip late post")?;
    again(&network, &first, true)?.ended(MASQUERADED)?.foreseen()?;
    network.nft("delete table ip late")?;
    // Tracked all the same, the packet goes as it came, and the server's is for the node.
    again(&network, &first, true)?.ended(PLAIN)?.counted(ESTABLISHED)?.foreseen()?;
    answer(&network, &first)?.ended("local 10.9.0.5:53 > 10.1.0.11:4000")?.foreseen()?;
    // A nat chain anywhere, of whatever rules, brings the dispatcher back to all hooks.
    network.nft("table ip other { chain in { type nat hook input priority 0; }\n }")?;
    again(&network, &first, true)?.ended(MASQUERADED)?.foreseen()?;
    answer(&network, &first)?.ended("eth0 10.9.0.5:53 > 192.0.2.7:4000")?.foreseen()
}

/// `nf_nat_oif_changed`: the entry goes, and the packet that found out is lost.
fn other_device() -> Result<()> {
    let network = router()?;
    network.nft(WATCH)?;
    network.nft(&MASQUERADE.replace("oifname \"eth1\" ", ""))?;
    let first = shoot(&network, PROBE)?;
    first.ended(MASQUERADED)?.foreseen()?;
    answer(&network, &first)?.ended("eth0 10.9.0.5:53 > 192.0.2.7:4000")?.foreseen()?;
    network.script("ip route replace 10.9.0.0/16 via 10.0.0.2 dev eth0")?;
    again(&network, &first, true)?
        .ended("dropped")?
        .counted(ESTABLISHED)?
        .counted(&[("masq", 0)])?
        .foreseen()?;
    ensure!(network.connections()?.is_empty());
    shoot(&network, PROBE)?
        .ended("eth0 10.0.0.11:4000 > 10.9.0.5:53")?
        .counted(&[("masq", 1)])?
        .foreseen()
}

/// A pod that calls the service it is behind.
fn hairpin() -> Result<()> {
    let mut failures = Vec::new();
    for (program, rules) in services() {
        let network = service(program, rules)?;
        for [probe, there, back] in flows(program) {
            let inside = |text: &str| {
                text.replace("eth0", "eth1")
                    .replace("2001:db8::7", "fd00:9::5")
                    .replace("192.0.2.7", "10.9.0.5")
            };
            let (probe, back) = (inside(&probe), inside(&back));
            let check = || -> Result<()> {
                let first = shoot(&network, &probe)?;
                first.ended(&there)?.counted(&[("dnat", 1), ("masq", 1)])?.foreseen()?;
                answer(&network, &first)?
                    .ended(&back)?
                    .counted(ESTABLISHED)?
                    .counted(&[("dnat", 0), ("masq", 0)])?
                    .foreseen()
            };
            failures.extend(check().with_context(|| format!("{program}: {probe}")).err());
        }
    }
    none(failures)
}

/// The pod would get a packet from itself.
fn straight_hairpin() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t { chain pre { type nat hook prerouting priority dstnat;
          ip daddr 203.0.113.80 counter dnat to 10.9.0.5 comment \"dnat\"; }
}",
    )?;
    shoot(&network, "eth1 udp 10.9.0.5:4000 > 203.0.113.80:53")?
        .ended("eth1 10.9.0.5:4000 > 10.9.0.5:53")?
        .counted(&[("dnat", 1)])?
        .foreseen()
}

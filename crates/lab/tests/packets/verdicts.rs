//! Point 11: what ends with a verdict.

use anyhow::Result;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("verdicts::accept_ends_its_base_chain_only", accept),
    ("verdicts::drop_ends_everything", drop_all),
    ("verdicts::goto_keeps_the_callers_frame", goto_frame),
    ("verdicts::return_and_policy", policy),
    ("verdicts::reject_tells_the_sender", reject),
];

const PROBE: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";
const PASSED: &str = "eth1 192.0.2.7:4000 > 10.9.0.5:53";

fn accept() -> Result<()> {
    let network = router()?;
    network.restore(
        "iptables-legacy",
        "*filter\n-A FORWARD -m comment --comment legacy -j ACCEPT\n\
         -A FORWARD -m comment --comment legacy-rest\nCOMMIT\n",
    )?;
    network.nft(
        "table inet t {
 chain sub { counter accept comment \"sub\"; }
 chain early { type filter hook forward priority -10; jump sub; counter comment \"early rest\"; }
 chain late { type filter hook forward priority 10; counter comment \"late\"; }
}",
    )?;
    shoot(&network, PROBE)?
        .ended(PASSED)?
        .counted(&[("sub", 1), ("early rest", 0), ("legacy", 1), ("legacy-rest", 0), ("late", 1)])?
        .foreseen()
}

fn drop_all() -> Result<()> {
    let network = router()?;
    network.nft(
        "table inet t {
 chain early { type filter hook forward priority -10; counter drop comment \"early\"; }
 chain late { type filter hook forward priority 10; counter accept comment \"late\"; }
 chain post { type filter hook postrouting priority 0; counter comment \"post\"; }
}",
    )?;
    shoot(&network, PROBE)?
        .ended("dropped")?
        .counted(&[("early", 1), ("late", 0), ("post", 0)])?
        .foreseen()
}

fn goto_frame() -> Result<()> {
    let text = "*filter
:A - [0:0]
:B - [0:0]
:C - [0:0]
:D - [0:0]
-A FORWARD -m comment --comment base -j A
-A FORWARD -m comment --comment base-rest -g D
-A FORWARD -m comment --comment after-goto
-A A -m comment --comment a -j B
-A A -m comment --comment a-rest
-A B -m comment --comment b -g C
-A B -m comment --comment b-rest
-A C -m comment --comment c
-A D -m comment --comment d
COMMIT
";
    let expected = [
        ("base", 1),
        ("a", 1),
        ("b", 1),
        ("c", 1),
        ("b-rest", 0),
        ("a-rest", 1),
        ("base-rest", 1),
        ("d", 1),
        ("after-goto", 0),
    ];
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = router()?;
        network.restore(program, text)?;
        shoot(&network, PROBE)?.ended(PASSED)?.counted(&expected)?.foreseen()?;
    }
    let network = router()?;
    network.nft(
        "table ip t {
 chain c { counter comment \"c\"; }
 chain d { counter comment \"d\"; }
 chain b { counter goto c comment \"b\"; counter comment \"b-rest\"; }
 chain a { counter jump b comment \"a\"; counter comment \"a-rest\"; }
 chain base { type filter hook forward priority 0;
  counter jump a comment \"base\"
  counter goto d comment \"base-rest\"
  counter comment \"after-goto\"; }
}",
    )?;
    shoot(&network, PROBE)?.ended(PASSED)?.counted(&expected)?.foreseen()
}

fn policy() -> Result<()> {
    let text = "*filter
:FORWARD DROP [0:0]
:A - [0:0]
-A FORWARD -m comment --comment jump -j A
-A FORWARD -p udp -m udp --dport 54 -m comment --comment pass -j ACCEPT
-A FORWARD -m comment --comment return -j RETURN
-A FORWARD -m comment --comment never -j ACCEPT
-A A -m comment --comment back -j RETURN
-A A -m comment --comment never-a -j ACCEPT
COMMIT
";
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = router()?;
        network.restore(program, text)?;
        shoot(&network, PROBE)?
            .ended("dropped")?
            .counted(&[("jump", 1), ("back", 1), ("return", 1), ("never", 0), ("never-a", 0)])?
            .foreseen()?;
        shoot(&network, "eth0 udp 192.0.2.7:4000 > 10.9.0.5:54")?
            .ended("eth1 192.0.2.7:4000 > 10.9.0.5:54")?
            .counted(&[("pass", 1), ("return", 0)])?
            .foreseen()?;
    }
    Ok(())
}

fn reject() -> Result<()> {
    let network = router()?;
    network.restore(
        "iptables-legacy",
        "*filter\n-A FORWARD -p udp -m comment --comment udp -j REJECT --reject-with icmp-port-unreachable\n\
         -A FORWARD -p tcp -m comment --comment tcp -j REJECT --reject-with tcp-reset\nCOMMIT\n",
    )?;
    shoot(&network, PROBE)?.ended("rejected")?.counted(&[("udp", 1), ("tcp", 0)])?.foreseen()?;
    shoot(&network, "eth0 tcp 192.0.2.7:4000 > 10.9.0.5:80")?
        .ended("rejected")?
        .counted(&[("udp", 0), ("tcp", 1)])?
        .foreseen()?;
    let network = router()?;
    network.nft(
        "table inet t { chain through { type filter hook forward priority 0;
          meta l4proto udp counter reject comment \"udp\"
          meta l4proto tcp counter reject with tcp reset comment \"tcp\"; }
}",
    )?;
    for (probe, udp) in [
        (PROBE, 1),
        ("eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53", 1),
        ("eth0 tcp [2001:db8::7]:4000 > [fd00:9::5]:80", 0),
    ] {
        shoot(&network, probe)?
            .ended("rejected")?
            .counted(&[("udp", udp), ("tcp", 1 - udp)])?
            .foreseen()?;
    }
    Ok(())
}

//! What a first reading of the kernel gets wrong: each was once a wrong answer.

use anyhow::{Context, Result};

use crate::trials::Test;
use crate::{none, router, shoot};

pub(crate) const TESTS: &[Test] =
    &[("details::of_nft_rules", nft), ("details::of_iptables_rules", iptables)];

/// A name, a script, rules, a probe, its end, the counters by comment.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, u64)],
);

const PROBE: &str = "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53";
const PASSED: &str = "eth1 192.0.2.7:4000 > 10.9.0.5:53";

const NFT: &[Case] = &[
    (
        "continue ends no rule",
        "true",
        "table ip t { chain c { type filter hook forward priority 0
          ip daddr vmap { 10.9.0.5 : continue } counter comment \"map\"
          ip daddr 10.9.0.5 continue counter comment \"plain\"
          }
        }",
        PROBE,
        PASSED,
        &[("map", 1), ("plain", 1)],
    ),
    (
        "a connection mark needs a connection",
        "true",
        "table ip t { chain r { type filter hook prerouting priority raw
          ct mark set 1 counter comment \"raw\"
          }
          chain p { type nat hook postrouting priority srcnat
          ct mark 1 counter masquerade comment \"marked\"
          }
        }",
        PROBE,
        PASSED,
        &[("raw", 1), ("marked", 0)],
    ),
    (
        "the time to live is one less after routing",
        "true",
        "table ip t { chain p { type filter hook prerouting priority 0
          ip ttl 9 counter comment \"before\"
          }
          chain c { type filter hook forward priority 0
          ip ttl 8 counter comment \"after\"
          ip ttl 9 counter drop comment \"same\"
          }
        }",
        "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53 ttl 9",
        PASSED,
        &[("before", 1), ("after", 1), ("same", 0)],
    ),
    (
        "fib finds no device for an own address",
        "true",
        "table ip t { chain c { type filter hook prerouting priority 0
          ip daddr 10.0.0.11 fib daddr oif exists counter comment \"exists\"
          ip daddr 10.0.0.11 fib daddr oif missing counter comment \"missing\"
          }
        }",
        "eth0 udp 192.0.2.7:4000 > 10.0.0.11:53",
        "local 192.0.2.7:4000 > 10.0.0.11:53",
        &[("exists", 0), ("missing", 1)],
    ),
    (
        "fib takes any of several next hops",
        "ip route add 192.0.2.0/24 nexthop via 10.1.0.2 dev eth1 nexthop via 10.0.0.1 dev eth0",
        "table ip t { chain c { type filter hook prerouting priority 0
          fib saddr . iif oif missing counter drop comment \"missing\"
          fib saddr . iif oif eth0 counter comment \"found\"
          }
        }",
        PROBE,
        PASSED,
        &[("missing", 0), ("found", 1)],
    ),
    (
        "masquerade with a gateway of the other family goes by the destination",
        "ip addr add 10.8.0.1/24 dev eth1; ip route add 10.8.0.50/32 via inet6 fd00:b::2 dev eth1",
        "table ip t { chain p { type nat hook postrouting priority srcnat
          counter masquerade comment \"masq\"
          }
        }",
        "eth0 udp 192.0.2.7:4000 > 10.8.0.50:53",
        "eth1 10.8.0.1:4000 > 10.8.0.50:53",
        &[("masq", 1)],
    ),
    (
        "force_forwarding is enough for IPv6",
        "sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv6.conf.eth0.force_forwarding=1",
        "table ip6 t { chain c { type filter hook forward priority 0
          counter comment \"through\"
          }
        }",
        "eth0 udp [2001:db8::7]:4000 > [fd00:9::5]:53",
        "eth1 [2001:db8::7]:4000 > [fd00:9::5]:53",
        &[("through", 1)],
    ),
];

/// What is set for a connection before it is tracked.
const BEFORE_TRACKING: &[Case] = &[
    (
        "a helper is no template",
        "true",
        "table inet t {
          ct helper h { type \"ftp\" protocol tcp; }
          chain c { type filter hook prerouting priority raw
          ct helper set \"h\" counter comment \"helper\"
          ct state invalid counter comment \"invalid\"
          ct state new counter comment \"new\"
          notrack
          ct state untracked counter comment \"untracked\"
          }
        }",
        "eth0 tcp 192.0.2.7:4000 > 10.9.0.5:21",
        "eth1 192.0.2.7:4000 > 10.9.0.5:21",
        &[("helper", 1), ("invalid", 1), ("new", 0), ("untracked", 1)],
    ),
    (
        "nor is a timeout",
        "true",
        "table ip t {
          ct timeout s { protocol udp; l3proto ip; policy = { unreplied : 7 }; }
          chain c { type filter hook prerouting priority raw
          ct timeout set \"s\" counter comment \"timeout\"
          ct state invalid counter comment \"invalid\"
          ct state new counter comment \"new\"
          notrack
          ct state untracked counter comment \"untracked\"
          }
        }",
        PROBE,
        PASSED,
        &[("timeout", 1), ("invalid", 1), ("new", 0), ("untracked", 1)],
    ),
    (
        "an expectation breaks the rule where there is no connection",
        "true",
        "table ip t {
          ct expectation e { protocol udp; dport 99; timeout 1m; size 8; l3proto ip; }
          chain r { type filter hook prerouting priority raw
          ct expectation set \"e\" counter comment \"early\"
          }
          chain c { type filter hook prerouting priority mangle
          ct expectation set \"e\" counter comment \"late\"
          }
        }",
        PROBE,
        PASSED,
        &[("early", 0), ("late", 1)],
    ),
];

const IPTABLES: &[Case] = &[
    (
        "notrack after a template does nothing",
        "true",
        "*raw
-A PREROUTING -m comment --comment zone -j CT --zone 5
-A PREROUTING -m comment --comment notrack -j CT --notrack
COMMIT
*nat
-A POSTROUTING -m comment --comment masq -j MASQUERADE
COMMIT
",
        PROBE,
        "eth1 10.1.0.11:4000 > 10.9.0.5:53",
        &[("zone", 1), ("notrack", 1), ("masq", 1)],
    ),
    (
        "a type without exceptions has none to return",
        "ipset create h hash:ip; ipset add h 192.0.2.7",
        "*filter
-A FORWARD -m set --match-set h src --return-nomatch -m comment --comment there
-A FORWARD -m set ! --match-set h src --return-nomatch -m comment --comment not
COMMIT
",
        PROBE,
        PASSED,
        &[("there", 1), ("not", 0)],
    ),
    (
        "a connection mark in raw needs a connection",
        "true",
        "*raw
-A PREROUTING -m comment --comment raw -j CONNMARK --set-xmark 0x1/0x1
COMMIT
*nat
-A POSTROUTING -m connmark --mark 0x1 -m comment --comment marked -j MASQUERADE
COMMIT
",
        PROBE,
        PASSED,
        &[("raw", 1), ("marked", 0)],
    ),
];

fn nft() -> Result<()> {
    let run = |case: &Case| -> Result<()> {
        let (_, script, rules, probe, end, counters) = case;
        let network = router()?;
        network.script(script)?;
        network.nft(rules)?;
        shoot(&network, probe)?.ended(end)?.counted(counters)?.foreseen()?;
        Ok(())
    };
    none(
        NFT.iter()
            .chain(BEFORE_TRACKING)
            .filter_map(|case| run(case).context(case.0).err())
            .collect(),
    )
}

fn iptables() -> Result<()> {
    let run = |program: &str, case: &Case| -> Result<()> {
        let (_, script, rules, probe, end, counters) = case;
        let network = router()?;
        network.script(script)?;
        network.restore(program, rules)?;
        shoot(&network, probe)?.ended(end)?.counted(counters)?.foreseen()?;
        Ok(())
    };
    let failures = ["iptables-legacy", "iptables-nft"]
        .iter()
        .flat_map(|program| IPTABLES.iter().map(move |case| (program, case)))
        .filter_map(|(program, case)| run(program, case).context(case.0).err())
        .collect();
    none(failures)
}

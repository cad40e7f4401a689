//! Traffic through NAT.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use unmasq_lab::traffic::{Ask, Attempt, Outcome};

use crate::trials::Test;
use crate::{ALL, BRIEF, Row, once, reported};

pub(crate) const TESTS: &[Test] = &[
    ("translated::masquerade_is_what_the_server_sees", masquerade),
    ("translated::dnat_answers_from_the_address_that_was_called", dnat),
    ("translated::an_answer_from_elsewhere_is_none", elsewhere),
    ("translated::a_lost_answer_was_seen_still", lost),
];

fn masquerade() -> Result<()> {
    let row = Row::new()?;
    row.nft(
        "table inet t { chain post { type nat hook postrouting priority srcnat;
          oifname \"eth1\" masquerade
        }
        }",
    )?;
    let _server = row.serve()?;
    for (to, node) in [("10.1.0.2", "10.1.0.1"), ("fd00:b::2", "fd00:b::1")] {
        for ask in ALL {
            let attempt = row.attempt(to, ask())?;
            let answer = once(attempt.clone());
            let report = reported(&attempt, &answer)?;
            ensure!(report.source.ip() == node.parse::<IpAddr>()?, "{report:?}");
            ensure!(answer.from.ip() != report.source.ip(), "{answer:?}");
        }
    }
    Ok(())
}

fn dnat() -> Result<()> {
    let row = Row::new()?;
    row.nft(
        "table inet t { chain pre { type nat hook prerouting priority dstnat;
          ip daddr 203.0.113.80 tcp dport 8000 dnat ip to 10.1.0.3:80
          ip daddr 203.0.113.80 udp dport 8000 dnat ip to 10.1.0.3:53
          ip daddr 203.0.113.80 icmp type echo-request dnat ip to 10.1.0.3
          ip6 daddr 2001:db8::80 tcp dport 8000 dnat ip6 to [fd00:b::3]:80
          ip6 daddr 2001:db8::80 udp dport 8000 dnat ip6 to [fd00:b::3]:53
          ip6 daddr 2001:db8::80 icmpv6 type echo-request dnat ip6 to fd00:b::3
        }
        }",
    )?;
    let _server = row.serve()?;
    for (to, host) in [("203.0.113.80", "10.1.0.3"), ("2001:db8::80", "fd00:b::3")] {
        for ask in ALL {
            let mut attempt = row.attempt(to, ask())?;
            attempt.to.set_port(8000);
            let answer = once(attempt.clone());
            let report = reported(&attempt, &answer)?;
            ensure!(report.destination.ip() == host.parse::<IpAddr>()?, "{report:?}");
            ensure!(report.source == answer.from, "{answer:?}");
        }
    }
    Ok(())
}

/// The way back doesn't translate: rules without connection tracking change the destination only,
/// so that an answer comes from an address that nobody called.
fn elsewhere() -> Result<()> {
    let row = Row::new()?;
    row.nft(
        "table inet t { chain pre { type filter hook prerouting priority raw;
          ip daddr 203.0.113.80 notrack ip daddr set 10.1.0.2
          ip6 daddr 2001:db8::80 notrack ip6 daddr set fd00:b::2
        }
        }",
    )?;
    let _server = row.serve()?;
    for (to, host) in [("203.0.113.80", "10.1.0.2"), ("2001:db8::80", "fd00:b::2")] {
        for ask in ALL {
            let mut attempt = row.attempt(to, ask())?;
            let tcp = matches!(attempt.ask, Ask::Line | Ask::Http { .. });
            if tcp {
                attempt.patience = BRIEF;
            }
            let answer = once(attempt);
            match &answer.outcome {
                Outcome::Silent if tcp => {}
                Outcome::Misanswered { by, report: Some(report) } if !tcp => {
                    ensure!(by.ip() == host.parse::<IpAddr>()?, "{answer:?}");
                    ensure!(report.source == answer.from, "{answer:?}");
                }
                other => anyhow::bail!("{to}: {other:?}"),
            }
        }
    }
    Ok(())
}

/// The client's address is lost on the way there, and nobody knows the way back.
fn lost() -> Result<()> {
    let row = Row::new()?;
    row.nft(
        "table inet t { chain c { type filter hook forward priority 0; iifname \"eth1\" drop; }
         chain post { type nat hook postrouting priority srcnat;
          ip daddr 10.1.0.2 snat ip to 192.0.2.9
          ip6 daddr fd00:b::2 snat ip6 to 2001:db8::9
        }
        }",
    )?;
    let _server = row.serve()?;
    for (to, seen) in [("10.1.0.2", "192.0.2.9"), ("fd00:b::2", "2001:db8::9")] {
        for ask in ALL {
            let attempt = Attempt { patience: BRIEF, ..row.attempt(to, ask())? };
            let tcp = matches!(attempt.ask, Ask::Line | Ask::Http { .. });
            let answer = once(attempt);
            ensure!(answer.outcome == Outcome::Silent, "{answer:?}");
            let source = answer.seen.as_ref().map(|report| report.source.ip());
            ensure!(source == (if tcp { None } else { Some(seen.parse()?) }), "{answer:?}");
        }
    }
    Ok(())
}

//! No answer: refused, dropped, stopped.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use unmasq_lab::traffic::proxy_protocol::Version;
use unmasq_lab::traffic::{Ask, Attempt, Forward, Hop, Outcome, Proxy, Refusal, send};

use crate::trials::Test;
use crate::{ALL, BRIEF, PATIENT, Row, once, reported};

pub(crate) const TESTS: &[Test] = &[
    ("refused::closed_ports", closed_ports),
    ("refused::rejected_on_the_way", rejected),
    ("refused::no_route", no_route),
    ("refused::dropped_is_silent_and_waited_for_once", dropped),
    ("refused::a_server_that_stops", stopped),
    ("refused::nothing_is_left_of_what_was_given_up", nothing_left),
];

fn refused(attempt: &Attempt, how: Refusal, by: Option<&str>) -> Result<()> {
    let answer = once(attempt.clone());
    let by: Option<IpAddr> = by.map(str::parse).transpose()?;
    ensure!(answer.outcome == Outcome::Refused { how, by }, "{attempt:?}: {answer:?}");
    ensure!(answer.took < PATIENT, "{answer:?}");
    Ok(())
}

fn closed_ports() -> Result<()> {
    let row = Row::new()?;
    for to in ["10.1.0.2", "fd00:b::2"] {
        refused(&row.attempt(to, Ask::Line)?, Refusal::Reset, None)?;
        refused(&row.attempt(to, Ask::http())?, Refusal::Reset, None)?;
        let by = Some(to);
        refused(&row.attempt(to, Ask::Datagram)?, Refusal::PortUnreachable, by)?;
    }
    Ok(())
}

fn rejected() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    for (with, how) in [
        ("port-unreachable", Refusal::PortUnreachable),
        ("host-unreachable", Refusal::HostUnreachable),
        ("addr-unreachable", Refusal::HostUnreachable),
        ("net-unreachable", Refusal::NetUnreachable),
        ("no-route", Refusal::NetUnreachable),
        ("admin-prohibited", Refusal::Prohibited),
        ("tcp reset", Refusal::Reset),
    ] {
        for (family, icmp, to, node) in
            [("ip", "icmp", "10.1.0.2", "10.0.0.1"), ("ip6", "icmpv6", "fd00:b::2", "fd00:a::1")]
        {
            let reset = how == Refusal::Reset;
            let of_other_family = match with {
                "host-unreachable" | "net-unreachable" => family == "ip6",
                "addr-unreachable" | "no-route" => family == "ip",
                _ => false,
            };
            if of_other_family {
                continue;
            }
            let with = if reset {
                "meta l4proto tcp reject with tcp reset".into()
            } else {
                format!("reject with {icmp} type {with}")
            };
            row.nft(&format!(
                "table {family} t {{ chain c {{ type filter hook forward priority 0; {with}; }}\n}}"
            ))?;
            for ask in ALL {
                let attempt = row.attempt(to, ask())?;
                match attempt.ask {
                    Ask::Line | Ask::Http { .. } => {
                        refused(&attempt, how, Some(node).filter(|_| !reset))?;
                    }
                    Ask::Datagram | Ask::Echo if reset => {
                        reported(&attempt, &once(attempt.clone()))?;
                    }
                    Ask::Datagram | Ask::Echo => refused(&attempt, how, Some(node))?,
                }
            }
            row.nft(&format!("delete table {family} t"))?;
        }
    }
    // Many of one source at once: each error ends the attempt that it is about.
    row.nft(
        "table ip t { chain c { type filter hook forward priority 0; ip daddr 10.1.0.2 reject; }\n}",
    )?;
    let mut attempts = Vec::new();
    for number in 0..40 {
        let to = ["10.1.0.2", "10.1.0.3"][number % 2];
        attempts.push(row.attempt(to, if number < 20 { Ask::Echo } else { Ask::Datagram })?);
    }
    for (attempt, answer) in attempts.iter().zip(send(&attempts)) {
        if attempt.to.ip() == "10.1.0.3".parse::<IpAddr>()? {
            reported(attempt, &answer)?;
        } else {
            let by = Some("10.0.0.1".parse()?);
            let expected = Outcome::Refused { how: Refusal::PortUnreachable, by };
            ensure!(answer.outcome == expected, "{answer:?}");
        }
    }
    Ok(())
}

fn no_route() -> Result<()> {
    let row = Row::new()?;
    row.client.script(
        "ip route add unreachable 192.0.2.1/32
         ip route add prohibit 192.0.2.2/32
         ip route add unreachable 2001:db8::1/128
         ip route add prohibit 2001:db8::2/128",
    )?;
    // What the router has no route for, it says itself.
    for ask in ALL {
        for (to, how) in [
            ("192.0.2.1", Refusal::HostUnreachable),
            ("192.0.2.2", Refusal::Prohibited),
            ("2001:db8::1", Refusal::HostUnreachable),
            ("2001:db8::2", Refusal::Prohibited),
        ] {
            refused(&row.attempt(to, ask())?, how, None)?;
        }
        refused(&row.attempt("192.0.2.3", ask())?, Refusal::NetUnreachable, Some("10.0.0.1"))?;
        refused(&row.attempt("2001:db8::3", ask())?, Refusal::NetUnreachable, Some("fd00:a::1"))?;
    }
    row.client.script("ip route del default")?;
    for ask in ALL {
        refused(&row.attempt("192.0.2.3", ask())?, Refusal::NetUnreachable, None)?;
    }
    Ok(())
}

fn dropped() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    row.nft("table inet t { chain c { type filter hook forward priority 0; policy drop; }\n}")?;
    row.client.exec_with(
        &["nft", "-f", "-"],
        "table ip t { chain c { type filter hook output priority 0; ip daddr 192.0.2.9 drop; }\n}",
    )?;
    let mut attempts = Vec::new();
    for to in ["10.1.0.2", "fd00:b::2", "192.0.2.9"] {
        for ask in ALL {
            for _ in 0..10 {
                let mut attempt = row.attempt(to, ask())?;
                attempt.patience = BRIEF;
                attempts.push(attempt);
            }
        }
    }
    let started = Instant::now();
    let answers = send(&attempts);
    let took = started.elapsed();
    for (attempt, answer) in attempts.iter().zip(&answers) {
        ensure!(answer.outcome == Outcome::Silent, "{attempt:?}: {answer:?}");
        ensure!(answer.took >= BRIEF, "{answer:?}");
    }
    ensure!(took >= BRIEF && took < 3 * BRIEF, "{} attempts took {took:?}", attempts.len());
    Ok(())
}

fn stopped() -> Result<()> {
    let row = Row::new()?;
    let server = row.serve()?;
    let mut stream = row.client.enter(|| TcpStream::connect("10.1.0.2:80"))??;
    stream.set_read_timeout(Some(PATIENT))?;
    // The answer to another proves that the server has this one: it accepts them in order.
    stream.write_all(b"GET / HTTP/1.1\r\nHos")?;
    let attempt = row.attempt("10.1.0.2", Ask::Line)?;
    reported(&attempt, &once(attempt.clone()))?;
    let started = Instant::now();
    drop(server);
    ensure!(started.elapsed() < Duration::from_secs(1), "stopped after {:?}", started.elapsed());
    match stream.read(&mut [0; 16]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => bail!("expected a reset: {other:?}"),
    }
    refused(&attempt, Refusal::Reset, None)?;
    // Processes that other tests start have the server's sockets until they execute their program.
    let datagram = Attempt { patience: BRIEF, ..row.attempt("10.1.0.2", Ask::Datagram)? };
    let by = Some("10.1.0.2".parse()?);
    let expected = Outcome::Refused { how: Refusal::PortUnreachable, by };
    ensure!((0..10).any(|_| once(datagram.clone()).outcome == expected), "{datagram:?}");
    // The kernel goes on answering echo requests, but nobody saw them.
    let echo = once(row.attempt("10.1.0.2", Ask::Echo)?);
    let expected = matches!(echo.outcome, Outcome::Answered { report: None, .. });
    ensure!(expected, "{echo:?}");
    // All ports are free again.
    let _server = row.serve().context("start again")?;
    reported(&attempt, &once(attempt.clone())).map(drop)
}

/// A device goes away with the namespace of its other end, which lives until the last socket in it
/// is gone: closed, and not kept by the kernel for bytes that nobody acknowledges.
fn nothing_left() -> Result<()> {
    let row = Row::new()?;
    let server = row.serve()?;
    let forward = Forward::ProxyProtocol(Version::V1);
    let (namespace, upstreams) = (Some(row.client.path()), vec!["10.1.0.2:80".parse()?]);
    let hop = Hop { namespace, port: 8001, proxy_protocol: false, forward, upstreams };
    let proxy = Proxy::start(&hop)?;
    let mut attempts = Vec::new();
    for to in ["10.1.0.2", "fd00:b::2", "10.0.0.2"] {
        for ask in ALL {
            let mut attempt = row.attempt(to, ask())?;
            attempt.patience = BRIEF;
            if to == "10.0.0.2" {
                // From the host through the hop in the client.
                (attempt.namespace, attempt.to) =
                    (Some(row.host.path()), (attempt.to.ip(), 8001).into());
            }
            attempts.push(attempt);
        }
    }
    send(&attempts);
    // From now on connections come about, but nothing that is said in them arrives.
    row.nft(
        "table inet t { chain c { type filter hook forward priority 0;
          tcp flags & psh == psh drop
          tcp flags & (fin | rst) != 0 drop
        }
        }",
    )?;
    let answers = send(&attempts);
    ensure!(answers.iter().any(|answer| answer.outcome == Outcome::Silent), "{answers:?}");
    drop((server, proxy));
    let Row { client, node, host } = row;
    drop((client, host));
    let started = Instant::now();
    while started.elapsed() < PATIENT {
        if !node.exec(&["ip", "-o", "link"])?.contains("eth") {
            return Ok(());
        }
    }
    bail!("after {:?}: {}", started.elapsed(), node.exec(&["ip", "-o", "link"])?)
}

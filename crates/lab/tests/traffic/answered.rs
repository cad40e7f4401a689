//! Answers: who is seen by the server, and who answers.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use unmasq_lab::traffic::{
    Ask, Attempt, Health, HealthStatus, Outcome, Place, Report, Server, ServiceHealth, send,
};

use crate::trials::Test;
use crate::{ALL, PATIENT, Row, once, place, reported};

pub(crate) const TESTS: &[Test] = &[
    ("answered::every_protocol_and_family", every_protocol),
    ("answered::from_a_given_address_and_port", given_source),
    ("answered::in_the_current_namespace", current_namespace),
    ("answered::a_datagram_from_the_address_it_was_sent_to", many_addresses),
    ("answered::three_hundred_at_once", three_hundred),
    ("answered::to_a_client_that_speaks_by_hand", by_hand),
    ("answered::health_checks", health_checks),
];

fn every_protocol() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    for (to, from) in [("10.1.0.2", "10.0.0.2"), ("fd00:b::2", "fd00:a::2")] {
        for ask in ALL {
            let attempt = row.attempt(to, ask())?;
            let answer = once(attempt.clone());
            let report = reported(&attempt, &answer)?;
            ensure!(report.by == "web-1", "{report:?}");
            ensure!(report.source == answer.from, "{answer:?}");
            ensure!(answer.from.ip() == from.parse::<IpAddr>()?, "{answer:?}");
            ensure!((answer.from.port() == 0) == (attempt.ask == Ask::Echo), "{answer:?}");
            let port = if attempt.ask == Ask::Echo { 0 } else { attempt.to.port() };
            ensure!(report.destination == SocketAddr::new(attempt.to.ip(), port), "{report:?}");
            // One router between both takes one of 64.
            let ttl = match attempt.ask {
                Ask::Line | Ask::Http { .. } => None,
                Ask::Datagram | Ask::Echo => Some(63),
            };
            ensure!(report.ttl == ttl, "{report:?}");
        }
    }
    Ok(())
}

fn given_source() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    for (to, source) in [("10.1.0.2", "10.0.0.3"), ("fd00:b::2", "fd00:a::3")] {
        for ask in ALL {
            let mut attempt = row.attempt(to, ask())?;
            attempt.source = Some(source.parse()?);
            attempt.source_port = 4001;
            // Twice: the port can be used again at once.
            for _ in 0..2 {
                let answer = once(attempt.clone());
                let report = reported(&attempt, &answer)?;
                let port = if attempt.ask == Ask::Echo { 0 } else { 4001 };
                ensure!(report.source == SocketAddr::new(source.parse()?, port), "{report:?}");
                ensure!(report.source == answer.from, "{answer:?}");
            }
        }
    }
    // One port to two addresses at once, and to one of them twice.
    let to_all = |ask: fn() -> Ask| -> Result<Vec<Attempt>> {
        let attempt = |to: &str| {
            let mut attempt = row.attempt(to, ask())?;
            attempt.source_port = 4002;
            Ok(attempt)
        };
        ["10.1.0.2", "10.1.0.3"].into_iter().map(attempt).collect()
    };
    for ask in [(|| Ask::Line) as fn() -> Ask, || Ask::Datagram] {
        let attempts = to_all(ask)?;
        for (attempt, answer) in attempts.iter().zip(send(&attempts)) {
            ensure!(reported(attempt, &answer)?.source.port() == 4002, "{answer:?}");
        }
    }
    let mut absent = row.attempt("10.1.0.2", Ask::Line)?;
    absent.source = Some("192.0.2.9".parse()?);
    let answer = once(absent);
    ensure!(matches!(&answer.outcome, Outcome::Failed(why) if why.contains("192.0.2.9")));
    Ok(())
}

fn current_namespace() -> Result<()> {
    let row = Row::new()?;
    row.host.enter(|| {
        let place = Place { namespace: None, ..place(&row.host, "here") };
        let _server = Server::start(&[place], &[])?;
        for to in ["127.0.0.1", "::1", "10.1.0.3"] {
            for ask in ALL {
                let mut attempt = row.attempt(to, ask())?;
                attempt.namespace = None;
                let answer = once(attempt.clone());
                let report = reported(&attempt, &answer)?;
                ensure!((&*report.by, report.source) == ("here", answer.from), "{answer:?}");
                ensure!(report.ttl.is_none_or(|ttl| ttl == 64), "{report:?}");
            }
        }
        Ok(())
    })?
}

fn many_addresses() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    for to in ["10.1.0.2", "10.1.0.3", "fd00:b::2", "fd00:b::3"] {
        let attempt = row.attempt(to, Ask::Datagram)?;
        let answer = once(attempt.clone());
        ensure!(reported(&attempt, &answer)?.destination == attempt.to, "{answer:?}");
    }
    Ok(())
}

fn three_hundred() -> Result<()> {
    let row = Row::new()?;
    let _server = Server::start(&[place(&row.host, "web-1"), place(&row.node, "node")], &[])?;
    let mut attempts = Vec::new();
    for number in 0..300 {
        let to = ["10.1.0.2", "fd00:b::2", "10.0.0.1", "10.1.0.3", "fd00:a::1"][number % 5];
        attempts.push(row.attempt(to, ALL[number % 4]())?);
    }
    let started = Instant::now();
    let answers = send(&attempts);
    let took = started.elapsed();
    for (number, (attempt, answer)) in attempts.iter().zip(&answers).enumerate() {
        let report = reported(attempt, answer)?;
        let by = if matches!(number % 5, 2 | 4) { "node" } else { "web-1" };
        ensure!((&*report.by, report.source) == (by, answer.from), "{report:?}");
    }
    ensure!(took < Duration::from_secs(1), "{took:?}");
    Ok(())
}

/// What programs like nc and curl would do.
fn by_hand() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    let talk = |parts: &[&[u8]]| -> Result<String> {
        row.client.enter(|| {
            let mut stream = TcpStream::connect("10.1.0.2:80")?;
            stream.set_read_timeout(Some(PATIENT))?;
            for part in parts {
                stream.write_all(part)?;
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).context("read to the end")?;
            Ok(answer)
        })?
    };
    let line = talk(&[b"he", b"llo\nand more"])?;
    let report = Report::from_json(line.as_bytes()).context("no report")?;
    ensure!((line.ends_with('\n'), &*report.request) == (true, "hello"), "{line}");
    let request: [&[u8]; 3] = [b"GET /x HT", b"TP/1.1\r\nX-Forwarded-For: 192.0.2.1", b"\r\n\r\n"];
    let response = talk(&request)?;
    let (head, body) = response.split_once("\r\n\r\n").context("no head")?;
    for line in ["HTTP/1.1 200 OK", "Content-Type: application/json", "Connection: close"] {
        ensure!(head.lines().any(|other| other == line), "{line} in {head}");
    }
    let report = Report::from_json(body.as_bytes()).context("no report")?;
    ensure!(report.x_forwarded_for.as_deref() == Some("192.0.2.1"), "{report:?}");
    Ok(())
}

fn health_checks() -> Result<()> {
    let row = Row::new()?;
    let mut health = ServiceHealth {
        namespace: "shop".into(),
        name: "web".into(),
        local_endpoints: 2,
        proxy_healthy: true,
    };
    let status = HealthStatus::new(health.clone());
    let namespace = Some(row.node.path());
    let ports = [Health { namespace, port: 32_000, status: status.clone() }];
    let _server = Server::start(&[], &ports)?;
    let path = String::from("/");
    let ask = Ask::Http { path, headers: Vec::new() };
    for (endpoints, expected) in [(2, 200), (0, 503), (1, 200)] {
        health.local_endpoints = endpoints;
        status.set(health.clone());
        for to in ["10.0.0.1", "fd00:a::1"] {
            let mut attempt = row.attempt(to, ask.clone())?;
            attempt.to.set_port(32_000);
            let answer = once(attempt);
            let Outcome::Answered { status, body, report: None, .. } = &answer.outcome else {
                anyhow::bail!("{answer:?}");
            };
            ensure!(*status == Some(expected), "{answer:?}");
            let endpoints = format!("\"localEndpoints\":{endpoints}");
            ensure!(String::from_utf8_lossy(body).contains(&endpoints), "{answer:?}");
        }
    }
    Ok(())
}

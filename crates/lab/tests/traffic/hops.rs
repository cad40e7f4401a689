//! Proxies between client and server: what the server sees, and what it is told.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use unmasq_lab::traffic::proxy_protocol::Version;
use unmasq_lab::traffic::{
    Ask, Attempt, Forward, Hop, Outcome, Place, Proxy, Refusal, Report, Server, send,
};

use crate::trials::Test;
use crate::{PATIENT, Row, once, place, reported};

pub(crate) const TESTS: &[Test] = &[
    ("hops::layer_7_adds_the_client", layer_7),
    ("hops::layer_7_keeps_those_before", layer_7_twice),
    ("hops::proxy_protocol_tells_the_client", proxy_protocol),
    ("hops::a_load_balancer_ahead_of_an_ingress", chain),
    ("hops::upstreams_take_turns", turns),
    ("hops::no_upstream", no_upstream),
    ("hops::no_header_where_one_is_expected", no_header),
    ("hops::a_head_in_parts", parts),
    ("hops::a_proxy_that_stops", stopped),
];

/// A place in the host at port 81 that expects PROXY protocol headers.
fn expecting(row: &Row) -> Place {
    let mut place = place(&row.host, "expecting");
    (place.tcp, place.udp, place.icmp) = (vec![81], Vec::new(), false);
    place.proxy_protocol = true;
    place
}

/// A hop in the node.
fn hop(row: &Row, port: u16, forward: Forward, upstreams: &[&str]) -> Result<Hop> {
    let upstreams = upstreams.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let namespace = Some(row.node.path());
    Ok(Hop { namespace, port, proxy_protocol: false, forward, upstreams })
}

fn to_port(row: &Row, to: &str, port: u16, ask: Ask) -> Result<Attempt> {
    let mut attempt = row.attempt(to, ask)?;
    attempt.to.set_port(port);
    Ok(attempt)
}

fn layer_7() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    let _v4 = Proxy::start(&hop(&row, 8004, Forward::Http, &["10.1.0.2:80"])?)?;
    let _v6 = Proxy::start(&hop(&row, 8006, Forward::Http, &["[fd00:b::2]:80"])?)?;
    for (to, client) in [("10.0.0.1", "10.0.0.2"), ("fd00:a::1", "fd00:a::2")] {
        for (port, node) in [(8004, "10.1.0.1"), (8006, "fd00:b::1")] {
            let attempt = to_port(&row, to, port, Ask::http())?;
            let answer = once(attempt.clone());
            let report = reported(&attempt, &answer)?;
            ensure!(report.source.ip() == node.parse::<IpAddr>()?, "{report:?}");
            ensure!(report.x_forwarded_for.as_deref() == Some(client), "{report:?}");
        }
    }
    // More at once than wait for a turn.
    let attempts = vec![to_port(&row, "10.0.0.1", 8004, Ask::http())?; 100];
    let started = Instant::now();
    for (attempt, answer) in attempts.iter().zip(send(&attempts)) {
        reported(attempt, &answer)?;
    }
    ensure!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    Ok(())
}

fn layer_7_twice() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    let _first = Proxy::start(&hop(&row, 8001, Forward::Http, &["127.0.0.1:8002"])?)?;
    let _second = Proxy::start(&hop(&row, 8002, Forward::Http, &["10.1.0.2:80"])?)?;
    let headers = vec![("x-forwarded-for".to_owned(), "192.0.2.1".to_owned())];
    let attempt = to_port(&row, "10.0.0.1", 8001, Ask::Http { path: "/a?b".into(), headers })?;
    let answer = once(attempt.clone());
    let report = reported(&attempt, &answer)?;
    let told = report.x_forwarded_for.as_deref();
    ensure!(told == Some("192.0.2.1, 10.0.0.2, 127.0.0.1"), "{report:?}");
    ensure!(report.request == "/a?b", "{report:?}");
    Ok(())
}

fn proxy_protocol() -> Result<()> {
    let row = Row::new()?;
    let _server = Server::start(&[expecting(&row)], &[])?;
    for (port, version) in [(8001, Version::V1), (8002, Version::V2)] {
        let forward = Forward::ProxyProtocol(version);
        let _proxy = Proxy::start(&hop(&row, port, forward, &["10.1.0.2:81"])?)?;
        for (to, client) in [("10.0.0.1", "10.0.0.2"), ("fd00:a::1", "fd00:a::2")] {
            for ask in [Ask::Line, Ask::http()] {
                let attempt = to_port(&row, to, port, ask)?;
                let answer = once(attempt.clone());
                let report = reported(&attempt, &answer)?;
                ensure!(answer.from.ip() == client.parse::<IpAddr>()?, "{answer:?}");
                ensure!(report.proxied == Some(answer.from), "{version:?}: {report:?}");
                ensure!(report.source.ip() == "10.1.0.1".parse::<IpAddr>()?, "{report:?}");
                ensure!(report.x_forwarded_for.is_none(), "{report:?}");
            }
        }
    }
    Ok(())
}

/// The load balancer speaks the PROXY protocol, and the ingress knows by that whom to add.
fn chain() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    let forward = Forward::ProxyProtocol(Version::V2);
    let _balancer = Proxy::start(&hop(&row, 8001, forward, &["[fd00:b::1]:8002"])?)?;
    let mut ingress = hop(&row, 8002, Forward::Http, &["10.1.0.2:80"])?;
    ingress.proxy_protocol = true;
    let _ingress = Proxy::start(&ingress)?;
    let attempt = to_port(&row, "10.0.0.1", 8001, Ask::http())?;
    let answer = once(attempt.clone());
    let report = reported(&attempt, &answer)?;
    ensure!(report.x_forwarded_for.as_deref() == Some("10.0.0.2"), "{report:?}");
    // Whoever goes around the load balancer has no header.
    let around = once(to_port(&row, "10.0.0.1", 8002, Ask::http())?);
    let expected = Outcome::Refused { how: Refusal::Reset, by: None };
    ensure!(around.outcome == expected, "{around:?}");
    Ok(())
}

fn turns() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    let upstreams = ["10.1.0.2:80", "10.1.0.3:80", "[fd00:b::2]:80"];
    let _proxy = Proxy::start(&hop(&row, 8001, Forward::Http, &upstreams)?)?;
    for turn in 0..6 {
        let attempt = to_port(&row, "10.0.0.1", 8001, Ask::http())?;
        let answer = once(attempt.clone());
        let upstream: SocketAddr = upstreams[turn % 3].parse()?;
        ensure!(reported(&attempt, &answer)?.destination == upstream, "{turn}: {answer:?}");
    }
    Ok(())
}

fn no_upstream() -> Result<()> {
    let row = Row::new()?;
    row.node.script("ip route add unreachable 192.0.2.1")?;
    for (port, upstreams) in
        [(8001, &["10.1.0.2:80"] as &[&str]), (8002, &["192.0.2.1:80"]), (8003, &[])]
    {
        let proxy = Proxy::start(&hop(&row, port, Forward::Http, upstreams)?)?;
        let answer = once(to_port(&row, "10.0.0.1", port, Ask::http())?);
        let Outcome::Answered { status: Some(502), report: None, .. } = answer.outcome else {
            bail!("{upstreams:?}: {answer:?}");
        };
        drop(proxy);
        let forward = Forward::ProxyProtocol(Version::V1);
        let _proxy = Proxy::start(&hop(&row, port, forward, upstreams)?)?;
        let answer = once(to_port(&row, "10.0.0.1", port, Ask::Line)?);
        let expected = Outcome::Refused { how: Refusal::Reset, by: None };
        ensure!(answer.outcome == expected, "{upstreams:?}: {answer:?}");
    }
    // What isn't HTTP isn't passed on.
    let _proxy = Proxy::start(&hop(&row, 8004, Forward::Http, &["10.1.0.2:80"])?)?;
    let answer = once(to_port(&row, "10.0.0.1", 8004, Ask::Line)?);
    let Outcome::Answered { report: None, body, .. } = &answer.outcome else { bail!("{answer:?}") };
    ensure!(body.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    Ok(())
}

fn no_header() -> Result<()> {
    let row = Row::new()?;
    let _server = Server::start(&[expecting(&row)], &[])?;
    for ask in [Ask::Line, Ask::http()] {
        let answer = once(to_port(&row, "10.1.0.2", 81, ask)?);
        let expected = Outcome::Refused { how: Refusal::Reset, by: None };
        ensure!(answer.outcome == expected, "{answer:?}");
    }
    Ok(())
}

fn parts() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    let _proxy = Proxy::start(&hop(&row, 8001, Forward::Http, &["10.1.0.2:80"])?)?;
    let mut stream = row.client.enter(|| TcpStream::connect("10.0.0.1:8001"))??;
    stream.set_read_timeout(Some(PATIENT))?;
    stream.set_nodelay(true)?;
    for part in ["GET / HT", "TP/1.1\r", "\nX-Forwarded-For: 192.0.2.1\r\n", "\r\n"] {
        stream.write_all(part.as_bytes())?;
    }
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (_, body) = response.split_once("\r\n\r\n").context("no head")?;
    let report = Report::from_json(body.as_bytes()).context("no report")?;
    ensure!(report.x_forwarded_for.as_deref() == Some("192.0.2.1, 10.0.0.2"), "{report:?}");
    Ok(())
}

fn stopped() -> Result<()> {
    let row = Row::new()?;
    let _server = row.serve()?;
    let proxy = Proxy::start(&hop(&row, 8001, Forward::Http, &["10.1.0.2:80"])?)?;
    let mut stream = row.client.enter(|| TcpStream::connect("10.0.0.1:8001"))??;
    stream.set_read_timeout(Some(PATIENT))?;
    stream.write_all(b"GET / HTTP/1.1\r\n")?;
    let attempt = to_port(&row, "10.0.0.1", 8001, Ask::http())?;
    reported(&attempt, &once(attempt.clone()))?;
    let started = Instant::now();
    drop(proxy);
    ensure!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    match stream.read(&mut [0; 16]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => bail!("expected a reset: {other:?}"),
    }
    let answer = once(attempt);
    let expected = Outcome::Refused { how: Refusal::Reset, by: None };
    ensure!(answer.outcome == expected, "{answer:?}");
    let mut absent = hop(&row, 8001, Forward::Http, &[])?;
    absent.namespace = Some("/run/netns/unmasq-none".into());
    let error = Proxy::start(&absent).err().context("started")?;
    ensure!(format!("{error:#}").contains("unmasq-none"), "{error:#}");
    Ok(())
}

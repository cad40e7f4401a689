//! What `unmasq echo` does: whom it answers, how it ends, where it can't begin.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::given::{Echo, Row, UNMASQ, command};
use crate::trials::Test;

pub(crate) const TESTS: &[Test] = &[
    ("answers::both_families_on_one_port", both_families),
    ("answers::forwarded_headers", forwarded),
    ("answers::malformed_requests", malformed),
    ("answers::those_who_take_their_time_block_nobody", slow),
    ("answers::ends", ends),
    ("answers::nobody_reads", nobody_reads),
    ("answers::a_port_in_use", in_use),
    ("answers::without_rights", without_rights),
    ("answers::only_what_is_wanted", only),
];

/// For what comes; as long as tests of a loaded machine may need.
const PATIENT: Duration = Duration::from_secs(10);

fn connect(row: &Row, to: &str) -> Result<TcpStream> {
    let stream = row.client.enter(|| TcpStream::connect(to))?.context("connect")?;
    stream.set_read_timeout(Some(PATIENT))?;
    Ok(stream)
}

fn both_families() -> Result<()> {
    let row = Row::new()?;
    let mut echo = Echo::start(&row.host, "--listen [::]:81 --listen 0.0.0.0:81 --listen 81", 4)?;
    let expected = ["tcp 0.0.0.0:81", "udp 0.0.0.0:81", "tcp [::]:81", "udp [::]:81"];
    ensure!(echo.listening == expected, "{:?}", echo.listening);
    for (to, seen) in [("10.1.0.2:81", "10.0.0.2:"), ("[fd00:b::2]:81", "[fd00:a::2]:")] {
        for way in ["--tcp", "--udp", "--http"] {
            row.says(&format!("{way} {to}"), 0, &["preserved"])?;
            let line = echo.line()?;
            ensure!(line[5..].starts_with(seen) && !line.contains("ffff"), "{line}");
        }
    }
    // An address that is IPv4's in IPv6's clothes.
    row.says("[::ffff:10.1.0.2]:81", 0, &["tcp 10.1.0.2:81"])?;
    let mut free = Echo::start(&row.host, "--listen 0", 4)?;
    let port = free.listening[0].rsplit(':').next().unwrap_or_default().to_owned();
    let same = free.listening.iter().all(|at| at.ends_with(&format!(":{port}")));
    ensure!(same && port != "0", "{:?}", free.listening);
    row.says(&format!("--udp [fd00:b::2]:{port}"), 0, &["preserved"])?;
    free.line().map(drop)
}

fn forwarded() -> Result<()> {
    let row = Row::new()?;
    let mut echo = Echo::start(&row.host, "--json --name web-1", 4)?;
    let mut stream = connect(&row, "10.1.0.2:28080")?;
    stream.write_all(
        b"GET /x HTTP/1.1\r\nHost: y\r\nX-Forwarded-For: 198.51.100.9\r\n\
          Forwarded: for=198.51.100.9;by=203.0.113.4\r\nX-forwarded-for: 203.0.113.4\r\n\r\n",
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let report: Value = serde_json::from_str(body)?;
    let expected = serde_json::json!({
        "by": "web-1", "protocol": "http", "source": stream.local_addr()?,
        "destination": "10.1.0.2:28080", "x_forwarded_for": "198.51.100.9, 203.0.113.4",
        "forwarded": "for=198.51.100.9;by=203.0.113.4", "request": "/x",
    });
    ensure!(report == expected, "{answer}");
    ensure!(serde_json::from_str::<Value>(&echo.line()?)? == expected);
    Ok(())
}

fn malformed() -> Result<()> {
    let row = Row::new()?;
    let mut text = Echo::start(&row.host, "--proxy-protocol", 4)?;
    let mut json = Echo::start(&row.host, "--proxy-protocol --json --listen 81", 4)?;
    // A signature of version 2 with an unknown command, and a line of version 1 without an end.
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x2f\x11\0\x0c aaaabbbbccdd";
    let endless = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
    for header in [&b"PROXY TCP4 10.0.0.300 10.0.0.1 1 2\r\n"[..], binary, &endless] {
        for to in ["10.1.0.2:28080", "10.1.0.2:81"] {
            let mut stream = connect(&row, to)?;
            stream.write_all(header)?;
            let ended = stream.read(&mut [0; 16]);
            let reset = std::io::ErrorKind::ConnectionReset;
            ensure!(ended.as_ref().is_err_and(|error| error.kind() == reset), "{ended:?}");
        }
        let line = text.line()?;
        ensure!(line.contains("not answered: it has no PROXY protocol header"), "{line}");
        let line: Value = serde_json::from_str(&json.line()?)?;
        ensure!(line["unanswered"] == "header", "{line}");
    }
    // A head of more bytes than any may have.
    let mut stream = connect(&row, "10.1.0.2:28080")?;
    let head = [&b"GET / HTTP/1.1\r\nCookie: "[..], &[b'x'; 17 << 10], b"\r\n\r\n"].concat();
    stream.write_all(&head)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let line = text.line()?;
    ensure!(line.contains("its HTTP head is malformed or too long"), "{line}");
    // Those without a header are answered still.
    row.says("10.1.0.2:28080", 0, &["preserved"]).map(drop)
}

fn slow() -> Result<()> {
    let row = Row::new()?;
    let echo = Echo::start(&row.host, "--proxy-protocol", 4)?;
    let begun: [&[u8]; 4] =
        [b"", b"GET / HTTP/1.1\r\nHos", b"PROXY TCP4 10.0", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"];
    let mut slow = Vec::new();
    for number in 0..300 {
        let mut stream = connect(&row, "10.1.0.2:28080")?;
        stream.write_all(begun[number % begun.len()])?;
        slow.push(stream);
    }
    let started = Instant::now();
    for way in ["--tcp", "--udp", "--http"] {
        row.says(&format!("--timeout 5s {way} 10.1.0.2:28080"), 0, &["preserved"])?;
    }
    // Not one of them was given up for that.
    ensure!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    echo.signal(Signal::INT)?;
    let (code, lines, words) = echo.end()?;
    let unanswered = lines.iter().filter(|line| line.contains("not answered")).count();
    ensure!(code == Some(0) && unanswered == 0, "{code:?} {lines:?}");
    ensure!(words.contains("answered 78: 1 by TCP, 76 by HTTP, 1 by UDP"), "{words}");
    Ok(())
}

fn ends() -> Result<()> {
    let row = Row::new()?;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let echo = Echo::start(&row.host, "", 4)?;
        row.says("10.1.0.2:28080", 0, &["preserved"])?;
        echo.signal(signal)?;
        let (code, lines, words) = echo.end()?;
        ensure!(code == Some(0) && lines.len() == 1, "{signal:?}: {code:?} {lines:?}");
        ensure!(words == "answered 1: 1 by TCP, 0 by HTTP, 0 by UDP; from 1 address", "{words}");
    }
    let echo = Echo::start(&row.host, "--max 3", 4)?;
    // One that has asked for nothing yet doesn't keep it.
    let _waits = connect(&row, "10.1.0.2:28080")?;
    row.says("--http 10.1.0.2:28080", 0, &["preserved"])?;
    row.says("--udp --count 2 10.1.0.2:28080", 0, &["preserved"])?;
    let (code, _, words) = echo.end()?;
    ensure!(code == Some(0) && words.contains("answered 3: 0 by TCP, 1 by HTTP, 2 by UDP"));
    let started = Instant::now();
    let (code, _, words) = Echo::start(&row.host, "--for 200ms", 4)?.end()?;
    ensure!(started.elapsed() >= Duration::from_millis(200));
    ensure!(code == Some(0) && words.contains("answered 0"), "{words}");
    row.says("10.1.0.2:28080", 3, &["reset (RST)"]).map(drop)
}

/// As with `| head -1`.
fn nobody_reads() -> Result<()> {
    let row = Row::new()?;
    let script = format!("{UNMASQ} echo --for 20s | head -1");
    let started = Instant::now();
    let head = Echo::run(&row.host, Command::new("sh").args(["-c", &script]), 4)?;
    row.says("10.1.0.2:28080", 0, &["preserved"])?;
    // What ends first, the reader or the next request, is chance.
    for _ in 0..50 {
        let output = row.probe("--timeout 200ms 10.1.0.2:28080")?;
        if output.status.code() == Some(3) {
            let (code, lines, _) = head.end()?;
            ensure!(code == Some(0) && lines.len() == 1, "{code:?} {lines:?}");
            ensure!(started.elapsed() < PATIENT, "after {:?}", started.elapsed());
            return Ok(());
        }
    }
    anyhow::bail!("it goes on though nobody reads")
}

fn in_use() -> Result<()> {
    let row = Row::new()?;
    let _echo = Echo::start(&row.host, "--tcp", 2)?;
    for (arguments, words) in [
        ("", &["listen at 0.0.0.0:28080 (tcp)", "in use", "--listen takes another"][..]),
        ("--listen 192.0.2.9:80", &["192.0.2.9:80", "no such address"]),
        ("--listen web:80", &["expected PORT"]),
        ("--max 0", &["0 is not in"]),
    ] {
        let run = || command().arg("echo").args(arguments.split_whitespace()).output();
        let output = row.host.enter(run)??;
        // Lines are broken where a terminal's end is.
        let said = String::from_utf8(output.stderr)?.replace("\n  ", " ");
        let all = words.iter().all(|words| said.contains(words));
        ensure!(output.status.code() == Some(2) && all, "{arguments}: {said}");
    }
    // Another protocol's port of that number is free.
    Echo::start(&row.host, "--udp", 2).map(drop)
}

fn without_rights() -> Result<()> {
    let row = Row::new()?;
    let without = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", UNMASQ];
    let mut command = Command::new("setpriv");
    let _echo = Echo::run(&row.host, command.args(without).arg("echo"), 4)?;
    let probe = || Command::new("setpriv").args(without).args(["probe", "10.1.0.2:28080"]).output();
    let output = row.client.enter(probe)??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let low = || Command::new("setpriv").args(without).args(["echo", "--listen", "80"]).output();
    let output = row.host.enter(low)??;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(2) && said.contains("need root"), "{said}");
    Ok(())
}

fn only() -> Result<()> {
    let row = Row::new()?;
    let mut echo = Echo::start(&row.host, "--http", 2)?;
    row.says("--http 10.1.0.2:28080", 0, &["preserved"])?;
    echo.line()?;
    row.says("--tcp 10.1.0.2:28080", 3, &["connected, then reset"])?;
    let line = echo.line()?;
    ensure!(line.contains("it speaks no HTTP"), "{line}");
    row.says("--udp 10.1.0.2:28080", 3, &["port unreachable"]).map(drop)
}

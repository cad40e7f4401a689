//! What `unmasq probe` says: preserved, rewritten, refused, silent, answered by others.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::given::{Echo, FAMILIES, Row};
use crate::trials::Test;

pub(crate) const TESTS: &[Test] = &[
    ("sources::preserved_and_rewritten", preserved_and_rewritten),
    ("sources::behind_dnat", behind_dnat),
    ("sources::refused", refused),
    ("sources::dropped", dropped),
    ("sources::not_by_unmasq_echo", foreign),
    ("sources::a_new_port_each_time", new_ports),
    ("sources::headers_that_are_not_taken", header_not_taken),
    ("sources::wrong_usage", wrong_usage),
];

const WAYS: [&str; 5] =
    ["--tcp", "--udp", "--http", "--tcp --send-proxy v1", "--http --send-proxy v2"];

const MASQUERADE: &str = "table inet t { chain c { type nat hook postrouting priority 100;
    oifname eth1 masquerade; }\n}";

fn preserved_and_rewritten() -> Result<()> {
    let row = Row::new()?;
    let mut echo = Echo::start(&row.host, "--name web-1 --proxy-protocol", 4)?;
    for rewritten in [false, true] {
        if rewritten {
            row.nft(MASQUERADE)?;
        }
        for [host, client, router] in FAMILIES {
            for way in WAYS {
                let ask = format!("{way} {host}:28080");
                let taken = format!("PROXY header: taken, tells {client}:");
                let header = if way.contains("--send-proxy") { &*taken } else { "" };
                let protocol = way.split(' ').next().unwrap_or_default().trim_start_matches('-');
                let seen = if rewritten { router } else { client };
                if rewritten {
                    let words = format!("source REWRITTEN: web-1 sees {router}:");
                    let instead = format!(" instead of {client}:");
                    row.says(&ask, 1, &[&words, &instead, header])?;
                } else {
                    let words = format!("source preserved: web-1 sees {client}:");
                    row.says(&ask, 0, &[&words, header])?;
                }
                let line = echo.line()?;
                let begins = format!("{protocol:<4} {seen}:");
                let arrived = format!(" -> {host}:28080");
                ensure!(line.starts_with(&begins) && line.contains(&arrived), "{way}: {line}");
                ensure!(line.contains("PROXY header") != header.is_empty(), "{way}: {line}");
                // The expectation replaces that of the own address.
                let net = |ip: &str| ip.trim_matches(['[', ']']).to_owned();
                let met = i32::from(rewritten);
                row.says(&format!("--expect-source {} {ask}", net(router)), 1 - met, &[])?;
                row.says(&format!("--expect-source {}/32 {ask}", net(client)), met, &[])?;
                echo.line()?;
                echo.line()?;
            }
        }
    }
    Ok(())
}

fn behind_dnat() -> Result<()> {
    let row = Row::new()?;
    let _echo = Echo::start(&row.host, "--listen 8080", 4)?;
    row.nft(
        "table inet t { chain c { type nat hook prerouting priority -100;
          meta nfproto ipv4 meta l4proto { tcp, udp } th dport 30080 dnat ip to 10.1.0.2:8080
          meta nfproto ipv6 meta l4proto { tcp, udp } th dport 30080 dnat ip6 to [fd00:b::2]:8080
        }\n}",
    )?;
    for way in WAYS.iter().filter(|way| !way.contains("--send-proxy")) {
        let ask = format!("{way} 10.0.0.1:30080 [fd00:a::1]:30080");
        let words = ["preserved", "arrived at 10.1.0.2:8080", "arrived at [fd00:b::2]:8080"];
        row.says(&ask, 0, &words)?;
    }
    // The answer of a server that listens on all addresses comes from the one that was asked.
    row.host.script("ip addr add 10.1.0.9/24 dev eth0")?;
    row.says("--udp 10.1.0.9:8080", 0, &["preserved"]).map(drop)
}

fn refused() -> Result<()> {
    let row = Row::new()?;
    for [host, client, _] in FAMILIES {
        let said = format!("(from {client}:");
        for way in ["--tcp", "--http"] {
            let words = [&*said, "REFUSED", "reset (RST)"];
            row.says(&format!("{way} {host}:28080"), 3, &words)?;
        }
        let says = format!("port unreachable (ICMP), says {}", host.trim_matches(['[', ']']));
        row.says(&format!("--udp {host}:28080"), 3, &[&said, &says])?;
    }
    let _echo = Echo::start(&row.host, "", 4)?;
    row.nft(
        "table inet t { chain c { type filter hook forward priority 0;
          oifname eth1 reject with icmpx type admin-prohibited; }\n}",
    )?;
    for ([host, ..], router) in FAMILIES.iter().zip(["10.0.0.1", "fd00:a::1"]) {
        for way in ["--tcp", "--http", "--udp"] {
            let says = format!("prohibited (ICMP), says {router}");
            let stdout = row.says(&format!("{way} {host}:28080"), 3, &["REFUSED", &says])?;
            ensure!(!stdout.contains("RST"), "{stdout}");
        }
    }
    row.client.script("ip route add unreachable 192.0.2.1/32")?;
    row.says("192.0.2.1:80", 3, &["host unreachable, says this host"]).map(drop)
}

fn dropped() -> Result<()> {
    let row = Row::new()?;
    let _echo = Echo::start(&row.host, "", 4)?;
    row.nft("table inet t { chain c { type filter hook forward priority 0; policy drop; }\n}")?;
    for [host, ..] in FAMILIES {
        for way in ["--tcp", "--http", "--udp"] {
            let ask = format!("--timeout 100ms {way} {host}:28080");
            row.says(&ask, 3, &["no answer within 100ms"])?;
        }
    }
    Ok(())
}

/// A server in the host at port 81 that says this to one client, and ends when the client does.
fn server(row: &Row, says: &'static [u8], ends: bool) -> Result<JoinHandle<Result<()>>> {
    let listener = row.host.enter(|| TcpListener::bind("10.1.0.2:81"))??;
    Ok(thread::spawn(move || {
        let (mut stream, _) = listener.accept().context("accept")?;
        stream.write_all(says)?;
        if ends {
            stream.shutdown(std::net::Shutdown::Write)?;
        }
        let mut rest = Vec::new();
        // A client that gives up resets.
        let _ = stream.read_to_end(&mut rest);
        Ok(())
    }))
}

fn foreign() -> Result<()> {
    const FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnone\n";
    /// An answer from a cache is about somebody else's request.
    const CACHED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n{\"by\":\"web-1\",\"protocol\":\"http\",\
        \"source\":\"10.0.0.2:7\",\"destination\":\"10.1.0.2:81\",\"request\":\"/?unmasq=old\"}\n";
    let row = Row::new()?;
    let silent = "connected, but no answer within 100ms";
    for (says, ends, way, words) in [
        (&b"SSH-2.0-x\r\n"[..], false, "--tcp", "answered, but not by unmasq echo"),
        (b"SSH-2.0-x\r\n", false, "--http", "answered, but not by unmasq echo"),
        (FOUND, false, "--http", "answered (status 404), but not by unmasq echo"),
        (CACHED, true, "--http", "answered (status 200), but not by unmasq echo"),
        (b"", true, "--tcp", "connected, then closed without an answer"),
        (b"", false, "--tcp", silent),
        (b"\x1b[31mred\n", false, "--tcp", "echo (from 10.0.0.2:"),
    ] {
        let server = server(&row, says, ends)?;
        let ask = format!("--timeout 100ms {way} 10.1.0.2:81");
        let patient = format!("--timeout 5s {way} 10.1.0.2:81");
        let waits = words == silent || (way == "--http" && says.starts_with(b"SSH"));
        let said = row.says(if waits { &ask } else { &patient }, 3, &[words])?;
        ensure!(!said.contains('\x1b'), "{said:?}");
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    }
    Ok(())
}

fn new_ports() -> Result<()> {
    let row = Row::new()?;
    let _echo = Echo::start(&row.host, "", 4)?;
    // With few ports to choose from, chance alone would take one twice.
    row.client.script("sysctl -qw net.ipv4.ip_local_port_range='40000 40063'")?;
    let schema: Value = serde_json::from_str(include_str!("../../../../schemas/probe.v1.json"))?;
    let validator = jsonschema::validator_for(&schema)?;
    for way in ["--tcp", "--udp", "--http"] {
        let output = row.probe(&format!("{way} --json --count 24 10.1.0.2:28080"))?;
        let json: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(validator.is_valid(&json), "{json:#}");
        let observations = json["observations"].as_array().context("observations")?;
        let ports: BTreeSet<&str> =
            observations.iter().filter_map(|observation| observation["from"].as_str()).collect();
        ensure!(ports.len() == 24, "{way}: {ports:?}");
        let same = |observation: &Value| {
            observation["source"] == "preserved" && observation["seen"] == observation["from"]
        };
        ensure!(observations.iter().all(same), "{json:#}");
    }
    let output = row.probe("--udp --json --count 65 10.1.0.2:28080")?;
    let json: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(output.status.code() == Some(2) && validator.is_valid(&json), "{output:?}");
    let reason = json["observations"][64]["outcome"]["reason"].as_str().unwrap_or_default();
    ensure!(!reason.is_empty(), "{:#}", json["observations"][64]);
    Ok(())
}

fn header_not_taken() -> Result<()> {
    let row = Row::new()?;
    let _echo = Echo::start(&row.host, "", 4)?;
    for version in ["v1", "v2"] {
        // It is an answer to another request: the header itself.
        for way in ["--tcp", "--http"] {
            let ask = format!("{way} --send-proxy {version} 10.1.0.2:28080");
            row.says(&ask, 3, &["answered, but"])?;
        }
    }
    Ok(())
}

fn wrong_usage() -> Result<()> {
    let row = Row::new()?;
    for (arguments, why) in [
        ("10.1.0.2", "which port?"),
        ("--udp --send-proxy v1 10.1.0.2:80", "cannot be used with"),
        ("--tcp --udp 10.1.0.2:80", "cannot be used with"),
        ("--path /x 10.1.0.2:80", "--http"),
        ("--from fd00:a::2 10.1.0.2:80", "other family"),
        ("--timeout 1d 10.1.0.2:80", "expected a time"),
        ("--expect-source 10.0.0.0/33 10.1.0.2:80", "expected an address or a network"),
    ] {
        let output = row.probe(arguments)?;
        let said = String::from_utf8(output.stderr)?;
        let right = output.status.code() == Some(2) && said.contains(why);
        ensure!(right, "{arguments}: {}: {said}", output.status);
    }
    let words = ["NOT TRIED", "192.0.2.9", "this host has no such address"];
    row.says("--from 192.0.2.9 10.1.0.2:80", 2, &words).map(drop)
}

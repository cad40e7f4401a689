//! `unmasq echo`: answers with the source that it sees.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use unmasq_probe::Report;
use unmasq_probe::connection::Unanswered;
use unmasq_probe::echo::{self, Echo};
use unmasq_probe::net::signals;
use unmasq_probe::proxy_protocol::Ends;
use unmasq_probe::report::Protocol;
use unmasq_probe::reports::{Header, Witness};

use crate::output::{self, Exit};

/// What `--help` says at its end.
pub(crate) const EXAMPLES: &str = "\
Examples:
  unmasq echo                                  TCP, HTTP and UDP at port 28080 of all addresses
  unmasq echo --listen 8080 --for 10m
  unmasq echo --listen 10.0.0.11:8080 --listen '[fd00::11]:8080' --tcp --max 20
  unmasq echo --http --proxy-protocol --json   behind a load balancer that sends PROXY headers

And on the other side `unmasq probe ADDR:PORT`, or what is at hand:
  curl http://10.0.0.11:28080/
  echo | nc 10.0.0.11 28080
  echo | nc -u 10.0.0.11 28080

It answers everybody who asks, and needs no root. docs/verify.md is the guide.

Exit codes:
  0  ended: by Ctrl-C, or as --for and --max say
  2  wrong usage, or it can't listen there";

/// Answers with the source that it sees.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen: PORT, ADDR:PORT or [ADDR]:PORT, several times if wanted. A port alone, and
    /// [::], mean all addresses of both families; port 0 one that is free
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    listen: Vec<SocketAddr>,
    /// Answer lines of text over TCP. With none of --tcp, --http and --udp all are answered, HTTP
    /// being told by its first line
    #[arg(long)]
    tcp: bool,
    /// Answer HTTP, with X-Forwarded-For and Forwarded as they came
    #[arg(long)]
    http: bool,
    /// Answer datagrams
    #[arg(long)]
    udp: bool,
    /// Take PROXY protocol headers, version 1 and 2, of connections that begin with one. Anybody
    /// can send one
    #[arg(long)]
    proxy_protocol: bool,
    /// What it calls itself in answers. Left out: the host's name
    #[arg(long)]
    name: Option<String>,
    /// End after this time: 30s, 10m, 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// End after so many answers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Print each request as a line of JSON (report in schemas/probe.v1.json)
    #[arg(long)]
    json: bool,
}

/// Serves until the end.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    // Before anything is bound, so that Ctrl-C always ends it in the same way.
    let stop = signals::ending().context("take signals")?;
    let shown = Arc::new(Shown { json: args.json, tally: Mutex::default() });
    let witness: Arc<dyn Witness> = Arc::<Shown>::clone(&shown);
    let echo = Echo::open(&options(args), witness)?;
    for (protocol, at) in echo.bound() {
        output::warn(&format!("listening at {} {at}", transport(*protocol)));
    }
    echo.serve(&stop);
    output::warn(&shown.summary());
    Ok(Exit::Done)
}

fn options(args: &Args) -> echo::Options {
    let defaults = echo::Options::default();
    let all = !(args.tcp || args.http || args.udp);
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    echo::Options {
        listen: if args.listen.is_empty() { defaults.listen } else { args.listen.clone() },
        name: args.name.clone().unwrap_or_else(host),
        tcp: all || args.tcp,
        http: all || args.http,
        udp: all || args.udp,
        header: if args.proxy_protocol { Header::Sometimes } else { Header::Never },
        most: args.max,
        duration: args.duration,
    }
}

/// Prints what comes in, and counts it.
#[derive(Debug)]
struct Shown {
    json: bool,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    tcp: u64,
    http: u64,
    udp: u64,
    unanswered: u64,
    sources: BTreeSet<IpAddr>,
    /// There are more sources than are kept.
    more: bool,
}

/// Sources that are told from each other in the summary.
const SOURCES: usize = 10_000;

impl Witness for Shown {
    fn saw(&self, report: &Report) -> bool {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        match report.protocol {
            Protocol::Tcp => tally.tcp += 1,
            Protocol::Http => tally.http += 1,
            Protocol::Udp | Protocol::Icmp => tally.udp += 1,
        }
        if tally.sources.len() < SOURCES {
            tally.sources.insert(report.source.ip());
        } else {
            tally.more |= !tally.sources.contains(&report.source.ip());
        }
        let line = if self.json { report.to_json() } else { line(report) };
        told(&line)
    }

    fn unanswered(&self, ends: &Ends, why: Unanswered) {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).unanswered += 1;
        let Ends { source, destination } = ends;
        // Should nobody read any more, the next answer finds out.
        let _ = told(&if self.json {
            serde_json::json!({
                "unanswered": why, "source": source, "destination": destination,
            })
            .to_string()
        } else {
            format!("tcp  {source} -> {destination}  not answered: {why}")
        });
    }
}

impl Shown {
    fn summary(&self) -> String {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let Tally { tcp, http, udp, unanswered, ref sources, more } = *tally;
        let count = tcp + http + udp;
        let mut text = format!("answered {count}: {tcp} by TCP, {http} by HTTP, {udp} by UDP");
        if count > 0 {
            let addresses = if sources.len() == 1 { "address" } else { "addresses" };
            let least = if more { "more than " } else { "" };
            text += &format!("; from {least}{} {addresses}", sources.len());
        }
        if unanswered > 0 {
            text += &format!("; {unanswered} not answered");
        }
        text
    }
}

/// One request as a line for people.
fn line(report: &Report) -> String {
    let protocol = match report.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Http => "http",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    };
    let mut line = format!("{protocol:<4} {} -> {}", report.source, report.destination);
    if let Some(proxied) = report.proxied {
        line += &format!("  PROXY header: {proxied}");
    }
    let headers = [("X-Forwarded-For", &report.x_forwarded_for), ("Forwarded", &report.forwarded)];
    for (name, value) in headers {
        if let Some(value) = value {
            line += &format!("  {name}: {}", output::clean(value));
        }
    }
    line
}

/// Writes a line at once. Gives whether somebody may read it.
fn told(line: &str) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

fn transport(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp | Protocol::Http => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        return Ok(SocketAddr::new(any, port));
    }
    if let Ok(at) = text.parse::<SocketAddr>() {
        return Ok(at);
    }
    let ip = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match ip.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, echo::PORT)),
        Err(_) => {
            Err("expected PORT, ADDR:PORT or [ADDR]:PORT, with an address of this host".into())
        }
    }
}

/// A time as it is typed: 500ms, 30s, 10m, 2h; seconds without a unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time such as 500ms, 30s, 10m or 2h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(wrong()),
    };
    // A year is longer than anybody waits, and no clock overflows.
    milliseconds
        .filter(|milliseconds| (1..=31_536_000_000).contains(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a time between 1ms and a year".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_listen_can_be_said_in_short() {
        for (text, expected) in [
            ("8080", "[::]:8080"),
            (":8080", "[::]:8080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("192.0.2.1", "192.0.2.1:28080"),
            ("192.0.2.1:81", "192.0.2.1:81"),
            ("[::]:81", "[::]:81"),
            ("2001:db8::1", "[2001:db8::1]:28080"),
            ("[2001:db8::1]", "[2001:db8::1]:28080"),
            ("[fe80::1%3]:81", "[fe80::1%3]:81"),
        ] {
            assert_eq!(parse_listen(text), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "http", "65536", "192.0.2.1:", "192.0.2.256:1", "web:80"] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in
            [("500ms", 500), ("2", 2000), ("30s", 30_000), ("10m", 600_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "0", "1.5s", "10 m", "-1s", "1d", "99999999999999999999h", "9999999h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}

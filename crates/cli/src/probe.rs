//! `unmasq probe`: makes connections, and prints the source that the other side saw.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use ipnet::IpNet;
use unmasq_probe::net::refusal::Refusal;
use unmasq_probe::observation::{Ask, Document};
use unmasq_probe::proxy_protocol::Version;
use unmasq_probe::{Asker, Observation, Options, Outcome, Report, Source};
use unmasq_report::terminal::Style;

use crate::echo::parse_duration;
use crate::output::{self, Exit};

/// What `--help` says at its end.
pub(crate) const EXAMPLES: &str = "\
Examples:
  unmasq probe 10.0.0.11:30080                 one connection by TCP
  unmasq probe --udp --count 5 10.0.0.11:30053 '[fd00::11]:30053'
  unmasq probe --http --host shop.example web.example:80
  unmasq probe --from 192.168.7.20 --send-proxy v2 10.0.0.11:8080
  unmasq probe --expect-source 10.0.0.0/24 203.0.113.9:443   it must be one of these

On the other side, behind all translation, `unmasq echo` has to run. docs/verify.md is the guide.

Exit codes:
  0  every source is preserved, or as --expect-source says
  1  some source is not, or a PROXY header that was sent was not taken
  2  wrong usage, or a connection could not be tried
  3  it could not be told of some: no answer, refused, or not answered by unmasq echo";

/// Makes new connections, each from another port, and prints the source that the other side saw.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who to ask: ADDR:PORT, [ADDR]:PORT or NAME:PORT (all its addresses)
    #[arg(value_name = "TARGET", required = true)]
    targets: Vec<String>,
    /// By TCP, which is what is done without --udp and --http
    #[arg(long, conflicts_with_all = ["udp", "http"])]
    tcp: bool,
    /// By UDP
    #[arg(long, conflicts_with = "http")]
    udp: bool,
    /// By HTTP
    #[arg(long)]
    http: bool,
    /// The address to start from, one of this host's. Left out: the kernel chooses
    #[arg(long, value_name = "ADDR")]
    from: Option<IpAddr>,
    /// How many connections to each target
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// How long each answer is waited for
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    timeout: Duration,
    /// Begin with a PROXY protocol header, as a load balancer does. It tells the address that is
    /// used here
    #[arg(long, value_name = "VERSION", value_enum, conflicts_with = "udp")]
    send_proxy: Option<HeaderVersion>,
    /// The source that the other side has to see, instead of the one used here
    #[arg(long, value_name = "ADDR|NET", value_parser = parse_net)]
    expect_source: Option<IpNet>,
    /// HTTP: the path
    #[arg(long, value_name = "PATH", default_value = "/", requires = "http", value_parser = parse_path)]
    path: String,
    /// HTTP: the Host. Left out: the target
    #[arg(long, value_name = "NAME", requires = "http", value_parser = parse_host)]
    host: Option<String>,
    /// Print the answer as JSON (unmasq.probe/v1, schemas/probe.v1.json)
    #[arg(long)]
    json: bool,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HeaderVersion {
    /// A line of text
    V1,
    /// Binary
    V2,
}

/// Asks all targets, one after the other.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut targets = Vec::new();
    for target in &args.targets {
        targets.extend(resolve(target, args.from)?);
    }
    let mut asker = Asker::new(options(args));
    let style = output::style(false);
    let (mut observations, mut judged) = (Vec::new(), Vec::new());
    for target in targets {
        for _ in 0..args.count {
            let observation = asker.ask(target);
            judged.push(judge(&observation, args.expect_source));
            if args.json {
                observations.push(observation);
            } else {
                let text = text(&observation, args, &style);
                output::write(&mut io::stdout(), text.as_bytes())?;
            }
        }
    }
    if args.json {
        let json = serde_json::to_string_pretty(&Document::new(observations))?;
        output::write(&mut io::stdout(), format!("{json}\n").as_bytes())?;
    }
    Ok(exit(&judged))
}

fn options(args: &Args) -> Options {
    let protocol = match (args.udp, args.http) {
        (true, _) => Ask::Udp,
        (false, true) => Ask::Http,
        (false, false) => Ask::Tcp,
    };
    Options {
        protocol,
        from: args.from,
        timeout: args.timeout,
        header: args.send_proxy.map(|version| match version {
            HeaderVersion::V1 => Version::V1,
            HeaderVersion::V2 => Version::V2,
        }),
        path: args.path.clone(),
        host: args.host.clone(),
    }
}

/// The addresses of a target; of a name those that can be called from the given address.
fn resolve(target: &str, from: Option<IpAddr>) -> anyhow::Result<Vec<SocketAddr>> {
    if let Ok(at) = target.parse::<SocketAddr>() {
        let (to, family) = (at.ip().to_canonical(), from.map(|from| from.to_canonical().is_ipv4()));
        if at.port() == 0 {
            bail!("{target}: port 0 can't be called");
        }
        if family.is_some_and(|v4| v4 != to.is_ipv4()) {
            bail!("{target} can't be called from an address of the other family (--from)");
        }
        return Ok(vec![at]);
    }
    if target.parse::<IpAddr>().is_ok() || !target.contains(':') {
        bail!("{target}: which port? TARGET is ADDR:PORT, [ADDR]:PORT or NAME:PORT");
    }
    let found = target.to_socket_addrs().with_context(|| format!("looking up {target}"))?;
    let fits = |at: &SocketAddr| from.is_none_or(|from| from.is_ipv4() == at.is_ipv4());
    let mut found: Vec<SocketAddr> = found.filter(fits).collect();
    found.sort();
    found.dedup();
    if found.is_empty() {
        bail!("{target} has no address that can be called from here");
    }
    Ok(found)
}

/// What a connection says of the expectation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    Met,
    NotMet,
    Unknown,
    NotTried,
}

fn judge(observation: &Observation, expected: Option<IpNet>) -> Judged {
    match &observation.outcome {
        Outcome::Failed { .. } => return Judged::NotTried,
        // Whoever calls doesn't get it.
        Outcome::Misanswered { .. } => return Judged::NotMet,
        Outcome::Answered { .. }
        | Outcome::Foreign { .. }
        | Outcome::Refused { .. }
        | Outcome::Closed { .. }
        | Outcome::Silent { .. } => {}
    }
    let Some(seen) = observation.seen else { return Judged::Unknown };
    if observation.header.is_some_and(|header| header.taken != Some(header.told)) {
        return Judged::NotMet;
    }
    let met = match expected {
        Some(net) => net.contains(&seen.ip()),
        None => observation.source == Source::Preserved,
    };
    if met { Judged::Met } else { Judged::NotMet }
}

fn exit(judged: &[Judged]) -> Exit {
    let any = |wanted| judged.contains(&wanted);
    if any(Judged::NotTried) {
        Exit::Command(2)
    } else if any(Judged::NotMet) {
        Exit::NotAsExpected
    } else if any(Judged::Unknown) {
        Exit::Unknown
    } else {
        Exit::Done
    }
}

/// One connection for people: the answer first, then what else is known.
fn text(observation: &Observation, args: &Args, style: &Style) -> String {
    let Observation { protocol, target, from, .. } = observation;
    let from = from.map_or_else(String::new, |from| format!(" (from {from})"));
    let what = match &observation.outcome {
        Outcome::Answered { report } => source(observation, report),
        Outcome::Misanswered { by, report } => format!(
            "{}; but the answer comes from {by}, so nobody would take it",
            source(observation, report)
        ),
        Outcome::Foreign { status, begins } => {
            let status = status.map_or_else(String::new, |status| format!(" (status {status})"));
            let begins = match output::clean(begins) {
                begins if begins.is_empty() => String::new(),
                begins => format!(": {begins}"),
            };
            format!("answered{status}, but not by unmasq echo{from}{begins}")
        }
        Outcome::Refused { how, by } => format!("REFUSED{from}: {}", refusal(*how, *by)),
        Outcome::Closed { how: Refusal::Reset } => {
            format!("connected, then reset without an answer{from}: not by unmasq echo?")
        }
        Outcome::Closed { how } => format!("connected, then {how}{from}: not by unmasq echo?"),
        Outcome::Silent { connected: true } => {
            format!("connected, but no answer within {:?}{from}", args.timeout)
        }
        Outcome::Silent { connected: false } => {
            format!("no answer within {:?}{from}", args.timeout)
        }
        Outcome::Failed { reason } => format!("NOT TRIED: {reason}"),
    };
    let mut lines = style.wrapped("", "  ", &format!("{protocol} {target}  {what}"));
    for detail in details(observation, args.expect_source) {
        lines += &style.wrapped("  ", "    ", &detail);
    }
    lines
}

fn source(observation: &Observation, report: &Report) -> String {
    let (seen, by) = (report.source, output::clean(&report.by));
    match (observation.source, observation.from) {
        (Source::Preserved, Some(from)) if from.port() == seen.port() => {
            format!("source preserved: {by} sees {seen}")
        }
        (Source::Preserved, Some(from)) => {
            format!("source preserved: {by} sees {seen}, another port than {}", from.port())
        }
        (Source::Rewritten, Some(from)) => {
            format!("source REWRITTEN: {by} sees {seen} instead of {from}")
        }
        (Source::Preserved | Source::Rewritten | Source::Unknown, _) => {
            format!("{by} sees {seen}")
        }
    }
}

fn refusal(how: Refusal, by: Option<IpAddr>) -> String {
    match (how, by) {
        (Refusal::Reset, _) => "reset (RST): nobody listens, or a rule says so".to_owned(),
        (how, Some(by)) => format!("{how} (ICMP), says {by}"),
        (how, None) => format!("{how}, says this host"),
    }
}

fn details(observation: &Observation, expected: Option<IpNet>) -> Vec<String> {
    let mut details = Vec::new();
    if let (Some(net), Some(seen)) = (expected, observation.seen) {
        let met = if net.contains(&seen.ip()) { "as expected" } else { "NOT as expected" };
        details.push(format!("{met}: --expect-source {net}"));
    }
    let Some(report) = observation.outcome.report() else { return details };
    if report.destination != observation.target {
        details.push(format!("arrived at {}", report.destination));
    }
    match (observation.header, report.proxied) {
        (Some(header), Some(taken)) if taken == header.told => {
            details.push(format!("PROXY header: taken, tells {taken}"));
        }
        (Some(header), Some(taken)) => {
            details.push(format!("PROXY header: tells {taken} INSTEAD of {}", header.told));
        }
        (Some(_), None) => details.push("PROXY header: NOT taken".to_owned()),
        (None, Some(told)) => details.push(format!("PROXY header (not ours): tells {told}")),
        (None, None) => {}
    }
    for (name, value) in
        [("X-Forwarded-For", &report.x_forwarded_for), ("Forwarded", &report.forwarded)]
    {
        if let Some(value) = value {
            details.push(format!("{name}: {}", output::clean(value)));
        }
    }
    details
}

fn parse_net(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse::<IpNet>())
        .map(|net| net.trunc())
        .map_err(|_| "expected an address or a network, such as 10.0.0.0/24".to_owned())
}

fn parse_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("expected a path that begins with /, percent-encoded where needed".to_owned())
    }
}

fn parse_host(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("expected a name of letters, digits, dots and dashes".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_otherwise_counts_more_than_one_that_is_unknown() {
        use Judged::{Met, NotMet, NotTried, Unknown};
        for (judged, expected) in [
            (&[Met, Met][..], Exit::Done),
            (&[Met, Unknown], Exit::Unknown),
            (&[NotMet, Unknown, Met], Exit::NotAsExpected),
            (&[NotMet, NotTried], Exit::Command(2)),
        ] {
            assert_eq!(exit(judged), expected, "{judged:?}");
        }
    }

    #[test]
    fn targets_have_a_port_and_the_family_of_the_source() {
        let v4 = Some("192.0.2.1".parse().unwrap());
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(resolve("192.0.2.7:80", v4).unwrap(), [at("192.0.2.7:80")]);
        assert!(resolve("[::ffff:192.0.2.7]:80", v4).is_ok());
        for (text, why) in [
            ("192.0.2.7", "which port?"),
            ("2001:db8::7", "which port?"),
            ("web", "which port?"),
            ("192.0.2.7:0", "port 0"),
            ("[2001:db8::7]:80", "other family"),
        ] {
            let error = resolve(text, v4).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_expected_source_is_an_address_or_a_network() {
        assert_eq!(parse_net("10.0.0.7/24").unwrap().to_string(), "10.0.0.0/24");
        assert_eq!(parse_net("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert!(parse_net("10.0.0.0/33").is_err());
    }
}

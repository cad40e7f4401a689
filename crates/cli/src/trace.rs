//! `unmasq trace`.

use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{ArgAction, ValueEnum};

use unmasq_eval::Evaluator;
use unmasq_eval::trace::{Options, Query};
use unmasq_model::host::Host;
use unmasq_model::packet::{Family, Packet, Protocol};
use unmasq_report::{json, terminal};

use crate::endpoint::{self, Endpoint};
use crate::expect::{self, Expected};
use crate::output::{self, Exit};
use crate::source;

/// The command of the examples, in a clone of the repository: a client outside calls a node port
/// of the example cluster.
macro_rules! example {
    () => {
        "unmasq trace examples/canal-rke --node n1 \\\n      --from 192.168.7.20:41000 --to 10.0.0.11:30080"
    };
}

/// What `-h` says at its end.
pub(crate) const EXAMPLES: &str = concat!("Example:\n  ", example!(), "\n\nMore with --help.");

/// What `--help` says at its end.
pub(crate) const MORE: &str = concat!(
    "Examples:\n",
    "  An outside client calls a node port; does the pod see its address?\n    ",
    example!(),
    "\n  The same for a script, which fails if the address is lost on any way:\n    ",
    example!(),
    " \\\n      --json --expect preserved\n",
    "  This node itself, as root:\n",
    "    unmasq trace --from 2001:db8::9 --to '[fd00::1]:443' --in eth0\n",
    "\n",
    "Exit codes:\n",
    "  0  answered (with --expect: and every outcome is as expected)\n",
    "  1  --expect: some outcome is certainly otherwise\n",
    "  2  wrong usage, or input that can't be read\n",
    "  3  --expect: some outcome can't be told, and none is otherwise\n",
    "\n",
    "A packet can have several outcomes, one for each endpoint of a Service for\n",
    "instance. `preserved` and `rewritten` are met only by packets that arrive or\n",
    "leave, `dropped` also by rejected ones.",
);

/// Traces one packet, the first of a connection.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A capture: a directory, .tar, .tar.gz or .tar.zst. Left out: this host (needs root)
    capture: Option<PathBuf>,
    /// Source. Without a port it is unknown, and a rule that tests it has an unknown result
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = endpoint::parse)]
    from: Endpoint,
    /// Destination
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = endpoint::parse)]
    to: Endpoint,
    /// Protocol; icmp means ICMPv6 between IPv6 addresses
    #[arg(long, value_enum, default_value_t = Proto::Tcp)]
    proto: Proto,
    /// The node, where the capture has several; for this host, the name to call it by
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The device that the packet comes in by. Left out: the one of the route back to the source;
    /// a source that the node owns is sent by the node itself
    #[arg(long = "in", value_name = "IFACE")]
    in_device: Option<String>,
    /// The packet's mark on arrival, decimal or 0x…
    #[arg(long, value_name = "N", value_parser = parse_mark, default_value = "0")]
    mark: u32,
    /// Take nothing for granted: what would be an assumption makes the answer unknown
    #[arg(long)]
    strict: bool,
    /// Print the answer as JSON (unmasq.trace/v1, schemas/trace.v1.json)
    #[arg(long)]
    json: bool,
    /// Show every rule that was looked at, and everything in full
    #[arg(short, long, action = ArgAction::SetTrue)]
    verbose: bool,
    /// Exit with 1 if some outcome is otherwise, and with 3 if that can't be told
    #[arg(long, value_enum)]
    expect: Option<Expected>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Proto {
    Tcp,
    Udp,
    Icmp,
    Sctp,
}

/// Answers.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let packet = packet(args)?;
    let loaded = source::load(args.capture.as_deref(), args.node.as_deref())?;
    loaded.tell_diagnostics(args.verbose);
    let host = &loaded.host;
    if let Some(device) = &args.in_device {
        check_device(host, device)?;
    }
    let options = Options { strict: args.strict, every_rule: args.verbose, ..Options::default() };
    let query = Query::opening(packet, args.in_device.as_deref());
    let trace = Evaluator::new(host, options).trace(&query);

    let text = if args.json {
        let mut text = serde_json::to_string_pretty(&json::trace(&trace, host))
            .context("writing the answer as JSON")?;
        text.push('\n');
        text
    } else {
        terminal::trace(&trace, host, &output::style(args.verbose))
    };
    output::write(&mut io::stdout(), text.as_bytes())?;
    let Some(expected) = args.expect else { return Ok(Exit::Done) };
    let exit = expect::check(expected, &trace);
    if let Some(complaint) = expect::complaint(expected, &trace) {
        output::warn(&complaint);
    }
    Ok(exit)
}

fn packet(args: &Args) -> anyhow::Result<Packet> {
    let (from, to) = (args.from, args.to);
    let family = Family::of(to.address);
    if Family::of(from.address) != family {
        bail!(
            "--from {} and --to {} are of different families: a packet has one",
            from.address,
            to.address
        );
    }
    let protocol = match (args.proto, family) {
        (Proto::Tcp, _) => Protocol::TCP,
        (Proto::Udp, _) => Protocol::UDP,
        (Proto::Sctp, _) => Protocol::SCTP,
        (Proto::Icmp, Family::V4) => Protocol::ICMP,
        (Proto::Icmp, Family::V6) => Protocol::ICMPV6,
    };
    if !protocol.has_ports() && (from.port.is_some() || to.port.is_some()) {
        bail!("{protocol} has no ports: leave them out of --from and --to");
    }
    let packet = Packet::open(protocol, from.address, from.port, to.address, to.port);
    Ok(Packet { mark: args.mark, ..packet })
}

fn check_device(host: &Host, device: &str) -> anyhow::Result<()> {
    let Some(links) = &host.links else { return Ok(()) };
    if host.link(device).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = links.iter().map(|link| &*link.name).collect();
    bail!("node {} has no device {device} (--in); it has {}", host.name, names.join(", "))
}

fn parse_mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is not a number of 32 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        for (text, expected) in [
            ("0", Some(0)),
            ("16384", Some(0x4000)),
            ("0x4000", Some(0x4000)),
            ("0XffffFFFF", Some(u32::MAX)),
            ("0x1ffffffff", None),
            ("-1", None),
            ("0x", None),
            ("four", None),
        ] {
            assert_eq!(parse_mark(text).ok(), expected, "{text}");
        }
    }
}

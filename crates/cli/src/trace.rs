//! `unmasq trace`.

use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{ArgAction, ValueEnum};

use unmasq_eval::Evaluator;
use unmasq_eval::trace::{Options, Query};
use unmasq_host::capture::Source;
use unmasq_model::host::Host;
use unmasq_model::packet::{Family, Packet, Protocol};
use unmasq_report::{json, terminal};

use crate::endpoint::{self, Endpoint, Place};
use crate::expect::{self, Expected};
use crate::output::{self, Exit};
use crate::path::{self, Entry};
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
    "  A pod calls a Service; over all nodes on the way, and back:\n",
    "    unmasq trace examples/kube-proxy-cluster-policy \\\n",
    "      --from pod/default/tool-1 --to service/default/web:http\n",
    "  Somebody outside calls its node port on n3:\n",
    "    unmasq trace examples/kube-proxy-cluster-policy \\\n",
    "      --from 198.51.100.7:40000 --to service/default/web:http --entry node-port --via n3\n",
    "  This node itself, as root:\n",
    "    unmasq trace --from 2001:db8::9 --to '[fd00::1]:443' --in eth0\n",
    "\n",
    "Exit codes:\n",
    "  0  answered (with --expect: and every outcome is as expected)\n",
    "  1  --expect: some outcome is certainly otherwise\n",
    "  2  wrong usage, or input that can't be read\n",
    "  3  --expect: some outcome can't be told, and none is otherwise\n",
    "\n",
    "With names, or without --node where the capture has several nodes, the packet is\n",
    "followed from node to node, and its answer back. With --node and addresses, one\n",
    "node's rules are walked.\n",
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
    /// Who calls: ADDR[:PORT], pod/NAMESPACE/NAME[:PORT] or node/NAME[:PORT]. Without a port it
    /// is unknown, and a rule that tests it has an unknown result
    #[arg(long, value_name = "ADDR[:PORT]|NAME", value_parser = endpoint::parse_caller)]
    pub(crate) from: Place,
    /// Who is called: the same, or service/NAMESPACE/NAME[:PORT] with the port's name or number
    #[arg(long, value_name = "ADDR[:PORT]|NAME", value_parser = endpoint::parse_place)]
    pub(crate) to: Place,
    /// Protocol; icmp means ICMPv6 between IPv6 addresses. Left out: tcp, or that of the Service's
    /// port
    #[arg(long, value_enum)]
    pub(crate) proto: Option<Proto>,
    /// By which address a Service is called. Left out: its cluster IP, and for a caller outside
    /// the load balancer's, a node's port or an external IP, whichever it has first
    #[arg(long, value_enum)]
    pub(crate) entry: Option<Entry>,
    /// The node whose port is called, or by which a packet from outside comes in
    #[arg(long, value_name = "NODE")]
    pub(crate) via: Option<String>,
    /// The address family to use where names have addresses of both. Left out: ipv4 if possible
    #[arg(long, value_enum)]
    pub(crate) family: Option<FamilyName>,
    /// One node's rules only, from addresses; for this host, the name to call it by
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The device that the packet comes in by. Left out: the one of the route back to the source;
    /// a source that the node owns is sent by the node itself
    #[arg(long = "in", value_name = "IFACE")]
    pub(crate) in_device: Option<String>,
    /// The packet's mark on arrival, decimal or 0x…
    #[arg(long, value_name = "N", value_parser = parse_mark, default_value = "0")]
    pub(crate) mark: u32,
    /// Take nothing for granted: what would be an assumption makes the answer unknown
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print the answer as JSON (unmasq.trace/v1, schemas/trace.v1.json; over several nodes
    /// unmasq.path/v1, schemas/path.v1.json)
    #[arg(long)]
    pub(crate) json: bool,
    /// Show every rule that was looked at, and everything in full
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) verbose: bool,
    /// Exit with 1 if some outcome is otherwise, and with 3 if that can't be told
    #[arg(long, value_enum)]
    pub(crate) expect: Option<Expected>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proto {
    Tcp,
    Udp,
    Icmp,
    Sctp,
}

impl Proto {
    /// The protocol between addresses of a family.
    pub(crate) fn of(self, family: Family) -> Protocol {
        match (self, family) {
            (Proto::Tcp, _) => Protocol::TCP,
            (Proto::Udp, _) => Protocol::UDP,
            (Proto::Sctp, _) => Protocol::SCTP,
            (Proto::Icmp, Family::V4) => Protocol::ICMP,
            (Proto::Icmp, Family::V6) => Protocol::ICMPV6,
        }
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FamilyName {
    Ipv4,
    Ipv6,
}

/// Answers: of one node's rules, or over several nodes.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let addresses = match (&args.from, &args.to) {
        (Place::Address(from), Place::Address(to)) => Some((*from, *to)),
        (Place::Address(_) | Place::Pod(..) | Place::Node(..) | Place::Service(..), _) => None,
    };
    if let Some((from, to)) = addresses {
        // Before anything is read: an error of usage is told at once.
        packet(args, from, to)?;
    }
    let over_nodes = addresses.is_none() || args.via.is_some() || args.entry.is_some();
    if over_nodes && args.node.is_some() {
        bail!("--node walks one node's rules from addresses: leave it out with names and --via");
    }
    let Some(capture) = &args.capture else {
        return match addresses {
            Some((from, to)) if !over_nodes => one_node(args, from, to, None),
            Some(_) | None => bail!("names and --via need a capture with the cluster's nodes"),
        };
    };
    let source = Source::open(capture)?;
    let is_one = args.node.is_some() || source.node_names().count() == 1;
    match addresses {
        Some((from, to)) if !over_nodes && is_one => one_node(args, from, to, Some(&source)),
        Some(_) | None => {
            path::run(args, &source::cluster(&source, Vec::new(), &|_, _| {})?.cluster)
        }
    }
}

fn one_node(
    args: &Args,
    from: Endpoint,
    to: Endpoint,
    capture: Option<&Source>,
) -> anyhow::Result<Exit> {
    let packet = packet(args, from, to)?;
    let loaded = source::load(capture, args.node.as_deref())?;
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
    Ok(tell(expected, &expect::of_trace(expected, &trace)))
}

/// Tells what is not as expected.
pub(crate) fn tell(expected: Expected, met: &[Option<bool>]) -> Exit {
    if let Some(complaint) = expect::complaint(expected, met) {
        output::warn(&complaint);
    }
    expect::check(met)
}

fn packet(args: &Args, from: Endpoint, to: Endpoint) -> anyhow::Result<Packet> {
    let family = Family::of(to.address);
    if Family::of(from.address) != family {
        bail!(
            "--from {} and --to {} are of different families: a packet has one",
            from.address,
            to.address
        );
    }
    let protocol = args.proto.unwrap_or(Proto::Tcp).of(family);
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

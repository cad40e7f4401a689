//! Real traffic through real rules: what servers report, and what clients make of it.

mod answered;
mod hops;
mod journeys;
mod refused;
mod translated;
#[path = "../trials/mod.rs"]
mod trials;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use unmasq_lab::Namespace;
use unmasq_lab::traffic::{Answer, Ask, Attempt, Outcome, Place, Report, Server, send};

fn main() -> ExitCode {
    let modules =
        [answered::TESTS, translated::TESTS, refused::TESTS, hops::TESTS, journeys::TESTS];
    trials::run(modules.into_iter().flatten().copied())
}

/// For answers that come; as long as tests of a loaded machine may need.
const PATIENT: Duration = Duration::from_secs(5);
/// For answers that must not come: time enough for one that is sent within one machine.
const BRIEF: Duration = Duration::from_millis(300);

const ALL: [fn() -> Ask; 4] = [|| Ask::Line, Ask::http, || Ask::Datagram, || Ask::Echo];

/// Three namespaces in a row:
///
/// ```text
/// client 10.0.0.2 ── 10.0.0.1 node 10.1.0.1 ── 10.1.0.2 host
///      fd00:a::2 ── fd00:a::1     fd00:b::1 ── fd00:b::2
/// ```
///
/// The host has 10.1.0.3 and fd00:b::3 too, the client 10.0.0.3 and fd00:a::3.
struct Row {
    client: Namespace,
    node: Namespace,
    host: Namespace,
}

impl Row {
    fn new() -> Result<Row> {
        let (client, node, host) =
            (Namespace::new("client")?, Namespace::new("node")?, Namespace::new("host")?);
        // A link-local address that is tentative still can't ask for neighbours
        // (net/ipv6/ndisc.c `ndisc_send_ns`).
        for namespace in [&client, &node, &host] {
            namespace.script(
                "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
                 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0",
            )?;
        }
        node.script(&format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip link add eth0 type veth peer name eth0 netns {}
             ip link add eth1 type veth peer name eth0 netns {}
             ip addr add 10.0.0.1/24 dev eth0
             ip addr add 10.1.0.1/24 dev eth1
             ip addr add fd00:a::1/64 dev eth0
             ip addr add fd00:b::1/64 dev eth1
             ip link set lo up
             ip link set eth0 up
             ip link set eth1 up",
            client.name(),
            host.name()
        ))?;
        for (namespace, v4, v6) in [(&client, "10.0.0", "fd00:a"), (&host, "10.1.0", "fd00:b")] {
            namespace.script(&format!(
                "ip addr add {v4}.2/24 dev eth0
                 ip addr add {v4}.3/24 dev eth0
                 ip addr add {v6}::2/64 dev eth0
                 ip addr add {v6}::3/64 dev eth0 preferred_lft 0
                 ip link set lo up
                 ip link set eth0 up
                 ip route add default via {v4}.1
                 ip route add default via {v6}::1"
            ))?;
        }
        Ok(Row { client, node, host })
    }

    /// A server in the host, at port 80 of TCP, 53 of UDP, and for echo requests.
    fn serve(&self) -> Result<Server> {
        Server::start(&[place(&self.host, "web-1")], &[])
    }

    fn nft(&self, rules: &str) -> Result<()> {
        self.node.exec_with(&["nft", "-f", "-"], rules).map(drop)
    }

    /// An attempt from the client, to the port of [`Row::serve`].
    fn attempt(&self, to: &str, ask: Ask) -> Result<Attempt> {
        let port = if ask == Ask::Datagram { 53 } else { 80 };
        let mut attempt = Attempt::new((to.parse::<std::net::IpAddr>()?, port).into(), ask);
        attempt.namespace = Some(self.client.path());
        attempt.patience = PATIENT;
        Ok(attempt)
    }
}

fn place(namespace: &Namespace, name: &str) -> Place {
    Place {
        namespace: Some(namespace.path()),
        name: name.into(),
        tcp: vec![80],
        udp: vec![53],
        icmp: true,
        proxy_protocol: false,
    }
}

/// One attempt's answer.
fn once(attempt: Attempt) -> Answer {
    send(&[attempt]).remove(0)
}

/// The report of an answer that came from whom it was expected.
fn reported<'a>(attempt: &Attempt, answer: &'a Answer) -> Result<&'a Report> {
    let asked = match attempt.ask {
        Ask::Echo => (attempt.to.ip(), 0),
        Ask::Line | Ask::Http { .. } | Ask::Datagram => (attempt.to.ip(), attempt.to.port()),
    };
    match &answer.outcome {
        Outcome::Answered { by, report: Some(report), .. } => {
            ensure!((by.ip(), by.port()) == asked, "{attempt:?}: answered by {by}");
            Ok(report)
        }
        other => anyhow::bail!("{attempt:?}: {other:?}"),
    }
}

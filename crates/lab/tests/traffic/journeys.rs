//! Packets that come to one host twice, and refusals that don't come back: what is foreseen over
//! all hosts, and what happens.
//!
//! ```text
//! client 10.0.0.2 ── eth0 gateway eth2 ── 10.2.0.2 server
//!                         eth1
//!                          └── 10.1.0.2 node, whose only way is back to the gateway
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use unmasq_eval::Evaluator;
use unmasq_eval::journey::{Arrival, Journey, Landing, Net, Wiring};
use unmasq_eval::trace::{By, Options, Query};
use unmasq_host::collect::{self, collect};
use unmasq_lab::counter::{self, Place as Counted};
use unmasq_lab::traffic::{Answer, Ask, Attempt, Outcome, Server, send};
use unmasq_lab::{Namespace, connections};
use unmasq_model::host::Host;
use unmasq_model::packet::{Packet, Protocol};
use unmasq_parse::capture::Status;

use crate::trials::Test;
use crate::{BRIEF, once, place, reported};

pub(crate) const TESTS: &[Test] = &[
    ("journeys::a_router_that_sends_back_is_asked_for_no_new_translation", same_packet),
    ("journeys::a_translated_packet_that_comes_again_is_a_connection_of_its_own", translated),
    ("journeys::the_answer_misses_the_translation_that_it_does_not_pass", missed),
    ("journeys::a_second_connection_with_the_same_answer_gets_another_port", clash),
    ("journeys::a_packet_with_the_gateways_own_source_does_not_come_again", own_source),
    ("journeys::refusals_come_back_or_not", refusals),
];

const CLIENT: usize = 0;
const GATEWAY: usize = 1;
const NODE: usize = 2;
const SERVER: usize = 3;
const NAMES: [&str; 4] = ["client", "gateway", "node", "server"];
/// Who has an address, by which device.
const NEIGHBOURS: [(&str, usize, &str); 6] = [
    ("10.0.0.2", CLIENT, "eth0"),
    ("10.0.0.1", GATEWAY, "eth0"),
    ("10.1.0.1", GATEWAY, "eth1"),
    ("10.2.0.1", GATEWAY, "eth2"),
    ("10.1.0.2", NODE, "eth0"),
    ("10.2.0.2", SERVER, "eth0"),
];
const SOURCE_PORT: u16 = 40000;

struct Hairpin(Vec<Namespace>);

impl Wiring for Hairpin {
    fn next(&self, _: usize, _: &str, next_hop: IpAddr, _: &Packet) -> Landing {
        match NEIGHBOURS.iter().find(|(address, ..)| *address == next_hop.to_string()) {
            Some((_, host, device)) => Landing::Host { host: *host, device: (*device).into() },
            None => Landing::Nowhere,
        }
    }
}

/// What was foreseen and what happened.
struct Story {
    attempt: Attempt,
    there: Journey,
    /// Of the answer or the refusal.
    back: Journey,
    answer: Answer,
    /// Rules that counted, by host.
    counted: Counts,
    foreseen: Counts,
}

type Counts = BTreeMap<(&'static str, Counted), u64>;

impl Hairpin {
    /// The gateway sends what comes from the client for the server or for 10.9.0.0/16 to the node.
    fn new() -> Result<Hairpin> {
        let all = NAMES.iter().map(|name| Namespace::new(name)).collect::<Result<Vec<_>>>()?;
        let [client, gateway, node, server] = &all[..] else { bail!("four hosts") };
        for host in &all {
            host.script(
                "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv4.conf.all.send_redirects=0 \
                 net.ipv4.conf.default.send_redirects=0 net.ipv4.conf.all.rp_filter=0 \
                 net.ipv4.conf.default.rp_filter=0
                 ip link set lo up",
            )?;
        }
        for (number, host) in [client, node, server].into_iter().enumerate() {
            gateway.script(&format!(
                "ip link add eth{number} type veth peer name eth0 netns {}
                 ip addr add 10.{number}.0.1/24 dev eth{number}
                 ip link set eth{number} up",
                host.name()
            ))?;
            host.script(&format!(
                "ip addr add 10.{number}.0.2/24 dev eth0
                 ip link set eth0 up
                 ip route add default via 10.{number}.0.1"
            ))?;
        }
        gateway.script(
            "sysctl -qw net.ipv4.ip_forward=1
             ip rule add iif eth0 to 10.2.0.0/24 lookup 100
             ip route add default via 10.1.0.2 table 100
             ip route add 10.9.0.0/16 via 10.1.0.2",
        )?;
        node.script("sysctl -qw net.ipv4.ip_forward=1")?;
        Ok(Hairpin(all))
    }

    /// Adds to a host's nat table.
    fn nat(&self, host: usize, rules: &str) -> Result<()> {
        let text = format!("*nat\n{rules}\nCOMMIT\n");
        self.0[host].exec_with(&["iptables-legacy-restore", "--noflush"], &text).map(drop)
    }

    fn nft(&self, host: usize, rules: &str) -> Result<()> {
        self.0[host].exec_with(&["nft", "-f", "-"], rules).map(drop)
    }

    fn observe(&self) -> Result<Vec<Host>> {
        self.0.iter().zip(NAMES).map(observe).collect()
    }

    /// An attempt of the client.
    fn attempt(&self, to: SocketAddr, ask: Ask) -> Attempt {
        Attempt {
            namespace: Some(self.0[CLIENT].path()),
            source_port: if ask == Ask::Echo { 0 } else { SOURCE_PORT },
            patience: BRIEF,
            ..Attempt::new(to, ask)
        }
    }

    /// The only way there, and the only one back.
    fn foresee(&self, hosts: &[Host], attempt: &Attempt) -> Result<(Journey, Journey)> {
        let options = Options { every_entry: true, ..Options::default() };
        let evaluators: Vec<_> = hosts.iter().map(|host| Evaluator::new(host, options)).collect();
        let net = Net::new(&evaluators, self);
        let to = attempt.to;
        let protocol = attempt.ask.protocol(to.ip());
        let ports = protocol != Protocol::ICMP;
        let packet = Packet::open(
            protocol,
            "10.0.0.2".parse()?,
            ports.then_some(SOURCE_PORT),
            to.ip(),
            ports.then_some(to.port()),
        );
        let there = only(net.there(CLIENT, Query::opening(packet, None)))?;
        let back = match there.arrival {
            Arrival::Delivered => only(net.back(&there))?,
            Arrival::Rejected(_) => only(net.refusal(&there))?,
            Arrival::Dropped(_) | Arrival::Lost | Arrival::Left | Arrival::Unknown(_) => {
                there.clone()
            }
        };
        Ok((there, back))
    }

    /// Foresees, and sends.
    fn story(&self, to: &str, ask: Ask) -> Result<Story> {
        let attempt = self.attempt(to.parse()?, ask);
        let hosts = self.observe()?;
        let (there, back) = self.foresee(&hosts, &attempt)?;
        for host in &self.0 {
            host.enter(connections::forget)??;
        }
        let before = self.0.iter().map(counter::read).collect::<Result<Vec<_>>>()?;
        let answer = once(attempt.clone());
        let mut counted = Counts::new();
        for (host, before) in before.iter().enumerate() {
            let after = counter::read(&self.0[host])?;
            let raised = counter::raised(before, &after).into_iter();
            counted.extend(raised.map(|(place, count)| ((NAMES[host], place), count)));
        }
        let mut foreseen = Counts::new();
        let back_too = (back != there).then_some(&back);
        for leg in [&there].into_iter().chain(back_too).flat_map(|journey| &journey.legs) {
            for hit in leg.outcome.hits.iter().filter(|hit| hit.counted) {
                let By::Rule(rule) = hit.by else { continue };
                let table = &hosts[leg.host].ruleset.tables[rule.table as usize];
                let place = Counted {
                    backend: table.backend,
                    family: table.family,
                    table: table.name.to_string(),
                    chain: table.chain(rule.chain).name.to_string(),
                    index: rule.rule as usize,
                };
                *foreseen.entry((NAMES[leg.host], place)).or_insert(0) += 1;
            }
        }
        Ok(Story { attempt, there, back, answer, counted, foreseen })
    }
}

fn only(journeys: Vec<Journey>) -> Result<Journey> {
    match <[Journey; 1]>::try_from(journeys) {
        Ok([journey]) => Ok(journey),
        Err(journeys) => bail!("{} ways: {journeys:#?}", journeys.len()),
    }
}

fn observe((namespace, name): (&Namespace, &str)) -> Result<Host> {
    let collected = collect(&collect::Options {
        node: Some(name.to_owned()),
        netns: Some(namespace.path()),
        ..collect::Options::default()
    })?;
    let failed = |step: &&collect::Step| step.status == Status::Failed && step.file != "bpf";
    if let Some(step) = collected.report.iter().find(failed) {
        bail!("{} failed: {}", step.command, step.detail);
    }
    let capture = unmasq_parse::capture::parse(&collected.files)?;
    Ok(capture.node(name).context("the capture has no node")?.host)
}

/// Hosts on a way, with the ends of the packet at the last.
fn shown(journey: &Journey) -> String {
    let hosts: Vec<&str> = journey.legs.iter().map(|leg| NAMES[leg.host]).collect();
    let ends = journey.ends().map(|(from, to)| format!("{from} > {to}")).unwrap_or_default();
    format!("{} {ends}", hosts.join(" "))
}

impl Story {
    /// Fails unless the ways and the counters were as expected; these counters are a datagram's.
    fn went(&self, there: &str, back: &str) -> Result<&Story> {
        let seen = (shown(&self.there), shown(&self.back));
        ensure!(seen == (there.to_owned(), back.to_owned()), "{seen:#?}");
        ensure!(
            self.counted == self.foreseen,
            "counted {:#?}\nforeseen {:#?}",
            self.counted,
            self.foreseen
        );
        Ok(self)
    }

    /// The source that the server saw, whether its answer came back or not.
    fn source(&self) -> Result<SocketAddr> {
        Ok(self.answer.seen.as_ref().with_context(|| format!("{:?}", self.answer))?.source)
    }

    fn counts(&self, host: usize, chain: &str, index: usize) -> u64 {
        let is = |(name, place): &&(&str, Counted)| {
            *name == NAMES[host] && place.chain == chain && place.index == index
        };
        self.counted.iter().filter(|(key, _)| is(key)).map(|(_, count)| *count).sum()
    }

    fn foreseen_answered(&self) -> bool {
        Net::answers(&self.there, &self.back)
    }
}

fn serve(hairpin: &Hairpin) -> Result<Server> {
    Server::start(&[place(&hairpin.0[SERVER], "server")], &[])
}

/// Its connection is settled when it leaves the gateway for the first time: at its second visit
/// neither the DNAT nor the masquerade that fit it then are asked.
fn same_packet() -> Result<()> {
    let hairpin = Hairpin::new()?;
    let _server = serve(&hairpin)?;
    hairpin.nat(
        GATEWAY,
        "-A PREROUTING -i eth1 -j DNAT --to-destination 10.2.0.99\n\
         -A POSTROUTING -o eth2 -j MASQUERADE",
    )?;
    let mangle = "*mangle\n-A FORWARD -i eth1 -m conntrack --ctstate NEW\nCOMMIT\n";
    hairpin.0[GATEWAY].exec_with(&["iptables-legacy-restore", "--noflush"], mangle)?;
    let story = hairpin.story("10.2.0.2:53", Ask::Datagram)?;
    reported(&story.attempt, &story.answer)?;
    ensure!(story.source()?.to_string() == "10.0.0.2:40000", "{:?}", story.answer);
    ensure!(story.counts(GATEWAY, "POSTROUTING", 0) == 0, "{:#?}", story.counted);
    ensure!(story.counts(GATEWAY, "PREROUTING", 0) == 0, "{:#?}", story.counted);
    ensure!(story.counts(GATEWAY, "FORWARD", 0) == 1, "{:#?}", story.counted);
    story.went(
        "client gateway node gateway server 10.0.0.2:40000 > 10.2.0.2:53",
        "server gateway client 10.2.0.2:53 > 10.0.0.2:40000",
    )?;
    ensure!(story.foreseen_answered(), "{:?}", story.back);
    for ask in [Ask::Line, Ask::Echo] {
        let story = hairpin.story("10.2.0.2:80", ask)?;
        let report = reported(&story.attempt, &story.answer)?;
        ensure!(report.source.ip().to_string() == "10.0.0.2", "{report:?}");
        ensure!(story.foreseen_answered(), "{:?}", story.back);
    }
    Ok(())
}

const TO_NODE: &str = "-A PREROUTING -d 10.9.0.9/32 -p udp -m udp --dport 53 -j DNAT \
                       --to-destination 10.1.0.2:5300";
const TO_SERVER: &str = "-A PREROUTING -p udp -m udp --dport 5300 -j DNAT \
                         --to-destination 10.2.0.2:53";

/// Gateway and node translate both ends; each undoes its own, the gateway twice.
fn translated() -> Result<()> {
    let hairpin = Hairpin::new()?;
    let _server = serve(&hairpin)?;
    hairpin.nat(GATEWAY, &format!("{TO_NODE}\n-A POSTROUTING -o eth2 -j MASQUERADE"))?;
    hairpin.nat(NODE, &format!("{TO_SERVER}\n-A POSTROUTING -j MASQUERADE"))?;
    let story = hairpin.story("10.9.0.9:53", Ask::Datagram)?;
    reported(&story.attempt, &story.answer)?;
    ensure!(story.source()?.to_string() == "10.2.0.1:40000", "{:?}", story.answer);
    ensure!(story.counts(GATEWAY, "POSTROUTING", 0) == 1, "{:#?}", story.counted);
    story.went(
        "client gateway node gateway server 10.2.0.1:40000 > 10.2.0.2:53",
        "server gateway node gateway client 10.9.0.9:53 > 10.0.0.2:40000",
    )?;
    ensure!(story.foreseen_answered(), "{:?}", story.back);
    Ok(())
}

/// Without a masquerade of the node the gateway has the answer's way to the client, and the node
/// never turns the address back that was called.
fn missed() -> Result<()> {
    let hairpin = Hairpin::new()?;
    let _server = serve(&hairpin)?;
    hairpin.nat(GATEWAY, &format!("{TO_NODE}\n-A POSTROUTING -o eth2 -j MASQUERADE"))?;
    hairpin.nat(NODE, TO_SERVER)?;
    let story = hairpin.story("10.9.0.9:53", Ask::Datagram)?;
    ensure!(story.source()?.to_string() == "10.2.0.1:40000", "{:?}", story.answer);
    let by = "10.2.0.2:53".parse()?;
    let expected =
        matches!(&story.answer.outcome, Outcome::Misanswered { by: at, .. } if *at == by);
    ensure!(expected, "{:?}", story.answer);
    story.went(
        "client gateway node gateway server 10.2.0.1:40000 > 10.2.0.2:53",
        "server gateway client 10.2.0.2:53 > 10.0.0.2:40000",
    )?;
    ensure!(!story.foreseen_answered(), "{:?}", story.back);
    Ok(())
}

/// The gateway translates to the server, and the packet that comes back from the node opens a
/// connection whose answer would be the first one's.
fn clash() -> Result<()> {
    let hairpin = Hairpin::new()?;
    let _server = serve(&hairpin)?;
    hairpin.nat(GATEWAY, "-A PREROUTING -d 10.9.0.9/32 -j DNAT --to-destination 10.2.0.2")?;
    let story = hairpin.story("10.9.0.9:53", Ask::Datagram)?;
    let source = story.source()?;
    ensure!(source.ip().to_string() == "10.0.0.2" && source.port() != SOURCE_PORT, "{source}");
    let Arrival::Unknown(why) = &story.there.arrival else { bail!("{:?}", story.there.arrival) };
    ensure!(why.iter().any(|why| why.contains("what its source port is changed to")), "{why:?}");
    Ok(())
}

/// Masqueraded on its way to the node, it comes back as a martian.
fn own_source() -> Result<()> {
    let hairpin = Hairpin::new()?;
    let _server = serve(&hairpin)?;
    hairpin.nat(GATEWAY, "-A POSTROUTING -o eth1 -j MASQUERADE")?;
    let story = hairpin.story("10.2.0.2:53", Ask::Datagram)?;
    ensure!(story.answer.outcome == Outcome::Silent, "{:?}", story.answer);
    ensure!(story.answer.seen.is_none(), "{:?}", story.answer);
    let way = "client gateway node gateway 10.1.0.1:40000 > 10.2.0.2:53";
    story.went(way, way)?;
    ensure!(matches!(story.there.arrival, Arrival::Dropped(_)), "{:?}", story.there.arrival);
    Ok(())
}

/// What the node refuses, and how: by a route, by ICMP, by a reset. Routes first: of their errors
/// the kernel sends no more than five in a row, and none after another error
/// (net/ipv4/route.c, `ip_error`).
const REFUSED: [(&str, &[Ask]); 3] = [
    ("10.9.0.11:80", &[Ask::Line, Ask::Datagram, Ask::Echo]),
    ("10.9.0.9:80", &[Ask::Line, Ask::Datagram, Ask::Echo]),
    ("10.9.0.10:80", &[Ask::Line]),
];

/// Whether the client hears of a refusal depends on the way back from the node.
fn refusals() -> Result<()> {
    for (obstacle, heard) in [
        (Obstacle::None, true),
        (Obstacle::Translation, true),
        (Obstacle::NoRoute, false),
        (Obstacle::RouteToNobody, false),
        (Obstacle::RuleOf(NODE, "output"), false),
        (Obstacle::RuleOf(GATEWAY, "forward"), false),
        (Obstacle::RuleOf(CLIENT, "input"), false),
    ] {
        let hairpin = Hairpin::new()?;
        hairpin.nft(
            NODE,
            "table ip t { chain c { type filter hook forward priority 0;
              ip daddr { 10.9.0.9, 10.9.7.9 } reject
              ip daddr { 10.9.0.10, 10.9.7.10 } meta l4proto tcp reject with tcp reset
            }
            }",
        )?;
        hairpin.0[NODE].script(
            "ip route add unreachable 10.9.0.11
             ip route add unreachable 10.9.7.11",
        )?;
        obstacle.put_into(&hairpin)?;
        let hosts = hairpin.observe()?;
        for (to, asks) in REFUSED {
            let to = to.parse()?;
            let attempts: Vec<Attempt> =
                asks.iter().map(|ask| hairpin.attempt(to, ask.clone())).collect();
            for (attempt, answer) in attempts.iter().zip(send(&attempts)) {
                let (there, back) = hairpin.foresee(&hosts, attempt)?;
                let case = format!("{obstacle:?}: {attempt:?}: {:?}", answer.outcome);
                let refused = matches!(there.arrival, Arrival::Rejected(_));
                ensure!(refused, "{case}: {:?}", there.arrival);
                match answer.outcome {
                    Outcome::Refused { .. } => ensure!(heard, "{case}"),
                    Outcome::Silent => ensure!(!heard, "{case}"),
                    Outcome::Answered { .. } | Outcome::Misanswered { .. } | Outcome::Failed(_) => {
                        bail!("{case}")
                    }
                }
                ensure!(Net::answers(&there, &back) == heard, "{case}: foreseen {}", shown(&back));
            }
        }
    }
    Ok(())
}

/// What is in the way of a refusal.
#[derive(Debug, Clone, Copy)]
enum Obstacle {
    None,
    /// Of the packet's both ends by the gateway, which is undone.
    Translation,
    /// The node has no way back.
    NoRoute,
    /// It has one by a neighbour that isn't there.
    RouteToNobody,
    /// A host drops it at a hook.
    RuleOf(usize, &'static str),
}

impl Obstacle {
    fn put_into(self, hairpin: &Hairpin) -> Result<()> {
        match self {
            Obstacle::None => Ok(()),
            Obstacle::Translation => hairpin.nat(
                GATEWAY,
                "-A PREROUTING -d 10.9.0.0/24 -j NETMAP --to 10.9.7.0/24\n\
                 -A POSTROUTING -o eth1 -j MASQUERADE",
            ),
            Obstacle::NoRoute => hairpin.0[NODE].script("ip route del default").map(drop),
            Obstacle::RouteToNobody => hairpin.0[NODE]
                .script(
                    "ip route add 10.0.0.0/24 via 10.1.0.77
                     ip neigh add 10.1.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent",
                )
                .map(drop),
            Obstacle::RuleOf(host, hook) => hairpin.nft(
                host,
                &format!(
                    "table ip d {{ chain c {{ type filter hook {hook} priority 10;
                      ip daddr 10.0.0.2 drop; }}\n}}"
                ),
            ),
        }
    }
}

//! Ways over several hosts, expected by hand: a client, a gateway that forwards, a node that
//! translates, a pod. The lab shows the same with real packets.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use unmasq_eval::Evaluator;
use unmasq_eval::journey::{Arrival, Journey, Landing, Net, Wiring};
use unmasq_eval::trace::{Options, Query};
use unmasq_model::host::Host;
use unmasq_model::packet::{Packet, Protocol};

/// A host with devices, each with an address, and routes.
fn host(devices: &[(&str, &str)], routes: &[(&str, &str, &str)], nat: &str) -> Host {
    host_with(devices, routes, nat, r#"{"nftables":[]}"#)
}

/// One with a listing of nftables too.
fn host_with(
    devices: &[(&str, &str)],
    routes: &[(&str, &str, &str)],
    nat: &str,
    nft: &str,
) -> Host {
    let mut addresses = vec![
        r#"{"ifindex":1,"ifname":"lo","flags":["UP"],"addr_info":[
            {"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]}"#
            .to_owned(),
    ];
    let mut all = Vec::new();
    for (index, (device, address)) in (2..).zip(devices) {
        addresses.push(format!(
            r#"{{"ifindex":{index},"ifname":"{device}","flags":["UP"],"addr_info":[
            {{"family":"inet","local":"{address}","prefixlen":24,"scope":"global"}}]}}"#
        ));
        all.push(format!(
            r#"{{"type":"local","dst":"{address}","dev":"{device}","table":"local","flags":[]}}"#
        ));
    }
    for (to, gateway, device) in routes {
        let via =
            if gateway.is_empty() { String::new() } else { format!(r#""gateway":"{gateway}","#) };
        all.push(format!(r#"{{"dst":"{to}",{via}"dev":"{device}","flags":[]}}"#));
    }
    let rules = r#"[{"priority":0,"src":"all","table":"local"},
        {"priority":32766,"src":"all","table":"main"}]"#;
    let nat = format!("*nat\n:PREROUTING ACCEPT\n:POSTROUTING ACCEPT\n{nat}COMMIT\n");
    let files = [
        ("capture.json", r#"{"schema":"unmasq.capture/v1","by":"test"}"#.to_owned()),
        ("nodes/h/ip-addr.json", format!("[{}]", addresses.join(","))),
        ("nodes/h/ip-route.json", format!("[{}]", all.join(","))),
        ("nodes/h/ip-rule.json", rules.to_owned()),
        ("nodes/h/nft.json", nft.to_owned()),
        ("nodes/h/iptables-legacy-save", nat),
    ];
    let files: BTreeMap<String, Vec<u8>> =
        files.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect();
    unmasq_parse::capture::parse(&files).unwrap().node("h").expect("the host").host
}

/// Who has an address, with the device that it is reached by.
struct Addresses(&'static [(&'static str, usize, &'static str)]);

impl Wiring for Addresses {
    fn next(&self, _: usize, _: &str, next_hop: IpAddr, _: &Packet) -> Landing {
        let found = self.0.iter().find(|(address, ..)| *address == next_hop.to_string());
        match found {
            Some((_, host, device)) => Landing::Host { host: *host, device: (*device).into() },
            None => Landing::Nowhere,
        }
    }
}

const WIRES: Addresses = Addresses(&[
    ("192.168.7.20", 0, "eth0"),
    ("192.168.7.1", 1, "wan"),
    ("10.0.0.1", 1, "lan"),
    ("10.0.0.11", 2, "eth0"),
    ("10.42.0.1", 2, "pod"),
    ("10.42.0.7", 3, "eth0"),
    ("10.0.0.99", 4, "eth0"),
]);

fn hosts(node_nat: &str) -> Vec<Host> {
    let gateway = [("192.168.7.0/24", "", "wan"), ("10.0.0.0/24", "", "lan")];
    let node =
        [("default", "10.0.0.1", "eth0"), ("10.0.0.0/24", "", "eth0"), ("10.42.0.0/24", "", "pod")];
    vec![
        host(&[("eth0", "192.168.7.20")], &[("default", "192.168.7.1", "eth0")], ""),
        host(&[("wan", "192.168.7.1"), ("lan", "10.0.0.1")], &gateway, ""),
        host(&[("eth0", "10.0.0.11"), ("pod", "10.42.0.1")], &node, node_nat),
        host(&[("eth0", "10.42.0.7")], &[("default", "10.42.0.1", "eth0")], ""),
    ]
}

fn query(from: &str, to: &str) -> Query {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut packet =
        Packet::open(Protocol::TCP, from.ip(), Some(from.port()), to.ip(), Some(to.port()));
    packet.ttl = Some(64);
    Query::opening(packet, None)
}

/// Hosts on the way, and how it ends.
fn shown(journey: &Journey) -> String {
    let hosts: Vec<String> = journey.legs.iter().map(|leg| leg.host.to_string()).collect();
    let (source, destination) = journey.ends().unwrap();
    format!("{} {source} > {destination} {:?}", hosts.join("-"), journey.arrival)
}

#[test]
fn there_and_back_through_translations() {
    let nat = "-A PREROUTING -d 10.0.0.11/32 -p tcp -m tcp --dport 30080 -j DNAT --to-destination 10.42.0.7:8080\n\
               -A POSTROUTING -d 10.42.0.0/24 -j MASQUERADE\n";
    let hosts = hosts(nat);
    let evaluators: Vec<_> =
        hosts.iter().map(|host| Evaluator::new(host, Options::default())).collect();
    let net = Net::new(&evaluators, &WIRES);
    let there = net.there(0, query("192.168.7.20:41000", "10.0.0.11:30080"));
    let [there] = &there[..] else { panic!("{there:#?}") };
    assert_eq!(shown(there), "0-1-2-3 10.42.0.1:41000 > 10.42.0.7:8080 Delivered");
    assert_eq!(there.hops(), 2);
    assert_eq!(there.legs.last().unwrap().query.packet.ttl, Some(62));
    assert_eq!(there.rewrites().map(|leg| leg.host).collect::<Vec<_>>(), [2]);
    let back = net.back(there);
    let [back] = &back[..] else { panic!("{back:#?}") };
    assert_eq!(shown(back), "3-2-1-0 10.0.0.11:30080 > 192.168.7.20:41000 Delivered");
    assert!(Net::answers(there, back));
}

#[test]
fn an_answer_that_bypasses_the_translating_host_is_none() {
    // The pod answers by the gateway, which knows nothing of the node's translation.
    let nat = "-A PREROUTING -d 10.0.0.11/32 -j DNAT --to-destination 10.42.0.7\n";
    let mut hosts = hosts(nat);
    hosts[3] = host(&[("eth0", "10.42.0.7")], &[("default", "10.0.0.1", "eth0")], "");
    let evaluators: Vec<_> =
        hosts.iter().map(|host| Evaluator::new(host, Options::default())).collect();
    let net = Net::new(&evaluators, &WIRES);
    let there = net.there(0, query("192.168.7.20:41000", "10.0.0.11:8080"));
    assert_eq!(shown(&there[0]), "0-1-2-3 192.168.7.20:41000 > 10.42.0.7:8080 Delivered");
    let back = net.back(&there[0]);
    assert_eq!(shown(&back[0]), "3-1-0 10.42.0.7:8080 > 192.168.7.20:41000 Delivered");
    assert!(!Net::answers(&there[0], &back[0]));
}

/// Two programs masquerade at the same priority, and only one of them chooses the port by chance:
/// which comes first is not known, the source is, and so the answer comes back.
#[test]
fn an_answer_comes_back_though_the_port_depends_on_an_unknown_order() {
    let nat = "-A PREROUTING -d 10.0.0.11/32 -p tcp -m tcp --dport 30080 -j DNAT --to-destination 10.42.0.7:8080\n\
               -A POSTROUTING -d 10.42.0.0/24 -j MASQUERADE\n";
    let nft = r#"{"nftables":[
        {"table":{"family":"ip","name":"other","handle":1}},
        {"chain":{"family":"ip","table":"other","name":"post","handle":1,"type":"nat",
                  "hook":"postrouting","prio":100,"policy":"accept"}},
        {"rule":{"family":"ip","table":"other","chain":"post","handle":2,
                 "expr":[{"masquerade":{"flags":"fully-random"}}]}}]}"#;
    let node =
        [("default", "10.0.0.1", "eth0"), ("10.0.0.0/24", "", "eth0"), ("10.42.0.0/24", "", "pod")];
    let mut hosts = hosts("");
    hosts[2] = host_with(&[("eth0", "10.0.0.11"), ("pod", "10.42.0.1")], &node, nat, nft);
    let evaluators: Vec<_> =
        hosts.iter().map(|host| Evaluator::new(host, Options::default())).collect();
    let net = Net::new(&evaluators, &WIRES);
    let there = net.there(0, query("192.168.7.20:40000", "10.0.0.11:30080"));
    assert_eq!(there.len(), 1);
    assert_eq!(shown(&there[0]), "0-1-2-3 10.42.0.1:? > 10.42.0.7:8080 Delivered");
    let back = net.back(&there[0]);
    assert_eq!(back.len(), 1);
    assert!(Net::answers(&there[0], &back[0]), "{}", shown(&back[0]));
}

/// A router sends a packet back to the host that masqueraded it as itself, with a port by chance:
/// for the kernel it then opens a connection of its own, unless the port is the old one.
#[test]
fn a_packet_that_comes_back_with_an_unknown_port_may_be_of_another_connection() {
    let gateway = host(&[("lan", "10.0.0.1")], &[("default", "10.0.0.11", "lan")], "");
    let shown_with = |nat: &str| {
        let node = host(&[("eth0", "10.0.0.11")], &[("default", "10.0.0.1", "eth0")], nat);
        let hosts = [node, gateway.clone()];
        let evaluators: Vec<_> =
            hosts.iter().map(|host| Evaluator::new(host, Options::default())).collect();
        let wires = Addresses(&[("10.0.0.11", 0, "eth0"), ("10.0.0.1", 1, "lan")]);
        let there = Net::new(&evaluators, &wires).there(0, query("10.0.0.11:41000", "1.2.3.4:80"));
        there.iter().map(shown).collect::<Vec<_>>().join("\n")
    };
    let masquerade = "-A POSTROUTING -j MASQUERADE --random-fully\n";
    let by_chance = shown_with(masquerade);
    assert!(by_chance.starts_with("0-1 ") && by_chance.contains("kept its port"), "{by_chance}");
    // Without chance it keeps the port; whether the host takes its own address as a source was not
    // captured.
    let kept = shown_with("");
    assert!(kept.starts_with("0-1-0 ") && kept.contains("accept_local"), "{kept}");
}

/// A node that has no route for a packet from outside says so, by its own routes.
#[test]
fn a_refusal_of_the_first_host_has_a_way_back_if_the_packet_came_from_elsewhere() {
    let lan = ("10.0.0.0/24", "", "eth0");
    let refusal = |routes: &[(&str, &str, &str)], from: &str, in_device: Option<&str>| {
        let mut hosts = hosts("");
        hosts[2] = host(&[("eth0", "10.0.0.11"), ("pod", "10.42.0.1")], routes, "");
        let evaluators: Vec<_> =
            hosts.iter().map(|host| Evaluator::new(host, Options::default())).collect();
        let net = Net::new(&evaluators, &WIRES);
        let asked = query(from, "10.96.0.80:80");
        let there = net.there(2, Query { in_device: in_device.map(Into::into), ..asked });
        assert!(matches!(there[0].arrival, Arrival::Rejected(_)), "{}", shown(&there[0]));
        net.refusal(&there[0]).iter().map(shown).collect::<Vec<_>>().join("\n")
    };
    let known = ("192.168.7.0/24", "10.0.0.1", "eth0");
    let back = refusal(&[lan, known], "192.168.7.20:41000", Some("eth0"));
    assert_eq!(back, "2-1-0 10.96.0.80:80 > 192.168.7.20:41000 Delivered");
    let lost = refusal(&[lan], "192.168.7.20:41000", Some("eth0"));
    assert_eq!(lost, "2 10.96.0.80:80 > 192.168.7.20:41000 Rejected(Some(NoRoute))");
    // What it sent itself it knows at once.
    assert_eq!(refusal(&[lan], "10.0.0.11:41000", None), "");
}

#[test]
fn a_way_ends_where_nobody_is_or_where_it_turns_in_circles() {
    let mut hosts = hosts("");
    let evaluate = |hosts: &[Host], to: &str| -> Vec<Arrival> {
        let evaluators: Vec<_> =
            hosts.iter().map(|host| Evaluator::new(host, Options::default())).collect();
        let journeys = Net::new(&evaluators, &WIRES).there(0, query("192.168.7.20:1", to));
        journeys.into_iter().map(|journey| journey.arrival).collect()
    };
    assert_eq!(evaluate(&hosts, "10.0.0.55:80"), [Arrival::Lost]);
    let gateway = [("192.168.7.0/24", "", "wan"), ("default", "10.0.0.11", "lan")];
    hosts[1] = host(&[("wan", "192.168.7.1"), ("lan", "10.0.0.1")], &gateway, "");
    let mut endless = query("192.168.7.20:1", "198.51.100.1:80");
    endless.packet.ttl = None;
    let evaluators: Vec<_> =
        hosts.iter().map(|host| Evaluator::new(host, Options::default())).collect();
    let journeys = Net::new(&evaluators, &WIRES).there(0, endless);
    let Arrival::Unknown(why) = &journeys[0].arrival else { panic!("{journeys:#?}") };
    assert_eq!(why[..], ["it is still on its way after 16 hosts"]);
}

/// No sysctl of these hosts was captured; of both that forward, it is assumed that they do.
#[test]
fn a_journey_lists_what_was_taken_for_granted_on_its_way_each_once() {
    let hosts = hosts("-A PREROUTING -d 10.0.0.11/32 -j DNAT --to-destination 10.42.0.7\n");
    let evaluators: Vec<_> =
        hosts.iter().map(|host| Evaluator::new(host, Options::default())).collect();
    let net = Net::new(&evaluators, &WIRES);
    let there = &net.there(0, query("192.168.7.20:41000", "10.0.0.11:8080"))[0];
    assert_eq!(shown(there), "0-1-2-3 192.168.7.20:41000 > 10.42.0.7:8080 Delivered");
    let about = |journey: &Journey, what: &str| -> Vec<String> {
        journey.assumptions.iter().filter(|one| one.contains(what)).cloned().collect()
    };
    let forwarding = |device| format!("IPv4 forwarding is on for {device} (sysctl not captured)");
    assert_eq!(about(there, "forwarding"), [forwarding("wan"), forwarding("eth0")]);
    // The node and the pod both get it by a device of that name.
    let filter = "rp_filter is off on eth0 (sysctl not captured)";
    assert_eq!(about(there, filter), [filter]);
    let back = &net.back(there)[0];
    assert_eq!(about(back, "forwarding"), [forwarding("pod"), forwarding("lan")]);
    for leg in there.legs.iter().zip(&evaluators).map(|(leg, host)| host.trace(&leg.query)) {
        let missing = leg.assumptions.iter().find(|one| !there.assumptions.contains(one));
        assert_eq!(missing, None);
    }
}

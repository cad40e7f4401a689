//! Calls to, through and from a node with a bridge of containers, expected by hand. The lab shows
//! the same with real packets.

use std::collections::BTreeMap;

use unmasq_eval::trace::Options;
use unmasq_model::packet::Protocol;

use super::{Call, Caller, Fate, Paths};
use crate::{Cluster, Overrides, read};

/// A node of 10.0.0.0/24 whose bridge cni0 has pods and docker0 a network that others have too.
fn node() -> Cluster {
    let addresses = [
        ("lo", "", "127.0.0.1", 8),
        ("eth0", "", "10.0.0.11", 24),
        ("cni0", "bridge", "10.244.1.1", 24),
        ("docker0", "bridge", "192.168.0.1", 20),
    ];
    let links = (1..).zip(addresses).map(|(index, (name, kind, local, length))| {
        let flags = if name == "lo" { r#""UP","LOOPBACK""# } else { r#""UP""# };
        let kind = match kind {
            "" => String::new(),
            kind => format!(r#""linkinfo":{{"info_kind":"{kind}"}},"#),
        };
        format!(
            r#"{{"ifindex":{index},"ifname":"{name}","flags":[{flags}],{kind}"addr_info":[
            {{"family":"inet","local":"{local}","prefixlen":{length},"scope":"global"}}]}}"#
        )
    });
    let links = format!("[{}]", links.collect::<Vec<_>>().join(","));
    let routes = r#"[{"type":"local","dst":"10.0.0.11","dev":"eth0","table":"local","flags":[]},
        {"dst":"default","gateway":"10.0.0.1","dev":"eth0","flags":[]},
        {"dst":"10.0.0.0/24","dev":"eth0","flags":[]},
        {"dst":"10.244.1.0/24","dev":"cni0","flags":[]},
        {"dst":"192.168.0.0/20","dev":"docker0","flags":[]}]"#;
    let rules = r#"[{"priority":0,"src":"all","table":"local"},
        {"priority":32766,"src":"all","table":"main"}]"#;
    let filter = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n\
        -A INPUT -p tcp -m tcp --dport 81 -j REJECT\n\
        -A FORWARD -p tcp -m tcp --dport 81 -j REJECT\n\
        -A OUTPUT -d 172.16.9.0/24 -j DROP\nCOMMIT\n";
    let objects = r#"{"kind":"List","items":[
        {"kind":"Node","metadata":{"name":"n1"},"spec":{"podCIDRs":["10.244.1.0/24"]},
         "status":{"addresses":[{"type":"InternalIP","address":"10.0.0.11"}]}},
        {"kind":"Pod","metadata":{"name":"p1","namespace":"default"},"spec":{"nodeName":"n1"},
         "status":{"phase":"Running","podIP":"10.244.1.2","podIPs":[{"ip":"10.244.1.2"}]}}]}"#;
    let files = [
        ("capture.json", r#"{"schema":"unmasq.capture/v1","by":"test"}"#),
        ("nodes/n1/ip-addr.json", &*links),
        ("nodes/n1/ip-link.json", &*links),
        ("nodes/n1/ip-route.json", routes),
        ("nodes/n1/ip-rule.json", rules),
        ("nodes/n1/nft.json", r#"{"nftables":[]}"#),
        ("nodes/n1/iptables-legacy-save", filter),
        ("kubernetes/objects.json", objects),
    ];
    let files: BTreeMap<String, Vec<u8>> =
        files.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
    let contents = read::capture(&files).unwrap();
    Cluster::new(contents.nodes, contents.objects, Overrides::default())
}

/// The only fate of a call from an address to another.
fn fate(from: &str, to: &str, port: u16) -> Fate {
    let cluster = node();
    let paths = Paths::new(&cluster, Options::default());
    let address = from.parse().unwrap();
    let from = match from.starts_with("10.244.1.") {
        true => Caller::Pod { node: 0, address },
        false => Caller::Outside { node: 0, address },
    };
    let to = to.parse().unwrap();
    let protocol = Protocol::TCP;
    let call = Call { from, source_port: Some(41_000), to, port: Some(port), protocol };
    let ways = paths.ways(&call).unwrap();
    assert_eq!(ways.len(), 1, "{ways:?}");
    ways[0].fate.clone()
}

fn no_answer(why: &str) -> Fate {
    Fate::NoAnswer(why.to_owned())
}

/// Conntrack or a filter may throw the error away, or a route lead it elsewhere: then the one who
/// asked waits.
#[test]
fn a_refusal_has_to_find_its_way_back() {
    let refused = |from, to| fate(from, to, 81);
    assert!(matches!(refused("198.51.100.20", "10.0.0.11"), Fate::Rejected(Some(_))));
    assert!(matches!(refused("198.51.100.20", "10.244.1.2"), Fate::Rejected(Some(_))));
    assert!(matches!(refused("10.244.1.2", "198.51.100.20"), Fate::Rejected(Some(_))));
    let dropped = no_answer("the refusal is dropped on its way back");
    assert_eq!(refused("172.16.9.20", "10.0.0.11"), dropped);
    let astray = no_answer("the refusal goes into docker0, which has that network");
    assert_eq!(refused("192.168.7.20", "10.0.0.11"), astray);
    // Answers of pods aren't the node's own, and pass.
    assert_eq!(fate("172.16.9.20", "10.244.1.2", 8080), Fate::Preserved);
}

/// Whoever is outside and has an address of a network that is on a bridge of the node gets nothing
/// from there. Who is in that network isn't captured.
#[test]
fn what_goes_into_a_bridge_of_containers_does_not_leave_the_node() {
    assert_eq!(fate("198.51.100.20", "10.244.1.2", 8080), Fate::Preserved);
    let astray = no_answer("the answer goes into docker0, which has that network");
    assert_eq!(fate("192.168.7.20", "10.244.1.2", 8080), astray);
    assert_eq!(fate("10.244.1.2", "198.51.100.20", 443), Fate::Preserved);
    let unknown = fate("10.244.1.2", "192.168.7.20", 443);
    let Fate::Unknown(why) = &unknown else { panic!("{unknown:?}") };
    assert!(why[0].contains("192.168.7.20 is in the network of docker0 on node n1"), "{why:?}");
    // A pod that isn't known yet is one all the same.
    assert_eq!(fate("10.244.1.2", "10.244.1.9", 8080), Fate::Preserved);
}

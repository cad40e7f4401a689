use unmasq_cluster::Cluster;
use unmasq_eval::trace::Options;
use unmasq_model::packet::{Family, Protocol};

use super::*;
use crate::fixture::example;

const STYLE: Style = Style { color: false, verbose: false, width: 80 };

fn show(cluster: &Cluster, from: Caller, to: &str, port: u16, style: &Style) -> String {
    let (source_port, to) = (Some(40000), to.parse().unwrap());
    let call = Call { from, source_port, to, port: Some(port), protocol: Protocol::TCP };
    let paths = Paths::new(cluster, Options::default());
    let ways = paths.ways(&call).unwrap();
    path_of_hosts(&ways, &call, &paths, style)
}

fn outside(node: usize) -> Caller {
    Caller::Outside { node, address: "198.51.100.7".parse().unwrap() }
}

fn pod(node: usize, address: &str) -> Caller {
    Caller::Pod { node, address: address.parse().unwrap() }
}

/// The file is written anew with `UNMASQ_BLESS=1`, and then read before it is committed.
fn check(name: &str, text: &str) {
    let path = format!("{}/src/terminal/hosts/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UNMASQ_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, "{name}");
}

#[test]
fn the_whole_story_of_a_node_port() {
    let cluster = example("kube-proxy-cluster-policy");
    // By a node without an endpoint, and so by another node too.
    check("node-port.txt", &show(&cluster, outside(2), "10.0.0.13", 30080, &STYLE));
}

#[test]
fn first_lines_and_ways() {
    let cluster = example("kube-proxy-cluster-policy");
    for (from, to, port, first, way) in [
        (
            pod(0, "10.42.1.3"),
            "10.43.0.80",
            80,
            "source PRESERVED 10.42.1.3 -> 10.42.1.2:8080",
            "pod default/tool-1 -> n1 -> pod default/web-1",
        ),
        (
            pod(1, "10.42.2.2"),
            "10.42.1.2",
            8080,
            "source PRESERVED 10.42.2.2 -> 10.42.1.2:8080",
            "pod default/tool-2 -> n2 -> flannel.1 -> n1 -> pod default/web-1",
        ),
        (
            Caller::Node(1),
            "10.43.0.80",
            81,
            "REJECTED on n2 by cluster-ips-check (kube-proxy): Reject traffic to invalid ports of \
             ClusterIPs",
            "n2 -> refused",
        ),
        (
            outside(0),
            "10.0.0.11",
            30080,
            "source REWRITTEN 198.51.100.7 -> 10.42.1.1 by masquerading (kube-proxy) on n1",
            "198.51.100.7 -> n1 -> pod default/web-1",
        ),
    ] {
        let text = show(&cluster, from, to, port, &Style { width: 120, ..STYLE });
        assert!(text.starts_with(&format!("{first}\n")), "{first}: {text}");
        assert!(text.contains(&format!("\n{way}\n")), "{way}: {text}");
    }
}

#[test]
fn an_answer_that_does_not_come_back() {
    let cluster = example("kube-proxy-cluster-policy");
    let paths = Paths::new(&cluster, Options::default());
    let call = Call {
        from: outside(0),
        source_port: Some(40000),
        to: "10.0.0.11".parse().unwrap(),
        port: Some(30080),
        protocol: Protocol::TCP,
    };
    let mut ways = paths.ways(&call).unwrap();
    let why = "nobody has the address that the answer is sent to".to_owned();
    ways[0].back[0].arrival = Arrival::Lost;
    ways[0].fate = Fate::NoAnswer(why.clone());
    let text = path_of_hosts(&ways, &call, &paths, &STYLE);
    assert!(text.starts_with(&format!("NO ANSWER: {why}\n")), "{text}");
    let joined = text.replace("\n  ", " ");
    let end = format!("n1 -> eth0 -> nobody; it does not come back: {why}.\n");
    assert!(joined.contains(&end), "{text}");
}

#[test]
fn several_ways_have_their_shares() {
    let cluster = example("kube-proxy-cluster-policy");
    let paths = Paths::new(&cluster, Options::default());
    let call = Call {
        from: outside(0),
        source_port: Some(40000),
        to: "10.0.0.11".parse().unwrap(),
        port: Some(30080),
        protocol: Protocol::TCP,
    };
    let way = paths.ways(&call).unwrap().remove(0);
    let with = |share: f64, fate: Fate| {
        let mut way = way.clone();
        way.there.legs[0].outcome.probability = Some(share);
        way.fate = fate;
        way
    };
    let unknown = Fate::Unknown(vec!["a is missing".to_owned(), "b is missing".to_owned()]);
    let ways =
        [with(0.25, Fate::Preserved), with(0.5, Fate::Rewritten), with(0.125, unknown.clone()), {
            with(0.125, Fate::Rewritten)
        }];
    let text = path_of_hosts(&ways, &call, &paths, &Style { width: 120, ..STYLE });
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(
        lines,
        [
            " 62%  source REWRITTEN 198.51.100.7 -> 10.42.1.1 by masquerading (kube-proxy) on n1 (2 ways)",
            " 12%  UNKNOWN: a is missing (and 1 more)",
            " 25%  source PRESERVED 198.51.100.7 -> 10.42.1.2:8080",
        ]
    );
    assert!(text.contains("\nIf REWRITTEN:\n198.51.100.7 -> n1"), "{text}");
    assert!(text.contains("\nNot known:\n  a is missing\n  b is missing\n"), "{text}");
    let none = path_of_hosts(&[], &call, &paths, &STYLE);
    assert!(none.starts_with("UNKNOWN: the packet could not be followed\n"), "{none}");
}

#[test]
fn names_of_addresses() {
    let cluster = example("kube-proxy-cluster-policy");
    let names = Names::of(&cluster);
    let web = cluster.objects.services.iter().find(|one| one.metadata.name == "web").unwrap();
    let cluster_ip = web.cluster_ip(Family::V6).unwrap().to_string();
    for (address, expected) in [
        ("10.42.1.2", Some("pod default/web-1")),
        ("fd00:42:0:2::2", Some("pod default/tool-2")),
        (&*cluster_ip, Some("Service default/web")),
        ("192.0.2.80", Some("Service default/web")),
        ("10.0.0.13", Some("node n3")),
        ("198.51.100.7", None),
        ("127.0.0.1", None),
    ] {
        assert_eq!(names.get(address.parse().unwrap()), expected, "{address}");
    }
}

#[test]
fn lines_fit_the_width_and_colour_is_asked_for() {
    let cluster = example("kube-proxy-cluster-policy");
    for width in [80, 120] {
        let text = show(&cluster, outside(2), "10.0.0.13", 30080, &Style { width, ..STYLE });
        assert!(!text.contains('\x1b'));
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
    let coloured = show(&cluster, outside(2), "10.0.0.13", 30080, &Style { color: true, ..STYLE });
    assert!(coloured.starts_with("source \x1b[1;31mREWRITTEN\x1b[0m 198.51.100.7"), "{coloured}");
}

//! Sets as Felix and kube-router fill them, and what is not filled in.

use std::collections::BTreeMap;

use super::*;
use crate::{Overrides, read};

const NODES: &str = "
kind: Node
metadata: {name: n1, annotations: {projectcalico.org/IPv4Address: 10.0.9.11/24}}
spec: {podCIDRs: [10.42.1.0/24, 'fd00:42:1::/64']}
status: {addresses: [{type: InternalIP, address: 10.0.0.11}, {type: InternalIP, address: 'fd00::11'}, {type: Hostname, address: n1}]}
---
kind: Node
metadata: {name: n2, annotations: {kube-router.io/pod-cidrs: '10.77.2.0/24,fd00:77:2::/64'}}
spec: {podCIDRs: [10.42.2.0/24]}
status: {addresses: [{type: InternalIP, address: 10.0.0.12}, {type: ExternalIP, address: 203.0.113.12}]}
---
kind: Node
metadata: {name: n3}
status: {addresses: [{type: InternalIP, address: 10.0.0.13}]}
---
";

const POOLS: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: a}
spec: {cidr: 192.168.0.0/16, natOutgoing: true, disabled: true}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: b}
spec: {cidr: 10.9.0.0/16}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: c}
spec: {cidr: 'fd00:9::/48', natOutgoing: true}
";

const ADDRESSES: &str = r#"[
 {"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
 {"ifindex":2,"ifname":"eth0","flags":["UP"],"addr_info":[{"family":"inet","local":"10.0.0.11","prefixlen":24,"scope":"global"}]},
 {"ifindex":3,"ifname":"cali1","flags":["UP"],"addr_info":[{"family":"inet","local":"169.254.1.1","prefixlen":32,"scope":"link"}]},
 {"ifindex":4,"ifname":"kube-ipvs0","flags":[],"addr_info":[{"family":"inet","local":"10.96.0.1","prefixlen":32,"scope":"global"}]}]"#;

/// A cluster whose node n1 has a rule for each set.
fn cluster(sets: &[&str], ipset_save: Option<&str>, yaml: &str) -> Cluster {
    let rules: String = sets
        .iter()
        .map(|set| format!("-A POSTROUTING -m set --match-set {set} src -j MASQUERADE\n"))
        .collect();
    let save = format!("*nat\n:POSTROUTING ACCEPT [0:0]\n{rules}COMMIT\n");
    let mut files = BTreeMap::from([
        ("nodes/n1/iptables-save".to_owned(), save.into_bytes()),
        ("nodes/n1/ip-addr.json".to_owned(), ADDRESSES.as_bytes().to_vec()),
    ]);
    if let Some(text) = ipset_save {
        files.insert("nodes/n1/ipset.save".to_owned(), text.as_bytes().to_vec());
    }
    if !yaml.is_empty() {
        files.insert("kubernetes/all.yaml".to_owned(), yaml.as_bytes().to_vec());
    }
    let contents = read::capture(&files).unwrap();
    assert_eq!(contents.problems, []);
    Cluster::new(contents.nodes, contents.objects, Overrides::default())
}

fn elements(cluster: &Cluster, set: &str) -> Option<(HashKind, Family, Vec<String>)> {
    let host = cluster.node("n1").unwrap().host.as_ref().unwrap();
    let assumed = host.assumed_sets.get(set)?;
    assert_eq!(&*assumed.set.name, set);
    let Content::Hash(hash) = &assumed.set.content else { panic!("{assumed:?}") };
    let elements = hash.iter().map(|(element, _)| element.first.to_string()).collect();
    Some((hash.kind, hash.family, elements))
}

#[test]
fn sets_of_calico_and_kube_router() {
    use Family::{V4, V6};
    use HashKind::{Ip, Net};
    let cases: [(&str, HashKind, Family, &[&str]); 10] = [
        // A disabled pool masquerades as well.
        ("cali40masq-ipam-pools", Net, V4, &["192.168.0.0/16"]),
        ("cali40all-ipam-pools", Net, V4, &["10.9.0.0/16", "192.168.0.0/16"]),
        ("cali60masq-ipam-pools", Net, V6, &["fd00:9::/48"]),
        ("cali60all-ipam-pools", Net, V6, &["fd00:9::/48"]),
        ("cali40all-hosts-net", Net, V4, &["10.0.0.12/32", "10.0.0.13/32", "10.0.9.11/32"]),
        ("cali60all-hosts-net", Net, V6, &["fd00::11/128"]),
        ("cali40this-host", Ip, V4, &["10.0.0.11/32", "127.0.0.1/32"]),
        ("kube-router-pod-subnets", Net, V4, &["10.42.1.0/24", "10.77.2.0/24"]),
        ("inet6:kube-router-pod-subnets", Net, V6, &["fd00:42:1::/64", "fd00:77:2::/64"]),
        ("kube-router-node-ips", Ip, V4, &["10.0.0.11/32", "10.0.0.12/32", "203.0.113.12/32"]),
    ];
    let names: Vec<&str> =
        cases.iter().map(|case| case.0).chain(["cali40s:xyz", "KUBE-CLUSTER-IP"]).collect();
    let yaml = format!("{NODES}{POOLS}");
    let found = cluster(&names, None, &yaml);
    for (name, kind, family, expected) in cases {
        let expected = expected.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(elements(&found, name), Some((kind, family, expected)), "{name}");
    }
    let of_sets: Vec<&Assumption> =
        found.assumptions.iter().filter(|one| one.set.is_some()).collect();
    assert_eq!(of_sets.len(), cases.len());
    let masq =
        of_sets.iter().find(|one| one.set.as_deref() == Some("cali40masq-ipam-pools")).unwrap();
    assert_eq!(masq.node.as_deref(), Some("n1"));
    let text = "the set cali40masq-ipam-pools has 192.168.0.0/16 in it: the IPPools with natOutgoing (the set itself was not captured)";
    assert_eq!(masq.text, text);
    let hosts = &found.node("n1").unwrap().host.as_ref().unwrap().assumed_sets;
    assert!(
        hosts["kube-router-node-ips"].text.contains("has 10.0.0.11, 10.0.0.12, 203.0.113.12 in it")
    );

    // Only what rules test.
    assert_eq!(elements(&cluster(&["cali40this-host"], None, &yaml), "cali40all-ipam-pools"), None);
}

#[test]
fn what_was_captured_or_follows_from_nothing_is_not_filled_in() {
    let sets = [
        "cali40masq-ipam-pools",
        "kube-router-pod-subnets",
        "kube-router-node-ips",
        "cali40all-hosts-net",
    ];
    for (yaml, save) in [("", None), ("kind: Service\nmetadata: {name: a}\n", None)] {
        let found = cluster(&sets, save, yaml);
        assert!(found.assumptions.is_empty(), "{:?}", found.assumptions);
    }
    let save = "create cali40masq-ipam-pools hash:net family inet\n";
    let found = cluster(&sets, Some(save), &format!("{NODES}{POOLS}"));
    assert_eq!(elements(&found, "cali40masq-ipam-pools"), None);
    assert!(elements(&found, "kube-router-pod-subnets").is_some());
    // No pool masquerades: the set is known to be empty.
    let quiet = POOLS.replace("natOutgoing: true", "natOutgoing: false");
    let found = cluster(&sets, None, &quiet);
    let expected = Some((HashKind::Net, Family::V4, Vec::new()));
    assert_eq!(elements(&found, "cali40masq-ipam-pools"), expected);
    assert!(found.assumptions[0].text.contains("has nothing in it"), "{:?}", found.assumptions);
}

/// The files of a folder of the repository, by their paths in it.
fn folder(path: &str) -> BTreeMap<String, Vec<u8>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let mut files = BTreeMap::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn a_walk_that_rests_on_an_assumed_set_ends_as_with_the_captured_one() {
    use unmasq_eval::Evaluator;
    use unmasq_eval::trace::{Options, Query, Trace};
    use unmasq_model::packet::{Packet, Protocol};

    let trace = |cluster: &Cluster| -> Trace {
        let host = cluster.nodes[0].host.as_ref().unwrap();
        let [from, to] = ["192.168.7.20", "10.0.0.11"].map(|ip| ip.parse().unwrap());
        let packet = Packet::open(Protocol::TCP, from, Some(41000), to, Some(30080));
        Evaluator::new(host, Options::default()).trace(&Query::opening(packet, Some("eth0")))
    };
    let ends = |trace: &Trace| {
        let end = |o: &unmasq_eval::trace::Outcome| {
            (o.verdict, o.source.after, o.destination.after, o.unknown.len())
        };
        trace.outcomes.iter().map(end).collect::<Vec<_>>()
    };
    let read = |files: &BTreeMap<String, Vec<u8>>| {
        let contents = read::capture(files).unwrap();
        assert_eq!(contents.problems, []);
        Cluster::new(contents.nodes, contents.objects, Overrides::default())
    };
    let mut files = folder("examples/canal-rke");
    let captured = trace(&read(&files));
    let masqueraded = ends(&captured);
    assert_eq!(masqueraded.len(), 1, "{captured:#?}");
    assert!(masqueraded[0].1.to_string().starts_with("10.0.0.11:"), "{masqueraded:?}");

    let sets = files.keys().filter(|path| path.ends_with("/ipset.save")).cloned();
    for path in sets.collect::<Vec<_>>() {
        files.remove(&path);
    }
    files.remove("kubernetes/ippools.crd.projectcalico.org.json");
    // A capture without the record of it.
    files.insert("capture.json".into(), br#"{"schema": "unmasq.capture/v1"}"#.to_vec());
    assert_ne!(ends(&trace(&read(&files))), masqueraded);
    files.insert("kubernetes/ippools.crd.projectcalico.org.yaml".into(), POOLS.as_bytes().to_vec());
    let assumed = trace(&read(&files));
    assert_eq!(ends(&assumed), masqueraded);
    let names =
        |text: &String| text.starts_with("the set cali40masq-ipam-pools has 192.168.0.0/16");
    assert_eq!(assumed.assumptions.iter().filter(|text| names(text)).count(), 1);
}

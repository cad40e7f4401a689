//! Ranges from each place, in the order in which places count, and what must not overlap.

use super::*;
use crate::{Cluster, read};

fn cluster(nodes: Vec<Node>, yaml: &str, overrides: Overrides) -> Cluster {
    let contents = read::objects((!yaml.is_empty()).then_some(("x.yaml", yaml.as_bytes())));
    assert_eq!(contents.problems, []);
    Cluster::new(nodes, contents.objects, overrides)
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A captured node with devices, as `ip -j addr` shows them, and routes.
fn node(name: &str, addresses: &[(&str, &str)], routes: &[&str], files: &[(&str, &str)]) -> Node {
    let links: Vec<_> = (1..)
        .zip(addresses)
        .map(|(index, (device, address))| {
            let net = net(address);
            let family = if net.addr().is_ipv4() { "inet" } else { "inet6" };
            serde_json::json!({"ifindex": index, "ifname": device, "flags": ["UP"], "addr_info": [
                {"family": family, "local": net.addr(), "prefixlen": net.prefix_len(), "scope": "global"}]})
        })
        .collect();
    let routes: Vec<_> = routes
        .iter()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let mut route = serde_json::json!({"dst": words[0], "dev": words[1], "protocol": "static", "scope": "global", "flags": []});
            if let Some(gateway) = words.get(2) {
                route["gateway"] = serde_json::json!(gateway);
            }
            route
        })
        .collect();
    let mut texts = BTreeMap::from([
        (format!("nodes/{name}/ip-addr.json"), serde_json::to_vec(&links).unwrap()),
        (format!("nodes/{name}/ip-route.json"), serde_json::to_vec(&routes).unwrap()),
    ]);
    for (path, text) in files {
        texts.insert(format!("nodes/{name}/files{path}"), text.as_bytes().to_vec());
    }
    let mut nodes = read::capture(&texts).unwrap().nodes;
    let node = nodes.pop().unwrap();
    assert!(node.diagnostics.is_empty(), "{:?}", node.diagnostics);
    assert!(node.host.as_ref().unwrap().routes4.is_some());
    node
}

fn object_node(name: &str, pods: &str, address: &str) -> String {
    format!(
        "kind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [{pods}]}}\n\
         status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n---\n"
    )
}

fn pod(name: &str, address: &str) -> String {
    format!(
        "kind: Pod\nmetadata: {{name: {name}}}\nstatus: {{phase: Running, podIP: {address}}}\n---\n"
    )
}

fn pool(name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}, natOutgoing: true}}\n---\n"
    )
}

fn flannel(network: &str) -> String {
    format!(
        "kind: ConfigMap\nmetadata: {{name: kube-flannel-cfg, namespace: kube-flannel}}\ndata: {{net-conf.json: '{{\"Network\": \"{network}\"}}'}}\n---\n"
    )
}

fn proxy(cidr: &str) -> String {
    format!(
        "kind: ConfigMap\nmetadata: {{name: kube-proxy, namespace: kube-system}}\ndata:\n  config.conf: |\n    kind: KubeProxyConfiguration\n    clusterCIDR: {cidr}\n---\n"
    )
}

#[test]
fn the_range_of_all_pods_by_precedence() {
    let env = [("/run/flannel/subnet.env", "FLANNEL_NETWORK=10.1.0.0/16\n")];
    let captured = || vec![node("n1", &[], &[], &env)];
    let assigned = object_node("n1", "10.5.0.0/24", "10.9.0.1")
        + &object_node("n2", "10.5.1.0/24", "10.9.0.2");
    let used =
        pool("used", "10.3.0.0/16") + &pool("idle", "192.168.0.0/16") + &pod("a", "10.3.0.7");
    let said = Overrides { cluster_cidrs: vec![net("10.0.0.0/8")], ..Overrides::default() };
    let no = Overrides::default;
    let flannel = flannel("10.2.0.0/16");
    let proxy = proxy("10.4.0.0/16,fd00:4::/56");
    let cases = [
        (
            captured(),
            [&*flannel, &used, &proxy, &assigned].concat(),
            said,
            "10.0.0.0/8",
            "--cluster-cidr",
            4,
        ),
        (
            captured(),
            [&*flannel, &used, &proxy].concat(),
            no(),
            "10.1.0.0/16",
            "node n1, /run/flannel/subnet.env:1: FLANNEL_NETWORK",
            3,
        ),
        (
            vec![],
            [&*flannel, &used, &proxy].concat(),
            no(),
            "10.2.0.0/16",
            "ConfigMap kube-flannel/kube-flannel-cfg, net-conf.json: Network",
            2,
        ),
        (
            vec![],
            [&*used, &proxy, &assigned].concat(),
            no(),
            "10.3.0.0/16",
            "IPPool used: spec.cidr",
            1,
        ),
        (
            vec![],
            [&*proxy, &assigned].concat(),
            no(),
            "10.4.0.0/16",
            "ConfigMap kube-system/kube-proxy, config.conf: clusterCIDR",
            2,
        ),
        (vec![], assigned.clone(), no(), "10.5.0.0/23", "Node n1: spec.podCIDRs", 0),
    ];
    for (nodes, yaml, overrides, range, place, conflicts) in cases {
        let cluster = cluster(nodes, &yaml, overrides);
        let pods = cluster.networks.cluster_pods(Family::V4);
        assert_eq!(pods.ranges, [net(range)], "{yaml}");
        assert_eq!(pods.places[0].to_string(), place);
        assert_eq!(pods.conflicts.len(), conflicts, "{:?}", pods.conflicts);
        assert_eq!(pods.assumption.is_some(), range == "10.5.0.0/23");
        let assumed =
            cluster.assumptions.iter().any(|one| pods.assumption.as_ref() == Some(&one.text));
        assert_eq!(assumed, pods.assumption.is_some());
        if yaml.contains("fd00:4") {
            assert_eq!(cluster.networks.cluster_pods(Family::V6).ranges, [net("fd00:4::/56")]);
        }
    }
    let nothing = cluster(vec![], "", no());
    assert_eq!(nothing.networks, Networks::default());
}

#[test]
fn a_node_outside_the_range_of_all_pods_is_a_conflict() {
    let yaml = proxy("10.4.0.0/16")
        + &object_node("in", "10.4.1.0/24", "10.9.0.1")
        + &object_node("out", "10.5.1.0/24", "10.9.0.2");
    let cluster = cluster(vec![], &yaml, Overrides::default());
    let conflicts: Vec<String> = cluster
        .networks
        .cluster_pods(Family::V4)
        .conflicts
        .iter()
        .map(|c| format!("{:?} {}", c.ranges, c.place))
        .collect();
    assert_eq!(conflicts, ["[10.5.1.0/24] Node out: spec.podCIDRs"]);
    let of = |node: &str| cluster.networks.pods_of(node).map(|n| n.range).collect::<Vec<_>>();
    assert_eq!(
        (of("in"), of("out"), of("x")),
        (vec![net("10.4.1.0/24")], vec![net("10.5.1.0/24")], vec![])
    );
}

#[test]
fn pools_and_who_is_in_them() {
    let yaml = pool("used", "10.3.0.0/16")
        + &pool("idle", "192.168.0.0/16")
        + &pool("six", "fd00::/48")
        + &pod("a", "10.3.0.7");
    let networks = cluster(vec![], &yaml, Overrides::default()).networks;
    let at = |address: &str| {
        networks.pool_at(ip(address)).map(|(_, pool)| (pool.name.as_str(), pool.used))
    };
    assert_eq!(at("10.3.255.1"), Some(("used", Some(true))));
    assert_eq!(at("192.168.7.20"), Some(("idle", Some(false))));
    assert_eq!(at("fd00::1"), Some(("six", None)));
    assert_eq!(at("10.4.0.1"), None);
    assert_eq!(networks.at(ip("10.3.0.7")).len(), 2);
    // Without pods nobody knows.
    let networks = cluster(vec![], &pool("p", "10.3.0.0/16"), Overrides::default()).networks;
    assert_eq!(networks.pool_at(ip("10.3.0.1")).unwrap().1.used, None);
    assert!(networks.cluster_pods(Family::V4).ranges.is_empty());
}

#[test]
fn the_range_of_services() {
    let service = |name: &str, address: &str| {
        format!("kind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {address}}}\n---\n")
    };
    let services =
        service("a", "10.96.0.9") + &service("b", "10.96.0.1") + &service("headless", "None");
    let cidr = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\nspec: {cidrs: [10.97.0.0/16, 'fd00:97::/108']}\n---\n";
    let server = "kind: Pod\nmetadata: {name: api}\nspec: {hostNetwork: true, containers: [{name: kube-apiserver, command: [kube-apiserver, --service-cluster-ip-range=10.98.0.0/16]}]}\n---\n";
    let kubeadm = "kind: ConfigMap\nmetadata: {name: kubeadm-config, namespace: kube-system}\ndata: {ClusterConfiguration: 'networking: {serviceSubnet: 10.99.0.0/16}'}\n---\n";
    let said = Overrides { service_cidrs: vec![net("10.100.0.0/16")], ..Overrides::default() };
    let no = Overrides::default;
    let cases = [
        ([&*services, cidr, server, kubeadm].concat(), said, "10.100.0.0/16", 3),
        ([&*services, cidr, server, kubeadm].concat(), no(), "10.98.0.0/16", 2),
        ([&*services, cidr, kubeadm].concat(), no(), "10.97.0.0/16", 1),
        ([&*services, kubeadm].concat(), no(), "10.99.0.0/16", 0),
    ];
    for (yaml, overrides, range, conflicts) in cases {
        let networks = cluster(vec![], &yaml, overrides).networks;
        let found = networks.services(Family::V4);
        assert_eq!(
            (&*found.ranges, found.conflicts.len()),
            (&[net(range)][..], conflicts),
            "{yaml}"
        );
        assert_eq!(found.assumption, None);
    }
    let assumed = cluster(vec![], &services, no());
    let found = assumed.networks.services(Family::V4);
    assert_eq!(found.ranges, [net("10.96.0.1/32"), net("10.96.0.9/32")]);
    assert!(found.contains(ip("10.96.0.9")) && !found.contains(ip("10.96.0.2")));
    assert!(!found.contains(ip("10.95.0.0")) && !found.contains(ip("fd00::")));
    assert!(found.assumption.is_some() && assumed.networks.all.is_empty());
}

/// `OUTER KIND > INNER KIND`
fn shown(cluster: &Cluster) -> Vec<String> {
    let name = |network: &Network| {
        let kind = match &network.kind {
            NetworkKind::ClusterPods => "pods".to_owned(),
            NetworkKind::NodePods { node } => format!("pods of {node}"),
            NetworkKind::Services => "services".to_owned(),
            NetworkKind::Pool(pool) => format!("pool {}", pool.name),
            NetworkKind::Lan => "lan".to_owned(),
            NetworkKind::Bridge => "bridge".to_owned(),
            NetworkKind::Route => "route".to_owned(),
        };
        format!("{} {kind}", network.range)
    };
    let overlaps = cluster.networks.overlaps();
    overlaps.iter().map(|one| format!("{} > {}", name(one.outer), name(one.inner))).collect()
}

#[test]
fn what_overlaps_and_what_is_so_by_design() {
    let routes = [
        "default eth0 10.0.0.1",
        "10.42.2.0/24 eth0 10.0.0.12",
        "192.168.50.0/24 eth0 10.0.0.1",
        "10.0.0.0/8 eth0 10.0.0.1",
        "172.17.9.0/24 eth0 10.0.0.1",
    ];
    let env = [(
        "/run/flannel/subnet.env",
        "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\n",
    )];
    let devices = [
        ("eth0", "10.0.0.11/24"),
        ("docker0", "172.17.0.1/16"),
        ("cni0", "10.42.1.1/24"),
        ("flannel.1", "10.42.1.0/32"),
        ("eth1", "192.168.7.2/24"),
    ];
    let nodes = vec![node("n1", &devices, &routes, &env)];
    // canal: pods have flannel's addresses, nobody those of the pool.
    let yaml = pool("default-ipv4-ippool", "192.168.0.0/16")
        + &pod("a", "10.42.1.7")
        + &object_node("n1", "10.42.1.0/24", "10.0.0.11");
    let canal = cluster(nodes, &yaml, Overrides::default());
    let expected = [
        "172.17.0.0/16 bridge > 172.17.9.0/24 route",
        "192.168.0.0/16 pool default-ipv4-ippool > 192.168.7.0/24 lan",
        "192.168.0.0/16 pool default-ipv4-ippool > 192.168.50.0/24 route",
    ];
    assert_eq!(shown(&canal), expected);
    let lan = canal.networks.at(ip("192.168.7.9"));
    assert_eq!(
        (lan[0].range, lan[0].places[0].to_string()),
        (net("192.168.7.0/24"), "node n1, eth1 192.168.7.2/24".to_owned())
    );
    let own = canal.networks.pods_of("n1").next().unwrap();
    let places: Vec<String> = own.places.iter().map(ToString::to_string).collect();
    assert_eq!(
        places,
        ["node n1, /run/flannel/subnet.env:2: FLANNEL_SUBNET", "Node n1: spec.podCIDRs"]
    );

    // Calico with its own pool: equal to all pods, and nothing overlaps.
    let yaml = pool("p", "10.3.0.0/16")
        + &pod("a", "10.3.0.7")
        + &proxy("10.3.0.0/16")
        + &object_node("n1", "10.244.0.0/24", "10.0.0.11");
    let calico = cluster(
        vec![node("n1", &[("eth0", "10.0.0.11/24")], &["10.3.4.0/26 eth0 10.0.0.12"], &[])],
        &yaml,
        Overrides::default(),
    );
    assert_eq!(shown(&calico), [""; 0]);
    assert_eq!(calico.networks.pods_of("n1").count(), 0);

    // Docker's bridge for pods, one on each node; then the same on both.
    let engine = |name: &str, bip: &str| {
        let file = format!("{{\"bip\": \"{bip}\"}}");
        node(name, &[], &[], &[("/etc/docker/daemon.json", file.as_str())])
    };
    let said = || Overrides { cluster_cidrs: vec![net("172.7.0.0/16")], ..Overrides::default() };
    let own =
        cluster(vec![engine("n1", "172.7.21.1/24"), engine("n2", "172.7.22.1/24")], "", said());
    assert_eq!(shown(&own), [""; 0]);
    let same =
        cluster(vec![engine("n1", "172.7.21.1/24"), engine("n2", "172.7.21.1/24")], "", said());
    assert_eq!(shown(&same), ["172.7.0.0/16 pods > 172.7.21.0/24 bridge"]);

    // Two nodes with one range, and Services inside it.
    let yaml = object_node("n1", "10.5.0.0/24", "10.0.0.1")
        + &object_node("n2", "10.5.0.0/24", "10.0.0.2");
    let services = Overrides { service_cidrs: vec![net("10.5.0.128/25")], ..Overrides::default() };
    let expected = [
        "10.5.0.0/24 pods of n1 > 10.5.0.0/24 pods of n2",
        "10.5.0.0/24 pods > 10.5.0.128/25 services",
        "10.5.0.0/24 pods of n1 > 10.5.0.128/25 services",
        "10.5.0.0/24 pods of n2 > 10.5.0.128/25 services",
    ];
    assert_eq!(shown(&cluster(vec![], &yaml, services)), expected);
}

#[test]
fn a_given_range_must_be_that_of_the_pods() {
    let pod = "kind: Pod\nmetadata: {namespace: shop, name: web}\nspec: {nodeName: a}\n\
               status: {phase: Running, podIPs: [{ip: 10.42.1.7}]}\n---\n";
    let with_node = format!("{}{pod}", object_node("a", "10.42.1.0/24", "10.0.0.1"));
    let check = |yaml: &str, given: &[&str]| {
        let cluster_cidrs = given.iter().map(|range| net(range)).collect();
        let overrides = Overrides { cluster_cidrs, ..Overrides::default() };
        cluster(Vec::new(), yaml, overrides).check_given_pods()
    };
    for (yaml, given) in [
        (&*with_node, &["10.42.0.0/16"][..]),
        (&*with_node, &["10.0.0.0/8"][..]),
        (pod, &["10.42.1.0/24"][..]),
        (&*with_node, &[][..]),
    ] {
        assert_eq!(check(yaml, given), Ok(Vec::new()), "{given:?}");
    }
    let wrong = check(&with_node, &["10.99.0.0/16"]).unwrap_err();
    assert_eq!(
        wrong,
        "--cluster-cidr 10.99.0.0/16 holds no pod: pods have 10.42.1.7 (Pod shop/web: \
         status.podIPs), 10.42.1.0/24 (Node a: spec.podCIDRs)"
    );
    assert!(check(&with_node, &["10.42.0.0/16", "10.99.0.0/16"]).is_err());
    let narrow = check(&with_node, &["10.42.1.0/28"]).unwrap_err();
    assert!(narrow.contains("others have 10.42.1.0/24 (Node a: spec.podCIDRs)"), "{narrow}");
    // Nothing says either way: taken, and noted.
    for (yaml, given) in [("", "10.99.0.0/16"), (&*with_node, "fd00:42::/56")] {
        let notes = check(yaml, &[given]).unwrap();
        assert!(notes.join("").contains(given), "{notes:?}");
    }
}

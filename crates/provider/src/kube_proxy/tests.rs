//! What each option changes in the text. The lines are those of kubernetes
//! pkg/proxy/iptables/proxier_test.go and pkg/proxy/nftables/proxier_test.go, as iptables-save and
//! nft list them.

use serde_json::json;
use unmasq_model::origin::FileId;

use super::*;

/// A Service with a load balancer, as the tests of kube-proxy have one.
fn objects(endpoints: usize) -> Objects {
    let mut objects = Objects::default();
    let endpoints: Vec<_> = (0..endpoints)
        .map(|n| json!({"addresses": [format!("10.180.{}.{}", n / 250, n % 250 + 1)]}))
        .collect();
    for object in [
        json!({"kind": "Service", "metadata": {"name": "svc1", "namespace": "ns1"},
               "spec": {"type": "LoadBalancer", "clusterIP": "172.30.0.41",
                        "loadBalancerSourceRanges": ["203.0.113.0/25", "192.168.0.0/24"],
                        "ports": [{"name": "p80", "port": 80, "nodePort": 3001}]},
               "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
        json!({"kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
               "metadata": {"name": "svc1-1", "namespace": "ns1",
                            "labels": {"kubernetes.io/service-name": "svc1"}},
               "ports": [{"name": "p80", "port": 80}]}),
        json!({"kind": "Node", "metadata": {"name": "n1"},
               "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.2"}]}}),
    ] {
        objects.add(&object).unwrap();
    }
    objects
}

/// With the rules of a changed configuration: whether each line is there.
fn check(mode: Mode, change: impl FnOnce(&mut Config), lines: &[(&str, bool)]) {
    let mut config = Config::new(mode, "n1");
    config.detect_local = DetectLocal::ClusterCidr(vec!["10.0.0.0/8".parse().unwrap()]);
    change(&mut config);
    let rules = rules(&objects(1), &config, Family::V4);
    for (line, there) in lines {
        let found = rules.lines().any(|found| found.trim() == *line);
        assert_eq!(found, *there, "{line} in {rules}");
    }
}

fn no_pods(config: &mut Config) {
    config.detect_local = DetectLocal::ClusterCidr(Vec::new());
}

#[test]
fn iptables_masquerade() {
    let rule = |source: &str| {
        format!(
            "-A KUBE-SVC-XPGD46QRK7WJZT7O{source} -d 172.30.0.41/32 -p tcp -m comment \
             --comment \"ns1/svc1:p80 cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ"
        )
    };
    let (all, outside) = (rule(""), rule(" ! -s 10.0.0.0/8"));
    let mode = Mode::Iptables;
    check(mode, |_| {}, &[(&outside, true), (&all, false)]);
    check(mode, |config| config.masquerade_all = true, &[(&outside, false), (&all, true)]);
    check(mode, no_pods, &[(&outside, false), (&all, false)]);
}

#[test]
fn iptables_node_ports() {
    let rule = |to: &str, local: &str| {
        format!(
            "-A KUBE-SERVICES{to} -m comment --comment \"kubernetes service nodeports; NOTE: this \
             must be the last rule in this chain\"{local} -j KUBE-NODEPORTS"
        )
    };
    let all = rule("", " -m addrtype --dst-type LOCAL");
    let no_localhost = rule(" ! -d 127.0.0.0/8", " -m addrtype --dst-type LOCAL");
    let primary = rule(" -d 192.168.0.2/32", "");
    let guard = "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block \
                 incoming localnet connections\" -m conntrack ! --ctstate \
                 RELATED,ESTABLISHED,DNAT -j DROP";
    let mode = Mode::Iptables;
    check(mode, |_| {}, &[(&all, true), (&no_localhost, false), (&primary, false), (guard, true)]);
    let change = |config: &mut Config| config.localhost_node_ports = false;
    check(mode, change, &[(&all, false), (&no_localhost, true), (guard, false)]);
    let change = |c: &mut Config| c.node_port_addresses = NodePortAddresses::Primary;
    check(mode, change, &[(&all, false), (&primary, true), (guard, false)]);
}

#[test]
fn iptables_filter() {
    let invalid = "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP";
    let mode = Mode::Iptables;
    // The node is in a source range, so its own packets to the address are let through.
    let own = "-A KUBE-FW-XPGD46QRK7WJZT7O -s 1.2.3.4/32 -m comment --comment \"ns1/svc1:p80 \
               loadbalancer IP\" -j KUBE-EXT-XPGD46QRK7WJZT7O";
    check(mode, |_| {}, &[(invalid, true), (own, true)]);
    check(mode, |config| config.conntrack_tcp_liberal = true, &[(invalid, false)]);
}

#[test]
fn nftables_options() {
    let mark = "meta mark set meta mark | 0x00004000 comment";
    let all = format!("ip daddr @cluster-ips {mark} \"masquerade all clusterIP traffic\"");
    let outside = format!(
        "ip daddr @cluster-ips ip saddr != 10.0.0.0/8 {mark} \
         \"masquerade clusterIP traffic from outside cluster\""
    );
    let primary = "ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports";
    let everywhere = "fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap \
                      @service-nodeports";
    let free = "ip daddr { 172.30.0.0/16 } drop comment \"Drop traffic to unallocated ClusterIPs\"";
    let mode = Mode::Nftables;
    check(
        mode,
        |_| {},
        &[
            (&outside, true),
            (&all, false),
            (primary, true),
            (everywhere, false),
            (free, false),
            ("elements = { 192.168.0.2 }", true),
            ("ip saddr != { 203.0.113.0/25, 192.168.0.0/24, 1.2.3.4 } drop", true),
        ],
    );
    check(mode, |config| config.masquerade_all = true, &[(&all, true), (&outside, false)]);
    check(mode, no_pods, &[(&all, false), (&outside, false)]);
    let change = |c: &mut Config| c.node_port_addresses = NodePortAddresses::Networks(Vec::new());
    check(mode, change, &[(primary, false), (everywhere, true)]);
    let change = |c: &mut Config| c.service_cidrs = vec!["172.30.0.0/16".parse().unwrap()];
    check(mode, change, &[(free, true)]);
}

#[test]
fn rules_of_many_endpoints_have_no_comments() {
    let config = Config::new(Mode::Iptables, "n1");
    for (count, commented) in [(1_000, true), (1_001, false)] {
        let rules = rules(&objects(count), &config, Family::V4);
        let endpoint = rules.lines().find(|rule| rule.starts_with("-A KUBE-SEP-")).unwrap();
        assert_eq!(endpoint.contains("--comment"), commented, "{endpoint}");
        let chance = rules.lines().find(|rule| rule.contains("statistic")).unwrap();
        assert_eq!(chance.contains("--comment"), commented, "{chance}");
        assert!(rules.contains("--comment \"ns1/svc1:p80 cluster IP\""));
    }
}

#[test]
fn route_localnet_is_for_node_ports_on_localhost() {
    let objects = objects(1);
    let config = Config::new(Mode::Iptables, "n1");
    let with = |node_port_addresses| {
        Config { node_port_addresses, ..config.clone() }.route_localnet(&objects)
    };
    let networks = |network: &str| NodePortAddresses::Networks(vec![network.parse().unwrap()]);
    assert!(with(NodePortAddresses::Default));
    assert!(with(networks("127.0.0.1/32")));
    assert!(!with(networks("192.168.0.0/16")));
    assert!(!with(NodePortAddresses::Primary));
    assert!(!Config { localhost_node_ports: false, ..config.clone() }.route_localnet(&objects));
    assert!(!Config::new(Mode::Nftables, "n1").route_localnet(&objects));
}

/// What is written is read again, without a kernel in between.
#[test]
fn nftables_is_understood() {
    let changes: [fn(&mut Config); 4] = [
        |_| {},
        no_pods,
        |config| config.masquerade_all = true,
        |config| config.detect_local = DetectLocal::BridgeInterface("cni0".into()),
    ];
    for change in changes {
        let mut config = Config::new(Mode::Nftables, "n1");
        config.detect_local = DetectLocal::ClusterCidr(vec!["10.0.0.0/8".parse().unwrap()]);
        config.service_cidrs.push("172.30.0.0/16".parse().unwrap());
        change(&mut config);
        for (family, rules_at_least) in [(Family::V4, 25), (Family::V6, 20)] {
            let text = rules(&objects(2), &config, family);
            let (tables, diagnostics) =
                unmasq_parse::nft::text::parse(&text, FileId(0), &|_, _| false);
            assert_eq!(diagnostics, [], "{text}");
            let [table] = &tables[..] else { panic!("{tables:#?}") };
            let rules: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
            assert!(rules >= rules_at_least, "{rules} rules in {text}");
            assert!(!format!("{table:?}").contains("Opaque"), "{table:#?} of {text}");
            assert_eq!(table.unreadable, None);
        }
    }
}

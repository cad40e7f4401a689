use std::net::IpAddr;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn kube_router() -> KubeRouter {
    KubeRouter {
        pods: vec![net("10.42.0.0/24"), net("fd42::/64"), net("10.42.1.0/24")],
        nodes: vec![address("10.0.0.11"), address("fd00::11"), address("10.0.0.12")],
        node_device: "eth0".into(),
        random_fully: true,
    }
}

fn klipper(script: Script) -> Klipper {
    let port = |protocol: &str, port, destination_port| ServicePort {
        protocol: protocol.into(),
        port,
        destination_port,
        destinations: vec![address("10.43.9.8"), address("fd43::98")],
        source_ranges: vec![net("0.0.0.0/0"), net("::/0")],
    };
    Klipper { script, ports: vec![port("TCP", 80, 30080), port("UDP", 53, 53)] }
}

fn portmap() -> Portmap {
    let port = |protocol: &str, host_port, container_port| HostPort {
        protocol: protocol.into(),
        host_port,
        container_port,
    };
    Portmap {
        network: "cbr0".into(),
        container: "svclb-a".into(),
        addresses: vec![net("10.42.1.4/24"), net("fd42:1::4/64")],
        ports: vec![port("udp", 53, 5353), port("tcp", 80, 8080), port("tcp", 443, 8443)],
    }
}

pub(super) fn examples() -> Vec<Rules> {
    let stray = StrayRule { within: net("10.141.0.0/16"), opens_forward: true };
    vec![
        kube_router().rules(Family::V4),
        kube_router().without_pod_egress(Family::V4),
        IpMasqAgent::default().rules(Family::V4),
        klipper(Script::Nat).rules(Family::V4),
        klipper(Script::NatAndFilter).rules(Family::V4),
        portmap().rules(Family::V4),
        stray.rules(),
    ]
}

#[test]
fn kube_router_of_both_families() {
    let rules = kube_router().rules(Family::V4);
    check(
        &rules.ipset(),
        "create kube-router-pod-subnets hash:net timeout 0
        create kube-router-node-ips hash:ip timeout 0
        add kube-router-pod-subnets 10.42.0.0/24 timeout 0
        add kube-router-pod-subnets 10.42.1.0/24 timeout 0
        add kube-router-node-ips 10.0.0.11 timeout 0
        add kube-router-node-ips 10.0.0.12 timeout 0",
    );
    check(
        &rules.iptables(),
        r#"*nat
        -A POSTROUTING -m set --match-set kube-router-pod-subnets src -m set ! --match-set kube-router-pod-subnets dst -m set ! --match-set kube-router-node-ips dst -j MASQUERADE --random-fully
        COMMIT
        *filter
        -I FORWARD 1 -m comment --comment "allow outbound traffic from pods" -i kube-bridge -j ACCEPT
        -I FORWARD 1 -m comment --comment "allow inbound traffic to pods" -o kube-bridge -j ACCEPT
        -I FORWARD 1 -m comment --comment "allow outbound node port traffic on node interface with which node ip is associated" -o eth0 -j ACCEPT
        COMMIT"#,
    );
    let six = KubeRouter { random_fully: false, ..kube_router() }.rules(Family::V6);
    check(
        &six.ipset(),
        "create inet6:kube-router-pod-subnets hash:net timeout 0 family inet6
        create inet6:kube-router-node-ips hash:ip timeout 0 family inet6
        add inet6:kube-router-pod-subnets fd42::/64 timeout 0
        add inet6:kube-router-node-ips fd00::11 timeout 0",
    );
    let rule = "-A POSTROUTING -m set --match-set inet6:kube-router-pod-subnets src -m set ! --match-set inet6:kube-router-pod-subnets dst -m set ! --match-set inet6:kube-router-node-ips dst -j MASQUERADE";
    assert_eq!(six.iptables().lines().nth(1), Some(rule));
}

#[test]
fn kube_router_without_pod_egress() {
    check(
        &kube_router().without_pod_egress(Family::V4).iptables(),
        "*nat
        -D POSTROUTING -m set --match-set kube-router-pod-subnets src -m set ! --match-set kube-router-pod-subnets dst -m set ! --match-set kube-router-node-ips dst -j MASQUERADE --random-fully
        COMMIT",
    );
}

const JUMP: &str = r#"*nat
    :IP-MASQ-AGENT - [0:0]
    -A POSTROUTING -m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
"#;

#[test]
fn ip_masq_agent_without_a_file() {
    let rest = r#"-A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -d 169.254.0.0/16 -j RETURN
        -A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -d 10.0.0.0/8 -j RETURN
        -A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -d 172.16.0.0/12 -j RETURN
        -A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -d 192.168.0.0/16 -j RETURN
        -A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE --random-fully
        COMMIT"#;
    let agent = IpMasqAgent::default();
    check(&agent.rules(Family::V4).iptables(), &format!("{JUMP}{rest}"));
}

#[test]
fn ip_masq_agent_with_an_empty_list() {
    let agent = IpMasqAgent {
        non_masquerade: Vec::new(),
        masquerade_link_local: true,
        random_fully: false,
    };
    let rest = r#"-A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE
        COMMIT"#;
    check(&agent.rules(Family::V4).iptables(), &format!("{JUMP}{rest}"));
    let local = IpMasqAgent {
        masquerade_link_local: false,
        non_masquerade: vec![net("fd42::/56"), net("10.0.0.0/8")],
        ..agent
    };
    let rest = format!(
        r#"-A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -d fe80::/10 -j RETURN
        -A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -d fd42::/56 -j RETURN
        {rest}"#
    );
    check(&local.rules(Family::V6).iptables(), &format!("{JUMP}{rest}"));
}

#[test]
fn klipper_translates() {
    check(
        &klipper(Script::Nat).rules(Family::V4).iptables(),
        "*nat
        -I PREROUTING ! -s 10.43.9.8/32 -p TCP --dport 80 -j DNAT --to 10.43.9.8:30080
        -I POSTROUTING -d 10.43.9.8/32 -p TCP -j MASQUERADE
        -I PREROUTING ! -s 10.43.9.8/32 -p UDP --dport 53 -j DNAT --to 10.43.9.8:53
        -I POSTROUTING -d 10.43.9.8/32 -p UDP -j MASQUERADE
        COMMIT",
    );
}

#[test]
fn klipper_filters() {
    check(
        &klipper(Script::NatAndFilter).rules(Family::V6).iptables(),
        "*filter
        -I FORWARD -s ::/0 -p TCP --dport 80 -j ACCEPT
        -A FORWARD -d fd43::98/128 -p TCP --dport 30080 -j DROP
        -I FORWARD -s ::/0 -p UDP --dport 53 -j ACCEPT
        -A FORWARD -d fd43::98/128 -p UDP --dport 53 -j DROP
        COMMIT
        *nat
        -I PREROUTING ! -s fd43::98/128 -p TCP --dport 80 -j DNAT --to [fd43::98]:30080
        -I POSTROUTING -d fd43::98/128 -p TCP -j MASQUERADE
        -I PREROUTING ! -s fd43::98/128 -p UDP --dport 53 -j DNAT --to [fd43::98]:53
        -I POSTROUTING -d fd43::98/128 -p UDP -j MASQUERADE
        COMMIT",
    );
}

#[test]
fn a_stray_rule() {
    let stray = StrayRule { within: net("10.141.0.0/16"), opens_forward: true };
    check(
        &stray.rules().iptables(),
        "*filter
        :FORWARD ACCEPT [0:0]
        COMMIT
        *nat
        -A POSTROUTING -m addrtype ! --dst-type local ! -d 10.141.0.0/16 -j MASQUERADE
        COMMIT",
    );
}

/// By hand from portmap_iptables.go (`fillDnatRules`), with the chain's digits left out.
#[test]
fn portmap_of_both_families() {
    let own = |family| {
        let text = portmap().rules(family).iptables();
        let chain = text.lines().find_map(|line| line.strip_prefix(":CNI-DN-")).unwrap();
        let digits = chain.split(' ').next().unwrap();
        assert_eq!(digits.len(), 21);
        text.replace(digits, "X")
    };
    check(
        &own(Family::V4),
        r#"*nat
        :CNI-HOSTPORT-SETMARK - [0:0]
        :CNI-HOSTPORT-MASQ - [0:0]
        :CNI-HOSTPORT-DNAT - [0:0]
        -A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
        -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
        -I POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
        -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        :CNI-DN-X - [0:0]
        -A CNI-DN-X -p udp --dport 53 -s 10.42.1.4/24 -j CNI-HOSTPORT-SETMARK
        -A CNI-DN-X -p udp --dport 53 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
        -A CNI-DN-X -p udp --dport 53 -j DNAT --to-destination 10.42.1.4:5353
        -A CNI-DN-X -p tcp --dport 80 -s 10.42.1.4/24 -j CNI-HOSTPORT-SETMARK
        -A CNI-DN-X -p tcp --dport 80 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
        -A CNI-DN-X -p tcp --dport 80 -j DNAT --to-destination 10.42.1.4:8080
        -A CNI-DN-X -p tcp --dport 443 -s 10.42.1.4/24 -j CNI-HOSTPORT-SETMARK
        -A CNI-DN-X -p tcp --dport 443 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
        -A CNI-DN-X -p tcp --dport 443 -j DNAT --to-destination 10.42.1.4:8443
        -A CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \"cbr0\" id: \"svclb-a\"" -m multiport -p tcp --destination-ports 80,443 -j CNI-DN-X
        -A CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \"cbr0\" id: \"svclb-a\"" -m multiport -p udp --destination-ports 53 -j CNI-DN-X
        COMMIT"#,
    );
    let v6 = own(Family::V6);
    assert!(v6.contains("--dport 80 -j DNAT --to-destination [fd42:1::4]:8080\n"), "{v6}");
    assert!(!v6.contains("127.0.0.1") && !v6.contains("10.42"), "{v6}");
}

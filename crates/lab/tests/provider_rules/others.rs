//! kube-router, ip-masq-agent, klipper-lb, a stray rule, and several systems in one POSTROUTING.

use unmasq_audit::Owner;
use unmasq_model::packet::Family;
use unmasq_provider::{
    Bridge, Engine, IpMasqAgent, Klipper, KubeRouter, Masquerade, Release, Script, ServicePort,
    StrayRule,
};

use crate::{State, net};

fn kube_router() -> KubeRouter {
    KubeRouter {
        pods: vec![net("10.42.0.0/24"), net("fd42::/64"), net("10.42.1.0/24")],
        nodes: ["10.0.0.11", "fd00::11"].map(|node| node.parse().unwrap()).into(),
        node_device: "eth0".into(),
        random_fully: true,
    }
}

fn klipper(script: Script) -> Klipper {
    let port = |protocol: &str, port, destination_port| ServicePort {
        protocol: protocol.into(),
        port,
        destination_port,
        destinations: ["10.43.9.8", "fd43::98"].map(|node| node.parse().unwrap()).into(),
        source_ranges: vec![net("0.0.0.0/0"), net("fd01::/64")],
    };
    Klipper { script, ports: vec![port("TCP", 80, 30080), port("UDP", 53, 53)] }
}

fn stray() -> StrayRule {
    StrayRule { within: net("10.141.0.0/16"), opens_forward: true }
}

fn docker() -> Engine {
    let docker0 = Bridge {
        device: "docker0".into(),
        subnet: net("172.17.0.0/16"),
        masquerade: Masquerade::On,
        inter_container: true,
        ports: Vec::new(),
    };
    let release = Release::UpTo27;
    Engine { release, bridges: vec![docker0], hairpin: false, drops_forward: true }
}

pub(crate) const STATES: &[State] = &[
    State {
        name: "kube_router",
        rules: || vec![kube_router().rules(Family::V4)],
        chains: &[r#"*nat
            -A POSTROUTING -m set --match-set kube-router-pod-subnets src -m set ! --match-set kube-router-pod-subnets dst -m set ! --match-set kube-router-node-ips dst -j MASQUERADE --random-fully
            *filter
            -A FORWARD -o eth0 -m comment --comment "allow outbound node port traffic on node interface with which node ip is associated" -j ACCEPT
            -A FORWARD -o kube-bridge -m comment --comment "allow inbound traffic to pods" -j ACCEPT
            -A FORWARD -i kube-bridge -m comment --comment "allow outbound traffic from pods" -j ACCEPT"#],
        owners: &[("", Owner::KubeRouter)],
    },
    State {
        name: "kube_router_six",
        rules: || vec![kube_router().rules(Family::V6)],
        chains: &[r#"*nat
            -A POSTROUTING -m set --match-set inet6:kube-router-pod-subnets src -m set ! --match-set inet6:kube-router-pod-subnets dst -m set ! --match-set inet6:kube-router-node-ips dst -j MASQUERADE --random-fully
            *filter
            -A FORWARD -o eth0 -m comment --comment "allow outbound node port traffic on node interface with which node ip is associated" -j ACCEPT
            -A FORWARD -o kube-bridge -m comment --comment "allow inbound traffic to pods" -j ACCEPT
            -A FORWARD -i kube-bridge -m comment --comment "allow outbound traffic from pods" -j ACCEPT"#],
        owners: &[("", Owner::KubeRouter)],
    },
    State {
        name: "kube_router_without_pod_egress",
        rules: || {
            let kube_router = kube_router();
            vec![kube_router.rules(Family::V4), kube_router.without_pod_egress(Family::V4)]
        },
        chains: &[r#"*filter
            -A FORWARD -o eth0 -m comment --comment "allow outbound node port traffic on node interface with which node ip is associated" -j ACCEPT
            -A FORWARD -o kube-bridge -m comment --comment "allow inbound traffic to pods" -j ACCEPT
            -A FORWARD -i kube-bridge -m comment --comment "allow outbound traffic from pods" -j ACCEPT"#],
        owners: &[],
    },
    State {
        name: "ip_masq_agent",
        rules: || vec![IpMasqAgent::default().rules(Family::V4)],
        chains: &[r#"*nat
            -A POSTROUTING -m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
            -A IP-MASQ-AGENT -d 169.254.0.0/16 -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
            -A IP-MASQ-AGENT -d 10.0.0.0/8 -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
            -A IP-MASQ-AGENT -d 172.16.0.0/12 -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
            -A IP-MASQ-AGENT -d 192.168.0.0/16 -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
            -A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE --random-fully"#],
        owners: &[("", Owner::IpMasqAgent)],
    },
    State {
        name: "ip_masq_agent_with_an_empty_list_six",
        rules: || {
            let non_masquerade = Vec::new();
            let agent = IpMasqAgent { non_masquerade, ..IpMasqAgent::default() };
            vec![agent.rules(Family::V6)]
        },
        chains: &[r#"*nat
            -A POSTROUTING -m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
            -A IP-MASQ-AGENT -d fe80::/10 -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
            -A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE --random-fully"#],
        owners: &[("", Owner::IpMasqAgent)],
    },
    State {
        name: "klipper_of_old",
        rules: || vec![klipper(Script::Nat).rules(Family::V4)],
        chains: &["*nat
            -A PREROUTING ! -s 10.43.9.8/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.43.9.8:53
            -A PREROUTING ! -s 10.43.9.8/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.43.9.8:30080
            -A POSTROUTING -d 10.43.9.8/32 -p udp -j MASQUERADE
            -A POSTROUTING -d 10.43.9.8/32 -p tcp -j MASQUERADE"],
        owners: &[("", Owner::KlipperLb)],
    },
    State {
        name: "klipper_six",
        rules: || vec![klipper(Script::NatAndFilter).rules(Family::V6)],
        chains: &["*nat
            -A PREROUTING ! -s fd43::98/128 -p udp -m udp --dport 53 -j DNAT --to-destination [fd43::98]:53
            -A PREROUTING ! -s fd43::98/128 -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd43::98]:30080
            -A POSTROUTING -d fd43::98/128 -p udp -j MASQUERADE
            -A POSTROUTING -d fd43::98/128 -p tcp -j MASQUERADE
            *filter
            -A FORWARD -s fd01::/64 -p udp -m udp --dport 53 -j ACCEPT
            -A FORWARD -s fd01::/64 -p tcp -m tcp --dport 80 -j ACCEPT
            -A FORWARD -d fd43::98/128 -p tcp -m tcp --dport 30080 -j DROP
            -A FORWARD -d fd43::98/128 -p udp -m udp --dport 53 -j DROP"],
        owners: &[("", Owner::KlipperLb)],
    },
    State {
        name: "stray_rule",
        rules: || vec![stray().rules()],
        chains: &["*nat
            -A POSTROUTING ! -d 10.141.0.0/16 -m addrtype ! --dst-type LOCAL -j MASQUERADE"],
        owners: &[("", Owner::Unclaimed)],
    },
    State {
        // The engine starts first; kube-router inserts ahead of it in FORWARD and appends after it
        // in POSTROUTING; the kubelet's unit appends last and opens FORWARD again.
        name: "three_in_one_chain",
        rules: || {
            vec![docker().rules(Family::V4), kube_router().rules(Family::V4), stray().rules()]
        },
        chains: &[r#"*nat
            -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
            -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
            -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
            -A POSTROUTING -m set --match-set kube-router-pod-subnets src -m set ! --match-set kube-router-pod-subnets dst -m set ! --match-set kube-router-node-ips dst -j MASQUERADE --random-fully
            -A POSTROUTING ! -d 10.141.0.0/16 -m addrtype ! --dst-type LOCAL -j MASQUERADE
            -A DOCKER -i docker0 -j RETURN
            *filter
            -A FORWARD -o eth0 -m comment --comment "allow outbound node port traffic on node interface with which node ip is associated" -j ACCEPT
            -A FORWARD -o kube-bridge -m comment --comment "allow inbound traffic to pods" -j ACCEPT
            -A FORWARD -i kube-bridge -m comment --comment "allow outbound traffic from pods" -j ACCEPT
            -A FORWARD -j DOCKER-USER
            -A FORWARD -j DOCKER-ISOLATION-STAGE-1
            -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A FORWARD -o docker0 -j DOCKER
            -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
            -A FORWARD -i docker0 -o docker0 -j ACCEPT
            -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
            -A DOCKER-ISOLATION-STAGE-1 -j RETURN
            -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
            -A DOCKER-ISOLATION-STAGE-2 -j RETURN
            -A DOCKER-USER -j RETURN"#],
        owners: &[
            ("! -o docker0", Owner::ContainerEngine),
            ("kube-router-pod-subnets", Owner::KubeRouter),
            ("! -d 10.141.0.0/16", Owner::Unclaimed),
        ],
    },
];

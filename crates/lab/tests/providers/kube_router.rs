//! kube-router's pod egress, IPv4 and IPv6.

use anyhow::Result;
use unmasq_audit::Owner;
use unmasq_lab::Network;

use crate::{Question, State};

pub(crate) const STATES: &[State] = &[
    State {
        name: "kube-router",
        load: || node(true),
        questions: &[
            Question {
                golden: Some("egress-ipv4"),
                source: "10.0.0.11",
                by: Some((Owner::KubeRouter, "--match-set kube-router-pod-subnets src")),
                ..EGRESS_V4
            },
            TO_POD_V4,
            Question { golden: Some("pod-to-node-ipv4"), ..TO_NODE_V4 },
            Question {
                golden: Some("egress-ipv6"),
                source: "fd00:a::11",
                by: Some((Owner::KubeRouter, "--match-set inet6:kube-router-pod-subnets src")),
                ..EGRESS_V6
            },
            TO_POD_V6,
            Question { golden: Some("pod-to-node-ipv6"), ..TO_NODE_V6 },
        ],
    },
    State {
        name: "kube-router-without-egress",
        load: || node(false),
        questions: &[EGRESS_V4, TO_POD_V4, TO_NODE_V4, EGRESS_V6, TO_POD_V6, TO_NODE_V6],
    },
];

const EGRESS_V4: Question = Question {
    golden: None,
    probe: "veth1 tcp 10.42.0.5:41000 > 198.51.100.9:443 to 02:00:00:00:0b:01",
    out: "eth0",
    source: "10.42.0.5",
    destination: "198.51.100.9:443",
    by: None,
};
const TO_POD_V4: Question = Question {
    probe: "veth1 tcp 10.42.0.5:41000 > 10.42.1.5:80 to 02:00:00:00:0b:01",
    destination: "10.42.1.5:80",
    ..EGRESS_V4
};
const TO_NODE_V4: Question = Question {
    probe: "veth1 tcp 10.42.0.5:41000 > 10.0.0.12:22 to 02:00:00:00:0b:01",
    destination: "10.0.0.12:22",
    ..EGRESS_V4
};
const EGRESS_V6: Question = Question {
    golden: None,
    probe: "veth1 tcp [fd00:42::5]:41000 > [2001:db8::9]:443 to 02:00:00:00:0b:01",
    out: "eth0",
    source: "fd00:42::5",
    destination: "[2001:db8::9]:443",
    by: None,
};
const TO_POD_V6: Question = Question {
    probe: "veth1 tcp [fd00:42::5]:41000 > [fd00:42:0:1::5]:80 to 02:00:00:00:0b:01",
    destination: "[fd00:42:0:1::5]:80",
    ..EGRESS_V6
};
const TO_NODE_V6: Question = Question {
    probe: "veth1 tcp [fd00:42::5]:41000 > [fd00:a::12]:22 to 02:00:00:00:0b:01",
    destination: "[fd00:a::12]:22",
    ..EGRESS_V6
};

/// Node 10.0.0.11 with the pods 10.42.0.0/24; another node 10.0.0.12 with 10.42.1.0/24, by BGP.
fn node(rules: bool) -> Result<Network> {
    let network = Network::new(&["eth0", "veth1"])?;
    network.script(
        "ip addr add 10.0.0.11/24 dev eth0; ip route add default via 10.0.0.1
         ip addr add fd00:a::11/64 dev eth0 nodad; ip route add default via fd00:a::1
         ip link add kube-bridge address 02:00:00:00:0b:01 type bridge
         ip addr add 10.42.0.1/24 dev kube-bridge; ip addr add fd00:42::1/64 dev kube-bridge nodad
         ip link set veth1 master kube-bridge; ip link set kube-bridge up
         ip route add 10.42.1.0/24 via 10.0.0.12 proto bird
         ip route add fd00:42:0:1::/64 via fd00:a::12 proto bird",
    )?;
    network.node.exec_with(
        &["ipset", "restore"],
        "create kube-router-pod-subnets hash:net family inet
add kube-router-pod-subnets 10.42.0.0/24
add kube-router-pod-subnets 10.42.1.0/24
create kube-router-node-ips hash:ip family inet
add kube-router-node-ips 10.0.0.11
add kube-router-node-ips 10.0.0.12
create inet6:kube-router-pod-subnets hash:net family inet6
add inet6:kube-router-pod-subnets fd00:42::/64
add inet6:kube-router-pod-subnets fd00:42:0:1::/64
create inet6:kube-router-node-ips hash:ip family inet6
add inet6:kube-router-node-ips fd00:a::11
add inet6:kube-router-node-ips fd00:a::12
",
    )?;
    for (program, prefix) in [("iptables-nft", ""), ("ip6tables-nft", "inet6:")] {
        if rules {
            network.restore(
                program,
                &format!(
                    "*nat\n-A POSTROUTING -m set --match-set {prefix}kube-router-pod-subnets src \
                     -m set ! --match-set {prefix}kube-router-pod-subnets dst \
                     -m set ! --match-set {prefix}kube-router-node-ips dst \
                     -j MASQUERADE --random-fully\nCOMMIT\n"
                ),
            )?;
        }
    }
    Ok(network)
}

//! kube-router's pod egress, IPv4 and IPv6.

use anyhow::Result;
use unmasq_lab::Network;

use crate::trials::Test;
use crate::{Expected, expect};

pub(crate) const TESTS: &[Test] = &[
    ("kube_router::egress_is_masqueraded_and_the_cluster_is_not", egress),
    ("kube_router::without_the_egress_rule_pods_are_seen", without),
];

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

const PODS: [(&str, &str, &str); 6] = [
    ("10.42.0.5:41000 > 198.51.100.9:443", "198.51.100.9:443", "10.42.0.5"),
    ("10.42.0.5:41000 > 10.42.1.5:80", "10.42.1.5:80", "10.42.0.5"),
    ("10.42.0.5:41000 > 10.0.0.12:22", "10.0.0.12:22", "10.42.0.5"),
    ("[fd00:42::5]:41000 > [2001:db8::9]:443", "[2001:db8::9]:443", "fd00:42::5"),
    ("[fd00:42::5]:41000 > [fd00:42:0:1::5]:80", "[fd00:42:0:1::5]:80", "fd00:42::5"),
    ("[fd00:42::5]:41000 > [fd00:a::12]:22", "[fd00:a::12]:22", "fd00:42::5"),
];

fn walk(network: &Network, sources: [&'static str; 6], rules: [&'static str; 6]) -> Result<()> {
    for (((packet, destination, _), source), rule) in PODS.into_iter().zip(sources).zip(rules) {
        let probe = format!("veth1 tcp {packet} to 02:00:00:00:0b:01").leak();
        let destinations = vec![destination].leak();
        expect(network, &Expected { probe, out: "eth0", source, destinations, rule })?;
    }
    Ok(())
}

fn egress() -> Result<()> {
    let mut sources = PODS.map(|(_, _, pod)| pod);
    sources[0] = "10.0.0.11";
    sources[3] = "fd00:a::11";
    let (v4, v6) = (
        "--match-set kube-router-pod-subnets src",
        "--match-set inet6:kube-router-pod-subnets src",
    );
    walk(&node(true)?, sources, [v4, "", "", v6, "", ""])
}

fn without() -> Result<()> {
    walk(&node(false)?, PODS.map(|(_, _, pod)| pod), [""; 6])
}

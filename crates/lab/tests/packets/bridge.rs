//! Point 10: bridged packets and the IP hooks; ports without hairpin mode.

use anyhow::Result;
use unmasq_lab::Network;

use crate::shoot;
use crate::trials::Test;

pub(crate) const TESTS: &[Test] = &[
    ("bridge::bridged_packets_pass_the_ip_hooks_only_with_call_iptables", call_iptables),
    ("bridge::dnat_back_to_its_own_port_needs_hairpin_mode", hairpin),
    ("bridge::dnat_back_to_its_own_port_without_call_iptables", routed_back),
    ("bridge::routed_out_of_a_bridge", routed),
];

/// A bridge 10.5.0.1/24 with two ports, a pod behind each, and an uplink.
fn bridged(call: u8) -> Result<Network> {
    let network = Network::new(&["port1", "port2", "eth0"])?;
    network.script(&format!(
        "ip link add br0 address 02:00:00:00:05:01 type bridge mcast_snooping 0
         ip link set br0 up
         sysctl -qw net.bridge.bridge-nf-call-iptables={call} net.bridge.bridge-nf-call-ip6tables={call}
         ip link set port1 master br0; ip link set port2 master br0
         bridge fdb replace 02:00:00:00:05:02 dev port1 master static
         bridge fdb replace 02:00:00:00:05:03 dev port2 master static
         ip addr add 10.5.0.1/24 dev br0
         ip neigh replace 10.5.0.2 lladdr 02:00:00:00:05:02 dev br0 nud permanent
         ip neigh replace 10.5.0.3 lladdr 02:00:00:00:05:03 dev br0 nud permanent
         ip addr add 10.0.0.11/24 dev eth0; ip route add default via 10.0.0.1"
    ))?;
    Ok(network)
}

const RULES: &str = "*nat
-A PREROUTING -d 203.0.113.80 -p tcp -m tcp --dport 80 -m comment --comment dnat -j DNAT --to-destination 10.5.0.2:8080
-A POSTROUTING -m comment --comment post
COMMIT
*filter
-A FORWARD -m comment --comment forward
COMMIT
";

fn call_iptables() -> Result<()> {
    for (call, count) in [(1, 1), (0, 0)] {
        let network = bridged(call)?;
        network.restore("iptables-nft", RULES)?;
        shoot(&network, "port1 tcp 10.5.0.2:4000 > 10.5.0.3:80 to 02:00:00:00:05:03")?
            .ended("port2 10.5.0.2:4000 > 10.5.0.3:80")?
            .counted(&[("dnat", 0), ("forward", count), ("post", count)])?
            .foreseen()?;
    }
    Ok(())
}

const TO_SELF: &str = "port1 tcp 10.5.0.2:4000 > 203.0.113.80:80 to 02:00:00:00:05:01";

fn hairpin() -> Result<()> {
    // Off: the bridge drops it before the forward hook.
    for (mode, end, count) in
        [("off", "dropped", 0), ("on", "port1 10.5.0.2:4000 > 10.5.0.2:8080", 1)]
    {
        let network = bridged(1)?;
        network.restore("iptables-nft", RULES)?;
        network.script(&format!("bridge link set dev port1 hairpin {mode}"))?;
        shoot(&network, TO_SELF)?
            .ended(end)?
            .counted(&[("dnat", 1), ("forward", count), ("post", count)])?
            .foreseen()?;
    }
    Ok(())
}

fn routed_back() -> Result<()> {
    let network = bridged(0)?;
    network.restore("iptables-nft", RULES)?;
    shoot(&network, TO_SELF)?
        .ended("port1 10.5.0.2:4000 > 10.5.0.2:8080")?
        .counted(&[("dnat", 1), ("forward", 1), ("post", 1)])?
        .foreseen()
}

fn routed() -> Result<()> {
    for call in [0, 1] {
        let network = bridged(call)?;
        network.restore("iptables-nft", RULES)?;
        shoot(&network, "port2 tcp 10.5.0.3:4000 > 198.51.100.9:80 to 02:00:00:00:05:01")?
            .ended("eth0 10.5.0.3:4000 > 198.51.100.9:80")?
            .counted(&[("dnat", 0), ("forward", 1), ("post", 1)])?
            .foreseen()?;
        shoot(&network, "eth0 tcp 192.0.2.7:4000 > 203.0.113.80:80")?
            .ended("port1 192.0.2.7:4000 > 10.5.0.2:8080")?
            .counted(&[("dnat", 1), ("forward", 1), ("post", 1)])?
            .foreseen()?;
    }
    Ok(())
}

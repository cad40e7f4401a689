//! A container engine's masquerade rule that doesn't know of the cluster network.

use anyhow::Result;
use unmasq_lab::Network;

use crate::trials::Test;
use crate::{Expected, expect};

pub(crate) const TESTS: &[Test] = &[
    ("engine::pods_of_other_hosts_see_the_host", hidden),
    ("engine::with_the_cluster_network_excluded_they_see_the_pod", repaired),
];

/// Host 10.4.7.21 with the pods 172.7.21.0/24; the next host's are 172.7.22.0/24.
fn node(program: &str, rule: &str) -> Result<Network> {
    let network = Network::new(&["eth0", "veth1"])?;
    network.script(
        "ip addr add 10.4.7.21/24 dev eth0; ip route add default via 10.4.7.1
         ip link add docker0 address 02:42:ac:07:15:01 type bridge
         ip addr add 172.7.21.1/24 dev docker0
         ip link set veth1 master docker0; ip link set docker0 up
         ip neigh add 172.7.21.2 lladdr 02:42:ac:07:15:02 dev docker0 nud permanent
         bridge fdb replace 02:42:ac:07:15:02 dev veth1 master static
         ip route add 172.7.22.0/24 via 10.4.7.22",
    )?;
    let rules = format!("*nat\n-A POSTROUTING -s 172.7.21.0/24 {rule} -j MASQUERADE\nCOMMIT\n");
    network.restore(program, &rules)?;
    Ok(network)
}

const OTHER_HOST: &str = "veth1 tcp 172.7.21.2:41000 > 172.7.22.2:80 to 02:42:ac:07:15:01";
const INTERNET: &str = "veth1 tcp 172.7.21.2:41000 > 198.51.100.9:80 to 02:42:ac:07:15:01";
const BACK: &str = "eth0 tcp 172.7.22.2:41000 > 172.7.21.2:80";

fn hidden() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = node(program, "! -o docker0")?;
        let rule = "-s 172.7.21.0/24 ! -o docker0 -j MASQUERADE";
        for (probe, out, source, destination, rule) in [
            (OTHER_HOST, "eth0", "10.4.7.21", &["172.7.22.2:80"], rule),
            (INTERNET, "eth0", "10.4.7.21", &["198.51.100.9:80"], rule),
            (BACK, "veth1", "172.7.22.2", &["172.7.21.2:80"], ""),
        ] {
            expect(&network, &Expected { probe, out, source, destinations: destination, rule })?;
        }
    }
    Ok(())
}

fn repaired() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = node(program, "! -d 172.7.0.0/16 ! -o docker0")?;
        let rule = "! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE";
        for (probe, source, destination, rule) in [
            (OTHER_HOST, "172.7.21.2", &["172.7.22.2:80"], ""),
            (INTERNET, "10.4.7.21", &["198.51.100.9:80"], rule),
        ] {
            let destinations = destination;
            expect(&network, &Expected { probe, out: "eth0", source, destinations, rule })?;
        }
    }
    Ok(())
}

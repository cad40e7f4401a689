//! Canal: Calico's natOutgoing on a pool that nobody uses. The state is examples/canal-rke's.

use anyhow::Result;
use unmasq_lab::Network;

use crate::trials::Test;
use crate::{Expected, expect};

pub(crate) const TESTS: &[Test] = &[
    ("canal::clients_inside_the_unused_pool_are_masqueraded", masqueraded),
    ("canal::without_the_pools_rule_every_client_is_kept", repaired),
];

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/make-canal-rke.sh");
const WEB: &str = "cali6f2c9d1b3a7";

fn node() -> Result<Network> {
    let network = Network::new(&["eth0", WEB, "cali1e0d4c8a552"])?;
    network.node.exec(&["sh", SCRIPT, "state"])?;
    Ok(network)
}

const OUTSIDE: Expected = Expected {
    probe: "eth0 tcp 198.51.100.20:41000 > 10.0.0.11:30080",
    out: WEB,
    source: "198.51.100.20",
    destinations: &["10.42.0.7:8080"],
    rule: "",
};

fn masqueraded() -> Result<()> {
    let network = node()?;
    for expected in [
        Expected {
            probe: "eth0 tcp 192.168.7.20:41000 > 10.0.0.11:30080",
            out: WEB,
            // The device towards the pod has no address: the first device's that has one.
            source: "10.0.0.11",
            destinations: &["10.42.0.7:8080"],
            rule: "cali40masq-ipam-pools",
        },
        OUTSIDE,
        Expected {
            probe: "cali1e0d4c8a552 tcp 10.42.0.8:41000 > 10.42.0.7:8080",
            out: WEB,
            source: "10.42.0.8",
            destinations: &["10.42.0.7:8080"],
            rule: "",
        },
        Expected {
            probe: "cali1e0d4c8a552 udp 10.42.0.8:41000 > 198.51.100.53:53",
            out: "eth0",
            source: "10.0.0.11",
            destinations: &["198.51.100.53:53"],
            rule: "-s 10.42.0.0/16 ! -d 224.0.0.0/4",
        },
    ] {
        expect(&network, &expected)?;
    }
    Ok(())
}

fn repaired() -> Result<()> {
    let network = node()?;
    // What Felix does when natOutgoing becomes false.
    network.script("iptables-nft -t nat -F cali-nat-outgoing")?;
    expect(
        &network,
        &Expected {
            probe: "eth0 tcp 192.168.7.20:41000 > 10.0.0.11:30080",
            out: WEB,
            source: "192.168.7.20",
            destinations: &["10.42.0.7:8080"],
            rule: "",
        },
    )?;
    expect(&network, &OUTSIDE)
}

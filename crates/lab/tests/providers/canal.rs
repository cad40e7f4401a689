//! Canal: Calico's natOutgoing on a pool that nobody uses. One node, as canal.sh makes
//! it; the whole cluster is the lab's scenario canal-unused-pool.

use anyhow::Result;
use unmasq_audit::Owner;
use unmasq_lab::Network;

use crate::{Question, State};

pub(crate) const STATES: &[State] = &[
    State {
        name: "canal",
        load: node,
        questions: &[
            Question {
                golden: Some("client-inside-the-unused-pool"),
                // The device towards the pod has no address: the first device's that has one.
                source: "10.0.0.11",
                by: Some((Owner::Calico, "cali40masq-ipam-pools")),
                ..INSIDE
            },
            Question { golden: Some("client-outside-the-pool"), ..OUTSIDE },
            Question {
                golden: None,
                probe: "cali1e0d4c8a552 tcp 10.42.0.8:41000 > 10.42.0.7:8080",
                out: WEB,
                source: "10.42.0.8",
                destination: "10.42.0.7:8080",
                by: None,
            },
            Question {
                golden: None,
                probe: "cali1e0d4c8a552 udp 10.42.0.8:41000 > 198.51.100.53:53",
                out: "eth0",
                source: "10.0.0.11",
                destination: "198.51.100.53:53",
                by: Some((Owner::Flannel, "-s 10.42.0.0/16 ! -d 224.0.0.0/4")),
            },
        ],
    },
    State { name: "canal-without-nat-outgoing", load: repaired, questions: &[INSIDE, OUTSIDE] },
];

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/providers/canal.sh");
const WEB: &str = "cali6f2c9d1b3a7";

/// A client in the range of the pool, on a NodePort with policy Local.
const INSIDE: Question = Question {
    golden: None,
    probe: "eth0 tcp 192.168.7.20:41000 > 10.0.0.11:30080",
    out: WEB,
    source: "192.168.7.20",
    destination: "10.42.0.7:8080",
    by: None,
};

const OUTSIDE: Question = Question {
    probe: "eth0 tcp 198.51.100.20:41000 > 10.0.0.11:30080",
    source: "198.51.100.20",
    ..INSIDE
};

fn node() -> Result<Network> {
    let network = Network::new(&["eth0", WEB, "cali1e0d4c8a552"])?;
    network.node.exec(&["sh", SCRIPT])?;
    Ok(network)
}

/// What Felix does when natOutgoing becomes false.
fn repaired() -> Result<Network> {
    let network = node()?;
    network.script("iptables-nft -t nat -F cali-nat-outgoing")?;
    Ok(network)
}

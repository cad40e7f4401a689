//! A container engine's masquerade rule that doesn't know of the cluster network, which flannel
//! routes from host to host (backend host-gw).

use anyhow::Result;
use unmasq_audit::Owner;
use unmasq_lab::Network;

use crate::{Question, State};

pub(crate) const STATES: &[State] = &[
    State {
        name: "engine",
        load: || node("iptables-nft", HIDING),
        questions: &[hidden(Some("pod-to-pod-of-another-host")), INTERNET, BACK],
    },
    State {
        name: "engine-legacy",
        load: || node("iptables-legacy", HIDING),
        questions: &[hidden(None), INTERNET, BACK],
    },
    State {
        name: "engine-with-exclusion",
        load: || node("iptables-nft", EXCLUDING),
        questions: &[seen(Some("pod-to-pod-of-another-host")), EXCLUDED_INTERNET],
    },
    State {
        name: "engine-with-exclusion-legacy",
        load: || node("iptables-legacy", EXCLUDING),
        questions: &[seen(None), EXCLUDED_INTERNET],
    },
];

const HIDING: &str = "-s 172.7.21.0/24 ! -o docker0 -j MASQUERADE";
const EXCLUDING: &str = "-s 172.7.21.0/24 ! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE";

/// A pod here asks a pod of the next host.
const fn seen(golden: Option<&'static str>) -> Question {
    Question {
        golden,
        probe: "veth1 tcp 172.7.21.2:41000 > 172.7.22.2:80 to 02:42:ac:07:15:01",
        out: "eth0",
        source: "172.7.21.2",
        destination: "172.7.22.2:80",
        by: None,
    }
}

const fn hidden(golden: Option<&'static str>) -> Question {
    let by = Some((Owner::ContainerEngine, HIDING));
    Question { source: "10.4.7.21", by, ..seen(golden) }
}

const INTERNET: Question = Question {
    probe: "veth1 tcp 172.7.21.2:41000 > 198.51.100.9:80 to 02:42:ac:07:15:01",
    destination: "198.51.100.9:80",
    ..hidden(None)
};

const EXCLUDED_INTERNET: Question =
    Question { by: Some((Owner::Unclaimed, EXCLUDING)), ..INTERNET };

/// A pod of the next host asks a pod here.
const BACK: Question = Question {
    golden: None,
    probe: "eth0 tcp 172.7.22.2:41000 > 172.7.21.2:80",
    out: "veth1",
    source: "172.7.22.2",
    destination: "172.7.21.2:80",
    by: None,
};

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
    network.restore(program, &format!("*nat\n-A POSTROUTING {rule}\nCOMMIT\n"))?;
    Ok(network)
}

//! kube-proxy's NodePorts with externalTrafficPolicy Cluster and Local, in its iptables and its
//! nftables mode, IPv4 and IPv6. One Service for each policy, each with one endpoint on this node;
//! and one with policy Cluster whose endpoint is on another.

use anyhow::Result;
use unmasq_audit::Owner;
use unmasq_lab::Network;

use crate::{Question, State};

pub(crate) const STATES: &[State] = &[
    State {
        name: "kube-proxy-iptables-nft",
        load: || xtables(["iptables-nft", "ip6tables-nft"]),
        questions: &questions(XTABLES),
    },
    State {
        name: "kube-proxy-iptables-legacy",
        load: || xtables(["iptables-legacy", "ip6tables-legacy"]),
        questions: &questions(XTABLES),
    },
    State { name: "kube-proxy-nftables", load: nftables, questions: &questions("masquerade") },
];

const XTABLES: &str = "-A KUBE-POSTROUTING -m comment --comment \"requiring SNAT\"";

/// An outside client on each NodePort; policy Cluster is masqueraded by `rule`.
const fn questions(rule: &'static str) -> [Question; 6] {
    let by = Some((Owner::KubeProxy, rule));
    [
        Question {
            golden: Some("policy-cluster-ipv4"),
            probe: "eth0 tcp 203.0.113.9:41000 > 10.0.0.11:30090",
            source: "10.0.0.11",
            by,
            ..LOCAL_V4
        },
        Question {
            golden: None,
            probe: "eth0 tcp 203.0.113.9:41000 > 10.0.0.11:30091",
            out: "eth0",
            source: "10.0.0.11",
            destination: "10.42.1.9:8080",
            by,
        },
        LOCAL_V4,
        Question {
            golden: Some("policy-cluster-ipv6"),
            probe: "eth0 tcp [2001:db8::9]:41000 > [fd00:a::11]:30090",
            source: "fd00:a::11",
            by,
            ..LOCAL_V6
        },
        Question {
            golden: None,
            probe: "eth0 tcp [2001:db8::9]:41000 > [fd00:a::11]:30091",
            out: "eth0",
            source: "fd00:a::11",
            destination: "[fd00:42:0:1::9]:8080",
            by,
        },
        LOCAL_V6,
    ]
}

const LOCAL_V4: Question = Question {
    golden: Some("policy-local-ipv4"),
    probe: "eth0 tcp 203.0.113.9:41000 > 10.0.0.11:30092",
    out: "veth1",
    source: "203.0.113.9",
    destination: "10.42.0.5:8080",
    by: None,
};

const LOCAL_V6: Question = Question {
    golden: Some("policy-local-ipv6"),
    probe: "eth0 tcp [2001:db8::9]:41000 > [fd00:a::11]:30092",
    out: "veth1",
    source: "2001:db8::9",
    destination: "[fd00:42::5]:8080",
    by: None,
};

/// Node 11 with the pods .5 behind veth1; node 12 with the pod .9, by a plain route.
#[derive(Clone, Copy)]
struct Family {
    name: &'static str,
    node: &'static str,
    local: &'static str,
    remote: &'static str,
}

const V4: Family =
    Family { name: "ip", node: "10.0.0.11", local: "10.42.0.5", remote: "10.42.1.9" };
const V6: Family =
    Family { name: "ip6", node: "fd00:a::11", local: "fd00:42::5", remote: "fd00:42:0:1::9" };

fn node() -> Result<Network> {
    let network = Network::new(&["eth0", "veth1"])?;
    network.script(
        "ip addr add 10.0.0.11/24 dev eth0; ip route add default via 10.0.0.1
         ip addr add fd00:a::11/64 dev eth0 nodad; ip route add default via fd00:a::1
         ip route add 10.42.0.5 dev veth1; ip route add fd00:42::5 dev veth1
         ip route add 10.42.1.0/24 via 10.0.0.12
         ip route add fd00:42:0:1::/64 via fd00:a::12",
    )?;
    Ok(network)
}

/// An address as it stands beside a port.
fn host(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.into() }
}

fn xtables(programs: [&str; 2]) -> Result<Network> {
    let network = node()?;
    for (program, family) in programs.into_iter().zip([V4, V6]) {
        network.restore(program, &xtables_rules(family))?;
    }
    Ok(network)
}

fn xtables_rules(family: Family) -> String {
    let (local, remote) = (host(family.local), host(family.remote));
    format!(
        "*nat
:KUBE-EXT-CLUSTERHERE - [0:0]
:KUBE-EXT-CLUSTERTHERE - [0:0]
:KUBE-EXT-LOCAL - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-HERE - [0:0]
:KUBE-SEP-THERE - [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-EXT-CLUSTERHERE -m comment --comment \"masquerade traffic for a\" -j KUBE-MARK-MASQ
-A KUBE-EXT-CLUSTERHERE -j KUBE-SEP-HERE
-A KUBE-EXT-CLUSTERTHERE -m comment --comment \"masquerade traffic for b\" -j KUBE-MARK-MASQ
-A KUBE-EXT-CLUSTERTHERE -j KUBE-SEP-THERE
-A KUBE-EXT-LOCAL -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
-A KUBE-EXT-LOCAL -j KUBE-SEP-HERE
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30090 -j KUBE-EXT-CLUSTERHERE
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30091 -j KUBE-EXT-CLUSTERTHERE
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30092 -j KUBE-EXT-LOCAL
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment \"requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-SEP-HERE -s {} -j KUBE-MARK-MASQ
-A KUBE-SEP-HERE -p tcp -m tcp -j DNAT --to-destination {local}:8080
-A KUBE-SEP-THERE -s {} -j KUBE-MARK-MASQ
-A KUBE-SEP-THERE -p tcp -m tcp -j DNAT --to-destination {remote}:8080
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
",
        family.local, family.remote
    )
}

fn nftables() -> Result<Network> {
    let network = node()?;
    for family in [V4, V6] {
        network.nft(&nftables_rules(family))?;
    }
    Ok(network)
}

fn nftables_rules(family: Family) -> String {
    let Family { name, node, local, remote } = family;
    let kind = if name == "ip" { "ipv4_addr" } else { "ipv6_addr" };
    format!(
        "table {name} kube-proxy {{
 set nodeport-ips {{ type {kind}; elements = {{ {node} }}; }}
 map service-nodeports {{ type inet_proto . inet_service : verdict; }}
 chain mark-for-masquerade {{ meta mark set mark or 0x4000; }}
 chain endpoint-here {{ meta l4proto tcp counter dnat to {}:8080 comment \"here\"; }}
 chain endpoint-there {{ meta l4proto tcp counter dnat to {}:8080 comment \"there\"; }}
 chain external-here {{ jump mark-for-masquerade; goto endpoint-here; }}
 chain external-there {{ jump mark-for-masquerade; goto endpoint-there; }}
 chain external-local {{ fib saddr type local goto external-here; goto endpoint-here; }}
 chain services {{ {name} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports; }}
 chain masquerading {{
  meta mark & 0x4000 != 0 meta mark set mark ^ 0x4000 counter masquerade fully-random comment \"masq\"; }}
 chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
 chain nat-output {{ type nat hook output priority -100; jump services; }}
 chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
}}
add element {name} kube-proxy service-nodeports {{ tcp . 30090 : goto external-here,
 tcp . 30091 : goto external-there, tcp . 30092 : goto external-local }}
",
        host(local),
        host(remote)
    )
}

//! kube-router: pod egress, and what lets pods' packets be forwarded.
//!
//! In: the pod ranges and addresses of all nodes. Out: its sets and rules of one family. Not its
//! policies and not its Service proxy, which needs IPVS.
//!
//! The rule of nat is appended, those of FORWARD are inserted one after another and so end up in
//! the other order.

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{Rules, Source, Table, masquerade, of_family};

/// kube-router's view of the cluster, with pod egress on, which is its default.
#[derive(Debug, Clone)]
pub struct KubeRouter {
    /// Pod ranges of all nodes, this one's too.
    pub pods: Vec<IpNet>,
    /// Addresses of all nodes.
    pub nodes: Vec<IpAddr>,
    /// The device with this node's address.
    pub node_device: String,
    /// Whether iptables has `--random-fully`.
    pub random_fully: bool,
}

impl KubeRouter {
    /// The sets and all rules.
    pub fn rules(&self, family: Family) -> Rules {
        let mut rules = Rules::new(family);
        self.write_sets(&mut rules);
        rules.rule(Table::Nat, &EGRESS, format!("-A POSTROUTING {}", self.egress(family)));
        let node = &self.node_device;
        for (comment, device) in [
            ("allow outbound traffic from pods", "-i kube-bridge"),
            ("allow inbound traffic to pods", "-o kube-bridge"),
            (
                "allow outbound node port traffic on node interface with which node ip is associated",
                &format!("-o {node}"),
            ),
        ] {
            let text =
                format!("-I FORWARD 1 -m comment --comment \"{comment}\" {device} -j ACCEPT");
            rules.rule(Table::Filter, &FORWARD, text);
        }
        rules
    }

    /// Remedy: what it does at its start with `--enable-pod-egress=false`.
    pub fn without_pod_egress(&self, family: Family) -> Rules {
        let mut rules = Rules::new(family);
        rules.rule(Table::Nat, &EGRESS, format!("-D POSTROUTING {}", self.egress(family)));
        rules
    }

    fn egress(&self, family: Family) -> String {
        let [pods, nodes] = set_names(family);
        format!(
            "-m set --match-set {pods} src -m set ! --match-set {pods} dst \
             -m set ! --match-set {nodes} dst -j {}",
            masquerade(self.random_fully)
        )
    }

    /// kube-router fills a temporary set and swaps it in; here is what comes out.
    fn write_sets(&self, rules: &mut Rules) {
        let family = rules.family;
        let [pods, nodes] = set_names(family);
        let of = match family {
            Family::V4 => "",
            Family::V6 => " family inet6",
        };
        rules.set(&SETS, format!("create {pods} hash:net timeout 0{of}"));
        rules.set(&SETS, format!("create {nodes} hash:ip timeout 0{of}"));
        for range in of_family(&self.pods, family) {
            rules.set(&SETS, format!("add {pods} {range} timeout 0"));
        }
        for node in self.nodes.iter().filter(|node| Family::of(**node) == family) {
            rules.set(&SETS, format!("add {nodes} {node} timeout 0"));
        }
    }
}

/// Those of pod ranges and of node addresses.
fn set_names(family: Family) -> [String; 2] {
    let prefix = match family {
        Family::V4 => "",
        Family::V6 => "inet6:",
    };
    ["pod-subnets", "node-ips"].map(|name| format!("{prefix}kube-router-{name}"))
}

const EGRESS: Source = Source {
    system: "kube-router",
    version: "794f6bfc",
    url: "https://github.com/cloudnativelabs/kube-router/blob/794f6bfc20a45d71ee53de766ddc29d69e8d13d6/pkg/controllers/routing/pod_egress.go",
};
const FORWARD: Source = Source {
    system: "kube-router",
    version: "794f6bfc",
    url: "https://github.com/cloudnativelabs/kube-router/blob/794f6bfc20a45d71ee53de766ddc29d69e8d13d6/pkg/controllers/routing/network_routes_controller.go",
};
const SETS: Source = Source {
    system: "kube-router",
    version: "0032f661",
    url: "https://github.com/cloudnativelabs/kube-router/blob/0032f6616180da72d846f0b075bcbb1b6e80cd4c/pkg/utils/ipset.go",
};

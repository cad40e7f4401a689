//! The rules that kube-proxy 1.36 programs on a node, in its iptables and its nftables mode.
//!
//! In: the objects of a cluster, and how the proxy is configured. Out, for each family: the text
//! of a ruleset, written as iptables-save and `nft list ruleset` list what kube-proxy loads, so
//! that it can be loaded and compared. The same input gives the same bytes.
//!
//! ```text
//! Objects ─▶ service_port: which endpoints who gets ─┬▶ iptables ─▶ iptables-restore --noflush
//! Config  ─▶ proxy: what holds for one family ───────┴▶ nftables ─▶ nft -f
//! ```
//!
//! kube-proxy walks Services in the order of a Go map, which changes from run to run; here they
//! are in the order of their names. Nothing is written for what rules don't show: sysctls
//! ([`Config::route_localnet`] says which), health check servers, connections to be forgotten.
//!
//! The facts are those of kubernetes pkg/proxy, and `tests/kube_proxy` compares with what a real
//! kube-proxy left in a kernel.

mod iptables;
mod name;
mod nftables;
mod proxy;
mod service_port;

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::packet::Family;

use proxy::Proxy;
use unmasq_cluster::kubernetes::Objects;

/// The bit of the mark that asks for masquerade: 14, kube-proxy's default
/// (pkg/proxy/apis/config/v1alpha1/defaults.go).
const MASQUERADE_MARK: u32 = 1 << 14;

/// A kube-proxy's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What it programs.
    pub mode: Mode,
    /// The name of its node.
    pub node: String,
    /// The addresses of the node's interfaces. Asked only if node ports are limited to networks.
    pub interface_addresses: Vec<IpAddr>,
    /// What it takes for pods.
    pub detect_local: DetectLocal,
    /// `--masquerade-all`
    pub masquerade_all: bool,
    /// Which addresses of the node accept node ports.
    pub node_port_addresses: NodePortAddresses,
    /// `--iptables-localhost-nodeports`; nothing in nftables mode.
    pub localhost_node_ports: bool,
    /// The networks of cluster IPs, from the ServiceCIDR objects. Only nftables mode looks at them.
    pub service_cidrs: Vec<IpNet>,
    /// Whether the kernel has the nfacct objects `ct_state_invalid_dropped_pkts` and
    /// `localhost_nps_accepted_pkts`, which rules in iptables mode then name.
    pub nfacct: bool,
    /// The sysctl `net.netfilter.nf_conntrack_tcp_be_liberal`: invalid packets aren't dropped.
    pub conntrack_tcp_liberal: bool,
}

impl Config {
    /// The defaults of a kube-proxy on a node, with nothing that a cluster must say itself: no
    /// pod network, no network of cluster IPs.
    pub fn new(mode: Mode, node: impl Into<String>) -> Self {
        Config {
            mode,
            node: node.into(),
            interface_addresses: Vec::new(),
            detect_local: DetectLocal::ClusterCidr(Vec::new()),
            masquerade_all: false,
            node_port_addresses: NodePortAddresses::Default,
            localhost_node_ports: true,
            service_cidrs: Vec::new(),
            nfacct: false,
            conntrack_tcp_liberal: false,
        }
    }

    /// Whether kube-proxy sets `net.ipv4.conf.all.route_localnet`, without which node ports on
    /// 127.0.0.1 don't work.
    pub fn route_localnet(&self, objects: &Objects) -> bool {
        let node = objects.node(&self.node);
        self.mode == Mode::Iptables && proxy::localhost_node_ports(self, node)
    }
}

/// What kube-proxy programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The tables of iptables.
    Iptables,
    /// A table of its own.
    Nftables,
}

/// What kube-proxy takes for pods (`--detect-local-mode`). Of several networks of a family the
/// first counts; none of a family: it doesn't know pods of that family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectLocal {
    /// Sources in the network of all pods (`--cluster-cidr`).
    ClusterCidr(Vec<IpNet>),
    /// Sources in the node's own pod network, which its object has.
    NodeCidr,
    /// What comes in by this bridge.
    BridgeInterface(String),
    /// What comes in by an interface whose name begins so.
    InterfaceNamePrefix(String),
}

/// Which addresses of a node accept node ports (`--nodeport-addresses`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Unset: in iptables mode all, in nftables mode the primary ones.
    Default,
    /// Those of the node's object.
    Primary,
    /// Those of its interfaces that are in one of these networks; none of a family: all.
    Networks(Vec<IpNet>),
}

/// The rules, to be loaded with `iptables-restore --noflush`, `ip6tables-restore --noflush` or
/// `nft -f`; loaded again, they replace themselves. In iptables mode nothing leads to them yet:
/// see [`jumps`].
pub fn rules(objects: &Objects, config: &Config, family: Family) -> String {
    let proxy = Proxy::new(objects, config, family);
    let services = service_port::of(objects, &proxy);
    match config.mode {
        Mode::Iptables => iptables::rules(&services, &proxy),
        Mode::Nftables => nftables::rules(&services, &proxy),
    }
}

/// What leads to the rules in iptables mode, to be loaded once and before them with
/// `iptables-restore --noflush`: kube-proxy puts these rules ahead of what is in the built-in
/// chains. In nftables mode nothing is needed.
pub fn jumps(config: &Config) -> String {
    match config.mode {
        Mode::Iptables => iptables::jumps(),
        Mode::Nftables => String::new(),
    }
}

#[cfg(test)]
mod tests;

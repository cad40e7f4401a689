//! Settings of the programs that write rules on nodes.

use ipnet::IpNet;
use serde::Deserialize;

/// What programs rules on every node. Those that are absent don't run. They start in this order.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Programs {
    /// How they were installed, which says where their settings stand.
    #[serde(default)]
    pub distribution: Distribution,
    /// Which iptables all of them write with.
    #[serde(default)]
    pub iptables: IptablesProgram,
    /// The container engine.
    #[serde(default)]
    pub engine: Option<EngineSettings>,
    /// kube-proxy.
    #[serde(default)]
    pub kube_proxy: Option<KubeProxySettings>,
    /// flannel.
    #[serde(default)]
    pub flannel: Option<FlannelSettings>,
    /// Rules that an older flannel left behind.
    #[serde(default)]
    pub stale_flannel: Option<StaleFlannel>,
    /// Calico's felix.
    #[serde(default)]
    pub calico: Option<CalicoSettings>,
    /// kube-router.
    #[serde(default)]
    pub kube_router: Option<KubeRouterSettings>,
    /// ip-masq-agent.
    #[serde(default)]
    pub ip_masq_agent: Option<IpMasqAgentSettings>,
    /// klipper-lb, which serves Services of type LoadBalancer from pods.
    #[serde(default)]
    pub klipper: Option<KlipperSettings>,
    /// A rule that a person made.
    #[serde(default)]
    pub stray: Option<StraySettings>,
}

/// How the programs were installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// As DaemonSets with ConfigMaps: kubeadm's, and those of the systems' own manifests.
    #[default]
    Kubeadm,
    /// k3s: kube-proxy, flannel and klipper-lb's controller are parts of its one process.
    K3s,
    /// kube-proxy and flannel are programs of the hosts, and flannel's network is in etcd.
    ByHand,
}

/// Which iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IptablesProgram {
    /// iptables-nft.
    #[default]
    Nft,
    /// iptables-legacy.
    Legacy,
}

/// A container engine (dockerd).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EngineSettings {
    /// Its bridge's network; by default the node's pod range, as where flannel configures it.
    #[serde(default)]
    pub subnet: Option<IpNet>,
    /// Whether it masquerades what leaves the bridge (`ip-masq`).
    #[serde(default = "super::yes")]
    pub ip_masq: bool,
    /// Replaces its rule by one that excludes the cluster's pods, as a person would.
    #[serde(default)]
    pub exclude_cluster: bool,
}

/// kube-proxy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KubeProxySettings {
    /// Its mode.
    #[serde(default)]
    pub mode: ProxyMode,
    /// `clusterCIDR`; by default the cluster's pod networks.
    #[serde(default)]
    pub cluster_cidrs: Option<Vec<IpNet>>,
    /// `masqueradeAll`.
    #[serde(default)]
    pub masquerade_all: bool,
}

/// kube-proxy's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyMode {
    /// `iptables`
    #[default]
    Iptables,
    /// `nftables`
    Nftables,
}

/// flannel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FlannelSettings {
    /// `--ip-masq`.
    #[serde(default)]
    pub ip_masq: bool,
    /// Whether it writes native nftables (`EnableNFTables`).
    #[serde(default)]
    pub nftables: bool,
}

/// Rules of an older flannel, which nobody removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StaleFlannel {
    /// `! -s POD -d POD -j MASQUERADE`, ahead of what the newer one wrote (flannel#1167).
    IntoPods,
}

/// Calico's felix.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CalicoSettings {
    /// IP pools.
    pub pools: Vec<Pool>,
}

/// An IP pool of Calico.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its network.
    pub cidr: IpNet,
    /// `natOutgoing`.
    #[serde(default)]
    pub nat_outgoing: bool,
}

/// kube-router.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KubeRouterSettings {
    /// `--enable-pod-egress`.
    #[serde(default = "super::yes")]
    pub pod_egress: bool,
}

/// ip-masq-agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IpMasqAgentSettings {
    /// `nonMasqueradeCIDRs`.
    pub non_masquerade_cidrs: Vec<IpNet>,
    /// `masqLinkLocal`.
    #[serde(default)]
    pub masq_link_local: bool,
}

/// klipper-lb.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KlipperSettings {
    /// The Service that it serves (`namespace/name`).
    pub service: String,
    /// Whether it does. Its pods are there in any case, and idle if it doesn't: a remedy can't
    /// remove hosts.
    #[serde(default = "super::yes")]
    pub enabled: bool,
}

/// A rule that a person made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StraySettings {
    /// The only destination that it leaves alone.
    pub except: IpNet,
}

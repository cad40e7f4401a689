//! Names by which programs are known: of tables, chains and sets, and beginnings of comments.
//!
//! Each list is read in order and the first entry that fits counts, so that a special name stands
//! before the general one that covers it. Sources: the systems' own code, as of 2025.

use crate::owner::Owner;

/// How an entry is compared.
enum Is {
    /// The whole name.
    Exactly(&'static str),
    /// The beginning of it.
    Prefix(&'static str),
}

use Is::{Exactly, Prefix};

const NFT_TABLES: &[(Is, Owner)] = &[
    (Exactly("unmasq"), Owner::Unmasq),
    (Exactly("kube-proxy"), Owner::KubeProxy),
    (Exactly("flannel-ipv4"), Owner::Flannel),
    (Exactly("flannel-ipv6"), Owner::Flannel),
    (Exactly("calico"), Owner::Calico),
    (Exactly("netavark"), Owner::Netavark),
    (Exactly("docker-bridges"), Owner::Docker),
    (Exactly("firewalld"), Owner::Firewalld),
    (Exactly("libvirt_network"), Owner::Libvirt),
    (Exactly("lxd"), Owner::Lxc),
    (Exactly("incus"), Owner::Lxc),
    // config/init/common/lxc-net.in of lxc/lxc.
    (Exactly("lxc"), Owner::Lxc),
    (Exactly("ovn-kubernetes"), Owner::OvnKubernetes),
    (Exactly("cni_hostport"), Owner::Portmap),
    (Exactly("cni_plugins_masquerade"), Owner::ContainerEngine),
    (Prefix("kindnet"), Owner::Kindnet),
    (Prefix("istio-"), Owner::Istio),
];

const CHAINS: &[(Is, Owner)] = &[
    (Prefix("cali-"), Owner::Calico),
    (Prefix("KUBE-ROUTER-"), Owner::KubeRouter),
    (Prefix("KUBE-POD-FW-"), Owner::KubeRouter),
    (Prefix("KUBE-NWPLCY-"), Owner::KubeRouter),
    (Exactly("KUBE-KUBELET-CANARY"), Owner::Kubelet),
    (Exactly("KUBE-IPTABLES-HINT"), Owner::Kubelet),
    (Prefix("KUBE-"), Owner::KubeProxy),
    (Prefix("FLANNEL-"), Owner::Flannel),
    (Exactly("FLANNEL"), Owner::Flannel),
    (Exactly("IP-MASQ-AGENT"), Owner::IpMasqAgent),
    (Exactly("IP-MASQ-AGENT-IPV6"), Owner::IpMasqAgent),
    (Exactly("IP-MASQ"), Owner::GceNodeSetup),
    (Exactly("KIND-MASQ-AGENT"), Owner::Kindnet),
    (Prefix("AWS-SNAT-CHAIN-"), Owner::AwsVpcCni),
    (Prefix("AWS-CONNMARK-CHAIN-"), Owner::AwsVpcCni),
    (Prefix("CILIUM_"), Owner::Cilium),
    (Prefix("OLD_CILIUM_"), Owner::Cilium),
    (Exactly("WEAVE"), Owner::Weave),
    (Prefix("WEAVE-"), Owner::Weave),
    (Prefix("NETAVARK"), Owner::Netavark),
    (Exactly("DOCKER"), Owner::Docker),
    (Prefix("DOCKER-"), Owner::Docker),
    (Prefix("DOCKER_"), Owner::Docker),
    (Prefix("CNI-HOSTPORT-"), Owner::Portmap),
    (Prefix("CNI-DN-"), Owner::Portmap),
    (Prefix("CNI-SN-"), Owner::Portmap),
    // CNI-FORWARD, CNI-ADMIN and CNI-ISOLATION-* of the firewall plugin, CNI-<hash> of ipMasq.
    (Prefix("CNI-"), Owner::ContainerEngine),
    (Prefix("ts-"), Owner::Tailscale),
    (Prefix("LIBVIRT_"), Owner::Libvirt),
    (Prefix("OVN-KUBE-"), Owner::OvnKubernetes),
    (Prefix("ISTIO_"), Owner::Istio),
    (Prefix("PROXY_INIT_"), Owner::Linkerd),
];

const SETS: &[(Is, Owner)] = &[
    (Prefix("cali4"), Owner::Calico),
    (Prefix("cali6"), Owner::Calico),
    (Prefix("kube-router-"), Owner::KubeRouter),
    (Prefix("KUBE-SRC-"), Owner::KubeRouter),
    (Prefix("KUBE-DST-"), Owner::KubeRouter),
    (Prefix("KUBE-"), Owner::KubeProxy),
    (Prefix("weave-"), Owner::Weave),
    (Prefix("cilium_"), Owner::Cilium),
];

const COMMENTS: &[(Is, Owner)] = &[
    (Prefix("cali:"), Owner::Calico),
    (Prefix("flanneld "), Owner::Flannel),
    (Prefix("kube-router "), Owner::KubeRouter),
    (Prefix("kubernetes service "), Owner::KubeProxy),
    (Prefix("kubernetes externally-visible service portals"), Owner::KubeProxy),
    (Prefix("kubernetes postrouting rules"), Owner::KubeProxy),
    (Prefix("kubernetes forwarding "), Owner::KubeProxy),
    (Prefix("kubernetes load balancer firewall"), Owner::KubeProxy),
    (Prefix("kubernetes health check service ports"), Owner::KubeProxy),
    (Prefix("kubenet: "), Owner::Kubenet),
    (Prefix("ip-masq-agent: "), Owner::IpMasqAgent),
    (Prefix("ip-masq: "), Owner::GceNodeSetup),
    (Prefix("kind-masq-agent: "), Owner::Kindnet),
    (Prefix("AWS, "), Owner::AwsVpcCni),
    (Prefix("AWS SNAT CHAIN"), Owner::AwsVpcCni),
    (Prefix("AWS CONNMARK CHAIN"), Owner::AwsVpcCni),
    (Prefix("cilium: "), Owner::Cilium),
    (Prefix("cilium-feeder: "), Owner::Cilium),
    (Prefix("cilium "), Owner::Cilium),
    (Prefix("CNI portfwd "), Owner::Portmap),
    (Prefix("CNI firewall plugin rules"), Owner::ContainerEngine),
    // The bridge and ptp plugins' ipMasq: `name: "cbr0" id: "<container>"`.
    (Prefix("name: \""), Owner::ContainerEngine),
    (Prefix("generated for LXD network"), Owner::Lxc),
    (Prefix("generated for Incus network"), Owner::Lxc),
    (Prefix("OVN SNAT to Management Port"), Owner::OvnKubernetes),
];

/// Whose nftables table it is.
pub(crate) fn by_nft_table(name: &str) -> Option<Owner> {
    first(NFT_TABLES, name)
}

/// Whose user chain it is.
pub(crate) fn by_chain(name: &str) -> Option<Owner> {
    first(CHAINS, name).or_else(|| {
        let direct = ["_direct", "_ZONES", "_ZONES_SOURCE", "_POLICIES_pre", "_POLICIES_post"];
        direct.iter().any(|end| name.ends_with(end)).then_some(Owner::Firewalld)
    })
}

/// Whether firewalld's iptables back end could have made the chain for a zone. Others use such
/// names too.
pub(crate) fn is_firewalld_zone_chain(name: &str) -> bool {
    ["PRE_", "POST_", "IN_", "FWDI_", "FWDO_", "FWD_"].iter().any(|start| name.starts_with(start))
}

/// Whose set it is. IPv6 sets of kube-router and kube-proxy carry a prefix.
pub(crate) fn by_set(name: &str) -> Option<Owner> {
    first(SETS, name.strip_prefix("inet6:").unwrap_or(name))
}

/// Whose comment it is.
pub(crate) fn by_comment(comment: &str) -> Option<Owner> {
    first(COMMENTS, comment)
}

fn first(list: &[(Is, Owner)], name: &str) -> Option<Owner> {
    list.iter()
        .find(|(is, _)| match is {
            Exactly(whole) => name == *whole,
            Prefix(start) => name.starts_with(start),
        })
        .map(|(_, owner)| *owner)
}

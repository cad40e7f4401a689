//! kube-proxy: its ConfigMap, its arguments, and those that k3s passes on to it.
//!
//! With `--config` all flags that are in the file too are ignored (kubernetes
//! cmd/kube-proxy/app/options.go, `Options.Complete`).

use ipnet::IpNet;

use super::rancher::Rancher;
use super::source::Sources;
use super::{Place, Values};

/// kube-proxy's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeProxy {
    /// Where it is said that it runs.
    pub places: Vec<Place>,
    /// `iptables`, `ipvs`, `nftables`.
    pub mode: Values<String>,
    /// What it takes for the ranges of pods.
    pub cluster_cidrs: Values<Vec<IpNet>>,
    /// Whether it masquerades all that goes to a cluster IP.
    pub masquerade_all: Values<bool>,
    /// How it tells pods of its node: `ClusterCIDR`, `NodeCIDR`, `BridgeInterface`,
    /// `InterfaceNamePrefix`.
    pub detect_local_mode: Values<String>,
    /// Where node ports are answered: networks, or `primary`.
    pub node_port_addresses: Values<Vec<String>>,
}

pub(super) fn read(sources: &mut Sources<'_>, rancher: &Rancher) -> KubeProxy {
    let mut found = KubeProxy::default();
    for command in sources.commands("kube-proxy") {
        found.places.push(command.place.clone());
        if command.text("config").is_some() {
            continue;
        }
        sources.take(&mut found.mode, command.text("proxy-mode"));
        sources.take(&mut found.cluster_cidrs, command.text("cluster-cidr"));
        sources.take(&mut found.masquerade_all, command.switch("masquerade-all"));
        sources.take(&mut found.detect_local_mode, command.text("detect-local-mode"));
        sources.take(&mut found.node_port_addresses, command.text("nodeport-addresses"));
    }
    for argument in rancher.kube_proxy_args.all() {
        let Some((name, value)) = argument.value.split_once('=') else { continue };
        let setting =
            Some(super::Setting { value: value.to_owned(), place: argument.place.clone() });
        match name.trim_start_matches('-') {
            "proxy-mode" => sources.take(&mut found.mode, setting),
            "cluster-cidr" => sources.take(&mut found.cluster_cidrs, setting),
            "masquerade-all" => sources.take(&mut found.masquerade_all, setting),
            "detect-local-mode" => sources.take(&mut found.detect_local_mode, setting),
            "nodeport-addresses" => sources.take(&mut found.node_port_addresses, setting),
            _ => {}
        }
    }
    // kubeadm puts a kubeconfig beside it.
    let is_its = |name: &str, key: &str| name.contains("kube-proxy") && key != "kubeconfig.conf";
    let documents = sources.documents(|map, key| is_its(&map.metadata.name, key));
    for document in documents {
        if document.value.pointer("/kind").and_then(|kind| kind.as_str())
            != Some("KubeProxyConfiguration")
        {
            continue;
        }
        sources.take(&mut found.mode, document.at("/mode"));
        sources.take(&mut found.cluster_cidrs, document.at("/clusterCIDR"));
        sources.take(&mut found.masquerade_all, document.at("/iptables/masqueradeAll"));
        sources.take(&mut found.masquerade_all, document.at("/nftables/masqueradeAll"));
        sources.take(&mut found.detect_local_mode, document.at("/detectLocalMode"));
        sources.take(&mut found.node_port_addresses, document.at("/nodePortAddresses"));
    }
    // k3s runs it with its own ranges.
    for ranges in rancher.cluster_cidrs.all() {
        found.cluster_cidrs.push(ranges.value.clone(), ranges.place.clone());
    }
    found
}

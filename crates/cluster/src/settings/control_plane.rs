//! The ranges that the control plane assigns addresses from.

use ipnet::IpNet;

use super::Values;
use super::source::Sources;

/// The settings of kube-apiserver and kube-controller-manager, and what kubeadm was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlPlane {
    /// The ranges of Services.
    pub service_cidrs: Values<Vec<IpNet>>,
    /// The ranges of pods.
    pub cluster_cidrs: Values<Vec<IpNet>>,
}

pub(super) fn read(sources: &mut Sources<'_>) -> ControlPlane {
    let mut found = ControlPlane::default();
    for program in ["kube-apiserver", "kube-controller-manager"] {
        for command in sources.commands(program) {
            let ranges = command.text("service-cluster-ip-range");
            sources.take(&mut found.service_cidrs, ranges);
            sources.take(&mut found.cluster_cidrs, command.text("cluster-cidr"));
        }
    }
    let is_kubeadm =
        |name: &str, key: &str| name == "kubeadm-config" && key == "ClusterConfiguration";
    for document in sources.documents(|map, key| is_kubeadm(&map.metadata.name, key)) {
        sources.take(&mut found.service_cidrs, document.at("/networking/serviceSubnet"));
        sources.take(&mut found.cluster_cidrs, document.at("/networking/podSubnet"));
    }
    found
}

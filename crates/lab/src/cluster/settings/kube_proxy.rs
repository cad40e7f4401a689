//! kube-proxy: kubeadm's ConfigMap and DaemonSet, or a program of the host.
//!
//! kubernetes/kubernetes 1.36, cmd/kubeadm/app/phases/addons/proxy/manifests.go (objects) and
//! staging/src/k8s.io/kube-proxy/config/v1alpha1/types.go (configuration).

use serde_json::{Value, json};

use super::{Machine, config_map, daemon_set, joined, node_name, to_yaml};
use crate::scenario::{Distribution, KubeProxySettings, Node, ProxyMode, Scenario};

/// The ConfigMap and the DaemonSet.
pub(super) fn objects(scenario: &Scenario) -> Vec<Value> {
    let Some(settings) = settings(scenario, Distribution::Kubeadm) else { return Vec::new() };
    let config = to_yaml(&configuration(scenario, settings));
    let container = json!({
        "name": "kube-proxy",
        "image": "registry.k8s.io/kube-proxy:v1.36.0",
        "command": ["/usr/local/bin/kube-proxy", CONFIG, "--hostname-override=$(NODE_NAME)"],
        "env": [node_name("NODE_NAME")],
    });
    let name = ["kube-system", "kube-proxy"];
    vec![
        config_map(name[0], name[1], &[("config.conf", config)]),
        daemon_set(scenario, name, "k8s-app=kube-proxy", &[container]),
    ]
}

/// Its process on a node.
pub(super) fn run(scenario: &Scenario, node: &Node, machine: &mut Machine) {
    let name = format!("--hostname-override={}", node.name);
    if settings(scenario, Distribution::Kubeadm).is_some() {
        machine.process(["/usr/local/bin/kube-proxy", CONFIG, &name]);
    }
    if let Some(settings) = settings(scenario, Distribution::ByHand) {
        let kubeconfig = "--kubeconfig=/opt/kubernetes/conf/kube-proxy.kubeconfig".to_owned();
        let program = "/opt/kubernetes/bin/kube-proxy".to_owned();
        let flags = flags(scenario, settings).into_iter().map(|flag| format!("--{flag}"));
        machine.process([program].into_iter().chain(flags).chain([name, kubeconfig]));
    }
}

/// Its settings as flags without dashes, as k3s takes them too.
pub(super) fn flags(scenario: &Scenario, settings: &KubeProxySettings) -> Vec<String> {
    let mut flags = vec![format!("cluster-cidr={}", cluster_cidr(scenario, settings))];
    flags.push(format!("proxy-mode={}", mode(settings.mode)));
    if settings.masquerade_all {
        flags.push("masquerade-all=true".to_owned());
    }
    flags
}

const CONFIG: &str = "--config=/var/lib/kube-proxy/config.conf";

fn settings(scenario: &Scenario, distribution: Distribution) -> Option<&KubeProxySettings> {
    let programs = &scenario.programs;
    programs.kube_proxy.as_ref().filter(|_| programs.distribution == distribution)
}

fn cluster_cidr(scenario: &Scenario, settings: &KubeProxySettings) -> String {
    joined(settings.cluster_cidrs.as_ref().unwrap_or(&scenario.network.pods))
}

fn mode(mode: ProxyMode) -> &'static str {
    match mode {
        ProxyMode::Iptables => "iptables",
        ProxyMode::Nftables => "nftables",
    }
}

/// KubeProxyConfiguration as kubeadm writes it: what nobody set is there with its zero value, so
/// `detectLocalMode: ""` is ClusterCIDR.
fn configuration(scenario: &Scenario, settings: &KubeProxySettings) -> Value {
    // Each mode has a masqueradeAll of its own.
    let all = |of| settings.masquerade_all && settings.mode == of;
    let periods = |section: Value| {
        let mut section = section;
        section["minSyncPeriod"] = json!("0s");
        section["syncPeriod"] = json!("0s");
        section
    };
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "0.0.0.0",
        "bindAddressHardFail": false,
        "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"},
        "clusterCIDR": cluster_cidr(scenario, settings),
        "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""},
        "detectLocalMode": "",
        "hostnameOverride": "",
        "iptables": periods(json!({
            "localhostNodePorts": null, "masqueradeAll": all(ProxyMode::Iptables), "masqueradeBit": null,
        })),
        "ipvs": periods(json!({"excludeCIDRs": null, "scheduler": "", "strictARP": false})),
        "mode": mode(settings.mode),
        "nftables": periods(json!({
            "masqueradeAll": all(ProxyMode::Nftables), "masqueradeBit": null,
        })),
        "nodePortAddresses": null,
    })
}

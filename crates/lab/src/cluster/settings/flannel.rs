//! flannel: its own manifest's ConfigMap and DaemonSet, or a program of the host with etcd.
//!
//! flannel-io/flannel, Documentation/kube-flannel.yml (objects), Documentation/configuration.md
//! (net-conf.json, flags), pkg/subnet/subnet.go WriteSubnetFile (subnet.env).

use ipnet::IpNet;
use serde_json::{Value, json};
use unmasq_model::packet::Family;

use super::{Machine, calico, config_map, daemon_set, pretty};
use crate::cluster::plan::nth;
use crate::scenario::{Between, Distribution, FlannelSettings, Node, Scenario};

/// Its settings if it runs: also where the scenario only says that packets go flannel's way, for
/// what it doesn't masquerade.
pub(super) fn settings(scenario: &Scenario) -> Option<FlannelSettings> {
    let silent = || match scenario.network.between {
        Between::FlannelVxlan | Between::FlannelHostGw => {
            Some(FlannelSettings { ip_masq: false, nftables: false })
        }
        Between::Routed => None,
    };
    scenario.programs.flannel.clone().or_else(silent)
}

/// The ConfigMap and the DaemonSet. Canal has both in its own, see [`calico`].
pub(super) fn objects(scenario: &Scenario) -> Vec<Value> {
    let Some(settings) = in_pods(scenario) else { return Vec::new() };
    let data =
        [("cni-conf.json", pretty(&cni())), ("net-conf.json", net_conf(scenario, &settings))];
    let container = json!({
        "name": "kube-flannel",
        "image": "ghcr.io/flannel-io/flannel:v0.28.1",
        "command": [FLANNELD],
        "args": arguments(&settings),
    });
    vec![
        config_map("kube-flannel", "kube-flannel-cfg", &data),
        daemon_set(scenario, ["kube-flannel", "kube-flannel-ds"], "app=flannel", &[container]),
    ]
}

/// Its process, and its files.
pub(super) fn run(scenario: &Scenario, node: &Node, machine: &mut Machine) {
    let Some(settings) = settings(scenario) else { return };
    match scenario.programs.distribution {
        Distribution::Kubeadm => {
            machine.process([FLANNELD].into_iter().chain(arguments(&settings)));
            // Canal's container has no folder of the host for it, and its own CNI configuration.
            if !calico::is_canal(scenario) {
                machine
                    .file("/run/flannel/subnet.env", subnet_env(scenario, node, settings.ip_masq));
                machine.file("/etc/cni/net.d/10-flannel.conflist", pretty(&cni()));
            }
        }
        // A part of k3s, which masquerades IPv4 always (pkg/agent/flannel/flannel.go).
        Distribution::K3s => {
            machine.file("/run/flannel/subnet.env", subnet_env(scenario, node, true));
        }
        Distribution::ByHand => {
            machine.process(by_hand(node, &settings));
            machine.file("/run/flannel/subnet.env", subnet_env(scenario, node, settings.ip_masq));
        }
    }
}

/// `net-conf.json`.
pub(super) fn net_conf(scenario: &Scenario, settings: &FlannelSettings) -> String {
    let mut network = json!({
        "EnableNFTables": settings.nftables,
        "Backend": {"Type": backend(scenario)},
    });
    match of_family(&scenario.network.pods, Family::V4) {
        Some(v4) => network["Network"] = json!(v4),
        None => network["EnableIPv4"] = json!(false),
    }
    if let Some(v6) = of_family(&scenario.network.pods, Family::V6) {
        network["EnableIPv6"] = json!(true);
        network["IPv6Network"] = json!(v6);
    }
    pretty(&network)
}

/// The arguments that the manifests give it.
pub(super) fn arguments(settings: &FlannelSettings) -> Vec<&'static str> {
    let masquerade = settings.ip_masq.then_some("--ip-masq");
    masquerade.into_iter().chain(["--kube-subnet-mgr"]).collect()
}

/// What it calls itself in its containers.
pub(super) const FLANNELD: &str = "/opt/bin/flanneld";

fn in_pods(scenario: &Scenario) -> Option<FlannelSettings> {
    let own =
        scenario.programs.distribution == Distribution::Kubeadm && !calico::is_canal(scenario);
    settings(scenario).filter(|_| own)
}

fn by_hand(node: &Node, settings: &FlannelSettings) -> Vec<String> {
    let mut arguments = vec!["/opt/flannel/flanneld".to_owned()];
    arguments.extend(node.addresses.first().map(|address| format!("--public-ip={address}")));
    arguments.push("--etcd-endpoints=https://127.0.0.1:2379".to_owned());
    arguments.push("--iface=eth0".to_owned());
    arguments.push("--subnet-file=/run/flannel/subnet.env".to_owned());
    arguments.extend(settings.ip_masq.then(|| "--ip-masq".to_owned()));
    arguments
}

/// The backend by its name. Routes to each node are host-gw's.
fn backend(scenario: &Scenario) -> &'static str {
    match scenario.network.between {
        Between::FlannelVxlan => "vxlan",
        Between::FlannelHostGw | Between::Routed => "host-gw",
    }
}

fn subnet_env(scenario: &Scenario, node: &Node, ip_masq: bool) -> String {
    let mut text = String::new();
    for (family, prefix) in [(Family::V4, "FLANNEL_"), (Family::V6, "FLANNEL_IPV6_")] {
        let network = of_family(&scenario.network.pods, family);
        let (Some(network), Some(own)) = (network, of_family(&node.pods, family)) else { continue };
        let (first, length) = (nth(own, 1), own.prefix_len());
        text += &format!("{prefix}NETWORK={network}\n{prefix}SUBNET={first}/{length}\n");
    }
    text + &format!("FLANNEL_MTU={}\nFLANNEL_IPMASQ={ip_masq}\n", mtu(scenario))
}

/// That of the device less what the tunnel's headers take.
pub(super) fn mtu(scenario: &Scenario) -> u32 {
    match scenario.network.between {
        Between::FlannelVxlan => 1450,
        Between::FlannelHostGw | Between::Routed => 1500,
    }
}

fn of_family(networks: &[IpNet], family: Family) -> Option<IpNet> {
    networks.iter().copied().find(|net| Family::of(net.addr()) == family)
}

fn cni() -> Value {
    json!({
        "name": "cbr0",
        "cniVersion": "0.3.1",
        "plugins": [
            {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

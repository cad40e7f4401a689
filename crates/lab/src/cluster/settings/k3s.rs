//! k3s: its process, and its configuration.
//!
//! k3s-io/k3s, docs.k3s.io/installation/configuration (the file) and cli/server (settings). Every
//! node is a server here. kube-proxy and flannel are parts of it, with settings only where they
//! differ from its own choice.

use serde_json::{Map, Value, json};
use unmasq_model::packet::Family;

use super::{Machine, flannel, joined, kube_proxy, to_yaml};
use crate::scenario::{Between, Distribution, Node, ProxyMode, Scenario};

/// The process and its configuration.
pub(super) fn run(scenario: &Scenario, node: &Node, machine: &mut Machine) {
    if scenario.programs.distribution == Distribution::K3s {
        machine.process(["/usr/local/bin/k3s", "server"]);
        machine.file("/etc/rancher/k3s/config.yaml", to_yaml(&configuration(scenario, node)));
    }
}

fn configuration(scenario: &Scenario, node: &Node) -> Value {
    let mut settings = Map::new();
    let mut set = |name: &str, value: Value| settings.insert(name.to_owned(), value);
    set("node-ip", json!(joined(&node.addresses)));
    set("cluster-cidr", json!(joined(&scenario.network.pods)));
    set("service-cidr", json!(joined(&scenario.network.services)));
    match (flannel::settings(scenario), scenario.network.between) {
        (None, _) => {
            set("flannel-backend", json!("none"));
        }
        (Some(_), Between::FlannelHostGw | Between::Routed) => {
            set("flannel-backend", json!("host-gw"));
        }
        (Some(_), Between::FlannelVxlan) => {}
    }
    // IPv4 is masqueraded always, IPv6 on demand.
    let masquerades = scenario.programs.flannel.as_ref().is_some_and(|flannel| flannel.ip_masq);
    if masquerades && scenario.families().contains(&Family::V6) {
        set("flannel-ipv6-masq", json!(true));
    }
    match &scenario.programs.kube_proxy {
        None => {
            set("disable-kube-proxy", json!(true));
        }
        Some(proxy) => {
            let own = proxy.mode == ProxyMode::Iptables
                && !proxy.masquerade_all
                && proxy.cluster_cidrs.is_none();
            if !own {
                set("kube-proxy-arg", json!(kube_proxy::flags(scenario, proxy)));
            }
        }
    }
    if scenario.programs.kube_router.is_some() {
        set("disable-network-policy", json!(true));
    }
    if scenario.programs.klipper.as_ref().is_some_and(|klipper| !klipper.enabled) {
        set("disable", json!(["servicelb"]));
    }
    Value::Object(settings)
}

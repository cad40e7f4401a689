//! ip-masq-agent: its ConfigMap and DaemonSet.
//!
//! kubernetes-sigs/ip-masq-agent, ip-masq-agent.yaml (objects), README.md (the configuration's keys,
//! and `--enable-ipv6`, without which it leaves IPv6 alone).

use serde_json::{Value, json};
use unmasq_model::packet::Family;

use super::{Machine, config_map, daemon_set, to_yaml};
use crate::scenario::Scenario;

/// The ConfigMap and the DaemonSet.
pub(super) fn objects(scenario: &Scenario) -> Vec<Value> {
    let Some(settings) = &scenario.programs.ip_masq_agent else { return Vec::new() };
    let config = json!({
        "nonMasqueradeCIDRs": settings.non_masquerade_cidrs,
        "masqLinkLocal": settings.masq_link_local,
        "masqLinkLocalIPv6": settings.masq_link_local,
        "resyncInterval": "60s",
    });
    let container = json!({
        "name": "ip-masq-agent",
        "image": "gcr.io/k8s-staging-networking/ip-masq-agent:v2.7.0",
        "args": arguments(scenario),
    });
    let name = ["kube-system", "ip-masq-agent"];
    vec![
        config_map(name[0], name[1], &[("config", to_yaml(&config))]),
        daemon_set(scenario, name, "k8s-app=ip-masq-agent", &[container]),
    ]
}

/// Its process.
pub(super) fn run(scenario: &Scenario, machine: &mut Machine) {
    if scenario.programs.ip_masq_agent.is_some() {
        machine.process(["/ip-masq-agent"].into_iter().chain(arguments(scenario)));
    }
}

fn arguments(scenario: &Scenario) -> Vec<&'static str> {
    let has_v6 = scenario.families().contains(&Family::V6);
    has_v6.then_some("--enable-ipv6=true").into_iter().collect()
}

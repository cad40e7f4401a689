//! kube-router: its DaemonSet and ConfigMap.
//!
//! cloudnativelabs/kube-router, daemonset/generic-kuberouter-all-features.yaml (objects),
//! docs/user-guide.md (flags; `--enable-pod-egress` is true by default).

use serde_json::{Value, json};
use unmasq_model::packet::Family;

use super::{Machine, config_map, daemon_set, node_name, pretty};
use crate::scenario::{Distribution, Scenario};

/// The ConfigMap and the DaemonSet.
pub(super) fn objects(scenario: &Scenario) -> Vec<Value> {
    if scenario.programs.kube_router.is_none() {
        return Vec::new();
    }
    let container = json!({
        "name": "kube-router",
        "image": "docker.io/cloudnativelabs/kube-router:v2.5.0",
        "args": arguments(scenario),
        "env": [
            node_name("NODE_NAME"),
            {"name": "KUBE_ROUTER_CNI_CONF_FILE", "value": CNI_FILE},
        ],
    });
    vec![
        config_map("kube-system", "kube-router-cfg", &[("cni-conf.json", pretty(&cni()))]),
        daemon_set(scenario, ["kube-system", "kube-router"], "k8s-app=kube-router", &[container]),
    ]
}

/// Its process, and its CNI configuration.
pub(super) fn run(scenario: &Scenario, machine: &mut Machine) {
    if scenario.programs.kube_router.is_none() {
        return;
    }
    let program = ["/usr/local/bin/kube-router".to_owned()];
    machine.process(program.into_iter().chain(arguments(scenario)));
    // k3s has a folder of its own for it.
    if scenario.programs.distribution != Distribution::K3s {
        machine.file(CNI_FILE, pretty(&cni()));
    }
}

const CNI_FILE: &str = "/etc/cni/net.d/10-kuberouter.conflist";

fn arguments(scenario: &Scenario) -> Vec<String> {
    let programs = &scenario.programs;
    let mut arguments = vec![
        "--run-router=true".to_owned(),
        "--run-firewall=true".to_owned(),
        format!("--run-service-proxy={}", programs.kube_proxy.is_none()),
        "--bgp-graceful-restart=true".to_owned(),
        "--kubeconfig=/var/lib/kube-router/kubeconfig".to_owned(),
    ];
    let families = scenario.families();
    arguments.push(format!("--enable-ipv4={}", families.contains(&Family::V4)));
    arguments.push(format!("--enable-ipv6={}", families.contains(&Family::V6)));
    let services = scenario.network.services.iter();
    arguments.extend(services.map(|net| format!("--service-cluster-ip-range={net}")));
    if programs.kube_router.as_ref().is_some_and(|router| !router.pod_egress) {
        arguments.push("--enable-pod-egress=false".to_owned());
    }
    arguments
}

fn cni() -> Value {
    json!({
        "cniVersion": "0.3.0",
        "name": "mynet",
        "plugins": [
            {
                "name": "kubernetes", "type": "bridge", "bridge": "kube-bridge",
                "isDefaultGateway": true, "ipam": {"type": "host-local"},
            },
            {"type": "portmap", "capabilities": {"snat": true, "portMappings": true}},
        ],
    })
}

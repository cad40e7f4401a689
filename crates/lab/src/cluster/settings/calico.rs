//! Calico: IP pools, and the DaemonSet that runs Felix; with flannel beside it, canal.
//!
//! projectcalico/calico 3.23, manifests/canal.yaml and calico.yaml (objects),
//! node/pkg/lifecycle/startup/startup.go (the pool that calico-node makes at its first start, and
//! the variables that shape it), libcalico-go/lib/apis/v3/ippool.go (pools).

use ipnet::IpNet;
use serde_json::{Value, json};
use unmasq_model::packet::Family;

use super::{Machine, config_map, daemon_set, flannel, node_name, pretty, variable};
use crate::scenario::{CalicoSettings, Distribution, FlannelSettings, Node, Pool, Scenario};

/// Whether one DaemonSet has Calico's Felix and flannel.
pub(super) fn is_canal(scenario: &Scenario) -> bool {
    canal(scenario).is_some()
}

/// The pools, the ConfigMap and the DaemonSet.
pub(super) fn objects(scenario: &Scenario) -> Vec<Value> {
    let Some(settings) = &scenario.programs.calico else { return Vec::new() };
    let mut objects: Vec<Value> = settings.pools.iter().map(pool).collect();
    let node = calico_node(scenario, settings);
    let [map, set] = match canal(scenario) {
        Some(flannel) => [
            canal_config(scenario, &flannel),
            daemon_set(
                scenario,
                ["kube-system", "canal"],
                "k8s-app=canal",
                &[node, kube_flannel(&flannel)],
            ),
        ],
        None => [
            calico_config(scenario),
            daemon_set(scenario, ["kube-system", "calico-node"], "k8s-app=calico-node", &[node]),
        ],
    };
    objects.extend([map, set]);
    objects
}

/// Felix's process, and the CNI configuration that install-cni writes.
pub(super) fn run(scenario: &Scenario, node: &Node, machine: &mut Machine) {
    if scenario.programs.calico.is_none() {
        return;
    }
    machine.process(["calico-node", "-felix"]);
    // k3s has a folder of its own for it.
    if scenario.programs.distribution != Distribution::K3s {
        let path = match is_canal(scenario) {
            true => "/etc/cni/net.d/10-canal.conflist",
            false => "/etc/cni/net.d/10-calico.conflist",
        };
        machine.file(path, pretty(&cni(scenario, &node.name)));
    }
}

/// The pool that calico-node makes if there is none.
const DEFAULT_POOL: &str = "default-ipv4-ippool";

fn canal(scenario: &Scenario) -> Option<FlannelSettings> {
    let programs = &scenario.programs;
    let both = programs.calico.is_some() && programs.distribution == Distribution::Kubeadm;
    flannel::settings(scenario).filter(|_| both)
}

/// As the Kubernetes datastore keeps it. `disabled` is there only where it is true.
fn pool(pool: &Pool) -> Value {
    let block_size = match pool.cidr {
        IpNet::V4(_) => 26,
        IpNet::V6(_) => 122,
    };
    json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool",
        "metadata": {"name": pool.name},
        "spec": {
            "allowedUses": ["Workload", "Tunnel"],
            "blockSize": block_size,
            "cidr": pool.cidr,
            "ipipMode": "Never",
            "natOutgoing": pool.nat_outgoing,
            "nodeSelector": "all()",
            "vxlanMode": "Never",
        },
    })
}

fn calico_node(scenario: &Scenario, settings: &CalicoSettings) -> Value {
    let (backend, kind) = match (is_canal(scenario), flannel::settings(scenario)) {
        (true, _) => ("none", "k8s,canal"),
        (false, Some(_)) => ("none", "k8s"),
        (false, None) => ("bird", "k8s,bgp"),
    };
    let mut env = vec![
        variable("DATASTORE_TYPE", "kubernetes"),
        node_name("NODENAME"),
        variable("CALICO_NETWORKING_BACKEND", backend),
        variable("CLUSTER_TYPE", kind),
    ];
    // These act only when there is no pool yet; a pool that is there has to be changed itself.
    if let Some(pool) = settings.pools.iter().find(|pool| pool.name == DEFAULT_POOL) {
        env.push(variable("CALICO_IPV4POOL_CIDR", &pool.cidr.to_string()));
        if !pool.nat_outgoing {
            env.push(variable("CALICO_IPV4POOL_NAT_OUTGOING", "0"));
        }
    }
    if backend == "bird" {
        env.push(variable("CALICO_IPV4POOL_IPIP", "Never"));
        env.push(variable("CALICO_IPV4POOL_VXLAN", "Never"));
    }
    let has_v6 = scenario.families().contains(&Family::V6);
    env.push(variable("FELIX_DEFAULTENDPOINTTOHOSTACTION", "ACCEPT"));
    env.push(variable("FELIX_IPV6SUPPORT", if has_v6 { "true" } else { "false" }));
    json!({"name": "calico-node", "image": "docker.io/calico/node:v3.23.5", "env": env})
}

fn kube_flannel(settings: &FlannelSettings) -> Value {
    let command: Vec<&str> =
        [flannel::FLANNELD].into_iter().chain(flannel::arguments(settings)).collect();
    let from = |name: &str, key: &str| json!({"name": name, "valueFrom": {"configMapKeyRef": {"name": "canal-config", "key": key}}});
    json!({
        "name": "kube-flannel",
        "image": "docker.io/flannelcni/flannel:v0.17.0",
        "command": command,
        "env": [from("FLANNELD_IFACE", "canal_iface"), from("FLANNELD_IP_MASQ", "masquerade")],
    })
}

fn canal_config(scenario: &Scenario, settings: &FlannelSettings) -> Value {
    let data = [
        ("typha_service_name", "none".to_owned()),
        ("canal_iface", String::new()),
        ("masquerade", settings.ip_masq.to_string()),
        ("veth_mtu", "0".to_owned()),
        ("cni_network_config", pretty(&cni(scenario, "__KUBERNETES_NODE_NAME__"))),
        ("net-conf.json", flannel::net_conf(scenario, settings)),
    ];
    config_map("kube-system", "canal-config", &data)
}

fn calico_config(scenario: &Scenario) -> Value {
    let data = [
        ("typha_service_name", "none".to_owned()),
        ("calico_backend", "bird".to_owned()),
        ("veth_mtu", "0".to_owned()),
        ("cni_network_config", pretty(&cni(scenario, "__KUBERNETES_NODE_NAME__"))),
    ];
    config_map("kube-system", "calico-config", &data)
}

fn cni(scenario: &Scenario, node: &str) -> Value {
    // Where flannel gives the addresses, they are those of the node's podCIDR.
    let ipam = match flannel::settings(scenario) {
        Some(_) => json!({"type": "host-local", "subnet": "usePodCidr"}),
        None => json!({"type": "calico-ipam"}),
    };
    json!({
        "name": "k8s-pod-network",
        "cniVersion": "0.3.1",
        "plugins": [
            {
                "type": "calico", "datastore_type": "kubernetes", "nodename": node,
                "ipam": ipam, "policy": {"type": "k8s"},
            },
            {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
        ],
    })
}

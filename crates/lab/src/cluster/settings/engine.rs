//! The container engine: dockerd's process and files.
//!
//! moby/moby, cmd/dockerd/daemon.go and docs of dockerd (`daemon.json`: a setting that is a flag
//! too is refused at the start); flannel-io/flannel, dist/mk-docker-opts.sh (`--bip` and `--mtu` from
//! subnet.env).

use ipnet::IpNet;
use serde_json::json;
use unmasq_model::packet::Family;

use super::{Machine, flannel, pretty};
use crate::cluster::plan::nth;
use crate::scenario::{EngineSettings, Node, Scenario};

/// Its process, `daemon.json`, and the rules that a person keeps beside it.
pub(super) fn run(scenario: &Scenario, node: &Node, machine: &mut Machine) {
    let Some(settings) = &scenario.programs.engine else { return };
    let mut daemon = json!({"exec-opts": ["native.cgroupdriver=systemd"]});
    let mut arguments = vec!["/usr/bin/dockerd".to_owned()];
    match settings.subnet {
        // flannel's unit leaves flags for it. Its --ip-masq isn't among them: daemon.json has it.
        None => {
            arguments.extend(first(&node.pods).map(|address| format!("--bip={address}")));
            arguments.push(format!("--mtu={}", flannel::mtu(scenario)));
        }
        Some(subnet) if is_default(subnet) => {}
        Some(subnet) => daemon["bip"] = json!(first(&[subnet])),
    }
    if !settings.ip_masq {
        daemon["ip-masq"] = json!(false);
    }
    arguments
        .extend(["-H", "fd://", "--containerd=/run/containerd/containerd.sock"].map(Into::into));
    machine.process(arguments);
    machine.file("/etc/docker/daemon.json", pretty(&daemon));
    if let Some(text) = kept_rules(scenario, node, settings) {
        machine.file("/etc/sysconfig/iptables", text);
    }
}

/// The first address of the IPv4 network, with its length.
fn first(networks: &[IpNet]) -> Option<String> {
    let net = networks.iter().find(|net| Family::of(net.addr()) == Family::V4)?;
    Some(format!("{}/{}", nth(*net, 1), net.prefix_len()))
}

/// Docker's own choice, which nobody has to set.
fn is_default(subnet: IpNet) -> bool {
    subnet == IpNet::new_assert([172, 17, 0, 0].into(), 16)
}

/// What a person has loaded at the start: the rule that leaves the cluster out, see
/// [`unmasq_provider::Engine::exclusion`].
fn kept_rules(scenario: &Scenario, node: &Node, settings: &EngineSettings) -> Option<String> {
    let v4 = |net: &&IpNet| Family::of(net.addr()) == Family::V4;
    let own = settings.subnet.as_ref().or(node.pods.iter().find(v4))?;
    let cluster = scenario.network.pods.iter().find(v4).filter(|_| settings.exclude_cluster)?;
    Some(format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :POSTROUTING ACCEPT [0:0]\n\
         -A POSTROUTING -s {own} ! -d {cluster} ! -o docker0 -j MASQUERADE\nCOMMIT\n"
    ))
}

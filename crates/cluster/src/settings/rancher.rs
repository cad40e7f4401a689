//! k3s and rke2: their configuration files and arguments, which are the same settings.

use ipnet::IpNet;

use super::source::{Command, Sources};
use super::text::flat_yaml;
use super::{Place, Setting, Values};

/// The settings of k3s and rke2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rancher {
    /// Where it is said that one runs.
    pub places: Vec<Place>,
    /// The ranges of pods.
    pub cluster_cidrs: Values<Vec<IpNet>>,
    /// The ranges of Services.
    pub service_cidrs: Values<Vec<IpNet>>,
    /// k3s' flannel: `vxlan`, `host-gw`, `none`, …
    pub flannel_backend: Values<String>,
    /// Whether k3s' flannel masquerades IPv6.
    pub flannel_ipv6_masq: Values<bool>,
    /// rke2's network plugin.
    pub cni: Values<String>,
    /// Whether kube-proxy is not run.
    pub disable_kube_proxy: Values<bool>,
    /// Whether the embedded controller of policies is not run.
    pub disable_network_policy: Values<bool>,
    /// Parts that are not deployed: `servicelb`, `traefik`, …
    pub disable: Values<Vec<String>>,
    /// Flags for kube-proxy, without dashes.
    pub kube_proxy_args: Values<String>,
}

impl Rancher {
    /// Whether k3s or rke2 was seen.
    pub fn is_present(&self) -> bool {
        !self.places.is_empty()
    }
}

pub(super) fn read(sources: &mut Sources<'_>) -> Rancher {
    let mut found = Rancher::default();
    for (node, process) in sources.processes() {
        if !matches!(process.name.as_str(), "k3s" | "k3s-server" | "k3s-agent" | "rke2") {
            continue;
        }
        let command = Command::of_process(node, process);
        found.places.push(command.place.clone());
        sources.take(&mut found.cluster_cidrs, joined(command.each("cluster-cidr")));
        sources.take(&mut found.service_cidrs, joined(command.each("service-cidr")));
        sources.take(&mut found.flannel_backend, command.text("flannel-backend"));
        sources.take(&mut found.flannel_ipv6_masq, command.switch("flannel-ipv6-masq"));
        sources.take(&mut found.cni, command.text("cni"));
        sources.take(&mut found.disable_kube_proxy, command.switch("disable-kube-proxy"));
        sources.take(&mut found.disable_network_policy, command.switch("disable-network-policy"));
        sources.take(&mut found.disable, joined(command.each("disable")));
        for argument in command.each("kube-proxy-arg") {
            sources.take(&mut found.kube_proxy_args, Some(argument));
        }
    }
    for folder in ["/etc/rancher/k3s/config.yaml", "/etc/rancher/rke2/config.yaml"] {
        for (node, path, text) in sources.folder(folder) {
            file(sources, &mut found, node, path, text);
        }
    }
    found
}

fn file(sources: &mut Sources<'_>, found: &mut Rancher, node: &str, path: &str, text: &str) {
    let place = |line: Option<usize>, key: &str| Place::File {
        node: node.to_owned(),
        path: path.to_owned(),
        line,
        key: key.to_owned(),
    };
    found.places.push(place(None, ""));
    for (line, name, value) in flat_yaml(text) {
        let setting = Some(Setting { value, place: place(Some(line), name) });
        match name {
            "cluster-cidr" => sources.take(&mut found.cluster_cidrs, setting),
            "service-cidr" => sources.take(&mut found.service_cidrs, setting),
            "flannel-backend" => sources.take(&mut found.flannel_backend, setting),
            "flannel-ipv6-masq" => sources.take(&mut found.flannel_ipv6_masq, setting),
            "cni" => sources.take(&mut found.cni, setting),
            "disable-kube-proxy" => sources.take(&mut found.disable_kube_proxy, setting),
            "disable-network-policy" => {
                sources.take(&mut found.disable_network_policy, setting);
            }
            "disable" => sources.take(&mut found.disable, setting),
            "kube-proxy-arg" => sources.take(&mut found.kube_proxy_args, setting),
            _ => {}
        }
    }
}

/// A flag that may stand there several times adds to a list.
fn joined(settings: Vec<Setting<String>>) -> Option<Setting<String>> {
    let values: Vec<&str> = settings.iter().map(|setting| setting.value.as_str()).collect();
    let value = values.join(",");
    settings.first().map(|first| Setting { value, place: first.place.clone() })
}

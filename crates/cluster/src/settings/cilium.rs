//! Cilium: whether it is there, and whether it masquerades with rules or with BPF programs.

use super::source::{self, Sources};
use super::{Place, Values};

/// Cilium's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cilium {
    /// Where it is said that it runs.
    pub places: Vec<Place>,
    /// Whether a BPF program masquerades, which no rule shows.
    pub bpf_masquerade: Values<bool>,
    /// Whether it masquerades IPv4.
    pub ipv4_masquerade: Values<bool>,
    /// Whether it masquerades IPv6.
    pub ipv6_masquerade: Values<bool>,
    /// Whether it stands for kube-proxy.
    pub kube_proxy_replacement: Values<String>,
}

impl Cilium {
    /// Whether it was seen.
    pub fn is_present(&self) -> bool {
        !self.places.is_empty()
    }
}

pub(super) fn read(sources: &mut Sources<'_>) -> Cilium {
    let mut found = Cilium::default();
    for command in sources.commands("cilium-agent") {
        found.places.push(command.place.clone());
        sources.take(&mut found.bpf_masquerade, command.switch("enable-bpf-masquerade"));
        sources.take(&mut found.ipv4_masquerade, command.switch("enable-ipv4-masquerade"));
        sources.take(&mut found.ipv6_masquerade, command.switch("enable-ipv6-masquerade"));
        sources.take(&mut found.kube_proxy_replacement, command.text("kube-proxy-replacement"));
    }
    for map in &sources.objects.config_maps {
        if map.metadata.name != "cilium-config" {
            continue;
        }
        sources.take(&mut found.bpf_masquerade, source::key(map, "enable-bpf-masquerade"));
        // `masquerade` is the older name of both.
        for key in ["enable-ipv4-masquerade", "masquerade"] {
            sources.take(&mut found.ipv4_masquerade, source::key(map, key));
        }
        sources.take(&mut found.ipv6_masquerade, source::key(map, "enable-ipv6-masquerade"));
        let replacement = source::key(map, "kube-proxy-replacement");
        sources.take(&mut found.kube_proxy_replacement, replacement);
    }
    found
}

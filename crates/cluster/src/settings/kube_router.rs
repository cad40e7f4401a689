//! kube-router: its arguments. The controller of policies that k3s has built in is none of it: it
//! is no program of its own, and programs no egress rule.

use super::source::Sources;
use super::{Place, Values};

/// kube-router's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeRouter {
    /// Where it is said that it runs.
    pub places: Vec<Place>,
    /// Whether it masquerades what leaves the pods' ranges; without a value it does.
    pub pod_egress: Values<bool>,
    /// Whether it stands for kube-proxy; without a value it does.
    pub service_proxy: Values<bool>,
    /// Whether it programs policies; without a value it does.
    pub firewall: Values<bool>,
    /// Whether it programs routes; without a value it does.
    pub router: Values<bool>,
    /// Whether its Service proxy masquerades everything.
    pub masquerade_all: Values<bool>,
}

impl KubeRouter {
    /// Whether it was seen.
    pub fn is_present(&self) -> bool {
        !self.places.is_empty()
    }
}

pub(super) fn read(sources: &mut Sources<'_>) -> KubeRouter {
    let mut found = KubeRouter::default();
    for command in sources.commands("kube-router") {
        found.places.push(command.place.clone());
        sources.take(&mut found.pod_egress, command.switch("enable-pod-egress"));
        sources.take(&mut found.service_proxy, command.switch("run-service-proxy"));
        sources.take(&mut found.firewall, command.switch("run-firewall"));
        sources.take(&mut found.router, command.switch("run-router"));
        sources.take(&mut found.masquerade_all, command.switch("masquerade-all"));
    }
    found
}

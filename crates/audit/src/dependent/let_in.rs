//! Whom all NetworkPolicies together let in at all ports of a Service: who must be named where one
//! list stands for all of them, as `loadBalancerSourceRanges` does.

use std::collections::BTreeSet;

use ipnet::IpNet;
use unmasq_cluster::kubernetes::{
    IngressRule, Lookup, NetworkPolicy, Objects, Pod, Service, TargetPort,
};

use super::policy::covers;
use crate::networks::without;

/// No more networks than this: nobody reads a longer list.
const MAX: usize = 64;

/// The networks that are let in. None if they aren't all: everybody is let in somewhere, or pods are
/// by their labels, or whom a pod lets in can't be told.
pub(crate) fn let_in(
    lookup: &Lookup<'_>,
    objects: &Objects,
    service: &Service,
) -> Option<Vec<IpNet>> {
    let namespace = &service.metadata.namespace;
    let policies = objects.network_policies.iter();
    let policies = policies.filter(|one| one.metadata.namespace == *namespace);
    let policies: Vec<&NetworkPolicy> = policies.filter(|one| one.is_for_ingress()).collect();
    let mut all = BTreeSet::new();
    // Where no pod is known, nor is who is let in.
    for pod in lookup.pods_behind(service) {
        let its = policies.iter().filter(|one| one.spec.pod_selector.matches(&pod.metadata.labels));
        let its: Vec<&NetworkPolicy> = its.copied().collect();
        if its.is_empty() || pod.spec.host_network {
            return None;
        }
        let rules: Vec<&IngressRule> = its.iter().flat_map(|one| &one.spec.ingress).collect();
        all.extend(of_pod(&rules, service, pod)?);
    }
    let everybody = all.iter().any(|net: &IpNet| net.prefix_len() == 0);
    let all: Vec<IpNet> = all.into_iter().collect();
    (!everybody && (1..=MAX).contains(&all.len())).then_some(all)
}

fn of_pod(rules: &[&IngressRule], service: &Service, pod: &Pod) -> Option<Vec<IpNet>> {
    let mut all = Vec::new();
    for port in &service.spec.ports {
        let wanted = port.target_port.clone().unwrap_or(TargetPort::Number(port.port));
        // A pod without a port of that name is no endpoint there.
        let Some(target) = pod.port(&wanted, port.protocol) else { continue };
        for rule in rules.iter().filter(|rule| covers(rule, pod, port, target)) {
            if rule.from.is_empty() {
                return None;
            }
            for peer in &rule.from {
                let block = peer.ip_block.as_ref()?;
                all.extend(without(block.cidr, &block.except));
            }
        }
    }
    Some(all)
}

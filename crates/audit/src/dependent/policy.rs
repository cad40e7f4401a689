//! Whom NetworkPolicies let in at which port of which Service.
//!
//! Policies add up: a packet gets in if one rule of any policy that selects the pod has both its
//! source and its port (kubernetes staging/src/k8s.io/api/networking/v1/types.go,
//! `NetworkPolicySpec.Ingress`). So an `ipBlock` matters at the ports that its rule is about, where
//! no other rule lets everybody in; and whom another rule names is let in by that one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{
    ContainerPort, IngressRule, IpBlock, LabelSelector, Lookup, NetworkPolicy, Peer, Pod,
    PolicyPort, Service, ServicePort, TargetPort,
};
use unmasq_model::packet::Family;

use super::{Dependence, Kind};

/// A rule of a NetworkPolicy: indices in `objects.network_policies` and its `spec.ingress`.
type RuleAt = (usize, usize);

/// Who gets in at a Service's port to pods that the same rules are about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Admission {
    /// The Service and its port: indices in `objects.services` and its `spec.ports`.
    pub(super) port: (u32, u32),
    /// All rules that let somebody in there, nobody everybody.
    rules: Arc<[RuleAt]>,
}

#[cfg(test)]
impl Admission {
    pub(super) fn rules(&self) -> &[RuleAt] {
        &self.rules
    }
}

/// The `ipBlock`s of a cluster, in order of the policies.
pub(super) fn dependences(lookup: &Lookup<'_>, cluster: &Cluster) -> Vec<Dependence> {
    let mut all = Vec::new();
    let mut of_namespaces: BTreeMap<&str, Policies<'_>> = BTreeMap::new();
    let policies = cluster.objects.network_policies.iter().enumerate();
    for (index, policy) in policies.clone().filter(|(_, one)| one.is_for_ingress()) {
        of_namespaces.entry(&policy.metadata.namespace).or_default().insert(index, policy);
    }
    let mut guarded: BTreeMap<&str, Guarded<'_>> = BTreeMap::new();
    for (index, policy) in policies {
        let mut named = policy.spec.ingress.iter().flat_map(|rule| &rule.from);
        if !policy.is_for_ingress() || !named.any(|peer| peer.ip_block.is_some()) {
            continue;
        }
        let namespace = &*policy.metadata.namespace;
        let Some(its) = of_namespaces.get(namespace) else { continue };
        let guarded =
            guarded.entry(namespace).or_insert_with(|| Guarded::new(lookup, cluster, its));
        for (number, rule) in policy.spec.ingress.iter().enumerate() {
            of_rule(policy, (index, number), rule, guarded, &mut all);
        }
    }
    all
}

fn of_rule(
    policy: &NetworkPolicy,
    at: RuleAt,
    rule: &IngressRule,
    guarded: &Guarded<'_>,
    all: &mut Vec<Dependence>,
) {
    let groups = || guarded.groups_of(at.0);
    let of_rule = || guarded.ports_of(at);
    // Nothing depends on who asks where everybody is let in.
    let open = of_rule().all(|port| port.open)
        && (of_rule().next().is_some() || groups().all(|group| group.open))
        && groups().next().is_some();
    if open {
        return;
    }
    let admissions: BTreeSet<Admission> = of_rule()
        .filter(|port| !port.open)
        .map(|port| Admission { port: port.port, rules: Arc::clone(&port.rules) })
        .collect();
    let admissions: Arc<[Admission]> = admissions.into_iter().collect();
    let mut services: Vec<u32> = admissions.iter().map(|one| one.port.0).collect();
    services.dedup();
    let pods: Vec<IpAddr> =
        groups().flat_map(|group| &group.pods).flat_map(|pod| pod.ips()).collect();
    for (number, peer) in rule.from.iter().enumerate() {
        let Some(IpBlock { cidr, except }) = &peer.ip_block else { continue };
        let family = Family::of(cidr.addr());
        all.push(Dependence {
            what: format!("it lets clients of {cidr} reach its pods"),
            object: format!("NetworkPolicy {}", policy.metadata.full_name()),
            field: format!("spec.ingress[{}].from[{number}].ipBlock", at.1),
            kind: Kind::NetworkPolicy,
            services: services.clone(),
            unknown: None,
            pods: pods.iter().copied().filter(|one| Family::of(*one) == family).collect(),
            networks: vec![*cidr],
            except: except.clone(),
            unread: Vec::new(),
            families: vec![family],
            told_by: None,
            admissions: Arc::clone(&admissions),
        });
    }
}

/// The policies of a namespace by their indices in `objects.network_policies`.
type Policies<'a> = BTreeMap<usize, &'a NetworkPolicy>;

/// The pods of a namespace that policies are about, and the Services in front of them.
struct Guarded<'a> {
    groups: Vec<Group<'a>>,
    ports: Vec<GuardedPort>,
    /// Indices in `groups`, by policy.
    by_policy: BTreeMap<usize, Vec<usize>>,
    /// Indices in `ports`, by rule.
    by_rule: BTreeMap<RuleAt, Vec<usize>>,
}

/// Pods that the same policies are about, and whose ports have the same names.
struct Group<'a> {
    pods: Vec<&'a Pod>,
    /// Indices in `objects.network_policies`.
    policies: Vec<usize>,
    /// Whether a rule lets everybody in at every port.
    open: bool,
}

/// A Service's port, in front of one group.
struct GuardedPort {
    port: (u32, u32),
    /// The rules that let somebody in.
    rules: Arc<[RuleAt]>,
    /// Whether one of them lets in everybody.
    open: bool,
}

impl<'a> Guarded<'a> {
    fn new(lookup: &Lookup<'a>, cluster: &'a Cluster, policies: &Policies<'_>) -> Guarded<'a> {
        let groups = groups(lookup, policies);
        let mut ports = Vec::new();
        for group in &groups {
            // One of its pods behind each Service: the others' ports have the same names.
            let mut behind: BTreeMap<u32, &Pod> = BTreeMap::new();
            for pod in &group.pods {
                for service in lookup.services_of([*pod]) {
                    behind.entry(service).or_insert(pod);
                }
            }
            for (index, pod) in behind {
                let Some(service) = cluster.objects.services.get(index as usize) else { continue };
                for (number, port) in (0..).zip(&service.spec.ports) {
                    let Some(target) = target(lookup, service, port, pod) else { continue };
                    let covers = |rule: &IngressRule| covers(rule, pod, port, target);
                    ports.push(group.port((index, number), policies, covers));
                }
            }
        }
        let (mut by_policy, mut by_rule) = (BTreeMap::new(), BTreeMap::new());
        for (index, group) in groups.iter().enumerate() {
            for policy in &group.policies {
                by_policy.entry(*policy).or_insert_with(Vec::new).push(index);
            }
        }
        for (index, port) in ports.iter().enumerate() {
            for rule in &*port.rules {
                by_rule.entry(*rule).or_insert_with(Vec::new).push(index);
            }
        }
        Guarded { groups, ports, by_policy, by_rule }
    }

    fn groups_of(&self, policy: usize) -> impl Iterator<Item = &Group<'a>> {
        let found = self.by_policy.get(&policy).into_iter().flatten();
        found.filter_map(|index| self.groups.get(*index))
    }

    fn ports_of(&self, rule: RuleAt) -> impl Iterator<Item = &GuardedPort> {
        let found = self.by_rule.get(&rule).into_iter().flatten();
        found.filter_map(|index| self.ports.get(*index))
    }
}

impl Group<'_> {
    fn port(
        &self,
        port: (u32, u32),
        policies: &Policies<'_>,
        covers: impl Fn(&IngressRule) -> bool,
    ) -> GuardedPort {
        let rules = self.policies.iter().flat_map(|index| {
            let rules = policies.get(index).into_iter().flat_map(|policy| &policy.spec.ingress);
            rules.enumerate().map(|(number, rule)| ((*index, number), rule))
        });
        let covering: Vec<_> = rules.filter(|(_, rule)| covers(rule)).collect();
        GuardedPort {
            port,
            open: covering.iter().any(|(_, rule)| rule.from.is_empty()),
            rules: covering.into_iter().map(|(at, _)| at).collect(),
        }
    }
}

fn groups<'a>(lookup: &Lookup<'a>, policies: &Policies<'_>) -> Vec<Group<'a>> {
    // By name, with the policies that select each.
    let mut selected: BTreeMap<&str, (&Pod, Vec<usize>)> = BTreeMap::new();
    for (index, policy) in policies {
        // A policy has no say over pods of the node's own network.
        let pods = lookup.pods_of(&policy.metadata.namespace, &policy.spec.pod_selector);
        for pod in pods.filter(|pod| !pod.spec.host_network) {
            let found = selected.entry(&pod.metadata.name).or_insert_with(|| (pod, Vec::new()));
            found.1.push(*index);
        }
    }
    let mut found: BTreeMap<_, Vec<&Pod>> = BTreeMap::new();
    for (pod, its) in selected.into_values() {
        let named = pod.listening_ports().filter(|port| !port.name.is_empty());
        let name = |port: &'a ContainerPort| (&*port.name, port.protocol, port.container_port);
        let names: Vec<_> = named.map(name).collect();
        found.entry((its, names)).or_default().push(pod);
    }
    let group = |((its, _), pods): ((Vec<usize>, _), Vec<&'a Pod>)| {
        let its_policies = its.iter().filter_map(|index| policies.get(index));
        let mut rules = its_policies.flat_map(|policy| &policy.spec.ingress);
        let open = rules.any(|rule| rule.from.is_empty() && rule.ports.is_empty());
        Group { pods, policies: its, open }
    };
    found.into_iter().map(group).collect()
}

/// The port of a pod that a Service's port leads to. A Service without a selector says it in its
/// EndpointSlices alone.
fn target(lookup: &Lookup<'_>, service: &Service, port: &ServicePort, pod: &Pod) -> Option<u16> {
    if service.spec.selector.is_empty() {
        let mut ports = lookup.slices_of(service).flat_map(|slice| &slice.ports);
        return ports.find(|one| one.name == port.name && one.protocol == port.protocol)?.port;
    }
    let wanted = port.target_port.clone().unwrap_or(TargetPort::Number(port.port));
    pod.port(&wanted, port.protocol)
}

/// Whether a rule is about a port of a pod.
pub(super) fn covers(rule: &IngressRule, pod: &Pod, port: &ServicePort, target: u16) -> bool {
    let is_it = |one: &PolicyPort| {
        let first = match &one.port {
            Some(wanted) => pod.port(wanted, one.protocol),
            None => return one.protocol == port.protocol,
        };
        let in_range = |first: u16| (first..=one.end_port.unwrap_or(first)).contains(&target);
        one.protocol == port.protocol && first.is_some_and(in_range)
    };
    rule.ports.is_empty() || rule.ports.iter().any(is_it)
}

/// Asks whom rules let in.
pub(super) struct Doors<'a> {
    cluster: &'a Cluster,
    pods: BTreeMap<IpAddr, &'a Pod>,
    /// What was asked already, by the address that the rules are shared at: many settings are behind
    /// the same port, and the same few addresses ask.
    known: RefCell<BTreeMap<(IpAddr, *const RuleAt), bool>>,
}

impl<'a> Doors<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Doors<'a> {
        let pods = cluster.objects.pods.iter().filter(|pod| !pod.spec.host_network);
        let pods = pods.flat_map(|pod| pod.ips().map(move |ip| (ip, pod))).collect();
        Doors { cluster, pods, known: RefCell::default() }
    }

    /// Whether some rule there lets an address in, as far as can be told: where the labels of a
    /// namespace aren't known it may, and nobody is told of a fault that may be none.
    pub(super) fn may_enter(&self, address: IpAddr, at: &'a Admission) -> bool {
        let key = (address, at.rules.as_ptr());
        if let Some(known) = self.known.borrow().get(&key) {
            return *known;
        }
        let may = self.asks(address, at);
        self.known.borrow_mut().insert(key, may);
        may
    }

    fn asks(&self, address: IpAddr, at: &Admission) -> bool {
        at.rules.iter().any(|(policy, rule)| {
            let policy = self.cluster.objects.network_policies.get(*policy);
            policy.is_some_and(|policy| {
                let from = policy.spec.ingress.get(*rule).map_or(&[][..], |rule| &rule.from);
                from.iter().any(|peer| self.is_peer(address, peer, &policy.metadata.namespace))
            })
        })
    }

    fn is_peer(&self, address: IpAddr, peer: &Peer, namespace: &str) -> bool {
        if let Some(block) = &peer.ip_block {
            let is_out = block.except.iter().any(|net| net.contains(&address));
            return block.cidr.contains(&address) && !is_out;
        }
        let Some(pod) = self.pods.get(&address) else { return false };
        let own = &*pod.metadata.namespace;
        let of_namespace = match &peer.namespace_selector {
            Some(selector) => self.may_select(selector, own),
            None => own == namespace,
        };
        let selects = |selector: &LabelSelector| selector.matches(&pod.metadata.labels);
        of_namespace && peer.pod_selector.as_ref().is_none_or(selects)
    }

    fn may_select(&self, selector: &LabelSelector, namespace: &str) -> bool {
        if let Some(found) = self.cluster.objects.namespace(namespace) {
            return selector.matches(&found.metadata.labels);
        }
        // Every namespace has this one (kubernetes pkg/registry/core/namespace/strategy.go).
        const NAME: &str = "kubernetes.io/metadata.name";
        let mut known = selector.clone();
        known.match_labels.retain(|key, _| key == NAME);
        known.match_expressions.retain(|one| one.key == NAME);
        known.matches(&BTreeMap::from([(NAME.to_owned(), namespace.to_owned())]))
    }
}

//! Pods and ports that rules name. The matrix asks about some pods of each node and one port; a
//! rule about others shows only with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_model::expr::End;
use unmasq_model::host::Host;
use unmasq_model::packet::{Family, Protocol};

use super::first_and_more;
use super::named::{self, Group, Relevant};
use super::questions::{NEIGHBOURS, POD_PORT};
use crate::Owner;
use crate::owner::program;

/// No more pods that call, and no more that are called, than this.
const MAX_NAMED: usize = 8;

/// A pod that rules name as a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedPod {
    pub(super) address: IpAddr,
    /// The pod's.
    pub(super) node: usize,
    /// The nodes that have such a rule.
    pub(super) rules_of: BTreeSet<usize>,
}

/// What rules name as called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedCall {
    /// A pod with its node; `None`: any pod.
    pub(super) pod: Option<(IpAddr, usize)>,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    /// The nodes that have such a rule.
    pub(super) rules_of: BTreeSet<usize>,
}

/// The pods of a cluster.
pub(super) struct Pods {
    nodes: BTreeMap<IpAddr, usize>,
    /// Of each node, the pods that the matrix asks about: the first of each family.
    first: BTreeMap<usize, Vec<IpAddr>>,
    /// The nodes' networks of pods, by their first address.
    networks: BTreeMap<IpAddr, (IpNet, usize)>,
    /// Whether each node is asked about all others.
    few: bool,
}

impl Pods {
    pub(super) fn new(cluster: &Cluster) -> Pods {
        let objects = cluster.objects.nodes.iter().map(|node| (&*node.metadata.name, node));
        let objects: BTreeMap<&str, _> = objects.collect();
        let addresses = objects.values().flat_map(|node| &node.status.addresses);
        let of_nodes: BTreeSet<IpAddr> =
            addresses.filter_map(|one| one.address.parse().ok()).collect();
        let pods = cluster.pod_addresses().filter(|(address, _)| !of_nodes.contains(address));
        let nodes: BTreeMap<IpAddr, usize> = pods.collect();
        let mut first: BTreeMap<usize, Vec<IpAddr>> = BTreeMap::new();
        for (address, node) in &nodes {
            let found = first.entry(*node).or_default();
            if !found.iter().any(|one| Family::of(*one) == Family::of(*address)) {
                found.push(*address);
            }
        }
        let mut networks = BTreeMap::new();
        for (index, node) in cluster.nodes.iter().enumerate() {
            let nets = objects.get(&*node.name).into_iter().flat_map(|object| object.pod_cidrs());
            networks.extend(nets.map(|net| (net.network(), (net, index))));
        }
        Pods { nodes, first, networks, few: cluster.nodes.len() <= NEIGHBOURS + 1 }
    }

    /// Whom of a group it takes to see what a node's rule does.
    fn of(&self, group: &Group, node: usize) -> Whom {
        let own = self.first.get(&node).map_or(&[][..], Vec::as_slice);
        if own.iter().any(|first| group.iter().any(|net| net.contains(first))) {
            return Whom::AskedAnyway;
        }
        let in_net = |net: &IpNet| self.nodes.range(net.network()..=net.broadcast()).next();
        if let Some((address, of)) = group.iter().find_map(in_net) {
            let is_first = self.first.get(of).is_some_and(|first| first.contains(address));
            return match self.few && is_first {
                true => Whom::AskedAnyway,
                false => Whom::Pod(*address, *of),
            };
        }
        let nobody = |net: &IpNet| {
            let (_, (pods, of)) = self.networks.range(..=net.network()).next_back()?;
            let address = super::clients::somebody(*net, &[])?;
            (pods.contains(net) && pods != net).then_some(Whom::NoPod(address, *of))
        };
        group.iter().find_map(nobody).unwrap_or(Whom::Others)
    }
}

enum Whom {
    /// The matrix asks about one of them in any case.
    AskedAnyway,
    /// This pod, of that node.
    Pod(IpAddr, usize),
    /// An address of that node's pods which none has.
    NoPod(IpAddr, usize),
    /// No pods.
    Others,
}

type Called = (Option<(IpAddr, usize)>, Protocol, u16);

/// What the rules of all nodes name.
#[derive(Default)]
pub(super) struct Named {
    callers: BTreeMap<(IpAddr, usize), BTreeSet<usize>>,
    calls: BTreeMap<Called, BTreeSet<usize>>,
    /// Called, and nobody's.
    nobody: BTreeSet<IpAddr>,
    /// Programs of whose rules one was taken for each end: it stands for all.
    seen: BTreeSet<(Owner, End)>,
}

impl Named {
    /// Adds what a node's rule names.
    pub(super) fn add(
        &mut self,
        pods: &Pods,
        node: usize,
        host: &Host,
        rule: &Relevant<'_>,
        source: &named::Named,
    ) {
        let program = program(rule.table, rule.chain, rule.rule);
        // Its rules about one pod are those of a Service, with which they are asked.
        if program == Some(Owner::KubeProxy) {
            return;
        }
        for group in &source.groups {
            if let Whom::Pod(address, of) | Whom::NoPod(address, of) = pods.of(group, node)
                && self.is_new(program, End::Source)
            {
                self.callers.entry((address, of)).or_default().insert(node);
            }
        }
        let named::Named { groups, .. } = named::end(host, rule.table, rule.rule, End::Destination);
        let mut called = Vec::new();
        for group in &groups {
            match pods.of(group, node) {
                Whom::AskedAnyway => called.push(None),
                Whom::Pod(address, of) => called.push(Some((address, of))),
                Whom::NoPod(address, _) if program.is_none() => {
                    self.nobody.insert(address);
                }
                Whom::NoPod(..) | Whom::Others => {}
            }
        }
        if groups.is_empty() {
            called.push(None);
        }
        let ports = named::ports(rule.table, rule.rule);
        for pod in called {
            for (protocol, port) in &ports {
                let asked_anyway = pod.is_none() && port.is_none() && *protocol == Protocol::TCP;
                if !asked_anyway && self.is_new(program, End::Destination) {
                    let call = (pod, *protocol, port.unwrap_or(POD_PORT));
                    self.calls.entry(call).or_default().insert(node);
                }
            }
        }
    }

    fn is_new(&mut self, program: Option<Owner>, end: End) -> bool {
        program.is_none_or(|program| self.seen.insert((program, end)))
    }

    /// As many as can be asked, and a sentence about each kind that can't.
    pub(super) fn bounded(self, left_out: &mut Vec<String>) -> (Vec<NamedPod>, Vec<NamedCall>) {
        let left = self.callers.keys().skip(MAX_NAMED).map(|(address, _)| address.to_string());
        let left: Vec<String> = left.collect();
        if !left.is_empty() {
            left_out.push(format!(
                "calls of these pods, which rules name as a source, were not asked: {}",
                first_and_more(left)
            ));
        }
        let name = |(pod, protocol, port): &Called| {
            let pod = pod.map_or("any pod".to_owned(), |(address, _)| address.to_string());
            format!("{pod} port {port}/{protocol}")
        };
        let left: Vec<String> = self.calls.keys().skip(MAX_NAMED).map(name).collect();
        if !left.is_empty() {
            left_out.push(format!(
                "calls to these pods and ports, which rules name, were not asked: {}",
                first_and_more(left)
            ));
        }
        if !self.nobody.is_empty() {
            left_out.push(format!(
                "calls to these addresses of pods' networks, which rules name, were not asked, as \
                 no captured pod has them: {}",
                first_and_more(self.nobody.iter().map(ToString::to_string))
            ));
        }
        let callers = self.callers.into_iter().take(MAX_NAMED);
        let callers =
            callers.map(|((address, node), rules_of)| NamedPod { address, node, rules_of });
        let calls = self.calls.into_iter().take(MAX_NAMED);
        let calls = calls.map(|((pod, protocol, port), rules_of)| NamedCall {
            pod,
            protocol,
            port,
            rules_of,
        });
        (callers.collect(), calls.collect())
    }
}

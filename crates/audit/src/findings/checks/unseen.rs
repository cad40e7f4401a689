//! What was not seen of a cluster and would help, a sentence each with the command that gets it.
//!
//! In: a cluster. Out: sentences. What a single answer misses is said in that answer; this is what
//! the whole cluster misses.

use std::collections::BTreeSet;

use unmasq_cluster::kubernetes::ServiceType;
use unmasq_cluster::{Cluster, PodState};
use unmasq_model::host::Host;
use unmasq_model::origin::Diagnostic;

use super::super::describe::{count, few};

/// What was not seen.
pub(in crate::findings) fn unseen(cluster: &Cluster) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(nodes(cluster));
    all.extend(objects(cluster));
    all.extend(pools(cluster));
    all.extend(settings(cluster));
    all.extend(pods(cluster));
    all.extend(unread(cluster));
    all
}

/// Kinds of objects that judge by the source and aren't read, with their groups.
const UNREAD: [(&str, &[&str]); 10] = [
    ("NetworkPolicy", &["crd.projectcalico.org", "projectcalico.org"]),
    ("GlobalNetworkPolicy", &["crd.projectcalico.org", "projectcalico.org"]),
    ("CiliumNetworkPolicy", &["cilium.io"]),
    ("CiliumClusterwideNetworkPolicy", &["cilium.io"]),
    ("AdminNetworkPolicy", &["policy.networking.k8s.io"]),
    ("BaselineAdminNetworkPolicy", &["policy.networking.k8s.io"]),
    ("AuthorizationPolicy", &["security.istio.io"]),
    ("MiddlewareTCP", &["traefik.io", "traefik.containo.us"]),
    ("IngressRouteTCP", &["traefik.io", "traefik.containo.us"]),
    ("IngressRouteUDP", &["traefik.io", "traefik.containo.us"]),
];

/// Kinds that every cluster has, which judge by the source: kubectl leaves an empty file of one only
/// if it failed.
const OF_ALL: [(&str, &str); 2] =
    [("networkpolicies", "NetworkPolicies"), ("ingresses", "Ingresses")];

/// Settings that may depend on the source and were not read: of kinds that aren't known here, or of
/// files that kubectl left empty.
pub(in crate::findings) fn unread_settings(cluster: &Cluster) -> Vec<String> {
    let is_known = |name: &str| {
        let (kind, group) = name.split_once('.').unwrap_or((name, ""));
        UNREAD.iter().any(|(of, groups)| *of == kind && groups.contains(&group))
    };
    let others = cluster.objects.others.iter().filter(|(name, _)| is_known(name));
    let others: Vec<String> = others.map(|(name, found)| format!("{name} ({found})")).collect();
    let mut all = Vec::new();
    if !others.is_empty() {
        all.push(format!(
            "objects of these kinds may judge by the source, and aren't read: {}",
            others.join(", ")
        ));
    }
    for (plural, kind) in OF_ALL {
        let is_its = |file: &str| {
            let name = file.rsplit('/').next().unwrap_or(file);
            name.split('.').next() == Some(plural)
        };
        let mut empty = cluster.problems.iter().filter(|one| one.message == "the file is empty");
        if let Some(problem) = empty.find(|one| is_its(&one.file)) {
            all.push(format!(
                "{kind} were not captured: {} is empty, as a kubectl that failed or may not read them \
                 leaves it",
                problem.file
            ));
        }
    }
    all
}

/// Lines of nodes' files that can't be read. What they would have said is unknown where a walk asks
/// for it; a line of a file that no walk asks is told here alone.
fn unread(cluster: &Cluster) -> Vec<String> {
    let of = |name: &str, host: &Host, diagnostics: &[Diagnostic]| {
        // What is said of a file as a whole stands in the manifest.
        let lines = diagnostics.iter().map(|one| (host.file(one.origin.file), one));
        let mut lines = lines.filter(|(file, _)| !file.ends_with("capture.json"));
        let (file, first) = lines.next()?;
        let more = match lines.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let Diagnostic { origin, message } = first;
        Some(format!("{name}: {file}:{}: {message}{more}", origin.line))
    };
    let each = cluster.nodes.iter().flat_map(|node| {
        let own = node.host.as_ref().and_then(|host| of(&node.name, host, &node.diagnostics));
        let pod = |pod: &PodState| {
            let name = format!("{}/{} on {}", pod.namespace, pod.name, node.name);
            of(&name, &pod.host, &pod.diagnostics)
        };
        own.into_iter().chain(node.pods.iter().filter_map(pod))
    });
    let all: Vec<String> = each.collect();
    match &all[..] {
        [] => Vec::new(),
        some => vec![format!("lines that can't be read: {}", few(some))],
    }
}

/// Nodes that have an object and no state.
fn nodes(cluster: &Cluster) -> Option<String> {
    let absent = cluster.nodes.iter().filter(|node| node.host.is_none());
    let names: Vec<&str> = absent.map(|node| node.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "the state of {} ({}): on each, as root: unmasq collect -o NAME.tar.gz",
            count(names.len(), "node"),
            few(&names)
        )
    })
}

fn objects(cluster: &Cluster) -> Vec<String> {
    let get = |what: &str| {
        format!(
            "kubectl get {what} -A -o json > kubernetes/{what}.json, beside nodes/ of the capture"
        )
    };
    let objects = &cluster.objects;
    if *objects == unmasq_cluster::kubernetes::Objects::default() {
        return vec![format!(
            "Kubernetes objects, so no Service and no pod was asked for: {} (and pods, services, \
             endpointslices.discovery.k8s.io)",
            get("nodes")
        )];
    }
    let mut all = Vec::new();
    let captured = cluster.nodes.iter().filter(|node| node.host.is_some());
    let without = captured.filter(|node| objects.node(&node.name).is_none());
    let names: Vec<&str> = without.map(|node| node.name.as_str()).collect();
    if !names.is_empty() {
        let nodes = count(names.len(), "captured node");
        all.push(format!("the objects of {nodes} ({}): {}", few(&names), get("nodes")));
    }
    if objects.pods.is_empty() && (!objects.services.is_empty() || !objects.nodes.is_empty()) {
        all.push(format!(
            "Pods, so those who call are only endpoints and pods whose namespaces were captured: {}",
            get("pods")
        ));
    }
    let called = |kind: ServiceType| match kind {
        ServiceType::ClusterIp | ServiceType::NodePort | ServiceType::LoadBalancer => true,
        ServiceType::ExternalName => false,
    };
    let services = objects.services.iter().filter(|one| called(one.spec.kind)).count();
    if services > 0 && objects.endpoint_slices.is_empty() {
        let services = count(services, "Service");
        let what = "endpointslices.discovery.k8s.io";
        all.push(format!("EndpointSlices of {services}: {}", get(what)));
    }
    all
}

/// Calico's rules without the pools that they are made of.
fn pools(cluster: &Cluster) -> Option<String> {
    let hosts = cluster.nodes.iter().filter_map(|node| node.host.as_ref());
    let mut chains = hosts.flat_map(|host| &host.ruleset.tables).flat_map(|table| &table.chains);
    let calico = chains.any(|chain| chain.name.starts_with("cali-"));
    (calico && cluster.objects.ip_pools.is_empty()).then(|| {
        let what = "ippools.crd.projectcalico.org";
        format!(
            "Calico's pools, though its rules are there: kubectl get {what} -o json > \
             kubernetes/{what}.json"
        )
    })
}

/// Programs and files, in which settings stand that no object has.
fn settings(cluster: &Cluster) -> Option<String> {
    let captured = cluster.nodes.iter().filter(|node| node.host.is_some());
    let without = captured.filter(|node| node.processes.is_none() && node.files.is_empty());
    let names: Vec<&str> = without.map(|node| node.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "programs and files of {} ({}), in which settings of rules stand: on each, as root: unmasq \
             collect -o NAME.tar.gz",
            count(names.len(), "node"),
            few(&names)
        )
    })
}

/// Pods that run on captured nodes and whose own namespaces weren't captured.
fn pods(cluster: &Cluster) -> Option<String> {
    let captured: BTreeSet<&str> = cluster
        .nodes
        .iter()
        .filter(|node| node.host.is_some())
        .map(|node| node.name.as_str())
        .collect();
    let known: BTreeSet<(&str, &str)> = cluster
        .nodes
        .iter()
        .flat_map(|node| &node.pods)
        .map(|pod| (pod.namespace.as_str(), pod.name.as_str()))
        .collect();
    let own = cluster.objects.pods.iter().filter(|pod| {
        let at = pod.spec.node_name.as_deref();
        !pod.spec.host_network && !pod.has_ended() && at.is_some_and(|at| captured.contains(at))
    });
    let left =
        own.filter(|pod| !known.contains(&(&*pod.metadata.namespace, &*pod.metadata.name))).count();
    (left > 0).then(|| {
        format!(
            "the network namespaces of {}, in which a mesh or a load balancer of k3s may have rules: \
             nsenter -t PID -n iptables-save > nodes/NODE/pods/NAMESPACE_POD/iptables-save, as root on \
             their nodes",
            count(left, "pod")
        )
    })
}

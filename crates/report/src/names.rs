//! What a person calls an address of a cluster.
//!
//! In: a [`Cluster`]. Out: `pod default/web-1`, `Service default/web`, `node n1` for its addresses;
//! an address of a pod whose name is not known is `pod 10.42.1.5`. Nothing is said of an address
//! that the cluster doesn't have.

use std::collections::BTreeMap;
use std::net::IpAddr;

use unmasq_cluster::Cluster;
use unmasq_cluster::paths::{Paths, Walked};

/// Names by address.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: BTreeMap<IpAddr, String>,
}

impl Names {
    pub(crate) fn of(cluster: &Cluster) -> Names {
        let mut names = Names::default();
        // The first name of an address stays: that of a pod goes before that of an endpoint.
        for pod in cluster.nodes.iter().flat_map(|node| &node.pods) {
            let links = pod.host.links.iter().flatten().filter(|link| !link.loopback);
            for address in links.flat_map(|link| &link.addresses) {
                names.add(address.local, format!("pod {}/{}", pod.namespace, pod.name));
            }
        }
        let pods = cluster.objects.pods.iter().filter(|pod| !pod.spec.host_network);
        for pod in pods {
            for address in pod.ips() {
                let name = format!("pod {}/{}", pod.metadata.namespace, pod.metadata.name);
                names.add(address, name);
            }
        }
        for service in &cluster.objects.services {
            let spec = &service.spec;
            let balancers = service.status.load_balancer.ingress.iter().filter_map(|one| one.ip);
            let own = spec.cluster_ip.iter().chain(&spec.cluster_ips).chain(&spec.external_ips);
            for address in own.copied().chain(balancers) {
                names.add(address, format!("Service {}", service.full_name()));
            }
        }
        for node in &cluster.objects.nodes {
            let addresses = node.status.addresses.iter();
            for address in addresses.filter_map(|one| one.address.parse().ok()) {
                names.add(address, format!("node {}", node.metadata.name));
            }
        }
        for node in &cluster.nodes {
            let links = node.host.iter().flat_map(|host| host.links.iter().flatten());
            for address in links.filter(|link| !link.loopback).flat_map(|link| &link.addresses) {
                names.add(address.local, format!("node {}", node.name));
            }
        }
        for (address, _) in cluster.pod_addresses() {
            names.add(address, format!("pod {address}"));
        }
        names
    }

    fn add(&mut self, address: IpAddr, name: String) {
        self.names.entry(address).or_insert(name);
    }

    /// The name of an address.
    pub(crate) fn get(&self, address: IpAddr) -> Option<&str> {
        self.names.get(&address).map(String::as_str)
    }

    /// Its name, else the address itself.
    pub(crate) fn or_address(&self, address: IpAddr) -> String {
        self.get(address).map_or_else(|| address.to_string(), ToOwned::to_owned)
    }
}

/// A host of a way: its node's name, and the pod's as `namespace/name` if it is one.
pub(crate) fn host(paths: &Paths<'_>, host: usize) -> (String, Option<String>) {
    let nodes = &paths.cluster().nodes;
    let name = |node: usize| nodes.get(node).map_or_else(|| "?".to_owned(), |it| it.name.clone());
    match paths.walked(host) {
        None => ("?".to_owned(), None),
        Some(Walked::Node(node)) => (name(node), None),
        Some(Walked::Pod { node, pod }) => {
            let found = nodes.get(node).and_then(|node| node.pods.get(pod));
            (name(node), found.map(|pod| format!("{}/{}", pod.namespace, pod.name)))
        }
    }
}

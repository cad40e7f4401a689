//! The questions of a cluster: all clients, all entries, all protocols, both families.

use std::net::IpAddr;

use unmasq_model::packet::{Family, Protocol};

use super::{Question, Target};
use crate::cluster::plan::{Host, Kind};
use crate::cluster::rules::balancer_addresses;
use crate::cluster::{Cluster, FAMILIES, POD_PORT};
use crate::scenario::Entry;
use unmasq_cluster::kubernetes::{self, Service};

/// All of them, in a fixed order.
pub fn questions(cluster: &Cluster) -> Vec<Question> {
    let mut all = Vec::new();
    for from in hosts(cluster, |host| matches!(host.kind, Kind::Pod | Kind::Node | Kind::Outside))
        .filter(|from| asks(cluster, *from))
    {
        for to in hosts(cluster, |host| matches!(host.kind, Kind::Pod | Kind::Outside)) {
            if is_answered(cluster, to) {
                directly(cluster, from, to, &mut all);
            }
        }
        for service in &cluster.objects.services {
            by_service(cluster, from, service, &mut all);
        }
        by_proxy(cluster, from, &mut all);
    }
    all.sort();
    all.dedup();
    all
}

fn hosts(cluster: &Cluster, wanted: impl Fn(&Host) -> bool) -> impl Iterator<Item = usize> {
    let hosts = cluster.plan.hosts.iter().enumerate();
    hosts.filter(move |(_, host)| wanted(host)).map(|(index, _)| index)
}

/// The pods of a load balancer ask nobody by themselves.
fn asks(cluster: &Cluster, host: usize) -> bool {
    cluster.plan.hosts[host].kind != Kind::Pod || is_answered(cluster, host)
}

fn is_answered(cluster: &Cluster, host: usize) -> bool {
    let Host { name, kind, .. } = &cluster.plan.hosts[host];
    *kind != Kind::Pod || cluster.scenario.pods.iter().any(|pod| pod.name == *name)
}

fn directly(cluster: &Cluster, from: usize, to: usize, all: &mut Vec<Question>) {
    let kind = |host: usize| cluster.plan.hosts[host].kind;
    let outside = kind(from) == Kind::Outside;
    // Between hosts outside there is no cluster.
    if outside && kind(to) == Kind::Outside {
        return;
    }
    for family in FAMILIES {
        let (Some(_), Some(address)) =
            (cluster.plan.address(from, family), cluster.plan.address(to, family))
        else {
            continue;
        };
        if outside && !gateway_knows(cluster, address) {
            continue;
        }
        let icmp = match family {
            Family::V4 => Protocol::ICMP,
            Family::V6 => Protocol::ICMPV6,
        };
        for (protocol, port) in [(Protocol::TCP, POD_PORT), (Protocol::UDP, POD_PORT), (icmp, 0)] {
            all.push(Question { from, to: Target::Host(to), protocol, address, port });
        }
    }
}

/// Clients outside call pods by their own addresses only where the gateway knows these.
fn gateway_knows(cluster: &Cluster, pod: IpAddr) -> bool {
    cluster.scenario.gateway.knows_pods.iter().any(|net| net.contains(&pod))
}

/// Through the proxy, which passes on TCP only.
fn by_proxy(cluster: &Cluster, from: usize, all: &mut Vec<Question>) {
    let Some(proxy) = &cluster.scenario.proxy else { return };
    for address in &proxy.addresses {
        if cluster.plan.address(from, Family::of(*address)).is_some() {
            let name = proxy.service.clone();
            all.push(Question {
                from,
                to: Target::Service { name, entry: Entry::Proxy, via: None },
                protocol: Protocol::TCP,
                address: *address,
                port: proxy.port,
            });
        }
    }
}

fn by_service(cluster: &Cluster, from: usize, service: &Service, all: &mut Vec<Question>) {
    let outside = cluster.plan.hosts[from].kind == Kind::Outside;
    let mut ask = |entry, via, address: IpAddr, protocol, port| {
        if cluster.plan.address(from, Family::of(address)).is_some() {
            let name = format!("{}/{}", service.metadata.namespace, service.metadata.name);
            let to = Target::Service { name, entry, via };
            all.push(Question { from, to, protocol, address, port });
        }
    };
    for port in &service.spec.ports {
        let protocol = match port.protocol {
            kubernetes::Protocol::Tcp => Protocol::TCP,
            kubernetes::Protocol::Udp => Protocol::UDP,
            // Nothing of the lab speaks it.
            kubernetes::Protocol::Sctp => continue,
        };
        for family in FAMILIES {
            // The cluster's own addresses mean nothing outside of it.
            if let (false, Some(address)) = (outside, service.cluster_ip(family)) {
                ask(Entry::ClusterIp, None, address, protocol, port.port);
            }
            for address in balancer_addresses(service, family) {
                ask(Entry::LoadBalancer, None, address, protocol, port.port);
            }
            if let Some(node_port) = port.node_port.filter(|_| service.cluster_ip(family).is_some())
            {
                for node in cluster.nodes() {
                    let Some(address) = cluster.plan.address(node, family) else { continue };
                    ask(Entry::NodePort, Some(node), address, protocol, node_port);
                }
            }
        }
        for address in &service.spec.external_ips {
            ask(Entry::ExternalIp, None, *address, protocol, port.port);
        }
    }
}

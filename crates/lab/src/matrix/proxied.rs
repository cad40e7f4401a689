//! Questions that go by the proxy: two connections, and what the second tells of the first.
//!
//! ```text
//!   client ──▶ proxy     the source that the proxy sees is what it tells
//!              proxy ──▶ a node's port ──▶ pod     the source that the pod sees
//! ```

use std::net::{IpAddr, SocketAddr};

use unmasq_eval::journey::{Journey, Net};
use unmasq_eval::trace::Query;
use unmasq_model::packet::{Family, Packet, Protocol};

use super::foresee::{Reached, foreseen, reached, unknown};
use super::{Ending, Foreseen, Question, TTL, Target};
use crate::cluster::{Cluster, FAMILIES};
use crate::scenario::{Entry, Fate, Proxy, Tells};
use crate::traffic::Report;
use unmasq_cluster::kubernetes;

/// What is told of a client by the proxy, if the server reads it.
pub(super) fn told(cluster: &Cluster, question: &Question, report: &Report) -> Option<IpAddr> {
    let Target::Service { entry: Entry::Proxy, .. } = question.to else { return None };
    let proxy = cluster.scenario.proxy.as_ref().filter(|proxy| proxy.pods_read_it)?;
    match proxy.tells {
        Tells::Nothing => None,
        // The last is the one that the proxy saw itself.
        Tells::ForwardedFor => {
            report.x_forwarded_for.as_ref()?.rsplit(',').next()?.trim().parse().ok()
        }
        Tells::ProxyV1 | Tells::ProxyV2 => report.proxied.map(|source| source.ip()),
    }
}

/// Whether a host's server takes only TCP connections that begin with a PROXY protocol header.
pub(super) fn expects_header(cluster: &Cluster, host: usize, protocol: Protocol) -> bool {
    let name = &cluster.plan.hosts[host].name;
    protocol == Protocol::TCP && cluster.expects_header(name)
}

/// Everything that may become of a question whose way to the proxy is this one.
pub(super) fn endings(
    cluster: &Cluster,
    net: &Net,
    question: &Question,
    journey: &Journey,
) -> Vec<Foreseen> {
    let Some(proxy) = &cluster.scenario.proxy else { return Vec::new() };
    let mut all = Vec::new();
    for reached in reached(cluster, net, question.protocol, journey) {
        match reached {
            Reached::Unknown(why) => all.push(unknown(journey, why)),
            Reached::Nobody(fate) => all.push(foreseen(journey, Ending::nobody(fate))),
            Reached::Server(host) => {
                for upstream in upstreams(cluster, proxy) {
                    all.extend(beyond(cluster, net, question, journey, (host, upstream)));
                }
            }
        }
    }
    all
}

/// The second connection.
fn beyond(
    cluster: &Cluster,
    net: &Net,
    question: &Question,
    before: &Journey,
    (host, upstream): (usize, SocketAddr),
) -> Vec<Foreseen> {
    let family = Family::of(upstream.ip());
    let (Some(proxy), Some(source)) = (&cluster.scenario.proxy, cluster.plan.address(host, family))
    else {
        return Vec::new();
    };
    let mut packet =
        Packet::open(Protocol::TCP, source, None, upstream.ip(), Some(upstream.port()));
    packet.ttl = Some(TTL);
    let mut all = Vec::new();
    for journey in net.there(host, Query::opening(packet, None)) {
        let way = |mut one: Foreseen| {
            one.way = before.legs.iter().map(|leg| leg.host).chain(one.way).collect();
            one
        };
        for reached in reached(cluster, net, Protocol::TCP, &journey) {
            all.push(way(match reached {
                Reached::Unknown(why) => unknown(&journey, why),
                Reached::Nobody(fate) => foreseen(&journey, Ending::nobody(passed_on(proxy, fate))),
                Reached::Server(_) => {
                    foreseen(&journey, answered(cluster, question, (before, &journey)))
                }
            }));
        }
    }
    all
}

/// What a client sees of an upstream that doesn't answer: of one that refuses, HTTP has a response
/// of the proxy's own (502), which is no answer of a server; otherwise the connection is reset.
fn passed_on(proxy: &Proxy, fate: Fate) -> Fate {
    match proxy.tells {
        Tells::ForwardedFor => Fate::Silent,
        Tells::Nothing | Tells::ProxyV1 | Tells::ProxyV2 => fate,
    }
}

fn answered(
    cluster: &Cluster,
    question: &Question,
    (before, journey): (&Journey, &Journey),
) -> Ending {
    let Some(proxy) = &cluster.scenario.proxy else { return Ending::nobody(Fate::Silent) };
    let tells = match proxy.tells {
        Tells::Nothing => false,
        Tells::ForwardedFor => true,
        // A server that doesn't expect the header takes it for a request that isn't HTTP; the
        // client can do nothing with its answer.
        Tells::ProxyV1 | Tells::ProxyV2 if !proxy.pods_read_it => {
            return Ending::nobody(Fate::Silent);
        }
        Tells::ProxyV1 | Tells::ProxyV2 => true,
    };
    let by_proxy = before.ends().and_then(|(source, _)| source.address);
    let told = by_proxy.filter(|_| tells && proxy.pods_read_it);
    let source = journey.ends().and_then(|(source, _)| source.address);
    let own = cluster.plan.address(question.from, Family::of(question.address));
    let server = journey.legs.last().map(|leg| cluster.plan.hosts[leg.host].name.clone());
    Ending { fate: Fate::of(own, source, told), server, source, told, hops: None }
}

/// Where the proxy connects to: the Service's first TCP node port on all nodes, in the first
/// family that all have.
pub(crate) fn upstreams(cluster: &Cluster, proxy: &Proxy) -> Vec<SocketAddr> {
    let mut services = cluster.objects.services.iter();
    let Some(service) = services.find(|service| service.full_name() == proxy.service) else {
        return Vec::new();
    };
    let tcp = |port: &&kubernetes::ServicePort| port.protocol == kubernetes::Protocol::Tcp;
    let Some(port) = service.spec.ports.iter().filter(tcp).find_map(|port| port.node_port) else {
        return Vec::new();
    };
    let addresses = |family: Family| -> Option<Vec<SocketAddr>> {
        service.cluster_ip(family)?;
        let own = |node| Some(SocketAddr::new(cluster.plan.address(node, family)?, port));
        cluster.nodes().map(own).collect()
    };
    FAMILIES.into_iter().find_map(addresses).unwrap_or_default()
}

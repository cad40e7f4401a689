//! How a load balancer's connections spread over pods: counted, beside what the placement of the
//! endpoints makes of it.
//!
//! In: a [`Cluster`] with its servers, and the nodes that the load balancer uses. Out: a [`Spread`].
//!
//! A load balancer spreads over nodes and not over pods. Of N nodes each gets 1/N of the
//! connections; with `externalTrafficPolicy: Local` a node's part goes to its own endpoints in
//! equal parts, and is lost where there is none; with `Cluster` it goes to all endpoints.
//!
//! Connections are independent draws, so the number that a pod gets of n is binomial with mean n·p
//! and standard deviation σ = √(n·p·(1-p)). A count is doubted beyond 5σ, which chance alone
//! exceeds about once in a million counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use unmasq_model::packet::Family;

use crate::cluster::rules::{balancer_addresses, is_local};
use crate::cluster::{Cluster, FAMILIES};
use crate::traffic::{self, Ask, Attempt, Outcome, PATIENCE};
use unmasq_cluster::kubernetes::{Protocol, Service};

/// Beyond this many standard deviations a count is doubted.
const DOUBT: f64 = 5.0;

/// The time to live that hosts of the lab begin with.
const TTL: u8 = 64;

/// Who answered how many connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// How many were tried.
    pub count: usize,
    /// Answers by pod; pods that might have answered are there with 0.
    pub answers: BTreeMap<String, usize>,
    /// How many were not answered.
    pub unanswered: usize,
    /// The part that each pod ought to get, from 0 to 1.
    pub shares: BTreeMap<String, f64>,
    /// Connections by the hosts that forwarded them, where it is known: not of TCP.
    pub hops: BTreeMap<usize, usize>,
}

impl Spread {
    /// The part that ought not to be answered.
    pub fn lost_share(&self) -> f64 {
        1.0 - self.shares.values().sum::<f64>()
    }

    /// By how many standard deviations each pod's count is off, and that of unanswered connections
    /// under the name "".
    pub fn deviations(&self) -> BTreeMap<&str, f64> {
        let of = |pod: &String| {
            let share = self.shares.get(pod).copied().unwrap_or(0.0);
            deviation(self.answers.get(pod).copied().unwrap_or(0), self.count, share)
        };
        let pods = self.shares.keys().chain(self.answers.keys());
        let mut all: BTreeMap<&str, f64> = pods.map(|pod| (pod.as_str(), of(pod))).collect();
        all.insert("", deviation(self.unanswered, self.count, self.lost_share()));
        all
    }

    /// Whether chance explains what differs from the shares.
    pub fn fits(&self) -> bool {
        self.deviations().values().all(|deviation| deviation.abs() <= DOUBT)
    }
}

/// In standard deviations of a binomial distribution.
pub fn deviation(seen: usize, of: usize, share: f64) -> f64 {
    let (seen, of) = (seen as f64, of as f64);
    let sigma = (of * share * (1.0 - share)).max(0.0).sqrt();
    let off = seen - of * share;
    // Where the share is 0 or 1, up to rounding, anything else is wrong.
    if sigma < 1e-3 { if off.abs() < 0.5 { 0.0 } else { f64::INFINITY } } else { off / sigma }
}

/// The part of a load balancer's connections that each pod gets.
pub fn shares(cluster: &Cluster, service: &Service, nodes: &[usize]) -> BTreeMap<String, f64> {
    let endpoints = cluster.endpoints(service);
    let mut shares: BTreeMap<String, f64> =
        endpoints.iter().map(|pod| (pod.name.clone(), 0.0)).collect();
    for node in nodes {
        let name = &cluster.plan.hosts[*node].name;
        let taken = endpoints.iter().filter(|pod| !is_local(service) || pod.node == *name);
        let count = taken.clone().count();
        for pod in taken {
            if let Some(share) = shares.get_mut(&pod.name) {
                *share += 1.0 / nodes.len() as f64 / count as f64;
            }
        }
    }
    shares
}

/// Sends that many connections through the load balancer, in turns to the Service's TCP and UDP
/// ports.
pub(crate) fn measure(
    cluster: &Cluster,
    service: &str,
    from: &str,
    count: usize,
    nodes: &[usize],
) -> Result<Spread> {
    let found = cluster.service(service).with_context(|| format!("there is no {service:?}"))?;
    let namespace = cluster.namespace(from)?.path();
    let ports = called(cluster, found, from)?;
    let attempts: Vec<Attempt> = ports
        .iter()
        .cycle()
        .take(count)
        .map(|(to, ask)| Attempt {
            namespace: Some(namespace.clone()),
            patience: PATIENCE,
            ..Attempt::new(*to, ask.clone())
        })
        .collect();
    let shares = shares(cluster, found, nodes);
    let mut spread = Spread {
        count,
        answers: shares.keys().map(|pod| (pod.clone(), 0)).collect(),
        unanswered: 0,
        shares,
        hops: BTreeMap::new(),
    };
    for answer in traffic::send(&attempts) {
        if let Outcome::Failed(why) = &answer.outcome {
            anyhow::bail!("a connection could not be tried: {why}");
        }
        let Some(report) = answer.report() else {
            spread.unanswered += 1;
            continue;
        };
        *spread.answers.entry(report.by.clone()).or_insert(0) += 1;
        if let Some(ttl) = report.ttl {
            *spread.hops.entry(usize::from(TTL.saturating_sub(ttl))).or_insert(0) += 1;
        }
    }
    Ok(spread)
}

/// The Service's ports at its load balancer's address, in the first family that the client has.
fn called(cluster: &Cluster, service: &Service, from: &str) -> Result<Vec<(SocketAddr, Ask)>> {
    let host = cluster.plan.index(from).context("the client is no host")?;
    let has = |family: &Family| cluster.plan.address(host, *family).is_some();
    let mut addresses = FAMILIES.into_iter().filter(has);
    let address = addresses.find_map(|family| balancer_addresses(service, family).first().copied());
    let address = address.context("the Service has no load balancer that the client could call")?;
    let mut ports = Vec::new();
    for port in &service.spec.ports {
        let ask = match port.protocol {
            Protocol::Tcp => Ask::http(),
            Protocol::Udp => Ask::Datagram,
            Protocol::Sctp => continue,
        };
        ports.push((SocketAddr::new(address, port.port), ask));
    }
    ensure!(!ports.is_empty(), "the Service has no port of TCP or UDP");
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_those_of_a_binomial_distribution() {
        // n = 600, p = 1/3: mean 200, sigma = sqrt(600 * 2/9) = 11.547.
        assert!((deviation(200, 600, 1.0 / 3.0)).abs() < 1e-9);
        assert!((deviation(258, 600, 1.0 / 3.0) - 5.023).abs() < 1e-3);
        assert_eq!(deviation(0, 600, 0.0), 0.0);
        assert_eq!(deviation(1, 600, 0.0), f64::INFINITY);
        assert_eq!(deviation(600, 600, 1.0), 0.0);
    }

    #[test]
    fn what_chance_does_not_explain_is_doubted() {
        let map = |pairs: &[(&str, usize)]| -> BTreeMap<String, usize> {
            pairs.iter().map(|(pod, count)| ((*pod).to_owned(), *count)).collect()
        };
        let shares = [("a".to_owned(), 0.5), ("b".to_owned(), 0.25)].into_iter().collect();
        let mut spread = Spread {
            count: 400,
            answers: map(&[("a", 210), ("b", 95)]),
            unanswered: 95,
            shares,
            hops: BTreeMap::new(),
        };
        assert!(spread.fits(), "{:?}", spread.deviations());
        // sigma of b is sqrt(400 * 3/16) = 8.66; 45 are too many.
        spread.answers = map(&[("a", 165), ("b", 145)]);
        spread.unanswered = 90;
        assert!(!spread.fits());
        spread.answers = map(&[("a", 200), ("b", 99), ("stranger", 1)]);
        spread.unanswered = 100;
        assert!(!spread.fits());
    }
}

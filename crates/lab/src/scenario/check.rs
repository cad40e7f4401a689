//! Whether a scenario's names and addresses fit together.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{SCHEMA, Scenario};
use crate::cluster::rules::BALANCER_PODS;

/// Names that the lab gives itself.
const RESERVED: [&str; 4] = ["gateway", "lan", "wan", "proxy"];

impl Scenario {
    /// Fails with the first thing that doesn't fit, and where it stands.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.schema == SCHEMA, "schema: {:?} is not {SCHEMA:?}", self.schema);
        name("name", &self.name)?;
        ensure!(!self.nodes.is_empty(), "nodes: there is none");
        self.check_names()?;
        self.check_addresses()?;
        for pod in &self.pods {
            let known = self.nodes.iter().any(|node| node.name == pod.node);
            ensure!(known, "pods: {}: there is no node {:?}", pod.name, pod.node);
        }
        for expectation in &self.expect {
            let from = &expectation.from;
            ensure!(self.is_host(from), "expect: from: there is no pod, node or host {from:?}");
            let to = &expectation.to;
            let service = to.strip_prefix("service/").is_some_and(|name| self.has_service(name));
            ensure!(
                service || self.is_host(to),
                "expect: to: {to:?} is no pod, host, or service/NAMESPACE/NAME of the manifests"
            );
            if let Some(via) = &expectation.via {
                let known = self.nodes.iter().any(|node| node.name == *via);
                ensure!(known, "expect: via: there is no node {via:?}");
            }
        }
        if let Some(proxy) = &self.proxy {
            let service = &proxy.service;
            ensure!(self.has_service(service), "proxy: service: {service:?} is not in manifests");
        }
        if let Some(klipper) = &self.programs.klipper {
            let service = &klipper.service;
            ensure!(
                self.has_service(service),
                "programs: klipper: service: {service:?} is not in manifests"
            );
        }
        Ok(())
    }

    fn check_names(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        let nodes = self.nodes.iter().map(|node| &node.name);
        let pods = self.pods.iter().map(|pod| &pod.name);
        let outside = self.outside.iter().map(|host| &host.name);
        for of in nodes.chain(pods).chain(outside) {
            name("name", of)?;
            let reserved = RESERVED.contains(&of.as_str()) || of.starts_with(BALANCER_PODS);
            ensure!(!reserved, "{of:?} is a name that the lab uses itself");
            ensure!(seen.insert(of), "two things are called {of:?}");
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<()> {
        one_of_each("network: pods", self.network.pods.iter().map(IpNet::addr))?;
        one_of_each("network: services", self.network.services.iter().map(IpNet::addr))?;
        one_of_each("network: nodes", self.network.nodes.iter().map(IpNet::addr))?;
        // Each network's first address is the gateway's.
        let first = |net: &IpNet| crate::cluster::plan::nth(net.trunc(), 1);
        let outside = self.outside.iter().flat_map(|host| &host.addresses);
        let gateway = self.network.nodes.iter().chain(outside).map(first);
        let mut seen: BTreeSet<IpAddr> = gateway.collect();
        if let Some(proxy) = &self.proxy {
            one_of_each("proxy: addresses", proxy.addresses.iter().copied())?;
            for address in &proxy.addresses {
                let inside = self.network.nodes.iter().any(|net| net.contains(address));
                ensure!(inside, "proxy: {address} is not in network: nodes");
                ensure!(seen.insert(*address), "proxy: {address} is somebody else's too");
            }
        }
        for node in &self.nodes {
            let place = format!("nodes: {}", node.name);
            one_of_each(&format!("{place}: addresses"), node.addresses.iter().copied())?;
            one_of_each(&format!("{place}: pods"), node.pods.iter().map(IpNet::addr))?;
            for address in &node.addresses {
                let inside = self.network.nodes.iter().any(|net| net.contains(address));
                ensure!(inside, "{place}: {address} is not in network: nodes");
                ensure!(
                    seen.insert(*address),
                    "{place}: {address} is somebody else's too (the gateway has the first)"
                );
            }
            for range in &node.pods {
                let inside = self.network.pods.iter().any(|net| net.contains(range));
                ensure!(inside, "{place}: {range} is not in network: pods");
                for other in self.nodes.iter().filter(|other| other.name != node.name) {
                    let shared = other.pods.iter().find(|theirs| {
                        theirs.contains(&range.network()) || range.contains(&theirs.network())
                    });
                    if let Some(theirs) = shared {
                        bail!("{place}: pods: {range} and {theirs} of {} overlap", other.name);
                    }
                }
                // The first address is the node's, and load balancers have pods too.
                let pods = self.pods.iter().filter(|pod| pod.node == node.name).count() + 8;
                let bits = range.max_prefix_len() - range.prefix_len();
                let room = 1usize.checked_shl(u32::from(bits)).unwrap_or(usize::MAX);
                ensure!(pods < room, "{place}: pods: {range} is too small for its pods");
            }
            for family in self.families() {
                let has = node.pods.iter().any(|net| Family::of(net.addr()) == family)
                    && node.addresses.iter().any(|address| Family::of(*address) == family);
                ensure!(has, "{place}: {family} is missing in its addresses or in pods");
            }
        }
        for host in &self.outside {
            let place = format!("outside: {}: addresses", host.name);
            one_of_each(&place, host.addresses.iter().map(IpNet::addr))?;
            for net in &host.addresses {
                ensure!(seen.insert(net.addr()), "{place}: {net} is somebody else's too");
            }
        }
        Ok(())
    }

    fn is_host(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.name == name)
            || self.pods.iter().any(|pod| pod.name == name)
            || self.outside.iter().any(|host| host.name == name)
    }

    fn has_service(&self, name: &str) -> bool {
        self.manifests.iter().any(|object| {
            let metadata = &object["metadata"];
            let namespace = metadata["namespace"].as_str().unwrap_or("default");
            let own = metadata["name"].as_str().unwrap_or_default();
            object["kind"] == "Service" && format!("{namespace}/{own}") == name
        })
    }
}

/// A name that can be a namespace's and a file's.
fn name(field: &str, name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 40 || !name.chars().all(fits) {
        bail!("{field}: {name:?} must be 1 to 40 small letters, digits and hyphens");
    }
    Ok(())
}

fn one_of_each(place: &str, addresses: impl Iterator<Item = IpAddr>) -> Result<()> {
    let families: Vec<Family> = addresses.map(Family::of).collect();
    ensure!(!families.is_empty(), "{place}: there is none");
    for family in [Family::V4, Family::V6] {
        let count = families.iter().filter(|of| **of == family).count();
        ensure!(count < 2, "{place}: {family} is there twice");
    }
    Ok(())
}

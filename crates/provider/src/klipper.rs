//! klipper-lb, the load balancer of k3s: what its script programs inside an svclb pod.
//!
//! In: a Service's ports and where k3s sends them: the cluster addresses and Service port with
//! `externalTrafficPolicy: Cluster`, the node's address and node port with `Local`
//! (k3s-io/k3s, pkg/cloudprovider/servicelb.go at 0821db5a). Out: rules of the pod's namespace,
//! where each of the pod's containers runs the script once, for one port.
//!
//! A later script that tests the destination port in FORWARD and no source in PREROUTING is only
//! known from what others quote; upstream's text of it wasn't found, so it isn't here.

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{Rules, Source, Table, family_of, of_family};

/// The ports of one Service.
#[derive(Debug, Clone)]
pub struct Klipper {
    /// Which script.
    pub script: Script,
    /// One for each container.
    pub ports: Vec<ServicePort>,
}

/// Which script the image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Translates only.
    Nat,
    /// Also lets in only `loadBalancerSourceRanges`, and only what came to the port.
    NatAndFilter,
}

/// A port, and where it leads.
#[derive(Debug, Clone)]
pub struct ServicePort {
    /// `TCP` or `UDP`, as Kubernetes writes it.
    pub protocol: String,
    /// `SRC_PORT`, the Service's.
    pub port: u16,
    /// `DEST_PORT`.
    pub destination_port: u16,
    /// `DEST_IPS`.
    pub destinations: Vec<IpAddr>,
    /// `SRC_RANGES`: all of the family unless the Service has its own.
    pub source_ranges: Vec<IpNet>,
}

impl Klipper {
    /// All rules of one family.
    pub fn rules(&self, family: Family) -> Rules {
        let mut rules = Rules::new(family);
        for port in &self.ports {
            match self.script {
                Script::Nat => port.write_nat(&mut rules, &NAT),
                Script::NatAndFilter => {
                    port.write_filter(&mut rules);
                    port.write_nat(&mut rules, &NAT_AND_FILTER);
                }
            }
        }
        rules
    }
}

impl ServicePort {
    fn destinations(&self, family: Family) -> impl Iterator<Item = IpNet> {
        let hosts = self.destinations.iter().map(|address| IpNet::from(*address));
        hosts.filter(move |host| family_of(*host) == family)
    }

    fn write_filter(&self, rules: &mut Rules) {
        let (protocol, port) = (&self.protocol, self.port);
        for range in of_family(&self.source_ranges, rules.family) {
            rules.rule(
                Table::Filter,
                &NAT_AND_FILTER,
                format!("-I FORWARD -s {range} -p {protocol} --dport {port} -j ACCEPT"),
            );
        }
        for host in self.destinations(rules.family) {
            let port = self.destination_port;
            rules.rule(
                Table::Filter,
                &NAT_AND_FILTER,
                format!("-A FORWARD -d {host} -p {protocol} --dport {port} -j DROP"),
            );
        }
    }

    fn write_nat(&self, rules: &mut Rules, source: &'static Source) {
        let (protocol, port) = (&self.protocol, self.port);
        for host in self.destinations(rules.family) {
            let to = std::net::SocketAddr::new(host.addr(), self.destination_port);
            let dnat = format!("! -s {host} -p {protocol} --dport {port} -j DNAT --to {to}");
            rules.rule(Table::Nat, source, format!("-I PREROUTING {dnat}"));
            let masquerade = format!("-d {host} -p {protocol} -j MASQUERADE");
            rules.rule(Table::Nat, source, format!("-I POSTROUTING {masquerade}"));
        }
    }
}

const NAT: Source = Source {
    system: "klipper-lb",
    version: "30edb241",
    url: "https://github.com/k3s-io/klipper-lb/blob/30edb2410fb57afdf72b48e358bb46d2574dc06a/entry",
};
const NAT_AND_FILTER: Source = Source {
    system: "klipper-lb",
    version: "06a59bf9",
    url: "https://github.com/k3s-io/klipper-lb/blob/06a59bf9a5985be1e1b786dfc9555f86fda2e3e9/entry",
};

//! What the programs of a scenario write on one host: texts to load, in order. Pure.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::plan::{Kind, Plan};
use crate::scenario::{IptablesProgram, Node, PodLink, ProxyMode, Scenario, StaleFlannel};
use unmasq_cluster::kubernetes::{Objects, Service, ServiceType, TrafficPolicy};
use unmasq_provider::kube_proxy::{self, Config, DetectLocal, Mode};
use unmasq_provider::{
    Bridge, Calico, Engine, Era, Exclusions, Flannel, Form, HostPort, IpMasqAgent, Klipper,
    KubeRouter, Masquerade, Portmap, Release, Script, StrayRule, Workload,
};

/// A text, and the program that reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The program with its arguments.
    pub command: Vec<String>,
    /// Its input.
    pub text: String,
}

/// All that one host is loaded with.
#[derive(Debug, Clone, Default)]
pub struct HostRules {
    /// In the order of the programs' start.
    pub loads: Vec<Load>,
    /// Where the rules' texts come from.
    pub sources: Vec<unmasq_provider::Source>,
}

/// The rules of one host. `balanced`: for the gateway, the nodes that take a load balancer's
/// connections, by Service.
pub fn rules(
    scenario: &Scenario,
    plan: &Plan,
    objects: &Objects,
    host: usize,
    backends: &dyn Fn(&Service) -> Vec<usize>,
) -> Result<HostRules> {
    let mut writer = Writer {
        scenario,
        plan,
        objects,
        iptables: scenario.programs.iptables,
        rules: HostRules::default(),
    };
    match plan.hosts[host].kind {
        Kind::Node => {
            let name = &plan.hosts[host].name;
            let node = scenario.nodes.iter().find(|node| node.name == *name);
            writer.node(host, node.context("the host is no node")?);
        }
        Kind::Gateway => writer.gateway(backends),
        Kind::Pod => writer.balancer_pod(host),
        Kind::Outside | Kind::Proxy | Kind::Switch => {}
    }
    Ok(writer.rules)
}

struct Writer<'a> {
    scenario: &'a Scenario,
    plan: &'a Plan,
    objects: &'a Objects,
    iptables: IptablesProgram,
    rules: HostRules,
}

impl Writer<'_> {
    fn node(&mut self, host: usize, node: &Node) {
        self.engine(node);
        self.kube_proxy(&node.name);
        for family in self.scenario.families() {
            self.flannel(node, family);
            self.calico(host, family);
            self.others(family);
            self.host_ports(host, family);
        }
    }

    fn load(&mut self, command: &[&str], text: String) {
        if !text.is_empty() {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            self.rules.loads.push(Load { command, text });
        }
    }

    fn restore(&mut self, family: Family, text: String) {
        let kind = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let backend = match self.iptables {
            IptablesProgram::Nft => "nft",
            IptablesProgram::Legacy => "legacy",
        };
        let program = format!("{kind}-{backend}-restore");
        self.load(&[&program, "--noflush"], text);
    }

    fn add(&mut self, rules: &unmasq_provider::Rules) {
        self.load(&["ipset", "restore"], rules.ipset());
        self.restore(rules.family, rules.iptables());
        self.load(&["nft", "-f", "-"], rules.nft());
        for line in rules.lines() {
            if !self.rules.sources.contains(line.source) {
                self.rules.sources.push(*line.source);
            }
        }
    }

    /// Kernel and tools of the lab have `--random-fully`; where a range or a fixed port shows more,
    /// scenarios are read by people: the port stays recognisable without it.
    const RANDOM_FULLY: bool = true;

    fn pods(&self, family: Family) -> Option<IpNet> {
        self.scenario.network.pods.iter().copied().find(|net| Family::of(net.addr()) == family)
    }

    fn engine(&mut self, node: &Node) {
        let Some(settings) = self.scenario.programs.engine.clone() else { return };
        for family in self.scenario.families() {
            let own = node.pods.iter().copied().find(|net| Family::of(net.addr()) == family);
            let given = settings.subnet.filter(|net| Family::of(net.addr()) == family);
            let Some(subnet) = given.or(own.filter(|_| settings.subnet.is_none())) else {
                continue;
            };
            let masquerade = if settings.ip_masq { Masquerade::On } else { Masquerade::Off };
            let engine = Engine {
                release: Release::UpTo27,
                bridges: vec![Bridge {
                    device: "docker0".into(),
                    subnet,
                    masquerade,
                    inter_container: true,
                    ports: Vec::new(),
                }],
                hairpin: false,
                drops_forward: false,
            };
            self.add(&engine.rules(family));
            let cluster = self.pods(family).filter(|_| settings.exclude_cluster);
            let mended = cluster.and_then(|cluster| match masquerade {
                Masquerade::Off => engine.exclusion("docker0", cluster),
                Masquerade::On | Masquerade::Snat(_) => engine.excluding("docker0", cluster),
            });
            if let Some(mended) = mended {
                self.add(&mended);
            }
        }
    }

    fn kube_proxy(&mut self, node: &str) {
        let Some(settings) = self.scenario.programs.kube_proxy.clone() else { return };
        let mode = match settings.mode {
            ProxyMode::Iptables => Mode::Iptables,
            ProxyMode::Nftables => Mode::Nftables,
        };
        let cidrs = settings.cluster_cidrs.unwrap_or_else(|| self.scenario.network.pods.clone());
        let config = Config {
            detect_local: DetectLocal::ClusterCidr(cidrs),
            masquerade_all: settings.masquerade_all,
            service_cidrs: self.scenario.network.services.clone(),
            ..Config::new(mode, node)
        };
        for family in self.scenario.families() {
            let text = kube_proxy::rules(self.objects, &config, family);
            match mode {
                Mode::Iptables => {
                    self.restore(family, kube_proxy::jumps(&config));
                    self.restore(family, text);
                }
                Mode::Nftables => self.load(&["nft", "-f", "-"], text),
            }
        }
    }

    fn flannel(&mut self, node: &Node, family: Family) {
        let own = node.pods.iter().copied().find(|net| Family::of(net.addr()) == family);
        let (Some(cluster), Some(own)) = (self.pods(family), own) else { return };
        let programs = &self.scenario.programs;
        let (settings, stale) = (programs.flannel.clone(), programs.stale_flannel);
        if stale == Some(StaleFlannel::IntoPods) && family == Family::V4 {
            let old = Flannel {
                form: Form::BareWithoutReturn,
                cluster,
                node: own,
                random_fully: Self::RANDOM_FULLY,
            };
            self.add(&old.leftovers());
        }
        let Some(settings) = settings.filter(|settings| settings.ip_masq) else { return };
        let form = if settings.nftables { Form::Nftables } else { Form::Chains };
        let flannel = Flannel { form, cluster, node: own, random_fully: Self::RANDOM_FULLY };
        self.add(&flannel.rules());
    }

    fn calico(&mut self, host: usize, family: Family) {
        let Some(settings) = self.scenario.programs.calico.clone() else { return };
        let pools = settings
            .pools
            .iter()
            .map(|pool| unmasq_provider::Pool { cidr: pool.cidr, nat_outgoing: pool.nat_outgoing })
            .collect();
        let workload = |(index, pod): (usize, &super::plan::Host)| {
            let routed = self.scenario.network.pods_by == PodLink::Route;
            (pod.node == Some(host) && routed).then(|| Workload {
                device: format!("cali{index:08x}"),
                namespace: "default".into(),
                service_account: "default".into(),
            })
        };
        let workloads = self.plan.hosts.iter().enumerate().filter_map(workload).collect();
        let calico = Calico {
            era: Era::Of2022,
            pools,
            exclusions: Exclusions::PoolsOnly,
            tunnels: Vec::new(),
            random_fully: Self::RANDOM_FULLY,
            floating: Vec::new(),
            workloads,
        };
        self.add(&calico.rules(family));
    }

    fn others(&mut self, family: Family) {
        let programs = self.scenario.programs.clone();
        if let Some(settings) = &programs.kube_router {
            let nodes = &self.scenario.nodes;
            let router = KubeRouter {
                pods: nodes.iter().flat_map(|node| node.pods.clone()).collect(),
                nodes: nodes.iter().flat_map(|node| node.addresses.clone()).collect(),
                node_device: "eth0".into(),
                random_fully: Self::RANDOM_FULLY,
            };
            self.add(&router.rules(family));
            if !settings.pod_egress {
                self.add(&router.without_pod_egress(family));
            }
        }
        if let Some(settings) = &programs.ip_masq_agent {
            let agent = IpMasqAgent {
                non_masquerade: settings.non_masquerade_cidrs.clone(),
                masquerade_link_local: settings.masq_link_local,
                random_fully: Self::RANDOM_FULLY,
            };
            self.add(&agent.rules(family));
        }
        let stray = programs.stray.as_ref().map(|stray| stray.except);
        if let Some(within) = stray.filter(|net| Family::of(net.addr()) == family) {
            self.add(&StrayRule { within, opens_forward: false }.rules());
        }
    }

    /// The Service that klipper-lb serves, if it does.
    fn klipper_service(&self) -> Option<Service> {
        let settings = self.scenario.programs.klipper.as_ref().filter(|klipper| klipper.enabled)?;
        let mut services = self.objects.services.iter();
        services.find(|service| service.full_name() == settings.service).cloned()
    }

    /// The host ports of klipper-lb's pod on a node.
    fn host_ports(&mut self, host: usize, family: Family) {
        let Some(service) = self.klipper_service() else { return };
        let plan = self.plan;
        let name = balancer_pod(&plan.hosts[host].name);
        let Some(pod) = plan.index(&name) else { return };
        let ranges = self.scenario.nodes.iter().flat_map(|node| &node.pods);
        let length = |address: &IpAddr| {
            let mut ranges = ranges.clone().filter(|net| net.contains(address));
            ranges.next().map_or(Family::of(*address).bits(), IpNet::prefix_len)
        };
        let addresses = plan.hosts[pod].addresses.iter();
        let addresses = addresses.map(|address| IpNet::new_assert(*address, length(address)));
        let port = |port: &unmasq_cluster::kubernetes::ServicePort| HostPort {
            protocol: port.protocol.to_string(),
            host_port: port.port,
            container_port: port.port,
        };
        let portmap = Portmap {
            network: "cbr0".into(),
            container: name,
            addresses: addresses.collect(),
            ports: service.spec.ports.iter().map(port).collect(),
        };
        self.add(&portmap.rules(family));
    }

    /// klipper-lb's rules in its pod.
    fn balancer_pod(&mut self, host: usize) {
        let Some(service) = self.klipper_service() else { return };
        let plan = self.plan;
        let is_own = |node: &&Node| balancer_pod(&node.name) == plan.hosts[host].name;
        let Some(node) = self.scenario.nodes.iter().find(is_own) else { return };
        for family in self.scenario.families() {
            self.add(&klipper(&service, node, family));
        }
    }

    /// Masquerade on the way out, and the load balancer.
    fn gateway(&mut self, backends: &dyn Fn(&Service) -> Vec<usize>) {
        for family in self.scenario.families() {
            let ip = match family {
                Family::V4 => "ip",
                Family::V6 => "ip6",
            };
            let hidden: Vec<String> = self
                .scenario
                .gateway
                .masquerades
                .iter()
                .filter(|net| Family::of(net.addr()) == family)
                .map(IpNet::to_string)
                .collect();
            let balanced = if self.scenario.load_balancer.is_some() {
                self.balanced(family, ip, backends)
            } else {
                Vec::new()
            };
            let mut text = format!("table {ip} gateway {{\n");
            if !hidden.is_empty() {
                let nets = hidden.join(", ");
                text += &format!(
                    " chain out {{ type nat hook postrouting priority 100; policy accept;\n  \
                     {ip} saddr {{ {nets} }} oifname \"wan\" masquerade\n }}\n"
                );
            }
            if !balanced.is_empty() {
                text += &format!(
                    " chain balance {{ type nat hook prerouting priority -100; policy accept;\n{} }}\n",
                    balanced.concat()
                );
            }
            text.push_str("}\n");
            if !hidden.is_empty() || !balanced.is_empty() {
                self.load(&["nft", "-f", "-"], text);
            }
        }
    }

    /// A rule for each port of each load balancer's address.
    fn balanced(
        &self,
        family: Family,
        ip: &str,
        backends: &dyn Fn(&Service) -> Vec<usize>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        let services = self.objects.services.iter();
        for service in services.filter(|service| service.spec.kind == ServiceType::LoadBalancer) {
            let nodes = backends(service);
            let addresses: Vec<IpAddr> =
                nodes.iter().filter_map(|node| self.plan.address(*node, family)).collect();
            for address in balancer_addresses(service, family) {
                for port in &service.spec.ports {
                    let Some(node_port) = port.node_port else { continue };
                    let protocol = port.protocol.to_string().to_lowercase();
                    let entries: Vec<String> = addresses
                        .iter()
                        .enumerate()
                        .map(|(slot, node)| format!("{slot} : {node} . {node_port}"))
                        .collect();
                    let to = format!("{ip} daddr {address} {protocol} dport {}", port.port);
                    lines.push(match entries.len() {
                        // Health checks let nobody in.
                        0 => format!("  {to} drop\n"),
                        count => format!(
                            "  {to} dnat {ip} to numgen random mod {count} map {{ {} }}\n",
                            entries.join(", ")
                        ),
                    });
                }
            }
        }
        lines
    }
}

/// The name of klipper-lb's pod on a node.
pub fn balancer_pod(node: &str) -> String {
    format!("{BALANCER_PODS}{node}")
}

/// What the names of klipper-lb's pods begin with.
pub const BALANCER_PODS: &str = "svclb-";

/// A load balancer's addresses of a family.
pub fn balancer_addresses(service: &Service, family: Family) -> Vec<IpAddr> {
    let ingress = service.status.load_balancer.ingress.iter();
    ingress.filter_map(|one| one.ip).filter(|address| Family::of(*address) == family).collect()
}

/// Whether a load balancer that checks their health leaves out nodes without an endpoint.
pub fn is_local(service: &Service) -> bool {
    service.spec.external_traffic_policy == TrafficPolicy::Local
}

/// The rules inside of a klipper-lb pod: it forwards what comes to the Service's port to the
/// Service's own address, or with `externalTrafficPolicy: Local` to its node's node port.
pub fn klipper(service: &Service, node: &Node, family: Family) -> unmasq_provider::Rules {
    let of_family = |address: &IpAddr| Family::of(*address) == family;
    let local = is_local(service);
    let ports = service
        .spec
        .ports
        .iter()
        .map(|port| unmasq_provider::ServicePort {
            protocol: port.protocol.to_string(),
            port: port.port,
            destination_port: if local { port.node_port.unwrap_or(port.port) } else { port.port },
            destinations: if local {
                node.addresses.iter().copied().filter(of_family).collect()
            } else {
                service.cluster_ip(family).into_iter().collect()
            },
            source_ranges: Vec::new(),
        })
        .collect();
    Klipper { script: Script::Nat, ports }.rules(family)
}

//! Names on the command line, made into a [`Call`].
//!
//! Names are those of the cluster's objects; what is chosen where nothing was said (an entry, the
//! node that is called) is noted, with the flag that says otherwise.

use std::net::IpAddr;

use anyhow::{Context as _, anyhow, bail};

use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{self, Service, ServicePort, TrafficPolicy};
use unmasq_cluster::paths::{Call, Caller, Paths};
use unmasq_model::packet::{Family, Protocol};

use unmasq_audit::explain::meant;

use super::Entry;
use crate::endpoint::{Name, Place, PortName};
use crate::trace::{Args, FamilyName, Proto};

/// What is asked, and what was chosen for it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) call: Call,
    pub(super) notes: Vec<String>,
}

/// Names of the nodes whose state was captured.
pub(super) fn captured(cluster: &Cluster) -> Vec<&str> {
    let nodes = cluster.nodes.iter().filter(|node| node.host.is_some());
    nodes.map(|node| node.name.as_str()).collect()
}

/// The call of the arguments, in the family that was asked for or the first that everybody has.
pub(super) fn call(args: &Args, cluster: &Cluster) -> anyhow::Result<Asked> {
    let given = [&args.from, &args.to].into_iter().find_map(|place| match place {
        Place::Address(end) => Some(Family::of(end.address)),
        Place::Pod(..) | Place::Node(..) | Place::Service(..) => None,
    });
    let wanted = args.family.map(|family| match family {
        FamilyName::Ipv4 => Family::V4,
        FamilyName::Ipv6 => Family::V6,
    });
    if let (Some(given), Some(wanted)) = (given, wanted)
        && given != wanted
    {
        bail!("--family {wanted}, and an address of {given}: a packet has one");
    }
    let resolve = |family| Resolver { args, cluster, family, notes: Vec::new() }.call();
    match wanted.or(given) {
        Some(family) => resolve(family),
        None => resolve(Family::V4).or_else(|why| resolve(Family::V6).map_err(|_| why)),
    }
}

/// A node's own address is chosen by its routes: another one of its addresses can't be asked for
/// over several nodes.
pub(super) fn check_source(args: &Args, call: &Call, paths: &Paths<'_>) -> anyhow::Result<()> {
    let (Place::Address(from), Caller::Node(node)) = (&args.from, &call.from) else {
        return Ok(());
    };
    let own = paths.node_address(*node, call.to).map_err(|why| anyhow!(why))?;
    if own != from.address {
        let name = &paths.cluster().nodes[*node].name;
        bail!(
            "{} is an address of node {name}, which takes {own} towards {}: ask from that one, or \
             of this node alone with --node {name}",
            from.address,
            call.to
        );
    }
    Ok(())
}

/// A pod's node and address. `in_host`: it is in the node's own network.
struct Pod {
    node: usize,
    address: IpAddr,
    in_host: bool,
}

struct Resolver<'a> {
    args: &'a Args,
    cluster: &'a Cluster,
    family: Family,
    notes: Vec<String>,
}

/// Whom, as far as known before the caller is.
struct Target {
    to: IpAddr,
    port: Option<u16>,
    protocol: Option<Protocol>,
    /// The node by which a caller outside gets there, if that is known.
    node: Option<usize>,
}

impl Resolver<'_> {
    fn call(mut self) -> anyhow::Result<Asked> {
        let via = self.args.via.as_deref().map(|name| self.node(name)).transpose()?;
        let (inside, source_port) = self.caller()?;
        let target = self.target(inside.is_none(), via)?;
        let from = match (inside, &self.args.from) {
            (Some(caller), _) => caller,
            (None, Place::Address(end)) => {
                let node = self.way_in(&target, via)?;
                Caller::Outside { node, address: end.address }
            }
            (None, Place::Pod(..) | Place::Node(..) | Place::Service(..)) => {
                bail!("--from: nobody of that name has an address")
            }
        };
        let protocol = match (self.args.proto, target.protocol) {
            (Some(wanted), Some(has)) if wanted.of(self.family) != has => {
                bail!("--proto: that port of the Service is {has}")
            }
            (Some(proto), _) => proto.of(self.family),
            (None, has) => has.unwrap_or(Proto::Tcp.of(self.family)),
        };
        let port = target.port;
        if !protocol.has_ports() && (source_port.is_some() || port.is_some()) {
            bail!("{protocol} has no ports: leave them out of --from and --to");
        }
        let call = Call { from, source_port, to: target.to, port, protocol };
        Ok(Asked { call, notes: self.notes })
    }

    /// Who calls, if he is inside; and his port.
    fn caller(&self) -> anyhow::Result<(Option<Caller>, Option<u16>)> {
        let of_pod = |pod: Pod| match pod.in_host {
            true => Caller::Node(pod.node),
            false => Caller::Pod { node: pod.node, address: pod.address },
        };
        Ok(match &self.args.from {
            Place::Pod(name, port) => (Some(of_pod(self.pod_by_name(name)?)), *port),
            Place::Node(name, port) => (Some(Caller::Node(self.node(name)?)), *port),
            Place::Address(end) => (self.owner(end.address), end.port),
            Place::Service(..) => bail!("a Service calls nobody"),
        })
    }

    /// The pod or the node with an address.
    fn owner(&self, address: IpAddr) -> Option<Caller> {
        let of_pod = self.cluster.pod_addresses().find(|(of, _)| *of == address);
        if let Some((address, node)) = of_pod {
            // An endpoint in a node's own network has the node's address.
            return Some(match self.node_with(address) {
                Some(node) => Caller::Node(node),
                None => Caller::Pod { node, address },
            });
        }
        for (node, state) in self.cluster.nodes.iter().enumerate() {
            let hosts = state.pods.iter().map(|pod| &pod.host);
            if hosts.into_iter().any(|host| has_address(host, address)) {
                return Some(Caller::Pod { node, address });
            }
        }
        self.node_with(address).map(Caller::Node).or_else(|| {
            // An address of a node's pods that no pod is known to have.
            let of = |node: &unmasq_cluster::Node| self.cluster.objects.node(&node.name);
            let has = |node: &unmasq_cluster::Node| {
                of(node).is_some_and(|node| node.pod_cidrs().any(|net| net.contains(&address)))
            };
            let node = self.cluster.nodes.iter().position(has)?;
            Some(Caller::Pod { node, address })
        })
    }

    fn node_with(&self, address: IpAddr) -> Option<usize> {
        self.cluster.nodes.iter().position(|node| {
            let object = self.cluster.objects.node(&node.name);
            let of_object = object.into_iter().flat_map(|object| &object.status.addresses);
            of_object.into_iter().any(|one| one.address.parse() == Ok(address))
                || node.host.as_ref().is_some_and(|host| has_address(host, address))
        })
    }

    fn node(&self, name: &str) -> anyhow::Result<usize> {
        self.cluster.node_index(name).with_context(|| {
            let names = self.cluster.nodes.iter().map(|node| node.name.as_str());
            format!("there is no node {name}{}", meant(name, names))
        })
    }

    fn pod_by_name(&self, wanted: &Name) -> anyhow::Result<Pod> {
        let objects = &self.cluster.objects.pods;
        let full =
            |pod: &kubernetes::Pod| format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
        let wanted = wanted.to_string();
        let no_address = || format!("pod {wanted} has no address of {}", self.family);
        if let Some(pod) = objects.iter().find(|pod| full(pod) == wanted) {
            let node = pod.spec.node_name.as_deref();
            let node = node.with_context(|| format!("pod {wanted} is on no node yet"))?;
            let address = pod.ip(self.family).with_context(no_address)?;
            return Ok(Pod { node: self.node(node)?, address, in_host: pod.spec.host_network });
        }
        for (node, state) in self.cluster.nodes.iter().enumerate() {
            let found =
                state.pods.iter().find(|pod| wanted == format!("{}/{}", pod.namespace, pod.name));
            let Some(pod) = found else { continue };
            let links = pod.host.links.iter().flatten().filter(|link| !link.loopback);
            let mut addresses = links.flat_map(|link| &link.addresses).map(|one| one.local);
            let is_it = |address: &IpAddr| {
                let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
                Family::of(*address) == self.family && !link_local
            };
            let address = addresses.find(is_it).with_context(no_address)?;
            return Ok(Pod { node, address, in_host: false });
        }
        let states = self.cluster.nodes.iter().flat_map(|node| &node.pods);
        let of_states = states.map(|pod| format!("{}/{}", pod.namespace, pod.name));
        let names: Vec<String> = objects.iter().map(full).chain(of_states).collect();
        bail!("there is no pod {wanted}{}", meant(&wanted, names.iter().map(String::as_str)))
    }

    /// Whom. `outside`: the caller is.
    fn target(&mut self, outside: bool, via: Option<usize>) -> anyhow::Result<Target> {
        let entry_is_for_services = |what: &str| match self.args.entry {
            Some(_) => bail!("--entry is about a Service, and {what} is called"),
            None => Ok(()),
        };
        let target = |to, port, node| Target { to, port, protocol: None, node };
        match &self.args.to {
            Place::Address(end) => {
                entry_is_for_services("an address")?;
                let node = self.owner(end.address).map(|owner| owner.node());
                Ok(target(end.address, end.port, node))
            }
            Place::Pod(name, port) => {
                entry_is_for_services("a pod")?;
                let pod = self.pod_by_name(name)?;
                Ok(target(pod.address, *port, Some(pod.node)))
            }
            Place::Node(name, port) => {
                entry_is_for_services("a node")?;
                let node = self.node(name)?;
                Ok(target(self.address_of_node(node)?, *port, Some(node)))
            }
            Place::Service(name, port) => self.service(name, port.as_ref(), outside, via),
        }
    }

    fn address_of_node(&self, node: usize) -> anyhow::Result<IpAddr> {
        let name = &self.cluster.nodes[node].name;
        let object = self.cluster.objects.node(name).with_context(|| {
            format!(
                "the address of node {name} is not known: kubernetes/nodes.json has no such node; \
                 write the address"
            )
        })?;
        object
            .ip(self.family)
            .with_context(|| format!("node {name} has no address of {}", self.family))
    }

    fn service(
        &mut self,
        name: &Name,
        port: Option<&PortName>,
        outside: bool,
        via: Option<usize>,
    ) -> anyhow::Result<Target> {
        let wanted = name.to_string();
        let services = &self.cluster.objects.services;
        let service = services.iter().find(|one| one.full_name() == wanted).with_context(|| {
            let names: Vec<String> = services.iter().map(Service::full_name).collect();
            let near = meant(&wanted, names.iter().map(String::as_str));
            format!("there is no Service {wanted}{near}")
        })?;
        let port = self.service_port(service, port)?;
        let entry = self.entry(service, port, outside);
        let (to, number, node, chosen) = match entry {
            Entry::NodePort => {
                let number = port.node_port;
                let number = number.with_context(|| format!("{wanted} has no port of nodes"))?;
                let (node, chosen) = match via {
                    Some(node) => (node, None),
                    None => {
                        let (node, why) = self.choose_node(service)?;
                        (node, Some((node, why)))
                    }
                };
                (self.address_of_node(node)?, number, Some(node), chosen)
            }
            Entry::ClusterIp | Entry::LoadBalancer | Entry::ExternalIp => {
                let to = self.addresses(service, entry).into_iter().next();
                let to = to.with_context(|| {
                    let what = words(entry);
                    format!("Service {wanted} has no {what} of {}", self.family)
                })?;
                // Any node takes it: by which it comes in matters for a caller outside only.
                let chosen = match (outside, via) {
                    (true, None) => Some(self.choose_node(service)?),
                    (true, Some(_)) | (false, _) => None,
                };
                (to, port.port, chosen.as_ref().map(|(node, _)| *node), chosen)
            }
        };
        if let Some((node, why)) = &chosen {
            let name = &self.cluster.nodes[*node].name;
            let what = match entry {
                Entry::NodePort => format!("the port of node {name} is called"),
                Entry::ClusterIp | Entry::LoadBalancer | Entry::ExternalIp => {
                    format!("the packet comes in by node {name}")
                }
            };
            self.notes.push(format!("{what}, {why}; another with --via"));
        }
        let protocol = match port.protocol {
            kubernetes::Protocol::Tcp => Protocol::TCP,
            kubernetes::Protocol::Udp => Protocol::UDP,
            kubernetes::Protocol::Sctp => Protocol::SCTP,
        };
        Ok(Target { to, port: Some(number), protocol: Some(protocol), node })
    }

    /// How a Service is called: as asked, by its cluster IP, or for a caller outside by what it
    /// has for such.
    fn entry(&mut self, service: &Service, port: &ServicePort, outside: bool) -> Entry {
        if let Some(entry) = self.args.entry {
            return entry;
        }
        if !outside {
            return Entry::ClusterIp;
        }
        let entry = if !self.addresses(service, Entry::LoadBalancer).is_empty() {
            Entry::LoadBalancer
        } else if port.node_port.is_some() {
            Entry::NodePort
        } else if !self.addresses(service, Entry::ExternalIp).is_empty() {
            Entry::ExternalIp
        } else {
            Entry::ClusterIp
        };
        let what = words(entry);
        self.notes
            .push(format!("the caller is outside and calls by the {what}; others with --entry"));
        entry
    }

    fn addresses(&self, service: &Service, entry: Entry) -> Vec<IpAddr> {
        let all: Vec<IpAddr> = match entry {
            Entry::ClusterIp => service.cluster_ip(self.family).into_iter().collect(),
            Entry::LoadBalancer => {
                let ingress = service.status.load_balancer.ingress.iter();
                ingress.filter_map(|one| one.ip).collect()
            }
            Entry::ExternalIp => service.spec.external_ips.clone(),
            Entry::NodePort => Vec::new(),
        };
        all.into_iter().filter(|address| Family::of(*address) == self.family).collect()
    }

    fn service_port<'s>(
        &self,
        service: &'s Service,
        wanted: Option<&PortName>,
    ) -> anyhow::Result<&'s ServicePort> {
        let name = service.full_name();
        let protocol = self.args.proto.map(|proto| proto.of(self.family).to_string());
        let fits = |port: &&ServicePort| {
            let named = match wanted {
                None => true,
                Some(PortName::Name(name)) => port.name == *name,
                Some(PortName::Number(number)) => {
                    port.port == *number || port.node_port == Some(*number)
                }
            };
            let wanted = protocol.as_ref();
            named && wanted.is_none_or(|protocol| port.protocol.to_string() == *protocol)
        };
        let found: Vec<&ServicePort> = service.spec.ports.iter().filter(fits).collect();
        match &found[..] {
            [only] => Ok(only),
            // A number that TCP and UDP both have, or no port said: TCP is what a trace asks for.
            [first, rest @ ..]
                if wanted.is_some() && rest.iter().all(|it| it.port == first.port) =>
            {
                Ok(first)
            }
            [] | [_, ..] => {
                let has = service.spec.ports.iter().map(|port| match port.name.as_str() {
                    "" => format!("{}/{}", port.port, port.protocol),
                    name => format!("{name} ({}/{})", port.port, port.protocol),
                });
                let has = has.collect::<Vec<_>>().join(", ");
                match found.is_empty() {
                    true => bail!("Service {name} has no such port; it has {has}"),
                    false => bail!("which port of Service {name}? It has {has}"),
                }
            }
        }
    }

    /// A captured node to call, and why that one: with Local one that has an endpoint, as others
    /// drop the packet.
    fn choose_node(&self, service: &Service) -> anyhow::Result<(usize, String)> {
        let nodes = || (0..self.cluster.nodes.len()).filter(|at| self.is_captured(*at));
        let has_endpoint = |at: &usize| {
            let name = self.cluster.nodes[*at].name.as_str();
            let slices = self.cluster.objects.endpoint_slices.iter().filter(|slice| {
                slice.metadata.namespace == service.metadata.namespace
                    && slice.service() == Some(&service.metadata.name)
            });
            let mut endpoints = slices.flat_map(|slice| &slice.endpoints);
            endpoints.any(|endpoint| endpoint.node_name.as_deref() == Some(name))
        };
        let first = nodes().next().context("no node's state was captured")?;
        match service.spec.external_traffic_policy {
            TrafficPolicy::Local => Ok(match nodes().find(has_endpoint) {
                Some(node) => (node, "the first with an endpoint".to_owned()),
                None => (first, "the first, and none has an endpoint".to_owned()),
            }),
            TrafficPolicy::Cluster => Ok(match nodes().find(|at| !has_endpoint(at)) {
                Some(node) => (node, "the first without an endpoint".to_owned()),
                None => (first, "the first".to_owned()),
            }),
        }
    }

    fn is_captured(&self, node: usize) -> bool {
        self.cluster.nodes.get(node).is_some_and(|node| node.host.is_some())
    }

    /// By which node a caller outside comes in.
    fn way_in(&self, target: &Target, via: Option<usize>) -> anyhow::Result<usize> {
        if let Some(node) = via.or(target.node) {
            return Ok(node);
        }
        let nodes = captured(self.cluster).join(", ");
        bail!(
            "by which node does the packet come in? Name it with --via, or trace one node's rules \
             alone with --node: {nodes}"
        )
    }
}

fn words(entry: Entry) -> &'static str {
    match entry {
        Entry::ClusterIp => "cluster IP",
        Entry::NodePort => "port of a node",
        Entry::LoadBalancer => "load balancer's address",
        Entry::ExternalIp => "external IP",
    }
}

fn has_address(host: &unmasq_model::host::Host, address: IpAddr) -> bool {
    let links = host.links.iter().flatten().filter(|link| !link.loopback);
    links.flat_map(|link| &link.addresses).any(|own| own.local == address)
}

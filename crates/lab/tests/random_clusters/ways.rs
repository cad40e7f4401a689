//! A connection that was made, against the ways of the same question.

use std::net::IpAddr;

use unmasq_cluster::paths::{Call, Caller, Fate, Way};
use unmasq_lab::cluster::plan::Kind;
use unmasq_lab::matrix::{Row, Target};
use unmasq_lab::scenario::{Entry, Fate as Seen};
use unmasq_model::packet::Family;

use super::{Compared, Counts};

impl Compared<'_> {
    /// Fails if what happened is none of the ways.
    pub(crate) fn by_ways(&self, row: &Row, counts: &mut Counts) -> Result<(), String> {
        let calls = match self.calls(row) {
            Ok(calls) => calls,
            Err(why) => {
                counts.skip(why);
                return Ok(());
            }
        };
        let mut ways: Vec<Way> = Vec::new();
        for call in &calls {
            ways.extend(self.paths.ways(call).map_err(|why| format!("{call:?}: {why}"))?);
        }
        let fits: Vec<&Way> = ways.iter().filter(|way| self.fits(row, way)).collect();
        let unknown = ways.iter().find_map(|way| match &way.fate {
            Fate::Unknown(why) => Some(why.join("; ")),
            Fate::Preserved
            | Fate::Rewritten
            | Fate::NoAnswer(_)
            | Fate::Dropped(_)
            | Fate::Rejected(_)
            | Fate::Lost => None,
        });
        if let ([], Some(why)) = (&fits[..], unknown) {
            counts.skip(&format!("unknown: {}", without_addresses(&why)));
            return Ok(());
        }
        counts.by_ways += 1;
        if fits.is_empty() {
            let said: Vec<String> = ways.iter().map(describe).collect();
            return Err(format!("asked {calls:?}, which has the ways: {}", said.join("; ")));
        }
        // Where nothing arrived, nothing tells which rules would have rewritten.
        if !matches!(row.seen.fate, Seen::Preserved | Seen::Rewritten) {
            return Ok(());
        }
        let wanted = self.owners(row);
        let owners = |way: &Way| -> Vec<_> {
            let owner = |(host, rule)| Some(unmasq_audit::owner(self.paths.host(host)?, rule));
            way.rewriters().filter_map(owner).collect()
        };
        let found: Vec<_> = fits.iter().map(|way| owners(way)).collect();
        match found.contains(&wanted) {
            true => Ok(()),
            false => Err(format!("rewritten by {wanted:?}, and not by {found:?}")),
        }
    }

    /// The question as the cluster gets it: a load balancer's is one of several.
    fn calls(&self, row: &Row) -> Result<Vec<Call>, &'static str> {
        let question = &row.question;
        let plan = &self.cluster.plan;
        let family = Family::of(question.address);
        let address = plan.address(question.from, family).ok_or("no address of the family")?;
        let ports = question.port != 0;
        let call = |from, to, port| Call {
            from,
            source_port: ports.then_some(row.source_port),
            to,
            port,
            protocol: question.protocol,
        };
        let port = ports.then_some(question.port);
        let one = |from| Ok(vec![call(from, question.address, port)]);
        let outside = |node: Option<usize>| {
            let node = node.ok_or("no node")?;
            Ok(Caller::Outside { node, address })
        };
        match (plan.hosts[question.from].kind, &question.to) {
            (_, Target::Service { entry: Entry::Proxy, .. }) => Err("by a proxy"),
            (Kind::Pod, _) => {
                let node = self.node_of(question.from).ok_or("no node")?;
                one(Caller::Pod { node, address })
            }
            (Kind::Node, _) => {
                let node = self.node(question.from).ok_or("no node")?;
                // The lab's servers bind the node's own address, others take the route's.
                if self.paths.node_address(node, question.address).ok() != Some(address) {
                    return Err("a node that would call from another address of its own");
                }
                one(Caller::Node(node))
            }
            (Kind::Outside, Target::Host(to)) => one(outside(self.node_of(*to))?),
            (Kind::Outside, Target::Service { via: Some(via), .. }) => {
                one(outside(self.node(*via))?)
            }
            // The gateway sends these to the first node.
            (Kind::Outside, Target::Service { entry: Entry::ExternalIp, .. }) => {
                one(outside(self.cluster.nodes().next().and_then(|node| self.node(node)))?)
            }
            (Kind::Outside, Target::Service { name, entry: Entry::LoadBalancer, .. }) => {
                let node_port = self.node_port(name, row).ok_or("no node port")?;
                let calls = self.healthy(name)?.into_iter().filter_map(|node| {
                    let to = plan.address(node, family)?;
                    Some(call(outside(self.node(node)).ok()?, to, Some(node_port)))
                });
                Ok(calls.collect())
            }
            (Kind::Outside, Target::Service { .. }) => Err("nobody routes it"),
            (Kind::Gateway | Kind::Proxy | Kind::Switch, _) => Err("asked by no client"),
        }
    }

    /// The nodes that the load balancer lets in.
    pub(crate) fn healthy(&self, service: &str) -> Result<Vec<usize>, &'static str> {
        let checks = self.cluster.scenario.load_balancer.as_ref().ok_or("no load balancer")?;
        let mut services = self.cluster.objects.services.iter();
        let service = services.find(|one| one.full_name() == service).ok_or("no Service")?;
        let local = unmasq_lab::cluster::rules::is_local(service);
        let nodes: Vec<usize> = match checks.health_checks && local {
            true => self.cluster.nodes_with_endpoints(service),
            false => self.cluster.nodes().collect(),
        };
        if nodes.is_empty() { Err("the load balancer lets in no node") } else { Ok(nodes) }
    }

    fn node_port(&self, service: &str, row: &Row) -> Option<u16> {
        let mut services = self.cluster.objects.services.iter();
        let service = services.find(|one| one.full_name() == service)?;
        let protocol = row.question.protocol.to_string();
        let mut ports = service.spec.ports.iter();
        let port = ports.find(|port| port.protocol.to_string().eq_ignore_ascii_case(&protocol))?;
        port.node_port
    }

    /// Whether a way is what happened.
    fn fits(&self, row: &Row, way: &Way) -> bool {
        let plan = &self.cluster.plan;
        let egress = match &row.question.to {
            Target::Host(host) => plan.hosts[*host].kind == Kind::Outside,
            Target::Service { .. } => false,
        };
        let hidden = |address: IpAddr| {
            let gateway = &self.cluster.scenario.gateway.masquerades;
            egress && gateway.iter().any(|net| net.contains(&address))
        };
        let arrives = matches!(way.fate, Fate::Preserved | Fate::Rewritten);
        match row.seen.fate {
            Seen::Preserved | Seen::Rewritten => {
                let Some(seen) = way.seen().filter(|_| arrives) else { return false };
                let server = row.seen.server.as_deref().and_then(|name| plan.index(name));
                let at_server = server.zip(way.reached().and_then(|end| end.address));
                if !at_server.is_some_and(|(host, at)| plan.hosts[host].addresses.contains(&at)) {
                    return false;
                }
                if hidden(seen) {
                    return row.seen.source != Some(seen);
                }
                let kept = row.seen.fate == Seen::Preserved;
                row.seen.source == Some(seen) && kept == (way.fate == Fate::Preserved)
            }
            Seen::Silent => match &way.fate {
                Fate::Dropped(_) | Fate::NoAnswer(_) | Fate::Lost => true,
                // The gateway has no way back to it, whether it translates it or not.
                Fate::Preserved | Fate::Rewritten => {
                    egress && way.seen().is_some_and(|seen| !self.returns(seen))
                }
                Fate::Rejected(_) | Fate::Unknown(_) => false,
            },
            Seen::Refused => match &way.fate {
                Fate::Rejected(_) => true,
                // By a node on which nobody listens.
                Fate::Preserved | Fate::Rewritten => way.reached().is_some_and(|end| {
                    self.cluster.nodes().any(|node| {
                        let own = &plan.hosts[node].addresses;
                        end.address.is_some_and(|address| own.contains(&address))
                    })
                }),
                Fate::Dropped(_) | Fate::NoAnswer(_) | Fate::Lost | Fate::Unknown(_) => false,
            },
            Seen::Told => false,
        }
    }

    /// Whether the gateway has a way to a source.
    fn returns(&self, source: IpAddr) -> bool {
        let scenario = &self.cluster.scenario;
        let mut known = scenario.gateway.knows_pods.iter().chain(&scenario.network.nodes);
        known.any(|net| net.contains(&source))
    }
}

fn describe(way: &Way) -> String {
    let seen = way.seen().map(|seen| format!(" seen as {seen}")).unwrap_or_default();
    let reached = way.reached().map(|end| format!(" at {end}")).unwrap_or_default();
    format!("{:?}{seen}{reached} by {} hosts", way.fate, way.there.legs.len())
}

/// A sentence that can be counted.
fn without_addresses(why: &str) -> String {
    let words = why.split(' ').map(|word| {
        let bare = word.trim_end_matches([':', ',', ';']);
        match bare.parse::<IpAddr>() {
            Ok(_) => word.replace(bare, "ADDRESS"),
            Err(_) => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

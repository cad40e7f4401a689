//! A connection that was made, against the cells of the audit's matrix that it belongs to.
//!
//! The matrix asks for each node what one neighbour calls there, and one pod of each node that is
//! an endpoint. What it doesn't ask is counted, not compared.

use unmasq_audit::matrix::{self as audit, Cell, Client, Entry, Fate, Outside, Placement};
use unmasq_lab::cluster::plan::Kind;
use unmasq_lab::matrix::{Row, Target};
use unmasq_lab::scenario::{self, Fate as Seen};
use unmasq_model::packet::{Family, Protocol};

use super::{Compared, Counts};

/// Where a connection belongs.
struct Place {
    entry: Entry,
    /// Index in the objects.
    service: Option<u32>,
    clients: Vec<Client>,
    /// The node that takes it; `None`: a load balancer picks one.
    taker: Option<usize>,
}

impl Compared<'_> {
    /// Fails if the cells say nothing of what happened.
    pub(crate) fn by_cells(&self, row: &Row, counts: &mut Counts) -> Result<(), String> {
        let place = match self.place(row) {
            Ok(place) => place,
            Err(why) => {
                counts.skip(&format!("in cells: {why}"));
                return Ok(());
            }
        };
        let of_place: Vec<&Cell> =
            self.rows.iter().filter(|one| is_of(one, row, &place)).map(|one| &one.cell).collect();
        if of_place.iter().any(|cell| self.is_in(row, cell, &place)) {
            counts.by_cells += 1;
            return Ok(());
        }
        if of_place.iter().any(|cell| matches!(cell.fate, Fate::Unknown(_))) {
            counts.skip("in cells: unknown");
            return Ok(());
        }
        counts.by_cells += 1;
        let fates: Vec<_> =
            of_place.iter().map(|cell| (&cell.client, cell.placement, &cell.fate)).collect();
        Err(format!(
            "rewritten by {:?}; the cells of {:?} from {:?} say {fates:?}",
            self.owners(row),
            place.entry,
            place.clients
        ))
    }

    fn place(&self, row: &Row) -> Result<Place, &'static str> {
        let question = &row.question;
        let plan = &self.cluster.plan;
        let kind = plan.hosts[question.from].kind;
        let from = self.node_of(question.from);
        let (entry, service, via) = match &question.to {
            Target::Host(to) => {
                if question.protocol != Protocol::TCP {
                    return Err("pods are asked by TCP only");
                }
                if plan.hosts[*to].kind == Kind::Outside {
                    return Err("egress to this host is not asked");
                }
                self.is_asked(row, *to)?;
                (Entry::Pod, None, if kind == Kind::Outside { self.node_of(*to) } else { from })
            }
            Target::Service { name, entry, via } => {
                let objects = &self.paths.cluster().objects;
                let service = objects.services.iter().position(|one| one.full_name() == *name);
                let service = service.and_then(|index| u32::try_from(index).ok());
                let via = via.and_then(|node| self.node(node));
                let (entry, taker) = match entry {
                    scenario::Entry::ClusterIp => (Entry::ClusterIp, from),
                    scenario::Entry::NodePort => (Entry::NodePort, via),
                    // To a load balancer's node ports.
                    scenario::Entry::LoadBalancer if kind == Kind::Outside => {
                        self.healthy(name)?;
                        (Entry::NodePort, None)
                    }
                    scenario::Entry::LoadBalancer => (Entry::LoadBalancer, from),
                    scenario::Entry::ExternalIp if kind == Kind::Outside => {
                        (Entry::ExternalIp, self.cluster.nodes().next().and_then(|n| self.node(n)))
                    }
                    scenario::Entry::ExternalIp => (Entry::ExternalIp, from),
                    scenario::Entry::Proxy => return Err("by a proxy"),
                };
                (entry, Some(service.ok_or("no Service")?), taker)
            }
        };
        let clients = match kind {
            Kind::Outside => self.outside(row, entry, service),
            Kind::Pod | Kind::Node => {
                let own = plan.address(question.from, Family::of(question.address));
                let taken =
                    from.and_then(|node| self.paths.node_address(node, question.address).ok());
                if kind == Kind::Node && taken != own {
                    return Err("a node that would call from another address of its own");
                }
                let elsewhere = via != from;
                let count = self.paths.cluster().nodes.len();
                if elsewhere && via.map(|node| (node + 1) % count) != from {
                    return Err("this node is not asked about that one");
                }
                let itself = row.seen.server.as_deref() == Some(&*plan.hosts[question.from].name);
                if itself && elsewhere {
                    return Err("an endpoint that gets itself by another node's port");
                }
                vec![match (kind, elsewhere) {
                    (Kind::Pod, _) if itself => Client::Endpoint,
                    (Kind::Pod, true) => Client::PodElsewhere,
                    (Kind::Pod, false) => Client::Pod,
                    (_, true) => Client::NodeElsewhere,
                    (_, false) => Client::Node,
                }]
            }
            Kind::Gateway | Kind::Proxy | Kind::Switch => return Err("asked by no client"),
        };
        Ok(Place { entry, service, clients, taker: via })
    }

    /// Of pods by their own addresses, the first of each other node is called, and the second of
    /// the own one.
    fn is_asked(&self, row: &Row, to: usize) -> Result<(), &'static str> {
        if to == row.question.from {
            return Err("a pod that calls itself by its own address");
        }
        let plan = &self.cluster.plan;
        let node = plan.hosts[to].node;
        let pods = plan.hosts.iter().filter(|host| host.kind == Kind::Pod && host.node == node);
        let own = plan.hosts[row.question.from].node.unwrap_or(row.question.from);
        if Some(own) == node && pods.count() < 2 {
            return Err("the only pod of a node, called from there");
        }
        Ok(())
    }

    /// Somebody of the networks that are named where the question belongs, else anybody.
    fn outside(&self, row: &Row, entry: Entry, service: Option<u32>) -> Vec<Client> {
        let family = Family::of(row.question.address);
        let Some(own) = self.cluster.plan.address(row.question.from, family) else {
            return Vec::new();
        };
        let asked = self.rows.iter().filter(|one| is_asked_of(one, entry, service));
        let all = asked.filter_map(|one| match &one.cell.client {
            Client::Outside(outside) => Some(outside),
            Client::Pod
            | Client::PodElsewhere
            | Client::Endpoint
            | Client::Node
            | Client::NodeElsewhere => None,
        });
        let mut named: Vec<Client> = all
            .filter(|outside| match outside {
                Outside::NamedByRule(net) | Outside::NamedBySetting(net) => net.contains(&own),
                Outside::Anybody => false,
            })
            .map(|outside| Client::Outside(outside.clone()))
            .collect();
        named.dedup();
        if named.is_empty() {
            named.push(Client::Outside(Outside::Anybody));
        }
        named
    }

    fn is_in(&self, row: &Row, cell: &Cell, place: &Place) -> bool {
        let server = row.seen.server.as_deref().and_then(|name| self.cluster.plan.index(name));
        let server = server.and_then(|host| self.node_of(host));
        let placed = match (place.taker, server) {
            (Some(taker), Some(server)) if taker == server => cell.placement == Placement::Here,
            (Some(_), Some(_)) => cell.placement == Placement::Elsewhere,
            (None, Some(_)) => cell.placement != Placement::None,
            (_, None) => true,
        };
        placed
            && match (&cell.fate, row.seen.fate) {
                (Fate::Preserved, Seen::Preserved) | (Fate::Rejected(_), Seen::Refused) => true,
                (Fate::Rewritten(causes), Seen::Rewritten) => {
                    causes.iter().map(|cause| cause.owner).collect::<Vec<_>>() == self.owners(row)
                }
                (Fate::Dropped(_) | Fate::NoAnswer(_) | Fate::Lost, Seen::Silent) => true,
                // A node on which nobody listens.
                (Fate::Preserved | Fate::Rewritten(_), Seen::Refused) => {
                    place.entry == Entry::NodePort
                }
                (
                    Fate::Preserved
                    | Fate::Rewritten(_)
                    | Fate::NoAnswer(_)
                    | Fate::Dropped(_)
                    | Fate::Rejected(_)
                    | Fate::Lost
                    | Fate::Unknown(_),
                    Seen::Preserved | Seen::Rewritten | Seen::Told | Seen::Silent | Seen::Refused,
                ) => false,
            }
    }
}

fn is_of(one: &audit::Row, row: &Row, place: &Place) -> bool {
    let cell = &one.cell;
    is_asked_of(one, place.entry, place.service)
        && cell.family == Family::of(row.question.address)
        && cell.protocol == row.question.protocol
        && place.clients.contains(&cell.client)
}

fn is_asked_of(one: &audit::Row, entry: Entry, service: Option<u32>) -> bool {
    let of_service = match service {
        Some(service) => one.services.contains(&service),
        None => one.services.is_empty(),
    };
    of_service && one.cell.entry == entry
}

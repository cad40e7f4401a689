//! Connections that somebody else wants to see made, through the hosts of a cluster that is up.
//!
//! In: a [`Cluster`] and [`Connection`]s. Out: an [`Observation`] for each, as `unmasq probe` would
//! have made it there. What ought to come of them is not known here, apart from whether an answer is
//! worth waiting for. [`Surroundings`] say what of a cluster no capture has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use unmasq_probe::observation::{self, Observation, Source};

use crate::cluster::plan::Kind;
use crate::cluster::{Cluster, POD_PORT, Progress};
use crate::traffic::{self, Answer, Attempt, Outcome, PATIENCE, Place, Server};

/// A connection to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The node that makes it. `None`: whoever has the source's address.
    pub node: Option<String>,
    /// The address to start from. `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// By which protocol.
    pub protocol: observation::Ask,
    /// Who is called.
    pub to: SocketAddr,
    /// Where it may arrive: somebody listens there.
    pub at: Vec<SocketAddr>,
    /// Whether it is made once more, with more patience, where no answer comes.
    pub again: bool,
}

/// What is around a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// Hosts outside.
    pub hosts: Vec<HostOutside>,
    /// Networks that the gateway translates on their way out.
    pub masquerades: Vec<IpNet>,
    /// Networks of pods that the gateway has routes to.
    pub knows_pods: Vec<IpNet>,
    /// Addresses of pods that take only connections with a PROXY protocol header.
    pub want_header: Vec<IpAddr>,
}

/// A host outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostOutside {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The networks that it has a way to; `None`: all.
    pub reaches: Option<Vec<IpNet>>,
}

impl Surroundings {
    /// Those of a cluster.
    pub fn of(cluster: &Cluster) -> Surroundings {
        let outside = cluster.scenario.outside.iter().map(|host| HostOutside {
            name: host.name.clone(),
            addresses: host.addresses.iter().map(IpNet::addr).collect(),
            reaches: host.reaches.clone(),
        });
        let hosts = cluster.plan.hosts.iter().filter(|host| cluster.expects_header(&host.name));
        Surroundings {
            hosts: outside.collect(),
            masquerades: cluster.scenario.gateway.masquerades.clone(),
            knows_pods: cluster.scenario.gateway.knows_pods.clone(),
            want_header: hosts.flat_map(|host| host.addresses.iter().copied()).collect(),
        }
    }
}

/// The first source port of the first and of the second round; so many follow each.
const FIRST_PORTS: [u16; 2] = [10_000, 20_000];
const PORTS: usize = 10_000;
/// How long an answer is waited for that did not come at first: a SYN's second try is in it.
const SECOND_PATIENCE: Duration = Duration::from_secs(3);

/// Makes them, all at once. Tracked connections are forgotten before, and whoever has to listen
/// listens for as long as it takes.
pub fn connect(
    cluster: &Cluster,
    wanted: &[Connection],
    progress: Progress,
) -> Result<Vec<Observation>> {
    let _servers = listen(cluster, wanted)?;
    cluster.forget_connections()?;
    let mut attempts = Vec::new();
    for (number, connection) in wanted.iter().enumerate() {
        let host = caller(cluster, connection)?;
        attempts.push(Attempt {
            namespace: Some(cluster.namespaces[host].path()),
            source: connection.source,
            source_port: FIRST_PORTS[0] + (number % PORTS) as u16,
            patience: PATIENCE,
            ..Attempt::new(connection.to, ask(connection.protocol))
        });
    }
    progress(&format!("making {} connections", attempts.len()));
    let mut answers = traffic::send(&attempts);
    let is_silent = |(index, answer): (usize, &Answer)| {
        (wanted[index].again && answer.outcome == Outcome::Silent).then_some(index)
    };
    let silent: Vec<usize> = answers.iter().enumerate().filter_map(is_silent).collect();
    if !silent.is_empty() {
        progress(&format!("making {} once more", silent.len()));
        let again = |index: &usize| Attempt {
            source_port: FIRST_PORTS[1] + (*index % PORTS) as u16,
            patience: SECOND_PATIENCE,
            ..attempts[*index].clone()
        };
        let second: Vec<Attempt> = silent.iter().map(again).collect();
        for (index, answer) in silent.into_iter().zip(traffic::send(&second)) {
            answers[index] = answer;
        }
    }
    Ok(wanted.iter().zip(answers).map(|(one, answer)| observed(one, answer)).collect())
}

/// The host that makes it.
fn caller(cluster: &Cluster, connection: &Connection) -> Result<usize> {
    match (&connection.node, connection.source) {
        (Some(node), _) => {
            cluster.plan.index(node).with_context(|| format!("the cluster has no node {node}"))
        }
        (None, Some(source)) => {
            host(cluster, source).with_context(|| format!("no host of the lab has {source}"))
        }
        (None, None) => anyhow::bail!("a connection to {} from nobody", connection.to),
    }
}

fn host(cluster: &Cluster, address: IpAddr) -> Option<usize> {
    cluster.plan.hosts.iter().position(|host| host.addresses.contains(&address))
}

/// Listens where connections may arrive, but for the ports that the lab's servers have.
fn listen(cluster: &Cluster, wanted: &[Connection]) -> Result<Server> {
    let mut missing: BTreeMap<usize, [BTreeSet<u16>; 2]> = BTreeMap::new();
    for Connection { protocol, at, .. } in wanted {
        for end in at {
            let Some(index) = host(cluster, end.ip()) else { continue };
            let plan = &cluster.plan.hosts[index];
            let own = cluster.scenario.pods.iter().any(|pod| pod.name == plan.name);
            if end.port() == POD_PORT && (own || plan.kind == Kind::Outside) {
                continue;
            }
            let [tcp, udp] = missing.entry(index).or_default();
            match protocol {
                observation::Ask::Tcp | observation::Ask::Http => tcp.insert(end.port()),
                observation::Ask::Udp => udp.insert(end.port()),
            };
        }
    }
    let place = |(index, [tcp, udp]): (usize, [BTreeSet<u16>; 2])| Place {
        namespace: Some(cluster.namespaces[index].path()),
        name: cluster.plan.hosts[index].name.clone(),
        tcp: tcp.into_iter().collect(),
        udp: udp.into_iter().collect(),
        icmp: false,
        proxy_protocol: false,
    };
    let places: Vec<Place> = missing.into_iter().map(place).collect();
    Server::start(&places, &[])
}

fn ask(protocol: observation::Ask) -> traffic::Ask {
    match protocol {
        observation::Ask::Tcp => traffic::Ask::Line,
        observation::Ask::Http => traffic::Ask::http(),
        observation::Ask::Udp => traffic::Ask::Datagram,
    }
}

/// An answer as `unmasq probe` tells it.
fn observed(connection: &Connection, answer: Answer) -> Observation {
    let foreign = |status, body: &[u8]| observation::Outcome::Foreign {
        status,
        begins: String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned(),
    };
    let outcome = match answer.outcome {
        Outcome::Answered { report: Some(report), .. } => observation::Outcome::Answered { report },
        Outcome::Answered { report: None, status, body, .. } => foreign(status, &body),
        Outcome::Misanswered { by, report: Some(report) } => {
            observation::Outcome::Misanswered { by, report }
        }
        Outcome::Misanswered { report: None, .. } => foreign(None, &[]),
        Outcome::Refused { how, by } => observation::Outcome::Refused { how, by },
        Outcome::Silent => observation::Outcome::Silent { connected: false },
        Outcome::Failed(reason) => observation::Outcome::Failed { reason },
    };
    let made = !matches!(outcome, observation::Outcome::Failed { .. });
    let from = made.then_some(answer.from);
    let seen = outcome.report().map(|report| report.source);
    Observation {
        protocol: connection.protocol,
        target: connection.to,
        from,
        seen,
        source: Source::of(from, seen),
        header: None,
        outcome,
        milliseconds: answer.took.as_millis() as u64,
    }
}

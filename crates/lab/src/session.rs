//! A scenario from its beginning to its end: the cluster with its servers, the matrix, the remedy
//! step by step.
//!
//! In: a scenario's text. Out: a [`Matrix`] for each state, and captures. The servers that answer
//! in pods, the health checks of load balancers and the proxies are real and run in this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use unmasq_model::packet::Family;
use unmasq_parse::capture::{MANIFEST, Manifest, NodeRecord, SCHEMA};

use crate::cluster::objects::Manifests;
use crate::cluster::plan::{Kind, plan};
use crate::cluster::rules::is_local;
use crate::cluster::{Cluster, POD_PORT, Progress};
use crate::matrix::{self, Matrix};
use crate::scenario::{Scenario, Tells};
use crate::spread::{self, Spread};
use crate::traffic::proxy_protocol::Version;
use crate::traffic::{
    self, Ask, Attempt, Forward, Health, HealthStatus, Hop, Outcome, Place, Server, ServiceHealth,
};

/// How often a load balancer asks a node that gives no answer, before it leaves that one out.
const HEALTH_CHECKS: usize = 3;

/// A cluster that is up, with its servers.
pub struct Session {
    // Sockets keep namespaces alive, so these go first.
    server: Option<Server>,
    proxy: Option<traffic::Proxy>,
    /// The cluster.
    pub cluster: Cluster,
    /// The settings after each step of the remedy.
    steps: Vec<Scenario>,
    /// How many steps were taken.
    taken: usize,
    /// The nodes that the load balancer lets in, by Service, where it asks.
    healthy: BTreeMap<String, Vec<usize>>,
}

impl Session {
    /// Builds a scenario's cluster, and starts its servers.
    pub fn up(text: &str, progress: Progress) -> Result<Session> {
        let scenario = Scenario::parse(text)?;
        let steps = Scenario::after_steps(text)?;
        let cluster = Cluster::up(&scenario, progress)?;
        let mut session = Session {
            server: None,
            proxy: None,
            cluster,
            steps,
            taken: 0,
            healthy: BTreeMap::new(),
        };
        session.serve()?;
        session.check_health(&scenario)?;
        Ok(session)
    }

    /// The scenario's text, from a file or by the name of one that comes with the lab.
    pub fn text(name: &str) -> Result<String> {
        if let Some(text) = crate::scenario::builtin(name) {
            return Ok(text.to_owned());
        }
        let path = Path::new(name);
        if !path.is_file() && std::path::absolute(path).is_ok_and(|full| full.starts_with("/run")) {
            bail!("the lab has a /run of its own: copy {name} to another folder");
        }
        if path.is_file() {
            return std::fs::read_to_string(path).with_context(|| format!("read {name}"));
        }
        let known: Vec<&str> = crate::scenario::BUILTIN.iter().map(|(name, _)| *name).collect();
        bail!("{name:?} is no file and no scenario of the lab, which are: {}", known.join(", "))
    }

    /// Fails where a scenario doesn't fit together, from its beginning to the end of its remedy.
    /// Builds nothing.
    pub fn check(text: &str) -> Result<()> {
        let scenario = Scenario::parse(text)?;
        for state in [vec![scenario], Scenario::after_steps(text)?].concat() {
            let manifests = Manifests::new(&state, &plan(&state))?;
            manifests.objects().context("manifests")?;
        }
        Ok(())
    }

    /// Foresees and asks everything.
    pub fn matrix(&self, progress: Progress) -> Result<Matrix> {
        matrix::matrix(&self.cluster, progress)
    }

    /// Takes the next step of the remedy; `false`: there is none.
    pub fn step(&mut self) -> Result<bool> {
        let Some(scenario) = self.steps.get(self.taken).cloned() else { return Ok(false) };
        self.apply(&scenario)?;
        self.taken += 1;
        Ok(true)
    }

    /// Takes over changed settings. What others did to the nodes' rules is gone then.
    pub fn apply(&mut self, scenario: &Scenario) -> Result<()> {
        self.cluster.apply(scenario, &|_| None)?;
        self.serve()?;
        self.check_health(scenario)
    }

    /// How many steps of the remedy were taken, of how many.
    pub fn progress(&self) -> (usize, usize) {
        (self.taken, self.steps.len())
    }

    /// Sends that many connections through the load balancer, and counts who answered.
    pub fn spread(&self, service: &str, from: &str, count: usize) -> Result<Spread> {
        let all = || self.cluster.nodes().collect();
        let nodes = self.healthy.get(service).cloned().unwrap_or_else(all);
        spread::measure(&self.cluster, service, from, count, &nodes)
    }

    /// The titles of the remedy's steps.
    pub fn titles(&self) -> Vec<String> {
        self.cluster.scenario.remedy.iter().map(|step| step.title.clone()).collect()
    }

    /// Starts the servers of all pods and outside hosts, and the health checks.
    fn serve(&mut self) -> Result<()> {
        self.server = None;
        self.proxy = None;
        let cluster = &self.cluster;
        let place = |(index, host): (usize, &crate::cluster::plan::Host)| {
            let own = cluster.scenario.pods.iter().any(|pod| pod.name == host.name);
            let serves = host.kind == Kind::Outside || own;
            serves.then(|| Place {
                namespace: Some(cluster.namespaces[index].path()),
                name: host.name.clone(),
                tcp: vec![POD_PORT],
                udp: vec![POD_PORT],
                icmp: true,
                proxy_protocol: cluster.expects_header(&host.name),
            })
        };
        let places: Vec<Place> = cluster.plan.hosts.iter().enumerate().filter_map(place).collect();
        let mut health = Vec::new();
        for service in &cluster.objects.services {
            let Some(port) = service.spec.health_check_node_port.filter(|_| is_local(service))
            else {
                continue;
            };
            let with = cluster.nodes_with_endpoints(service);
            for node in cluster.nodes() {
                health.push(Health {
                    namespace: Some(cluster.namespaces[node].path()),
                    port,
                    status: HealthStatus::new(ServiceHealth {
                        namespace: service.metadata.namespace.clone(),
                        name: service.metadata.name.clone(),
                        local_endpoints: usize::from(with.contains(&node)),
                        proxy_healthy: true,
                    }),
                });
            }
        }
        self.server = Some(once_free(|| Server::start(&places, &health))?);
        if let Some(proxy) = &cluster.scenario.proxy {
            let hop = Hop {
                namespace: Some(cluster.namespace("proxy")?.path()),
                port: proxy.port,
                proxy_protocol: false,
                forward: match proxy.tells {
                    Tells::Nothing => Forward::Nothing,
                    Tells::ForwardedFor => Forward::Http,
                    Tells::ProxyV1 => Forward::ProxyProtocol(Version::V1),
                    Tells::ProxyV2 => Forward::ProxyProtocol(Version::V2),
                },
                upstreams: matrix::upstreams(cluster, proxy),
            };
            self.proxy = Some(once_free(|| traffic::Proxy::start(&hop))?);
        }
        Ok(())
    }

    /// The load balancer asks the nodes' health ports, and balances over those that say yes.
    fn check_health(&mut self, scenario: &Scenario) -> Result<()> {
        self.healthy.clear();
        if !scenario.load_balancer.as_ref().is_some_and(|balancer| balancer.health_checks) {
            return Ok(());
        }
        let gateway = self.cluster.namespace("gateway")?.path();
        let nodes: Vec<usize> = self.cluster.nodes().collect();
        let mut healthy: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for service in &self.cluster.objects.services {
            let Some(port) = service.spec.health_check_node_port.filter(|_| is_local(service))
            else {
                continue;
            };
            let address = |node: &usize| {
                let of = |family| self.cluster.plan.address(*node, family);
                of(Family::V4).or_else(|| of(Family::V6))
            };
            let asked = nodes.iter().filter_map(|node| {
                let address = std::net::SocketAddr::new(address(node)?, port);
                let ask = Attempt::new(address, Ask::http());
                let namespace = Some(gateway.clone());
                Some((*node, Attempt { namespace, ..ask }))
            });
            healthy.insert(service.full_name(), fit(asked.collect()));
        }
        if healthy.is_empty() {
            return Ok(());
        }
        self.cluster.apply(scenario, &|service| healthy.get(&service.full_name()).cloned())?;
        self.healthy = healthy;
        Ok(())
    }

    /// The files of a capture of all nodes, the pods inside of their nodes, with the Kubernetes
    /// objects.
    pub fn capture(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let state = self.cluster.observe()?;
        let mut files = BTreeMap::new();
        for (path, text) in state.files {
            let named = path.strip_prefix("nodes/").and_then(|rest| rest.split_once('/'));
            let Some((name, file)) = named else { continue };
            if let Some((node, below)) = self.place(name) {
                files.insert(format!("nodes/{node}/{below}{file}"), text);
            }
        }
        let mut nodes: BTreeMap<String, NodeRecord> = BTreeMap::new();
        for (name, absent) in state.absent {
            if let Some((node, below)) = self.place(&name) {
                let record = nodes.entry(node.to_owned()).or_default();
                let below = |(file, what)| (format!("{below}{file}"), what);
                record.files.extend(absent.into_iter().map(below));
            }
        }
        files.extend(self.cluster.manifests.files());
        let manifest = Manifest {
            schema: SCHEMA.to_owned(),
            by: Some(format!("unmasq lab, scenario {}", self.cluster.scenario.name)),
            nodes,
            ..Manifest::default()
        };
        files.insert(MANIFEST.to_owned(), serde_json::to_vec_pretty(&manifest)?);
        Ok(files)
    }

    /// The node in whose folder a host's files belong, and the folder in it, with a slash at the end;
    /// `None`: hosts of no node.
    fn place(&self, name: &str) -> Option<(&str, String)> {
        let plan = &self.cluster.plan;
        let host = &plan.hosts[plan.index(name)?];
        match host.kind {
            Kind::Node => Some((&host.name, String::new())),
            Kind::Pod => {
                let namespace = self.cluster.manifests.pod_namespace(name)?;
                Some((&plan.hosts[host.node?].name, format!("pods/{namespace}_{name}/")))
            }
            Kind::Outside | Kind::Gateway | Kind::Proxy | Kind::Switch => None,
        }
    }
}

/// How long the ports of servers that were stopped may stay taken.
const TAKEN: Duration = Duration::from_secs(3);

/// Starts something that listens, as soon as its ports are free. A command that another thread
/// starts holds copies of all sockets between its fork and its exec, those that were closed
/// meanwhile too, and nothing tells when it has let go of them.
fn once_free<T>(start: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + TAKEN;
    loop {
        let started = start();
        let Err(error) = &started else { return started };
        let taken = |cause: &(dyn std::error::Error + 'static)| {
            let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            kind == Some(std::io::ErrorKind::AddrInUse)
        };
        if !error.chain().any(taken) || Instant::now() >= deadline {
            return started;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The nodes that say of themselves that they are fit. One that gives no answer may be busy.
fn fit(mut asked: Vec<(usize, Attempt)>) -> Vec<usize> {
    let mut fit = Vec::new();
    for _ in 0..HEALTH_CHECKS {
        let attempts: Vec<Attempt> = asked.iter().map(|(_, attempt)| attempt.clone()).collect();
        let answers = traffic::send(&attempts);
        let all = std::mem::take(&mut asked).into_iter().zip(answers);
        for ((node, attempt), answer) in all {
            match answer.outcome {
                Outcome::Answered { status: Some(200), .. } => fit.push(node),
                Outcome::Answered { .. } => {}
                Outcome::Misanswered { .. }
                | Outcome::Refused { .. }
                | Outcome::Silent
                | Outcome::Failed(_) => asked.push((node, attempt)),
            }
        }
        if asked.is_empty() {
            break;
        }
    }
    fit.sort_unstable();
    fit
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    /// A server on loopback that says these things in turn, one for each connection.
    fn server(says: Vec<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (stream, text) in listener.incoming().zip(says) {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(text.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn a_busy_node_is_asked_again_and_one_that_is_not_fit_is_left_out() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let unfit = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        let servers = [vec![ok], vec!["", ok], vec![unfit, ok], vec!["", "", "", ok]];
        let attempt = |says| Attempt::new(server(says), Ask::http());
        assert_eq!(fit((5..).zip(servers.map(attempt)).collect()), [5, 6]);
    }
}

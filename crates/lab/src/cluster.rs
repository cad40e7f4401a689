//! A whole cluster network in network namespaces, built from a scenario.
//!
//! In: a [`Scenario`]. Out: namespaces with devices, addresses, routes and the rules of the
//! scenario's programs; the state of all of them as it is read ([`Cluster::observe`]); and, after a
//! step of a remedy, the rules of the changed settings ([`Cluster::apply`]).
//!
//! ```text
//! Scenario ─ plan ─▶ Plan ─ Cluster::up ─▶ namespaces ─ collect ─▶ State ─▶ Net (journeys)
//!        └── objects ─▶ Manifests ─ rules ─▶ Loads ────┘
//! ```
//!
//! It sends no traffic: that is [`crate::matrix`].

mod change;
pub mod objects;
pub mod plan;
pub mod rules;
pub mod settings;
pub mod wires;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use unmasq_eval::Evaluator;
use unmasq_eval::trace::Options;
use unmasq_host::collect::{self, Collected, collect};
use unmasq_model::host;
use unmasq_model::packet::Family;
use unmasq_parse::capture::{FileRecord, Status};

use crate::connections;
use crate::namespace::Namespace;
use crate::scenario::{Pod, Scenario, Tells};
use objects::Manifests;
use plan::{Kind, Plan};
use rules::{BALANCER_PODS, HostRules};
use unmasq_cluster::kubernetes::{Objects, Service};

/// The port that every pod and outside host answers on.
pub const POD_PORT: u16 = 8080;

/// Says what is being done.
pub type Progress<'p> = &'p (dyn Fn(&str) + Sync);

/// A cluster that is up. Dropping it deletes its namespaces.
pub struct Cluster {
    /// What it was built from, as its settings are now.
    pub scenario: Scenario,
    /// Its hosts and links.
    pub plan: Plan,
    /// Its Kubernetes objects.
    pub manifests: Manifests,
    /// The fields of them that rules follow from.
    pub objects: Objects,
    /// Namespaces, by host.
    pub namespaces: Vec<Namespace>,
    /// What each host was loaded with.
    pub rules: Vec<HostRules>,
    /// Why some hosts have new settings or rules and others old ones, if it is so.
    between: Option<String>,
}

/// The state of all hosts as it was read.
pub struct State {
    /// By host; `None` for switches.
    pub hosts: Vec<Option<host::Host>>,
    /// The files of a capture, below `nodes/NAME/` for every host.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Those that the kernel has nothing for, by the host's name and the file's. That this machine
    /// has no bpftool says nothing of the cluster.
    pub absent: BTreeMap<String, BTreeMap<String, FileRecord>>,
}

impl Cluster {
    /// Builds it, and loads the rules.
    pub fn up(scenario: &Scenario, progress: Progress) -> Result<Cluster> {
        let plan = plan::plan(scenario);
        let manifests = Manifests::new(scenario, &plan)?;
        let objects = manifests.objects().context("manifests")?;
        progress(&format!("making {} hosts", plan.hosts.len()));
        let roles: Vec<&str> = plan.hosts.iter().map(|host| host.name.as_str()).collect();
        let namespaces = Namespace::several(&roles)?;
        let mut cluster = Cluster {
            scenario: scenario.clone(),
            plan,
            manifests,
            objects,
            namespaces,
            rules: Vec::new(),
            between: None,
        };
        let rules = written(scenario, &cluster.plan, &cluster.objects, &|_| None)?;
        cluster.wire()?;
        progress("loading rules");
        cluster.load(&rules)?;
        cluster.rules = rules;
        Ok(cluster)
    }

    /// Takes over changed settings: what the owners of the rules would then write. `healthy`: the
    /// nodes that a load balancer's health checks let in, by Service; `None`: all.
    ///
    /// Everything that can be known to fail does before the first host is changed. After a failure
    /// in the middle the cluster is neither as before nor as wanted, and takes no further change.
    pub fn apply(
        &mut self,
        scenario: &Scenario,
        healthy: &(dyn Fn(&Service) -> Option<Vec<usize>> + Sync),
    ) -> Result<()> {
        if let Some(why) = &self.between {
            bail!("an earlier change failed half way ({why}); the cluster has to be built anew");
        }
        let plan = plan::plan(scenario);
        change::check(&self.plan, &plan)?;
        let manifests = Manifests::new(scenario, &plan)?;
        let objects = manifests.objects().context("manifests")?;
        let rules = written(scenario, &plan, &objects, healthy)?;
        if let Err(error) = self.reroute(&plan).and_then(|()| self.load(&rules)) {
            self.between = Some(format!("{error:#}"));
            return Err(error.context(
                "the change failed half way: some hosts have it and others don't, so the cluster \
                 has to be built anew",
            ));
        }
        let scenario = scenario.clone();
        let (namespaces, between) = (std::mem::take(&mut self.namespaces), None);
        *self = Cluster { scenario, plan, manifests, objects, namespaces, rules, between };
        Ok(())
    }

    /// A host's namespace by its name.
    pub fn namespace(&self, name: &str) -> Result<&Namespace> {
        let index = self.plan.index(name).with_context(|| {
            let all: Vec<&str> = self.plan.hosts.iter().map(|host| host.name.as_str()).collect();
            format!("there is no {name:?} here: {}", all.join(", "))
        })?;
        Ok(&self.namespaces[index])
    }

    /// Runs a closure for every host, on as many threads as there are CPUs.
    fn each(&self, run: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
        let next = AtomicUsize::new(0);
        let count = self.plan.hosts.len();
        let workers = thread::available_parallelism().map_or(2, usize::from).max(2);
        let work = || -> Result<()> {
            loop {
                let host = next.fetch_add(1, Ordering::Relaxed);
                if host >= count {
                    return Ok(());
                }
                run(host).with_context(|| format!("host {}", self.plan.hosts[host].name))?;
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, Result<()>>| {
                worker.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
            };
            workers.into_iter().try_for_each(join)
        })
    }

    /// Settings, links, addresses and routes.
    fn wire(&self) -> Result<()> {
        self.each(|host| set(&self.namespaces[host], &self.plan.hosts[host].settings))?;
        let mut links = self.plan.links.join("\n");
        // From the last, so that {1} is not found in {12}.
        for (index, namespace) in self.namespaces.iter().enumerate().rev() {
            links = links.replace(&format!("{{{index}}}"), namespace.name());
        }
        crate::namespace::run_with(&["ip", "-batch", "-"], &(links + "\n"))
            .context("make links")?;
        self.each(|host| {
            let (namespace, plan) = (&self.namespaces[host], &self.plan.hosts[host]);
            namespace.exec_with(&["ip", "-batch", "-"], &(plan.ip.join("\n") + "\n"))?;
            if !plan.bridge.is_empty() {
                let text = plan.bridge.join("\n") + "\n";
                namespace.exec_with(&["bridge", "-batch", "-"], &text)?;
            }
            set(namespace, &plan.device_settings)
        })
    }

    /// Addresses and routes that a change of settings adds or removes.
    fn reroute(&self, plan: &Plan) -> Result<()> {
        self.each(|host| {
            let (old, new) = (&self.plan.hosts[host].ip, &plan.hosts[host].ip);
            let only_in = |one: &[String], other: &[String], what: &str| -> Vec<String> {
                let kind = |line: &&String| line.starts_with(what) && !other.contains(line);
                one.iter().filter(kind).cloned().collect()
            };
            let delete = |line: &String| line.replacen(" add ", " del ", 1).replace(" nodad", "");
            // Routes stand on addresses.
            let gone = [only_in(old, new, "route add "), only_in(old, new, "addr add ")].concat();
            let come = [only_in(new, old, "addr add "), only_in(new, old, "route add ")].concat();
            let text: Vec<String> = gone.iter().map(delete).chain(come).collect();
            if text.is_empty() {
                return Ok(());
            }
            let text = text.join("\n") + "\n";
            self.namespaces[host].exec_with(&["ip", "-batch", "-"], &text).map(drop)
        })
    }

    /// Replaces all rules, and forgets connections: they would keep their translations.
    fn load(&self, written: &[HostRules]) -> Result<()> {
        self.each(|host| {
            let namespace = &self.namespaces[host];
            if self.rules.get(host).is_some_and(|rules| !rules.loads.is_empty()) {
                forget_rules(namespace)?;
            }
            for load in &written[host].loads {
                let command: Vec<&str> = load.command.iter().map(String::as_str).collect();
                namespace.exec_with(&command, &load.text)?;
            }
            if self.translates(host) {
                namespace.enter(connections::forget)??;
            }
            Ok(())
        })
    }

    /// Whether a host may have connections that keep a translation.
    fn translates(&self, host: usize) -> bool {
        let plan = &self.plan.hosts[host];
        matches!(plan.kind, Kind::Node | Kind::Gateway) || plan.name.starts_with(BALANCER_PODS)
    }

    /// Forgets the connections that hosts track.
    pub fn forget_connections(&self) -> Result<()> {
        self.each(|host| match self.plan.hosts[host].kind {
            Kind::Switch => Ok(()),
            Kind::Node | Kind::Pod | Kind::Outside | Kind::Gateway | Kind::Proxy => {
                self.namespaces[host].enter(connections::forget)?
            }
        })
    }

    /// The indices of the nodes.
    pub fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.plan.nodes()
    }

    /// The nodes that have a ready endpoint of a Service.
    pub fn nodes_with_endpoints(&self, service: &Service) -> Vec<usize> {
        let slices = self.objects.endpoint_slices.iter().filter(|slice| {
            slice.service() == Some(&service.metadata.name)
                && slice.metadata.namespace == service.metadata.namespace
        });
        let names: Vec<&str> = slices
            .flat_map(|slice| &slice.endpoints)
            .filter_map(|endpoint| endpoint.node_name.as_deref())
            .collect();
        self.nodes().filter(|node| names.contains(&&*self.plan.hosts[*node].name)).collect()
    }

    /// The pods behind a Service.
    pub fn endpoints(&self, service: &Service) -> Vec<&Pod> {
        let slices = self.objects.endpoint_slices.iter().filter(|slice| {
            slice.service() == Some(&service.metadata.name)
                && slice.metadata.namespace == service.metadata.namespace
        });
        let addresses: Vec<IpAddr> = slices
            .flat_map(|slice| &slice.endpoints)
            .flat_map(|endpoint| endpoint.addresses.iter().copied())
            .collect();
        let is_one = |pod: &&Pod| {
            let host = self.plan.index(&pod.name).map(|index| &self.plan.hosts[index]);
            host.is_some_and(|host| host.addresses.iter().any(|one| addresses.contains(one)))
        };
        self.scenario.pods.iter().filter(is_one).collect()
    }

    /// A Service by `namespace/name`.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.objects.services.iter().find(|service| service.full_name() == name)
    }

    /// Whether a pod's server takes only connections that begin with a PROXY protocol header.
    pub fn expects_header(&self, pod: &str) -> bool {
        let Some(proxy) = &self.scenario.proxy else { return false };
        let speaks = matches!(proxy.tells, Tells::ProxyV1 | Tells::ProxyV2) && proxy.pods_read_it;
        let service = self.service(&proxy.service).filter(|_| speaks);
        service.is_some_and(|service| self.endpoints(service).iter().any(|one| one.name == pod))
    }

    /// The files that were read from a host, with those of its machine if it is a node: namespaces
    /// have no processes and files of their own.
    fn with_settings(
        &self,
        name: &str,
        mut files: BTreeMap<String, Vec<u8>>,
    ) -> BTreeMap<String, Vec<u8>> {
        if let Some(node) = self.scenario.nodes.iter().find(|node| node.name == name) {
            let own = settings::node_files(&self.scenario, node);
            files
                .extend(own.into_iter().map(|(path, text)| (format!("nodes/{name}/{path}"), text)));
        }
        files
    }

    /// Reads every host's state, as `unmasq collect` does.
    pub fn observe(&self) -> Result<State> {
        let read = std::sync::Mutex::new(BTreeMap::new());
        self.each(|host| {
            let plan = &self.plan.hosts[host];
            if plan.kind == Kind::Switch {
                return Ok(());
            }
            let Collected { files, report, .. } = collect(&collect::Options {
                node: Some(plan.name.clone()),
                netns: Some(self.namespaces[host].path()),
                ..collect::Options::default()
            })?;
            let failed = |step: &&collect::Step| step.status == Status::Failed;
            if let Some(step) = report.iter().filter(|step| step.file != "bpf").find(failed) {
                bail!("{} failed: {}", step.command, step.detail);
            }
            let absent = report.into_iter().filter(|step| step.status == Status::Absent);
            let record = |step: collect::Step| FileRecord {
                command: step.command,
                status: step.status,
                detail: step.detail,
            };
            let absent = absent.map(|step| (step.file.clone(), record(step))).collect();
            let parsed = parse(&plan.name, &files)?;
            let files = self.with_settings(&plan.name, files);
            let mut read = read.lock().map_err(|_| anyhow!("a worker panicked"))?;
            read.insert(host, (parsed, files, absent));
            Ok(())
        })?;
        let mut read = read.into_inner().map_err(|_| anyhow!("a worker panicked"))?;
        let mut state =
            State { hosts: Vec::new(), files: BTreeMap::new(), absent: BTreeMap::new() };
        for (host, plan) in self.plan.hosts.iter().enumerate() {
            let Some((parsed, files, absent)) = read.remove(&host) else {
                state.hosts.push(None);
                continue;
            };
            state.hosts.push(Some(parsed));
            state.files.extend(files.into_iter().filter(|(path, _)| path != "capture.json"));
            state.absent.insert(plan.name.clone(), absent);
        }
        Ok(state)
    }
}

impl State {
    /// Evaluators by host. Switches have none of their own rules: an empty host stands for them.
    pub fn evaluators<'s>(&'s self, nothing: &'s host::Host) -> Vec<Evaluator<'s>> {
        let options = Options { every_entry: true, ..Options::default() };
        let hosts = self.hosts.iter().map(|host| host.as_ref().unwrap_or(nothing));
        hosts.map(|host| Evaluator::new(host, options)).collect()
    }
}

fn parse(name: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<host::Host> {
    let capture = unmasq_parse::capture::parse(files).context("read the capture")?;
    Ok(capture.node(name).context("the capture has no node")?.host)
}

/// The rules of all hosts.
fn written(
    scenario: &Scenario,
    plan: &Plan,
    objects: &Objects,
    healthy: &(dyn Fn(&Service) -> Option<Vec<usize>> + Sync),
) -> Result<Vec<HostRules>> {
    let backends = |service: &Service| healthy(service).unwrap_or_else(|| plan.nodes().collect());
    let write = |host| rules::rules(scenario, plan, objects, host, &backends);
    (0..plan.hosts.len()).map(write).collect()
}

/// Writes settings below /proc/sys. Those that the kernel doesn't have are passed over if they
/// belong to a part that is not there (bridges).
fn set(namespace: &Namespace, settings: &[(String, &'static str)]) -> Result<()> {
    namespace.enter(|| {
        for (name, value) in settings {
            let path = format!("/proc/sys/{name}");
            fs::write(&path, value).with_context(|| format!("write {value} to {path}"))?;
        }
        Ok(())
    })?
}

/// Removes all rules and sets of a namespace.
fn forget_rules(namespace: &Namespace) -> Result<()> {
    for kind in ["iptables", "ip6tables"] {
        let names = match kind {
            "iptables" => "/proc/thread-self/net/ip_tables_names",
            _ => "/proc/thread-self/net/ip6_tables_names",
        };
        let tables = namespace.enter(|| fs::read_to_string(names).unwrap_or_default())?;
        let text: String = tables.lines().map(|table| format!("*{table}\nCOMMIT\n")).collect();
        if !text.is_empty() {
            namespace.exec_with(&[&format!("{kind}-legacy-restore")], &text)?;
        }
    }
    namespace.exec(&["nft", "flush", "ruleset"])?;
    namespace.exec(&["ipset", "destroy"])?;
    Ok(())
}

/// Both families, for loops.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

//! An audit: the matrix asked for, its rows judged, and what belongs together put into findings.
//!
//! ```text
//! Cluster ─ Clients ─ Paths ─▶ Matrix ─ judge ─▶ Group (kind, rows, Services) ─ describe ─▶ Finding
//!                                      └ expectations, settings that depend on the source
//! ```
//!
//! What is found without a row (a pool that nobody uses, overlapping networks) comes from
//! [`checks`]; settings that can't work because of a finding, from [`dependents`].

mod checks;
mod dependents;
mod describe;
mod group;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{IpPool, Lookup, Service, ServiceType};
use unmasq_cluster::networks::NetworkKind;
use unmasq_cluster::paths::{self, Caller, Paths};
use unmasq_eval::trace::{Options, RuleId};
use unmasq_model::host::Host;
use unmasq_model::packet::{Family, Protocol};

use self::describe::flannel;
use crate::dependent::{self, Broken, Dependence};
use crate::expect::{Expectations, Judge, Verdict};
use crate::judge::{Judgement, Suspect, is_drop_without_endpoint, judge};
use crate::matrix::{self, Asker, Cell, Client, Clients, Entry, Matrix, Row};
use crate::{
    Affected, Audit, Evidence, Finding, FindingId, Owner, RuleText, Severity, Totals, quoted,
    shell, short_text,
};
use group::{Gathered, Key, Told};

pub(crate) use group::Group;

/// How to audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    /// Take nothing for granted: what would be an assumption becomes unknown.
    pub strict: bool,
}

/// Audits a cluster. `progress` hears how many of how many Services are done, from any thread.
pub fn audit(
    cluster: &Cluster,
    expectations: &Expectations,
    request: Request,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Audit {
    let lookup = Lookup::new(&cluster.objects);
    let dependences = dependent::dependences_by(&lookup, cluster);
    let clients = clients(cluster, expectations, &dependences);
    let paths = Paths::new(cluster, Options { strict: request.strict, ..Options::default() });
    let matrix = matrix::build(&paths, &clients, progress);
    let asker = Asker::new(&paths, &clients);
    let judge = Judge::new(expectations, cluster);
    let context = Context {
        cluster,
        lookup: &lookup,
        expectations,
        judge: &judge,
        paths: &paths,
        matrix: &matrix,
        asker: &asker,
    };
    let broken = dependent::broken(cluster, &matrix, &dependences);
    let by_row = dependents::by_row(&broken);
    let mut gathered: BTreeMap<Key, Gathered> = BTreeMap::new();
    let mut totals = totals(&context);
    for (index, row) in matrix.rows.iter().enumerate() {
        let settings = by_row.get(&index).map_or(&[][..], Vec::as_slice);
        let judgement = context.judge(index, row, settings);
        *totals.of(&judgement) += row.count;
        let Judged::Found { suspect, told, breaks } = judgement else { continue };
        let subject = context.subject(row, &suspect, &told.hurt);
        let key = (suspect.id, subject);
        let all = gathered.entry(key).or_insert_with(|| Gathered::new(suspect));
        all.add(told);
        all.breaks(breaks);
    }
    let mut cases = dependents::cases(&context, &dependences, &broken);
    dependents::blame(&context, &mut cases, &mut gathered);
    let mut findings: Vec<Finding> = Vec::new();
    // The finding of what breaks, by what it was gathered as.
    let mut breaking: BTreeMap<Key, usize> = BTreeMap::new();
    for (key, gathered) in gathered {
        for group in gathered.groups() {
            if !group.breaks.is_empty() {
                breaking.insert(key.clone(), findings.len());
            }
            findings.push(context.finding(&key.1, &group));
        }
    }
    let following = dependents::of(&context, cases, &dependences, &breaking, &mut findings);
    checks::add(&context, &mut findings);
    findings.sort_by(|a, b| order(b).cmp(&order(a)).then_with(|| name(a).cmp(&name(b))));
    dependents::put_behind(following, &mut findings);
    let mut missing = cluster.missing.clone();
    missing.extend(checks::unseen(cluster));
    missing.extend(dependent::unjudged(&dependences));
    missing.extend(dependent::unused(cluster));
    let mut hidden = hidden(cluster);
    hidden.extend(clients.left_out.iter().cloned());
    hidden.extend(expectations.mismatches(cluster));
    hidden.extend(judge.unjudged(&matrix));
    let assumptions = assumptions(cluster, &matrix);
    let mut doubts = crate::doubts::doubts(cluster);
    doubts.extend(crate::doubts::of_lists(&dependences));
    Audit { findings, matrix, totals, assumptions, missing, hidden, doubts }
}

/// Whom an audit asks about outside: anybody, and everybody whom a rule, a setting or an expectation
/// names. `dependences` are the settings that depend on the source.
pub fn clients(
    cluster: &Cluster,
    expectations: &Expectations,
    dependences: &[Dependence],
) -> Clients {
    let mut clients = Clients::of(cluster);
    expectations.add_to(cluster, &mut clients);
    dependent::add_to(dependences, cluster, &mut clients);
    clients
}

/// What could hide a loss.
fn hidden(cluster: &Cluster) -> Vec<String> {
    let mut all = Vec::new();
    for node in cluster.nodes.iter().filter(|node| node.host.is_none()) {
        all.push(format!("the state of node {} was not captured", node.name));
    }
    for node in &cluster.nodes {
        let Some(host) = &node.host else { continue };
        for (what, lost) in [
            ("its addresses (ip-addr.json)", host.links.is_none()),
            ("its IPv4 routes (ip-route.json)", host.routes4.is_none()),
            ("its IPv4 policy rules (ip-rule.json)", host.rules4.is_none()),
        ] {
            if lost {
                all.push(format!("node {}: {what} were not captured, or can't be read", node.name));
            }
        }
        // A node with Services' programs and not one rule: its rules were not seen.
        let proxied = node.processes.iter().flatten().any(|one| one.name == "kube-proxy");
        let mut chains = host.ruleset.tables.iter().flat_map(|table| &table.chains);
        if proxied && !chains.any(|chain| !chain.rules.is_empty()) {
            all.push(format!(
                "node {}: kube-proxy runs there, and not one rule was captured \
                 (iptables-legacy-save, iptables-save, nft.json)",
                node.name
            ));
        }
    }
    all.extend(cluster.nodes.iter().filter_map(|node| without_services(cluster, node)));
    // Without a line it is about a whole file: an empty one is what kubectl leaves of a kind that the
    // cluster doesn't have.
    let others = cluster.problems.iter().filter(|one| one.line.is_some());
    let others = others.filter(|one| !checks::is_found(one));
    let others: Vec<String> = others.map(ToString::to_string).collect();
    if let [first, rest @ ..] = &others[..] {
        let more = match rest.len() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        all.push(format!("not all objects could be read, so they were not asked: {first}{more}"));
    }
    all.extend(checks::unread_settings(cluster));
    let sets = matrix::unknown_sets(cluster);
    if !sets.is_empty() {
        let names: Vec<&str> = sets.iter().map(String::as_str).collect();
        all.push(format!(
            "what these sets hold, which rules want sources to be in, was not captured \
             (ipset.save), so clients in them were not asked: {}",
            names.join(", ")
        ));
    }
    if cluster.objects.services.is_empty() && cluster.nodes.iter().any(serves) {
        all.push(
            "Services were not captured (kubernetes/services.json), and nodes have rules for some"
                .to_owned(),
        );
    }
    if !cluster.objects.services.is_empty() && cluster.objects.endpoint_slices.is_empty() {
        let what = "kubernetes/endpointslices.discovery.k8s.io.json";
        all.push(format!("the endpoints of Services were not captured ({what})"));
    }
    all
}

/// That a node has no rule for any Service, and may have them where nobody looked.
fn without_services(cluster: &Cluster, node: &unmasq_cluster::Node) -> Option<String> {
    let host = node.host.as_ref()?;
    let called = |one: &Service| !one.spec.cluster_ips.is_empty();
    if paths::serves(host) || !cluster.objects.services.iter().any(called) {
        return None;
    }
    let file = paths::legacy_file(host, Family::V4)?;
    let name = &node.name;
    Some(format!(
        "node {name}: no rule for any Service was captured, and {file} is not in the capture, where \
         they may be: on it, as root: {file} > nodes/{name}/{file}"
    ))
}

/// Whether a node has rules of kube-proxy for a Service.
fn serves(node: &unmasq_cluster::Node) -> bool {
    let tables = node.host.iter().flat_map(|host| &host.ruleset.tables);
    let mut chains = tables.flat_map(|table| &table.chains);
    chains.any(|chain| chain.name.starts_with("KUBE-SVC-") || chain.name.starts_with("service-"))
}

/// The worst first; then what takes sources from most.
fn order(finding: &Finding) -> (Severity, usize, usize) {
    (finding.severity, finding.affected.services.len(), finding.affected.flows.len())
}

fn name(finding: &Finding) -> (FindingId, &str) {
    (finding.id, &finding.subject)
}

/// What findings are made from.
pub(crate) struct Context<'a, 'c> {
    pub(crate) cluster: &'c Cluster,
    pub(crate) lookup: &'a Lookup<'c>,
    pub(crate) expectations: &'a Expectations,
    pub(crate) judge: &'a Judge<'a>,
    pub(crate) paths: &'a Paths<'c>,
    pub(crate) matrix: &'a Matrix,
    pub(crate) asker: &'a Asker<'a, 'c>,
}

/// What a row means once expectations and settings are heard.
enum Judged {
    Fine,
    Expected,
    Found { suspect: Suspect, told: Told, breaks: Vec<String> },
    NotAnswered,
    Unknown,
}

impl<'c> Context<'_, 'c> {
    /// Judges a row by itself, by what is expected, and by the settings that it breaks: for each of
    /// its Services.
    fn judge(&self, index: usize, row: &Row, settings: &[&Broken]) -> Judged {
        let (breaks, hurt) = self.breaks(row, settings);
        let found = |suspect: Suspect, rest: Option<(Severity, Vec<u32>)>| {
            let (broken, family) = (!breaks.is_empty(), row.cell.family);
            let hurt = hurt.iter().copied().collect();
            let told = Told { row: index, family, breaks: broken, hurt, rest };
            Judged::Found { suspect, told, breaks: breaks.clone() }
        };
        match judge(&row.cell) {
            Judgement::Found(suspect, severity) => match self.rest(row, &breaks, &hurt) {
                None if breaks.is_empty() => Judged::Expected,
                rest => found(self.refined(row, suspect), rest.map(|rest| (severity, rest))),
            },
            Judgement::Expected(_) if breaks.is_empty() => Judged::Expected,
            Judgement::Expected(suspect) => found(self.refined(row, suspect), None),
            Judgement::Fine if breaks.is_empty() => Judged::Fine,
            Judgement::Fine => {
                found(Suspect::nobody(FindingId::ExpectationBroken, Owner::Unclaimed), None)
            }
            Judgement::Unknown => Judged::Unknown,
            Judgement::NotAnswered => {
                let Some((line, hurt)) = self.unanswered(row) else { return Judged::NotAnswered };
                let suspect = self.why_silent(row);
                let family = row.cell.family;
                let told = Told { row: index, family, breaks: true, hurt, rest: None };
                Judged::Found { suspect, told, breaks: vec![line] }
            }
        }
    }

    /// What a row breaks, in sentences, and for which of its Services.
    fn breaks(&self, row: &Row, settings: &[&Broken]) -> (Vec<String>, BTreeSet<u32>) {
        let (mut sentences, mut hurt) = (Vec::new(), BTreeSet::new());
        for breach in self.judge.broken(row) {
            sentences.push(breach.sentence);
            hurt.extend(breach.services);
        }
        for one in settings {
            sentences.push(dependents::told(one));
            hurt.extend(dependents::both(&one.services, &row.services));
        }
        (sentences, hurt)
    }

    /// The Services of a row that nothing breaks for, without those for which somebody wants it so:
    /// told in another way, or to be translated. `None`: nobody is left; empty: the row is about no
    /// Service.
    fn rest(&self, row: &Row, breaks: &[String], hurt: &BTreeSet<u32>) -> Option<Vec<u32>> {
        let wanted = |service: Option<u32>| self.judge.judge(row, service) == Verdict::Kept;
        if row.services.is_empty() {
            return (breaks.is_empty() && !wanted(None)).then(Vec::new);
        }
        let others = row.services.iter().copied().filter(|service| !hurt.contains(service));
        let others: Vec<u32> = others.filter(|service| !wanted(Some(*service))).collect();
        (!others.is_empty()).then_some(others)
    }

    /// The expectation that a row without an answer breaks, and for which Services. Nodes that drop
    /// what they have no endpoint for do as they should, unless a load balancer is known to send it
    /// to them.
    fn unanswered(&self, row: &Row) -> Option<(String, Vec<u32>)> {
        let without_endpoint = is_drop_without_endpoint(&row.cell);
        let balanced = |service: &Service| {
            row.cell.entry == Entry::LoadBalancer
                && self.expectations.health_checks(service) == Some(false)
        };
        let service = |index: &u32| self.cluster.objects.services.get(*index as usize);
        // Nobody is there who could see a source.
        let empty = |one: &Service| self.lookup.has_endpoint(one) == Some(false);
        let hurt = |index: &u32| {
            !service(index).is_some_and(empty)
                && (!without_endpoint || service(index).is_some_and(balanced))
        };
        let line = |service| self.judge.unanswered(row, service);
        if row.services.is_empty() {
            return Some((line(None)?, Vec::new()));
        }
        let (mut first, mut services) = (None, Vec::new());
        for index in row.services.iter().filter(|index| hurt(index)) {
            if let Some(line) = line(Some(*index)) {
                first.get_or_insert(line);
                services.push(*index);
            }
        }
        Some((first?, services))
    }

    /// Why a row has no answer: a load balancer that asks nobody, or a network that a node takes
    /// for its own.
    fn why_silent(&self, row: &Row) -> Suspect {
        if is_drop_without_endpoint(&row.cell) {
            return Suspect::nobody(FindingId::LocalPolicyUnsafe, Owner::KubeProxy);
        }
        let caller = self.caller(row);
        let outside = matches!(row.cell.client, Client::Outside(_));
        let taken =
            |address: IpAddr| matrix::bridged(self.cluster).any(|net| net.contains(&address));
        match outside && caller.is_some_and(taken) {
            // A bridge has the network: the engine's, unless its name says otherwise.
            true => {
                let hosts = self.cluster.nodes.iter().flat_map(|node| &node.host);
                let mut links = hosts.flat_map(|host| host.links.iter().flatten()).filter(|link| {
                    let nets = link.addresses.iter().filter_map(|address| address.network());
                    caller.is_some_and(|caller| nets.into_iter().any(|net| net.contains(&caller)))
                });
                let owner = links.find_map(|link| crate::shape::by_bridge(&link.name));
                let owner = owner.unwrap_or(Owner::ContainerEngine);
                Suspect::nobody(FindingId::OverlappingRanges, owner)
            }
            false => Suspect::nobody(FindingId::NoReply, Owner::Unclaimed),
        }
    }

    /// Of Calico's pool that pods use, clients in it are not the pool's fault: they have addresses
    /// that are pods'.
    fn refined(&self, row: &Row, suspect: Suspect) -> Suspect {
        // An older flannel that runs writes into POSTROUTING what a newer one leaves there.
        if suspect.id == FindingId::StaleFlannelRules && !self.is_left_by_flannel(row) {
            return Suspect { id: FindingId::FlannelMasquerade, ..suspect };
        }
        let networks = &self.cluster.networks.all;
        let pool = self.pool_of(row).map(|pool| &pool.metadata.name);
        let used = networks.iter().any(|network| match &network.kind {
            NetworkKind::Pool(one) => Some(&one.name) == pool && one.used == Some(true),
            NetworkKind::ClusterPods
            | NetworkKind::NodePods { .. }
            | NetworkKind::Services
            | NetworkKind::Lan
            | NetworkKind::Bridge
            | NetworkKind::Route => false,
        });
        match suspect.id == FindingId::CalicoUnusedPool && used {
            true => Suspect { id: FindingId::OverlappingRanges, ..suspect },
            false => suspect,
        }
    }

    /// Whether the node whose rule rewrites a row's source has it from a flannel that is gone.
    fn is_left_by_flannel(&self, row: &Row) -> bool {
        let host = row.witness.rewriters.first().map(|(host, _)| *host);
        let node = host.and_then(|host| self.paths.node_of(host));
        let node = node.and_then(|node| self.cluster.nodes.get(node));
        node.is_some_and(|node| flannel::writer(self.cluster, node) == flannel::Writer::Gone)
    }

    /// Calico's pool that a row's caller has an address of. Of pools inside each other one with
    /// natOutgoing, for Felix masquerades what comes from any such (felix/dataplane/linux/masq_mgr.go);
    /// then the narrowest.
    fn pool_of(&self, row: &Row) -> Option<&'c IpPool> {
        let caller = self.caller(row)?;
        let pools = self.cluster.objects.ip_pools.iter();
        pools
            .filter(|pool| pool.spec.cidr.contains(&caller))
            .max_by_key(|pool| (pool.spec.nat_outgoing, pool.spec.cidr.prefix_len()))
    }

    /// Which one of its kind a suspect is that hurts these Services.
    fn subject(&self, row: &Row, suspect: &Suspect, hurt: &[u32]) -> String {
        let pool = || self.pool_of(row).map_or_else(String::new, |one| one.metadata.name.clone());
        match suspect.id {
            FindingId::CalicoUnusedPool | FindingId::CalicoPoolMasquerade => pool(),
            FindingId::OverlappingRanges if suspect.cause.owner == Owner::Calico => pool(),
            FindingId::KubeRouterPodEgress => row.cell.family.to_string(),
            FindingId::StrayMasquerade => suspect.cause.rule.clone(),
            FindingId::OverlappingRanges | FindingId::LocalPolicyUnsafe | FindingId::NoReply => {
                let service = hurt.first();
                let service =
                    service.and_then(|index| self.cluster.objects.services.get(*index as usize));
                service.map_or_else(String::new, Service::full_name)
            }
            // There is one of each, or those that have several name them themselves.
            FindingId::HostMasquerade
            | FindingId::StaleFlannelRules
            | FindingId::FlannelMasquerade
            | FindingId::ExternalTrafficPolicyCluster
            | FindingId::LocalYetRewritten
            | FindingId::LocalPolicyInvalid
            | FindingId::LocalPolicyImbalance
            | FindingId::ClusterCidrMismatch
            | FindingId::MasqueradeAll
            | FindingId::IpMasqAgentList
            | FindingId::KlipperLb
            | FindingId::IpvsMasquerade
            | FindingId::PortmapMasquerade
            | FindingId::MeshSource
            | FindingId::OpaqueDataplane
            | FindingId::MixedBackends
            | FindingId::LeftoverRules
            | FindingId::PodToPodRewritten
            | FindingId::ExpectationBroken
            | FindingId::PolicyCannotMatchClient
            | FindingId::PolicyAllowsNode
            | FindingId::SourceRangesSeeNode
            | FindingId::ForwardedForUntrusted
            | FindingId::MissingNodeState => String::new(),
        }
    }

    /// The caller's address of a row's witness.
    pub(crate) fn caller(&self, row: &Row) -> Option<IpAddr> {
        match &row.witness.call.from {
            Caller::Pod { address, .. } | Caller::Outside { address, .. } => Some(*address),
            Caller::Node(node) => self.paths.node_address(*node, row.witness.call.to).ok(),
        }
    }

    fn finding(&self, subject: &str, group: &Group) -> Finding {
        let described = describe::describe(self, subject, group);
        Finding {
            id: group.suspect.id,
            subject: group.part.subject(subject),
            severity: group.severity,
            confidence: described.confidence,
            title: described.title,
            owner: group.suspect.cause.owner,
            families: group.families.iter().copied().collect(),
            affected: self.affected(group),
            breaks: group.breaks.clone(),
            caused_by: Vec::new(),
            evidence: self.evidence(&group.rows, &group.services),
            cause: described.cause,
            remedies: described.remedies,
        }
    }

    fn affected(&self, group: &Group) -> Affected {
        let mut affected = self.affected_by(&group.rows, group.services.clone());
        // A witness stands for the same rule on other nodes.
        affected.nodes.extend(describe::nodes_with(self, &group.suspect));
        affected.nodes.sort();
        affected.nodes.dedup();
        affected
    }

    /// What is affected where rows show it, of these Services.
    fn affected_by(&self, rows: &[usize], services: BTreeSet<u32>) -> Affected {
        let found = || rows.iter().filter_map(|index| self.matrix.rows.get(*index));
        let mut flows: Vec<String> = Vec::new();
        for row in found() {
            let flow = describe::flow(&row.cell);
            if !flows.contains(&flow) {
                flows.push(flow);
            }
        }
        let services = services.into_iter().filter_map(|index| {
            Some(self.cluster.objects.services.get(index as usize)?.full_name())
        });
        let nodes = found().filter_map(|row| {
            let (host, _) = row.witness.rewriters.first()?;
            Some(self.cluster.nodes.get(self.paths.node_of(*host)?)?.name.clone())
        });
        let nodes: BTreeSet<String> = nodes.collect();
        Affected {
            flows,
            services: services.collect(),
            nodes: nodes.into_iter().collect(),
            rows: rows.to_vec(),
        }
    }

    /// The witnesses of the worst rows, no more than a few: calls of these Services, where rows are
    /// about Services.
    fn evidence(&self, rows: &[usize], services: &BTreeSet<u32>) -> Vec<Evidence> {
        const FEW: usize = 3;
        let mut rows: Vec<&Row> =
            rows.iter().filter_map(|index| self.matrix.rows.get(*index)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(found_severity(row)));
        // The same by another protocol shows nothing more.
        let mut shown: Vec<Cell> = Vec::new();
        rows.retain(|row| {
            let cell = Cell { protocol: Protocol::TCP, ..row.cell.clone() };
            let new = !shown.contains(&cell);
            shown.push(cell);
            new
        });
        let own = |row: &Row| match self.own_witness(row, services) {
            Some(row) => self.witness(&row),
            None => self.witness(row),
        };
        rows.into_iter().take(FEW).map(own).collect()
    }

    /// A row with a witness that calls one of these Services; `None`: its own does, or none is known
    /// to.
    fn own_witness(&self, row: &Row, services: &BTreeSet<u32>) -> Option<Row> {
        let (called, _) = row.witness.service?;
        if services.contains(&called) {
            return None;
        }
        let service = dependents::both(services, &row.services).next()?;
        let witness = self.asker.witness(service, &row.cell)?;
        let (cell, ports) = (row.cell.clone(), witness.service.into_iter().collect());
        Some(Row { cell, count: row.count, services: vec![service], ports, witness })
    }

    /// What a row's witness shows.
    pub(crate) fn witness(&self, row: &Row) -> Evidence {
        let call = &row.witness.call;
        let from = self.caller(row).map_or_else(|| "?".to_owned(), |one| one.to_string());
        let port = call.port.map_or_else(String::new, |port| format!(" port {port}"));
        let outcome = match (row.witness.seen, row.witness.reached) {
            (Some(seen), Some(reached)) => format!("{reached} sees {seen}"),
            (Some(seen), None) => format!("the receiver sees {seen}"),
            (None, _) => "it is not answered".to_owned(),
        };
        let protocol = call.protocol;
        let who = describe::client(&row.cell.client);
        Evidence {
            text: format!("{who}, {from}, calls {}{port} by {protocol}: {outcome}", call.to),
            trace: self.trace(row),
            rule: row.witness.rewriters.first().and_then(|(host, rule)| self.rule(*host, *rule)),
        }
    }

    /// The command that asks a witness again.
    fn trace(&self, row: &Row) -> Option<String> {
        let call = &row.witness.call;
        let node = &self.cluster.nodes.get(call.from.node())?.name;
        let from = match &call.from {
            Caller::Node(_) => quoted(&format!("node/{node}")),
            Caller::Pod { address, .. } | Caller::Outside { address, .. } => {
                endpoint(*address, call.source_port)
            }
        };
        let to = endpoint(call.to, call.port);
        let protocol = match call.protocol {
            Protocol::TCP => String::new(),
            other => format!(" --proto {other}"),
        };
        let via = match &call.from {
            Caller::Outside { .. } => format!(" {}", shell::option("--via", node)),
            Caller::Pod { .. } | Caller::Node(_) => String::new(),
        };
        Some(format!("unmasq trace --from {from} --to {to}{protocol}{via}"))
    }

    /// A rule with where it stands.
    pub(crate) fn rule(&self, host: usize, rule: RuleId) -> Option<RuleText> {
        let state: &'c Host = self.paths.host(host)?;
        let (_, _, found) = crate::owner::find(state, rule)?;
        let node = &self.cluster.nodes.get(self.paths.node_of(host)?)?.name;
        let name = match self.paths.walked(host)? {
            unmasq_cluster::paths::Walked::Node(_) => node.clone(),
            unmasq_cluster::paths::Walked::Pod { node: at, pod } => {
                let pod = self.cluster.nodes.get(at)?.pods.get(pod)?;
                format!("{}/{} on {node}", pod.namespace, pod.name)
            }
        };
        Some(RuleText {
            host: name,
            place: format!("{}:{}", state.file(found.origin.file), found.origin.line),
            text: short_text(found),
        })
    }
}

fn found_severity(row: &Row) -> Option<Severity> {
    match judge(&row.cell) {
        Judgement::Found(_, severity) => Some(severity),
        Judgement::Fine | Judgement::Expected(_) | Judgement::NotAnswered | Judgement::Unknown => {
            None
        }
    }
}

fn endpoint(address: IpAddr, port: Option<u16>) -> String {
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    match address {
        IpAddr::V4(v4) => format!("{v4}{port}"),
        // Brackets are a pattern to shells.
        IpAddr::V6(v6) => format!("'[{v6}]{port}'"),
    }
}

fn totals(context: &Context<'_, '_>) -> Totals {
    let cluster = context.cluster;
    let captured = cluster.nodes.iter().filter_map(|node| node.host.as_ref());
    let rules = |host: &Host| -> usize {
        let chains = host.ruleset.tables.iter().flat_map(|table| &table.chains);
        chains.map(|chain| chain.rules.len()).sum()
    };
    let nodes = captured.clone().count();
    let is_empty = |one: &&Service| {
        one.spec.kind != ServiceType::ExternalName
            && context.lookup.has_endpoint(one) == Some(false)
    };
    Totals {
        nodes,
        nodes_not_captured: cluster.nodes.len() - nodes,
        pods: cluster.objects.pods.len(),
        services: cluster.objects.services.len(),
        services_without_endpoint: cluster.objects.services.iter().filter(is_empty).count(),
        rules: captured.map(rules).sum(),
        ..Totals::default()
    }
}

/// What the cluster's model and the walks took for granted; what differs in the host alone is one
/// sentence.
fn assumptions(cluster: &Cluster, matrix: &Matrix) -> Vec<String> {
    let mut all: Vec<String> = cluster.assumptions.iter().map(|one| one.text.clone()).collect();
    let mut alike: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let of_cluster: BTreeSet<String> = all.iter().cloned().collect();
    for sentence in matrix.assumptions.keys().filter(|one| !of_cluster.contains(*one)) {
        let mut host = String::new();
        let words = sentence.split(' ').map(|word| {
            let bare = word.trim_start_matches('(');
            let Some(path) = bare.strip_prefix("nodes/") else { return word };
            let Some((folder, file)) = path.rsplit_once('/') else { return word };
            host = folder.to_owned();
            file
        });
        let without = words.collect::<Vec<_>>().join(" ");
        alike.entry(without).or_default().insert(host);
    }
    for (sentence, hosts) in alike {
        let hosts: Vec<&str> =
            hosts.iter().filter(|host| !host.is_empty()).map(String::as_str).collect();
        all.push(match hosts[..] {
            [] => sentence,
            [one] => format!("{one}: {sentence}"),
            [one, ..] => format!("{one} and {} more: {sentence}", hosts.len() - 1),
        });
    }
    let bare = cluster.pod_addresses().count();
    let captured: usize = cluster.nodes.iter().map(|node| node.pods.len()).sum();
    if bare > 0 && captured == 0 {
        all.push("pods have no rules of their own (their namespaces were not captured)".to_owned());
    }
    all
}

impl Totals {
    fn of(&mut self, judged: &Judged) -> &mut usize {
        match judged {
            Judged::Fine => &mut self.preserved,
            Judged::Expected => &mut self.rewritten_as_expected,
            Judged::Found { .. } => &mut self.rewritten,
            Judged::NotAnswered => &mut self.not_answered,
            Judged::Unknown => &mut self.unknown,
        }
    }
}

/// Whose rule a group is about, for people.
pub(crate) fn owner_name(owner: Owner) -> &'static str {
    match owner {
        Owner::Unclaimed => "a rule that no known program claims",
        known => known.name(),
    }
}

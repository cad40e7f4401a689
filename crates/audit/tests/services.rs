//! Every Service entry of real kube-proxy captures, asked of the whole cluster, against what
//! kube-proxy promises ([`promise`]): first way by way, then as cells of the matrix.
//!
//! The captures are of one node each. What becomes of a packet at an endpoint of the other node
//! can't be known, and must be said to be unknown; what the captured node does with it is compared
//! all the same.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that can't prepare itself has failed"
)]

mod captured;
mod promise;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use promise::{ABSENT, CAPTURES, Objects, Port, Promise, Source};
use unmasq_audit::Owner;
use unmasq_audit::matrix::{
    Cell, Client, Clients, Entry, Fate, Matrix, Outside, Placement, Policy, Refusal, Why, build,
};
use unmasq_cluster::paths::{self, Call, Caller, Paths, Way};
use unmasq_cluster::{Cluster, Overrides, read};
use unmasq_eval::trace::{Options, Reason};
use unmasq_model::packet::{Family, Protocol};

/// The captured node, among the nodes in order of their names.
const NODE: usize = 0;

/// 41 Service ports with their entries, 5 kinds of client each.
const MIN_WAYS: usize = 250;
/// Services, entries, clients, placements and fates: fewer, as a cell holds several ways.
const MIN_CELLS: usize = 250;

fn main() {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures");
    let trials = CAPTURES.iter().flat_map(|name| {
        let checks: [(&str, Check); 2] = [("ways", check_ways), ("matrix", check_matrix)];
        let path = folder.join(name);
        checks.map(|(what, check)| {
            let path = path.clone();
            Trial::ignorable_test(format!("{name}::{what}"), move || {
                if !path.is_dir() {
                    return Ok(Completion::ignored_with(ABSENT));
                }
                let contents = read::capture(&captured::files(&path))?;
                let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
                assert_eq!(cluster.nodes[NODE].name, "n1");
                let found = check(&cluster, &Objects::read(&path));
                found.verdict(&path).map(|()| Completion::Completed)
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

type Check = fn(&Cluster, &Objects) -> Found;

/// What was compared, and what differs.
struct Found {
    compared: usize,
    least: usize,
    differences: Vec<String>,
}

impl Found {
    fn new(least: usize) -> Found {
        Found { compared: 0, least, differences: Vec::new() }
    }

    fn compare<T: PartialEq + Debug>(&mut self, what: &dyn Fn() -> String, wanted: &T, got: &T) {
        self.compared += 1;
        if wanted != got {
            self.differences.push(format!("{}: wanted {wanted:?}, got {got:?}", what()));
        }
    }

    fn verdict(mut self, path: &Path) -> Result<(), Failed> {
        println!("{}: {} compared", path.display(), self.compared);
        if self.compared < self.least {
            self.differences.push(format!("only {} were compared", self.compared));
        }
        let count = self.differences.len();
        self.differences.truncate(25);
        match count {
            0 => Ok(()),
            _ => Err(format!("{count} differences:\n{}", self.differences.join("\n")).into()),
        }
    }
}

/// What becomes of a source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Preserved,
    /// By kube-proxy; why is `None` where two reasons are equally good.
    Rewritten(Option<Why>),
    Dropped,
    Rejected,
    /// The endpoint's node was not captured.
    Elsewhere,
    /// Anything else, in words.
    Other(String),
}

// ---- way by way ----

/// One way: where the captured node sends the packet, with which source, and the end.
type Step = (Option<SocketAddr>, Option<IpAddr>, End);

fn check_ways(cluster: &Cluster, objects: &Objects) -> Found {
    let paths = Paths::new(cluster, Options::default());
    let mut found = Found::new(MIN_WAYS);
    for port in objects.ports() {
        for (entry, to, to_port) in &port.entries {
            for (source, from, address) in callers(port.v4) {
                let call = Call {
                    from,
                    source_port: Some(40_000),
                    to: *to,
                    port: Some(*to_port),
                    protocol: port.protocol,
                };
                let promise = objects.promise(&port, *entry, source, address);
                let wanted = promised_steps(&promise, address);
                let got: BTreeSet<Step> = match paths.ways(&call) {
                    Ok(ways) => ways.iter().map(|way| step(&paths, way)).collect(),
                    Err(why) => BTreeSet::from([(None, None, End::Other(why))]),
                };
                let what = || format!("{} {entry:?} from {source:?} {address}", port.name);
                found.compare(&what, &wanted, &got);
            }
        }
    }
    found
}

/// Another pod, an endpoint of some Services, the node, and two clients outside.
fn callers(v4: bool) -> [(Source, Caller, IpAddr); 5] {
    let address = |of_v4: &str, of_v6: &str| -> IpAddr {
        if v4 { of_v4 } else { of_v6 }.parse().expect("an address")
    };
    let pod = |address| (Source::Pod, Caller::Pod { node: NODE, address }, address);
    let outside = |address| (Source::Outside, Caller::Outside { node: NODE, address }, address);
    [
        pod(address("10.128.0.99", "fd00:128::99")),
        pod(address("10.128.0.10", "fd00:128::a")),
        (Source::Node, Caller::Node(NODE), promise::node_address(v4)),
        outside(address("203.0.113.9", "2001:db8::9")),
        outside(address("172.20.9.9", "2a00:9::9")),
    ]
}

fn promised_steps(promise: &Promise, client: IpAddr) -> BTreeSet<Step> {
    let (endpoints, masquerade) = match promise {
        Promise::Dropped => return BTreeSet::from([(None, None, End::Dropped)]),
        Promise::Rejected => return BTreeSet::from([(None, None, End::Rejected)]),
        Promise::Endpoints { endpoints, masquerade } => (endpoints, *masquerade),
    };
    let step = |one: &promise::Backend| {
        let seen = promise::seen_source(client, one.address, masquerade);
        let end = match one.node.as_str() {
            "n2" => End::Elsewhere,
            _ if seen == client => End::Preserved,
            _ => End::Rewritten(None),
        };
        (Some(SocketAddr::new(one.address, one.port)), Some(seen), end)
    };
    endpoints.iter().map(step).collect()
}

fn step(paths: &Paths, way: &Way) -> Step {
    let end = match &way.fate {
        paths::Fate::Preserved => End::Preserved,
        paths::Fate::Rewritten => {
            let owner = |(host, rule)| Some(unmasq_audit::owner(paths.host(host)?, rule));
            let owners: Vec<_> = way.rewriters().map(owner).collect();
            match owners[..] {
                [Some(Owner::KubeProxy)] => End::Rewritten(None),
                _ => End::Other(format!("rewritten by {owners:?}")),
            }
        }
        paths::Fate::Dropped(Some(Reason::Rule)) => return (None, None, End::Dropped),
        paths::Fate::Rejected(Some(Reason::Rule)) => return (None, None, End::Rejected),
        paths::Fate::Unknown(why) if why.iter().all(|why| is_elsewhere(why)) => End::Elsewhere,
        other @ (paths::Fate::Dropped(_)
        | paths::Fate::Rejected(_)
        | paths::Fate::NoAnswer(_)
        | paths::Fate::Lost
        | paths::Fate::Unknown(_)) => End::Other(format!("{other:?}")),
    };
    let first = way.there.legs.first().map(|leg| &leg.outcome);
    let to = first.and_then(|outcome| {
        let after = &outcome.destination.after;
        Some(SocketAddr::new(after.address?, after.exact_port()?))
    });
    (to, first.and_then(|outcome| outcome.source.after.address), end)
}

/// Whether an answer is open for the only reason that there may be.
fn is_elsewhere(why: &str) -> bool {
    why.contains("node n2 was not captured") || why.contains("is a pod of node n2")
}

// ---- cell by cell ----

/// What a cell says, without its count.
type Key = (Entry, Option<Policy>, Client, Placement, Family, Protocol, usize, End);

/// The matrix of each Service by itself is as promised, and the matrix of all is their sum.
fn check_matrix(cluster: &Cluster, objects: &Objects) -> Found {
    let mut found = Found::new(MIN_CELLS);
    let mut sum: BTreeMap<Cell, usize> = BTreeMap::new();
    let ports = objects.ports();
    let clients = Clients::of(cluster);
    for index in 0..cluster.objects.services.len() {
        let mut single = cluster.clone();
        single.objects.services = vec![cluster.objects.services[index].clone()];
        let name = &single.objects.services[0].metadata.name;
        let matrix = built(&single, &clients);
        let got: BTreeSet<Key> = matrix.keys().map(key).collect();
        let own = ports.iter().filter(|port| port.name == name);
        let wanted: BTreeSet<Key> =
            own.flat_map(|port| promised_keys(objects, port, &clients)).collect();
        for one in wanted.union(&got) {
            let is_in = |of: &BTreeSet<Key>| of.contains(one);
            found.compare(&|| format!("{name}: {one:?}"), &is_in(&wanted), &is_in(&got));
        }
        for (cell, count) in matrix {
            *sum.entry(cell).or_default() += count;
        }
    }
    let whole = built(cluster, &clients);
    for cell in sum.keys().chain(whole.keys()).collect::<BTreeSet<_>>() {
        let what = || format!("counted by Service and in the whole matrix: {cell:?}");
        found.compare(&what, &sum.get(cell), &whole.get(cell));
    }
    found
}

/// The cells about Services, with their counts.
fn built(cluster: &Cluster, clients: &Clients) -> BTreeMap<Cell, usize> {
    let paths = Paths::new(cluster, Options::default());
    let Matrix { rows, .. } = build(&paths, clients, &|_, _| {});
    let rows = rows.into_iter().filter(|row| !row.services.is_empty());
    rows.map(|row| (row.cell, row.count)).collect()
}

fn key(cell: &Cell) -> Key {
    let by_kube_proxy = |refusal: &Refusal| {
        refusal.reason == Some(Reason::Rule) && refusal.owner == Some(Owner::KubeProxy)
    };
    let end = match &cell.fate {
        Fate::Preserved => End::Preserved,
        Fate::Rewritten(causes) => match &causes[..] {
            [cause] if cause.owner == Owner::KubeProxy => {
                // An endpoint that calls itself by a masqueraded entry is masqueraded twice over.
                End::Rewritten((cell.client != Client::Endpoint).then_some(cause.why))
            }
            _ => End::Other(format!("{causes:?}")),
        },
        Fate::Dropped(refusal) if by_kube_proxy(refusal) => End::Dropped,
        Fate::Rejected(refusal) if by_kube_proxy(refusal) => End::Rejected,
        Fate::Unknown(why) if is_elsewhere(why) => End::Elsewhere,
        other @ (Fate::Dropped(_)
        | Fate::Rejected(_)
        | Fate::NoAnswer(_)
        | Fate::Lost
        | Fate::Unknown(_)) => End::Other(format!("{other:?}")),
    };
    let Cell { entry, policy, client, placement, family, protocol, hops, .. } = cell;
    (*entry, *policy, client.clone(), *placement, *family, *protocol, *hops, end)
}

fn promised_keys(objects: &Objects, port: &Port, clients: &Clients) -> Vec<Key> {
    let family = if port.v4 { Family::V4 } else { Family::V6 };
    let other = if port.v4 { "10.128.0.99" } else { "fd00:128::99" }.parse().expect("an address");
    let mut callers: Vec<(Source, Client, IpAddr)> = vec![
        (Source::Pod, Client::Pod, other),
        (Source::Node, Client::Node, promise::node_address(port.v4)),
    ];
    let mut own = port.backends.iter().filter(|one| promise::is_local_pod(one.address));
    callers.extend(own.next().map(|one| (Source::Pod, Client::Pod, one.address)));
    let mut outside: Vec<(Outside, IpAddr)> = clients.callers.clone();
    for range in port.spec["loadBalancerSourceRanges"].as_array().into_iter().flatten() {
        let net: ipnet::IpNet = range.as_str().expect("a range").parse().expect("a range");
        outside.push((Outside::NamedBySetting(net), net.hosts().nth(8).expect("an address")));
    }
    let outside = outside.into_iter().filter(|(_, address)| Family::of(*address) == family);
    let outside: Vec<_> =
        outside.map(|(who, at)| (Source::Outside, Client::Outside(who), at)).collect();
    let mut keys = Vec::new();
    for (entry, _, _) in &port.entries {
        let (entry_of_cell, policy) = match entry {
            promise::Entry::ClusterIp => (Entry::ClusterIp, "internalTrafficPolicy"),
            promise::Entry::NodePort => (Entry::NodePort, "externalTrafficPolicy"),
            promise::Entry::ExternalIp => (Entry::ExternalIp, "externalTrafficPolicy"),
            promise::Entry::LoadBalancer => (Entry::LoadBalancer, "externalTrafficPolicy"),
        };
        let local = port.spec[policy] == "Local";
        let policy = Some(if local { Policy::Local } else { Policy::Cluster });
        // Cluster IPs mean nothing outside.
        let asked = match entry {
            promise::Entry::ClusterIp => &[][..],
            promise::Entry::NodePort
            | promise::Entry::ExternalIp
            | promise::Entry::LoadBalancer => &outside[..],
        };
        for (source, client, address) in callers.iter().chain(asked) {
            let promise = objects.promise(port, *entry, *source, *address);
            for (client, placement, end) in ends(&promise, entry_of_cell, client, *address) {
                let protocol = port.protocol;
                keys.push((entry_of_cell, policy, client, placement, family, protocol, 0, end));
            }
        }
    }
    keys
}

/// What the cells of one question say.
fn ends(
    promise: &Promise,
    entry: Entry,
    client: &Client,
    address: IpAddr,
) -> Vec<(Client, Placement, End)> {
    let (endpoints, masquerade) = match promise {
        Promise::Dropped => return vec![(client.clone(), Placement::None, End::Dropped)],
        Promise::Rejected => return vec![(client.clone(), Placement::None, End::Rejected)],
        Promise::Endpoints { endpoints, masquerade } => (endpoints, *masquerade),
    };
    let end = |one: &promise::Backend| {
        if one.node == "n2" {
            return (client.clone(), Placement::None, End::Elsewhere);
        }
        let itself = one.address == address && *client == Client::Pod;
        let client = if itself { Client::Endpoint } else { client.clone() };
        let why = match entry {
            _ if itself => None,
            Entry::ClusterIp => Some(Why::NotAPod),
            Entry::NodePort | Entry::LoadBalancer | Entry::ExternalIp => Some(Why::ExternalPolicy),
            Entry::Pod | Entry::Node | Entry::Outside => unreachable!("not of a Service"),
        };
        let kept = promise::seen_source(address, one.address, masquerade) == address;
        let end = if kept { End::Preserved } else { End::Rewritten(why) };
        (client, Placement::Here, end)
    };
    endpoints.iter().map(end).collect()
}

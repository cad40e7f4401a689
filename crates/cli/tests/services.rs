//! Every Service entry of real kube-proxy captures, traced from a pod, an endpoint, the node and
//! outside clients, against what kube-proxy promises: which endpoints are eligible, and whether
//! the source is masqueraded. The audit's tests have the promise, and ask it of whole ways.

#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "../../audit/tests/promise/mod.rs"]
mod promise;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use promise::{ABSENT, Backend, CAPTURES, Objects, Promise, Source};
use unmasq_eval::Evaluator;
use unmasq_eval::trace::{Disposition, Options, Outcome, Query, Reason, Verdict};
use unmasq_model::packet::{Packet, Protocol};

fn main() {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures");
    let trials = CAPTURES
        .iter()
        .map(|name| {
            let path = folder.join(name);
            Trial::ignorable_test(*name, move || {
                if !path.is_dir() {
                    return Ok(Completion::ignored_with(ABSENT));
                }
                check_capture(path).map(|()| Completion::Completed)
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn check_capture(path: PathBuf) -> Result<(), Failed> {
    let files = unmasq_host::capture::read(&path)?;
    let capture = unmasq_parse::capture::parse(&files)?;
    let node = capture.node("n1").ok_or("no node n1")?;
    if !node.diagnostics.is_empty() {
        return Err(format!("diagnostics: {:?}", node.diagnostics).into());
    }
    let objects = Objects::read(&path);
    let evaluator = Evaluator::new(&node.host, Options::default());
    let mut failures = Vec::new();
    let mut checked = 0;
    for case in cases(&objects, &path) {
        checked += 1;
        let packet =
            Packet::open(case.protocol, case.from.address, Some(40000), case.to, Some(case.port));
        let in_device = case.from.device.map(Into::into);
        let trace = evaluator.trace(&Query { packet, in_device, later: None });
        if let Err(why) = case.expected.check(&trace.outcomes) {
            failures.push(format!("{}: {why}", case.name));
        }
    }
    println!("{}: {checked} entries", path.display());
    // 41 Service ports with their entries, 5 kinds of client each.
    if checked < 200 {
        failures.push(format!("only {checked} entries were found"));
    }
    if failures.is_empty() {
        return Ok(());
    }
    let count = failures.len();
    failures.truncate(25);
    Err(format!("{count} of {checked} entries differ:\n{}", failures.join("\n")).into())
}

/// A kind of client.
#[derive(Debug, Clone, Copy)]
struct Client {
    name: &'static str,
    kind: Source,
    address: IpAddr,
    /// `None`: left to the evaluator.
    device: Option<&'static str>,
}

/// What a Service entry should do for a client.
enum Expected {
    Promised {
        promise: Promise,
        /// Whether each endpoint has the same chance (not with session affinity).
        equal: bool,
        client: IpAddr,
    },
    Rejected,
    Dropped,
    /// No rule is about it: as routing alone would have it.
    Untouched(Verdict),
}

struct Case {
    name: String,
    from: Client,
    to: IpAddr,
    port: u16,
    protocol: Protocol,
    expected: Expected,
}

impl Expected {
    fn check(&self, outcomes: &[Outcome]) -> Result<(), String> {
        if let Some(unknown) = outcomes.iter().find(|o| !o.unknown.is_empty()) {
            return Err(format!("unknown: {}", unknown.unknown.join("; ")));
        }
        match self {
            Expected::Rejected | Expected::Promised { promise: Promise::Rejected, .. } => {
                one(outcomes, |o| o.verdict == Verdict::Rejected && o.reason == Some(Reason::Rule))
            }
            Expected::Dropped | Expected::Promised { promise: Promise::Dropped, .. } => {
                one(outcomes, |o| o.verdict == Verdict::Dropped && o.reason == Some(Reason::Rule))
            }
            Expected::Untouched(verdict) => one(outcomes, |o| {
                o.verdict == *verdict && o.destination.disposition == Disposition::Preserved
            }),
            Expected::Promised {
                promise: Promise::Endpoints { endpoints, masquerade },
                equal,
                client,
            } => check_endpoints(outcomes, endpoints, *masquerade, *equal, *client),
        }
    }
}

fn one(outcomes: &[Outcome], is: impl Fn(&Outcome) -> bool) -> Result<(), String> {
    match outcomes {
        [outcome] if is(outcome) => Ok(()),
        _ => Err(format!("{:?}", summary(outcomes))),
    }
}

fn summary(outcomes: &[Outcome]) -> Vec<String> {
    outcomes
        .iter()
        .map(|o| {
            format!(
                "{:?} {:?} {} -> {} (p {:?})",
                o.verdict, o.reason, o.source.after, o.destination.after, o.probability
            )
        })
        .collect()
}

fn check_endpoints(
    outcomes: &[Outcome],
    endpoints: &[Backend],
    masquerade: bool,
    equal: bool,
    client: IpAddr,
) -> Result<(), String> {
    let mut seen: BTreeMap<String, &Outcome> = BTreeMap::new();
    for outcome in outcomes {
        seen.insert(outcome.destination.after.to_string(), outcome);
    }
    let mut wanted: Vec<String> = endpoints
        .iter()
        .map(|one| std::net::SocketAddr::new(one.address, one.port).to_string())
        .collect();
    wanted.sort();
    let got: Vec<String> = seen.keys().cloned().collect();
    if got != wanted || (equal && outcomes.len() != wanted.len()) {
        return Err(format!("wanted {wanted:?}, got {:?}", summary(outcomes)));
    }
    #[allow(clippy::cast_precision_loss)]
    let chance = 1.0 / endpoints.len() as f64;
    for outcome in outcomes {
        let to = outcome.destination.after.address.ok_or("no destination")?;
        let expected = promise::seen_source(client, to, masquerade);
        if outcome.source.after.address != Some(expected) {
            return Err(format!("wanted source {expected}, got {:?}", summary(outcomes)));
        }
        match outcome.probability {
            Some(p) if equal && (p - chance).abs() > 1e-4 => {
                return Err(format!("wanted chance {chance}, got {:?}", summary(outcomes)));
            }
            None if equal => return Err(format!("no chance: {:?}", summary(outcomes))),
            _ => {}
        }
    }
    Ok(())
}

/// All entries of all ports, from all clients, and addresses that no Service has.
fn cases(objects: &Objects, path: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for port in objects.ports() {
        for (entry, to, to_port) in &port.entries {
            for from in clients(port.v4) {
                let promise = objects.promise(&port, *entry, from.kind, from.address);
                let equal = port.spec["sessionAffinity"] != "ClientIP";
                cases.push(Case {
                    name: format!("{} {entry:?} {to}:{to_port} from {}", port.name, from.name),
                    from,
                    to: *to,
                    port: *to_port,
                    protocol: port.protocol,
                    expected: Expected::Promised { promise, equal, client: from.address },
                });
            }
        }
    }
    let nftables = path.to_string_lossy().contains("nftables");
    address_cases(nftables, &mut cases);
    cases
}

/// Addresses without a Service port.
fn address_cases(nftables: bool, cases: &mut Vec<Case>) {
    let mut add = |name: &str, from: Client, to: &str, port, expected| {
        cases.push(Case {
            name: format!("{name} from {}", from.name),
            from,
            to: to.parse().expect("an address"),
            port,
            protocol: Protocol::TCP,
            expected,
        });
    };
    for from in clients(true) {
        // In iptables mode no rule is about them: they follow the default route.
        let (undefined, free) = match nftables {
            true => (Expected::Rejected, Expected::Dropped),
            false => {
                (Expected::Untouched(Verdict::Forwarded), Expected::Untouched(Verdict::Forwarded))
            }
        };
        add("undefined port of a ClusterIP", from, "10.96.0.10", 81, undefined);
        add("free address of the Service range", from, "10.96.77.77", 80, free);
    }
}

fn clients(v4: bool) -> [Client; 5] {
    let client = |name, kind, v4_address: &str, v6_address: &str, device| Client {
        name,
        kind,
        address: if v4 { v4_address } else { v6_address }.parse().expect("an address"),
        device,
    };
    [
        client("a pod", Source::Pod, "10.128.0.99", "fd00:128::99", None),
        client("an endpoint", Source::Pod, "10.128.0.10", "fd00:128::a", None),
        client("the node", Source::Node, "10.250.0.2", "fd00:250::2", None),
        client("outside", Source::Outside, "203.0.113.9", "2001:db8::9", Some("eth0")),
        client("far outside", Source::Outside, "172.20.9.9", "2a00:9::9", Some("eth0")),
    ]
}

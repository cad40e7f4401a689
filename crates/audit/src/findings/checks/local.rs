//! Services with a `Local` policy: nodes that have no endpoint, and pods that get more than their
//! share.
//!
//! In: Services, their ready endpoints, what is known of load balancers, and Services that could not
//! be read. Out: findings of
//! `local-policy-unsafe` (subject `namespace/name`; for `internalTrafficPolicy` the subject is
//! `namespace/name, cluster IP`), `local-policy-imbalance` and `local-policy-invalid`. Where nobody
//! says whether a load balancer asks for health, nothing is found: remedies name it as something
//! to look at.

mod invalid;

use std::collections::{BTreeMap, BTreeSet};

use unmasq_cluster::kubernetes::{Service, ServiceType, TrafficPolicy};
use unmasq_model::packet::Family;

use super::super::Context;
use super::super::describe::spread::Spread;
use super::super::describe::{
    Described, command, computed, few, local, policy, sentence, title, undone,
};
use super::finding;
use crate::{Affected, Cause, Confidence, Evidence, Finding, FindingId, Owner, Remedy, Severity};

pub(in super::super) use invalid::is_misspelt;

/// Load balancers leave nodes with this label out (pkg/util/node of kubernetes/cloud-provider).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A pod that gets so many tenths of the average is worth a word.
const HOT: usize = 15;

pub(super) fn add(context: &Context<'_, '_>, findings: &mut Vec<Finding>) {
    let of_rows = (0..).zip(&*findings).filter(|(_, one)| one.id == FindingId::LocalPolicyUnsafe);
    let known: BTreeMap<String, usize> =
        of_rows.map(|(index, one)| (one.subject.clone(), index)).collect();
    for service in &context.cluster.objects.services {
        if service.spec.external_traffic_policy == TrafficPolicy::Local {
            match policy::may_be_local(service) {
                true => {
                    add_unsafe(context, service, &known, findings);
                    findings.extend(imbalance(context, service));
                }
                false => findings.extend(invalid::misplaced(service)),
            }
        }
        findings.extend(internal(context, service));
    }
    findings.extend(invalid::misspelt(&context.cluster.problems));
}

/// `known`: the findings of rows by subject.
fn add_unsafe(
    context: &Context<'_, '_>,
    service: &Service,
    known: &BTreeMap<String, usize>,
    findings: &mut Vec<Finding>,
) {
    let spread = Spread::of(context, service);
    let balanced = service.spec.kind == ServiceType::LoadBalancer;
    let unasked = balanced && context.expectations.health_checks(service) == Some(false);
    let empty: Vec<String> =
        spread.without.iter().filter(|node| !is_excluded(context, node)).cloned().collect();
    let nodes: Vec<&String> = spread.on.keys().collect();
    let (severity, described, nodes) = match nodes[..] {
        // Without any endpoint the policy makes no difference: every node refuses.
        [] => return,
        [..] if unasked && !empty.is_empty() => {
            (Severity::Warning, local::sent_nowhere(context, service, &empty), empty)
        }
        [node] if context.cluster.nodes.len() > 1 => {
            (Severity::Info, local::one_node(context, service, node), vec![node.clone()])
        }
        [..] => return,
    };
    let mut found = of_service(FindingId::LocalPolicyUnsafe, service, severity, described);
    found.families = families(context, service);
    found.affected.nodes = nodes;
    found.evidence.push(placed(&spread));
    match known.get(&service.full_name()).and_then(|index| findings.get_mut(*index)) {
        // Rows that break an expectation made it already: it only learns where pods are.
        Some(before) => {
            before.evidence.extend(found.evidence);
            before.affected.nodes.extend(found.affected.nodes);
            before.affected.nodes.sort();
            before.affected.nodes.dedup();
        }
        None => findings.push(found),
    }
}

fn is_excluded(context: &Context<'_, '_>, node: &str) -> bool {
    context.lookup.node(node).is_some_and(|one| one.metadata.labels.contains_key(EXCLUDED))
}

fn placed(spread: &Spread) -> Evidence {
    let on: Vec<String> =
        spread.on.iter().map(|(node, count)| format!("{count} on {node}")).collect();
    let without = match spread.without.is_empty() {
        true => String::new(),
        false => format!(", none on {}", few(&spread.without)),
    };
    let text = format!("ready endpoints: {}{without}", few(&on));
    Evidence { text, trace: None, rule: None }
}

/// The families that it has ready endpoints of.
fn families(context: &Context<'_, '_>, service: &Service) -> Vec<Family> {
    let has = |family: &Family| !Spread::of_family(context, service, *family).on.is_empty();
    [Family::V4, Family::V6].into_iter().filter(has).collect()
}

fn of_service(
    id: FindingId,
    service: &Service,
    severity: Severity,
    described: Described,
) -> Finding {
    let affected = Affected { services: vec![service.full_name()], ..Affected::default() };
    Finding { affected, ..finding(id, service.full_name(), severity, Owner::KubeProxy, described) }
}

/// Both families are looked at by themselves, as their endpoints may differ.
fn imbalance(context: &Context<'_, '_>, service: &Service) -> Option<Finding> {
    let cluster = context.cluster;
    let hot: Vec<(Family, Spread, usize)> = [Family::V4, Family::V6]
        .into_iter()
        .filter_map(|family| {
            let spread = Spread::of_family(context, service, family);
            let hottest = spread.hottest().filter(|tenths| *tenths >= HOT)?;
            Some((family, spread, hottest))
        })
        .collect();
    let (_, worst, tenths) = hot.iter().max_by_key(|(_, _, tenths)| *tenths)?;
    let name = service.full_name();
    let times = times(*tenths);
    let pods: usize = worst.on.values().sum();
    let text = format!(
        "Whoever sends connections to the nodes shares them out over nodes, not pods: each of {} nodes \
         with a pod gets as much as another. With externalTrafficPolicy: Local a node gives them to its \
         own pods alone, so a pod that is alone on its node gets {times} times the average of all {pods} \
         pods. {}",
        worst.on.len(),
        spread_out(pods, worst.on.len(), cluster.nodes.len())
    );
    let step = policy::apart(
        context,
        service,
        format!("Pods of {name} on different nodes where there is room; this restarts them"),
    );
    let remedies = vec![
        Remedy {
            lasting: true,
            title: "Spread the pods over nodes".to_owned(),
            steps: vec![step],
            requires: vec![computed(
                cluster.nodes.len() > worst.on.len(),
                format!(
                    "there are nodes without a pod yet ({} of {} have one)",
                    worst.on.len(),
                    cluster.nodes.len()
                ),
            )],
        },
        Remedy {
            lasting: true,
            title: "Or weights at the load balancer, where it takes them".to_owned(),
            steps: vec![undone(
                "kube-proxy says how many pods a node has at healthCheckNodePort, in the header \
                 X-Load-Balancing-Endpoint-Weight",
                [command("curl -si http://NODE:HEALTH-CHECK-NODE-PORT/healthz | grep -i weight")],
                [sentence("Equal weights.")],
            )],
            requires: Vec::new(),
        },
    ];
    let described = Described {
        title: title(
            format!("Service {name}: with Local the hottest pod gets {times} times the average"),
            "With Local one pod of a Service gets far more than the average",
        ),
        confidence: Confidence::Certain,
        cause: Cause {
            text,
            setting: Some("externalTrafficPolicy: Local".to_owned()),
            place: Some(format!("Service {name}, spec.externalTrafficPolicy")),
        },
        remedies,
    };
    let mut found = of_service(FindingId::LocalPolicyImbalance, service, Severity::Info, described);
    found.families = hot.iter().map(|(family, _, _)| *family).collect();
    found.evidence = hot.iter().map(|(family, spread, _)| shares(*family, spread)).collect();
    let nodes: BTreeSet<&String> = hot.iter().flat_map(|(_, spread, _)| spread.on.keys()).collect();
    found.affected.nodes = nodes.into_iter().cloned().collect();
    Some(found)
}

/// What each pod of each node gets.
fn shares(family: Family, spread: &Spread) -> Evidence {
    let nodes = spread.on.len();
    let on: Vec<String> = spread
        .on
        .iter()
        .map(|(node, pods)| {
            // In tenths of a percent, to the nearest.
            let share = (1000 + nodes * pods / 2) / (nodes * pods);
            format!("{node}: {pods}, each {}.{} %", share / 10, share % 10)
        })
        .collect();
    Evidence {
        text: format!("{family} pods and their shares: {}", few(&on)),
        trace: None,
        rule: None,
    }
}

/// What the hottest pod would get if pods were spread as evenly as they can be.
fn spread_out(pods: usize, now: usize, all: usize) -> String {
    let even = |nodes: usize| {
        let nodes = nodes.min(pods).max(1);
        let least = pods / nodes;
        (nodes, (pods * 10 + nodes * least / 2) / (nodes * least))
    };
    let (same, here) = even(now);
    let (more, there) = even(all);
    let same = format!("Spread evenly over {same} nodes it would be {} times", times(here));
    match more > now {
        true => format!("{same}, over {more} nodes {} times.", times(there)),
        false => format!("{same}."),
    }
}

fn times(tenths: usize) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Nodes from which nobody reaches the cluster IP.
fn internal(context: &Context<'_, '_>, service: &Service) -> Option<Finding> {
    let has_address = !service.spec.cluster_ips.is_empty() || service.spec.cluster_ip.is_some();
    let wanted = service.spec.internal_traffic_policy == TrafficPolicy::Local && has_address;
    let spread = wanted.then(|| Spread::of(context, service))?;
    if spread.on.is_empty() || spread.without.is_empty() {
        return None;
    }
    let described = local::internal(service, &spread.without);
    let mut found = of_service(FindingId::LocalPolicyUnsafe, service, Severity::Info, described);
    found.subject = format!("{}, cluster IP", service.full_name());
    found.families = families(context, service);
    found.evidence.push(placed(&spread));
    found.affected.nodes = spread.without;
    Some(found)
}

//! `Local` and nodes without an endpoint: who sends them connections that they drop, and what
//! mends it.

use unmasq_cluster::kubernetes::{Service, ServiceType};
use unmasq_model::packet::Family;

use super::policy::{CLUSTER, apart, before};
use super::spread::Spread;
use super::{
    Context, Described, Group, command, computed, few, generic, literal, patch, sentence, step,
    title, undone, unseen,
};
use crate::{Cause, Confidence, Remedy, quoted};

/// No more nodes than this get a command each.
const FEW: usize = 4;

/// Rows of connections that a node dropped because it has no endpoint.
pub(super) fn dropped(context: &Context<'_, '_>, subject: &str, group: &Group) -> Described {
    let index = subject.split_once('/').and_then(|(of, name)| context.lookup.service(of, name));
    let service = index.and_then(|index| context.cluster.objects.services.get(index as usize));
    let Some(service) = service else { return generic(group) };
    let spread = Spread::of(context, service);
    sent_nowhere(context, service, &spread.without)
}

/// A load balancer that doesn't ask sends connections to nodes that drop them.
pub(in crate::findings) fn sent_nowhere(
    context: &Context<'_, '_>,
    service: &Service,
    nodes: &[String],
) -> Described {
    let name = service.full_name();
    let text = format!(
        "With externalTrafficPolicy: Local a node gives connections to its own ready pods alone, and \
         without one it drops them. {} without a ready pod of {name}: {}. A node tells whether it has \
         one at healthCheckNodePort; who sends connections to the nodes doesn't ask there.",
        if nodes.len() == 1 { "One node is" } else { "These nodes are" },
        few(nodes)
    );
    let mut remedies = Vec::new();
    if service.spec.kind == ServiceType::LoadBalancer {
        remedies.push(ask_for_health(context, service));
    }
    remedies.push(more_pods(context, service));
    remedies.push(back_to_cluster(service));
    Described {
        title: title(
            format!(
                "Service {name} is sent connections at {}, which drop them: no pod there",
                few(nodes)
            ),
            "A Local Service is sent connections at nodes without a pod, which drop them",
        ),
        confidence: Confidence::Certain,
        cause: local(service, text),
        remedies,
    }
}

/// All pods on one node: it has to stay.
pub(in crate::findings) fn one_node(
    context: &Context<'_, '_>,
    service: &Service,
    node: &str,
) -> Described {
    let name = service.full_name();
    let text = format!(
        "All ready pods of {name} are on {node}. With externalTrafficPolicy: Local only that node \
         answers, and all others drop. When it goes, or its pods move, connections are dropped until \
         whoever sends them has noticed."
    );
    Described {
        title: title(
            format!("Service {name} with Local has pods on one node only, {node}"),
            "A Service with Local has pods on one node only",
        ),
        confidence: Confidence::Certain,
        cause: local(service, text),
        remedies: vec![more_pods(context, service)],
    }
}

/// `internalTrafficPolicy: Local`: clients on nodes without an endpoint get nothing.
pub(in crate::findings) fn internal(service: &Service, nodes: &[String]) -> Described {
    let (namespace, name) = (&*service.metadata.namespace, &*service.metadata.name);
    let full = service.full_name();
    let policy = |value: &str| format!(r#"{{"spec":{{"internalTrafficPolicy":"{value}"}}}}"#);
    let remedy = Remedy {
        lasting: true,
        title: "If clients run there: internalTrafficPolicy: Cluster".to_owned(),
        steps: vec![step(
            format!("Service {full}: clients get a pod of any node, with the same source as now"),
            patch("service", Some(namespace), name, &policy("Cluster"), policy("Local")),
        )],
        requires: vec![unseen(
            "something on these nodes calls the cluster IP",
            command(format!(
                "kubectl get pods -A -o wide | grep -w -e {}",
                nodes.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(" -e ")
            )),
        )],
    };
    Described {
        title: title(
            format!(
                "Service {full} with internalTrafficPolicy: Local has no pod on {}",
                few(nodes)
            ),
            "A Service with internalTrafficPolicy: Local has nodes without a pod",
        ),
        confidence: Confidence::Certain,
        cause: Cause {
            text: format!(
                "With internalTrafficPolicy: Local a client of the cluster IP gets a ready pod of its \
                 own node or none. Clients on {} are dropped.",
                few(nodes)
            ),
            setting: Some("internalTrafficPolicy: Local".to_owned()),
            place: Some(format!("Service {full}, spec.internalTrafficPolicy")),
        },
        remedies: vec![remedy],
    }
}

fn local(service: &Service, text: String) -> Cause {
    Cause {
        text,
        setting: Some("externalTrafficPolicy: Local".to_owned()),
        place: Some(format!("Service {}, spec.externalTrafficPolicy", service.full_name())),
    }
}

fn ask_for_health(context: &Context<'_, '_>, service: &Service) -> Remedy {
    let port = service.spec.health_check_node_port;
    let port = port.map_or_else(|| "HEALTH-CHECK-NODE-PORT".to_owned(), |port| port.to_string());
    let objects = context.cluster.objects.nodes.iter();
    let addresses = objects.filter_map(|one| one.ip(Family::V4).or_else(|| one.ip(Family::V6)));
    let hosts = addresses.take(FEW).map(|one| match one.is_ipv6() {
        true => format!("[{one}]"),
        false => one.to_string(),
    });
    let mut hosts: Vec<String> = hosts.collect();
    if hosts.is_empty() {
        hosts.push("NODE".to_owned());
    }
    let curl = |host: &String| {
        format!("curl -s -m 2 -o /dev/null -w '%{{http_code}}\\n' http://{host}:{port}/healthz")
    };
    let text = format!(
        "The load balancer of {} asks each node for /healthz at port {port}, and takes a node out that \
         doesn't answer 200",
        service.full_name()
    );
    Remedy {
        lasting: true,
        title: "Let the load balancer ask healthCheckNodePort".to_owned(),
        steps: vec![undone(
            text,
            [
                literal("HAProxy: option httpchk GET /healthz; http-check expect status 200"),
                literal(format!(
                    "HAProxy: default-server check port {port} inter 2s fall 2 rise 1"
                )),
            ],
            [sentence("Take the check out again.")],
        )],
        requires: vec![unseen(
            format!(
                "the load balancer's own addresses may reach port {port} of every node (200 with a pod, 503 without)"
            ),
            command(hosts.iter().map(curl).collect::<Vec<_>>().join("; ")),
        )],
    }
}

fn more_pods(context: &Context<'_, '_>, service: &Service) -> Remedy {
    let nodes = context.cluster.nodes.len();
    let text = format!(
        "Pods of {} on different nodes where there is room; a DaemonSet has one on each. This restarts \
         them",
        service.full_name()
    );
    let most = Spread::of(context, service).on.values().sum::<usize>();
    Remedy {
        lasting: true,
        title: "Pods on every node that is sent connections".to_owned(),
        steps: vec![apart(context, service, text)],
        requires: vec![computed(
            most >= nodes,
            format!("there are as many pods as nodes ({most} ready pods, {nodes} nodes)"),
        )],
    }
}

fn back_to_cluster(service: &Service) -> Remedy {
    let (namespace, name) = (&*service.metadata.namespace, &*service.metadata.name);
    Remedy {
        lasting: true,
        title: "Or back to Cluster at once: every node answers, and clients are hidden".to_owned(),
        steps: vec![step(
            format!("Service {namespace}/{name}: connections work, their sources don't arrive"),
            patch("service", Some(namespace), name, CLUSTER, before(service)),
        )],
        requires: vec![unseen(
            "nothing behind it judges clients by their addresses",
            sentence("The other findings."),
        )],
    }
}

//! `externalTrafficPolicy: Cluster`: kube-proxy's masquerade that the answer needs.

use unmasq_cluster::kubernetes::{Service, ServiceType, TrafficPolicy};

use super::spread::Spread;
use super::{
    Context, Described, Group, Known, by_hand, cause, command, computed, count, few, literal,
    patch, patch_command, sentence, services, step, title, undone, unseen,
};
use crate::{Remedy, Requirement, Step, quoted, shell};

pub(super) const LOCAL: &str = r#"{"spec":{"externalTrafficPolicy":"Local"}}"#;
pub(super) const CLUSTER: &str = r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#;

/// The patch that brings back the policy that a Service has.
pub(super) fn before(service: &Service) -> String {
    match service.spec.external_traffic_policy {
        TrafficPolicy::Cluster => CLUSTER.to_owned(),
        TrafficPolicy::Local => LOCAL.to_owned(),
    }
}

/// So many Services get a step each.
const FEW: usize = 5;

pub(super) fn describe(context: &Context<'_, '_>, group: &Group) -> Described {
    let services = affected(context, group);
    let names: Vec<String> = services.iter().map(|one| quoted(&one.full_name())).collect();
    let who = match &names[..] {
        [one] => format!("Service {one} hides its clients"),
        [] => "Services hide their clients".to_owned(),
        more => format!("{} Services hide their clients", more.len()),
    };
    let place = match &names[..] {
        [] => None,
        _ => Some(Known::new(
            "externalTrafficPolicy: Cluster",
            format!("Service {}, spec.externalTrafficPolicy", few(&names)),
        )),
    };
    let text = "kube-proxy marks what comes to a node port, a load balancer's address or an external \
                IP, and masquerades it, even to a pod of the same node. With \
                externalTrafficPolicy: Cluster, the default, the pod may be on another node, and an \
                answer straight from there would not come from the address that was called. So this \
                masquerade is needed as long as the policy is Cluster.";
    let (confidence, cause) = cause(group, text.to_owned(), place);
    let mut remedies: Vec<Remedy> = local(context, &services).into_iter().collect();
    remedies.push(forwarded_for());
    remedies.push(proxy_protocol());
    Described {
        title: title(
            format!("{who}: externalTrafficPolicy is Cluster"),
            "A Service hides its clients: externalTrafficPolicy is Cluster",
        ),
        confidence,
        cause,
        remedies,
    }
}

/// The Services of the group that have the policy.
fn affected<'c>(context: &Context<'_, 'c>, group: &Group) -> Vec<&'c Service> {
    let services = services(context, group);
    services.filter(|one| one.spec.external_traffic_policy == TrafficPolicy::Cluster).collect()
}

/// Whether the API takes `Local` (pkg/apis/core/validation of kubernetes).
pub(in crate::findings) fn may_be_local(service: &Service) -> bool {
    match service.spec.kind {
        ServiceType::NodePort | ServiceType::LoadBalancer => true,
        ServiceType::ClusterIp => !service.spec.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    }
}

fn local(context: &Context<'_, '_>, services: &[&Service]) -> Option<Remedy> {
    let services: Vec<&Service> =
        services.iter().copied().filter(|one| may_be_local(one)).collect();
    if services.is_empty() {
        return None;
    }
    let spreads: Vec<(&Service, Spread)> =
        services.iter().map(|one| (*one, Spread::of(context, one))).collect();
    let mut steps = Vec::new();
    if services.len() <= FEW {
        for (service, spread) in spreads.iter().filter(|(_, spread)| !spread.is_even()) {
            steps.push(spread_pods(context, service, spread));
        }
        for service in &services {
            let (namespace, name) = (&*service.metadata.namespace, &*service.metadata.name);
            steps.push(step(
                format!("Service {namespace}/{name}: only pods of the node that is called get the call, with the client's address"),
                patch("service", Some(namespace), name, LOCAL, before(service)),
            ));
        }
    } else {
        let list =
            services.iter().map(|one| quoted(&one.full_name())).collect::<Vec<_>>().join(" ");
        let each = |policy: &str| {
            command(format!(
                "for service in {list}; do kubectl -n \"${{service%/*}}\" patch \
                 \"service/${{service#*/}}\" --type=merge -p '{policy}'; done"
            ))
        };
        let text =
            format!("{}: take those out that must stay Cluster", count(services.len(), "Service"));
        steps.push(undone(text, [each(LOCAL)], [each(CLUSTER)]));
    }
    Some(Remedy {
        lasting: true,
        title: "Set externalTrafficPolicy: Local".to_owned(),
        steps,
        requires: requirements(&spreads),
    })
}

fn requirements(spreads: &[(&Service, Spread)]) -> Vec<Requirement> {
    let mut all = Vec::new();
    let balanced = |kind: ServiceType| spreads.iter().find(|(one, _)| one.spec.kind == kind);
    if let Some((service, _)) = balanced(ServiceType::LoadBalancer) {
        let (namespace, name) =
            (quoted(&service.metadata.namespace), shell::object("service", &service.metadata.name));
        all.push(unseen(
            "the load balancer asks healthCheckNodePort, and so leaves out nodes without a pod: it \
             gets 200 with a pod, 503 without. The port is assigned once the policy is Local",
            command(format!(
                "port=$(kubectl -n {namespace} get {name} -o \
                 jsonpath='{{.spec.healthCheckNodePort}}'); for ip in $(kubectl get nodes -o \
                 jsonpath='{{.items[*].status.addresses[?(@.type==\"InternalIP\")].address}}'); do \
                 case $ip in *:*) ip=\"[$ip]\";; esac; \
                 curl -gsS -m 3 -o /dev/null -w \"$ip %{{http_code}}\\n\" \"http://$ip:$port/\"; done"
            )),
        ));
    }
    let empty: Vec<String> = spreads
        .iter()
        .filter(|(_, spread)| !spread.without.is_empty())
        .map(|(service, spread)| format!("{} on {}", service.full_name(), few(&spread.without)))
        .collect();
    match empty.is_empty() {
        true => all.push(computed(true, "every node has a ready pod: none would drop connections")),
        false => all.push(computed(
            false,
            format!("nodes without a ready pod drop what they get: {}", few(&empty)),
        )),
    }
    for (service, spread) in spreads.iter().filter(|(_, spread)| !spread.is_even()).take(FEW) {
        if let Some(sentence) = spread.sentence() {
            all.push(computed(
                false,
                format!("{} spreads evenly: {sentence}", service.full_name()),
            ));
        }
    }
    let text = "the client's address matters more than an even load: Local saves a hop and is almost \
                always right behind a load balancer with health checks; Cluster is right where \
                clients call single nodes by themselves, or where the load must be spread over all \
                pods";
    all.push(Requirement { text: text.to_owned(), holds: None, check: None });
    all
}

fn spread_pods(context: &Context<'_, '_>, service: &Service, spread: &Spread) -> Step {
    let text = format!(
        "Before, spread the pods of {} over nodes ({}); this restarts them",
        service.full_name(),
        spread.sentence().unwrap_or_else(|| "there is none".to_owned())
    );
    apart(context, service, text)
}

/// A preferred anti-affinity spreads pods over nodes without keeping any from running.
pub(in crate::findings) fn apart(
    context: &Context<'_, '_>,
    service: &Service,
    text: String,
) -> Step {
    let labels: Vec<String> = service
        .spec
        .selector
        .iter()
        .map(|(key, value)| format!("{}:{}", super::json(key), super::json(value)))
        .collect();
    let affinity = format!(
        r#"{{"spec":{{"template":{{"spec":{{"affinity":{{"podAntiAffinity":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":100,"podAffinityTerm":{{"labelSelector":{{"matchLabels":{{{}}}}},"topologyKey":"kubernetes.io/hostname"}}}}]}}}}}}}}}}}}"#,
        labels.join(",")
    );
    let namespace = &*service.metadata.namespace;
    // A DaemonSet has one on each node anyway.
    let mut workloads = context.lookup.workloads_of(service);
    match workloads.find(|(kind, _)| *kind != "DaemonSet") {
        Some((kind, found)) => step(
            text,
            patch(&kind.to_lowercase(), Some(namespace), &found.metadata.name, &affinity, None),
        ),
        None => undone(
            format!("{text}. Their Deployment or StatefulSet was not seen"),
            [patch_command("deployment", Some(namespace), "NAME", &affinity)],
            [command(format!("kubectl rollout undo deployment/NAME -n {}", quoted(namespace)))],
        ),
    }
}

fn forwarded_for() -> Remedy {
    Remedy {
        lasting: true,
        title: "For HTTP: let a proxy in front say the client in X-Forwarded-For".to_owned(),
        steps: vec![
            by_hand(
                "The proxy in front (HTTP or TLS ends there) sets the header and drops what clients send in it",
                [literal(
                    "HAProxy: http-request del-header X-Forwarded-For, then option forwardfor",
                )],
            ),
            undone(
                "The server behind believes it from that proxy's addresses alone",
                [
                    literal(
                        "ingress-nginx, its ConfigMap: use-forwarded-headers: \"true\", proxy-real-ip-cidr: PROXY-RANGE",
                    ),
                    literal(
                        "nginx: set_real_ip_from PROXY-RANGE; real_ip_header X-Forwarded-For; real_ip_recursive on;",
                    ),
                ],
                [sentence("Take both settings away again.")],
            ),
        ],
        requires: vec![
            unseen(
                "nobody reaches the server without the proxy: with Cluster the server sees nodes, so it must trust nodes",
                sentence("A request to a node port from elsewhere, with a header of one's own."),
            ),
            unseen(
                "whatever judges by address reads the header (NetworkPolicy and loadBalancerSourceRanges can't)",
                sentence("The server's access log."),
            ),
        ],
    }
}

fn proxy_protocol() -> Remedy {
    Remedy {
        lasting: true,
        title: "Or: let a load balancer in front speak PROXY protocol".to_owned(),
        steps: vec![
            by_hand(
                "Server: it takes the address from the protocol, and refuses connections without it",
                [
                    literal("ingress-nginx, its ConfigMap: use-proxy-protocol: \"true\""),
                    literal(
                        "nginx: listen 80 proxy_protocol; set_real_ip_from BALANCER-RANGE; real_ip_header proxy_protocol;",
                    ),
                ],
            ),
            undone(
                "Load balancer, at the same time: it begins each connection with it",
                [
                    literal("HAProxy: server n1 NODE:NODEPORT check send-proxy-v2"),
                    literal(
                        "AWS (classic): annotation service.beta.kubernetes.io/aws-load-balancer-proxy-protocol: \"*\"",
                    ),
                ],
                [sentence("Take both settings away again, together.")],
            ),
        ],
        requires: vec![unseen(
            "both ends change together: with one end only, every connection fails, health checks too",
            sentence("A request through the load balancer, and the server's access log."),
        )],
    }
}

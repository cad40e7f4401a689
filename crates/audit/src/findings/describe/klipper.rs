//! klipper-lb, the load balancer of k3s: its pods translate in their own network namespace.

use unmasq_cluster::kubernetes::{Service, ServiceType, TrafficPolicy};
use unmasq_cluster::settings::Place;

use super::policy::{CLUSTER, LOCAL};
use super::{
    Context, Described, Group, Known, by_hand, cause, command, json, literal, of_node, patch,
    restart_on, sentence, services, step, title, undone, unseen,
};
use crate::{Remedy, Step, Syntax};

const CONFIG: &str = "/etc/rancher/k3s/config.yaml";

pub(super) fn describe(context: &Context<'_, '_>, group: &Group) -> Described {
    let cluster = context.cluster;
    let services: Vec<_> = services(context, group)
        .filter(|service| service.spec.kind == ServiceType::LoadBalancer)
        .collect();
    let disabled = cluster.settings.rancher.disable.all();
    let known = cluster
        .settings
        .rancher
        .places
        .first()
        .map(|place| Known::new("servicelb is not disabled, and deployed by default", place));
    let known =
        known.filter(|_| disabled.iter().all(|one| !one.value.iter().any(|x| x == "servicelb")));
    let text = "k3s' own load balancer is a pod on each node (svclb-…) that takes the Service's port as a \
                host port, and in its network namespace masquerades what it hands on. So whatever the \
                Service's policy is, its pods see the load balancer's pod or a node in place of \
                the client."
        .to_owned();
    let (confidence, cause) = cause(group, text, known);
    let mut steps = vec![by_hand(
        "Bring another load balancer whose packets keep their source (MetalLB, kube-vip, one outside), \
         with addresses for the Services",
        [command("kubectl get services -A -o wide | grep LoadBalancer")],
    )];
    steps.extend(disable(context));
    // Those that have Local keep what they have.
    let cluster_wide = |one: &&&Service| one.spec.external_traffic_policy == TrafficPolicy::Cluster;
    for service in services.iter().filter(cluster_wide) {
        let (namespace, name) = (&*service.metadata.namespace, &*service.metadata.name);
        steps.push(step(
            format!(
                "Service {namespace}/{name}: with Local, kube-proxy keeps the client's address too"
            ),
            patch("service", Some(namespace), name, LOCAL, CLUSTER.to_owned()),
        ));
    }
    let remedy = Remedy {
        lasting: true,
        title: "Another load balancer than servicelb, and externalTrafficPolicy: Local".to_owned(),
        steps,
        requires: vec![
            unseen(
                "the other load balancer has addresses to give, and leaves out nodes without a pod",
                sentence(
                    "Its documentation: healthCheckNodePort, or announcing from nodes with pods only.",
                ),
            ),
            unseen(
                "no connection goes through svclb pods any more when they are removed",
                command("kubectl -n kube-system get pods -l svccontroller.k3s.cattle.io/svcname"),
            ),
        ],
    };
    let names: Vec<String> = services.iter().map(|service| service.full_name()).collect();
    Described {
        title: match &names[..] {
            [one] => title(
                format!("The load balancer of k3s hides the clients of Service {one}"),
                "The load balancer of k3s hides the clients of a Service",
            ),
            _ => "The load balancer of k3s hides the clients of Services".to_owned(),
        },
        confidence,
        cause,
        remedies: vec![remedy],
    }
}

/// On the servers: agents don't have the setting.
fn disable(context: &Context<'_, '_>) -> Vec<Step> {
    let settings = &context.cluster.settings.rancher;
    let mut nodes: Vec<&str> = Vec::new();
    for node in &context.cluster.nodes {
        let mut processes = node.processes.iter().flatten();
        let serves = processes.any(|one| {
            one.name == "k3s-server"
                || (one.name == "k3s" && one.arguments.iter().any(|word| word == "server"))
        });
        if serves {
            nodes.push(&node.name);
        }
    }
    let list = |parts: &[String]| {
        let quoted: Vec<String> = parts.iter().map(|part| json(part)).collect();
        format!("[{}]", quoted.join(","))
    };
    let change = |node: &str| {
        let value = settings.disable.on(node);
        // Its own arguments replace the list of the file, and may be given several times
        // (docs.k3s.io, "Configuration Options").
        if let Some(Place::Process { program, .. }) = value.map(|setting| &setting.place) {
            return of_node(Some(node), program, "--disable=servicelb", None);
        }
        let path = match value.map(|setting| &setting.place) {
            Some(Place::File { path, .. }) => path.as_str(),
            Some(_) | None => CONFIG,
        };
        let old = value.map(|setting| list(&setting.value));
        let mut parts = value.map_or_else(Vec::new, |setting| setting.value.clone());
        parts.push("servicelb".to_owned());
        super::value(vec![node.to_owned()], path, (Syntax::Yaml, "/disable"), old, list(&parts))
    };
    let mut steps: Vec<Step> = Vec::new();
    let is_told = |node: &&&str| {
        let value = settings.disable.on(node);
        value.is_some_and(|setting| setting.value.iter().any(|part| part == "servicelb"))
    };
    for node in nodes.iter().filter(|node| !is_told(node)) {
        let text = format!("On {node}: k3s removes its load balancer's pods when it starts");
        steps.push(step(text, change(node)));
    }
    if nodes.is_empty() {
        steps.push(undone(
            format!("On every server, in {CONFIG}: servicelb on the list of `disable`"),
            [literal("disable: [servicelb]")],
            [sentence("Take servicelb off the list again.")],
        ));
    }
    let text = match !nodes.is_empty() && nodes.iter().all(|node| is_told(&node)) {
        true => {
            "servicelb is disabled there, and its pods are left: on servers one after the other, so \
             that k3s takes them away"
        }
        false => "On servers one after the other, so that it reads that",
    };
    let servers = nodes.iter().map(|node| Some(*node));
    let all: Vec<Option<&str>> = if nodes.is_empty() { vec![None] } else { servers.collect() };
    steps.extend(all.into_iter().map(|node| step(text, restart_on(node, "k3s"))));
    steps
}

//! klipper-lb, the load balancer of k3s: its pods translate in their own network namespace.

use std::collections::BTreeSet;

use unmasq_cluster::kubernetes::ServiceType;
use unmasq_cluster::settings::Place;

use super::{
    Context, Described, Group, Known, by_hand, cause, patch, patch_command, step, title, unseen,
};
use crate::{Action, Remedy, Step};

const LOCAL: &str = r#"{"spec":{"externalTrafficPolicy":"Local"}}"#;
const CLUSTER: &str = r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#;
const CONFIG: &str = "/etc/rancher/k3s/config.yaml";

pub(super) fn describe(context: &Context<'_, '_>, group: &Group) -> Described {
    let cluster = context.cluster;
    let rows = group.rows.iter().filter_map(|row| context.matrix.rows.get(*row));
    let indices: BTreeSet<u32> = rows.flat_map(|row| &row.services).copied().collect();
    let services: Vec<_> = indices
        .into_iter()
        .filter_map(|index| cluster.objects.services.get(index as usize))
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
        ["kubectl get services -A -o wide | grep LoadBalancer".to_owned()],
    )];
    steps.extend(disable(context));
    let mut undo = Vec::new();
    for service in &services {
        let (namespace, name) = (&*service.metadata.namespace, &*service.metadata.name);
        steps.push(step(
            format!(
                "Service {namespace}/{name}: with Local, kube-proxy keeps the client's address too"
            ),
            patch("service", Some(namespace), name, LOCAL),
        ));
        undo.push(patch_command("service", Some(namespace), name, CLUSTER));
    }
    undo.push(
        "take servicelb off the list of `disable` again, and restart k3s on the servers".to_owned(),
    );
    let remedy = Remedy {
        lasting: true,
        title: "Another load balancer than servicelb, and externalTrafficPolicy: Local".to_owned(),
        steps,
        requires: vec![
            unseen(
                "the other load balancer has addresses to give, and leaves out nodes without a pod",
                "its documentation: healthCheckNodePort, or announcing from nodes with pods only",
            ),
            unseen(
                "no connection goes through svclb pods any more when they are removed",
                "kubectl -n kube-system get pods -l svccontroller.k3s.cattle.io/svcname",
            ),
        ],
        undo,
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
    let change = |node: Option<&str>| {
        let value = node.and_then(|node| settings.disable.on(node));
        let path = match value.map(|setting| &setting.place) {
            Some(Place::File { path, .. }) => path.as_str(),
            Some(_) | None => CONFIG,
        };
        let mut parts = value.map_or_else(Vec::new, |setting| setting.value.clone());
        parts.push("servicelb".to_owned());
        let list: String = parts.iter().map(|part| format!("\n  - {part}")).collect();
        let at = node.map_or_else(|| "every server".to_owned(), str::to_owned);
        step(
            format!(
                "On {at}: k3s removes its load balancer's pods when it starts (then: systemctl restart k3s)"
            ),
            Action::File {
                node: node.map(str::to_owned),
                path: path.to_owned(),
                content: format!("disable:{list}"),
            },
        )
    };
    match nodes.is_empty() {
        true => vec![change(None)],
        false => nodes.into_iter().map(|node| change(Some(node))).collect(),
    }
}

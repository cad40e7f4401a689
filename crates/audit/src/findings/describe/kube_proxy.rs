//! kube-proxy's settings that make it masquerade pods: `clusterCIDR`, `masqueradeAll`.

use ipnet::IpNet;
use unmasq_cluster::settings::Place;
use unmasq_model::packet::Family;

use super::{
    Context, Described, Group, Known, by_hand, cause, computed, networks, step, title, unseen,
};
use crate::{Action, Remedy, Requirement, Step};

/// The ranges that kube-proxy takes for pods', and those that pods have.
pub(super) fn cluster_cidr(context: &Context<'_, '_>, group: &Group) -> Described {
    let proxy = &context.cluster.settings.kube_proxy;
    let configured = proxy.cluster_cidrs.first();
    let has = configured.map_or(&[][..], |setting| setting.value.as_slice());
    let covers = |net: &IpNet| has.iter().any(|one| one.contains(net));
    let families = [Family::V4, Family::V6];
    let pods: Vec<IpNet> =
        families.iter().flat_map(|family| wanted(context, has, *family)).collect();
    let missed: Vec<IpNet> = pods.iter().copied().filter(|net| !covers(net)).collect();
    let detector = proxy.detect_local_mode.first();
    let other = detector.filter(|one| !matches!(one.value.as_str(), "" | "ClusterCIDR"));
    let known = match (other, configured) {
        (Some(other), _) => {
            Some(Known::new(format!("detectLocalMode: {}", other.value), &other.place))
        }
        (None, Some(one)) => Some(Known::new(format!("clusterCIDR: {}", joined(has)), &one.place)),
        (None, None) => None,
    };
    let ranges = if has.is_empty() { "its range".to_owned() } else { networks::listed(has) };
    let theirs = if missed.is_empty() {
        String::new()
    } else {
        format!(" Pods have addresses in {} too.", networks::listed(&missed))
    };
    let text = match other {
        Some(other) => format!(
            "kube-proxy masquerades calls of a cluster IP that don't come from a pod as it sees pods, \
             by detectLocalMode {}. These pods are none to it, so it masquerades their calls.",
            other.value
        ),
        None => format!(
            "kube-proxy masquerades calls of a cluster IP that come from outside of {ranges}, which \
             it was told is the range of all pods.{theirs} To kube-proxy those are strangers, so \
             it masquerades their calls."
        ),
    };
    let (confidence, cause) = cause(group, text, known);
    let value = joined(&pods);
    let remedy = Remedy {
        lasting: true,
        title: "Tell kube-proxy the ranges of all pods".to_owned(),
        steps: if pods.is_empty() { Vec::new() } else { told(context, &value) },
        requires: vec![ranges_are_known(&pods)],
        undo: vec![format!("set clusterCIDR back to {}", joined(has))],
    };
    Described {
        title: match missed[..] {
            [] => "kube-proxy takes pods for strangers".to_owned(),
            _ => title(
                format!(
                    "kube-proxy takes pods in {} for strangers: its clusterCIDR is {}",
                    networks::listed(&missed),
                    joined(has)
                ),
                "kube-proxy takes pods for strangers: clusterCIDR misses their range",
            ),
        },
        confidence,
        cause,
        remedies: vec![remedy],
    }
}

/// What the setting should be in one family: what it is, if that is all.
fn wanted(context: &Context<'_, '_>, has: &[IpNet], family: Family) -> Vec<IpNet> {
    let pods = networks::pod_networks(context.cluster, family);
    if !pods.is_empty() {
        return pods;
    }
    has.iter().copied().filter(|net| Family::of(net.addr()) == family).collect()
}

fn joined(nets: &[IpNet]) -> String {
    nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// kube-proxy takes one range for each family (cmd/kube-proxy/app/options.go of kubernetes).
fn ranges_are_known(pods: &[IpNet]) -> Requirement {
    let of = |family| pods.iter().filter(|net| Family::of(net.addr()) == family).count();
    let text = format!("all pods are in {}, one range for each family", networks::listed(pods));
    match (pods.is_empty(), of(Family::V4) <= 1 && of(Family::V6) <= 1) {
        (true, _) => unseen("the ranges of all pods are known", "say them: --cluster-cidr RANGE"),
        (false, holds) => computed(holds, text),
    }
}

fn told(context: &Context<'_, '_>, value: &str) -> Vec<Step> {
    let proxy = &context.cluster.settings.kube_proxy;
    let mut steps = Vec::new();
    match proxy.cluster_cidrs.first().map(|setting| &setting.place) {
        Some(Place::Object { kind: "ConfigMap", namespace, name, .. }) => {
            steps.push(edit_config_map(namespace, name, "clusterCIDR", value));
            steps.push(restart(namespace));
        }
        Some(place) => {
            steps.push(at(place, &format!("--cluster-cidr={value}"), "cluster-cidr", value))
        }
        None => steps.push(by_hand(
            "Set kube-proxy's clusterCIDR, and restart it on every node",
            [format!("kube-proxy --cluster-cidr={value}")],
        )),
    }
    if context.cluster.objects.config_map("kube-system", "kubeadm-config").is_some() {
        let first = value.to_owned();
        steps.push(by_hand(
            format!("kubeadm writes kube-proxy's ConfigMap again on an upgrade: set networking.podSubnet to {first} there"),
            ["kubectl -n kube-system edit configmap kubeadm-config".to_owned()],
        ));
    }
    if context.cluster.settings.rancher.is_present() {
        steps.push(by_hand(
            "k3s and rke2 take the range from --cluster-cidr, which a cluster that exists can't change: \
             say it when the next one is made",
            [format!("k3s server --cluster-cidr={value}")],
        ));
    }
    steps
}

/// One line of a configuration in a ConfigMap's key.
fn edit_config_map(namespace: &str, name: &str, key: &str, value: &str) -> Step {
    let change = format!(
        "kubectl -n {namespace} get configmap {name} -o yaml | sed 's#^\\( *{key}:\\).*#\\1 {value}#'"
    );
    by_hand(
        format!(
            "Set {key}: {value} in the ConfigMap {namespace}/{name}; look at the difference first"
        ),
        [format!("{change} | kubectl diff -f -"), format!("{change} | kubectl apply -f -")],
    )
}

fn restart(namespace: &str) -> Step {
    by_hand(
        "kube-proxy reads it when it starts",
        [
            format!("kubectl -n {namespace} rollout restart daemonset/kube-proxy"),
            format!("kubectl -n {namespace} rollout status daemonset/kube-proxy"),
        ],
    )
}

/// The setting where it was found outside of a ConfigMap.
fn at(place: &Place, argument: &str, key: &str, value: &str) -> Step {
    let restart = "and restart it, on every node";
    match place {
        Place::File { node, path, .. } if path.contains("/rancher/") => step(
            format!("On {node}: the argument that k3s or rke2 hands on to kube-proxy, {restart}"),
            Action::File {
                node: Some(node.clone()),
                path: path.clone(),
                content: format!("kube-proxy-arg:\n  - \"{key}={value}\""),
            },
        ),
        Place::Process { node, program, .. } if program.starts_with("k3s") || program == "rke2" => {
            step(
                format!("On {node}: the argument that {program} hands on to kube-proxy, {restart}"),
                Action::Argument {
                    place: format!("node {node}, {program}"),
                    namespace: None,
                    argument: format!("--kube-proxy-arg={key}={value}"),
                },
            )
        }
        Place::Process { node, program, .. } => step(
            format!("On {node}: {program}'s argument, in its unit or static pod, {restart}"),
            Action::Argument {
                place: format!("node {node}, {program}"),
                namespace: None,
                argument: argument.to_owned(),
            },
        ),
        Place::Object { kind, namespace, name, .. } => step(
            format!("kube-proxy's argument in {kind} {namespace}/{name}"),
            Action::Argument {
                place: format!("{}/{name}", kind.to_lowercase()),
                namespace: Some(namespace.clone()),
                argument: argument.to_owned(),
            },
        ),
        Place::File { .. } | Place::State { .. } | Place::Given { .. } => {
            by_hand(format!("Where it stands ({place}), {restart}"), [argument.to_owned()])
        }
    }
}

/// Everything that goes to a cluster IP is masqueraded.
pub(super) fn masquerade_all(context: &Context<'_, '_>, group: &Group) -> Described {
    let settings = context.cluster.settings.kube_proxy.masquerade_all.all();
    let on = settings.iter().find(|setting| setting.value);
    let known = on.map(|setting| Known::new("masqueradeAll: true", &setting.place));
    let text = "kube-proxy marks every call of a Service's cluster IP and masquerades it, pods' own calls \
                too. It is told to by masqueradeAll, which is off by default; it is only needed where \
                answers of pods don't come back by the node that translated."
        .to_owned();
    let (confidence, cause) = cause(group, text, known);
    let mut steps = Vec::new();
    match on.map(|setting| &setting.place) {
        Some(Place::Object { kind: "ConfigMap", namespace, name, .. }) => {
            steps.push(edit_config_map(namespace, name, "masqueradeAll", "false"));
            steps.push(restart(namespace));
        }
        Some(place) => steps.push(at(place, "--masquerade-all=false", "masquerade-all", "false")),
        None => steps.push(by_hand(
            "Take masqueradeAll away where kube-proxy is configured, and restart it on every node",
            [
                "kubectl -n kube-system get configmap kube-proxy -o yaml | grep masqueradeAll"
                    .to_owned(),
                "ps ax | grep -e --masquerade-all".to_owned(),
            ],
        )),
    }
    let remedy = Remedy {
        lasting: true,
        title: "Switch masqueradeAll off".to_owned(),
        steps,
        requires: vec![
            unseen(
                "a node's pods are told from others: clusterCIDR or another detector is set, else calls from outside to cluster IPs get no answer",
                "kubectl -n kube-system get configmap kube-proxy -o yaml | grep -e clusterCIDR -e detectLocalMode",
            ),
            unseen(
                "pods' answers come back through the node (bridge-nf-call-iptables=1 where pods share a bridge)",
                "sysctl net.bridge.bridge-nf-call-iptables",
            ),
        ],
        undo: vec!["set masqueradeAll: true again, and restart kube-proxy".to_owned()],
    };
    Described {
        title: "kube-proxy masquerades every call of a Service: masqueradeAll is on".to_owned(),
        confidence,
        cause,
        remedies: vec![remedy],
    }
}

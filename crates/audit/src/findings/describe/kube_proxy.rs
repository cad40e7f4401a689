//! kube-proxy's settings that make it masquerade pods: `clusterCIDR`, `masqueradeAll`.

use ipnet::IpNet;
use unmasq_cluster::settings::Place;
use unmasq_model::packet::Family;

use super::{
    Context, Described, Group, Known, argument, by_hand, cause, command, computed, literal,
    networks, of_node, rollout, sentence, step, title, undone, unseen, workload,
};
use crate::{Action, Program, Remedy, Requirement, Step, Workload, WorkloadKind, quoted};

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
        steps: if pods.is_empty() { Vec::new() } else { told(context, &value, &joined(has)) },
        requires: vec![ranges_are_known(&pods)],
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
        (true, _) => {
            unseen("the ranges of all pods are known", sentence("Say them: --cluster-cidr RANGE."))
        }
        (false, holds) => computed(holds, text),
    }
}

fn told(context: &Context<'_, '_>, value: &str, before: &str) -> Vec<Step> {
    let proxy = &context.cluster.settings.kube_proxy;
    let mut steps = Vec::new();
    match proxy.cluster_cidrs.first().map(|setting| &setting.place) {
        Some(Place::Object { kind: "ConfigMap", namespace, name, .. }) => {
            steps.push(edit_config_map(namespace, name, "clusterCIDR", (before, value)));
            steps.extend(restart(namespace));
        }
        Some(place) => steps.push(at(context, place, "cluster-cidr", before, value)),
        None => steps.push(undone(
            "Set kube-proxy's clusterCIDR, and restart it on every node",
            [literal(format!("kube-proxy --cluster-cidr={value}"))],
            [sentence(format!("Set it back to {before}."))],
        )),
    }
    if context.cluster.objects.config_map("kube-system", "kubeadm-config").is_some() {
        steps.push(undone(
            format!("kubeadm writes kube-proxy's ConfigMap again on an upgrade: set networking.podSubnet to {value} there"),
            [command("kubectl -n kube-system edit configmap kubeadm-config")],
            [sentence("networking.podSubnet as it was, in the ConfigMap kubeadm-config.")],
        ));
    }
    if context.cluster.settings.rancher.is_present() {
        steps.push(by_hand(
            "k3s and rke2 take the range from --cluster-cidr, which a cluster that exists can't change: \
             say it when the next one is made",
            [literal(format!("k3s server --cluster-cidr={value}"))],
        ));
    }
    steps
}

/// One line of a configuration in a ConfigMap's key.
fn edit_config_map(namespace: &str, name: &str, key: &str, (old, new): (&str, &str)) -> Step {
    let change = |value: &str| {
        // A replacement's own signs, each behind a backslash.
        let value = value.replace('\\', r"\\").replace('#', r"\#").replace('&', r"\&");
        let sed = quoted(&format!(r"s#^\( *{key}:\).*#\1 {value}#"));
        let (namespace, name) = (quoted(namespace), quoted(name));
        format!("kubectl -n {namespace} get configmap {name} -o yaml | sed {sed}")
    };
    let (there, back) = (change(new), change(old));
    undone(
        format!(
            "Set {key}: {new} in the ConfigMap {namespace}/{name}; look at the difference first"
        ),
        [
            command(format!("{there} | kubectl diff -f -")),
            command(format!("{there} | kubectl apply -f -")),
        ],
        [command(format!("{back} | kubectl apply -f -"))],
    )
}

fn restart(namespace: &str) -> Vec<Step> {
    let proxy = Workload {
        kind: WorkloadKind::DaemonSet,
        namespace: namespace.to_owned(),
        name: "kube-proxy".to_owned(),
        container: None,
    };
    let program = Program::Workload(proxy.clone());
    let meanwhile = "Meanwhile a node's rules stay in the kernel and connections work; changes of \
                     Services wait";
    vec![
        step("kube-proxy reads it when it starts", Action::Restart { program }),
        rollout(&proxy, meanwhile),
    ]
}

/// The setting where it was found outside of a ConfigMap.
fn at(context: &Context<'_, '_>, place: &Place, key: &str, old: &str, new: &str) -> Step {
    let restart = "and restart it, on every node";
    let flag = |value: &str| format!("--{key}={value}");
    match place {
        Place::File { node, path, .. } if path.contains("/rancher/") => {
            let lines = |value: &str| literal(format!("kube-proxy-arg: [\"{key}={value}\"]"));
            undone(
                format!(
                    "On {node}, in {path}: the argument that k3s or rke2 hands on to kube-proxy, {restart}"
                ),
                [lines(new)],
                [lines(old)],
            )
        }
        Place::Process { node, program, .. } if program.starts_with("k3s") || program == "rke2" => {
            let handed_on = |value: &str| format!("--kube-proxy-arg={key}={value}");
            step(
                format!("On {node}: the argument that {program} hands on to kube-proxy, {restart}"),
                of_node(Some(node), program, &handed_on(new), Some(handed_on(old))),
            )
        }
        Place::Process { node, program, flag: written, .. } => {
            // A switch stands alone.
            let old = if old == "true" { written.clone() } else { flag(old) };
            step(
                format!("On {node}: {program}'s argument, in its unit or static pod, {restart}"),
                of_node(Some(node), program, &flag(new), Some(old)),
            )
        }
        Place::Object { kind, namespace, name, .. } => {
            match workload(std::slice::from_ref(place)) {
                Some(found) => step(
                    format!("kube-proxy's argument in {kind} {namespace}/{name}"),
                    argument(context, found, &flag(new)),
                ),
                None => undone(
                    format!("kube-proxy's argument in {kind} {namespace}/{name}"),
                    [literal(flag(new))],
                    [literal(flag(old))],
                ),
            }
        }
        Place::File { .. } | Place::State { .. } | Place::Given { .. } => undone(
            format!("Where it stands ({place}), {restart}"),
            [literal(flag(new))],
            [literal(flag(old))],
        ),
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
            steps.push(edit_config_map(namespace, name, "masqueradeAll", ("true", "false")));
            steps.extend(restart(namespace));
        }
        Some(place) => steps.push(at(context, place, "masquerade-all", "true", "false")),
        None => steps.push(undone(
            "Take masqueradeAll away where kube-proxy is configured, and restart it on every node",
            [
                command(
                    "kubectl -n kube-system get configmap kube-proxy -o yaml | grep masqueradeAll",
                ),
                command("ps ax | grep -e --masquerade-all"),
            ],
            [sentence("Set masqueradeAll: true again, and restart kube-proxy.")],
        )),
    }
    let remedy = Remedy {
        lasting: true,
        title: "Switch masqueradeAll off".to_owned(),
        steps,
        requires: vec![
            unseen(
                "a node's pods are told from others: clusterCIDR or another detector is set, else calls from outside to cluster IPs get no answer",
                command(
                    "kubectl -n kube-system get configmap kube-proxy -o yaml | grep -e clusterCIDR -e detectLocalMode",
                ),
            ),
            unseen(
                "pods' answers come back through the node (bridge-nf-call-iptables=1 where pods share a bridge)",
                command("sysctl net.bridge.bridge-nf-call-iptables"),
            ),
        ],
    };
    Described {
        title: "kube-proxy masquerades every call of a Service: masqueradeAll is on".to_owned(),
        confidence,
        cause,
        remedies: vec![remedy],
    }
}

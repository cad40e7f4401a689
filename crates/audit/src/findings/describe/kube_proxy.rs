//! kube-proxy's settings that make it masquerade pods: `clusterCIDR`, `masqueradeAll`.

mod told;

use ipnet::IpNet;
use unmasq_cluster::settings::Setting;
use unmasq_model::packet::Family;

use self::told::{Change, told};
use super::{
    Context, Described, Group, Known, by_hand, cause, command, computed, literal, networks,
    sentence, title, undone, unseen,
};
use crate::{Remedy, Requirement, Step};

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
    let remedy = match other {
        Some(mode) => other_mode(context, mode, has),
        None => ranges_told(context, has),
    };
    Described {
        title: match (other, &missed[..]) {
            (Some(_), _) | (None, []) => "kube-proxy takes pods for strangers".to_owned(),
            (None, _) => title(
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

/// The ranges that pods have today: what was told, where nothing else says any.
fn wanted(context: &Context<'_, '_>, has: &[IpNet], family: Family) -> Vec<IpNet> {
    let pods = networks::pod_networks(context.cluster, family);
    if !pods.is_empty() {
        return pods;
    }
    has.iter().copied().filter(|net| Family::of(net.addr()) == family).collect()
}

/// What `clusterCIDR` should be, and what that rests on; `None`: nothing says it.
fn right_ranges(context: &Context<'_, '_>, has: &[IpNet]) -> (Option<String>, Requirement) {
    let families = [Family::V4, Family::V6];
    if let Some(unknown) = networks::unknown_range(context.cluster, &families) {
        return (None, unknown);
    }
    let pods: Vec<IpNet> =
        families.iter().flat_map(|family| wanted(context, has, *family)).collect();
    ((!pods.is_empty()).then(|| joined(&pods)), ranges_are_known(&pods))
}

fn ranges(has: &[IpNet], new: String) -> Change {
    Change { field: "clusterCIDR", flag: "cluster-cidr", old: joined(has), new }
}

fn ranges_told(context: &Context<'_, '_>, has: &[IpNet]) -> Remedy {
    let (value, known) = right_ranges(context, has);
    let proxy = &context.cluster.settings.kube_proxy;
    let place = proxy.cluster_cidrs.first().map(|setting| &setting.place);
    let steps = value.map(|new| {
        let mut steps = told(context, place, &[ranges(has, new.clone())]);
        steps.extend(elsewhere(context, &new));
        steps
    });
    Remedy {
        lasting: true,
        title: "Tell kube-proxy the ranges of all pods".to_owned(),
        steps: steps.unwrap_or_default(),
        requires: vec![known],
    }
}

/// Where pods are told by something else, clusterCIDR has no effect (cmd/kube-proxy/app/server_linux.go
/// of kubernetes, `getLocalDetectors`).
fn other_mode(context: &Context<'_, '_>, mode: &Setting<String>, has: &[IpNet]) -> Remedy {
    let by_hand = |field: &str, flag: &str, devices: &str| {
        undone(
            format!(
                "detectLocal.{field} in its configuration (or {flag} where it has no --config), then \
                 restart it on every node: {devices}"
            ),
            [
                command("ip -brief link; ip route"),
                literal(format!("detectLocal:\n  {field}: DEVICE")),
            ],
            [sentence(format!("detectLocal.{field} as it was, and restart it again."))],
        )
    };
    let title = "Tell kube-proxy how to know pods".to_owned();
    let known = unseen(
        "no other program's devices are called so: calls of Services that come in by them get no masquerade",
        command("ip -brief link"),
    );
    let (steps, known) = match mode.value.as_str() {
        "BridgeInterface" => {
            let devices =
                "the bridge that the pods of a node are on, with the same name everywhere";
            (vec![by_hand("bridgeInterface", "--pod-bridge-interface", devices)], known)
        }
        "InterfaceNamePrefix" => {
            let devices = "how the devices of pods begin on the node";
            (vec![by_hand("interfaceNamePrefix", "--pod-interface-name-prefix", devices)], known)
        }
        // It has no list: pods have other addresses than their node's spec.podCIDRs.
        _ => {
            let (value, known) = right_ranges(context, has);
            let steps = value.map(|new| {
                let detector = Change {
                    field: "detectLocalMode",
                    flag: "detect-local-mode",
                    old: mode.value.clone(),
                    new: "ClusterCIDR".to_owned(),
                };
                let changes = [detector, ranges(has, new.clone())];
                let mut steps = told(context, Some(&mode.place), &changes);
                steps.extend(elsewhere(context, &new));
                steps
            });
            (steps.unwrap_or_default(), known)
        }
    };
    Remedy { lasting: true, title, steps, requires: vec![known] }
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

/// Other places that bring the old ranges back, or that need the new ones.
fn elsewhere(context: &Context<'_, '_>, value: &str) -> Vec<Step> {
    let mut steps = Vec::new();
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
    let change = Change {
        field: "masqueradeAll",
        flag: "masquerade-all",
        old: "true".to_owned(),
        new: "false".to_owned(),
    };
    let steps = match on.map(|setting| &setting.place) {
        Some(place) => told(context, Some(place), &[change]),
        None => vec![undone(
            "Take masqueradeAll away where kube-proxy is configured, and restart it on every node",
            [
                command(
                    "kubectl -n kube-system get configmap kube-proxy -o yaml | grep masqueradeAll",
                ),
                command("ps ax | grep -e --masquerade-all"),
            ],
            [sentence("Set masqueradeAll: true again, and restart kube-proxy.")],
        )],
    };
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

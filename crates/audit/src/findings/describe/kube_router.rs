//! kube-router's pod egress (pkg/controllers/routing/pod_egress.go of cloudnativelabs/kube-router).

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{
    Context, Described, Group, Known, by_hand, cause, networks, pin, rules, step, unseen, workload,
};
use crate::change;
use crate::{Action, Remedy, Requirement};

const OFF: &str = "--enable-pod-egress=false";

pub(super) fn describe(context: &Context<'_, '_>, group: &Group) -> Described {
    let family = group.families.first().copied().unwrap_or(Family::V4);
    let called = if family == Family::V4 { "IPv4" } else { "IPv6" };
    let router = &context.cluster.settings.kube_router;
    let known = match router.pod_egress.first() {
        Some(one) => Some(Known::new(format!("--enable-pod-egress={}", one.value), &one.place)),
        None => router
            .places
            .first()
            .map(|place| Known::new("--enable-pod-egress is not set, and true by default", place)),
    };
    let text = format!(
        "kube-router's rule {} masquerades what pods send to addresses that are neither pods' nor \
         nodes', in each family for itself. It is there because --enable-pod-egress is on. Where \
         routers outside know the pods' ranges, {called} needs no translation here, and servers \
         outside could see the pod.",
        group.suspect.cause.rule
    );
    let (confidence, cause) = cause(group, text, known);
    let mut remedies = vec![switch_off(context, group, family)];
    remedies.extend(pinned(context, group, family));
    Described {
        title: format!("kube-router masquerades pods on their way out ({called})"),
        confidence,
        cause,
        remedies,
    }
}

fn switch_off(context: &Context<'_, '_>, group: &Group, family: Family) -> Remedy {
    let settings = &context.cluster.settings;
    let found = rules::alike(context, &group.suspect);
    let mut steps = Vec::new();
    let mut undo = Vec::new();
    let text = "kube-router deletes its rule when it starts again. The flag is for both families";
    match workload(&settings.kube_router.places) {
        Some(place) => {
            let (name, namespace) = (place.name, place.namespace.to_owned());
            undo.push(format!("kubectl -n {namespace} rollout undo {name}"));
            let argument = OFF.to_owned();
            steps.push(step(
                text,
                Action::Argument { place: name, namespace: Some(namespace), argument },
            ));
        }
        None => {
            for place in &settings.kube_router.places {
                let (place, argument) = (place.to_string(), OFF.to_owned());
                steps.push(step(text, Action::Argument { place, namespace: None, argument }));
            }
            undo.push(format!("take {OFF} away again, and restart kube-router"));
        }
    }
    let leftovers = found.iter().flat_map(|rule| {
        let node = &context.cluster.nodes[rule.node].name;
        let commands = change::commands(&[rule.deleted()]).unwrap_or_default();
        commands.into_iter().map(move |one| format!("{node}: {one}"))
    });
    steps.push(by_hand(
        "Then look whether the rule is gone on every node; delete it only where one is left",
        leftovers,
    ));
    if family == Family::V4 {
        steps.push(by_hand(
            "On a gateway that masquerades only the networks it is connected to, pfSense by default: \
             Firewall > NAT > Outbound, mode Hybrid; a mapping on WAN with the pods' range as source \
             and the interface's address as translation; Firewall > Rules, on the interface of the \
             nodes, a pass rule for the pods' range; a way back to it: BGP, or System > Routing > \
             Static Routes by a node",
            [],
        ));
    }
    Remedy {
        lasting: true,
        title: "Switch pod egress off".to_owned(),
        steps,
        requires: requirements(context, family),
        undo,
    }
}

fn requirements(context: &Context<'_, '_>, family: Family) -> Vec<Requirement> {
    let pods = networks::pod_networks(context.cluster, family);
    let pods = if pods.is_empty() { "the pods' range".to_owned() } else { networks::listed(&pods) };
    let mut all = vec![
        unseen(
            format!("the routers outside know the way to {pods}, by BGP or static routes"),
            "on the router: show ip bgp; on a node: gobgp neighbor (in the kube-router pod)",
        ),
        unseen(
            format!("the gateway lets packets from {pods} pass"),
            "the gateway's rules and its log of blocked packets",
        ),
    ];
    match family {
        Family::V4 => all.push(unseen(
            format!("the gateway masquerades {pods} itself on the way to the internet"),
            "the gateway's outbound NAT: most masquerade only the networks that they are connected to",
        )),
        Family::V6 if addresses_are_private(&networks::pod_networks(context.cluster, family)) => {
            all.push(unseen(
                format!("nobody on the internet is called from {pods}, or the gateway translates it (unique local addresses)"),
                "the gateway's NPt or NAT66",
            ));
        }
        Family::V6 => {}
    }
    all
}

/// Unique local addresses (RFC 4193): the internet doesn't know a way back to them.
fn addresses_are_private(nets: &[IpNet]) -> bool {
    nets.iter().any(|net| match net {
        IpNet::V6(net) => net.network().segments()[0] & 0xfe00 == 0xfc00,
        IpNet::V4(_) => true,
    })
}

/// IPv6 alone, which the flag can't say: with addresses of its own to the world, a pod needs no
/// translation.
fn pinned(context: &Context<'_, '_>, group: &Group, family: Family) -> Option<Remedy> {
    let pods = networks::pod_networks(context.cluster, family);
    if family == Family::V4 || pods.is_empty() || addresses_are_private(&pods) {
        return None;
    }
    let pin = pin::Pin::out_of(family, &pods)?;
    let nodes = rules::nodes(&rules::alike(context, &group.suspect));
    let mut remedy = pin::remedy(context, &nodes, &[pin])?;
    remedy.title = "Pin the pods' IPv6 addresses, and leave IPv4 as it is".to_owned();
    remedy.requires.extend(requirements(context, family));
    Some(remedy)
}

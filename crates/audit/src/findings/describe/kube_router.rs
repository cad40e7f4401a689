//! kube-router's pod egress (pkg/controllers/routing/pod_egress.go of cloudnativelabs/kube-router).

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{
    Context, Described, Group, Known, argument, by_hand, cause, command, networks, of_node, pin,
    rollout, rules, sentence, step, undone, unseen, workload,
};
use crate::change;
use crate::{Remedy, Requirement};

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
    if family == Family::V4 {
        steps.push(undone(
            "First, on a gateway that masquerades only the networks it is connected to, pfSense by \
             default: Firewall > NAT > Outbound, mode Hybrid; a mapping on WAN with the pods' range as \
             source and the interface's address as translation; Firewall > Rules, on the interface of \
             the nodes, a pass rule for the pods' range; a way back to it: BGP, or System > Routing > \
             Static Routes by a node",
            [],
            [sentence("Take the mapping, the pass rule and the route out of the gateway again.")],
        ));
    }
    let text = "kube-router deletes its rule when it starts again. The flag is for both families";
    match workload(&settings.kube_router.places) {
        Some(found) => {
            steps.push(step(text, argument(context, found.clone(), OFF)));
            steps.push(rollout(
                &found,
                "Meanwhile its BGP peers withdraw that node's routes, unless it runs with \
                 --bgp-graceful-restart; policies and Services stay in the kernel as they are",
            ));
        }
        None => {
            for place in &settings.kube_router.places {
                let old = settings.kube_router.pod_egress.on(place.node().unwrap_or_default());
                let old = old.map(|one| format!("--enable-pod-egress={}", one.value));
                let text = format!("{text}. Restart it, one node after the other");
                steps.push(step(text, of_node(place.node(), "kube-router", OFF, old)));
            }
        }
    }
    let leftovers = rules::nodes(&found).into_iter().flat_map(|node| {
        let here = found.iter().filter(|rule| rule.node == node);
        let changes: Vec<_> = here.map(rules::Standing::deleted).collect();
        let name = &context.cluster.nodes[node].name;
        let delete = change::commands(&changes).unwrap_or_default();
        let on = sentence(format!("On {name}, only if it is left:"));
        [on].into_iter().chain(delete.into_iter().map(command)).collect::<Vec<_>>()
    });
    let save = found.first().map_or_else(|| rules::saves(None, family), |one| one.saved_by(family));
    let look = [command(format!("{save} -t nat | grep kube-router-pod-subnets"))].into_iter();
    steps.push(by_hand(
        "Then look whether the rule is gone on every node; delete it only where one is left. \
         Connections that exist keep their translation until they end",
        look.chain(leftovers),
    ));
    Remedy {
        lasting: true,
        title: "Switch pod egress off".to_owned(),
        steps,
        requires: requirements(context, family),
    }
}

fn requirements(context: &Context<'_, '_>, family: Family) -> Vec<Requirement> {
    let pods = networks::lasting_networks(context.cluster, family).unwrap_or_default();
    let pods = if pods.is_empty() { "the pods' range".to_owned() } else { networks::listed(&pods) };
    let mut all = vec![
        unseen(
            format!("the routers outside know the way to {pods}, by BGP or static routes"),
            sentence(
                "On the router: show ip bgp. On a node, in the kube-router pod: gobgp neighbor.",
            ),
        ),
        unseen(
            format!("the gateway lets packets from {pods} pass"),
            sentence("The gateway's rules and its log of blocked packets."),
        ),
    ];
    match family {
        Family::V4 => all.push(unseen(
            format!("the gateway masquerades {pods} itself on the way to the internet"),
            sentence("The gateway's outbound NAT: most masquerade only the networks that they are connected to."),
        )),
        Family::V6 if addresses_are_private(&networks::pod_networks(context.cluster, family)) => {
            all.push(unseen(
                format!("nobody on the internet is called from {pods}, or the gateway translates it (unique local addresses)"),
                sentence("The gateway's NPt or NAT66."),
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

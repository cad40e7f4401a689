//! Connections that nobody answers, and sources that arrive though they must not. No rule is to
//! blame for these, so each says what was seen and what commonly mends it.

use std::collections::BTreeSet;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_cluster::networks::NetworkKind;
use unmasq_model::packet::Family;

use super::{
    Context, Described, Group, by_hand, command, every_node, few, json, networks, restart_on,
    sentence, step, title, undone, unseen, value,
};
use crate::matrix::{Fate, Row};
use crate::shape;
use crate::{Cause, Confidence, Instruction, Owner, Remedy, Syntax};

/// Callers whose address a node takes for one behind a bridge of its own.
pub(super) fn taken_for_its_own(context: &Context<'_, '_>, group: &Group) -> Described {
    let callers: Vec<_> = rows(context, group).filter_map(|row| context.caller(row)).collect();
    let all = &context.cluster.networks.all;
    let bridges = all.iter().filter(|one| one.kind == NetworkKind::Bridge);
    let taken = bridges.filter(|one| callers.iter().any(|caller| one.range.contains(caller)));
    let taken: Vec<_> = taken.collect();
    let ranges: BTreeSet<IpNet> = taken.iter().map(|one| one.range).collect();
    let ranges: Vec<IpNet> = ranges.into_iter().collect();
    let places: Vec<String> =
        taken.iter().flat_map(|one| &one.places).map(ToString::to_string).collect();
    let named = if ranges.is_empty() { "a bridge's range".to_owned() } else { few(&ranges) };
    let who: BTreeSet<String> = callers.iter().map(ToString::to_string).collect();
    let who: Vec<String> = who.into_iter().collect();
    let text = format!(
        "Clients such as {} have addresses of {named}, which is the range of a bridge on the nodes. \
         A node sends the answer into that bridge, and it is lost there.",
        few(&who)
    );
    Described {
        title: title(
            format!(
                "Clients in {named} get no answer: nodes have a bridge with the same addresses"
            ),
            "Clients get no answer: nodes have a bridge with the same addresses",
        ),
        confidence: if places.is_empty() { Confidence::Likely } else { Confidence::Certain },
        cause: Cause {
            text,
            setting: (!ranges.is_empty()).then(|| few(&ranges)),
            place: (!places.is_empty()).then(|| few(&places)),
        },
        remedies: vec![other_bridge(context.cluster, &ranges), route(&who)],
    }
}

/// The bridges that nodes have in these ranges.
fn bridges<'c>(cluster: &'c Cluster, ranges: &[IpNet]) -> BTreeSet<&'c str> {
    let links = cluster.nodes.iter().flat_map(|node| &node.host).flat_map(|host| &host.links);
    let there = links.flatten().filter(|link| {
        link.addresses.iter().any(|one| one.network().is_some_and(|net| ranges.contains(&net)))
    });
    there.map(|link| &*link.name).collect()
}

/// Another range for a bridge that is known not to be Docker's; `None`: it may be.
fn of_others(bridges: &BTreeSet<&str>) -> Option<Remedy> {
    if bridges.is_empty() || bridges.iter().any(|name| shape::is_docker_bridge(name)) {
        return None;
    }
    let steps = bridges.iter().map(|name| {
        let owner = shape::by_bridge(name);
        let (how, there) = if owner == Some(Owner::Libvirt) {
            ("It is a network of libvirt's: its <ip address>", "virsh net-list --all")
        } else if name.starts_with("lxcbr") {
            let how = "lxc-net makes it: LXC_ADDR, LXC_NETWORK and LXC_DHCP_RANGE";
            (how, "cat /etc/default/lxc-net")
        } else if owner == Some(Owner::Lxc) {
            ("It is a network of LXD's or Incus's: its ipv4.address", "lxc network list")
        } else if name.contains("podman") {
            ("It is a network of Podman's: one of another range", "podman network ls")
        } else {
            ("At the program that made it", "ip -d -br addr show type bridge")
        };
        let text = format!("Give {name} a range that nobody has, or take it away. {how}");
        undone(text, [command(there)], [sentence(format!("The old range of {name} again."))])
    });
    Some(Remedy {
        lasting: true,
        title: "Take the bridge away, or give it another range".to_owned(),
        steps: steps.collect(),
        requires: vec![unseen(
            "nothing on the nodes uses the bridge",
            command("ip -br link show type bridge_slave"),
        )],
    })
}

/// Another range for the bridge of a container engine, or no bridge.
pub(in crate::findings) fn other_bridge(cluster: &Cluster, ranges: &[IpNet]) -> Remedy {
    if let Some(remedy) = of_others(&bridges(cluster, ranges)) {
        return remedy;
    }
    let left: Vec<Instruction> = ranges
        .iter()
        .map(|net| {
            command(format!(
                "iptables -t nat -S POSTROUTING | grep -F -e '-s {net}'   # what is left"
            ))
        })
        .collect();
    let mut commands = vec![command("ip -br addr show type bridge")];
    commands.extend(left);
    Remedy {
        lasting: true,
        title: "Take the bridge away, or give it another range".to_owned(),
        steps: vec![
            step(
                "Docker on nodes whose pods get addresses from a network plugin needs no bridge. Where \
                 containers need it: \"bip\" with a range that nobody has",
                value(
                    every_node(cluster),
                    "/etc/docker/daemon.json",
                    (Syntax::Json, "/bridge"),
                    cluster.settings.engine.bridge.first().map(|one| json(&one.value)),
                    json("none"),
                ),
            ),
            step(
                "Containers restart too, unless \"live-restore\" is on",
                restart_on(None, "docker"),
            ),
            by_hand(
                "The old bridge and its rule stay until they are removed or the node restarts",
                commands,
            ),
        ],
        requires: vec![unseen(
            "no container on the nodes uses the bridge",
            command("docker ps; docker network ls"),
        )],
    }
}

fn route(who: &[String]) -> Remedy {
    let each = |verb: &str| {
        let route = |one: &String| command(format!("ip route {verb} {one} via GATEWAY"));
        who.iter().map(route).collect::<Vec<_>>()
    };
    Remedy {
        lasting: false,
        title: "Until then: a route for single clients, narrower than the bridge's".to_owned(),
        steps: vec![undone("On each node; a restart undoes it", each("add"), each("del"))],
        requires: vec![unseen("the gateway to these clients", command("ip route show default"))],
    }
}

/// An expectation says that somebody must be reached, and no answer comes.
pub(super) fn no_reply(context: &Context<'_, '_>, subject: &str, group: &Group) -> Described {
    let mut whys: BTreeSet<String> = BTreeSet::new();
    for row in rows(context, group) {
        whys.extend(why(&row.cell.fate));
    }
    let whys: Vec<String> = whys.into_iter().collect();
    let what = if subject.is_empty() { "what was expected to be reached" } else { subject };
    let reason = match whys.is_empty() {
        true => String::new(),
        false => format!(" What was seen: {}.", whys.join("; ")),
    };
    let text = format!(
        "An expectation says that {what} is reached with the caller's own address, and the connection \
         gets no answer.{reason}"
    );
    let remedy = Remedy {
        lasting: true,
        title: "Lead the answer back the way that the connection came".to_owned(),
        steps: vec![
            by_hand(
                "See where it ends: the same connection at the client's node and at the pod's",
                [
                    command("tcpdump -ni any host CLIENT"),
                    command("conntrack -L --orig-src CLIENT   # [UNREPLIED]: no answer came here"),
                    command("ip route get CLIENT from POD iif DEVICE"),
                ],
            ),
            undone(
                "Then mend it there: the route to the clients on the node, the route to pods on the \
                 gateway, loose rp_filter where two devices are right, or the rule that drops",
                [],
                [sentence("Each by its opposite.")],
            ),
        ],
        requires: vec![unseen(
            "the gateway has routes to the networks of pods, where pods answer with their own address",
            command("ip route get POD   # on the gateway"),
        )],
    };
    Described {
        title: title(
            format!("Connections to {what} get no answer"),
            "Connections that are expected to work get no answer",
        ),
        confidence: Confidence::Likely,
        cause: Cause { text, setting: None, place: None },
        remedies: vec![remedy],
    }
}

fn why(fate: &Fate) -> Option<String> {
    match fate {
        Fate::NoAnswer(why) => Some(why.clone()),
        Fate::Dropped(refusal) => Some(refused("it is dropped", refusal)),
        Fate::Rejected(refusal) => Some(refused("it is refused", refusal)),
        Fate::Lost => Some("nobody has the address that it goes to".to_owned()),
        Fate::Preserved | Fate::Rewritten(_) | Fate::Unknown(_) => None,
    }
}

fn refused(what: &str, refusal: &crate::matrix::Refusal) -> String {
    match refusal.owner {
        Some(owner) => format!("{what} by {}", super::owner_name(owner)),
        None => format!("{what} by the kernel"),
    }
}

/// The source arrives, and an expectation wants it translated.
pub(super) fn not_translated(context: &Context<'_, '_>, group: &Group) -> Described {
    let called: BTreeSet<_> = rows(context, group).filter_map(|row| row.cell.destination).collect();
    let called: Vec<_> = called.into_iter().collect();
    let where_to = match called.is_empty() {
        true => "those who must not see it".to_owned(),
        false => few(&called),
    };
    let families: Vec<Family> = group.families.iter().copied().collect();
    let pods: Vec<IpNet> = families
        .iter()
        .flat_map(|family| networks::lasting_networks(context.cluster, *family).unwrap_or_default())
        .collect();
    let unknown = networks::unknown_range(context.cluster, &families);
    let text = format!(
        "An expectation wants this translated, and no rule does: {where_to} sees the caller's own \
         address. Whoever is called may have no route for the answer, or must not know the caller."
    );
    let list =
        if pods.is_empty() { "the range of pods".to_owned() } else { networks::listed(&pods) };
    let masquerades = |verb: &str| -> Vec<Instruction> {
        let of = |family: &Family| {
            let program = match family {
                Family::V4 => "iptables",
                Family::V6 => "ip6tables",
            };
            let nets = networks::lasting_networks(context.cluster, *family).unwrap_or_default();
            let mut from: Vec<String> = nets.iter().map(ToString::to_string).collect();
            if from.is_empty() {
                from.push("RANGE-OF-PODS".to_owned());
            }
            let from = from.into_iter();
            from.map(move |from| {
                command(format!(
                    "{program} -t nat {verb} POSTROUTING -s {from} -o UPLINK -j MASQUERADE"
                ))
            })
        };
        families.iter().flat_map(of).collect()
    };
    let gateway = Remedy {
        lasting: true,
        title: "Let the gateway translate on the way out".to_owned(),
        steps: vec![undone(
            format!(
                "On the gateway, a source translation for {list}; many gateways do it for networks of their own devices only"
            ),
            masquerades("-A"),
            masquerades("-D"),
        )],
        requires: [unseen(
            "the gateway has a route back to the pods",
            command("ip route get POD   # on the gateway"),
        )]
        .into_iter()
        .chain(unknown)
        .collect(),
    };
    let plugin = Remedy {
        lasting: true,
        title: "Or let the network plugin translate on the nodes".to_owned(),
        steps: vec![undone(
            "In its own settings, so that it stays: natOutgoing of Calico's pool, --ip-masq of flannel, \
             --enable-pod-egress of kube-router, or ip-masq-agent",
            [],
            [sentence("The old value of that setting.")],
        )],
        requires: vec![unseen(
            "its exceptions name every network that must see pods",
            sentence("Audit again, once it is set."),
        )],
    };
    Described {
        title: title(
            format!("The source arrives at {where_to}, and an expectation wants it translated"),
            "A source arrives where an expectation wants it translated",
        ),
        confidence: Confidence::Certain,
        cause: Cause { text, setting: None, place: None },
        remedies: vec![gateway, plugin],
    }
}

fn rows<'a>(context: &'a Context<'_, '_>, group: &'a Group) -> impl Iterator<Item = &'a Row> {
    group.rows.iter().filter_map(|index| context.matrix.rows.get(*index))
}

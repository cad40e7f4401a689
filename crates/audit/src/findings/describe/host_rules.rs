//! Rules of hosts that masquerade their pods' range towards everybody: container engines', network
//! plugins' bridges', and people's.

use unmasq_cluster::settings::{Place, Setting};
use unmasq_model::packet::Family;
use unmasq_model::ruleset::Backend;

use super::rules::{Exception, Standing};
use super::{
    Context, Described, Group, Known, argument, by_hand, cause, command, computed, count, few,
    literal, networks, of_node, pin, restart_on, rollout, rules, sentence, step, title, undone,
    unseen, value, way_back, workload,
};
use crate::change::{self, RuleChange};
use crate::judge::Suspect;
use crate::matrix::Entry;
use crate::{Action, Edit, Owner, Remedy, Requirement, Step, Syntax, quoted};

/// The files that rules are loaded from at boot, and the family that one is of.
const PERSISTED: [(&str, Option<Family>); 5] = [
    ("/etc/sysconfig/iptables", Some(Family::V4)),
    ("/etc/sysconfig/ip6tables", Some(Family::V6)),
    ("/etc/iptables/rules.v4", Some(Family::V4)),
    ("/etc/iptables/rules.v6", Some(Family::V6)),
    ("/etc/nftables.conf", None),
];
const DAEMON: &str = "/etc/docker/daemon.json";

pub(super) fn describe(context: &Context<'_, '_>, group: &Group) -> Described {
    let found = rules::alike(context, &group.suspect);
    let nodes = rules::nodes(&found);
    let names: Vec<&str> =
        nodes.iter().map(|node| context.cluster.nodes[*node].name.as_str()).collect();
    let rule = found
        .first()
        .map_or_else(|| group.suspect.cause.rule.clone(), |one| crate::short_text(one.rule));
    let text = format!(
        "The rule `{rule}` masquerades what leaves a host's own pods by any device but their bridge, \
         whatever the destination ({}). It is what a container engine or a bridge plugin adds for \
         containers of a single host. Pods of other hosts are no exception in it, so they see the \
         host instead of the pod.",
        few(&names)
    );
    let whose = Whose::of(&group.suspect, &found);
    let known = names.iter().find_map(|name| setting(context, name, whose));
    let (confidence, cause) = cause(group, text, known);
    let mut remedies = vec![exclude(context, &found, group, Beyond::Pods)];
    let to_nodes = hits_nodes(context, group);
    if to_nodes {
        remedies.extend(exclude_nodes(context, &found, group));
    }
    remedies.extend(let_flannel(context, &found, whose));
    let pins: Vec<pin::Pin> =
        group.families.iter().filter_map(|family| pin_of_pods(context, *family)).collect();
    remedies.extend(pin::remedy(context, &nodes, &pins));
    let which = match names[..] {
        [one] => one.to_owned(),
        _ => count(names.len(), "node"),
    };
    Described {
        title: title(
            format!("A rule on {which} masquerades pods on their way to pods of other hosts"),
            "A host's rule masquerades pods on their way to pods of other hosts",
        ),
        confidence,
        cause,
        remedies,
    }
}

/// The setting behind the rule on a node.
/// Who may have written a rule of a bridge, which decides who brings it back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Docker may have.
    Dockers,
    /// Podman, in chains or a table of its own.
    Podmans,
    /// A network plugin, in chains or at a bridge of its own.
    Plugins,
}

impl Whose {
    fn of(suspect: &Suspect, found: &[Standing<'_>]) -> Whose {
        let of_plugin = |rule: &Standing<'_>| {
            let text = crate::short_text(rule.rule);
            let mut words = text.split(' ').map(|word| word.trim_matches('"'));
            rule.chain.name.starts_with("CNI-")
                || *rule.table.name == *"cni_plugins_masquerade"
                || words.any(|word| word == "cbr0" || word.starts_with("cni"))
        };
        let owner = suspect.cause.owner;
        if owner == Owner::Netavark {
            Whose::Podmans
        } else if owner == Owner::Kubenet || (!found.is_empty() && found.iter().all(of_plugin)) {
            Whose::Plugins
        } else {
            Whose::Dockers
        }
    }
}

fn setting(context: &Context<'_, '_>, node: &str, whose: Whose) -> Option<Known> {
    let engine = &context.cluster.settings.engine;
    let on = |setting: &&Setting<bool>| setting.value;
    let docker = engine.ip_masq.on(node).filter(on).filter(|_| whose == Whose::Dockers);
    let plugin = engine.cni_ip_masq.on(node).filter(on);
    if let Some(one) = docker {
        return Some(Known::new("ip-masq: true", &one.place));
    }
    if let Some(one) = plugin {
        return Some(Known::new("ipMasq: true", &one.place));
    }
    let mut places = engine.places.iter().filter(|_| whose == Whose::Dockers);
    let runs = places.find(|place| place.node() == Some(node))?;
    Some(Known::new("ip-masq is not set, and true by default", runs))
}

fn pin_of_pods(context: &Context<'_, '_>, family: Family) -> Option<pin::Pin> {
    let pods = networks::pod_networks(context.cluster, family);
    pin::Pin::between(family, &pods, &pods)
}

/// What a rule leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// The range of all pods.
    Pods,
    /// That, and the network of the nodes.
    PodsAndNodes,
}

/// Whether pods on their way to nodes are hit too.
fn hits_nodes(context: &Context<'_, '_>, group: &Group) -> bool {
    let mut rows = group.rows.iter().filter_map(|row| context.matrix.rows.get(*row));
    rows.any(|row| row.cell.entry == Entry::Node)
}

/// The rule with the cluster left out, on each node, then what brings it back: first the kernel's
/// rules, so that pods keep their way out all the time; then the file; the engine's last, because
/// it writes its own rule again when it starts.
fn exclude(
    context: &Context<'_, '_>,
    found: &[Standing<'_>],
    group: &Group,
    beyond: Beyond,
) -> Remedy {
    let mut steps = Vec::new();
    for node in rules::nodes(found) {
        let name = &context.cluster.nodes[node].name;
        let mut changes = Vec::new();
        for rule in found.iter().filter(|rule| rule.node == node) {
            match replacement(context, rule, beyond) {
                Some(change) => changes.push(change),
                None => steps.push(undone(
                    format!("On {name}, leave the range of all pods out of this rule"),
                    [literal(crate::short_text(rule.rule))],
                    [sentence(format!("On {name}, the rule as it was."))],
                )),
            }
        }
        if !changes.is_empty() {
            let text = format!(
                "On {name}, in one transaction: the rule without the pods of other hosts{} in place of \
                 the old one",
                if beyond == Beyond::Pods { "" } else { " and without nodes" }
            );
            steps.push(step(text, Action::Rules { node: name.clone(), changes: changes.clone() }));
        }
        steps.extend(persist(context, node, &changes));
        steps.extend(engine(context, node, Whose::of(&group.suspect, found)));
    }
    if beyond == Beyond::Pods && hits_nodes(context, group) {
        steps.push(by_hand(
            "Nodes that pods call still see the other node: they are outside of the range of all pods. \
             That is how it must be where nodes have no way back to a single pod",
            [],
        ));
    }
    steps.push(by_hand(
        "Ask from a pod a pod of another host, and look for the pod's address in its log. Connections \
         that exist keep their translation until they end",
        [],
    ));
    let mut requires: Vec<Requirement> =
        group.families.iter().map(|family| network_is_known(context, *family)).collect();
    requires.push(unseen(
        "every host has a route to the pods of the others, so that answers come back",
        command("ip route get POD-OF-ANOTHER-HOST"),
    ));
    Remedy {
        lasting: true,
        title:
            "Leave the range of all pods out of the rule, and keep the engine from writing it again"
                .to_owned(),
        steps,
        requires,
    }
}

/// The same for calls of nodes; `None`: the nodes' network isn't known, or a rule can't say it.
fn exclude_nodes(
    context: &Context<'_, '_>,
    found: &[Standing<'_>],
    group: &Group,
) -> Option<Remedy> {
    let mut all = found.iter();
    if !all.all(|rule| replacement(context, rule, Beyond::PodsAndNodes).is_some()) {
        return None;
    }
    let mut remedy = exclude(context, found, group, Beyond::PodsAndNodes);
    remedy.title = "Or leave the nodes' network out too, if nodes must see pods".to_owned();
    remedy.requires.push(way_back());
    Some(remedy)
}

fn network_is_known(context: &Context<'_, '_>, family: Family) -> Requirement {
    match networks::cluster_network(context.cluster, family) {
        Some((net, place)) => computed(true, format!("all pods are in {net} ({place})")),
        None => unseen(
            format!("the range of all pods ({family}) is known"),
            sentence(
                "Say it: --cluster-cidr RANGE; flannel has it in /run/flannel/subnet.env as FLANNEL_NETWORK.",
            ),
        ),
    }
}

/// The rule with the cluster's network as an exception, and the nodes' if it is wanted.
fn replacement(
    context: &Context<'_, '_>,
    rule: &Standing<'_>,
    beyond: Beyond,
) -> Option<RuleChange> {
    let source = rule.source()?;
    let family = Family::of(source.addr());
    let (network, _) = networks::cluster_network(context.cluster, family)?;
    if !network.contains(&source) {
        return None;
    }
    let nodes = match beyond {
        Beyond::Pods => None,
        Beyond::PodsAndNodes => {
            let [only] = networks::node_networks(context.cluster, family)[..] else { return None };
            Some(only)
        }
    };
    rule.narrowed(&Exception::new(network, nodes))
}

/// The way that this node keeps rules over a restart.
fn persist(context: &Context<'_, '_>, node: usize, changes: &[RuleChange]) -> Vec<Step> {
    let state = &context.cluster.nodes[node];
    let name = &state.name;
    let mut steps = Vec::new();
    let mut kept = 0;
    for (path, family) in PERSISTED {
        let Some(text) = state.files.get(path) else { continue };
        let of_it = |change: &&RuleChange| match (family, change.backend) {
            (None, Backend::Nft) => true,
            (Some(family), Backend::Legacy | Backend::IptablesNft) => {
                Standing::family_of(change.family) == Some(family)
            }
            (None, Backend::Legacy | Backend::IptablesNft) | (Some(_), Backend::Nft) => false,
        };
        for change in changes.iter().filter(of_it) {
            let (Some(old), Some(new)) = (&change.old, &change.new) else { continue };
            kept += 1;
            let step = kept_in(name, path, text, &old.text, &new.text);
            // Both back ends may have a rule that the file has once.
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
    }
    if kept == 0 && !changes.is_empty() {
        steps.push(kept_somewhere(name, changes));
    }
    steps
}

/// In a file that was read: in place of the line that it has, or beside the others.
fn kept_in(node: &str, path: &str, text: &str, old: &str, new: &str) -> Step {
    let nft = !new.starts_with("-A ");
    // A file of nft is written by people: its lines are what the kernel's are without counters.
    let bare = |line: &str| change::uncounted(line.trim());
    let there = text.lines().find(|line| bare(line) == bare(old)).map(str::trim);
    let save = format!("cp -p {path} {path}.before");
    match there {
        Some(line) => {
            let edit = Edit::Line { old: line.to_owned(), new: new.to_owned() };
            step(
                format!("On {node}, keep it over a restart: one line of {path} ({save} first)"),
                Action::File { nodes: vec![node.to_owned()], path: path.to_owned(), edit },
            )
        }
        None => undone(
            format!(
                "On {node}, keep it over a restart: {path} doesn't have the old rule; put the new one {}",
                if nft { "into its nat chain" } else { "into its table nat, before COMMIT" }
            ),
            [command(save), literal(new)],
            [command(format!("mv {path}.before {path}"))],
        ),
    }
}

/// None of the files was captured.
fn kept_somewhere(node: &str, changes: &[RuleChange]) -> Step {
    let text = format!(
        "On {node}, keep it over a restart, in the way that the host's system has (none of \
         /etc/sysconfig/iptables, /etc/iptables/rules.v4, /etc/nftables.conf was captured). Only the \
         host's own rules: those of kube-proxy and others are written when these start"
    );
    let mut lines = Vec::new();
    let mut undo = Vec::new();
    for change in changes {
        let Some(new) = &change.new else { continue };
        match Standing::family_of(change.family).filter(|_| change.backend != Backend::Nft) {
            Some(family) => {
                let save = rules::saves(Some(change.backend), family);
                let (red_hat, debian) = match family {
                    Family::V4 => ("/etc/sysconfig/iptables", "/etc/iptables/rules.v4"),
                    Family::V6 => ("/etc/sysconfig/ip6tables", "/etc/iptables/rules.v6"),
                };
                lines.push(command(format!(
                    "{save} -t nat | grep -e {}",
                    quoted(&format!("^-A {} ", change.chain))
                )));
                lines.push(sentence(format!(
                    "What of it is the host's own goes into the table nat of {red_hat} \
                     (iptables-services: RHEL, CentOS) or {debian} (iptables-persistent: Debian, \
                     Ubuntu), with this in place of the old rule:"
                )));
                lines.push(literal(&*new.text));
            }
            None => lines.extend([sentence("In /etc/nftables.conf:"), literal(&*new.text)]),
        }
        undo.push(sentence(format!("On {node}, in that file again:")));
        undo.extend(change.old.as_ref().map(|old| literal(&*old.text)));
    }
    undone(text, lines, undo)
}

/// What the engine or the plugin is told, so that its own rule doesn't come back.
fn engine(context: &Context<'_, '_>, node: usize, whose: Whose) -> Vec<Step> {
    let state = &context.cluster.nodes[node];
    let (name, settings) = (&state.name, &context.cluster.settings.engine);
    let nodes = || vec![name.clone()];
    if whose == Whose::Podmans {
        return vec![by_hand(
            format!(
                "On {name}, last: Podman writes it again for each container that starts; a network of \
                 another range, which no pods have, in the place of this one"
            ),
            [command("podman network ls")],
        )];
    }
    let plugin = settings.cni_ip_masq.on(name).filter(|setting| setting.value);
    if let Some(Place::File { path, key, .. }) = plugin.map(|setting| &setting.place) {
        let text = format!("On {name}, last: the bridge plugin adds no rule for new pods any more");
        let pointer = format!("/{}", key.replace('.', "/"));
        let old = Some("true".to_owned());
        return vec![step(text, value(nodes(), path, (Syntax::Json, &pointer), old, "false"))];
    }
    if whose == Whose::Plugins {
        return vec![by_hand(
            format!(
                "On {name}, last: the plugin writes it again for new pods, unless its configuration \
                 says \"ipMasq\": false"
            ),
            [command("grep -rn ipMasq /etc/cni/net.d")],
        )];
    }
    let docker = settings.places.iter().any(|place| place.node() == Some(name))
        || state.files.contains_key(DAEMON)
        || state.processes.is_none();
    let now = settings.ip_masq.on(name);
    if !docker || now.is_some_and(|setting| !setting.value) {
        return Vec::new();
    }
    let old = now
        .filter(|setting| matches!(&setting.place, Place::File { path, .. } if path == DAEMON))
        .map(|setting| setting.value.to_string());
    vec![
        step(
            format!(
                "On {name}, last: Docker writes its rule again whenever it starts, unless it is told \
                 not to"
            ),
            value(nodes(), DAEMON, (Syntax::Json, "/ip-masq"), old, "false"),
        ),
        step(
            format!(
                "On {name}, at a time when containers may restart (they do, unless \"live-restore\" is \
                 on)"
            ),
            restart_on(Some(name), "docker"),
        ),
    ]
}

/// flannel's own rules leave the cluster out: it can do the masquerading.
fn let_flannel(context: &Context<'_, '_>, found: &[Standing<'_>], whose: Whose) -> Option<Remedy> {
    let nodes = rules::nodes(found);
    let flannel = &context.cluster.settings.flannel;
    if !flannel.is_present() || flannel.ip_masq.all().iter().any(|setting| setting.value) {
        return None;
    }
    let mut steps = Vec::new();
    if let Some(set) = workload(&flannel.places) {
        steps.push(step(
            "flannel masquerades what leaves the range of all pods, and nothing inside it",
            argument(context, set.clone(), "--ip-masq"),
        ));
        steps.push(rollout(
            &set,
            "Meanwhile a node's routes and tunnels stay in the kernel and packets flow",
        ));
    } else {
        for node in &nodes {
            let name = &context.cluster.nodes[*node].name;
            steps.push(step(
                format!(
                    "On {name}, flannel masquerades what leaves the range of all pods, once it has \
                     started with it; routes and tunnels stay meanwhile"
                ),
                of_node(Some(name), "flanneld", "--ip-masq", None),
            ));
        }
    }
    // The engine doesn't delete what it wrote before.
    for node in nodes {
        let name = context.cluster.nodes[node].name.clone();
        let here = found.iter().filter(|rule| rule.node == node);
        let changes: Vec<RuleChange> = here.map(Standing::deleted).collect();
        let text = format!("On {name}, once flannel's rules are there, delete the old rule");
        steps.push(step(text, Action::Rules { node: name, changes }));
        steps.extend(engine(context, node, whose));
    }
    Some(Remedy {
        lasting: true,
        title: "Let flannel masquerade instead of the engine".to_owned(),
        steps,
        requires: vec![unseen(
            "flannel is of a version that leaves the cluster out",
            command("flanneld --version"),
        )],
    })
}

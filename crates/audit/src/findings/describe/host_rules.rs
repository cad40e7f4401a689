//! Rules of hosts that masquerade their pods' range towards everybody: container engines', network
//! plugins' bridges', and people's.

use unmasq_cluster::settings::Setting;
use unmasq_model::packet::Family;

use super::rules::{Exception, Standing};
use super::{
    Context, Described, Group, Known, by_hand, cause, computed, count, few, networks, pin, rules,
    step, title, unseen, workload,
};
use crate::change::RuleChange;
use crate::{Action, Remedy, Requirement, Step};

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
    let known = names.iter().find_map(|name| setting(context, name));
    let (confidence, cause) = cause(group, text, known);
    let mut remedies = vec![exclude(context, &found, group)];
    remedies.extend(let_flannel(context, &nodes));
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
fn setting(context: &Context<'_, '_>, node: &str) -> Option<Known> {
    let engine = &context.cluster.settings.engine;
    let on = |setting: &&Setting<bool>| setting.value;
    let docker = engine.ip_masq.on(node).filter(on);
    let plugin = engine.cni_ip_masq.on(node).filter(on);
    if let Some(one) = docker {
        return Some(Known::new("ip-masq: true", &one.place));
    }
    if let Some(one) = plugin {
        return Some(Known::new("ipMasq: true", &one.place));
    }
    let runs = engine.places.iter().find(|place| place.node() == Some(node))?;
    Some(Known::new("ip-masq is not set, and true by default", runs))
}

fn pin_of_pods(context: &Context<'_, '_>, family: Family) -> Option<pin::Pin> {
    let pods = networks::pod_networks(context.cluster, family);
    pin::Pin::between(family, &pods, &pods)
}

/// The rule with the cluster left out, on each node, then what brings it back: first the kernel's
/// rules, so that pods keep their way out all the time; then the file; the engine's last, because
/// it writes its own rule again when it starts.
fn exclude(context: &Context<'_, '_>, found: &[Standing<'_>], group: &Group) -> Remedy {
    let mut steps = Vec::new();
    let mut undo = Vec::new();
    let mut requires = Vec::new();
    for family in &group.families {
        requires.push(network_is_known(context, *family));
    }
    for node in rules::nodes(found) {
        let name = &context.cluster.nodes[node].name;
        let mut changes = Vec::new();
        for rule in found.iter().filter(|rule| rule.node == node) {
            match replacement(context, rule) {
                Some(change) => changes.push(change),
                None => steps.push(by_hand(
                    format!("On {name}, leave the range of all pods out of this rule"),
                    [crate::short_text(rule.rule)],
                )),
            }
        }
        let lines = changes.iter().filter_map(|change| {
            let family = Standing::family_of(change.family);
            Some((family, change.new.as_ref()?.text.to_string()))
        });
        let lines: Vec<_> = lines.collect();
        if !changes.is_empty() {
            let text = format!(
                "On {name}, in one transaction: the rule without the pods of other hosts in place of \
                 the old one"
            );
            undo.extend(rules::undo(name, &changes));
            steps.push(step(text, Action::Rules { node: name.clone(), changes }));
        }
        steps.extend(persist(context, node, &lines));
        steps.extend(engine(context, node));
    }
    requires.push(unseen(
        "every host has a route to the pods of the others, so that answers come back",
        "ip route get POD-OF-ANOTHER-HOST",
    ));
    Remedy {
        lasting: true,
        title:
            "Leave the range of all pods out of the rule, and keep the engine from writing it again"
                .to_owned(),
        steps,
        requires,
        undo,
    }
}

fn network_is_known(context: &Context<'_, '_>, family: Family) -> Requirement {
    match networks::cluster_network(context.cluster, family) {
        Some((net, place)) => computed(true, format!("all pods are in {net} ({place})")),
        None => unseen(
            format!("the range of all pods ({family}) is known"),
            "say it: --cluster-cidr RANGE; flannel has it in /run/flannel/subnet.env as FLANNEL_NETWORK",
        ),
    }
}

/// The rule with the cluster's network as an exception.
fn replacement(context: &Context<'_, '_>, rule: &Standing<'_>) -> Option<RuleChange> {
    let source = rule.source()?;
    let (network, _) = networks::cluster_network(context.cluster, Family::of(source.addr()))?;
    if !network.contains(&source) {
        return None;
    }
    rule.narrowed(&Exception::new(network, None))
}

/// The way that this node keeps rules over a restart.
fn persist(
    context: &Context<'_, '_>,
    node: usize,
    lines: &[(Option<Family>, String)],
) -> Vec<Step> {
    let state = &context.cluster.nodes[node];
    let name = &state.name;
    let mut steps = Vec::new();
    for (path, family) in PERSISTED.iter().filter(|(path, _)| state.files.contains_key(*path)) {
        let native = family.is_none();
        let of_it = |(one, line): &&(Option<Family>, String)| {
            let from_iptables = line.starts_with("-A ");
            from_iptables != native && (native || one == family)
        };
        let content: Vec<&str> = lines.iter().filter(of_it).map(|(_, line)| &**line).collect();
        if !content.is_empty() {
            let table = if native { "the nat chain" } else { "the table nat" };
            let text =
                format!("On {name}, keep it over a restart: in {table}, in place of the old line");
            let (path, content) = ((*path).to_owned(), content.join("\n"));
            steps.push(step(text, Action::File { node: Some(name.clone()), path, content }));
        }
    }
    if steps.is_empty() && !lines.is_empty() {
        let text = format!(
            "On {name}, keep it over a restart, in the way that the host's system has (none of \
             /etc/sysconfig/iptables, /etc/iptables/rules.v4, /etc/nftables.conf was captured)"
        );
        let commands = [
            "iptables-save > /etc/sysconfig/iptables   # iptables-services (RHEL, CentOS)",
            "netfilter-persistent save   # iptables-persistent (Debian, Ubuntu)",
        ];
        steps.push(by_hand(text, commands.map(str::to_owned)));
    }
    steps
}

/// What the engine or the plugin is told, so that its own rule doesn't come back.
fn engine(context: &Context<'_, '_>, node: usize) -> Option<Step> {
    use unmasq_cluster::settings::Place;
    let state = &context.cluster.nodes[node];
    let (name, settings) = (&state.name, &context.cluster.settings.engine);
    let plugin = settings.cni_ip_masq.on(name).filter(|setting| setting.value);
    if let Some(Place::File { path, .. }) = plugin.map(|setting| &setting.place) {
        let text = format!("On {name}, last: the bridge plugin adds no rule for new pods any more");
        let (path, content) = (path.clone(), "\"ipMasq\": false".to_owned());
        return Some(step(text, Action::File { node: Some(name.clone()), path, content }));
    }
    let docker = settings.places.iter().any(|place| place.node() == Some(name))
        || state.files.contains_key(DAEMON)
        || state.processes.is_none();
    let off = settings.ip_masq.on(name).is_some_and(|setting| !setting.value);
    (docker && !off).then(|| {
        let text = format!(
            "On {name}, last, and at a time when containers may restart: Docker writes its rule \
             again whenever it starts, unless it is told not to (then: systemctl restart docker)"
        );
        let content = "\"ip-masq\": false".to_owned();
        let node = Some(name.clone());
        step(text, Action::File { node, path: DAEMON.to_owned(), content })
    })
}

/// flannel's own rules leave the cluster out: it can do the masquerading.
fn let_flannel(context: &Context<'_, '_>, nodes: &[usize]) -> Option<Remedy> {
    let flannel = &context.cluster.settings.flannel;
    if !flannel.is_present() || flannel.ip_masq.all().iter().any(|setting| setting.value) {
        return None;
    }
    let mut steps = Vec::new();
    if let Some(place) = workload(&flannel.places) {
        steps.push(step(
            "flannel masquerades what leaves the range of all pods, and nothing inside it",
            Action::Argument {
                place: place.name,
                namespace: Some(place.namespace.to_owned()),
                argument: "--ip-masq".to_owned(),
            },
        ));
    } else {
        for node in nodes {
            let name = &context.cluster.nodes[*node].name;
            steps.push(step(
                format!("On {name}, flannel masquerades what leaves the range of all pods"),
                Action::Argument {
                    place: format!("node {name}, flanneld"),
                    namespace: None,
                    argument: "--ip-masq".to_owned(),
                },
            ));
        }
    }
    steps.extend(nodes.iter().filter_map(|node| engine(context, *node)));
    Some(Remedy {
        lasting: true,
        title: "Let flannel masquerade instead of the engine".to_owned(),
        steps,
        requires: vec![unseen(
            "flannel is of a version that leaves the cluster out",
            "flanneld --version",
        )],
        undo: vec!["take --ip-masq away again, and \"ip-masq\": false of daemon.json".to_owned()],
    })
}

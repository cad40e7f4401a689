//! flannel's rules: leftovers of older versions, and its own chain (pkg/trafficmngr of
//! flannel-io/flannel).

use unmasq_cluster::settings::{Place, Setting};
use unmasq_cluster::{Cluster, Node};
use unmasq_model::host::Host;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::ChainId;

use super::{
    Context, Described, Group, Known, argument, by_hand, cause, command, count, few, json, literal,
    networks, of_node, patch, pin, restart_of_node, rollout, rules, sentence, step, title, undone,
    unseen, way_back, workload,
};
use crate::matrix::{Client, Entry};
use crate::{Action, Edit, Owner, Program, Remedy, Step, chain_owner};

/// Who writes the rules of flannel's that stand in a node's POSTROUTING. Versions before 2022 had
/// no chain of their own (network/iptables.go), later ones leave there what those wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::findings) enum Writer {
    /// A flannel of such a version, which runs.
    Runs,
    /// Nobody: the flannel that runs has chains of its own, or none runs.
    Gone,
    /// Nothing was seen of what runs.
    Unseen,
}

/// Who writes them on a node.
pub(in crate::findings) fn writer(cluster: &Cluster, node: &Node) -> Writer {
    if node.host.as_ref().is_some_and(has_chain) {
        return Writer::Gone;
    }
    let is_there = |place: &&Place| place.node().is_none_or(|name| name == node.name);
    let runs = cluster.settings.flannel.places.iter().any(|place| is_there(&place));
    // k3s has it built in.
    let rancher = &cluster.settings.rancher;
    let other = rancher.flannel_backend.on(&node.name).is_some_and(|one| one.value == "none");
    let built_in = node.processes.iter().flatten().any(|one| one.name.starts_with("k3s"));
    match (runs || (built_in && !other), &node.processes) {
        (true, _) => Writer::Runs,
        (false, Some(_)) => Writer::Gone,
        (false, None) => Writer::Unseen,
    }
}

fn has_chain(host: &Host) -> bool {
    (0..).zip(&host.ruleset.tables).any(|(number, table)| {
        let mut chains = (0..).zip(&table.chains);
        chains.any(|(place, chain)| {
            !chain.rules.is_empty() && chain_owner(host, number, ChainId(place)) == Owner::Flannel
        })
    })
}

/// Rules in a base chain that nobody writes any more.
pub(super) fn stale(context: &Context<'_, '_>, group: &Group) -> Described {
    let left = |node: &Node| writer(context.cluster, node) == Writer::Gone;
    let found = rules::of(context, Owner::Flannel, |node, host, id| {
        left(&context.cluster.nodes[node]) && crate::label(host, id).contains("POSTROUTING:")
    });
    let nodes = rules::nodes(&found);
    let names: Vec<&str> =
        nodes.iter().map(|node| context.cluster.nodes[*node].name.as_str()).collect();
    let mut today = nodes.iter().filter_map(|node| context.cluster.nodes[*node].host.as_ref());
    let (when, rest) = match today.any(has_chain) {
        true => (
            "upgraded",
            "It stands before the chain of today's flannel, whose exceptions it doesn't have, so it \
             masquerades calls of pods that flannel itself would leave alone.",
        ),
        false => (
            "taken away",
            "No flannel was seen to run, so nobody keeps it in step with the cluster any more.",
        ),
    };
    let text = format!(
        "The rule `{}` was written by an older flannel and was left in POSTROUTING when flannel \
         was {when} ({}). {rest}",
        group.suspect.cause.rule,
        few(&names)
    );
    let met = !group.rows.is_empty();
    let text = match met {
        true => text,
        false => format!("{text} None of the calls that were asked meets it."),
    };
    // No setting is behind it: nobody writes it any more.
    let (_, cause) = cause(group, text, None);
    let confidence = crate::Confidence::Likely;
    let mut steps = Vec::new();
    for node in &nodes {
        let name = &context.cluster.nodes[*node].name;
        let here = found.iter().filter(|rule| rule.node == *node);
        let (changes, lines): (Vec<_>, Vec<_>) =
            here.map(|rule| (rule.deleted(), crate::short_text(rule.rule))).unzip();
        let number = count(changes.len(), "rule");
        let text = format!("On {name}, delete {number} of the older flannel: {}", lines.join("; "));
        steps.push(step(text, Action::Rules { node: name.clone(), changes }));
        steps.extend(persisted(context, *node, &lines));
    }
    let delete = Remedy {
        lasting: true,
        title: "Delete the rules that the older flannel left".to_owned(),
        steps,
        requires: vec![unseen(
            "no older flannel runs any more",
            command(
                "kubectl get pods -A -o jsonpath='{range .items[*]}{.spec.containers[*].image}{\"\\n\"}{end}' | grep -i flannel",
            ),
        )],
    };
    let reboot = Remedy {
        lasting: true,
        title: "Or restart the nodes".to_owned(),
        steps: vec![by_hand(
            "Rules that no file keeps are gone after a restart, and today's flannel writes its own; \
             one node after the other",
            names.iter().map(|name| restart_of_node(name)),
        )],
        requires: Vec::new(),
    };
    let hit = group.families.iter().filter(|_| met);
    let pins: Vec<pin::Pin> =
        hit.filter_map(|family| pin::at_pods(context, group, *family)).collect();
    let mut remedies = vec![delete, reboot];
    remedies.extend(pin::remedy(context, &nodes, &pins));
    let which = match names[..] {
        [one] => one.to_owned(),
        _ => count(names.len(), "node"),
    };
    let long = match met {
        true => {
            format!("Rules of an older flannel on {which} masquerade what flannel leaves alone")
        }
        false => format!("Rules of an older flannel are left on {which}"),
    };
    Described {
        title: title(long, "Rules of an older flannel masquerade what flannel leaves alone"),
        confidence,
        cause,
        remedies,
    }
}

/// Files that would bring the rules back: their lines become comments.
fn persisted(context: &Context<'_, '_>, node: usize, lines: &[String]) -> Vec<Step> {
    let state = &context.cluster.nodes[node];
    let mut steps = Vec::new();
    for (path, text) in &state.files {
        let stale = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        for line in stale.filter(|line| lines.iter().any(|one| line.ends_with(one))) {
            let edit = Edit::Line { old: line.to_owned(), new: format!("# {line}") };
            steps.push(step(
                format!("On {}, take the same line out of {path}", state.name),
                Action::File { nodes: vec![state.name.clone()], path: path.clone(), edit },
            ));
        }
    }
    steps
}

/// flannel's own chain.
pub(super) fn own(context: &Context<'_, '_>, group: &Group) -> Described {
    let flannel = &context.cluster.settings.flannel;
    let rows = || group.rows.iter().filter_map(|row| context.matrix.rows.get(*row));
    let at_pods = rows().any(|row| {
        matches!(row.cell.entry, Entry::Pod | Entry::ClusterIp)
            || matches!(row.cell.client, Client::Outside(_))
    });
    let known = flannel.ip_masq.all().iter().find(|setting| setting.value);
    let known = known.map(|setting| Known::new("ip-masq: true", &setting.place));
    let ranges: Vec<String> = group
        .families
        .iter()
        .filter_map(|family| networks::cluster_network(context.cluster, *family))
        .map(|(net, _)| net.to_string())
        .collect();
    let ranges = if ranges.is_empty() { "its network".to_owned() } else { ranges.join(" and ") };
    let hit = match at_pods {
        true => {
            "Here it meets packets on their way to pods too: its network is not that of all pods"
        }
        false => "Nodes are outside of it, so a node sees the other node instead of the pod",
    };
    let found = rules::alike(context, &group.suspect);
    let nodes = rules::nodes(&found);
    let older = older(context);
    let on = |one: Writer| {
        let names = rules::nodes(&older).into_iter().map(|node| &context.cluster.nodes[node]);
        names.filter(|node| writer(context.cluster, node) == one).map(|node| &*node.name).collect()
    };
    let (runs, unseen): (Vec<&str>, Vec<&str>) = (on(Writer::Runs), on(Writer::Unseen));
    let mut of_old = String::new();
    if !runs.is_empty() {
        of_old = format!(
            " On {} it is of a version before 2022, which has no chain of its own and writes into \
             POSTROUTING.",
            few(&runs)
        );
    }
    if !unseen.is_empty() {
        of_old.push_str(&format!(
            " On {} its rules stand in POSTROUTING, where versions before 2022 write them. Whether \
             such a one runs was not seen: if none does, they are left of one.",
            few(&unseen)
        ));
    }
    let text = format!(
        "flannel masquerades what leaves {ranges} ({}), because it runs with --ip-masq.{of_old} {hit}.",
        group.suspect.cause.rule
    );
    let (confidence, cause) = cause(group, text, known);
    let mut remedies = vec![agent_instead(context, group)];
    let pins: Vec<pin::Pin> =
        group.families.iter().flat_map(|family| pins(context, group, *family)).collect();
    let mut pinned = pin::remedy(context, &nodes, &pins);
    if let Some(remedy) = pinned.as_mut().filter(|_| hits_nodes(context, group)) {
        remedy.requires.push(way_back());
    }
    remedies.extend(pinned);
    Described {
        title: match at_pods {
            true => "flannel masquerades packets on their way to pods".to_owned(),
            false => "flannel masquerades pods on their way to nodes".to_owned(),
        },
        confidence,
        cause,
        remedies,
    }
}

/// What arrives at pods, and what pods send to nodes.
fn pins(context: &Context<'_, '_>, group: &Group, family: Family) -> Vec<pin::Pin> {
    let pods = networks::pod_networks(context.cluster, family);
    let nodes = networks::node_networks(context.cluster, family);
    let to_nodes = hits_nodes(context, group).then(|| pin::Pin::between(family, &pods, &nodes));
    pin::at_pods(context, group, family).into_iter().chain(to_nodes.flatten()).collect()
}

fn hits_nodes(context: &Context<'_, '_>, group: &Group) -> bool {
    let mut rows = group.rows.iter().filter_map(|row| context.matrix.rows.get(*row));
    rows.any(|row| row.cell.entry == Entry::Node)
}

/// flannel has no list of exceptions; ip-masq-agent has. Two that masquerade do no harm, so that
/// pods have their way out all the time.
fn agent_instead(context: &Context<'_, '_>, group: &Group) -> Remedy {
    let families: Vec<Family> = group.families.iter().copied().collect();
    let unknown = networks::unknown_range(context.cluster, &families);
    let mut steps = vec![agent(context, group)];
    steps.extend(without_masquerade(context));
    steps.push(delegate(context));
    steps.extend(taken_away(context));
    if !group.suspect.cause.rule.contains("POSTROUTING:") {
        steps.push(by_hand(
            "See on every node that flannel's rules are gone; it deletes them when it starts",
            [command(
                "iptables-save -t nat | grep FLANNEL-POSTRTG; nft list ruleset | grep -A9 flannel-ipv",
            )],
        ));
    }
    // Its list would be wrong.
    if unknown.is_some() {
        steps.clear();
    }
    let v4 = group.families.contains(&Family::V4);
    let save = if v4 { "iptables-save" } else { "ip6tables-save" };
    Remedy {
        lasting: true,
        title: "If nodes must see pods: let ip-masq-agent masquerade instead of flannel".to_owned(),
        steps,
        requires: [
            way_back(),
            unseen(
                "no node port is called by pods of other nodes where answers would then bypass the node",
                command(format!("{save} -t nat | grep KUBE-NODEPORTS")),
            ),
        ]
        .into_iter()
        .chain(unknown)
        .collect(),
    }
}

/// The rules of flannel in POSTROUTING, where they may be those of the one that runs.
fn older<'c>(context: &Context<'_, 'c>) -> Vec<rules::Standing<'c>> {
    rules::of(context, Owner::Flannel, |node, host, id| {
        writer(context.cluster, &context.cluster.nodes[node]) != Writer::Gone
            && crate::label(host, id).contains("POSTROUTING:")
    })
}

/// What a version without a chain of its own wrote stays when it starts without --ip-masq.
fn taken_away(context: &Context<'_, '_>) -> Vec<Step> {
    let found = older(context);
    let steps = rules::nodes(&found).into_iter().map(|node| {
        let name = context.cluster.nodes[node].name.clone();
        let here = found.iter().filter(|rule| rule.node == node);
        let changes = here.map(rules::Standing::deleted).collect();
        let text = format!(
            "On {name}, delete the rules that stand in POSTROUTING: this flannel leaves them there"
        );
        step(text, Action::Rules { node: name, changes })
    });
    steps.collect()
}

/// The list of those who see pods.
fn agent(context: &Context<'_, '_>, group: &Group) -> Step {
    let mut left: Vec<String> = Vec::new();
    for family in &group.families {
        let nets = networks::pod_networks(context.cluster, *family);
        let nodes = networks::node_networks(context.cluster, *family);
        left.extend(nets.iter().chain(&nodes).map(ToString::to_string));
    }
    let list = left.iter().map(|net| format!("\n    - {net}")).collect::<String>();
    undone(
        "flannel has no list of networks that it leaves out. Run ip-masq-agent with this list, and \
         see that its rules are there",
        [
            command(format!(
                "kubectl apply -f - <<'EOF'\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ip-masq-agent\n  \
                 namespace: kube-system\ndata:\n  config: |\n    nonMasqueradeCIDRs:{list}\nEOF"
            )),
            command("iptables-save -t nat | grep IP-MASQ-AGENT"),
        ],
        [sentence("Remove ip-masq-agent, once flannel's rules are there again.")],
    )
}

/// flannel's switch, where it stands.
fn without_masquerade(context: &Context<'_, '_>) -> Vec<Step> {
    const MEANWHILE: &str =
        "Meanwhile a node's routes and tunnels stay in the kernel and packets flow";
    let flannel = &context.cluster.settings.flannel;
    let on = flannel.ip_masq.all().iter().find(|setting| setting.value);
    let text = "Then tell flannel not to masquerade";
    let found = workload(&flannel.places);
    // canal hands on what its ConfigMap says.
    if let Some(Place::Object { kind: "ConfigMap", namespace, name, key, .. }) =
        on.map(|setting| &setting.place)
    {
        let data = |value: &str| format!(r#"{{"data":{{{}:{}}}}}"#, json(key), json(value));
        let patched = patch("configmap", Some(namespace), name, &data("false"), data("true"));
        let restart = found.map(|found| {
            let program = Program::Workload(found.clone());
            let restart = step("It is read at the start", Action::Restart { program });
            [restart, rollout(&found, MEANWHILE)]
        });
        return [step(text, patched)].into_iter().chain(restart.into_iter().flatten()).collect();
    }
    if let Some(found) = found {
        let change = step(text, argument(context, found.clone(), "--ip-masq=false"));
        return vec![change, rollout(&found, MEANWHILE)];
    }
    let of_nodes = flannel.places.iter().filter_map(|place| match place {
        Place::Process { node, program, .. } => {
            let own = |setting: &&Setting<bool>| {
                matches!(&setting.place, Place::Process { node: there, .. } if there == node)
            };
            let old = flannel.ip_masq.all().iter().find(own);
            let old = old.map(|setting| match setting.value {
                true => "--ip-masq".to_owned(),
                false => "--ip-masq=false".to_owned(),
            });
            let text = format!("{text}, on {node}, and restart it there. {MEANWHILE}");
            Some(step(text, of_node(Some(node), program, "--ip-masq=false", old)))
        }
        Place::Object { .. } | Place::File { .. } | Place::State { .. } | Place::Given { .. } => {
            None
        }
    });
    let steps: Vec<Step> = of_nodes.collect();
    if !steps.is_empty() {
        return steps;
    }
    vec![undone(
        format!("{text}, where it is started"),
        [
            sentence(
                "k3s: its built-in flannel always masquerades IPv4: bring a flannel of your own (flannel-backend: none).",
            ),
            sentence("Elsewhere: flanneld without --ip-masq."),
        ],
        [sentence("Put --ip-masq back; flannel writes its rules at its start.")],
    )]
}

/// Without --ip-masq its CNI plugin tells the bridge plugin to masquerade, unless told not to.
fn delegate(context: &Context<'_, '_>) -> Step {
    let maps = context.cluster.objects.config_maps.iter();
    let map = maps.into_iter().find(|map| map.data.contains_key("net-conf.json"));
    let place = map.map_or_else(
        || "cni-conf.json of flannel's ConfigMap".to_owned(),
        |map| {
            format!("cni-conf.json of ConfigMap {}/{}", map.metadata.namespace, map.metadata.name)
        },
    );
    undone(
        format!(
            "flannel's CNI plugin then has the bridge masquerade in its place, for pods that start from \
             then on, unless it is told not to: in {place}, in the part of type flannel"
        ),
        [literal(
            r#""delegate": { "hairpinMode": true, "isDefaultGateway": true, "ipMasq": false }"#,
        )],
        [sentence(r#"Take "ipMasq": false out of it again."#)],
    )
}

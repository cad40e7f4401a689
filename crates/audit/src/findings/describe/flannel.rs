//! flannel's rules: leftovers of older versions, and its own chain (pkg/trafficmngr of
//! flannel-io/flannel).

use unmasq_model::packet::Family;

use super::{
    Context, Described, Group, Known, by_hand, cause, count, few, networks, pin, rules, step,
    title, unseen, workload,
};
use crate::matrix::{Client, Entry};
use crate::{Action, Owner, Remedy};

/// Rules in a base chain are of versions before flannel had a chain of its own.
pub(super) fn stale(context: &Context<'_, '_>, group: &Group) -> Described {
    let found = rules::of(context, Owner::Flannel, |_, host, id| {
        crate::label(host, id).contains("POSTROUTING:")
    });
    let nodes = rules::nodes(&found);
    let names: Vec<&str> =
        nodes.iter().map(|node| context.cluster.nodes[*node].name.as_str()).collect();
    let text = format!(
        "The rule `{}` was written by an older flannel and was left in POSTROUTING when flannel \
         was upgraded ({}). It stands before the chain of today's flannel, whose exceptions it \
         doesn't have, so it masquerades calls of pods that flannel itself would leave alone.",
        group.suspect.cause.rule,
        few(&names)
    );
    // No setting is behind it: nobody writes it any more.
    let (_, cause) = cause(group, text, None);
    let confidence = crate::Confidence::Likely;
    let (mut steps, mut undo) = (Vec::new(), Vec::new());
    for node in &nodes {
        let name = &context.cluster.nodes[*node].name;
        let here = found.iter().filter(|rule| rule.node == *node);
        let (changes, lines): (Vec<_>, Vec<_>) =
            here.map(|rule| (rule.deleted(), crate::short_text(rule.rule))).unzip();
        let number = count(changes.len(), "rule");
        let text = format!("On {name}, delete {number} of the older flannel: {}", lines.join("; "));
        undo.extend(rules::undo(name, &changes));
        steps.push(step(text, Action::Rules { node: name.clone(), changes }));
        steps.extend(persisted(context, *node, &lines));
    }
    let delete = Remedy {
        lasting: true,
        title: "Delete the rules that the older flannel left".to_owned(),
        steps,
        requires: vec![unseen(
            "no older flannel runs any more",
            "kubectl get pods -A -o jsonpath='{range .items[*]}{.spec.containers[*].image}{\"\\n\"}{end}' | grep -i flannel",
        )],
        undo,
    };
    let reboot = Remedy {
        lasting: true,
        title: "Or restart the nodes".to_owned(),
        steps: vec![by_hand(
            "Rules that no file keeps are gone after a restart, and today's flannel writes its own; \
             one node after the other",
            names.iter().map(|name| {
                format!("kubectl drain {name} --ignore-daemonsets && ssh {name} reboot   # then: kubectl uncordon {name}")
            }),
        )],
        requires: Vec::new(),
        undo: Vec::new(),
    };
    let pins: Vec<pin::Pin> =
        group.families.iter().filter_map(|family| pin::at_pods(context, group, *family)).collect();
    let mut remedies = vec![delete, reboot];
    remedies.extend(pin::remedy(context, &nodes, &pins));
    let which = match names[..] {
        [one] => one.to_owned(),
        _ => count(names.len(), "node"),
    };
    Described {
        title: title(
            format!("Rules of an older flannel on {which} masquerade what flannel leaves alone"),
            "Rules of an older flannel masquerade what flannel leaves alone",
        ),
        confidence,
        cause,
        remedies,
    }
}

/// Files that would bring the rules back.
fn persisted(context: &Context<'_, '_>, node: usize, lines: &[String]) -> Vec<crate::Step> {
    let state = &context.cluster.nodes[node];
    let has = |text: &str| lines.iter().any(|line| text.lines().any(|one| one.ends_with(line)));
    let files = state.files.iter().filter(|(_, text)| has(text));
    files
        .map(|(path, _)| {
            let text = format!("On {}, take the same lines out of {path}", state.name);
            by_hand(text, [format!("grep -n MASQUERADE {path}")])
        })
        .collect()
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
    let text = format!(
        "flannel masquerades what leaves {ranges} ({}), because it runs with --ip-masq. {hit}.",
        group.suspect.cause.rule
    );
    let (confidence, cause) = cause(group, text, known);
    let nodes = rules::nodes(&rules::alike(context, &group.suspect));
    let mut remedies = vec![agent_instead(context, group)];
    if at_pods {
        let pins: Vec<pin::Pin> = group
            .families
            .iter()
            .filter_map(|family| pin::at_pods(context, group, *family))
            .collect();
        remedies.extend(pin::remedy(context, &nodes, &pins));
    }
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

/// flannel has no list of exceptions; ip-masq-agent has.
fn agent_instead(context: &Context<'_, '_>, group: &Group) -> Remedy {
    let mut left: Vec<String> = Vec::new();
    for family in &group.families {
        let nets = networks::pod_networks(context.cluster, *family);
        let nodes = networks::node_networks(context.cluster, *family);
        left.extend(nets.iter().chain(&nodes).map(ToString::to_string));
    }
    let list = left.iter().map(|net| format!("\n    - {net}")).collect::<String>();
    let config = format!(
        "kubectl apply -f - <<'EOF'\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ip-masq-agent\n  \
         namespace: kube-system\ndata:\n  config: |\n    nonMasqueradeCIDRs:{list}\nEOF"
    );
    let mut steps = vec![by_hand(
        "flannel has no list of networks that it leaves out. Run ip-masq-agent with this list, and \
         see that its rules are there",
        [config],
    )];
    let flannel = &context.cluster.settings.flannel;
    let (place, namespace) = match workload(&flannel.places) {
        Some(found) => (found.name, Some(found.namespace.to_owned())),
        None => ("flanneld on every node".to_owned(), None),
    };
    steps.push(step(
        "Then tell flannel not to masquerade; it deletes its rules when it starts",
        Action::Argument { place, namespace, argument: "--ip-masq=false".to_owned() },
    ));
    let v4 = group.families.contains(&Family::V4);
    Remedy {
        lasting: true,
        title: "If nodes must see pods: let ip-masq-agent masquerade instead of flannel".to_owned(),
        steps,
        requires: vec![
            unseen(
                "nodes answer pods by the way that the call came (no strict rp_filter in between)",
                "sysctl -a | grep '[.]rp_filter'; ip route get POD",
            ),
            unseen(
                "no node port is called by pods of other nodes where answers would then bypass the node",
                if v4 {
                    "iptables-save -t nat | grep KUBE-NODEPORTS"
                } else {
                    "ip6tables-save -t nat | grep KUBE-NODEPORTS"
                },
            ),
        ],
        undo: vec!["take --ip-masq=false away again, then remove ip-masq-agent".to_owned()],
    }
}

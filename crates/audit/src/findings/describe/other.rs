//! Plugins and meshes with a switch of their own, other programs' masquerading, and rules that
//! nobody claims.

use serde_json::Value;
use unmasq_cluster::Node;
use unmasq_model::packet::Family;

use super::rules::Standing;
use super::{
    Context, Described, Group, Known, by_hand, cause, command, environment, few, json, literal,
    owner_name, patch, pin, rules, sentence, services, step, title, undone, unseen, value,
};
use crate::matrix::{Client, Entry};
use crate::{
    Action, Edit, FindingId, Owner, Program, Remedy, Step, Syntax, Workload, WorkloadKind,
};

/// plugins/meta/portmap of containernetworking/plugins: `CNI-HOSTPORT-MASQ`.
pub(super) fn portmap(context: &Context<'_, '_>, group: &Group) -> Described {
    let mut steps = Vec::new();
    let mut known = None;
    for node in &context.cluster.nodes {
        for (path, text) in &node.files {
            let Some((pointer, snat)) = portmap_in(text) else { continue };
            let line = (1..).zip(text.lines()).find(|(_, line)| line.contains("\"snat\""));
            if let (None, Some((line, _)), Some(on)) = (&known, line, snat) {
                let place = format!("node {}, {path}:{line}", node.name);
                known = Some(Known::new(format!("snat: {on}"), place));
            }
            let text = format!(
                "On {}: in the portmap part; it acts for pods that start from then on",
                node.name
            );
            let old = snat.map(|on| on.to_string());
            let pointer = (Syntax::Json, format!("{pointer}/snat"));
            steps.push(step(
                text,
                value(vec![node.name.clone()], path, (pointer.0, &pointer.1), old, "false"),
            ));
        }
    }
    if steps.is_empty() {
        steps.push(undone(
            "On every node: \"snat\": false in the portmap part of the network's configuration",
            [command("grep -rn portmap /etc/cni/net.d")],
            [sentence("\"snat\": true, on every node.")],
        ));
    }
    let restart = [sentence("Restart the pods that have a hostPort: only then it acts for them.")];
    steps.push(undone("Then restart what has a hostPort", [], restart));
    let text = "The portmap plugin marks calls of a hostPort that come from the pods' own bridge or from the \
                node, and masquerades them in CNI-HOSTPORT-MASQ, so that the answer comes back through \
                the node. Others keep their address."
        .to_owned();
    let (confidence, cause) = cause(group, text, known);
    let remedy = Remedy {
        lasting: true,
        title: "Switch portmap's snat off".to_owned(),
        steps,
        requires: vec![unseen(
            "no pod calls a hostPort of its own node, and the node not by localhost: they get no answer then",
            command("iptables-save -t nat | grep CNI-DN"),
        )],
    };
    Described {
        title: "The portmap plugin masquerades calls of a hostPort".to_owned(),
        confidence,
        cause,
        remedies: vec![remedy],
    }
}

/// The portmap plugin in a network's configuration: its JSON pointer, and what it says of `snat`.
fn portmap_in(text: &str) -> Option<(String, Option<bool>)> {
    let document: Value = serde_json::from_str(text).ok()?;
    let is_it = |plugin: &Value| plugin.get("type").and_then(Value::as_str) == Some("portmap");
    let snat = |plugin: &Value| plugin.get("snat").and_then(Value::as_bool);
    if is_it(&document) {
        return Some((String::new(), snat(&document)));
    }
    let plugins = document.get("plugins")?.as_array()?;
    let index = plugins.iter().position(is_it)?;
    Some((format!("/plugins/{index}"), snat(&plugins[index])))
}

pub(super) fn mesh(context: &Context<'_, '_>, group: &Group) -> Described {
    let owner = group.suspect.cause.owner;
    let text = format!(
        "The sidecar of {} takes a pod's connections and makes new ones to the server, by loopback. The \
         server sees the sidecar (127.0.0.6 with Istio) in place of the client.",
        owner.name()
    );
    let (confidence, cause) = cause(group, text, None);
    let remedy = if owner == Owner::Istio {
        Remedy {
            lasting: true,
            title: "Let the sidecar intercept with TPROXY".to_owned(),
            steps: deployments(context, group),
            requires: vec![
                unseen(
                    "the sidecar may have NET_ADMIN, and its image runs as its own user",
                    command("istioctl analyze -A"),
                ),
                unseen(
                    "the source still arrives at the node that the sidecar is on",
                    sentence("The other findings."),
                ),
            ],
        }
    } else {
        Remedy {
            lasting: true,
            title: "Leave ports out of the mesh, or read the mesh's headers".to_owned(),
            steps: vec![undone(
                "Linkerd's proxy has no transparent mode: leave the server's port out of it, or judge by l5d-client-id",
                [literal(
                    r#"annotation of the pods' template: config.linkerd.io/skip-inbound-ports: "PORT""#,
                )],
                [sentence("Take the annotation away again; the pods restart.")],
            )],
            requires: vec![unseen(
                "nothing relies on the mesh's encryption on that port",
                command("linkerd check"),
            )],
        }
    };
    Described {
        title: format!(
            "The sidecar of {} hands connections over from its own address",
            owner.name()
        ),
        confidence,
        cause,
        remedies: vec![remedy],
    }
}

/// The Deployments behind the Services of the group.
fn deployments(context: &Context<'_, '_>, group: &Group) -> Vec<Step> {
    const MODE: &str = "sidecar.istio.io/interceptionMode";
    let mode = |value: &str| {
        format!(
            r#"{{"spec":{{"template":{{"metadata":{{"annotations":{{"{MODE}":{value}}}}}}}}}}}"#
        )
    };
    let tproxy = mode("\"TPROXY\"");
    let mut steps = Vec::new();
    for service in services(context, group) {
        let namespace = &service.metadata.namespace;
        let its = context.lookup.workloads_of(service).filter(|(kind, _)| *kind == "Deployment");
        for (_, one) in its {
            let name = &one.metadata.name;
            let text = format!("Pods of {namespace}/{name} restart with it, a few at a time");
            let before = one.spec.template.metadata.annotations.get(MODE);
            let before = mode(&before.map_or_else(|| "null".to_owned(), |value| json(value)));
            steps.push(step(text, patch("deployment", Some(namespace), name, &tproxy, before)));
        }
    }
    if steps.is_empty() {
        let patch = |value: &str| {
            super::patch_command("deployment", Some("NAMESPACE"), "NAME", &mode(value))
        };
        steps.push(undone(
            "The annotation on the pods' template; they restart with it",
            [patch("\"TPROXY\"")],
            [patch("null")],
        ));
    }
    steps
}

/// A rule of another program, or of nobody known.
pub(super) fn rewriting(context: &Context<'_, '_>, group: &Group) -> Described {
    let suspect = &group.suspect;
    let found = rules::alike(context, suspect);
    let nodes = rules::nodes(&found);
    let names: Vec<&str> =
        nodes.iter().map(|node| context.cluster.nodes[*node].name.as_str()).collect();
    let rule =
        found.first().map_or_else(|| suspect.cause.rule.clone(), |one| crate::short_text(one.rule));
    let owner = suspect.cause.owner;
    if owner == Owner::KubeProxy && suspect.id == FindingId::LocalYetRewritten {
        return left_behind(group, &names);
    }
    let at = if names.is_empty() { String::new() } else { format!(" ({})", few(&names)) };
    let whose = match owner {
        Owner::Unclaimed => format!("The rule `{rule}`{at} is none that a known program writes."),
        known => format!("The rule `{rule}`{at} is of {}.", known.name()),
    };
    let written = written_where(context, &found);
    let by = match &written[..] {
        [] if owner == Owner::Unclaimed => {
            " No captured file has it: a unit, a script or a person wrote it."
        }
        [] => "",
        _ => " A file of the node has it, and brings it back.",
    };
    let text = format!("{whose}{by} It rewrites the source of {}.", hit(context, group));
    let known = written.first().map(|one| {
        Known::new(one.line.clone(), format!("node {}, {}:{}", one.node.name, one.path, one.number))
    });
    let (confidence, cause) = cause(group, text, known);
    let mut remedies = vec![match owner {
        Owner::Unclaimed => delete(context, &found, &written),
        known => of_owner(context, group, known),
    }];
    let pins: Vec<pin::Pin> =
        group.families.iter().filter_map(|family| pin::at_pods(context, group, *family)).collect();
    if suspect.id != FindingId::IpvsMasquerade {
        remedies.extend(pin::remedy(context, &nodes, &pins));
    }
    Described { title: named(context, group, &names), confidence, cause, remedies }
}

/// kube-proxy, whose rules aren't those that the Services ask for.
fn left_behind(group: &Group, names: &[&str]) -> Described {
    let on = if names.is_empty() { String::new() } else { format!(" on {}", few(names)) };
    let text = format!(
        "The Services say externalTrafficPolicy: Local, and kube-proxy's rules{on} are still those of \
         Cluster. It doesn't run there, can't reach the API server or can't write its rules; or the \
         Services were changed after the rules were captured."
    );
    let setting =
        ("externalTrafficPolicy: Local", "the Service's spec, which kube-proxy doesn't follow");
    let (confidence, cause) = cause(group, text, Some(Known::new(setting.0, setting.1)));
    let look = by_hand(
        "See whether it runs on these nodes and what it says; k3s and RKE2 have it in their own process",
        [
            command("kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide"),
            command("kubectl -n kube-system logs -l k8s-app=kube-proxy --tail=50 --prefix"),
        ],
    );
    let again = by_hand(
        "Start it anew there: it writes all its rules again. Connections that exist stay",
        [command("kubectl -n kube-system rollout restart daemonset/kube-proxy")],
    );
    let remedy = Remedy {
        lasting: true,
        title: "Have kube-proxy write what the Services say".to_owned(),
        steps: vec![look, again],
        requires: Vec::new(),
    };
    let title = title(
        format!("kube-proxy's rules{on} don't follow the Services' externalTrafficPolicy: Local"),
        "kube-proxy's rules don't follow the Services' externalTrafficPolicy: Local",
    );
    Described { title, confidence, cause, remedies: vec![remedy] }
}

fn hit(context: &Context<'_, '_>, group: &Group) -> &'static str {
    let mut rows = group.rows.iter().filter_map(|row| context.matrix.rows.get(*row));
    match rows.next().map(|row| (&row.cell.client, row.cell.entry)) {
        Some((Client::Outside(_), _)) => "clients outside on their way to pods",
        Some((_, Entry::Node)) => "pods on their way to nodes",
        Some((_, Entry::Outside)) => "pods on their way out",
        Some(_) => "pods on their way to pods",
        None => "connections",
    }
}

fn named(context: &Context<'_, '_>, group: &Group, names: &[&str]) -> String {
    let on = match names {
        [] => String::new(),
        [one] => format!(" on {one}"),
        more => format!(" on {} nodes", more.len()),
    };
    let owner = group.suspect.cause.owner;
    let whose = match owner {
        Owner::Unclaimed => format!("A rule{on} that no known program claims"),
        known => format!("A rule of {}{on}", known.name()),
    };
    let id = group.suspect.id;
    let does = if id == FindingId::LocalYetRewritten {
        "rewrites the clients of Services that promise Local"
    } else if id == FindingId::PodToPodRewritten {
        "rewrites the source between two pods"
    } else {
        let hit = hit(context, group);
        return title(format!("{whose} rewrites the source of {hit}"), id.title());
    };
    title(format!("{whose} {does}"), format!("{}: it {does}", owner_name(owner)))
}

/// A line of a file that writes the rule.
struct Written<'c> {
    node: &'c Node,
    path: &'c str,
    number: usize,
    line: String,
}

/// Lines of the nodes' files that masquerade and name the same networks.
fn written_where<'c>(context: &Context<'_, 'c>, found: &[Standing<'c>]) -> Vec<Written<'c>> {
    let mut all = Vec::new();
    for rule in found {
        let node = &context.cluster.nodes[rule.node];
        let text = crate::short_text(rule.rule);
        let nets: Vec<&str> = text.split(' ').filter(|word| word.contains('/')).collect();
        for (path, content) in &node.files {
            for (number, line) in (1..).zip(content.lines()) {
                let low = line.to_lowercase();
                let rewrites = low.contains("masquerade") || low.contains("snat");
                if rewrites && !nets.is_empty() && nets.iter().all(|net| line.contains(*net)) {
                    all.push(Written { node, path, number, line: line.trim().to_owned() });
                }
            }
        }
    }
    all
}

fn delete(context: &Context<'_, '_>, found: &[Standing<'_>], written: &[Written<'_>]) -> Remedy {
    let mut steps = Vec::new();
    if written.is_empty() {
        steps.push(by_hand(
            "Find who writes it: a unit's ExecStart (kubelet's too), a script, cloud-init, configuration management",
            [
                command("grep -rnI -e MASQUERADE -e SNAT -e masquerade /etc /usr/local /opt /var/lib/cloud 2>/dev/null"),
                command("systemctl cat '*' 2>/dev/null | grep -n -e iptables -e 'nft '"),
                command("nft monitor   # for rules in nf_tables: prints the program that changes them"),
            ],
        ));
    }
    for one in written {
        let text =
            format!("On {}: take the line out of {}:{}", one.node.name, one.path, one.number);
        let edit = Edit::Line { old: one.line.clone(), new: format!("# {}", one.line) };
        let (nodes, path) = (vec![one.node.name.clone()], one.path.to_owned());
        steps.push(step(text, Action::File { nodes, path, edit }));
    }
    for node in rules::nodes(found) {
        let name = context.cluster.nodes[node].name.clone();
        let here = found.iter().filter(|rule| rule.node == node);
        let changes: Vec<_> = here.map(Standing::deleted).collect();
        let text = format!("Then, on {name}, delete the rule itself");
        steps.push(step(text, Action::Rules { node: name, changes }));
    }
    Remedy {
        lasting: true,
        title: "Take the rule away where it is written, then in the kernel".to_owned(),
        steps,
        requires: vec![unseen(
            "nobody needs it: pods reach networks outside without it, or another rule masquerades them",
            sentence("The rule's counter; a connection from a pod to the outside."),
        )],
    }
}

/// The switch of a program whose rules are known by name.
fn of_owner(context: &Context<'_, '_>, group: &Group, owner: Owner) -> Remedy {
    let environment = |name: &str, container: &str, variable: &str, value: &str| {
        let workload = Workload {
            kind: WorkloadKind::DaemonSet,
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
            container: Some(container.to_owned()),
        };
        environment(context, workload, variable, value)
    };
    let hand =
        |text: &str, there: &str, back: &str| undone(text, [command(there)], [command(back)]);
    let one = match owner {
        Owner::Cilium => return with_steps(owner, cilium(context, group)),
        Owner::AwsVpcCni => step(
            "The node doesn't translate any more; subnets need a NAT gateway then. For single networks: AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS. The DaemonSet's pods restart with it",
            environment("aws-node", "aws-node", "AWS_VPC_K8S_CNI_EXTERNALSNAT", "true"),
        ),
        Owner::Weave => step(
            "Weave leaves clients outside alone; only with externalTrafficPolicy: Local. The DaemonSet's pods restart with it",
            environment("weave-net", "weave", "NO_MASQ_LOCAL", "1"),
        ),
        Owner::Tailscale => hand(
            "Routed networks must know the way back",
            "tailscale set --snat-subnet-routes=false",
            "tailscale set --snat-subnet-routes=true",
        ),
        Owner::Firewalld => hand(
            "In the zone that has the device",
            "firewall-cmd --permanent --zone=ZONE --remove-masquerade && firewall-cmd --reload",
            "firewall-cmd --permanent --zone=ZONE --add-masquerade && firewall-cmd --reload",
        ),
        Owner::Libvirt => hand(
            "A routed network in place of a translated one: <forward mode='route'/>",
            "virsh net-edit NETWORK",
            "virsh net-edit NETWORK",
        ),
        Owner::Lxc => return with_steps(owner, vec![untranslated(group)]),
        Owner::OvnKubernetes => undone(
            "Without translation on the way out: an argument of ovnkube",
            [literal("--disable-snat-multiple-gws")],
            [sentence("Take --disable-snat-multiple-gws away again.")],
        ),
        Owner::Unmasq => by_hand(
            "The rule is of Unmasq's own table",
            [command("nft list table ip unmasq; nft list table ip6 unmasq")],
        ),
        Owner::Calico
        | Owner::KubeProxy
        | Owner::Kubelet
        | Owner::Kubenet
        | Owner::Flannel
        | Owner::KubeRouter
        | Owner::IpMasqAgent
        | Owner::GceNodeSetup
        | Owner::KlipperLb
        | Owner::Docker
        | Owner::Netavark
        | Owner::Portmap
        | Owner::Kindnet
        | Owner::Istio
        | Owner::Linkerd
        | Owner::ContainerEngine
        | Owner::Unclaimed => undone(
            format!("In the settings of {}", owner_name(owner)),
            [],
            [sentence("Set it back.")],
        ),
    };
    with_steps(owner, vec![one])
}

fn with_steps(owner: Owner, steps: Vec<Step>) -> Remedy {
    Remedy {
        lasting: true,
        title: format!("Change the setting of {}", owner_name(owner)),
        steps,
        requires: vec![unseen(
            "what called out translated until now still gets answers",
            sentence("A connection from a pod to the outside."),
        )],
    }
}

/// A network of LXD's or Incus's has a switch for each family.
fn untranslated(group: &Group) -> Step {
    let set = |value: &'static str| {
        group.families.iter().map(move |family| {
            let ip = match family {
                Family::V4 => "ipv4",
                Family::V6 => "ipv6",
            };
            command(format!("lxc network set NETWORK {ip}.nat={value}"))
        })
    };
    undone(
        "A network that is not translated: others must know the way back. Incus: `incus network set`. \
         lxc-net has no switch: a bridge of your own in its place (USE_LXC_BRIDGE=\"false\" in \
         /etc/default/lxc-net)",
        set("false"),
        set("true"),
    )
}

/// A switch for each family, and the agents' restart: they read the ConfigMap when they start.
fn cilium(context: &Context<'_, '_>, group: &Group) -> Vec<Step> {
    let map = context.cluster.objects.config_map("kube-system", "cilium-config");
    let mut steps = Vec::new();
    for family in &group.families {
        let (key, native) = match family {
            Family::V4 => ("enable-ipv4-masquerade", "ipv4-native-routing-cidr"),
            Family::V6 => ("enable-ipv6-masquerade", "ipv6-native-routing-cidr"),
        };
        let data = |value: &str| format!(r#"{{"data":{{"{key}":{value}}}}}"#);
        let before = map.map(|map| map.data.get(key));
        let before = before.map(|value| data(&value.map_or("null".to_owned(), |one| json(one))));
        steps.push(step(
            format!(
                "Cilium doesn't masquerade {family} any more; or set {native} to all networks that \
                 know pods"
            ),
            patch("configmap", Some("kube-system"), "cilium-config", &data("\"false\""), before),
        ));
    }
    let agents = super::workload(&context.cluster.settings.cilium.places);
    let agents = agents.unwrap_or_else(|| Workload {
        kind: WorkloadKind::DaemonSet,
        namespace: "kube-system".to_owned(),
        name: "cilium".to_owned(),
        container: None,
    });
    let program = Program::Workload(agents.clone());
    steps.push(step("Its agents read that when they start", Action::Restart { program }));
    steps.push(super::rollout(
        &agents,
        "Meanwhile a node's programs and rules stay in the kernel and packets flow; new pods wait",
    ));
    steps
}

//! Plugins and meshes with a switch of their own, other programs' masquerading, and rules that
//! nobody claims.

use unmasq_cluster::Node;

use super::rules::Standing;
use super::{
    Context, Described, Group, Known, by_hand, cause, few, json, owner_name, patch, pin, rules,
    step, title, unseen,
};
use crate::matrix::{Client, Entry};
use crate::{Action, FindingId, Owner, Remedy, Step};

/// plugins/meta/portmap of containernetworking/plugins: `CNI-HOSTPORT-MASQ`.
pub(super) fn portmap(context: &Context<'_, '_>, group: &Group) -> Described {
    let mut steps = Vec::new();
    let mut known = None;
    for node in &context.cluster.nodes {
        for (path, text) in node.files.iter().filter(|(_, text)| text.contains("portmap")) {
            let line = (1..).zip(text.lines()).find(|(_, line)| line.contains("\"snat\""));
            if let (None, Some((line, found))) = (&known, line) {
                let value = if found.contains("true") { "snat: true" } else { "snat: false" };
                known = Some(Known::new(value, format!("node {}, {path}:{line}", node.name)));
            }
            steps.push(step(
                format!(
                    "On {}: in the portmap part; it acts for pods that start from then on",
                    node.name
                ),
                Action::File {
                    node: Some(node.name.clone()),
                    path: path.clone(),
                    content: "\"snat\": false".to_owned(),
                },
            ));
        }
    }
    if steps.is_empty() {
        steps.push(by_hand(
            "On every node: \"snat\": false in the portmap part of the network's configuration",
            ["grep -rn portmap /etc/cni/net.d".to_owned()],
        ));
    }
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
            "iptables-save -t nat | grep CNI-DN",
        )],
        undo: vec!["\"snat\": true, and restart the pods with a hostPort".to_owned()],
    };
    Described {
        title: "The portmap plugin masquerades calls of a hostPort".to_owned(),
        confidence,
        cause,
        remedies: vec![remedy],
    }
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
                    "istioctl analyze -A",
                ),
                unseen(
                    "the source still arrives at the node that the sidecar is on",
                    "the other findings",
                ),
            ],
            undo: vec!["take the annotation away again; the pods restart".to_owned()],
        }
    } else {
        Remedy {
            lasting: true,
            title: "Leave ports out of the mesh, or read the mesh's headers".to_owned(),
            steps: vec![by_hand(
                "Linkerd's proxy has no transparent mode: leave the server's port out of it, or judge by l5d-client-id",
                [r#"annotation of the pods' template: config.linkerd.io/skip-inbound-ports: "PORT""#.to_owned()],
            )],
            requires: vec![unseen("nothing relies on the mesh's encryption on that port", "linkerd check")],
            undo: vec!["take the annotation away again; the pods restart".to_owned()],
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

/// The Deployments behind the Services of the rows.
fn deployments(context: &Context<'_, '_>, group: &Group) -> Vec<Step> {
    const TPROXY: &str = r#"{"spec":{"template":{"metadata":{"annotations":{"sidecar.istio.io/interceptionMode":"TPROXY"}}}}}"#;
    let objects = &context.cluster.objects;
    let rows = group.rows.iter().filter_map(|row| context.matrix.rows.get(*row));
    let services: std::collections::BTreeSet<u32> =
        rows.flat_map(|row| &row.services).copied().collect();
    let services = services.iter().filter_map(|index| objects.services.get(*index as usize));
    let mut steps = Vec::new();
    for service in services {
        let namespace = &service.metadata.namespace;
        let its = objects.deployments.iter().filter(|one| {
            one.metadata.namespace == *namespace
                && service.selects(&one.spec.template.metadata.labels)
        });
        for one in its {
            let name = &one.metadata.name;
            let text = format!("Pods of {namespace}/{name} restart with it");
            steps.push(step(text, patch("deployment", Some(namespace), name, TPROXY)));
        }
    }
    if steps.is_empty() {
        let command = super::patch_command("deployment", Some("NAMESPACE"), "NAME", TPROXY);
        steps
            .push(by_hand("The annotation on the pods' template; they restart with it", [command]));
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
        known => of_owner(known),
    }];
    let pins: Vec<pin::Pin> =
        group.families.iter().filter_map(|family| pin::at_pods(context, group, *family)).collect();
    if suspect.id != FindingId::IpvsMasquerade {
        remedies.extend(pin::remedy(context, &nodes, &pins));
    }
    Described { title: named(context, group, &names), confidence, cause, remedies }
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
    let (mut steps, mut undo) = (Vec::new(), Vec::new());
    if written.is_empty() {
        steps.push(by_hand(
            "Find who writes it: a unit's ExecStart (kubelet's too), a script, cloud-init, configuration management",
            [
                "grep -rnI -e MASQUERADE -e SNAT -e masquerade /etc /usr/local /opt /var/lib/cloud 2>/dev/null".to_owned(),
                "systemctl cat '*' 2>/dev/null | grep -n -e iptables -e 'nft '".to_owned(),
                "nft monitor   # for rules in nf_tables: prints the program that changes them".to_owned(),
            ],
        ));
    }
    for one in written {
        let text =
            format!("On {}: take the line out of {}:{}", one.node.name, one.path, one.number);
        steps.push(by_hand(text, [one.line.clone()]));
    }
    for node in rules::nodes(found) {
        let name = context.cluster.nodes[node].name.clone();
        let here = found.iter().filter(|rule| rule.node == node);
        let changes: Vec<_> = here.map(Standing::deleted).collect();
        let text = format!("Then, on {name}, delete the rule itself");
        undo.extend(rules::undo(&name, &changes));
        steps.push(step(text, Action::Rules { node: name, changes }));
    }
    Remedy {
        lasting: true,
        title: "Take the rule away where it is written, then in the kernel".to_owned(),
        steps,
        requires: vec![unseen(
            "nobody needs it: pods reach networks outside without it, or another rule masquerades them",
            "the rule's counter; a connection from a pod to the outside",
        )],
        undo,
    }
}

/// The switch of a program whose rules are known by name.
fn of_owner(owner: Owner) -> Remedy {
    let environment =
        |workload: &str, container: &str, name: &str, value: &str| Action::Environment {
            workload: workload.to_owned(),
            namespace: "kube-system".to_owned(),
            container: container.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
    let hand = |text: &str, command: &str| by_hand(text, [command.to_owned()]);
    let step = match owner {
        Owner::AwsVpcCni => step(
            "The node doesn't translate any more; subnets need a NAT gateway then. For single networks: AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS",
            environment("daemonset/aws-node", "aws-node", "AWS_VPC_K8S_CNI_EXTERNALSNAT", "true"),
        ),
        Owner::Weave => step(
            "Weave leaves clients outside alone; only with externalTrafficPolicy: Local",
            environment("daemonset/weave-net", "weave", "NO_MASQ_LOCAL", "1"),
        ),
        Owner::Cilium => step(
            "Cilium doesn't masquerade IPv4; or set ipv4-native-routing-cidr to all networks that know pods",
            patch(
                "configmap",
                Some("kube-system"),
                "cilium-config",
                &format!(r#"{{"data":{{{}:"false"}}}}"#, json("enable-ipv4-masquerade")),
            ),
        ),
        Owner::Tailscale => hand(
            "Routed networks must know the way back",
            "tailscale set --snat-subnet-routes=false",
        ),
        Owner::Firewalld => hand(
            "In the zone that has the device",
            "firewall-cmd --permanent --zone=ZONE --remove-masquerade && firewall-cmd --reload",
        ),
        Owner::Libvirt => hand(
            "A routed network in place of a translated one: <forward mode='route'/>",
            "virsh net-edit NETWORK",
        ),
        Owner::OvnKubernetes => {
            hand("Without translation on the way out", "ovnkube --disable-snat-multiple-gws")
        }
        Owner::Unmasq => hand(
            "The rule is of Unmasq's own table",
            "nft list table ip unmasq; nft list table ip6 unmasq",
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
        | Owner::Unclaimed => by_hand(format!("In the settings of {}", owner_name(owner)), []),
    };
    Remedy {
        lasting: true,
        title: format!("Change the setting of {}", owner_name(owner)),
        steps: vec![step],
        requires: vec![unseen(
            "what called out translated until now still gets answers",
            "a connection from a pod to the outside",
        )],
        undo: vec!["set it back".to_owned()],
    }
}

//! Calico's pools (felix/rules/nat.go of projectcalico/calico: `cali-nat-outgoing`).

use ipnet::IpNet;
use unmasq_cluster::kubernetes::IpPool;
use unmasq_cluster::settings::Calico;
use unmasq_model::packet::Family;

use super::{
    Context, Described, Group, Known, by_hand, cause, command, computed, count, environment, few,
    networks, patch, patch_command, pin, rollout, rules, sentence, step, title, undone, unseen,
    way_back, workload,
};
use crate::{Instruction, Remedy, Step};

const POOLS: &str = "ippools.crd.projectcalico.org";
const FELIX: &str = "felixconfigurations.crd.projectcalico.org";
const OFF: &str = r#"{"spec":{"natOutgoing":false}}"#;
const ON: &str = r#"{"spec":{"natOutgoing":true}}"#;

fn find<'c>(context: &Context<'_, 'c>, name: &str) -> Option<&'c IpPool> {
    context.cluster.objects.ip_pools.iter().find(|pool| pool.metadata.name == name)
}

fn nat_outgoing(pool: &IpPool) -> Known {
    let place = format!("IPPool {}, spec.natOutgoing", pool.metadata.name);
    Known::new(format!("natOutgoing: {}", pool.spec.nat_outgoing), place)
}

/// A pool whose range has clients outside in it.
pub(super) fn pool_and_clients(
    context: &Context<'_, '_>,
    subject: &str,
    group: &Group,
) -> Described {
    let Some(pool) = find(context, subject) else {
        return unknown_pool(group, !context.cluster.objects.ip_pools.is_empty());
    };
    let pods = networks::pods(context.cluster).filter(|pod| pool.spec.cidr.contains(pod)).count();
    match pods {
        0 => unused(context, pool, group),
        _ => overlapping(context, pool, pods, group),
    }
}

fn unused(context: &Context<'_, '_>, pool: &IpPool, group: &Group) -> Described {
    let (cluster, name, cidr) = (context.cluster, &pool.metadata.name, pool.spec.cidr);
    let family = Family::of(cidr.addr());
    let rule = &group.suspect.cause.rule;
    let pods = networks::pod_networks(cluster, family);
    let theirs = match (pods.is_empty(), cluster.settings.is_canal()) {
        (true, _) => String::new(),
        (false, true) => format!(": flannel gives pods theirs, in {}", networks::listed(&pods)),
        (false, false) => format!(": pods have theirs in {}", networks::listed(&pods)),
    };
    let text = format!(
        "Calico's rule {rule} masquerades what comes from a pool with natOutgoing and goes to an \
         address outside of all pools. No pod has an address of {name} ({cidr}){theirs}. So the \
         rule only ever meets clients in {cidr}, and hides them from the pods that they call."
    );
    let (confidence, cause) = cause(group, text, Some(nat_outgoing(pool)));
    let mut remedies = vec![switch_off(context, pool, group)];
    let from = [cidr];
    let pins: Vec<pin::Pin> = pin::Pin::between(family, &from, &pods).into_iter().collect();
    let nodes = rules::nodes(&rules::alike(context, &group.suspect));
    remedies.extend(pin::remedy(context, &nodes, &pins));
    Described {
        title: title(
            format!("Calico pool {name} ({cidr}) gives no pod an address but masquerades clients"),
            format!("A Calico pool gives no pod an address, and masquerades clients in {cidr}"),
        ),
        confidence,
        cause,
        remedies,
    }
}

/// The pool's own setting, the one of pools to come, and the installer's.
fn switch_off(context: &Context<'_, '_>, pool: &IpPool, group: &Group) -> Remedy {
    let (name, cidr) = (&pool.metadata.name, pool.spec.cidr);
    let mut steps = vec![
        step(
            format!("Switch natOutgoing off on {name}; Calico then removes the rule by itself"),
            patch(POOLS, None, name, OFF, ON.to_owned()),
        ),
        by_hand(
            "See on every node that the rule is gone, after a few seconds. Connections that exist keep \
             their translation until they end",
            [command(rule_left(context, group, Family::of(cidr.addr())))],
        ),
    ];
    if let Some(mut found) = workload(&context.cluster.settings.calico.places) {
        let variable = match Family::of(cidr.addr()) {
            Family::V4 => "CALICO_IPV4POOL_NAT_OUTGOING",
            Family::V6 => "CALICO_IPV6POOL_NAT_OUTGOING",
        };
        found.container.get_or_insert_with(|| "calico-node".to_owned());
        let name = found.to_string();
        steps.push(step(
            "For new clusters: calico-node makes its first pool without natOutgoing. The variable \
             acts only where no pool exists yet, so it does not stand for the patch, and can wait",
            environment(context, found.clone(), variable, "0"),
        ));
        steps.push(rollout(
            &found,
            "Meanwhile a node's rules and routes stay in the kernel and packets flow; new policies and \
             new pods of that node wait until its pod is ready",
        ));
        steps.extend(installer(context, &name, variable));
    }
    let cluster = context.cluster;
    let unused = "no pod has an address of the pool";
    let requires = match networks::pods(cluster).next() {
        Some(_) => vec![computed(true, format!("{unused} ({cidr})"))],
        None => {
            let check =
                r#"kubectl get pods -A -o jsonpath='{range .items[*]}{.status.podIP}{"\n"}{end}'"#;
            vec![unseen(format!("{unused} ({cidr})"), command(check))]
        }
    };
    Remedy {
        lasting: true,
        title: format!("Switch natOutgoing off on the pool {name}"),
        steps,
        requires,
    }
}

/// Shows what is left of Calico's rule on a node.
fn rule_left(context: &Context<'_, '_>, group: &Group, family: Family) -> String {
    let found = rules::alike(context, &group.suspect);
    match found.first() {
        Some(rule) if !rule.is_xtables() => {
            "nft list table ip calico | grep masq-ipam-pools".to_owned()
        }
        Some(rule) => format!("{} -t nat | grep masq-ipam-pools", rule.saved_by(family)),
        None => format!("{} -t nat | grep masq-ipam-pools", rules::saves(None, family)),
    }
}

/// Where an installer of Rancher's has its own copy of the workload's settings.
fn installer(context: &Context<'_, '_>, workload: &str, variable: &str) -> Option<Step> {
    let cluster = context.cluster;
    let begins = |beginning: &str| {
        let nodes = cluster.objects.nodes.iter();
        nodes
            .flat_map(|node| node.metadata.labels.keys().chain(node.metadata.annotations.keys()))
            .any(|key| key.starts_with(beginning))
    };
    let rke2 = workload.contains("rke2") || begins("rke2.io/");
    let rke = begins("rke.cattle.io/")
        || cluster.objects.config_maps.iter().any(|map| map.metadata.name == "rke-network-plugin");
    let rancher = cluster.objects.namespaces.iter().any(|one| one.metadata.name == "cattle-system");
    if !(rke2 || rke || rancher || cluster.settings.rancher.is_present()) {
        return None;
    }
    let what = if rke2 {
        "rke2"
    } else if rke {
        "RKE"
    } else {
        "Rancher"
    };
    let text = format!(
        "{what} installs {workload} from a template of its own and writes over a change of the \
         object: set {variable} there too (the network plugin's template, or the cluster's \
         configuration in Rancher)"
    );
    let look = if rke2 {
        "kubectl -n kube-system get helmchartconfigs.helm.cattle.io"
    } else {
        "kubectl -n kube-system get configmap rke-network-plugin -o yaml"
    };
    let undo = format!("Take {variable} out there again.");
    Some(undone(text, [command(look)], [sentence(undo)]))
}

fn overlapping(context: &Context<'_, '_>, pool: &IpPool, pods: usize, group: &Group) -> Described {
    let (name, cidr) = (&pool.metadata.name, pool.spec.cidr);
    let family = Family::of(cidr.addr());
    let pods = count(pods, "pod");
    let text = format!(
        "Calico's rule {} masquerades what comes from a pool with natOutgoing and goes to an \
         address outside of all pools. {name} ({cidr}) has {pods}, and clients outside have \
         addresses in it too, whom the rule takes for pods.",
        group.suspect.cause.rule
    );
    let (confidence, cause) = cause(group, text, Some(nat_outgoing(pool)));
    let used = networks::cluster_network(context.cluster, family)
        .map(|(net, _)| net)
        .filter(|net| cidr.contains(net) && cidr != *net);
    let mut steps = vec![undone(
        format!(
            "Make a pool of a range that nobody outside has, disable {name}, and recreate the pods; \
             then switch natOutgoing off on {name}"
        ),
        [
            patch_command(POOLS, None, name, r#"{"spec":{"disabled":true}}"#),
            command("kubectl get pods -A -o wide"),
            patch_command(POOLS, None, name, OFF),
        ],
        [
            patch_command(POOLS, None, name, ON),
            patch_command(POOLS, None, name, r#"{"spec":{"disabled":false}}"#),
        ],
    )];
    if let Some(net) = used {
        steps.push(undone(
            format!("The pods are all in {net}: a pool of that range is enough"),
            [pool_manifest("pods", net, "natOutgoing: true")],
            [command(format!("kubectl delete {POOLS} pods"))],
        ));
    }
    let remedy = Remedy {
        lasting: true,
        title: "Give pods a range that nobody outside has".to_owned(),
        steps,
        requires: vec![unseen(
            "no network outside of the cluster uses the new range",
            command("ip route"),
        )],
    };
    Described {
        title: title(
            format!(
                "Calico pool {name} ({cidr}) has {pods}, and masquerades clients outside in it"
            ),
            format!("A Calico pool has pods, and masquerades clients outside in {cidr}"),
        ),
        confidence,
        cause,
        remedies: vec![remedy],
    }
}

/// The rule was seen, and no pool that its clients are in. `captured`: others were.
fn unknown_pool(group: &Group, captured: bool) -> Described {
    let pools = match captured {
        true => "none of the IPPools that were captured has these clients' addresses",
        false => "the IPPools were not captured",
    };
    let text = format!(
        "Calico's rule {} masquerades what comes from a pool with natOutgoing and goes to an address \
         outside of all pools. Clients outside get masqueraded by it; {pools}.",
        group.suspect.cause.rule
    );
    let (confidence, cause) = cause(group, text, None);
    let remedy = Remedy {
        lasting: true,
        title: "Switch natOutgoing off on the pool".to_owned(),
        steps: vec![undone(
            "Find the pool that has the clients' addresses and no pod's, and switch its natOutgoing off",
            [
                command(format!("kubectl get {POOLS} -o yaml")),
                patch_command(POOLS, None, "NAME", OFF),
            ],
            [patch_command(POOLS, None, "NAME", ON)],
        )],
        requires: vec![unseen(
            "no pod has an address of the pool",
            command("kubectl get pods -A -o wide"),
        )],
    };
    Described {
        title: "A Calico pool masquerades clients outside".to_owned(),
        confidence,
        cause,
        remedies: vec![remedy],
    }
}

/// Pods that leave the pools, for nodes or for other pods.
pub(super) fn out_of_the_pools(
    context: &Context<'_, '_>,
    subject: &str,
    group: &Group,
) -> Described {
    let pool = find(context, subject);
    let (from, known) = match pool {
        Some(pool) => (format!("pool {subject} ({})", pool.spec.cidr), Some(nat_outgoing(pool))),
        None => ("a pool".to_owned(), None),
    };
    let text = format!(
        "Calico's rule {} masquerades what comes from {from} and goes to an address outside of all \
         pools. The nodes' own network is in no pool, so a node sees the other node instead of \
         the pod.{}",
        group.suspect.cause.rule,
        pool.map_or_else(String::new, |pool| inside(context, pool))
    );
    let (confidence, cause) = cause(group, text, known);
    let mut remedies = vec![exclude_hosts(&context.cluster.settings.calico)];
    for family in &group.families {
        let nodes = networks::node_networks(context.cluster, *family);
        if !nodes.is_empty() {
            remedies.push(disabled_pools(&nodes));
        }
    }
    let found = rules::nodes(&rules::alike(context, &group.suspect));
    let pins: Vec<pin::Pin> =
        group.families.iter().filter_map(|family| pin::at_pods(context, group, *family)).collect();
    remedies.extend(pin::remedy(context, &found, &pins));
    Described {
        title: title(
            format!("Calico masquerades pods of {from} on their way to nodes and other networks"),
            "Calico masquerades pods on their way to nodes and other networks",
        ),
        confidence,
        cause,
        remedies,
    }
}

/// Pools without natOutgoing inside one that has it, whose addresses it masquerades too.
fn inside(context: &Context<'_, '_>, outer: &IpPool) -> String {
    let within = |one: &&IpPool| {
        let (range, around) = (one.spec.cidr, outer.spec.cidr);
        !one.spec.nat_outgoing
            && outer.spec.nat_outgoing
            && around != range
            && around.contains(&range)
    };
    let pools = context.cluster.objects.ip_pools.iter().filter(within);
    let names: Vec<String> =
        pools.map(|one| format!("{} ({})", one.metadata.name, one.spec.cidr)).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(
            " That a pool inside it has natOutgoing: false changes nothing for its addresses: {}.",
            few(&names)
        ),
    }
}

/// felix/config/config_params.go: NATOutgoingExclusions.
fn exclude_hosts(calico: &Calico) -> Remedy {
    const EXCLUDE: &str = r#"{"spec":{"natOutgoingExclusions":"IPPoolsAndHostIPs"}}"#;
    let before = calico.nat_outgoing_exclusions.first();
    let before = before.map_or("null".to_owned(), |setting| format!("\"{}\"", setting.value));
    let undo = format!(r#"{{"spec":{{"natOutgoingExclusions":{before}}}}}"#);
    Remedy {
        lasting: true,
        title: "Leave the nodes' addresses out of natOutgoing".to_owned(),
        steps: vec![step(
            "Felix leaves out the addresses of all nodes besides those of pools",
            patch(FELIX, None, "default", EXCLUDE, undo),
        )],
        requires: vec![
            unseen(
                "this Calico knows natOutgoingExclusions",
                command(format!("kubectl get crd {FELIX} -o yaml | grep natOutgoingExclusions")),
            ),
            way_back(),
        ],
    }
}

fn disabled_pools(nodes: &[IpNet]) -> Remedy {
    let name = |index: usize| format!("nodes-{}", index + 1);
    let commands: Vec<Instruction> = nodes
        .iter()
        .enumerate()
        .map(|(index, net)| pool_manifest(&name(index), *net, "disabled: true"))
        .collect();
    let undo =
        (0..nodes.len()).map(|index| command(format!("kubectl delete {POOLS} {}", name(index))));
    Remedy {
        lasting: true,
        title: "Cover the nodes' network with a disabled pool".to_owned(),
        steps: vec![undone(
            "Works with every version: a disabled pool gives no addresses, and counts as a pool",
            commands,
            undo,
        )],
        requires: vec![way_back()],
    }
}

fn pool_manifest(name: &str, net: IpNet, rest: &str) -> Instruction {
    command(format!(
        "kubectl apply -f - <<'EOF'\napiVersion: crd.projectcalico.org/v1\nkind: IPPool\n\
         metadata:\n  name: {name}\nspec:\n  cidr: {net}\n  ipipMode: Never\n  vxlanMode: Never\n  \
         nodeSelector: all()\n  {rest}\nEOF"
    ))
}

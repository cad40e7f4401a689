//! Who reads what deeds change and writes rules by it, without anybody here who could write them
//! too. What such a program does next isn't foretold, so nothing that rests on it is.
//!
//! Left out is what is read at another time only: variables by which Calico makes its first pools,
//! and files that are read when the host or an engine starts.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::Value;
use unmasq_audit::Owner;
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::Metadata;
use unmasq_cluster::settings::{Flannel, KubeRouter, Place, Values};
use unmasq_eval::trace::RuleId;
use unmasq_model::host::Host;
use unmasq_model::rule::{Action, Step};
use unmasq_model::ruleset::ChainId;

use super::Reactions;
use crate::deed::{Deed, FileDeed, ObjectDeed};
use crate::manifests::is_kind;

pub(super) fn react(before: &Cluster, after: &Cluster, deeds: &[Deed], reactions: &mut Reactions) {
    for deed in deeds {
        let readers = match deed {
            Deed::Object(object) => of_object(before, after, object),
            Deed::File(file) => of_file(before, after, file),
            Deed::Rules(_) | Deed::Table(_) => Vec::new(),
        };
        for owner in readers {
            let why =
                format!("it reads {}, and what it writes then isn't foretold", deed.subject());
            let captured = after.nodes.iter().filter_map(|node| Some((node, node.host.as_ref()?)));
            for (node, host) in captured {
                let elsewhere = deed.node().is_some_and(|name| *name != *node.name);
                // Its rules were taken away, and it doesn't write them again.
                let done = owner == Owner::Flannel && is_off(after) && !rewrites(host, owner);
                if !elsewhere && !done {
                    reactions.unforeseen(owner, &node.name, &*why);
                }
            }
        }
    }
}

fn of_object(before: &Cluster, after: &Cluster, deed: &ObjectDeed) -> Vec<Owner> {
    let is = |kind: &str| is_kind(&deed.resource, kind);
    if is("Service") {
        of_service(before, after, deed)
    } else if is("FelixConfiguration") {
        // Exclusions are told with the rules that they are about.
        let exclusions = |patch: &Value| patch.pointer("/spec/natOutgoingExclusions").cloned();
        let told = exclusions(&deed.patch) != exclusions(&deed.back);
        if told { Vec::new() } else { vec![Owner::Calico] }
    } else if is("ConfigMap") {
        of_config_map(before, after, deed).into_iter().collect()
    } else if ["DaemonSet", "Deployment", "StatefulSet"].into_iter().any(is) {
        of_workload(before, after, deed)
    } else {
        // Pools are Felix's, whose rules are written here; the others program no rules.
        Vec::new()
    }
}

/// Besides kube-proxy.
fn of_service(before: &Cluster, after: &Cluster, deed: &ObjectDeed) -> Vec<Owner> {
    let mut readers = Vec::new();
    let replacement = before.settings.cilium.kube_proxy_replacement.first();
    if replacement.is_some_and(|one| !["false", "disabled"].contains(&&*one.value)) {
        readers.push(Owner::Cilium);
    }
    // k3s pkg/cloudprovider/servicelb.go, `newDaemonSet`: by the policy its pods translate to the
    // node's port or to the cluster IP.
    let namespace = deed.namespace.as_deref().unwrap_or("default");
    let label = |one: &Metadata, key: &str, value: &str| {
        one.labels.get(&format!("svccontroller.k3s.cattle.io/{key}")).is_some_and(|it| it == value)
    };
    let serves =
        |one: &Metadata| label(one, "svcname", &deed.name) && label(one, "svcnamespace", namespace);
    let objects = &after.objects;
    let pods = objects.pods.iter().map(|pod| &pod.metadata);
    let sets = objects.daemon_sets.iter().map(|set| &set.metadata);
    if pods.chain(sets).any(serves) {
        readers.push(Owner::KlipperLb);
    }
    readers
}

fn of_config_map(before: &Cluster, after: &Cluster, deed: &ObjectDeed) -> Option<Owner> {
    let namespace = deed.namespace.as_deref().unwrap_or("default");
    let map = before.objects.config_map(namespace, &deed.name)?;
    if deed.name == "cilium-config" {
        Some(Owner::Cilium)
    } else if map.data.contains_key("net-conf.json") {
        Some(Owner::Flannel)
    } else if deed.name == "kube-proxy" {
        (!everywhere(before, after, kube_proxy)).then_some(Owner::KubeProxy)
    } else {
        None
    }
}

/// Programs whose settings aren't read, by their containers.
const OTHERS: [(&str, Owner); 5] = [
    ("aws-node", Owner::AwsVpcCni),
    ("weave", Owner::Weave),
    ("weave-npc", Owner::Weave),
    ("kindnet-cni", Owner::Kindnet),
    ("ovnkube-controller", Owner::OvnKubernetes),
];

fn of_workload(before: &Cluster, after: &Cluster, deed: &ObjectDeed) -> Vec<Owner> {
    let mut readers = Vec::new();
    let annotations = deed.patch.pointer("/spec/template/metadata/annotations");
    let mut keys = annotations.and_then(Value::as_object).into_iter().flat_map(|all| all.keys());
    if keys.any(|key| key.contains("sidecar.istio.io/")) {
        readers.push(Owner::Istio);
    }
    for container in Container::changed(deed) {
        let Some(owner) = program(before, deed, &container.name) else { continue };
        if !container.is_foretold(owner, before, after) {
            readers.push(owner);
        }
    }
    readers
}

/// The program of a workload's container, if it writes rules.
fn program(cluster: &Cluster, deed: &ObjectDeed, container: &str) -> Option<Owner> {
    let settings = &cluster.settings;
    let is_it = |place: &Place| match place {
        Place::Object { kind, namespace, name, part, .. } => {
            is_kind(&deed.resource, kind)
                && *name == deed.name
                && *namespace == deed.namespace.as_deref().unwrap_or("default")
                && part.strip_prefix("container ") == Some(container)
        }
        Place::File { .. } | Place::Process { .. } | Place::State { .. } | Place::Given { .. } => {
            false
        }
    };
    let known = [
        (&settings.calico.places, Owner::Calico),
        (&settings.flannel.places, Owner::Flannel),
        (&settings.kube_proxy.places, Owner::KubeProxy),
        (&settings.kube_router.places, Owner::KubeRouter),
        (&settings.ip_masq_agent.places, Owner::IpMasqAgent),
        (&settings.cilium.places, Owner::Cilium),
    ];
    let mut known = known.into_iter().filter(|(places, _)| places.iter().any(is_it));
    let other = || OTHERS.into_iter().find(|(name, _)| *name == container);
    known.next().map(|(_, owner)| owner).or_else(|| other().map(|(_, owner)| owner))
}

/// A container that changes.
struct Container {
    name: String,
    /// Variables of its environment that change, if nothing else does.
    variables: Option<BTreeSet<String>>,
}

impl Container {
    fn changed(deed: &ObjectDeed) -> Vec<Container> {
        let of = |patch: &Value| -> Vec<Value> {
            let list = patch.pointer("/spec/template/spec/containers").and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let (old, new) = (of(&deed.back), of(&deed.patch));
        let changed = new.iter().filter(|one| !old.contains(one));
        changed
            .filter_map(|one| {
                let name = one.get("name")?.as_str()?.to_owned();
                let was = old.iter().find(|old| old.get("name") == one.get("name"));
                Some(Container { name, variables: was.and_then(|was| variables(was, one)) })
            })
            .collect()
    }

    /// Whether what the program does then was foretold, or is nothing until another time.
    fn is_foretold(&self, owner: Owner, before: &Cluster, after: &Cluster) -> bool {
        match owner {
            Owner::Calico => {
                // Without a pool it makes one when it starts (node/pkg/lifecycle/startup).
                let makes_pools = before.objects.ip_pools.is_empty();
                let of_pools = |name: &String| {
                    name.starts_with("CALICO_IPV4POOL_") || name.starts_with("CALICO_IPV6POOL_")
                };
                !makes_pools && self.variables.as_ref().is_some_and(|all| all.iter().all(of_pools))
            }
            Owner::KubeProxy => everywhere(before, after, kube_proxy),
            Owner::KubeRouter => {
                let (old, new) = (&before.settings.kube_router, &after.settings.kube_router);
                let rest = |one: &KubeRouter| KubeRouter {
                    places: Vec::new(),
                    pod_egress: Values::default(),
                    ..one.clone()
                };
                let egress = |cluster: &Cluster, node: &str| {
                    let setting = cluster.settings.kube_router.pod_egress.on(node);
                    setting.is_none_or(|one| one.value)
                };
                rest(old) == rest(new) && everywhere(before, after, egress)
            }
            _ => false,
        }
    }
}

/// What kube-proxy is told on a node, as far as it is foretold what it writes by it.
fn kube_proxy(cluster: &Cluster, node: &str) -> KubeProxy {
    let of = &cluster.settings.kube_proxy;
    let value = |flag: &Values<bool>| flag.on(node).map(|one| one.value);
    let text = |text: &Values<String>| text.on(node).map(|one| one.value.clone());
    (
        text(&of.mode),
        of.cluster_cidrs.on(node).map(|one| one.value.clone()),
        value(&of.masquerade_all),
        text(&of.detect_local_mode),
        of.node_port_addresses.on(node).map(|one| one.value.clone()),
    )
}

/// Mode, ranges of pods, `masqueradeAll`, how pods are told, addresses for node ports.
type KubeProxy =
    (Option<String>, Option<Vec<IpNet>>, Option<bool>, Option<String>, Option<Vec<String>>);

/// Whether a setting changes on all nodes that were captured: one that was read from elsewhere
/// would stay.
fn everywhere<T: PartialEq>(
    before: &Cluster,
    after: &Cluster,
    setting: impl Fn(&Cluster, &str) -> T,
) -> bool {
    let mut nodes = after.nodes.iter().filter(|node| node.host.is_some());
    nodes.all(|node| setting(before, &node.name) != setting(after, &node.name))
}

/// The variables that differ; `None`: something else does too.
fn variables(old: &Value, new: &Value) -> Option<BTreeSet<String>> {
    let split = |container: &Value| {
        let mut rest = container.clone();
        let env = rest.as_object_mut().and_then(|fields| fields.remove("env"));
        (env.as_ref().and_then(Value::as_array).cloned().unwrap_or_default(), rest)
    };
    let ((old, old_rest), (new, new_rest)) = (split(old), split(new));
    if old_rest != new_rest {
        return None;
    }
    let differing = old
        .iter()
        .filter(|one| !new.contains(one))
        .chain(new.iter().filter(|one| !old.contains(one)));
    differing.map(|one| Some(one.get("name")?.as_str()?.to_owned())).collect()
}

/// k3s and rke2 hand on what their file says to programs in them, and start them anew with it.
fn of_file(before: &Cluster, after: &Cluster, deed: &FileDeed) -> Vec<Owner> {
    if !deed.path.starts_with("/etc/rancher/") {
        return Vec::new();
    }
    let (old, new) = (&before.settings, &after.settings);
    let mut readers = Vec::new();
    let listed = |cluster: &Cluster| {
        let on = cluster.settings.rancher.disable.on(&deed.node);
        on.map(|setting| setting.value.clone()).unwrap_or_default()
    };
    if listed(before) != listed(after) {
        readers.push(Owner::KlipperLb);
    }
    if ip_masq(&old.flannel) != ip_masq(&new.flannel)
        || old.rancher.flannel_ipv6_masq != new.rancher.flannel_ipv6_masq
        || old.rancher.flannel_backend != new.rancher.flannel_backend
    {
        readers.push(Owner::Flannel);
    }
    readers
}

fn ip_masq(flannel: &Flannel) -> Option<bool> {
    flannel.ip_masq.first().map(|setting| setting.value)
}

/// Whether flannel is told not to masquerade.
fn is_off(cluster: &Cluster) -> bool {
    cluster.settings.flannel.ip_masq.all().iter().any(|setting| !setting.value)
}

/// Whether a program has a rule that rewrites addresses.
fn rewrites(host: &Host, owner: Owner) -> bool {
    let tables = (0..).zip(&host.ruleset.tables);
    let mut rules = tables.flat_map(|(table, one)| {
        (0..).zip(&one.chains).flat_map(move |(chain, one)| {
            let id = move |rule| RuleId { table, chain: ChainId(chain), rule };
            (0..).zip(&one.rules).map(move |(rule, one)| (id(rule), one))
        })
    });
    rules.any(|(id, rule)| {
        let nat = rule.steps.iter().any(|step| matches!(step, Step::Do(Action::Nat(_))));
        nat && unmasq_audit::owner(host, id) == owner
    })
}

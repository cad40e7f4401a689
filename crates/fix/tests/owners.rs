//! What programs do when what they read is changed: foretold, or told that it isn't.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use unmasq_cluster::{Cluster, Overrides, read};
use unmasq_fix::deed::{Deed, FileDeed, ObjectDeed};
use unmasq_fix::{Manifests, Reactions, State};

/// A node `a` with these rules, and objects as YAML.
fn state(objects: &str, files: &[(&str, &str)]) -> State {
    let mut all: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    all.insert("capture.json".into(), br#"{"schema": "unmasq.capture/v1"}"#.to_vec());
    all.insert("kubernetes/all.yaml".into(), objects.as_bytes().to_vec());
    for (path, text) in files {
        all.insert((*path).to_owned(), text.as_bytes().to_vec());
    }
    let contents = read::capture(&all).unwrap();
    assert_eq!(contents.problems, []);
    let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
    all.retain(|path, _| path.starts_with("kubernetes/"));
    State { cluster, manifests: Manifests::new(all) }
}

fn object(resource: &str, namespace: &str, name: &str, patch: Value, back: Value) -> Deed {
    let namespace = Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty());
    let (resource, name) = (resource.to_owned(), name.to_owned());
    Deed::Object(ObjectDeed { resource, namespace, name, patch, back })
}

/// Who does something that isn't foretold, with why.
fn unforeseen(reactions: &Reactions) -> Vec<(&'static str, &str)> {
    reactions.unforeseen.iter().map(|one| (one.owner.name(), &*one.why)).collect()
}

/// The rules of a chain of table nat.
fn chain<'s>(state: &'s State, name: &str) -> Vec<&'s str> {
    let tables = &state.cluster.nodes[0].host.as_ref().unwrap().ruleset.tables;
    let table = tables.iter().find(|table| *table.name == *"nat").unwrap();
    let chain = table.chain(table.chain_by_name(name).unwrap());
    chain.rules.iter().map(|rule| &*rule.text).collect()
}

const AGENT: &str = "*nat
:POSTROUTING ACCEPT [0:0]
:IP-MASQ-AGENT - [0:0]
-A POSTROUTING -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
-A IP-MASQ-AGENT -d 169.254.0.0/16 -m comment --comment \"ip-masq-agent: local traffic is not subject to MASQUERADE\" -j RETURN
-A IP-MASQ-AGENT -d 10.9.0.0/16 -m comment --comment \"ip-masq-agent: local traffic is not subject to MASQUERADE\" -j RETURN
-A IP-MASQ-AGENT -m comment --comment \"ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)\" -j MASQUERADE --to-ports 32768-65535
COMMIT
";

fn agent(list: &str, rules: &str) -> State {
    let objects = format!(
        "kind: ConfigMap\nmetadata: {{name: ip-masq-agent, namespace: kube-system}}\n\
         data: {{config: 'nonMasqueradeCIDRs: [{list}]'}}\n"
    );
    state(&objects, &[("nodes/a/iptables-save", rules)])
}

fn listed(old: &str, new: &str) -> Deed {
    let config = |list: &str| json!({"data": {"config": format!("nonMasqueradeCIDRs: [{list}]")}});
    object("configmap", "kube-system", "ip-masq-agent", config(new), config(old))
}

#[test]
fn ip_masq_agent_writes_its_list() {
    let before = agent("10.9.0.0/16", AGENT);
    let list = "10.60.0.0/16, 10.128.0.0/20";
    let (after, reactions) = before.after(&[listed("10.9.0.0/16", list)]).unwrap();
    assert_eq!(unforeseen(&reactions), []);
    assert_eq!(reactions.done[0].nodes, ["a"]);
    let rules = chain(&after, "IP-MASQ-AGENT");
    let to: Vec<&str> =
        rules.iter().filter_map(|rule| rule.split(" -d ").nth(1)?.split(' ').next()).collect();
    assert_eq!(to, ["169.254.0.0/16", "10.60.0.0/16", "10.128.0.0/20"]);
    assert!(rules[3].ends_with("-j MASQUERADE --to-ports 32768-65535"), "{rules:?}");
    assert_eq!(rules.len(), 4);
}

#[test]
fn what_ip_masq_agent_refuses_or_has_otherwise_is_not_foretold() {
    let other = AGENT.replace("10.9.0.0/16", "10.10.0.0/16");
    let elsewhere = AGENT.replace("IP-MASQ-AGENT", "GKE-MASQ");
    for (rules, list, said) in [
        (AGENT, "fd00::/48", "--enable-ipv6"),
        (AGENT, "10.60.0.0/33", "can't be read"),
        (&other, "10.60.0.0/16", "not those of its list"),
        (&elsewhere, "10.60.0.0/16", "there is no chain IP-MASQ-AGENT"),
    ] {
        let (_, reactions) =
            agent("10.9.0.0/16", rules).after(&[listed("10.9.0.0/16", list)]).unwrap();
        let found = unforeseen(&reactions);
        assert!(
            matches!(found[..], [("ip-masq-agent", why)] if why.contains(said)),
            "{said} {found:?}"
        );
    }
}

/// A DaemonSet with one container, and a deed on it.
fn daemon_set(name: &str, container: &str, old: Value, new: Value) -> (String, Deed) {
    let with = |more: &Value| {
        let mut one = json!({"name": container});
        unmasq_fix::merge(&mut one, more);
        json!({"spec": {"template": {"spec": {"containers": [one]}}}})
    };
    let mut set = with(&old);
    let metadata = json!({"name": name, "namespace": "kube-system"});
    unmasq_fix::merge(&mut set, &json!({"kind": "DaemonSet", "metadata": metadata}));
    (set.to_string(), object("daemonset", "kube-system", name, with(&new), with(&old)))
}

const NONE: &str = "*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n";
const POOL: &str = "\n---\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.6.0.0/16}\n";

#[test]
fn a_program_that_reads_the_change_and_has_no_writer_here_is_not_foretold() {
    let env = |name: &str, value: &str| json!({"env": [{"name": name, "value": value}]});
    let calico = |name: &str| {
        let (set, deed) = daemon_set("calico-node", "calico-node", env(name, "1"), env(name, "0"));
        (set + POOL, deed)
    };
    let config_map = |name: &str, key: &str| {
        let map = json!({"kind": "ConfigMap", "metadata": {"name": name, "namespace": "kube-system"},
            "data": {key: "true", "net-conf.json": "{}"}});
        let data = |value: &str| json!({"data": {key: value}});
        (map.to_string(), object("configmap", "kube-system", name, data("false"), data("true")))
    };
    let flannel = daemon_set(
        "kube-flannel",
        "kube-flannel",
        json!({"command": ["/opt/bin/flanneld"], "args": ["--kube-subnet-mgr"]}),
        json!({"command": ["/opt/bin/flanneld"], "args": ["--kube-subnet-mgr", "--ip-masq"]}),
    );
    let router = |flag: &str| {
        let words = |value: bool| json!({"args": [format!("{flag}={value}")]});
        daemon_set("kube-router", "kube-router", words(true), words(false))
    };
    let service = {
        let policy = |one: &str| json!({"spec": {"externalTrafficPolicy": one}});
        let objects = "kind: Service\nmetadata: {name: web, namespace: shop}\n\
             spec: {type: LoadBalancer, externalTrafficPolicy: Cluster}\n---\n\
             kind: DaemonSet\nmetadata:\n  name: svclb-web-1\n  namespace: kube-system\n  labels:\n    \
             svccontroller.k3s.cattle.io/svcname: web\n    \
             svccontroller.k3s.cattle.io/svcnamespace: shop\n";
        (objects.to_owned(), object("service", "shop", "web", policy("Local"), policy("Cluster")))
    };
    for ((objects, deed), expected) in [
        (calico("CALICO_IPV4POOL_NAT_OUTGOING"), None),
        (calico("FELIX_IPTABLESBACKEND"), Some("Calico")),
        (flannel, Some("flannel")),
        (config_map("canal-config", "masquerade"), None),
        (config_map("cilium-config", "enable-ipv4-masquerade"), Some("Cilium")),
        (router("--enable-pod-egress"), None),
        (router("--run-router"), Some("kube-router")),
        (
            daemon_set(
                "aws-node",
                "aws-node",
                env("AWS_VPC_K8S_CNI_EXTERNALSNAT", "false"),
                env("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true"),
            ),
            Some("AWS VPC CNI"),
        ),
        (daemon_set("web", "web", env("X", "1"), env("X", "2")), None),
        (service, Some("klipper-lb")),
    ] {
        let before = state(&objects, &[("nodes/a/iptables-save", NONE)]);
        let (_, reactions) = before.after(std::slice::from_ref(&deed)).unwrap();
        let owners: Vec<&str> = unforeseen(&reactions).iter().map(|(owner, _)| *owner).collect();
        assert_eq!(owners, Vec::from_iter(expected), "{}", deed.subject());
    }
}

/// Whether flannel deletes its rules when it is told not to masquerade depends on its version; with
/// none left there is nothing to tell.
#[test]
fn flannel_without_masquerade_is_foretold_where_its_rules_are_gone() {
    let map = "kind: ConfigMap\nmetadata: {name: canal-config, namespace: kube-system}\n\
               data: {masquerade: 'true', net-conf.json: '{}'}\n";
    let data = |value: &str| json!({"data": {"masquerade": value}});
    let deed = object("configmap", "kube-system", "canal-config", data("false"), data("true"));
    let rules = "*nat\n:POSTROUTING ACCEPT [0:0]\n:FLANNEL-POSTRTG - [0:0]\n\
                 -A POSTROUTING -j FLANNEL-POSTRTG\n\
                 -A FLANNEL-POSTRTG -s 10.42.0.0/16 -j MASQUERADE\nCOMMIT\n";
    for (rules, expected) in [(rules, 1), (NONE, 0)] {
        let before = state(map, &[("nodes/a/iptables-save", rules)]);
        let (_, reactions) = before.after(std::slice::from_ref(&deed)).unwrap();
        assert_eq!(reactions.unforeseen.len(), expected, "{reactions:?}");
    }
}

/// A flag that the running process has counts, and the process starts again with the new one.
#[test]
fn a_process_starts_again_with_its_containers_arguments() {
    let words =
        |value: bool| json!({"args": ["--run-router", format!("--enable-pod-egress={value}")]});
    let (set, deed) = daemon_set("kube-router", "kube-router", words(true), words(false));
    let runs = |flags: &str| format!("/usr/local/bin/kube-router {flags}\n");
    for (process, expected) in [
        (runs("--run-router --enable-pod-egress=true"), None),
        // Started by somebody else.
        (runs("--enable-pod-egress=true --v=2"), Some("kube-router")),
    ] {
        let files = [("nodes/a/iptables-save", NONE), ("nodes/a/processes", &*process)];
        let (after, reactions) = state(&set, &files).after(std::slice::from_ref(&deed)).unwrap();
        let owners: Vec<&str> = unforeseen(&reactions).iter().map(|(owner, _)| *owner).collect();
        assert_eq!(owners, Vec::from_iter(expected), "{process}");
        let egress = after.cluster.settings.kube_router.pod_egress.on("a").unwrap().value;
        assert_eq!(egress, expected.is_some());
    }
}

const NODE: &str = "kind: Node\nmetadata: {name: a}\n";

#[test]
fn a_file_of_k3s_is_read_by_what_it_starts() {
    let path = "/etc/rancher/k3s/config.yaml";
    for (text, expected) in [("disable: [servicelb]\n", Some("klipper-lb")), ("token: x\n", None)] {
        let files = [("nodes/a/iptables-save", NONE), ("nodes/a/processes", "k3s server\n")];
        let deed = Deed::File(FileDeed {
            node: "a".to_owned(),
            path: path.to_owned(),
            before: None,
            after: Some(text.to_owned()),
            edit: None,
        });
        let (_, reactions) = state(NODE, &files).after(&[deed]).unwrap();
        let owners: Vec<&str> = unforeseen(&reactions).iter().map(|(owner, _)| *owner).collect();
        assert_eq!(owners, Vec::from_iter(expected), "{text}");
    }
}

/// A Service without a port has no rules, whatever its policy is.
#[test]
fn kube_proxy_writes_only_where_its_rules_are_others() {
    let policy = |one: &str| json!({"spec": {"externalTrafficPolicy": one}});
    let objects = "kind: Service\nmetadata: {name: web, namespace: shop}\n\
                   spec: {type: NodePort, externalTrafficPolicy: Cluster}\n";
    let rules = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
                 -A PREROUTING -j KUBE-SERVICES\n\
                 -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n";
    let before = state(objects, &[("nodes/a/iptables-save", rules)]);
    let deed = object("service", "shop", "web", policy("Local"), policy("Cluster"));
    let (after, reactions) = before.after(&[deed]).unwrap();
    assert_ne!(after.cluster.objects.services, before.cluster.objects.services);
    assert_eq!((reactions.done, reactions.unforeseen), (vec![], vec![]));
}

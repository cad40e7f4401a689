//! Small clusters, and what a person should read of a finding in them: by hand from what each
//! program's documentation says of its settings.

mod answers;
mod programs;
#[path = "../../../tests/shells/mod.rs"]
mod shells;

use std::collections::{BTreeMap, BTreeSet};

use unmasq_cluster::kubernetes::{Lookup, Objects};
use unmasq_cluster::paths::{Call, Caller, Paths};
use unmasq_cluster::{Cluster, Overrides, read};
use unmasq_eval::trace::Options;
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::Rule;
use unmasq_model::ruleset::Backend;

use super::*;
use crate::Severity;
use crate::matrix::{self, Fate, Matrix, Policy, Row, Why, Witness};
use crate::{Undo, change};

/// A capture's files: the objects as YAML, and others by path.
fn cluster(objects: &str, files: &[(&str, &str)]) -> Cluster {
    let mut all: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    all.insert("capture.json".into(), br#"{"schema": "unmasq.capture/v1"}"#.to_vec());
    all.insert("kubernetes/all.yaml".into(), objects.as_bytes().to_vec());
    for (path, text) in files {
        all.insert((*path).to_owned(), text.as_bytes().to_vec());
    }
    let contents = read::capture(&all).unwrap();
    assert_eq!(contents.problems, []);
    Cluster::new(contents.nodes, contents.objects, Overrides::default())
}

/// A finding of these rows, without walking any packet. What has to hold of every description is
/// looked at here.
fn of(
    cluster: &Cluster,
    suspect: (FindingId, Owner, &str),
    subject: &str,
    rows: Vec<Row>,
) -> Described {
    let hostile = shells::named_hostile(&cluster.nodes, &cluster.objects);
    let renamed = renamed(subject, &hostile.objects);
    let of_hostile = described(&hostile, suspect, &renamed, rows.clone());
    all_commands(&of_hostile).iter().for_each(|one| shells::check(one));
    let described = described(cluster, suspect, subject, rows);
    assert!(described.title.chars().count() <= TITLE, "{}", described.title);
    for action in actions(&described) {
        if let Action::Patch { patch, .. } = action {
            assert!(serde_json::from_str::<serde_json::Value>(patch).is_ok(), "{patch}");
        }
    }
    described
}

/// `namespace/name` or a name that the cluster has no more, as it has it now.
fn renamed(subject: &str, objects: &Objects) -> String {
    let names: BTreeSet<&String> = [
        objects.services.iter().map(|one| &one.metadata).collect::<Vec<_>>(),
        objects.ip_pools.iter().map(|one| &one.metadata).collect(),
    ]
    .into_iter()
    .flatten()
    .flat_map(|one| [&one.name, &one.namespace])
    .collect();
    let part = |part: &str| match names.contains(&shells::hostile(part)) {
        true => shells::hostile(part),
        false => part.to_owned(),
    };
    subject.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn described(
    cluster: &Cluster,
    (id, owner, rule): (FindingId, Owner, &str),
    subject: &str,
    rows: Vec<Row>,
) -> Described {
    let paths = Paths::new(cluster, Options::default());
    let families: BTreeSet<Family> = rows.iter().map(|row| row.cell.family).collect();
    let families = if families.is_empty() { BTreeSet::from([Family::V4]) } else { families };
    let suspect =
        Suspect { id, cause: matrix::Cause { owner, rule: rule.to_owned(), why: Why::ItsTests } };
    let group = Group {
        rows: (0..rows.len()).collect(),
        services: rows.iter().flat_map(|row| row.services.clone()).collect(),
        ..Group::without_rows(suspect, Severity::Info, families)
    };
    let matrix = Matrix { rows, ..Matrix::default() };
    let expectations = crate::expect::Expectations::default();
    let clients = matrix::Clients::default();
    let asker = &matrix::Asker::new(&paths, &clients);
    let expectations = &expectations;
    let lookup = &Lookup::new(&cluster.objects);
    let judge = &crate::expect::Judge::new(expectations, cluster);
    let context =
        Context { cluster, lookup, paths: &paths, matrix: &matrix, expectations, judge, asker };
    describe(&context, subject, &group)
}

/// Everything that somebody types: of steps, of what undoes them, and of what is looked at before.
fn all_commands(described: &Described) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |action: &Action| match action {
        Action::Rules { changes, .. } => all.extend(change::commands(changes).unwrap()),
        Action::Tables { changes, .. } => all.extend(change::table_commands(changes).unwrap()),
        Action::ByHand { instructions, undo } => {
            all.extend(instructions.iter().chain(undo).filter_map(typed));
        }
        Action::Patch { .. }
        | Action::Environment { .. }
        | Action::Argument { .. }
        | Action::File { .. }
        | Action::Restart { .. } => {}
    };
    for remedy in &described.remedies {
        remedy.steps.iter().for_each(|step| add(&step.action));
        for undo in remedy.undo() {
            match undo {
                Undo::Action(action) => add(&action),
                Undo::ByHand(instruction) => {
                    add(&Action::ByHand { instructions: vec![instruction], undo: Vec::new() });
                }
            }
        }
    }
    let requires = described.remedies.iter().flat_map(|remedy| &remedy.requires);
    all.extend(requires.flat_map(|one| &one.check).filter_map(typed));
    all
}

fn typed(instruction: &Instruction) -> Option<String> {
    match instruction {
        Instruction::Command(text) => Some(text.clone()),
        Instruction::Sentence(_) | Instruction::Literal(_) => None,
    }
}

pub(in crate::findings) fn row(
    entry: Entry,
    client: Client,
    family: Family,
    services: &[u32],
) -> Row {
    let address = "192.0.2.1".parse().unwrap();
    Row {
        cell: Cell {
            entry,
            policy: Some(Policy::Cluster),
            client,
            placement: Placement::Here,
            family,
            protocol: Protocol::TCP,
            fate: Fate::Preserved,
            hops: 0,
            destination: None,
        },
        count: 1,
        services: services.to_vec(),
        ports: services.iter().map(|index| (*index, 0)).collect(),
        witness: Witness {
            call: Call {
                from: Caller::Outside { node: 0, address },
                source_port: None,
                to: address,
                port: None,
                protocol: Protocol::TCP,
            },
            way: 0,
            service: None,
            rewriters: Vec::new(),
            seen: None,
            reached: None,
        },
    }
}

fn actions(described: &Described) -> Vec<&Action> {
    described.remedies.iter().flat_map(|one| &one.steps).map(|step| &step.action).collect()
}

/// Everything that a remedy has somebody type, a line each.
fn commands(described: &Described) -> String {
    let mut all = String::new();
    for action in actions(described) {
        match action {
            Action::Rules { node, changes } => {
                let commands = change::commands(changes).unwrap();
                commands.iter().for_each(|one| all.push_str(&format!("{node}: {one}\n")));
            }
            Action::Tables { node, changes } => {
                let commands = change::table_commands(changes).unwrap();
                commands.iter().for_each(|one| all.push_str(&format!("{node}: {one}\n")));
            }
            Action::ByHand { instructions, .. } => {
                instructions.iter().for_each(|one| all.push_str(&format!("{}\n", said(one))));
            }
            Action::Patch { .. }
            | Action::Environment { .. }
            | Action::Argument { .. }
            | Action::File { .. }
            | Action::Restart { .. } => {}
        }
    }
    all
}

fn said(instruction: &Instruction) -> &str {
    match instruction {
        Instruction::Command(text) | Instruction::Sentence(text) | Instruction::Literal(text) => {
            text
        }
    }
}

/// How a remedy is undone by a person, and by which patches.
fn undone_by(remedy: &Remedy) -> Vec<String> {
    let one = |undo: Undo| match undo {
        Undo::Action(Action::Patch { patch, .. }) => patch,
        Undo::Action(other) => format!("{other:?}"),
        Undo::ByHand(instruction) => said(&instruction).to_owned(),
    };
    remedy.undo().into_iter().map(one).collect()
}

fn of_workload(name: &str, container: &str) -> Workload {
    Workload {
        kind: WorkloadKind::DaemonSet,
        namespace: "kube-system".to_owned(),
        name: name.to_owned(),
        container: Some(container.to_owned()),
    }
}

fn known(described: &Described) -> (Confidence, Option<&str>, Option<&str>) {
    let cause = &described.cause;
    (described.confidence, cause.setting.as_deref(), cause.place.as_deref())
}

const CANAL: &str = r#"
kind: Node
metadata: {name: n1, labels: {rke.cattle.io/machine: x}}
spec: {podCIDRs: [10.42.1.0/24]}
status: {addresses: [{type: InternalIP, address: 10.0.0.11}]}
---
kind: ConfigMap
metadata: {name: canal-config, namespace: kube-system}
data: {net-conf.json: '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}}'}
---
kind: DaemonSet
metadata: {name: canal, namespace: kube-system}
spec: {template: {spec: {containers: [
  {name: calico-node, env: [{name: CALICO_NETWORKING_BACKEND, value: none}]},
  {name: kube-flannel, command: [/opt/bin/flanneld, --ip-masq]}]}}}
---
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 192.168.0.0/16, natOutgoing: true}
---
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: n1}
status: {podIP: 10.42.1.5}
"#;
const CALICO_RULES: &str = "*nat\n:POSTROUTING ACCEPT [0:0]\n:cali-nat-outgoing - [0:0]\n\
    -A POSTROUTING -j cali-nat-outgoing\n\
    -A cali-nat-outgoing -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE\n\
    COMMIT\n";
const CALICO: (FindingId, Owner, &str) =
    (FindingId::CalicoUnusedPool, Owner::Calico, "cali-nat-outgoing");

#[test]
fn a_pool_that_no_pod_uses() {
    let cluster = cluster(CANAL, &[("nodes/n1/iptables-save", CALICO_RULES)]);
    let found = of(&cluster, CALICO, "default-ipv4-ippool", Vec::new());
    assert_eq!(
        found.title,
        "Calico pool default-ipv4-ippool (192.168.0.0/16) gives no pod an address but masquerades clients"
    );
    let place = "IPPool default-ipv4-ippool, spec.natOutgoing";
    assert_eq!(known(&found), (Confidence::Certain, Some("natOutgoing: true"), Some(place)));
    let all = actions(&found);
    let [
        patched,
        Action::ByHand { .. },
        environment,
        Action::ByHand { instructions: watched, .. },
        Action::ByHand { instructions: installer, .. },
        Action::Tables { node, changes },
    ] = all[..]
    else {
        panic!("{all:?}");
    };
    let pool = "ippools.crd.projectcalico.org";
    let (off, on) =
        (r#"{"spec":{"natOutgoing":false}}"#, r#"{"spec":{"natOutgoing":true}}"#.to_owned());
    assert_eq!(*patched, patch(pool, None, "default-ipv4-ippool", off, on.clone()));
    let expected = Action::Environment {
        workload: of_workload("canal", "calico-node"),
        name: "CALICO_IPV4POOL_NAT_OUTGOING".to_owned(),
        value: Some("0".to_owned()),
        old: None,
    };
    assert_eq!((environment, installer.len()), (&expected, 1));
    // The change of the variable restarts a network plugin's pods, and says so.
    let [Instruction::Command(watch)] = &watched[..] else { panic!("{watched:?}") };
    assert_eq!(watch, "kubectl rollout status daemonset/canal -n kube-system");
    let rollout = &found.remedies[0].steps[3].text;
    assert!(
        rollout.contains("one node after the other") && rollout.contains("new pods"),
        "{rollout}"
    );
    let pin = "nft -f - <<'EOF'\ncreate table ip unmasq\ntable ip unmasq {\n\tchain pin {\n\
        \t\ttype nat hook postrouting priority 99; policy accept;\n\
        \t\tip saddr 192.168.0.0/16 ip daddr 10.42.0.0/16 \
        meta mark & 0x00004000 == 0x00000000 snat to ip saddr\n\t}\n}\nEOF";
    assert_eq!((&**node, change::table_commands(changes).unwrap()), ("n1", vec![pin.to_owned()]));
    assert_eq!(undone_by(&found.remedies[0]).last(), Some(&on));
    assert_eq!(found.remedies[0].requires[0].holds, Some(true));
    let [Undo::Action(Action::Tables { changes, .. })] = &found.remedies[1].undo()[..] else {
        panic!()
    };
    assert_eq!(change::table_commands(changes).unwrap(), ["nft delete table ip unmasq"]);
    assert!(found.remedies[0].lasting && !found.remedies[1].lasting);
}

#[test]
fn a_pool_with_pods_and_clients() {
    let objects = CANAL.replace("podIP: 10.42.1.5", "podIP: 192.168.3.5");
    let found = of(&cluster(&objects, &[]), CALICO, "default-ipv4-ippool", Vec::new());
    assert_eq!(
        found.title,
        "Calico pool default-ipv4-ippool (192.168.0.0/16) has 1 pod, and masquerades clients outside in it"
    );
    // Switching it off or pinning it would take their way out from the pods.
    assert!(actions(&found).iter().all(|action| matches!(action, Action::ByHand { .. })));
}

#[test]
fn pods_that_leave_calicos_pools_for_nodes() {
    let cluster = cluster(CANAL, &[("nodes/n1/iptables-save", CALICO_RULES)]);
    let suspect = (FindingId::CalicoPoolMasquerade, Owner::Calico, "cali-nat-outgoing");
    let rows = vec![row(Entry::Node, Client::Pod, Family::V4, &[])];
    let found = of(&cluster, suspect, "default-ipv4-ippool", rows);
    let exclude = r#"{"spec":{"natOutgoingExclusions":"IPPoolsAndHostIPs"}}"#;
    let felix = "felixconfigurations.crd.projectcalico.org";
    let undo = r#"{"spec":{"natOutgoingExclusions":null}}"#.to_owned();
    assert_eq!(*actions(&found)[0], patch(felix, None, "default", exclude, undo));
    assert!(commands(&found).contains("  cidr: 10.0.0.11/32\n"), "{}", commands(&found));
    // On the way to a node's own port, other rules need what masquerades.
    assert!(found.remedies.iter().all(|remedy| remedy.lasting));
}

const HOSTS: &str = "
kind: Node
metadata: {name: a}
spec: {podCIDRs: [172.7.21.0/24]}
---
kind: Node
metadata: {name: b}
spec: {podCIDRs: [172.7.22.0/24]}
";
/// What tells whose a listing is.
const NFT: &str =
    "# Generated by iptables-nft-save v1.8.9 (nf_tables) on Tue Nov 24 16:39:02 2026\n";
const DOCKER: &str = "*nat\n:POSTROUTING ACCEPT [0:0]\n\
    -A POSTROUTING -s 172.7.21.0/24 ! -o docker0 -j MASQUERADE\nCOMMIT\n";
const ENGINE: (FindingId, Owner, &str) = (
    FindingId::HostMasquerade,
    Owner::ContainerEngine,
    "nat POSTROUTING: -s <node's pods> ! -o docker0 -j MASQUERADE",
);

#[test]
fn a_hosts_rule_without_the_cluster_as_exception() {
    let flannel = "FLANNEL_NETWORK=172.7.0.0/16\nFLANNEL_SUBNET=172.7.21.1/24\n";
    let other = format!("{NFT}{}", DOCKER.replace("172.7.21.0", "172.7.22.0"));
    let files = [
        ("nodes/a/iptables-legacy-save", DOCKER),
        ("nodes/a/files/run/flannel/subnet.env", flannel),
        ("nodes/a/files/etc/sysconfig/iptables", DOCKER),
        ("nodes/a/files/etc/docker/daemon.json", "{\"ip-masq\": true}"),
        ("nodes/b/iptables-save", &other),
    ];
    let found = of(&cluster(HOSTS, &files), ENGINE, "", Vec::new());
    assert_eq!(
        found.title,
        "A rule on 2 nodes masquerades pods on their way to pods of other hosts"
    );
    let place = "node a, /etc/docker/daemon.json:1: ip-masq";
    assert_eq!(known(&found), (Confidence::Likely, Some("ip-masq: true"), Some(place)));
    let lasting = &found.remedies[0];
    let all: Vec<&Action> = lasting.steps.iter().map(|step| &step.action).collect();
    // One rule, at its place, is another one: its words and its tests.
    let rules = |node: &str, backend: Backend, pods: &str| {
        let old = format!("-A POSTROUTING -s {pods} ! -o docker0 -j MASQUERADE");
        let new = format!("-A POSTROUTING -s {pods} ! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE");
        (node.to_owned(), backend, 0, old, new)
    };
    let changed = |action: &Action| match action {
        Action::Rules { node, changes } => {
            let [one] = &changes[..] else { panic!("{changes:?}") };
            let text = |rule: &Option<Rule>| rule.as_ref().unwrap().text.to_string();
            (node.clone(), one.backend, one.position, text(&one.old), text(&one.new))
        }
        other => panic!("{other:?}"),
    };
    let file = |path: &str, edit: Edit| Action::File {
        nodes: vec!["a".to_owned()],
        path: path.to_owned(),
        edit,
    };
    assert_eq!(changed(all[0]), rules("a", Backend::Legacy, "172.7.21.0/24"));
    let new = "-A POSTROUTING -s 172.7.21.0/24 ! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE";
    let old = "-A POSTROUTING -s 172.7.21.0/24 ! -o docker0 -j MASQUERADE";
    let line = Edit::Line { old: old.to_owned(), new: new.to_owned() };
    assert_eq!(*all[1], file("/etc/sysconfig/iptables", line));
    let switch = Edit::Value {
        syntax: Syntax::Json,
        pointer: "/ip-masq".to_owned(),
        old: Some("true".to_owned()),
        new: Some("false".to_owned()),
    };
    assert_eq!(*all[2], file("/etc/docker/daemon.json", switch));
    // Docker is restarted, and then it is b's turn.
    assert_eq!(changed(all[4]), rules("b", Backend::IptablesNft, "172.7.22.0/24"));
    // It is undone by the opposite of each.
    let undo = lasting.undo();
    let [.., Undo::Action(Action::Rules { node, changes }), Undo::Action(Action::Restart { .. })] =
        &undo[..]
    else {
        panic!("{undo:?}")
    };
    let back = "iptables-legacy-restore --noflush --counters <<'EOF'\n*nat\n\
         -D POSTROUTING -s 172.7.21.0/24 ! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE\n\
         -I POSTROUTING 1 -s 172.7.21.0/24 ! -o docker0 -j MASQUERADE\nCOMMIT\nEOF";
    assert_eq!((&**node, change::commands(changes).unwrap()), ("a", vec![back.to_owned()]));
    // b's file isn't known: what lists its own back end, and nobody else's.
    let all = commands(&found);
    assert!(all.contains("iptables-nft-save -t nat | grep -e '^-A POSTROUTING '"), "{all}");
    let pin = "ip saddr 172.7.0.0/16 ip daddr 172.7.0.0/16 meta mark & 0x00004000 == 0x00000000 snat to ip saddr";
    assert!(commands(&found).contains(pin));
}

#[test]
fn a_hosts_rule_where_the_cluster_is_not_known() {
    let cluster = cluster(HOSTS, &[("nodes/a/iptables-legacy-save", DOCKER)]);
    let found = of(&cluster, ENGINE, "", Vec::new());
    let [range, ..] = &found.remedies[0].requires[..] else { panic!() };
    assert_eq!(range.holds, None);
    assert!(said(range.check.as_ref().unwrap()).contains("--cluster-cidr"));
    // No command is made up.
    assert!(!commands(&found).contains("-D POSTROUTING"), "{}", commands(&found));
    assert_eq!(found.title, "A rule on a masquerades pods on their way to pods of other hosts");
}

#[test]
fn rules_of_an_older_flannel() {
    let rules = "# Generated by iptables-nft-save v1.8.9 (nf_tables)\n*nat\n:POSTROUTING ACCEPT [0:0]\n\
        -A POSTROUTING -s 172.7.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE\n\
        -A POSTROUTING ! -s 172.7.0.0/16 -d 172.7.0.0/16 -j MASQUERADE\nCOMMIT\n";
    let suspect = (
        FindingId::StaleFlannelRules,
        Owner::Flannel,
        "nat POSTROUTING: ! -s 172.7.0.0/16 -d 172.7.0.0/16 -j MASQUERADE",
    );
    let files = [("nodes/a/iptables-save", rules), ("nodes/a/processes", "/usr/bin/kubelet\n")];
    let cluster = cluster(HOSTS, &files);
    let rows = vec![row(Entry::NodePort, Client::Outside(Outside::Anybody), Family::V4, &[])];
    let found = of(&cluster, suspect, "", rows);
    assert_eq!(found.title, "Rules of an older flannel on a masquerade what flannel leaves alone");
    let all = commands(&found);
    for line in [
        "a: iptables-nft-restore --noflush --counters <<'EOF'\n*nat\n",
        "\n-D POSTROUTING -s 172.7.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE\n",
        "\n-D POSTROUTING ! -s 172.7.0.0/16 -d 172.7.0.0/16 -j MASQUERADE\n",
        "kubectl drain --ignore-daemonsets a && ssh a reboot",
        "fib saddr type != local ip daddr { 172.7.21.0/24, 172.7.22.0/24 } meta mark & 0x00004000 == 0x00000000 snat to ip saddr",
    ] {
        assert!(all.contains(line), "{line}\n{all}");
    }
}

#[test]
fn kube_router_in_each_family() {
    let objects = "kind: Node\nmetadata: {name: a}\nspec: {podCIDRs: [10.42.0.0/24, \"2001:db8:42::/64\"]}\n---\n\
        kind: DaemonSet\nmetadata: {name: kube-router, namespace: kube-system}\n\
        spec: {template: {spec: {containers: [{name: kube-router, args: [--run-router=true, --enable-pod-egress=true]}]}}}";
    let rules = "*nat\n:POSTROUTING ACCEPT [0:0]\n\
        -A POSTROUTING -m set --match-set inet6:kube-router-pod-subnets src -j MASQUERADE\nCOMMIT\n";
    let cluster = cluster(objects, &[("nodes/a/ip6tables-save", rules)]);
    let described = |family, rule| {
        let suspect = (FindingId::KubeRouterPodEgress, Owner::KubeRouter, rule);
        of(&cluster, suspect, "", vec![row(Entry::Outside, Client::Pod, family, &[])])
    };
    let v4 = described(Family::V4, "nat POSTROUTING: kube-router-pod-subnets");
    let place = "DaemonSet kube-system/kube-router, container kube-router: --enable-pod-egress";
    let expected = (Confidence::Certain, Some("--enable-pod-egress=true"), Some(place));
    assert_eq!(known(&v4), expected);
    let off = Action::Argument {
        program: Program::Workload(of_workload("kube-router", "kube-router")),
        argument: Some("--enable-pod-egress=false".to_owned()),
        old: Some("--enable-pod-egress=true".to_owned()),
    };
    // The gateway comes first.
    assert!(v4.remedies[0].steps[0].text.contains("Hybrid"));
    assert_eq!(*actions(&v4)[1], off);
    let rollout = &v4.remedies[0].steps[2].text;
    assert!(rollout.contains("--bgp-graceful-restart"), "{rollout}");
    let gateway = |found: &Described| {
        let mut all = found.remedies[0].requires.iter();
        all.any(|one| one.text.contains("masquerades the pods' range itself"))
    };
    assert!(gateway(&v4));
    // The flag is for both families; a pin is for one.
    assert_eq!(v4.remedies.len(), 1);
    let v6 = described(Family::V6, "nat POSTROUTING: inet6:kube-router-pod-subnets");
    assert!(!gateway(&v6));
    assert!(commands(&v6).contains(
        "ip6 saddr 2001:db8:42::/64 ip6 daddr != 2001:db8:42::/64 meta mark & 0x00004000 == 0x00000000 snat to ip6 saddr"
    ));
}

/// Services `s0`, `s1`, … of type LoadBalancer with pods on three nodes.
fn services(number: usize, pods: &[(&str, usize)]) -> String {
    let mut text = String::new();
    for node in ["a", "b", "c", "d"] {
        text.push_str(&format!("---\nkind: Node\nmetadata: {{name: {node}}}\n"));
    }
    for service in 0..number {
        text.push_str(&format!(
            "---\nkind: Service\nmetadata: {{name: s{service}, namespace: shop}}\n\
             spec: {{type: LoadBalancer, selector: {{app: web}}, ports: [{{port: 80}}]}}\n---\n\
             kind: EndpointSlice\nmetadata: {{name: s{service}-x, namespace: shop, \
             labels: {{kubernetes.io/service-name: s{service}}}}}\naddressType: IPv4\nendpoints:\n"
        ));
        let mut last = 0;
        for (node, count) in pods {
            for _ in 0..*count {
                last += 1;
                text.push_str(&format!("- {{addresses: [10.1.0.{last}], nodeName: {node}}}\n"));
            }
        }
    }
    text.push_str(
        "---\nkind: Deployment\nmetadata: {name: shop-web, namespace: shop}\n\
         spec: {template: {metadata: {labels: {app: web}}}}\n",
    );
    text
}

const POLICY: (FindingId, Owner, &str) =
    (FindingId::ExternalTrafficPolicyCluster, Owner::KubeProxy, "KUBE-POSTROUTING");

#[test]
fn a_service_of_uneven_pods() {
    let cluster = cluster(&services(1, &[("a", 1), ("b", 1), ("c", 8)]), &[]);
    let rows = vec![row(Entry::NodePort, Client::Outside(Outside::Anybody), Family::V4, &[0])];
    let found = of(&cluster, POLICY, "", rows);
    assert_eq!(found.title, "Service shop/s0 hides its clients: externalTrafficPolicy is Cluster");
    let place = "Service shop/s0, spec.externalTrafficPolicy";
    let setting = "externalTrafficPolicy: Cluster";
    assert_eq!(known(&found), (Confidence::Certain, Some(setting), Some(place)));
    let all = actions(&found);
    let Action::Patch { resource, name, patch: affinity, undo, .. } = all[0] else {
        panic!("{all:?}")
    };
    assert_eq!(*undo, None);
    assert_eq!((&**resource, &**name), ("deployment", "shop-web"));
    let affinity: serde_json::Value = serde_json::from_str(affinity).unwrap();
    let preferred = affinity
        .pointer("/spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0")
        .unwrap();
    let expected = serde_json::json!({"weight": 100, "podAffinityTerm": {
        "labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}});
    assert_eq!(*preferred, expected);
    let local = r#"{"spec":{"externalTrafficPolicy":"Local"}}"#;
    const CLUSTER: &str = r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#;
    assert_eq!(*all[1], patch("service", Some("shop"), "s0", local, CLUSTER.to_owned()));
    let requires: Vec<_> =
        found.remedies[0].requires.iter().map(|one| (one.text.as_str(), one.holds)).collect();
    let drop = "nodes without a ready pod drop what they get: shop/s0 on d";
    let uneven = "shop/s0 spreads evenly: 1 on a, 1 on b, 8 on c: the hottest pod would get 3.3 times \
                  the average of connections, 8 times as many as the coolest";
    assert!(requires.contains(&(drop, Some(false))), "{requires:?}");
    assert!(requires.contains(&(uneven, Some(false))), "{requires:?}");
    // It is needed as long as the policy is what it is: no pin.
    assert!(found.remedies.len() == 3 && found.remedies.iter().all(|remedy| remedy.lasting));
}

#[test]
fn many_services_get_a_loop() {
    let cluster = cluster(&services(6, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]), &[]);
    let services = [0, 1, 2, 3, 4, 5];
    let rows = vec![row(Entry::NodePort, Client::Outside(Outside::Anybody), Family::V4, &services)];
    let found = of(&cluster, POLICY, "", rows);
    assert_eq!(found.title, "6 Services hide their clients: externalTrafficPolicy is Cluster");
    let expected = "for service in shop/s0 shop/s1 shop/s2 shop/s3 shop/s4 shop/s5; do kubectl -n \
        \"${service%/*}\" patch \"service/${service#*/}\" --type=merge -p \
        '{\"spec\":{\"externalTrafficPolicy\":\"Local\"}}'; done\n";
    assert!(commands(&found).starts_with(expected), "{}", commands(&found));
    assert_eq!(found.remedies[0].requires[1].holds, Some(true));
}

#[test]
fn a_cluster_ip_may_not_be_local() {
    let objects = services(1, &[("a", 1)]).replace("type: LoadBalancer", "type: ClusterIP");
    let rows = || vec![row(Entry::ExternalIp, Client::Outside(Outside::Anybody), Family::V4, &[0])];
    let local = |objects: &str| {
        let found = of(&cluster(objects, &[]), POLICY, "", rows());
        found.remedies.iter().any(|one| one.title.contains("Local"))
    };
    assert!(!local(&objects));
    assert!(local(&objects.replace("type: ClusterIP", "externalIPs: [198.51.100.7]")));
}

const KUBE_PROXY: &str = r#"
kind: Node
metadata: {name: a}
spec: {podCIDRs: [10.42.1.0/24]}
---
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data:
  config.conf: |
    kind: KubeProxyConfiguration
    clusterCIDR: 10.42.0.0/24
    iptables: {masqueradeAll: true}
---
kind: ConfigMap
metadata: {name: kubeadm-config, namespace: kube-system}
data: {ClusterConfiguration: "networking: {podSubnet: 10.42.0.0/16}"}
"#;

#[test]
fn kube_proxy_is_told_the_pods_range() {
    let suspect = (FindingId::ClusterCidrMismatch, Owner::KubeProxy, "KUBE-POSTROUTING");
    let found = of(&cluster(KUBE_PROXY, &[]), suspect, "", Vec::new());
    assert_eq!(
        found.title,
        "kube-proxy takes pods in 10.42.0.0/16 for strangers: its clusterCIDR is 10.42.0.0/24"
    );
    let place = "ConfigMap kube-system/kube-proxy, config.conf: clusterCIDR";
    let setting = Some("clusterCIDR: 10.42.0.0/24");
    assert_eq!(known(&found), (Confidence::Certain, setting, Some(place)));
    let edit = "kubectl -n kube-system get configmap/kube-proxy -o yaml | sed \
                's#^\\( *clusterCIDR:\\).*#\\1 10.42.0.0/16#'";
    let expected = format!(
        "{edit} | kubectl diff -f -\n{edit} | kubectl apply -f -\n\
         kubectl rollout status daemonset/kube-proxy -n kube-system\n\
         kubectl -n kube-system edit configmap kubeadm-config\n"
    );
    assert_eq!(commands(&found), expected);
    assert!(found.remedies.iter().all(|remedy| remedy.lasting));
    // What was changed is undone first, and then read again.
    let back = edit.replace("10.42.0.0/16", "10.42.0.0/24") + " | kubectl apply -f -";
    let undo = found.remedies[0].undo();
    let [_, Undo::ByHand(edited), Undo::Action(Action::Restart { program })] = &undo[..] else {
        panic!("{undo:?}")
    };
    assert_eq!(said(edited), back);
    let Program::Workload(proxy) = program else { panic!("{program:?}") };
    assert_eq!(proxy.to_string(), "daemonset/kube-proxy");
}

#[test]
fn masquerade_all_where_it_stands() {
    let suspect = (FindingId::MasqueradeAll, Owner::KubeProxy, "KUBE-POSTROUTING");
    let found = of(
        &cluster(
            "kind: Node\nmetadata: {name: a}",
            &[
                ("nodes/a/iptables-save", ""),
                ("nodes/a/processes", "/usr/bin/kube-proxy --masquerade-all\n"),
            ],
        ),
        suspect,
        "",
        Vec::new(),
    );
    let place = "node a, kube-proxy --masquerade-all";
    assert_eq!(known(&found), (Confidence::Certain, Some("masqueradeAll: true"), Some(place)));
    let expected = Action::Argument {
        program: Program::OfNode { node: Some("a".to_owned()), name: "kube-proxy".to_owned() },
        argument: Some("--masquerade-all=false".to_owned()),
        old: Some("--masquerade-all".to_owned()),
    };
    assert_eq!(*actions(&found)[0], expected);
}

#[test]
fn the_list_of_ip_masq_agent() {
    let objects = r#"
kind: Node
metadata: {name: a}
spec: {podCIDRs: [10.42.1.0/24]}
status: {addresses: [{type: InternalIP, address: 10.0.0.11}]}
---
kind: ConfigMap
metadata: {name: kubeadm-config, namespace: kube-system}
data: {ClusterConfiguration: "networking: {podSubnet: 10.42.0.0/16}"}
---
kind: ConfigMap
metadata: {name: ip-masq-agent, namespace: kube-system}
data: {config: "nonMasqueradeCIDRs: []\nresyncInterval: 30s\n"}
"#;
    let suspect = (FindingId::IpMasqAgentList, Owner::IpMasqAgent, "IP-MASQ-AGENT");
    let found = of(&cluster(objects, &[]), suspect, "", Vec::new());
    assert_eq!(found.title, "The list of ip-masq-agent is empty: it masquerades everything");
    let Action::Patch { namespace, name, patch, undo: Some(undo), .. } = actions(&found)[0] else {
        panic!()
    };
    let before =
        serde_json::json!({"data": {"config": "nonMasqueradeCIDRs: []\nresyncInterval: 30s\n"}});
    assert_eq!(serde_json::from_str::<serde_json::Value>(undo).unwrap(), before);
    assert_eq!((namespace.as_deref(), &**name), (Some("kube-system"), "ip-masq-agent"));
    let patch: serde_json::Value = serde_json::from_str(patch).unwrap();
    let expected = "nonMasqueradeCIDRs:\n- 10.0.0.11/32\n- 10.42.0.0/16\nresyncInterval: 30s\n";
    assert_eq!(patch, serde_json::json!({"data": {"config": expected}}));
}

#[test]
fn the_load_balancer_of_k3s() {
    let config = "disable:\n  - traefik\n";
    let files = [
        ("nodes/a/iptables-save", ""),
        ("nodes/a/processes", "/usr/local/bin/k3s server\n"),
        ("nodes/a/files/etc/rancher/k3s/config.yaml", config),
        ("nodes/b/iptables-save", ""),
        ("nodes/b/processes", "/usr/local/bin/k3s agent\n"),
    ];
    let suspect = (FindingId::KlipperLb, Owner::KlipperLb, "x (in a pod)");
    let rows = vec![row(Entry::LoadBalancer, Client::Outside(Outside::Anybody), Family::V4, &[0])];
    let found = of(&cluster(&services(1, &[("a", 1)]), &files), suspect, "", rows);
    assert_eq!(found.title, "The load balancer of k3s hides the clients of Service shop/s0");
    let expected = Action::File {
        nodes: vec!["a".to_owned()],
        path: "/etc/rancher/k3s/config.yaml".to_owned(),
        edit: Edit::Value {
            syntax: Syntax::Yaml,
            pointer: "/disable".to_owned(),
            old: Some(r#"["traefik"]"#.to_owned()),
            new: Some(r#"["traefik","servicelb"]"#.to_owned()),
        },
    };
    let all = actions(&found);
    let files: Vec<_> = all.iter().filter(|one| matches!(one, Action::File { .. })).collect();
    assert_eq!(files, [&&expected]);
}

#[test]
fn a_rule_that_nobody_claims_and_the_file_that_has_it() {
    let rules = "# Generated by iptables-nft-save v1.8.9 (nf_tables)\n*nat\n:POSTROUTING ACCEPT [0:0]\n\
        -A POSTROUTING ! -d 10.141.0.0/16 -m addrtype ! --dst-type LOCAL -j MASQUERADE\nCOMMIT\n";
    let name = "nat POSTROUTING: ! -d 10.141.0.0/16 -m addrtype ! --dst-type LOCAL -j MASQUERADE";
    let suspect = (FindingId::StrayMasquerade, Owner::Unclaimed, name);
    let rows = || vec![row(Entry::NodePort, Client::Outside(Outside::Anybody), Family::V4, &[])];
    let mut files = vec![("nodes/a/iptables-save", rules)];
    let found = of(&cluster(HOSTS, &files), suspect, name, rows());
    assert_eq!(
        found.title,
        "A rule on a that no known program claims rewrites the source of clients outside on their way to pods"
    );
    let command = "a: iptables-nft-restore --noflush --counters <<'EOF'\n*nat\n-D POSTROUTING ! -d 10.141.0.0/16 -m addrtype ! --dst-type LOCAL -j MASQUERADE";
    assert!(commands(&found).contains(command), "{}", commands(&found));
    assert!(commands(&found).contains("grep -rnI -e MASQUERADE"));
    files.push(("nodes/a/files/etc/iptables/rules.v4", rules));
    let found = of(&cluster(HOSTS, &files), suspect, name, rows());
    let place = "node a, /etc/iptables/rules.v4:4";
    assert_eq!(found.cause.place.as_deref(), Some(place));
    assert_eq!(found.confidence, Confidence::Likely);
    assert!(!commands(&found).contains("grep -rnI"));
}

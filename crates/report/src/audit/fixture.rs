//! A cluster of three nodes and five Services, and an audit of it, written by hand.

use std::collections::BTreeMap;
use std::net::IpAddr;

use unmasq_audit::change::RuleChange;
use unmasq_audit::matrix::{
    Cause as Rewriter, Cell, Client, Entry, Fate, Matrix, Outside, Placement, Policy, Refusal, Row,
    Why, Witness,
};
use unmasq_audit::{
    Action, Affected, Audit, Cause, Confidence, Doubt, DoubtKind, Edit, Evidence, Finding,
    FindingId, Instruction, Owner, Program, Remedy, Requirement, RuleText, Severity, Step, Syntax,
    Totals, Workload, WorkloadKind,
};
use unmasq_cluster::paths::{Call, Caller};
use unmasq_cluster::{Cluster, Node};
use unmasq_eval::trace::Reason;
use unmasq_model::origin::{FileId, Origin};
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::Rule;
use unmasq_model::ruleset::{Backend, TableFamily};

use super::Subject;

pub(crate) const SERVICES: [&str; 5] =
    ["default/web", "shop/api", "shop/cart", "shop/stock", "dns/dns"];

pub(crate) fn cluster() -> Cluster {
    let node = |name: &str| Node { name: name.to_owned(), ..Node::default() };
    let mut cluster = Cluster { nodes: ["n1", "n2", "n3"].map(node).into(), ..Cluster::default() };
    for (number, service) in SERVICES.iter().enumerate() {
        let (namespace, name) = service.split_once('/').unwrap();
        let port = if number == 0 { r#"{"name": "http", "port": 80}"# } else { r#"{"port": 53}"# };
        cluster
            .objects
            .add_json(&format!(
                r#"{{"kind": "Service", "apiVersion": "v1",
                    "metadata": {{"name": "{name}", "namespace": "{namespace}"}},
                    "spec": {{"clusterIP": "10.43.0.{number}", "ports": [{port}]}}}}"#
            ))
            .unwrap();
    }
    cluster
}

pub(crate) fn subject(cluster: &Cluster) -> Subject<'_> {
    Subject { cluster, capture: Some("my cluster.tar.gz"), service: None, version: "0.1.0" }
}

pub(crate) fn audit() -> Audit {
    Audit {
        findings: vec![unused_pool(), local(), flannel(), stray(), policy()],
        matrix: matrix(),
        totals: Totals {
            nodes: 2,
            nodes_not_captured: 1,
            pods: 34,
            services: 5,
            services_without_endpoint: 1,
            rules: 4321,
            preserved: 100,
            rewritten_as_expected: 60,
            rewritten: 37,
            not_answered: 3,
            unknown: 4,
        },
        assumptions: vec!["pods of Services that have no EndpointSlice are not asked".to_owned()],
        hidden: vec!["the state of node n9 was not captured".to_owned()],
        doubts: vec![
            Doubt {
                kind: DoubtKind::Unreadable,
                places: vec!["node n1, /etc/docker/daemon.json:3: bip".to_owned()],
                text: "node n1, /etc/docker/daemon.json:3: bip: 172.17 can't be its value, so it \
                       isn't known"
                    .to_owned(),
                mend: "correct it, and capture again".to_owned(),
            },
            Doubt {
                kind: DoubtKind::Contradictory,
                places: vec![
                    "node n2, kube-proxy --proxy-mode".to_owned(),
                    "ConfigMap kube-system/kube-proxy, config.conf: mode".to_owned(),
                ],
                text: "kube-proxy's mode is ipvs (node n2, kube-proxy --proxy-mode) and iptables \
                       (ConfigMap kube-system/kube-proxy, config.conf: mode); the first is taken"
                    .to_owned(),
                mend: "write the one that is meant in all of these places".to_owned(),
            },
        ],
        missing: vec![
            "the state of node n3: run `unmasq collect -o n3.tar.gz` there".to_owned(),
            "kubernetes/ippools.crd.projectcalico.org.json: kubectl get \
             ippools.crd.projectcalico.org -o json"
                .to_owned(),
            "processes of node n2: collect it again as root".to_owned(),
        ],
    }
}

/// Nothing is wrong and nothing is missing.
pub(crate) fn healthy() -> Audit {
    let whole = audit();
    Audit {
        matrix: Matrix {
            rows: whole.matrix.rows.into_iter().take(1).collect(),
            asked: 64,
            assumptions: BTreeMap::new(),
        },
        totals: Totals {
            nodes: 3,
            nodes_not_captured: 0,
            services_without_endpoint: 0,
            preserved: 64,
            rewritten_as_expected: 0,
            rewritten: 0,
            not_answered: 0,
            unknown: 0,
            ..whole.totals
        },
        ..Audit::default()
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn step(text: &str, action: Action) -> Step {
    Step { text: text.to_owned(), action }
}

fn requirement(text: &str, holds: Option<bool>, check: Option<Instruction>) -> Requirement {
    Requirement { text: text.to_owned(), holds, check }
}

pub(crate) fn workload(name: &str, container: Option<&str>) -> Workload {
    Workload {
        kind: WorkloadKind::DaemonSet,
        namespace: "kube-system".to_owned(),
        name: name.to_owned(),
        container: container.map(str::to_owned),
    }
}

fn unused_pool() -> Finding {
    Finding {
        id: FindingId::CalicoUnusedPool,
        subject: "old-pool".to_owned(),
        severity: Severity::Error,
        confidence: Confidence::Certain,
        title: "Calico masquerades clients of 192.168.0.0/16: the pool old-pool covers them, and no pod uses it"
            .to_owned(),
        owner: Owner::Calico,
        families: vec![Family::V4],
        affected: Affected {
            flows: names(&["clients in 192.168.0.0/16 that call a node's port"]),
            services: names(&["default/web", "shop/api", "shop/cart", "shop/stock"]),
            nodes: names(&["n1", "n2"]),
            rows: vec![1],
        },
        caused_by: Vec::new(),
        breaks: names(&[
            "Service shop/api has externalTrafficPolicy: Local, which promises the client's address",
            "clients.yaml:3: 192.168.7.0/24 must be seen by default/web",
        ]),
        evidence: vec![Evidence {
            text: "192.168.7.20 calls port 30080 of n1; pod 10.42.3.7 sees 10.42.0.1.".to_owned(),
            trace: Some(
                "unmasq trace --from 192.168.7.20:41000 --to 10.0.0.11:30080 --via n1".to_owned(),
            ),
            rule: Some(RuleText {
                host: "n1".to_owned(),
                place: "nodes/n1/iptables-save:88".to_owned(),
                text: "-A cali-nat-outgoing -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE".to_owned(),
            }),
        }],
        cause: Cause {
            text: "Calico masquerades whatever comes from a pool with natOutgoing and goes out of all pools. The clients' addresses are in such a pool.".to_owned(),
            setting: Some("natOutgoing: true".to_owned()),
            place: Some("IPPool old-pool, spec.natOutgoing".to_owned()),
        },
        remedies: vec![
            Remedy {
                lasting: true,
                title: "delete the pool that no pod uses, or switch its natOutgoing off".to_owned(),
                steps: vec![
                    step(
                        "Switch masquerading off for this pool.",
                        Action::Patch {
                            resource: "ippools.crd.projectcalico.org".to_owned(),
                            namespace: None,
                            name: "old-pool".to_owned(),
                            patch: r#"{"spec":{"natOutgoing":false}}"#.to_owned(),
                            undo: Some(r#"{"spec":{"natOutgoing":true}}"#.to_owned()),
                        },
                    ),
                    step(
                        "If canal runs with its own setting, change that too.",
                        Action::Environment {
                            workload: workload("canal", Some("calico-node")),
                            name: "CALICO_IPV4POOL_NAT_OUTGOING".to_owned(),
                            value: Some("false".to_owned()),
                            old: None,
                        },
                    ),
                ],
                requires: vec![
                    requirement("no pod has an address of the pool", Some(true), None),
                    requirement("another pool masquerades the pods' own calls", Some(false), None),
                    requirement(
                        "nobody outside relies on node addresses",
                        None,
                        Some(Instruction::Sentence("Ask those who run the firewall.".to_owned())),
                    ),
                    requirement(
                        "no operator writes the pool again",
                        None,
                        Some(Instruction::Command("kubectl get installations.operator.tigera.io default -o jsonpath='{.spec.calicoNetwork.ipPools}'".to_owned())),
                    ),
                ],
            },
            Remedy {
                lasting: false,
                title: "spare the clients' network on each node".to_owned(),
                steps: vec![
                    step(
                        "Let these clients through before Calico's chain.",
                        Action::Rules {
                            node: "n1".to_owned(),
                            changes: vec![inserted(
                                "-A POSTROUTING -s 192.168.0.0/16 -d 10.42.0.0/16 -j ACCEPT",
                            )],
                        },
                    ),
                    step(
                        "Tell the others.",
                        Action::ByHand {
                            instructions: vec![Instruction::Literal("one line = as it is".to_owned())],
                            undo: vec![Instruction::Sentence(
                                "A restart of the node undoes it too, which takes longer and ends every connection of the node.".to_owned(),
                            )],
                        },
                    ),
                ],
                requires: Vec::new(),
            },
        ],
    }
}

/// In front of the nat table's POSTROUTING.
pub(crate) fn inserted(text: &str) -> RuleChange {
    RuleChange {
        backend: Backend::IptablesNft,
        family: TableFamily::Ip,
        table: "nat".to_owned(),
        chain: "POSTROUTING".to_owned(),
        position: 0,
        old: None,
        new: Some(Rule {
            steps: Box::default(),
            text: text.into(),
            comment: None,
            origin: Origin::new(FileId(0), 1),
        }),
    }
}

fn local() -> Finding {
    Finding {
        id: FindingId::LocalYetRewritten,
        subject: "shop/api".to_owned(),
        confidence: Confidence::Likely,
        title: "shop/api promises Local, and kube-router rewrites its clients".to_owned(),
        owner: Owner::KubeRouter,
        families: vec![Family::V4, Family::V6],
        affected: Affected {
            services: names(&["shop/api"]),
            nodes: names(&["n2"]),
            rows: vec![2],
            ..Affected::default()
        },
        caused_by: Vec::new(),
        breaks: Vec::new(),
        evidence: Vec::new(),
        cause: Cause {
            text: "kube-router masquerades what leaves its pods' range.".to_owned(),
            setting: Some("--enable-pod-egress=true".to_owned()),
            place: None,
        },
        remedies: vec![Remedy {
            lasting: true,
            title: "switch kube-router's pod egress off".to_owned(),
            steps: vec![step(
                "Add the argument.",
                Action::Argument {
                    program: Program::Workload(workload("kube-router", None)),
                    argument: Some("--enable-pod-egress=false".to_owned()),
                    old: Some("--enable-pod-egress".to_owned()),
                },
            )],
            requires: Vec::new(),
        }],
        ..unused_pool()
    }
}

fn flannel() -> Finding {
    Finding {
        id: FindingId::FlannelMasquerade,
        subject: "ipv4".to_owned(),
        severity: Severity::Warning,
        title: "flannel masquerades pods that call nodes".to_owned(),
        owner: Owner::Flannel,
        affected: Affected {
            flows: names(&["pods that call nodes", "pods that call 10.0.0.0/24"]),
            nodes: names(&["n1", "n2"]),
            ..Affected::default()
        },
        caused_by: Vec::new(),
        breaks: Vec::new(),
        evidence: vec![Evidence {
            text: "Found in nodes/n1/processes: flanneld --ip-masq".to_owned(),
            trace: None,
            rule: None,
        }],
        cause: Cause {
            text: "flanneld was started with --ip-masq.".to_owned(),
            setting: None,
            place: Some("processes of n1".to_owned()),
        },
        remedies: vec![Remedy {
            lasting: true,
            title: "start flanneld without --ip-masq".to_owned(),
            steps: vec![
                step(
                    "Take the flag out.",
                    Action::Argument {
                        program: Program::OfNode { node: None, name: "flanneld".to_owned() },
                        argument: Some("--ip-masq=false".to_owned()),
                        old: None,
                    },
                ),
                step(
                    "Tell flannel's file the same.",
                    Action::File {
                        nodes: names(&["n1", "n2"]),
                        path: "/run/flannel/subnet.env".to_owned(),
                        edit: Edit::Line {
                            old: "FLANNEL_IPMASQ=true".to_owned(),
                            new: "FLANNEL_IPMASQ=false".to_owned(),
                        },
                    },
                ),
                step(
                    "Keep one node as it is.",
                    Action::File {
                        nodes: names(&["n2"]),
                        path: "/etc/docker/daemon.json".to_owned(),
                        edit: Edit::Value {
                            syntax: Syntax::Json,
                            pointer: "/ip-masq".to_owned(),
                            old: None,
                            new: Some("false".to_owned()),
                        },
                    },
                ),
                step(
                    "Restart it.",
                    Action::Restart {
                        program: Program::OfNode {
                            node: Some("n1".to_owned()),
                            name: "flanneld".to_owned(),
                        },
                    },
                ),
            ],
            requires: Vec::new(),
        }],
        ..unused_pool()
    }
}

fn stray() -> Finding {
    Finding {
        id: FindingId::StrayMasquerade,
        subject: "n2".to_owned(),
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        title: "a rule of n2 rewrites pods that call 10.9.0.0/16".to_owned(),
        owner: Owner::Unclaimed,
        families: Vec::new(),
        affected: Affected::default(),
        cause: Cause { text: "Somebody typed it.".to_owned(), setting: None, place: None },
        caused_by: Vec::new(),
        breaks: Vec::new(),
        evidence: Vec::new(),
        remedies: Vec::new(),
    }
}

fn policy() -> Finding {
    Finding {
        id: FindingId::ExternalTrafficPolicyCluster,
        subject: "dns/dns".to_owned(),
        severity: Severity::Info,
        title: "dns/dns hides its clients, as its externalTrafficPolicy says".to_owned(),
        owner: Owner::KubeProxy,
        affected: Affected { services: names(&["dns/dns"]), rows: vec![3], ..Affected::default() },
        ..stray()
    }
}

fn matrix() -> Matrix {
    let pod = Caller::Pod { node: 0, address: ip("10.42.1.5") };
    let outside = |address: &str| Caller::Outside { node: 0, address: ip(address) };
    let cell = |entry, policy, client, placement, fate| Cell {
        entry,
        policy,
        client,
        placement,
        family: Family::V4,
        protocol: Protocol::TCP,
        fate,
        hops: 0,
        destination: None,
    };
    let by = |owner, rule: &str, why| Rewriter { owner, rule: rule.to_owned(), why };
    let refusal = |reason, owner| Refusal { reason: Some(reason), owner };
    let anybody = || Client::Outside(Outside::Anybody);
    let cluster = Some(Policy::Cluster);
    let local = Some(Policy::Local);
    use Entry::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
    use Placement::{Elsewhere, Here};
    let row = |cell, count, services: &[u32], from, to: &str| Row {
        cell,
        count,
        services: services.to_vec(),
        ports: services.iter().map(|index| (*index, 0)).collect(),
        witness: Witness {
            call: Call {
                from,
                source_port: Some(40000),
                to: ip(to),
                port: Some(80),
                protocol: Protocol::TCP,
            },
            way: 0,
            service: services.first().map(|service| (*service, 0)),
            rewriters: Vec::new(),
            seen: Some(ip("10.42.0.1")),
            reached: Some(ip("10.42.3.7")),
        },
    };
    let mut rows = vec![
        row(
            cell(ClusterIp, cluster, Client::Pod, Here, Fate::Preserved),
            100,
            &[0, 1, 2, 3, 4],
            pod.clone(),
            "10.43.0.0",
        ),
        row(
            cell(
                NodePort,
                cluster,
                Client::Outside(Outside::NamedByRule("192.168.0.0/16".parse().unwrap())),
                Elsewhere,
                Fate::Rewritten(vec![
                    by(Owner::KubeProxy, "KUBE-POSTROUTING", Why::ExternalPolicy),
                    by(Owner::Calico, "cali-nat-outgoing", Why::ItsTests),
                ]),
            ),
            36,
            &[0, 1, 2, 3],
            outside("192.168.7.20"),
            "10.0.0.11",
        ),
        row(
            cell(
                NodePort,
                local,
                Client::PodElsewhere,
                Here,
                Fate::Rewritten(vec![by(
                    Owner::KubeRouter,
                    "nat POSTROUTING: kube-router-pod-subnets",
                    Why::ExternalPolicy,
                )]),
            ),
            1,
            &[1],
            pod.clone(),
            "10.0.0.12",
        ),
        row(
            cell(
                NodePort,
                local,
                anybody(),
                Placement::None,
                Fate::Rewritten(vec![by(Owner::KubeProxy, "KUBE-POSTROUTING", Why::NotAPod)]),
            ),
            60,
            &[4],
            outside("198.51.100.1"),
            "10.0.0.11",
        ),
    ];
    for (client, fate) in [
        (Client::Endpoint, Fate::Rewritten(vec![by(Owner::KubeProxy, "X", Why::Hairpin)])),
        (Client::Node, Fate::Rewritten(vec![by(Owner::KubeProxy, "X", Why::MasqueradeAll)])),
        (Client::NodeElsewhere, Fate::Rewritten(vec![by(Owner::Docker, "X", Why::Marked)])),
        (
            Client::Outside(Outside::NamedBySetting("fd00:12:34::/64".parse().unwrap())),
            Fate::NoAnswer("the answer comes from 10.42.3.7:80, which was not called".to_owned()),
        ),
        (Client::Pod, Fate::Dropped(refusal(Reason::RpFilter, None))),
        (Client::Pod, Fate::Rejected(refusal(Reason::Rule, Some(Owner::Unclaimed)))),
        (Client::Pod, Fate::Rejected(refusal(Reason::Rule, Some(Owner::Calico)))),
        (Client::Pod, Fate::Lost),
        (Client::Pod, Fate::Unknown("ipset.save of n2 was not captured".to_owned())),
    ] {
        rows.push(row(
            cell(LoadBalancer, cluster, client, Elsewhere, fate),
            1,
            &[],
            Caller::Node(1),
            "10.0.0.200",
        ));
    }
    for entry in [ExternalIp, Entry::Pod, Entry::Node, Entry::Outside] {
        rows.push(row(
            Cell { hops: 2, ..cell(entry, None, Client::Pod, Here, Fate::Preserved) },
            1,
            &[],
            pod.clone(),
            "fd00::9",
        ));
    }
    Matrix {
        rows,
        asked: 204,
        assumptions: BTreeMap::from([("node n1 forwards packets".to_owned(), 12)]),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

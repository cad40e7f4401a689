//! A small node of kube-proxy and Calico, and traces over it, written by hand; and the clusters of
//! `examples`, which the lab made and captured.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use unmasq_cluster::{Cluster, Overrides};
use unmasq_eval::trace::{
    By, Disposition, Effect, Endpoint, Hit, Outcome, Port, Reason, Rewrite, RuleId, Stage, Start,
    Trace, Verdict,
};
use unmasq_model::host::Host;
use unmasq_model::link::{Address, Link, Scope};
use unmasq_model::origin::{FileId, Origin};
use unmasq_model::packet::{Packet, Protocol};
use unmasq_model::rule::Rule;
use unmasq_model::ruleset::{
    Backend, BaseChain, Chain, ChainId, ChainKind, Hook, Policy, Ruleset, Table, TableFamily,
};

pub(crate) const POSTROUTING: u32 = 1;
pub(crate) const SERVICES: u32 = 2;
pub(crate) const NODEPORTS: u32 = 3;
pub(crate) const EXT: u32 = 4;
pub(crate) const MARK_MASQ: u32 = 5;
pub(crate) const SEP: u32 = 6;
pub(crate) const KUBE_POSTROUTING: u32 = 7;
pub(crate) const CALI_POSTROUTING: u32 = 8;
pub(crate) const CALI_OUTGOING: u32 = 9;

/// Tables: 0 nat, 1 filter (both iptables-nft), 2 `ip kube-proxy` of nft.
pub(crate) fn host() -> Host {
    let nat = [
        (
            "PREROUTING",
            Some((Hook::Prerouting, ChainKind::Nat, Policy::Accept)),
            vec![(
                "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
                Some("kubernetes service portals"),
            )],
        ),
        (
            "POSTROUTING",
            Some((Hook::Postrouting, ChainKind::Nat, Policy::Accept)),
            vec![
                (
                    "-A POSTROUTING -m comment --comment \"cali:O3lYWMrLQYEMJtB5\" -j cali-POSTROUTING",
                    Some("cali:O3lYWMrLQYEMJtB5"),
                ),
                (
                    "-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
                    Some("kubernetes postrouting rules"),
                ),
            ],
        ),
        (
            "KUBE-SERVICES",
            None,
            vec![("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS", None)],
        ),
        (
            "KUBE-NODEPORTS",
            None,
            vec![(
                "-A KUBE-NODEPORTS -p tcp -m comment --comment \"default/web:http\" -m tcp --dport 30080 -j KUBE-EXT-4CRUJHTV5RT5YMFY",
                Some("default/web:http"),
            )],
        ),
        (
            "KUBE-EXT-4CRUJHTV5RT5YMFY",
            None,
            vec![
                (
                    "-A KUBE-EXT-4CRUJHTV5RT5YMFY -m comment --comment \"masquerade traffic for default/web:http external destinations\" -j KUBE-MARK-MASQ",
                    Some("masquerade traffic for default/web:http external destinations"),
                ),
                ("-A KUBE-EXT-4CRUJHTV5RT5YMFY -j KUBE-SEP-BGDPW3ZVTRB3SQTX", None),
            ],
        ),
        (
            "KUBE-MARK-MASQ",
            None,
            vec![("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000", None)],
        ),
        (
            "KUBE-SEP-BGDPW3ZVTRB3SQTX",
            None,
            vec![(
                "-A KUBE-SEP-BGDPW3ZVTRB3SQTX -p tcp -m comment --comment \"default/web:http\" -m tcp -j DNAT --to-destination 10.42.3.7:8080",
                Some("default/web:http"),
            )],
        ),
        (
            "KUBE-POSTROUTING",
            None,
            vec![
                ("-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN", None),
                (
                    "-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
                    Some("kubernetes service traffic requiring SNAT"),
                ),
            ],
        ),
        (
            "cali-POSTROUTING",
            None,
            vec![(
                "-A cali-POSTROUTING -m comment --comment \"cali:Z-c7XtVd2Bq7s_hA\" -j cali-nat-outgoing",
                Some("cali:Z-c7XtVd2Bq7s_hA"),
            )],
        ),
        (
            "cali-nat-outgoing",
            None,
            vec![(
                "-A cali-nat-outgoing -m comment --comment \"cali:flqWnvo8yq4ULQLa\" -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE",
                Some("cali:flqWnvo8yq4ULQLa"),
            )],
        ),
    ];
    let filter = [(
        "FORWARD",
        Some((Hook::Forward, ChainKind::Filter, Policy::Drop)),
        vec![
            ("-A FORWARD -s 10.42.0.0/16 -j ACCEPT", None),
            (
                "-A FORWARD -d 10.43.0.9/32 -m comment --comment \"default/gone:http has no endpoints\" -j REJECT --reject-with icmp-port-unreachable",
                Some("default/gone:http has no endpoints"),
            ),
        ],
    )];
    let nft =
        [("masquerading", None, vec![("mark and 0x4000 == 0x4000 masquerade fully-random", None)])];
    Host {
        name: "w1".into(),
        files: vec!["nodes/w1/iptables-save".into(), "nodes/w1/nft.json".into()],
        ruleset: Ruleset {
            tables: vec![
                table(Backend::IptablesNft, "nat", 0, &nat),
                table(Backend::IptablesNft, "filter", 1, &filter),
                table(Backend::Nft, "kube-proxy", 2, &nft),
            ],
        },
        links: Some(vec![flannel()]),
        ..Host::default()
    }
}

type ChainText =
    (&'static str, Option<(Hook, ChainKind, Policy)>, Vec<(&'static str, Option<&'static str>)>);

fn table(backend: Backend, name: &str, index: u32, chains: &[ChainText]) -> Table {
    let native = backend == Backend::Nft;
    let origin = |line: u32| Origin {
        file: FileId(u16::from(native)),
        line: if native { 1 } else { line },
        handle: native.then_some(u64::from(line)),
    };
    let chain = |(number, (name, base, rules)): (usize, &ChainText)| {
        let start = 100 * (index + 1) + 10 * u32::try_from(number).unwrap();
        Chain {
            name: (*name).into(),
            base: base.map(|(hook, kind, policy)| BaseChain {
                hook: Some(hook),
                kind,
                priority: 0,
                policy,
            }),
            rules: rules
                .iter()
                .zip(start + 1..)
                .map(|((text, comment), line)| Rule {
                    steps: Box::default(),
                    text: (*text).into(),
                    comment: comment.map(Into::into),
                    origin: origin(line),
                })
                .collect(),
            origin: origin(start),
        }
    };
    Table {
        backend,
        family: TableFamily::Ip,
        name: name.into(),
        chains: chains.iter().enumerate().map(chain).collect(),
        sets: Vec::new(),
        dormant: false,
        unreadable: None,
        origin: origin(100 * (index + 1)),
    }
}

fn flannel() -> Link {
    Link {
        index: 4,
        name: "flannel.1".into(),
        up: true,
        loopback: false,
        kind: Some("vxlan".into()),
        master: None,
        hairpin: None,
        calls_iptables: false,
        calls_ip6tables: false,
        lower: None,
        peer: None,
        mac: None,
        xdp: false,
        addresses: vec![Address {
            local: ip([10, 42, 0, 1]),
            peer: None,
            prefix_len: 32,
            scope: Scope::GLOBAL,
            secondary: false,
            deprecated: false,
            tentative: false,
            temporary: false,
        }],
    }
}

fn ip(octets: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(octets))
}

pub(crate) fn endpoint(octets: [u8; 4], port: u16) -> Endpoint {
    Endpoint { address: Some(ip(octets)), port: Port::Exactly(port) }
}

pub(crate) fn rule(table: u32, chain: u32, rule: u32) -> RuleId {
    RuleId { table, chain: ChainId(chain), rule }
}

pub(crate) fn hit(stage: Stage, depth: u32, by: By, effects: Vec<Effect>) -> Hit {
    Hit { stage, by, depth, counted: true, effects }
}

fn nat(hook: Hook, depth: u32, chain: u32, at: u32, effects: Vec<Effect>) -> Hit {
    hit(Stage::Hook(hook), depth, By::Rule(rule(0, chain, at)), effects)
}

fn jump(chain: u32) -> Vec<Effect> {
    vec![Effect::Jump(ChainId(chain))]
}

/// An outsider's packet to node port 30080 of node w1.
pub(crate) fn trace(outcomes: Vec<Outcome>) -> Trace {
    let source = ip([192, 168, 7, 20]);
    let destination = ip([10, 0, 0, 11]);
    Trace {
        packet: Packet::open(Protocol::TCP, source, Some(41000), destination, Some(30080)),
        start: Start::In("eth0".into()),
        assumptions: Vec::new(),
        outcomes,
    }
}

/// How the outsider's packet gets to an endpoint of the Service, up to postrouting.
fn inbound(to: Endpoint) -> Vec<Hit> {
    let pre = Hook::Prerouting;
    vec![
        nat(pre, 0, 0, 0, jump(SERVICES)),
        nat(pre, 1, SERVICES, 0, jump(NODEPORTS)),
        nat(pre, 2, NODEPORTS, 0, jump(EXT)),
        nat(pre, 3, EXT, 0, jump(MARK_MASQ)),
        nat(pre, 4, MARK_MASQ, 0, vec![Effect::Mark { before: 0, after: 0x4000 }]),
        nat(pre, 3, EXT, 1, jump(SEP)),
        nat(pre, 4, SEP, 0, vec![Effect::Dnat(to), Effect::Accept]),
        hit(
            Stage::Routing,
            0,
            By::Kernel("10.42.3.0/24 via 10.42.3.0 dev flannel.1 (table main)".to_owned()),
            Vec::new(),
        ),
    ]
}

/// A change of the source, and the Service's endpoint.
pub(crate) fn outcome(after: Endpoint, to: Endpoint) -> Outcome {
    let before = endpoint([192, 168, 7, 20], 41000);
    let disposition = if after == before { Disposition::Preserved } else { Disposition::Rewritten };
    Outcome {
        probability: Some(1.0),
        verdict: Verdict::Forwarded,
        reason: None,
        source: Rewrite { disposition, before, after },
        destination: Rewrite {
            disposition: Disposition::Rewritten,
            before: endpoint([10, 0, 0, 11], 30080),
            after: to,
        },
        out: Some("flannel.1".into()),
        next_hop: Some(ip([10, 42, 3, 0])),
        bridged: false,
        rewritten_by: None,
        because: Vec::new(),
        tracked: None,
        hits: inbound(to),
        unknown: Vec::new(),
    }
}

/// Masqueraded by Calico's rule, which needs no mark.
pub(crate) fn by_calico() -> Outcome {
    let after = endpoint([10, 42, 0, 1], 41000);
    let mut outcome = outcome(after, endpoint([10, 42, 3, 7], 8080));
    let post = Hook::Postrouting;
    outcome.hits.extend([
        nat(post, 0, POSTROUTING, 0, jump(CALI_POSTROUTING)),
        nat(post, 1, CALI_POSTROUTING, 0, jump(CALI_OUTGOING)),
        nat(post, 2, CALI_OUTGOING, 0, vec![Effect::Snat(after), Effect::Accept]),
    ]);
    outcome.rewritten_by = Some(rule(0, CALI_OUTGOING, 0));
    outcome.because = vec![8, 9];
    outcome
}

/// Masqueraded by kube-proxy, because of its mark.
pub(crate) fn by_kube_proxy(to: Endpoint, probability: f64) -> Outcome {
    let after = Endpoint { port: Port::Between(1024, 65535), ..endpoint([10, 42, 0, 1], 0) };
    let mut outcome = outcome(after, to);
    outcome.probability = Some(probability);
    let post = Hook::Postrouting;
    outcome.hits.extend([
        // Into Calico's chains and out again: nothing happened there.
        nat(post, 0, POSTROUTING, 0, jump(CALI_POSTROUTING)),
        nat(post, 1, CALI_POSTROUTING, 0, jump(CALI_OUTGOING)),
        nat(post, 0, POSTROUTING, 1, jump(KUBE_POSTROUTING)),
        nat(post, 1, KUBE_POSTROUTING, 1, vec![Effect::Snat(after), Effect::Accept]),
    ]);
    outcome.rewritten_by = Some(rule(0, KUBE_POSTROUTING, 1));
    outcome.because = vec![0, 1, 2, 3, 4, 10];
    outcome
}

/// Not masqueraded, because unmarked packets leave kube-proxy's chain.
pub(crate) fn preserved() -> Outcome {
    let mut outcome = outcome(endpoint([192, 168, 7, 20], 41000), endpoint([10, 42, 3, 7], 8080));
    let post = Hook::Postrouting;
    outcome.hits.extend([
        nat(post, 0, POSTROUTING, 1, jump(KUBE_POSTROUTING)),
        nat(post, 1, KUBE_POSTROUTING, 0, vec![Effect::Return]),
    ]);
    outcome
}

/// Ended in the forward hook by `hit`.
pub(crate) fn ended(verdict: Verdict, reason: Reason, last: Hit) -> Outcome {
    let mut outcome = outcome(endpoint([192, 168, 7, 20], 41000), endpoint([10, 42, 3, 7], 8080));
    outcome.verdict = verdict;
    outcome.reason = Some(reason);
    outcome.out = None;
    outcome.next_hop = None;
    outcome.hits.push(last);
    outcome
}

/// Dropped by the policy of filter FORWARD.
pub(crate) fn dropped_by_policy() -> Outcome {
    let by = By::Policy { table: 1, chain: ChainId(0) };
    let last = hit(Stage::Hook(Hook::Forward), 0, by, vec![Effect::Drop]);
    ended(Verdict::Dropped, Reason::Policy, last)
}

/// Rejected for want of endpoints.
pub(crate) fn rejected() -> Outcome {
    let effects = vec![Effect::Reject("icmp-port-unreachable".into())];
    let last = hit(Stage::Hook(Hook::Forward), 0, By::Rule(rule(1, 0, 1)), effects);
    ended(Verdict::Rejected, Reason::Rule, last)
}

/// Nobody knows.
pub(crate) fn unknown(why: &[&str]) -> Outcome {
    let mut outcome = outcome(endpoint([192, 168, 7, 20], 41000), endpoint([10, 42, 3, 7], 8080));
    outcome.probability = None;
    outcome.verdict = Verdict::Unknown;
    outcome.source.disposition = Disposition::Unknown;
    outcome.source.after = Endpoint { address: None, port: Port::Unknown };
    outcome.unknown = why.iter().map(|why| (*why).to_owned()).collect();
    outcome
}

/// A captured cluster of `examples`.
pub(crate) fn example(name: &str) -> Cluster {
    let root = format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    let mut folders = vec![PathBuf::from(&root)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let contents = unmasq_cluster::read::capture(&files).unwrap();
    assert_eq!(contents.problems, []);
    Cluster::new(contents.nodes, contents.objects, Overrides::default())
}

use std::net::{IpAddr, Ipv4Addr};

use unmasq_model::expr::{BitOp, Device, End, Expr, Field, Value};
use unmasq_model::link::{Address, Link, Scope};
use unmasq_model::origin::{FileId, Opaque, Origin};
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::{Comparison, NamePattern, Nat, NatKind};
use unmasq_model::ruleset::{BaseChain, ChainKind, Hook, Policy, Ruleset, TableFamily};

use super::*;
use crate::label;

const MASQUERADE: Action = Action::Nat(Nat {
    kind: NatKind::Masquerade,
    family: None,
    address: None,
    ports: None,
    random: false,
});

/// A table with `POSTROUTING` and the chains named; rules go into the first of `chains`, or into
/// `POSTROUTING` if there is none.
fn host(backend: Backend, table: &str, chains: &[&str], rules: Vec<Rule>) -> (Host, RuleId) {
    let mut list = vec![chain("POSTROUTING", true)];
    list.extend(chains.iter().map(|name| chain(name, false)));
    let at = usize::from(!chains.is_empty());
    list[at].rules = rules;
    let table = Table {
        backend,
        family: TableFamily::Ip,
        name: table.into(),
        chains: list,
        sets: Vec::new(),
        dormant: false,
        unreadable: None,
        origin: origin(1),
    };
    let host = Host { ruleset: Ruleset { tables: vec![table] }, ..Host::default() };
    let chain = ChainId(u32::try_from(at).unwrap());
    (host, RuleId { table: 0, chain, rule: 0 })
}

fn origin(line: u32) -> Origin {
    Origin::new(FileId(0), line)
}

fn chain(name: &str, base: bool) -> Chain {
    let base = base.then_some(BaseChain {
        hook: Some(Hook::Postrouting),
        kind: ChainKind::Nat,
        priority: 100,
        policy: Policy::Accept,
    });
    Chain { name: name.into(), base, rules: Vec::new(), origin: origin(2) }
}

fn rule(text: &str, comment: Option<&str>, steps: Vec<Step>) -> Rule {
    Rule {
        steps: steps.into(),
        text: text.into(),
        comment: comment.map(Into::into),
        origin: origin(3),
    }
}

fn network(end: End, address: [u8; 4], prefix: u32, negated: bool) -> Step {
    let field = Expr::Field(Field::Address(Family::V4, end));
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    let left = if prefix == 32 { field } else { Expr::bits(BitOp::And, field, Expr::number(mask)) };
    let op = if negated { Comparison::Ne } else { Comparison::Eq };
    let address = Value::address(IpAddr::V4(Ipv4Addr::from(address)));
    Step::Test(Test::Compare { left, op, right: Expr::Const(address) })
}

fn out(name: &str, negated: bool) -> Step {
    let pattern = NamePattern { name: name.into(), wildcard: false };
    Step::Test(Test::DeviceName { device: Device::Out, pattern, negated })
}

fn protocol(protocol: Protocol) -> Step {
    Step::Test(Test::Compare {
        left: Expr::Field(Field::L4Proto),
        op: Comparison::Eq,
        right: Expr::number(protocol.0),
    })
}

fn set(name: &str) -> Step {
    let ends = Box::new([End::Source]);
    Step::Test(Test::IpSet { set: name.into(), ends, negated: false, return_nomatch: false })
}

fn bridge(name: &str, address: [u8; 4]) -> Link {
    Link {
        index: 7,
        name: name.into(),
        up: true,
        loopback: false,
        kind: Some("bridge".into()),
        master: None,
        hairpin: None,
        calls_iptables: false,
        calls_ip6tables: false,
        lower: None,
        peer: None,
        mac: None,
        xdp: false,
        addresses: vec![Address {
            local: IpAddr::V4(address.into()),
            peer: None,
            prefix_len: 24,
            scope: Scope::GLOBAL,
            secondary: false,
            deprecated: false,
            tentative: false,
            temporary: false,
        }],
    }
}

#[test]
fn names_are_distinct() {
    let names: std::collections::BTreeSet<_> =
        Owner::ALL.iter().map(|owner| owner.name()).collect();
    assert_eq!(names.len(), Owner::ALL.len());
}

#[test]
fn by_the_chain_that_the_rule_stands_in() {
    for (chain, expected) in [
        ("cali-nat-outgoing", Owner::Calico),
        ("KUBE-POSTROUTING", Owner::KubeProxy),
        ("KUBE-SVC-NPX46M4PTMTKRN6Y", Owner::KubeProxy),
        ("KUBE-KUBELET-CANARY", Owner::Kubelet),
        ("KUBE-ROUTER-FORWARD", Owner::KubeRouter),
        ("KUBE-NWPLCY-COMMON", Owner::KubeRouter),
        ("FLANNEL-POSTRTG", Owner::Flannel),
        ("FLANNEL", Owner::Flannel),
        ("IP-MASQ-AGENT", Owner::IpMasqAgent),
        ("IP-MASQ", Owner::GceNodeSetup),
        ("KIND-MASQ-AGENT", Owner::Kindnet),
        ("AWS-SNAT-CHAIN-0", Owner::AwsVpcCni),
        ("CILIUM_POST_nat", Owner::Cilium),
        ("OLD_CILIUM_POST_nat", Owner::Cilium),
        ("WEAVE", Owner::Weave),
        ("WEAVER", Owner::Unclaimed),
        ("DOCKER", Owner::Docker),
        ("DOCKER-USER", Owner::Unclaimed),
        ("NETAVARK-HOSTPORT-MASQ", Owner::Netavark),
        ("CNI-HOSTPORT-MASQ", Owner::Portmap),
        ("CNI-0123456789abcdef01234567", Owner::ContainerEngine),
        ("ts-postrouting", Owner::Tailscale),
        ("LIBVIRT_PRT", Owner::Libvirt),
        ("POSTROUTING_direct", Owner::Firewalld),
        ("POST_public", Owner::Unclaimed),
        ("OVN-KUBE-SNAT-MGMTPORT", Owner::OvnKubernetes),
        ("ISTIO_OUTPUT", Owner::Istio),
        ("PROXY_INIT_REDIRECT", Owner::Linkerd),
        ("my-masquerade", Owner::Unclaimed),
    ] {
        let rules = vec![rule("-j MASQUERADE", None, vec![Step::Do(MASQUERADE)])];
        let (host, id) = host(Backend::IptablesNft, "nat", &[chain], rules);
        assert_eq!(owner(&host, id), expected, "{chain}");
        assert_eq!(label(&host, id), chain);
    }
}

#[test]
fn zone_chains_are_firewallds_only_beside_its_other_chains() {
    let (host, id) = host(
        Backend::Legacy,
        "nat",
        &["POST_public", "POSTROUTING_ZONES"],
        vec![rule("", None, Vec::new())],
    );
    assert_eq!(owner(&host, id), Owner::Firewalld);
}

#[test]
fn by_nftables_table() {
    for (table, expected) in [
        ("kube-proxy", Owner::KubeProxy),
        ("flannel-ipv4", Owner::Flannel),
        ("unmasq", Owner::Unmasq),
        ("netavark", Owner::Netavark),
        ("lxd", Owner::Lxc),
        ("incus", Owner::Lxc),
        ("lxc", Owner::Lxc),
        ("kindnet-fastpath", Owner::Kindnet),
        ("nat", Owner::Unclaimed),
    ] {
        let rules = vec![rule("masquerade", None, vec![Step::Do(MASQUERADE)])];
        let (host, id) = host(Backend::Nft, table, &[], rules);
        assert_eq!(owner(&host, id), expected, "{table}");
        assert_eq!(chain_owner(&host, 0, ChainId(0)), expected, "{table}");
        assert_eq!(label(&host, id), format!("ip {table} POSTROUTING: masquerade"));
    }
    // An iptables table of such a name is not that program's.
    let (host, id) = host(Backend::Legacy, "kube-proxy", &[], vec![rule("", None, Vec::new())]);
    assert_eq!(owner(&host, id), Owner::Unclaimed);
}

#[test]
fn by_comment_and_set_in_a_base_chain() {
    for (comment, expected) in [
        ("flanneld masq", Owner::Flannel),
        ("cali:O3lYWMrLQYEMJtB5", Owner::Calico),
        ("kubernetes postrouting rules", Owner::KubeProxy),
        ("kubernetes api of the test cluster", Owner::Unclaimed),
        ("AWS SNAT CHAIN", Owner::AwsVpcCni),
        ("ip-masq-agent: ensure nat POSTROUTING directs all", Owner::IpMasqAgent),
        ("generated for LXD network lxdbr0", Owner::Lxc),
        ("generated for LXD network-forward lxdbr0", Owner::Lxc),
        ("generated for Incus network incusbr0", Owner::Lxc),
        ("name: \"cbr0\" id: \"0c1d\"", Owner::ContainerEngine),
    ] {
        let rules = vec![rule("-j MASQUERADE", Some(comment), vec![Step::Do(MASQUERADE)])];
        let (host, id) = host(Backend::IptablesNft, "nat", &[], rules);
        assert_eq!(owner(&host, id), expected, "{comment}");
    }
    for (name, expected) in [
        ("kube-router-pod-subnets", Owner::KubeRouter),
        ("inet6:kube-router-pod-subnets", Owner::KubeRouter),
        ("cali40masq-ipam-pools", Owner::Calico),
        ("KUBE-LOOP-BACK", Owner::KubeProxy),
        ("KUBE-SRC-ABCDEF", Owner::KubeRouter),
        ("blocklist", Owner::Unclaimed),
    ] {
        let rules = vec![rule("", None, vec![set(name), Step::Do(MASQUERADE)])];
        let (host, id) = host(Backend::IptablesNft, "nat", &[], rules);
        assert_eq!(owner(&host, id), expected, "{name}");
        assert_eq!(label(&host, id), format!("nat POSTROUTING: {name}"));
    }
}

#[test]
fn a_jump_belongs_to_its_target_unless_its_comment_says_more() {
    let jump = |comment| {
        let steps =
            vec![Step::Do(Action::Count), Step::Do(Action::Verdict(Verdict::Jump(ChainId(1))))];
        let (mut host, _) = host(Backend::Legacy, "nat", &["cali-POSTROUTING"], Vec::new());
        host.ruleset.tables[0].chains[0].rules.push(rule("", comment, steps));
        owner(&host, RuleId { table: 0, chain: ChainId(0), rule: 0 })
    };
    assert_eq!(jump(None), Owner::Calico);
    assert_eq!(jump(Some("entry point")), Owner::Calico);
    assert_eq!(jump(Some("flanneld masq")), Owner::Flannel);
}

#[test]
fn dockers_own_rule_in_the_operators_chain() {
    let steps = vec![Step::Do(Action::Count), Step::Do(Action::Verdict(Verdict::Return))];
    let (host, id) =
        host(Backend::Legacy, "filter", &["DOCKER-USER"], vec![rule("-j RETURN", None, steps)]);
    assert_eq!(owner(&host, id), Owner::Docker);
}

/// A rule of nat POSTROUTING with these tests, by its shape; `br7` is a bridge with 10.7.7.1/24,
/// `virbr0` one with 192.168.122.1/24.
fn check_shape(tests: Vec<Step>, expected: Owner) {
    let text = format!("{tests:?}");
    let steps = tests.into_iter().chain([Step::Do(Action::Count), Step::Do(MASQUERADE)]).collect();
    let dnat = Nat { kind: NatKind::Dnat, family: None, address: None, ports: None, random: false };
    let rules = vec![
        rule("-j MASQUERADE", None, steps),
        rule("-j DNAT", None, vec![Step::Do(Action::Nat(dnat))]),
    ];
    let (mut host, id) = host(Backend::Legacy, "nat", &[], rules);
    host.links = Some(vec![
        bridge("br7", [10, 7, 7, 1]),
        bridge("virbr0", [192, 168, 122, 1]),
        bridge("lxcbr0", [10, 0, 3, 1]),
    ]);
    assert_eq!(owner(&host, id), expected, "{text}");
}

#[test]
fn container_engines_by_shape() {
    let pods = || network(End::Source, [172, 7, 21, 0], 24, false);
    for (device, expected) in [
        ("docker0", Owner::ContainerEngine),
        ("br-0a5ad9e85c71", Owner::ContainerEngine),
        ("cni0", Owner::ContainerEngine),
        ("cbr0", Owner::ContainerEngine),
        ("br-lan", Owner::Unclaimed),
        ("eth0", Owner::Unclaimed),
        ("br7", Owner::Unclaimed),
    ] {
        check_shape(vec![pods(), out(device, true)], expected);
    }
    // Another bridge, where its address is of the range.
    let range = || network(End::Source, [10, 7, 7, 0], 24, false);
    check_shape(vec![range(), out("br7", true)], Owner::ContainerEngine);
    // The cluster is left out: somebody has mended it.
    let cluster = network(End::Destination, [172, 7, 0, 0], 16, true);
    check_shape(vec![pods(), cluster, out("docker0", true)], Owner::Unclaimed);
    // Out of the bridge, not past it.
    check_shape(vec![pods(), out("docker0", false)], Owner::Unclaimed);
    check_shape(vec![pods()], Owner::Unclaimed);
    check_shape(
        vec![network(End::Source, [172, 7, 21, 0], 24, true), out("docker0", true)],
        Owner::Unclaimed,
    );
}

#[test]
fn libvirt_klipper_and_tailscale_by_shape() {
    let net = |end, negated| network(end, [192, 168, 122, 0], 24, negated);
    check_shape(vec![net(End::Source, false), net(End::Destination, true)], Owner::Libvirt);
    let lxc = |end, negated| network(end, [10, 0, 3, 0], 24, negated);
    check_shape(vec![lxc(End::Source, false), lxc(End::Destination, true)], Owner::Lxc);
    // A bridge that anybody may have made.
    let other = |end, negated| network(end, [10, 7, 7, 0], 24, negated);
    check_shape(vec![other(End::Source, false), other(End::Destination, true)], Owner::Unclaimed);
    check_shape(
        vec![
            network(End::Source, [10, 13, 43, 0], 24, false),
            network(End::Destination, [10, 13, 43, 0], 24, true),
        ],
        Owner::Unclaimed,
    );

    let to = |prefix| network(End::Destination, [10, 43, 9, 8], prefix, false);
    check_shape(vec![to(32), protocol(Protocol::TCP)], Owner::KlipperLb);
    check_shape(vec![to(24), protocol(Protocol::TCP)], Owner::Unclaimed);
    check_shape(vec![to(32)], Owner::Unclaimed);

    let mark = |mask: u32| {
        let left = Expr::bits(BitOp::And, Expr::Field(Field::Mark), Expr::number(mask));
        let right = Expr::number(0x40000u32);
        Step::Test(Test::Compare { left, op: Comparison::Eq, right })
    };
    check_shape(vec![mark(0xff_0000)], Owner::Tailscale);
    check_shape(vec![mark(0x40000)], Owner::Unclaimed);
}

/// The first of these rules of POSTROUTING, in a table that also has these chains.
fn check_first(chains: &[&str], rules: Vec<Vec<Step>>, expected: Owner) {
    let text = format!("{chains:?} {rules:?}");
    let rules = rules.into_iter().map(|steps| rule("", None, steps)).collect();
    let (mut host, _) = host(Backend::Legacy, "nat", &[], rules);
    host.ruleset.tables[0].chains.extend(chains.iter().map(|name| chain(name, false)));
    let id = RuleId { table: 0, chain: ChainId(0), rule: 0 };
    assert_eq!(owner(&host, id), expected, "{text}");
}

#[test]
fn flannel_without_a_chain_by_shape() {
    let rule = |tests: [Step; 2]| tests.into_iter().chain([Step::Do(MASQUERADE)]).collect();
    let leaving = |third| -> Vec<Step> {
        rule([
            network(End::Source, [10, third, 0, 0], 16, false),
            network(End::Destination, [224, 0, 0, 0], 4, true),
        ])
    };
    let entering = |third, from| -> Vec<Step> {
        rule([
            network(End::Source, [10, from, 0, 0], 16, true),
            network(End::Destination, [10, third, 0, 0], 16, false),
        ])
    };
    check_first(&[], vec![leaving(42)], Owner::Flannel);
    check_first(&[], vec![entering(42, 42), leaving(42)], Owner::Flannel);
    // Weave's, if it stood alone; or somebody's beside flannel for another network.
    check_first(&[], vec![entering(42, 42)], Owner::Unclaimed);
    check_first(&[], vec![entering(32, 32), leaving(42)], Owner::Unclaimed);
    check_first(&[], vec![entering(42, 43), leaving(42)], Owner::Unclaimed);
    // All but one multicast block; more than the shape.
    let other = |address, prefix| {
        rule([
            network(End::Source, [10, 42, 0, 0], 16, false),
            network(End::Destination, address, prefix, true),
        ])
    };
    check_first(&[], vec![other([224, 0, 0, 0], 8)], Owner::Unclaimed);
    check_first(&[], vec![other([240, 0, 0, 0], 4)], Owner::Unclaimed);
    let mut more = leaving(42);
    more.insert(0, out("eth0", false));
    check_first(&[], vec![more], Owner::Unclaimed);
    // It returns instead.
    let mut returns = leaving(42);
    returns[2] = Step::Do(Action::Verdict(Verdict::Return));
    check_first(&[], vec![returns], Owner::Unclaimed);
}

#[test]
fn docker_beside_its_chain_by_shape() {
    let snat = Action::Nat(Nat {
        kind: NatKind::Snat,
        family: None,
        address: None,
        ports: None,
        random: false,
    });
    let range = || network(End::Source, [172, 18, 0, 0], 16, false);
    let behind = |device| vec![range(), out(device, true), Step::Do(snat.clone())];
    let local = |types| {
        let of = End::Source;
        Step::Test(Test::AddressType { of, types, limit: None, negated: false })
    };
    let from_host = |types| vec![local(types), out("docker0", false), Step::Do(MASQUERADE)];
    let itself = |end: u8, prefix, port_of| {
        let left = Expr::Field(Field::Port(Some(Protocol::TCP), port_of));
        let port = Test::Compare { left, op: Comparison::Eq, right: Expr::number(80u16) };
        vec![
            network(End::Source, [172, 18, 0, 2], prefix, false),
            network(End::Destination, [172, 18, 0, end], prefix, false),
            protocol(Protocol::TCP),
            Step::Test(port),
            Step::Do(MASQUERADE),
        ]
    };
    for (steps, expected) in [
        (behind("br-0a5ad9e85c71"), Owner::Docker),
        (behind("br7"), Owner::Unclaimed),
        (from_host(1 << 2), Owner::Docker),
        (from_host(1 << 1), Owner::Unclaimed),
        (itself(2, 32, End::Destination), Owner::Docker),
        (itself(3, 32, End::Destination), Owner::Unclaimed),
        (itself(2, 32, End::Source), Owner::Unclaimed),
        (itself(2, 24, End::Destination), Owner::Unclaimed),
    ] {
        check_first(&["DOCKER"], vec![steps.clone()], expected);
        // Without the chain anybody may have written them.
        check_first(&["DOCKER-USER"], vec![steps], Owner::Unclaimed);
    }
}

/// A shape that is known for MASQUERADE is not known for SNAT.
#[test]
fn snat_is_another_shape() {
    let snat = Nat { kind: NatKind::Snat, family: None, address: None, ports: None, random: false };
    let snat = Step::Do(Action::Nat(snat));
    let net = |end, negated| network(end, [192, 168, 122, 0], 24, negated);
    for tests in [
        vec![network(End::Source, [172, 7, 21, 0], 24, false), out("docker0", true)],
        vec![net(End::Source, false), net(End::Destination, true)],
        vec![net(End::Source, false), network(End::Destination, [224, 0, 0, 0], 4, true)],
    ] {
        let steps = tests.into_iter().chain([snat.clone()]).collect();
        let (mut host, id) = host(Backend::Legacy, "nat", &[], vec![rule("", None, steps)]);
        host.links = Some(vec![bridge("virbr0", [192, 168, 122, 1])]);
        assert_eq!(owner(&host, id), Owner::Unclaimed);
    }
}

#[test]
fn kube_routers_ipvs_masquerade_is_kept_as_text() {
    let ipvs = |text: &str| Step::Test(Test::Opaque(Opaque::new(text)));
    check_shape(vec![ipvs("-m ipvs --vdir ORIGINAL --vmethod MASQ")], Owner::KubeRouter);
    check_shape(vec![ipvs("-m bpf --bytecode 1")], Owner::Unclaimed);
}

#[test]
fn a_rule_that_is_not_there() {
    assert_eq!(
        owner(&Host::default(), RuleId { table: 3, chain: ChainId(1), rule: 4 }),
        Owner::Unclaimed
    );
}

//! The hashes are of real saves where one was found: of GKE (2022), of Felix's own tests (2025), and
//! of spidernet-io/egressgateway issue 1863 (cali-fw); the others were computed by Python's hashlib.

use super::*;

fn calico(era: Era) -> Calico {
    let pool = |cidr, nat_outgoing| Pool { cidr: net(cidr), nat_outgoing };
    Calico {
        era,
        pools: vec![pool("192.168.0.0/16", true), pool("fd19::/48", false)],
        exclusions: Exclusions::PoolsOnly,
        tunnels: Vec::new(),
        random_fully: true,
        floating: Vec::new(),
        workloads: Vec::new(),
    }
}

fn workload(device: &str, namespace: &str, account: &str) -> Workload {
    Workload { device: device.into(), namespace: namespace.into(), service_account: account.into() }
}

pub(super) fn examples() -> Vec<Rules> {
    let mut calico = calico(Era::Of2025);
    calico.workloads.push(workload("cali97f907a8190", "kube-system", "coredns"));
    calico.exclusions = Exclusions::PoolsAndHosts(vec!["10.0.0.11".parse().unwrap()]);
    vec![
        calico.rules(Family::V4),
        Calico { era: Era::Of2022, ..calico.clone() }.rules(Family::V6),
        calico.without_nat_outgoing(net("192.168.0.0/16")),
    ]
}

/// One table's rules without their declarations.
fn table(rules: &Rules, table: Table) -> String {
    rules
        .at(Place::Iptables(table))
        .lines()
        .filter(|line| !line.starts_with(':'))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// The rules of these chains.
fn chains(rules: &Rules, table: Table, names: &[&str]) -> String {
    let of = |line: &&str| line.split(' ').nth(1).is_some_and(|chain| names.contains(&chain));
    let text = rules.at(Place::Iptables(table));
    text.lines().filter(of).fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn sets_of_pools() {
    check(
        &calico(Era::Of2025).rules(Family::V4).ipset(),
        "create cali40all-ipam-pools hash:net family inet maxelem 1048576
        create cali40masq-ipam-pools hash:net family inet maxelem 1048576
        add cali40all-ipam-pools 192.168.0.0/16
        add cali40masq-ipam-pools 192.168.0.0/16",
    );
    check(
        &calico(Era::Of2025).rules(Family::V6).ipset(),
        "create cali60all-ipam-pools hash:net family inet6 maxelem 1048576
        create cali60masq-ipam-pools hash:net family inet6 maxelem 1048576
        add cali60all-ipam-pools fd19::/48",
    );
}

#[test]
fn nat_of_2025() {
    check(
        &table(&calico(Era::Of2025).rules(Family::V4), Table::Nat),
        r#"-A cali-PREROUTING -m comment --comment "cali:r6XmIziWUJsdOK6Z" --jump cali-fip-dnat
        -A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" --jump cali-fip-snat
        -A cali-POSTROUTING -m comment --comment "cali:nYKhEzDlr11Jccal" --jump cali-nat-outgoing
        -A cali-OUTPUT -m comment --comment "cali:GBTAv2p5CwevEyJm" --jump cali-fip-dnat
        -A cali-nat-outgoing -m comment --comment "cali:flqWnvo8yq4ULQLa" -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst --jump MASQUERADE --random-fully
        -I PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" --jump cali-PREROUTING
        -A POSTROUTING -m comment --comment "cali:0i8pjzKKPyA34aQD" --jump cali-POSTROUTING
        -I OUTPUT -m comment --comment "cali:tVnHkvAo15HuiPy0" --jump cali-OUTPUT"#,
    );
}

/// In 2022 the jump is inserted; without `--random-fully` the rule's hash is another.
#[test]
fn nat_of_2022() {
    let calico = Calico { random_fully: false, ..calico(Era::Of2022) };
    check(
        &chains(&calico.rules(Family::V4), Table::Nat, &["POSTROUTING", "cali-nat-outgoing"]),
        r#"-A cali-nat-outgoing -m comment --comment "cali:Dw4T8UWPnCLxRJiI" -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst --jump MASQUERADE
        -I POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" --jump cali-POSTROUTING"#,
    );
    // No pool of IPv6 has it on.
    assert_eq!(chains(&calico.rules(Family::V6), Table::Nat, &["cali-nat-outgoing"]), "");
}

#[test]
fn tunnels_and_hosts() {
    let mut calico = calico(Era::Of2025);
    calico.tunnels = vec!["vxlan.calico".into()];
    calico.exclusions = Exclusions::PoolsAndHosts(
        ["10.0.0.11", "fd00::11"].map(|host| host.parse().unwrap()).into(),
    );
    let rules = calico.rules(Family::V4);
    let line = r#"-A cali-POSTROUTING -m comment --comment "cali:e9dnSgSVNmIcpVhP" --out-interface vxlan.calico -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL --jump MASQUERADE --random-fully"#;
    let found = chains(&rules, Table::Nat, &["cali-POSTROUTING"]);
    assert_eq!(found.lines().nth(2), Some(line));
    let outgoing = chains(&rules, Table::Nat, &["cali-nat-outgoing"]);
    let end = "-m set ! --match-set cali40all-ipam-pools dst -m set ! --match-set cali40all-hosts-net dst --jump MASQUERADE --random-fully\n";
    assert!(outgoing.ends_with(end), "{outgoing}");
    let sets = rules.ipset();
    let hosts: Vec<_> = sets.lines().filter(|line| line.contains("hosts")).collect();
    let create = "create cali40all-hosts-net hash:net family inet maxelem 1048576";
    assert_eq!(hosts, [create, "add cali40all-hosts-net 10.0.0.11"]);
}

#[test]
fn floating_addresses() {
    let floating = |external: &str, internal: &str| FloatingAddress {
        external: external.parse().unwrap(),
        internal: internal.parse().unwrap(),
    };
    let mut calico = calico(Era::Of2025);
    calico.floating = vec![
        floating("172.16.1.9", "10.0.240.3"),
        floating("172.16.1.3", "10.0.240.2"),
        floating("fd17::9", "fd10::3"),
        // By text, 172.16.1.10 is the first for 10.0.240.2.
        floating("172.16.1.10", "10.0.240.2"),
    ];
    let rules = calico.rules(Family::V4);
    let found = chains(&rules, Table::Nat, &["cali-fip-dnat", "cali-fip-snat"]);
    let found: Vec<_> =
        found.lines().map(|line| line.split_once("\" ").unwrap().1.to_owned()).collect();
    let expected = [
        "--destination 172.16.1.10 --jump DNAT --to-destination 10.0.240.2",
        "--destination 172.16.1.3 --jump DNAT --to-destination 10.0.240.2",
        "--destination 172.16.1.9 --jump DNAT --to-destination 10.0.240.3",
        "--destination 10.0.240.2 --source 10.0.240.2 --jump SNAT --to-source 172.16.1.10 --random-fully",
        "--destination 10.0.240.3 --source 10.0.240.3 --jump SNAT --to-source 172.16.1.9 --random-fully",
    ];
    assert_eq!(found, expected);
}

const MAIN_CHAINS: [&str; 7] =
    ["INPUT", "FORWARD", "OUTPUT", "cali-INPUT", "cali-FORWARD", "cali-OUTPUT", "cali-wl-to-host"];

#[test]
fn filter_of_2022() {
    check(
        &chains(&calico(Era::Of2022).rules(Family::V4), Table::Filter, &MAIN_CHAINS),
        r#"-A cali-INPUT -m comment --comment "cali:FewJpBykm9iJ-YNH" --in-interface cali+ --goto cali-wl-to-host
        -A cali-INPUT -m comment --comment "cali:hder3ARWznqqv8Va" -m mark --mark 0x10000/0x10000 --jump ACCEPT
        -A cali-INPUT -m comment --comment "cali:xgOu2uJft6H9oDGF" --jump MARK --set-mark 0/0xf0000
        -A cali-INPUT -m comment --comment "cali:_-d-qojMfHM6NwBo" --jump cali-from-host-endpoint
        -A cali-INPUT -m comment --comment "cali:LqmE76MP94lZTGhA" -m comment --comment "Host endpoint policy accepted packet." -m mark --mark 0x10000/0x10000 --jump ACCEPT
        -A cali-FORWARD -m comment --comment "cali:vjrMJCRpqwy5oRoX" --jump MARK --set-mark 0/0xe0000
        -A cali-FORWARD -m comment --comment "cali:A_sPAO0mcxbT9mOV" -m mark --mark 0/0x10000 --jump cali-from-hep-forward
        -A cali-FORWARD -m comment --comment "cali:8ZoYfO5HKXWbB3pk" --in-interface cali+ --jump cali-from-wl-dispatch
        -A cali-FORWARD -m comment --comment "cali:jdEuaPBe14V2hutn" --out-interface cali+ --jump cali-to-wl-dispatch
        -A cali-FORWARD -m comment --comment "cali:12bc6HljsMKsmfr-" --jump cali-to-hep-forward
        -A cali-FORWARD -m comment --comment "cali:NOSxoaGx8OIstr1z" --jump cali-cidr-block
        -A cali-OUTPUT -m comment --comment "cali:Mq1_rAdXXH3YkrzW" -m mark --mark 0x10000/0x10000 --jump ACCEPT
        -A cali-OUTPUT -m comment --comment "cali:69FkRTJDvD5Vu6Vl" --out-interface cali+ --jump RETURN
        -A cali-OUTPUT -m comment --comment "cali:Fskumj4SGQtDV6GC" --jump MARK --set-mark 0/0xf0000
        -A cali-OUTPUT -m comment --comment "cali:1F4VWEsQu0QbRwKf" -m conntrack ! --ctstate DNAT --jump cali-to-host-endpoint
        -A cali-OUTPUT -m comment --comment "cali:m8Eqm15x1MjD24LD" -m comment --comment "Host endpoint policy accepted packet." -m mark --mark 0x10000/0x10000 --jump ACCEPT
        -A cali-wl-to-host -m comment --comment "cali:Ee9Sbo10IpVujdIY" --jump cali-from-wl-dispatch
        -A cali-wl-to-host -m comment --comment "cali:nSZbcOoG1xPONxb8" -m comment --comment "Configured DefaultEndpointToHostAction" --jump ACCEPT
        -I INPUT -m comment --comment "cali:Cz_u1IQiXIMmKD4c" --jump cali-INPUT
        -I FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" --jump cali-FORWARD
        -I OUTPUT -m comment --comment "cali:tVnHkvAo15HuiPy0" --jump cali-OUTPUT
        -A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 --jump ACCEPT
        -A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" --jump MARK --set-mark 0x10000/0x10000"#,
    );
}

#[test]
fn forward_of_2025_has_another_mark() {
    check(
        &chains(&calico(Era::Of2025).rules(Family::V6), Table::Filter, &["cali-FORWARD"]),
        r#"-A cali-FORWARD -m comment --comment "cali:W_vvds1Nw3n9QE2f" --jump MARK --set-mark 0/0x1a0000
        -A cali-FORWARD -m comment --comment "cali:ZfgmjuiLaA8Pg0kp" -m mark --mark 0/0x10000 --jump cali-from-hep-forward
        -A cali-FORWARD -m comment --comment "cali:tAzwBLPaV-j53OOZ" --in-interface cali+ --jump cali-from-wl-dispatch
        -A cali-FORWARD -m comment --comment "cali:4Z0Pf0byo05NFe-P" --out-interface cali+ --jump cali-to-wl-dispatch
        -A cali-FORWARD -m comment --comment "cali:hQ7Oc16wmUtLuneJ" --jump cali-to-hep-forward
        -A cali-FORWARD -m comment --comment "cali:rnKNH2WxGcRQcIlD" --jump cali-cidr-block"#,
    );
}

/// Multicast listeners, routers and neighbours, before any policy.
#[test]
fn icmpv6_to_the_host() {
    let rules = calico(Era::Of2022).rules(Family::V6);
    let found = chains(&rules, Table::Filter, &["cali-wl-to-host"]);
    let types: Vec<_> = found.lines().filter_map(|line| line.split_once("-p 58 ")).collect();
    let types: Vec<_> = types.into_iter().map(|(_, rest)| rest.to_owned()).collect();
    let expected = [130, 131, 132, 133, 135, 136]
        .map(|kind| format!("-m icmp6 --icmpv6-type {kind} --jump ACCEPT"));
    assert_eq!(types, expected);
    assert_eq!(found.lines().count(), 8);
}

#[test]
fn a_workload() {
    let mut calico = calico(Era::Of2025);
    calico.workloads = vec![workload("cali97f907a8190", "kube-system", "metrics-server")];
    let rules = calico.rules(Family::V4);
    let profiles = ["cali-pri-kns.kube-system", "cali-pri-_CVSZITRyIpEmH8AB6H"];
    let names = ["cali-from-wl-dispatch", "cali-fw-cali97f907a8190", profiles[0], profiles[1]];
    check(
        &chains(&rules, Table::Filter, &names),
        r#"-A cali-from-wl-dispatch -m comment --comment "cali:7glnoSx8EvuKZjNj" --in-interface cali97f907a8190 --goto cali-fw-cali97f907a8190
        -A cali-from-wl-dispatch -m comment --comment "cali:ADzMnyX7F7IdT_Lv" -m comment --comment "Unknown interface" --jump DROP
        -A cali-fw-cali97f907a8190 -m comment --comment "cali:ySzkd1VAHUDerKcY" -m conntrack --ctstate RELATED,ESTABLISHED --jump ACCEPT
        -A cali-fw-cali97f907a8190 -m comment --comment "cali:aMiWovnar4-W2K98" -m conntrack --ctstate INVALID --jump DROP
        -A cali-fw-cali97f907a8190 -m comment --comment "cali:C3WzUi97pbkkT5Ea" --jump MARK --set-mark 0/0x30000
        -A cali-fw-cali97f907a8190 -m comment --comment "cali:YB5E-WSYMmL3TtQl" -m comment --comment "Drop VXLAN encapped packets originating in workloads" -p 17 -m multiport --destination-ports 4789 --jump DROP
        -A cali-fw-cali97f907a8190 -m comment --comment "cali:qJKkTWFLSv8g7EBD" -m comment --comment "Drop IPinIP encapped packets originating in workloads" -p 4 --jump DROP
        -A cali-fw-cali97f907a8190 -m comment --comment "cali:9X0aFX7mmfq8XnRR" --jump cali-pro-kns.kube-system
        -A cali-fw-cali97f907a8190 -m comment --comment "cali:sUZOlOXbn2mCFZwM" -m comment --comment "Return if profile accepted" -m mark --mark 0x10000/0x10000 --jump RETURN
        -A cali-fw-cali97f907a8190 -m comment --comment "cali:j1wZYDLi5Z40dSRo" --jump cali-pro-_CVSZITRyIpEmH8AB6H
        -A cali-fw-cali97f907a8190 -m comment --comment "cali:v92XexGCq-deBkOe" -m comment --comment "Return if profile accepted" -m mark --mark 0x10000/0x10000 --jump RETURN
        -A cali-fw-cali97f907a8190 -m comment --comment "cali:7sW7_RMgDiwPZllQ" -m comment --comment "Drop if no profiles matched" --jump DROP
        -A cali-pri-kns.kube-system -m comment --comment "cali:J1TyxtHWd0qaBGK-" -m comment --comment "Profile kns.kube-system ingress" --jump MARK --set-mark 0x10000/0x10000
        -A cali-pri-_CVSZITRyIpEmH8AB6H -m comment --comment "cali:Jm7TmoNoWplOEka1" -m comment --comment "Profile ksa.kube-system.metrics-server ingress""#,
    );
    let to = chains(&rules, Table::Filter, &["cali-tw-cali97f907a8190"]);
    assert!(!to.contains("encapped"), "{to}");
    let jumps: Vec<_> = to.lines().filter_map(|line| line.split_once("--jump cali-")).collect();
    let jumps: Vec<_> = jumps.into_iter().map(|(_, name)| name.to_owned()).collect();
    assert_eq!(jumps, ["pri-kns.kube-system", "pri-_CVSZITRyIpEmH8AB6H"]);
    let head = chains(&rules, Table::Filter, &["cali-to-wl-dispatch"]);
    assert!(head.contains("--out-interface cali97f907a8190 --goto cali-tw-cali97f907a8190\n"));
}

/// Without workloads: the hashes of Felix's own tests.
#[test]
fn no_workload() {
    let rules = calico(Era::Of2025).rules(Family::V4);
    check(
        &chains(&rules, Table::Filter, &["cali-from-wl-dispatch", "cali-to-wl-dispatch"]),
        r#"-A cali-from-wl-dispatch -m comment --comment "cali:zTj6P0TIgYvgz-md" -m comment --comment "Unknown interface" --jump DROP
        -A cali-to-wl-dispatch -m comment --comment "cali:7KNphB1nNHw80nIO" -m comment --comment "Unknown interface" --jump DROP"#,
    );
}

/// The next character after what all devices share decides: two with 6 have a chain of their own.
#[test]
fn dispatch_by_prefix() {
    let mut calico = calico(Era::Of2025);
    calico.workloads = ["cali6f2c9d1b3a7", "cali1e0d4c8a552", "cali60aaaaaaaaa"]
        .map(|device| workload(device, "default", "default"))
        .into();
    let rules = calico.rules(Family::V4);
    let of = |chain: &str| -> Vec<String> {
        let text = chains(&rules, Table::Filter, &[chain]);
        text.lines().map(|line| line.split_once("\" ").unwrap().1.to_owned()).collect()
    };
    let unknown = "-m comment --comment \"Unknown interface\" --jump DROP";
    assert_eq!(
        of("cali-from-wl-dispatch"),
        [
            "--in-interface cali1e0d4c8a552 --goto cali-fw-cali1e0d4c8a552",
            "--in-interface cali6+ --goto cali-from-wl-dispatch-6",
            unknown,
        ]
    );
    assert_eq!(
        of("cali-from-wl-dispatch-6"),
        [
            "--in-interface cali60aaaaaaaaa --goto cali-fw-cali60aaaaaaaaa",
            "--in-interface cali6f2c9d1b3a7 --goto cali-fw-cali6f2c9d1b3a7",
            unknown,
        ]
    );
    // One chain for each profile, whoever shares it.
    let text = rules.iptables();
    let declared = text.lines().filter(|line| line.starts_with(":cali-pri-")).count();
    assert_eq!(declared, 2);
}

#[test]
fn nat_outgoing_off() {
    let mut calico = calico(Era::Of2025);
    let unused = net("192.168.0.0/16");
    let rules = calico.without_nat_outgoing(unused);
    check(&rules.ipset(), "del cali40masq-ipam-pools 192.168.0.0/16");
    check(
        &rules.iptables(),
        "*nat
        :cali-nat-outgoing - [0:0]
        COMMIT",
    );
    calico.pools.push(Pool { cidr: net("10.42.0.0/16"), nat_outgoing: true });
    assert_eq!(calico.without_nat_outgoing(unused).iptables(), "");
}

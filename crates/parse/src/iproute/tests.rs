//! Entries as iproute2 6.1 printed them on a 6.18 kernel for state made with `ip`, unless a test
//! says otherwise.

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::link::Scope;
use unmasq_model::origin::{FileId, Origin};
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::route::{NextHop, Route, RouteKind, RoutingRule, RuleAction, TableId};

use super::{addresses, fdb, links, neighbours, routes, rules};

const FILE: FileId = FileId(3);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hop(gateway: Option<&str>, device: &str, weight: u32) -> NextHop {
    NextHop {
        gateway: gateway.map(ip),
        device: Some(device.into()),
        weight,
        dead: false,
        linkdown: false,
    }
}

fn plain_route(destination: &str, next_hops: Vec<NextHop>) -> Route {
    Route {
        kind: RouteKind::Unicast,
        destination: net(destination),
        table: TableId::MAIN,
        metric: 0,
        scope: Scope::GLOBAL,
        tos: 0,
        from: None,
        preferred_source: None,
        next_hops,
        opaque: None,
        origin: Origin::new(FILE, 1),
    }
}

/// The one route of a listing with one entry.
fn one_route(entry: &str, family: Family) -> Route {
    let (found, diagnostics) = routes(&format!("[{entry}]"), FILE, family);
    assert_eq!(diagnostics, [], "{entry}");
    let mut found = found.unwrap();
    assert_eq!(found.len(), 1, "{entry}");
    found.remove(0)
}

#[test]
fn routes_that_are_understood() {
    let link = |destination, hops| Route { scope: Scope::LINK, ..plain_route(destination, hops) };
    let v4 = [
        (
            r#"{"dst":"default","gateway":"10.250.0.1","dev":"eth0","flags":[]}"#,
            plain_route("0.0.0.0/0", vec![hop(Some("10.250.0.1"), "eth0", 1)]),
        ),
        (
            r#"{"type":"unicast","dst":"10.1.0.0/24","dev":"veth0","table":"main","protocol":"kernel","scope":"link","prefsrc":"10.1.0.1","flags":[]}"#,
            Route {
                preferred_source: Some(ip("10.1.0.1")),
                ..link("10.1.0.0/24", vec![hop(None, "veth0", 1)])
            },
        ),
        (
            r#"{"type":"unicast","dst":"10.5.5.0/24","dev":"vx0","table":"main","protocol":"88","scope":"link","flags":[],"flow":{"to":"5"}}"#,
            link("10.5.5.0/24", vec![hop(None, "vx0", 1)]),
        ),
        (
            r#"{"type":"unicast","dst":"10.9.0.0/24","gateway":"10.1.0.253","dev":"veth0","table":"main","protocol":"boot","scope":"global","prefsrc":"10.1.0.2","metric":50,"flags":[],"metrics":[{"mtu":1400}]}"#,
            Route {
                metric: 50,
                preferred_source: Some(ip("10.1.0.2")),
                ..plain_route("10.9.0.0/24", vec![hop(Some("10.1.0.253"), "veth0", 1)])
            },
        ),
        (
            r#"{"type":"unicast","dst":"10.9.0.0/24","tos":"0x10","gateway":"10.1.0.252","dev":"veth0","table":"main","protocol":"boot","scope":"global","flags":["onlink"]}"#,
            Route {
                tos: 0x10,
                ..plain_route("10.9.0.0/24", vec![hop(Some("10.1.0.252"), "veth0", 1)])
            },
        ),
        (
            r#"{"type":"unicast","dst":"10.8.0.0/24","via":{"family":"inet6","host":"fe80::1"},"dev":"veth0","table":"main","protocol":"boot","scope":"global","flags":[]}"#,
            plain_route("10.8.0.0/24", vec![hop(Some("fe80::1"), "veth0", 1)]),
        ),
        (
            r#"{"type":"unicast","dst":"10.5.10.0/24","table":"main","protocol":"boot","scope":"global","flags":["linkdown"],"nexthops":[{"via":{"family":"inet6","host":"fe80::7"},"dev":"veth0","weight":3,"flags":["linkdown"]},{"dev":"veth1","weight":2,"flags":["dead","linkdown"]}]}"#,
            plain_route(
                "10.5.10.0/24",
                vec![
                    NextHop { linkdown: true, ..hop(Some("fe80::7"), "veth0", 3) },
                    NextHop { linkdown: true, dead: true, ..hop(None, "veth1", 2) },
                ],
            ),
        ),
        (
            r#"{"type":"unicast","dst":"10.5.4.0/24","nhid":10,"table":"main","protocol":"boot","scope":"global","flags":[],"nh_info":{"id":10,"group":[{"id":5},{"id":6,"weight":3}],"scope":"global","protocol":"unspec","flags":[]},"nexthops":[{"gateway":"10.1.0.5","dev":"veth0","weight":1,"flags":[]},{"gateway":"10.1.0.6","dev":"veth0","weight":3,"flags":[]}]}"#,
            plain_route(
                "10.5.4.0/24",
                vec![hop(Some("10.1.0.5"), "veth0", 1), hop(Some("10.1.0.6"), "veth0", 3)],
            ),
        ),
        (
            r#"{"type":"prohibit","dst":"10.6.2.0/24","table":"1000","protocol":"boot","scope":"global","flags":[]}"#,
            Route {
                kind: RouteKind::Prohibit,
                table: TableId::Number(1000),
                ..plain_route("10.6.2.0/24", vec![])
            },
        ),
        (
            r#"{"type":"throw","dst":"10.6.3.0/24","table":"corporate","protocol":"boot","scope":"global","flags":[]}"#,
            Route {
                kind: RouteKind::Throw,
                table: TableId::Name("corporate".into()),
                ..plain_route("10.6.3.0/24", vec![])
            },
        ),
        (
            r#"{"type":"local","dst":"10.55.0.0/16","dev":"lo","table":"local","protocol":"boot","scope":"host","flags":[]}"#,
            Route {
                kind: RouteKind::Local,
                table: TableId::LOCAL,
                scope: Scope::HOST,
                ..plain_route("10.55.0.0/16", vec![hop(None, "lo", 1)])
            },
        ),
        (
            r#"{"type":"broadcast","dst":"10.1.0.255","dev":"veth0","table":"local","protocol":"kernel","scope":"link","prefsrc":"10.1.0.1","flags":[]}"#,
            Route {
                kind: RouteKind::Broadcast,
                table: TableId::LOCAL,
                preferred_source: Some(ip("10.1.0.1")),
                ..link("10.1.0.255/32", vec![hop(None, "veth0", 1)])
            },
        ),
    ];
    for (entry, expected) in v4 {
        assert_eq!(one_route(entry, Family::V4), expected, "{entry}");
    }
    let v6 = [
        (
            r#"{"type":"unicast","dst":"default","gateway":"fd00:1::ff","dev":"veth0","table":"main","protocol":"boot","scope":"global","metric":1024,"flags":[],"pref":"medium"}"#,
            Route {
                metric: 1024,
                ..plain_route("::/0", vec![hop(Some("fd00:1::ff"), "veth0", 1)])
            },
        ),
        (
            r#"{"type":"unreachable","dst":"fd00:66::/64","dev":"lo","table":"9","protocol":"boot","scope":"global","metric":1023,"flags":[],"pref":"medium"}"#,
            Route {
                kind: RouteKind::Unreachable,
                table: TableId::Number(9),
                metric: 1023,
                ..plain_route("fd00:66::/64", vec![])
            },
        ),
        (
            r#"{"type":"unicast","dst":"fd00:8::/64","from":"fd00:1::/64","gateway":"fd00:1::fe","dev":"veth0","table":"main","protocol":"boot","scope":"global","metric":1024,"flags":[],"pref":"medium"}"#,
            Route {
                from: Some(net("fd00:1::/64")),
                metric: 1024,
                ..plain_route("fd00:8::/64", vec![hop(Some("fd00:1::fe"), "veth0", 1)])
            },
        ),
    ];
    for (entry, expected) in v6 {
        assert_eq!(one_route(entry, Family::V6), expected, "{entry}");
    }
}

#[test]
fn routes_that_are_not_understood_stay_opaque() {
    // The text is the listing's own; what is read of them stays.
    let cases = [
        r#"{"type":"unicast","dst":"10.5.1.0/24","encap":"ip","id":5,"src":"0.0.0.0","dst":"10.1.0.9","ttl":0,"tos":0,"dev":"gre1","table":"main","scope":"link","flags":[]}"#,
        r#"{"type":"unicast","dst":"10.5.1.0/24","nhid":5,"table":"main","protocol":"boot","scope":"global","flags":[]}"#,
        r#"{"type":"unicast","dst":"10.5.1.0/24","gateway":"10.1.0.5","dev":"veth0","flags":["offload"]}"#,
        r#"{"type":"unicast","dst":"10.5.1.0/24","flags":["trap"],"nexthops":[{"dev":"veth0","weight":1,"flags":[]}]}"#,
        r#"{"type":"unicast","dst":"10.5.1.0/24","flags":[],"nexthops":[{"encap":"mpls","dev":"veth0","weight":1,"flags":[]}]}"#,
        r#"{"type":"xresolve","dst":"10.5.1.0/24","dev":"veth0","flags":[]}"#,
        r#"{"dst":"10.5.1.0/24","dev":"veth0","flags":[],"someday":7}"#,
        r#"{"dst":"10.5.1.0/24","dev":"veth0","flags":[],"metric":"low"}"#,
        r#"{"dst":"10.5.1.0/24","gateway":"nowhere","flags":[]}"#,
    ];
    for entry in cases {
        let route = one_route(entry, Family::V4);
        assert_eq!(route.destination, net("10.5.1.0/24"), "{entry}");
        assert_eq!(route.opaque.as_ref().map(|opaque| &*opaque.text), Some(entry));
    }
}

#[test]
fn a_listing_of_both_families_is_told_apart() {
    let text = r#"[
{"type":"unicast","dst":"default","gateway":"10.1.0.254","dev":"a","scope":"global","flags":[]},
{"type":"unicast","dst":"default","dev":"b","scope":"link","metric":3,"flags":[]},
{"type":"unicast","dst":"default","via":{"family":"inet6","host":"fe80::1"},"dev":"c","scope":"global","metric":4,"flags":[]},
{"type":"blackhole","dst":"default","table":"55","scope":"global","flags":[]},
{"type":"unicast","dst":"10.1.0.0/24","dev":"d","scope":"link","flags":[]},
{"type":"unreachable","dst":"default","dev":"lo","scope":"global","metric":4278198272,"flags":[],"pref":"medium"},
{"type":"unicast","dst":"default","gateway":"fd00::1","dev":"e","scope":"global","metric":7,"flags":[]},
{"type":"unicast","dst":"fd00:1::/64","dev":"f","scope":"global","metric":256,"flags":[],"pref":"medium"}
]"#;
    for (family, lines) in [(Family::V4, [2, 3, 4, 5, 6].as_slice()), (Family::V6, &[7, 8, 9])] {
        let (found, diagnostics) = routes(text, FILE, family);
        assert_eq!(diagnostics, []);
        let found = found.unwrap();
        assert!(found.iter().all(|route| route.family() == family));
        let found: Vec<u32> = found.iter().map(|route| route.origin.line).collect();
        assert_eq!(found, lines, "{family}");
    }
}

#[test]
fn a_router_preference_that_decides_is_not_understood() {
    let route = |device: &str, metric: u32, pref: &str| {
        format!(
            r#"{{"dst":"default","dev":"{device}","metric":{metric},"flags":[],"pref":"{pref}"}}"#
        )
    };
    let text = format!(
        "[{},{},{},{}]",
        route("a", 5, "high"),
        route("b", 5, "medium"),
        route("c", 6, "low"),
        route("d", 7, "medium")
    );
    let (found, _) = routes(&text, FILE, Family::V6);
    let opaque: Vec<bool> = found.unwrap().iter().map(|route| route.opaque.is_some()).collect();
    assert_eq!(opaque, [true, true, false, false]);
}

#[test]
fn what_is_no_listing_is_not_an_empty_one() {
    let cases = [
        ("[]", true, 0),
        ("[ ]\n", true, 0),
        ("[{},{ }]", true, 0),
        (r#"[{"dst":"not-an-address","flags":[]},{"dev":"eth0"}]"#, true, 2),
        ("", false, 1),
        ("Error: Invalid \"table\" value.\n", false, 1),
        (r#"[{"dst":"default","gat"#, false, 1),
        (r#"{"dst":"default"}"#, false, 1),
    ];
    for (text, readable, complaints) in cases {
        let (found, diagnostics) = routes(text, FILE, Family::V4);
        assert_eq!((found.is_some(), diagnostics.len()), (readable, complaints), "{text}");
    }
}

#[test]
fn policy_rules_that_are_understood() {
    let rule = |priority, action| RoutingRule {
        family: Family::V4,
        priority,
        inverted: false,
        from: None,
        to: None,
        mark: None,
        iif: None,
        oif: None,
        protocol: None,
        source_ports: None,
        destination_ports: None,
        uids: None,
        tos: None,
        action,
        suppress_prefix_length: None,
        opaque: None,
        origin: Origin::new(FILE, 1),
    };
    let table = |number| RuleAction::Lookup(TableId::Number(number));
    let cases = [
        (
            r#"{"priority":0,"src":"all","table":"local"}"#,
            rule(0, RuleAction::Lookup(TableId::LOCAL)),
        ),
        (
            r#"{"priority":100,"src":"10.1.0.0","srclen":24,"dst":"10.2.0.5","fwmark":"0x10","fwmask":"0xf0","iif":"veth0","table":"100"}"#,
            RoutingRule {
                from: Some(net("10.1.0.0/24")),
                to: Some(net("10.2.0.5/32")),
                mark: Some((0x10, 0xf0)),
                iif: Some("veth0".into()),
                ..rule(100, table(100))
            },
        ),
        (
            r#"{"priority":101,"not":null,"src":"all","fwmark":"0x20","oif":"veth1","table":"main","suppress_prefixlen":0}"#,
            RoutingRule {
                inverted: true,
                mark: Some((0x20, u32::MAX)),
                oif: Some("veth1".into()),
                suppress_prefix_length: Some(0),
                ..rule(101, RuleAction::Lookup(TableId::MAIN))
            },
        ),
        (
            r#"{"priority":102,"src":"all","uid_start":3,"uid_end":1000,"ipproto":"tcp","sport":80,"dport_start":100,"dport_end":200,"table":"1001"}"#,
            RoutingRule {
                uids: Some((3, 1000)),
                protocol: Some(Protocol::TCP),
                source_ports: Some((80, 80)),
                destination_ports: Some((100, 200)),
                ..rule(102, table(1001))
            },
        ),
        (
            r#"{"priority":103,"src":"all","tos":"0x10","ipproto":"sctp","action":"blackhole"}"#,
            RoutingRule {
                tos: Some(0x10),
                protocol: Some(Protocol::SCTP),
                ..rule(103, RuleAction::Blackhole)
            },
        ),
        (
            r#"{"priority":201,"src":"all","tos":"AF11","table":"200"}"#,
            RoutingRule { tos: Some(0x28), ..rule(201, table(200)) },
        ),
        (
            r#"{"priority":104,"src":"10.0.0.0","srclen":8,"goto":200}"#,
            RoutingRule { from: Some(net("10.0.0.0/8")), ..rule(104, RuleAction::Goto(200)) },
        ),
        (
            r#"{"priority":105,"src":"10.0.0.0","srclen":8,"goto":9999,"unresolved":null}"#,
            RoutingRule { from: Some(net("10.0.0.0/8")), ..rule(105, RuleAction::Nop) },
        ),
        (
            r#"{"priority":106,"src":"10.3.0.0","srclen":24,"action":"unreachable","protocol":"unspec"}"#,
            RoutingRule { from: Some(net("10.3.0.0/24")), ..rule(106, RuleAction::Unreachable) },
        ),
        (
            r#"{"priority":107,"src":"all","dst":"10.3.0.0","dstlen":24,"action":"prohibit"}"#,
            RoutingRule { to: Some(net("10.3.0.0/24")), ..rule(107, RuleAction::Prohibit) },
        ),
        (r#"{"priority":113,"src":"all","nop":null}"#, rule(113, RuleAction::Nop)),
        (
            r#"{"priority":202,"src":"all","iif":"nonexist","iif_detached":null,"table":"200"}"#,
            RoutingRule { iif: Some("nonexist".into()), ..rule(202, table(200)) },
        ),
        (
            r#"{"priority":32764,"src":"0.0.0.0","srclen":8,"fwmark":"0","fwmask":"0x7","table":"9"}"#,
            RoutingRule {
                from: Some(net("0.0.0.0/8")),
                mark: Some((0, 7)),
                ..rule(32764, table(9))
            },
        ),
        (
            r#"{"priority":112,"src":"10.2.3.4","table":"5","flow_from":"4","flow_to":"6","protocol":"openr"}"#,
            RoutingRule { from: Some(net("10.2.3.4/32")), ..rule(112, table(5)) },
        ),
    ];
    for (entry, expected) in cases {
        let (found, diagnostics) = rules(&format!("[{entry}]"), FILE, Family::V4);
        assert_eq!(diagnostics, [], "{entry}");
        assert_eq!(found.unwrap(), [expected], "{entry}");
    }
    let entry =
        r#"[{"priority":101,"not":null,"src":"fd00::","srclen":8,"dst":"fd01::1","goto":200}]"#;
    let (found, _) = rules(entry, FILE, Family::V6);
    let expected = RoutingRule {
        family: Family::V6,
        inverted: true,
        from: Some(net("fd00::/8")),
        to: Some(net("fd01::1/128")),
        ..rule(101, RuleAction::Goto(200))
    };
    assert_eq!(found.unwrap(), [expected]);
}

#[test]
fn policy_rules_that_are_not_understood_stay_opaque() {
    let cases = [
        r#"{"priority":108,"src":"all","l3mdev":null}"#,
        r#"{"priority":108,"src":"all","tun_id":77,"table":"5"}"#,
        r#"{"priority":108,"src":"all","table":"5","suppress_ifgroup":"5"}"#,
        r#"{"priority":108,"src":"10.2.3.4","table":"main","masquerade":null}"#,
        // Keys of later iproute2 versions.
        r#"{"priority":108,"src":"all","dscp":"0x5","table":"5"}"#,
        r#"{"priority":108,"src":"all","flowlabel":"0x5","flowlabel_mask":"0xff","table":"5"}"#,
        r#"{"priority":108,"src":"all","sport":"80","sport_mask":"0xff","table":"5"}"#,
        r#"{"priority":108,"src":"all","tos":"vendor","table":"5"}"#,
        r#"{"priority":108,"src":"all","ipproto":"mystery","table":"5"}"#,
        r#"{"priority":108,"src":"all","action":"type 42"}"#,
        r#"{"priority":108,"src":"fd00::1","table":"5"}"#,
        r#"{"priority":108,"src":"all"}"#,
    ];
    for entry in cases {
        let (found, diagnostics) = rules(&format!("[{entry}]"), FILE, Family::V4);
        assert_eq!(diagnostics, [], "{entry}");
        let found = found.unwrap();
        assert_eq!(found.len(), 1, "{entry}");
        assert_eq!(found[0].priority, 108, "{entry}");
        assert_eq!(found[0].opaque.as_ref().map(|opaque| &*opaque.text), Some(entry));
    }
    let (found, diagnostics) = rules(r#"[{"src":"all","table":"5"}]"#, FILE, Family::V4);
    assert_eq!((found, diagnostics.len()), (Some(vec![]), 1));
}

const ADDRESSES: &str = r#"[
{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"address":"00:00:00:00:00:00","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host","label":"lo"},{}]},
{"ifindex":2,"link":"veth0","ifname":"veth1","flags":["BROADCAST","MULTICAST","UP"],"master":"br0","address":"82:57:0b:83:48:53","linkinfo":{"info_kind":"veth","info_slave_kind":"bridge","info_slave_data":{"state":"forwarding","hairpin":true,"guard":false}},"addr_info":[]},
{"ifindex":3,"ifname":"veth0","flags":["BROADCAST"],"address":"16:5c:cd:cb:8d:7b","xdp":{"mode":1,"prog":{"id":9}},"addr_info":[
{"family":"inet","local":"10.3.0.1","prefixlen":24,"scope":"100","deprecated":true,"dynamic":true,"label":"veth0:x"},
{"family":"inet","local":"10.2.0.1","address":"10.2.0.9","prefixlen":32,"scope":"global","label":"veth0"},
{"family":"inet","local":"10.1.0.2","prefixlen":25,"scope":"global","secondary":true,"label":"veth0"},
{"family":"inet6","local":"fd00:1::9","prefixlen":64,"scope":"global","tentative":true},
{"family":"inet6","local":"fd00:1::8","prefixlen":64,"scope":"global","tentative":true,"optimistic":true},
{"family":"inet6","local":"fd00:1::7","prefixlen":64,"scope":"global","dadfailed":true,"tentative":true},
{"family":"inet6","local":"fd00:1::6","prefixlen":64,"scope":"site","temporary":true,"dynamic":true},
{"family":"inet6","prefixlen":64,"scope":"site"}]},
{"ifindex":"four","ifname":"bad"}
]"#;

#[test]
fn links_and_addresses() {
    let (found, diagnostics) = links(ADDRESSES, FILE);
    let found = found.unwrap();
    assert_eq!(diagnostics.len(), 1);
    let shown: Vec<_> = found
        .iter()
        .map(|link| (link.index, &*link.name, link.up, link.loopback, link.hairpin, link.xdp))
        .collect();
    assert_eq!(
        shown,
        [
            (1, "lo", true, true, None, false),
            (2, "veth1", true, false, Some(true), false),
            (3, "veth0", false, false, None, true),
        ]
    );
    assert_eq!(found[1].master.as_deref(), Some("br0"));
    assert_eq!(found[1].kind.as_deref(), Some("veth"));
    assert_eq!(found[2].mac.as_deref(), Some("16:5c:cd:cb:8d:7b"));
    assert!(found.iter().all(|link| link.addresses.is_empty()));

    // Alone, and on top of the links: the same devices, once.
    for mut known in [Vec::new(), found] {
        let (readable, diagnostics) = addresses(ADDRESSES, FILE, &mut known);
        assert!(readable);
        let lines: Vec<u32> = diagnostics.iter().map(|found| found.origin.line).collect();
        assert_eq!(lines, [4, 13], "the address without local, the device without an index");
        let names: Vec<&str> = known.iter().map(|link| &*link.name).collect();
        assert_eq!(names, ["lo", "veth1", "veth0"]);
        check_addresses(&known[2].addresses);
        assert_eq!(known[0].addresses.len(), 1);
        assert_eq!(known[0].addresses[0].network(), Some(net("127.0.0.0/8")));
    }
    assert!(!addresses("Cannot open netlink socket\n", FILE, &mut Vec::new()).0);
}

#[test]
fn bridges_own_settings_and_the_device_below() {
    let listing = r#"[
{"ifindex":2,"ifname":"br0","flags":[],"linkinfo":{"info_kind":"bridge","info_data":{"stp_state":0,"gc_timer":0.00,"nf_call_iptables":1,"nf_call_ip6tables":0,"nf_call_arptables":1}}},
{"ifindex":3,"ifname":"br1","flags":[],"linkinfo":{"info_kind":"bridge","info_data":{"nf_call_iptables":0,"nf_call_ip6tables":1}}},
{"ifindex":4,"ifname":"br2","flags":[],"linkinfo":{"info_kind":"bridge"}},
{"ifindex":5,"link":"v1","ifname":"v0","flags":[],"linkinfo":{"info_kind":"veth"}},
{"ifindex":6,"link":"v0","ifname":"mv","flags":[],"linkinfo":{"info_kind":"macvlan","info_data":{"mode":"vepa","nf_call_iptables":1}}},
{"ifindex":7,"ifname":"vx","flags":[],"linkinfo":{"info_kind":"vxlan","info_data":{"id":4,"link":"v0"}}},
{"ifindex":8,"link_index":2,"ifname":"va","flags":[],"link_netnsid":0,"linkinfo":{"info_kind":"veth"}},
{"ifindex":9,"link":"if2","ifname":"vb","flags":[],"link_netnsid":0},
{"ifindex":10,"link":null,"ifname":"tun","flags":[]}]"#;
    let (found, diagnostics) = links(listing, FILE);
    assert_eq!(diagnostics, []);
    let found = found.unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|l| (&*l.name, l.calls_iptables, l.calls_ip6tables, l.lower.as_deref()))
        .collect();
    assert_eq!(
        shown,
        [
            ("br0", true, false, None),
            ("br1", false, true, None),
            ("br2", false, false, None),
            ("v0", false, false, Some("v1")),
            ("mv", false, false, Some("v0")),
            ("vx", false, false, None),
            ("va", false, false, None),
            ("vb", false, false, None),
            ("tun", false, false, None),
        ]
    );
}

fn check_addresses(found: &[unmasq_model::link::Address]) {
    let shown: Vec<_> = found
        .iter()
        .map(|a| {
            let flags = [a.secondary, a.deprecated, a.tentative, a.temporary];
            (a.local.to_string(), a.network().unwrap().to_string(), a.scope.0, flags)
        })
        .collect();
    let expected = [
        ("10.3.0.1", "10.3.0.0/24", 100, [false, true, false, false]),
        ("10.2.0.1", "10.2.0.9/32", 0, [false; 4]),
        ("10.1.0.2", "10.1.0.0/25", 0, [true, false, false, false]),
        ("fd00:1::9", "fd00:1::/64", 0, [false, false, true, false]),
        ("fd00:1::8", "fd00:1::/64", 0, [false; 4]),
        ("fd00:1::7", "fd00:1::/64", 0, [false, false, true, false]),
        ("fd00:1::6", "fd00:1::/64", 200, [false, false, false, true]),
    ];
    let expected = expected.map(|(a, n, scope, flags)| (a.to_owned(), n.to_owned(), scope, flags));
    assert_eq!(shown, expected);
}

#[test]
fn neighbours_and_forwarding_entries() {
    let text = r#"[{"dst":"10.1.0.56","dev":"veth0","state":["INCOMPLETE"]},
        {"dst":"10.1.0.77","dev":"veth1","lladdr":"02:00:00:00:00:77","state":["PERMANENT"]},
        {"dst":"x","dev":"veth1"}]"#;
    let (found, diagnostics) = neighbours(text, FILE);
    let shown: Vec<_> = found
        .unwrap()
        .into_iter()
        .map(|n| (n.address.to_string(), n.device.to_string(), n.mac.map(String::from)))
        .collect();
    assert_eq!(
        shown,
        [
            ("10.1.0.56".to_owned(), "veth0".to_owned(), None),
            ("10.1.0.77".to_owned(), "veth1".to_owned(), Some("02:00:00:00:00:77".to_owned())),
        ]
    );
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].origin, Origin::new(FILE, 3));

    let text = r#"[{"mac":"02:00:00:00:00:56","ifname":"veth1","flags":[],"master":"br0","state":"static"},
        {"mac":"02:00:00:00:00:55","ifname":"vx0","dst":"10.1.0.55","flags":["self"],"state":"permanent"}]"#;
    let (found, diagnostics) = fdb(text, FILE);
    assert_eq!(diagnostics, []);
    let shown: Vec<_> = found
        .unwrap()
        .into_iter()
        .map(|e| (e.mac.to_string(), e.device.to_string(), e.master.map(String::from)))
        .collect();
    assert_eq!(
        shown,
        [
            ("02:00:00:00:00:56".to_owned(), "veth1".to_owned(), Some("br0".to_owned())),
            ("02:00:00:00:00:55".to_owned(), "vx0".to_owned(), None),
        ]
    );
}

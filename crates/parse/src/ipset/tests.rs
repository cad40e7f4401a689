use unmasq_model::ipset::{Content, Flags, HashKind, HashSet};
use unmasq_model::origin::FileId;
use unmasq_model::packet::Family;

use super::parse;

fn hash(text: &str) -> HashSet {
    let (mut sets, diagnostics) = parse(text, FileId(2));
    assert_eq!(diagnostics, [], "{text}");
    let (_, set) = sets.pop_first().expect("a set");
    assert_eq!(set.opaque, None, "{text}");
    match set.content {
        Content::Hash(set) => set,
        other => panic!("{text}: {other:?}"),
    }
}

/// The elements, written as `first protocol:port second flags`.
fn elements(set: &HashSet) -> Vec<String> {
    let line = |(element, flags): (&unmasq_model::ipset::Element, Flags)| {
        let mut text = element.first.to_string();
        if let Some((protocol, port)) = element.port {
            text += &format!(" {protocol}:{port}");
        }
        if let Some(second) = element.second {
            text += &format!(" {second}");
        }
        text + if flags.nomatch { " nomatch" } else { "" }
            + if flags.expires { " expires" } else { "" }
    };
    set.iter().map(line).collect()
}

/// As ipset 7.17 writes it after `create`, but for what is made by hand where said.
#[test]
fn elements_of_hash_types() {
    let v4 = "family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x4fb0ef4a";
    let v6 = "family inet6 hashsize 1024 maxelem 65536 bucketsize 12 initval 0x274c6cdd";
    /// Type with its model, options, elements as written and as read.
    type Case<'a> = (&'a str, HashKind, Family, &'a str, &'a [&'a str], &'a [&'a str]);
    let cases: [Case<'_>; 10] = [
        ("hash:ip", HashKind::Ip, Family::V4, v4, &["10.0.0.1"], &["10.0.0.1/32"]),
        ("hash:ip", HashKind::Ip, Family::V6, v6, &["fd00::1"], &["fd00::1/128"]),
        (
            "hash:net",
            HashKind::Net,
            Family::V4,
            v4,
            &["0.0.0.0/1", "128.0.0.0/1", "10.0.0.5", "10.1.0.0/16 nomatch", "0.0.0.0/0"],
            &["0.0.0.0/0", "0.0.0.0/1", "10.0.0.5/32", "10.1.0.0/16 nomatch", "128.0.0.0/1"],
        ),
        ("hash:net", HashKind::Net, Family::V6, v6, &["fd00:1::/64"], &["fd00:1::/64"]),
        (
            "hash:ip,port",
            HashKind::IpPort,
            Family::V4,
            v4,
            &[
                "10.0.0.1,tcp:80",
                "10.0.0.2,udplite:7",
                "10.0.0.3,gre:0",
                "10.0.0.4,253:0",
                "10.0.0.5,icmp:echo-request",
                "10.0.0.6,icmp:ip-header-bad",
                "10.0.0.7,icmp:200/9",
                "10.0.0.8,sctp:9",
            ],
            &[
                "10.0.0.1/32 tcp:80",
                "10.0.0.2/32 udplite:7",
                "10.0.0.3/32 47:0",
                "10.0.0.4/32 253:0",
                "10.0.0.5/32 icmp:2048",
                "10.0.0.6/32 icmp:3072",
                "10.0.0.7/32 icmp:51209",
                "10.0.0.8/32 sctp:9",
            ],
        ),
        (
            "hash:ip,port",
            HashKind::IpPort,
            Family::V6,
            v6,
            &["fd::1,ipv6-icmp:echo-request", "fd::2,ipv6-icmp:1/3", "fd::3,udp:53"],
            &["fd::1/128 icmpv6:32768", "fd::2/128 icmpv6:259", "fd::3/128 udp:53"],
        ),
        (
            "hash:ip,port,ip",
            HashKind::IpPortIp,
            Family::V4,
            v4,
            &["10.0.0.1,tcp:80,10.0.0.2"],
            &["10.0.0.1/32 tcp:80 10.0.0.2/32"],
        ),
        (
            "hash:ip,port,net",
            HashKind::IpPortNet,
            Family::V4,
            v4,
            &["10.0.0.1,udp:53,10.9.0.0/16", "10.0.0.1,tcp:80,5.5.5.5"],
            &["10.0.0.1/32 tcp:80 5.5.5.5/32", "10.0.0.1/32 udp:53 10.9.0.0/16"],
        ),
        // By hand: ipset spreads these when it adds them.
        (
            "hash:ip",
            HashKind::Ip,
            Family::V4,
            "",
            &["10.0.0.4/31", "10.0.1.1-10.0.1.3"],
            &["10.0.0.4/32", "10.0.0.5/32", "10.0.1.1/32", "10.0.1.2/32", "10.0.1.3/32"],
        ),
        (
            "hash:net",
            HashKind::Net,
            Family::V4,
            "",
            &["10.0.0.2-10.0.0.7"],
            &["10.0.0.2/31", "10.0.0.4/30"],
        ),
    ];
    for (name, kind, family, options, added, expected) in cases {
        let mut text = format!("create s {name} {options}\n");
        added.iter().for_each(|element| text += &format!("add s {element}\n"));
        let set = hash(&text);
        assert_eq!((set.kind, set.family, set.netmask), (kind, family, None), "{text}");
        assert_eq!(elements(&set), expected, "{text}");
    }
    let ports = hash("create s hash:ip,port\nadd s 10.0.0.1,8080\nadd s 10.0.0.2,udp:5-6\n");
    assert_eq!(
        elements(&ports),
        ["10.0.0.1/32 tcp:8080", "10.0.0.2/32 udp:5", "10.0.0.2/32 udp:6"]
    );
}

#[test]
fn options_of_sets_and_elements() {
    let set = hash("create nm hash:ip family inet netmask 24 bucketsize 12\nadd nm 10.0.1.0\n");
    assert_eq!((set.netmask, elements(&set)), (Some(24), vec!["10.0.1.0/24".to_owned()]));

    let create = "create s hash:net family inet maxelem 9 timeout 300 counters comment skbinfo\n";
    let cases = [
        ("add s 10.0.0.0/8", "10.0.0.0/8 expires"),
        ("add s 10.0.0.0/8 timeout 0 packets 5 bytes 6", "10.0.0.0/8"),
        (
            "add s 10.0.0.0/8 timeout 7 nomatch comment \"nomatch it\" skbmark 0x1/0x1",
            "10.0.0.0/8 nomatch expires",
        ),
        ("add s 10.0.0.0/8 timeout 0 comment \" timeout 5 nomatch\"", "10.0.0.0/8"),
        ("add s 10.0.0.0/8 timeout 0 comment \"one\" nomatch", "10.0.0.0/8 nomatch"),
    ];
    for (add, expected) in cases {
        assert_eq!(elements(&hash(&format!("{create}{add}\n"))), [expected], "{add}");
    }
}

#[test]
fn the_other_types() {
    let (sets, diagnostics) = parse(
        "create bp bitmap:port range 0-1000\nadd bp 5\nadd bp 7-8\nadd bp tcp:9 timeout 4\n\
         create ls list:set size 8 timeout 50\nadd ls bp timeout 0\nadd ls x timeout 49\n\
         create hni hash:net,iface family inet\nadd hni 10.0.0.0/8,eth0\n\
         create bmk hash:ip family inet bitmask 255.0.255.0\nadd bmk 10.0.7.0\n",
        FileId(2),
    );
    let found: Vec<_> = diagnostics.iter().map(|d| (d.origin.line, &*d.message)).collect();
    assert_eq!(
        found,
        [
            (7, "element x of set ls can't be read"),
            (10, "set bmk has options that are not understood"),
        ]
    );
    let Content::BitmapPort(ports) = &sets["bp"].content else { panic!("{sets:?}") };
    assert_eq!(ports.keys().copied().collect::<Vec<_>>(), [5, 7, 8, 9]);
    assert_eq!(ports[&9], Flags { nomatch: false, expires: true });
    assert_eq!(sets["ls"].content, Content::List(vec!["bp".into()]));
    // A member that may go: what is not in the others may still be in the list.
    assert_eq!(sets["ls"].opaque.as_ref().map(|o| &*o.text), Some("add ls x timeout 49"));
    for (name, line) in [("hni", 8), ("bmk", 10)] {
        assert!(matches!(sets[name].content, Content::Opaque(_)), "{name}");
        assert_eq!((sets[name].origin.line, &sets[name].opaque), (line, &None));
    }
}

#[test]
fn a_malformed_line_costs_that_line() {
    let (sets, diagnostics) = parse(
        "create s hash:ip\n\
         add s 10.0.0.1\n\
         add s 10.0.0.x\n\
         add other 10.0.0.2\n\
         create s hash:net\n\
         swap s t\n\
         add s\n\
         add s fd00::1\n\
         add s 10.0.0.0/8\n\
         add s 10.0.0.2 surprise\n\
         # remark\n\n\
         add s 10.0.0.3 comment \"open\n\
         add s 10.0.0.4\n",
        FileId(2),
    );
    let lines: Vec<u32> = diagnostics.iter().map(|d| d.origin.line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10, 13]);
    let set = &sets["s"];
    assert_eq!(set.opaque.as_ref().map(|opaque| &*opaque.text), Some("add s 10.0.0.x"));
    let Content::Hash(hash) = &set.content else { panic!("{set:?}") };
    assert_eq!(elements(hash), ["10.0.0.1/32", "10.0.0.4/32"]);
}

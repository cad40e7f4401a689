//! A rule is planted on every node of a capture that loses no client otherwise, and is about some
//! source, pod or port only: the audit must come upon it, or say what it didn't ask.

#![allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

mod captured;

use std::collections::BTreeMap;
use std::path::Path;

use unmasq_audit::expect::Expectations;
use unmasq_audit::matrix::{Client, Entry, Fate, Row};
use unmasq_audit::{Audit, Owner, Request, audit};
use unmasq_cluster::{Cluster, Overrides, read};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// canal-rke, whose pool is switched off: no source of a client is lost.
fn mended() -> BTreeMap<String, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/canal-rke");
    let mut files = captured::files(&root);
    for node in NODES {
        change(&mut files, &format!("nodes/{node}/iptables-save"), |text| {
            let kept = text.lines().filter(|line| !line.starts_with("-A cali-nat-outgoing"));
            kept.map(|line| format!("{line}\n")).collect()
        });
    }
    change(&mut files, "kubernetes/ippools.crd.projectcalico.org.json", |text| {
        text.replace("\"natOutgoing\": true", "\"natOutgoing\": false")
    });
    files
}

fn change(
    files: &mut BTreeMap<String, Vec<u8>>,
    name: &str,
    change: impl FnOnce(String) -> String,
) {
    let file = files.get_mut(name).unwrap();
    let text = String::from_utf8(file.clone()).unwrap();
    *file = change(text).into_bytes();
}

fn audited(files: BTreeMap<String, Vec<u8>>) -> Audit {
    let contents = read::capture(&files).unwrap();
    let cluster = Cluster::of(contents, Overrides::default());
    audit(&cluster, &Expectations::default(), Request::default(), &|_, _| {})
}

/// With a rule before all others of the nat table's POSTROUTING, lines before it in mangle's
/// PREROUTING, and a set.
fn planted(rule: &str, marking: &str, set: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = mended();
    for node in NODES {
        change(&mut files, &format!("nodes/{node}/iptables-save"), |text| {
            let first = "-A POSTROUTING";
            let (before, nat) = text.split_once("*nat\n").unwrap();
            let nat = nat.replacen(first, &format!("-A POSTROUTING {rule}\n{first}"), 1);
            let before = before.replacen("COMMIT", &format!("{marking}COMMIT"), 1);
            assert!(before.starts_with("# ") && before.contains("*mangle"));
            format!("{before}*nat\n{nat}")
        });
        change(&mut files, &format!("nodes/{node}/ipset.save"), |text| format!("{text}{set}"));
    }
    files
}

/// How many answers are rewritten by a rule that nobody known wrote.
fn rewritten(audit: &Audit) -> usize {
    let by_planted = |fate: &Fate| match fate {
        Fate::Rewritten(causes) => {
            causes.iter().any(|cause| matches!(cause.owner, Owner::Unclaimed | Owner::KlipperLb))
        }
        Fate::Preserved
        | Fate::NoAnswer(_)
        | Fate::Dropped(_)
        | Fate::Rejected(_)
        | Fate::Lost
        | Fate::Unknown(_) => false,
    };
    audit.matrix.rows.iter().filter(|row| by_planted(&row.cell.fate)).map(|row| row.count).sum()
}

/// Without Kubernetes objects, those on a host's bridges call.
#[test]
fn a_host_alone_is_asked_for_what_is_on_its_bridges() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flannel-host");
    let mut files = captured::files(&root);
    files.retain(|name, _| name.starts_with("nodes/hdss7-21/") || name == "capture.json");
    let audit = audited(files);
    let outside = |row: &&Row| row.cell.entry == Entry::Outside && row.cell.client == Client::Pod;
    let fates = audit.matrix.rows.iter().filter(outside).map(|row| &row.cell.fate);
    let fates: Vec<&Fate> = fates.collect();
    assert!(matches!(fates[..], [Fate::Rewritten(_)]), "{fates:?}");
    let stands_in = |one: &String| one.contains("docker0 (172.7.21.0/24)");
    assert!(audit.assumptions.iter().any(stands_in), "{:?}", audit.assumptions);
}

#[test]
fn nothing_is_planted() {
    let audit = audited(mended());
    assert_eq!(rewritten(&audit), 0);
    assert_eq!(audit.hidden, [""; 0]);
}

#[test]
fn a_rule_about_some_source_pod_or_port_is_found() {
    let hash = |elements: &[&str]| {
        let lines = elements.iter().map(|one| format!("add bad {one}\n"));
        format!("create bad hash:ip family inet\n{}", lines.collect::<String>())
    };
    let marks = "-A PREROUTING -s 198.51.100.0/24 -j MARK --set-xmark 0x77/0xff\n";
    let in_two = "-A PREROUTING -s 198.51.100.7/32 -j MARK --set-xmark 0x100/0x100\n\
                  -A PREROUTING -m mark --mark 0x100/0x100 -j MARK --set-xmark 0x77/0xff\n";
    let saved = "-A PREROUTING -s 198.51.100.0/24 -j CONNMARK --set-xmark 0x77/0xff\n\
                 -A PREROUTING -j CONNMARK --restore-mark\n";
    for (rule, marking, set) in [
        ("-s 198.51.100.0/24", "", ""),
        ("-m iprange --src-range 198.51.100.10-198.51.100.21", "", ""),
        ("-m set --match-set bad src", "", &*hash(&["198.51.100.7"])),
        ("-m set --match-set bad src", "", &*hash(&["10.42.1.3", "198.51.100.7"])),
        ("-m set --match-set bad src", "", &*hash(&["10.42.1.3"])),
        ("-m conntrack --ctorigsrc 198.51.100.0/24", "", ""),
        ("-m mark --mark 0x77/0xff", marks, ""),
        ("-m mark --mark 0x77/0xff", in_two, ""),
        ("-m mark --mark 0x77/0xff", saved, ""),
        ("-s 10.42.1.3/32", "", ""),
        ("-d 10.42.1.3/32", "", ""),
        ("-s 10.42.1.99/32", "", ""),
        ("-s 10.42.1.3/32 -d 10.42.2.3/32 -p tcp -m tcp --dport 9999", "", ""),
        ("-d 10.42.1.2/32 -p tcp -m tcp --dport 9999", "", ""),
        ("-p tcp -m multiport --dports 9999,9997", "", ""),
        ("-s 198.51.100.0/24 -p udp -m udp --dport 9999", "", ""),
        ("-d 10.42.0.0/16 -p udp", "", ""),
    ] {
        let audit = audited(planted(&format!("{rule} -j MASQUERADE"), marking, set));
        assert!(rewritten(&audit) > 0, "{rule}: {:?}", audit.hidden);
        assert!(audit.hidden.is_empty(), "{rule}: {:?}", audit.hidden);
    }
}

#[test]
fn a_native_rule_about_a_set_of_sources_is_found() {
    let prefix =
        |address: &str, len: u8| format!(r#"{{"prefix": {{"addr": "{address}", "len": {len}}}}}"#);
    let some = format!(r#"{{"set": [{}, {}]}}"#, prefix("192.0.2.0", 24), prefix("10.42.1.3", 32));
    for right in ["\"@lan\"", &some] {
        let mut files = mended();
        for node in NODES {
            let more = format!(
                r#", {{"table": {{"family": "ip", "name": "own", "handle": 90}}}},
                {{"set": {{"family": "ip", "name": "lan", "table": "own", "type": "ipv4_addr",
                  "handle": 1, "elem": ["198.51.100.7", "198.51.100.9"]}}}},
                {{"chain": {{"family": "ip", "table": "own", "name": "post", "handle": 2,
                  "type": "nat", "hook": "postrouting", "prio": 90, "policy": "accept"}}}},
                {{"rule": {{"family": "ip", "table": "own", "chain": "post", "handle": 3, "expr": [
                  {{"match": {{"op": "==", "left": {{"payload": {{"protocol": "ip", "field":
                    "saddr"}}}}, "right": {right}}}}}, {{"masquerade": null}}]}}}}]}}"#
            );
            change(&mut files, &format!("nodes/{node}/nft.json"), |text| {
                format!("{}{more}\n", text.trim_end().strip_suffix("]}").unwrap())
            });
        }
        let audit = audited(files);
        assert!(rewritten(&audit) > 0, "{right}: {:?}", audit.hidden);
        assert!(audit.hidden.is_empty(), "{right}: {:?}", audit.hidden);
    }
}

/// What isn't asked is said, and then nobody is told that all is well.
#[test]
fn what_is_not_asked_is_said() {
    let ports: Vec<String> = (9000..9015).map(|port| port.to_string()).collect();
    let many = format!("-p tcp -m multiport --dports {}", ports.join(","));
    for (rule, expected) in [
        (
            "! -s 203.0.113.0/24",
            "whose source these rules are about can't be told, so nobody was asked for them: \
             ! -s 203.0.113.0/24 -j MASQUERADE on n1",
        ),
        (
            "-d 10.42.1.99/32",
            "calls to these addresses of pods' networks, which rules name, were not asked, as no \
             captured pod has them: 10.42.1.99",
        ),
        (
            &*many,
            "calls to these pods and ports, which rules name, were not asked: any pod port \
             9008/tcp, any pod port 9009/tcp, any pod port 9010/tcp, any pod port 9011/tcp, any \
             pod port 9012/tcp, any pod port 9013/tcp, any pod port 9014/tcp",
        ),
    ] {
        let audit = audited(planted(&format!("{rule} -j MASQUERADE"), "", ""));
        assert_eq!(audit.hidden, [expected], "{rule}");
        assert!(audit.in_doubt());
    }
}

/// Each network of a policy is a question for every Service.
#[test]
fn a_policy_with_very_many_networks() {
    let blocks: Vec<String> =
        (0..40).map(|number| format!("{{ipBlock: {{cidr: 198.18.{number}.0/24}}}}")).collect();
    let policy = format!(
        "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {{name: p, namespace: \
         default}}\nspec:\n  podSelector: {{}}\n  ingress: [{{from: [{}]}}]\n",
        blocks.join(", ")
    );
    let mut files = mended();
    files.insert("kubernetes/policy.yaml".to_owned(), policy.into_bytes());
    let audit = audited(files);
    let [told] = &audit.hidden[..] else { panic!("{:?}", audit.hidden) };
    assert!(
        told.starts_with(
            "clients of these networks, which settings name, were not asked: 198.18.16.0/24"
        ),
        "{told}"
    );
    assert!(told.ends_with("198.18.27.0/24, and 12 more"), "{told}");
}

//! Collects in fresh network namespaces: nothing is changed by it, and everything is seen.
//!
//! A test that can't run here is ignored with its reason, never passed.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Trial};
use unmasq_host::collect::{Collected, Options, Step, collect};
use unmasq_host::{capture, live};
use unmasq_model::host::Seen;
use unmasq_model::ruleset::{Backend, TableFamily};
use unmasq_parse::capture::{Node, Status};

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tests: [Test; 3] = [
        ("an_empty_namespace_stays_empty", an_empty_namespace_stays_empty),
        ("rules_of_all_back_ends_are_seen_and_kept", rules_of_all_back_ends_are_seen_and_kept),
        ("a_missing_namespace_file_is_an_error", a_missing_namespace_file_is_an_error),
    ];
    let obstacle = obstacle();
    let trial = |(name, test): Test| {
        let obstacle = obstacle.clone();
        Trial::ignorable_test(name, move || {
            if let Some(reason) = obstacle {
                return Ok(Completion::ignored_with(reason));
            }
            test();
            Ok(Completion::Completed)
        })
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

/// Why the tests can't run here.
fn obstacle() -> Option<String> {
    let tools = [
        "unshare",
        "nsenter",
        "sleep",
        "ip",
        "bridge",
        "tc",
        "nft",
        "ipset",
        "iptables-nft-save",
        "ip6tables-nft-save",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
    ];
    let missing: Vec<&str> = tools.into_iter().filter(|tool| !installed(tool)).collect();
    if !missing.is_empty() {
        return Some(format!("not installed: {}", missing.join(", ")));
    }
    let output = Command::new("unshare").args(["-n", "true"]).output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

fn installed(tool: &str) -> bool {
    let folders = std::env::var("PATH").unwrap_or_default();
    folders.split(':').any(|folder| PathBuf::from(folder).join(tool).is_file())
}

/// A network namespace that lives as long as this.
struct Namespace(Child);

impl Namespace {
    fn new() -> Namespace {
        let child = Command::new("unshare")
            .args(["-n", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let namespace = Namespace(child);
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let start = Instant::now();
        while fs::read_link(namespace.path()).is_ok_and(|link| link == own) {
            assert!(start.elapsed() < Duration::from_secs(10), "unshare made no namespace");
            std::thread::sleep(Duration::from_millis(2));
        }
        namespace
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    /// What a script writes inside; it must succeed.
    fn script(&self, script: &str) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path().display()))
            .args(["sh", "-ec", script])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// All that collecting could change by accident.
    fn snapshot(&self) -> String {
        let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
        let mut modules: Vec<&str> =
            modules.lines().filter_map(|line| line.split(' ').next()).collect();
        modules.sort_unstable();
        let state = self.script(
            "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null || true
            nft list ruleset
            nft list hooks 2>/dev/null || true
            ipset list -t
            tc qdisc show
            ip -d link
            ip rule
            ip -6 rule
            ip route show table all
            sort /proc/net/protocols | cut -d' ' -f1",
        );
        format!("{modules:?}\n{state}")
    }

    fn collect(&self) -> Collected {
        collect(&self.options()).unwrap()
    }

    fn options(&self) -> Options {
        let node = Some("n1".to_owned());
        Options { node, netns: Some(self.path()), connections: true, ..Options::default() }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It ends by itself if this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn statuses(collected: &Collected) -> BTreeMap<&str, Status> {
    collected.report.iter().map(|step| (step.file.as_str(), step.status)).collect()
}

/// bpftool is in few distributions' own images: without it, that must be told.
fn assert_nothing_failed(collected: &Collected) {
    let failed: Vec<_> =
        collected.report.iter().filter(|step| step.status == Status::Failed).collect();
    let (without_tool, others): (Vec<&Step>, Vec<&Step>) =
        failed.into_iter().partition(|step| step.file == "bpf" && !installed("bpftool"));
    assert!(others.is_empty(), "{others:?}");
    for step in without_tool {
        let expected = "bpftool was not found: install the package bpftool";
        assert_eq!(step.detail, expected);
    }
}

/// The collected node; what was collected can be written, read and parsed without loss.
fn parsed(collected: &Collected) -> Node {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("capture.tar.zst");
    capture::write(&path, &collected.files).unwrap();
    let files = capture::read(&path).unwrap();
    assert_eq!(files, collected.files);
    let node = unmasq_parse::capture::parse(&files).unwrap().node("n1").unwrap();
    assert_no_diagnostics(&node);
    node
}

/// But for what could not be collected without bpftool.
fn assert_no_diagnostics(node: &Node) {
    let others: Vec<_> =
        node.diagnostics.iter().filter(|found| !found.message.contains("/bpf: ")).collect();
    assert!(others.is_empty(), "{others:?}");
}

fn an_empty_namespace_stays_empty() {
    let namespace = Namespace::new();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let before = namespace.snapshot();
    let collected = namespace.collect();
    assert_eq!(namespace.snapshot(), before);
    assert_eq!(fs::read_link("/proc/self/ns/net").unwrap(), own);

    let statuses = statuses(&collected);
    assert_nothing_failed(&collected);
    for file in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        assert_eq!(statuses[file], Status::Absent, "{file}");
    }
    for file in ["nft.json", "ip-addr.json", "ip-route.json", "ip-rule.json", "sysctl", "tc"] {
        assert_eq!(statuses[file], Status::Collected, "{file}");
    }
    assert!(!collected.files.keys().any(|path| path.contains("/files/")));

    let host = parsed(&collected).host;
    let backends = &host.backends;
    for seen in [
        &backends.nft,
        &backends.iptables_nft,
        &backends.ip6tables_nft,
        &backends.iptables_legacy,
        &backends.ip6tables_legacy,
    ] {
        assert_eq!(*seen, Seen::Captured);
    }
    assert!(host.ruleset.tables.is_empty());
    assert_eq!(host.ipsets, Some(BTreeMap::new()));
    let links = host.links.unwrap();
    assert!(links.iter().any(|link| link.loopback && !link.up));
    assert_eq!(host.rules4.map(|rules| rules.len()), Some(3));
    assert!(host.beyond.tc == Some(Vec::new()) && host.beyond.xfrm == Some(Vec::new()));
    // Without the tool that lists them nobody knows whether there are programs.
    match statuses["bpf"] {
        Status::Failed => assert_eq!(host.beyond.bpf, None),
        Status::Collected | Status::Absent => assert!(host.beyond.bpf.is_some()),
    }
}

const STATE: &str = "
    ip link set lo up
    ip link add eth0.7 type veth peer name peer
    ip addr add 192.0.2.1/24 dev eth0.7
    ip link set eth0.7 up
    ip link set peer up
    ip route add 198.51.100.0/24 via 192.0.2.9
    ip rule add from 203.0.113.0/24 table 77 priority 50
    echo 2 > /proc/sys/net/ipv4/conf/eth0.7/rp_filter
    tc qdisc add dev eth0.7 clsact
    ipset create clients hash:ip
    ipset add clients 192.0.2.5
    iptables-nft -t nat -A POSTROUTING -s 192.0.2.0/24 -m comment --comment one -j MASQUERADE
    ip6tables-nft -A FORWARD -s fd00::/64 -j DROP
    iptables-legacy -t mangle -A PREROUTING -m set --match-set clients src -j MARK --set-mark 7
    ip6tables-legacy -t raw -A PREROUTING -j NOTRACK
    nft add table inet own
    nft add chain inet own post '{ type nat hook postrouting priority 90; }'
    nft add rule inet own post ip saddr 192.0.2.7 snat ip to 192.0.2.1
";

fn rules_of_all_back_ends_are_seen_and_kept() {
    let namespace = Namespace::new();
    namespace.script(STATE);
    let before = namespace.snapshot();
    let collected = namespace.collect();
    assert_eq!(namespace.snapshot(), before);
    assert_nothing_failed(&collected);

    let node = parsed(&collected);
    let host = &node.host;
    let rules = |backend, family, name: &str| -> Vec<&str> {
        let mut tables = host.ruleset.tables.iter().filter(|table| {
            table.backend == backend && table.family == family && *table.name == *name
        });
        let table = tables.next().unwrap_or_else(|| panic!("no {backend:?} {family} {name}"));
        assert_eq!(tables.next(), None, "{backend:?} {family} {name} twice");
        table.chains.iter().flat_map(|chain| &chain.rules).map(|rule| &*rule.text).collect()
    };
    let cases = [
        (Backend::IptablesNft, TableFamily::Ip, "nat", "--comment one -j MASQUERADE"),
        (Backend::IptablesNft, TableFamily::Ip6, "filter", "-A FORWARD -s fd00::/64 -j DROP"),
        (Backend::Legacy, TableFamily::Ip, "mangle", "--match-set clients src"),
        (Backend::Legacy, TableFamily::Ip6, "raw", "NOTRACK"),
        (Backend::Nft, TableFamily::Inet, "own", "ip saddr 192.0.2.7 snat"),
    ];
    for (backend, family, table, expected) in cases {
        let found = rules(backend, family, table);
        assert_eq!(found.len(), 1, "{backend:?} {family} {table}");
        assert!(found[0].contains(expected), "{} has no {expected}", found[0]);
    }
    assert_eq!(host.ruleset.tables.len(), cases.len());
    assert!(host.ipsets.as_ref().is_some_and(|sets| sets.contains_key("clients")));
    let device = host.link("eth0.7").unwrap();
    assert!(device.up && device.addresses.iter().any(|a| a.local.to_string() == "192.0.2.1"));
    let routes = host.routes4.as_ref().unwrap();
    assert!(routes.iter().any(|route| route.destination.to_string() == "198.51.100.0/24"));
    assert!(host.rules4.as_ref().is_some_and(|rules| rules.iter().any(|r| r.priority == 50)));
    let sysctls = host.sysctls.as_ref().unwrap();
    assert_eq!(sysctls.device("ipv4", "eth0.7", "rp_filter"), Some(2));

    let again = live(&namespace.options()).unwrap().node;
    assert_eq!(again.host.ruleset, host.ruleset);
    assert_no_diagnostics(&again);
}

fn a_missing_namespace_file_is_an_error() {
    let options = Options { netns: Some("/proc/self/ns/mnt".into()), ..Options::default() };
    let message = collect(&options).unwrap_err().to_string();
    let expected = "the network namespace /proc/self/ns/mnt can't be entered";
    assert!(message.starts_with(expected), "{message}");
}

//! What the kernel's own lists say: rules, sets, devices, routes, and what no ruleset shows.

use std::collections::BTreeMap;
use std::path::Path;

use unmasq_parse::capture::Status;

use super::command::{Failure, Output};
use super::kernel::{Facility, loaded_modules};
use super::recorder::Recorder;

/// The namespace's files in /proc. `/proc/net` would be those of the process, and a thread may be
/// in another namespace.
const PROC_NET: &str = "/proc/thread-self/net";

/// A modprobe that loads nothing.
const NO_MODPROBE: &str = "--modprobe=/bin/true";

/// iptables, nftables, ipset.
pub(super) fn rules(recorder: &mut Recorder) {
    for iptables in ["iptables", "ip6tables"] {
        iptables_nft(recorder, iptables);
        iptables_legacy(recorder, iptables);
    }
    let nft = [Facility::NfTables];
    recorder.command_with(&nft, "nft.json", &["nft", "-j", "list", "ruleset"]);
    recorder.command_with(&nft, "nft.txt", &["nft", "-a", "list", "ruleset"]);
    recorder.command_with(&[Facility::IpSet], "ipset.save", &["ipset", "save"]);
}

/// Devices, addresses, routes, policy rules, neighbours.
pub(super) fn routing(recorder: &mut Recorder) {
    recorder.command("ip-addr.json", &["ip", "-j", "-d", "addr"]);
    recorder.command("ip-link.json", &["ip", "-j", "-d", "link"]);
    let route = ["-j", "-d", "route", "show", "table", "all"];
    recorder.command("ip-route.json", &[&["ip", "-4"], &route[..]].concat());
    recorder.command("ip-rule.json", &["ip", "-4", "-j", "rule"]);
    let ipv6 = [("ip6-route.json", &route[..]), ("ip6-rule.json", &["-j", "rule"])];
    for (file, arguments) in ipv6 {
        let arguments = [&["ip", "-6"], arguments].concat();
        if Path::new("/proc/sys/net/ipv6").exists() {
            recorder.command(file, &arguments);
        } else {
            let why = "the kernel has no IPv6".to_owned();
            recorder.step(file, &arguments.join(" "), Status::Absent, why);
        }
    }
    recorder.command("ip-neigh.json", &["ip", "-j", "neigh"]);
    recorder.command("bridge-fdb.json", &["bridge", "-j", "fdb"]);
}

/// tc, BPF, IPVS, IPsec.
pub(super) fn beyond(recorder: &mut Recorder) {
    traffic_control(recorder);
    bpf(recorder);
    let ipvs = Path::new(PROC_NET).join("ip_vs");
    recorder.copy("ipvs", &ipvs, "the kernel has no IPVS loaded");
    recorder.command_with(&[Facility::Xfrm], "xfrm", &["ip", "xfrm", "policy"]);
}

/// Connections. The kernel may show them in /proc; else conntrack(8) is asked.
pub(super) fn connections(recorder: &mut Recorder) {
    let proc = Path::new(PROC_NET).join("nf_conntrack");
    if proc.exists() {
        recorder.copy("conntrack", &proc, "");
    } else {
        let conntrack = ["conntrack", "-L", "-o", "extended"];
        recorder.command_with(&[Facility::Conntrack], "conntrack", &conntrack);
    }
}

/// iptables-nft-save asks the kernel about each extension that it prints (NFNL_MSG_COMPAT_GET), and
/// the kernel loads `ipt_NAME` or `ip6t_NAME` if it has no revision of it (`nfnl_compat_get_rcu` in
/// net/netfilter/nft_compat.c, `xt_find_revision` in net/netfilter/x_tables.c); the modprobe that
/// it starts is not the one on the command line. What is asked about is bounded by the rules:
///
/// - a rule with a compat expression holds its extension's module (`nft_match_select_ops` and
///   `nft_target_select_ops` in nft_compat.c take it), so that there is nothing to load;
/// - a rule that iptables-nft translated to native expressions (`-p tcp --dport`, comments) holds
///   none, and is printed by way of xt_tcpudp or xt_comment all the same. Whoever wrote it with
///   iptables-nft asked the same question then, so the module is loaded unless it was removed
///   since. If it was, or if nft wrote such a rule into a table of iptables, listing the table
///   loads it; there is no listing of its rules with their parameters that doesn't.
///
/// So the kernel's list of modules is compared, and what was loaded is told.
///
/// Without nft_compat there is no rule of iptables-nft with a match or a target of xtables, and
/// what rules there are, `nft.json` shows in full.
fn iptables_nft(recorder: &mut Recorder, iptables: &str) {
    let file = format!("{iptables}-save");
    let own = format!("{iptables}-nft-save");
    let arguments = [own.as_str(), NO_MODPROBE];
    if !recorder.may(&[Facility::NfTables, Facility::NftCompat], &file, &arguments) {
        return;
    }
    let plain = [file.as_str(), NO_MODPROBE];
    let before = loaded_modules();
    let (arguments, mut result) = match recorder.run(&arguments) {
        Err(Failure::NotFound(_)) if is_nft(recorder, &file) == Some(true) => {
            (plain, recorder.run(&plain))
        }
        result => (arguments, result),
    };
    let loaded: Vec<String> = loaded_modules().difference(&before).cloned().collect();
    if let (Ok(output), false) = (&mut result, loaded.is_empty()) {
        output.stderr += &format!(" (modules loaded meanwhile: {})", loaded.join(", "));
    }
    recorder.result(&file, &arguments, result);
}

/// The kernel names the tables that exist. Listing one that doesn't would make it.
fn iptables_legacy(recorder: &mut Recorder, iptables: &str) {
    let file = format!("{iptables}-legacy-save");
    let arguments = [file.as_str(), NO_MODPROBE];
    let names = match iptables {
        "ip6tables" => "ip6_tables_names",
        _ => "ip_tables_names",
    };
    let path = Path::new(PROC_NET).join(names);
    let (status, why) = match std::fs::read_to_string(&path) {
        Ok(names) if names.trim().is_empty() => {
            (Status::Absent, format!("{} is empty: there are no tables", path.display()))
        }
        Ok(_) => {
            let result = match recorder.run(&arguments) {
                Err(Failure::NotFound(program)) => {
                    let plain = format!("{iptables}-save");
                    match is_nft(recorder, &plain) {
                        Some(false) => recorder.run(&[plain.as_str(), NO_MODPROBE]),
                        Some(true) | None => Err(Failure::NotFound(program)),
                    }
                }
                result => result,
            };
            return recorder.result(&file, &arguments, result);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            (Status::Absent, format!("the kernel has no {}", path.display()))
        }
        Err(error) => (Status::Failed, format!("{}: {error}", path.display())),
    };
    recorder.step(&file, &arguments.join(" "), status, why);
}

/// Whether a tool is of iptables-nft, by its version; `None` if it isn't there.
fn is_nft(recorder: &Recorder, program: &str) -> Option<bool> {
    let version = recorder.run(&[program, "-V"]).ok()?;
    Some(String::from_utf8_lossy(&version.stdout).contains("nf_tables"))
}

/// Filters where a device has a place for them.
fn traffic_control(recorder: &mut Recorder) {
    let arguments = ["tc", "qdisc", "show"];
    let qdiscs = match recorder.run(&arguments) {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        failed => return recorder.result("tc", &arguments, failed),
    };
    let mut text = qdiscs.clone();
    for (device, places) in filter_places(&qdiscs) {
        for place in places {
            let arguments = ["tc", "filter", "show", "dev", device, place];
            match recorder.run(&arguments) {
                Ok(Output { stdout, .. }) => {
                    text += &format!("# {}\n", arguments.join(" "));
                    text += &String::from_utf8_lossy(&stdout);
                }
                failed => return recorder.result("tc", &arguments, failed),
            }
        }
    }
    recorder.keep("tc", "tc qdisc show; tc filter show dev …", text.into_bytes(), String::new());
}

/// BPF programs that no other command lists: on tcx and netkit devices, and in the IP hooks.
/// Nothing but bpftool shows them; a kernel without them needs none.
fn bpf(recorder: &mut Recorder) {
    let arguments = ["bpftool", "net"];
    if recorder.has_no_bpf_hooks() {
        let why = "the kernel has no BPF programs on tcx, netkit devices or IP hooks".to_owned();
        return recorder.step("bpf", &arguments.join(" "), Status::Absent, why);
    }
    let version = match recorder.run(&["bpftool", "version"]) {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        failed => return recorder.result("bpf", &arguments, failed),
    };
    if bpftool_version(&version).is_none_or(|version| version < BPFTOOL) {
        let first = version.lines().next().unwrap_or_default();
        let (major, minor) = BPFTOOL;
        let why =
            format!("{first:?} is too old to list all programs: {major}.{minor} is the first");
        return recorder.step("bpf", &arguments.join(" "), Status::Failed, why);
    }
    recorder.command("bpf", &arguments);
}

/// bpftool lists tcx since Linux 6.6, in which it is 7.3 (tools/bpf/bpftool/main.c counts from
/// libbpf's version since 6.8, which came after 5.18; before that it had the kernel's number).
const BPFTOOL: (u32, u32) = (7, 3);

/// The version in `bpftool v7.3.0`.
fn bpftool_version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.lines().next()?.split_once("bpftool v")?;
    let mut parts = version.split(['.', ' ']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Devices with queueing disciplines that take filters, and where.
fn filter_places(qdiscs: &str) -> BTreeMap<&str, Vec<&'static str>> {
    /// They have no filters.
    const WITHOUT: [&str; 8] =
        ["noqueue", "noop", "pfifo_fast", "pfifo", "bfifo", "mq", "fq", "fq_codel"];
    let mut found: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
    for line in qdiscs.lines() {
        let mut words = line.split_whitespace();
        let (Some("qdisc"), Some(kind)) = (words.next(), words.next()) else { continue };
        let Some(device) = words.skip_while(|word| *word != "dev").nth(1) else { continue };
        let places: &[&str] = match kind {
            "clsact" => &["ingress", "egress"],
            "ingress" => &["ingress"],
            _ if WITHOUT.contains(&kind) => continue,
            _ => &["root"],
        };
        let known = found.entry(device).or_default();
        known.extend(places.iter().filter(|place| !known.contains(place)).collect::<Vec<_>>());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_bpftool() {
        let cases = [
            ("bpftool v7.3.0\nusing libbpf v1.3\n", Some((7, 3))),
            ("/usr/lib/linux-tools/5.15.0-91/bpftool v5.15.131\nfeatures:\n", Some((5, 15))),
            ("bpftool v7.10.0", Some((7, 10))),
            ("WARNING: bpftool not found for kernel 6.8.0-31\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bpftool_version(text), expected, "{text}");
        }
        assert!((7, 10) > BPFTOOL && (5, 15) < BPFTOOL && (7, 2) < BPFTOOL);
    }

    #[test]
    fn devices_with_filters() {
        let text = "qdisc noqueue 0: dev lo root refcnt 2\n\
            qdisc fq_codel 0: dev eth0 root refcnt 2 limit 10240p\n\
            qdisc clsact ffff: dev eth0 parent ffff:fff1\n\
            qdisc ingress ffff: dev cali1 parent ffff:fff1 ----------------\n\
            qdisc htb 1: dev eth1 root refcnt 2 r2q 10 default 0x11\n\
            qdisc htb 2: dev eth1 parent 1:1\n";
        let expected = BTreeMap::from([
            ("cali1", vec!["ingress"]),
            ("eth0", vec!["ingress", "egress"]),
            ("eth1", vec!["root"]),
        ]);
        assert_eq!(filter_places(text), expected);
    }
}

//! What the kernel's own lists say: rules, sets, devices, routes, and what no ruleset shows.

use std::collections::BTreeMap;
use std::path::Path;

use unmasq_parse::capture::Status;

use super::command::{Failure, Output};
use super::kernel::Facility;
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
    match recorder.run(&arguments) {
        Err(Failure::NotFound(_)) if is_nft(recorder, &file) == Some(true) => {
            recorder.command(&file, &plain);
        }
        result => recorder.result(&file, &arguments, result),
    }
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

/// Filters where a device has a place for them, and BPF programs if there is a tool that lists
/// them.
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
    let mut detail = String::new();
    match recorder.run(&["bpftool", "net"]) {
        Ok(Output { stdout, .. }) => {
            text += "# bpftool net\n";
            text += &String::from_utf8_lossy(&stdout);
        }
        Err(failure) => detail = format!("BPF programs on tcx are not listed: bpftool: {failure}"),
    }
    recorder.keep("tc", "tc qdisc show; tc filter show dev …", text.into_bytes(), detail);
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

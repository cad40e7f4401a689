//! Kernel settings, read from /proc/sys and written as sysctl(8) names them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use unmasq_parse::capture::Status;

use super::recorder::Recorder;

/// Settings of each device, by family.
const OF_DEVICES: [(&str, &[&str]); 2] = [
    (
        "ipv4",
        &[
            "accept_local",
            "bc_forwarding",
            "disable_policy",
            "disable_xfrm",
            "drop_unicast_in_l2_multicast",
            "forwarding",
            "ignore_routes_with_linkdown",
            "proxy_arp",
            "route_localnet",
            "rp_filter",
            "src_valid_mark",
        ],
    ),
    (
        "ipv6",
        &[
            "addr_gen_mode",
            "disable_ipv6",
            "disable_policy",
            // Since Linux 6.17, beside forwarding.
            "force_forwarding",
            "forwarding",
            "ignore_routes_with_linkdown",
            "optimistic_dad",
            "proxy_ndp",
            "seg6_enabled",
            "use_oif_addrs_only",
            "use_optimistic",
            "use_tempaddr",
        ],
    ),
];

/// Other settings.
const SINGLE: [&str; 16] = [
    "net/ipv4/fib_multipath_hash_fields",
    "net/ipv4/fib_multipath_hash_policy",
    "net/ipv4/fib_multipath_use_neigh",
    "net/ipv4/fwmark_reflect",
    "net/ipv4/ip_default_ttl",
    "net/ipv4/ip_early_demux",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/ip_nonlocal_bind",
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv6/bindv6only",
    "net/ipv6/fib_multipath_hash_fields",
    "net/ipv6/fib_multipath_hash_policy",
    "net/ipv6/fwmark_reflect",
    "net/ipv6/ip_nonlocal_bind",
];

/// Folders of which all settings are taken.
const FOLDERS: [&str; 2] = ["net/bridge", "net/netfilter"];

/// Reads the settings.
pub(super) fn collect(recorder: &mut Recorder) {
    let text = settings(Path::new("/proc/sys"));
    let command = "sysctl -a (the settings of net that matter here)";
    if text.is_empty() {
        let why = "nothing in /proc/sys/net can be read".to_owned();
        recorder.step("sysctl", command, Status::Failed, why);
    } else {
        recorder.keep("sysctl", command, text.into_bytes(), String::new());
    }
}

fn settings(root: &Path) -> String {
    let mut text = String::new();
    for key in SINGLE {
        add(&mut text, root, key);
    }
    for folder in FOLDERS {
        for name in names(&root.join(folder)) {
            add(&mut text, root, &format!("{folder}/{name}"));
        }
    }
    for (family, settings) in OF_DEVICES {
        let folder = format!("net/{family}/conf");
        for device in names(&root.join(&folder)) {
            for setting in settings {
                add(&mut text, root, &format!("{folder}/{device}/{setting}"));
            }
        }
    }
    text
}

/// Names in a folder in order; none if there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Adds a setting, if the kernel has it. Dots of names become slashes, as slashes become dots.
fn add(text: &mut String, root: &Path, key: &str) {
    let path = root.join(key);
    if !path.is_file() {
        return;
    }
    let Ok(value) = fs::read_to_string(path) else { return };
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    let name: String = key.chars().map(swap).collect();
    // Writing into a String never fails.
    let _ = writeln!(text, "{name} = {}", value.trim_end_matches('\n'));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_sysctl() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("net/ipv4/ip_forward", "1\n"),
            ("net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("net/ipv4/conf/eth0.100/rp_filter", "2\n"),
            ("net/ipv4/conf/eth0.100/not_needed", "7\n"),
            ("net/ipv4/conf/all/rp_filter", "0\n"),
            ("net/ipv6/conf/lo/disable_ipv6", "3\n"),
            ("net/ipv6/conf/lo/force_forwarding", "5\n"),
            ("net/bridge/bridge-nf-call-iptables", "4\n"),
            ("net/netfilter/nf_log/2", "NONE\n"),
        ];
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let text = settings(root.path());
        let expected = "net.ipv4.ip_forward = 1\n\
            net.ipv4.ip_local_port_range = 32768\t60999\n\
            net.bridge.bridge-nf-call-iptables = 4\n\
            net.ipv4.conf.all.rp_filter = 0\n\
            net.ipv4.conf.eth0/100.rp_filter = 2\n\
            net.ipv6.conf.lo.disable_ipv6 = 3\n\
            net.ipv6.conf.lo.force_forwarding = 5\n";
        assert_eq!(text, expected);
    }
}

//! What changes packets and shows in no ruleset: tc and BPF programs, IPVS, IPsec policies.
//!
//! Only presence is read, a line of text for each thing; what it does stays unknown.

/// Filters by device, from `tc filter show dev … ingress` (under a line `# tc filter show dev …`,
/// or with `dev` in the line itself). Queueing disciplines only delay and drop by load; they are
/// left out.
pub(super) fn tc(text: &str) -> Vec<(Box<str>, Box<str>)> {
    let mut found: Vec<(Box<str>, String)> = Vec::new();
    let mut device = "?";
    let mut open = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with('#') {
            device = word_after(line, "dev").unwrap_or("?");
            open = false;
        } else if line.starts_with("qdisc ") {
            open = false;
        } else if open && line.starts_with([' ', '\t']) {
            if let Some((_, entry)) = found.last_mut() {
                entry.push(' ');
                entry.push_str(line.trim());
            }
        } else {
            let own = word_after(line, "dev").unwrap_or(device);
            found.push((own.into(), line.trim().to_owned()));
            open = true;
        }
    }
    found.into_iter().map(|(device, entry)| (device, entry.into())).collect()
}

/// The last section of what `bpftool net` prints (`do_show` in tools/bpf/bpftool/net.c), before
/// Linux 6.4 not yet: without it nothing is known of programs in the IP hooks.
pub(super) const BPF_NETFILTER: &str = "netfilter:";

/// Programs that `bpftool net` lists: on devices (`eth0(2) tcx/ingress …`, XDP and tc's own among
/// them), and in the IP hooks, where the program belongs to no device. Programs that take flows
/// apart (`flow_dissector:`) change no packet and are left out.
pub(super) fn bpf(text: &str) -> Vec<(Option<Box<str>>, Box<str>)> {
    let mut section = "";
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.ends_with(':') {
            section = line;
        } else if section != "flow_dissector:" {
            found.push((bpf_device(line).map(Into::into), line.into()));
        }
    }
    found
}

/// Virtual services, from `/proc/net/ip_vs` or `ipvsadm -Sn`.
pub(super) fn ipvs(text: &str) -> Vec<Box<str>> {
    const SERVICES: [&str; 5] = ["TCP ", "UDP ", "SCTP ", "FWM ", "-A "];
    let is_service = |line: &&str| SERVICES.iter().any(|service| line.starts_with(service));
    text.lines().filter(is_service).map(|line| line.trim().into()).collect()
}

/// Policies, from `ip xfrm policy`, each with its lines joined. Those of single sockets, which an
/// IKE daemon sets for itself, are left out.
pub(super) fn xfrm(text: &str) -> Vec<Box<str>> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match found.last_mut() {
            Some(policy) if line.starts_with([' ', '\t']) => {
                policy.push(' ');
                policy.push_str(line.trim());
            }
            _ => found.push(line.trim().to_owned()),
        }
    }
    found.retain(|policy| !policy.contains(" socket in ") && !policy.contains(" socket out "));
    found.into_iter().map(Into::into).collect()
}

fn word_after<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.split_whitespace().skip_while(|found| *found != word).nth(1)
}

/// `eth0` of `eth0(2) tcx/ingress cil_from_netdev prog_id 5`; bpftool may know no name.
fn bpf_device(line: &str) -> Option<&str> {
    let (name, index) = line.split_whitespace().next()?.strip_suffix(')')?.rsplit_once('(')?;
    index.parse::<u32>().ok().map(|_| name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tc_filters_by_device() {
        let text = "qdisc clsact ffff: dev eth0 parent ffff:fff1\n\
            # tc filter show dev eth0 ingress\n\
            filter protocol all pref 1 bpf chain 0 handle 0x1 cil_from_netdev.o:[tc] direct-action\n\
            # tc filter show dev eth1 egress\n\
            filter protocol ip pref 5 matchall chain 0 handle 0x1\n\
            \taction order 1: mirred (Egress Redirect to device eth9) stolen\n\
            \n\
            filter dev eth7 parent ffff: protocol ip pref 6 u32\n";
        let expected = [
            (
                "eth0",
                "filter protocol all pref 1 bpf chain 0 handle 0x1 cil_from_netdev.o:[tc] direct-action",
            ),
            (
                "eth1",
                "filter protocol ip pref 5 matchall chain 0 handle 0x1 action order 1: mirred (Egress Redirect to device eth9) stolen",
            ),
            ("eth7", "filter dev eth7 parent ffff: protocol ip pref 6 u32"),
        ];
        let found = tc(text);
        let found: Vec<_> = found.iter().map(|(device, line)| (&**device, &**line)).collect();
        assert_eq!(found, expected);
        assert!(tc("qdisc noqueue 0: dev lo root refcnt 2\n").is_empty());
    }

    #[test]
    fn bpf_programs_by_device() {
        // As tools/bpf/bpftool/net.c and link.c (netfilter_dump_plain) of Linux 6.12 print them.
        let text = "xdp:\neth1(3) driver id 11\n\n\
            tc:\n\
            eth3(12) tcx/ingress cil_from_container prog_id 5 link_id 9 \n\
            (13) netkit/peer mine prog_id 6 \n\
            eth0.7(4) clsact/egress old id 7 \n\n\
            flow_dissector:\nid 8\n\n\
            netfilter:\n\n\
            \tip prerouting prio 10 prog_id 14\n\tip6 input prio -9 flags 0x1 prog_id 15\n";
        let expected = [
            (Some("eth1"), "eth1(3) driver id 11"),
            (Some("eth3"), "eth3(12) tcx/ingress cil_from_container prog_id 5 link_id 9"),
            (None, "(13) netkit/peer mine prog_id 6"),
            (Some("eth0.7"), "eth0.7(4) clsact/egress old id 7"),
            (None, "ip prerouting prio 10 prog_id 14"),
            (None, "ip6 input prio -9 flags 0x1 prog_id 15"),
        ];
        let found = bpf(text);
        let found: Vec<_> =
            found.iter().map(|(device, line)| (device.as_deref(), &**line)).collect();
        assert_eq!(found, expected);
        assert!(bpf("xdp:\n\ntc:\n\nflow_dissector:\n\nnetfilter:\n\n").is_empty());
    }

    #[test]
    fn ipvs_services() {
        let proc = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight\n\
            TCP  0A600001:01BB rr\n  -> 0A800005:192B      Masq    1      0          0\n\
            UDP  0A60000A:0035 rr\n";
        assert_eq!(ipvs(proc), ["TCP  0A600001:01BB rr".into(), "UDP  0A60000A:0035 rr".into()]);
        let saved = "-A -t 10.96.0.1:443 -s rr\n-a -t 10.96.0.1:443 -r 10.128.0.5:6443 -m -w 1\n";
        assert_eq!(ipvs(saved), ["-A -t 10.96.0.1:443 -s rr".into()]);
    }

    #[test]
    fn xfrm_policies_without_those_of_sockets() {
        let text = "src 10.1.0.0/24 dst 10.2.0.0/24 \n\tdir out priority 3 \n\ttmpl src 1.1.1.1 dst 2.2.2.2\n\
            \t\tproto esp reqid 7 mode tunnel\nsrc 0.0.0.0/0 dst 0.0.0.0/0 \n\tsocket in priority 0 \n";
        let expected = "src 10.1.0.0/24 dst 10.2.0.0/24 dir out priority 3 \
            tmpl src 1.1.1.1 dst 2.2.2.2 proto esp reqid 7 mode tunnel";
        assert_eq!(xfrm(text), [expected.into()]);
    }
}

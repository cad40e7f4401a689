//! The CNI plugin portmap: how a pod's `hostPort` is reached by its node's addresses.
//!
//! In: a pod's addresses with its ports. Out: the rules of one family, with `snat` on and
//! `masqAll` off, which are its defaults. Its jumps in PREROUTING and OUTPUT are appended, so
//! kube-proxy's, which are inserted, come first. Not here: its nftables form, and `route_localnet`,
//! which it sets on the pod's device.

use std::net::SocketAddr;

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{Rules, Source, Table, family_of};

/// The ports of one pod.
#[derive(Debug, Clone)]
pub struct Portmap {
    /// The CNI network's name.
    pub network: String,
    /// The container's id.
    pub container: String,
    /// The pod's addresses, with the prefix lengths that they have in it.
    pub addresses: Vec<IpNet>,
    /// Its ports.
    pub ports: Vec<HostPort>,
}

/// A port of a node that is a pod's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The node's.
    pub host_port: u16,
    /// The pod's.
    pub container_port: u16,
}

impl Portmap {
    /// All rules of one family.
    pub fn rules(&self, family: Family) -> Rules {
        let mut rules = Rules::new(family);
        for address in self.addresses.iter().filter(|net| family_of(**net) == family) {
            Portmap::write_shared(&mut rules);
            self.write_own(&mut rules, *address);
        }
        rules
    }

    /// What all pods share. The mark is `markMasqBit`, 13.
    fn write_shared(rules: &mut Rules) {
        let nat = Table::Nat;
        for chain in ["CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-DNAT"] {
            rules.chain(nat, &PORTMAP, chain);
        }
        for text in [
            "-A CNI-HOSTPORT-SETMARK -m comment --comment \"CNI portfwd masquerade mark\" \
             -j MARK --set-xmark 0x2000/0x2000",
            "-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE",
            "-I POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" \
             -j CNI-HOSTPORT-MASQ",
            "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
            "-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        ] {
            rules.rule(nat, &PORTMAP, text);
        }
    }

    fn write_own(&self, rules: &mut Rules, address: IpNet) {
        let nat = Table::Nat;
        let chain = self.chain_name();
        rules.chain(nat, &PORTMAP, &chain);
        for HostPort { protocol, host_port, container_port } in &self.ports {
            let mut write = |text: String| {
                let to = format!("-p {protocol} --dport {host_port}");
                rules.rule(nat, &PORTMAP, format!("-A {chain} {to} {text}"));
            };
            write(format!("-s {address} -j CNI-HOSTPORT-SETMARK"));
            if address.addr().is_ipv4() {
                write("-s 127.0.0.1 -j CNI-HOSTPORT-SETMARK".to_owned());
            }
            let to = SocketAddr::new(address.addr(), *container_port);
            write(format!("-j DNAT --to-destination {to}"));
        }
        let comment = format!(
            "-m comment --comment \"dnat name: \\\"{}\\\" id: \\\"{}\\\"\"",
            self.network, self.container
        );
        for (protocol, ports) in self.by_protocol() {
            rules.rule(
                nat,
                &PORTMAP,
                format!(
                    "-A CNI-HOSTPORT-DNAT {comment} -m multiport -p {protocol} \
                     --destination-ports {ports} -j {chain}"
                ),
            );
        }
    }

    /// Ports by protocol, in the protocols' order; multiport takes 15 at once.
    fn by_protocol(&self) -> Vec<(&str, String)> {
        let mut protocols: Vec<&str> = self.ports.iter().map(|port| &*port.protocol).collect();
        protocols.sort_unstable();
        protocols.dedup();
        let mut lists = Vec::new();
        for protocol in protocols {
            let ports: Vec<String> = self
                .ports
                .iter()
                .filter(|port| port.protocol == protocol)
                .map(|port| port.host_port.to_string())
                .collect();
            lists.extend(ports.chunks(15).map(|some| (protocol, some.join(","))));
        }
        lists
    }

    /// `CNI-DN-` and 21 digits. Upstream's are of a SHA-512 (pkg/utils/utils.go,
    /// `FormatChainName`); these are of a SHA-256, as nothing depends on which they are.
    fn chain_name(&self) -> String {
        let text = format!("{}{}", self.network, self.container);
        let hash = hmac_sha256::Hash::hash(text.as_bytes());
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("CNI-DN-{}", &digits[..21])
    }
}

const PORTMAP: Source = Source {
    system: "portmap",
    version: "be65b5b9",
    url: "https://github.com/containernetworking/plugins/blob/be65b5b95423b436addea9d9774cfc6a1b054c13/plugins/meta/portmap/portmap_iptables.go",
};

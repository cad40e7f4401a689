//! ip-masq-agent: masquerades what goes to none of a list of networks.
//!
//! In: its configuration file. Out: its chain, `IP-MASQ-AGENT` for both families, and the jump.
//! Packets from outside meet it too: an empty list masquerades them all
//! (kubernetes-sigs/ip-masq-agent issue 65).

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{Rules, Source, Table, masquerade, of_family};

/// ip-masq-agent's settings. `--to-ports`, which is empty by default, is left out; for a while it
/// was there always (pull request 162).
#[derive(Debug, Clone)]
pub struct IpMasqAgent {
    /// `nonMasqueradeCIDRs`.
    pub non_masquerade: Vec<IpNet>,
    /// `masqLinkLocal` and `masqLinkLocalIPv6`.
    pub masquerade_link_local: bool,
    /// `--random-fully`, true by default; false also stands for versions before the flag.
    pub random_fully: bool,
}

impl Default for IpMasqAgent {
    /// What it does without a file: the private ranges of RFC 1918.
    fn default() -> Self {
        let private = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16)];
        IpMasqAgent {
            non_masquerade: private
                .map(|(address, length)| IpNet::new_assert(address.into(), length))
                .into(),
            masquerade_link_local: false,
            random_fully: true,
        }
    }
}

impl IpMasqAgent {
    /// All its rules. For IPv6 it has to be started with `--enable-ipv6`.
    pub fn rules(&self, family: Family) -> Rules {
        let mut rules = Rules::new(family);
        rules.chain(Table::Nat, &AGENT, "IP-MASQ-AGENT");
        let jump = comment(
            "ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom \
             IP-MASQ-AGENT chain",
        );
        let text = format!("{jump} -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT");
        rules.rule(Table::Nat, &AGENT, format!("-A POSTROUTING {text}"));
        let mut write =
            |text: String| rules.rule(Table::Nat, &AGENT, format!("-A IP-MASQ-AGENT {text}"));
        let link_local = match family {
            Family::V4 => "169.254.0.0/16",
            Family::V6 => "fe80::/10",
        };
        let local = comment("local traffic is not subject to MASQUERADE");
        if !self.masquerade_link_local {
            write(format!("{local} -d {link_local} -j RETURN"));
        }
        for network in of_family(&self.non_masquerade, family) {
            write(format!("{local} -d {network} -j RETURN"));
        }
        let last = comment("outbound traffic is subject to MASQUERADE (must be last in chain)");
        write(format!("{last} -j {}", masquerade(self.random_fully)));
        rules
    }
}

fn comment(text: &str) -> String {
    format!("-m comment --comment \"ip-masq-agent: {text}\"")
}

const AGENT: Source = Source {
    system: "ip-masq-agent",
    version: "0253a988",
    url: "https://github.com/kubernetes-sigs/ip-masq-agent/blob/0253a988bd13b2e00da9e42b2f3a3a18c88934db/cmd/ip-masq-agent/ip-masq-agent.go",
};

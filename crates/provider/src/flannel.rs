//! flannel: the rules by which it masquerades, of four ages, and what upgrades have left behind.
//!
//! In: the cluster's and the node's pod range. Out: its rules in nat and filter, or its nftables
//! tables.
//!
//! ```text
//!   to 0.7      no chain, no RETURN for packets to this node's pods from outside
//!   to 0.19     no chain; all rules stand in POSTROUTING itself
//!   2022        chains, jumps inserted at the top     (flannel-io/flannel pull request 1650)
//!   since 2023  chains, jumps appended                (flannel-io/flannel pull request 1725)
//! ```
//!
//! The ages at their ends are by the commits that were read, not by every release. The nftables
//! form is of 2024 and later.

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{Place, Rules, Source, Table, family_of, masquerade};

/// flannel's settings on one node, for one family.
#[derive(Debug, Clone, Copy)]
pub struct Flannel {
    /// Which flannel.
    pub form: Form,
    /// All pods, `Network`.
    pub cluster: IpNet,
    /// This node's pods, `FLANNEL_SUBNET`.
    pub node: IpNet,
    /// Whether iptables has `--random-fully`, which flannel then uses, but for
    /// [`Form::BareWithoutReturn`].
    pub random_fully: bool,
}

/// How it writes its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// nftables, with tables of its own. It makes those of both families always; one without a
    /// network has no rules and is left out here.
    Nftables,
    /// Chains of its own, jumps at the end.
    Chains,
    /// Chains of its own, jumps at the top.
    InsertedChains,
    /// Rules in POSTROUTING itself. The version that was read has them for IPv4 only.
    Bare,
    /// The same before there was a RETURN for packets to this node, and without rules in FORWARD.
    BareWithoutReturn,
}

impl Flannel {
    /// All its rules.
    pub fn rules(&self) -> Rules {
        let mut rules = Rules::new(family_of(self.cluster));
        match self.form {
            Form::Nftables => self.write_tables(&mut rules),
            Form::Chains => self.write_chains(&mut rules, "-A", &CHAINS, &self.postrouting()),
            Form::InsertedChains => {
                self.write_chains(&mut rules, "-I", &INSERTED, &self.inserted_postrouting());
            }
            Form::Bare => self.write_bare(&mut rules),
            Form::BareWithoutReturn => {
                let list = [self.within_return()].into_iter().chain(self.first_masquerades());
                self.write_first(&mut rules, list);
            }
        }
        rules
    }

    /// What [`Form::BareWithoutReturn`] leaves when it is upgraded to one that has
    /// `--random-fully`: that one deletes the rules that it would itself write, and so not these.
    /// They stand ahead of its RETURN (flannel-io/flannel issues 1167 and 1092).
    pub fn leftovers(&self) -> Rules {
        let mut rules = Rules::new(family_of(self.cluster));
        self.write_first(&mut rules, self.first_masquerades());
        rules
    }

    fn multicast(&self) -> &'static str {
        match family_of(self.cluster) {
            Family::V4 => "224.0.0.0/4",
            Family::V6 => "ff00::/8",
        }
    }

    fn within_return(&self) -> String {
        format!("-s {0} -d {0} -j RETURN", self.cluster)
    }

    fn node_return(&self) -> String {
        format!("! -s {} -d {} -j RETURN", self.cluster, self.node)
    }

    fn leaving(&self) -> String {
        let target = masquerade(self.random_fully);
        format!("-s {} ! -d {} -j {target}", self.cluster, self.multicast())
    }

    fn entering(&self) -> String {
        format!("! -s {0} -d {0} -j {1}", self.cluster, masquerade(self.random_fully))
    }

    /// kube-proxy's mark for packets that it masquerades itself.
    fn marked() -> String {
        "-m mark --mark 0x4000/0x4000 -j RETURN".into()
    }

    fn postrouting(&self) -> Vec<String> {
        let (cluster, node) = (self.cluster, self.node);
        vec![
            Flannel::marked(),
            format!("-s {node} -d {cluster} -j RETURN"),
            format!("-s {cluster} -d {node} -j RETURN"),
            self.node_return(),
            self.leaving(),
            self.entering(),
        ]
    }

    fn inserted_postrouting(&self) -> Vec<String> {
        let mut list = vec![Flannel::marked()];
        list.extend(self.bare_postrouting());
        list
    }

    fn bare_postrouting(&self) -> Vec<String> {
        vec![self.within_return(), self.leaving(), self.node_return(), self.entering()]
    }

    fn first_masquerades(&self) -> [String; 2] {
        let old = Flannel { random_fully: false, ..*self };
        [old.leaving(), old.entering()]
    }

    fn forward(&self) -> [String; 2] {
        [format!("-s {} -j ACCEPT", self.cluster), format!("-d {} -j ACCEPT", self.cluster)]
    }

    fn write_chains(
        &self,
        rules: &mut Rules,
        command: &str,
        source: &'static Source,
        postrouting: &[String],
    ) {
        let mut write = |table, base: &str, chain: &str, word: &str, texts: &[String]| {
            let comment = format!("-m comment --comment \"flanneld {word}\"");
            rules.chain(table, source, chain);
            for text in texts {
                rules.rule(table, source, format!("-A {chain} {}", with_comment(text, &comment)));
            }
            rules.rule(table, source, format!("{command} {base} {comment} -j {chain}"));
        };
        write(Table::Nat, "POSTROUTING", "FLANNEL-POSTRTG", "masq", postrouting);
        write(Table::Filter, "FORWARD", "FLANNEL-FWD", "forward", &self.forward());
    }

    fn write_bare(&self, rules: &mut Rules) {
        if rules.family == Family::V6 {
            return;
        }
        for text in self.bare_postrouting() {
            rules.rule(Table::Nat, &BARE, format!("-A POSTROUTING {text}"));
        }
        for text in self.forward() {
            rules.rule(Table::Filter, &BARE, format!("-A FORWARD {text}"));
        }
    }

    fn write_first(&self, rules: &mut Rules, list: impl IntoIterator<Item = String>) {
        if rules.family == Family::V6 {
            return;
        }
        for text in list {
            rules.rule(Table::Nat, &WITHOUT_RETURN, format!("-A POSTROUTING {text}"));
        }
    }

    fn write_tables(&self, rules: &mut Rules) {
        let (ip, table) = match rules.family {
            Family::V4 => ("ip", "flannel-ipv4"),
            Family::V6 => ("ip6", "flannel-ipv6"),
        };
        let mut write = |text: String| rules.push(Place::Nft, &NFTABLES, text);
        write(format!("add table {ip} {table} {{ comment \"rules for {table}\" ; }}"));
        let forward = [format!("{ip} saddr {} accept", self.cluster)]
            .into_iter()
            .chain([format!("{ip} daddr {} accept", self.cluster)]);
        let chains = [
            (
                "forward",
                "type filter hook forward priority 0 ; comment \"chain to accept flannel traffic\" ;",
                forward.collect(),
            ),
            (
                "postrtg",
                "type nat hook postrouting priority 100 ; \
                 comment \"chain to manage traffic masquerading by flannel\" ;",
                self.nft_postrouting(ip),
            ),
        ];
        for (chain, head, texts) in chains {
            let place = format!("{ip} {table} {chain}");
            write(format!("add chain {place} {{ {head} }}"));
            write(format!("flush chain {place}"));
            for text in texts {
                write(format!("add rule {place} {text}"));
            }
        }
    }

    /// The mark is compared as a whole, unlike in the iptables form, and the fourth leaves nothing
    /// for the sixth.
    fn nft_postrouting(&self, ip: &str) -> Vec<String> {
        let (cluster, node) = (self.cluster, self.node);
        let target = if self.random_fully { "masquerade fully-random" } else { "masquerade" };
        vec![
            "meta mark 0x4000 return".into(),
            format!("{ip} saddr {node} {ip} daddr {cluster} return"),
            format!("{ip} saddr {cluster} {ip} daddr {node} return"),
            format!("{ip} saddr != {node} {ip} daddr {cluster} return"),
            format!("{ip} saddr {cluster} {ip} daddr != {} {target}", self.multicast()),
            format!("{ip} saddr != {cluster} {ip} daddr {cluster} {target}"),
        ]
    }
}

/// flannel's comment stands between the matches and the target.
fn with_comment(text: &str, comment: &str) -> String {
    text.replacen(" -j ", &format!(" {comment} -j "), 1)
}

const NFTABLES: Source = Source {
    system: "flannel",
    version: "41a4a4d5",
    url: "https://github.com/flannel-io/flannel/blob/41a4a4d566ae9cfc2dbb0d01fdd02c240f753664/pkg/trafficmngr/nftables/nftables.go",
};
const CHAINS: Source = Source {
    system: "flannel",
    version: "5c96864f",
    url: "https://github.com/flannel-io/flannel/blob/5c96864fd76c9df43155e90f5824e1e6f485d156/pkg/trafficmngr/iptables/iptables.go",
};
const INSERTED: Source = Source {
    system: "flannel",
    version: "034c876b",
    url: "https://github.com/flannel-io/flannel/blob/034c876b43338ab5f7c098f40408200de9941762/network/iptables.go",
};
const BARE: Source = Source {
    system: "flannel",
    version: "0d7b9946",
    url: "https://github.com/flannel-io/flannel/blob/0d7b99460b81f98df43da183258edf56c4abf854/network/iptables.go",
};
const WITHOUT_RETURN: Source = Source {
    system: "flannel",
    version: "1ab041f3",
    url: "https://github.com/flannel-io/flannel/blob/1ab041f34e087df7f7b0fe7d6dfde473ef94e597/network/ipmasq.go",
};

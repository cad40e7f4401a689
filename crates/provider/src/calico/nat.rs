//! Felix's nat table and the sets that it tests.

use std::collections::BTreeMap;

use unmasq_model::packet::Family;

use super::super::masquerade;
use super::{Calico, Chain, Era, Exclusions, FloatingAddress, append, insert, write_chains};
use crate::{Rules, Source, Table};

pub(super) const MASQUERADE_CHAIN: Source = Source {
    system: "Calico",
    version: "03c4d89f",
    url: "https://github.com/projectcalico/calico/blob/03c4d89f527f8af12a28e5e009050af6dcde3c5f/felix/rules/nat.go",
};
/// Which pools are in which set. The sets' size is `MaxIpsetSize` of
/// felix/config/config_params.go at 0039c9cd.
pub(super) const SETS: Source = Source {
    system: "Calico",
    version: "02cd8cdf",
    url: "https://github.com/projectcalico/calico/blob/02cd8cdfdc2b8d1782fb3ec6c3eaef3a8de50bd4/felix/dataplane/linux/masq_mgr.go",
};

impl Calico {
    pub(super) fn write_sets(&self, rules: &mut Rules) {
        let family = rules.family;
        let inet = match family {
            Family::V4 => "inet",
            Family::V6 => "inet6",
        };
        let create = |name: &str| format!("create {name} hash:net family {inet} maxelem 1048576");
        let names = self.set_names(family);
        rules.set(&SETS, create(&names.all));
        rules.set(&SETS, create(&names.masquerading));
        for pool in self.pools_of(family) {
            rules.set(&SETS, format!("add {} {}", names.all, pool.cidr));
            if pool.nat_outgoing {
                rules.set(&SETS, format!("add {} {}", names.masquerading, pool.cidr));
            }
        }
        match &self.exclusions {
            Exclusions::PoolsOnly => {}
            Exclusions::PoolsAndHosts(hosts) => {
                rules.set(&SETS, create(&names.hosts));
                for host in hosts.iter().filter(|host| Family::of(**host) == family) {
                    rules.set(&SETS, format!("add {} {host}", names.hosts));
                }
            }
        }
    }

    pub(super) fn write_nat(&self, rules: &mut Rules) {
        let statics = self.era.statics();
        let (dnat, snat) = self.floating_rules(rules.family);
        let to_floating = || vec!["--jump cali-fip-dnat".to_owned()];
        let chains = [
            Chain::new("cali-PREROUTING", statics, to_floating()),
            Chain::new("cali-POSTROUTING", statics, self.postrouting()),
            Chain::new("cali-OUTPUT", statics, to_floating()),
            Chain::new("cali-fip-dnat", &MASQUERADE_CHAIN, dnat),
            Chain::new("cali-fip-snat", &MASQUERADE_CHAIN, snat),
            Chain::new("cali-nat-outgoing", &MASQUERADE_CHAIN, self.nat_outgoing(rules.family)),
        ];
        write_chains(rules, Table::Nat, &chains);
        let driver = self.era.driver();
        let jump = "--jump cali-POSTROUTING";
        insert(rules, Table::Nat, "PREROUTING", driver, "--jump cali-PREROUTING");
        match self.era {
            Era::Of2022 => insert(rules, Table::Nat, "POSTROUTING", driver, jump),
            Era::Of2025 => append(rules, Table::Nat, "POSTROUTING", driver, &[jump.to_owned()]),
        }
        insert(rules, Table::Nat, "OUTPUT", driver, "--jump cali-OUTPUT");
    }

    /// What the host sends into a tunnel gets the tunnel's address, or the answer would come
    /// another way.
    fn postrouting(&self) -> Vec<String> {
        let target = masquerade(self.random_fully);
        let jumps = ["--jump cali-fip-snat", "--jump cali-nat-outgoing"].map(String::from);
        let tunnels = self.tunnels.iter().map(|device| {
            format!(
                "--out-interface {device} -m addrtype ! --src-type LOCAL --limit-iface-out \
                 -m addrtype --src-type LOCAL --jump {target}"
            )
        });
        jumps.into_iter().chain(tunnels).collect()
    }

    fn nat_outgoing(&self, family: Family) -> Vec<String> {
        if !self.pools_of(family).any(|pool| pool.nat_outgoing) {
            return Vec::new();
        }
        let names = self.set_names(family);
        let hosts = match self.exclusions {
            Exclusions::PoolsOnly => String::new(),
            Exclusions::PoolsAndHosts(_) => {
                format!(" -m set ! --match-set {} dst", names.hosts)
            }
        };
        vec![format!(
            "-m set --match-set {} src -m set ! --match-set {} dst{hosts} --jump {}",
            names.masquerading,
            names.all,
            masquerade(self.random_fully)
        )]
    }

    /// Rules by which floating addresses become pods' addresses, and the other way for packets of
    /// a pod to itself. Of several addresses for one, the first as text counts
    /// (felix/dataplane/linux/floating_ip_mgr.go).
    fn floating_rules(&self, family: Family) -> (Vec<String>, Vec<String>) {
        let mut to_internal: BTreeMap<String, String> = BTreeMap::new();
        for FloatingAddress { external, internal } in &self.floating {
            if Family::of(*external) == family {
                let internal = internal.to_string();
                let known = to_internal.entry(external.to_string()).or_insert(internal.clone());
                *known = internal.min(known.clone());
            }
        }
        let mut to_external: BTreeMap<&str, &str> = BTreeMap::new();
        for (external, internal) in &to_internal {
            to_external.entry(internal).or_insert(external);
        }
        let dnat = to_internal.iter().map(|(external, internal)| {
            format!("--destination {external} --jump DNAT --to-destination {internal}")
        });
        let random = if self.random_fully { " --random-fully" } else { "" };
        let snat = to_external.iter().map(|(internal, external)| {
            format!(
                "--destination {internal} --source {internal} --jump SNAT --to-source \
                 {external}{random}"
            )
        });
        (dnat.collect(), snat.collect())
    }
}

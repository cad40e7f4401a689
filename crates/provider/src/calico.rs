//! Calico: what Felix programs, with iptables, where each endpoint's profile allows everything.
//!
//! In: IP pools, tunnels, workloads. Out: its nat and filter tables and the sets of its pools. In
//! canal it is the policy half and has no tunnels.
//!
//! ```text
//! nat POSTROUTING ─▶ cali-POSTROUTING ─┬▶ cali-fip-snat
//!                                      ├▶ cali-nat-outgoing     MASQUERADE: from the masq set,
//!                                      │                        to outside the all set
//!                                      └  out of each tunnel, with an address of another device
//! filter FORWARD ──▶ cali-FORWARD ─┬▶ cali-from-wl-dispatch ─▶ cali-fw-DEVICE ─▶ cali-pro-PROFILE
//!                                  └▶ cali-to-wl-dispatch ───▶ cali-tw-DEVICE ─▶ cali-pri-PROFILE
//! ```
//!
//! Felix inserts its jumps at the top; since 2024 nat POSTROUTING's is the exception and goes last
//! (projectcalico/calico pull request 9091).
//!
//! Left out: the mangle and raw tables, which without host endpoints only set and test Felix's own
//! mark bits and check reverse paths; rules for encapsulated packets from other nodes, which Felix
//! has when it runs the tunnels itself; the failsafe chains, which it programs only for host
//! endpoints; policies.

mod dispatch;
mod filter;
mod hash;
mod nat;

use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::{Rules, Source, Table};

/// Calico's settings and its view of the cluster.
#[derive(Debug, Clone)]
pub struct Calico {
    /// Which Felix.
    pub era: Era,
    /// All enabled IP pools.
    pub pools: Vec<Pool>,
    /// Where natOutgoing doesn't apply.
    pub exclusions: Exclusions,
    /// Tunnel devices that have an address: `tunl0`, `vxlan.calico`, `vxlan-v6.calico`,
    /// `wireguard.cali`. None in canal.
    pub tunnels: Vec<String>,
    /// Whether the kernel has `--random-fully`, by Felix's own check.
    pub random_fully: bool,
    /// Addresses that are translated one to one.
    pub floating: Vec<FloatingAddress>,
    /// The pods of this node.
    pub workloads: Vec<Workload>,
}

/// Which Felix, as it stood at the commits that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Inserts its jump in nat POSTROUTING; no mark bit for dropped packets.
    Of2022,
    /// Appends its jump in nat POSTROUTING, and has a mark bit more.
    Of2025,
}

/// An IP pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Its addresses.
    pub cidr: IpNet,
    /// Whether packets that leave all pools are masqueraded.
    pub nat_outgoing: bool,
}

/// `natOutgoingExclusions`, of 2025.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exclusions {
    /// `IPPoolsOnly`, the default, and all that older ones know.
    PoolsOnly,
    /// `IPPoolsAndHostIPs`: the nodes too.
    PoolsAndHosts(Vec<IpAddr>),
}

/// An address that stands for a pod's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FloatingAddress {
    /// The address that others use.
    pub external: IpAddr,
    /// The pod's.
    pub internal: IpAddr,
}

/// A pod on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The device towards it, `cali…`.
    pub device: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
}

impl Calico {
    /// The sets and all rules.
    pub fn rules(&self, family: Family) -> Rules {
        let mut rules = Rules::new(family);
        self.write_sets(&mut rules);
        self.write_nat(&mut rules);
        self.write_filter(&mut rules);
        rules
    }

    /// Remedy: what Felix does when `natOutgoing` of this pool becomes false. The rule goes when no
    /// other pool of the family has it.
    pub fn without_nat_outgoing(&self, pool: IpNet) -> Rules {
        let mut rules = Rules::new(super::family_of(pool));
        let names = self.set_names(rules.family);
        rules.set(&nat::SETS, format!("del {} {pool}", names.masquerading));
        let mut others = self.pools_of(rules.family).filter(|other| other.cidr != pool);
        if !others.any(|other| other.nat_outgoing) {
            rules.chain(Table::Nat, &nat::MASQUERADE_CHAIN, "cali-nat-outgoing");
        }
        rules
    }

    fn pools_of(&self, family: Family) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(move |pool| super::family_of(pool.cidr) == family)
    }

    fn set_names(&self, family: Family) -> SetNames {
        let name = |set: &str| match family {
            Family::V4 => format!("cali40{set}"),
            Family::V6 => format!("cali60{set}"),
        };
        SetNames {
            all: name("all-ipam-pools"),
            masquerading: name("masq-ipam-pools"),
            hosts: name("all-hosts-net"),
        }
    }
}

/// felix/ipsets/ipset_defs.go: prefix, family, `0` for the main set of two, name.
struct SetNames {
    all: String,
    masquerading: String,
    hosts: String,
}

/// A chain, and a rule's text but for its beginning: comments, matches and target.
struct Chain {
    name: String,
    source: &'static Source,
    texts: Vec<String>,
}

impl Chain {
    fn new(name: impl Into<String>, source: &'static Source, texts: Vec<String>) -> Chain {
        Chain { name: name.into(), source, texts }
    }

    fn empty(name: &str, source: &'static Source) -> Chain {
        Chain::new(name, source, Vec::new())
    }
}

/// A rule with Felix's own comment.
fn commented(comment: &str, text: &str) -> String {
    format!("-m comment --comment \"{comment}\" {text}").trim_end().to_owned()
}

/// Declares the chains, which have to be there before a jump, and fills them.
fn write_chains(rules: &mut Rules, table: Table, chains: &[Chain]) {
    for chain in chains {
        rules.chain(table, chain.source, &chain.name);
    }
    for chain in chains {
        write_rules(rules, table, ("-A", &chain.name), &chain.name, chain.source, &chain.texts);
    }
}

/// Felix's rules at the top of another's chain.
fn insert(rules: &mut Rules, table: Table, chain: &str, source: &'static Source, text: &str) {
    write_rules(rules, table, ("-I", chain), chain, source, &[text.to_owned()]);
}

/// Felix's rules at the end of another's chain; their hashes begin with another name.
fn append(rules: &mut Rules, table: Table, chain: &str, source: &'static Source, texts: &[String]) {
    write_rules(rules, table, ("-A", chain), &format!("{chain}*appends*"), source, texts);
}

fn write_rules(
    rules: &mut Rules,
    table: Table,
    (command, chain): (&str, &str),
    hashed_as: &str,
    source: &'static Source,
    texts: &[String],
) {
    for (hash, text) in hash::rules(hashed_as, texts).iter().zip(texts) {
        let name = commented(&format!("cali:{hash}"), text);
        rules.rule(table, source, format!("{command} {chain} {name}"));
    }
}

/// Which jumps there are, and where they go.
const DRIVER_2022: Source = Source {
    system: "Calico",
    version: "0fbcbecb",
    url: "https://github.com/projectcalico/calico/blob/0fbcbecb7e81047d7c39e32c11f60809634ed7f1/felix/dataplane/linux/int_dataplane.go",
};
const DRIVER_2025: Source = Source {
    system: "Calico",
    version: "00157c19",
    url: "https://github.com/projectcalico/calico/blob/00157c193174b8fe2db174a01edc831a945df8de/felix/dataplane/linux/int_dataplane.go",
};
const STATIC_2022: Source = Source {
    system: "Calico",
    version: "6e74ff80",
    url: "https://github.com/projectcalico/calico/blob/6e74ff8096b5412e4bfd4e53aa767391043fa6cb/felix/rules/static.go",
};
const STATIC_2025: Source = Source {
    system: "Calico",
    version: "00b9aad1",
    url: "https://github.com/projectcalico/calico/blob/00b9aad19b300babd79b2883b3df82ef3b03d7f4/felix/rules/static.go",
};

impl Era {
    fn driver(self) -> &'static Source {
        match self {
            Era::Of2022 => &DRIVER_2022,
            Era::Of2025 => &DRIVER_2025,
        }
    }

    /// The chains that are always there.
    fn statics(self) -> &'static Source {
        match self {
            Era::Of2022 => &STATIC_2022,
            Era::Of2025 => &STATIC_2025,
        }
    }
}

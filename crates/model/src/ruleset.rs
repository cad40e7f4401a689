//! Tables, chains and hooks of all rule back ends.

use std::fmt;

use crate::origin::{Opaque, Origin};
use crate::packet::Family;
use crate::rule::Rule;
use crate::set::{Set, SetId};

/// A place in the packet's path where chains are attached (`enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To the host.
    Input,
    /// Through the host.
    Forward,
    /// From the host.
    Output,
    /// After routing.
    Postrouting,
}

impl Hook {
    /// All hooks.
    pub const ALL: [Hook; 5] =
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

    /// The hook's name in nftables.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The program family that a table was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// iptables-legacy.
    Legacy,
    /// iptables-nft.
    IptablesNft,
    /// nft.
    Nft,
}

/// The family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// ARP.
    Arp,
    /// Bridges.
    Bridge,
    /// A device's ingress or egress.
    Netdev,
}

impl TableFamily {
    /// Whether packets of `family` pass the table's chains in the IP hooks.
    pub fn covers(self, family: Family) -> bool {
        match self {
            TableFamily::Ip => family == Family::V4,
            TableFamily::Ip6 => family == Family::V6,
            TableFamily::Inet => true,
            TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => false,
        }
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Inet => "inet",
            TableFamily::Arp => "arp",
            TableFamily::Bridge => "bridge",
            TableFamily::Netdev => "netdev",
        })
    }
}

/// Index of a chain in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(pub u32);

/// All tables of a host, in the order in which they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The tables.
    pub tables: Vec<Table>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Whose.
    pub backend: Backend,
    /// Family.
    pub family: TableFamily,
    /// Name.
    pub name: Box<str>,
    /// Chains; [`ChainId`] is an index.
    pub chains: Vec<Chain>,
    /// nftables sets and maps; [`SetId`] is an index.
    pub sets: Vec<Set>,
    /// `flags dormant`: no chain is attached.
    pub dormant: bool,
    /// Why the table's rules are not known, if they are not: iptables-nft-save prints only a
    /// comment for a table with native rules.
    pub unreadable: Option<Opaque>,
    /// Where it begins.
    pub origin: Origin,
}

impl Table {
    /// The chain.
    ///
    /// # Panics
    /// If `id` is of another table.
    pub fn chain(&self, id: ChainId) -> &Chain {
        &self.chains[id.0 as usize]
    }

    /// The set.
    ///
    /// # Panics
    /// If `id` is of another table.
    pub fn set(&self, id: SetId) -> &Set {
        &self.sets[id.0 as usize]
    }

    /// The chain of that name.
    pub fn chain_by_name(&self, name: &str) -> Option<ChainId> {
        let index = self.chains.iter().position(|chain| *chain.name == *name)?;
        u32::try_from(index).ok().map(ChainId)
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: Box<str>,
    /// Where it is attached, if it is a base chain.
    pub base: Option<BaseChain>,
    /// Rules in order.
    pub rules: Vec<Rule>,
    /// Where it is declared.
    pub origin: Origin,
}

/// How a chain is attached to a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChain {
    /// The hook; `None` for hooks outside the IP path (ingress, egress).
    pub hook: Option<Hook>,
    /// Type.
    pub kind: ChainKind,
    /// Priority: lower runs first.
    pub priority: i32,
    /// What happens at the end of the chain.
    pub policy: Policy,
}

/// A base chain's type. A chain of type nat runs inside conntrack's NAT dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainKind {
    /// filter.
    Filter,
    /// nat.
    Nat,
    /// route: a change of mark, address or TOS in output makes the packet be routed again. The
    /// mangle table's OUTPUT chain of iptables is one too.
    Route,
}

/// What happens at the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The packet goes on.
    Accept,
    /// The packet is dropped.
    Drop,
}

/// Names of iptables' tables.
pub const XTABLES_NAMES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// How iptables attaches a built-in chain: kernel's `NF_IP_PRI_*`
/// (include/uapi/linux/netfilter_ipv4.h), and which chains each table has
/// (net/ipv4/netfilter/iptable_*.c). iptables-nft has its own numbers (iptables/nft.c), of which
/// security's is another. `None` for a user chain or a table that iptables doesn't know.
pub fn xtables_base(backend: Backend, table: &str, chain: &str) -> Option<(Hook, ChainKind, i32)> {
    let hook = match chain {
        "PREROUTING" => Hook::Prerouting,
        "INPUT" => Hook::Input,
        "FORWARD" => Hook::Forward,
        "OUTPUT" => Hook::Output,
        "POSTROUTING" => Hook::Postrouting,
        _ => return None,
    };
    let (kind, priority) = match (table, hook) {
        ("raw", Hook::Prerouting | Hook::Output) => (ChainKind::Filter, -300),
        ("mangle", Hook::Output) => (ChainKind::Route, -150),
        ("mangle", _) => (ChainKind::Filter, -150),
        ("nat", Hook::Prerouting | Hook::Output) => (ChainKind::Nat, -100),
        ("nat", Hook::Postrouting | Hook::Input) => (ChainKind::Nat, 100),
        ("filter", Hook::Input | Hook::Forward | Hook::Output) => (ChainKind::Filter, 0),
        ("security", Hook::Input | Hook::Forward | Hook::Output) => match backend {
            Backend::Legacy => (ChainKind::Filter, 50),
            Backend::IptablesNft | Backend::Nft => (ChainKind::Filter, 150),
        },
        _ => return None,
    };
    Some((hook, kind, priority))
}

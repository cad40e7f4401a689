//! One node (or one pod's network namespace): all that was captured of it.

use std::collections::BTreeMap;

use crate::ipset::IpSet;
use crate::link::Link;
use crate::origin::FileId;
use crate::route::{FdbEntry, Neighbour, Route, RoutingRule};
use crate::ruleset::Ruleset;
use crate::sysctl::Sysctls;

/// A host's state. Where something was not captured the field is `None`, which is not "empty".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The node's name.
    pub name: Box<str>,
    /// Captured files by [`FileId`], relative to the capture.
    pub files: Vec<Box<str>>,
    /// Tables of all back ends.
    pub ruleset: Ruleset,
    /// What is known of each rule back end.
    pub backends: Backends,
    /// ipsets by name.
    pub ipsets: Option<BTreeMap<Box<str>, IpSet>>,
    /// Sets that were not captured and follow from something else, by name. They count only where
    /// `ipsets` doesn't have the set, and then what rests on them is an assumption.
    pub assumed_sets: BTreeMap<Box<str>, AssumedSet>,
    /// Devices.
    pub links: Option<Vec<Link>>,
    /// IPv4 routes.
    pub routes4: Option<Vec<Route>>,
    /// IPv6 routes.
    pub routes6: Option<Vec<Route>>,
    /// IPv4 policy rules, in order of priority.
    pub rules4: Option<Vec<RoutingRule>>,
    /// IPv6 policy rules, in order of priority.
    pub rules6: Option<Vec<RoutingRule>>,
    /// Kernel settings.
    pub sysctls: Option<Sysctls>,
    /// Neighbours.
    pub neighbours: Option<Vec<Neighbour>>,
    /// Bridges' forwarding tables.
    pub fdb: Option<Vec<FdbEntry>>,
    /// What changes packets and is in no ruleset.
    pub beyond: Beyond,
}

impl Host {
    /// The path of a file.
    pub fn file(&self, id: FileId) -> &str {
        self.files.get(usize::from(id.0)).map_or("?", |path| path)
    }

    /// The device of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.as_ref()?.iter().find(|link| *link.name == *name)
    }
}

/// A set that was not captured and follows from something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssumedSet {
    /// What it must have in it.
    pub set: IpSet,
    /// A sentence: what is assumed, and what it follows from.
    pub text: Box<str>,
}

/// Whether a rule back end's rules are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seen {
    /// They were captured, or the kernel was shown to have none.
    Captured,
    /// They were not captured: the name of the file that is missing, or of the failure.
    Missing(Box<str>),
    /// They were not captured, and there are some: another file says so.
    Withheld(Box<str>),
    /// Nobody asked.
    #[default]
    NotAsked,
}

/// What is known of the rule back ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backends {
    /// nftables (`nft.json`).
    pub nft: Seen,
    /// iptables-nft, IPv4 (`iptables-save`).
    pub iptables_nft: Seen,
    /// iptables-nft, IPv6 (`ip6tables-save`).
    pub ip6tables_nft: Seen,
    /// iptables-legacy, IPv4 (`iptables-legacy-save`).
    pub iptables_legacy: Seen,
    /// iptables-legacy, IPv6 (`ip6tables-legacy-save`).
    pub ip6tables_legacy: Seen,
}

/// A BPF program: the device that it is attached to, if it is to one, and a line of text.
pub type Program = (Option<Box<str>>, Box<str>);

/// What changes or diverts packets and shows in no ruleset. `None`: not captured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beyond {
    /// Traffic-control filters and actions, by device: one line of text each.
    pub tc: Option<Vec<(Box<str>, Box<str>)>>,
    /// BPF programs on devices and in the IP hooks (tcx, netfilter links), by device (`None`: not
    /// bound to one): one line of text each.
    pub bpf: Option<Vec<Program>>,
    /// IPVS virtual services, a line each.
    pub ipvs: Option<Vec<Box<str>>>,
    /// IPsec policies, a line each.
    pub xfrm: Option<Vec<Box<str>>>,
}

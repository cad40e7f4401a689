//! What other network systems program on a node, written as they write it.
//!
//! In: a system's parameters. Out: [`Rules`], which are text for `iptables-restore --noflush`,
//! `nft -f` and `ipset restore`; each line names its upstream source. Pure: nothing is run here.
//!
//! ```text
//!   Flannel { cluster, node, .. }  ──rules()──▶  Rules ─┬─ ipset()     first: rules name sets
//!   Calico, Engine, KubeRouter, ..                      ├─ iptables()
//!                                                       └─ nft()
//! ```
//!
//! Several systems share `POSTROUTING` and `FORWARD`, and some insert where others append. So the
//! lines stand in the order in which upstream executes them, with its `-A`, `-I` and `-D`: load
//! the systems one after another, in the order in which they started, and the chains come out as
//! they do on a node.
//!
//! Remedies that act on rules are [`Rules`] too, to be loaded after those that they mend.
//!
//! [`kube_proxy`] writes from Kubernetes objects.
//!
//! Not here: devices, routes, and the daemons that put a rule back which is missing.

mod calico;
mod engine;
mod flannel;
mod ip_masq_agent;
mod klipper;
pub mod kube_proxy;
mod kube_router;
mod portmap;
mod stray;

use std::fmt::{self, Write as _};

use ipnet::IpNet;
use unmasq_model::packet::Family;

pub use calico::{Calico, Era, Exclusions, FloatingAddress, Pool, Workload};
pub use engine::{Bridge, Engine, Masquerade, PublishedPort, Release};
pub use flannel::{Flannel, Form};
pub use ip_masq_agent::IpMasqAgent;
pub use klipper::{Klipper, Script, ServicePort};
pub use kube_router::KubeRouter;
pub use portmap::{HostPort, Portmap};
pub use stray::StrayRule;

/// Where a line's text was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The system that writes it.
    pub system: &'static str,
    /// The first digits of the commit that was read, or the date of an issue; a page may have none.
    pub version: &'static str,
    /// The file at that commit, the issue or the page.
    pub url: &'static str,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.system, self.version, self.url)
    }
}

/// A table of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `raw`.
    Raw,
    /// `nat`.
    Nat,
    /// `filter`.
    Filter,
}

impl Table {
    /// The table's name.
    pub fn name(self) -> &'static str {
        match self {
            Table::Raw => "raw",
            Table::Nat => "nat",
            Table::Filter => "filter",
        }
    }
}

/// Which program reads a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// iptables-restore or ip6tables-restore, within this table.
    Iptables(Table),
    /// nft.
    Nft,
    /// ipset.
    Ipset,
}

/// One command, declaration or rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which program reads it.
    pub place: Place,
    /// The text.
    pub text: String,
    /// Where upstream writes it.
    pub source: &'static Source,
}

/// What one system programs for one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Which of iptables and ip6tables reads it.
    pub family: Family,
    lines: Vec<Line>,
}

impl Rules {
    fn new(family: Family) -> Rules {
        Rules { family, lines: Vec::new() }
    }

    /// All lines in the order of execution; those of one program in its order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Text for iptables-restore or ip6tables-restore with `--noflush`; empty if there is none.
    pub fn iptables(&self) -> String {
        let mut text = String::new();
        let mut done = Vec::new();
        for line in &self.lines {
            let Place::Iptables(table) = line.place else { continue };
            if done.contains(&table) {
                continue;
            }
            done.push(table);
            let lines = self.at(line.place);
            let _ = writeln!(text, "*{}\n{lines}COMMIT", table.name());
        }
        text
    }

    /// Text for `nft -f`; empty if there is none.
    pub fn nft(&self) -> String {
        self.at(Place::Nft)
    }

    /// Text for `ipset restore`, which goes first; empty if there is none.
    pub fn ipset(&self) -> String {
        self.at(Place::Ipset)
    }

    fn at(&self, place: Place) -> String {
        let lines = self.lines.iter().filter(|line| line.place == place);
        lines.fold(String::new(), |text, line| text + &line.text + "\n")
    }

    fn push(&mut self, place: Place, source: &'static Source, text: impl Into<String>) {
        self.lines.push(Line { place, text: text.into(), source });
    }

    /// A chain of the system's own, emptied if it is there.
    fn chain(&mut self, table: Table, source: &'static Source, name: &str) {
        self.push(Place::Iptables(table), source, format!(":{name} - [0:0]"));
    }

    /// A base chain's policy.
    fn policy(&mut self, table: Table, source: &'static Source, chain: &str, verdict: &str) {
        self.push(Place::Iptables(table), source, format!(":{chain} {verdict} [0:0]"));
    }

    fn rule(&mut self, table: Table, source: &'static Source, text: impl Into<String>) {
        self.push(Place::Iptables(table), source, text);
    }

    fn set(&mut self, source: &'static Source, text: impl Into<String>) {
        self.push(Place::Ipset, source, text);
    }
}

/// The family of a network.
fn family_of(network: IpNet) -> Family {
    Family::of(network.addr())
}

/// The networks of one family, in their order.
fn of_family(networks: &[IpNet], family: Family) -> impl Iterator<Item = IpNet> {
    networks.iter().copied().filter(move |network| family_of(*network) == family)
}

/// The target, with a random port where that is wanted and iptables has it.
fn masquerade(random_fully: bool) -> &'static str {
    if random_fully { "MASQUERADE --random-fully" } else { "MASQUERADE" }
}

#[cfg(test)]
mod tests;

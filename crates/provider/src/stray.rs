//! A host's own rule that nobody remembers: all that leaves a network is masqueraded.
//!
//! In: the network. Out: what a kubelet's unit file ran on the nodes of one cluster. No system
//! owns it.

use ipnet::IpNet;

use super::{Rules, Source, Table, family_of};

/// The rule of projectcalico/calico issue 6235.
#[derive(Debug, Clone, Copy)]
pub struct StrayRule {
    /// What it leaves alone.
    pub within: IpNet,
    /// Whether the same unit opened FORWARD.
    pub opens_forward: bool,
}

impl StrayRule {
    /// The rule.
    pub fn rules(&self) -> Rules {
        let mut rules = Rules::new(family_of(self.within));
        if self.opens_forward {
            rules.policy(Table::Filter, &UNIT, "FORWARD", "ACCEPT");
        }
        let within = self.within;
        let text = format!("-m addrtype ! --dst-type local ! -d {within} -j MASQUERADE");
        rules.rule(Table::Nat, &UNIT, format!("-A POSTROUTING {text}"));
        rules
    }
}

const UNIT: Source = Source {
    system: "host",
    version: "2022-06-27",
    url: "https://github.com/projectcalico/calico/issues/6235",
};

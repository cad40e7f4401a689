//! Felix's filter table.

use unmasq_model::packet::Family;

use super::{Calico, Chain, Era, append, commented, insert, write_chains};
use crate::{Rules, Table};

/// The mark bit of a packet that a policy or a profile has accepted.
pub(super) const ACCEPTED: &str = "-m mark --mark 0x10000/0x10000";
/// Clears the bits of an accepted and of a passed packet.
pub(super) const CLEAR_VERDICT: &str = "--jump MARK --set-mark 0/0x30000";

impl Era {
    /// Felix's own mark bits (felix/dataplane/driver.go: 921afb74 in 2022, 015a1e5c in 2025, which
    /// gives one bit to dropped packets and so moves the two scratch bits).
    fn marks(self) -> u32 {
        match self {
            Era::Of2022 => 0xf_0000,
            Era::Of2025 => 0x1b_0000,
        }
    }
}

impl Calico {
    pub(super) fn write_filter(&self, rules: &mut Rules) {
        let statics = self.era.statics();
        let mut chains = vec![
            Chain::new("cali-INPUT", statics, self.input()),
            Chain::new("cali-FORWARD", statics, self.forward()),
            Chain::new("cali-OUTPUT", statics, self.output()),
            Chain::new("cali-wl-to-host", statics, to_host(rules.family)),
        ];
        let without_rules = [
            "cali-cidr-block",
            "cali-from-hep-forward",
            "cali-to-hep-forward",
            "cali-from-host-endpoint",
            "cali-to-host-endpoint",
        ];
        chains.extend(without_rules.map(|name| Chain::empty(name, statics)));
        chains.extend(self.dispatch());
        write_chains(rules, Table::Filter, &chains);
        let driver = self.era.driver();
        for chain in ["INPUT", "FORWARD", "OUTPUT"] {
            insert(rules, Table::Filter, chain, driver, &format!("--jump cali-{chain}"));
        }
        let after_others = [
            commented("Policy explicitly accepted packet.", &format!("{ACCEPTED} --jump ACCEPT")),
            "--jump MARK --set-mark 0x10000/0x10000".into(),
        ];
        append(rules, Table::Filter, "FORWARD", statics, &after_others);
    }

    fn clear(&self, kept: u32) -> String {
        format!("--jump MARK --set-mark 0/{:#x}", self.era.marks() & !kept)
    }

    fn forward(&self) -> Vec<String> {
        vec![
            self.clear(0x1_0000),
            "-m mark --mark 0/0x10000 --jump cali-from-hep-forward".into(),
            "--in-interface cali+ --jump cali-from-wl-dispatch".into(),
            "--out-interface cali+ --jump cali-to-wl-dispatch".into(),
            "--jump cali-to-hep-forward".into(),
            "--jump cali-cidr-block".into(),
        ]
    }

    fn input(&self) -> Vec<String> {
        vec![
            "--in-interface cali+ --goto cali-wl-to-host".into(),
            format!("{ACCEPTED} --jump ACCEPT"),
            self.clear(0),
            "--jump cali-from-host-endpoint".into(),
            host_accepts(),
        ]
    }

    fn output(&self) -> Vec<String> {
        vec![
            format!("{ACCEPTED} --jump ACCEPT"),
            "--out-interface cali+ --jump RETURN".into(),
            self.clear(0),
            "-m conntrack ! --ctstate DNAT --jump cali-to-host-endpoint".into(),
            host_accepts(),
        ]
    }
}

fn host_accepts() -> String {
    commented("Host endpoint policy accepted packet.", &format!("{ACCEPTED} --jump ACCEPT"))
}

/// `DefaultEndpointToHostAction` is ACCEPT in manifests/canal.yaml (0039c9cd). A neighbour must be
/// found before any policy can be asked.
fn to_host(family: Family) -> Vec<String> {
    let mut texts = Vec::new();
    if family == Family::V6 {
        let types = [130, 131, 132, 133, 135, 136];
        texts
            .extend(types.map(|kind| format!("-p 58 -m icmp6 --icmpv6-type {kind} --jump ACCEPT")));
    }
    texts.push("--jump cali-from-wl-dispatch".into());
    texts.push(commented("Configured DefaultEndpointToHostAction", "--jump ACCEPT"));
    texts
}

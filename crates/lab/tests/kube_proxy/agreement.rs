//! What is generated from a capture's Kubernetes objects is what its kube-proxy had programmed.
//!
//! Compared is everything that belongs to kube-proxy: in iptables mode all chains whose names
//! begin with `KUBE-` and the rules of built-in chains that lead to them, in nftables mode the
//! whole table. The modules `iptables` and `nftables` say what doesn't count.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use unmasq_cluster::kubernetes::Objects;
use unmasq_model::packet::Family;
use unmasq_provider::kube_proxy::{Config, DetectLocal, Mode, jumps, rules};

use crate::{iptables, nftables, same};

/// A capture, and how its kube-proxy was run.
pub(crate) struct Capture {
    pub(crate) name: &'static str,
    mode: Mode,
    /// Files with rules, IPv4 and IPv6.
    files: [&'static str; 2],
    /// Differences of 1.30: it has no nfacct objects (from 1.32 on), and no hints for nodes;
    /// those for zones it takes only of Services with an annotation (pkg/proxy/topology.go).
    old: bool,
}

pub(crate) const CAPTURES: [Capture; 6] = [
    Capture { name: "kube-proxy-1.30-iptables", mode: Mode::Iptables, files: IPTABLES, old: true },
    Capture { name: "kube-proxy-1.36-iptables", mode: Mode::Iptables, files: IPTABLES, old: false },
    Capture {
        name: "kube-proxy-1.36-iptables-and-ip-masq-agent",
        mode: Mode::Iptables,
        files: IPTABLES,
        old: false,
    },
    Capture {
        name: "kube-proxy-1.36-iptables-legacy",
        mode: Mode::Iptables,
        files: ["iptables-legacy-save", "ip6tables-legacy-save"],
        old: false,
    },
    Capture { name: "kube-proxy-1.36-nftables", mode: Mode::Nftables, files: NFTABLES, old: false },
    Capture {
        name: "kube-proxy-1.36-nftables-and-ip-masq-agent",
        mode: Mode::Nftables,
        files: NFTABLES,
        old: false,
    },
];

const IPTABLES: [&str; 2] = ["iptables-save", "ip6tables-save"];
const NFTABLES: [&str; 2] = ["nft.txt", "nft.txt"];

impl Capture {
    /// Compares both families.
    pub(crate) fn check(&self, folder: &Path) -> Result<()> {
        let read = |file: String| {
            fs::read_to_string(folder.join(&file)).with_context(|| format!("read {file}"))
        };
        let mut objects = Objects::default();
        for kind in ["services", "endpointslices.discovery.k8s.io", "nodes"] {
            objects.add_json(&read(format!("kubernetes/{kind}.json"))?)?;
        }
        if self.old {
            let slices = objects.endpoint_slices.iter_mut();
            slices
                .flat_map(|slice| &mut slice.endpoints)
                .for_each(|e| e.hints = Default::default());
        }
        for (family, file) in [Family::V4, Family::V6].into_iter().zip(self.files) {
            let captured = read(format!("nodes/n1/{file}"))?;
            self.compare(&objects, family, &captured).with_context(|| file)?;
        }
        Ok(())
    }

    fn compare(&self, objects: &Objects, family: Family, captured: &str) -> Result<()> {
        let config = self.config()?;
        let generated = jumps(&config) + &rules(objects, &config, family);
        match self.mode {
            Mode::Iptables => {
                let captured = iptables::kube_chains(captured)?;
                // IPv6 has 15 rules in nat for each of its 4 Services, and 20 fixed ones.
                let count: usize = captured.values().map(Vec::len).sum();
                ensure!(count > 70, "only {count} rules were captured");
                same(&iptables::kube_chains(&generated)?, &captured)
            }
            Mode::Nftables => {
                let captured = nftables::blocks(captured, family)?;
                ensure!(captured.len() > 30, "only {} blocks were captured", captured.len());
                same(&nftables::blocks(&generated, family)?, &captured)
            }
        }
    }

    /// As `capture.json` says that kube-proxy was run.
    fn config(&self) -> Result<Config> {
        let mut config = Config::new(self.mode, "n1");
        config.detect_local =
            DetectLocal::ClusterCidr(vec!["10.128.0.0/14".parse()?, "fd00:128::/48".parse()?]);
        // The ServiceCIDR objects are not in the captures; these follow from the cluster IPs.
        config.service_cidrs = vec!["10.96.0.0/12".parse()?, "fd00:96::/108".parse()?];
        config.nfacct = !self.old;
        Ok(config)
    }
}

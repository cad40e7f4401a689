//! kube-proxy: Services whose policy changed, and its own settings.

use ipnet::IpNet;
use unmasq_audit::Owner;
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::Objects;
use unmasq_model::host::Host;
use unmasq_model::packet::Family;
use unmasq_model::ruleset::{Backend, Table, TableFamily};
use unmasq_parse::{iptables, nft};
use unmasq_provider::kube_proxy::{Config, DetectLocal, Mode, rules};

use super::{Reactions, foretold};
use crate::transplant::{Strange, agreeing, transplant};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

pub(super) fn react(before: &Cluster, after: &mut Cluster, reactions: &mut Reactions) {
    let unchanged = before.objects.services == after.objects.services
        && before.settings.kube_proxy == after.settings.kube_proxy;
    if unchanged {
        return;
    }
    let mut written = Vec::new();
    for index in 0..after.nodes.len() {
        let name = after.nodes[index].name.clone();
        let Some(mut host) = after.nodes[index].host.take() else { continue };
        match on_node(before, after, &name, &mut host) {
            Ok(true) => written.push(name),
            Ok(false) => {}
            Err(why) => reactions.unforeseen(Owner::KubeProxy, &name, why),
        }
        after.nodes[index].host = Some(host);
    }
    reactions.did(Owner::KubeProxy, "kube-proxy writes its rules for what changed", written);
}

/// Whether the node has rules of kube-proxy that are others then.
fn on_node(before: &Cluster, after: &Cluster, node: &str, host: &mut Host) -> Result<bool, String> {
    let Some(mode) = mode(host) else {
        // kube-router and others serve Services with IPVS.
        let proxied = host.beyond.ipvs.as_ref().is_some_and(|lines| !lines.is_empty());
        return match proxied {
            true => Err("Services are served by IPVS, whose rules aren't foretold".to_owned()),
            false => Ok(false),
        };
    };
    let rest = |cluster: &Cluster| {
        let proxy = &cluster.settings.kube_proxy;
        let mode = proxy.mode.on(node).map(|setting| setting.value.clone());
        (mode, proxy.node_port_addresses.on(node).map(|setting| setting.value.clone()))
    };
    if rest(before) != rest(after) {
        return Err("its mode or its addresses for node ports change: its rules then aren't \
                    foretold"
            .to_owned());
    }
    let mut strange = None;
    let mut fitting: Vec<(usize, Vec<Table>)> = Vec::new();
    for (old, new) in configs(before, after, node, mode)? {
        let mut tables = host.ruleset.tables.clone();
        let file = foretold(host);
        let change = Change { before: &before.objects, after: &after.objects, old, new, file };
        match change.carry_over(&mut tables) {
            Ok(()) => fitting.push((change.agreeing(&host.ruleset.tables), tables)),
            Err(why) => strange = strange.or(Some(why)),
        }
    }
    // Of settings that were not seen, those that all the other rules were written by.
    let most = fitting.iter().map(|(agreeing, _)| *agreeing).max();
    fitting.retain(|(agreeing, _)| Some(*agreeing) == most);
    if let Some((_, tables)) = fitting.pop() {
        if fitting.iter().any(|(_, others)| *others != tables) {
            return Err(
                "which range it takes for pods wasn't captured and can't be told from its \
                        rules, and what it writes depends on it: kubectl -n kube-system get \
                        configmap kube-proxy -o json > kubernetes/kube-proxy.json"
                    .to_owned(),
            );
        }
        let writes = host.ruleset.tables != tables;
        host.ruleset.tables = tables;
        return Ok(writes);
    }
    Err(match strange {
        Some(why) => format!(
            "its rules aren't those that kube-proxy of Kubernetes 1.36 with these settings writes: \
             {why}"
        ),
        None => "how it tells pods from others isn't known".to_owned(),
    })
}

fn mode(host: &Host) -> Option<Mode> {
    let tables = &host.ruleset.tables;
    let native = |table: &Table| table.backend == Backend::Nft && *table.name == *"kube-proxy";
    let served = |table: &Table| {
        let chains = table.chain_by_name("KUBE-SERVICES");
        table.backend != Backend::Nft && chains.is_some_and(|id| !table.chain(id).rules.is_empty())
    };
    if tables.iter().any(native) {
        Some(Mode::Nftables)
    } else {
        tables.iter().any(served).then_some(Mode::Iptables)
    }
}

/// How kube-proxy may be configured there, before and after: the settings that were seen; without
/// any, those that are left.
fn configs(
    before: &Cluster,
    after: &Cluster,
    node: &str,
    mode: Mode,
) -> Result<Vec<(Config, Config)>, String> {
    let detectors = |cluster: &Cluster| -> Result<Vec<DetectLocal>, String> {
        let proxy = &cluster.settings.kube_proxy;
        let cidrs = proxy.cluster_cidrs.on(node).map(|setting| setting.value.clone());
        Ok(match proxy.detect_local_mode.on(node).map(|setting| setting.value.as_str()) {
            Some("NodeCIDR") => vec![DetectLocal::NodeCidr],
            Some("ClusterCIDR" | "") | None => match cidrs {
                Some(cidrs) => vec![DetectLocal::ClusterCidr(cidrs)],
                None => {
                    let ranges = |family| cluster.networks.cluster_pods(family).ranges.clone();
                    let pods: Vec<IpNet> = FAMILIES.into_iter().flat_map(ranges).collect();
                    vec![DetectLocal::ClusterCidr(Vec::new()), DetectLocal::ClusterCidr(pods)]
                }
            },
            Some(other) => {
                return Err(format!("it tells pods by {other}, whose interface isn't known"));
            }
        })
    };
    let config = |cluster: &Cluster, detect_local| {
        let proxy = &cluster.settings.kube_proxy;
        let ranges = |family| cluster.networks.services(family).ranges.clone();
        Config {
            detect_local,
            masquerade_all: proxy.masquerade_all.on(node).is_some_and(|setting| setting.value),
            service_cidrs: FAMILIES.into_iter().flat_map(ranges).collect(),
            ..Config::new(mode, node)
        }
    };
    let pairs = detectors(before)?.into_iter().zip(detectors(after)?);
    Ok(pairs.map(|(old, new)| (config(before, old), config(after, new))).collect())
}

struct Change<'a> {
    before: &'a Objects,
    after: &'a Objects,
    old: Config,
    new: Config,
    file: unmasq_model::origin::FileId,
}

impl Change<'_> {
    fn carry_over(&self, tables: &mut [Table]) -> Result<(), Strange> {
        for family in FAMILIES {
            let old = self.tables(&rules(self.before, &self.old, family), family);
            let new = self.tables(&rules(self.after, &self.new, family), family);
            for new in &new {
                let Some(old) = old.iter().find(|old| old.name == new.name) else { continue };
                let there = tables.iter_mut().find(|table| same(table, new));
                match there {
                    Some(table) => transplant(table, old, new)?,
                    // A family that the node doesn't serve.
                    None => continue,
                }
            }
        }
        Ok(())
    }

    /// How many chains of the captured tables are as these settings have them.
    fn agreeing(&self, captured: &[Table]) -> usize {
        let of = |family| {
            let old = self.tables(&rules(self.before, &self.old, family), family);
            let there = |old: &Table| captured.iter().find(|table| same(table, old));
            let agreeing = |old: &Table| there(old).map_or(0, |there| agreeing(there, old));
            old.iter().map(agreeing).sum::<usize>()
        };
        FAMILIES.into_iter().map(of).sum()
    }

    fn tables(&self, text: &str, family: Family) -> Vec<Table> {
        let table_family = match family {
            Family::V4 => TableFamily::Ip,
            Family::V6 => TableFamily::Ip6,
        };
        match self.new.mode {
            Mode::Iptables => {
                iptables::parse(text, self.file, table_family, Backend::IptablesNft).0
            }
            Mode::Nftables => nft::text::parse(text, self.file, &|_, _| false).0,
        }
    }
}

/// Whether a captured table is the one that a written one becomes.
fn same(there: &Table, written: &Table) -> bool {
    let kind = |table: &Table| table.backend == Backend::Nft;
    let served = |table: &Table| {
        kind(table) || table.chains.iter().any(|chain| chain.name.starts_with("KUBE-"))
    };
    there.family == written.family
        && there.name == written.name
        && kind(there) == kind(written)
        && served(there)
}

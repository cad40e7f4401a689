//! kube-router: its egress rule, which it deletes when it starts with the flag off
//! (pkg/controllers/routing/pod_egress.go, `deletePodEgressRule`).

use unmasq_audit::{Owner, owner};
use unmasq_cluster::Cluster;
use unmasq_eval::trace::RuleId;
use unmasq_model::host::Host;
use unmasq_model::ruleset::ChainId;

use super::Reactions;

/// What only the egress rule asks: the Service proxy's rules ask for IPVS.
const PODS: &str = "kube-router-pod-subnets";

pub(super) fn react(before: &Cluster, after: &mut Cluster, reactions: &mut Reactions) {
    let mut deleted = Vec::new();
    for node in &mut after.nodes {
        let egress = |cluster: &Cluster| {
            cluster.settings.kube_router.pod_egress.on(&node.name).is_none_or(|one| one.value)
        };
        let settings = &after.settings.kube_router.pod_egress;
        let on = settings.on(&node.name).is_none_or(|setting| setting.value);
        if egress(before) == on {
            continue;
        }
        let Some(host) = &mut node.host else { continue };
        if on {
            let why = "pod egress is switched on: the rule that it then writes isn't foretold";
            reactions.unforeseen(Owner::KubeRouter, &node.name, why);
            continue;
        }
        if delete(host) {
            deleted.push(node.name.clone());
        }
    }
    reactions.did(Owner::KubeRouter, "kube-router deletes its egress rule when it starts", deleted);
}

/// Whether there was one.
fn delete(host: &mut Host) -> bool {
    let mut found = Vec::new();
    for (number, table) in (0..).zip(&host.ruleset.tables) {
        for (place, chain) in (0..).zip(&table.chains) {
            for (index, rule) in (0..).zip(&chain.rules) {
                let id = RuleId { table: number, chain: ChainId(place), rule: index };
                let egress = chain.base.is_some() && rule.text.contains(PODS);
                if egress && owner(host, id) == Owner::KubeRouter {
                    found.push(id);
                }
            }
        }
    }
    for id in found.iter().rev() {
        let chain = &mut host.ruleset.tables[id.table as usize].chains[id.chain.0 as usize];
        chain.rules.remove(id.rule as usize);
    }
    !found.is_empty()
}

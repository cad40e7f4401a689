//! The container engine: it writes its masquerade again when it starts, unless it is told not to
//! (moby daemon/libnetwork/drivers/bridge/setup_ip_tables_linux.go, `setupIPTablesInternal`).

use unmasq_audit::Owner;
use unmasq_cluster::Cluster;
use unmasq_model::host::Host;
use unmasq_model::rule::{Action, NatKind, Rule, Step};
use unmasq_model::ruleset::Table;

use super::Reactions;

pub(super) fn restart(before: &Cluster, after: &mut Cluster, reactions: &mut Reactions) {
    let mut again = Vec::new();
    let engine = after.settings.engine.clone();
    for (old, node) in before.nodes.iter().zip(&mut after.nodes) {
        let off = engine.ip_masq.on(&node.name).is_some_and(|setting| !setting.value);
        let runs = engine.places.iter().any(|place| place.node() == Some(&node.name));
        if !runs || off {
            continue;
        }
        if let (Some(old), Some(host)) = (&old.host, &mut node.host)
            && write_again(old, host)
        {
            again.push(node.name.clone());
        }
    }
    let text = "the container engine writes its masquerade rule again when it starts";
    reactions.did(Owner::ContainerEngine, text, again);
}

/// Whether a rule that the engine writes was there before and isn't now.
fn write_again(before: &Host, host: &mut Host) -> bool {
    let mut written = false;
    for table in &mut host.ruleset.tables {
        let same = |old: &&Table| {
            (old.backend, old.family, &old.name) == (table.backend, table.family, &table.name)
        };
        let Some(old) = before.ruleset.tables.iter().find(same) else { continue };
        for chain in &mut table.chains {
            let Some(old) = old.chain_by_name(&chain.name).map(|id| old.chain(id)) else {
                continue;
            };
            for rule in old.rules.iter().filter(|rule| is_the_engines(rule)) {
                if !chain.rules.iter().any(|there| there.text == rule.text) {
                    chain.rules.insert(0, rule.clone());
                    written = true;
                }
            }
        }
    }
    written
}

/// `-s NETWORK ! -o BRIDGE -j MASQUERADE`, and nothing else.
fn is_the_engines(rule: &Rule) -> bool {
    let masquerades = rule.steps.iter().any(|step| match step {
        Step::Do(Action::Nat(nat)) => nat.kind == NatKind::Masquerade,
        Step::Do(_) | Step::Test(_) => false,
    });
    let words: Vec<&str> = rule.text.split_whitespace().collect();
    let has = |flag: &str| words.contains(&flag);
    masquerades
        && words.windows(2).any(|pair| pair == ["!", "-o"])
        && has("-s")
        && !has("-d")
        && !has("-m")
}

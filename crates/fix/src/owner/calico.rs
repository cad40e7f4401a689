//! Felix: pools that no longer masquerade, or begin to.

use std::collections::BTreeMap;

use ipnet::IpNet;
use unmasq_audit::Owner;
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::IpPool;
use unmasq_model::host::Host;
use unmasq_model::ipset::{Content, Element, Flags, HashSet, IpSet};
use unmasq_model::packet::Family;
use unmasq_model::ruleset::{Backend, TableFamily};

use super::Reactions;

/// felix/rules/nat.go: the rule is there as long as some pool of the family has natOutgoing.
const CHAIN: &str = "cali-nat-outgoing";

pub(super) fn react(before: &Cluster, after: &mut Cluster, reactions: &mut Reactions) {
    let exclusions = |cluster: &Cluster| {
        cluster.settings.calico.nat_outgoing_exclusions.first().map(|setting| setting.value.clone())
    };
    let excluded = exclusions(before) != exclusions(after);
    if before.objects.ip_pools == after.objects.ip_pools && !excluded {
        return;
    }
    let pools = after.objects.ip_pools.clone();
    for family in [Family::V4, Family::V6] {
        let change = Change::of(&before.objects.ip_pools, &pools, family);
        if change.is_none() && !excluded {
            continue;
        }
        let mut withdrawn = Vec::new();
        for node in &mut after.nodes {
            let Some(host) = &mut node.host else { continue };
            if !runs_on(host, family) {
                continue;
            }
            if excluded {
                let why =
                    "natOutgoingExclusions changes: the rule that Felix then writes isn't foretold";
                reactions.unforeseen(Owner::Calico, &node.name, why);
                continue;
            }
            match change.carry_over(host) {
                Ok(()) => withdrawn.push(node.name.clone()),
                Err(why) => reactions.unforeseen(Owner::Calico, &node.name, why),
            }
        }
        reactions.did(Owner::Calico, change.text(), withdrawn);
    }
}

/// Whether Felix programs the host.
fn runs_on(host: &Host, family: Family) -> bool {
    host.ruleset.tables.iter().any(|table| {
        table.family.covers(family)
            && (table.chains.iter().any(|chain| chain.name.starts_with("cali-"))
                || (table.backend == Backend::Nft && *table.name == *"calico"))
    })
}

/// What changes for one family.
struct Change {
    family: Family,
    /// Networks of pools that masquerade now and did not.
    on: Vec<IpNet>,
    /// Networks of pools that masqueraded.
    off: Vec<IpNet>,
    /// Whether any pool masquerades afterwards.
    left: bool,
    /// Whether pools came or went, or have other networks.
    others: bool,
}

impl Change {
    fn of(before: &[IpPool], after: &[IpPool], family: Family) -> Change {
        let of = |pools: &[IpPool]| -> BTreeMap<IpNet, bool> {
            let pools = pools.iter().filter(|pool| Family::of(pool.spec.cidr.addr()) == family);
            pools.map(|pool| (pool.spec.cidr, pool.spec.nat_outgoing)).collect()
        };
        let (old, new) = (of(before), of(after));
        let on = new.iter().filter(|(net, on)| **on && old.get(net) == Some(&false));
        let off = old.iter().filter(|(net, on)| **on && new.get(net) == Some(&false));
        Change {
            family,
            on: on.map(|(net, _)| *net).collect(),
            off: off.map(|(net, _)| *net).collect(),
            left: new.values().any(|on| *on),
            others: !old.keys().eq(new.keys()),
        }
    }

    fn is_none(&self) -> bool {
        self.on.is_empty() && self.off.is_empty() && !self.others
    }

    fn text(&self) -> &'static str {
        if self.left {
            "Felix takes the pool out of the set of those that masquerade"
        } else {
            "Felix withdraws its masquerade rule, because no pool has natOutgoing"
        }
    }

    fn carry_over(&self, host: &mut Host) -> Result<(), String> {
        if self.others {
            return Err("pools come or go: what Felix then writes isn't foretold".to_owned());
        }
        if !self.on.is_empty() {
            return Err(
                "a pool begins to masquerade: the rule that Felix then writes isn't foretold"
                    .to_owned(),
            );
        }
        let wanted = match self.family {
            Family::V4 => TableFamily::Ip,
            Family::V6 => TableFamily::Ip6,
        };
        let mut tables = host.ruleset.tables.iter_mut();
        let table = tables.find(|table| {
            table.family == wanted && *table.name == *"nat" && table.chain_by_name(CHAIN).is_some()
        });
        let Some(table) = table else {
            return Err(format!("there is no chain {CHAIN} in table nat"));
        };
        if !self.left {
            let id = table.chain_by_name(CHAIN);
            id.into_iter().for_each(|id| table.chains[id.0 as usize].rules.clear());
        }
        let name = match self.family {
            Family::V4 => "cali40masq-ipam-pools",
            Family::V6 => "cali60masq-ipam-pools",
        };
        // A set that wasn't captured follows from the pools.
        if let Some(set) = host.ipsets.as_mut().and_then(|sets| sets.get_mut(name)) {
            self.take_out(set)?;
        }
        Ok(())
    }

    fn take_out(&self, set: &mut IpSet) -> Result<(), String> {
        let Content::Hash(content) = &set.content else {
            return Err(format!("the set {} is of another type than Felix makes", set.name));
        };
        let mut left = HashSet::new(content.kind, content.family, content.netmask);
        let mut kept: Vec<(Element, Flags)> = Vec::new();
        for (element, flags) in content.iter() {
            if !self.off.contains(&element.first) {
                kept.push((element.clone(), flags));
            }
        }
        kept.into_iter().for_each(|(element, flags)| left.insert(element, flags));
        set.content = Content::Hash(left);
        Ok(())
    }
}

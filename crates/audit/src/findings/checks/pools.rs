//! Calico's pools that masquerade and that no pod uses, where no client in them was asked.

use std::collections::BTreeSet;

use unmasq_cluster::networks::{NetworkKind, Pool};
use unmasq_model::packet::Family;

use super::super::{Context, Group};
use super::known;
use crate::judge::Suspect;
use crate::matrix::{Cause, Why};
use crate::{Evidence, Finding, FindingId, Owner, Severity};

pub(super) fn add(context: &Context<'_, '_>, findings: &mut Vec<Finding>) {
    let networks = &context.cluster.networks;
    for network in &networks.all {
        let NetworkKind::Pool(Pool { name, used: Some(false), nat_outgoing: true, .. }) =
            &network.kind
        else {
            continue;
        };
        let family = Family::of(network.range.addr());
        // A range that is set aside for pods has no clients in it.
        let for_pods = networks.cluster_pods(family).covers(&network.range);
        if for_pods || known(findings, FindingId::CalicoUnusedPool, name).is_some() {
            continue;
        }
        let rule = "cali-nat-outgoing".to_owned();
        let cause = Cause { owner: Owner::Calico, rule, why: Why::ItsTests };
        let suspect = Suspect { id: FindingId::CalicoUnusedPool, cause };
        let families = BTreeSet::from([family]);
        let group = Group::without_rows(suspect, Severity::Warning, families);
        let mut found = context.finding(name, &group);
        let text =
            format!("pool {name}: {}, natOutgoing, and no pod has an address of it", network.range);
        found.evidence.push(Evidence { text, trace: None, rule: None });
        findings.push(found);
    }
}

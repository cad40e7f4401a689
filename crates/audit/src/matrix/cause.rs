//! Which rule rewrites, and why, in words that don't differ from Service to Service.

use std::collections::BTreeMap;

use unmasq_cluster::Cluster;
use unmasq_cluster::paths::{Paths, Walked};
use unmasq_eval::journey::Leg;
use unmasq_eval::trace::{By, Hit, Outcome, Reason, RuleId};
use unmasq_model::host::Host;
use unmasq_model::rule::Rule;
use unmasq_model::ruleset::{Backend, Chain, Table};

use super::{Cause, Refusal, Why};
use crate::owner::{find, set_names};
use crate::shape::tests_origin;
use crate::{Owner, chain_owner, label, owner};

/// Causes, with what was found out about rules before.
pub(super) struct Causes<'p, 'c> {
    paths: &'p Paths<'c>,
    rules: BTreeMap<(usize, RuleId), (Owner, String)>,
    /// Of each node: texts that are its own, and what stands for them.
    own: Vec<Vec<(String, &'static str)>>,
}

impl<'p, 'c> Causes<'p, 'c> {
    pub(super) fn new(paths: &'p Paths<'c>) -> Self {
        let own = paths.cluster().nodes.iter().map(|node| own(paths.cluster(), &node.name));
        Causes { paths, rules: BTreeMap::new(), own: own.collect() }
    }

    /// The cause of a leg's rewriting. `by_policy`: the call is of an address that
    /// `externalTrafficPolicy: Cluster` is about.
    pub(super) fn of(&mut self, leg: &Leg, by_policy: bool) -> Option<Cause> {
        let rule = leg.outcome.rewritten_by?;
        let host = self.paths.host(leg.host)?;
        let (owner, name) = self.named(leg.host, host, rule);
        Some(Cause { owner, rule: name, why: why(host, &leg.outcome, by_policy) })
    }

    /// Whose rule refused a packet.
    pub(super) fn refusal(&self, leg: Option<&Leg>, reason: Option<Reason>) -> Refusal {
        let by = leg.and_then(|leg| {
            let host = self.paths.host(leg.host)?;
            match &leg.outcome.hits.last()?.by {
                By::Rule(rule) => Some(owner(host, *rule)),
                By::Policy { table, chain } => Some(chain_owner(host, *table, *chain)),
                By::Kernel(_) => None,
            }
        });
        let by = by.filter(|_| matches!(reason, Some(Reason::Rule | Reason::Policy)));
        Refusal { reason, owner: by }
    }

    fn named(&mut self, at: usize, host: &Host, rule: RuleId) -> (Owner, String) {
        if let Some(known) = self.rules.get(&(at, rule)) {
            return known.clone();
        }
        let mut name = label(host, rule);
        // A chain of one Service, named by a hash, or its place in the pod of a load balancer.
        if let Some(node) = self.paths.node_of(at) {
            for (text, what) in self.own.get(node).into_iter().flatten() {
                name = name.replace(text.as_str(), what);
            }
        }
        if let Some(Walked::Pod { .. }) = self.paths.walked(at) {
            name = format!("{name} (in a pod)");
        }
        let named = (owner(host, rule), name);
        self.rules.insert((at, rule), named.clone());
        named
    }
}

/// Texts in rules that belong to one node.
pub(crate) fn own(cluster: &Cluster, node: &str) -> Vec<(String, &'static str)> {
    let Some(object) = cluster.objects.node(node) else { return Vec::new() };
    let pods = object.pod_cidrs().map(|net| (net.to_string(), "<node's pods>"));
    pods.collect()
}

/// Why a rewriting rule acted: the chain in which the mark that it asks for was set, or from which
/// the chain was called that sets it.
fn why(host: &Host, outcome: &Outcome, by_policy: bool) -> Why {
    let by = outcome.rewritten_by.and_then(|rule| find(host, rule));
    // kube-proxy from 1.36 on, in nftables mode.
    let hairpin = |(table, _, rule): (&Table, &Chain, &Rule)| {
        set_names(table, rule).any(|set| set == "hairpin-connections")
    };
    if by.is_some_and(hairpin) {
        return Why::Hairpin;
    }
    if outcome.because.is_empty() {
        return Why::ItsTests;
    }
    let earlier = outcome.because.iter().rev().filter_map(|index| match outcome.hits.get(*index) {
        Some(Hit { by: By::Rule(rule), .. }) => find(host, *rule),
        Some(Hit { by: By::Policy { .. } | By::Kernel(_), .. }) | None => None,
    });
    let known = earlier
        .into_iter()
        .find_map(|(table, chain, rule)| of_kube_proxy(table, chain, rule, by_policy));
    known.unwrap_or(Why::Marked)
}

/// Chains of kube-proxy (pkg/proxy/iptables/proxier.go, pkg/proxy/nftables/proxier.go of
/// kubernetes/kubernetes; KUBE-XLB and KUBE-FW up to 1.23, the chains of node ports of IPVS mode).
/// Rules for cluster IPs test for one. So what marks a call of another address in a chain of all
/// calls is a rule for that: of an external IP or a node port up to 1.23 (`-A KUBE-SVC-… ! -s PODS
/// -d EXTERNAL-IP`), of KUBE-EXTERNAL-IP in IPVS mode.
fn of_kube_proxy(table: &Table, chain: &Chain, rule: &Rule, by_policy: bool) -> Option<Why> {
    let begins = |beginnings: &[&str]| beginnings.iter().any(|one| chain.name.starts_with(one));
    let (external, service, endpoint): (&[&str], &[&str], &[&str]) = match table.backend {
        Backend::Legacy | Backend::IptablesNft => (
            &["KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-", "KUBE-NODEPORTS", "KUBE-NODE-PORT"],
            // KUBE-SVL-: the local endpoints of either policy.
            &["KUBE-SVC-", "KUBE-SVL-", "KUBE-SERVICES"],
            &["KUBE-SEP-"],
        ),
        Backend::Nft if *table.name == *"kube-proxy" => {
            (&["external-"], &["service"], &["endpoint-"])
        }
        Backend::Nft => return None,
    };
    if begins(external) || (by_policy && begins(service)) {
        Some(Why::ExternalPolicy)
    } else if begins(service) {
        Some(if tests_origin(rule) { Why::NotAPod } else { Why::MasqueradeAll })
    } else {
        begins(endpoint).then_some(Why::Hairpin)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use unmasq_cluster::read;

    use super::*;

    #[test]
    fn chains_of_local_endpoints_mark_as_chains_of_all_do() {
        let rules = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVL-X - [0:0]\n:KUBE-SVC-X - [0:0]\n\
            -A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVL-X\n\
            -A KUBE-SVL-X ! -s 10.0.0.0/8 -d 10.96.0.1/32 -j KUBE-MARK-MASQ\n\
            -A KUBE-SVC-X ! -s 10.0.0.0/8 -d 10.96.0.1/32 -j KUBE-MARK-MASQ\nCOMMIT\n";
        let files =
            BTreeMap::from([("nodes/n1/iptables-save".to_owned(), rules.as_bytes().to_vec())]);
        let nodes = read::capture(&files).unwrap().nodes;
        let table = &nodes[0].host.as_ref().unwrap().ruleset.tables[0];
        for name in ["KUBE-SVL-X", "KUBE-SVC-X"] {
            let chain = table.chains.iter().find(|chain| *chain.name == *name).unwrap();
            assert_eq!(
                of_kube_proxy(table, chain, &chain.rules[0], false),
                Some(Why::NotAPod),
                "{name}"
            );
        }
    }

    /// Up to 1.23 rules for external IPs stand in the Service's own chain; in IPVS mode they stand in
    /// that of all Services.
    #[test]
    fn a_mark_for_an_external_ip_is_that_of_the_policy() {
        let rules = "*nat\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-SVC-A - [0:0]\n:KUBE-SVC-B - [0:0]\n\
            :KUBE-SERVICES - [0:0]\n\
            -A KUBE-SVC-A ! -s 10.0.0.0/8 -d 198.51.100.7/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ\n\
            -A KUBE-SVC-B -d 198.51.100.7/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ\n\
            -A KUBE-SERVICES -m set --match-set KUBE-EXTERNAL-IP dst,dst -j KUBE-MARK-MASQ\nCOMMIT\n";
        let files =
            BTreeMap::from([("nodes/n1/iptables-save".to_owned(), rules.as_bytes().to_vec())]);
        let nodes = read::capture(&files).unwrap().nodes;
        let table = &nodes[0].host.as_ref().unwrap().ruleset.tables[0];
        for name in ["KUBE-SVC-A", "KUBE-SVC-B", "KUBE-SERVICES"] {
            let chain = table.chains.iter().find(|chain| *chain.name == *name).unwrap();
            let why = of_kube_proxy(table, chain, &chain.rules[0], true);
            assert_eq!(why, Some(Why::ExternalPolicy), "{name}");
        }
    }

    /// pkg/proxy/nftables/proxier.go: chains of ports are named by kind, hash and names.
    #[test]
    fn chains_of_kube_proxys_nftables_mode() {
        let chain = |name: &str, expression: &str| {
            format!(
                r#"{{"chain": {{"family": "ip", "table": "TABLE", "name": "{name}", "handle": 1}}}},
                {{"rule": {{"family": "ip", "table": "TABLE", "chain": "{name}", "handle": 2,
                "expr": [{expression}{{"jump": {{"target": "mark-for-masquerade"}}}}]}}}}"#
            )
        };
        let not_from_pods = r#"{"match": {"op": "!=",
            "left": {"payload": {"protocol": "ip", "field": "saddr"}},
            "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}},"#;
        let chains = [
            chain("mark-for-masquerade", ""),
            chain("external-ABC-ns/web/tcp/http", ""),
            chain("service-ABC-ns/web/tcp/http", not_from_pods),
            chain("service-DEF-ns/web/tcp/http", ""),
            chain("endpoint-ABC-ns/web/tcp/http__10.0.1.2/80", ""),
            chain("nat-postrouting", ""),
        ];
        let labels = |table: &str| {
            let json = format!(
                r#"{{"nftables": [{{"table": {{"family": "ip", "name": "TABLE", "handle": 1}}}}, {}]}}"#,
                chains.join(", ")
            );
            let json = json.replace("TABLE", table);
            let files = BTreeMap::from([("nodes/n1/nft.json".to_owned(), json.into_bytes())]);
            let nodes = read::capture(&files).unwrap().nodes;
            let table = &nodes[0].host.as_ref().unwrap().ruleset.tables[0];
            let label = |chain: &Chain| of_kube_proxy(table, chain, &chain.rules[0], false);
            table.chains.iter().map(label).collect::<Vec<_>>()
        };
        let expected = [
            None,
            Some(Why::ExternalPolicy),
            Some(Why::NotAPod),
            Some(Why::MasqueradeAll),
            Some(Why::Hairpin),
            None,
        ];
        assert_eq!(labels("kube-proxy"), expected);
        // The same names in somebody else's table say nothing.
        assert_eq!(labels("mine"), [None; 6]);
    }
}

//! The programs that write rules, and which of them wrote a given one.

use std::fmt;

use unmasq_eval::trace::RuleId;
use unmasq_model::host::Host;
use unmasq_model::rule::{Action, Rule, Step, Test, Verdict};
use unmasq_model::ruleset::{Backend, Chain, ChainId, Table};

use crate::names;
use crate::shape;

/// A program that writes rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Calico, and canal's policy half.
    Calico,
    /// kube-proxy in any mode.
    KubeProxy,
    /// kubelet.
    Kubelet,
    /// kubelet's own network plugin of old.
    Kubenet,
    /// flannel, and canal's network half.
    Flannel,
    /// kube-router, and the policy controller embedded in k3s.
    KubeRouter,
    /// ip-masq-agent.
    IpMasqAgent,
    /// The set-up script of GCE and GKE nodes (`IP-MASQ`).
    GceNodeSetup,
    /// klipper-lb, the load balancer of k3s.
    KlipperLb,
    /// The VPC plugin of AWS.
    AwsVpcCni,
    /// Cilium.
    Cilium,
    /// Weave Net.
    Weave,
    /// Docker.
    Docker,
    /// Podman with netavark.
    Netavark,
    /// The CNI portmap plugin.
    Portmap,
    /// Tailscale.
    Tailscale,
    /// libvirt.
    Libvirt,
    /// LXD and Incus, and lxc-net of LXC.
    Lxc,
    /// firewalld.
    Firewalld,
    /// OVN-Kubernetes.
    OvnKubernetes,
    /// kindnet.
    Kindnet,
    /// Istio.
    Istio,
    /// Linkerd.
    Linkerd,
    /// Unmasq.
    Unmasq,
    /// Docker, containerd, CRI-O or a CNI bridge plugin: the rule's shape doesn't tell which.
    ContainerEngine,
    /// Nobody known.
    Unclaimed,
}

impl Owner {
    /// All owners.
    pub const ALL: [Owner; 26] = [
        Owner::Calico,
        Owner::KubeProxy,
        Owner::Kubelet,
        Owner::Kubenet,
        Owner::Flannel,
        Owner::KubeRouter,
        Owner::IpMasqAgent,
        Owner::GceNodeSetup,
        Owner::KlipperLb,
        Owner::AwsVpcCni,
        Owner::Cilium,
        Owner::Weave,
        Owner::Docker,
        Owner::Netavark,
        Owner::Portmap,
        Owner::Tailscale,
        Owner::Libvirt,
        Owner::Lxc,
        Owner::Firewalld,
        Owner::OvnKubernetes,
        Owner::Kindnet,
        Owner::Istio,
        Owner::Linkerd,
        Owner::Unmasq,
        Owner::ContainerEngine,
        Owner::Unclaimed,
    ];

    /// The system's proper name.
    pub fn name(self) -> &'static str {
        match self {
            Owner::Calico => "Calico",
            Owner::KubeProxy => "kube-proxy",
            Owner::Kubelet => "kubelet",
            Owner::Kubenet => "kubenet",
            Owner::Flannel => "flannel",
            Owner::KubeRouter => "kube-router",
            Owner::IpMasqAgent => "ip-masq-agent",
            Owner::GceNodeSetup => "GCE node setup",
            Owner::KlipperLb => "klipper-lb",
            Owner::AwsVpcCni => "AWS VPC CNI",
            Owner::Cilium => "Cilium",
            Owner::Weave => "Weave",
            Owner::Docker => "Docker",
            Owner::Netavark => "Podman/netavark",
            Owner::Portmap => "CNI portmap",
            Owner::Tailscale => "Tailscale",
            Owner::Libvirt => "libvirt",
            Owner::Lxc => "LXC/LXD",
            Owner::Firewalld => "firewalld",
            Owner::OvnKubernetes => "OVN-Kubernetes",
            Owner::Kindnet => "kindnet",
            Owner::Istio => "Istio",
            Owner::Linkerd => "Linkerd",
            Owner::Unmasq => "Unmasq",
            Owner::ContainerEngine => "container engine",
            Owner::Unclaimed => "unclaimed",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who wrote a rule; [`Owner::Unclaimed`] also for a rule that the host doesn't have.
pub fn owner(host: &Host, rule: RuleId) -> Owner {
    find(host, rule).map_or(Owner::Unclaimed, |(table, chain, rule)| {
        by_place(table, chain, rule)
            .or_else(|| rule.comment.as_deref().and_then(names::by_comment))
            .or_else(|| by_sets(table, rule))
            .or_else(|| by_target(table, rule))
            .or_else(|| shape::owner(host, table, chain, rule))
            .unwrap_or(Owner::Unclaimed)
    })
}

/// Who made a chain, and so who set its policy if it is a base chain of its own table.
pub fn chain_owner(host: &Host, table: u32, chain: ChainId) -> Owner {
    let Some(table) = host.ruleset.tables.get(table as usize) else {
        return Owner::Unclaimed;
    };
    table
        .chains
        .get(chain.0 as usize)
        .and_then(|chain| by_table(table).or_else(|| by_chain(table, chain)))
        .unwrap_or(Owner::Unclaimed)
}

/// The rule with its chain and table.
pub(crate) fn find(host: &Host, id: RuleId) -> Option<(&Table, &Chain, &Rule)> {
    let table = host.ruleset.tables.get(id.table as usize)?;
    let chain = table.chains.get(id.chain.0 as usize)?;
    Some((table, chain, chain.rules.get(id.rule as usize)?))
}

/// The program that writes such rules for each pod or port alike, by names that only it gives: a
/// shape can be anybody's, and so can a jump into a chain of kube-proxy's.
pub(crate) fn program(table: &Table, chain: &Chain, rule: &Rule) -> Option<Owner> {
    by_place(table, chain, rule)
        .or_else(|| rule.comment.as_deref().and_then(names::by_comment))
        .or_else(|| by_target(table, rule).filter(|owner| *owner != Owner::KubeProxy))
}

/// By the table and the chain that the rule stands in.
fn by_place(table: &Table, chain: &Chain, rule: &Rule) -> Option<Owner> {
    if let Some(owner) = by_table(table) {
        return Some(owner);
    }
    // Docker makes DOCKER-USER for the operator's rules and puts only a RETURN there.
    if *chain.name == *"DOCKER-USER" {
        return returns_always(rule).then_some(Owner::Docker);
    }
    by_chain(table, chain)
}

fn by_table(table: &Table) -> Option<Owner> {
    match table.backend {
        Backend::Nft => names::by_nft_table(&table.name),
        // These have the fixed names of iptables' tables.
        Backend::Legacy | Backend::IptablesNft => None,
    }
}

fn by_chain(table: &Table, chain: &Chain) -> Option<Owner> {
    if chain.base.is_some() {
        return None;
    }
    names::by_chain(&chain.name).or_else(|| {
        let zones = || table.chains.iter().any(|chain| chain.name.ends_with("_ZONES"));
        (names::is_firewalld_zone_chain(&chain.name) && zones()).then_some(Owner::Firewalld)
    })
}

fn returns_always(rule: &Rule) -> bool {
    rule.steps.iter().all(|step| match step {
        Step::Test(_) => false,
        Step::Do(action) => matches!(action, Action::Count | Action::Verdict(Verdict::Return)),
    })
}

fn by_sets(table: &Table, rule: &Rule) -> Option<Owner> {
    set_names(table, rule).find_map(names::by_set)
}

/// Names of the sets that a rule tests.
pub(crate) fn set_names<'a>(table: &'a Table, rule: &'a Rule) -> impl Iterator<Item = &'a str> {
    rule.steps.iter().filter_map(|step| match step {
        Step::Test(Test::IpSet { set, .. }) => Some(&**set),
        Step::Test(Test::Member { set, .. }) => table.sets.get(set.0 as usize)?.name.as_deref(),
        Step::Test(_) | Step::Do(_) => None,
    })
}

fn by_target(table: &Table, rule: &Rule) -> Option<Owner> {
    rule.steps.iter().find_map(|step| match step {
        Step::Do(Action::Verdict(Verdict::Jump(id) | Verdict::Goto(id))) => {
            by_chain(table, table.chains.get(id.0 as usize)?)
        }
        Step::Do(_) | Step::Test(_) => None,
    })
}

#[cfg(test)]
mod tests;

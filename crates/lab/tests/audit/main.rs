//! An audit of each scenario's capture finds what is planted there, first, and nothing as bad once
//! it is mended; and `docs/scenarios/findings.md` says what it finds.

#[path = "../trials/mod.rs"]
mod trials;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use unmasq_audit::{Finding, FindingId, Owner, Severity};
use unmasq_lab::findings::audited;
use unmasq_lab::scenario::BUILTIN;

/// What each scenario plants, by hand: the finding, its owner, and a part of its setting.
const PLANTED: &[(&str, FindingId, Owner, Severity, &str)] = {
    use FindingId as Id;
    use Severity::Error;
    &[
        ("canal-unused-pool", Id::CalicoUnusedPool, Owner::Calico, Error, "natOutgoing: true"),
        ("flannel-host-masquerade", Id::HostMasquerade, Owner::ContainerEngine, Error, "ip-masq"),
        (
            "kube-router-egress",
            Id::KubeRouterPodEgress,
            Owner::KubeRouter,
            Error,
            "--enable-pod-egress",
        ),
        (
            "service-cluster-policy",
            Id::ExternalTrafficPolicyCluster,
            Owner::KubeProxy,
            Error,
            "externalTrafficPolicy: Cluster",
        ),
        ("service-local-policy", Id::LocalPolicyUnsafe, Owner::KubeProxy, Error, ""),
        ("l7-forwarded-for", Id::ForwardedForUntrusted, Owner::Unclaimed, Error, ""),
        ("proxy-protocol", Id::ForwardedForUntrusted, Owner::Unclaimed, Error, ""),
        (
            "ip-masq-agent-empty-list",
            Id::IpMasqAgentList,
            Owner::IpMasqAgent,
            Error,
            "nonMasqueradeCIDRs",
        ),
        ("klipper-lb", Id::KlipperLb, Owner::KlipperLb, Error, ""),
        ("stale-flannel-rules", Id::StaleFlannelRules, Owner::Flannel, Error, ""),
        ("engine-subnet-overlap", Id::OverlappingRanges, Owner::ContainerEngine, Error, ""),
        ("cluster-cidr-too-small", Id::ClusterCidrMismatch, Owner::KubeProxy, Error, "clusterCIDR"),
        (
            "policy-behind-masquerade",
            Id::ExternalTrafficPolicyCluster,
            Owner::KubeProxy,
            Error,
            "externalTrafficPolicy: Cluster",
        ),
    ]
};

fn main() -> ExitCode {
    let trial = |(name, text): &(&'static str, &'static str)| {
        let (name, text) = (*name, *text);
        (name, Box::new(move || scenario(name, text)) as Box<dyn FnOnce() -> Result<()> + Send>)
    };
    trials::run(BUILTIN.iter().map(trial))
}

fn scenario(name: &str, text: &str) -> Result<()> {
    let audited = audited(text)?;
    let (_, id, owner, severity, setting) =
        PLANTED.iter().find(|(known, ..)| *known == name).context("what is planted there?")?;
    let line = audited.line(name);
    let first = audited.before.findings.first().with_context(|| format!("no finding: {line}"))?;
    ensure!((first.id, first.owner) == (*id, *owner), "the first finding is another: {line}");
    ensure!(first.severity == *severity, "{:?}: {line}", first.severity);
    let found = first.cause.setting.as_deref().unwrap_or_default();
    ensure!(found.contains(setting), "the setting is {found:?}: {line}");
    let bad = |severity: Severity| severity >= Severity::Warning;
    // What follows from it is found beside it.
    let follows = |one: &Finding| one.caused_by.iter().any(|cause| cause.id == *id);
    let others = audited.before.findings.iter();
    let others = others.filter(|one| bad(one.severity) && one.id != *id && !follows(one));
    ensure!(others.count() == 0, "other errors or warnings: {line}");
    let left = audited.after.findings.iter().filter(|one| bad(one.severity));
    ensure!(left.count() == 0, "errors or warnings are left: {line}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scenarios/findings.md");
    let kept =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        kept.lines().any(|kept| kept == line),
        "docs/scenarios/findings.md is old (cargo xtask scenarios): {line}"
    );
    Ok(())
}

//! What a plan foretells is what the owners of rules then have in the kernel: each scenario of the
//! four entries is mended twice, on the model by `unmasq-fix` and in the lab by the owners' own
//! writers, and the nodes' rules are compared.

#[path = "../trials/mod.rs"]
mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use unmasq_audit::expect::{self, Expectations};
use unmasq_audit::{Request, audit};
use unmasq_cluster::{Cluster, Overrides, read};
use unmasq_fix::{FindingName, Manifests, Plan, Refusal, State, Wanted, plan};
use unmasq_lab::scenario::builtin;
use unmasq_lab::session::Session;
use unmasq_model::host::Host;
use unmasq_model::ipset::IpSet;

fn main() -> ExitCode {
    let trial = |(title, name, change, accepted): Mended| {
        let run = move || scenario(name, change, accepted);
        (title, Box::new(run) as Box<dyn FnOnce() -> Result<()> + Send>)
    };
    trials::run(MENDED.iter().copied().map(trial))
}

/// A title, a scenario, what is another in its text, and what has to be accepted.
type Mended = (&'static str, &'static str, (&'static str, &'static str), &'static [&'static str]);

const LOCAL: &[&str] = &["unmet/external-traffic-policy-cluster"];

const MENDED: &[Mended] = &[
    ("canal-unused-pool", "canal-unused-pool", ("", ""), &[]),
    ("kube-router-egress", "kube-router-egress", ("", ""), &[]),
    ("flannel-host-masquerade", "flannel-host-masquerade", ("", ""), &[]),
    ("service-cluster-policy, nftables", "service-cluster-policy", ("", ""), LOCAL),
    (
        "service-cluster-policy, iptables",
        "service-cluster-policy",
        ("kube-proxy: {mode: nftables}", "kube-proxy: {mode: iptables}"),
        LOCAL,
    ),
];

struct Captured {
    state: State,
    expectations: Expectations,
}

fn capture(session: &Session) -> Result<Captured> {
    let files = session.capture()?;
    let expectations = match files.get("expect.yaml") {
        Some(text) => expect::parse(&String::from_utf8_lossy(text), "expect.yaml")?,
        None => Expectations::default(),
    };
    let contents = read::capture(&files)?;
    let cluster = Cluster::new(contents.nodes, contents.objects, Overrides::default());
    let objects = files.into_iter().filter(|(path, _)| path.starts_with("kubernetes/"));
    let manifests = Manifests::new(objects.collect());
    Ok(Captured { state: State { cluster, manifests }, expectations })
}

fn planned(captured: &Captured, wanted: &Wanted) -> Result<Plan, Refusal> {
    let Captured { state, expectations } = captured;
    let found = audit(&state.cluster, expectations, Request::default(), &|_, _| {});
    plan(state, &found, expectations, wanted, &|_, _| {})
}

/// The first finding's remedy, with what has to be accepted.
fn scenario(name: &str, (from, to): (&str, &str), accepted: &[&str]) -> Result<()> {
    let text = builtin(name).context("no such scenario")?;
    ensure!(text.contains(from), "{name} has no {from:?}");
    let text = if from.is_empty() { text.to_owned() } else { text.replace(from, to) };
    let mut session = Session::up(&text, &|_| {})?;
    let before = capture(&session)?;
    let Captured { state, expectations } = &before;
    let found = audit(&state.cluster, expectations, Request::default(), &|_, _| {});
    let first = found.findings.first().context("nothing is found")?;
    let wanted =
        Wanted { findings: vec![FindingName { id: first.id, subject: None }], ..Wanted::default() };
    if !accepted.is_empty() {
        let refused = planned(&before, &wanted).err().context("it is not refused")?;
        println!("{refused}");
    }
    let accepted: BTreeSet<String> = accepted.iter().map(|one| (*one).to_owned()).collect();
    let plan = match planned(&before, &Wanted { accepted, ..wanted }) {
        Ok(plan) => plan,
        Err(refusal) => bail!("refused: {refusal}: {refusal:?}"),
    };
    ensure!(session.step()?, "the scenario has no remedy");
    let after = capture(&session)?;
    for (foretold, real) in plan.after.cluster.nodes.iter().zip(&after.state.cluster.nodes) {
        let (Some(foretold), Some(real)) = (&foretold.host, &real.host) else { continue };
        same(&rules(foretold), &rules(real)).with_context(|| format!("rules of {}", real.name))?;
        same(&sets(foretold), &sets(real)).with_context(|| format!("sets of {}", real.name))?;
    }
    Ok(())
}

/// The rule that lets health checks in: the API server chooses its port when the policy becomes
/// Local, so nobody can foretell it.
const HEALTH_CHECKS: &str = "health check node port";

/// Rules by chain; chains without rules are no difference.
fn rules(host: &Host) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for table in &host.ruleset.tables {
        for chain in &table.chains {
            let name =
                format!("{:?} {} {} {}", table.backend, table.family, table.name, chain.name);
            let rules = chain.rules.iter().filter(|rule| !rule.text.contains(HEALTH_CHECKS));
            let rules: Vec<String> =
                rules.map(|rule| unmasq_fix::deed::without_counts(&rule.text)).collect();
            if !rules.is_empty() {
                all.insert(name, rules);
            }
        }
    }
    all
}

fn sets(host: &Host) -> BTreeMap<String, Vec<String>> {
    let of = |set: &IpSet| match &set.content {
        unmasq_model::ipset::Content::Hash(set) => {
            set.iter().map(|(element, _)| format!("{element:?}")).collect()
        }
        other => vec![format!("{other:?}")],
    };
    let sets = host.ipsets.iter().flatten();
    sets.map(|(name, set)| (name.to_string(), of(set))).collect()
}

fn same(
    foretold: &BTreeMap<String, Vec<String>>,
    real: &BTreeMap<String, Vec<String>>,
) -> Result<()> {
    let names: BTreeSet<&String> = foretold.keys().chain(real.keys()).collect();
    for name in names {
        let of = |all: &BTreeMap<String, Vec<String>>| all.get(name).cloned().unwrap_or_default();
        let (foretold, real) = (of(foretold), of(real));
        ensure!(
            foretold == real,
            "{name}:\nforetold\n  {}\nthere\n  {}",
            foretold.join("\n  "),
            real.join("\n  ")
        );
    }
    Ok(())
}

//! What a plan foretells is what the owners of rules then have in the kernel: each scenario of the
//! four entries is mended twice, on the model by `unmasq-fix` and in the lab by the owners' own
//! writers, and the nodes' rules are compared.

#[path = "../nodes/mod.rs"]
mod nodes;
#[path = "../trials/mod.rs"]
mod trials;

mod connections;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use unmasq_apply::{Journal, Outcome};
use unmasq_audit::expect::{self, Expectations};
use unmasq_audit::{Audit, FindingId, Request, audit};
use unmasq_cluster::{Cluster, Overrides, read};
use unmasq_fix::deed::Deed;
use unmasq_fix::{FindingName, Manifests, Plan, Refusal, State, Wanted, plan};
use unmasq_lab::scenario::builtin;
use unmasq_lab::session::Session;
use unmasq_model::host::Host;
use unmasq_model::ipset::IpSet;

use crate::nodes::Nodes;

fn main() -> ExitCode {
    let trial = |(title, name, change, accepted): Mended| {
        let run = move || scenario(name, change, accepted);
        (title, Box::new(run) as Box<dyn FnOnce() -> Result<()> + Send>)
    };
    let pinned: trials::Test<Box<dyn FnOnce() -> Result<()> + Send>> =
        ("canal-unused-pool, pinned", Box::new(pinned));
    let ended: trials::Test<Box<dyn FnOnce() -> Result<()> + Send>> =
        ("connections from before", Box::new(connections::ended));
    trials::run(MENDED.iter().copied().map(trial).chain([pinned, ended]))
}

/// A title, a scenario, what is another in its text, and what has to be accepted.
type Mended = (&'static str, &'static str, (&'static str, &'static str), &'static [&'static str]);

const LOCAL: &[&str] = &["unmet/external-traffic-policy-cluster/2"];

const MENDED: &[Mended] = &[
    ("canal-unused-pool", "canal-unused-pool", ("", ""), &[]),
    ("kube-router-egress", "kube-router-egress", ("", ""), &[]),
    ("flannel-host-masquerade", "flannel-host-masquerade", ("", ""), &[]),
    (
        "ip-masq-agent-empty-list",
        "ip-masq-agent-empty-list",
        // The branch's network isn't known from inside.
        ("10.128.0.0/20, 10.200.0.0/16]}", "10.128.0.0/20]}"),
        &["unanswered/node-port/shop/api"],
    ),
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
    if plan
        .deeds()
        .iter()
        .all(|deed| matches!(deed, Deed::Rules(_) | Deed::Table(_) | Deed::File(_)))
    {
        there_and_back(&session, &plan)?;
        script::there_and_back(&session, &plan)?;
    }
    ensure!(session.step()?, "the scenario has no remedy");
    let after = capture(&session)?;
    for (foretold, real) in plan.after.cluster.nodes.iter().zip(&after.state.cluster.nodes) {
        let (Some(foretold), Some(real)) = (&foretold.host, &real.host) else { continue };
        same(&rules(foretold), &rules(real)).with_context(|| format!("rules of {}", real.name))?;
        same(&sets(foretold), &sets(real)).with_context(|| format!("sets of {}", real.name))?;
    }
    let real = audit(&after.state.cluster, &after.expectations, Request::default(), &|_, _| {});
    let rows = |audit: &Audit| -> Vec<_> {
        audit.matrix.rows.iter().map(|row| (row.cell.clone(), row.count)).collect()
    };
    ensure!(rows(&plan.audit) == rows(&real), "the matrix is another than foretold");
    Ok(())
}

/// The immediate remedy, a table of our own, is foretold as the kernel takes it, and gone again.
fn pinned() -> Result<()> {
    let text = builtin("canal-unused-pool").context("no such scenario")?;
    let session = Session::up(text, &|_| {})?;
    let before = capture(&session)?;
    let wanted = Wanted {
        findings: vec![FindingName { id: FindingId::CalicoUnusedPool, subject: None }],
        remedy: Some(2),
        ..Wanted::default()
    };
    let plan = planned(&before, &wanted).map_err(|refusal| anyhow!("refused: {refusal}"))?;
    ensure!(plan.deeds().iter().all(|deed| matches!(deed, Deed::Table(_))), "it is no pin");
    there_and_back(&session, &plan)?;
    script::there_and_back(&session, &plan)?;
    script::rules_of_nft(&session, &plan)
}

/// Does a plan on the nodes: their rules are as foretold, then as before, to the byte.
fn there_and_back(session: &Session, plan: &Plan) -> Result<()> {
    let target = Nodes::of(session);
    for deed in plan.deeds() {
        if let Deed::File(file) = deed {
            let text = file.before.unwrap_or_default();
            target.files.borrow_mut().insert((file.node, file.path), text);
        }
    }
    let files = target.files.borrow().clone();
    let listed = session.capture()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("journal");
    unmasq_apply::check(&target, &plan.deeds())?;
    let mut journal = Journal::create(&path, Vec::new(), plan.deeds())?;
    let outcome = unmasq_apply::apply(&target, &mut journal, &mut |_| {});
    ensure!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    let there = capture(session)?;
    for (foretold, real) in plan.after.cluster.nodes.iter().zip(&there.state.cluster.nodes) {
        let (Some(foretold), Some(real)) = (&foretold.host, &real.host) else { continue };
        same(&rules(foretold), &rules(real))
            .with_context(|| format!("applied on {}", real.name))?;
    }
    let mut journal = Journal::open(&path)?;
    let came = unmasq_apply::take_back(&target, &mut journal, &mut |_| {});
    ensure!(came.wrong.is_empty() && came.others.is_empty(), "{came:?}");
    ensure!(*target.files.borrow() == files, "files are not as before");
    for (path, text) in session.capture()? {
        let rules = path.ends_with("-save") || path.ends_with("nft.txt");
        let without = |text: &[u8]| uncounted(&String::from_utf8_lossy(text));
        let was = listed.get(&path).with_context(|| format!("{path} is new"))?;
        ensure!(!rules || without(&text) == without(was), "{path} is not as before");
    }
    Ok(())
}

/// A listing without comments, counters and nft's handles.
fn uncounted(text: &str) -> String {
    let line = |line: &str| {
        let line = line.split(" # handle ").next().unwrap_or(line);
        let line = unmasq_fix::deed::without_counts(line);
        match line.split_once(" [") {
            Some((chain, _)) if line.starts_with(':') => chain.to_owned(),
            Some(_) | None => line,
        }
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(line).collect::<Vec<_>>().join("\n")
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

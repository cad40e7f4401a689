//! Changes that a cluster doesn't take, and one that fails half way.

use anyhow::{Context, Result, bail, ensure};
use unmasq_lab::cluster::Cluster;
use unmasq_lab::scenario::{Scenario, builtin};

const NAME: &str = "service-cluster-policy";

fn text() -> Result<&'static str> {
    builtin(NAME).context(NAME)
}

/// With one text in the place of another, which is there.
fn changed(from: &str, to: &str) -> Result<Scenario> {
    let text = text()?;
    ensure!(text.contains(from), "{from}");
    Scenario::parse(&text.replacen(from, to, 1))
}

fn refusal(cluster: &mut Cluster, scenario: &Scenario) -> Result<String> {
    match cluster.apply(scenario, &|_| None) {
        Ok(()) => bail!("it was taken"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// All rules, addresses and routes, without counters and what devices have by themselves.
fn state(cluster: &Cluster) -> Result<Vec<String>> {
    let one = |host: &unmasq_lab::Namespace| {
        host.script(
            "nft -s list ruleset; ip -o addr show scope global
             ip route show proto boot; ip -6 route show proto boot",
        )
    };
    cluster.namespaces.iter().map(one).collect()
}

/// The change has other rules and an external IP's route in it too: none of them come.
pub(crate) fn refused() -> Result<()> {
    let mut cluster = Cluster::up(&Scenario::parse(text()?)?, &|_| {})?;
    let before = state(&cluster)?;
    let mut other = changed("203.0.113.80", "203.0.113.81")?;
    other.network.between = unmasq_lab::scenario::Between::Routed;
    let said = refusal(&mut cluster, &other)?;
    ensure!(said.contains("not links and neighbours of n1"), "{said}");
    for (then, now) in before.iter().zip(&state(&cluster)?) {
        ensure!(then == now, "something was changed:\n{then}\n{now}");
    }
    // It still takes what it can.
    let moved = changed("203.0.113.80", "203.0.113.81")?;
    cluster.apply(&moved, &|_| None)?;
    let gateway = cluster.namespace("gateway")?.exec(&["ip", "route"])?;
    ensure!(gateway.contains("203.0.113.81 via 10.0.0.11"), "{gateway}");
    ensure!(!gateway.contains("203.0.113.80"), "{gateway}");
    ensure!(cluster.scenario == moved, "the settings are the old ones");
    Ok(())
}

/// One host has a route already that the change brings.
pub(crate) fn half_way() -> Result<()> {
    let scenario = Scenario::parse(text()?)?;
    let mut cluster = Cluster::up(&scenario, &|_| {})?;
    cluster.namespace("gateway")?.script("ip route add 203.0.113.81 via 10.0.0.12")?;
    let said = refusal(&mut cluster, &changed("203.0.113.80", "203.0.113.81")?)?;
    ensure!(said.contains("half way"), "{said}");
    ensure!(said.contains("host gateway") && said.contains("File exists"), "{said}");
    ensure!(cluster.scenario == scenario, "the new settings are not there");
    // From there no step is taken, not even one that would be harmless.
    let again = refusal(&mut cluster, &scenario)?;
    ensure!(again.contains("built anew") && again.contains("File exists"), "{again}");
    Ok(())
}

//! What a load balancer's spread over nodes makes of pods, and what the policy Cluster costs: many
//! connections, counted, against what the placement of the endpoints gives (the bound is explained
//! in `unmasq_lab::spread`).

use anyhow::{Result, ensure};
use unmasq_lab::scenario::builtin;
use unmasq_lab::session::Session;
use unmasq_lab::spread::{Spread, deviation};

const COUNT: usize = 600;

fn session(name: &str) -> Result<Session> {
    let text = builtin(name).unwrap_or_default();
    Session::up(text, &|_| {})
}

fn fits(spread: &Spread) -> Result<()> {
    ensure!(spread.fits(), "{spread:?}: deviations {:?}", spread.deviations());
    Ok(())
}

/// Nodes with 1, 1 and 8 pods: each of the two lonely pods has a third of all connections, each of
/// the eight a 24th. And a Service with one pod on one of three nodes loses two thirds until the
/// load balancer asks the nodes' health ports.
pub(crate) fn uneven() -> Result<()> {
    let mut session = session("service-local-policy")?;
    let lone = session.spread("default/lone", "customer", COUNT)?;
    fits(&lone)?;
    let off = deviation(lone.unanswered, COUNT, 2.0 / 3.0);
    ensure!(off.abs() <= 5.0, "{} of {COUNT} are unanswered: {off} sigma", lone.unanswered);
    while session.step()? {}
    let lone = session.spread("default/lone", "customer", COUNT)?;
    ensure!(lone.unanswered == 0 && lone.answers["lone-1"] == COUNT, "{lone:?}");

    let web = session.spread("default/web", "customer", COUNT)?;
    fits(&web)?;
    ensure!(web.unanswered == 0, "{web:?}");
    let lonely = web.answers["web-1"] + web.answers["web-2"];
    let crowd: usize = web.answers.values().sum::<usize>() - lonely;
    // By hand: 2/3 and 1/3, so 1/3 and 1/24 for each of 2 and of 8 pods.
    ensure!(deviation(lonely, COUNT, 2.0 / 3.0).abs() <= 5.0, "{web:?}");
    let ratio = (lonely as f64 / 2.0) / (crowd as f64 / 8.0);
    eprintln!("a lonely pod has {ratio:.1} times the connections of one among eight: {web:?}");
    ensure!((4.0..16.0).contains(&ratio), "{ratio}");
    Ok(())
}

/// With Cluster two of three nodes have to pass a connection on to the one with the endpoint.
pub(crate) fn extra_hop() -> Result<()> {
    let mut session = session("service-cluster-policy")?;
    let cluster = session.spread("default/web", "customer", COUNT)?;
    let (direct, by_another) = (count(&cluster, 2), count(&cluster, 3));
    // Half of the connections are of UDP, which shows the hops.
    ensure!(direct + by_another == COUNT / 2, "{cluster:?}");
    ensure!(deviation(by_another, COUNT / 2, 2.0 / 3.0).abs() <= 5.0, "{cluster:?}");
    while session.step()? {}
    let local = session.spread("default/web", "customer", COUNT)?;
    ensure!(count(&local, 2) == COUNT / 2 && local.hops.len() == 1, "{local:?}");
    ensure!(local.unanswered == 0, "{local:?}");
    Ok(())
}

fn count(spread: &Spread, hops: usize) -> usize {
    spread.hops.get(&hops).copied().unwrap_or(0)
}

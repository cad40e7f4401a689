//! Connections that keep the translation that they began with: which they are, and that only they
//! end.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use unmasq_apply::{Journal, Outcome, connections as kernel};
use unmasq_fix::Wanted;
use unmasq_fix::connections::{self, Entry};
use unmasq_fix::deed::Deed;
use unmasq_lab::scenario::builtin;
use unmasq_lab::session::Session;

use crate::{Nodes, capture, planned};

const NODE: &str = "hdss7-21";
const POD: &str = "shell-21";

/// Pods of one host talk to another host's pod, which the change is about; to the outside, where
/// they stay translated; and to each other, where they never were.
pub(crate) fn ended() -> Result<()> {
    let text = builtin("flannel-host-masquerade").context("no such scenario")?;
    let session = Session::up(text, &|_| {})?;
    let before = capture(&session)?;
    let address = |pod: &str| -> Result<String> {
        let pods = &before.state.cluster.objects.pods;
        let pod = pods.iter().find(|one| one.metadata.name == pod).context("no such pod")?;
        Ok(pod.ips().next().context("it has no address")?.to_string())
    };
    let (other, near) = (address("nginx-22")?, address("nginx-21")?);
    let node = session.cluster.namespace(NODE)?;
    let send = |to: &str, port: u16| {
        let line = format!("echo x > /dev/udp/{to}/{port}");
        session.cluster.namespace(POD)?.exec(&["bash", "-c", &line])
    };
    let there = || -> Result<Vec<Entry>> {
        let text = node.enter(kernel::list)??;
        let source: std::net::IpAddr = address(POD)?.parse()?;
        let mine = |entry: &Entry| entry.packet.source == source;
        Ok(connections::parse(&text).into_iter().filter(mine).collect())
    };
    send(&other, 7001)?;
    send(&other, 7002)?;
    send("203.0.113.20", 7003)?;
    send(&near, 7004)?;
    let translated = |entries: &[Entry]| -> BTreeSet<String> {
        let it = entries.iter().filter(|entry| entry.source != entry.packet.source);
        it.map(|entry| entry.packet.destination.to_string()).collect()
    };
    let begun = there()?;
    ensure!(
        translated(&begun) == BTreeSet::from([other.clone(), "203.0.113.20".to_owned()]),
        "{begun:?}"
    );

    let plan = planned(&before, &Wanted::default()).map_err(|why| anyhow::anyhow!("{why}"))?;
    let deeds: Vec<Deed> =
        plan.deeds().into_iter().filter(|deed| matches!(deed, Deed::Rules(_))).collect();
    let target = Nodes::of(&session);
    let folder = tempfile::tempdir()?;
    let mut journal = Journal::create(&folder.path().join("journal"), Vec::new(), deeds)?;
    let outcome = unmasq_apply::apply(&target, &mut journal, &mut |_| {});
    ensure!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    // The next packet of it goes by what the kernel has kept.
    let host = |state: &unmasq_fix::State| {
        let node = state.cluster.nodes.iter().find(|one| one.name == NODE);
        node.and_then(|node| node.host.clone()).context("no such node")
    };
    let kept = connections::kept(&host(&before.state)?, &host(&plan.after)?, there()?);
    ensure!(kept.len() == 2, "{kept:?}");
    ensure!(translated(&kept) == BTreeSet::from([other]), "{kept:?}");
    for entry in &kept {
        ensure!(node.enter(|| kernel::end(entry))??, "{entry} is over");
        ensure!(!node.enter(|| kernel::end(entry))??, "{entry} is still there");
    }
    let left = there()?;
    ensure!(translated(&left) == BTreeSet::from(["203.0.113.20".to_owned()]), "{left:?}");
    ensure!(left.iter().any(|entry| entry.packet.destination.to_string() == near), "{left:?}");
    Ok(())
}

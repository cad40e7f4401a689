//! The lab cleans up behind itself, and sees a packet that is dropped without waiting.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use unmasq_lab::{Namespace, Network};

use crate::router;
use crate::trials::Test;

pub(crate) const TESTS: &[Test] = &[
    ("namespaces::a_dropped_namespace_is_deleted", dropped),
    ("namespaces::those_of_dead_processes_are_swept", swept),
    ("namespaces::a_failed_command_carries_its_stderr", failed_command),
    ("namespaces::a_drop_costs_no_waiting", drop_is_quick),
    ("namespaces::each_probe_is_seen_once", once),
];

fn dropped() -> Result<()> {
    let namespace = Namespace::new("test")?;
    let path = namespace.path();
    ensure!(path.exists(), "{} was not made", path.display());
    drop(namespace);
    ensure!(!path.exists(), "{} is still there", path.display());
    Ok(())
}

fn swept() -> Result<()> {
    let mut child = Command::new("true").spawn()?;
    let pid = child.id();
    child.wait()?;
    let name = format!("unmasq-{pid}-0-test");
    let status = Command::new("ip").args(["netns", "add", &name]).status()?;
    ensure!(status.success(), "ip netns add {name}");
    let own = Namespace::new("kept")?;
    // Another test binary may sweep at the same time; gone is what counts.
    Namespace::sweep();
    ensure!(!std::path::Path::new("/run/netns").join(&name).exists(), "{name} is still there");
    ensure!(own.path().exists(), "a living process's namespace was swept");
    Ok(())
}

fn failed_command() -> Result<()> {
    let namespace = Namespace::new("test")?;
    let error = namespace.exec(&["ip", "link", "show", "nothing0"]).err().context("it worked")?;
    let text = format!("{error:#}");
    ensure!(text.contains("\"show\" \"nothing0\"") && text.contains("does not exist"), "{text}");
    Ok(())
}

fn drop_is_quick() -> Result<()> {
    let network = router()?;
    network.script("ip route add blackhole 10.9.0.0/24")?;
    let begun = Instant::now();
    for port in 1000..1020 {
        let sighting = network
            .send(&format!("eth0 udp 192.0.2.7:{port} > 10.9.0.5:53").parse()?)
            .context("send")?;
        ensure!(sighting.to_string().is_empty(), "{sighting}");
    }
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(2), "20 drops took {took:?}");
    Ok(())
}

fn once() -> Result<()> {
    let network: Network = router()?;
    for port in 1000..1200 {
        let text = format!("eth0 udp 192.0.2.7:{port} > 10.9.0.5:53");
        let sighting = network.send(&text.parse()?)?;
        let expected = format!("eth1 192.0.2.7:{port} > 10.9.0.5:53");
        ensure!(sighting.to_string() == expected, "saw {sighting}, not {expected}");
    }
    Ok(())
}

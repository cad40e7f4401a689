//! A capture has the settings behind the rules, as they are at the time.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use unmasq_lab::scenario::builtin;
use unmasq_lab::session::Session;
use unmasq_model::host::Seen;

/// klipper-lb has all kinds: a DaemonSet with pods whose namespaces are captured, a process and a
/// file of the node. Switched off, all of them say so.
pub(crate) fn settings() -> Result<()> {
    let text = builtin("klipper-lb").context("no klipper-lb")?;
    let mut session = Session::up(text, &|_| {})?;
    let found = session.capture()?;
    let in_pod = "nodes/k3s-1/pods/kube-system_svclb-k3s-1/iptables-save";
    ensure!(has(&found, in_pod, "-j MASQUERADE"), "{in_pod} doesn't masquerade");
    let sets = "kubernetes/daemonsets.apps.json";
    ensure!(has(&found, sets, "\"svclb-web-82b3ade9\""), "no DaemonSet in {sets}");
    ensure!(has(&found, "kubernetes/pods.json", "\"svclb-k3s-1\""), "no pod of it");
    ensure!(has(&found, "nodes/k3s-2/processes", "/usr/local/bin/k3s server\n"), "no k3s");
    let config = "nodes/k3s-1/files/etc/rancher/k3s/config.yaml";
    ensure!(!has(&found, config, "servicelb"), "{config} says that it is off");

    ensure!(session.step()?, "there is no remedy");
    let mended = session.capture()?;
    ensure!(has(&mended, config, "disable:\n  - servicelb\n"), "{config} says that it is on");
    let left = mended.keys().find(|path| path.contains("svclb") || *path == sets);
    ensure!(left.is_none(), "{left:?} is left");

    // A reader isn't troubled by any of it.
    for files in [&found, &mended] {
        let capture = unmasq_parse::capture::parse(files)?;
        for name in ["k3s-1", "k3s-2"] {
            let node = capture.node(name).with_context(|| format!("no node {name}"))?;
            ensure!(node.diagnostics.is_empty(), "{name}: {:?}", node.diagnostics);
            // What isn't there was asked for, and there is none.
            let legacy = &node.host.backends.iptables_legacy;
            ensure!(*legacy == Seen::Captured, "{name}: legacy: {legacy:?}");
        }
    }
    Ok(())
}

fn has(files: &BTreeMap<String, Vec<u8>>, path: &str, text: &str) -> bool {
    files.get(path).is_some_and(|file| String::from_utf8_lossy(file).contains(text))
}

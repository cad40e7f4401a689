//! What a capture of a scenario's cluster has in it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use unmasq_lab::scenario::builtin;
use unmasq_lab::session::Session;

/// Node, namespace and name.
type Pod = (String, String, String);

/// The pods of the API are those whose state was read, on the same nodes; klipper-lb's among them,
/// with the labels that k3s gives them.
pub(crate) fn pods() -> Result<()> {
    let session = Session::up(builtin("klipper-lb").unwrap_or_default(), &|_| {})?;
    let files = session.capture()?;
    let text = files.get("kubernetes/pods.json").context("no pods")?;
    let list: Value = serde_json::from_slice(text)?;
    let items = list["items"].as_array().context("no items")?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pod = |pod: &Value| -> Pod {
        let metadata = &pod["metadata"];
        (word(&pod["spec"]["nodeName"]), word(&metadata["namespace"]), word(&metadata["name"]))
    };
    let listed: BTreeSet<Pod> = items.iter().map(pod).collect();
    let expected = [
        ("k3s-1", "default", "web-1"),
        ("k3s-1", "kube-system", "svclb-k3s-1"),
        ("k3s-2", "default", "tool-2"),
        ("k3s-2", "kube-system", "svclb-k3s-2"),
    ];
    let owned = |(node, namespace, name): (&str, &str, &str)| {
        (node.to_owned(), namespace.to_owned(), name.to_owned())
    };
    ensure!(listed == expected.into_iter().map(owned).collect(), "{listed:?}");
    let state = |path: &String| -> Option<Pod> {
        let (node, rest) = path.strip_prefix("nodes/")?.split_once("/pods/")?;
        let (namespace, name) = rest.split_once('/')?.0.split_once('_')?;
        Some(owned((node, namespace, name)))
    };
    let read: BTreeSet<Pod> = files.keys().filter_map(state).collect();
    ensure!(read == listed, "{read:?}");
    for balancer in items.iter().filter(|pod| pod["metadata"]["namespace"] == "kube-system") {
        let labels = &balancer["metadata"]["labels"];
        ensure!(labels["svccontroller.k3s.cattle.io/svcname"] == "web", "{labels}");
        let ports = balancer["spec"]["containers"].as_array().context("no containers")?;
        ensure!(ports.len() == 2 && ports[0]["ports"][0]["hostPort"] == 80, "{ports:?}");
        ensure!(balancer["status"]["podIPs"].as_array().is_some_and(|ips| ips.len() == 2));
    }
    Ok(())
}

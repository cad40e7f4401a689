//! Where a host or a cluster comes from: a capture, or the machine that the command runs on.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use ipnet::IpNet;
use unmasq_cluster::read::{Contents, Problem};
use unmasq_cluster::{Cluster, Overrides};
use unmasq_host::capture::Source;
use unmasq_host::collect::Options;
use unmasq_model::host::Host;
use unmasq_model::origin::Diagnostic;
use unmasq_parse::capture::Status;

use crate::output;

/// Notes of a kind that are shown without `-v`.
const FEW: usize = 3;

/// A host, and what could not be read of it.
pub(crate) struct Loaded {
    pub(crate) host: Host,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What could not be collected, each with its reason.
    failed: Vec<String>,
}

/// Reads the node of a capture, or this machine.
pub(crate) fn load(capture: Option<&Source>, node: Option<&str>) -> anyhow::Result<Loaded> {
    match capture {
        Some(source) => from_capture(source, node),
        None => from_this_machine(node),
    }
}

/// A cluster, and what its capture says must hold of it.
pub(crate) struct LoadedCluster {
    pub(crate) cluster: Cluster,
    /// `expect.yaml` at the capture's root.
    pub(crate) expectations: Option<String>,
    /// The files of its objects.
    pub(crate) manifests: BTreeMap<String, Vec<u8>>,
    /// What conntrack lists, of nodes where it was collected.
    pub(crate) connections: BTreeMap<String, String>,
}

/// Reads a whole capture, node by node. `cluster_cidrs`: the ranges of pods, if the user said
/// them. `progress` hears how many of how many nodes are being read.
pub(crate) fn cluster(
    source: &Source,
    cluster_cidrs: Vec<IpNet>,
    progress: &dyn Fn(usize, usize),
) -> anyhow::Result<LoadedCluster> {
    let names: Vec<&str> = source.node_names().collect();
    let mut nodes = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    let mut connections = BTreeMap::new();
    for (number, name) in (1..).zip(&names) {
        progress(number, names.len());
        let Some(files) = source.take_node(name)? else { continue };
        let contents = unmasq_cluster::read::capture(&files)?;
        problems.extend(contents.problems);
        connections.extend(conntrack(name, &files));
        // The manifest names the others too, without their files.
        nodes.extend(contents.nodes.into_iter().filter(|node| node.name == **name));
    }
    let mut others = source.take_others()?;
    let expectations =
        others.remove(EXPECTATIONS).map(|text| String::from_utf8_lossy(&text).into_owned());
    others.retain(|path, _| {
        let below = path.strip_prefix("kubernetes/");
        below.is_some_and(|name| !name.contains('/') && unmasq_cluster::read::is_manifest(name))
    });
    let texts = others.iter().map(|(path, text)| (&**path, &**text));
    let contents = unmasq_cluster::read::objects(texts);
    problems.extend(contents.problems);
    let told: Vec<String> = problems.iter().map(|it| output::clean(&it.to_string())).collect();
    tell("of the objects could not be read", "part", &told, false);
    let overrides = Overrides { cluster_cidrs, ..Overrides::default() };
    let contents = Contents { nodes, objects: contents.objects, problems };
    let cluster = Cluster::of(contents, overrides);
    Ok(LoadedCluster { cluster, expectations, manifests: others, connections })
}

/// Where a capture has what must hold of its cluster.
pub(crate) const EXPECTATIONS: &str = "expect.yaml";

/// This machine as a cluster of one node, without objects.
pub(crate) fn cluster_of_this_machine(cluster_cidrs: Vec<IpNet>) -> anyhow::Result<LoadedCluster> {
    let Machine { contents, failed, .. } = this_machine()?;
    let failed = failed.iter().map(|(file, why)| output::clean(&format!("{file}: {why}")));
    tell("could not be collected", "file", &failed.collect::<Vec<_>>(), false);
    let overrides = Overrides { cluster_cidrs, ..Overrides::default() };
    let cluster = Cluster::of(contents, overrides);
    let (manifests, connections) = (BTreeMap::new(), BTreeMap::new());
    Ok(LoadedCluster { cluster, expectations: None, manifests, connections })
}

/// This machine, collected.
pub(crate) struct Machine {
    /// Its name.
    pub(crate) node: String,
    /// What a capture of it has.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// What of it could not be collected, and why.
    pub(crate) failed: BTreeMap<String, String>,
    contents: Contents,
}

impl Machine {
    /// Its network state.
    pub(crate) fn host(&self) -> anyhow::Result<Host> {
        let mut nodes = self.contents.nodes.iter().filter(|node| node.name == self.node);
        let host = nodes.find_map(|node| node.host.clone());
        host.with_context(|| format!("nothing of {} could be read", self.node))
    }
}

/// Collects this machine.
pub(crate) fn this_machine() -> anyhow::Result<Machine> {
    needs_root()?;
    let collected = unmasq_host::collect::collect(&Options::default())?;
    let contents = unmasq_cluster::read::capture(&collected.files)?;
    let failed = collected.report.into_iter().filter(|step| is_failure(step.status));
    let failed = failed.map(|step| (step.file, step.detail)).collect();
    Ok(Machine { node: collected.node, files: collected.files, failed, contents })
}

/// A node's name with what conntrack lists there, if it was collected.
fn conntrack(node: &str, files: &BTreeMap<String, Vec<u8>>) -> Option<(String, String)> {
    let text = files.get(&format!("nodes/{node}/conntrack"))?;
    Some((node.to_owned(), String::from_utf8_lossy(text).into_owned()))
}

fn is_failure(status: Status) -> bool {
    match status {
        Status::Failed => true,
        Status::Collected | Status::Absent => false,
    }
}

fn needs_root() -> anyhow::Result<()> {
    if !is_root() {
        bail!(
            "reading this host's rules needs root: run it with sudo, or name a capture \
             (unmasq collect makes one)"
        );
    }
    Ok(())
}

fn from_capture(source: &Source, node: Option<&str>) -> anyhow::Result<Loaded> {
    let names: Vec<&str> = source.node_names().collect();
    let name = choose(&names, node)?;
    let files =
        source.take_node(name)?.with_context(|| format!("the capture has no node {name}"))?;
    let capture = unmasq_parse::capture::parse(&files)?;
    let Some(node) = capture.node(name) else { bail!("the capture has no node {name}") };
    Ok(Loaded { host: node.host, diagnostics: node.diagnostics, failed: Vec::new() })
}

fn from_this_machine(node: Option<&str>) -> anyhow::Result<Loaded> {
    needs_root()?;
    let options = Options { node: node.map(ToOwned::to_owned), ..Options::default() };
    let live = unmasq_host::live(&options)?;
    let failed = live.report.into_iter().filter(|step| is_failure(step.status));
    Ok(Loaded {
        host: live.node.host,
        diagnostics: live.node.diagnostics,
        failed: failed.map(|step| format!("{}: {}", step.file, step.detail)).collect(),
    })
}

/// Whether this program may list rules, as far as one can tell beforehand.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Loaded {
    /// Notes on standard error what could not be had or not be understood: that is kept as
    /// unknown, never skipped.
    pub(crate) fn tell_diagnostics(&self, all: bool) {
        let failed = self.failed.iter().map(|it| output::clean(it)).collect::<Vec<_>>();
        tell("could not be collected", "file", &failed, all);
        // What is said of a file as a whole stands in the manifest, or would.
        let (missing, unread): (Vec<&Diagnostic>, Vec<&Diagnostic>) = self
            .diagnostics
            .iter()
            .partition(|one| self.host.file(one.origin.file) == unmasq_parse::capture::MANIFEST);
        let missing: Vec<String> =
            missing.iter().map(|one| output::clean(&with_advice(&one.message))).collect();
        tell_were("not captured", "file", &missing, all);
        let unread: Vec<String> = unread
            .iter()
            .map(|diagnostic| {
                let file = self.host.file(diagnostic.origin.file);
                let text = format!("{file}:{}: {}", diagnostic.origin.line, diagnostic.message);
                output::clean(&text)
            })
            .collect();
        tell("of the input could not be read", "line", &unread, all);
    }
}

/// How to get what needs a program that nodes seldom have.
fn with_advice(message: &str) -> String {
    let is_bpf = message.split([':', ' ']).next().is_some_and(|path| path.ends_with("/bpf"));
    match is_bpf {
        true => format!(
            "{message}. With the package bpftool (7.3 or later), on the node, as root: bpftool net \
             > the capture's nodes/NODE/bpf; or unmasq collect again"
        ),
        false => message.to_owned(),
    }
}

fn tell_were(what: &str, noun: &str, notes: &[String], all: bool) {
    let was = if notes.len() == 1 { "was" } else { "were" };
    tell(&format!("{was} {what}"), noun, notes, all);
}

fn tell(what: &str, noun: &str, notes: &[String], all: bool) {
    let count = notes.len();
    if count == 0 {
        return;
    }
    output::warn(&format!("note: {count} {noun}{} {what}", if count == 1 { "" } else { "s" }));
    let shown = if all { count } else { count.min(FEW) };
    for note in notes.iter().take(shown) {
        output::warn(&format!("  {note}"));
    }
    if shown < count {
        output::warn(&format!("  and {} more; all with -v", count - shown));
    }
}

/// Picks the node asked for, or the only one.
fn choose<'a>(names: &[&'a str], wanted: Option<&str>) -> anyhow::Result<&'a str> {
    match (wanted, names) {
        (_, []) => bail!("the capture has no node"),
        (None, [only]) => Ok(only),
        (None, several) => {
            bail!("the capture has several nodes; choose one with --node: {}", several.join(", "))
        }
        (Some(wanted), names) => match names.iter().find(|name| **name == wanted) {
            Some(name) => Ok(name),
            None => bail!("the capture has no node {wanted}; it has {}", names.join(", ")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choosing_a_node() {
        for (names, wanted, expected) in [
            (vec!["w1"], None, Ok("w1")),
            (vec!["w1", "w2"], Some("w2"), Ok("w2")),
            (vec!["w1", "w2"], None, Err("choose one with --node: w1, w2")),
            (vec!["w1", "w2"], Some("w"), Err("no node w; it has w1, w2")),
            (vec![], None, Err("has no node")),
            (vec![], Some("w1"), Err("has no node")),
        ] {
            match (choose(&names, wanted), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (got, expected) => panic!("{names:?} {wanted:?}: {got:?}, not {expected:?}"),
            }
        }
    }
}

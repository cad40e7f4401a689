//! Assembles hosts from the files of a capture.
//!
//! In: files by their path in the capture. Out: a [`Capture`] that knows its nodes and parses one
//! when it is asked for. A file that is missing, failed or unreadable makes its part of the host
//! `None` or [`Seen::Missing`](unmasq_model::host::Seen::Missing), never empty. Reading archives
//! is not done here, nor are Kubernetes objects: their paths are kept.
//!
//! ```text
//! capture.json                          Manifest: what was asked for, and what came of it
//! nodes/<node>/iptables-save …          Node.host
//! nodes/<node>/pods/<ns>_<pod>/…        Node.pods
//! kubernetes/<plural>.json              Capture::kubernetes
//! ```

mod beyond;
mod folder;
mod node;
mod ruleset;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use node::{Node, Pod};

/// The format that is written, and the only one that is read.
pub const SCHEMA: &str = "unmasq.capture/v1";

/// Where the manifest is in a capture.
pub const MANIFEST: &str = "capture.json";

/// The node's name where the files of one node are not in a capture's folders.
pub const LONE_NODE: &str = "node";

/// `capture.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// When, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The program or the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What was done on each node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, NodeRecord>,
}

/// What was done on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeRecord {
    /// By the file's path in the node's folder.
    #[serde(default)]
    pub files: BTreeMap<String, FileRecord>,
}

/// What came of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// The command, or what was read.
    #[serde(default)]
    pub command: String,
    /// What came of it.
    pub status: Status,
    /// Why, and what the command said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Whether a file could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is in the capture.
    Collected,
    /// It should be, and something went wrong.
    Failed,
    /// The kernel was shown to have nothing that it could list.
    Absent,
}

/// Why files are no capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// There is no manifest.
    #[error(
        "no capture.json in the capture: write {{\"schema\": \"{SCHEMA}\"}} into it if the files \
         of each node are in nodes/<node>/, or name the folder that has a node's iptables-save"
    )]
    NoManifest,
    /// The manifest is not JSON, or not of that form.
    #[error("capture.json can't be read ({0}): it must be an object with \"schema\": \"{SCHEMA}\"")]
    BadManifest(serde_json::Error),
    /// Another format.
    #[error(
        "capture.json says \"schema\": \"{0}\", and only {SCHEMA} can be read: \
         collect again with this version, or use the version that wrote it"
    )]
    UnknownSchema(String),
    /// Nothing to look at.
    #[error("the capture has no node: each node's files belong into nodes/<node>/")]
    NoNodes,
}

/// Which nodes a capture has and where their files are: what paths and the manifest tell.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    manifest: Manifest,
    /// Prefixes of the nodes' paths, by the nodes' names.
    nodes: BTreeMap<Box<str>, String>,
}

/// A capture whose nodes are parsed when they are asked for.
#[derive(Debug, Clone)]
pub struct Capture<'a> {
    layout: Layout,
    files: &'a BTreeMap<String, Vec<u8>>,
}

/// Takes files, by path in the capture, for a capture. The manifest may be missing, and then the
/// `nodes` folder too: the files of one node are taken for a node named [`LONE_NODE`].
pub fn parse(files: &BTreeMap<String, Vec<u8>>) -> Result<Capture<'_>, CaptureError> {
    let manifest = files.get(MANIFEST).map(Vec::as_slice);
    let layout = Layout::new(files.keys().map(String::as_str), manifest)?;
    Ok(Capture { layout, files })
}

/// Files with Kubernetes objects: the resource's plural name, and the text.
pub fn kubernetes(files: &BTreeMap<String, Vec<u8>>) -> impl Iterator<Item = (&str, &[u8])> {
    files.iter().filter_map(|(path, content)| {
        let plural = path.strip_prefix("kubernetes/")?.strip_suffix(".json")?;
        Some((plural, content.as_slice()))
    })
}

impl Layout {
    /// Of a capture with these files and this manifest; see [`parse`].
    pub fn new<'p>(
        paths: impl Iterator<Item = &'p str> + Clone,
        manifest: Option<&[u8]>,
    ) -> Result<Layout, CaptureError> {
        let manifest = match manifest {
            Some(text) => {
                let manifest: Manifest =
                    serde_json::from_slice(text).map_err(CaptureError::BadManifest)?;
                if manifest.schema != SCHEMA {
                    return Err(CaptureError::UnknownSchema(manifest.schema));
                }
                manifest
            }
            None if paths.clone().any(folder::is_evidence_of_a_node) => {
                let nodes = BTreeMap::from([(LONE_NODE.into(), String::new())]);
                return Ok(Layout { manifest: Manifest::default(), nodes });
            }
            None if paths.clone().any(|path| path.starts_with("nodes/")) => Manifest::default(),
            None => return Err(CaptureError::NoManifest),
        };
        let in_folders =
            paths.filter_map(|path| Some(path.strip_prefix("nodes/")?.split_once('/')?.0));
        let names: BTreeSet<&str> =
            in_folders.chain(manifest.nodes.keys().map(String::as_str)).collect();
        let nodes: BTreeMap<Box<str>, String> =
            names.into_iter().map(|name| (name.into(), format!("nodes/{name}/"))).collect();
        if nodes.is_empty() {
            return Err(CaptureError::NoNodes);
        }
        Ok(Layout { manifest, nodes })
    }

    /// What `capture.json` says; empty where there is none.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The nodes' names in order.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(|name| &**name)
    }

    /// The node that a file belongs to, if it belongs to one.
    pub fn node_of(&self, path: &str) -> Option<&str> {
        let name = match path.strip_prefix("nodes/").and_then(|rest| rest.split_once('/')) {
            Some((name, _)) => name,
            // All files of a lone node are its own, but for those of the cluster.
            None if path.starts_with("kubernetes/") || path == MANIFEST => return None,
            None => LONE_NODE,
        };
        let (known, prefix) = self.nodes.get_key_value(name)?;
        path.starts_with(prefix.as_str()).then_some(&**known)
    }
}

impl<'a> Capture<'a> {
    /// What `capture.json` says; empty where there is none.
    pub fn manifest(&self) -> &Manifest {
        self.layout.manifest()
    }

    /// The nodes' names in order.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        self.layout.node_names()
    }

    /// Parses a node with its pods. `None`: there is no node of that name.
    pub fn node(&self, name: &str) -> Option<Node> {
        let prefix = self.layout.nodes.get(name)?;
        let records = self.manifest().nodes.get(name).map(|record| &record.files);
        Some(node::parse(name, self.files, prefix, records))
    }

    /// A file of a node that no host is made of (`processes`, `files/…`, `conntrack`).
    pub fn node_file(&self, node: &str, path: &str) -> Option<&'a [u8]> {
        let prefix = self.layout.nodes.get(node)?;
        self.files.get(&format!("{prefix}{path}")).map(Vec::as_slice)
    }

    /// Files with Kubernetes objects: the resource's plural name, and the text.
    pub fn kubernetes(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        kubernetes(self.files)
    }
}

#[cfg(test)]
mod tests;

//! Reads what somebody else took from a disk or a pipe: captures, folders of manifests, and what
//! kubectl prints.
//!
//! ```text
//! kubernetes/<plural>[.<group>].json, .yaml ─┐
//! manifests, output of kubectl ──────────────┴─ text ─ document by document ─▶ Objects, Problems
//! nodes/<node>/…                             ── unmasq_parse::capture ──▶ Nodes
//! ```
//!
//! In: paths and bytes. Out: objects and nodes, and a [`Problem`] for each thing that could not be
//! read; it costs that thing alone. An object with a field that the API server would refuse is such
//! a thing: it can't be in a cluster.

mod node;
mod text;

use std::collections::BTreeMap;
use std::fmt;

use unmasq_parse::capture::{self, CaptureError};

use crate::Node;
use crate::kubernetes::{Objects, Wrong};

/// Something that could not be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file; empty: it is about several.
    pub file: String,
    /// The number of the document, from 1, in a file that has several.
    pub document: Option<usize>,
    /// The line, from 1, at which the thing begins or the error is.
    pub line: Option<usize>,
    /// What is wrong: with an object, its kind, name and field come first.
    pub message: String,
    /// The field that is wrong, if it is one.
    pub wrong: Option<Wrong>,
}

/// `FILE, document 2, line 40: Service shop/web: spec.type: …`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_empty() {
            return f.write_str(&self.message);
        }
        f.write_str(&self.file)?;
        if let Some(document) = self.document {
            write!(f, ", document {document}")?;
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What files had.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Nodes that were captured, in order of their names.
    pub nodes: Vec<Node>,
    /// Kubernetes objects.
    pub objects: Objects,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// Reads a capture: its nodes, and the objects in its `kubernetes` folder. It may have either.
pub fn capture(files: &BTreeMap<String, Vec<u8>>) -> Result<Contents, CaptureError> {
    let in_folder = files.iter().filter(|(path, _)| {
        let below = path.strip_prefix("kubernetes/");
        below.is_some_and(|name| !name.contains('/') && is_manifest(name))
    });
    let texts: Vec<(&str, &[u8])> =
        in_folder.map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let nodes = match capture::parse(files) {
        Ok(capture) => node::nodes(&capture, files),
        Err(CaptureError::NoNodes | CaptureError::NoManifest) if !texts.is_empty() => Vec::new(),
        Err(error) => return Err(error),
    };
    let Contents { objects, problems, .. } = objects(texts);
    Ok(Contents { nodes, objects, problems })
}

/// Reads the objects of files, each JSON or YAML with any number of documents.
pub fn objects<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Contents {
    let mut contents = Contents::default();
    for (file, bytes) in files {
        let Contents { objects, problems, .. } = &mut contents;
        text::add(file, bytes, objects, problems);
    }
    let twice = contents.objects.settle().into_iter().map(|object| Problem {
        file: String::new(),
        document: None,
        line: None,
        message: format!("{object} was read more than once, and not the same: the last counts"),
        wrong: None,
    });
    contents.problems.extend(twice);
    contents
}

/// The objects of a file as they stand there, with all their fields, for those who change them.
/// What can't be read is left out; [`objects`] tells it.
pub fn values(bytes: &[u8]) -> Vec<serde_json::Value> {
    text::values(bytes)
}

/// Whether a file's name is one of a file with objects.
pub fn is_manifest(path: &str) -> bool {
    [".json", ".yaml", ".yml"].iter().any(|ending| path.ends_with(ending))
}

#[cfg(test)]
mod tests;

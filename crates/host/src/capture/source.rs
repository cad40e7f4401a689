//! A capture whose nodes are read one by one, so that no more text is held than is being parsed.
//!
//! In: a folder or an archive. Out: the nodes' names, and each node's files, once. Of a folder the
//! files are read when they are asked for. An archive has no order that could be relied on: it is
//! read as a whole, and its files are handed over, so that they go node by node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use unmasq_parse::capture::{CaptureError, Layout, MANIFEST, Manifest};

use super::{Error, Files, LIMITS, Limits, archive, folder, read_file, without_common_folder};

/// A capture to be read node by node. Several threads may do so at once.
#[derive(Debug)]
pub struct Source {
    root: PathBuf,
    limits: Limits,
    layout: Layout,
    /// The text of `capture.json`, if there is one.
    manifest: Option<Vec<u8>>,
    /// How much was read of a folder.
    size: AtomicU64,
    left: Mutex<Left>,
}

/// What nobody has asked for yet.
#[derive(Debug, Default)]
struct Left {
    nodes: BTreeMap<Box<str>, BTreeMap<String, Content>>,
    /// Files of no node.
    others: BTreeMap<String, Content>,
}

/// A file that was read, or is still to be read.
#[derive(Debug)]
enum Content {
    Here(Vec<u8>),
    At(PathBuf),
}

impl Source {
    /// Looks at a capture: at the names of a folder's files, at the whole of an archive.
    pub fn open(path: &Path) -> Result<Source, Error> {
        Source::within(path, LIMITS)
    }

    pub(super) fn within(path: &Path, limits: Limits) -> Result<Source, Error> {
        let metadata = std::fs::metadata(path).map_err(super::io_error("read", path))?;
        let files: BTreeMap<String, Content> = if metadata.is_dir() {
            let found = folder::list(path)?.into_iter();
            found.map(|(name, path)| (name, Content::At(path))).collect()
        } else {
            let mut found = Files { root: path, limits, size: 0, files: BTreeMap::new() };
            archive::read(&mut found)?;
            found.files.into_iter().map(|(name, text)| (name, Content::Here(text))).collect()
        };
        let mut files = without_common_folder(files);
        let size = AtomicU64::new(0);
        let manifest = match files.remove(MANIFEST) {
            Some(content) => Some(content.read(path, MANIFEST, limits, &size)?),
            None => None,
        };
        let objects = files.keys().any(|name| name.starts_with("kubernetes/"));
        let layout = match Layout::new(files.keys().map(String::as_str), manifest.as_deref()) {
            // Kubernetes objects alone say what should be, and nothing of any node.
            Err(CaptureError::NoManifest | CaptureError::NoNodes) if objects => Layout::default(),
            other => other.map_err(|error| Error::Capture { path: path.into(), error })?,
        };
        let mut left = Left::default();
        // Some nodes are in the manifest only.
        left.nodes.extend(layout.node_names().map(|name| (name.into(), BTreeMap::new())));
        for (name, content) in files {
            let of_node = layout.node_of(&name).and_then(|node| left.nodes.get_mut(node));
            of_node.unwrap_or(&mut left.others).insert(name, content);
        }
        Ok(Source { root: path.into(), limits, layout, manifest, size, left: Mutex::new(left) })
    }

    /// The nodes' names in order.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        self.layout.node_names()
    }

    /// What `capture.json` says; empty where there is none.
    pub fn manifest(&self) -> &Manifest {
        self.layout.manifest()
    }

    /// The files of a node and the manifest, by their paths in the capture: enough for
    /// [`unmasq_parse::capture::parse`] to parse that node. `None`: there is no node of that name,
    /// or its files were taken already.
    pub fn take_node(&self, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        let files = self.left().nodes.remove(name);
        files.map(|files| self.read(files)).transpose()
    }

    /// The files of no node and the manifest, by their paths in the capture; see
    /// [`unmasq_parse::capture::kubernetes`]. Without those that were taken already.
    pub fn take_others(&self) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let files = std::mem::take(&mut self.left().others);
        self.read(files)
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        // A map from which a thread that panicked has taken something is a map all the same.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, files: BTreeMap<String, Content>) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut read = BTreeMap::new();
        for (name, content) in files {
            let text = content.read(&self.root, &name, self.limits, &self.size)?;
            read.insert(name, text);
        }
        if let Some(manifest) = &self.manifest {
            read.insert(MANIFEST.into(), manifest.clone());
        }
        Ok(read)
    }
}

impl Content {
    fn read(
        self,
        root: &Path,
        name: &str,
        limits: Limits,
        size: &AtomicU64,
    ) -> Result<Vec<u8>, Error> {
        let path = match self {
            Content::Here(text) => return Ok(text),
            Content::At(path) => path,
        };
        let text = read_file(root, name, folder::open(&path)?, limits)?;
        let length = text.len() as u64;
        if size.fetch_add(length, Ordering::Relaxed) + length > limits.total {
            return Err(Error::TooLarge { archive: root.into(), limit: limits.total });
        }
        Ok(text)
    }
}

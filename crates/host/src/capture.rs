//! Captures as folders and archives.
//!
//! In: a folder, or a .tar, .tar.gz or .tar.zst by its content. Out: its files by path, without
//! the one folder that all are in, if there is one. Links and devices are passed over, so a
//! captured file can't lead to another; sizes are bounded. Writing the same files twice gives the
//! same bytes. [`read`] gives all files at once; a [`Source`] gives those of one node at a time.

mod archive;
mod folder;
mod source;

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use unmasq_parse::capture::CaptureError;

pub use source::Source;

/// Why a capture could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{doing} {path}: {error}")]
    Io {
        /// What was being done, as `read`.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Files that are no capture.
    #[error("{path}: {error}")]
    Capture {
        /// The folder or the archive.
        path: PathBuf,
        /// Why they are none.
        error: CaptureError,
    },
    /// Neither a folder nor an archive.
    #[error("{0} is no capture: it is neither a folder nor a .tar, .tar.gz or .tar.zst")]
    NoArchive(PathBuf),
    /// A path that leads out of the archive.
    #[error("{archive} has a file {path}, which leads out of the archive: it was not read")]
    Traversal {
        /// The archive.
        archive: PathBuf,
        /// The path in it.
        path: String,
    },
    /// A file that is too large.
    #[error("{path} in {archive} is larger than {limit} bytes")]
    FileTooLarge {
        /// The folder or the archive.
        archive: PathBuf,
        /// The path in it.
        path: String,
        /// The bound.
        limit: u64,
    },
    /// All files together are too large.
    #[error("the files in {archive} are larger than {limit} bytes together")]
    TooLarge {
        /// The folder or the archive.
        archive: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// The folder to write into has something in it.
    #[error("{0} is not empty: name a new folder, or a file that ends in .tar.gz")]
    NotEmpty(PathBuf),
    /// A name that looks like an archive of another kind.
    #[error("{0}: archives are written as .tar, .tar.gz or .tar.zst")]
    UnknownArchive(PathBuf),
}

/// What is read at most.
#[derive(Debug, Clone, Copy)]
struct Limits {
    file: u64,
    total: u64,
}

const LIMITS: Limits = Limits { file: 1 << 30, total: 4 << 30 };

/// Reads a capture's files by their paths in it.
pub fn read(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    read_within(path, LIMITS)
}

/// Whether a capture can be written there, as far as can be told before there is one: for work that
/// would be in vain otherwise. Nothing is left behind.
pub fn check(path: &Path) -> Result<(), Error> {
    match archive::Format::by_name(path)? {
        Some(_) => archive::check(path),
        None => folder::check(path),
    }
}

/// Writes a capture: an archive where the name ends in .tar, .tar.gz, .tgz, .tar.zst or .tzst,
/// else a folder, which is made. A folder that has something in it is left alone; an archive is
/// replaced. If it fails or is interrupted, there is no capture at that place.
pub fn write(path: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
    for name in files.keys() {
        if relative(Path::new(name)).is_none() {
            return Err(Error::Traversal { archive: path.into(), path: name.clone() });
        }
    }
    match archive::Format::by_name(path)? {
        Some(format) => archive::write(path, format, files),
        None => folder::write(path, files),
    }
}

fn read_within(path: &Path, limits: Limits) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let metadata = std::fs::metadata(path).map_err(io_error("read", path))?;
    let mut found = Files { root: path, limits, size: 0, files: BTreeMap::new() };
    if metadata.is_dir() {
        folder::read(&mut found)?;
    } else {
        archive::read(&mut found)?;
    }
    Ok(without_common_folder(found.files))
}

/// The files read so far.
#[derive(Debug)]
struct Files<'a> {
    root: &'a Path,
    limits: Limits,
    size: u64,
    files: BTreeMap<String, Vec<u8>>,
}

impl Files<'_> {
    /// Reads one file, as far as the limits let it.
    fn add(&mut self, name: String, content: impl io::Read) -> Result<(), Error> {
        let bytes = read_file(self.root, &name, content, self.limits)?;
        self.size += bytes.len() as u64;
        if self.size > self.limits.total {
            return Err(Error::TooLarge { archive: self.root.into(), limit: self.limits.total });
        }
        self.files.insert(name, bytes);
        Ok(())
    }
}

/// Reads one file, if it is not too large.
fn read_file(
    root: &Path,
    name: &str,
    mut content: impl io::Read,
    limits: Limits,
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file_error = io_error("read", &root.join(name));
    content.by_ref().take(limits.file + 1).read_to_end(&mut bytes).map_err(file_error)?;
    if bytes.len() as u64 > limits.file {
        let (archive, path) = (root.into(), name.into());
        return Err(Error::FileTooLarge { archive, path, limit: limits.file });
    }
    Ok(bytes)
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |error| Error::Io { doing, path, error }
}

/// The folder that a path is in.
fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// The path with `/` between its names; `None` if it is empty, leads out, or is no UTF-8.
fn relative(path: &Path) -> Option<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!names.is_empty()).then(|| names.join("/"))
}

/// Archives usually have one folder with everything in it. The folders that a capture itself is
/// made of are not such.
fn without_common_folder<T>(files: BTreeMap<String, T>) -> BTreeMap<String, T> {
    const OWN: [&str; 4] = ["nodes", "kubernetes", "pods", "files"];
    let first = files.keys().next().and_then(|path| path.split_once('/'));
    let Some(prefix) = first.map(|(folder, _)| format!("{folder}/")) else { return files };
    let own = OWN.iter().any(|own| prefix.strip_suffix('/') == Some(own));
    if own || !files.keys().all(|path| path.starts_with(&prefix)) {
        return files;
    }
    files.into_iter().map(|(path, content)| (path[prefix.len()..].to_owned(), content)).collect()
}

#[cfg(test)]
mod tests;

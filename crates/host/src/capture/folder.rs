//! Captures as folders.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use unmasq_parse::capture::MANIFEST;

use super::{Error, Files, io_error, parent, relative};

/// Reads all files below the root.
pub(super) fn read(found: &mut Files<'_>) -> Result<(), Error> {
    for (name, path) in list(found.root)? {
        found.add(name, open(&path)?)?;
    }
    Ok(())
}

/// Opens a file.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(io_error("open", path))
}

/// All regular files below the root, by their path in it. Links to files are followed, links to
/// folders not.
pub(super) fn list(root: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
            let path = entry.map_err(io_error("read", &folder))?.path();
            let kind = fs::symlink_metadata(&path).map_err(io_error("read", &path))?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let is_file = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
            let name = path.strip_prefix(root).ok().and_then(relative);
            if let (true, Some(name)) = (is_file, name) {
                files.insert(name, path);
            }
        }
    }
    Ok(files)
}

/// Whether files can be written there; nothing is left behind.
pub(super) fn check(root: &Path) -> Result<(), Error> {
    if is_there(root)? {
        temporary(root).map(drop)
    } else {
        let existing = root.ancestors().skip(1).find(|parent| parent.exists());
        temporary(existing.unwrap_or(Path::new("."))).map(drop)
    }
}

/// Writes files into a new or empty folder: beside its place first, and moves them there. One that
/// exists stays, because it may be a mount point or somebody's working directory: its files are
/// written inside it and moved up, the manifest last, without which they are no capture.
pub(super) fn write(root: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
    if is_there(root)? {
        let folder = temporary(root)?;
        write_all(folder.path(), files)?;
        let mut names: Vec<&str> = files.keys().map(|name| first(name)).collect();
        names.dedup();
        names.sort_by_key(|name| *name == MANIFEST);
        for name in names {
            let place = root.join(name);
            fs::rename(folder.path().join(name), &place).map_err(io_error("write", &place))?;
        }
        return Ok(());
    }
    let parent = parent(root);
    fs::create_dir_all(parent).map_err(io_error("make the folder", parent))?;
    let folder = temporary(parent)?;
    write_all(folder.path(), files)?;
    fs::rename(folder.path(), root).map_err(io_error("write", root))?;
    // It has another name now, under which nothing removes it.
    let _ = folder.keep();
    Ok(())
}

/// Whether there is an empty folder of that name. Anything else of that name is an error.
fn is_there(root: &Path) -> Result<bool, Error> {
    match fs::read_dir(root).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(true),
        Ok(false) => Err(Error::NotEmpty(root.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("write into", root)(error)),
    }
}

/// A folder with a name of its own, which is removed unless it is moved away.
fn temporary(parent: &Path) -> Result<TempDir, Error> {
    tempfile::Builder::new()
        .prefix(".unmasq-")
        .permissions(fs::Permissions::from_mode(0o777))
        .tempdir_in(parent)
        .map_err(io_error("write into", parent))
}

fn write_all(root: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
    for (name, content) in files {
        let path = root.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io_error("make the folder", parent))?;
        }
        fs::write(&path, content).map_err(io_error("write", &path))?;
    }
    Ok(())
}

/// The first name of a path; paths in order have the same ones next to each other.
fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

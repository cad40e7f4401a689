//! Captures as folders.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use super::{Error, Files, io_error, relative};

/// Reads all regular files below the root. Links to files are followed, links to folders not.
pub(super) fn read(found: &mut Files<'_>) -> Result<(), Error> {
    let mut folders = vec![found.root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
            let path = entry.map_err(io_error("read", &folder))?.path();
            let kind = fs::symlink_metadata(&path).map_err(io_error("read", &path))?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let is_file = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
            let name = path.strip_prefix(found.root).ok().and_then(relative);
            if let (true, Some(name)) = (is_file, name) {
                found.add(name, File::open(&path).map_err(io_error("open", &path))?)?;
            }
        }
    }
    Ok(())
}

/// Writes files into a new or empty folder.
pub(super) fn write(root: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
    fs::create_dir_all(root).map_err(io_error("make the folder", root))?;
    if fs::read_dir(root).map_err(io_error("read", root))?.next().is_some() {
        return Err(Error::NotEmpty(root.into()));
    }
    for (name, content) in files {
        let path = root.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io_error("make the folder", parent))?;
        }
        fs::write(&path, content).map_err(io_error("write", &path))?;
    }
    Ok(())
}

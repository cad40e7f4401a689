//! A copy of the workspace in which errors are made: built in a target folder of its own, which
//! is kept, so that only what an error changes is built again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// A short block lets every back end and family have its turn within 2,800 cases.
const BLOCK: &str = "7";
/// What a build writes into the copy.
const BUILT: &str = "target";

/// The copy.
pub(super) struct Tree {
    sources: PathBuf,
    target: PathBuf,
}

/// What the comparison came to.
pub(super) enum Ran {
    Agreed,
    /// With which case the kernel first disagreed.
    Noticed(String),
}

impl Tree {
    /// Makes it as the working tree is now. Files that are as before are left alone, so that
    /// cargo doesn't take them for changed.
    pub(super) fn copy() -> Result<Tree> {
        let root = workspace::root();
        let folder = root.join("target/mutants");
        let tree = Tree { sources: folder.join("tree"), target: folder.join("target") };
        let files = sources(&root)?;
        for file in &files {
            let text = fs::read(root.join(file))
                .with_context(|| format!("read {}", root.join(file).display()))?;
            let copy = tree.sources.join(file);
            if fs::read(&copy).is_ok_and(|known| known == text) {
                continue;
            }
            let parent = copy.parent().unwrap_or(&copy);
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            fs::write(&copy, text).with_context(|| format!("write {}", copy.display()))?;
        }
        tree.remove_others(Path::new(""), &files)?;
        Ok(tree)
    }

    /// A file of the copy.
    pub(super) fn file(&self, folder: &str, file: &str) -> PathBuf {
        self.sources.join(folder).join(file)
    }

    /// Builds the copy as it is.
    pub(super) fn build(&self) -> Result<()> {
        let mut build = workspace::cargo();
        build
            .current_dir(&self.sources)
            .args(["build", "--locked", "--package", "xtask", "--profile", "mutants"])
            .arg("--target-dir")
            .arg(&self.target);
        let output = build.output().context("cargo build can't be run")?;
        if !output.status.success() {
            bail!("it can't be built:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Compares what was built with the kernel, up to the first disagreement.
    pub(super) fn compare(&self, cases: u64, seed: u64) -> Result<Ran> {
        let output = Command::new(self.target.join("mutants/xtask"))
            .args(["differential", "--most", "0", "--block", BLOCK])
            .args(["--cases", &cases.to_string(), "--seed", &seed.to_string()])
            .stderr(Stdio::piped())
            .output()
            .context("the comparison can't be run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        match (output.status.code(), text.split_once("; first at case ")) {
            (Some(0), None) => Ok(Ran::Agreed),
            (Some(1), Some((_, case))) => Ok(Ran::Noticed(case.trim().to_owned())),
            _ => bail!(
                "the comparison ended with {}:\n{text}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }

    /// Removes what the working tree has no more: cargo finds crates and tests by their place.
    fn remove_others(&self, folder: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
        let path = self.sources.join(folder);
        let listed = fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
        for entry in listed {
            let entry = entry.with_context(|| format!("list {}", path.display()))?;
            let name = folder.join(entry.file_name());
            if entry.path().is_dir() {
                if name != Path::new(BUILT) {
                    self.remove_others(&name, files)?;
                }
            } else if !files.contains(&name) {
                let path = entry.path();
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        // One that still has files stays.
        let _not_empty = fs::remove_dir(&path);
        Ok(())
    }
}

/// The files that git knows or would add, and that are there.
fn sources(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git ls-files can't be run")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let files = names.map(|name| PathBuf::from(OsStr::from_bytes(name)));
    Ok(files.filter(|file| root.join(file).is_file()).collect())
}

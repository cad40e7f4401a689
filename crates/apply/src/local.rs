//! This machine.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use unmasq_fix::deed::ObjectDeed;

use crate::{CommandError, Target};

/// The machine that this runs on, under the name that its node has. It knows of no objects: who has
/// those is asked by somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The node's name.
    pub node: String,
}

impl Local {
    fn check(&self, node: &str, what: &str) -> Result<(), String> {
        if node == self.node {
            return Ok(());
        }
        Err(format!("{what} is on node {node}, and this is {}", self.node))
    }

    fn no_objects(deed: &ObjectDeed) -> CommandError {
        CommandError {
            node: "the cluster".to_owned(),
            command: format!("patch {} {}", deed.resource, deed.name),
            why: "objects can't be reached from here: apply the patch with kubectl".to_owned(),
        }
    }
}

impl Target for Local {
    fn run(&self, node: &str, command: &[&str], input: &str) -> Result<String, CommandError> {
        let error =
            |why: String| CommandError { node: node.to_owned(), command: command.join(" "), why };
        self.check(node, "it").map_err(error)?;
        run(command, input).map_err(error)
    }

    fn read(&self, node: &str, path: &str) -> io::Result<Option<String>> {
        self.check(node, path).map_err(io::Error::other)?;
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, node: &str, path: &str, text: Option<&str>) -> io::Result<()> {
        self.check(node, path).map_err(io::Error::other)?;
        match text {
            Some(text) => replace(Path::new(path), text),
            None => std::fs::remove_file(path),
        }
    }

    fn object(&self, deed: &ObjectDeed) -> Result<Option<Value>, CommandError> {
        Err(Self::no_objects(deed))
    }

    fn patch(&self, deed: &ObjectDeed, _: &Value) -> Result<(), CommandError> {
        Err(Self::no_objects(deed))
    }
}

/// Runs a program: its output, or why it failed, in a few words.
fn run(command: &[&str], input: &str) -> Result<String, String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("there is no program".to_owned());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    // A program that ends before it has read everything says why itself.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes a new file beside the old one, with its mode and owner, and renames it: whoever reads gets
/// the one or the other.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    // A link's target is what is meant.
    let path = match std::fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    match std::fs::metadata(&path) {
        Ok(old) => {
            use std::os::unix::fs::MetadataExt as _;
            file.as_file().set_permissions(old.permissions())?;
            let owner = Some(rustix::process::Uid::from_raw(old.uid()));
            let group = Some(rustix::process::Gid::from_raw(old.gid()));
            rustix::fs::fchown(file.as_file(), owner, group)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            use std::os::unix::fs::PermissionsExt as _;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        Err(error) => return Err(error),
    }
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

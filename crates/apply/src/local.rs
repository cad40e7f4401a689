//! This machine.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{XattrFlags, fgetxattr, fgetxattr_query, flistxattr, flistxattr_query, fsetxattr};
use rustix::io::Errno;
use serde_json::Value;
use unmasq_fix::deed::{Deed, ObjectDeed};

use crate::{CommandError, Target};

/// The machine that this runs on, under the name that its node has. It knows of no objects: who has
/// those is asked by somebody else.
///
/// Whoever changes a machine has its turn: a locked file, which is also what the programs read that
/// are started. So a program reads all of a transaction or, if its starter was killed, still all of
/// it; and the turn ends when the last of them has ended, not when their starter has.
#[derive(Debug)]
pub struct Local {
    node: String,
    turn: File,
}

/// The file that is locked. `/run` is empty after a start of the machine, and so are kernel rules.
const TURN: &str = "/run/unmasq.lock";
/// How long another one's turn is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why this machine can't be changed now.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// Whoever asks may not.
    #[error("changing this host's rules and files needs root: run it with sudo")]
    NotRoot,
    /// Another one is at it.
    #[error(
        "another unmasq changes this host now, or a program that it started still does: wait until it \
         has ended, then try again (fuser -v {TURN} says who)"
    )]
    Taken,
    /// It can't be locked.
    #[error("{TURN}, which is locked while this host is changed: {0}")]
    File(#[from] io::Error),
}

impl Local {
    /// Begins a turn on this machine, under its node's name.
    pub fn begin(node: String) -> Result<Local, TurnError> {
        if !rustix::process::geteuid().is_root() {
            return Err(TurnError::NotRoot);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let turn = options.open(TURN)?;
        let begin = Instant::now();
        loop {
            match turn.try_lock() {
                Ok(()) => return Ok(Local { node, turn }),
                Err(TryLockError::WouldBlock) if begin.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => return Err(TurnError::Taken),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Takes away what was written beside files and not renamed, because its writer was killed.
    pub fn sweep(&self, deeds: &[Deed]) -> io::Result<()> {
        for deed in deeds {
            let Deed::File(file) = deed else { continue };
            // A link to what isn't there is not written through.
            let Ok(path) = meant(Path::new(&file.path)) else { continue };
            match std::fs::remove_file(beside(&path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The text as a program's standard input, with the turn.
    fn input(&self, text: &str) -> io::Result<Stdio> {
        let mut turn = self.turn.try_clone()?;
        turn.set_len(0)?;
        turn.rewind()?;
        turn.write_all(text.as_bytes())?;
        turn.rewind()?;
        Ok(Stdio::from(turn))
    }

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
        let input = self.input(input).map_err(|why| error(format!("{TURN}: {why}")))?;
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
            None => remove(Path::new(path)),
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
fn run(command: &[&str], input: Stdio) -> Result<String, String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("there is no program".to_owned());
    };
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(input)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes a new file beside the old one, with its mode, owner and attributes, and renames it: whoever
/// reads gets the one or the other.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = meant(path)?;
    let beside = beside(&path);
    let written = write_beside(&path, &beside, text).and_then(|()| std::fs::rename(&beside, &path));
    if let Err(error) = written {
        // What it says is in the journal; that it could not be written is what the user is told.
        let _ = std::fs::remove_file(&beside);
        return Err(error);
    }
    sync(folder_of(&path))
}

/// Always the same name, so that whoever comes after a writer that was killed finds it; hidden, so
/// that nobody takes it for a file of the folder.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.unmasq"))
}

fn write_beside(path: &Path, beside: &Path, text: &str) -> io::Result<()> {
    match std::fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(text.as_bytes())?;
    match File::open(path) {
        Ok(old) => {
            use std::os::unix::fs::MetadataExt as _;
            let metadata = old.metadata()?;
            let owner = Some(rustix::process::Uid::from_raw(metadata.uid()));
            let group = Some(rustix::process::Gid::from_raw(metadata.gid()));
            // In this order: a change of the owner takes bits of the mode away.
            rustix::fs::fchown(&file, owner, group)?;
            file.set_permissions(metadata.permissions())?;
            copy_attributes(&old, &file)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            use std::os::unix::fs::PermissionsExt as _;
            file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        Err(error) => return Err(error),
    }
    file.sync_all()
}

/// Takes a file away.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let path = meant(path)?;
    std::fs::remove_file(&path)?;
    sync(folder_of(&path))
}

/// A link's target is what is meant.
fn meant(path: &Path) -> io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.is_symlink() {
            true => Err(io::Error::other("it is a link to what isn't there")),
            false => Ok(path.to_owned()),
        },
        real => real,
    }
}

/// The folder that a path is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Has the names in a folder on the disk.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Attributes that sum up a file's content.
const OF_CONTENT: [&[u8]; 2] = [b"security.ima", b"security.evm"];

/// Labels of SELinux, access lists, and what users put there: xattr(7).
fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    let names = match flistxattr_query(from) {
        Ok(length) => {
            let mut names = vec![0; length];
            let read = flistxattr(from, &mut names[..])?;
            names.truncate(read);
            names
        }
        // Its file system has none.
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    for name in names.filter(|name| !OF_CONTENT.contains(name)) {
        let mut value = vec![0; fgetxattr_query(from, name)?];
        let read = fgetxattr(from, name, &mut value[..])?;
        fsetxattr(to, name, &value[..read], XattrFlags::empty())?;
    }
    Ok(())
}

//! Where networks can be made, and where nothing of them is left behind: the same program once
//! more, in mounts of its own.
//!
//! ```text
//! root          unshare --mount                       names of namespaces are the process's own
//! anybody else  unshare --user --mount --net          and it is root there
//! ```
//!
//! `/run` is a file system of its own inside, so that the names of namespaces and the locks of
//! iptables are seen by nobody else, need nobody's permission, and are gone when the last process
//! inside has ended, however it ends.
//!
//! Needs `unshare` and `mount` (util-linux), and without root a kernel that lets users make user
//! namespaces.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where programs of administrators are; not in everybody's PATH.
const SBIN: &str = "/usr/sbin:/sbin";
/// The file by which a process knows that it is inside.
const INSIDE: &str = "/run/unmasq-lab-inside";
/// What is done inside before the program begins.
const PREPARE: &str = "mount -t tmpfs tmpfs /run && : > /run/unmasq-lab-inside";

/// Runs the program anew, in mounts of its own and as root there, unless it is so already, and
/// gives no way back then. Gives the reason, as a sentence, where that can't be. To be called
/// first of all, before there are threads.
pub fn isolate() -> Result<(), String> {
    if inside() {
        return Ok(());
    }
    let program = env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let mut command = isolated()?;
    command.args(["sh", "-c", &format!("{PREPARE} && exec \"$@\""), "sh"]).arg(program);
    let error = command.args(env::args_os().skip(1)).exec();
    Err(format!("unshare: {error}"))
}

/// Whether the process is inside already.
pub fn inside() -> bool {
    Path::new(INSIDE).exists() && rustix::process::geteuid().is_root()
}

/// The command that goes inside, tried out.
fn isolated() -> Result<Command, String> {
    let root = rustix::process::geteuid().is_root();
    let command = || {
        let mut command = Command::new("unshare");
        if !root {
            command.args(["--user", "--map-root-user", "--net"]);
        }
        command.arg("--mount").env("PATH", search_path());
        command
    };
    let probe = command().args(["sh", "-c", PREPARE]).stdin(Stdio::null()).output();
    let obstacle = match probe {
        Ok(output) if output.status.success() => return Ok(command()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("unshare: {error}"),
    };
    Err(if root {
        format!("this root may not make mounts of its own ({obstacle})")
    } else {
        format!(
            "network namespaces need root, and this user may not make a user namespace \
             ({obstacle})"
        )
    })
}

/// PATH with the folders of administrators' programs.
pub fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(SBIN);
    path
}

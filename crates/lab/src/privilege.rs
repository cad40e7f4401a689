//! Without root: the same program once more, as root of a user namespace of its own.
//!
//! Network namespaces that are made inside belong to that root, which may do with them what root
//! may: devices, routes, rules, packets. `/run` is a file system of its own there, so that the
//! names of namespaces and the locks of iptables need nobody's permission, and all of it is gone
//! when the last process inside has ended.
//!
//! Needs `unshare` and `mount` (util-linux), and a kernel that lets users make user namespaces.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Where programs of administrators are; not in everybody's PATH.
const SBIN: &str = "/usr/sbin:/sbin";

/// Makes a new namespace of users, mounts and network, in which the caller is root.
const UNSHARE: [&str; 5] = ["unshare", "--user", "--map-root-user", "--mount", "--net"];

/// Runs the program anew as root of a user namespace, if it isn't root already, and gives no way
/// back then. Gives the reason, as a sentence, where that can't be. To be called first of all in
/// `main`.
pub fn become_root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let program = env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let path = search_path();
    let probe = Command::new(UNSHARE[0])
        .args(&UNSHARE[1..])
        .args(["mount", "-t", "tmpfs", "tmpfs", "/run"])
        .env("PATH", &path)
        .stdin(Stdio::null())
        .output();
    let obstacle = match probe {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    };
    if let Some(obstacle) = obstacle {
        return Err(format!(
            "network namespaces need root, and this user may not make a user namespace \
             ({obstacle})"
        ));
    }
    let error = Command::new(UNSHARE[0])
        .args(&UNSHARE[1..])
        .args(["sh", "-c", "mount -t tmpfs tmpfs /run && exec \"$@\"", "sh"])
        .arg(program)
        .args(env::args_os().skip(1))
        .env("PATH", path)
        .exec();
    Err(format!("unshare: {error}"))
}

fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(SBIN);
    path
}

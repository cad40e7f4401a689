//! A command inside of a host of a cluster that another process keeps.
//!
//! In: where it is to run ([`Place`]), and the command. Out: how it ended ([`Ended`]). It has the
//! host's devices, rules and name, its own /sys and /proc, and the lab's mounts; it ends with the
//! cluster at the latest ([`crate::pids`]).
//!
//! The calling process goes inside with all that it is, and must have one thread only.

mod wait;

use std::ffi::{CStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
    move_into_thread_name_spaces,
};

use crate::pids::unshare;
use crate::{namespace, privilege};

/// Where a command is to run.
#[derive(Debug, Clone, Copy)]
pub struct Place<'p> {
    /// The process that keeps the cluster: its users and mounts.
    pub keeper: i32,
    /// The first process of the cluster's [`Pids`](crate::pids::Pids).
    pub first: i32,
    /// The host's network namespace, by its name.
    pub namespace: &'p str,
    /// The host's name.
    pub host: &'p str,
}

/// How a command ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// There is no such command.
    NotFound(io::Error),
    /// There is one, and it can't be run.
    NotRunnable(io::Error),
}

/// Goes inside, runs the command with this process's input and output, and waits for its end.
pub fn exec(place: &Place, command: &[OsString], say: &dyn Fn(&str)) -> Result<Ended> {
    let (program, arguments) = command.split_first().context("no command")?;
    let folder = std::env::current_dir();
    enter(place)?;
    // Only now: a folder that was opened outside is on the mounts outside, from which nothing can
    // be moved to those inside (rename(2), EXDEV).
    let entered = folder.and_then(|folder| {
        std::env::set_current_dir(&folder)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))
    });
    if let Err(error) = entered {
        say(&format!("note: the command begins in /, the lab can't get at the folder: {error}"));
        std::env::set_current_dir("/").context("go to /")?;
    }
    // Before the command begins, so that none is lost.
    let signals = wait::Signals::hold()?;
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", privilege::search_path());
    match with_own_processes(&mut command).spawn() {
        Ok(mut child) => signals.wait(&mut child).map(ended),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ended::NotFound(error)),
        // No process could be made: out of memory, or the cluster is being ended.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM)) => {
            Err(error).context("start the command")
        }
        Err(error) => Ok(Ended::NotRunnable(error)),
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Signalled(signal.unwrap_or_default()),
    }
}

/// Goes into users, mounts and network, gets a name, and puts children among the cluster's processes.
fn enter(place: &Place) -> Result<()> {
    let process = |pid: i32| -> Result<_> {
        let pid = Pid::from_raw(pid).context("a process without a number")?;
        pidfd_open(pid, PidfdFlags::empty()).context("the cluster's process")
    };
    let (keeper, first) = (process(place.keeper)?, process(place.first)?);
    let mut kinds = ThreadNameSpaceType::MOUNT;
    // Root of a user namespace of its own, where this user isn't root; the own one can't be entered
    // again (setns(2)).
    let users = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).ok();
    if users("self") != users(&place.keeper.to_string()) {
        kinds |= ThreadNameSpaceType::USER;
    }
    move_into_thread_name_spaces(keeper.as_fd(), kinds).context("enter the cluster's mounts")?;
    let network = Path::new(namespace::NAMES).join(place.namespace);
    let network = File::open(&network).with_context(|| format!("open {}", network.display()))?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter the network of {}", place.host))?;
    unshare(UnshareFlags::NEWNS | UnshareFlags::NEWUTS).context("make mounts of its own")?;
    rustix::system::sethostname(place.host.as_bytes()).context("set the host's name")?;
    move_into_thread_name_spaces(first.as_fd(), ThreadNameSpaceType::PROCESS_ID)
        .context("enter the cluster's processes")?;
    // What a container may not be allowed (mount_too_revealing in fs/namespace.c), few commands miss:
    // the devices that show up then are those outside.
    let _ = own(c"sysfs", c"/sys");
    Ok(())
}

/// The command's process shows itself and those beside it before it begins: /proc is of the
/// namespace that the process which mounts it is in itself (proc_init_fs_context in fs/proc/root.c).
#[allow(unsafe_code)]
fn with_own_processes(command: &mut Command) -> &mut Command {
    let show = || {
        let _ = own(c"proc", c"/proc");
        Ok(())
    };
    // SAFETY: the closure makes system calls only, and takes no memory.
    unsafe { command.pre_exec(show) }
}

/// Mounts what shows the namespaces that the process is in, over what shows others'.
fn own(kind: &CStr, at: &CStr) -> rustix::io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // A user namespace gets it read-only where it is so outside.
    mount(kind, at, kind, flags, None)
        .or_else(|_| mount(kind, at, kind, flags | MountFlags::RDONLY, None))
}

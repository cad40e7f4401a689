//! A PID namespace for what is started inside of a cluster's hosts: all of it ends with its owner.
//!
//! Its first process waits for the end of its input, which comes when the owner closes it or ends,
//! however that ends. With a PID namespace's first process the kernel ends all others
//! (pid_namespaces(7)), those that went to the background or made sessions of their own too.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// How long the ends of all processes are waited for. They are dead at once; but one whose parent
/// is outside counts until that has taken note of it, and the parent may be stopped.
const PATIENCE: Timespec = Timespec { tv_sec: 3, tv_nsec: 0 };

/// A PID namespace with its first process. Dropping it ends every process in it.
#[derive(Debug)]
pub struct Pids {
    first: Child,
}

impl Pids {
    /// Makes one.
    pub fn new() -> Result<Pids> {
        // By a thread of its own, because other children are not to be in it, and a process that
        // isn't root may not come back to the namespace that it left (pidns_install in
        // kernel/pid_namespace.c).
        let made = thread::scope(|scope| {
            let start = || -> Result<Child> {
                unshare(UnshareFlags::NEWPID).context("make a PID namespace")?;
                first().context("start the first process of a PID namespace")
            };
            scope.spawn(start).join()
        });
        let first =
            made.map_err(|_| anyhow!("the thread that makes a PID namespace panicked"))??;
        Ok(Pids { first })
    }

    /// The first process, by its number outside.
    pub fn first(&self) -> u32 {
        self.first.id()
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        // What can't be done here is done by the end of this process.
        let _ = self.first.kill();
        let process = i32::try_from(self.first.id()).ok().and_then(Pid::from_raw);
        let Some(Ok(process)) = process.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            return;
        };
        // It can be read when the process has ended, and that is when all in its namespace have
        // (zap_pid_ns_processes in kernel/pid_namespace.c).
        if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&PATIENCE)) == Ok(1) {
            let _ = self.first.wait();
        }
    }
}

/// The calling thread, or its children, are in namespaces of their own from here on.
#[allow(unsafe_code)]
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: none of the lab's flags is FILES, the one that takes descriptors apart.
    unsafe { unshare_unsafe(flags) }
}

/// Whoever is left by a parent that has ended becomes its child, and goes away by itself, because it
/// ignores SIGCHLD (wait(2)).
#[allow(unsafe_code)]
fn first() -> std::io::Result<Child> {
    let mut command = Command::new("cat");
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let ignore = || {
        // SAFETY: signal(2) may be called between fork and exec (signal-safety(7)).
        match unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } {
            libc::SIG_ERR => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: the closure makes that one system call and touches no memory.
    unsafe { command.pre_exec(ignore) }.spawn()
}

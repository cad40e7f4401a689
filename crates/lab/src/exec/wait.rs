//! Waiting for a command as if one were the command: signals go on to it.

use std::mem::MaybeUninit;
use std::process::{Child, ExitStatus};
use std::{io, ptr};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// What is passed on.
const PASSED: [Signal; 6] =
    [Signal::INT, Signal::QUIT, Signal::TERM, Signal::HUP, Signal::USR1, Signal::USR2];

/// Signals that wait to be taken, and those that did before. Children inherit that.
#[derive(Clone, Copy)]
pub(super) struct Signals {
    held: libc::sigset_t,
    before: libc::sigset_t,
}

impl Signals {
    /// Holds them from here on.
    #[allow(unsafe_code)]
    pub(super) fn hold() -> Result<Signals> {
        let mut set = MaybeUninit::uninit();
        let mut before = MaybeUninit::zeroed();
        // SAFETY: sigemptyset(3) initializes the one set, and zeroes are a valid value of the other;
        // the calls read and write these two, which live on.
        let (signals, failed) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut held = set.assume_init();
            for signal in PASSED.into_iter().chain([Signal::CHILD]) {
                libc::sigaddset(&mut held, signal.as_raw());
            }
            let failed = libc::pthread_sigmask(libc::SIG_BLOCK, &held, before.as_mut_ptr());
            (Signals { held, before: before.assume_init() }, failed)
        };
        result(failed).context("hold signals")?;
        Ok(signals)
    }

    /// Lets go of them, in a child that is no program of its own yet.
    #[allow(unsafe_code)]
    pub(super) fn let_go(&self) -> io::Result<()> {
        // SAFETY: the set is initialized, and the call may be made between fork and exec
        // (signal-safety(7)).
        result(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) })
    }

    /// Waits for the child's end, and passes signals on to it.
    pub(super) fn wait(&self, child: &mut Child) -> Result<ExitStatus> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        loop {
            if let Some(status) = child.try_wait().context("wait for the command")? {
                return Ok(status);
            }
            let (signal, by_process) = self.next()?;
            // What a terminal sends, the kernel has sent to the child too: it is in the same
            // process group.
            if let (Some(pid), true, true) = (pid, by_process, PASSED.contains(&signal)) {
                let _gone = kill_process(pid, signal);
            }
        }
    }

    /// The next signal, and whether a process sent it.
    #[allow(unsafe_code)]
    fn next(&self) -> Result<(Signal, bool)> {
        loop {
            let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
            // SAFETY: the set is initialized, and the kernel writes at most a siginfo_t.
            let number = unsafe { libc::sigwaitinfo(&self.held, info.as_mut_ptr()) };
            if number < 0 {
                let error = io::Error::last_os_error();
                // Stopped and continued.
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error).context("wait for a signal");
            }
            // SAFETY: it was zeroed, which is a valid value, and written by the kernel.
            let code = unsafe { info.assume_init() }.si_code;
            if let Some(signal) = Signal::from_named_raw(number) {
                // sigaction(2): SI_USER and all below it are sent by processes.
                return Ok((signal, code <= libc::SI_USER));
            }
        }
    }
}

/// What pthread functions return.
fn result(error: i32) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

//! Waiting for a command as if one were the command: signals go on to it.

use std::mem::MaybeUninit;
use std::process::{Child, ExitStatus};
use std::{io, ptr};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// What is passed on.
const PASSED: [Signal; 6] =
    [Signal::INT, Signal::QUIT, Signal::TERM, Signal::HUP, Signal::USR1, Signal::USR2];

/// Signals that wait to be taken. Children don't inherit that: std begins each with an empty mask.
pub(super) struct Signals(libc::sigset_t);

impl Signals {
    /// Holds them from here on.
    #[allow(unsafe_code)]
    pub(super) fn hold() -> Result<Signals> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset(3) initializes the set, which lives on; the others read and write it.
        let (set, failed) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in PASSED.into_iter().chain([Signal::CHILD]) {
                libc::sigaddset(&mut set, signal.as_raw());
            }
            (set, libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()))
        };
        match failed {
            0 => Ok(Signals(set)),
            error => Err(io::Error::from_raw_os_error(error)).context("hold signals"),
        }
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
            let number = unsafe { libc::sigwaitinfo(&self.0, info.as_mut_ptr()) };
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

//! The wish to end (Ctrl-C, kill) as a file that becomes readable.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::FromRawFd as _;
use std::ptr;

use rustix::fd::OwnedFd;

/// What asks a program to end.
const ENDING: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// From here on the signals that ask the program to end don't end it: the file becomes readable
/// instead. Only for the calling thread and those that it starts, so to be called before there are
/// others.
#[allow(unsafe_code)]
pub fn ending() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) initializes the set, which the other calls read and write; it lives on.
    let fd = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut held = set.assume_init();
        for signal in ENDING {
            libc::sigaddset(&mut held, signal);
        }
        let failed = libc::pthread_sigmask(libc::SIG_BLOCK, &held, ptr::null_mut());
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        libc::signalfd(-1, &held, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

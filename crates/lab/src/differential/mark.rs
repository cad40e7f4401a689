//! Marks of sockets.

use std::io;
use std::mem;
use std::ptr;

use rustix::fd::{AsFd, AsRawFd};

/// Sets SO_MARK.
#[allow(unsafe_code)]
pub(super) fn set(fd: &impl AsFd, mark: u32) -> io::Result<()> {
    // SAFETY: the call only reads the four bytes of `mark`.
    let done = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            ptr::from_ref(&mark).cast(),
            mem::size_of::<u32>() as u32,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! Room for file descriptors.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Makes a file descriptor. If the process may not have more, its limit is raised to what it may
/// ask for (`RLIMIT_NOFILE`, soft and hard), and it is tried once more.
pub(super) fn with_room<T>(make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
            let limit = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
            make()
        }
        made => made,
    }
}

//! A thread with a poll loop, which ends at once when its owner wants it to.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::OwnedFd;

/// The thread. Dropping it ends it and waits for its end.
#[derive(Debug)]
pub(super) struct Worker {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts it. It has to poll the file descriptor that it gets, and to return when that becomes
    /// readable.
    pub(super) fn start(name: &str, run: impl FnOnce(&OwnedFd) + Send + 'static) -> Result<Worker> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&stopped))
            .context("start a thread")?;
        Ok(Worker { stop, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Adding 1 to an eventfd can't fail before there have been 2^64 of them.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // Should it have panicked, it has said so.
            let _ = thread.join();
        }
    }
}

/// How long poll may wait until a deadline; `None`: for ever.
pub(super) fn until(deadline: Option<Instant>) -> Option<Timespec> {
    let left = deadline?.saturating_duration_since(Instant::now());
    Timespec::try_from(left).ok()
}

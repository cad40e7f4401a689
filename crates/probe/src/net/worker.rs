//! A thread with a poll loop, which ends at once when its owner wants it to.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

/// The thread. Dropping it ends it and waits for its end.
#[derive(Debug)]
pub struct Worker {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts it. It has to poll the file descriptor that it gets, and to return when that becomes
    /// readable.
    pub fn start(name: &str, run: impl FnOnce(&OwnedFd) + Send + 'static) -> io::Result<Worker> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(&stopped))?;
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

/// What a worker waits for, and what it does when something is ready.
pub trait Work {
    /// Who waits.
    type Owner: Copy;

    /// Adds everything that it waits for. Gives until when at most.
    fn wait_for<'w>(&'w self, waits: &mut Waits<'w, Self::Owner>) -> Option<Instant>;

    /// Goes on with what is ready, and ends what took too long. Gives whether there is more to do.
    fn go_on(&mut self, ready: &[(Self::Owner, PollFlags)]) -> bool;
}

/// Files that are waited for, each with its owner.
pub struct Waits<'w, O> {
    fds: Vec<PollFd<'w>>,
    owners: Vec<O>,
}

impl<'w, O> Waits<'w, O> {
    /// Adds a file, and what of it is waited for.
    pub fn add(&mut self, owner: O, fd: &'w impl AsFd, events: PollFlags) {
        self.owners.push(owner);
        self.fds.push(PollFd::new(fd, events));
    }
}

/// Works until there is nothing more to do, or the file becomes readable that stops it.
pub fn run(mut work: impl Work, stop: &OwnedFd) {
    loop {
        let mut waits = Waits { fds: vec![PollFd::new(stop, PollFlags::IN)], owners: Vec::new() };
        let deadline = work.wait_for(&mut waits);
        let Waits { mut fds, owners } = waits;
        match poll(&mut fds, until(deadline).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            // Without poll there is nothing that could be served; clients see it.
            Err(_) => return,
        }
        let [stop, fds @ ..] = &fds[..] else { return };
        if !stop.revents().is_empty() {
            return;
        }
        let ready = owners.into_iter().zip(fds.iter().map(PollFd::revents));
        let ready: Vec<_> = ready.filter(|(_, events)| !events.is_empty()).collect();
        if !work.go_on(&ready) {
            return;
        }
    }
}

/// How long poll may wait until a deadline; `None`: for ever.
pub fn until(deadline: Option<Instant>) -> Option<Timespec> {
    let left = deadline?.saturating_duration_since(Instant::now());
    Timespec::try_from(left).ok()
}

//! TCP connections that don't block, and leave nothing behind.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use rustix::fd::{AsFd, BorrowedFd};

use super::control;
use super::make;

/// A connection. Dropping it resets it, unless it was said otherwise, as is right once both sides
/// have ended it.
///
/// One that is closed with unsent or unacknowledged bytes would be kept by the kernel for minutes,
/// and its namespace with it. And a child that another thread makes has all file descriptors until
/// it executes its program, so that closing one may not close the connection yet.
#[derive(Debug)]
pub struct Stream {
    stream: TcpStream,
    reset: bool,
}

impl Stream {
    /// One that isn't connected, in the calling thread's namespace.
    pub fn open(v6: bool) -> io::Result<Stream> {
        Ok(Stream { stream: TcpStream::from(make::stream(v6)?), reset: true })
    }

    /// One that was accepted.
    pub fn accepted(stream: TcpStream) -> io::Result<Stream> {
        stream.set_nonblocking(true)?;
        Ok(Stream { stream, reset: true })
    }

    /// Starts to connect.
    pub fn connect(&self, to: &SocketAddr) -> io::Result<()> {
        match rustix::net::connect(&self.stream, to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it is connected.
    pub fn connected(&self) -> io::Result<bool> {
        self.error()?;
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Fails with what has happened to it.
    pub fn error(&self) -> io::Result<()> {
        self.stream.take_error()?.map_or(Ok(()), Err)
    }

    /// The address of this side.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr().map(control::canonical)
    }

    /// Reads what has come in; 0: the other side has ended. `None`: nothing yet.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        now(|| (&self.stream).read(bytes))
    }

    /// Writes what there is room for. `None`: nothing.
    pub fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        now(|| (&self.stream).write(bytes))
    }

    /// Tells the other side that no more will come.
    pub fn end(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Has it closed instead of reset when it is dropped.
    pub fn close_when_dropped(&mut self) {
        self.reset = false;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.reset {
            // As connect(2) says of AF_UNSPEC; net/ipv4/tcp.c `tcp_disconnect` sends a reset where
            // the other side has to know. Nothing can be done if it fails.
            let _ = rustix::net::connect_unspec(&self.stream);
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn now(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(length) => return Ok(Some(length)),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(None),
                _ => return Err(error),
            },
        }
    }
}

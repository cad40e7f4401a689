//! A client's TCP connection: a line or an HTTP request, and the answer to it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::attempt::{Ask, Attempt, Outcome};
use super::http::{self, Head, Parsed};
use super::limit::with_room;
use super::message::Report;
use super::refusal::{self, Refusal};
use crate::control;
use crate::socket::FLAGS;

/// Bytes of an answer that are kept.
const LONGEST: usize = 1 << 20;

/// A connection under way.
#[derive(Debug)]
pub(super) struct Call {
    stream: TcpStream,
    to: SocketAddr,
    http: bool,
    /// What is still to be sent.
    output: Vec<u8>,
    /// What has come in.
    input: Vec<u8>,
}

impl Call {
    /// A socket in the calling thread's namespace.
    pub(super) fn open(attempt: &Attempt, token: &str) -> io::Result<Call> {
        let to = attempt.to;
        let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let socket =
            with_room(|| Ok(rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None)?))?;
        refusal::keep_errors(&socket, to.is_ipv6())?;
        let (http, output) = match &attempt.ask {
            Ask::Http { path, headers } => (true, http::request(path, &to.to_string(), headers)),
            Ask::Line | Ask::Datagram | Ask::Echo => (false, format!("{token}\n").into_bytes()),
        };
        let stream = TcpStream::from(socket);
        Ok(Call { stream, to, http, output, input: Vec::new() })
    }

    /// Binds to the address to start from.
    pub(super) fn bind(&self, attempt: &Attempt) -> io::Result<()> {
        // A port that was asked for may still be in TIME_WAIT, or have another destination.
        sockopt::set_socket_reuseaddr(&self.stream, attempt.source_port != 0)?;
        if attempt.source.is_some() || attempt.source_port != 0 {
            rustix::net::bind(&self.stream, &attempt.local())?;
        }
        Ok(())
    }

    /// Starts to connect. Gives the address that it starts from.
    pub(super) fn connect(&self) -> io::Result<SocketAddr> {
        match rustix::net::connect(&self.stream, &self.to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        self.stream.local_addr().map(control::canonical)
    }

    /// Whether it waits until it can send.
    pub(super) fn sends(&self) -> bool {
        !self.output.is_empty()
    }

    /// Goes on as far as it can. `None`: there is more to come.
    pub(super) fn go_on(&mut self) -> Option<Outcome> {
        match self.exchange() {
            Ok(ended) => self
                .answer(ended)
                .or_else(|| ended.then_some(Outcome::Refused { how: Refusal::Closed, by: None })),
            Err(error) => Some(match refusal::queued(&self.stream) {
                Some(refused) => Outcome::Refused { how: refused.how, by: refused.by },
                None => Outcome::Refused { how: refusal::of_error(&error, true), by: None },
            }),
        }
    }

    /// Has the connection reset when it is dropped, and its port free at once. One that is closed
    /// with unsent or unacknowledged bytes would be kept by the kernel for minutes, and its
    /// namespace with it.
    pub(super) fn reset(&self) {
        // It fails if the connection is gone already.
        let _ = sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }

    /// Whether the other side has ended.
    fn exchange(&mut self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ENOTCONN: poll was asked too early, the connection isn't there yet.
                Err(error) if waits(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let mut part = [0u8; 4096];
        while self.input.len() < LONGEST {
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(true),
                Ok(length) => self.input.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if waits(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The answer, if it is complete. Asked for when the server has ended, or when it is given up.
    pub(super) fn answer(&self, ended: bool) -> Option<Outcome> {
        let (status, body) = if self.http {
            let Parsed::Head(head, at) = Head::parse(&self.input) else { return None };
            let body = &self.input[at..];
            let complete = match head.content_length() {
                Some(length) => body.len() >= length,
                None => ended,
            };
            (head.status(), Some(body).filter(|_| complete)?)
        } else {
            let line = http::first_line(&self.input);
            (None, line.or(Some(&*self.input).filter(|rest| ended && !rest.is_empty()))?)
        };
        let (report, body) = (Report::from_json(body), body.to_vec());
        Some(Outcome::Answered { by: self.to, report, status, body })
    }
}

impl AsFd for Call {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

//! A client's TCP connection: a line or an HTTP request, and the answer to it.

use std::io;
use std::net::SocketAddr;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::net::sockopt;

use super::attempt::{Ask, Attempt, Outcome};
use super::http::{self, Head, Parsed};
use super::message::Report;
use super::refusal::{self, Refusal};
use super::stream::Stream;

/// Bytes of an answer that are kept.
const LONGEST: usize = 1 << 20;

/// A connection under way.
#[derive(Debug)]
pub(super) struct Call {
    stream: Stream,
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
        let stream = Stream::open(to.is_ipv6())?;
        refusal::keep_errors(&stream, to.is_ipv6())?;
        let (http, output) = match &attempt.ask {
            Ask::Http { path, headers } => (true, http::request(path, &to.to_string(), headers)),
            Ask::Line | Ask::Datagram | Ask::Echo => (false, format!("{token}\n").into_bytes()),
        };
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
        self.stream.connect(&self.to)?;
        self.stream.local()
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

    /// Has the connection closed when it is dropped, instead of reset.
    pub(super) fn close(&mut self) {
        self.stream.close_when_dropped();
    }

    /// Whether the other side has ended.
    fn exchange(&mut self) -> io::Result<bool> {
        self.stream.error()?;
        while !self.output.is_empty() {
            match self.stream.write(&self.output)? {
                Some(length) => drop(self.output.drain(..length)),
                None => return Ok(false),
            }
        }
        let mut part = [0u8; 4096];
        while self.input.len() < LONGEST {
            match self.stream.read(&mut part)? {
                Some(0) => return Ok(true),
                Some(length) => self.input.extend_from_slice(&part[..length]),
                None => return Ok(false),
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

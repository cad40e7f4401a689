//! A client's TCP connection: a line or an HTTP request, and the answer to it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::net::sockopt;

use crate::http::{self, Head, Parsed};
use crate::net::refusal::{self, Refusal};
use crate::net::stream::Stream;

/// Bytes of an answer that are kept.
const LONGEST: usize = 1 << 20;

/// A connection under way.
#[derive(Debug)]
pub struct Call {
    stream: Stream,
    to: SocketAddr,
    http: bool,
    /// Whether the connection came about.
    connected: bool,
    /// What is still to be sent.
    output: Vec<u8>,
    /// What has come in.
    input: Vec<u8>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// An answer.
    Answered {
        /// The status of an HTTP response.
        status: Option<u16>,
        /// What was sent back, without the head of an HTTP response.
        body: Vec<u8>,
    },
    /// Somebody said no.
    Refused {
        /// How.
        how: Refusal,
        /// Who sent the ICMP error, if it was one.
        by: Option<IpAddr>,
    },
}

impl Call {
    /// A socket in the calling thread's namespace, and what is to be sent: an HTTP request, or
    /// something that is answered by a line.
    pub fn open(to: SocketAddr, http: bool, output: Vec<u8>) -> io::Result<Call> {
        let stream = Stream::open(to.is_ipv6())?;
        refusal::keep_errors(&stream, to.is_ipv6())?;
        Ok(Call { stream, to, http, connected: false, output, input: Vec::new() })
    }

    /// Binds to the address to start from, each part of which may be left to the kernel. Gives what
    /// it is bound to.
    pub fn bind(&self, local: SocketAddr) -> io::Result<SocketAddr> {
        // A port that was asked for may still be in TIME_WAIT, or have another destination.
        sockopt::set_socket_reuseaddr(&self.stream, local.port() != 0)?;
        rustix::net::bind(&self.stream, &local)?;
        self.stream.local()
    }

    /// Starts to connect. Gives the address that it starts from.
    pub fn connect(&self) -> io::Result<SocketAddr> {
        self.stream.connect(&self.to)?;
        self.stream.local()
    }

    /// Has something sent ahead of everything else.
    pub fn precede(&mut self, header: Vec<u8>) {
        self.output.splice(..0, header);
    }

    /// Whether the connection came about.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether it waits until it can send.
    pub fn sends(&self) -> bool {
        !self.output.is_empty()
    }

    /// Goes on as far as it can. `None`: there is more to come.
    pub fn go_on(&mut self) -> Option<Ending> {
        match self.exchange() {
            Ok(ended) => self
                .answer(ended)
                .or_else(|| ended.then_some(Ending::Refused { how: Refusal::Closed, by: None })),
            Err(error) => Some(match refusal::queued(&self.stream) {
                Some(refused) => Ending::Refused { how: refused.how, by: refused.by },
                None => Ending::Refused { how: refusal::of_error(&error, true), by: None },
            }),
        }
    }

    /// What has come in.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// Has the connection closed when it is dropped, instead of reset.
    pub fn close(&mut self) {
        self.stream.close_when_dropped();
    }

    /// Whether the other side has ended.
    fn exchange(&mut self) -> io::Result<bool> {
        self.stream.error()?;
        while !self.output.is_empty() {
            match self.stream.write(&self.output)? {
                Some(length) => {
                    self.connected = true;
                    self.output.drain(..length);
                }
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
    pub fn answer(&self, ended: bool) -> Option<Ending> {
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
        Some(Ending::Answered { status, body: body.to_vec() })
    }
}

impl AsFd for Call {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

//! A server's TCP connection: reads a request, answers it, and waits for the client to end.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd};
use serde::Serialize;

use crate::http;
use crate::net::control;
use crate::net::stream::Stream;
use crate::proxy_protocol::Ends;

/// Bytes of a request: the longest header of the PROXY protocol, and a head.
const MAX_REQUEST: usize = (16 + 0xffff) + http::MAX_HEAD;

/// What a listening port is for.
pub trait Service: fmt::Debug + Send + Sync {
    /// What is to be done about what has come in of a request, which may have ended.
    fn step(&self, ends: &Ends, bytes: &[u8], ended: bool) -> Step;

    /// A connection is over without an answer.
    fn unanswered(&self, _ends: &Ends, _why: Unanswered) {}
}

/// What is to be done about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to come.
    Wait,
    /// It is to be answered so.
    Answer(Vec<u8>),
    /// It is to be given up.
    Abort(Unanswered),
}

/// Why a connection got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unanswered {
    /// It ended without a request, as the checks of load balancers do.
    Empty,
    /// It ended in the middle of its request.
    Cut,
    /// Its request wasn't complete in time.
    Late,
    /// Its request is longer than any may be.
    TooLong,
    /// It should begin with a PROXY protocol header, and doesn't, or with one that is malformed.
    Header,
    /// It speaks no HTTP where nothing else is spoken.
    NotHttp,
    /// Its HTTP head is malformed or too long; it was answered with status 400.
    BadHttp,
    /// It was reset.
    Broken,
    /// Enough were answered.
    Enough,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unanswered::Empty => "it ended without a request",
            Unanswered::Cut => "it ended in the middle of its request",
            Unanswered::Late => "its request did not come in time",
            Unanswered::TooLong => "its request is too long",
            Unanswered::Header => "it has no PROXY protocol header, or a malformed one",
            Unanswered::NotHttp => "it speaks no HTTP",
            Unanswered::BadHttp => "its HTTP head is malformed or too long",
            Unanswered::Broken => "it was reset",
            Unanswered::Enough => "no more are answered",
        })
    }
}

/// A connection that was accepted. Until both sides have ended, dropping it resets it.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    service: Arc<dyn Service>,
    ends: Ends,
    phase: Phase,
    /// When it is given up.
    pub deadline: Instant,
}

#[derive(Debug)]
enum Phase {
    /// What has come in of the request.
    Reading(Vec<u8>),
    /// What is still to be sent of the answer.
    Writing(Vec<u8>),
    /// Everything was sent. Closing with unread bytes would be a reset, which can overtake the
    /// answer (RFC 2525, section 2.17), so what comes in is read until its end.
    Draining,
}

/// How far it came.
enum Progress {
    More,
    Ended,
    Given(Unanswered),
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(
        stream: TcpStream,
        source: SocketAddr,
        service: Arc<dyn Service>,
        deadline: Instant,
    ) -> io::Result<Connection> {
        let stream = Stream::accepted(stream)?;
        let ends = Ends { source: control::canonical(source), destination: stream.local()? };
        Ok(Connection { stream, service, ends, phase: Phase::Reading(Vec::new()), deadline })
    }

    /// What it waits for.
    pub fn waits_for(&self) -> PollFlags {
        match self.phase {
            Phase::Reading(_) | Phase::Draining => PollFlags::IN,
            Phase::Writing(_) => PollFlags::OUT,
        }
    }

    /// Whether its request was answered, be it that the answer is still under way.
    pub fn is_answered(&self) -> bool {
        match self.phase {
            Phase::Reading(_) => false,
            Phase::Writing(_) | Phase::Draining => true,
        }
    }

    /// Goes on as far as it can. Gives whether there is more to come.
    pub fn go_on(&mut self) -> bool {
        match self.exchange() {
            Ok(Progress::More) => true,
            Ok(Progress::Ended) => false,
            Ok(Progress::Given(why)) => {
                self.service.unanswered(&self.ends, why);
                false
            }
            Err(_) => {
                self.give_up(Unanswered::Broken);
                false
            }
        }
    }

    /// Tells that it is given up, if it wasn't answered.
    pub fn give_up(&self, why: Unanswered) {
        if !self.is_answered() {
            self.service.unanswered(&self.ends, why);
        }
    }

    fn exchange(&mut self) -> io::Result<Progress> {
        let mut part = [0u8; 4096];
        loop {
            match &mut self.phase {
                Phase::Reading(request) => {
                    let Some(length) = self.stream.read(&mut part)? else {
                        return Ok(Progress::More);
                    };
                    request.extend_from_slice(&part[..length]);
                    let ended = length == 0;
                    match self.service.step(&self.ends, request, ended) {
                        Step::Wait if ended && request.is_empty() => {
                            return Ok(Progress::Given(Unanswered::Empty));
                        }
                        Step::Wait if ended => return Ok(Progress::Given(Unanswered::Cut)),
                        Step::Wait if request.len() > MAX_REQUEST => {
                            return Ok(Progress::Given(Unanswered::TooLong));
                        }
                        Step::Wait => {}
                        Step::Answer(answer) => self.phase = Phase::Writing(answer),
                        Step::Abort(why) => return Ok(Progress::Given(why)),
                    }
                }
                Phase::Writing(rest) if rest.is_empty() => {
                    self.stream.end()?;
                    self.phase = Phase::Draining;
                }
                Phase::Writing(rest) => {
                    let Some(length) = self.stream.write(rest)? else {
                        return Ok(Progress::More);
                    };
                    rest.drain(..length);
                }
                Phase::Draining => match self.stream.read(&mut part)? {
                    Some(0) => {
                        self.stream.close_when_dropped();
                        return Ok(Progress::Ended);
                    }
                    Some(_) => {}
                    None => return Ok(Progress::More),
                },
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

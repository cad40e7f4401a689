//! A server's TCP connection: reads a request, answers it, and waits for the client to end.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd};

use super::health::HealthStatus;
use super::http::{self, Head, Parsed};
use super::message::Report;
use super::proxy_protocol;
use super::stream::Stream;
use crate::control;

/// How long a client may take for everything.
const LONGEST: Duration = Duration::from_secs(10);
/// Bytes of a request: the longest header of the PROXY protocol, and a head.
const MAX_REQUEST: usize = (16 + 0xffff) + http::MAX_HEAD;

/// What a listening port is for.
#[derive(Debug)]
pub(super) enum Service {
    /// It says whom it saw.
    Reports {
        /// The place's name.
        by: String,
        /// Whether a PROXY protocol header is expected.
        proxy_protocol: bool,
    },
    /// It answers health checks.
    Health(HealthStatus),
}

/// A connection that was accepted. Until both sides have ended, dropping it resets it.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    service: Arc<Service>,
    source: SocketAddr,
    destination: SocketAddr,
    phase: Phase,
    /// When it is given up.
    pub(super) deadline: Instant,
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

/// What is to be done about a request.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// There is more to come.
    Wait,
    /// It is to be answered so.
    Answer(Vec<u8>),
    /// It is to be given up.
    Abort,
}

impl Connection {
    /// A connection that has just been accepted.
    pub(super) fn new(
        stream: TcpStream,
        source: SocketAddr,
        service: Arc<Service>,
    ) -> io::Result<Connection> {
        let stream = Stream::accepted(stream)?;
        let destination = stream.local()?;
        let (source, phase) = (control::canonical(source), Phase::Reading(Vec::new()));
        let deadline = Instant::now() + LONGEST;
        Ok(Connection { stream, service, source, destination, phase, deadline })
    }

    /// What it waits for.
    pub(super) fn waits_for(&self) -> PollFlags {
        match self.phase {
            Phase::Reading(_) | Phase::Draining => PollFlags::IN,
            Phase::Writing(_) => PollFlags::OUT,
        }
    }

    /// Goes on as far as it can. Gives whether there is more to come.
    pub(super) fn go_on(&mut self) -> bool {
        self.exchange().unwrap_or(false)
    }

    fn exchange(&mut self) -> io::Result<bool> {
        let mut part = [0u8; 4096];
        loop {
            match &mut self.phase {
                Phase::Reading(request) => {
                    let Some(length) = self.stream.read(&mut part)? else { return Ok(true) };
                    request.extend_from_slice(&part[..length]);
                    let ended = length == 0;
                    match self.service.step(self.source, self.destination, request, ended) {
                        Step::Wait if ended || request.len() > MAX_REQUEST => return Ok(false),
                        Step::Wait => {}
                        Step::Answer(answer) => self.phase = Phase::Writing(answer),
                        Step::Abort => return Ok(false),
                    }
                }
                Phase::Writing(rest) if rest.is_empty() => {
                    self.stream.end()?;
                    self.phase = Phase::Draining;
                }
                Phase::Writing(rest) => {
                    let Some(length) = self.stream.write(rest)? else { return Ok(true) };
                    rest.drain(..length);
                }
                Phase::Draining => match self.stream.read(&mut part)? {
                    Some(0) => {
                        self.stream.close_when_dropped();
                        return Ok(false);
                    }
                    Some(_) => {}
                    None => return Ok(true),
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

impl Service {
    /// What is to be done about what has come in, which may have ended.
    fn step(&self, source: SocketAddr, destination: SocketAddr, bytes: &[u8], ended: bool) -> Step {
        match self {
            Service::Health(status) => match Head::parse(bytes) {
                Parsed::Head(..) => Step::Answer(status.response()),
                Parsed::Incomplete => Step::Wait,
                Parsed::Malformed => Step::Answer(http::response(400, &[], &[])),
            },
            Service::Reports { by, proxy_protocol: false } => {
                report(Report::new(by, source, destination), bytes, ended)
            }
            Service::Reports { by, proxy_protocol: true } => match proxy_protocol::parse(bytes) {
                proxy_protocol::Parsed::Header { ends, length } => {
                    let mut about = Report::new(by, source, destination);
                    about.proxied = ends.map(|ends| control::canonical(ends.source));
                    report(about, &bytes[length..], ended)
                }
                proxy_protocol::Parsed::Incomplete => Step::Wait,
                proxy_protocol::Parsed::Malformed => Step::Abort,
            },
        }
    }
}

/// Reports on an HTTP request with its head, on any other at the end of its first line.
fn report(report: Report, bytes: &[u8], ended: bool) -> Step {
    let line = match http::first_line(bytes) {
        Some(line) => line,
        None if ended && !bytes.is_empty() => bytes,
        None if bytes.len() > http::MAX_HEAD => return Step::Abort,
        None => return Step::Wait,
    };
    if !http::is_request_line(line) {
        return Step::Answer((report.about(line).to_json() + "\n").into_bytes());
    }
    match Head::parse(bytes) {
        Parsed::Head(head, _) => {
            let mut report = report.about(head.start[1].as_bytes());
            report.x_forwarded_for = head.header("X-Forwarded-For");
            let json = report.to_json() + "\n";
            let headers = [("Content-Type", "application/json")];
            Step::Answer(http::response(200, &headers, json.as_bytes()))
        }
        Parsed::Incomplete => Step::Wait,
        Parsed::Malformed => Step::Answer(http::response(400, &[], &[])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(proxy_protocol: bool) -> Service {
        Service::Reports { by: "web-1".into(), proxy_protocol }
    }

    /// What is answered to bytes that come in one by one.
    fn answered(service: &Service, bytes: &[u8], ended: bool) -> Step {
        let step = |bytes: &[u8], ended| {
            let (source, destination) = ("192.0.2.7:4001", "10.0.0.1:80");
            service.step(source.parse().unwrap(), destination.parse().unwrap(), bytes, ended)
        };
        for length in 0..bytes.len() {
            assert_eq!(step(&bytes[..length], false), Step::Wait, "{length} bytes");
        }
        step(bytes, ended)
    }

    fn body(step: Step) -> (String, Report) {
        let Step::Answer(bytes) = step else { panic!("{step:?}") };
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or(("", &text));
        assert!(body.ends_with('\n'));
        (head.into(), Report::from_json(body.as_bytes()).unwrap())
    }

    #[test]
    fn http_is_answered_with_its_head_and_a_line_with_its_end() {
        let request = b"GET /x HTTP/1.1\r\nHost: y\r\nX-Forwarded-For: 198.51.100.9\r\n\r\n";
        let (head, report) = body(answered(&place(false), request, false));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"));
        assert_eq!(report.source, "192.0.2.7:4001".parse().unwrap());
        assert_eq!(report.destination, "10.0.0.1:80".parse().unwrap());
        assert_eq!((&*report.by, &*report.request), ("web-1", "/x"));
        assert_eq!(report.x_forwarded_for.as_deref(), Some("198.51.100.9"));
        assert_eq!((report.proxied, report.ttl), (None, None));
        for (line, ended) in [("hello\n", false), ("hello", true)] {
            let (head, report) = body(answered(&place(false), line.as_bytes(), ended));
            assert_eq!((&*head, &*report.request), ("", "hello"));
        }
        assert_eq!(answered(&place(false), b"", true), Step::Wait);
    }

    #[test]
    fn a_proxy_header_is_taken_only_where_it_is_expected() {
        let request = b"PROXY TCP4 198.51.100.9 203.0.113.1 7 80\r\nhello\n";
        let (_, report) = body(answered(&place(true), request, false));
        assert_eq!(report.proxied, "198.51.100.9:7".parse().ok());
        assert_eq!((report.source.port(), &*report.request), (4001, "hello"));
        let (_, report) = body(answered(&place(true), b"PROXY UNKNOWN\r\nhello\n", false));
        assert_eq!((report.proxied, &*report.request), (None, "hello"));
        assert_eq!(answered(&place(true), b"G", false), Step::Abort);
        let line = &request[..request.len() - 6];
        let (_, report) = body(answered(&place(false), line, false));
        assert_eq!((report.proxied, report.request.len()), (None, line.len() - 2));
    }
}

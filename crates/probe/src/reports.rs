//! A service that says whom it saw: what of a request's first bytes is what, and what is answered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::connection::{Service, Step, Unanswered};
use crate::http::{self, Head, Parsed};
use crate::net::control;
use crate::proxy_protocol::{self, Ends};
use crate::report::{Protocol, Report};

/// Who is told of requests.
pub trait Witness: fmt::Debug + Send + Sync {
    /// A request came in. Gives whether it is to be answered.
    fn saw(&self, report: &Report) -> bool;

    /// A connection is over without an answer.
    fn unanswered(&self, _ends: &Ends, _why: Unanswered) {}
}

/// Whether connections begin with a PROXY protocol header.
///
/// Who believes one where it isn't expected lets every client choose its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Header {
    /// No: it would be part of the request.
    #[default]
    Never,
    /// Some do: what looks like one is one.
    Sometimes,
    /// All have to.
    Always,
}

/// A service that says whom it saw.
#[derive(Debug)]
pub struct Reports {
    /// What it calls itself.
    pub by: String,
    /// Whether connections begin with a PROXY protocol header.
    pub header: Header,
    /// Whether a line is answered.
    pub line: bool,
    /// Whether HTTP is known. Otherwise it is a line like any other.
    pub http: bool,
    /// Who is told.
    pub witness: Arc<dyn Witness>,
}

impl Reports {
    /// Reports on lines and HTTP.
    pub fn new(by: &str, header: Header, witness: Arc<dyn Witness>) -> Reports {
        Reports { by: by.to_owned(), header, line: true, http: true, witness }
    }

    /// What is answered to a datagram.
    pub fn datagram(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        ttl: Option<u8>,
        data: &[u8],
    ) -> Option<Vec<u8>> {
        let mut report = Report::new(&self.by, Protocol::Udp, source, destination).about(data);
        report.ttl = ttl;
        self.witness.saw(&report).then(|| (report.to_json() + "\n").into_bytes())
    }

    /// What comes of the header: the source that it tells, and its length.
    fn header(&self, bytes: &[u8], ended: bool) -> Result<(Option<SocketAddr>, usize), Step> {
        let expected = match self.header {
            Header::Never => false,
            Header::Sometimes => proxy_protocol::may_begin(bytes),
            Header::Always => true,
        };
        if !expected {
            return Ok((None, 0));
        }
        match proxy_protocol::parse(bytes) {
            proxy_protocol::Parsed::Header { ends, length } => {
                Ok((ends.map(|ends| control::canonical(ends.source)), length))
            }
            proxy_protocol::Parsed::Incomplete if !ended => Err(Step::Wait),
            // Nothing at all is no malformed header: a check of a load balancer.
            proxy_protocol::Parsed::Incomplete if bytes.is_empty() => Err(Step::Wait),
            proxy_protocol::Parsed::Incomplete | proxy_protocol::Parsed::Malformed => {
                Err(Step::Abort(Unanswered::Header))
            }
        }
    }

    /// Reports on an HTTP request with its head, on any other at the end of its first line.
    fn request(&self, mut report: Report, bytes: &[u8], ended: bool) -> Step {
        let line = match http::first_line(bytes) {
            Some(line) => line,
            None if ended && !bytes.is_empty() => bytes,
            None if bytes.len() > http::MAX_HEAD => return Step::Abort(Unanswered::TooLong),
            None => return Step::Wait,
        };
        if !(self.http && http::is_request_line(line)) {
            if !self.line {
                return Step::Abort(Unanswered::NotHttp);
            }
            let report = report.about(line);
            return self.answer(&report, |json| json.into_bytes());
        }
        match Head::parse(bytes) {
            Parsed::Head(head, _) => {
                report.protocol = Protocol::Http;
                let mut report = report.about(head.start[1].as_bytes());
                report.x_forwarded_for = head.header("X-Forwarded-For");
                report.forwarded = head.header("Forwarded");
                let headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")];
                self.answer(&report, |json| http::response(200, &headers, json.as_bytes()))
            }
            Parsed::Incomplete => Step::Wait,
            Parsed::Malformed => {
                let Report { source, destination, .. } = report;
                self.witness.unanswered(&Ends { source, destination }, Unanswered::BadHttp);
                Step::Answer(http::response(400, &[], &[]))
            }
        }
    }

    fn answer(&self, report: &Report, form: impl FnOnce(String) -> Vec<u8>) -> Step {
        if self.witness.saw(report) {
            Step::Answer(form(report.to_json() + "\n"))
        } else {
            Step::Abort(Unanswered::Enough)
        }
    }
}

impl Service for Reports {
    fn step(&self, ends: &Ends, bytes: &[u8], ended: bool) -> Step {
        let (proxied, length) = match self.header(bytes, ended) {
            Ok(header) => header,
            Err(step) => return step,
        };
        let mut report = Report::new(&self.by, Protocol::Tcp, ends.source, ends.destination);
        report.proxied = proxied;
        self.request(report, &bytes[length..], ended)
    }

    fn unanswered(&self, ends: &Ends, why: Unanswered) {
        self.witness.unanswered(ends, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl Witness for Nobody {
        fn saw(&self, _report: &Report) -> bool {
            true
        }
    }

    fn place(header: Header) -> Reports {
        Reports::new("web-1", header, Arc::new(Nobody))
    }

    fn ends() -> Ends {
        let (source, destination) = ("192.0.2.7:4001", "10.0.0.1:80");
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// What is answered to bytes that come in one by one.
    fn answered(service: &Reports, bytes: &[u8], ended: bool) -> Step {
        for length in 0..bytes.len() {
            let step = service.step(&ends(), &bytes[..length], false);
            assert_eq!(step, Step::Wait, "{length} bytes");
        }
        service.step(&ends(), bytes, ended)
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
        let request = b"GET /x HTTP/1.1\r\nHost: y\r\nX-Forwarded-For: 198.51.100.9\r\n\
            Forwarded: for=198.51.100.8\r\nforwarded: for=192.0.2.4\r\n\r\n";
        let (head, report) = body(answered(&place(Header::Never), request, false));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"));
        assert_eq!(report.source, "192.0.2.7:4001".parse().unwrap());
        assert_eq!(report.destination, "10.0.0.1:80".parse().unwrap());
        assert_eq!((&*report.by, &*report.request), ("web-1", "/x"));
        assert_eq!(report.protocol, Protocol::Http);
        assert_eq!(report.x_forwarded_for.as_deref(), Some("198.51.100.9"));
        assert_eq!(report.forwarded.as_deref(), Some("for=198.51.100.8, for=192.0.2.4"));
        assert_eq!((report.proxied, report.ttl), (None, None));
        for (line, ended) in [("hello\n", false), ("hello", true)] {
            let (head, report) = body(answered(&place(Header::Never), line.as_bytes(), ended));
            assert_eq!((&*head, &*report.request), ("", "hello"));
            assert_eq!(report.protocol, Protocol::Tcp);
        }
        assert_eq!(answered(&place(Header::Never), b"", true), Step::Wait);
    }

    #[test]
    fn a_proxy_header_is_taken_only_where_it_is_expected() {
        let request = b"PROXY TCP4 198.51.100.9 203.0.113.1 7 80\r\nhello\n";
        for header in [Header::Sometimes, Header::Always] {
            let (_, report) = body(answered(&place(header), request, false));
            assert_eq!(report.proxied, "198.51.100.9:7".parse().ok());
            assert_eq!((report.source.port(), &*report.request), (4001, "hello"));
            let (_, report) = body(answered(&place(header), b"PROXY UNKNOWN\r\nhello\n", false));
            assert_eq!((report.proxied, &*report.request), (None, "hello"));
            let malformed = answered(&place(header), b"PROXY TCP9 a b 1 2\r\n", false);
            assert_eq!(malformed, Step::Abort(Unanswered::Header));
            assert_eq!(answered(&place(header), b"", true), Step::Wait);
        }
        let missing = answered(&place(Header::Always), b"G", false);
        assert_eq!(missing, Step::Abort(Unanswered::Header));
        let line = &request[..request.len() - 6];
        let (_, report) = body(answered(&place(Header::Never), line, false));
        assert_eq!((report.proxied, report.request.len()), (None, line.len() - 2));
    }

    #[test]
    fn where_headers_are_not_on_all_connections_what_begins_like_one_waits_until_it_is_clear() {
        for request in ["POST / HTTP/1.1\r\n\r\n", "PROXIED\n", "hello\n"] {
            let (_, report) = body(answered(&place(Header::Sometimes), request.as_bytes(), false));
            assert_eq!(report.proxied, None, "{request}");
        }
    }

    #[test]
    fn only_what_is_wanted_is_spoken() {
        let request = b"GET /x HTTP/1.1\r\n\r\n";
        let mut service = place(Header::Never);
        service.http = false;
        let (head, report) = body(service.step(&ends(), request, false));
        assert_eq!((&*head, &*report.request), ("", "GET /x HTTP/1.1"));
        assert_eq!(report.protocol, Protocol::Tcp);
        (service.http, service.line) = (true, false);
        let step = service.step(&ends(), b"hello\n", false);
        assert_eq!(step, Step::Abort(Unanswered::NotHttp));
        assert_eq!(body(service.step(&ends(), request, false)).1.request, "/x");
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let line = vec![b'x'; http::MAX_HEAD + 1];
        let step = place(Header::Never).step(&ends(), &line, false);
        assert_eq!(step, Step::Abort(Unanswered::TooLong));
    }
}

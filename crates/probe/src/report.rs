//! What a server says of a request, as JSON.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What was spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP: a line.
    Tcp,
    /// HTTP over TCP.
    Http,
    /// UDP.
    Udp,
    /// An ICMP echo request.
    Icmp,
}

/// What a server saw of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The name of the place that answers.
    pub by: String,
    /// What was spoken.
    pub protocol: Protocol,
    /// Where the request came from, as the socket saw it. The port of an echo request is 0.
    pub source: SocketAddr,
    /// The address that it arrived at, after all translation. The port of an echo request is 0.
    pub destination: SocketAddr,
    /// The HTTP header of that name; several are joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x_forwarded_for: Option<String>,
    /// The HTTP header `Forwarded` (RFC 7239); several are joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<String>,
    /// The source that a PROXY protocol header told, where one is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxied: Option<SocketAddr>,
    /// Time to live or hop limit of the packet that arrived. Not known of TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// The beginning of what was asked: the HTTP request's path, or the text of the line or datagram.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
}

/// What JSON of a report begins with.
const START: &[u8] = b"{\"by\":";
/// Characters of a request that are repeated in its report.
const REPEATED: usize = 100;

impl Report {
    /// A report without what only some requests have.
    pub fn new(
        by: &str,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Report {
        Report {
            by: by.to_owned(),
            protocol,
            source,
            destination,
            x_forwarded_for: None,
            forwarded: None,
            proxied: None,
            ttl: None,
            request: String::new(),
        }
    }

    /// The same about a request.
    pub fn about(mut self, request: &[u8]) -> Report {
        self.request = repeated(request);
        self
    }

    /// Whether it is about this request.
    pub fn is_about(&self, request: &[u8]) -> bool {
        self.request == repeated(request)
    }

    /// As JSON, in one line without its end.
    pub fn to_json(&self) -> String {
        // A struct of strings and numbers can't fail to become JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads JSON. `None`: it isn't a report.
    pub fn from_json(text: &[u8]) -> Option<Report> {
        serde_json::from_slice(text).ok()
    }

    /// Whether a datagram looks like a report. Such a one is never answered, or two servers could
    /// be made to answer each other for ever.
    pub fn looks_like_one(text: &[u8]) -> bool {
        text.starts_with(START)
    }
}

fn repeated(request: &[u8]) -> String {
    String::from_utf8_lossy(request).trim_end().chars().take(REPEATED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_way_through_json() {
        let mut report = Report::new(
            "web-1",
            Protocol::Udp,
            "192.0.2.7:4001".parse().unwrap(),
            "[2001:db8::1%3]:80".parse().unwrap(),
        )
        .about(b"a \"line\"\xff\r\n");
        for _ in 0..2 {
            let json = report.to_json();
            assert!(Report::looks_like_one(json.as_bytes()), "{json}");
            assert!(!json.contains('\n'));
            assert_eq!(Report::from_json(json.as_bytes()), Some(report.clone()));
            report.x_forwarded_for = Some("198.51.100.9, 192.0.2.3".into());
            report.forwarded = Some("for=198.51.100.9".into());
            report.proxied = "[2001:db8::5]:7".parse().ok();
            report.ttl = Some(61);
        }
        assert_eq!(report.request, "a \"line\"\u{fffd}");
        assert_eq!(Report::from_json(b"{\"by\": 3}"), None);
    }

    #[test]
    fn the_fields_have_the_names_that_were_promised() {
        let (source, destination) = ("192.0.2.7:1", "10.0.0.1:80");
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let mut report = Report::new("web-1", Protocol::Http, source, destination);
        report.x_forwarded_for = Some("x".into());
        report.ttl = Some(61);
        assert_eq!(
            report.to_json(),
            r#"{"by":"web-1","protocol":"http","source":"192.0.2.7:1","destination":"10.0.0.1:80","x_forwarded_for":"x","ttl":61}"#
        );
    }

    #[test]
    fn a_long_request_is_repeated_in_part() {
        let at = "10.0.0.1:80".parse().unwrap();
        let report = Report::new("a", Protocol::Tcp, at, at).about("ä".repeat(2000).as_bytes());
        assert_eq!(report.request, "ä".repeat(REPEATED));
    }
}

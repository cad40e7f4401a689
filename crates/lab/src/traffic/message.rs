//! What a server says of a request, as JSON.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What a server saw of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The name of the place that answers.
    pub by: String,
    /// Where the request came from, as the socket saw it. The port of an echo request is 0.
    pub source: SocketAddr,
    /// The address that it arrived at, after all translation. The port of an echo request is 0.
    pub destination: SocketAddr,
    /// The HTTP header of that name; several are joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x_forwarded_for: Option<String>,
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
    pub(super) fn new(by: &str, source: SocketAddr, destination: SocketAddr) -> Report {
        let by = by.to_owned();
        let request = String::new();
        Report { by, source, destination, x_forwarded_for: None, proxied: None, ttl: None, request }
    }

    /// The same about a request.
    pub(super) fn about(mut self, request: &[u8]) -> Report {
        let text = String::from_utf8_lossy(request);
        self.request = text.trim_end().chars().take(REPEATED).collect();
        self
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
    pub(super) fn looks_like_one(text: &[u8]) -> bool {
        text.starts_with(START)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_way_through_json() {
        let mut report = Report::new(
            "web-1",
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
            report.proxied = "[2001:db8::5]:7".parse().ok();
            report.ttl = Some(61);
        }
        assert_eq!(report.request, "a \"line\"\u{fffd}");
        assert_eq!(Report::from_json(b"{\"by\": 3}"), None);
    }

    #[test]
    fn the_fields_have_the_names_that_were_promised() {
        let mut report =
            Report::new("web-1", "192.0.2.7:1".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
        report.x_forwarded_for = Some("x".into());
        report.ttl = Some(61);
        assert_eq!(
            report.to_json(),
            r#"{"by":"web-1","source":"192.0.2.7:1","destination":"10.0.0.1:80","x_forwarded_for":"x","ttl":61}"#
        );
    }

    #[test]
    fn a_long_request_is_repeated_in_part() {
        let at = "10.0.0.1:80".parse().unwrap();
        let report = Report::new("a", at, at).about("ä".repeat(2000).as_bytes());
        assert_eq!(report.request, "ä".repeat(REPEATED));
    }
}

//! What came of asking: the address that was used here, and the one that was seen there.
//!
//! As JSON (`schemas/probe.v1.json`) it has everything, so that what was observed on one host can be
//! judged on another.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::net::refusal::Refusal;
use crate::proxy_protocol::Version;
use crate::report::Report;

/// The version of the JSON form.
pub const SCHEMA: &str = "unmasq.probe/v1";

/// Observations as a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: String,
    /// In the order in which they were made.
    pub observations: Vec<Observation>,
}

impl Document {
    /// A document of the current version.
    pub fn new(observations: Vec<Observation>) -> Document {
        Document { schema: SCHEMA.to_owned(), observations }
    }
}

/// By which protocol to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// TCP: a line.
    Tcp,
    /// HTTP over TCP.
    Http,
    /// UDP: a datagram.
    Udp,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ask::Tcp => "tcp",
            Ask::Http => "http",
            Ask::Udp => "udp",
        })
    }
}

/// One connection, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// What was spoken.
    pub protocol: Ask,
    /// Who was asked.
    pub target: SocketAddr,
    /// The address that was used here. `None`: it came to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<SocketAddr>,
    /// The address that the other side saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<SocketAddr>,
    /// Whether that is the same.
    pub source: Source,
    /// The PROXY protocol header that was sent, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<SentHeader>,
    /// What happened.
    pub outcome: Outcome,
    /// From sending until the answer, or until it was given up.
    pub milliseconds: u64,
}

/// What became of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The other side sees the address that was used here. (The port may be another.)
    Preserved,
    /// It sees another address.
    Rewritten,
    /// Nobody said.
    Unknown,
}

/// A PROXY protocol header that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentHeader {
    /// Its version.
    pub version: Version,
    /// The source that it told.
    pub told: SocketAddr,
    /// The source that the other side took from a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<SocketAddr>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Outcome {
    /// `unmasq echo` answered.
    Answered {
        /// What it saw.
        report: Report,
    },
    /// `unmasq echo` answered a datagram, but the answer comes from an address that wasn't asked: no
    /// program that checks whom it talks to would take it.
    Misanswered {
        /// Who answered.
        by: SocketAddr,
        /// What it saw.
        report: Report,
    },
    /// There was an answer, but not by `unmasq echo`, or not to this request.
    Foreign {
        /// The status of an HTTP response.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// How the answer begins.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        begins: String,
    },
    /// Somebody said no before there was a connection; to a datagram, instead of an answer.
    Refused {
        /// How.
        how: Refusal,
        /// Who sent the ICMP error, if it was one. `None` for a reset, and for what the own kernel
        /// says before anything is sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<IpAddr>,
    },
    /// The connection came about, and ended without an answer.
    Closed {
        /// How.
        how: Refusal,
    },
    /// Nothing came in time.
    Silent {
        /// Whether the connection came about.
        connected: bool,
    },
    /// Nothing was sent.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// What the other side saw, if it said so.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Outcome::Answered { report } | Outcome::Misanswered { report, .. } => Some(report),
            Outcome::Foreign { .. }
            | Outcome::Refused { .. }
            | Outcome::Closed { .. }
            | Outcome::Silent { .. }
            | Outcome::Failed { .. } => None,
        }
    }
}

impl Source {
    /// What became of an address.
    pub fn of(from: Option<SocketAddr>, seen: Option<SocketAddr>) -> Source {
        match (from, seen) {
            (Some(from), Some(seen)) if from.ip() == seen.ip() => Source::Preserved,
            (Some(_), Some(_)) => Source::Rewritten,
            (None, _) | (_, None) => Source::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Protocol;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn report() -> Report {
        let (seen, local) = (at("192.0.2.7:1024"), at("10.0.0.1:80"));
        let mut report = Report::new("web-1", Protocol::Http, seen, local).about(b"/?unmasq=x");
        report.x_forwarded_for = Some("198.51.100.9".into());
        report.forwarded = Some("for=198.51.100.8".into());
        report.proxied = Some(at("[2001:db8::5]:7"));
        report.ttl = Some(61);
        report
    }

    fn outcomes() -> Vec<Outcome> {
        let by = Some("192.0.2.1".parse().unwrap());
        vec![
            Outcome::Answered { report: report() },
            Outcome::Misanswered { by: at("10.0.0.2:81"), report: report() },
            Outcome::Foreign { status: Some(404), begins: "<html>".into() },
            Outcome::Foreign { status: None, begins: String::new() },
            Outcome::Refused { how: Refusal::Reset, by: None },
            Outcome::Refused { how: Refusal::PortUnreachable, by },
            Outcome::Refused { how: Refusal::Other(71), by },
            Outcome::Closed { how: Refusal::Closed },
            Outcome::Silent { connected: true },
            Outcome::Failed { reason: "bind to 192.0.2.9: no such address".into() },
        ]
    }

    fn observation(outcome: Outcome, from: Option<SocketAddr>) -> Observation {
        let seen = outcome.report().map(|report| report.source);
        let header = from.map(|told| SentHeader { version: Version::V2, told, taken: seen });
        let (protocol, target) = (Ask::Http, at("10.0.0.1:80"));
        let source = Source::of(from, seen);
        Observation { protocol, target, from, seen, source, header, outcome, milliseconds: 12 }
    }

    #[test]
    fn json_fits_its_schema_and_reads_back() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/probe.v1.json");
        let schema: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let from = [Some(at("192.0.2.7:4001")), None];
        for (from, outcome) in
            from.iter().flat_map(|from| outcomes().into_iter().map(|o| (*from, o)))
        {
            let document = Document::new(vec![observation(outcome, from)]);
            let json = serde_json::to_value(&document).unwrap();
            let errors: Vec<String> =
                validator.iter_errors(&json).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}\n{json:#}");
            assert_eq!(serde_json::from_value::<Document>(json).unwrap(), document);
        }
        let mut json =
            serde_json::to_value(Document::new(vec![observation(outcomes().remove(0), None)]))
                .unwrap();
        json["observations"][0]["source"] = "perhaps".into();
        assert!(!validator.is_valid(&json));
    }

    #[test]
    fn a_source_is_an_address_without_its_port() {
        let here = Some(at("192.0.2.7:4001"));
        assert_eq!(Source::of(here, Some(at("192.0.2.7:1024"))), Source::Preserved);
        assert_eq!(Source::of(here, Some(at("192.0.2.8:4001"))), Source::Rewritten);
        assert_eq!(Source::of(here, None), Source::Unknown);
        assert_eq!(Source::of(None, here), Source::Unknown);
    }
}

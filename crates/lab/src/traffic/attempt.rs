//! What a client tries, and what came of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use unmasq_model::packet::Protocol;

use super::{Refusal, Report};

/// How long an answer is waited for, if nothing speaks for another time.
///
/// TCP sends its SYN again after one second (TCP_TIMEOUT_INIT, include/net/tcp.h). A patience below
/// that is one packet of each attempt in every rule's counter on the way, and one draw of every
/// random rule; above it a lost SYN is hidden.
pub const PATIENCE: Duration = Duration::from_millis(800);

/// One thing to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The file of the network namespace to start from. `None`: the current one.
    pub namespace: Option<PathBuf>,
    /// The address to start from. `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// The port to start from. 0: the kernel chooses. Not for echo requests.
    pub source_port: u16,
    /// Where to. The port is ignored for echo requests.
    pub to: SocketAddr,
    /// What to send.
    pub ask: Ask,
    /// How long to wait for an answer; see [`PATIENCE`].
    pub patience: Duration,
}

/// What to send, and by which protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// TCP: one line.
    Line,
    /// TCP: an HTTP request.
    Http {
        /// The target, such as `/healthz`.
        path: String,
        /// Headers besides Host and Connection.
        headers: Vec<(String, String)>,
    },
    /// UDP: one datagram, which is never sent again.
    Datagram,
    /// ICMP: one echo request. Needs CAP_NET_RAW.
    Echo,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where it really started. The port of an echo request is 0. Of an attempt that failed before
    /// an address was chosen: what was asked for.
    pub from: SocketAddr,
    /// What happened.
    pub outcome: Outcome,
    /// From sending until the answer, or until it was given up.
    pub took: Duration,
    /// What a place of this process saw of the datagram or the echo request, also if no answer to it
    /// came back. Not known of TCP.
    pub seen: Option<Report>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There was an answer from the address that was asked.
    Answered {
        /// Who answered: what was asked. The port of an echo reply is 0.
        by: SocketAddr,
        /// What the server saw. `None`: the answer is none of our servers'; of an echo request,
        /// no place of this process saw it.
        report: Option<Report>,
        /// The status of an HTTP response.
        status: Option<u16>,
        /// What was sent back, without the head of an HTTP response. Empty for an echo.
        body: Vec<u8>,
    },
    /// A datagram or an echo reply came back, from an address that wasn't asked: no program that
    /// checks whom it talks to would take it. (TCP is silent then: the segment is answered by a
    /// reset.)
    Misanswered {
        /// Who answered.
        by: SocketAddr,
        /// What the server saw.
        report: Option<Report>,
    },
    /// Somebody said no.
    Refused {
        /// How.
        how: Refusal,
        /// Who sent the ICMP error, if it was one. `None` for a reset, and for what the kernel of
        /// the sender's own namespace says before anything is sent.
        by: Option<IpAddr>,
    },
    /// Nothing came in time.
    ///
    /// That includes what the own output hook drops: the kernel tells the sender of a datagram
    /// (EPERM), but not TCP, and to the network it is the same.
    Silent,
    /// Nothing was sent, for instance because the source address isn't one of the namespace's.
    Failed(String),
}

impl Attempt {
    /// An attempt from anywhere in the current namespace, with the usual patience.
    pub fn new(to: SocketAddr, ask: Ask) -> Attempt {
        let (namespace, source) = (None, None);
        Attempt { namespace, source, source_port: 0, to, ask, patience: PATIENCE }
    }

    /// The address to bind to.
    pub(super) fn local(&self) -> SocketAddr {
        let any: IpAddr = match self.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(self.source.unwrap_or(any), self.source_port)
    }
}

impl Ask {
    /// An HTTP request for `/`.
    pub fn http() -> Ask {
        Ask::Http { path: "/".into(), headers: Vec::new() }
    }

    /// The protocol, for a destination of one family.
    pub fn protocol(&self, to: IpAddr) -> Protocol {
        match self {
            Ask::Line | Ask::Http { .. } => Protocol::TCP,
            Ask::Datagram => Protocol::UDP,
            Ask::Echo if to.is_ipv4() => Protocol::ICMP,
            Ask::Echo => Protocol::ICMPV6,
        }
    }
}

impl Answer {
    /// What the server saw, if it was answered by the one that was asked.
    pub fn report(&self) -> Option<&Report> {
        match &self.outcome {
            Outcome::Answered { report, .. } => report.as_ref(),
            Outcome::Misanswered { .. }
            | Outcome::Refused { .. }
            | Outcome::Silent
            | Outcome::Failed(_) => None,
        }
    }
}

//! Asks `unmasq echo` for the source that it sees: `unmasq probe`.
//!
//! In: a target and [`Options`]. Out: an [`Observation`]. Each question is a new connection from a
//! source port that this asker hasn't used yet, because the kernels on the way keep the translation
//! of one that they know.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::call::{Call, Ending};
use crate::datagram::{self, Conversation, Heard};
use crate::http;
use crate::net::control;
use crate::net::refusal::{self, Refusal};
use crate::net::worker::until;
use crate::observation::{Ask, Observation, Outcome, SentHeader, Source};
use crate::proxy_protocol::{self, Ends, Version};
use crate::report::Report;
use crate::token::token;

/// How often a source port is chosen that wasn't used yet.
const TRIES: usize = 64;
/// Characters that are told of a foreign answer.
const TOLD: usize = 80;

/// How to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// By which protocol.
    pub protocol: Ask,
    /// The address to start from. `None`: the kernel chooses.
    pub from: Option<IpAddr>,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// The PROXY protocol header to send (TCP and HTTP). It tells the address that is used here.
    pub header: Option<Version>,
    /// HTTP: the path, with its query if it has one.
    pub path: String,
    /// HTTP: the Host. `None`: the target.
    pub host: Option<String>,
}

/// Asks, each time from another port.
#[derive(Debug)]
pub struct Asker {
    options: Options,
    used: BTreeSet<u16>,
}

/// Asks once.
pub fn ask(target: SocketAddr, options: Options) -> Observation {
    Asker::new(options).ask(target)
}

impl Asker {
    /// One that has asked nobody yet.
    pub fn new(options: Options) -> Asker {
        Asker { options, used: BTreeSet::new() }
    }

    /// Makes one new connection, and waits for its answer.
    pub fn ask(&mut self, target: SocketAddr) -> Observation {
        let target = control::canonical(target);
        let mut talk =
            Talk { target, from: None, header: None, token: token(), started: Instant::now() };
        let outcome = match self.options.protocol {
            Ask::Tcp | Ask::Http => self.call(&mut talk),
            Ask::Udp => self.converse(&mut talk),
        };
        talk.observe(self.options.protocol, outcome.unwrap_or_else(Unsent::into_outcome))
    }

    /// The address to bind to.
    fn local(&self, to: SocketAddr) -> SocketAddr {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        match (self.options.from.unwrap_or(any), to) {
            // A link-local address alone doesn't say by which device.
            (IpAddr::V6(ip), SocketAddr::V6(to)) if ip.is_unicast_link_local() => {
                std::net::SocketAddrV6::new(ip, 0, 0, to.scope_id()).into()
            }
            (ip, _) => SocketAddr::new(ip.to_canonical(), 0),
        }
    }

    /// Opens sockets until one is bound to a port that wasn't used yet; those before are held
    /// meanwhile, so that the kernel chooses others.
    fn fresh<T>(&mut self, open: impl Fn() -> io::Result<(T, u16)>) -> io::Result<T> {
        let mut held = Vec::new();
        for _ in 0..TRIES {
            let (socket, port) = open()?;
            if self.used.insert(port) {
                return Ok(socket);
            }
            held.push(socket);
        }
        Err(io::Error::other("no source port is left that wasn't used yet"))
    }

    fn call(&mut self, talk: &mut Talk) -> Result<Outcome, Unsent> {
        let (target, local) = (talk.target, self.local(talk.target));
        let http = self.options.protocol == Ask::Http;
        let (asked, output) = self.request(talk);
        let mut call = self
            .fresh(|| {
                let call = Call::open(target, http, output.clone())?;
                // Bound to a port before it is connected, which is the same packet on the wire.
                let port = call.bind(local)?.port();
                Ok((call, port))
            })
            .map_err(|error| failed(&format!("start from {}", local.ip()), &error))?;
        talk.started = Instant::now();
        let from = call.connect().map_err(|error| unsent(target, &error))?;
        talk.from = Some(from);
        if let Some(version) = self.options.header {
            let ends = Ends { source: from, destination: target };
            call.precede(proxy_protocol::header(version, Some(ends)));
            talk.header = Some(SentHeader { version, told: from, taken: None });
        }
        let deadline = talk.started + self.options.timeout;
        let ending = loop {
            if let Some(ending) = call.go_on() {
                break Some(ending);
            }
            let flags = if call.sends() { PollFlags::OUT } else { PollFlags::IN };
            // Interrupted or not, it is looked at, and the deadline is kept.
            let _ = poll(&mut [PollFd::new(&call, flags)], until(Some(deadline)).as_ref());
            if Instant::now() >= deadline {
                break call.go_on().or_else(|| call.answer(false));
            }
        };
        let connected = call.is_connected();
        let said = !call.input().is_empty();
        Ok(match ending {
            Some(Ending::Answered { status, body }) => {
                call.close();
                answered(status, &body, &asked)
            }
            Some(Ending::Refused { .. }) | None if said => answered(None, call.input(), &asked),
            Some(Ending::Refused { how, by: None }) if connected => Outcome::Closed { how },
            Some(Ending::Refused { how, by }) => Outcome::Refused { how, by },
            None => Outcome::Silent { connected },
        })
    }

    /// What is asked for, as it will be repeated, and the bytes.
    fn request(&self, talk: &Talk) -> (Vec<u8>, Vec<u8>) {
        let token = &talk.token;
        match self.options.protocol {
            Ask::Tcp | Ask::Udp => (token.clone().into_bytes(), format!("{token}\n").into_bytes()),
            Ask::Http => {
                let path = &self.options.path;
                let sign = if path.contains('?') { '&' } else { '?' };
                let path = format!("{path}{sign}unmasq={token}");
                let host = self.options.host.clone();
                let host = host.unwrap_or_else(|| talk.target.to_string());
                let request = http::request(&path, &host, &[]);
                (path.into_bytes(), request)
            }
        }
    }

    fn converse(&mut self, talk: &mut Talk) -> Result<Outcome, Unsent> {
        let (target, local) = (talk.target, self.local(talk.target));
        let token = talk.token.clone();
        let conversation = self
            .fresh(|| {
                let conversation = Conversation::open(target.is_ipv6(), token.clone())?;
                let port = conversation.bind(local)?.port();
                Ok((conversation, port))
            })
            .map_err(|error| failed(&format!("start from {}", local.ip()), &error))?;
        talk.started = Instant::now();
        talk.from = Some(conversation.send(&target).map_err(|error| unsent(target, &error))?);
        let deadline = talk.started + self.options.timeout;
        loop {
            for socket in [&conversation.asked, &conversation.others] {
                while let Some(heard) = datagram::heard(socket) {
                    if let Some(outcome) = outcome_of(heard, target, &talk.token) {
                        return Ok(outcome);
                    }
                }
            }
            if let Some(refused) = conversation.refused() {
                return Ok(Outcome::Refused { how: refused.how, by: refused.by });
            }
            if Instant::now() >= deadline {
                return Ok(Outcome::Silent { connected: false });
            }
            let mut fds = [&conversation.asked, &conversation.others]
                .map(|socket| PollFd::new(socket, PollFlags::IN));
            let _ = poll(&mut fds, until(Some(deadline)).as_ref());
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            protocol: Ask::Tcp,
            from: None,
            timeout: Duration::from_secs(2),
            header: None,
            path: "/".into(),
            host: None,
        }
    }
}

/// A question under way.
struct Talk {
    target: SocketAddr,
    from: Option<SocketAddr>,
    header: Option<SentHeader>,
    token: String,
    started: Instant,
}

impl Talk {
    fn observe(self, protocol: Ask, outcome: Outcome) -> Observation {
        let seen = outcome.report().map(|report| report.source);
        let taken = outcome.report().and_then(|report| report.proxied);
        Observation {
            protocol,
            target: self.target,
            from: self.from,
            seen,
            source: Source::of(self.from, seen),
            header: self.header.map(|header| SentHeader { taken, ..header }),
            outcome,
            milliseconds: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What a datagram means. `None`: nothing to this question.
fn outcome_of(heard: Heard, target: SocketAddr, token: &str) -> Option<Outcome> {
    let asked = (heard.by.ip(), heard.by.port()) == (target.ip(), target.port());
    if asked {
        return Some(answered(None, &heard.body, token.as_bytes()));
    }
    let report = Report::from_json(&heard.body)?;
    report.is_about(token.as_bytes()).then_some(Outcome::Misanswered { by: heard.by, report })
}

fn answered(status: Option<u16>, body: &[u8], asked: &[u8]) -> Outcome {
    match Report::from_json(body) {
        Some(report) if report.is_about(asked) => Outcome::Answered { report },
        Some(_) | None => {
            let begins = String::from_utf8_lossy(body).trim().chars().take(TOLD).collect();
            Outcome::Foreign { status, begins }
        }
    }
}

/// Why nothing was sent.
enum Unsent {
    /// The own kernel has no way there.
    NoWay(Refusal),
    /// It could not be tried.
    Failed(String),
}

impl Unsent {
    fn into_outcome(self) -> Outcome {
        match self {
            Unsent::NoWay(how) => Outcome::Refused { how, by: None },
            Unsent::Failed(reason) => Outcome::Failed { reason },
        }
    }
}

fn unsent(target: SocketAddr, error: &io::Error) -> Unsent {
    match refusal::of_error(error, false) {
        Refusal::Other(_) => failed(&format!("send to {target}"), error),
        how => Unsent::NoWay(how),
    }
}

fn failed(what: &str, error: &io::Error) -> Unsent {
    let why = match error.kind() {
        io::ErrorKind::AddrNotAvailable => "this host has no such address".to_owned(),
        _ => error.to_string(),
    };
    Unsent::Failed(format!("{what}: {why}"))
}

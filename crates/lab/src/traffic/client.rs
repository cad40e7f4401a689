//! Many attempts at once, in one poll loop.
//!
//! Sockets are made inside each attempt's namespace, each of which is entered once; everything else
//! is done by the calling thread.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use unmasq_probe::call::{Call, Ending};
use unmasq_probe::datagram::{self, Conversation};
use unmasq_probe::net::refusal;
use unmasq_probe::net::worker::until;
use unmasq_probe::token::token;

use super::attempt::{Answer, Ask, Attempt, Outcome};
use super::echo::{self, ReplySocket, RequestSocket};
use super::sighting;
use super::{Refusal, Report, http, inside};

/// Makes all attempts at once, and gives their answers in the same order.
///
/// It takes as long as the slowest answer, or the longest patience of those that have none, but not
/// the sum of them.
pub fn send(attempts: &[Attempt]) -> Vec<Answer> {
    let mut client = Client::open(attempts);
    for index in 0..attempts.len() {
        client.start(index);
    }
    while client.wait() {}
    client.answers()
}

/// What an attempt is about.
struct Trial<'a> {
    attempt: &'a Attempt,
    token: String,
    from: SocketAddr,
    started: Instant,
    talk: Talk,
    /// What came of it, and after which time.
    outcome: Option<(Outcome, Duration)>,
}

/// An attempt's sockets.
enum Talk {
    Tcp(Call),
    Udp(Conversation),
    /// One of the client's request sockets.
    Echo(usize),
    /// Ended, or never begun.
    None,
}

struct Client<'a> {
    trials: Vec<Trial<'a>>,
    tokens: BTreeMap<String, usize>,
    replies: Vec<ReplySocket>,
    requests: Vec<RequestSocket>,
    /// By request socket and identifier of the echo request.
    echoes: BTreeMap<(usize, u16), usize>,
}

/// What was made in one namespace; indexes of request sockets are local to it.
#[derive(Default)]
struct Opened {
    talks: Vec<io::Result<Talk>>,
    replies: Vec<ReplySocket>,
    requests: Vec<RequestSocket>,
}

impl<'a> Client<'a> {
    fn open(attempts: &'a [Attempt]) -> Client<'a> {
        let started = Instant::now();
        let mut trials: Vec<Trial<'_>> = attempts
            .iter()
            .map(|attempt| {
                let (token, from) = (token(), attempt.local());
                Trial { attempt, token, from, started, talk: Talk::None, outcome: None }
            })
            .collect();
        let mut groups: BTreeMap<Option<&Path>, Vec<usize>> = BTreeMap::new();
        for (index, attempt) in attempts.iter().enumerate() {
            groups.entry(attempt.namespace.as_deref()).or_default().push(index);
        }
        let (mut replies, mut requests) = (Vec::new(), Vec::new());
        for (namespace, members) in groups {
            let wanted: Vec<(&Attempt, &str)> = members
                .iter()
                .map(|index| (trials[*index].attempt, &*trials[*index].token))
                .collect();
            match inside(namespace, || Opened::open(&wanted)) {
                Ok(opened) => {
                    for (index, talk) in members.iter().zip(opened.talks) {
                        match talk {
                            Ok(Talk::Echo(socket)) => {
                                trials[*index].talk = Talk::Echo(requests.len() + socket);
                            }
                            Ok(talk) => trials[*index].talk = talk,
                            Err(error) => trials[*index].fail(format!("make a socket: {error}")),
                        }
                    }
                    replies.extend(opened.replies);
                    requests.extend(opened.requests);
                }
                Err(error) => {
                    for index in members {
                        trials[index].fail(format!("{error:#}"));
                    }
                }
            }
        }
        let tokens = trials.iter().enumerate();
        let tokens = tokens.map(|(index, trial)| (trial.token.clone(), index)).collect();
        Client { trials, tokens, replies, requests, echoes: BTreeMap::new() }
    }

    fn start(&mut self, index: usize) {
        let trial = &mut self.trials[index];
        let attempt = trial.attempt;
        let bound = match &trial.talk {
            Talk::Tcp(call) => bind(call, attempt),
            Talk::Udp(conversation) => conversation.bind(attempt.local()),
            Talk::Echo(socket) => {
                let bound = self.requests[*socket].bind(attempt.source);
                bound.map(|()| SocketAddr::new(attempt.local().ip(), 0))
            }
            Talk::None => return,
        };
        match bound {
            Ok(from) => trial.from = from,
            Err(error) => return trial.fail(format!("bind to {}: {error}", attempt.local())),
        }
        trial.started = Instant::now();
        let sent = match &trial.talk {
            Talk::Tcp(call) => call.connect(),
            Talk::Udp(conversation) => conversation.send(&attempt.to),
            Talk::Echo(socket) => {
                let (key, request) = (*socket, &mut self.requests[*socket]);
                request.connect(attempt.to).and_then(|from| {
                    let identifier = request.send(attempt.to, &trial.token)?;
                    self.echoes.insert((key, identifier), index);
                    Ok(from)
                })
            }
            Talk::None => return,
        };
        match sent {
            Ok(from) => trial.from = from,
            Err(error) => match refusal::of_error(&error, false) {
                Refusal::Other(_) => trial.fail(format!("send to {}: {error}", attempt.to)),
                how => trial.end(Outcome::Refused { how, by: None }),
            },
        }
    }

    /// Waits until something happens, and deals with it. Gives whether there is more to wait for.
    fn wait(&mut self) -> bool {
        enum Owner {
            Tcp(usize),
            Asked(usize),
            Others(usize),
            ReplySocket(usize),
            RequestSocket(usize),
        }
        let now = Instant::now();
        for trial in &mut self.trials {
            if trial.outcome.is_none() && trial.deadline() <= now {
                trial.give_up();
            }
        }
        let (mut owners, mut fds) = (Vec::new(), Vec::new());
        for (index, trial) in self.trials.iter().enumerate() {
            match &trial.talk {
                Talk::Tcp(call) => {
                    let flags = if call.sends() { PollFlags::OUT } else { PollFlags::IN };
                    owners.push(Owner::Tcp(index));
                    fds.push(PollFd::new(call, flags));
                }
                Talk::Udp(conversation) => {
                    owners.extend([Owner::Asked(index), Owner::Others(index)]);
                    fds.push(PollFd::new(&conversation.asked, PollFlags::IN));
                    fds.push(PollFd::new(&conversation.others, PollFlags::IN));
                }
                Talk::Echo(_) | Talk::None => {}
            }
        }
        let pending = self.trials.iter().filter(|trial| trial.outcome.is_none());
        let Some(deadline) = pending.map(Trial::deadline).min() else { return false };
        for (index, reply) in self.replies.iter().enumerate() {
            owners.push(Owner::ReplySocket(index));
            fds.push(PollFd::new(&reply.0, PollFlags::IN));
        }
        for (index, request) in self.requests.iter().enumerate() {
            owners.push(Owner::RequestSocket(index));
            // Errors are always told.
            fds.push(PollFd::new(&request.socket, PollFlags::empty()));
        }
        // Interrupted or not, what is ready is looked at, and deadlines are kept.
        let _ = poll(&mut fds, until(Some(deadline)).as_ref());
        let ready: Vec<Owner> = owners
            .into_iter()
            .zip(fds.iter().map(|fd| !fd.revents().is_empty()))
            .filter_map(|(owner, ready)| ready.then_some(owner))
            .collect();
        for owner in ready {
            match owner {
                Owner::Tcp(index) => self.trials[index].go_on(),
                Owner::Asked(index) => {
                    self.hear(index, |conversation| &conversation.asked);
                    self.trials[index].refused();
                }
                Owner::Others(index) => self.hear(index, |conversation| &conversation.others),
                Owner::ReplySocket(index) => self.hear_echoes(index),
                Owner::RequestSocket(index) => self.hear_errors(index),
            }
        }
        true
    }

    /// Takes the datagrams that one socket of an attempt has received. Attempts from one port to one
    /// address hear each other's.
    fn hear(&mut self, index: usize, socket: impl Fn(&Conversation) -> &rustix::fd::OwnedFd) {
        loop {
            let Talk::Udp(conversation) = &self.trials[index].talk else { return };
            let Some(heard) = datagram::heard(socket(conversation)) else { return };
            let report = Report::from_json(&heard.body);
            let meant = report.as_ref().and_then(|report| self.tokens.get(&report.request));
            let trial = &mut self.trials[meant.copied().unwrap_or(index)];
            let asked = (trial.attempt.to.ip(), trial.attempt.to.port());
            if (heard.by.ip(), heard.by.port()) == asked {
                let (by, body) = (heard.by, heard.body);
                trial.end(Outcome::Answered { by, report, status: None, body });
            } else {
                trial.end(Outcome::Misanswered { by: heard.by, report });
            }
        }
    }

    fn hear_echoes(&mut self, socket: usize) {
        while let Some((ip, token)) = self.replies[socket].heard() {
            let Some(index) = self.tokens.get(&token) else { continue };
            let (trial, by) = (&mut self.trials[*index], SocketAddr::new(ip, 0));
            trial.end(if ip == trial.attempt.to.ip() {
                Outcome::Answered { by, report: None, status: None, body: Vec::new() }
            } else {
                Outcome::Misanswered { by, report: None }
            });
        }
    }

    fn hear_errors(&mut self, socket: usize) {
        while let Some((refused, identifier)) = self.requests[socket].refused() {
            let index = identifier.and_then(|identifier| self.echoes.get(&(socket, identifier)));
            if let Some(index) = index {
                self.trials[*index].end(Outcome::Refused { how: refused.how, by: refused.by });
            }
        }
    }

    fn answers(self) -> Vec<Answer> {
        let noted = |trial: &&Trial<'_>| match trial.attempt.ask {
            Ask::Datagram | Ask::Echo => true,
            Ask::Line | Ask::Http { .. } => false,
        };
        let tokens: BTreeSet<&str> =
            self.trials.iter().filter(noted).map(|trial| &*trial.token).collect();
        if !tokens.is_empty() {
            echo::serve_all();
        }
        let mut seen = sighting::take(&tokens);
        let answer = |trial: Trial<'_>| {
            let patience = trial.attempt.patience;
            let (mut outcome, took) = trial.outcome.unwrap_or((Outcome::Silent, patience));
            let seen = seen.remove(&trial.token);
            if let Outcome::Answered { report, .. } | Outcome::Misanswered { report, .. } =
                &mut outcome
                && trial.attempt.ask == Ask::Echo
            {
                // An echo reply tells nothing itself.
                report.clone_from(&seen);
            }
            Answer { from: trial.from, outcome, took, seen }
        };
        self.trials.into_iter().map(answer).collect()
    }
}

impl Opened {
    /// Sockets in the calling thread's namespace.
    fn open(wanted: &[(&Attempt, &str)]) -> Opened {
        let mut opened = Opened::default();
        let mut requests: BTreeMap<(Option<IpAddr>, IpAddr), usize> = BTreeMap::new();
        let mut listens = [false; 2];
        for (attempt, token) in wanted {
            let v6 = attempt.to.is_ipv6();
            let talk = match attempt.ask {
                Ask::Line => {
                    let line = format!("{token}\n").into_bytes();
                    Call::open(attempt.to, false, line).map(Talk::Tcp)
                }
                Ask::Http { ref path, ref headers } => {
                    let request = http::request(path, &attempt.to.to_string(), headers);
                    Call::open(attempt.to, true, request).map(Talk::Tcp)
                }
                Ask::Datagram => Conversation::open(v6, (*token).to_owned()).map(Talk::Udp),
                Ask::Echo => (|| {
                    if !listens[usize::from(v6)] {
                        opened.replies.push(ReplySocket::open(v6)?);
                        listens[usize::from(v6)] = true;
                    }
                    let key = (attempt.source, attempt.to.ip());
                    if let Some(socket) = requests.get(&key) {
                        return Ok(Talk::Echo(*socket));
                    }
                    opened.requests.push(RequestSocket::open(v6)?);
                    requests.insert(key, opened.requests.len() - 1);
                    Ok(Talk::Echo(opened.requests.len() - 1))
                })(),
            };
            opened.talks.push(talk);
        }
        opened
    }
}

impl Trial<'_> {
    fn deadline(&self) -> Instant {
        self.started + self.attempt.patience
    }

    /// Ends it, and closes its sockets. What comes first counts. A connection from a port that was
    /// asked for is reset, so that the port can be used again at once.
    fn end(&mut self, outcome: Outcome) {
        if self.outcome.is_none() {
            if let Talk::Tcp(call) = &mut self.talk
                && self.attempt.source_port == 0
                && matches!(outcome, Outcome::Answered { .. })
            {
                call.close();
            }
            self.talk = Talk::None;
            self.outcome = Some((outcome, self.started.elapsed()));
        }
    }

    /// Ends it for want of time. A server may have answered without ending.
    fn give_up(&mut self) {
        let answer = match &self.talk {
            Talk::Tcp(call) => call.answer(false),
            Talk::Udp(_) | Talk::Echo(_) | Talk::None => None,
        };
        match answer {
            Some(ending) => self.end_call(ending),
            None => self.end(Outcome::Silent),
        }
    }

    fn fail(&mut self, reason: String) {
        self.end(Outcome::Failed(reason));
    }

    fn go_on(&mut self) {
        if let Talk::Tcp(call) = &mut self.talk
            && let Some(ending) = call.go_on()
        {
            self.end_call(ending);
        }
    }

    fn end_call(&mut self, ending: Ending) {
        self.end(match ending {
            Ending::Answered { status, body } => {
                let (by, report) = (self.attempt.to, Report::from_json(&body));
                Outcome::Answered { by, report, status, body }
            }
            Ending::Refused { how, by } => Outcome::Refused { how, by },
        });
    }

    fn refused(&mut self) {
        if let Talk::Udp(conversation) = &self.talk
            && let Some(refused) = conversation.refused()
        {
            self.end(Outcome::Refused { how: refused.how, by: refused.by });
        }
    }
}

/// Binds to the address to start from, if one was asked for.
fn bind(call: &Call, attempt: &Attempt) -> io::Result<SocketAddr> {
    let local = attempt.local();
    if attempt.source.is_some() || attempt.source_port != 0 {
        call.bind(local)?;
    }
    Ok(local)
}

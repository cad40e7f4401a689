//! A proxy's two connections: a client's, and one to an upstream.

use std::io;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use unmasq_probe::http::{self, Head};
use unmasq_probe::net::control;
use unmasq_probe::net::stream::Stream;
use unmasq_probe::proxy_protocol::{self, Ends};

use super::proxy::Forward;

/// How long both may take for everything.
const LONGEST: Duration = Duration::from_secs(10);
/// Bytes that wait for one side. More than the longest head with a PROXY protocol header.
const WAITING: usize = 128 << 10;

/// Both connections. Until they have ended, dropping them resets them.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) client: Stream,
    pub(super) upstream: Upstream,
    ends: Ends,
    /// From the client to the upstream.
    up: Pipe,
    /// From the upstream to the client.
    down: Pipe,
    /// When both are given up.
    pub(super) deadline: Instant,
}

/// The other connection.
#[derive(Debug)]
pub(super) enum Upstream {
    /// Not yet chosen: what the client says first isn't complete. Whether a PROXY protocol header
    /// is expected still.
    Pending { proxy_protocol: bool },
    /// Under way.
    Connecting(Stream),
    /// There.
    Connected(Stream),
    /// None, or no longer: what the client says is thrown away.
    Gone,
}

/// Bytes under way from one connection to another.
#[derive(Debug, Default)]
struct Pipe {
    bytes: Vec<u8>,
    /// No more will come in.
    ended: bool,
    /// The other side was told so.
    closed: bool,
}

impl Pair {
    /// A connection that has just been accepted.
    pub(super) fn new(
        client: TcpStream,
        source: SocketAddr,
        proxy_protocol: bool,
    ) -> io::Result<Pair> {
        let client = Stream::accepted(client)?;
        let destination = client.local()?;
        Ok(Pair {
            client,
            upstream: Upstream::Pending { proxy_protocol },
            ends: Ends { source: control::canonical(source), destination },
            up: Pipe::default(),
            down: Pipe::default(),
            deadline: Instant::now() + LONGEST,
        })
    }

    /// What the client's connection waits for.
    pub(super) fn client_waits_for(&self) -> PollFlags {
        flags(self.up.takes(), !self.down.bytes.is_empty())
    }

    /// What the upstream's waits for.
    pub(super) fn upstream_waits_for(&self) -> PollFlags {
        match self.upstream {
            Upstream::Connecting(_) => PollFlags::OUT,
            Upstream::Connected(_) => flags(self.down.takes(), !self.up.bytes.is_empty()),
            Upstream::Pending { .. } | Upstream::Gone => PollFlags::empty(),
        }
    }

    /// Goes on as far as it can. Gives whether there is more to come. What poll said of errors and
    /// hang-ups is `broken`: it says so again and again, whether or not one waits for something.
    pub(super) fn go_on(
        &mut self,
        forward: Forward,
        broken: Broken,
        choose: impl FnMut() -> Option<SocketAddr>,
    ) -> bool {
        if self.exchange(forward, choose).is_err() || self.finished() || broken.client {
            return false;
        }
        if broken.upstream && self.down.ended {
            self.upstream = Upstream::Gone;
        }
        true
    }

    /// Whether both sides have ended; what is then still under way is the kernel's.
    fn finished(&mut self) -> bool {
        let finished = self.down.closed && self.up.ended;
        if finished {
            self.client.close_when_dropped();
        }
        if let Upstream::Connected(stream) = &mut self.upstream
            && finished
            && self.up.closed
        {
            stream.close_when_dropped();
        }
        finished
    }

    fn exchange(
        &mut self,
        forward: Forward,
        choose: impl FnMut() -> Option<SocketAddr>,
    ) -> io::Result<()> {
        self.up.fill(&self.client)?;
        if let Upstream::Pending { .. } = self.upstream {
            self.begin(forward, choose)?;
        }
        self.upstream = match mem::replace(&mut self.upstream, Upstream::Gone) {
            Upstream::Connecting(stream) => match stream.connected() {
                Ok(true) => Upstream::Connected(stream),
                Ok(false) => Upstream::Connecting(stream),
                Err(error) => return self.unavailable(forward, error),
            },
            other @ (Upstream::Pending { .. } | Upstream::Connected(_) | Upstream::Gone) => other,
        };
        if let Upstream::Connected(stream) = &self.upstream {
            self.down.fill(stream)?;
            self.up.empty(stream)?;
        } else if let Upstream::Gone = self.upstream {
            self.up.bytes.clear();
        }
        self.down.empty(&self.client)
    }

    /// Chooses an upstream and what it is told first, if the client has said enough.
    fn begin(
        &mut self,
        forward: Forward,
        mut choose: impl FnMut() -> Option<SocketAddr>,
    ) -> io::Result<()> {
        if let Upstream::Pending { proxy_protocol: true } = self.upstream {
            match proxy_protocol::parse(&self.up.bytes) {
                proxy_protocol::Parsed::Header { ends, length } => {
                    self.ends = ends.unwrap_or(self.ends);
                    self.up.bytes.drain(..length);
                    self.upstream = Upstream::Pending { proxy_protocol: false };
                }
                proxy_protocol::Parsed::Incomplete if !self.up.ended => return Ok(()),
                proxy_protocol::Parsed::Incomplete | proxy_protocol::Parsed::Malformed => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        match forward {
            Forward::ProxyProtocol(version) => {
                let header = proxy_protocol::header(version, Some(self.ends));
                self.up.bytes.splice(..0, header);
            }
            Forward::Nothing => {}
            Forward::Http => match Head::parse(&self.up.bytes) {
                http::Parsed::Head(head, length) => {
                    let head = forwarded(head, &self.ends);
                    self.up.bytes.splice(..length, head.to_bytes());
                }
                http::Parsed::Incomplete if self.up.ended => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                http::Parsed::Incomplete => return Ok(()),
                http::Parsed::Malformed => {
                    self.respond(400);
                    return Ok(());
                }
            },
        }
        let connecting = choose()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
            .and_then(|upstream| connect(&upstream));
        match connecting {
            Ok(stream) => {
                self.upstream = Upstream::Connecting(stream);
                Ok(())
            }
            Err(error) => self.unavailable(forward, error),
        }
    }

    /// No upstream can be reached. Only HTTP has words for it; otherwise the client is reset.
    fn unavailable(&mut self, forward: Forward, error: io::Error) -> io::Result<()> {
        match forward {
            Forward::Http => {
                self.respond(502);
                self.down.empty(&self.client)
            }
            Forward::ProxyProtocol(_) | Forward::Nothing => Err(error),
        }
    }

    fn respond(&mut self, status: u16) {
        self.down = Pipe { bytes: http::response(status, &[], &[]), ended: true, closed: false };
        self.upstream = Upstream::Gone;
    }
}

/// Which connections poll said are broken.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Broken {
    pub(super) client: bool,
    pub(super) upstream: bool,
}

impl Pipe {
    fn takes(&self) -> bool {
        !self.ended && self.bytes.len() < WAITING
    }

    /// Reads what has come in.
    fn fill(&mut self, from: &Stream) -> io::Result<()> {
        let mut part = [0u8; 4096];
        while self.takes() {
            match from.read(&mut part)? {
                Some(0) => self.ended = true,
                Some(length) => self.bytes.extend_from_slice(&part[..length]),
                None => break,
            }
        }
        Ok(())
    }

    /// Writes what there is, and then that it has ended.
    fn empty(&mut self, to: &Stream) -> io::Result<()> {
        while !self.bytes.is_empty() {
            match to.write(&self.bytes)? {
                Some(length) => drop(self.bytes.drain(..length)),
                None => return Ok(()),
            }
        }
        if self.ended && !self.closed {
            to.end()?;
            self.closed = true;
        }
        Ok(())
    }
}

/// A request as a proxy at layer 7 passes it on: with the client's address, for one request only.
fn forwarded(mut head: Head, ends: &Ends) -> Head {
    let client = ends.source.ip().to_string();
    let all = match head.header("X-Forwarded-For") {
        Some(before) => format!("{before}, {client}"),
        None => client,
    };
    head.set("X-Forwarded-For", all);
    head.set("Connection", "close".into());
    head
}

/// Starts to connect from the calling thread's namespace.
fn connect(to: &SocketAddr) -> io::Result<Stream> {
    let stream = Stream::open(to.is_ipv6())?;
    stream.connect(to)?;
    Ok(stream)
}

fn flags(reads: bool, writes: bool) -> PollFlags {
    let wanted = |flag: PollFlags, wanted: bool| if wanted { flag } else { PollFlags::empty() };
    wanted(PollFlags::IN, reads) | wanted(PollFlags::OUT, writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_added_to_those_who_forwarded_before() {
        let ends = Ends {
            source: "[2001:db8::7]:4001".parse().unwrap(),
            destination: "[2001:db8::1]:80".parse().unwrap(),
        };
        let check = |request: &str, expected: &str| {
            let http::Parsed::Head(head, _) = Head::parse(request.as_bytes()) else { panic!() };
            let bytes = forwarded(head, &ends).to_bytes();
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        };
        check(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 2001:db8::7\r\nConnection: close\r\n\r\n",
        );
        check(
            "GET / HTTP/1.1\r\nx-forwarded-for: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n\r\n",
            "GET / HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2, 2001:db8::7\r\n\
             Connection: close\r\n\r\n",
        );
    }
}

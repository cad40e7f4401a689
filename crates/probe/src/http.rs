//! As much of HTTP/1.1 as is needed here: heads of requests and responses.
//!
//! In: bytes as far as they have come in. Out: the head and its length, or that more is needed, or
//! that it isn't HTTP. Nothing of connections that are kept, of chunks, or of bodies without
//! Content-Length: everything here says `Connection: close`. RFC 9112.

/// Bytes that a head may have.
pub const MAX_HEAD: usize = 16 << 10;

/// The head of a request or of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its three parts: method, target, version; or version, status, reason.
    pub start: [String; 3],
    /// Names as they were written, and values.
    pub headers: Vec<(String, String)>,
}

/// What bytes begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A head, and where its body begins.
    Head(Head, usize),
    /// Part of a head.
    Incomplete,
    /// No HTTP.
    Malformed,
}

impl Head {
    /// Reads the head at the beginning of `bytes`.
    pub fn parse(bytes: &[u8]) -> Parsed {
        let Some(length) = end(bytes) else {
            let hopeless = bytes.len() > MAX_HEAD
                || line_end(bytes, 0).is_some_and(|(line, _)| start_line(line).is_none());
            return if hopeless { Parsed::Malformed } else { Parsed::Incomplete };
        };
        match read(&bytes[..length]).filter(|_| length <= MAX_HEAD) {
            Some(head) => Parsed::Head(head, length),
            None => Parsed::Malformed,
        }
    }

    /// The value of a header; several of one name are joined by commas (RFC 9110, section 5.3).
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.values(name).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Puts one header of this name in the place of all.
    pub fn set(&mut self, name: &str, value: String) {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value));
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        let [version, status, _] = &self.start;
        if is_version(version) { status.parse().ok() } else { None }
    }

    /// Bytes of the body, if the head says so.
    pub fn content_length(&self) -> Option<usize> {
        self.values("content-length").next()?.parse().ok()
    }

    /// As it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start.join(" "));
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        let same = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).map(|(_, value)| &**value)
    }
}

/// A request without body, with a Host unless the headers have one.
pub fn request(target: &str, host: &str, headers: &[(String, String)]) -> Vec<u8> {
    let start = ["GET", target, "HTTP/1.1"].map(String::from);
    let mut head = Head { start, headers: headers.to_vec() };
    if head.header("host").is_none() {
        head.headers.insert(0, ("Host".into(), host.into()));
    }
    head.set("Connection", "close".into());
    head.to_bytes()
}

/// A response.
pub fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "",
    };
    let start = ["HTTP/1.1", &status.to_string(), reason].map(String::from);
    let own = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
    let mut head = Head { start, headers: headers.iter().map(own).collect() };
    head.set("Content-Length", body.len().to_string());
    head.set("Connection", "close".into());
    let mut bytes = head.to_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The first line without its end, if it has come in.
pub fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    line_end(bytes, 0).map(|(line, _)| line)
}

/// Whether a line is the first of a request.
pub fn is_request_line(line: &[u8]) -> bool {
    start_line(line).is_some_and(|[_, _, version]| is_version(&version))
}

fn is_version(text: &str) -> bool {
    text == "HTTP/1.1" || text == "HTTP/1.0"
}

/// The length of the head, if its empty line has come in.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let (line, next) = line_end(bytes, at)?;
        // Empty lines ahead of a request are left to be malformed.
        if line.is_empty() {
            return Some(next);
        }
        at = next;
    }
}

/// The line at an offset, without its end, and where the next begins. A bare LF ends a line too
/// (RFC 9112, section 2.2).
fn line_end(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let length = rest.iter().position(|byte| *byte == b'\n')?;
    let line = &rest[..length];
    Some((line.strip_suffix(b"\r").unwrap_or(line), at + length + 1))
}

fn read(head: &[u8]) -> Option<Head> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l));
    let start = start_line(lines.next()?)?;
    let mut headers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        // No white space ahead of the colon, no folded lines (RFC 9112, sections 5.1 and 5.2).
        if name.is_empty() || name.contains(|c: char| c.is_ascii_whitespace()) {
            return None;
        }
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Some(Head { start, headers })
}

/// A request line or a status line, whose reason may be missing or have spaces in it.
fn start_line(line: &[u8]) -> Option<[String; 3]> {
    let mut parts = std::str::from_utf8(line).ok()?.splitn(3, ' ');
    let (first, second) = (parts.next()?, parts.next()?);
    let third = parts.next().unwrap_or_default();
    let known = is_version(third) || is_version(first);
    let whole = !first.is_empty() && !second.is_empty();
    (known && whole).then(|| [first, second, third].map(String::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\
        x-forwarded-for:198.51.100.2, 203.0.113.3 \r\n\r\nbody";

    #[test]
    fn a_head_is_read_when_its_last_byte_is_there_and_not_before() {
        let length = REQUEST.len() - 4;
        for split in 0..length {
            assert_eq!(Head::parse(&REQUEST[..split]), Parsed::Incomplete, "{split} bytes");
        }
        for split in length..=REQUEST.len() {
            let Parsed::Head(head, at) = Head::parse(&REQUEST[..split]) else {
                panic!("{split} bytes");
            };
            assert_eq!((at, head.start.join("|")), (length, "GET|/a?b|HTTP/1.1".into()));
            let forwarded = head.header("X-FORWARDED-FOR");
            assert_eq!(forwarded.as_deref(), Some("192.0.2.1, 198.51.100.2, 203.0.113.3"));
            assert_eq!(head.header("host").as_deref(), Some("x"));
            assert_eq!((head.header("cookie"), head.status()), (None, None));
        }
    }

    #[test]
    fn lines_may_end_without_carriage_return() {
        let bare: Vec<u8> = REQUEST.iter().copied().filter(|byte| *byte != b'\r').collect();
        let Parsed::Head(head, at) = Head::parse(&bare) else { panic!() };
        assert_eq!((head.headers.len(), &bare[at..]), (3, &b"body"[..]));
    }

    #[test]
    fn what_is_not_http_is_told_at_its_first_line() {
        for text in ["hello\n", "\r\n", "GET /\r\n", "GET / HTTP/2.0\r\n", " / HTTP/1.1\n"] {
            assert_eq!(Head::parse(text.as_bytes()), Parsed::Malformed, "{text:?}");
            assert!(!is_request_line(first_line(text.as_bytes()).unwrap()), "{text:?}");
        }
        for headers in ["no colon", "Name : x", ": x", " folded: x"] {
            let text = format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n");
            assert_eq!(Head::parse(text.as_bytes()), Parsed::Malformed, "{headers:?}");
        }
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(MAX_HEAD));
        assert_eq!(Head::parse(endless.as_bytes()), Parsed::Malformed);
        assert_eq!(Head::parse("x".repeat(MAX_HEAD + 1).as_bytes()), Parsed::Malformed);
    }

    #[test]
    fn a_response_reads_back() {
        let bytes = response(503, &[("Content-Type", "text/plain")], b"no\n");
        let Parsed::Head(head, at) = Head::parse(&bytes) else { panic!() };
        assert_eq!((head.status(), head.content_length()), (Some(503), Some(3)));
        assert_eq!(&bytes[at..], b"no\n");
        assert_eq!(head.header("connection").as_deref(), Some("close"));
        assert!(bytes.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"));
        let Parsed::Head(head, _) = Head::parse(b"HTTP/1.0 204\r\n\r\n") else { panic!() };
        assert_eq!(head.status(), Some(204));
    }
}

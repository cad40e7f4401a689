//! The PROXY protocol, versions 1 and 2: a header ahead of a connection's own bytes that tells who
//! the client is.
//!
//! Section numbers are those of HAProxy's proxy-protocol.txt. In: bytes as far as they have come
//! in. Out: what the header tells and its length, or that more is needed, or that it is malformed.
//! What follows the addresses in version 2 (TLVs) is skipped; addresses of Unix sockets aren't told.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The version of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The two ends of a connection, as a server or a proxy sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// What the client called.
    pub destination: SocketAddr,
}

/// What bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A header.
    Header {
        /// What it tells. `None`: nothing (UNKNOWN, LOCAL, no address family or Unix sockets), the
        /// connection's own addresses are to be used.
        ends: Option<Ends>,
        /// Its length.
        length: usize,
    },
    /// Part of a header.
    Incomplete,
    /// No header. The connection must be given up (section 2).
    Malformed,
}

/// Section 2.2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a line begins with.
const LINE: &[u8; 6] = b"PROXY ";
/// Bytes of the longest line with its end (section 2.1).
const LONGEST_LINE: usize = 107;
/// Bytes of a binary header ahead of its addresses.
const FIXED: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Whether bytes begin with the beginning of a header, or are as many as it has.
pub fn may_begin(bytes: &[u8]) -> bool {
    begins(bytes, SIGNATURE) || begins(bytes, LINE)
}

/// Reads the header at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    if begins(bytes, SIGNATURE) {
        if bytes.len() < FIXED { Parsed::Incomplete } else { parse_v2(bytes) }
    } else if begins(bytes, LINE) {
        parse_v1(bytes)
    } else {
        Parsed::Malformed
    }
}

/// A header. Without ends, or with two of different families: UNKNOWN, or LOCAL.
pub fn header(version: Version, ends: Option<Ends>) -> Vec<u8> {
    match version {
        Version::V1 => header_v1(ends),
        Version::V2 => header_v2(ends),
    }
}

/// As far as there are bytes.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(byte, with)| byte == with)
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let seen = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() < LONGEST_LINE { Parsed::Incomplete } else { Parsed::Malformed };
    };
    let length = end + 2;
    let Some(line) = std::str::from_utf8(&bytes[LINE.len()..end]).ok() else {
        // Whatever stands behind UNKNOWN is to be ignored.
        let unknown = bytes[LINE.len()..].starts_with(b"UNKNOWN ");
        return if unknown { Parsed::Header { ends: None, length } } else { Parsed::Malformed };
    };
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Parsed::Header { ends: None, length };
    }
    match ends_v1(line) {
        Some(ends) => Parsed::Header { ends: Some(ends), length },
        None => Parsed::Malformed,
    }
}

fn ends_v1(line: &str) -> Option<Ends> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = parts[..] else {
        return None;
    };
    let end = |ip: &str, port: &str| -> Option<SocketAddr> {
        let port = canonical_port(port)?;
        match family {
            "TCP4" => Some((ip.parse::<Ipv4Addr>().ok()?, port).into()),
            "TCP6" => Some((ip.parse::<Ipv6Addr>().ok()?, port).into()),
            _ => None,
        }
    };
    let (source, destination) = (end(source, source_port)?, end(destination, destination_port)?);
    Some(Ends { source, destination })
}

/// Digits without sign or leading zero.
fn canonical_port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let length = FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let (command, family) = (bytes[12], bytes[13]);
    let known = match (command, family) {
        // Everything else is to be discarded, "including the family".
        (LOCAL, _) => true,
        (PROXY, 0x00 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32) => true,
        _ => false,
    };
    let needed = match (command, family >> 4) {
        (PROXY, 1) => 12,
        (PROXY, 2) => 36,
        (PROXY, 3) => 216,
        _ => 0,
    };
    if !known || length < FIXED + needed {
        return Parsed::Malformed;
    }
    let Some(addresses) = bytes.get(FIXED..length) else { return Parsed::Incomplete };
    let ends = if command == PROXY { ends_v2(family >> 4, addresses) } else { None };
    Parsed::Header { ends, length }
}

fn ends_v2(family: u8, bytes: &[u8]) -> Option<Ends> {
    let port = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let v4 = |at: usize| Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?));
    match family {
        1 => Some(Ends {
            source: (v4(0)?, port(8)?).into(),
            destination: (v4(4)?, port(10)?).into(),
        }),
        2 => Some(Ends {
            source: (v6(0)?, port(32)?).into(),
            destination: (v6(16)?, port(34)?).into(),
        }),
        _ => None,
    }
}

fn header_v1(ends: Option<Ends>) -> Vec<u8> {
    let family = match ends {
        Some(Ends { source: SocketAddr::V4(_), destination: SocketAddr::V4(_) }) => "TCP4",
        Some(Ends { source: SocketAddr::V6(_), destination: SocketAddr::V6(_) }) => "TCP6",
        Some(_) | None => return b"PROXY UNKNOWN\r\n".to_vec(),
    };
    ends.map_or_else(Vec::new, |Ends { source, destination }| {
        let (ip, called, port) = (source.ip(), destination.ip(), source.port());
        format!("PROXY {family} {ip} {called} {port} {}\r\n", destination.port()).into_bytes()
    })
}

fn header_v2(ends: Option<Ends>) -> Vec<u8> {
    let (command, family, addresses) = match ends {
        Some(Ends { source: SocketAddr::V4(from), destination: SocketAddr::V4(to) }) => {
            (PROXY, 0x11, [from.ip().octets(), to.ip().octets()].concat())
        }
        Some(Ends { source: SocketAddr::V6(from), destination: SocketAddr::V6(to) }) => {
            (PROXY, 0x21, [from.ip().octets(), to.ip().octets()].concat())
        }
        Some(_) | None => (LOCAL, 0x00, Vec::new()),
    };
    let ports = ends.filter(|_| command == PROXY).map_or_else(Vec::new, |ends| {
        [ends.source.port().to_be_bytes(), ends.destination.port().to_be_bytes()].concat()
    });
    // At most 36.
    let length = (addresses.len() + ports.len()) as u16;
    [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), &addresses, &ports].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        // Section 2.2: \x0D \x0A \x0D \x0A \x00 \x0D \x0A \x51 \x55 \x49 \x54 \x0A
        let signature = [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
        [&signature[..], &[command, family], &length, rest].concat()
    }

    /// Each header, its ends, and whether we would write it so.
    fn headers() -> Vec<(Vec<u8>, Option<Ends>, Option<Version>)> {
        let v4 = ends("192.168.0.1:56324", "192.168.0.11:443");
        let v6 = ends("[2001:db8::1]:1", "[2001:db8::2]:65535");
        let widest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                      ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        let unknown = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
        let all = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let four = [192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 4, 1, 0xbb];
        let six = [
            [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        ];
        let six = [&six.concat()[..], &[0, 1, 0xff, 0xff]].concat();
        let tlv = [3, 0, 4, 0xde, 0xad, 0xbe, 0xef];
        vec![
            // The example of section 2.1.
            (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n".to_vec(), v4, Some(Version::V1)),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(), v6, Some(Version::V1)),
            (b"PROXY UNKNOWN\r\n".to_vec(), None, Some(Version::V1)),
            (widest.into(), ends(all, all), Some(Version::V1)),
            (unknown.into(), None, None),
            (b"PROXY UNKNOWN \xff\xfe\r\n".to_vec(), None, None),
            (v2(0x21, 0x11, &four), v4, Some(Version::V2)),
            (v2(0x21, 0x21, &six), v6, Some(Version::V2)),
            (v2(0x20, 0x00, &[]), None, Some(Version::V2)),
            (v2(0x21, 0x12, &four), v4, None),
            (v2(0x21, 0x11, &[&four[..], &tlv].concat()), v4, None),
            (v2(0x21, 0x22, &[&six[..], &tlv].concat()), v6, None),
            (v2(0x21, 0x31, &[0; 216]), None, None),
            (v2(0x21, 0x00, &tlv), None, None),
            // Of LOCAL everything is ignored, the family too.
            (v2(0x20, 0x11, &four), None, None),
            (v2(0x20, 0x99, &tlv), None, None),
        ]
    }

    #[test]
    fn headers_are_read_as_soon_as_they_are_whole_and_written_the_same() {
        for (bytes, ends, written) in headers() {
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            for split in 0..bytes.len() {
                assert_eq!(parse(&bytes[..split]), Parsed::Incomplete, "{split} of {shown:?}");
            }
            let length = bytes.len();
            let more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&more), Parsed::Header { ends, length }, "{shown:?}");
            if let Some(version) = written {
                assert_eq!(header(version, ends), bytes, "{shown:?}");
            }
        }
    }

    #[test]
    fn the_longest_line_has_107_bytes() {
        let line = |filler: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(filler));
        assert_eq!(line(91).len(), 107);
        assert_eq!(parse(line(91).as_bytes()), Parsed::Header { ends: None, length: 107 });
        assert_eq!(parse(line(92).as_bytes()), Parsed::Malformed);
        let endless = "x".repeat(106 - 14);
        assert_eq!(parse(format!("PROXY UNKNOWN {endless}").as_bytes()), Parsed::Incomplete);
        assert_eq!(parse(format!("PROXY UNKNOWN {endless}x").as_bytes()), Parsed::Malformed);
    }

    #[test]
    fn malformed_headers_are_told() {
        let lines: [&[u8]; 15] = [
            b"GET / HTTP/1.1\r\n",
            b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY\r\n",
            b"PROXY TCP4\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
            b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.256 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        ];
        for line in lines {
            assert_eq!(parse(line), Parsed::Malformed, "{}", String::from_utf8_lossy(line));
        }
        for (command, family, length) in [
            (0x11, 0x11, 12),
            (0x31, 0x11, 12),
            (0x22, 0x11, 12),
            (0x21, 0x13, 12),
            (0x21, 0x41, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x31, 215),
        ] {
            let bytes = v2(command, family, &vec![0; length]);
            assert_eq!(parse(&bytes), Parsed::Malformed, "{command:x} {family:x} {length}");
        }
        let mut signature = v2(0x20, 0, &[]);
        signature[4] = 1;
        assert_eq!(parse(&signature), Parsed::Malformed);
    }

    #[test]
    fn two_families_have_no_header() {
        let mixed = ends("192.0.2.1:1", "[2001:db8::1]:2");
        assert_eq!(header(Version::V1, mixed), b"PROXY UNKNOWN\r\n");
        assert_eq!(header(Version::V2, mixed), v2(0x20, 0, &[]));
    }
}

//! `ADDR[:PORT]` on the command line.

use std::net::{IpAddr, Ipv6Addr};

/// An address, and a port if one was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

/// `10.0.0.1`, `10.0.0.1:80`, `fd00::1`, `[fd00::1]`, `[fd00::1]:80`. Names are not looked up.
pub(crate) fn parse(text: &str) -> Result<Endpoint, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Endpoint { address, port: None });
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']').ok_or("`]` is missing")?;
            let address: Ipv6Addr =
                inside.parse().map_err(|_| format!("`{inside}` is not an IPv6 address"))?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or("after `]` only `:PORT` can follow")?),
            };
            (IpAddr::V6(address), port)
        }
        None => {
            let (address, port) = text.rsplit_once(':').unwrap_or((text, ""));
            let parsed: IpAddr = address.parse().map_err(|_| not_an_address(text, address))?;
            if parsed.is_ipv6() {
                return Err(format!("write an IPv6 address with a port as `[{address}]:{port}`"));
            }
            (parsed, Some(port))
        }
    };
    Ok(Endpoint { address, port: port.map(parse_port).transpose()? })
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a port from 1 to 65535")),
        Ok(port) if text.starts_with('+') => Err(format!("`{text}` is not a port: write {port}")),
        Ok(port) => Ok(port),
    }
}

fn not_an_address(text: &str, address: &str) -> String {
    if text.contains('%') {
        return "an address has no zone here: say the device with --in".to_owned();
    }
    if text.contains('/') {
        return "one address is wanted, not a network".to_owned();
    }
    format!("`{address}` is not an IP address (names are not looked up)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_ports() {
        for (text, address, port) in [
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("fd00::1", "fd00::1", None),
            ("::1", "::1", None),
            ("fd00::1:80", "fd00::1:80", None),
            ("[fd00::1]", "fd00::1", None),
            ("[fd00::1]:65535", "fd00::1", Some(65535)),
        ] {
            let expected = Endpoint { address: address.parse().unwrap(), port };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint() {
        for (text, expected) in [
            ("", "`` is not an IP address"),
            ("web.example:80", "`web.example` is not an IP address (names are not looked up)"),
            ("10.0.0.1:", "`` is not a port"),
            ("10.0.0.1:0", "`0` is not a port"),
            ("10.0.0.1:65536", "`65536` is not a port"),
            ("10.0.0.1:+80", "`+80` is not a port"),
            ("10.0.0.1:http", "`http` is not a port"),
            ("10.0.0.256", "`10.0.0.256` is not an IP address"),
            ("10.0.0.0/24", "one address is wanted"),
            (
                "fd00:1:2:3:4:5:6:7:80",
                "write an IPv6 address with a port as `[fd00:1:2:3:4:5:6:7]:80`",
            ),
            ("[fd00::1", "`]` is missing"),
            ("[fd00::1]80", "only `:PORT` can follow"),
            ("[10.0.0.1]:80", "`10.0.0.1` is not an IPv6 address"),
            ("fe80::1%eth0", "no zone"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

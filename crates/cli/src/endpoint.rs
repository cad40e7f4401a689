//! `ADDR[:PORT]`, and names of pods, nodes and Services, on the command line.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use unmasq_audit::explain::meant;

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

/// Somebody who calls or is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// By an address.
    Address(Endpoint),
    /// `pod/NAMESPACE/NAME[:PORT]`
    Pod(Name, Option<u16>),
    /// `node/NAME[:PORT]`
    Node(String, Option<u16>),
    /// `service/NAMESPACE/NAME[:PORT]`, the port by its name or number.
    Service(Name, Option<PortName>),
}

/// A name in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortName {
    Number(u16),
    Name(String),
}

/// Who calls: no Service does.
pub(crate) fn parse_caller(text: &str) -> Result<Place, String> {
    match parse_place(text)? {
        Place::Service(name, _) => {
            Err(format!("a Service calls nobody: name one of its pods (pod/{}/…)", name.namespace))
        }
        place @ (Place::Address(_) | Place::Pod(..) | Place::Node(..)) => Ok(place),
    }
}

/// Who calls or is called.
pub(crate) fn parse_place(text: &str) -> Result<Place, String> {
    let (kind, rest) = match text.split_once('/') {
        Some(("pod" | "pods", rest)) => ("pod", rest),
        Some(("node" | "nodes", rest)) => ("node", rest),
        Some(("service" | "services" | "svc", rest)) => ("service", rest),
        Some((kind, _)) if kind.parse::<IpAddr>().is_err() => {
            let kinds = ["pod", "node", "service"];
            let near = meant(kind, kinds.into_iter());
            return Err(format!(
                "`{kind}/` is no kind of caller or called{near}; write pod/NAMESPACE/NAME, \
                 node/NAME, service/NAMESPACE/NAME or an address"
            ));
        }
        Some(_) | None => return parse(text).map(Place::Address),
    };
    // No name of Kubernetes has a colon.
    let (name, port) = match rest.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (rest, None),
    };
    if kind == "node" {
        if name.is_empty() || name.contains('/') {
            return Err(format!("`{text}`: write node/NAME or node/NAME:PORT"));
        }
        return Ok(Place::Node(name.to_owned(), port.map(parse_port).transpose()?));
    }
    let name = match name.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Name { namespace: namespace.to_owned(), name: name.to_owned() }
        }
        Some(_) | None => return Err(format!("`{text}`: write {kind}/NAMESPACE/NAME")),
    };
    if kind == "pod" {
        return Ok(Place::Pod(name, port.map(parse_port).transpose()?));
    }
    let port = match port {
        None => None,
        Some("") => return Err(format!("`{text}`: the port is missing after the colon")),
        Some(port) if port.starts_with(|c: char| c.is_ascii_digit()) => {
            // A port's name may begin with a digit, but is not a number.
            Some(port.parse().map_or_else(|_| PortName::Name(port.to_owned()), PortName::Number))
        }
        Some(port) => Some(PortName::Name(port.to_owned())),
    };
    Ok(Place::Service(name, port))
}

/// A Service's name, if somebody wrote that it is one: `service/shop/web` is `shop/web`.
pub(crate) fn without_kind(name: &str) -> &str {
    let mut kinds = ["service/", "services/", "svc/"].into_iter();
    kinds.find_map(|kind| name.strip_prefix(kind).filter(|rest| rest.contains('/'))).unwrap_or(name)
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
    fn names_with_and_without_ports() {
        let name = || Name { namespace: "shop".to_owned(), name: "api".to_owned() };
        let web = || Some(PortName::Name("3scale".to_owned()));
        for (text, expected) in [
            ("pod/shop/api", Place::Pod(name(), None)),
            ("pod/shop/api:80", Place::Pod(name(), Some(80))),
            ("node/n1.example", Place::Node("n1.example".to_owned(), None)),
            ("node/n1:30080", Place::Node("n1".to_owned(), Some(30080))),
            ("service/shop/api", Place::Service(name(), None)),
            ("svc/shop/api:3scale", Place::Service(name(), web())),
            ("pods/shop/api:80", Place::Pod(name(), Some(80))),
            ("nodes/n1:30080", Place::Node("n1".to_owned(), Some(30080))),
            ("services/shop/api", Place::Service(name(), None)),
            ("service/shop/api:443", Place::Service(name(), Some(PortName::Number(443)))),
        ] {
            assert_eq!(parse_place(text), Ok(expected), "{text}");
        }
        let address = parse_place("[fd00::1]:80");
        assert_eq!(address, Ok(Place::Address(parse("[fd00::1]:80").unwrap())));
        for (text, expected) in [
            ("pod/api", "write pod/NAMESPACE/NAME"),
            ("pod//api", "write pod/NAMESPACE/NAME"),
            ("service/shop/", "write service/NAMESPACE/NAME"),
            ("service/shop/api:", "the port is missing"),
            ("pod/shop/api:http", "`http` is not a port"),
            ("node/", "write node/NAME"),
            ("node/a/b", "write node/NAME"),
            ("deployment/shop/api", "there are node, pod, service; write pod/NAMESPACE/NAME"),
            ("servce/shop/api", "`servce/` is no kind of caller or called; did you mean service?"),
        ] {
            let error = parse_place(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(parse_caller("service/shop/api").unwrap_err().contains("pod/shop/"));
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

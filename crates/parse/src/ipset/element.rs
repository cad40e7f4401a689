//! Elements of `hash:…` sets: addresses, networks, ports, and ranges of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use unmasq_model::ipset::{Element, HashKind};
use unmasq_model::packet::{Family, Protocol};

use crate::iptables::icmp;

/// More elements than this from one line are not spread out.
const MOST: usize = 1 << 16;

/// The elements that a line adds: one, unless it has a range or, for a type of host addresses, a
/// network.
pub(super) fn hash(
    text: &str,
    kind: HashKind,
    family: Family,
    netmask: Option<u8>,
) -> Option<Vec<Element>> {
    let mut parts = text.split(',');
    let first = parts.next()?;
    let firsts = match kind {
        HashKind::Net => networks(first, family)?,
        HashKind::Ip => hosts(first, family, netmask.unwrap_or(family.bits()))?,
        HashKind::IpPort | HashKind::IpPortIp | HashKind::IpPortNet => {
            hosts(first, family, family.bits())?
        }
    };
    let ports = match kind {
        HashKind::Ip | HashKind::Net => None,
        HashKind::IpPort | HashKind::IpPortIp | HashKind::IpPortNet => {
            Some(protocol_ports(parts.next()?, family)?)
        }
    };
    let seconds = match kind {
        HashKind::Ip | HashKind::Net | HashKind::IpPort => None,
        HashKind::IpPortIp => Some(hosts(parts.next()?, family, family.bits())?),
        HashKind::IpPortNet => Some(networks(parts.next()?, family)?),
    };
    if parts.next().is_some() {
        return None;
    }
    product(&firsts, ports, seconds.as_deref())
}

/// `80` or `80-90`.
pub(super) fn ports(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    (low <= high).then_some((low, high))
}

fn product(
    firsts: &[IpNet],
    ports: Option<(Protocol, u16, u16)>,
    seconds: Option<&[IpNet]>,
) -> Option<Vec<Element>> {
    let ports: Vec<Option<(Protocol, u16)>> = match ports {
        None => vec![None],
        Some((protocol, low, high)) => (low..=high).map(|port| Some((protocol, port))).collect(),
    };
    let seconds: Vec<Option<IpNet>> = match seconds {
        None => vec![None],
        Some(networks) => networks.iter().copied().map(Some).collect(),
    };
    if firsts.len().checked_mul(ports.len())?.checked_mul(seconds.len())? > MOST {
        return None;
    }
    let mut elements = Vec::new();
    for &first in firsts {
        for &port in &ports {
            elements.extend(seconds.iter().map(|&second| Element { first, port, second }));
        }
    }
    Some(elements)
}

/// `tcp:80`, `udp:80-90`, `icmp:echo-request`, `icmp:8/0`, `gre:0`; TCP where no protocol is
/// named. ICMP's type and code are type * 256 + code, as in ip_set_getport.c.
fn protocol_ports(text: &str, family: Family) -> Option<(Protocol, u16, u16)> {
    let Some((name, value)) = text.split_once(':') else {
        let (low, high) = ports(text)?;
        return Some((Protocol::TCP, low, high));
    };
    let protocol = Protocol::from_name(name)?;
    let of = match protocol {
        Protocol::ICMP => Some(Family::V4),
        Protocol::ICMPV6 => Some(Family::V6),
        Protocol(_) => None,
    };
    if let Some(of) = of.filter(|of| *of == family) {
        let value = icmp_value(value, of)?;
        return Some((protocol, value, value));
    }
    let (low, high) = ports(value)?;
    Some((protocol, low, high))
}

fn icmp_value(text: &str, family: Family) -> Option<u16> {
    let (kind, code) = match text.split_once('/') {
        Some((kind, code)) => (kind.parse().ok()?, code.parse().ok()?),
        None => {
            let (kind, code) = icmp::by_name(text, family)?;
            (kind, code.unwrap_or(0))
        }
    };
    Some(u16::from_be_bytes([kind, code]))
}

/// Networks: `10.0.0.0/8`, an address, or a range of addresses.
fn networks(text: &str, family: Family) -> Option<Vec<IpNet>> {
    let networks = match text.split_once('-') {
        Some((low, high)) => subnets(address(low, family)?, address(high, family)?)?,
        None => vec![network(text, family)?],
    };
    Some(networks)
}

/// Host addresses, or, with a netmask, the networks of that length.
fn hosts(text: &str, family: Family, length: u8) -> Option<Vec<IpNet>> {
    let networks = networks(text, family)?;
    let mut all = Vec::with_capacity(networks.len());
    for net in networks {
        let spread = u32::from(length.saturating_sub(net.prefix_len()));
        if spread > MOST.ilog2() || all.len() + (1 << spread) > MOST {
            return None;
        }
        if net.prefix_len() >= length {
            all.push(IpNet::new(net.addr(), length).ok()?.trunc());
        } else {
            all.extend(net.subnets(length).ok()?);
        }
    }
    Some(all)
}

fn subnets(low: IpAddr, high: IpAddr) -> Option<Vec<IpNet>> {
    match (low, high) {
        (IpAddr::V4(low), IpAddr::V4(high)) if low <= high => {
            Some(Ipv4Subnets::new(low, high, 0).map(IpNet::V4).collect())
        }
        (IpAddr::V6(low), IpAddr::V6(high)) if low <= high => {
            Some(Ipv6Subnets::new(low, high, 0).map(IpNet::V6).collect())
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
    }
}

fn network(text: &str, family: Family) -> Option<IpNet> {
    match text.split_once('/') {
        None => Some(IpNet::from(address(text, family)?)),
        Some((base, length)) => IpNet::new(address(base, family)?, length.parse().ok()?).ok(),
    }
}

fn address(text: &str, family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    }
}

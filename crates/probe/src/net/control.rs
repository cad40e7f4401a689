//! Socket addresses and control messages as the bytes that the kernel reads and writes.
//!
//! In and out: `sockaddr_in`, `sockaddr_in6` and `cmsghdr` with what follows them, in native byte
//! order. No system call is made here. Layouts: include/uapi/linux/in.h, in6.h, ipv6.h and
//! errqueue.h; of `cmsghdr`, include/linux/socket.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the longest address.
pub const ADDRESS: usize = 28;

/// Bytes of a `cmsghdr`: a length as wide as a pointer, level and type. What follows it is aligned
/// to the width of a pointer.
const HEADER: usize = ALIGN + 8;
const ALIGN: usize = size_of::<usize>();

/// A `sockaddr` and its length.
pub fn address_bytes(address: &SocketAddr) -> ([u8; ADDRESS], u32) {
    let mut bytes = [0; ADDRESS];
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            bytes[4..8].copy_from_slice(&address.ip().octets());
            (bytes, 16)
        }
        SocketAddr::V6(address) => {
            bytes[4..8].copy_from_slice(&address.flowinfo().to_ne_bytes());
            bytes[8..24].copy_from_slice(&address.ip().octets());
            bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
            (bytes, 28)
        }
    }
}

/// The address in a `sockaddr`. IPv4 addresses mapped into IPv6 are IPv4 addresses.
pub fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(array(bytes, 0)?));
    let port = u16::from_be_bytes(array(bytes, 2)?);
    match family {
        libc::AF_INET => Some((Ipv4Addr::from(array::<4>(bytes, 4)?), port).into()),
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
            let scope = u32::from_ne_bytes(array(bytes, 24)?);
            Some(canonical(SocketAddrV6::new(ip, port, 0, scope).into()))
        }
        _ => None,
    }
}

/// The same address, as IPv4 if it is one that is mapped into IPv6.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// One control message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control<'b> {
    /// SOL_… or IPPROTO_….
    pub level: i32,
    /// Its type, of that level.
    pub kind: i32,
    /// What it carries.
    pub data: &'b [u8],
}

/// Goes through control messages; ends at one that is malformed.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Control<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from_ne_bytes(array(bytes, 0)?);
        let level = i32::from_ne_bytes(array(bytes, ALIGN)?);
        let kind = i32::from_ne_bytes(array(bytes, ALIGN + 4)?);
        let data = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Control { level, kind, data })
    })
}

/// What control messages say of a packet that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketInfo {
    /// The address that it was sent to.
    pub destination: Option<IpAddr>,
    /// The address to answer from: another than the destination if that was a broadcast address.
    pub local: Option<IpAddr>,
    /// Its time to live, or hop limit.
    pub ttl: Option<u8>,
}

impl PacketInfo {
    /// Reads control messages.
    pub fn read(control: &[u8]) -> PacketInfo {
        let mut info = PacketInfo::default();
        for Control { level, kind, data } in messages(control) {
            let number = || array(data, 0).map(i32::from_ne_bytes);
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // Interface index, local address, destination.
                    let ip = |at| Some(IpAddr::V4(array::<4>(data, at)?.into()));
                    (info.local, info.destination) = (ip(4), ip(8));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let ip = array::<16>(data, 0).map(|ip| IpAddr::V6(ip.into()));
                    (info.local, info.destination) = (ip, ip);
                }
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    info.ttl = number().and_then(|ttl| u8::try_from(ttl).ok());
                }
                _ => {}
            }
        }
        info
    }
}

/// The control message that makes a datagram leave from a local address: IP_PKTINFO (ip(7)) or
/// IPV6_PKTINFO (RFC 3542, section 6.2). The device is left to the route.
pub fn leave_from(local: IpAddr) -> Vec<u8> {
    let (level, kind, data) = match local {
        IpAddr::V4(ip) => {
            let data = [&[0; 4], &ip.octets()[..], &[0; 4]].concat();
            (libc::IPPROTO_IP, libc::IP_PKTINFO, data)
        }
        IpAddr::V6(ip) => {
            let data = [&ip.octets()[..], &[0; 4]].concat();
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, data)
        }
    };
    let mut bytes = (HEADER + data.len()).to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(&data);
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    bytes
}

/// An error that was kept in a socket's error queue (`sock_extended_err`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedError {
    /// SO_EE_ORIGIN_…
    pub origin: u8,
    /// Type and code of the ICMP message.
    pub icmp: (u8, u8),
    /// Who sent it.
    pub offender: Option<IpAddr>,
}

impl QueuedError {
    /// Reads control messages of an error queue.
    pub fn read(control: &[u8]) -> Option<QueuedError> {
        messages(control).find_map(|Control { level, kind, data }| {
            let expected =
                [(libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)];
            if !expected.contains(&(level, kind)) {
                return None;
            }
            // Error number, then one byte each; two words; the offender's address.
            let [origin, kind, code, _] = array(data, 4)?;
            let offender = data.get(16..).and_then(address).map(|address| address.ip());
            Some(QueuedError { origin, icmp: (kind, code), offender })
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_through_bytes() {
        for text in ["192.0.2.7:4001", "[2001:db8::7]:53", "[fe80::1%3]:9"] {
            let there: SocketAddr = text.parse().unwrap();
            let (bytes, length) = address_bytes(&there);
            assert_eq!(address(&bytes[..length as usize]), Some(there), "{text}");
        }
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:80".parse().unwrap();
        assert_eq!(address(&address_bytes(&mapped).0), "192.0.2.7:80".parse().ok());
        assert_eq!(address(&[0; 28]), None);
        assert_eq!(address(&[2, 0]), None);
    }

    #[test]
    fn control_messages_are_read_in_any_order_and_never_past_their_end() {
        let hop_limit = |value: i32| {
            let mut bytes = (HEADER + 4).to_ne_bytes().to_vec();
            bytes.extend(libc::IPPROTO_IPV6.to_ne_bytes());
            bytes.extend(libc::IPV6_HOPLIMIT.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
            bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
            bytes
        };
        let ip: IpAddr = "2001:db8::9".parse().unwrap();
        let expected = PacketInfo { destination: Some(ip), local: Some(ip), ttl: Some(61) };
        let (limit, from) = (hop_limit(61), leave_from(ip));
        assert_eq!(PacketInfo::read(&[&*limit, &*from].concat()), expected);
        assert_eq!(PacketInfo::read(&[&*from, &*limit].concat()), expected);
        for length in 0..from.len() - ALIGN {
            assert_eq!(PacketInfo::read(&from[..length]), PacketInfo::default(), "{length} bytes");
        }
        // A length of zero ends it.
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}

//! The kernel's connections: listed, and ended one by one.
//!
//! Both are about the network namespace of the calling thread.

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use unmasq_fix::connections::Entry;
use unmasq_model::packet::Transport;

/// Where the kernel lists them.
const LISTED: &str = "/proc/thread-self/net/nf_conntrack";

/// The kernel's listing.
pub fn list() -> io::Result<String> {
    match std::fs::read_to_string(LISTED) {
        // A kernel without CONFIG_NF_CONNTRACK_PROCFS.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut command = std::process::Command::new("conntrack");
            let output = command.args(["-L", "-o", "extended"]).output()?;
            match output.status.success() {
                true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
                false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim())),
            }
        }
        read => read,
    }
}

/// Ends one: its next packet is a first one again. `false`: it is over already.
pub fn end(entry: &Entry) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        Some(netlink::NETFILTER),
    )?;
    let message = deletion(entry);
    rustix::net::sendto(&fd, &message, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 256];
    // nlmsgerr: the error behind the header of 16 bytes, 0 if it is done.
    let (_, length) = rustix::net::recv(&fd, &mut answer, RecvFlags::empty())?;
    let code = answer.get(16..20).filter(|_| length >= 20).and_then(|code| code.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(true),
        Some(code) if code == -Errno::NOENT.raw_os_error() => Ok(false),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("a short answer of netlink")),
    }
}

/// IPCTNL_MSG_CT_DELETE of one original tuple (include/uapi/linux/netfilter/nfnetlink_conntrack.h;
/// net/netfilter/nf_conntrack_netlink.c, `ctnetlink_del_conntrack`). Without a tuple the kernel would
/// delete all, so there always is one.
fn deletion(entry: &Entry) -> Vec<u8> {
    const NESTED: u16 = 1 << 15;
    let (family, addresses) = match (entry.packet.source, entry.packet.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // AF_INET; CTA_IP_V4_SRC, CTA_IP_V4_DST
            (2_u8, [attribute(1, &from.octets()), attribute(2, &to.octets())].concat())
        }
        (from, to) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            // AF_INET6; CTA_IP_V6_SRC, CTA_IP_V6_DST
            (10, [attribute(3, &octets(from)), attribute(4, &octets(to))].concat())
        }
    };
    // CTA_PROTO_NUM
    let mut protocol = attribute(1, &[entry.packet.protocol.0]);
    match entry.packet.transport {
        Transport::Ports { source, destination } => {
            // CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT
            protocol.extend(attribute(2, &source.unwrap_or(0).to_be_bytes()));
            protocol.extend(attribute(3, &destination.unwrap_or(0).to_be_bytes()));
        }
        Transport::Icmp { kind, code } => {
            // CTA_PROTO_ICMP_ID, _TYPE, _CODE; three further on for ICMPv6
            let first = if family == 2 { 4 } else { 7 };
            protocol.extend(attribute(first, &entry.id.unwrap_or(0).to_be_bytes()));
            protocol.extend(attribute(first + 1, &[kind]));
            protocol.extend(attribute(first + 2, &[code]));
        }
        Transport::Other => {}
    }
    // CTA_TUPLE_IP, CTA_TUPLE_PROTO
    let tuple = [attribute(1 | NESTED, &addresses), attribute(2 | NESTED, &protocol)].concat();
    // CTA_TUPLE_ORIG, CTA_ZONE
    let mut body = attribute(1 | NESTED, &tuple);
    if entry.zone != 0 {
        body.extend(attribute(18, &entry.zone.to_be_bytes()));
    }
    let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::new();
    // nlmsghdr: NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE; NLM_F_REQUEST | NLM_F_ACK
    message.extend(length.to_ne_bytes());
    message.extend((1_u16 << 8 | 2).to_ne_bytes());
    message.extend(5_u16.to_ne_bytes());
    message.extend([0; 8]);
    // nfgenmsg
    message.extend([family, 0, 0, 0]);
    message.extend(body);
    message
}

/// An attribute of netlink, filled up to a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

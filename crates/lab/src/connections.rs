//! The connections that a namespace tracks: listed, and forgotten.

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use crate::namespace::Namespace;

/// The connections of a namespace as /proc/net/nf_conntrack lists them, one space between words and
/// without the seconds that they have left.
///
/// `ipv4 2 udp 17 src=192.0.2.7 dst=10.9.0.5 sport=4000 dport=53 [UNREPLIED] src=10.9.0.5 … use=2`
pub fn list(namespace: &Namespace) -> Result<Vec<String>> {
    let text = namespace.exec(&["cat", "/proc/net/nf_conntrack"])?;
    let line = |line: &str| {
        let words = line.split_whitespace().enumerate();
        let words: Vec<&str> = words.filter(|(at, _)| *at != 4).map(|(_, word)| word).collect();
        words.join(" ")
    };
    Ok(text.lines().map(line).collect())
}

/// Forgets all connections of the calling thread's namespace, so that packets can be sent again.
pub fn forget() -> Result<()> {
    let netfilter = netlink::NETFILTER;
    let flags = SocketFlags::CLOEXEC;
    let fd =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netfilter))?;
    // nlmsghdr of IPCTNL_MSG_CT_DELETE with NLM_F_REQUEST | NLM_F_ACK, and an nfgenmsg without
    // attributes: all (net/netfilter/nf_conntrack_netlink.c, ctnetlink_del_conntrack).
    let mut message = Vec::new();
    message.extend(20u32.to_ne_bytes());
    message.extend((1u16 << 8 | 2).to_ne_bytes());
    message.extend(5u16.to_ne_bytes());
    message.extend([0; 12]);
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&fd, &message, SendFlags::empty(), &kernel)?;
    let mut answer = [0u8; 256];
    // nlmsgerr: the error behind the header of 16 bytes, 0 if it is done.
    let (_, length) = rustix::net::recv(&fd, &mut answer, RecvFlags::empty())?;
    let code = answer.get(16..20).filter(|_| length >= 20).context("a short answer of netlink")?;
    let code = i32::from_ne_bytes(code.try_into()?);
    // A kernel without that subsystem has no connections.
    if code != 0 && code != -Errno::INVAL.raw_os_error() {
        bail!("forget connections: {}", Errno::from_raw_os_error(-code));
    }
    Ok(())
}

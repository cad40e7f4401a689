//! Devices and their addresses, as `ip -d link` and `ip -d addr` list them.

use std::net::IpAddr;

use ipnet::IpNet;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Name.
    pub name: Box<str>,
    /// Administratively up.
    pub up: bool,
    /// The loopback device.
    pub loopback: bool,
    /// `linkinfo.info_kind`: `bridge`, `veth`, `vxlan`, `vrf` …
    pub kind: Option<Box<str>>,
    /// The device that it is a port of.
    pub master: Option<Box<str>>,
    /// Hairpin mode of a bridge port; `None` if it is not one, or the listing did not say.
    pub hairpin: Option<bool>,
    /// A bridge's own `nf_call_iptables` and `nf_call_ip6tables`: on for it whatever the sysctls
    /// of br_netfilter say. `false` where the listing did not say.
    pub calls_iptables: bool,
    /// The same for IPv6.
    pub calls_ip6tables: bool,
    /// The device below it: a VLAN's parent, or the other end of a veth in this namespace.
    pub lower: Option<Box<str>>,
    /// The index of the other end of a veth in another namespace.
    pub peer: Option<u32>,
    /// Link-layer address.
    pub mac: Option<Box<str>>,
    /// An XDP program is attached: packets may change before any rule sees them.
    pub xdp: bool,
    /// Addresses, in the kernel's order.
    pub addresses: Vec<Address>,
}

/// An address of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub local: IpAddr,
    /// The other end of a point-to-point address.
    pub peer: Option<IpAddr>,
    /// Length of the prefix that is on the link.
    pub prefix_len: u8,
    /// Scope.
    pub scope: Scope,
    /// `secondary`: another address of the same subnet came first. Never chosen by masquerade.
    pub secondary: bool,
    /// `deprecated`: RFC 6724 avoids it.
    pub deprecated: bool,
    /// `tentative` (and not `optimistic`): not usable yet.
    pub tentative: bool,
    /// `temporary`: a privacy address.
    pub temporary: bool,
}

impl Link {
    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }
}

impl Address {
    /// The network that is on the link: around the peer, if there is one.
    pub fn network(&self) -> Option<IpNet> {
        IpNet::new(self.peer.unwrap_or(self.local), self.prefix_len).ok().map(|net| net.trunc())
    }
}

/// Scope of an address or a route (include/uapi/linux/rtnetlink.h): lower reaches farther.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(pub u8);

impl Scope {
    /// Everywhere.
    pub const GLOBAL: Scope = Scope(0);
    /// Within the site.
    pub const SITE: Scope = Scope(200);
    /// On the link.
    pub const LINK: Scope = Scope(253);
    /// On the host.
    pub const HOST: Scope = Scope(254);
    /// Nowhere.
    pub const NOWHERE: Scope = Scope(255);

    /// A scope by the name or number that iproute2 prints.
    pub fn from_name(name: &str) -> Option<Scope> {
        Some(match name {
            "global" => Scope::GLOBAL,
            "site" => Scope::SITE,
            "link" => Scope::LINK,
            "host" => Scope::HOST,
            "nowhere" => Scope::NOWHERE,
            other => Scope(other.parse().ok()?),
        })
    }
}

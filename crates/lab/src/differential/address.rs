//! The few addresses, devices, ports and marks that rules, routes and packets share, so that they
//! meet often.
//!
//! Addresses are written in IPv4; an IPv6 case has them translated ([`Net::show`]), so that one
//! generator serves both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use unmasq_model::packet::Family;

/// An address with a prefix length, in IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Net(pub(super) [u8; 4], pub(super) u8);

/// The node's devices; the last has no address.
pub(super) const DEVICES: [&str; 4] = ["eth0", "eth1", "eth2", "eth3"];
/// What the node owns, by device.
pub(super) const OWN: [Net; 5] = [
    Net([10, 0, 0, 11], 24),
    Net([10, 0, 0, 12], 24),
    Net([172, 16, 0, 11], 24),
    Net([10, 1, 0, 11], 24),
    Net([10, 2, 0, 11], 24),
];
/// Who sends.
pub(super) const CLIENTS: [Net; 6] = [
    Net([192, 0, 2, 7], 32),
    Net([192, 0, 2, 8], 32),
    Net([10, 0, 0, 1], 32),
    Net([10, 1, 0, 5], 32),
    Net([10, 2, 0, 9], 32),
    Net([10, 3, 0, 4], 32),
];
/// Who is sent to, besides the node.
pub(super) const SERVERS: [Net; 9] = [
    Net([10, 1, 0, 5], 32),
    Net([10, 2, 0, 9], 32),
    Net([10, 9, 0, 5], 32),
    Net([10, 9, 1, 6], 32),
    Net([10, 3, 0, 4], 32),
    Net([203, 0, 113, 80], 32),
    Net([203, 0, 113, 81], 32),
    Net([192, 0, 2, 7], 32),
    Net([172, 16, 0, 20], 32),
];
/// Destinations that special routes refuse.
pub(super) const REFUSED: [Net; 3] =
    [Net([10, 8, 0, 1], 32), Net([10, 7, 0, 1], 32), Net([10, 6, 0, 1], 32)];
/// Networks that rules name.
pub(super) const NETS: [Net; 12] = [
    Net([10, 0, 0, 0], 8),
    Net([10, 0, 0, 0], 24),
    Net([10, 1, 0, 0], 24),
    Net([10, 2, 0, 0], 24),
    Net([10, 9, 0, 0], 16),
    Net([10, 9, 1, 0], 24),
    Net([192, 0, 2, 0], 24),
    Net([192, 0, 2, 8], 29),
    Net([203, 0, 113, 0], 24),
    Net([203, 0, 113, 80], 31),
    Net([172, 16, 0, 0], 12),
    Net([10, 0, 0, 8], 29),
];
/// Destination ports. No packet's source port is one of them.
pub(super) const PORTS: [u16; 6] = [53, 80, 81, 443, 8080, 30080];
/// Bits of marks.
pub(super) const MARKS: [u32; 10] =
    [0, 1, 2, 3, 0x10, 0x4000, 0x8000, 0xc001, 0x0001_0001, 0x8001_0000];
/// Masks of marks.
pub(super) const MASKS: [u32; 8] =
    [0xffff_ffff, 0xff, 0x1, 0x3, 0x4000, 0xc000, 0xffff, 0xffff_0000];
/// The address for which the node asks itself.
pub(super) const LOOPBACK: Net = Net([127, 0, 0, 1], 32);

impl Net {
    /// The address, of a family.
    pub(super) fn address(self, family: Family) -> IpAddr {
        let [a, b, c, d] = self.0.map(u16::from);
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(self.0)),
            Family::V6 if self.0 == LOOPBACK.0 => IpAddr::V6(Ipv6Addr::LOCALHOST),
            // Private networks become unique local ones, others global ones.
            Family::V6 => {
                let first = if a == 10 || a == 172 { 0xfd00 | a } else { 0x2000 | a };
                IpAddr::V6(Ipv6Addr::new(first, b, c, 0, 0, 0, 0, d))
            }
        }
    }

    /// The prefix length, of a family: IPv6 has the first three bytes in its first three groups,
    /// and the last in its last.
    pub(super) fn length(self, family: Family) -> u8 {
        match (family, self.1) {
            (Family::V4, length) => length,
            // 172.16.0.0/12 and fd..:10::/28.
            (Family::V6, length @ ..=8) => length * 2,
            (Family::V6, length @ 9..=16) => 24 + (length - 8),
            (Family::V6, length @ 17..=24) => 40 + (length - 16),
            (Family::V6, length) => 128 - (32 - length),
        }
    }

    /// `10.0.0.1` for a host, `10.0.0.0/8` for a network.
    pub(super) fn show(self, family: Family) -> String {
        if self.1 == 32 {
            return self.address(family).to_string();
        }
        format!("{}/{}", self.address(family), self.length(family))
    }

    /// The host that the network is named after.
    pub(super) fn host(self) -> Net {
        Net(self.0, 32)
    }

    /// Whether one of two networks is in the other.
    pub(super) fn overlaps(self, other: Net) -> bool {
        let length = u32::from(self.1.min(other.1));
        let bits = |net: Net| u32::from_be_bytes(net.0).checked_shr(32 - length).unwrap_or(0);
        bits(self) == bits(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_in_both_families() {
        let cases = [
            (Net([10, 0, 0, 11], 24), "10.0.0.11/24", "fd0a::b/48"),
            (Net([10, 9, 0, 0], 16), "10.9.0.0/16", "fd0a:9::/32"),
            (Net([10, 0, 0, 0], 8), "10.0.0.0/8", "fd0a::/16"),
            (Net([172, 16, 0, 0], 12), "172.16.0.0/12", "fdac:10::/28"),
            (Net([192, 0, 2, 8], 29), "192.0.2.8/29", "20c0:0:2::8/125"),
            (Net([203, 0, 113, 80], 32), "203.0.113.80", "20cb:0:71::50"),
            (LOOPBACK, "127.0.0.1", "::1"),
        ];
        for (net, v4, v6) in cases {
            assert_eq!((net.show(Family::V4), net.show(Family::V6)), (v4.into(), v6.into()));
        }
    }

    #[test]
    fn overlaps() {
        assert!(Net([10, 9, 1, 0], 24).overlaps(Net([10, 0, 0, 0], 8)));
        assert!(!Net([10, 9, 1, 0], 24).overlaps(Net([10, 9, 0, 5], 32)));
    }
}

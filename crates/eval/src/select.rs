//! Which of a host's addresses the kernel takes as a source.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use unmasq_model::link::{Address, Link, Scope};

/// Reads `net.<family>.conf.<device>.<setting>`.
pub(crate) type Setting<'s> = &'s dyn Fn(&str, &str, &str) -> Option<i64>;

/// `inet_select_addr(out, next_hop, RT_SCOPE_UNIVERSE)` (net/ipv4/devinet.c), as masquerade calls
/// it: the first primary global address whose subnet holds the next hop, else the first primary
/// global one, else another device's. The route's own `src` is not looked at.
pub(crate) fn masquerade4(
    links: &[Link],
    out: Option<&Link>,
    next_hop: IpAddr,
    setting: Setting<'_>,
) -> Option<IpAddr> {
    if let Some(out) = out {
        let localnet = |name: &str| setting(name, "ipv4", "route_localnet").is_some_and(|v| v != 0);
        let widest = if localnet(&out.name) || localnet("all") { Scope::LINK } else { Scope::HOST };
        let mut first = None;
        for address in primaries(out).filter(|a| a.scope.min(widest) <= Scope::GLOBAL) {
            if address.network().is_some_and(|net| net.contains(&next_hop)) {
                return Some(address.local);
            }
            first = first.or(Some(address.local));
        }
        if first.is_some() {
            return first;
        }
    }
    // Not loopback addresses on loopback count too: lo is the first device.
    links.iter().find_map(|link| {
        primaries(link)
            .find(|a| a.scope != Scope::LINK && a.scope <= Scope::GLOBAL)
            .map(|address| address.local)
    })
}

fn primaries(link: &Link) -> impl Iterator<Item = &Address> {
    link.addresses.iter().filter(|address| address.local.is_ipv4() && !address.secondary)
}

/// `ipv6_dev_get_saddr` (net/ipv6/addrconf.c), RFC 6724: the best of all addresses of the host,
/// or of the outgoing device alone for destinations on the link.
pub(crate) fn source6(
    links: &[Link],
    device: &str,
    destination: Ipv6Addr,
    setting: Setting<'_>,
) -> Option<IpAddr> {
    let only_out = destination.is_multicast()
        || scope6(destination) <= LINK_LOCAL
        || ["all", device]
            .iter()
            .any(|name| setting(name, "ipv6", "use_oif_addrs_only").is_some_and(|v| v != 0));
    let mut best: Option<(Score, Ipv6Addr)> = None;
    for link in links.iter().filter(|link| !only_out || *link.name == *device) {
        for address in &link.addresses {
            let IpAddr::V6(candidate) = address.local else {
                continue;
            };
            if address.tentative || candidate.is_unspecified() || candidate.is_multicast() {
                continue;
            }
            let temporary = setting(&link.name, "ipv6", "use_tempaddr").is_some_and(|v| v >= 2);
            let score = Score {
                wanted_privacy: address.temporary == temporary,
                ..score(address, candidate, *link.name == *device, destination)
            };
            // A later one must be strictly better: ties go to the first in the kernel's order.
            if best.as_ref().is_none_or(|(other, _)| score > *other) {
                best = Some((score, candidate));
            }
        }
    }
    best.map(|(_, address)| IpAddr::V6(address))
}

/// RFC 6724, section 5, rules 1 to 8 in order; the greater, the better.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    same: bool,
    scope: i16,
    preferred: bool,
    on_out: bool,
    same_label: bool,
    wanted_privacy: bool,
    matched_bits: u8,
}

const LINK_LOCAL: u8 = 2;
const SITE_LOCAL: u8 = 5;
const GLOBAL: u8 = 14;

fn score(address: &Address, candidate: Ipv6Addr, on_out: bool, destination: Ipv6Addr) -> Score {
    let (ours, theirs) = (i16::from(scope6(candidate)), i16::from(scope6(destination)));
    let common = (u128::from(candidate) ^ u128::from(destination)).leading_zeros();
    Score {
        same: candidate == destination,
        // The smallest scope that reaches; of those that don't reach, the widest.
        scope: if ours >= theirs { 100 - ours } else { ours - 100 },
        preferred: !address.deprecated,
        on_out,
        same_label: label6(candidate) == label6(destination),
        wanted_privacy: !address.temporary,
        matched_bits: u8::try_from(common).unwrap_or(128).min(address.prefix_len),
    }
}

/// The scope of an address as in RFC 4291 and RFC 4007.
fn scope6(address: Ipv6Addr) -> u8 {
    if address.is_multicast() {
        address.octets()[1] & 0x0f
    } else if address.is_loopback() || address.is_unicast_link_local() {
        LINK_LOCAL
    } else if address.segments()[0] & 0xffc0 == 0xfec0 {
        SITE_LOCAL
    } else {
        GLOBAL
    }
}

/// The default label table of net/ipv6/addrlabel.c.
fn label6(address: Ipv6Addr) -> u8 {
    const TABLE: [(&str, u8); 9] = [
        ("::1/128", 0),
        ("::ffff:0:0/96", 4),
        ("::/96", 3),
        ("2001::/32", 6),
        ("2001:10::/28", 7),
        ("3ffe::/16", 12),
        ("2002::/16", 2),
        ("fec0::/10", 11),
        ("fc00::/7", 5),
    ];
    TABLE
        .iter()
        .find(|(net, _)| {
            net.parse::<Ipv6Net>().is_ok_and(|net| IpNet::V6(net).contains(&IpAddr::V6(address)))
        })
        .map_or(1, |(_, label)| *label)
}

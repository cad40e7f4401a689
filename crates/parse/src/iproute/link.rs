//! `ip -j -d link` and `ip -j -d addr`.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::value::RawValue;
use unmasq_model::link::{Address, Link, Scope};
use unmasq_model::origin::{Diagnostic, FileId};

use super::entry::{Entry, entries};

/// Devices of `ip -j -d link` or `ip -j -d addr`, without their addresses.
pub fn links(text: &str, file: FileId) -> (Option<Vec<Link>>, Vec<Diagnostic>) {
    let mut links = Vec::new();
    let (readable, diagnostics) = read(text, file, |listed, _, _| links.push(listed.link()));
    (readable.then_some(links), diagnostics)
}

/// Adds the addresses of `ip -j -d addr` to `links`, and devices that are not among them yet.
/// The first result tells whether the text is such a listing at all.
pub fn addresses(text: &str, file: FileId, links: &mut Vec<Link>) -> (bool, Vec<Diagnostic>) {
    read(text, file, |listed, entry, diagnostics| {
        let link = listed.link();
        let index = links.iter().position(|known| known.name == link.name).unwrap_or_else(|| {
            links.push(link);
            links.len() - 1
        });
        for raw in listed.addr_info {
            match address(raw) {
                Ok(Some(address)) => links[index].addresses.push(address),
                Ok(None) => {}
                Err(message) => diagnostics
                    .push(entry.diagnostic(format!("address of {}: {message}", listed.ifname))),
            }
        }
    })
}

/// A device as iproute2 prints it (ip/ipaddress.c, `print_linkinfo`).
#[derive(Deserialize)]
struct Listed<'a> {
    ifindex: u32,
    ifname: String,
    /// `null`, or `link_index` instead, where that device is in another namespace.
    link: Option<String>,
    link_index: Option<u32>,
    link_netnsid: Option<i64>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    linkinfo: LinkInfo<'a>,
    master: Option<String>,
    address: Option<String>,
    #[serde(borrow)]
    xdp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    addr_info: Vec<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct LinkInfo<'a> {
    info_kind: Option<String>,
    #[serde(borrow)]
    info_data: Option<&'a RawValue>,
    info_slave_kind: Option<String>,
    #[serde(borrow)]
    info_slave_data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BridgePort {
    hairpin: Option<bool>,
}

/// `bridge_print_opt` in ip/iplink_bridge.c. The settings are the bridge's own, beside the sysctls
/// (`br_nf_pre_routing` in net/bridge/br_netfilter_hooks.c).
#[derive(Deserialize, Default)]
struct Bridge {
    #[serde(default)]
    nf_call_iptables: Switch,
    #[serde(default)]
    nf_call_ip6tables: Switch,
}

/// A number in all versions so far; others of a bridge's settings have become words of JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum Switch {
    Number(u8),
    Word(bool),
}

impl Default for Switch {
    fn default() -> Switch {
        Switch::Word(false)
    }
}

impl Switch {
    fn is_on(&self) -> bool {
        match self {
            Switch::Number(number) => *number != 0,
            Switch::Word(on) => *on,
        }
    }
}

/// An address as iproute2 prints it (`print_addrinfo`).
#[derive(Deserialize)]
struct ListedAddress {
    local: Option<IpAddr>,
    address: Option<IpAddr>,
    prefixlen: Option<u8>,
    scope: Option<String>,
    #[serde(default)]
    secondary: bool,
    #[serde(default)]
    temporary: bool,
    #[serde(default)]
    deprecated: bool,
    #[serde(default)]
    tentative: bool,
    #[serde(default)]
    optimistic: bool,
    #[serde(default)]
    dadfailed: bool,
}

impl Listed<'_> {
    fn link(&self) -> Link {
        let has = |flag: &str| self.flags.iter().any(|set| set == flag);
        let bridge = self.linkinfo.bridge();
        // A number or a name of another namespace could be that of any device of this one.
        let lower = self.link.as_deref().filter(|_| self.link_netnsid.is_none());
        let veth = self.linkinfo.info_kind.as_deref() == Some("veth");
        Link {
            index: self.ifindex,
            name: self.ifname.as_str().into(),
            up: has("UP"),
            loopback: has("LOOPBACK"),
            kind: self.linkinfo.info_kind.as_deref().map(Into::into),
            master: self.master.as_deref().map(Into::into),
            hairpin: self.linkinfo.hairpin(),
            calls_iptables: bridge.nf_call_iptables.is_on(),
            calls_ip6tables: bridge.nf_call_ip6tables.is_on(),
            lower: lower.map(Into::into),
            peer: self.link_index.filter(|_| veth),
            mac: self.address.as_deref().map(Into::into),
            xdp: self.xdp.is_some(),
            addresses: Vec::new(),
        }
    }
}

impl LinkInfo<'_> {
    /// Data of other kinds is left unread: iproute2 doesn't always write it well.
    fn bridge(&self) -> Bridge {
        match (self.info_kind.as_deref(), self.info_data) {
            (Some("bridge"), Some(data)) => serde_json::from_str(data.get()).unwrap_or_default(),
            _ => Bridge::default(),
        }
    }

    fn hairpin(&self) -> Option<bool> {
        if self.info_slave_kind.as_deref() != Some("bridge") {
            return None;
        }
        serde_json::from_str::<BridgePort>(self.info_slave_data?.get()).ok()?.hairpin
    }
}

fn read<'a>(
    text: &'a str,
    file: FileId,
    mut take: impl FnMut(Listed<'a>, &Entry<'a>, &mut Vec<Diagnostic>),
) -> (bool, Vec<Diagnostic>) {
    let listing = match entries(text, file) {
        Ok(listing) => listing,
        Err(diagnostic) => return (false, vec![diagnostic]),
    };
    let mut diagnostics = Vec::new();
    for entry in listing {
        match serde_json::from_str(entry.text) {
            Ok(listed) => take(listed, &entry, &mut diagnostics),
            Err(error) => diagnostics.push(entry.diagnostic(format!("unreadable device: {error}"))),
        }
    }
    (true, diagnostics)
}

/// `None` for the `{}` of an address that iproute2 filtered out.
fn address(raw: &RawValue) -> Result<Option<Address>, String> {
    if raw.get() == "{}" {
        return Ok(None);
    }
    let listed: ListedAddress =
        serde_json::from_str(raw.get()).map_err(|error| format!("{error}: {}", raw.get()))?;
    let incomplete = |what| format!("no {what}: {}", raw.get());
    let scope = listed.scope.as_deref().and_then(Scope::from_name);
    Ok(Some(Address {
        local: listed.local.ok_or_else(|| incomplete("local address"))?,
        peer: listed.address,
        prefix_len: listed.prefixlen.ok_or_else(|| incomplete("prefix length"))?,
        scope: scope.ok_or_else(|| incomplete("scope that is known"))?,
        secondary: listed.secondary,
        deprecated: listed.deprecated,
        // ipv6_dev_get_saddr passes over tentative addresses that are not optimistic
        // (net/ipv6/addrconf.c); a duplicate stays tentative for good.
        tentative: (listed.tentative && !listed.optimistic) || listed.dadfailed,
        temporary: listed.temporary,
    }))
}

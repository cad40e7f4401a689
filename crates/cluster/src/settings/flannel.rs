//! flannel: its `net-conf.json`, its arguments, and what it wrote on each node.

use ipnet::IpNet;
use unmasq_model::packet::Family;

use super::source::{self, Sources};
use super::text::{FromText, environment};
use super::{Place, Setting, Values};

/// flannel's settings, those of canal's part too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flannel {
    /// Where it is said that it runs.
    pub places: Vec<Place>,
    /// The range of all pods, IPv4.
    pub network: Values<IpNet>,
    /// The range of all pods, IPv6.
    pub network6: Values<IpNet>,
    /// `vxlan`, `host-gw`, …
    pub backend: Values<String>,
    /// Whether its rules are nftables'.
    pub enable_nftables: Values<bool>,
    /// Whether it masquerades what leaves its network.
    pub ip_masq: Values<bool>,
    /// Each node's own range, with the address of the node in it, IPv4.
    pub subnet: Values<IpNet>,
    /// The same, IPv6.
    pub subnet6: Values<IpNet>,
}

impl Flannel {
    /// Whether it was seen.
    pub fn is_present(&self) -> bool {
        !self.places.is_empty()
    }

    /// The range of all pods of a family.
    pub fn networks(&self, family: Family) -> &Values<IpNet> {
        match family {
            Family::V4 => &self.network,
            Family::V6 => &self.network6,
        }
    }

    /// Each node's own range of a family.
    pub fn subnets(&self, family: Family) -> &Values<IpNet> {
        match family {
            Family::V4 => &self.subnet,
            Family::V6 => &self.subnet6,
        }
    }
}

const SUBNET_FILE: &str = "/run/flannel/subnet.env";

pub(super) fn read(sources: &mut Sources<'_>) -> Flannel {
    let mut found = Flannel::default();
    for (node, text) in sources.files(SUBNET_FILE) {
        let place = |line: Option<usize>, key: &str| Place::File {
            node: node.to_owned(),
            path: SUBNET_FILE.to_owned(),
            line,
            key: key.to_owned(),
        };
        found.places.push(place(None, ""));
        for (line, name, value) in environment(text) {
            let setting = Some(Setting { value, place: place(Some(line), name) });
            match name {
                "FLANNEL_NETWORK" => network(sources, &mut found.network, setting),
                "FLANNEL_IPV6_NETWORK" => network(sources, &mut found.network6, setting),
                "FLANNEL_SUBNET" => sources.take(&mut found.subnet, setting),
                "FLANNEL_IPV6_SUBNET" => sources.take(&mut found.subnet6, setting),
                "FLANNEL_IPMASQ" => sources.take(&mut found.ip_masq, setting),
                _ => {}
            }
        }
    }
    for command in sources.commands("flanneld") {
        found.places.push(command.place.clone());
        sources.take(&mut found.ip_masq, command.switch("ip-masq"));
        sources.take(&mut found.ip_masq, command.variable("FLANNELD_IP_MASQ"));
    }
    for document in sources.documents(|_, key| key == "net-conf.json") {
        network(sources, &mut found.network, document.at("/Network"));
        network(sources, &mut found.network6, document.at("/IPv6Network"));
        sources.take(&mut found.backend, document.at("/Backend/Type"));
        sources.take(&mut found.enable_nftables, document.at("/EnableNFTables"));
    }
    // canal passes this key on as FLANNELD_IP_MASQ.
    for map in &sources.objects.config_maps {
        if map.data.contains_key("net-conf.json") {
            sources.take(&mut found.ip_masq, source::key(map, "masquerade"));
        }
    }
    found
}

/// The bits of a host are none of a network's; `::/0` is what flannel writes without IPv6.
fn network(sources: &mut Sources<'_>, values: &mut Values<IpNet>, found: Option<Setting<String>>) {
    let truncated = found.map(|Setting { value, place }| {
        let read = IpNet::from_text(&value).map(|net| net.trunc());
        let value = match read {
            Some(net) if net.prefix_len() == 0 => String::new(),
            Some(net) => net.to_string(),
            None => value,
        };
        Setting { value, place }
    });
    sources.take(values, truncated);
}

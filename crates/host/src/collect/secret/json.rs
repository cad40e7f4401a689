//! JSON: what stands under names that are known is kept, with its structure.

use serde_json::{Map, Value};

use super::{MASK, is_plain};

/// Which names are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Names {
    /// Those of Docker's daemon.json.
    Docker,
    /// Those of network plugins' configuration.
    Cni,
}

const DOCKER: [&str; 27] = [
    "allow-direct-routing",
    "base",
    "bip",
    "bip6",
    "bridge",
    "bridge-accept-fwmark",
    "default-address-pools",
    "default-gateway",
    "default-gateway-v6",
    "default-network-opts",
    "experimental",
    "firewall-backend",
    "fixed-cidr",
    "fixed-cidr-v6",
    "icc",
    "ip",
    "ip-forward",
    "ip-forward-no-drop",
    "ip-masq",
    "ip6tables",
    "iptables",
    "ipv6",
    "live-restore",
    "mtu",
    "size",
    "userland-proxy",
    "userland-proxy-path",
];

const CNI: [&str; 61] = [
    "allow_ip_forwarding",
    "assign_ipv4",
    "assign_ipv6",
    "backend",
    "bridge",
    "capabilities",
    "chaining-mode",
    "cniVersion",
    "conditionsV4",
    "conditionsV6",
    "container_settings",
    "datastore_type",
    "delegate",
    "disableCheck",
    "dst",
    "enabled",
    "externalSetMarkChain",
    "feature_control",
    "firewallBackend",
    "floating_ips",
    "forceAddress",
    "gateway",
    "gw",
    "hairpinMode",
    "ingressPolicy",
    "interface",
    "ip_addrs_no_ipam",
    "ipMasq",
    "ipMasqBackend",
    "ipam",
    "ips",
    "ipv4_pools",
    "ipv6_pools",
    "isDefaultGateway",
    "isGateway",
    "linkInContainer",
    "markMasqBit",
    "masqAll",
    "master",
    "mode",
    "mtu",
    "name",
    "nodename",
    "plugins",
    "podSGEnforcingMode",
    "policy",
    "portMappings",
    "promiscMode",
    "randomizeSNAT",
    "rangeEnd",
    "rangeStart",
    "ranges",
    "routes",
    "snat",
    "subnet",
    "subnetFile",
    "table",
    "type",
    "usePodCidr",
    "vethPrefix",
    "vlan",
];

/// The document with the values of other names masked; `None` if it is no JSON object.
pub(in super::super) fn json(text: &str, names: Names) -> Option<String> {
    let Ok(document @ Value::Object(_)) = serde_json::from_str(text) else { return None };
    let kept = value(document, names);
    serde_json::to_string_pretty(&kept).ok().map(|text| text + "\n")
}

/// A value under a name that is known, or the document.
fn value(found: Value, names: Names) -> Value {
    match found {
        Value::Object(members) => Value::Object(object(members, names)),
        Value::Array(values) => values.into_iter().map(|item| value(item, names)).collect(),
        Value::String(text) if !is_plain(&text) => Value::String(MASK.to_owned()),
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => found,
    }
}

fn object(members: Map<String, Value>, names: Names) -> Map<String, Value> {
    let member = |(name, found): (String, Value)| {
        let known = names.have(&name);
        let kept = if known { value(found, names) } else { Value::String(MASK.to_owned()) };
        // A name that no program has may be anything.
        let name = if known || is_plain(&name) { name } else { MASK.to_owned() };
        (name, kept)
    };
    members.into_iter().map(member).collect()
}

impl Names {
    fn have(self, name: &str) -> bool {
        match self {
            Names::Docker => DOCKER.contains(&name) || name.starts_with("com.docker.network."),
            Names::Cni => CNI.contains(&name),
        }
    }
}

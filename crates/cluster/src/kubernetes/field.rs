//! Fields of Kubernetes objects that serde doesn't read by itself: `null` for an empty list, 0 for
//! no port, `None` for no address.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

/// Go writes an empty list as `null`.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// 0 is as good as absent.
pub(super) fn optional_port<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u16>, D::Error> {
    Ok(Option::deserialize(deserializer)?.filter(|port| *port != 0))
}

/// An address; `None` and the empty text are none.
pub(super) fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("" | "None") => Ok(None),
        Some(text) => Ok(Some(parsed(text)?)),
    }
}

pub(super) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<IpAddr>, D::Error> {
    let texts: Vec<String> = nullable(deserializer)?;
    let set = texts.iter().filter(|text| !matches!(text.as_str(), "" | "None"));
    set.map(|text| parsed(text)).collect()
}

/// Networks without the bits of a host, which rules don't have. Validation lets blanks through
/// (kubernetes pkg/proxy/serviceport.go).
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts: Vec<String> = nullable(deserializer)?;
    texts.iter().map(|text| Ok(parsed::<IpNet, _>(text.trim())?.trunc())).collect()
}

/// A network without the bits of a host.
pub(super) fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    Ok(parsed::<IpNet, _>(String::deserialize(deserializer)?.trim())?.trunc())
}

/// A network, or the empty text for none.
pub(super) fn optional_network<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<IpNet>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref().map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => Ok(Some(parsed::<IpNet, _>(text)?.trunc())),
    }
}

/// Annotations without those that hold a whole object as text.
pub(super) fn annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let mut found: BTreeMap<String, String> = nullable(deserializer)?;
    found.remove("kubectl.kubernetes.io/last-applied-configuration");
    Ok(found)
}

fn parsed<T: FromStr<Err: fmt::Display>, E: serde::de::Error>(text: &str) -> Result<T, E> {
    text.parse().map_err(|error| E::custom(format_args!("{text:?}: {error}")))
}

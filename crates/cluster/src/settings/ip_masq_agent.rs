//! ip-masq-agent: its ConfigMap and its arguments.

use ipnet::IpNet;
use serde_json::Value;

use super::source::Sources;
use super::text::FromText;
use super::{Place, Unread, Unreadable, Values};

/// ip-masq-agent's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpMasqAgent {
    /// Where it is said that it runs.
    pub places: Vec<Place>,
    /// Where nothing is masqueraded to. An empty list is one: everything is masqueraded.
    pub non_masquerade_cidrs: Values<Vec<IpNet>>,
    /// Whether what goes to link-local addresses is masqueraded.
    pub masq_link_local: Values<bool>,
    /// Whether all reserved ranges are left alone where there is no configuration.
    pub nomasq_all_reserved_ranges: Values<bool>,
}

impl IpMasqAgent {
    /// Whether it was seen.
    pub fn is_present(&self) -> bool {
        !self.places.is_empty()
    }
}

pub(super) fn read(sources: &mut Sources<'_>) -> IpMasqAgent {
    let mut found = IpMasqAgent::default();
    for command in sources.commands("ip-masq-agent") {
        found.places.push(command.place.clone());
        let reserved = command.switch("nomasq-all-reserved-ranges");
        sources.take(&mut found.nomasq_all_reserved_ranges, reserved);
    }
    let documents = sources.documents(|map, _| map.metadata.name.contains("ip-masq-agent"));
    for document in documents {
        sources.take(&mut found.masq_link_local, document.at("/masqLinkLocal"));
        // The agent reads JSON names without regard to case, as Go does.
        for name in ["/nonMasqueradeCIDRs", "/NonMasqueradeCIDRs"] {
            let Some(list) = document.value.pointer(name).and_then(Value::as_array) else {
                continue;
            };
            let place = document.place(name);
            let text = list.iter().map(|item| item.as_str().unwrap_or("?")).collect::<Vec<_>>();
            match Vec::<IpNet>::from_text(&text.join(",")) {
                Some(ranges) => found.non_masquerade_cidrs.push(ranges, place),
                None => {
                    let what = Unread::Value(text.join(","));
                    sources.unreadable.push(Unreadable { what, place });
                }
            }
        }
    }
    found
}

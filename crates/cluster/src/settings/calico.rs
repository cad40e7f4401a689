//! Calico: the environment of calico-node, and FelixConfigurations. Its pools are objects.

use ipnet::IpNet;

use super::source::Sources;
use super::{Place, Setting, Values};

/// Calico's settings, those of canal's part too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calico {
    /// Where it is said that it runs.
    pub places: Vec<Place>,
    /// `bird`, `vxlan`, or `none`: policies only.
    pub networking_backend: Values<String>,
    /// Range of the pool that is made when there is none yet.
    pub pool_cidr: Values<IpNet>,
    /// Whether that pool masquerades what leaves it.
    pub pool_nat_outgoing: Values<bool>,
    /// `IPPoolsOnly` or `IPPoolsAndHostIPs`: where nothing is masqueraded to.
    pub nat_outgoing_exclusions: Values<String>,
    /// The address to translate to, in place of the outgoing device's.
    pub nat_outgoing_address: Values<String>,
    /// The ports to translate to.
    pub nat_port_range: Values<String>,
    /// The devices that masquerading is for.
    pub nat_outgoing_interface_filter: Values<String>,
}

impl Calico {
    /// Whether it was seen.
    pub fn is_present(&self) -> bool {
        !self.places.is_empty()
    }
}

pub(super) fn read(sources: &mut Sources<'_>) -> Calico {
    let mut found = Calico::default();
    for command in sources.commands("calico-node") {
        found.places.push(command.place.clone());
        sources.take(&mut found.networking_backend, command.variable("CALICO_NETWORKING_BACKEND"));
        sources.take(&mut found.pool_cidr, command.variable("CALICO_IPV4POOL_CIDR"));
        sources
            .take(&mut found.pool_nat_outgoing, command.variable("CALICO_IPV4POOL_NAT_OUTGOING"));
        let exclusions = command.variable("FELIX_NATOUTGOINGEXCLUSIONS");
        sources.take(&mut found.nat_outgoing_exclusions, exclusions);
        sources.take(&mut found.nat_outgoing_address, command.variable("FELIX_NATOUTGOINGADDRESS"));
        sources.take(&mut found.nat_port_range, command.variable("FELIX_NATPORTRANGE"));
    }
    for felix in &sources.objects.felix_configurations {
        // One for a single node is named after it (libcalico-go names: node.NAME).
        let setting = |value: &Option<String>, key: &str| {
            Some(Setting { value: value.clone()?, place: place(&felix.metadata.name, key) })
        };
        let spec = &felix.spec;
        let exclusions = setting(&spec.nat_outgoing_exclusions, "natOutgoingExclusions");
        sources.take(&mut found.nat_outgoing_exclusions, exclusions);
        let address = setting(&spec.nat_outgoing_address, "natOutgoingAddress");
        sources.take(&mut found.nat_outgoing_address, address);
        sources.take(&mut found.nat_port_range, setting(&spec.nat_port_range, "natPortRange"));
        let key = "iptablesNATOutgoingInterfaceFilter";
        let filter = setting(&spec.nat_outgoing_interface_filter, key);
        sources.take(&mut found.nat_outgoing_interface_filter, filter);
    }
    found
}

fn place(name: &str, key: &str) -> Place {
    Place::Object {
        kind: "FelixConfiguration",
        namespace: String::new(),
        name: name.to_owned(),
        part: String::new(),
        key: format!("spec.{key}"),
    }
}

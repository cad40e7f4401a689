//! Endpoints, the older form of EndpointSlices, which the API server fills in too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;
use unmasq_model::packet::Family;

use super::field::nullable;
use super::{AddressType, Conditions, Endpoint, EndpointPort, EndpointSlice, Hints, Metadata};

/// The label that says whose an EndpointSlice is.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// All endpoints of the Service of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Endpoints {
    /// Name and namespace.
    pub metadata: Metadata,
    /// Endpoints that have the same ports.
    #[serde(default, deserialize_with = "nullable")]
    pub subsets: Vec<Subset>,
}

/// Endpoints that have the same ports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Those that take connections.
    #[serde(deserialize_with = "nullable")]
    pub addresses: Vec<EndpointAddress>,
    /// Those that don't.
    #[serde(deserialize_with = "nullable")]
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// Their ports.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<EndpointPort>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointAddress {
    /// Its address.
    pub ip: IpAddr,
    /// Where it runs.
    #[serde(default)]
    pub node_name: Option<String>,
}

/// The EndpointSlices that say the same, for Services that have none: one for each subset and
/// family, as Kubernetes' own mirroring makes them (pkg/controller/endpointslicemirroring).
pub(super) fn as_slices(endpoints: Vec<Endpoints>, slices: &[EndpointSlice]) -> Vec<EndpointSlice> {
    let have: BTreeSet<(&str, &str)> = slices
        .iter()
        .filter_map(|slice| Some((slice.metadata.namespace.as_str(), slice.service()?)))
        .collect();
    let mut made = Vec::new();
    for of in endpoints {
        if have.contains(&(of.metadata.namespace.as_str(), of.metadata.name.as_str())) {
            continue;
        }
        for subset in &of.subsets {
            for (family, kind) in [(Family::V4, AddressType::V4), (Family::V6, AddressType::V6)] {
                let endpoints = subset.endpoints(family);
                if endpoints.is_empty() {
                    continue;
                }
                let number = made.len();
                let mut labels = of.metadata.labels.clone();
                labels.insert(SERVICE_NAME.to_owned(), of.metadata.name.clone());
                made.push(EndpointSlice {
                    metadata: Metadata {
                        name: format!("{}-{number}", of.metadata.name),
                        namespace: of.metadata.namespace.clone(),
                        labels,
                        annotations: BTreeMap::new(),
                    },
                    address_type: kind,
                    endpoints,
                    ports: subset.ports.clone(),
                });
            }
        }
    }
    made
}

impl Subset {
    fn endpoints(&self, family: Family) -> Vec<Endpoint> {
        let ready = self.addresses.iter().map(|address| (address, true));
        let others = self.not_ready_addresses.iter().map(|address| (address, false));
        let all = ready.chain(others).filter(|(address, _)| Family::of(address.ip) == family);
        all.map(|(address, ready)| Endpoint {
            addresses: vec![address.ip],
            conditions: Conditions { ready: Some(ready), ..Conditions::default() },
            node_name: address.node_name.clone(),
            hints: Hints::default(),
        })
        .collect()
    }
}

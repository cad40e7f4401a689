//! Whether a scenario's manifests can be made something of.
//!
//! Services are read here as they are read when the cluster is built, so that a wrong type is found
//! before that. Of other kinds the lab makes nothing: those that clusters have for themselves are
//! carried in captures, and everything else is taken for a slip of the pen.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::place::{Misfit, Path, Segment};
use unmasq_cluster::kubernetes::Service;

/// The kind that the lab serves.
pub(super) const SERVED: &str = "Service";

/// Kinds that captures carry, and nothing in the lab reads.
pub(super) const CARRIED: &[&str] = &[
    "BGPAdvertisement",
    "BGPConfiguration",
    "BGPPeer",
    "CiliumNetworkPolicy",
    "ConfigMap",
    "DaemonSet",
    "Deployment",
    "FelixConfiguration",
    "Gateway",
    "GatewayClass",
    "GlobalNetworkPolicy",
    "HTTPRoute",
    "HelmChartConfig",
    "IPAddressPool",
    "IPPool",
    "Ingress",
    "IngressClass",
    "L2Advertisement",
    "Namespace",
    "NetworkPolicy",
    "ReplicaSet",
    "ServiceAccount",
    "StatefulSet",
];

/// Kinds whose objects follow from the scenario itself.
const MADE: &[&str] = &["Node", "Pod", "EndpointSlice"];

/// Fails with the first object that doesn't fit.
pub(super) fn check_manifests(manifests: &[Value]) -> Result<(), Misfit> {
    let mut objects = manifests.iter().enumerate();
    objects.try_for_each(|(index, object)| check(index, object))
}

/// The part of a Service that endpoints follow from.
#[derive(Deserialize)]
struct Selecting {
    #[serde(default, rename = "spec")]
    _spec: Option<Selector>,
}

#[derive(Deserialize)]
struct Selector {
    #[serde(default, rename = "selector")]
    _selector: Option<BTreeMap<String, String>>,
}

fn fits<T: DeserializeOwned>(object: &Value) -> Result<(), Misfit> {
    serde_path_to_error::deserialize::<_, T>(object.clone())
        .map(drop)
        .map_err(|error| Misfit::new(Path::from(error.path()), error.inner()))
}

/// `Service namespace/name`, as far as it has them.
fn named(object: &Value) -> String {
    let of = |field: &str| object["metadata"][field].as_str();
    let (namespace, name) = (of("namespace").unwrap_or("default"), of("name").unwrap_or("?"));
    format!("{SERVED} {namespace}/{name}")
}

fn check(index: usize, object: &Value) -> Result<(), Misfit> {
    let own =
        |below: Path| Path::from_iter(["manifests".into(), Segment::Index(index)]).join(&below);
    let misfit =
        |field: &str, what: String| Misfit::new(own(Path::from_iter([field.into()])), what);
    let kind = match object.get("kind") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(_) => return Err(misfit("kind", "expected the name of a kind".to_owned())),
        None => return Err(Misfit::new(own(Path::default()), "missing field `kind`")),
    };
    if MADE.contains(&kind) {
        let what = format!("{kind} objects follow from nodes, pods and Services");
        return Err(misfit("kind", what));
    }
    if kind == SERVED {
        // Other APIs have a Service too (serving.knative.dev).
        return match object.get("apiVersion").and_then(Value::as_str) {
            Some("v1") => {
                fits::<Service>(object).and_then(|()| fits::<Selecting>(object)).map_err(|misfit| {
                    Misfit {
                        path: own(misfit.path),
                        what: format!("{}: {}", named(object), misfit.what),
                    }
                })
            }
            Some(other) => {
                Err(misfit("apiVersion", format!("a Service of {other:?}, expected \"v1\"")))
            }
            None => Err(Misfit::new(own(Path::default()), "missing field `apiVersion`")),
        };
    }
    if !CARRIED.contains(&kind) {
        let known = CARRIED.join(", ");
        let what = format!(
            "{kind:?} is no kind that the lab knows: it serves {SERVED}, and carries {known}"
        );
        return Err(misfit("kind", what));
    }
    Ok(())
}

//! One JSON document: an object, or a List of objects, each read by itself.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use serde_path_to_error::{Path, Segment};

use super::Objects;

/// Why an object can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON.
    #[error("this is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Neither an object nor a list of some.
    #[error("an object without a kind")]
    NoKind,
    /// A field that is not what it should be.
    #[error("{0}: {1}")]
    Field(Box<Wrong>, String),
}

/// A field of an object that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The object's kind.
    pub kind: String,
    /// Its namespace; `None`: it doesn't say.
    pub namespace: Option<String>,
    /// Its name; `None`: it doesn't say.
    pub name: Option<String>,
    /// Where in it (`spec.externalTrafficPolicy`).
    pub field: String,
    /// What stands there, as JSON; `None`: nothing.
    pub value: Option<String>,
}

/// `Service namespace/name: spec.type`
impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        let name = self.name.as_deref().unwrap_or("without a name");
        write!(f, "{name}: {}", self.field)
    }
}

/// An object that can't be read, and where its text begins in the document.
#[derive(Debug)]
pub struct Found {
    /// Bytes before it.
    pub offset: usize,
    /// Why it can't be read.
    pub error: Error,
}

/// What an object is, before it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    address_type: Option<Cow<'a, str>>,
}

/// The name of an object whose fields may be wrong.
#[derive(Deserialize, Default)]
struct Named {
    #[serde(default)]
    metadata: Option<Name>,
}

#[derive(Deserialize, Default)]
struct Name {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
}

/// Lists in Lists that are looked into; nothing writes even two.
const DEPTH: usize = 4;

impl Objects {
    /// Adds the objects of one JSON document, and tells of each that can't be read.
    pub fn add_each(&mut self, text: &str, problem: &mut dyn FnMut(Found)) {
        self.add_as(text, None, DEPTH, &mut |item, error| {
            // Items are parts of the text.
            let offset = (item.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
            problem(Found { offset, error });
        });
    }

    /// Items of a ServiceList, as the API server gives it, don't say their kind themselves.
    fn add_as(
        &mut self,
        text: &str,
        kind_of_list: Option<&str>,
        depth: usize,
        problem: &mut dyn FnMut(&str, Error),
    ) {
        let header: Header = match serde_json::from_str(text) {
            // An array is as good as a struct to serde.
            Ok(_) if !text.trim_start().starts_with('{') => return problem(text, Error::NoKind),
            Ok(header) => header,
            Err(error) if error.is_data() && !text.trim_start().starts_with('{') => {
                return problem(text, Error::NoKind);
            }
            Err(error) => return problem(text, error.into()),
        };
        let Some(kind) = header.kind.as_deref().or(kind_of_list) else {
            return problem(text, Error::NoKind);
        };
        match (kind.strip_suffix("List"), header.items) {
            // A kind of objects may end so (an AllowList); a list has no name.
            (Some(of), items)
                if depth > 0
                    && (of.is_empty() || items.is_some() || named(text).name.is_none()) =>
            {
                let of = Some(of).filter(|of| !of.is_empty());
                for item in items.iter().flatten() {
                    self.add_as(item.get(), of, depth - 1, problem);
                }
            }
            _ => {
                let is_of_names = header.address_type.as_deref() == Some("FQDN");
                let group = header.api_version.as_deref().map(group);
                if let Err(error) = self.add_object(kind, group, is_of_names, text) {
                    problem(text, error);
                }
            }
        }
    }

    /// Other APIs have a Service too (serving.knative.dev), so the group counts where it is said.
    fn add_object(
        &mut self,
        kind: &str,
        group: Option<&str>,
        is_of_names: bool,
        text: &str,
    ) -> Result<(), Error> {
        let is = |groups: &[&str]| group.is_none_or(|group| groups.contains(&group));
        match kind {
            "Service" if is(&[""]) => self.services.push(object(kind, text)?),
            "EndpointSlice" if is(&["discovery.k8s.io"]) => {
                if !is_of_names {
                    self.endpoint_slices.push(object(kind, text)?);
                }
            }
            "Endpoints" if is(&[""]) => self.endpoints.push(object(kind, text)?),
            "Node" if is(&[""]) => self.nodes.push(object(kind, text)?),
            "Pod" if is(&[""]) => self.pods.push(object(kind, text)?),
            "Namespace" if is(&[""]) => self.namespaces.push(object(kind, text)?),
            "ConfigMap" if is(&[""]) => self.config_maps.push(object(kind, text)?),
            "NetworkPolicy" if is(&["networking.k8s.io", "extensions"]) => {
                self.network_policies.push(object(kind, text)?);
            }
            "Ingress" if is(&["networking.k8s.io", "extensions"]) => {
                self.ingresses.push(object(kind, text)?);
            }
            "IngressClass" if is(&["networking.k8s.io"]) => {
                self.ingress_classes.push(object(kind, text)?);
            }
            "ServiceCIDR" if is(&["networking.k8s.io"]) => {
                self.service_cidrs.push(object(kind, text)?);
            }
            "DaemonSet" if is(&["apps", "extensions"]) => {
                self.daemon_sets.push(object(kind, text)?);
            }
            "Deployment" if is(&["apps", "extensions"]) => {
                self.deployments.push(object(kind, text)?);
            }
            "StatefulSet" if is(&["apps"]) => self.stateful_sets.push(object(kind, text)?),
            "Middleware" if is(&TRAEFIK) => self.middlewares.push(object(kind, text)?),
            "IngressRoute" if is(&TRAEFIK) => self.ingress_routes.push(object(kind, text)?),
            "IPPool" if is(&CALICO) => self.ip_pools.push(object(kind, text)?),
            "FelixConfiguration" if is(&CALICO) => {
                self.felix_configurations.push(object(kind, text)?);
            }
            _ => {
                let name = match group {
                    None | Some("") => kind.to_owned(),
                    Some(group) => format!("{kind}.{group}"),
                };
                *self.others.entry(name).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// The groups of Calico's CRDs and of its API server.
const CALICO: [&str; 2] = ["crd.projectcalico.org", "projectcalico.org"];

/// The groups of Traefik's CRDs, today's and the one before version 3.
const TRAEFIK: [&str; 2] = ["traefik.io", "traefik.containo.us"];

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Reads one object; an error says which object and which field. Keeping the path takes time, so
/// that is only done where there is an error.
fn object<T: DeserializeOwned>(kind: &str, text: &str) -> Result<T, Error> {
    if let Ok(object) = serde_json::from_str(text) {
        return Ok(object);
    }
    let mut json = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let Name { namespace, name } = named(text);
        let (field, value) = (error.path().to_string(), value_at(text, error.path()));
        let wrong = Wrong { kind: kind.to_owned(), namespace, name, field, value };
        let error = without_position(&error.into_inner().to_string()).to_owned();
        Error::Field(Box::new(wrong), error)
    })
}

fn named(text: &str) -> Name {
    serde_json::from_str::<Named>(text).ok().and_then(|named| named.metadata).unwrap_or_default()
}

/// What stands at a path, as JSON.
fn value_at(text: &str, path: &Path) -> Option<String> {
    let whole: Value = serde_json::from_str(text).ok()?;
    let found = path.iter().try_fold(&whole, |value, segment| match segment {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(index),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    found.map(Value::to_string)
}

/// The position is one in the object, and nobody sees it by itself: the path says more.
fn without_position(error: &str) -> &str {
    error.rsplit_once(" at line ").map_or(error, |(error, _)| error)
}

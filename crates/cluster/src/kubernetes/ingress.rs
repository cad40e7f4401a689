//! An Ingress: host names and paths that a proxy in the cluster passes on to Services.

use serde::Deserialize;

use super::Metadata;
use super::field::nullable;

/// An Ingress.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ingress {
    /// Name, namespace, and annotations that the proxy's behaviour depends on.
    pub metadata: Metadata,
    /// What it says.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: IngressSpec,
}

impl Ingress {
    /// The names of the Services that it passes on to, in order, each once.
    pub fn services(&self) -> Vec<&str> {
        let default = self.spec.default_backend.iter().chain(&self.spec.backend);
        let rules = self.spec.rules.iter().flat_map(|rule| &rule.http.paths);
        let mut names: Vec<&str> = Vec::new();
        for backend in default.chain(rules.map(|path| &path.backend)) {
            if let Some(name) = backend.name().filter(|name| !names.contains(name)) {
                names.push(name);
            }
        }
        names
    }

    /// The name of its class, by the field or the annotation that was before it.
    pub fn class(&self) -> Option<&str> {
        let before = self.metadata.annotations.get("kubernetes.io/ingress.class");
        self.spec.ingress_class_name.as_deref().or(before.map(String::as_str))
    }

    /// Annotations whose effect depends on the client's address.
    pub fn client_rules(&self) -> Vec<ClientRule<'_>> {
        let rule = |key: &str| {
            let (prefix, name) = key.split_once('/')?;
            CONTROLLERS.contains(&prefix).then_some(())?;
            ANNOTATIONS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
        };
        let annotations = self.metadata.annotations.iter();
        annotations
            .filter_map(|(key, value)| {
                Some(ClientRule { kind: rule(key)?, annotation: key, value })
            })
            .collect()
    }
}

/// An IngressClass.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IngressClass {
    /// Its name, which Ingresses have.
    pub metadata: Metadata,
    /// What it says.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: IngressClassSpec,
}

/// What an IngressClass says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct IngressClassSpec {
    /// The controller that serves it (`k8s.io/ingress-nginx`).
    #[serde(deserialize_with = "nullable")]
    pub controller: String,
}

/// An annotation whose effect depends on the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientRule<'a> {
    /// What it does.
    pub kind: ClientRuleKind,
    /// Its key.
    pub annotation: &'a str,
    /// Its value.
    pub value: &'a str,
}

/// What is done by the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientRuleKind {
    /// Only these are let in.
    AllowList,
    /// These are not let in.
    DenyList,
    /// Each may ask so often.
    RateLimit,
}

/// Prefixes of annotations: ingress-nginx (internal/ingress/annotations/parser), NGINX's own
/// controller, HAProxy's and the community's HAProxy controller, Traefik 1, and the prefix that
/// several had before they had one of their own.
const CONTROLLERS: [&str; 7] = [
    "nginx.ingress.kubernetes.io",
    "nginx.org",
    "haproxy.org",
    "haproxy.com",
    "haproxy-ingress.github.io",
    "traefik.ingress.kubernetes.io",
    "ingress.kubernetes.io",
];

const ANNOTATIONS: [(&str, ClientRuleKind); 17] = [
    ("whitelist-source-range", ClientRuleKind::AllowList),
    ("allowlist-source-range", ClientRuleKind::AllowList),
    ("allow-list", ClientRuleKind::AllowList),
    ("whitelist", ClientRuleKind::AllowList),
    ("denylist-source-range", ClientRuleKind::DenyList),
    ("deny-list", ClientRuleKind::DenyList),
    ("blacklist", ClientRuleKind::DenyList),
    ("limit-rps", ClientRuleKind::RateLimit),
    ("limit-rpm", ClientRuleKind::RateLimit),
    ("limit-connections", ClientRuleKind::RateLimit),
    ("limit-whitelist", ClientRuleKind::AllowList),
    ("limit-allowlist", ClientRuleKind::AllowList),
    ("rate-limit-whitelist", ClientRuleKind::AllowList),
    ("limit-req-rate", ClientRuleKind::RateLimit),
    ("rate-limit", ClientRuleKind::RateLimit),
    ("rate-limit-requests", ClientRuleKind::RateLimit),
    ("global-rate-limit", ClientRuleKind::RateLimit),
];

/// What an Ingress says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressSpec {
    /// Whose it is.
    pub ingress_class_name: Option<String>,
    /// What no rule is for.
    pub default_backend: Option<Backend>,
    /// The same in extensions/v1beta1.
    pub backend: Option<Backend>,
    /// Hosts and their paths.
    #[serde(deserialize_with = "nullable")]
    pub rules: Vec<HostRule>,
}

/// A host and its paths.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct HostRule {
    /// The name; absent: all.
    pub host: Option<String>,
    /// Paths.
    #[serde(deserialize_with = "nullable")]
    pub http: Paths,
}

/// The paths of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Paths {
    /// One by one.
    #[serde(deserialize_with = "nullable")]
    pub paths: Vec<PathRule>,
}

/// A path and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct PathRule {
    /// The path; absent: all.
    pub path: Option<String>,
    /// Where it leads.
    #[serde(deserialize_with = "nullable")]
    pub backend: Backend,
}

/// Where requests are passed on to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Backend {
    /// A Service.
    pub service: Option<ServiceBackend>,
    /// The same in extensions/v1beta1.
    pub service_name: Option<String>,
}

impl Backend {
    /// The Service's name.
    pub fn name(&self) -> Option<&str> {
        let service = self.service.as_ref().map(|service| service.name.as_str());
        service.or(self.service_name.as_deref())
    }
}

/// A Service that requests are passed on to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ServiceBackend {
    /// Its name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Its port.
    #[serde(deserialize_with = "nullable")]
    pub port: BackendPort,
}

/// A port of a Service, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct BackendPort {
    /// The number.
    pub number: Option<u16>,
    /// The name.
    pub name: Option<String>,
}

//! Traefik's own objects, as its CRDs have them (traefik/traefik
//! pkg/provider/kubernetes/crd/traefikio/v1alpha1; `traefik.containo.us` before version 3): what
//! clients are judged by, and who refers to it.

use serde::Deserialize;

use super::Metadata;
use super::field::nullable;

/// A Middleware.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Middleware {
    /// Name and namespace.
    pub metadata: Metadata,
    /// What it does; the part that is about clients.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: MiddlewareSpec,
}

/// What a Middleware does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MiddlewareSpec {
    /// Only these clients are let in.
    pub ip_allow_list: Option<IpAllowList>,
    /// The same by its old name.
    pub ip_white_list: Option<IpAllowList>,
    /// Each client may ask so often.
    pub rate_limit: Option<Limit>,
    /// Each client may have so many requests at a time.
    pub in_flight_req: Option<Limit>,
    /// Others, one after the other.
    pub chain: Option<Middlewares>,
}

/// Whom a Middleware lets in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpAllowList {
    /// Addresses and networks.
    #[serde(deserialize_with = "nullable")]
    pub source_range: Vec<String>,
    /// How the client's address is found; absent: it is that of the connection.
    pub ip_strategy: Option<IpStrategy>,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limit {
    /// By what requests are told apart; absent: by the address of the connection (a limit of rates)
    /// or by the host that is asked for (one of requests at a time).
    pub source_criterion: Option<SourceCriterion>,
}

/// By what requests are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceCriterion {
    /// By the client's address.
    pub ip_strategy: Option<IpStrategy>,
}

/// How the client's address is found in X-Forwarded-For.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpStrategy {
    /// So many from the right; 0: not there.
    #[serde(deserialize_with = "nullable")]
    pub depth: u32,
    /// The first from the right that is none of these.
    #[serde(deserialize_with = "nullable", rename = "excludedIPs")]
    pub excluded_ips: Vec<String>,
}

impl IpStrategy {
    /// Whether it looks into the header.
    pub fn is_by_header(&self) -> bool {
        self.depth > 0 || !self.excluded_ips.is_empty()
    }
}

/// An IngressRoute.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IngressRoute {
    /// Name and namespace.
    pub metadata: Metadata,
    /// What it says.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: IngressRouteSpec,
}

/// What an IngressRoute says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct IngressRouteSpec {
    /// One by one.
    #[serde(deserialize_with = "nullable")]
    pub routes: Vec<Middlewares>,
}

/// The Middlewares of a route or of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Middlewares {
    /// In this order.
    #[serde(deserialize_with = "nullable")]
    pub middlewares: Vec<MiddlewareRef>,
}

/// A Middleware, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct MiddlewareRef {
    /// Its name; with `@` and a provider it is somewhere else.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Its namespace; absent: that of the object.
    pub namespace: Option<String>,
}

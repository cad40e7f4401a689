//! What kube-proxy answers at a Service's healthCheckNodePort, and load balancers ask for.
//!
//! pkg/proxy/healthcheck/service_health.go (`hcHandler`): 200 if this node has a ready endpoint and
//! the proxy is healthy, 503 otherwise, to any request.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use unmasq_probe::connection::{Service, Step};
use unmasq_probe::http::{self, Head, Parsed};
use unmasq_probe::proxy_protocol::Ends;

/// A port that answers health checks of one Service.
#[derive(Debug, Clone)]
pub struct Health {
    /// The file of its network namespace. `None`: the current one.
    pub namespace: Option<PathBuf>,
    /// The port.
    pub port: u16,
    /// What it answers.
    pub status: HealthStatus,
}

/// What a health port answers. Clones are one: any of them changes it while a server runs.
#[derive(Debug, Clone)]
pub struct HealthStatus(Arc<Mutex<ServiceHealth>>);

/// What is known of a Service on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceHealth {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// Ready endpoints on this node.
    pub local_endpoints: usize,
    /// Whether the proxy itself is healthy.
    pub proxy_healthy: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'s> {
    service: Named<'s>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Named<'s> {
    namespace: &'s str,
    name: &'s str,
}

impl HealthStatus {
    /// A status that begins with this.
    pub fn new(health: ServiceHealth) -> HealthStatus {
        HealthStatus(Arc::new(Mutex::new(health)))
    }

    /// What it is.
    pub fn get(&self) -> ServiceHealth {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it, for requests from now on.
    pub fn set(&self, health: ServiceHealth) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    fn response(&self) -> Vec<u8> {
        let health = self.get();
        let status = if health.local_endpoints > 0 && health.proxy_healthy { 200 } else { 503 };
        let body = Body {
            service: Named { namespace: &health.namespace, name: &health.name },
            local_endpoints: health.local_endpoints,
            service_proxy_healthy: health.proxy_healthy,
        };
        let weight = health.local_endpoints.to_string();
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Load-Balancing-Endpoint-Weight", &*weight),
        ];
        http::response(status, &headers, &serde_json::to_vec(&body).unwrap_or_default())
    }
}

impl Service for HealthStatus {
    fn step(&self, _ends: &Ends, bytes: &[u8], _ended: bool) -> Step {
        match Head::parse(bytes) {
            Parsed::Head(..) => Step::Answer(self.response()),
            Parsed::Incomplete => Step::Wait,
            Parsed::Malformed => Step::Answer(http::response(400, &[], &[])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_healthy_with_an_endpoint_and_a_healthy_proxy() {
        let mut health = ServiceHealth {
            namespace: "shop".into(),
            name: "web".into(),
            local_endpoints: 2,
            proxy_healthy: true,
        };
        let status = HealthStatus::new(health.clone());
        for (endpoints, proxy_healthy, line) in [
            (2, true, "HTTP/1.1 200 OK"),
            (0, true, "HTTP/1.1 503 Service Unavailable"),
            (3, false, "HTTP/1.1 503 Service Unavailable"),
        ] {
            (health.local_endpoints, health.proxy_healthy) = (endpoints, proxy_healthy);
            status.set(health.clone());
            let response = String::from_utf8(status.response()).unwrap();
            assert!(response.starts_with(&format!("{line}\r\n")), "{response}");
            for header in [
                "Content-Type: application/json".to_owned(),
                "X-Content-Type-Options: nosniff".to_owned(),
                format!("X-Load-Balancing-Endpoint-Weight: {endpoints}"),
            ] {
                assert!(response.contains(&format!("\r\n{header}\r\n")), "{header} in {response}");
            }
            let body = response.split_once("\r\n\r\n").unwrap().1;
            let expected = serde_json::json!({
                "service": {"namespace": "shop", "name": "web"},
                "localEndpoints": endpoints,
                "serviceProxyHealthy": proxy_healthy,
            });
            assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), expected);
        }
    }
}

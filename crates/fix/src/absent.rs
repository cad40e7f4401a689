//! Why a finding that somebody wants to mend isn't there, where objects tell it: what its remedy would
//! change has a reason, or is refused by the API.

use unmasq_audit::FindingId;
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{Service, ServiceType, TrafficPolicy};
use unmasq_cluster::networks::{NetworkKind, Pool};

use crate::plan::FindingName;

/// A sentence or two; `None`: nothing is known that would be better than a list of what is there.
pub(crate) fn why(cluster: &Cluster, wanted: &FindingName) -> Option<String> {
    let subject = wanted.subject.as_deref();
    if wanted.id == FindingId::CalicoUnusedPool {
        pools(cluster, subject)
    } else if wanted.id == FindingId::ExternalTrafficPolicyCluster {
        of_service(cluster, subject?)
    } else {
        None
    }
}

/// What stands against switching off the masquerade of a pool, or of any.
fn pools(cluster: &Cluster, wanted: Option<&str>) -> Option<String> {
    let of = |network: &unmasq_cluster::networks::Network| {
        let NetworkKind::Pool(Pool { name, used, nat_outgoing, .. }) = &network.kind else {
            return None;
        };
        if wanted.is_some_and(|wanted| wanted != name) {
            return None;
        }
        let range = network.range;
        Some(match (nat_outgoing, used) {
            (false, _) => format!("pool {name} ({range}) has natOutgoing: false already"),
            (true, None) => format!(
                "whether a pod uses pool {name} ({range}) isn't known: no pods were captured"
            ),
            (true, Some(false)) => return None,
            (true, Some(true)) => format!(
                "pool {name} ({range}) is in use: {} of it, and leave the cluster by its masquerade \
                 (unmasq explain calico-pool-masquerade)",
                users(cluster, range)
            ),
        })
    };
    let all: Vec<String> = cluster.networks.all.iter().filter_map(of).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// `pods shop/a (10.3.0.7), shop/b (10.3.0.8) and 4 more have addresses`
fn users(cluster: &Cluster, range: ipnet::IpNet) -> String {
    const FEW: usize = 2;
    let own = cluster.objects.pods.iter().filter(|pod| !pod.spec.host_network);
    let users: Vec<String> = own
        .filter_map(|pod| {
            let address = pod.ips().find(|address| range.contains(address))?;
            Some(format!("{}/{} ({address})", pod.metadata.namespace, pod.metadata.name))
        })
        .collect();
    let shown = users.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ");
    match users.len() {
        1 => format!("pod {shown} has an address"),
        count if count > FEW => format!("pods {shown} and {} more have addresses", count - FEW),
        _ => format!("pods {shown} have addresses"),
    }
}

/// What stands against `Local` for a Service.
fn of_service(cluster: &Cluster, name: &str) -> Option<String> {
    let mut services = cluster.objects.services.iter();
    let service = services.find(|service| service.full_name() == name)?;
    let kind = match service.spec.kind {
        ServiceType::ExternalName => "ExternalName",
        ServiceType::ClusterIp if service.spec.external_ips.is_empty() => "ClusterIP",
        ServiceType::ClusterIp | ServiceType::NodePort | ServiceType::LoadBalancer => {
            return already(service);
        }
    };
    Some(format!(
        "nothing outside can call Service {name} (type {kind}): the API refuses \
         externalTrafficPolicy: Local for it (unmasq explain local-policy-invalid)"
    ))
}

fn already(service: &Service) -> Option<String> {
    match service.spec.external_traffic_policy {
        TrafficPolicy::Local => Some(format!(
            "Service {} has externalTrafficPolicy: Local already",
            service.full_name()
        )),
        TrafficPolicy::Cluster => None,
    }
}

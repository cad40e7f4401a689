//! Which settings depend on the source, as objects say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{
    ClientRule, ClientRuleKind, ConfigMap, Lookup, Service, ServiceType,
};
use unmasq_model::packet::Family;

use super::{Dependence, Kind, no_admissions, policy, traefik};
use crate::expect::ToldBy;

/// The settings of a cluster that depend on the source, in order of kinds and objects.
pub fn dependences(cluster: &Cluster) -> Vec<Dependence> {
    dependences_by(&Lookup::new(&cluster.objects), cluster)
}

/// The same, with what was made already.
pub(crate) fn dependences_by(lookup: &Lookup<'_>, cluster: &Cluster) -> Vec<Dependence> {
    let mut all = policy::dependences(lookup, cluster);
    for (index, service) in (0..).zip(&cluster.objects.services) {
        all.extend(of_service(index, service));
    }
    let mut controllers = BTreeMap::new();
    for ingress in &cluster.objects.ingresses {
        for rule in ingress.client_rules() {
            let prefix = rule.annotation.split_once('/').map_or("", |(prefix, _)| prefix);
            let behind = controllers.entry(prefix).or_insert_with(|| {
                let services = controller(cluster, names(prefix));
                let told_by = told_by(cluster, &services);
                (services, told_by)
            });
            all.push(of_ingress(&ingress.metadata.full_name(), rule, behind.clone()));
        }
    }
    all.extend(traefik::dependences(lookup, cluster));
    for config in &cluster.objects.config_maps {
        all.extend(trusted_proxies(cluster, config));
    }
    all
}

fn of_service(index: u32, service: &Service) -> Option<Dependence> {
    let networks = service.spec.load_balancer_source_ranges.clone();
    (service.spec.kind == ServiceType::LoadBalancer && !networks.is_empty()).then(|| Dependence {
        what: format!("it lets {} reach the load balancer's address", list(&networks)),
        object: format!("Service {}", service.full_name()),
        field: "spec.loadBalancerSourceRanges".to_owned(),
        kind: Kind::SourceRanges,
        services: vec![index],
        pods: Vec::new(),
        families: families(&networks),
        networks,
        except: Vec::new(),
        unread: Vec::new(),
        told_by: None,
        admissions: no_admissions(),
    })
}

/// With the Services of its controller, and how that one is told clients' addresses.
fn of_ingress(
    ingress: &str,
    rule: ClientRule<'_>,
    (services, told_by): (Vec<u32>, Option<ToldBy>),
) -> Dependence {
    let Listed { networks, unread } = match rule.kind {
        ClientRuleKind::AllowList | ClientRuleKind::DenyList => Listed::read(rule.value),
        ClientRuleKind::RateLimit => Listed::default(),
    };
    let (what, kind) = match rule.kind {
        ClientRuleKind::AllowList => {
            ("it lets in clients by their address", Kind::IngressAllowList)
        }
        ClientRuleKind::DenyList => {
            ("it keeps out clients by their address", Kind::IngressAllowList)
        }
        ClientRuleKind::RateLimit => ("it counts requests by client", Kind::IngressRateLimit),
    };
    Dependence {
        what: what.to_owned(),
        object: format!("Ingress {ingress}"),
        field: format!("annotation {}", rule.annotation),
        kind,
        services,
        pods: Vec::new(),
        families: families(&networks),
        networks,
        except: Vec::new(),
        unread,
        told_by,
        admissions: no_admissions(),
    }
}

/// ingress-nginx believes `X-Forwarded-For` and the PROXY protocol of these, of everybody without
/// a list (internal/ingress/controller/config/config.go, `ProxyRealIPCIDR`).
fn trusted_proxies(cluster: &Cluster, config: &ConfigMap) -> Option<Dependence> {
    let told = told(config)?;
    let services: Vec<u32> = controller(cluster, names("nginx.ingress.kubernetes.io"));
    let services: Vec<u32> =
        services.into_iter().filter(|index| is_of(cluster, *index, config)).collect();
    let (listed, said) = match config.data.get(REAL_IP) {
        Some(value) => (Listed::read(value), value.as_str()),
        None => {
            let networks = vec![everywhere(Family::V4), everywhere(Family::V6)];
            (Listed { networks, unread: Vec::new() }, "everybody")
        }
    };
    let Listed { networks, unread } = listed;
    let (what, field) = match told {
        ToldBy::ProxyProtocol => ("the PROXY protocol", PROXY_PROTOCOL),
        ToldBy::ForwardedFor => ("the header X-Forwarded-For", FORWARDED),
    };
    Some(Dependence {
        what: format!("it believes {what} of {said}"),
        object: format!("ConfigMap {}", config.metadata.full_name()),
        field: format!("{field} and {REAL_IP}"),
        kind: Kind::TrustedProxies,
        services,
        pods: Vec::new(),
        families: families(&networks),
        networks,
        except: Vec::new(),
        unread,
        told_by: Some(told),
        admissions: no_admissions(),
    })
}

const PROXY_PROTOCOL: &str = "use-proxy-protocol";
const FORWARDED: &str = "use-forwarded-headers";
const REAL_IP: &str = "proxy-real-ip-cidr";

/// The label by which Helm charts name what they install.
const NAME: &str = "app.kubernetes.io/name";

/// Values of [`NAME`] in the charts of controllers, by the prefix of their annotations.
pub(super) fn names(prefix: &str) -> &'static [&'static str] {
    match prefix {
        "nginx.ingress.kubernetes.io" => &["ingress-nginx"],
        // Several know it.
        "ingress.kubernetes.io" => &["ingress-nginx", "kubernetes-ingress", "haproxy-ingress"],
        "nginx.org" => &["nginx-ingress"],
        "haproxy.org" | "haproxy.com" => &["kubernetes-ingress", "haproxy-ingress"],
        "haproxy-ingress.github.io" => &["haproxy-ingress"],
        "traefik.ingress.kubernetes.io" => &["traefik"],
        _ => &[],
    }
}

/// Ingress controllers whose own settings are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    /// ingress-nginx of Kubernetes.
    IngressNginx,
    /// Traefik.
    Traefik,
}

/// The ingress controller behind a Service, by the labels of the Service, those that it selects,
/// or those of its pods.
pub(crate) fn controller_of(lookup: &Lookup<'_>, service: &Service) -> Option<Controller> {
    let pods = lookup.pods_behind(service);
    let all = [&service.metadata.labels, &service.spec.selector].into_iter();
    let mut names =
        all.chain(pods.map(|pod| &pod.metadata.labels)).filter_map(|labels| labels.get(NAME));
    names.find_map(|name| match name.as_str() {
        "ingress-nginx" | "rke2-ingress-nginx" => Some(Controller::IngressNginx),
        "traefik" => Some(Controller::Traefik),
        _ => None,
    })
}

/// The Services by which a controller is called from outside.
pub(super) fn controller(cluster: &Cluster, names: &[&str]) -> Vec<u32> {
    let is_its = |service: &Service| {
        let external = match service.spec.kind {
            ServiceType::NodePort | ServiceType::LoadBalancer => true,
            ServiceType::ClusterIp => !service.spec.external_ips.is_empty(),
            ServiceType::ExternalName => false,
        };
        external && service.metadata.labels.get(NAME).is_some_and(|name| names.contains(&&**name))
    };
    let services = (0..).zip(&cluster.objects.services);
    services.filter(|(_, service)| is_its(service)).map(|(index, _)| index).collect()
}

/// Whether a ConfigMap is that of the controller with this Service: same namespace, same label.
fn is_of(cluster: &Cluster, service: u32, config: &ConfigMap) -> bool {
    let Some(service) = cluster.objects.services.get(service as usize) else { return false };
    let (own, of) = (&config.metadata, &service.metadata);
    let alike = own.labels.get(NAME).is_none_or(|name| of.labels.get(NAME) == Some(name));
    own.namespace == of.namespace && alike
}

/// How a controller is told clients' addresses. Where it has several Services, all have it so.
fn told_by(cluster: &Cluster, services: &[u32]) -> Option<ToldBy> {
    let mut configs = cluster.objects.config_maps.iter();
    configs.find_map(|config| {
        let its = !services.is_empty() && services.iter().all(|one| is_of(cluster, *one, config));
        told(config).or_else(|| told_haproxy(config)).filter(|_| its)
    })
}

/// HAProxy's controller (documentation/annotations.md of haproxytech/kubernetes-ingress): whose
/// PROXY protocol it takes, and the header that stands for the source.
fn told_haproxy(config: &ConfigMap) -> Option<ToldBy> {
    let has = |key: &str| config.data.get(key).is_some_and(|value| !value.is_empty());
    match (has("proxy-protocol"), has("src-ip-header")) {
        (true, _) => Some(ToldBy::ProxyProtocol),
        (false, true) => Some(ToldBy::ForwardedFor),
        (false, false) => None,
    }
}

fn told(config: &ConfigMap) -> Option<ToldBy> {
    let is_on = |key: &str| config.data.get(key).is_some_and(|value| value == "true");
    if is_on(PROXY_PROTOCOL) {
        return Some(ToldBy::ProxyProtocol);
    }
    is_on(FORWARDED).then_some(ToldBy::ForwardedFor)
}

/// Networks and addresses between commas.
#[derive(Default)]
pub(super) struct Listed {
    /// All of them, if each word is one.
    pub(super) networks: Vec<IpNet>,
    /// Words that aren't. What a controller makes of a list with such a word, and of the words beside
    /// it, isn't known.
    pub(super) unread: Vec<String>,
}

impl Listed {
    pub(super) fn read(text: &str) -> Listed {
        let is_between = |letter: char| letter == ',' || letter.is_whitespace();
        let (mut networks, mut unread) = (Vec::new(), Vec::new());
        for word in text.split(is_between).filter(|word| !word.is_empty()) {
            let net = word.parse::<IpNet>().map(|net| net.trunc());
            match net.or_else(|_| word.parse::<IpAddr>().map(IpNet::from)) {
                Ok(net) => networks.push(net),
                Err(_) => unread.push(word.to_owned()),
            }
        }
        if !unread.is_empty() {
            networks.clear();
        }
        Listed { networks, unread }
    }
}

fn everywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// Both, where no network is named.
pub(super) fn families(networks: &[IpNet]) -> Vec<Family> {
    let has = |family: &Family| {
        networks.is_empty() || networks.iter().any(|net| Family::of(net.addr()) == *family)
    };
    [Family::V4, Family::V6].into_iter().filter(has).collect()
}

fn list(networks: &[IpNet]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

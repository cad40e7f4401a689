//! Which settings depend on the source, as objects say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{
    ClientRule, ClientRuleKind, ConfigMap, Ingress, Lookup, Service, ServiceType,
};
use unmasq_model::packet::Family;

use super::controller::{Installed, config_of, installed, services_of, serving};
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
        for rule in ingress.client_rules().into_iter().filter(does_something) {
            let prefix = rule.annotation.split_once('/').map_or("", |(prefix, _)| prefix);
            let known = controllers
                .entry(prefix)
                .or_insert_with(|| installed(lookup, cluster, names(prefix)));
            for behind in behind(cluster, ingress, known) {
                all.push(of_ingress(&ingress.metadata.full_name(), rule, behind));
            }
        }
    }
    all.extend(traefik::dependences(lookup, cluster));
    for config in &cluster.objects.config_maps {
        all.extend(trusted_proxies(lookup, cluster, config));
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
        unknown: None,
        pods: Vec::new(),
        families: families(&networks),
        networks,
        except: Vec::new(),
        unread: Vec::new(),
        told_by: None,
        admissions: no_admissions(),
    })
}

/// An empty list is no list, and a limit of 0 no limit (ingress-nginx
/// internal/ingress/annotations/parser, `parseString`, and annotations/ratelimit).
fn does_something(rule: &ClientRule<'_>) -> bool {
    let value = rule.value.trim();
    let is_limit = rule.annotation.contains("/limit-") && rule.kind == ClientRuleKind::RateLimit;
    let is_none = value.is_empty() || (is_limit && value == "0");
    !is_none
}

/// The controllers behind an Ingress, those together that are told clients' addresses in the same way.
fn behind(cluster: &Cluster, ingress: &Ingress, installed: &[Installed<'_>]) -> Vec<Behind> {
    let serving = match serving(cluster, ingress, installed) {
        Ok(serving) => serving,
        Err(why) => return vec![Behind { unknown: Some(why), ..Behind::default() }],
    };
    let mut all: Vec<Behind> = Vec::new();
    for one in serving {
        let behind = match &one.told_by {
            Ok(told_by) => {
                Behind { services: one.services.clone(), told_by: *told_by, unknown: None }
            }
            Err(why) => Behind { unknown: Some(why.clone()), ..Behind::default() },
        };
        let is_alike =
            |of: &&mut Behind| (of.told_by, &of.unknown) == (behind.told_by, &behind.unknown);
        match all.iter_mut().find(is_alike) {
            Some(known) => known.services.extend(behind.services),
            None => all.push(behind),
        }
    }
    if all.is_empty() {
        all.push(Behind::default());
    }
    all.iter_mut().for_each(|one| one.services.sort_unstable());
    all
}

/// Controllers.
#[derive(Default)]
struct Behind {
    services: Vec<u32>,
    /// How they are told clients' addresses.
    told_by: Option<ToldBy>,
    /// Why that, or which ones they are, isn't known.
    unknown: Option<String>,
}

fn of_ingress(ingress: &str, rule: ClientRule<'_>, behind: Behind) -> Dependence {
    let Behind { services, told_by, unknown } = behind;
    let Listed { networks, unread } = match rule.kind {
        ClientRuleKind::AllowList | ClientRuleKind::DenyList => Listed::read(rule.value),
        ClientRuleKind::RateLimit => Listed::default(),
    };
    let (what, kind) = match rule.kind {
        ClientRuleKind::AllowList => {
            ("it lets in clients by their address", Kind::IngressAllowList)
        }
        ClientRuleKind::DenyList => {
            ("it keeps out clients by their address", Kind::IngressDenyList)
        }
        ClientRuleKind::RateLimit => ("it counts requests by client", Kind::IngressRateLimit),
    };
    Dependence {
        what: what.to_owned(),
        object: format!("Ingress {ingress}"),
        field: format!("annotation {}", rule.annotation),
        kind,
        services,
        unknown,
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
fn trusted_proxies(
    lookup: &Lookup<'_>,
    cluster: &Cluster,
    config: &ConfigMap,
) -> Option<Dependence> {
    let told = told(config)?;
    let is_of = |index: &u32| {
        let service = cluster.objects.services.get(*index as usize);
        let map = service.and_then(|service| config_of(lookup, cluster, service).map);
        map.is_some_and(|map| std::ptr::eq(map, config))
    };
    let services = services_of(cluster, names("nginx.ingress.kubernetes.io"));
    let services: Vec<u32> = services.into_iter().filter(is_of).collect();
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
        unknown: None,
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
pub(super) const NAME: &str = "app.kubernetes.io/name";

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

/// HAProxy's controller (documentation/annotations.md of haproxytech/kubernetes-ingress): whose
/// PROXY protocol it takes, and the header that stands for the source.
pub(super) fn told_haproxy(config: &ConfigMap) -> Option<ToldBy> {
    let has = |key: &str| config.data.get(key).is_some_and(|value| !value.is_empty());
    match (has("proxy-protocol"), has("src-ip-header")) {
        (true, _) => Some(ToldBy::ProxyProtocol),
        (false, true) => Some(ToldBy::ForwardedFor),
        (false, false) => None,
    }
}

pub(super) fn told(config: &ConfigMap) -> Option<ToldBy> {
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

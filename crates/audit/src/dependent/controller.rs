//! Ingress controllers: the Services by which they are called, the Ingresses that are theirs, and
//! what their ConfigMaps say of clients.
//!
//! In: a cluster's objects. Out: [`Installed`] controllers. Which one serves an Ingress is said by
//! its class; where that can't be told, nothing is.

use std::collections::BTreeMap;

use unmasq_cluster::Cluster;
use unmasq_cluster::kubernetes::{
    ConfigMap, Container, Ingress, IngressClass, Lookup, Service, ServiceType,
};

use super::find::{NAME, told, told_haproxy};
use crate::expect::ToldBy;

/// Whether a Service can be called from outside.
pub(crate) fn is_external(service: &Service) -> bool {
    match service.spec.kind {
        ServiceType::NodePort | ServiceType::LoadBalancer => true,
        ServiceType::ClusterIp => !service.spec.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    }
}

/// The Services by which controllers of these [names](super::find::names) are called from outside.
pub(super) fn services_of(cluster: &Cluster, names: &[&str]) -> Vec<u32> {
    let is_its = |service: &Service| {
        let name = service.metadata.labels.get(NAME);
        is_external(service) && name.is_some_and(|name| names.contains(&&**name))
    };
    let services = (0..).zip(&cluster.objects.services);
    services.filter(|(_, service)| is_its(service)).map(|(index, _)| index).collect()
}

/// The containers of whatever runs a Service's pods.
pub(crate) fn containers<'c>(lookup: &Lookup<'c>, service: &Service) -> Vec<&'c Container> {
    let workloads = lookup.workloads_of(service).map(|(_, one)| &one.spec.template.spec);
    let pods = lookup.pods_behind(service).map(|pod| &pod.spec);
    workloads.chain(pods).flat_map(|spec| spec.all_containers()).collect()
}

/// The value of an option: `--name=value`, or two words.
fn option<'w>(words: &[&'w str], name: &str) -> Option<&'w str> {
    let is_it = |word: &str| word.trim_start_matches('-').eq_ignore_ascii_case(name);
    words.iter().enumerate().find_map(|(index, word)| match word.split_once('=') {
        Some((option, value)) => is_it(option).then_some(value),
        None if word.starts_with('-') && is_it(word) => words.get(index + 1).copied(),
        None => None,
    })
}

/// A controller's ConfigMap.
pub(crate) struct Config<'c> {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name, as far as it is known.
    pub(crate) name: Option<String>,
    /// What it says; `None`: it was not captured.
    pub(crate) map: Option<&'c ConfigMap>,
}

/// The ConfigMap of the controller behind a Service: the one that its argument `--configmap` names;
/// without that argument one of its namespace that has its label, or has none and says something of
/// clients.
pub(crate) fn config_of<'c>(
    lookup: &Lookup<'c>,
    cluster: &'c Cluster,
    service: &Service,
) -> Config<'c> {
    let own = &service.metadata.namespace;
    let containers = containers(lookup, service);
    let words: Vec<&str> = containers.iter().flat_map(|one| one.words()).collect();
    if let Some(named) = option(&words, "configmap") {
        // `$(POD_NAMESPACE)/NAME`
        let (namespace, name) = named.split_once('/').unwrap_or((own, named));
        let namespace = if namespace.starts_with("$(") { own } else { namespace };
        let map = cluster.objects.config_map(namespace, name);
        return Config { namespace: namespace.to_owned(), name: Some(name.to_owned()), map };
    }
    let label = service.metadata.labels.get(NAME).or_else(|| service.spec.selector.get(NAME));
    let label = label.map_or("ingress-nginx", String::as_str);
    let maps = || cluster.objects.config_maps.iter().filter(|map| map.metadata.namespace == *own);
    let labelled =
        || maps().filter(|map| map.metadata.labels.get(NAME).is_some_and(|one| one == label));
    let says = |map: &&ConfigMap| told(map).or_else(|| told_haproxy(map)).is_some();
    let unlabelled = || maps().filter(|map| !map.metadata.labels.contains_key(NAME));
    // The chart's maps of TCP and UDP Services have the label too.
    let found = labelled().find(says).or_else(|| labelled().next());
    let map = found.or_else(|| unlabelled().find(says));
    Config { namespace: own.clone(), name: map.map(|map| map.metadata.name.clone()), map }
}

/// A controller, and by which Services it is called.
pub(super) struct Installed<'c> {
    /// Indices in `objects.services`.
    pub(super) services: Vec<u32>,
    /// How it is told clients' addresses; an error: the ConfigMap that says so was not captured.
    pub(super) told_by: Result<Option<ToldBy>, String>,
    namespace: &'c str,
    words: Vec<&'c str>,
}

/// Controllers of these names: Services that select the same pods lead to the same one.
pub(super) fn installed<'c>(
    lookup: &Lookup<'c>,
    cluster: &'c Cluster,
    names: &[&str],
) -> Vec<Installed<'c>> {
    let mut by_pods: BTreeMap<_, Vec<(u32, &Service)>> = BTreeMap::new();
    for index in services_of(cluster, names) {
        let Some(service) = cluster.objects.services.get(index as usize) else { continue };
        let key = (&*service.metadata.namespace, &service.spec.selector);
        by_pods.entry(key).or_default().push((index, service));
    }
    let one = |((namespace, _), services): ((&'c str, _), Vec<(u32, &'c Service)>)| {
        let (_, first) = services.first()?;
        let Config { namespace: of, name, map } = config_of(lookup, cluster, first);
        let told_by = match (name, map) {
            (Some(name), None) => {
                Err(format!("ConfigMap {of}/{name} of its controller was not captured"))
            }
            (_, map) => Ok(map.and_then(|map| told(map).or_else(|| told_haproxy(map)))),
        };
        Some(Installed {
            told_by,
            namespace,
            words: containers(lookup, first).into_iter().flat_map(Container::words).collect(),
            services: services.iter().map(|(index, _)| *index).collect(),
        })
    };
    by_pods.into_iter().filter_map(one).collect()
}

impl Installed<'_> {
    /// Whether it serves a class. `None`: that can't be told.
    fn serves(&self, class: Option<&str>, object: Option<&IngressClass>) -> Option<bool> {
        let Some(class) = class else {
            let without = "--watch-ingress-without-class";
            let is_it = |word: &&str| *word == without || *word == format!("{without}=true");
            return self.words.iter().any(is_it).then_some(true);
        };
        let of_object = object.and_then(|object| {
            option(&self.words, "controller-class").map(|own| own == object.spec.controller)
        });
        let named = || {
            ["ingress-class", "ingress.class", "providers.kubernetesingress.ingressclass"]
                .iter()
                .find_map(|name| option(&self.words, name))
        };
        of_object.or_else(|| named().map(|own| own == class))
    }
}

/// The controllers that serve an Ingress, of those that know an annotation of it. An error: which
/// ones do can't be told.
pub(super) fn serving<'i, 'c>(
    cluster: &Cluster,
    ingress: &Ingress,
    installed: &'i [Installed<'c>],
) -> Result<Vec<&'i Installed<'c>>, String> {
    let class = ingress.class();
    let mut objects = cluster.objects.ingress_classes.iter();
    let object = objects.find(|one| class == Some(&one.metadata.name));
    let (mut sure, mut maybe) = (Vec::new(), Vec::new());
    for one in installed {
        match one.serves(class, object) {
            Some(true) => sure.push(one),
            None => maybe.push(one),
            Some(false) => {}
        }
    }
    // Whoever of several serves it is told clients' addresses.
    let is_told = |one: &&Installed<'_>| matches!(one.told_by, Ok(Some(_)));
    match (&sure[..], &maybe[..]) {
        ([_, ..], _) => Ok(sure),
        ([], [_]) => Ok(maybe),
        ([], [_, ..]) if maybe.iter().all(is_told) => Ok(maybe),
        ([], []) if installed.is_empty() => Ok(Vec::new()),
        ([], _) => {
            let of =
                class.map_or("without a class".to_owned(), |class| format!("of class {class}"));
            let among: Vec<&str> = installed.iter().map(|one| one.namespace).collect();
            Err(format!(
                "no controller that was seen ({}) is known to serve it, {of}",
                among.join(", ")
            ))
        }
    }
}

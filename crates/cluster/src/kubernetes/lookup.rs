//! The objects of a cluster by what is asked for, so that a question about each Service or policy
//! doesn't look at all objects each time.
//!
//! In: [`Objects`] that are [settled](Objects::settle). Out: [`Lookup`], made once, which borrows
//! them. What it gives is in the order of the objects.
//!
//! ```text
//! Service ─ name ──────────────▶ EndpointSlices
//! selector ─ its rarest label ─▶ candidates ─ matches ─▶ pods, workloads
//! pod ─ labels, addresses ─────▶ candidates ─ selects ─▶ Services
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{
    Endpoint, EndpointSlice, LabelSelector, Node, Objects, Operator, Pod, Service, Workload,
};

/// The objects of a cluster by what is asked for.
#[derive(Debug, Clone)]
pub struct Lookup<'a> {
    objects: &'a Objects,
    nodes: BTreeMap<&'a str, &'a Node>,
    services: BTreeMap<Name<'a>, u32>,
    slices: BTreeMap<Name<'a>, Vec<&'a EndpointSlice>>,
    pods: Labelled<'a>,
    workloads: Vec<(&'static str, &'a Workload)>,
    /// Indices in `workloads`, by the labels of their pods.
    templates: Labelled<'a>,
    /// Services, each by that label of its selector which the fewest Services have in theirs.
    selectors: BTreeMap<Label<'a>, Vec<u32>>,
    /// Services, by the addresses of their endpoints.
    endpoints: BTreeMap<(&'a str, IpAddr), Vec<u32>>,
}

/// Namespace and name.
type Name<'a> = (&'a str, &'a str);

/// Namespace, key and value.
type Label<'a> = (&'a str, &'a str, &'a str);

impl<'a> Lookup<'a> {
    /// Looks at each object once.
    pub fn new(objects: &'a Objects) -> Lookup<'a> {
        let nodes = objects.nodes.iter().rev().map(|node| (&*node.metadata.name, node));
        let mut services = BTreeMap::new();
        for (index, service) in (0..).zip(&objects.services) {
            services.entry(name(service)).or_insert(index);
        }
        let mut slices: BTreeMap<Name<'a>, Vec<&EndpointSlice>> = BTreeMap::new();
        let mut endpoints: BTreeMap<(&'a str, IpAddr), Vec<u32>> = BTreeMap::new();
        for slice in &objects.endpoint_slices {
            let Some(service) = slice.service() else { continue };
            let namespace = &*slice.metadata.namespace;
            slices.entry((namespace, service)).or_default().push(slice);
            let Some(index) = services.get(&(namespace, service)) else { continue };
            for address in slice.endpoints.iter().flat_map(|one| &one.addresses) {
                endpoints.entry((namespace, *address)).or_default().push(*index);
            }
        }
        let sets = [
            ("Deployment", &objects.deployments),
            ("DaemonSet", &objects.daemon_sets),
            ("StatefulSet", &objects.stateful_sets),
        ];
        let workloads: Vec<_> = sets
            .into_iter()
            .flat_map(|(kind, all)| all.iter().map(move |one| (kind, one)))
            .collect();
        let templates = workloads
            .iter()
            .map(|(_, one)| (&*one.metadata.namespace, &one.spec.template.metadata.labels));
        let pods = objects.pods.iter();
        Lookup {
            objects,
            nodes: nodes.collect(),
            services,
            slices,
            pods: Labelled::new(pods.map(|pod| (&*pod.metadata.namespace, &pod.metadata.labels))),
            templates: Labelled::new(templates),
            workloads,
            selectors: selectors(&objects.services),
            endpoints,
        }
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&'a Node> {
        self.nodes.get(name).copied()
    }

    /// The index in `objects.services` of the Service of that name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<u32> {
        self.services.get(&(namespace, name)).copied()
    }

    /// The EndpointSlices of a Service.
    pub fn slices_of<'s>(
        &'s self,
        service: &'s Service,
    ) -> impl Iterator<Item = &'a EndpointSlice> + 's {
        self.slices.get(&name(service)).into_iter().flatten().copied()
    }

    /// Whether a Service has an endpoint that may take connections: one that is ready or is still
    /// served while it ends. `None`: no EndpointSlice was captured, of any Service.
    pub fn has_endpoint(&self, service: &Service) -> Option<bool> {
        let may_take = |one: &Endpoint| {
            !one.addresses.is_empty()
                && (one.conditions.ready != Some(false) || one.conditions.serving == Some(true))
        };
        let mut endpoints = self.slices_of(service).flat_map(|slice| &slice.endpoints);
        (!self.objects.endpoint_slices.is_empty()).then(|| endpoints.any(may_take))
    }

    /// The pods of a namespace that a selector means.
    pub fn pods_of<'s>(
        &'s self,
        namespace: &'s str,
        selector: &'s LabelSelector,
    ) -> impl Iterator<Item = &'a Pod> + 's {
        let candidates = self.pods.candidates(namespace, selector).into_iter();
        let pods = candidates.filter_map(|index| self.objects.pods.get(index as usize));
        pods.filter(|pod| selector.matches(&pod.metadata.labels))
    }

    /// The pods that a Service selects.
    pub fn pods_behind<'s>(&'s self, service: &'s Service) -> impl Iterator<Item = &'a Pod> + 's {
        let candidates = self.pods.selected(service);
        let pods = candidates.iter().filter_map(|index| self.objects.pods.get(*index as usize));
        pods.filter(|pod| service.selects(&pod.metadata.labels))
    }

    /// The workloads whose pods a Service selects, with their kinds.
    pub fn workloads_of<'s>(
        &'s self,
        service: &'s Service,
    ) -> impl Iterator<Item = (&'static str, &'a Workload)> + 's {
        let candidates = self.templates.selected(service);
        let all = candidates.iter().filter_map(|index| self.workloads.get(*index as usize));
        all.copied().filter(|(_, one)| service.selects(&one.spec.template.metadata.labels))
    }

    /// The Services that select one of these pods or have one of their addresses as an endpoint in
    /// the same namespace: indices in `objects.services`, in order.
    pub fn services_of<'p>(&self, pods: impl IntoIterator<Item = &'p Pod>) -> BTreeSet<u32> {
        let mut all = BTreeSet::new();
        for pod in pods {
            let (namespace, labels) = (&*pod.metadata.namespace, &pod.metadata.labels);
            for (key, value) in labels {
                let found = self.selectors.get(&(namespace, &**key, &**value));
                let selects = |index: &&u32| {
                    let service = self.objects.services.get(**index as usize);
                    service.is_some_and(|service| service.selects(labels))
                };
                all.extend(found.into_iter().flatten().filter(selects));
            }
            for address in pod.ips() {
                all.extend(self.endpoints.get(&(namespace, address)).into_iter().flatten());
            }
        }
        all
    }
}

fn name(service: &Service) -> Name<'_> {
    (&service.metadata.namespace, &service.metadata.name)
}

/// Services by the rarest label of their selectors: a pod that one selects has it.
fn selectors(services: &[Service]) -> BTreeMap<Label<'_>, Vec<u32>> {
    let mut counts: BTreeMap<Label<'_>, usize> = BTreeMap::new();
    for label in services.iter().flat_map(wanted) {
        *counts.entry(label).or_default() += 1;
    }
    let mut all: BTreeMap<Label<'_>, Vec<u32>> = BTreeMap::new();
    for (index, service) in (0..).zip(services) {
        if let Some(rarest) = wanted(service).min_by_key(|label| counts.get(label)) {
            all.entry(rarest).or_default().push(index);
        }
    }
    all
}

fn wanted(service: &Service) -> impl Iterator<Item = Label<'_>> {
    let namespace = &*service.metadata.namespace;
    service.spec.selector.iter().map(move |(key, value)| (namespace, &**key, &**value))
}

/// Objects by their labels.
#[derive(Debug, Clone, Default)]
struct Labelled<'a> {
    namespaces: BTreeMap<&'a str, Vec<u32>>,
    labels: BTreeMap<Label<'a>, Vec<u32>>,
}

impl<'a> Labelled<'a> {
    fn new(objects: impl Iterator<Item = (&'a str, &'a BTreeMap<String, String>)>) -> Labelled<'a> {
        let mut all = Labelled::default();
        for (index, (namespace, labels)) in (0..).zip(objects) {
            all.namespaces.entry(namespace).or_default().push(index);
            for (key, value) in labels {
                all.labels.entry((namespace, key, value)).or_default().push(index);
            }
        }
        all
    }

    fn with<'s>(&'s self, namespace: &'s str, key: &'s str, value: &'s str) -> &'s [u32] {
        self.labels.get(&(namespace, key, value)).map_or(&[], Vec::as_slice)
    }

    /// Those that have the rarest label that a Service asks for. The others that it asks for are
    /// left to the caller.
    fn selected<'s>(&'s self, service: &'s Service) -> &'s [u32] {
        let wanted =
            wanted(service).map(|(namespace, key, value)| self.with(namespace, key, value));
        wanted.min_by_key(|found| found.len()).unwrap_or(&[])
    }

    /// Those that meet the condition of a selector that the fewest meet, in order. The others are
    /// left to the caller. Conditions that a missing label meets leave the whole namespace.
    fn candidates(&self, namespace: &str, selector: &LabelSelector) -> Vec<u32> {
        let by_label = selector.match_labels.iter();
        let by_label = by_label.map(|(key, value)| vec![self.with(namespace, key, value)]);
        let by_value = selector.match_expressions.iter().filter_map(|one| match one.operator {
            Operator::In => {
                let values: BTreeSet<&String> = one.values.iter().collect();
                Some(values.into_iter().map(|of| self.with(namespace, &one.key, of)).collect())
            }
            Operator::NotIn | Operator::Exists | Operator::DoesNotExist => None,
        });
        let fewest = by_label
            .chain(by_value)
            .min_by_key(|parts: &Vec<&[u32]>| parts.iter().map(|part| part.len()).sum::<usize>());
        match fewest {
            Some(parts) => {
                let mut all = parts.concat();
                all.sort_unstable();
                all
            }
            None => self.namespaces.get(namespace).cloned().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;

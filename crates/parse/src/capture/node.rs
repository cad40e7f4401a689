//! One node: its own namespace and those of its pods.

use std::collections::BTreeMap;
use std::thread::ScopedJoinHandle;

use unmasq_model::host::{Beyond, Host};
use unmasq_model::link::Link;
use unmasq_model::origin::{Diagnostic, FileId};
use unmasq_model::packet::Family;

use super::folder::{Folder, Found};
use super::{FileRecord, beyond, ruleset};

/// A node of a capture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its state.
    pub host: Host,
    /// What could not be read of it.
    pub diagnostics: Vec<Diagnostic>,
    /// Pods whose namespaces were captured, by `<namespace>_<pod>`.
    pub pods: BTreeMap<Box<str>, Pod>,
}

/// A pod's network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its state; the name is `<namespace>_<pod>`.
    pub host: Host,
    /// What could not be read of it.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses the node whose paths begin with `prefix`.
pub(super) fn parse(
    name: &str,
    files: &BTreeMap<String, Vec<u8>>,
    prefix: &str,
    records: Option<&BTreeMap<String, FileRecord>>,
) -> Node {
    let (host, diagnostics) = host(name, &Folder::new(files, prefix, String::new(), records));
    let pods_prefix = format!("{prefix}pods/");
    let mut pods = BTreeMap::new();
    for path in files.range(pods_prefix.clone()..).map(|(path, _)| path) {
        let Some(rest) = path.strip_prefix(&pods_prefix) else { break };
        let Some((pod, _)) = rest.split_once('/') else { continue };
        if !pods.contains_key(pod) {
            let folder = Folder::new(files, prefix, format!("pods/{pod}/"), records);
            let (host, diagnostics) = self::host(pod, &folder);
            pods.insert(pod.into(), Pod { host, diagnostics });
        }
    }
    Node { host, diagnostics, pods }
}

/// What a scoped thread gave; its panic goes on here.
pub(super) fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn host(name: &str, folder: &Folder<'_>) -> (Host, Vec<Diagnostic>) {
    std::thread::scope(|scope| {
        let rules = scope.spawn(|| {
            let mut diagnostics = Vec::new();
            let (ruleset, backends) = ruleset::parse(folder, &mut diagnostics);
            (ruleset, backends, diagnostics)
        });
        let mut reader = Reader { folder, diagnostics: Vec::new() };
        let host = Host {
            name: name.into(),
            files: folder.paths(),
            ipsets: reader.or_absent("ipset.save", |text, file| {
                let (sets, diagnostics) = crate::ipset::parse(text, file);
                (Some(sets), diagnostics)
            }),
            links: reader.links(),
            routes4: reader.routes("ip-route.json", Family::V4),
            routes6: reader.routes("ip6-route.json", Family::V6),
            rules4: reader.rules("ip-rule.json", Family::V4),
            rules6: reader.rules("ip6-rule.json", Family::V6),
            sysctls: reader.or_absent("sysctl", |text, file| {
                let (settings, diagnostics) = crate::sysctl::parse(text, file);
                (Some(settings), diagnostics)
            }),
            neighbours: reader.or_absent("ip-neigh.json", crate::iproute::neighbours),
            fdb: reader.or_absent("bridge-fdb.json", crate::iproute::fdb),
            beyond: Beyond {
                tc: reader.lines("tc", beyond::tc),
                bpf: reader.lines("bpf", beyond::bpf),
                ipvs: reader.lines("ipvs", beyond::ipvs),
                xfrm: reader.lines("xfrm", beyond::xfrm),
            },
            ..Host::default()
        };
        let (ruleset, backends, mut diagnostics) = join(rules);
        diagnostics.append(&mut reader.diagnostics);
        (Host { ruleset, backends, ..host }, diagnostics)
    })
}

/// Reads files one after the other and gathers what is wrong with them.
struct Reader<'f, 'a> {
    folder: &'f Folder<'a>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_, '_> {
    /// What a file has; empty where the kernel has nothing that it could list.
    fn or_absent<T: Default>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str, FileId) -> (Option<T>, Vec<Diagnostic>),
    ) -> Option<T> {
        match self.folder.find(name, &mut self.diagnostics) {
            Found::Text(text) => {
                let (value, mut diagnostics) = parse(&text.text, text.file);
                self.diagnostics.append(&mut diagnostics);
                value
            }
            Found::Absent => Some(T::default()),
            Found::Missing(_) => None,
        }
    }

    fn lines<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Vec<T>) -> Option<Vec<T>> {
        self.or_absent(name, |text, _| (Some(parse(text)), Vec::new()))
    }

    fn routes(&mut self, name: &str, family: Family) -> Option<Vec<unmasq_model::route::Route>> {
        self.or_absent(name, |text, file| whole(crate::iproute::routes(text, file, family)))
    }

    fn rules(
        &mut self,
        name: &str,
        family: Family,
    ) -> Option<Vec<unmasq_model::route::RoutingRule>> {
        self.or_absent(name, |text, file| whole(crate::iproute::rules(text, file, family)))
    }

    /// Devices without addresses would be devices that have none, so ip-addr.json decides;
    /// ip-link.json only adds to it.
    fn links(&mut self) -> Option<Vec<Link>> {
        let links = self.or_absent("ip-link.json", crate::iproute::links);
        let alone = links.is_some();
        let mut links = links.unwrap_or_default();
        match self.folder.find("ip-addr.json", &mut self.diagnostics) {
            Found::Text(text) => {
                let (readable, mut found) =
                    crate::iproute::addresses(&text.text, text.file, &mut links);
                self.diagnostics.append(&mut found);
                readable.then_some(links)
            }
            Found::Absent => Some(links),
            Found::Missing(why) => {
                if alone {
                    let message = format!("not used without addresses: {why}");
                    let origin = self.folder.origin("ip-link.json");
                    self.diagnostics.push(Diagnostic { origin, message });
                }
                None
            }
        }
    }
}

/// A list of which an entry was lost is not known: the lost one may be the one that counts.
fn whole<T>((list, diagnostics): (Option<T>, Vec<Diagnostic>)) -> (Option<T>, Vec<Diagnostic>) {
    (list.filter(|_| diagnostics.is_empty()), diagnostics)
}

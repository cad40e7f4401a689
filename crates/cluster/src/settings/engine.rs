//! Docker's `daemon.json` and arguments, and network plugins' own masquerading.

use ipnet::IpNet;
use serde_json::Value;

use super::source::{Command, Sources};
use super::text::{self, line_of};
use super::{Place, Setting, Unread, Unreadable, Values};

/// The settings of the container engine of each node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Engine {
    /// Where it is said that Docker runs.
    pub places: Vec<Place>,
    /// The address and network of its bridge.
    pub bip: Values<IpNet>,
    /// Another bridge than its own.
    pub bridge: Values<String>,
    /// The part of the bridge's network that containers get addresses from.
    pub fixed_cidr: Values<IpNet>,
    /// Whether it masquerades what leaves the bridge's network; without a value it does.
    pub ip_masq: Values<bool>,
    /// Whether it writes rules at all; without a value it does.
    pub iptables: Values<bool>,
    /// Whether a network plugin masquerades (`ipMasq` in /etc/cni/net.d).
    pub cni_ip_masq: Values<bool>,
}

const FILE: &str = "/etc/docker/daemon.json";

pub(super) fn read(sources: &mut Sources<'_>) -> Engine {
    let mut found = Engine::default();
    for (node, process) in sources.processes() {
        if process.name != "dockerd" {
            continue;
        }
        let command = Command::of_process(node, process);
        found.places.push(command.place.clone());
        sources.take(&mut found.bip, command.text("bip"));
        let bridge = command.text("bridge").or_else(|| command.text("b"));
        sources.take(&mut found.bridge, bridge);
        sources.take(&mut found.fixed_cidr, command.text("fixed-cidr"));
        sources.take(&mut found.ip_masq, command.switch("ip-masq"));
        sources.take(&mut found.iptables, command.switch("iptables"));
    }
    for (node, text) in sources.files(FILE) {
        let place = |key: &str| Place::File {
            node: node.to_owned(),
            path: FILE.to_owned(),
            line: line_of(text, key),
            key: key.to_owned(),
        };
        let Some(document) = read_file(sources, node, FILE, text) else { continue };
        let setting = |key: &str| {
            let value = text::at(&document, &format!("/{key}"))?;
            Some(Setting { value, place: place(key) })
        };
        sources.take(&mut found.bip, setting("bip"));
        sources.take(&mut found.bridge, setting("bridge"));
        sources.take(&mut found.fixed_cidr, setting("fixed-cidr"));
        sources.take(&mut found.ip_masq, setting("ip-masq"));
        sources.take(&mut found.iptables, setting("iptables"));
    }
    for (node, path, text) in sources.folder("/etc/cni/net.d/") {
        // Of other files there libcni reads nothing (libcni/conf.go, `ConfFiles`).
        if ![".conf", ".conflist", ".json"].iter().any(|ending| path.ends_with(ending)) {
            continue;
        }
        let Some(document) = read_file(sources, node, path, text) else { continue };
        for (pointer, on) in masquerading(&document) {
            let place = Place::File {
                node: node.to_owned(),
                path: path.to_owned(),
                line: line_of(text, "ipMasq"),
                key: pointer.trim_start_matches('/').replace('/', "."),
            };
            match on.as_bool() {
                Some(on) => found.cni_ip_masq.push(on, place),
                None => {
                    let what = Unread::Value(on.to_string());
                    sources.unreadable.push(Unreadable { what, place });
                }
            }
        }
    }
    found
}

/// A file of a node as a document.
fn read_file(sources: &mut Sources<'_>, node: &str, path: &str, text: &str) -> Option<Value> {
    match text::document(text) {
        Ok(document) => Some(document),
        Err((line, why)) => {
            let (node, path) = (node.to_owned(), path.to_owned());
            let place = Place::File { node, path, line, key: String::new() };
            sources.unreadable.push(Unreadable { what: Unread::Document(why), place });
            None
        }
    }
}

/// `ipMasq` of a plugin, of one in a list, and of what a plugin hands on to another (flannel's
/// `delegate`), each with its JSON pointer.
fn masquerading(document: &Value) -> Vec<(String, &Value)> {
    let plugins = document.pointer("/plugins").and_then(Value::as_array).map_or(0, Vec::len);
    let alone = std::iter::once(String::new());
    let all = alone.chain((0..plugins).map(|index| format!("/plugins/{index}")));
    all.flat_map(|plugin| [format!("{plugin}/ipMasq"), format!("{plugin}/delegate/ipMasq")])
        .filter_map(|pointer| {
            let on = document.pointer(&pointer).filter(|on| !on.is_null())?;
            Some((pointer, on))
        })
        .collect()
}

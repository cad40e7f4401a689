//! What differs between two states of a cluster: two captures, before and after something.
//!
//! ```text
//!  State ─┬─ nodes that one of them has
//!         ├─ chains, files, objects ─▶ deeds that would lead from the one to the other
//!         ├─ settings of programs, by name and place
//!  State ─┴─ questions of the audit, asked of both ─▶ Changes
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use unmasq_audit::clients;
use unmasq_audit::dependent::dependences;
use unmasq_audit::expect::Expectations;
use unmasq_audit::matrix::change::{self, Changes};
use unmasq_cluster::networks::NetworkKind;
use unmasq_cluster::paths::Paths;
use unmasq_cluster::settings::{Named, Place};
use unmasq_cluster::{Cluster, Node};
use unmasq_eval::trace::Options;
use unmasq_model::ruleset::Table;

use crate::deed::{Deed, FileDeed, ObjectDeed, Program, RulesDeed};
use crate::deeds::{program, texts};
use crate::manifests::ObjectName;
use crate::state::State;

/// What differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Nodes and objects that only the state before has.
    pub gone: Vec<String>,
    /// Nodes and objects that only the state after has.
    pub new: Vec<String>,
    /// What would have to be done to get from the one to the other.
    pub deeds: Vec<Deed>,
    /// Settings of programs that have another value, in order.
    pub settings: Vec<SettingChange>,
    /// Answers that differ; `Err`: why they were not compared.
    pub changes: Result<Changes, String>,
}

/// A setting that has another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// Whose it is: `kube-proxy`, `Calico`.
    pub component: String,
    /// The setting, as the program calls it.
    pub setting: String,
    /// The value before; `None`: it isn't set there.
    pub before: Option<String>,
    /// The value after; `None`: it isn't set there.
    pub after: Option<String>,
    /// Where it stands.
    pub places: Vec<Place>,
}

impl Difference {
    /// Whether nothing differs, as far as it could be compared.
    pub fn is_none(&self) -> bool {
        let Difference { gone, new, deeds, settings, changes } = self;
        gone.is_empty()
            && new.is_empty()
            && deeds.is_empty()
            && settings.is_empty()
            && changes.as_ref().is_ok_and(|changes| changes.rows.is_empty())
    }
}

/// Compares two states. `progress` hears how many of how many Services are done.
pub fn difference(
    before: &State,
    after: &State,
    expectations: &Expectations,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Difference {
    let (mut gone, mut new, mut deeds) = (Vec::new(), Vec::new(), Vec::new());
    let names = |cluster: &Cluster| -> BTreeMap<String, usize> {
        let nodes = cluster.nodes.iter().enumerate();
        nodes.map(|(index, node)| (node.name.clone(), index)).collect()
    };
    let (old, later) = (names(&before.cluster), names(&after.cluster));
    gone.extend(
        old.keys().filter(|name| !later.contains_key(*name)).map(|it| format!("node {it}")),
    );
    new.extend(later.keys().filter(|name| !old.contains_key(*name)).map(|it| format!("node {it}")));
    for (name, index) in &old {
        if let Some(other) = later.get(name) {
            of_node(&before.cluster.nodes[*index], &after.cluster.nodes[*other], &mut deeds);
        }
    }
    objects(before, after, &mut gone, &mut new, &mut deeds);
    let settings = settings(&before.cluster, &after.cluster);
    let changes = answers(before, after, expectations, progress);
    Difference { gone, new, deeds, settings, changes }
}

/// Each setting by itself, place by place; places where the same becomes the same are told together.
fn settings(before: &Cluster, after: &Cluster) -> Vec<SettingChange> {
    let (old, later) = (values(before), values(after));
    let keys: BTreeSet<&SettingKey> = old.keys().chain(later.keys()).collect();
    let mut all: BTreeMap<_, Vec<Place>> = BTreeMap::new();
    for key @ (component, setting, place) in keys {
        let (value, other) = (old.get(key), later.get(key));
        if value != other {
            let turn = (component.clone(), setting.clone(), value.cloned(), other.cloned());
            all.entry(turn).or_default().push(place.clone());
        }
    }
    let change = |((component, setting, before, after), places)| SettingChange {
        component,
        setting,
        before,
        after,
        places,
    };
    all.into_iter().map(change).collect()
}

/// Component, setting, place.
type SettingKey = (String, String, Place);

fn values(cluster: &Cluster) -> BTreeMap<SettingKey, String> {
    let mut all: BTreeMap<SettingKey, String> = BTreeMap::new();
    for Named { component, setting, value, place } in cluster.settings.named() {
        let key = (component.to_owned(), setting.to_owned(), place.without_line());
        all.entry(key)
            .and_modify(|known| {
                known.push_str(", ");
                known.push_str(&value);
            })
            .or_insert(value);
    }
    for network in &cluster.networks.all {
        let (NetworkKind::Pool(pool), Some(place)) = (&network.kind, network.places.first()) else {
            continue;
        };
        let setting = |name: &str| format!("{name} of pool {}", pool.name);
        let values = [
            ("cidr", network.range.to_string()),
            ("natOutgoing", pool.nat_outgoing.to_string()),
            ("disabled", pool.disabled.to_string()),
        ];
        for (name, value) in values {
            all.insert(("Calico".to_owned(), setting(name), place.without_line()), value);
        }
    }
    all
}

fn of_node(before: &Node, after: &Node, deeds: &mut Vec<Deed>) {
    if let (Some(old), Some(new)) = (&before.host, &after.host) {
        let (old, new) = (chains(&old.ruleset.tables), chains(&new.ruleset.tables));
        let name = &before.name;
        let names: BTreeSet<&ChainPlace> = old.keys().chain(new.keys()).collect();
        for place @ (program, table, chain) in names {
            let of = |all: &BTreeMap<ChainPlace, Vec<String>>| {
                all.get(place).cloned().unwrap_or_default()
            };
            let (before, after) = (of(&old), of(&new));
            if before != after {
                deeds.push(Deed::Rules(RulesDeed {
                    node: name.clone(),
                    program: *program,
                    table: table.clone(),
                    chain: chain.clone(),
                    before,
                    after,
                }));
            }
        }
    }
    let paths: BTreeSet<&String> = before.files.keys().chain(after.files.keys()).collect();
    for path in paths {
        let (old, new) = (before.files.get(path), after.files.get(path));
        if old != new {
            deeds.push(Deed::File(FileDeed {
                node: before.name.clone(),
                path: path.clone(),
                before: old.cloned(),
                after: new.cloned(),
                edit: None,
            }));
        }
    }
}

/// Program, table, chain.
type ChainPlace = (Program, String, String);

fn chains(tables: &[Table]) -> BTreeMap<ChainPlace, Vec<String>> {
    let of = |table: &Table| -> Vec<(ChainPlace, Vec<String>)> {
        let Some(program) = program(table) else { return Vec::new() };
        let chain = |chain: &unmasq_model::ruleset::Chain| {
            ((program, table.name.to_string(), chain.name.to_string()), texts(table, chain))
        };
        table.chains.iter().map(chain).collect()
    };
    tables.iter().flat_map(of).collect()
}

/// Fields that change without anybody wanting anything.
const VOLATILE: [&str; 5] =
    ["resourceVersion", "managedFields", "generation", "uid", "creationTimestamp"];

fn objects(
    before: &State,
    after: &State,
    gone: &mut Vec<String>,
    new: &mut Vec<String>,
    deeds: &mut Vec<Deed>,
) {
    let all = |state: &State| -> BTreeMap<ObjectName, Value> {
        let each = state.manifests.all().into_iter();
        each.map(|(name, mut object)| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                VOLATILE.iter().for_each(|key| drop(metadata.remove(*key)));
            }
            (name, object)
        })
        .collect()
    };
    let (old, later) = (all(before), all(after));
    gone.extend(old.keys().filter(|name| !later.contains_key(*name)).map(ToString::to_string));
    new.extend(later.keys().filter(|name| !old.contains_key(*name)).map(ToString::to_string));
    for (name, object) in &old {
        let Some(other) = later.get(name).filter(|other| *other != object) else { continue };
        let ObjectName { resource, namespace, name } = name.clone();
        let (patch, back) = (patch(object, other), patch(other, object));
        deeds.push(Deed::Object(ObjectDeed { resource, namespace, name, patch, back }));
    }
}

/// The merge patch that leads from one value to another (RFC 7386).
fn patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let mut fields = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        fields.insert(key.clone(), Value::Null);
    }
    for (key, value) in to {
        match from.get(key) {
            Some(there) if there == value => {}
            Some(there) => drop(fields.insert(key.clone(), patch(there, value))),
            None => drop(fields.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(fields)
}

/// The questions of the state before, where both have the same nodes and Services.
fn answers(
    before: &State,
    after: &State,
    expectations: &Expectations,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Changes, String> {
    let (old, later) = (&before.cluster, &after.cluster);
    if !change::are_comparable(old, later) {
        return Err(
            "the two have other nodes or Services, so their answers were not compared".into()
        );
    }
    let paths = |cluster| Paths::new(cluster, Options::default());
    let clients = clients(old, expectations, &dependences(old));
    Ok(change::changes(&paths(old), &paths(later), &clients, progress))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifests::merge;

    #[test]
    fn a_patch_leads_from_one_to_the_other() {
        for (from, to, expected) in [
            (
                json!({"a": 1, "b": {"c": 2}}),
                json!({"a": 1, "b": {"c": 3}}),
                json!({"b": {"c": 3}}),
            ),
            (json!({"a": 1, "b": 2}), json!({"b": 2}), json!({"a": null})),
            (json!({}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"a": {"x": 1}}), json!({"a": [1]}), json!({"a": [1]})),
        ] {
            assert_eq!(patch(&from, &to), expected);
            let mut there = from.clone();
            merge(&mut there, &expected);
            assert_eq!(there, to);
        }
    }
}

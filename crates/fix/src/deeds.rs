//! What remedies' steps mean as deeds.
//!
//! Steps come one after the other: what a deed finds is what those before it leave.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use unmasq_audit::change::{self, RuleChange, TableChange};
use unmasq_audit::{Action, Edit, Program, Workload};
use unmasq_model::rule::Rule;
use unmasq_model::ruleset::{Backend, Chain, Ruleset, Table, TableFamily};

use crate::deed::{self, Deed, FileDeed, ObjectDeed, RulesDeed, TableDeed, without_counts};
use crate::file;
use crate::manifests::{Manifests, ObjectName, merge};
use crate::state::State;

/// Why a step is no deed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CannotDo {
    /// It is meant for a person.
    Person,
    /// It could be one, but for this.
    Not(String),
}

/// Makes deeds of actions, in their order.
#[derive(Debug, Clone)]
pub(crate) struct Drafter {
    /// Objects as the deeds so far leave them.
    manifests: Manifests,
    /// Rules of nodes, likewise.
    rulesets: BTreeMap<String, Ruleset>,
    /// Files of nodes by node and path, likewise.
    files: BTreeMap<(String, String), String>,
}

impl Drafter {
    /// Begins with a state.
    pub(crate) fn new(state: &State) -> Self {
        let nodes = &state.cluster.nodes;
        let rules = nodes
            .iter()
            .filter_map(|node| Some((node.name.clone(), node.host.as_ref()?.ruleset.clone())));
        let files = nodes.iter().flat_map(|node| {
            let of = |(path, text): (&String, &String)| {
                ((node.name.clone(), path.clone()), text.clone())
            };
            node.files.iter().map(of)
        });
        Drafter {
            manifests: state.manifests.clone(),
            rulesets: rules.collect(),
            files: files.collect(),
        }
    }

    /// The deeds of an action; none, if what it wants is so already.
    pub(crate) fn deeds(&mut self, action: &Action) -> Result<Vec<Deed>, CannotDo> {
        match action {
            Action::Patch { resource, namespace, name, patch, undo: _ } => {
                let object = ObjectName {
                    resource: resource.clone(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                let patch = serde_json::from_str(patch)
                    .map_err(|error| CannotDo::Not(format!("the patch is no JSON: {error}")))?;
                self.patched(object, patch)
            }
            Action::Environment { workload, name, value: Some(value), old: _ } => {
                let container = workload.container.as_deref().unwrap_or_default();
                self.in_containers(workload, |containers| {
                    set_variable(containers, container, name, value)
                })
            }
            Action::Argument {
                program: Program::Workload(workload),
                argument: Some(argument),
                old: _,
            } => {
                let of = workload.container.as_deref();
                self.in_containers(workload, |containers| set_argument(containers, of, argument))
            }
            Action::Environment { value: None, .. }
            | Action::Argument { .. }
            | Action::Restart { .. }
            | Action::ByHand { .. } => Err(CannotDo::Person),
            Action::Rules { node, changes } => self.rules(node, changes),
            Action::Tables { node, changes } => {
                changes.iter().map(|change| table(node, change)).collect()
            }
            Action::File { nodes, path, edit } => {
                let each = nodes.iter().map(|node| self.file(node, path, edit));
                Ok(each.collect::<Result<Vec<Option<Deed>>, _>>()?.into_iter().flatten().collect())
            }
        }
    }

    /// A deed for each chain that changes.
    fn rules(&mut self, node: &str, changes: &[RuleChange]) -> Result<Vec<Deed>, CannotDo> {
        let not = |why: String| CannotDo::Not(format!("node {node}: {why}"));
        let ruleset = self.rulesets.get_mut(node);
        let before = ruleset.ok_or_else(|| not("its rules were not captured".to_owned()))?;
        let mut after = before.clone();
        change::apply(&mut after, changes).map_err(|misfit| not(misfit.to_string()))?;
        let mut deeds = Vec::new();
        for (old, new) in before.tables.iter().zip(&after.tables) {
            for (old_chain, new_chain) in old.chains.iter().zip(&new.chains) {
                let (before, after) = (texts(old, old_chain), texts(new, new_chain));
                if before == after {
                    continue;
                }
                let program = program(old).ok_or_else(|| {
                    not(format!("tables of family {} are changed by hand", old.family))
                })?;
                deeds.push(Deed::Rules(RulesDeed {
                    node: node.to_owned(),
                    program,
                    table: old.name.to_string(),
                    chain: old_chain.name.to_string(),
                    before,
                    after,
                }));
            }
        }
        *before = after;
        Ok(deeds)
    }

    /// `None`: the file is as it should be.
    fn file(&mut self, node: &str, path: &str, edit: &Edit) -> Result<Option<Deed>, CannotDo> {
        let key = (node.to_owned(), path.to_owned());
        let before = self.files.get(&key).cloned();
        let after = file::edited(before.as_deref(), edit)
            .map_err(|why| CannotDo::Not(format!("node {node}, {path}: {why}")))?;
        if before.as_ref() == Some(&after) {
            return Ok(None);
        }
        self.files.insert(key, after.clone());
        let (node, path) = (node.to_owned(), path.to_owned());
        let (after, edit) = (Some(after), Some(edit.clone()));
        Ok(Some(Deed::File(FileDeed { node, path, before, after, edit })))
    }

    fn find(&self, name: &ObjectName) -> Result<Value, CannotDo> {
        let found = self.manifests.find(name);
        found.ok_or_else(|| CannotDo::Not(format!("{name} was not captured")))
    }

    fn patched(&mut self, name: ObjectName, patch: Value) -> Result<Vec<Deed>, CannotDo> {
        let object = self.find(&name)?;
        let mut changed = object.clone();
        merge(&mut changed, &patch);
        if changed == object {
            return Ok(Vec::new());
        }
        let back = inverse(&object, &patch);
        self.manifests.replace(&name, changed);
        let ObjectName { resource, namespace, name } = name;
        Ok(vec![Deed::Object(ObjectDeed { resource, namespace, name, patch, back })])
    }

    /// A patch of a workload's containers: the whole list, because a merge patch knows no items.
    fn in_containers(
        &mut self,
        workload: &Workload,
        change: impl Fn(&mut Vec<Value>) -> Result<(), String>,
    ) -> Result<Vec<Deed>, CannotDo> {
        let object = ObjectName {
            resource: workload.kind.resource().to_owned(),
            namespace: Some(workload.namespace.clone()),
            name: workload.name.clone(),
        };
        let there = self.find(&object)?;
        let containers = there.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        let Some(containers) = containers else {
            return Err(CannotDo::Not(format!("{object} has no containers")));
        };
        let mut containers = containers.clone();
        change(&mut containers).map_err(|why| CannotDo::Not(format!("{object}: {why}")))?;
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        self.patched(object, patch)
    }
}

/// A chain's rules as a deed has them.
pub(crate) fn texts(table: &Table, chain: &Chain) -> Vec<String> {
    let text = |rule: &Rule| match table.backend {
        Backend::Nft => without_counts(&rule.text),
        Backend::Legacy | Backend::IptablesNft => rule.text.to_string(),
    };
    chain.rules.iter().map(text).collect()
}

/// The program that writes a table; `None`: one of another family than IP.
pub(crate) fn program(table: &Table) -> Option<deed::Program> {
    use deed::Program as P;
    Some(match (table.backend, table.family) {
        (Backend::Legacy, TableFamily::Ip) => P::IptablesLegacy,
        (Backend::Legacy, TableFamily::Ip6) => P::Ip6tablesLegacy,
        (Backend::IptablesNft, TableFamily::Ip) => P::IptablesNft,
        (Backend::IptablesNft, TableFamily::Ip6) => P::Ip6tablesNft,
        (Backend::Nft, TableFamily::Ip) => P::NftIp,
        (Backend::Nft, TableFamily::Ip6) => P::NftIp6,
        (Backend::Nft, TableFamily::Inet) => P::NftInet,
        (Backend::Legacy | Backend::IptablesNft, TableFamily::Inet)
        | (_, TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev) => return None,
    })
}

fn table(node: &str, change: &TableChange) -> Result<Deed, CannotDo> {
    let text = |table: &Option<Table>| {
        table
            .as_ref()
            .map(change::table_text)
            .transpose()
            .map_err(|why| CannotDo::Not(format!("node {node}: {why}")))
    };
    let either = change.new.as_ref().or(change.old.as_ref());
    let Some((table, program)) = either.and_then(|table| Some((table, program(table)?))) else {
        return Err(CannotDo::Not(format!("node {node}: the table is of no IP family")));
    };
    Ok(Deed::Table(TableDeed {
        node: node.to_owned(),
        program,
        name: table.name.to_string(),
        before: text(&change.old)?,
        after: text(&change.new)?,
    }))
}

/// The patch that takes another one back: what the object has wherever the patch says something.
fn inverse(object: &Value, patch: &Value) -> Value {
    let Value::Object(fields) = patch else { return object.clone() };
    let of = |(key, value): (&String, &Value)| {
        let back = match object.get(key) {
            None => Value::Null,
            Some(there) if value.is_object() && there.is_object() => inverse(there, value),
            Some(there) => there.clone(),
        };
        (key.clone(), back)
    };
    Value::Object(fields.iter().map(of).collect())
}

fn container<'c>(containers: &'c mut [Value], name: &str) -> Result<&'c mut Value, String> {
    let found = containers.iter_mut().find(|one| one.get("name") == Some(&json!(name)));
    found.ok_or_else(|| format!("it has no container {name}"))
}

fn set_variable(containers: &mut [Value], of: &str, name: &str, value: &str) -> Result<(), String> {
    let container = container(containers, of)?;
    let new = json!({"name": name, "value": value});
    match container.get_mut("env").and_then(Value::as_array_mut) {
        Some(variables) => {
            match variables.iter_mut().find(|one| one.get("name") == Some(&json!(name))) {
                Some(there) => *there = new,
                None => variables.push(new),
            }
        }
        None => merge(container, &json!({"env": [new]})),
    }
    Ok(())
}

/// Sets a program's flag where it stands; else adds it to the arguments of its container. `of`: that
/// one's name; `None`: it is the only one, or the only one that has the flag.
fn set_argument(containers: &mut [Value], of: Option<&str>, argument: &str) -> Result<(), String> {
    let flag = argument.split('=').next().unwrap_or(argument);
    let is_it = |text: &str| text == flag || text.starts_with(&format!("{flag}="));
    let has = |one: &Value| words_of(one, "args").chain(words_of(one, "command")).any(is_it);
    let container = match (of, containers) {
        (Some(name), all) => container(all, name)?,
        (None, [one]) => one,
        (None, all) => {
            let mut with = all.iter_mut().filter(|one| has(one));
            match (with.next(), with.next()) {
                (Some(one), None) => one,
                (None, _) | (Some(_), Some(_)) => {
                    return Err(format!("which of its containers takes {flag} can't be told"));
                }
            }
        }
    };
    if words_of(container, "command").any(|word| word == "-c") {
        return Err("its container starts the program by a shell's command line".to_owned());
    }
    for list in ["args", "command"] {
        let Some(words) = container.get_mut(list).and_then(Value::as_array_mut) else { continue };
        let place = words.iter().position(|word| word.as_str().is_some_and(is_it));
        let Some(place) = place else { continue };
        // `--flag value`, but not `--flag --other`.
        let is_apart = words[place] == json!(flag)
            && words
                .get(place + 1)
                .and_then(Value::as_str)
                .is_some_and(|next| !next.starts_with('-'));
        words[place] = json!(argument);
        if is_apart {
            words.remove(place + 1);
        }
        return Ok(());
    }
    // Arguments stand behind those of the command.
    for list in ["args", "command"] {
        if let Some(words) = container.get_mut(list).and_then(Value::as_array_mut) {
            words.push(json!(argument));
            return Ok(());
        }
    }
    merge(container, &json!({"args": [argument]}));
    Ok(())
}

fn words_of<'c>(container: &'c Value, list: &str) -> impl Iterator<Item = &'c str> {
    let words = container.get(list).and_then(Value::as_array);
    words.into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_taken_back_by_what_was_there() {
        for (object, patch, back) in [
            (json!({"a": {"b": 1}}), json!({"a": {"b": 2}}), json!({"a": {"b": 1}})),
            (json!({"a": {"c": 1}}), json!({"a": {"b": 2}}), json!({"a": {"b": null}})),
            (json!({}), json!({"a": {"b": 2}}), json!({"a": null})),
            (json!({"a": [1]}), json!({"a": [2, 3]}), json!({"a": [1]})),
            (json!({"a": 1, "b": 2}), json!({"b": null}), json!({"b": 2})),
        ] {
            assert_eq!(inverse(&object, &patch), back, "{object} {patch}");
            let mut there = object.clone();
            merge(&mut there, &patch);
            merge(&mut there, &back);
            assert_eq!(there, object, "{object} {patch}");
        }
    }

    #[test]
    fn a_flag_is_set_where_it_stands() {
        let off = "--egress=false";
        let set = |mut containers: Value, of: Option<&str>| {
            let list = containers.as_array_mut().unwrap();
            set_argument(list, of, off).map(|()| containers)
        };
        let router = Some("router");
        for (of, before, after) in [
            (
                router,
                json!([{"name": "a", "args": ["--egress"]}, {"name": "router", "args": ["--egress"]}]),
                json!([{"name": "a", "args": ["--egress"]}, {"name": "router", "args": [off]}]),
            ),
            (
                None,
                json!([{"command": ["router", "--egress=true"]}]),
                json!([{"command": ["router", off]}]),
            ),
            (
                None,
                json!([{"name": "a", "args": ["--x"]}, {"args": ["--egress"]}]),
                json!([{"name": "a", "args": ["--x"]}, {"args": [off]}]),
            ),
            (None, json!([{"args": ["--egress-x"]}]), json!([{"args": ["--egress-x", off]}])),
            (None, json!([{"args": ["--egress", "true", "--y"]}]), json!([{"args": [off, "--y"]}])),
            (router, json!([{"name": "router"}]), json!([{"name": "router", "args": [off]}])),
        ] {
            assert_eq!(set(before, of), Ok(after));
        }
        // None of it, several that may be meant, and a shell, whose argument it would be.
        for (of, containers) in [
            (router, json!([{"name": "a", "args": ["--egress"]}])),
            (None, json!([{"args": ["--x"]}, {"args": ["--y"]}])),
            (router, json!([{"name": "router", "command": ["/bin/sh", "-c", "exec router"]}])),
        ] {
            assert!(set(containers.clone(), of).is_err(), "{containers}");
        }
    }

    #[test]
    fn a_variable_is_set_in_its_container() {
        let mut containers =
            json!([{"name": "a"}, {"name": "b", "env": [{"name": "X", "value": "1"}]}]);
        let list = containers.as_array_mut().unwrap();
        set_variable(list, "b", "X", "2").unwrap();
        set_variable(list, "b", "Y", "3").unwrap();
        set_variable(list, "a", "Z", "4").unwrap();
        assert!(set_variable(list, "c", "X", "2").is_err());
        let env = |name: &str, value: &str| json!({"name": name, "value": value});
        assert_eq!(
            containers,
            json!([{"name": "a", "env": [env("Z", "4")]}, {"name": "b", "env": [env("X", "2"), env("Y", "3")]}])
        );
    }
}

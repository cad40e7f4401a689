//! Where settings are looked for: commands of containers and processes, ConfigMaps, files.

use serde_json::Value;

use super::text::{self, FromText};
use super::{Place, Setting, Unread, Unreadable, Values};
use crate::kubernetes::{ConfigMap, Container, Metadata, Objects, PodSpec};
use crate::{Node, Process};

/// Everything that was read, and what could not be understood of it.
pub(super) struct Sources<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) objects: &'a Objects,
    pub(super) unreadable: Vec<Unreadable>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(nodes: &'a [Node], objects: &'a Objects) -> Self {
        Sources { nodes, objects, unreadable: Vec::new() }
    }

    /// Commands that run a program: first as they run on nodes, then as objects say.
    pub(super) fn commands(&self, program: &str) -> Vec<Command<'a>> {
        let mut found: Vec<Command<'a>> = Vec::new();
        for (node, process) in self.processes() {
            if process.name == program {
                found.push(Command::of_process(node, process));
            }
        }
        found.extend(self.containers(program));
        found
    }

    /// All processes with their nodes.
    pub(super) fn processes(&self) -> impl Iterator<Item = (&'a str, &'a Process)> + use<'a> {
        let nodes = self.nodes;
        nodes.iter().flat_map(|node| {
            node.processes.iter().flatten().map(|process| (node.name.as_str(), process))
        })
    }

    /// Containers that run a program, by the words of their commands or by their names. Of pods
    /// only those that no node's static pods and no DaemonSet stand for: where there is a
    /// DaemonSet or Deployment, its pods say the same.
    pub(super) fn containers(&self, program: &str) -> Vec<Command<'a>> {
        let objects = self.objects;
        let sets = objects.daemon_sets.iter().map(|set| ("DaemonSet", set));
        let sets = sets.chain(objects.deployments.iter().map(|set| ("Deployment", set)));
        let workloads = sets.chain(objects.stateful_sets.iter().map(|set| ("StatefulSet", set)));
        let mut found: Vec<Command<'a>> = workloads
            .flat_map(|(kind, set)| {
                runs(&set.spec.template.spec, program)
                    .map(move |one| Command::of_container(kind, &set.metadata, one))
            })
            .collect();
        if found.is_empty() {
            found = objects
                .pods
                .iter()
                .filter(|pod| !pod.has_ended())
                .flat_map(|pod| {
                    runs(&pod.spec, program)
                        .map(|one| Command::of_container("Pod", &pod.metadata, one))
                })
                .collect();
        }
        found
    }

    /// The text of a file on each node that has it, in order of the nodes.
    pub(super) fn files(&self, path: &str) -> Vec<(&'a str, &'a str)> {
        let nodes = self.nodes.iter();
        nodes
            .filter_map(|node| Some((node.name.as_str(), node.files.get(path)?.as_str())))
            .collect()
    }

    /// Files of a folder on each node: the node, the path, the text.
    pub(super) fn folder(&self, folder: &str) -> Vec<(&'a str, &'a str, &'a str)> {
        let of = |node: &'a Node| {
            let inside = node.files.iter().filter(|(path, _)| path.starts_with(folder));
            inside.map(|(path, text)| (node.name.as_str(), path.as_str(), text.as_str()))
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// Keys of ConfigMaps that are chosen by name and key, as documents. One that can't be read is
    /// kept apart.
    pub(super) fn documents(
        &mut self,
        wanted: impl Fn(&ConfigMap, &str) -> bool,
    ) -> Vec<Document<'a>> {
        let mut found = Vec::new();
        for map in &self.objects.config_maps {
            for (key, text) in map.data.iter().filter(|(key, _)| wanted(map, key)) {
                let document = Document { metadata: &map.metadata, key, value: Value::Null };
                match text::document(text) {
                    Ok(value) => found.push(Document { value, ..document }),
                    Err((line, why)) => {
                        let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
                        let place = Place::Object {
                            kind: "ConfigMap",
                            namespace: map.metadata.namespace.clone(),
                            name: map.metadata.name.clone(),
                            part: format!("{key}{line}"),
                            key: String::new(),
                        };
                        self.unreadable.push(Unreadable { what: Unread::Document(why), place });
                    }
                }
            }
        }
        found
    }

    /// Takes a value over. An empty text is none; one that can't be read is kept apart.
    pub(super) fn take<T: FromText + PartialEq>(
        &mut self,
        values: &mut Values<T>,
        found: Option<Setting<String>>,
    ) {
        let Some(Setting { value, place }) = found.filter(|found| !found.value.is_empty()) else {
            return;
        };
        match T::from_text(&value).filter(|_| value != LEFT_OUT) {
            Some(read) => values.push(read, place),
            None => {
                let what = match value == LEFT_OUT {
                    true => Unread::LeftOut,
                    false => Unread::Value(value),
                };
                self.unreadable.push(Unreadable { what, place });
            }
        }
    }
}

/// What stands for a value that was not captured.
const LEFT_OUT: &str = "***";

/// Containers of a pod that run a program.
fn runs<'a>(pod: &'a PodSpec, program: &str) -> impl Iterator<Item = &'a Container> {
    let program = program.to_owned();
    pod.containers.iter().filter(move |container| {
        let mut words = container.words().flat_map(str::split_whitespace);
        container.name == program || words.any(|word| base(word) == program)
    })
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// A key of a ConfigMap, read.
pub(super) struct Document<'a> {
    metadata: &'a Metadata,
    key: &'a str,
    pub(super) value: Value,
}

impl Document<'_> {
    /// The value at a JSON pointer.
    pub(super) fn at(&self, pointer: &str) -> Option<Setting<String>> {
        let value = text::at(&self.value, pointer)?;
        Some(Setting { value, place: self.place(pointer) })
    }

    /// Where the value at a JSON pointer stands.
    pub(super) fn place(&self, pointer: &str) -> Place {
        Place::Object {
            kind: "ConfigMap",
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
            part: self.key.to_owned(),
            key: pointer.trim_start_matches('/').replace('/', "."),
        }
    }
}

/// The value of a ConfigMap's key.
pub(super) fn key(map: &ConfigMap, key: &str) -> Option<Setting<String>> {
    let place = Place::Object {
        kind: "ConfigMap",
        namespace: map.metadata.namespace.clone(),
        name: map.metadata.name.clone(),
        part: String::new(),
        key: key.to_owned(),
    };
    Some(Setting { value: map.data.get(key)?.clone(), place })
}

/// A program with its arguments.
pub(super) struct Command<'a> {
    /// Where it is said that it runs.
    pub(super) place: Place,
    /// Its arguments, maybe after its name.
    words: Vec<&'a str>,
    /// Its container, if it has one.
    pub(super) container: Option<&'a Container>,
}

impl<'a> Command<'a> {
    pub(super) fn of_process(node: &str, process: &'a Process) -> Self {
        let (node, program) = (node.to_owned(), process.name.clone());
        Command {
            place: Place::Process { node, program, flag: String::new() },
            words: process.arguments.iter().map(String::as_str).collect(),
            container: None,
        }
    }

    fn of_container(kind: &'static str, metadata: &Metadata, container: &'a Container) -> Self {
        Command {
            place: Place::Object {
                kind,
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone(),
                part: format!("container {}", container.name),
                key: String::new(),
            },
            // A shell has the whole command in one word.
            words: container.words().flat_map(str::split_whitespace).collect(),
            container: Some(container),
        }
    }

    /// The value of a flag: `--name=value`, `--name value`, with one dash too. The last counts.
    pub(super) fn text(&self, flag: &str) -> Option<Setting<String>> {
        self.last(flag, |at| {
            let next = self.words.get(at + 1).filter(|next| !next.starts_with('-'));
            next.map(|next| (*next).to_owned())
        })
    }

    /// The value of a flag that needs none to be on.
    pub(super) fn switch(&self, flag: &str) -> Option<Setting<String>> {
        self.last(flag, |_| Some("true".to_owned()))
    }

    /// The values of a flag that may stand there several times.
    pub(super) fn each(&self, flag: &str) -> Vec<Setting<String>> {
        let value = |at: usize| self.words.get(at + 1).map(|next| (*next).to_owned());
        self.found(flag, value)
    }

    fn last(&self, flag: &str, value: impl Fn(usize) -> Option<String>) -> Option<Setting<String>> {
        self.found(flag, value).pop()
    }

    fn found(&self, flag: &str, value: impl Fn(usize) -> Option<String>) -> Vec<Setting<String>> {
        let mut found = Vec::new();
        for (at, word) in self.words.iter().enumerate() {
            let Some(bare) = word.strip_prefix("--").or(word.strip_prefix('-')) else { continue };
            let value = match bare.split_once('=') {
                Some((name, value)) if name == flag => Some(value.to_owned()),
                None if bare == flag => value(at),
                Some(_) | None => continue,
            };
            let name = &word[..word.len() - bare.len() + flag.len()];
            if let Some(value) = value {
                found.push(Setting { value, place: self.place_of(name) });
            }
        }
        found
    }

    /// The value of a variable of its environment.
    pub(super) fn variable(&self, name: &str) -> Option<Setting<String>> {
        let value = self.container?.variable(name)?.to_owned();
        Some(Setting { value, place: self.place_of(name) })
    }

    fn place_of(&self, what: &str) -> Place {
        let mut place = self.place.clone();
        match &mut place {
            Place::Object { key: at, .. }
            | Place::File { key: at, .. }
            | Place::Process { flag: at, .. }
            | Place::State { what: at, .. }
            | Place::Given { option: at } => what.clone_into(at),
        }
        place
    }
}

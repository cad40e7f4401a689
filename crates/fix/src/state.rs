//! A cluster on which deeds are tried out.
//!
//! ```text
//!  State ─ deeds ─▶ objects, files, rules changed ─▶ read again ─ owners react ─▶ State, Reactions
//! ```

use std::collections::BTreeMap;

use serde_json::Value;
use unmasq_cluster::{Cluster, Node};
use unmasq_model::host::Host;
use unmasq_model::origin::FileId;
use unmasq_model::ruleset::{Backend, Chain, Table, TableFamily};
use unmasq_parse::{iptables, nft};

use crate::deed::{Deed, Edit, FileDeed, ObjectDeed, Program, RulesDeed, TableDeed};
use crate::manifests::{Manifests, ObjectName, merge};
use crate::owner::{self, Reactions, foretold};
use crate::reboot::{self, Reboot};
use crate::transplant::{self, Strange};

/// A cluster, with the files that its objects stand in.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What is known of it.
    pub cluster: Cluster,
    /// Its objects with all their fields.
    pub manifests: Manifests,
}

/// Why a deed can't be tried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// The object was not captured.
    #[error("{0} was not captured, so what a patch of it does can't be foretold")]
    NoObject(ObjectName),
    /// The object isn't as the deed says.
    #[error("{0} is not as the plan says that it is")]
    OtherObject(ObjectName),
    /// The node's state was not captured.
    #[error("the state of node {0} was not captured")]
    NoNode(String),
    /// The table isn't there.
    #[error("{subject}: there is no such table")]
    NoTable {
        /// Where.
        subject: String,
    },
    /// The chain isn't as the deed says.
    #[error("{subject}: {why}")]
    Strange {
        /// Where.
        subject: String,
        /// What differs.
        why: Strange,
    },
    /// A text of the deed can't be read as rules.
    #[error("{subject}: `{text}` can't be read: {why}")]
    Unreadable {
        /// Where.
        subject: String,
        /// The text.
        text: String,
        /// Why.
        why: String,
    },
}

impl State {
    /// The cluster after all deeds, and what the owners of rules have done by then.
    pub fn after(&self, deeds: &[Deed]) -> Result<(State, Reactions), DraftError> {
        let mut draft = Draft { manifests: self.manifests.clone(), nodes: self.nodes() };
        for deed in deeds {
            draft.carry_out(deed)?;
        }
        let mut after = self.read_again(draft);
        let reactions = owner::react(&self.cluster, &mut after.cluster, deeds);
        Ok((after, reactions))
    }

    /// The cluster once its nodes were rebooted: of rules, what files and programs write again.
    /// `original`: the cluster as it was captured, before these deeds.
    pub(crate) fn restarted(&self, original: &State, deeds: &[Deed]) -> Restarted {
        let mut state = self.clone();
        let reboot = reboot::reboot(original, &mut state, deeds);
        let reactions = owner::restart(&original.cluster, &mut state.cluster);
        Restarted { state, reactions, reboot }
    }

    /// The nodes, without what was filled in.
    fn nodes(&self) -> Vec<Node> {
        let mut nodes = self.cluster.nodes.clone();
        for host in nodes.iter_mut().filter_map(|node| node.host.as_mut()) {
            host.assumed_sets.clear();
        }
        nodes
    }

    fn read_again(&self, draft: Draft) -> State {
        let objects = match draft.manifests == self.manifests {
            true => self.cluster.objects.clone(),
            false => draft.manifests.objects(),
        };
        let overrides = self.cluster.overrides.clone();
        let mut cluster = Cluster::new(draft.nodes, objects, overrides);
        cluster.missing.clone_from(&self.cluster.missing);
        cluster.problems.clone_from(&self.cluster.problems);
        State { cluster, manifests: draft.manifests }
    }
}

/// A cluster whose nodes were rebooted.
pub(crate) struct Restarted {
    pub(crate) state: State,
    pub(crate) reactions: Reactions,
    pub(crate) reboot: Reboot,
}

struct Draft {
    manifests: Manifests,
    nodes: Vec<Node>,
}

impl Draft {
    fn carry_out(&mut self, deed: &Deed) -> Result<(), DraftError> {
        match deed {
            Deed::Object(object) => self.patch(object),
            Deed::File(file) => self.file(file),
            Deed::Rules(rules) => self.rules(rules, deed.subject()),
            Deed::Table(table) => self.table(table, deed.subject()),
        }
    }

    fn patch(&mut self, deed: &ObjectDeed) -> Result<(), DraftError> {
        let name = ObjectName {
            resource: deed.resource.clone(),
            namespace: deed.namespace.clone(),
            name: deed.name.clone(),
        };
        let Some(object) = self.manifests.find(&name) else {
            return Err(DraftError::NoObject(name));
        };
        let merged = |patch: &Value| {
            let mut merged = object.clone();
            merge(&mut merged, patch);
            merged
        };
        if merged(&deed.back) != object {
            return Err(DraftError::OtherObject(name));
        }
        let after = merged(&deed.patch);
        self.start_again(&object, &after);
        self.manifests.replace(&name, after);
        Ok(())
    }

    /// Processes of a workload's containers start again with the arguments that these have then.
    fn start_again(&mut self, before: &Value, after: &Value) {
        let (old, new) = (arguments(before), arguments(after));
        let changed = old.iter().filter_map(|(name, old)| Some((old, new.get(name)?)));
        for (old, new) in changed.filter(|(old, new)| old != new && !old.is_empty()) {
            let processes = self.nodes.iter_mut().flat_map(|node| node.processes.iter_mut());
            for process in processes.flatten().filter(|one| one.arguments.ends_with(old)) {
                process.arguments.truncate(process.arguments.len() - old.len());
                process.arguments.extend(new.iter().cloned());
            }
        }
    }

    fn node(&mut self, name: &str) -> Result<&mut Node, DraftError> {
        let mut nodes = self.nodes.iter_mut();
        nodes.find(|node| node.name == name).ok_or_else(|| DraftError::NoNode(name.to_owned()))
    }

    fn host(&mut self, node: &str) -> Result<&mut Host, DraftError> {
        let host = self.node(node)?.host.as_mut();
        host.ok_or_else(|| DraftError::NoNode(node.to_owned()))
    }

    fn file(&mut self, deed: &FileDeed) -> Result<(), DraftError> {
        let files = &mut self.node(&deed.node)?.files;
        match &deed.after {
            Some(text) => drop(files.insert(deed.path.clone(), text.clone())),
            None => drop(files.remove(&deed.path)),
        }
        Ok(())
    }

    fn rules(&mut self, deed: &RulesDeed, subject: String) -> Result<(), DraftError> {
        let host = self.host(&deed.node)?;
        let file = foretold(host);
        let mut tables = host.ruleset.tables.iter_mut();
        let there = tables.find(|table| {
            *table.name == *deed.table
                && table.backend == backend(deed.program)
                && table.family == family(deed.program)
        });
        let Some(there) = there else { return Err(DraftError::NoTable { subject }) };
        let edits = deed.edits();
        let new = coming(deed, &edits, there, file, &subject)?;
        transplant::edit(there, &deed.chain, &deed.before, &edits, &new)
            .map_err(|why| DraftError::Strange { subject, why })
    }

    fn table(&mut self, deed: &TableDeed, subject: String) -> Result<(), DraftError> {
        let host = self.host(&deed.node)?;
        let file = foretold(host);
        let family = family(deed.program);
        let is_it = |table: &Table| {
            table.backend == Backend::Nft && table.family == family && *table.name == *deed.name
        };
        let tables = &mut host.ruleset.tables;
        tables.retain(|table| !is_it(table));
        let Some(text) = &deed.after else { return Ok(()) };
        let (read, problems) = nft::text::parse(text, file, &|_, _| false);
        if let Some(problem) = problems.into_iter().next() {
            let (text, why) = (text.clone(), problem.message);
            return Err(DraftError::Unreadable { subject, text, why });
        }
        tables.extend(read);
        Ok(())
    }
}

/// The arguments of a workload's containers by the containers' names.
fn arguments(workload: &Value) -> BTreeMap<String, Vec<String>> {
    let containers = workload.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let of = |container: &Value| {
        let words = container.get("args").and_then(Value::as_array);
        let words = words.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        Some((container.get("name")?.as_str()?.to_owned(), words.collect()))
    };
    containers.into_iter().flatten().filter_map(of).collect()
}

/// A table with the rules that come, in the deed's chain, and all chains that they may jump to.
fn coming(
    deed: &RulesDeed,
    edits: &[Edit],
    there: &Table,
    file: FileId,
    subject: &str,
) -> Result<Table, DraftError> {
    let RulesDeed { table, chain, program, .. } = deed;
    let rules = edits.iter().filter_map(|edit| match edit {
        Edit::Insert { rule, .. } => Some(rule.as_str()),
        Edit::Delete { .. } => None,
    });
    let (text, (tables, problems)) = match backend(*program) {
        Backend::Legacy | Backend::IptablesNft => {
            let declared = |chain: &Chain| {
                let policy = if chain.base.is_some() { "ACCEPT" } else { "-" };
                format!(":{} {policy} [0:0]\n", chain.name)
            };
            let chains: String = there.chains.iter().map(declared).collect();
            let rules: String = rules.map(|rule| format!("{rule}\n")).collect();
            let text = format!("*{table}\n{chains}{rules}COMMIT\n");
            let read = iptables::parse(&text, file, family(*program), backend(*program));
            (text, read)
        }
        Backend::Nft => {
            let names = there.chains.iter().map(|chain| &*chain.name);
            let others = names.filter(|name| *name != chain.as_str());
            let others: String = others.map(|name| format!("\tchain {name} {{\n\t}}\n")).collect();
            let rules: String = rules.map(|rule| format!("\t\t{rule}\n")).collect();
            let family = program.family();
            let text =
                format!("table {family} {table} {{\n{others}\tchain {chain} {{\n{rules}\t}}\n}}\n");
            let read = nft::text::parse(&text, file, &|_, _| false);
            (text, read)
        }
    };
    let unreadable = |why: String| {
        let (subject, text) = (subject.to_owned(), text.trim().to_owned());
        DraftError::Unreadable { subject, text, why }
    };
    if let Some(problem) = problems.into_iter().next() {
        return Err(unreadable(problem.message));
    }
    tables.into_iter().next().ok_or_else(|| unreadable("it has no table".to_owned()))
}

pub(crate) fn backend(program: Program) -> Backend {
    match program {
        Program::IptablesLegacy | Program::Ip6tablesLegacy => Backend::Legacy,
        Program::IptablesNft | Program::Ip6tablesNft => Backend::IptablesNft,
        Program::NftIp | Program::NftIp6 | Program::NftInet => Backend::Nft,
    }
}

pub(crate) fn family(program: Program) -> TableFamily {
    match program {
        Program::IptablesLegacy | Program::IptablesNft | Program::NftIp => TableFamily::Ip,
        Program::Ip6tablesLegacy | Program::Ip6tablesNft | Program::NftIp6 => TableFamily::Ip6,
        Program::NftInet => TableFamily::Inet,
    }
}

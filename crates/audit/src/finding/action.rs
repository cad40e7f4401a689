//! What a remedy does, as data: a program can apply it and take it back, a person can type it.
//!
//! An action says what stands there now beside what comes, so that its [`Undo`] follows from it.
//! Only what a person does ([`Action::ByHand`]) says itself how it is undone.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::change::{self, RuleChange, TableChange};
use crate::{quoted, shell};

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A merge patch of a Kubernetes object.
    Patch {
        /// As kubectl names it (`ippools.crd.projectcalico.org`, `service`).
        resource: String,
        /// Its namespace; `None`: it has none.
        namespace: Option<String>,
        /// Its name.
        name: String,
        /// The patch, as JSON.
        patch: String,
        /// The patch that brings back what was there; `None`: that was not read.
        undo: Option<String>,
    },
    /// An environment variable of a workload's container.
    Environment {
        /// The workload.
        workload: Workload,
        /// The variable.
        name: String,
        /// Its value; `None`: it is taken away.
        value: Option<String>,
        /// Its value before; `None`: it has none.
        old: Option<String>,
    },
    /// An argument of a program.
    Argument {
        /// Whose.
        program: Program,
        /// The flag with its value (`--enable-pod-egress=false`); `None`: the old one is taken away.
        argument: Option<String>,
        /// The argument that it takes the place of, as it is written; `None`: it is added.
        old: Option<String>,
    },
    /// Rules of a node, in one transaction for each program ([`crate::change`]).
    Rules {
        /// The node.
        node: String,
        /// What changes.
        changes: Vec<RuleChange>,
    },
    /// Tables of nft on a node, made or deleted as a whole in one transaction.
    Tables {
        /// The node.
        node: String,
        /// What changes.
        changes: Vec<TableChange>,
    },
    /// A file of nodes.
    File {
        /// The nodes.
        nodes: Vec<String>,
        /// The path.
        path: String,
        /// What changes in it.
        edit: Edit,
    },
    /// A program starts anew, and reads what was changed before.
    Restart {
        /// Which.
        program: Program,
    },
    /// Something outside of the cluster or that only a person can do.
    ByHand {
        /// What is done, if there is more to say than the step's text.
        instructions: Vec<Instruction>,
        /// How it is undone.
        undo: Vec<Instruction>,
    },
}

/// A workload's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Which kind.
    pub kind: WorkloadKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The container; `None`: it is not known which.
    pub container: Option<String>,
}

/// What keeps a workload's pods running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadKind {
    /// One pod on each node.
    DaemonSet,
    /// Some pods.
    Deployment,
}

impl WorkloadKind {
    /// In kubectl's words.
    pub fn resource(self) -> &'static str {
        match self {
            WorkloadKind::DaemonSet => "daemonset",
            WorkloadKind::Deployment => "deployment",
        }
    }
}

/// `daemonset/canal`
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.resource(), self.name)
    }
}

/// A program that has arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// In a workload's container.
    Workload(Workload),
    /// Started by a node's unit, script or static pod.
    OfNode {
        /// The node; `None`: every node.
        node: Option<String>,
        /// Its name.
        name: String,
    },
}

/// What changes in a file; all else stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Edit {
    /// A whole line. One that goes away becomes a comment, so that its place is known.
    Line {
        /// The line that is there, without blanks around it.
        old: String,
        /// What comes in its place.
        new: String,
    },
    /// A value in a document. A file that isn't there is made.
    Value {
        /// How the document is written.
        syntax: Syntax,
        /// Where it stands: a JSON pointer (RFC 6901).
        pointer: String,
        /// The value before, as JSON; `None`: none was read.
        old: Option<String>,
        /// The value, as JSON; `None`: it is taken out.
        new: Option<String>,
    },
}

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Syntax {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// What a person is told to do or to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// A command for a shell.
    Command(String),
    /// Prose.
    Sentence(String),
    /// Text of a configuration or an argument, as it must stand there.
    Literal(String),
}

/// How something is undone.
#[derive(Debug, Clone, PartialEq)]
pub enum Undo {
    /// By the opposite action.
    Action(Action),
    /// By a person.
    ByHand(Instruction),
}

impl Action {
    /// How it is undone.
    pub fn undo(&self) -> Vec<Undo> {
        let opposite = match self.clone() {
            Action::Patch { resource, namespace, name, patch, undo: Some(undo) } => {
                let (patch, undo) = (undo, Some(patch));
                Action::Patch { resource, namespace, name, patch, undo }
            }
            Action::Patch { resource, namespace, name, undo: None, .. } => {
                return vec![Undo::ByHand(unread(&resource, namespace.as_deref(), &name))];
            }
            Action::Environment { workload, name, value, old } => {
                Action::Environment { workload, name, value: old, old: value }
            }
            Action::Argument { program, argument, old } => {
                Action::Argument { program, argument: old, old: argument }
            }
            Action::Rules { node, changes } => {
                Action::Rules { node, changes: change::inverse(&changes) }
            }
            Action::Tables { node, changes } => {
                let changes = changes.iter().map(TableChange::inverse).collect();
                Action::Tables { node, changes }
            }
            Action::File { nodes, path, edit } => {
                Action::File { nodes, path, edit: edit.inverse() }
            }
            // It reads what it read before.
            Action::Restart { program } => Action::Restart { program },
            Action::ByHand { undo, .. } => return undo.into_iter().map(Undo::ByHand).collect(),
        };
        vec![Undo::Action(opposite)]
    }
}

/// What was patched over was not read.
fn unread(resource: &str, namespace: Option<&str>, name: &str) -> Instruction {
    let of = namespace.map_or_else(String::new, |one| format!(" -n {}", quoted(one)));
    match resource {
        // Kubernetes keeps the revisions of these.
        "deployment" | "daemonset" | "statefulset" => {
            let what = shell::object(resource, name);
            Instruction::Command(format!("kubectl rollout undo {what}{of}"))
        }
        _ => Instruction::Sentence(format!(
            "{resource} {name} as it was before: save it first (kubectl get {}{of} -o yaml).",
            shell::object(resource, name)
        )),
    }
}

impl Edit {
    /// The edit that takes it back.
    pub fn inverse(&self) -> Edit {
        match self.clone() {
            Edit::Line { old, new } => Edit::Line { old: new, new: old },
            Edit::Value { syntax, pointer, old, new } => {
                Edit::Value { syntax, pointer, old: new, new: old }
            }
        }
    }
}

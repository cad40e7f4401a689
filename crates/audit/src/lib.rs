//! Where a cluster loses sources, whose rule takes them, by which setting, and what mends it.
//!
//! ```text
//! Host, rule ─▶ owner(), label()                          whose rule it is, and what it is called
//! Cluster ─▶ matrix ─ judge ─▶ findings ─▶ Audit          audit()
//! ```
//!
//! Whose rule it is, is read from names first (tables, chains, sets, comments) and from a rule's
//! shape last; what fits nothing is [`Owner::Unclaimed`], never a guess. What happens to packets is
//! not decided here: that is `unmasq-eval`. Each kind of finding has a page, [`explain`].

pub mod change;
pub mod dependent;
mod doubts;
pub mod expect;
pub mod explain;
mod finding;
mod findings;
mod judge;
mod label;
pub mod matrix;
mod names;
mod networks;
mod owner;
mod shape;
pub mod shell;

pub use doubts::{Doubt, DoubtKind};
pub use finding::{
    Action, Affected, BREAKING, Cause, Confidence, Edit, Evidence, Finding, FindingId, Instruction,
    Program, REST, Reference, Remedy, Requirement, RuleText, Severity, Step, Syntax, Undo,
    Workload, WorkloadKind,
};
pub use findings::{Request, audit, clients};
pub use label::{label, short_text};
pub use owner::{Owner, chain_owner, owner};
pub use shell::{quoted, steers};

/// What was found in a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audit {
    /// In order of severity, the worst first; then by how much is affected. What follows from a
    /// finding stands right behind it.
    pub findings: Vec<Finding>,
    /// Who calls whom, and what becomes of the source.
    pub matrix: matrix::Matrix,
    /// What was seen, in numbers.
    pub totals: Totals,
    /// What was taken for granted, a sentence each.
    pub assumptions: Vec<String>,
    /// What was not seen and would have helped, a sentence each with how to get it.
    pub missing: Vec<String>,
    /// What could hide a loss, a sentence each: nothing was asked of it, or not all that matters.
    /// While there is such a thing, that nothing was found proves nothing.
    pub hidden: Vec<String>,
    /// Settings that can't be read, or that contradict each other.
    pub doubts: Vec<Doubt>,
}

impl Audit {
    /// Whether something could hide a loss, so that finding nothing proves nothing.
    pub fn in_doubt(&self) -> bool {
        self.totals.unknown > 0 || !self.hidden.is_empty() || self.matrix.asked == 0
    }
}

/// What was seen, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Nodes whose state was read.
    pub nodes: usize,
    /// Nodes that are known by their object only.
    pub nodes_not_captured: usize,
    /// Pods.
    pub pods: usize,
    /// Services.
    pub services: usize,
    /// Services without an endpoint: their calls end nowhere, and no expectation is judged by them.
    pub services_without_endpoint: usize,
    /// Rules of all nodes.
    pub rules: usize,
    /// Questions asked, by what became of the source.
    pub preserved: usize,
    /// Rewritten as it is expected, or where nobody is hurt: a node's own calls, hairpins, egress
    /// that nobody wants untranslated.
    pub rewritten_as_expected: usize,
    /// Rewritten, and some finding is about it.
    pub rewritten: usize,
    /// Dropped, refused, or without an answer.
    pub not_answered: usize,
    /// Unknown.
    pub unknown: usize,
}

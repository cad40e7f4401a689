//! What programs do by themselves once their settings have changed.
//!
//! In: a cluster before a change of its objects, files and processes, and the same cluster after
//! it, with the rules that it had. Out: the rules as the programs then write them, and sentences
//! about what they did. Where a program's next rules can't be foretold, the answer says so
//! ([`Unforeseen`]): it is never a guess.
//!
//! ```text
//!  settings, objects ─ differ? ─▶ kube-proxy: its writer, before and after, carried over
//!                                 Felix: sets and rules of pools that no longer masquerade
//!                                 kube-router: its egress rule, gone
//!                                 ip-masq-agent: its writer, as kube-proxy's
//!                                 any other program that reads it: unforeseen
//! ```

mod calico;
mod engine;
mod ip_masq_agent;
mod kube_proxy;
mod kube_router;
mod readers;

use unmasq_audit::Owner;
use unmasq_cluster::Cluster;
use unmasq_model::host::Host;
use unmasq_model::origin::FileId;

use crate::deed::Deed;

/// What programs did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reactions {
    /// What they did, in order.
    pub done: Vec<Reaction>,
    /// What they would do and can't be foretold.
    pub unforeseen: Vec<Unforeseen>,
}

/// Something that a program did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// The program.
    pub owner: Owner,
    /// What it did, a sentence.
    pub text: String,
    /// On which nodes.
    pub nodes: Vec<String>,
}

/// Something that a program would do, and that can't be foretold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unforeseen {
    /// The program.
    pub owner: Owner,
    /// The node.
    pub node: String,
    /// Why not, a sentence.
    pub why: String,
}

/// Has the programs do what they do when `before` becomes `after` by deeds, whose rules are changed.
pub(crate) fn react(before: &Cluster, after: &mut Cluster, deeds: &[Deed]) -> Reactions {
    let mut reactions = Reactions::default();
    kube_proxy::react(before, after, &mut reactions);
    calico::react(before, after, &mut reactions);
    kube_router::react(before, after, &mut reactions);
    ip_masq_agent::react(before, after, &mut reactions);
    readers::react(before, after, deeds, &mut reactions);
    reactions
}

/// Has the programs of all nodes start again: those that write rules of their own at their start
/// write again what `before` had of theirs and what isn't switched off.
pub(crate) fn restart(before: &Cluster, after: &mut Cluster) -> Reactions {
    let mut reactions = Reactions::default();
    engine::restart(before, after, &mut reactions);
    reactions
}

impl Reactions {
    fn did(&mut self, owner: Owner, text: impl Into<String>, nodes: Vec<String>) {
        if !nodes.is_empty() {
            self.done.push(Reaction { owner, text: text.into(), nodes });
        }
    }

    fn unforeseen(&mut self, owner: Owner, node: &str, why: impl Into<String>) {
        let new = Unforeseen { owner, node: node.to_owned(), why: why.into() };
        if !self.unforeseen.contains(&new) {
            self.unforeseen.push(new);
        }
    }
}

/// Where rules are from that nobody has read yet.
const FORETOLD: &str = "foretold";

/// The file of rules that are foretold.
pub(crate) fn foretold(host: &mut Host) -> FileId {
    let known = host.files.iter().position(|file| **file == *FORETOLD);
    let place = known.unwrap_or_else(|| {
        host.files.push(FORETOLD.into());
        host.files.len() - 1
    });
    FileId(u16::try_from(place).unwrap_or(u16::MAX))
}

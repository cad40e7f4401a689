//! What is done to nodes and objects, one deed after the other, each of which is done as a whole or
//! not at all, and can be told from not being done.
//!
//! ```text
//!  Deed ─┬─ Rules    one chain of one table, before and after      iptables-restore, nft -f
//!        ├─ Table    a table of our own, there or not              nft -f
//!        ├─ File     a file of a node, before and after            written beside it, renamed
//!        └─ Object   a Kubernetes object, before and after         patched
//! ```
//!
//! A deed knows both states in full, so the same value does it, undoes it ([`Deed::inverse`]) and
//! says which of the two is there ([`Standing`]). They are written into a journal as they are.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Deed {
    /// A chain's rules.
    Rules(RulesDeed),
    /// A table of our own.
    Table(TableDeed),
    /// A file.
    File(FileDeed),
    /// A Kubernetes object.
    Object(ObjectDeed),
}

/// A chain of one table of a node. Rules are texts as listings show them: iptables' from `-A` on
/// without counters, nft's without handle, comment or counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesDeed {
    /// The node.
    pub node: String,
    /// The program that writes the table.
    pub program: Program,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// All its rules before.
    pub before: Vec<String>,
    /// All its rules after.
    pub after: Vec<String>,
}

/// A program that writes rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// iptables-legacy.
    IptablesLegacy,
    /// ip6tables-legacy.
    Ip6tablesLegacy,
    /// iptables-nft.
    IptablesNft,
    /// ip6tables-nft.
    Ip6tablesNft,
    /// nft, a table of family ip.
    NftIp,
    /// nft, a table of family ip6.
    NftIp6,
    /// nft, a table of family inet.
    NftInet,
}

/// A table of our own on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDeed {
    /// The node.
    pub node: String,
    /// Its program: one of nft's.
    pub program: Program,
    /// Its name.
    pub name: String,
    /// What it says before, as `nft -f` reads it; `None`: it isn't there.
    pub before: Option<String>,
    /// What it says after; `None`: it isn't there.
    pub after: Option<String>,
}

/// A file of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDeed {
    /// The node.
    pub node: String,
    /// The path.
    pub path: String,
    /// What it says before; `None`: it isn't there.
    pub before: Option<String>,
    /// What it says after; `None`: it isn't there.
    pub after: Option<String>,
}

/// A Kubernetes object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectDeed {
    /// The resource, as kubectl names it.
    pub resource: String,
    /// Its namespace; `None`: it has none.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The merge patch that does it (RFC 7386).
    pub patch: Value,
    /// The merge patch that undoes it.
    pub back: Value,
}

/// Which state is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The one before.
    Before,
    /// The one after.
    After,
    /// Neither: somebody else changed it.
    Neither,
}

impl Deed {
    /// The deed that takes this one back.
    pub fn inverse(&self) -> Deed {
        match self.clone() {
            Deed::Rules(RulesDeed { node, program, table, chain, before, after }) => {
                let (before, after) = (after, before);
                Deed::Rules(RulesDeed { node, program, table, chain, before, after })
            }
            Deed::Table(TableDeed { node, program, name, before, after }) => {
                let (before, after) = (after, before);
                Deed::Table(TableDeed { node, program, name, before, after })
            }
            Deed::File(FileDeed { node, path, before, after }) => {
                let (before, after) = (after, before);
                Deed::File(FileDeed { node, path, before, after })
            }
            Deed::Object(ObjectDeed { resource, namespace, name, patch, back }) => {
                let (patch, back) = (back, patch);
                Deed::Object(ObjectDeed { resource, namespace, name, patch, back })
            }
        }
    }

    /// The node that it is for; `None`: it is for the cluster.
    pub fn node(&self) -> Option<&str> {
        match self {
            Deed::Rules(rules) => Some(&rules.node),
            Deed::Table(table) => Some(&table.node),
            Deed::File(file) => Some(&file.node),
            Deed::Object(_) => None,
        }
    }

    /// What it is about, in a few words.
    pub fn subject(&self) -> String {
        match self {
            Deed::Rules(RulesDeed { node, program, table, chain, .. }) => {
                format!("node {node}, {} table {table}, chain {chain}", program.name())
            }
            Deed::Table(TableDeed { node, program, name, .. }) => {
                format!("node {node}, nft table {} {name}", program.family())
            }
            Deed::File(FileDeed { node, path, .. }) => format!("node {node}, {path}"),
            Deed::Object(ObjectDeed { resource, namespace, name, .. }) => match namespace {
                Some(namespace) => format!("{resource} {namespace}/{name}"),
                None => format!("{resource} {name}"),
            },
        }
    }
}

impl Standing {
    /// Which of two states `there` is. A state that is both is the one after: nothing is left to do.
    pub fn of<T: PartialEq + ?Sized>(there: &T, before: &T, after: &T) -> Standing {
        if there == after {
            Standing::After
        } else if there == before {
            Standing::Before
        } else {
            Standing::Neither
        }
    }
}

impl Program {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Program::IptablesLegacy => "iptables-legacy",
            Program::Ip6tablesLegacy => "ip6tables-legacy",
            Program::IptablesNft => "iptables-nft",
            Program::Ip6tablesNft => "ip6tables-nft",
            Program::NftIp | Program::NftIp6 | Program::NftInet => "nft",
        }
    }

    /// The family of its tables, in nft's words.
    pub fn family(self) -> &'static str {
        match self {
            Program::IptablesLegacy | Program::IptablesNft | Program::NftIp => "ip",
            Program::Ip6tablesLegacy | Program::Ip6tablesNft | Program::NftIp6 => "ip6",
            Program::NftInet => "inet",
        }
    }

    /// The command that takes a transaction from its standard input.
    pub fn restore(self) -> &'static [&'static str] {
        match self {
            Program::IptablesLegacy => &["iptables-legacy-restore", "--noflush"],
            Program::Ip6tablesLegacy => &["ip6tables-legacy-restore", "--noflush"],
            Program::IptablesNft => &["iptables-nft-restore", "--noflush"],
            Program::Ip6tablesNft => &["ip6tables-nft-restore", "--noflush"],
            Program::NftIp | Program::NftIp6 | Program::NftInet => &["nft", "-f", "-"],
        }
    }
}

/// A rule of a chain that comes or goes, at a place that counts the rules that are there when it
/// does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Deletes the rule that stands there.
    Delete {
        /// From 0.
        at: usize,
        /// Its text.
        rule: String,
    },
    /// Puts a rule there, ahead of the one that stands there.
    Insert {
        /// From 0.
        at: usize,
        /// Its text.
        rule: String,
    },
}

impl RulesDeed {
    /// The fewest rules that have to go and come, in order; deletions of a place come ahead of
    /// insertions there.
    pub fn edits(&self) -> Vec<Edit> {
        let (before, after) = (&self.before, &self.after);
        let head = before.iter().zip(after).take_while(|(old, new)| old == new).count();
        let tail = before[head..].iter().rev().zip(after[head..].iter().rev());
        let tail = tail.take_while(|(old, new)| old == new).count();
        let old = &before[head..before.len() - tail];
        let new = &after[head..after.len() - tail];
        let mut edits = Vec::new();
        let mut at = head;
        let mut steps = common(old, new).into_iter().peekable();
        let (mut i, mut j) = (0, 0);
        while i < old.len() || j < new.len() {
            match steps.peek() {
                Some(&(x, y)) if (x, y) == (i, j) => {
                    steps.next();
                    (i, j, at) = (i + 1, j + 1, at + 1);
                }
                next => {
                    let (x, y) = next.copied().unwrap_or((old.len(), new.len()));
                    edits.extend(
                        old[i..x].iter().map(|rule| Edit::Delete { at, rule: rule.clone() }),
                    );
                    for rule in &new[j..y] {
                        edits.push(Edit::Insert { at, rule: rule.clone() });
                        at += 1;
                    }
                    (i, j) = (x, y);
                }
            }
        }
        edits
    }

    /// A rule that goes and stands there more than once, with how often: deleted by its words, the
    /// first would go, whichever is meant.
    pub fn deleted_of_several(&self) -> Option<(String, usize)> {
        self.edits().into_iter().find_map(|edit| match edit {
            Edit::Delete { rule, .. } => {
                let times = self.before.iter().filter(|one| **one == rule).count();
                (times > 1).then_some((rule, times))
            }
            Edit::Insert { .. } => None,
        })
    }

    /// The same for a chain that others have changed since: the rules that go are there, those that
    /// come are not. `None`: they aren't, or are.
    pub fn rebased(&self, there: &[String]) -> Option<RulesDeed> {
        let mut after = there.to_vec();
        // Where a rule went, by its place in the state before.
        let mut gone: Option<(usize, usize)> = None;
        for edit in self.edits() {
            match edit {
                Edit::Delete { at, rule } => {
                    let place = after.iter().position(|one| *one == rule)?;
                    after.remove(place);
                    gone = Some((at, place));
                }
                Edit::Insert { at, rule } => {
                    if after.contains(&rule) {
                        return None;
                    }
                    let before = at.checked_sub(1).and_then(|at| self.after.get(at));
                    let behind = || before.and_then(|one| after.iter().position(|it| it == one));
                    let place = match gone.take() {
                        Some((there, place)) if there == at => place,
                        Some(_) | None => behind().map_or(0, |place| place + 1),
                    };
                    after.insert(place, rule);
                }
            }
        }
        Some(RulesDeed { before: there.to_vec(), after, ..self.clone() })
    }
}

/// A rule of nft without what its counters have counted.
pub fn without_counts(rule: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut parts = rule.split(' ').peekable();
    while let Some(word) = parts.next() {
        words.push(word);
        if word == "counter" && parts.peek() == Some(&"packets") {
            parts.by_ref().take(4).for_each(drop);
        }
    }
    words.join(" ")
}

/// Places of a longest common subsequence.
fn common(old: &[String], new: &[String]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    let mut lengths = vec![0_usize; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i * width + j] = if old[i] == new[j] {
                1 + lengths[(i + 1) * width + j + 1]
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut places = Vec::new();
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            places.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deed(before: &[&str], after: &[&str]) -> RulesDeed {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        RulesDeed {
            node: "n1".into(),
            program: Program::IptablesNft,
            table: "nat".into(),
            chain: "POSTROUTING".into(),
            before: texts(before),
            after: texts(after),
        }
    }

    /// Does the edits, one after the other.
    fn done(deed: &RulesDeed) -> Vec<String> {
        let mut rules = deed.before.clone();
        for edit in deed.edits() {
            match edit {
                Edit::Delete { at, rule } => assert_eq!(rules.remove(at), rule),
                Edit::Insert { at, rule } => rules.insert(at, rule),
            }
        }
        rules
    }

    #[test]
    fn edits_lead_from_before_to_after() {
        for (before, after, count) in [
            (&["a", "b", "c"][..], &["a", "b", "c"][..], 0),
            (&["a", "b", "c"], &["a", "x", "c"], 2),
            (&["a", "b", "c"], &["b", "c"], 1),
            (&["b", "c"], &["a", "b", "c"], 1),
            (&["a", "b", "a", "b"], &["b", "a"], 2),
            (&["a", "b", "c", "d"], &["d", "c", "b", "a"], 6),
            (&[], &["a"], 1),
            (&["a", "a"], &[], 2),
        ] {
            let deed = deed(before, after);
            assert_eq!(deed.edits().len(), count, "{before:?} {after:?}");
            assert_eq!(done(&deed), deed.after, "{before:?} {after:?}");
        }
    }

    #[test]
    fn taking_back_is_doing_the_inverse() {
        let there = Deed::Rules(deed(&["a", "b", "c"], &["a", "x"]));
        let Deed::Rules(back) = there.inverse() else { panic!() };
        assert_eq!(done(&back), ["a", "b", "c"]);
        assert_eq!(Deed::Rules(back).inverse(), there);
    }

    #[test]
    fn a_journal_reads_what_it_wrote() {
        let object = Deed::Object(ObjectDeed {
            resource: "service".into(),
            namespace: Some("shop".into()),
            name: "web".into(),
            patch: serde_json::json!({"spec": {"externalTrafficPolicy": "Local"}}),
            back: serde_json::json!({"spec": {"externalTrafficPolicy": "Cluster"}}),
        });
        for deed in [object, Deed::Rules(deed(&["a"], &[]))] {
            let text = serde_json::to_string(&deed).unwrap();
            assert_eq!(serde_json::from_str::<Deed>(&text).unwrap(), deed, "{text}");
        }
    }
}

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
use unmasq_audit::Edit as FileEdit;

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
    /// What was captured of it before, which is not all that it says; `None`: it isn't there.
    pub before: Option<String>,
    /// The same after; `None`: it isn't there.
    pub after: Option<String>,
    /// The one thing that changes in what it really says; `None`: only what was captured is known.
    #[serde(default)]
    pub edit: Option<FileEdit>,
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
            Deed::File(FileDeed { node, path, before, after, edit }) => {
                let (before, after) = (after, before);
                let edit = edit.as_ref().map(FileEdit::inverse);
                Deed::File(FileDeed { node, path, before, after, edit })
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

    /// Whether another one changes the same chain, table, file or object.
    pub fn is_of_same(&self, other: &Deed) -> bool {
        match (self, other) {
            (Deed::Rules(one), Deed::Rules(other)) => {
                (&one.node, one.program, &one.table, &one.chain)
                    == (&other.node, other.program, &other.table, &other.chain)
            }
            (Deed::Table(one), Deed::Table(other)) => {
                (&one.node, one.program, &one.name) == (&other.node, other.program, &other.name)
            }
            (Deed::File(one), Deed::File(other)) => {
                (&one.node, &one.path) == (&other.node, &other.path)
            }
            (Deed::Object(one), Deed::Object(other)) => {
                (&one.resource, &one.namespace, &one.name)
                    == (&other.resource, &other.namespace, &other.name)
            }
            (Deed::Rules(_) | Deed::Table(_) | Deed::File(_) | Deed::Object(_), _) => false,
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

impl Edit {
    /// The rule's text.
    pub fn rule(&self) -> &str {
        match self {
            Edit::Delete { rule, .. } | Edit::Insert { rule, .. } => rule,
        }
    }
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
                let times = times(&self.before, &rule);
                (times > 1).then_some((rule, times))
            }
            Edit::Insert { .. } => None,
        })
    }

    /// Which state is there, but for rules of others: by how often each rule stands there that comes
    /// or goes. Their places are another question: [`RulesDeed::is_in_order`].
    pub fn among_others(&self, there: &[String]) -> Standing {
        let edits = self.edits();
        let all_as = |state: &[String]| {
            edits.iter().all(|edit| times(there, edit.rule()) == times(state, edit.rule()))
        };
        match (all_as(&self.after), all_as(&self.before)) {
            (true, _) => Standing::After,
            (false, true) => Standing::Before,
            (false, false) => Standing::Neither,
        }
    }

    /// Whether the rules that come stand between their neighbours, as far as those are there.
    pub fn is_in_order(&self, there: &[String]) -> bool {
        let edits = self.edits();
        let come = edits.iter().filter_map(|edit| match edit {
            Edit::Insert { at, rule } => Some((*at, rule)),
            Edit::Delete { .. } => None,
        });
        come.into_iter().all(|(at, rule)| {
            let (behind, ahead) = self.neighbours(at, &edits);
            let place = only(there, rule);
            let between = |place| {
                behind.and_then(|one| only(there, one)).is_none_or(|one| one < place)
                    && ahead.and_then(|one| only(there, one)).is_none_or(|one| place < one)
            };
            place.is_some_and(between)
        })
    }

    /// The same for a chain that others have changed: rules that come are put between their
    /// neighbours, whether they are there already or not; rules of others stay where they are.
    pub fn rebased(&self, there: &[String]) -> Result<RulesDeed, Misfit> {
        let edits = self.edits();
        let mut after = there.to_vec();
        // Where a rule went, by its place in the state before.
        let mut gone: Option<(usize, usize)> = None;
        for edit in &edits {
            let rule = edit.rule();
            let times = times(&after, rule).max(times(&self.after, rule));
            if times > 1 {
                return Err(Misfit::Several { rule: rule.to_owned(), times });
            }
            let place = only(&after, rule);
            if let Some(place) = place {
                after.remove(place);
            }
            match edit {
                Edit::Delete { at, .. } => gone = place.map(|place| (*at, place)),
                Edit::Insert { at, rule } => {
                    let same = gone.take().filter(|(place, _)| place == at);
                    let place = self.place(*at, &edits, &after, same.map(|(_, place)| place));
                    let place = place.ok_or_else(|| self.no_place(*at, rule, &edits))?;
                    after.insert(place, rule.clone());
                }
            }
        }
        Ok(RulesDeed { before: there.to_vec(), after, ..self.clone() })
    }

    /// Where a rule belongs: between its neighbours, at the place of the one that it replaces if that
    /// is there. `None`: it can't be told.
    fn place(
        &self,
        at: usize,
        edits: &[Edit],
        there: &[String],
        replaced: Option<usize>,
    ) -> Option<usize> {
        let (behind, ahead) = self.neighbours(at, edits);
        let behind = behind.and_then(|one| only(there, one)).map(|place| place + 1);
        let ahead = ahead.and_then(|one| only(there, one));
        match (behind, ahead) {
            (Some(behind), Some(ahead)) if behind > ahead => None,
            (None, None) if there.is_empty() => Some(0),
            (None, None) => replaced,
            (behind, ahead) => {
                let between = |place: &usize| {
                    behind.is_none_or(|it| it <= *place) && ahead.is_none_or(|it| *place <= it)
                };
                replaced.filter(between).or(behind).or(ahead)
            }
        }
    }

    /// The rules behind which and ahead of which one stands in the state after.
    fn neighbours(&self, at: usize, edits: &[Edit]) -> (Option<&String>, Option<&String>) {
        let comes = |rule: &String| {
            edits.iter().any(|edit| matches!(edit, Edit::Insert { .. }) && edit.rule() == rule)
        };
        let behind = at.checked_sub(1).and_then(|at| self.after.get(at));
        (behind, self.after.iter().skip(at + 1).find(|rule| !comes(rule)))
    }

    fn no_place(&self, at: usize, rule: &str, edits: &[Edit]) -> Misfit {
        let place = match self.neighbours(at, edits) {
            (Some(behind), Some(ahead)) => format!("behind `{behind}` and ahead of `{ahead}`"),
            (Some(behind), None) => format!("at the end, behind `{behind}`"),
            (None, Some(ahead)) => format!("at the top, ahead of `{ahead}`"),
            (None, None) => "alone".to_owned(),
        };
        Misfit::NoPlace { rule: rule.to_owned(), place }
    }
}

/// Why a chain that others have changed can't be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Where a rule belongs can't be told.
    #[error(
        "where `{rule}` belongs can't be told: it stood {place}, which is so no longer. Put it there \
         by hand"
    )]
    NoPlace {
        /// The rule.
        rule: String,
        /// Where it stood.
        place: String,
    },
    /// A rule stands there more than once.
    #[error(
        "the rule `{rule}` is there {times} times: several programs wrote it, or one twice; take away \
         those that nobody owns first"
    )]
    Several {
        /// The rule.
        rule: String,
        /// How often.
        times: usize,
    },
}

fn times(rules: &[String], rule: &str) -> usize {
    rules.iter().filter(|one| *one == rule).count()
}

/// The place of a rule that stands there once.
fn only(rules: &[String], rule: &str) -> Option<usize> {
    let place = rules.iter().position(|one| one == rule)?;
    (times(rules, rule) == 1).then_some(place)
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
    fn rules_of_others_stay_where_they_are() {
        type Rules = &'static [&'static str];
        let check = |before: Rules, after: Rules, there: Rules, expected: Option<Rules>| {
            let there: Vec<String> = there.iter().map(|rule| (*rule).to_owned()).collect();
            let rebased = deed(before, after).rebased(&there);
            let expected = expected.map(|all| all.iter().map(|rule| (*rule).to_owned()).collect());
            assert_eq!(rebased.ok().map(|it| it.after), expected, "{before:?} {after:?} {there:?}");
        };
        let (y, x): (Rules, Rules) = (&["a", "y", "b"], &["a", "x", "b"]);
        check(y, x, &["a", "o", "y", "b"], Some(&["a", "o", "x", "b"]));
        check(y, x, &["a", "y", "o", "b"], Some(&["a", "x", "o", "b"]));
        // It stands at the wrong place, or there already.
        check(y, x, &["o", "y", "a", "b"], Some(&["o", "a", "x", "b"]));
        check(y, x, &["o", "x", "a", "b"], Some(&["o", "a", "x", "b"]));
        // A neighbour is gone, or both are, or they have changed places.
        check(y, x, &["o", "y"], Some(&["o", "x"]));
        let (none, one): (Rules, Rules) = (&["a", "b"], &["a", "x", "b"]);
        check(none, one, &["o", "b"], Some(&["o", "x", "b"]));
        check(none, one, &["o", "a"], Some(&["o", "a", "x"]));
        check(none, one, &["o"], None);
        check(none, one, &["b", "a"], None);
        check(none, one, &[], Some(&["x"]));
        check(none, one, &["a", "a", "b"], Some(&["a", "a", "x", "b"]));
        // At the top, at the end.
        check(&["b"], &["x", "b"], &["o", "b"], Some(&["o", "x", "b"]));
        check(&["b"], &["x", "b"], &["o"], None);
        check(&["a"], &["a", "x"], &["a", "o"], Some(&["a", "x", "o"]));
        // Several at once.
        check(
            &["a", "b"],
            &["a", "x", "y", "b"],
            &["a", "o", "b"],
            Some(&["a", "x", "y", "o", "b"]),
        );
        check(&["a", "y", "y", "b"], &["a", "b"], &["a", "y", "y", "b"], None);
        let misfit = deed(none, one).rebased(&["o".to_owned()]).unwrap_err().to_string();
        assert!(
            misfit.contains("`x`") && misfit.contains("behind `a` and ahead of `b`"),
            "{misfit}"
        );
    }

    #[test]
    fn which_state_is_there_among_rules_of_others() {
        let there = |all: &[&str]| all.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>();
        let deed = deed(&["a", "y", "b"], &["a", "x", "b"]);
        for (rules, standing, in_order) in [
            (&["o", "a", "y", "b"][..], Standing::Before, false),
            (&["a", "o", "x", "b"], Standing::After, true),
            (&["x", "a", "b"], Standing::After, false),
            (&["a", "b", "x"], Standing::After, false),
            (&["x"], Standing::After, true),
            (&["a", "b"], Standing::Neither, false),
            (&["a", "x", "x", "b"], Standing::Neither, false),
            (&["a", "x", "y", "b"], Standing::Neither, true),
        ] {
            assert_eq!(deed.among_others(&there(rules)), standing, "{rules:?}");
            assert_eq!(deed.is_in_order(&there(rules)), in_order, "{rules:?}");
        }
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

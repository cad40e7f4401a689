//! Branching: a walk runs straight through and asks an oracle wherever the kernel would throw
//! dice, look at state that no capture has, or do something that is not known. The driver walks
//! again for each other answer and puts the outcomes together.
//!
//! ```text
//! Random  -> all branches, weighted          (statistic, numgen random)
//! State   -> all branches, without weights   (recent, limit, hashes, dynamic sets)
//! Unknown -> the branches are joined: what they agree on stands, the rest is unknown
//! ```

use crate::trace::{Hit, Outcome};

mod join;

/// More walks than this for one packet end in one unknown outcome.
const MAX_WALKS: usize = 8192;

/// Why a walk has to branch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// Each branch with its probability.
    Random(Box<[f64]>),
    /// Depends on kept state.
    State,
    /// Not known, for this reason.
    Unknown {
        why: String,
        /// How many hits there were before, and the hit that stands for the unknown step.
        before: usize,
        at: Option<Box<Hit>>,
    },
}

/// One answer of the oracle.
#[derive(Debug, Clone, PartialEq)]
struct Made {
    kind: Kind,
    taken: usize,
    options: usize,
}

/// The oracle: replays a script, then takes the first branch.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    script: Vec<usize>,
    made: Vec<Made>,
}

impl Choices {
    /// Which of `options` (at least 1) branches this walk takes.
    pub(crate) fn choose(&mut self, kind: Kind, options: usize) -> usize {
        if options <= 1 {
            return 0;
        }
        let taken = self.script.get(self.made.len()).copied().unwrap_or(0);
        self.made.push(Made { kind, taken, options });
        taken
    }

    /// The script of the next walk in depth-first order; `None` when all were walked.
    fn next_script(&self) -> Option<Vec<usize>> {
        let last = self.made.iter().rposition(|made| made.taken + 1 < made.options)?;
        let mut script: Vec<usize> = self.made[..last].iter().map(|made| made.taken).collect();
        script.push(self.made[last].taken + 1);
        Some(script)
    }
}

/// One finished walk with the choices that led there.
struct Leaf {
    path: Vec<Made>,
    outcome: Outcome,
}

/// Walks until every branch is seen. `keep_apart`: as [`crate::Options::every_branch`].
pub(crate) fn explore(
    keep_apart: bool,
    mut walk: impl FnMut(&mut Choices) -> Outcome,
) -> Vec<Outcome> {
    let mut leaves = Vec::new();
    let mut script = Vec::new();
    loop {
        let mut choices = Choices { script, made: Vec::new() };
        let outcome = walk(&mut choices);
        let next = choices.next_script();
        leaves.push(Leaf { path: choices.made, outcome });
        match next {
            None => break,
            Some(_) if leaves.len() >= MAX_WALKS => {
                let why = format!("there are more than {MAX_WALKS} ways for this packet");
                return joined(leaves.into_iter().map(|leaf| leaf.outcome), &why, 0, None);
            }
            Some(next) => script = next,
        }
    }
    let mut outcomes = combine(&leaves, 0, keep_apart);
    if !keep_apart {
        outcomes = join::merge_equal(outcomes);
    }
    outcomes
}

/// The outcomes of leaves that made the same first `depth` choices, in depth-first order.
fn combine(leaves: &[Leaf], depth: usize, keep_apart: bool) -> Vec<Outcome> {
    let Some(first) = leaves.first() else {
        return Vec::new();
    };
    let Some(made) = first.path.get(depth) else {
        return vec![first.outcome.clone()];
    };
    let branches: Vec<(usize, Vec<Outcome>)> = leaves
        .chunk_by(|a, b| a.path[depth].taken == b.path[depth].taken)
        .map(|branch| (branch[0].path[depth].taken, combine(branch, depth + 1, keep_apart)))
        .collect();
    match &made.kind {
        Kind::Random(weights) => branches
            .into_iter()
            .flat_map(|(taken, outcomes)| {
                let weight = weights[taken];
                outcomes.into_iter().map(move |outcome| Outcome {
                    probability: outcome.probability.map(|p| p * weight),
                    ..outcome
                })
            })
            .collect(),
        Kind::State => {
            if !keep_apart && join::all_agree(&branches) {
                return first_branch(branches);
            }
            branches
                .into_iter()
                .flat_map(|(_, outcomes)| outcomes)
                .map(|outcome| Outcome { probability: None, ..outcome })
                .collect()
        }
        Kind::Unknown { why, before, at } => {
            if join::all_agree(&branches) {
                return first_branch(branches);
            }
            let all = branches.into_iter().flat_map(|(_, outcomes)| outcomes);
            joined(all, why, *before, at.as_deref())
        }
    }
}

/// The outcomes as one, if there are any.
fn joined(
    mut outcomes: impl Iterator<Item = Outcome>,
    why: &str,
    before: usize,
    at: Option<&Hit>,
) -> Vec<Outcome> {
    let first = outcomes.next();
    first.map(|first| join::join(first, outcomes, why, before, at)).into_iter().collect()
}

fn first_branch(branches: Vec<(usize, Vec<Outcome>)>) -> Vec<Outcome> {
    branches.into_iter().next().map(|(_, outcomes)| outcomes).unwrap_or_default()
}

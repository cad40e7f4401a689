//! Branching: a walk runs straight through and asks an oracle wherever the kernel would throw
//! dice, look at state that no capture has, or do something that is not known. The driver walks
//! again for each other answer and puts the outcomes together.
//!
//! ```text
//! Random  -> all branches, weighted          (statistic, numgen random)
//! State   -> all branches, without weights   (recent, limit, hashes, dynamic sets)
//! Unknown -> the branches are joined: what they agree on stands, the rest is unknown
//! ```

use std::collections::BTreeMap;

use crate::trace::{Endpoint, Hit, Options, Outcome, Verdict};

mod join;

/// No more walks than this for one packet; branches that are left then are unknown.
const MAX_WALKS: usize = 8192;

/// No more rules than this in all walks for one packet.
const MAX_RULES: u64 = 5_000_000;

/// No more rules than this in one walk: chains that call each other in a loop, or each the next
/// one twice, never end, or not in anybody's lifetime.
const MAX_RULES_IN_A_WALK: u64 = 500_000;

/// Why a walk has to branch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// Yes (branch 1) with this probability, no (branch 0) with the rest.
    Random(f64),
    /// All branches alike.
    Uniform,
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

/// One question with the branches that were walked to their ends.
struct Node {
    kind: Kind,
    options: usize,
    /// The branch that is being walked.
    taken: usize,
    done: Vec<Vec<Outcome>>,
}

/// The oracle of one walk: replays what was chosen before, then takes the first branch.
pub(crate) struct Choices {
    script: Vec<usize>,
    /// How far the walk is in the script.
    at: usize,
    /// Questions beyond the script.
    new: Vec<(Kind, usize)>,
    rules: u64,
}

impl Choices {
    /// Which of `options` branches this walk takes.
    pub(crate) fn choose(&mut self, kind: Kind, options: usize) -> usize {
        if options <= 1 {
            return 0;
        }
        if let Some(taken) = self.script.get(self.at) {
            self.at += 1;
            return *taken;
        }
        self.new.push((kind, options));
        0
    }

    /// Counts a rule; whether the walk may go on.
    pub(crate) fn may_look_at_a_rule(&mut self) -> bool {
        self.rules += 1;
        self.rules <= MAX_RULES_IN_A_WALK
    }
}

/// Walks until every branch is seen, depth first. The options say which outcomes are kept apart.
pub(crate) fn explore(
    options: Options,
    mut walk: impl FnMut(&mut Choices) -> Outcome,
) -> Vec<Outcome> {
    let mut open: Vec<Node> = Vec::new();
    let (mut walks, mut rules) = (0, 0);
    loop {
        let script = open.iter().map(|node| node.taken).collect();
        let mut choices = Choices { script, at: 0, new: Vec::new(), rules: 0 };
        let outcome = walk(&mut choices);
        walks += 1;
        rules += choices.rules;
        let new = choices.new.into_iter();
        open.extend(new.map(|(kind, options)| Node { kind, options, taken: 0, done: Vec::new() }));
        let exhausted = walks >= MAX_WALKS || rules >= MAX_RULES;
        let unexplored = join::unexplored(&outcome);
        let mut result = vec![outcome];
        loop {
            let Some(mut node) = open.pop() else { return result };
            node.done.push(result);
            node.taken += 1;
            if node.taken < node.options && !exhausted {
                open.push(node);
                break;
            }
            result = node.close(&unexplored, options);
        }
    }
}

impl Node {
    /// The outcomes of all branches; those that were not walked end in `unexplored`.
    fn close(self, unexplored: &Outcome, apart: Options) -> Vec<Outcome> {
        let Node { kind, options, taken, mut done } = self;
        let left = options - taken;
        match kind {
            Kind::Random(yes) => {
                if left > 0 {
                    done.push(vec![unexplored.clone()]);
                }
                weigh(done, &[1.0 - yes, yes], apart)
            }
            Kind::Uniform => {
                let one = 1.0 / as_float(options);
                let mut weights = vec![one; done.len()];
                if left > 0 {
                    done.push(vec![unexplored.clone()]);
                    weights.push(one * as_float(left));
                }
                weigh(done, &weights, apart)
            }
            Kind::State => {
                if left > 0 {
                    done.push(vec![unexplored.clone()]);
                }
                if !apart.every_branch && join::all_agree(&done, apart) {
                    return first(done);
                }
                let forget = |outcome| Outcome { probability: None, ..outcome };
                put_together(done, apart, |_, outcome| forget(outcome))
            }
            Kind::Unknown { why, before, at } => {
                if left > 0 {
                    done.push(vec![unexplored.clone()]);
                }
                if join::all_agree(&done, apart) {
                    return first(done);
                }
                let mut all = done.into_iter().flatten();
                let joined =
                    all.next().map(|one| join::join(one, all, &why, before, at.as_deref()));
                joined.into_iter().collect()
            }
        }
    }
}

fn weigh(done: Vec<Vec<Outcome>>, weights: &[f64], apart: Options) -> Vec<Outcome> {
    put_together(done, apart, |branch, outcome| {
        let weight = weights.get(branch).copied().unwrap_or(0.0);
        Outcome { probability: outcome.probability.map(|p| p * weight), ..outcome }
    })
}

/// All outcomes of all branches. Those that look the same become one, unless every branch is wanted.
fn put_together(
    done: Vec<Vec<Outcome>>,
    apart: Options,
    change: impl Fn(usize, Outcome) -> Outcome,
) -> Vec<Outcome> {
    let outcomes = done
        .into_iter()
        .enumerate()
        .flat_map(|(branch, outcomes)| outcomes.into_iter().map(move |outcome| (branch, outcome)));
    let outcomes = outcomes.map(|(branch, outcome)| change(branch, outcome));
    if apart.every_branch {
        return outcomes.collect();
    }
    let mut all: Vec<Outcome> = Vec::new();
    let mut places: BTreeMap<(Endpoint, Endpoint, Verdict), Vec<usize>> = BTreeMap::new();
    for outcome in outcomes {
        let key = (outcome.source.after, outcome.destination.after, outcome.verdict);
        let places = places.entry(key).or_default();
        match places.iter().find(|place| join::alike(&all[**place], &outcome, apart)) {
            Some(place) => {
                let other = &mut all[*place];
                other.probability = join::sum(other.probability, outcome.probability);
            }
            None => {
                places.push(all.len());
                all.push(outcome);
            }
        }
    }
    all
}

fn first(done: Vec<Vec<Outcome>>) -> Vec<Outcome> {
    done.into_iter().next().unwrap_or_default()
}

#[allow(clippy::cast_precision_loss)]
fn as_float(count: usize) -> f64 {
    count as f64
}

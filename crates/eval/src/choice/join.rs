//! What several possible endings have in common.

use std::net::IpAddr;

use crate::trace::{Disposition, Endpoint, Hit, Outcome, Port, Reason, Rewrite, RuleId, Verdict};

/// What a user can see of an outcome, apart from the rules on the way.
type Visible<'o> = (
    Verdict,
    Option<Reason>,
    &'o Rewrite,
    &'o Rewrite,
    Option<&'o str>,
    Option<IpAddr>,
    Option<RuleId>,
    &'o [String],
);

fn visible(outcome: &Outcome) -> Visible<'_> {
    (
        outcome.verdict,
        outcome.reason,
        &outcome.source,
        &outcome.destination,
        outcome.out.as_deref(),
        outcome.next_hop,
        outcome.rewritten_by,
        &outcome.unknown,
    )
}

/// Whether all branches end in the same visible outcomes with the same probabilities.
pub(super) fn all_agree(branches: &[(usize, Vec<Outcome>)]) -> bool {
    let Some(((_, first), rest)) = branches.split_first() else {
        return true;
    };
    rest.iter().all(|(_, other)| {
        other.len() == first.len()
            && other.iter().zip(first).all(|(a, b)| {
                visible(a) == visible(b)
                    && match (a.probability, b.probability) {
                        (Some(p), Some(q)) => (p - q).abs() < 1e-9,
                        (None, None) => true,
                        (Some(_), None) | (None, Some(_)) => false,
                    }
            })
    })
}

/// Puts outcomes together that look the same, in the order of their first occurrence.
pub(super) fn merge_equal(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let mut merged: Vec<Outcome> = Vec::new();
    for outcome in outcomes {
        match merged.iter_mut().find(|other| visible(other) == visible(&outcome)) {
            None => merged.push(outcome),
            Some(other) => {
                other.probability = match (other.probability, outcome.probability) {
                    (Some(p), Some(q)) => Some(p + q),
                    _ => None,
                }
            }
        }
    }
    merged
}

/// One outcome that holds whichever of several comes true: fields in which they differ are
/// unknown, for the reason `why`. Of the hits, the first `before` are certain.
pub(super) fn join(
    first: Outcome,
    rest: impl Iterator<Item = Outcome>,
    why: &str,
    before: usize,
    at: Option<&Hit>,
) -> Outcome {
    let mut joined = first;
    let mut unknown = vec![why.to_owned()];
    unknown.append(&mut joined.unknown);
    for other in rest {
        if joined.verdict != other.verdict {
            joined.verdict = Verdict::Unknown;
        }
        keep_if_equal(&mut joined.reason, other.reason);
        keep_if_equal(&mut joined.out, other.out);
        keep_if_equal(&mut joined.next_hop, other.next_hop);
        keep_if_equal(&mut joined.rewritten_by, other.rewritten_by);
        join_rewrite(&mut joined.source, &other.source);
        join_rewrite(&mut joined.destination, &other.destination);
        for reason in other.unknown {
            if !unknown.contains(&reason) {
                unknown.push(reason);
            }
        }
    }
    joined.unknown = unknown;
    joined.probability = None;
    if joined.verdict == Verdict::Unknown {
        joined.reason = None;
    }
    joined.hits.truncate(before);
    joined.hits.extend(at.cloned());
    joined.because.retain(|hit| *hit < before);
    joined
}

fn keep_if_equal<T: PartialEq>(ours: &mut Option<T>, theirs: Option<T>) {
    if *ours != theirs {
        *ours = None;
    }
}

fn join_rewrite(ours: &mut Rewrite, theirs: &Rewrite) {
    if ours.disposition != theirs.disposition {
        ours.disposition = Disposition::Unknown;
    }
    let Endpoint { address, port } = &mut ours.after;
    keep_if_equal(address, theirs.after.address);
    if *port != theirs.after.port {
        *port = Port::Unknown;
    }
}

//! What several possible endings have in common.

use crate::connection::Tracked;
use crate::trace::{Disposition, Endpoint, Hit, Options, Outcome, Port, Rewrite, Verdict};

/// Whether two outcomes look the same to a user, apart from the rules on the way and, unless it is
/// asked for, the connection's entry.
pub(super) fn alike(a: &Outcome, b: &Outcome, apart: Options) -> bool {
    (!apart.every_entry || a.tracked == b.tracked)
        && a.destination == b.destination
        && a.source == b.source
        && a.verdict == b.verdict
        && a.reason == b.reason
        && a.out == b.out
        && a.next_hop == b.next_hop
        && a.bridged == b.bridged
        && a.rewritten_by == b.rewritten_by
        && a.unknown == b.unknown
}

/// The probability of one or the other.
pub(super) fn sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? + b?)
}

/// Whether all branches end in the same outcomes with the same probabilities.
pub(super) fn all_agree(branches: &[Vec<Outcome>], apart: Options) -> bool {
    let Some((first, rest)) = branches.split_first() else { return true };
    rest.iter().all(|other| {
        other.len() == first.len()
            && other.iter().zip(first).all(|(a, b)| {
                alike(a, b, apart)
                    && match (a.probability, b.probability) {
                        (Some(p), Some(q)) => (p - q).abs() < 1e-9,
                        (None, None) => true,
                        (Some(_), None) | (None, Some(_)) => false,
                    }
            })
    })
}

/// What stands for branches that were not walked: nothing of it is known.
pub(super) fn unexplored(like: &Outcome) -> Outcome {
    let unknown = |rewrite: &Rewrite| Rewrite {
        disposition: Disposition::Unknown,
        before: rewrite.before,
        after: Endpoint { address: None, port: Port::Unknown },
    };
    Outcome {
        probability: Some(1.0),
        verdict: Verdict::Unknown,
        reason: None,
        source: unknown(&like.source),
        destination: unknown(&like.destination),
        out: None,
        next_hop: None,
        bridged: false,
        rewritten_by: None,
        because: Vec::new(),
        tracked: None,
        hits: Vec::new(),
        unknown: vec!["there are more ways for this packet than could be walked".to_owned()],
    }
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
    let mut note = |reasons: Vec<String>| {
        for reason in reasons {
            if !unknown.contains(&reason) {
                unknown.push(reason);
            }
        }
    };
    note(std::mem::take(&mut joined.unknown));
    for other in rest {
        if joined.verdict != other.verdict {
            joined.verdict = Verdict::Unknown;
        }
        keep_if_equal(&mut joined.reason, other.reason);
        keep_if_equal(&mut joined.out, other.out);
        keep_if_equal(&mut joined.next_hop, other.next_hop);
        joined.bridged &= other.bridged;
        keep_if_equal(&mut joined.rewritten_by, other.rewritten_by);
        joined.tracked = join_tracked(joined.tracked, other.tracked);
        join_rewrite(&mut joined.source, &other.source);
        join_rewrite(&mut joined.destination, &other.destination);
        note(other.unknown);
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

/// An entry of which nothing but addresses or ports is in doubt is still one: answers are translated
/// back by it. `None` beside reasons means that nothing is known of it.
fn join_tracked(ours: Option<Tracked>, theirs: Option<Tracked>) -> Option<Tracked> {
    let (mut ours, theirs) = (ours?, theirs?);
    join_rewrite(&mut ours.source, &theirs.source);
    join_rewrite(&mut ours.destination, &theirs.destination);
    let like =
        Tracked { source: ours.source.clone(), destination: ours.destination.clone(), ..theirs };
    (ours == like).then_some(ours)
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

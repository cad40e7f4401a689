//! `--expect`: whether an answer is as expected.

use clap::ValueEnum;

use unmasq_cluster::paths::{Fate, Way};
use unmasq_eval::trace::{Disposition, Outcome, Trace, Verdict};

use crate::output::Exit;

/// What can be expected of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Expected {
    /// It arrives or leaves, with its own source
    Preserved,
    /// It arrives or leaves, with another source
    Rewritten,
    /// It is dropped or rejected
    Dropped,
}

/// Whether each outcome of a trace meets it; `None`: it can't be told.
pub(crate) fn of_trace(expected: Expected, trace: &Trace) -> Vec<Option<bool>> {
    trace.outcomes.iter().map(|outcome| meets(expected, outcome)).collect()
}

/// The same of each way of a call over several hosts. A call without an answer has not arrived
/// with any source that somebody could use.
pub(crate) fn of_ways(expected: Expected, ways: &[Way]) -> Vec<Option<bool>> {
    let fates = ways.iter().map(|way| match &way.fate {
        Fate::Preserved => Some(expected == Expected::Preserved),
        Fate::Rewritten => Some(expected == Expected::Rewritten),
        Fate::Dropped(_) | Fate::Rejected(_) | Fate::Lost => Some(expected == Expected::Dropped),
        Fate::NoAnswer(_) => Some(false),
        Fate::Unknown(_) => None,
    });
    fates.collect()
}

/// All outcomes must meet it. One that surely doesn't decides, else one that can't be told.
pub(crate) fn check(met: &[Option<bool>]) -> Exit {
    if met.contains(&Some(false)) {
        Exit::NotAsExpected
    } else if met.is_empty() || met.contains(&None) {
        Exit::Unknown
    } else {
        Exit::Done
    }
}

/// What to say of an answer that is not as expected; `None` if it is.
pub(crate) fn complaint(expected: Expected, met: &[Option<bool>]) -> Option<String> {
    let of = met.len();
    let count = |wanted| met.iter().filter(|met| **met == wanted).count();
    let expected_word = expected.to_possible_value().map_or(String::new(), |v| v.get_name().into());
    match check(met) {
        Exit::NotAsExpected => Some(format!(
            "expected {expected_word}: {} of {of} outcomes otherwise",
            count(Some(false))
        )),
        Exit::Unknown => Some(format!(
            "expected {expected_word}: {} of {of} outcomes can't be told",
            count(None)
        )),
        Exit::Done | Exit::Command(_) => None,
    }
}

fn meets(expected: Expected, outcome: &Outcome) -> Option<bool> {
    let arrives = match outcome.verdict {
        Verdict::Delivered | Verdict::Forwarded => true,
        Verdict::Dropped | Verdict::Rejected => false,
        Verdict::Unknown => return None,
    };
    let rewritten = match outcome.source.disposition {
        Disposition::Preserved => Some(false),
        Disposition::Rewritten => Some(true),
        Disposition::Unknown => None,
    };
    match expected {
        Expected::Dropped => Some(!arrives),
        Expected::Preserved | Expected::Rewritten if !arrives => Some(false),
        Expected::Preserved => rewritten.map(|rewritten| !rewritten),
        Expected::Rewritten => rewritten,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use unmasq_eval::trace::{Endpoint, Port, Rewrite, Start};
    use unmasq_model::packet::{Packet, Protocol};

    use super::*;

    type Case<'a> = (Expected, &'a [(Verdict, Disposition)], Exit);

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn outcome(verdict: Verdict, disposition: Disposition) -> Outcome {
        let end = Endpoint { address: Some(ADDRESS), port: Port::None };
        let rewrite = |disposition| Rewrite { disposition, before: end, after: end };
        Outcome {
            probability: None,
            verdict,
            reason: None,
            source: rewrite(disposition),
            destination: rewrite(Disposition::Preserved),
            out: None,
            next_hop: None,
            bridged: false,
            rewritten_by: None,
            because: Vec::new(),
            tracked: None,
            hits: Vec::new(),
            unknown: Vec::new(),
        }
    }

    #[test]
    fn all_outcomes_count() {
        use Disposition::{Preserved, Rewritten, Unknown as Whoever};
        use Verdict::{Delivered, Dropped, Forwarded, Rejected, Unknown};
        let table: &[Case] = &[
            (Expected::Preserved, &[(Forwarded, Preserved)], Exit::Done),
            (Expected::Preserved, &[(Delivered, Preserved), (Forwarded, Preserved)], Exit::Done),
            (Expected::Preserved, &[(Forwarded, Rewritten)], Exit::NotAsExpected),
            (Expected::Preserved, &[(Dropped, Preserved)], Exit::NotAsExpected),
            (Expected::Preserved, &[(Rejected, Whoever)], Exit::NotAsExpected),
            (Expected::Preserved, &[(Forwarded, Whoever)], Exit::Unknown),
            (Expected::Preserved, &[(Unknown, Preserved)], Exit::Unknown),
            (Expected::Preserved, &[(Unknown, Whoever), (Forwarded, Preserved)], Exit::Unknown),
            (
                Expected::Preserved,
                &[(Unknown, Whoever), (Forwarded, Rewritten)],
                Exit::NotAsExpected,
            ),
            (Expected::Rewritten, &[(Forwarded, Rewritten)], Exit::Done),
            (Expected::Rewritten, &[(Delivered, Preserved)], Exit::NotAsExpected),
            (Expected::Rewritten, &[(Dropped, Rewritten)], Exit::NotAsExpected),
            (Expected::Rewritten, &[(Delivered, Whoever)], Exit::Unknown),
            (Expected::Dropped, &[(Dropped, Preserved), (Rejected, Whoever)], Exit::Done),
            (Expected::Dropped, &[(Dropped, Preserved), (Forwarded, Whoever)], Exit::NotAsExpected),
            (Expected::Dropped, &[(Unknown, Whoever)], Exit::Unknown),
            (Expected::Dropped, &[], Exit::Unknown),
        ];
        for (expected, outcomes, exit) in table {
            let trace = Trace {
                packet: Packet::open(Protocol::TCP, ADDRESS, None, ADDRESS, None),
                start: Start::Output,
                assumptions: Vec::new(),
                outcomes: outcomes.iter().map(|(v, d)| outcome(*v, *d)).collect(),
            };
            let met = of_trace(*expected, &trace);
            assert_eq!(check(&met), *exit, "{expected:?} {outcomes:?}");
        }
    }
}

//! What was seen beside what was predicted.

use std::net::{IpAddr, SocketAddr};

use super::{Check, Checks, Predicted, What};

/// What came of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The address that it was made from, if it was made.
    pub from: Option<SocketAddr>,
    /// What happened.
    pub what: Happened,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// It was answered, with the source that was seen and the address where it arrived.
    Answered {
        /// The source.
        source: SocketAddr,
        /// Where it arrived.
        at: SocketAddr,
    },
    /// Somebody answered who doesn't say what they see.
    Foreign(String),
    /// It was refused.
    Refused {
        /// Because nobody has the address, or there is no way to it.
        unreachable: bool,
    },
    /// Nothing came.
    Silent,
    /// It wasn't made: this says nothing.
    Failed(String),
}

/// How both compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Something else happened.
    Differs,
    /// It can't be predicted, so what was seen agrees with nothing.
    Unpredicted,
    /// Nothing was seen, or not enough to tell.
    Unseen,
    /// It happened as predicted.
    AsPredicted,
}

/// Checks with what was seen of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tried {
    /// What was to be tried.
    pub checks: Checks,
    /// What was seen of each.
    pub seen: Vec<Vec<Seen>>,
    /// How many observations belong to none of them.
    pub strays: usize,
}

impl Tried {
    /// Checks with what was seen of them and how both compare.
    pub fn all(&self) -> impl Iterator<Item = (&Check, &[Seen], Verdict)> {
        let seen = self.seen.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..]));
        let checks = self.checks.checks.iter().zip(seen);
        checks.map(|(check, seen)| (check, seen, verdict(check, seen)))
    }

    /// How many compare so.
    pub fn count(&self, wanted: Verdict) -> usize {
        self.all().filter(|(_, _, verdict)| *verdict == wanted).count()
    }

    /// How all of them compare: one that differs decides, then one that can't be told. `Unseen`
    /// where there is none.
    pub fn verdict(&self) -> Verdict {
        self.all().map(|(_, _, verdict)| verdict).min().unwrap_or(Verdict::Unseen)
    }
}

/// Compares all that was seen of a check.
pub fn verdict(check: &Check, seen: &[Seen]) -> Verdict {
    if check.is_open() {
        return Verdict::Unpredicted;
    }
    let fits = |seen: &Seen| {
        let all: Vec<Option<bool>> = check.predicted.iter().map(|one| fits(one, seen)).collect();
        match all.contains(&Some(true)) {
            true => Some(true),
            false => (!all.contains(&None)).then_some(false),
        }
    };
    let all: Vec<Option<bool>> = seen.iter().map(fits).collect();
    if all.contains(&Some(false)) {
        Verdict::Differs
    } else if all.is_empty() || all.contains(&None) {
        Verdict::Unseen
    } else {
        Verdict::AsPredicted
    }
}

/// Whether it is what was predicted; `None`: it can't be told.
fn fits(predicted: &Predicted, seen: &Seen) -> Option<bool> {
    let own = seen.from.map(|from| from.ip());
    Some(match (&predicted.what, &seen.what) {
        (_, Happened::Failed(_)) => return None,
        (What::Preserved, Happened::Answered { source, at }) => {
            own? == source.ip() && arrives(predicted, *at)
        }
        (What::Rewritten(address), Happened::Answered { source, at }) => {
            *address == source.ip() && arrives(predicted, *at)
        }
        (What::Preserved | What::Rewritten(_), Happened::Foreign(_)) => return None,
        (What::Preserved | What::Rewritten(_), Happened::Refused { .. } | Happened::Silent) => {
            false
        }
        (What::Silence | What::Nobody, Happened::Silent) => true,
        (What::Nobody, Happened::Refused { unreachable }) => *unreachable,
        (What::Refusal, Happened::Refused { .. }) => true,
        (What::Silence, Happened::Refused { .. }) | (What::Refusal, Happened::Silent) => false,
        (
            What::Silence | What::Nobody | What::Refusal,
            Happened::Answered { .. } | Happened::Foreign(_),
        ) => false,
        (What::Unknown(_), _) => return None,
    })
}

fn arrives(predicted: &Predicted, at: SocketAddr) -> bool {
    let is_there = |(address, port): (IpAddr, Option<u16>)| {
        address == at.ip() && port.is_none_or(|port| port == at.port())
    };
    predicted.at.is_none_or(is_there)
}

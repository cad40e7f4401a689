//! What the kernel did with a probe.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail, ensure};

use crate::counter::{self, Counters, Place};
use crate::frame::{Flow, Mac};
use crate::network::GUARD_TABLE;
use crate::probe::{Probe, show};

/// Where a packet came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// Copies that left by a device.
    pub left: Vec<Left>,
    /// Copies that the node delivered to itself.
    pub delivered: Vec<Flow>,
    /// Why the node could not even send it.
    pub error: Option<String>,
}

/// A copy that left by a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The device's name.
    pub device: String,
    /// The MAC that it was sent to.
    pub to: Mac,
    /// Its addresses and ports.
    pub flow: Flow,
    /// The whole frame: what answers are built from ([`crate::reply`]).
    pub frame: Vec<u8>,
}

/// All that was seen of a probe.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The probe; of a frame that a test built itself, its addresses and ports in a probe's form.
    pub probe: Probe,
    /// Where it came out.
    pub sighting: Sighting,
    /// Whether the node sent an error about it.
    pub refused: bool,
    /// Counters that rose, the guard's left out.
    pub raised: BTreeMap<Place, u64>,
    /// All counters afterwards.
    pub counters: Counters,
}

impl fmt::Display for Sighting {
    /// `eth1 192.0.2.7:4000 > 10.0.0.1:80`, `local …`, `error …`; empty if it was never seen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flow = |place: &str, flow: &Flow| {
            format!("{place} {} > {}", show(flow.source), show(flow.destination))
        };
        let left = self.left.iter().map(|left| flow(&left.device, &left.flow));
        let delivered = self.delivered.iter().map(|delivered| flow("local", delivered));
        let error = self
            .error
            .iter()
            .map(|error| format!("error {}", error.split(" (").next().unwrap_or(error)));
        let all: Vec<String> = left.chain(delivered).chain(error).collect();
        f.write_str(&all.join(" and "))
    }
}

impl Observation {
    pub(crate) fn new(
        probe: Probe,
        sighting: Sighting,
        before: &Counters,
        counters: Counters,
    ) -> Observation {
        let mut raised = counter::raised(before, &counters);
        let guard = |place: &Place| place.table == GUARD_TABLE;
        let refused = raised.keys().any(guard);
        raised.retain(|place, _| !guard(place));
        Observation { probe, sighting, refused, raised, counters }
    }

    /// The only copy that left.
    pub fn only(&self) -> Result<&Left> {
        match &self.sighting.left[..] {
            [left] => Ok(left),
            _ => bail!("{}: not one packet left: {self}", self.probe),
        }
    }

    /// By how much the counters of rules with this comment rose together.
    pub fn count(&self, comment: &str) -> Result<u64> {
        let named = |place: &&Place| self.counters[*place].comment.as_deref() == Some(comment);
        ensure!(self.counters.keys().any(|place| named(&place)), "no rule is called {comment}");
        Ok(self.raised.iter().filter(|(place, _)| named(place)).map(|(_, count)| count).sum())
    }

    /// Fails unless the probe ended so ([`Observation`]'s `Display`).
    pub fn ended(&self, expected: &str) -> Result<()> {
        let seen = self.to_string();
        ensure!(seen == expected, "{}: expected `{expected}`, saw `{seen}`", self.probe);
        Ok(())
    }

    /// Fails unless the counters of the rules with these comments rose by these numbers.
    pub fn counted(&self, expected: &[(&str, u64)]) -> Result<()> {
        for (comment, count) in expected {
            let seen = self.count(comment)?;
            if seen != *count {
                bail!("{}: rule {comment} counted {seen} packets, not {count}", self.probe);
            }
        }
        Ok(())
    }
}

impl fmt::Display for Observation {
    /// [`Sighting`]'s form, or `rejected` or `dropped` if it was never seen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.sighting.to_string();
        f.write_str(match (&*seen, self.refused) {
            ("", true) => "rejected",
            ("", false) => "dropped",
            (seen, _) => seen,
        })
    }
}

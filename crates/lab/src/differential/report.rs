//! What a run came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use unmasq_model::packet::Family;

use super::Kind;
use super::compare::Wrong;
use super::packet::{Injection, Path};
use super::sequence::{Conversation, Part};
pub use super::shrink::Reproducer;

/// The result of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Cases, by what they were.
    pub breakdown: BTreeMap<(Kind, Family, Path), u64>,
    /// Packets of conversations, by their part.
    pub parts: BTreeMap<Part, u64>,
    /// Rulesets.
    pub rulesets: u64,
    /// Cases in which the kernel did something else.
    pub disagreements: u64,
    /// Cases in which the evaluator could not tell.
    pub unknown: u64,
    /// The first case of either, counted from 1 in the order of rulesets, and what is wrong.
    pub first: Option<(u64, Wrong)>,
    /// The first disagreements, shrunk.
    pub reproducers: Vec<Reproducer>,
    /// The seed.
    pub seed: u64,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// How many packets.
    pub fn cases(&self) -> u64 {
        self.breakdown.values().sum()
    }

    /// Whether everything agreed.
    pub fn agrees(&self) -> bool {
        self.disagreements == 0 && self.unknown == 0
    }

    pub(super) fn count(&mut self, kind: Kind, family: Family, injections: &[Injection]) {
        self.rulesets += 1;
        for injection in injections {
            *self.breakdown.entry((kind, family, injection.path)).or_insert(0) += 1;
        }
    }

    pub(super) fn converse(&mut self, conversations: &[Conversation]) {
        for part in conversations.iter().flat_map(|conversation| &conversation.parts) {
            *self.parts.entry(*part).or_insert(0) += 1;
        }
    }

    pub(super) fn found(&mut self, case: u64, wrong: Wrong) {
        self.first = earlier(self.first, Some((case, wrong)));
        match wrong {
            Wrong::Unknown => self.unknown += 1,
            Wrong::Several | Wrong::Differs => self.disagreements += 1,
        }
    }

    pub(super) fn add(&mut self, other: Report) {
        for (key, count) in other.breakdown {
            *self.breakdown.entry(key).or_insert(0) += count;
        }
        for (part, count) in other.parts {
            *self.parts.entry(part).or_insert(0) += count;
        }
        self.rulesets += other.rulesets;
        self.disagreements += other.disagreements;
        self.unknown += other.unknown;
        self.first = earlier(self.first, other.first);
        self.reproducers.extend(other.reproducers);
    }
}

fn earlier(one: Option<(u64, Wrong)>, other: Option<(u64, Wrong)>) -> Option<(u64, Wrong)> {
    one.into_iter().chain(other).min()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = [Path::Forwarded, Path::ToHost, Path::FromHost, Path::Loopback];
        write!(f, "| back end | family |")?;
        for path in paths {
            write!(f, " {} |", path.name())?;
        }
        writeln!(f, "\n|---|---|--:|--:|--:|--:|")?;
        for kind in Kind::ALL {
            for family in [Family::V4, Family::V6] {
                let count = |path| self.breakdown.get(&(kind, family, path)).copied().unwrap_or(0);
                let counts = paths.map(count);
                if counts.iter().sum::<u64>() == 0 {
                    continue;
                }
                write!(f, "| {} | {family} |", kind.name())?;
                counts.iter().try_for_each(|count| write!(f, " {count} |"))?;
                writeln!(f)?;
            }
        }
        for part in Part::ALL {
            if let Some(count) = self.parts.get(&part) {
                write!(f, "\n{count} packets: {}", part.name())?;
            }
        }
        let kernel = rustix::system::uname();
        write!(
            f,
            "\n{} cases, {} rulesets, {} disagreements, {} unknown; {:.0} cases/s; \
             kernel {}; seed {}",
            self.cases(),
            self.rulesets,
            self.disagreements,
            self.unknown,
            self.cases() as f64 / self.took.as_secs_f64().max(0.001),
            kernel.release().to_string_lossy(),
            self.seed
        )?;
        match self.first {
            Some((case, Wrong::Unknown)) => writeln!(f, "; first at case {case} (unknown)"),
            Some((case, Wrong::Several | Wrong::Differs)) => writeln!(f, "; first at case {case}"),
            None => writeln!(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_case_is_the_smallest_of_all_workers() {
        let [mut one, mut other] = [Report::default(), Report::default()];
        assert!(!one.to_string().contains("first"));
        one.found(52, Wrong::Differs);
        one.found(70, Wrong::Unknown);
        assert!(one.to_string().ends_with("; first at case 52\n"), "{one}");
        other.found(8, Wrong::Unknown);
        one.add(other);
        one.add(Report::default());
        assert_eq!(one.first, Some((8, Wrong::Unknown)));
        assert!(one.to_string().ends_with("; first at case 8 (unknown)\n"), "{one}");
    }
}

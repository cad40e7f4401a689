//! Rows that belong to one finding, and for which Services they do.
//!
//! A row is many answers, about many Services; an expectation or a setting is broken for single
//! ones. What a rule does to these is an error, and mended for these alone; what it does to the
//! others stays what it is, if that is only what the settings say.
//!
//! ```text
//! Row ─ judge ─▶ Told (hurt Services | the rest) ─▶ Gathered (kind, subject) ─┬▶ Group: breaking
//!                                                                             └▶ Group: rest
//! ```

use std::collections::BTreeSet;

use unmasq_model::packet::Family;

use crate::judge::Suspect;
use crate::{BREAKING, FindingId, REST, Severity};

/// What is gathered in one place: a kind of finding, and which one of its kind.
pub(super) type Key = (FindingId, String);

/// What is told of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Its index.
    pub(super) row: usize,
    pub(super) family: Family,
    /// Whether it breaks something.
    pub(super) breaks: bool,
    /// The Services for which it does; none: the row is about none.
    pub(super) hurt: Vec<u32>,
    /// How bad it is by itself, and the Services for which it is no worse. `None`: it is worse for
    /// all, or as expected for these.
    pub(super) rest: Option<(Severity, Vec<u32>)>,
}

/// Rows with one cause.
#[derive(Debug, Clone)]
pub(super) struct Gathered {
    suspect: Suspect,
    told: Vec<Told>,
    /// What is broken, each once.
    breaks: Vec<String>,
    known: BTreeSet<String>,
}

/// Which part of what has one cause a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// The Services for which something breaks.
    Breaking,
    /// The other ones.
    Rest,
}

/// Rows that belong to one finding.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) suspect: Suspect,
    pub(crate) part: Part,
    pub(crate) severity: Severity,
    /// In order.
    pub(crate) rows: Vec<usize>,
    /// The Services that it is about: not always all of its rows.
    pub(crate) services: BTreeSet<u32>,
    pub(crate) families: BTreeSet<Family>,
    pub(crate) breaks: Vec<String>,
}

impl Part {
    /// Which one of its kind a part is.
    pub(super) fn subject(self, whole: &str) -> String {
        let word = match self {
            Part::Whole => return whole.to_owned(),
            Part::Breaking => BREAKING,
            Part::Rest => REST,
        };
        if whole.is_empty() { word.to_owned() } else { format!("{whole}/{word}") }
    }
}

impl Gathered {
    pub(super) fn new(suspect: Suspect) -> Gathered {
        Gathered { suspect, told: Vec::new(), breaks: Vec::new(), known: BTreeSet::new() }
    }

    pub(super) fn add(&mut self, told: Told) {
        self.told.push(told);
    }

    /// Adds what is broken.
    pub(super) fn breaks(&mut self, sentences: impl IntoIterator<Item = String>) {
        for sentence in sentences {
            if self.known.insert(sentence.clone()) {
                self.breaks.push(sentence);
            }
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.told.iter().map(|one| one.row)
    }

    /// What findings are made of: one, or two if something breaks for some Services, and what is
    /// done to the others is as the settings say. All that is told of a Service is in one of them:
    /// it is mended as a whole.
    pub(super) fn groups(mut self) -> Vec<Group> {
        self.told.sort_by_key(|one| one.row);
        let hurt: BTreeSet<u32> = self.told.iter().flat_map(|one| &one.hurt).copied().collect();
        let mut breaking = Group::of(self.suspect.clone(), Part::Breaking, Severity::Error);
        let mut rest = Group::of(self.suspect, Part::Rest, Severity::Info);
        for one in &self.told {
            if one.breaks {
                breaking.add(one, &one.hurt);
            }
            let Some((severity, services)) = &one.rest else { continue };
            let (own, others): (Vec<u32>, Vec<u32>) =
                services.iter().partition(|service| hurt.contains(service));
            if !own.is_empty() {
                breaking.add(one, &own);
            }
            if !others.is_empty() || services.is_empty() {
                rest.add(one, &others);
                rest.severity = rest.severity.max(*severity);
            }
        }
        breaking.breaks = self.breaks;
        let apart = !breaking.services.is_empty() && !rest.services.is_empty();
        match (breaking.rows.is_empty(), rest.rows.is_empty()) {
            (true, _) => vec![Group { part: Part::Whole, ..rest }],
            (false, true) => vec![Group { part: Part::Whole, ..breaking }],
            (false, false) if apart && rest.severity == Severity::Info => vec![breaking, rest],
            (false, false) => vec![breaking.with(rest)],
        }
    }
}

impl Group {
    /// What no row shows.
    pub(super) fn without_rows(
        suspect: Suspect,
        severity: Severity,
        families: BTreeSet<Family>,
    ) -> Group {
        Group { families, ..Group::of(suspect, Part::Whole, severity) }
    }

    fn of(suspect: Suspect, part: Part, severity: Severity) -> Group {
        let (services, families) = (BTreeSet::new(), BTreeSet::new());
        Group { suspect, part, severity, rows: Vec::new(), services, families, breaks: Vec::new() }
    }

    /// Adds a row that comes behind those that are there, or is the last of them.
    fn add(&mut self, told: &Told, services: &[u32]) {
        if self.rows.last() != Some(&told.row) {
            self.rows.push(told.row);
        }
        self.services.extend(services);
        self.families.insert(told.family);
    }

    /// Both as one.
    fn with(mut self, other: Group) -> Group {
        self.rows.extend(other.rows);
        self.rows.sort_unstable();
        self.rows.dedup();
        self.services.extend(other.services);
        self.families.extend(other.families);
        Group { part: Part::Whole, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Owner;

    const INFO: Severity = Severity::Info;

    fn told(row: usize, hurt: &[u32], rest: Option<(Severity, &[u32])>) -> Told {
        Told {
            row,
            family: Family::V4,
            breaks: !hurt.is_empty(),
            hurt: hurt.to_vec(),
            rest: rest.map(|(severity, services)| (severity, services.to_vec())),
        }
    }

    type Seen = (Part, Severity, Vec<usize>, Vec<u32>, usize);

    fn groups(all: impl IntoIterator<Item = Told>) -> Vec<Seen> {
        let suspect = Suspect::nobody(FindingId::ExternalTrafficPolicyCluster, Owner::KubeProxy);
        let mut gathered = Gathered::new(suspect);
        for one in all {
            gathered.breaks(one.breaks.then(|| "expect.yaml:3".to_owned()));
            gathered.add(one);
        }
        let seen = |one: Group| {
            let services = one.services.into_iter().collect();
            (one.part, one.severity, one.rows, services, one.breaks.len())
        };
        gathered.groups().into_iter().map(seen).collect()
    }

    /// Service 5 is hurt by row 2 alone; what rows 1 and 4 say of it goes with it.
    #[test]
    fn what_breaks_is_told_apart_from_the_rest() {
        let all = [
            told(4, &[], Some((INFO, &[5, 6]))),
            told(1, &[], Some((INFO, &[5]))),
            told(2, &[5], Some((INFO, &[6, 7]))),
            told(3, &[], Some((INFO, &[7]))),
        ];
        let breaking = (Part::Breaking, Severity::Error, vec![1, 2, 4], vec![5], 1);
        let rest = (Part::Rest, INFO, vec![2, 3, 4], vec![6, 7], 0);
        assert_eq!(groups(all), [breaking, rest]);
    }

    #[test]
    fn one_finding_where_there_is_nothing_to_tell_apart() {
        let nothing = [told(1, &[], Some((INFO, &[5, 6])))];
        assert_eq!(groups(nothing), [(Part::Whole, INFO, vec![1], vec![5, 6], 0)]);
        let all = [told(1, &[5, 6], None), told(2, &[], Some((INFO, &[6])))];
        assert_eq!(groups(all), [(Part::Whole, Severity::Error, vec![1, 2], vec![5, 6], 1)]);
        // The others are badly off too.
        let bad = [told(1, &[5], Some((Severity::Warning, &[6])))];
        assert_eq!(groups(bad), [(Part::Whole, Severity::Error, vec![1], vec![5, 6], 1)]);
        // What is about no Service has no remedy of its own.
        let direct = [told(1, &[5], None), told(2, &[], Some((INFO, &[])))];
        assert_eq!(groups(direct), [(Part::Whole, Severity::Error, vec![1, 2], vec![5], 1)]);
    }

    #[test]
    fn parts_have_names_of_their_own() {
        let named =
            |whole| [Part::Whole, Part::Breaking, Part::Rest].map(|part| part.subject(whole));
        assert_eq!(named(""), ["", "breaking", "rest"]);
        assert_eq!(named("ipv4"), ["ipv4", "ipv4/breaking", "ipv4/rest"]);
    }
}

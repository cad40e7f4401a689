//! Outcomes that end alike, and the sentence that says how.

use std::net::IpAddr;

use unmasq_audit::{Owner, label};
use unmasq_eval::trace::{By, Disposition, Endpoint, Outcome, Trace, Verdict};
use unmasq_model::host::Host;

use crate::evidence::{self, Place};

/// How a group ends, most alarming first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Dropped,
    Rejected,
    Rewritten,
    Unknown,
    Preserved,
}

impl Kind {
    fn of(outcome: &Outcome) -> Kind {
        match (outcome.verdict, outcome.source.disposition) {
            (Verdict::Dropped, _) => Kind::Dropped,
            (Verdict::Rejected, _) => Kind::Rejected,
            (Verdict::Unknown, _) => Kind::Unknown,
            (Verdict::Delivered | Verdict::Forwarded, Disposition::Rewritten) => Kind::Rewritten,
            (Verdict::Delivered | Verdict::Forwarded, Disposition::Preserved) => Kind::Preserved,
            (Verdict::Delivered | Verdict::Forwarded, Disposition::Unknown) => Kind::Unknown,
        }
    }

    /// The word that stands for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Dropped => "DROPPED",
            Kind::Rejected => "REJECTED",
            Kind::Rewritten => "REWRITTEN",
            Kind::Unknown => "UNKNOWN",
            Kind::Preserved => "PRESERVED",
        }
    }
}

/// Outcomes with one answer.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) kind: Kind,
    /// The answer, a line without a full stop.
    pub(super) answer: String,
    /// Never empty.
    pub(super) outcomes: Vec<&'a Outcome>,
    cause: String,
}

/// The groups of a trace, most alarming first, else in the order met.
pub(super) fn of<'a>(trace: &'a Trace, host: &Host) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for outcome in &trace.outcomes {
        let kind = Kind::of(outcome);
        let cause = cause(kind, outcome, host);
        match groups.iter_mut().find(|group| group.kind == kind && group.cause == cause) {
            Some(group) => group.outcomes.push(outcome),
            None => {
                groups.push(Group { kind, answer: String::new(), outcomes: vec![outcome], cause })
            }
        }
    }
    groups.sort_by_key(|group| group.kind);
    for group in &mut groups {
        group.answer = group.sentence();
    }
    groups
}

impl Group<'_> {
    /// How likely: `33%`; `?` where that can't be told.
    pub(super) fn share(&self) -> String {
        percent(sum(self.outcomes.iter().map(|outcome| outcome.probability)))
    }

    /// Each destination with its share and the source that it sees, in the order met.
    pub(super) fn destinations(&self) -> Vec<(String, Endpoint, Endpoint)> {
        let mut rows: Vec<(Option<f64>, Endpoint, Endpoint)> = Vec::new();
        for outcome in &self.outcomes {
            let (to, from) = (outcome.destination.after, outcome.source.after);
            match rows.iter_mut().find(|row| row.1 == to && row.2 == from) {
                Some(row) => row.0 = sum([row.0, outcome.probability]),
                None => rows.push((outcome.probability, to, from)),
            }
        }
        rows.into_iter().map(|(share, to, from)| (percent(share), to, from)).collect()
    }

    /// Where answers go, if all of those addresses are `host`'s own.
    pub(super) fn way_back(&self, host: &Host) -> Option<String> {
        let addresses: Option<Vec<IpAddr>> =
            self.outcomes.iter().map(|outcome| outcome.source.after.address).collect();
        let addresses = addresses?;
        let owned = |address: &IpAddr| {
            let mut all = host.links.iter().flatten().flat_map(|link| &link.addresses);
            all.any(|own| own.local == *address)
        };
        let text = some(addresses.iter().map(IpAddr::to_string), "addresses");
        addresses.iter().all(owned).then_some(text)
    }

    fn sentence(&self) -> String {
        let Some(first) = self.outcomes.first() else {
            return String::new();
        };
        match self.kind {
            Kind::Dropped | Kind::Rejected => format!("{} {}", self.kind.word(), self.cause),
            Kind::Unknown => match first.verdict {
                Verdict::Unknown => format!("UNKNOWN: {}", self.cause),
                Verdict::Delivered | Verdict::Forwarded | Verdict::Dropped | Verdict::Rejected => {
                    format!("source UNKNOWN: {}", self.cause)
                }
            },
            Kind::Rewritten => {
                let (before, after) = self.change(first);
                format!("source REWRITTEN {before} -> {after} by {}", self.cause)
            }
            Kind::Preserved => {
                let from = address(&first.source.before);
                let to = some(
                    self.outcomes.iter().map(|it| it.destination.after.to_string()),
                    "destinations",
                );
                format!("source PRESERVED {from} -> {to}")
            }
        }
    }

    /// The source before and after: addresses, with ports where only the port changed.
    fn change(&self, first: &Outcome) -> (String, String) {
        let same_address = |it: &&Outcome| it.source.before.address == it.source.after.address;
        if self.outcomes.iter().any(same_address) {
            let after = self.outcomes.iter().map(|it| it.source.after.to_string());
            (first.source.before.to_string(), some(after, "addresses and ports"))
        } else {
            let after = self.outcomes.iter().map(|it| address(&it.source.after));
            (address(&first.source.before), some(after, "addresses"))
        }
    }
}

/// What made it end so; what outcomes of one group have in common.
fn cause(kind: Kind, outcome: &Outcome, host: &Host) -> String {
    match kind {
        Kind::Dropped | Kind::Rejected => decided_by(outcome, host),
        Kind::Rewritten => match outcome.rewritten_by {
            Some(rule) => format!("{} ({})", label(host, rule), unmasq_audit::owner(host, rule)),
            None if !outcome.unknown.is_empty() => "a rule that can't be told".to_owned(),
            None => "the kernel, without a rule".to_owned(),
        },
        Kind::Unknown => match &outcome.unknown[..] {
            [] => "no reason was given".to_owned(),
            [why] => why.clone(),
            [why, rest @ ..] => format!("{why} (and {} more)", rest.len()),
        },
        Kind::Preserved => String::new(),
    }
}

/// `by KUBE-SERVICES (kube-proxy): default/web:http has no endpoints`.
pub(super) fn decided_by(outcome: &Outcome, host: &Host) -> String {
    let reason = outcome.reason.map_or("reason not given", evidence::reason_name);
    let Some(hit) = outcome.hits.last() else { return format!("by the kernel: {reason}") };
    let effects = evidence::effects(host, hit);
    let place = Place::of(host, &hit.by);
    let name = place.name().unwrap_or_else(|| "a rule".to_owned());
    match &hit.by {
        By::Kernel(_) => format!("by the kernel ({reason}): {effects}"),
        By::Policy { .. } => match place.owner {
            None | Some(Owner::Unclaimed) => format!("by {name}: {effects}"),
            Some(owner) => format!("by {name} ({owner}): {effects}"),
        },
        By::Rule(rule) => {
            let owner = unmasq_audit::owner(host, *rule);
            let comment = place.rule.and_then(|rule| rule.comment.as_deref());
            match comment.filter(|text| tells_something(text)) {
                Some(comment) if place.chain.is_some_and(|chain| chain.base.is_some()) => {
                    format!("by {name} ({owner}): {comment}")
                }
                Some(comment) => format!("by {} ({owner}): {comment}", label(host, *rule)),
                None => format!("by {} ({owner}): {effects}", label(host, *rule)),
            }
        }
    }
}

/// Whether a comment says anything to a person: Calico's are hashes.
pub(super) fn tells_something(comment: &str) -> bool {
    !comment.trim().is_empty() && !comment.starts_with("cali:")
}

fn address(endpoint: &Endpoint) -> String {
    endpoint.address.map_or_else(|| "?".to_owned(), |address| address.to_string())
}

/// `a`, `a or b`, `one of 12 addresses`.
pub(super) fn some(values: impl Iterator<Item = String>, what: &str) -> String {
    let mut distinct: Vec<String> = values.collect();
    distinct.sort();
    distinct.dedup();
    match &distinct[..] {
        [] => "?".to_owned(),
        [one] => one.clone(),
        [one, other] => format!("{one} or {other}"),
        many => format!("one of {} {what}", many.len()),
    }
}

pub(super) fn sum(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    values.into_iter().sum()
}

pub(super) fn percent(share: Option<f64>) -> String {
    match share {
        None => "?".to_owned(),
        Some(share) if share > 0.0 && share < 0.01 => "<1%".to_owned(),
        // Shares of one that were divided and added again are not always one.
        Some(share) if share > 0.995 && share < 0.999_999 => ">99%".to_owned(),
        Some(share) => format!("{:.0}%", share * 100.0),
    }
}

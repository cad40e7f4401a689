//! What places of this process saw of datagrams and echo requests, by what these carry.
//!
//! An answer tells it too, but it may get lost on its way back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use unmasq_probe::reports::Witness;
use unmasq_probe::token;

use super::{Protocol, Report};

/// Sightings that are remembered; nobody may ever ask for them.
const REMEMBERED: usize = 1 << 16;

static SEEN: Mutex<BTreeMap<String, Report>> = Mutex::new(BTreeMap::new());

/// Notes the datagrams that a place sees.
#[derive(Debug)]
pub(super) struct Notes;

impl Witness for Notes {
    fn saw(&self, report: &Report) -> bool {
        if report.protocol == Protocol::Udp {
            note(report);
        }
        true
    }
}

/// Notes what was seen, if its payload is a token of this process.
pub(super) fn note(report: &Report) {
    if token::is_own(&report.request) {
        let mut seen = lock(&SEEN);
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(report.request.clone(), report.clone());
    }
}

/// What was seen; it is forgotten then.
pub(super) fn take(tokens: &BTreeSet<&str>) -> BTreeMap<String, Report> {
    let mut seen = lock(&SEEN);
    tokens.iter().filter_map(|token| seen.remove_entry(*token)).collect()
}

/// Locks, also after another thread panicked: nothing here is left half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_of_this_process_are_noted_and_given_once() {
        let at = "192.0.2.1:0".parse().unwrap();
        let own = token::token();
        let foreign = format!("unmasq-{}-1-1", std::process::id() + 1);
        for token in [&own, &foreign] {
            note(&Report::new("web-1", Protocol::Udp, at, at).about(token.as_bytes()));
        }
        let tokens = BTreeSet::from([&*own, &*foreign]);
        let seen: Vec<_> =
            take(&tokens).into_iter().map(|(token, seen)| (token, seen.by)).collect();
        assert_eq!(seen, [(own.clone(), "web-1".to_owned())]);
        assert!(take(&tokens).is_empty());
    }
}

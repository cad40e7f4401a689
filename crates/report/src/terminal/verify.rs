//! Connections that were tried: what was predicted beside what was seen.
//!
//! ```text
//! DIFFERS: 1 of 62 connections ended otherwise than predicted.        verdict
//!
//! Otherwise than predicted
//!   tcp laptop -> node port 10.0.0.11:30080 of default/web
//!     predicted  source preserved, at pod default/web-1, 10.42.1.2:8080
//!     observed   source rewritten to 10.0.0.11, at …
//! ```

use std::collections::BTreeMap;

use unmasq_audit::matrix::verify::{Check, Checks, Seen, Tried, Verdict};
use unmasq_cluster::paths::Caller;
use unmasq_model::packet::Family;

use super::audit::heading;
use super::paint::{Colour, Paint, clean};
use super::{Style, plural};
use crate::verify::{Words, entry};

/// All of it as text, ending with a newline.
pub fn verified(tried: &Tried, words: &Words<'_>, style: &Style) -> String {
    let paint = Paint::new(style);
    let mut text = String::new();
    answer(&mut text, tried, &paint);
    for (wanted, title) in [
        (Verdict::Differs, "Otherwise than predicted"),
        (Verdict::Unpredicted, "Not predicted: what was seen agrees with nothing"),
        (Verdict::Unseen, "Not seen, or not enough to tell"),
        (Verdict::AsPredicted, "As predicted"),
    ] {
        let all = tried.all().filter(|(_, _, verdict)| *verdict == wanted);
        let all: Vec<(&Check, &[Seen])> = all.map(|(check, seen, _)| (check, seen)).collect();
        if all.is_empty() {
            continue;
        }
        heading(&mut text, title, &paint);
        if wanted == Verdict::AsPredicted && !paint.verbose {
            alike(&mut text, &all, &paint);
            continue;
        }
        all.iter().for_each(|(check, seen)| one(&mut text, check, seen, words, &paint));
    }
    text.push_str(&left_out(&tried.checks, style));
    if tried.strays > 0 {
        let what = plural(
            tried.strays,
            "observation is of a connection",
            "observations are of connections",
        );
        let line = format!(
            "{} {what} that {} not to be tried.",
            tried.strays,
            plural(tried.strays, "was", "were")
        );
        text.push('\n');
        paint.wrap(&mut text, "", &line);
    }
    text
}

fn answer(text: &mut String, tried: &Tried, paint: &Paint) {
    let all = tried.checks.checks.len();
    let connections =
        |count: usize| format!("{count} {}", plural(count, "connection", "connections"));
    let count = |verdict| tried.count(verdict);
    let (word, colour, rest) = match tried.verdict() {
        _ if all == 0 => {
            ("UNKNOWN", Colour::Yellow, ": there is nothing that can be tried.".to_owned())
        }
        Verdict::Differs => {
            let rest = format!(
                ": {} of {} ended otherwise than predicted.",
                count(Verdict::Differs),
                connections(all)
            );
            ("DIFFERS", Colour::Red, rest)
        }
        Verdict::Unpredicted | Verdict::Unseen => {
            let rest = format!(
                ": {} of {} ended as predicted; {} could not be predicted, and {} not be seen.",
                count(Verdict::AsPredicted),
                connections(all),
                count(Verdict::Unpredicted),
                count(Verdict::Unseen)
            );
            ("UNKNOWN", Colour::Yellow, rest)
        }
        Verdict::AsPredicted => (
            "AS PREDICTED",
            Colour::Green,
            format!(": {}, each with a new port.", connections(all)),
        ),
    };
    let line = paint.wrapped("", &format!("{word}{rest}"));
    text.push_str(&line.replacen(word, &paint.colour(colour, word), 1));
}

fn one(text: &mut String, check: &Check, seen: &[Seen], words: &Words<'_>, paint: &Paint) {
    let protocol = check.call().protocol;
    let line = format!("{protocol} {} -> {}", words.caller(check), words.called(check));
    paint.wrap(text, "  ", &clean(&line));
    let mut told: Vec<String> = Vec::new();
    for seen in seen.iter().map(|seen| words.seen(seen)) {
        if !told.contains(&seen) {
            told.push(seen);
        }
    }
    let told = if told.is_empty() { "nothing".to_owned() } else { told.join("; and ") };
    let predicted = words.all_predicted(check);
    for (first, what) in [("predicted  ", predicted), ("observed   ", told)] {
        text.push_str(&paint.hanging(&format!("    {first}"), "      ", &clean(&what)));
    }
}

/// Connections of one kind in one line.
fn alike(text: &mut String, all: &[(&Check, &[Seen])], paint: &Paint) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (check, _) in all {
        let call = check.call();
        let from = match call.from {
            Caller::Pod { .. } => "pod",
            Caller::Node(_) => "node",
            Caller::Outside { .. } => "outside",
        };
        let mut fates: Vec<&str> = check.predicted.iter().map(|one| fate(&one.what)).collect();
        fates.dedup();
        let (to, family) = (entry(check.entry), Family::of(call.to));
        let kind = format!("{from} -> {to}, {} {family}: {}", call.protocol, fates.join(" or "));
        *kinds.entry(kind).or_default() += 1;
    }
    for (kind, count) in kinds {
        paint.wrap(text, "  ", &format!("{count:>4}  {kind}"));
    }
    paint.wrap(text, "  ", "Each by itself with -v.");
}

fn fate(what: &unmasq_audit::matrix::verify::What) -> &'static str {
    use unmasq_audit::matrix::verify::What;
    match what {
        What::Preserved => "source preserved",
        What::Rewritten(_) => "source rewritten",
        What::Silence | What::Nobody => "no answer",
        What::Refusal => "refused",
        What::Unknown(_) => "unknown",
    }
}

/// What is not tried, and why.
pub fn left_out(checks: &Checks, style: &Style) -> String {
    let paint = Paint::new(style);
    let mut text = String::new();
    if checks.left_out.is_empty() {
        return text;
    }
    let all: usize = checks.left_out.values().sum();
    heading(&mut text, &format!("Left out: {all} of {}", checks.concerned), &paint);
    for (why, count) in &checks.left_out {
        paint.wrap(&mut text, "  ", &format!("{count:>4}  {}", clean(&why.to_string())));
    }
    text
}

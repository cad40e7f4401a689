//! The answer for a tired person: what happens in the first line, then the evidence.
//!
//! ```text
//! source REWRITTEN 192.168.7.20 -> 10.42.0.1 by cali-nat-outgoing (Calico)     answer
//!
//! tcp 192.168.7.20:41000 -> 10.0.0.11:30080, into node w1 by eth0              question
//! 10.42.3.7:8080 sees 10.42.0.1:41000 instead of 192.168.7.20:41000.           consequence
//!
//! postrouting                                                                  path
//! ! nat cali-nat-outgoing: source -> 10.42.0.1:41000       iptables-save:88
//! ```
//!
//! Outcomes that end alike share an answer and one path; a Service with a thousand endpoints has
//! one path, not a thousand.

mod audit;
mod group;
mod hosts;
mod page;
mod paint;
mod path;
mod plan;
mod verify;

use std::fmt::Write as _;

use unmasq_eval::trace::{Disposition, Outcome, Start, Trace, Verdict};
use unmasq_model::host::Host;

use group::{Group, Kind};
pub use page::{index, page};
use paint::{Colour, Paint};

pub use audit::{Extent, audit};
pub use hosts::path_of_hosts;
pub(crate) use hosts::probability;
pub use paint::clean;
pub use plan::{difference, plan, refusal};
pub use verify::{left_out, verified};

use crate::json::ends;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// With ANSI colours.
    pub color: bool,
    /// Every hit of the trace and every text in full.
    pub verbose: bool,
    /// Columns.
    pub width: usize,
}

impl Style {
    /// A paragraph, broken at blanks: behind `first` in its first line, and behind `rest` in those
    /// that follow. A word that is too long keeps its line.
    pub fn wrapped(&self, first: &str, rest: &str, paragraph: &str) -> String {
        Paint::new(self).hanging(first, rest, paragraph)
    }
}

/// Paths shown when answers differ, and lines of a list, unless everything is asked for.
const FEW_PATHS: usize = 3;
const FEW_LINES: usize = 8;

/// The answer as text, ending with a newline.
pub fn trace(trace: &Trace, host: &Host, style: &Style) -> String {
    let paint = Paint::new(style);
    let groups = group::of(trace, host);
    let mut text = String::new();
    answers(&mut text, &groups, &paint);
    text.push('\n');
    paint.wrap(&mut text, "", &question(trace, host));
    for group in &groups {
        consequence(&mut text, group, host, &paint);
    }
    let shown = if style.verbose { groups.len() } else { groups.len().min(FEW_PATHS) };
    for group in groups.iter().take(shown) {
        path_of(&mut text, group, groups.len() > 1, trace, host, &paint);
    }
    if shown < groups.len() {
        let rest = groups.len() - shown;
        let _ = writeln!(text, "\n{rest} more {} with -v.", plural(rest, "path", "paths"));
    }
    let unknown = unknown(trace);
    // A single reason already stands in the answer.
    if unknown.len() > 1 || groups.iter().all(|group| group.kind != Kind::Unknown) {
        list(&mut text, "Not known:", &unknown, &paint);
    }
    list(&mut text, "Taken for granted:", &trace.assumptions, &paint);
    text
}

fn answers(text: &mut String, groups: &[Group<'_>], paint: &Paint) {
    let alone = groups.len() == 1;
    let limit = if paint.verbose { groups.len() } else { FEW_LINES };
    for group in groups.iter().take(limit) {
        let share = if alone { String::new() } else { format!("{:>4}  ", group.share()) };
        let mut line = format!("{share}{}", paint::clean(&group.answer));
        let count = group.outcomes.len();
        if count > 1 && group.kind != Kind::Preserved {
            let _ = write!(line, " ({count} outcomes)");
        }
        let wrapped = paint.wrapped("", &line);
        let word = group.kind.word();
        let painted = paint.colour(group.kind.colour(), word);
        text.push_str(&wrapped.replacen(word, &painted, 1));
    }
    if groups.is_empty() {
        text.push_str("UNKNOWN: the packet could not be followed\n");
    } else if groups.len() > limit {
        let _ = writeln!(text, "      and {} more", groups.len() - limit);
    }
}

/// What was asked.
fn question(trace: &Trace, host: &Host) -> String {
    let (source, destination) = ends(&trace.packet);
    let node = paint::clean(&host.name);
    let start = match &trace.start {
        Start::In(device) => format!("into node {node} by {}", paint::clean(device)),
        Start::Output => format!("sent by node {node} itself"),
        Start::Unknown => format!("on node {node}"),
    };
    let mark = match trace.packet.mark {
        0 => String::new(),
        mark => format!(", with mark {mark:#x}"),
    };
    format!("{} {source} -> {destination}, {start}{mark}", trace.packet.protocol)
}

/// What the other side sees.
fn consequence(text: &mut String, group: &Group<'_>, host: &Host, paint: &Paint) {
    match group.kind {
        Kind::Dropped | Kind::Rejected | Kind::Unknown => return,
        Kind::Rewritten | Kind::Preserved => {}
    }
    let Some(first) = group.outcomes.first() else {
        return;
    };
    if let [outcome] = group.outcomes[..] {
        let sees = sees(outcome);
        paint.wrap(text, "", &format!("{} {sees}.", outcome.destination.after));
    } else {
        spread(text, group, paint);
    }
    if let Some(why) = path::why(first, host) {
        paint.wrap(text, "", &why);
    }
    if group.kind == Kind::Rewritten
        && let Some(back) = group.way_back(host)
    {
        let node = paint::clean(&host.name);
        let answer = format!("Answers go to {back}; node {node} translates them back.");
        paint.wrap(text, "", &answer);
    }
}

fn sees(outcome: &Outcome) -> String {
    let Some(_) = outcome.source.after.address else {
        return "sees a source that can't be told".to_owned();
    };
    match outcome.source.disposition {
        Disposition::Rewritten => {
            format!("sees {} instead of {}", outcome.source.after, outcome.source.before)
        }
        Disposition::Preserved if outcome.source.before == outcome.source.after => {
            format!("sees {}, the sender's own address", outcome.source.after)
        }
        Disposition::Preserved => {
            let after = outcome.source.after;
            format!("sees {after}: the sender's own address, another port")
        }
        Disposition::Unknown => format!("may see {}", outcome.source.after),
    }
}

/// Destinations with their probabilities.
fn spread(text: &mut String, group: &Group<'_>, paint: &Paint) {
    let rows = group.destinations();
    let limit = if paint.verbose { rows.len() } else { FEW_LINES };
    for (share, destination, source) in rows.iter().take(limit) {
        paint.wrap(text, "", &format!("{share:>4}  {destination} sees {source}"));
    }
    if rows.len() > limit {
        let rest = rows.len() - limit;
        let _ = writeln!(text, "      and {rest} more {}", plural(rest, "way", "ways"));
    }
}

fn path_of(
    text: &mut String,
    group: &Group<'_>,
    of_several: bool,
    trace: &Trace,
    host: &Host,
    paint: &Paint,
) {
    let Some(outcome) = group.outcomes.first() else {
        return;
    };
    let mut title = String::new();
    if of_several {
        let _ = write!(title, "path if {}", group.kind.word());
    }
    if group.outcomes.len() > 1 {
        let start = if title.is_empty() { "path" } else { "," };
        let _ = write!(title, "{start} to {}", outcome.destination.after);
    }
    walk(text, &title, outcome, host, (trace.start == Start::Output, "node"), paint);
}

/// A host's walk, hook by hook. `host_is`: whether it sends the packet itself, and what it is.
fn walk(
    text: &mut String,
    title: &str,
    outcome: &Outcome,
    host: &Host,
    host_is: (bool, &str),
    paint: &Paint,
) {
    text.push('\n');
    let path = path::Path::of(outcome, host, paint.verbose);
    let mut title = paint::clean(title);
    if !path.folder.is_empty() {
        let start = if title.is_empty() { "files in" } else { "; files in" };
        let _ = write!(title, "{start} {}", paint::clean(path.folder));
    }
    if !title.is_empty() {
        text.push_str(&paint.dim(&title));
        text.push('\n');
    }
    path.write(text, paint);
    let end = ending(outcome, host_is);
    if !end.is_empty() {
        let _ = writeln!(text, "{end}");
    }
}

fn ending(outcome: &Outcome, (sent_by_itself, what): (bool, &str)) -> String {
    let out = outcome.out.as_deref().map(paint::clean);
    match (outcome.verdict, out, outcome.next_hop) {
        (Verdict::Delivered, ..) => {
            format!("delivered to the {what} itself, whether something listens there or not")
        }
        (Verdict::Forwarded, Some(out), Some(hop)) => format!("leaves by {out} to {hop}"),
        (Verdict::Forwarded, Some(out), None) => format!("leaves by {out}"),
        (Verdict::Forwarded, None, _) => "leaves".to_owned(),
        (Verdict::Dropped, ..) if sent_by_itself => {
            "dropped; the sending program may be told \"Operation not permitted\"".to_owned()
        }
        (Verdict::Dropped, ..) => "dropped; the sender hears nothing".to_owned(),
        (Verdict::Rejected, ..) => "rejected; the sender gets an error".to_owned(),
        (Verdict::Unknown, ..) => String::new(),
    }
}

fn unknown(trace: &Trace) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for why in trace.outcomes.iter().flat_map(|outcome| &outcome.unknown) {
        if !all.contains(why) {
            all.push(why.clone());
        }
    }
    all
}

fn list(text: &mut String, title: &str, lines: &[String], paint: &Paint) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    let limit = if paint.verbose { lines.len() } else { FEW_LINES };
    for line in lines.iter().take(limit) {
        paint.wrap(text, "  ", &paint::clean(line));
    }
    if lines.len() > limit {
        let _ = writeln!(text, "  and {} more", lines.len() - limit);
    }
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

impl Kind {
    fn colour(self) -> Colour {
        match self {
            Kind::Dropped | Kind::Rejected | Kind::Rewritten => Colour::Red,
            Kind::Unknown => Colour::Yellow,
            Kind::Preserved => Colour::Green,
        }
    }
}

#[cfg(test)]
mod tests;

//! What was found in a cluster: the verdict, the worst findings and what was not seen on one
//! screen; then everything.
//!
//! ```text
//! 1 error, 1 warning: 3 of 412 Services lose their clients' addresses     verdict
//!
//! ! ERROR  Calico masquerades clients of the pool old-pool                worst findings
//!   Calico; affects default/web, shop/api and 1 more (nodes n1, n2)
//!   mend: delete the pool that no pod uses
//!   more: unmasq explain calico-unused-pool
//!
//! Not seen: 4 of 1204 ways can't be told                                  what may hide more
//! ```

pub(super) mod finding;
pub(super) mod matrix;

use std::fmt::Write as _;

use unmasq_audit::{Audit, Doubt, Finding, Severity, Totals};

use super::paint::{Colour, Paint, clean, columns};
use super::{Style, list, plural};
use crate::audit::{Subject, losing, lost};

/// How much is shown of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The verdict, the worst findings, and what was not seen.
    FirstScreen,
    /// The findings in full and the matrix too.
    Everything,
}

/// Findings on the first screen.
const WORST: usize = 3;
/// Sentences there about what was not seen.
const FEW_MISSING: usize = 2;

/// The audit as text, ending with a newline.
pub fn audit(audit: &Audit, subject: &Subject<'_>, extent: Extent, style: &Style) -> String {
    let paint = Paint::new(style);
    let mut text = first_screen(audit, subject, &paint);
    match extent {
        Extent::FirstScreen => return text,
        Extent::Everything => {}
    }
    for (number, finding) in audit.findings.iter().enumerate() {
        let of = audit.findings.len();
        heading(&mut text, &format!("Finding {} of {of}", number + 1), &paint);
        finding::write(&mut text, finding, subject, &paint);
    }
    matrix::write(&mut text, audit, subject, &paint);
    if subject.service.is_none() {
        totals(&mut text, audit, &paint);
    }
    let doubts: Vec<String> = audit.doubts.iter().map(Doubt::line).collect();
    list(&mut text, "Settings that can't be read, or contradict each other:", &doubts, &paint);
    list(&mut text, "Not seen:", &audit.missing, &paint);
    list(&mut text, "Taken for granted:", &audit.assumptions, &paint);
    text
}

pub(super) fn heading(text: &mut String, title: &str, paint: &Paint) {
    let _ = writeln!(text, "\n{}", paint.bold(title));
}

fn first_screen(audit: &Audit, subject: &Subject<'_>, paint: &Paint) -> String {
    let mut text = String::new();
    // What wasn't seen has a place of its own.
    let seen = || audit.findings.iter().filter(|finding| !finding.is_of_sight());
    let colour = match seen().map(|finding| finding.severity).max() {
        Some(Severity::Error) => Colour::Red,
        Some(Severity::Warning) => Colour::Yellow,
        Some(Severity::Info) | None if audit.in_doubt() => Colour::Yellow,
        Some(Severity::Info) | None => Colour::Green,
    };
    for line in paint.wrapped("", &verdict(audit, subject)).lines() {
        let _ = writeln!(text, "{}", paint.colour(colour, line));
    }
    if !audit.findings.is_empty() {
        text.push('\n');
    }
    for finding in seen().take(WORST) {
        brief(&mut text, finding, paint);
    }
    let rest = audit.findings.len() - seen().count().min(WORST);
    if rest > 0 {
        let findings = plural(rest, "finding", "findings");
        let _ = match seen().next() {
            Some(_) => writeln!(text, "and {rest} more {findings}"),
            None => writeln!(text, "{rest} {findings} about what was not seen"),
        };
    }
    text.push('\n');
    not_seen(&mut text, audit, paint);
    not_understood(&mut text, audit, paint);
    taken(&mut text, audit, paint);
    text
}

/// What can't be gone by of settings, in one line.
fn not_understood(text: &mut String, audit: &Audit, paint: &Paint) {
    let [first, rest @ ..] = &audit.doubts[..] else { return };
    let more = match rest.len() {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    };
    let line = format!("Settings not understood: {}", clean(&first.text));
    let _ = writeln!(text, "{}{more}", paint.line(&line, columns(&more)));
}

/// What the answers rest on, in three lines at most.
fn taken(text: &mut String, audit: &Audit, paint: &Paint) {
    let [first, rest @ ..] = &audit.assumptions[..] else { return };
    text.push_str(&paint.brief("", &format!("Taken for granted: {}", clean(first))));
    if !rest.is_empty() {
        let _ = writeln!(text, "  and {} more", rest.len());
    }
}

/// The verdict in one sentence.
fn verdict(audit: &Audit, subject: &Subject<'_>) -> String {
    let about = subject.service.map(|name| format!("{}: ", clean(name))).unwrap_or_default();
    let severities = [(Severity::Error, "error"), (Severity::Warning, "warning")];
    let counted = severities.into_iter().filter_map(|(severity, word)| {
        let of = audit.findings.iter().filter(|one| one.severity == severity);
        let of = of.filter(|one| !one.is_of_sight());
        // Mended with what they follow from, these are no errors more.
        let (following, first): (Vec<_>, Vec<_>) = of.partition(|one| !one.caused_by.is_empty());
        let (count, more) = (first.len(), following.len());
        let them = plural(count, "it", "them");
        let follows = plural(more, "follows", "follow");
        let behind = match more {
            0 => String::new(),
            _ => format!(" and {more} that {follows} from {them}"),
        };
        let ending = plural(count, "", "s");
        (count > 0).then(|| format!("{count} {word}{ending}{behind}"))
    });
    let counted: Vec<String> = counted.collect();
    let result = match (counted.is_empty(), consequence(audit, subject)) {
        (false, Some(consequence)) => format!("{}: {consequence}", counted.join(", ")),
        (false, None) => counted.join(", "),
        (true, _) if audit.matrix.asked == 0 => {
            "nothing can be said: no call could be followed".to_owned()
        }
        (true, _) if audit.in_doubt() => {
            "no source was seen lost that the settings promise to keep, \
             and not everything could be seen"
                .to_owned()
        }
        (true, _) => "no source is lost that the settings promise to keep".to_owned(),
    };
    if about.is_empty() { capitalised(&result) } else { format!("{about}{result}") }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// Who loses what, of the findings that hurt.
fn consequence(audit: &Audit, subject: &Subject<'_>) -> Option<String> {
    let calls: usize = lost(audit).map(|row| row.count).sum();
    let all = audit.totals.services;
    match (losing(audit, subject), calls) {
        (_, 0) => None,
        (_, _) if subject.service.is_some() => Some("it loses its clients' addresses".to_owned()),
        (0, calls) => {
            let loses = plural(calls, "loses its source", "lose their source");
            Some(format!("{calls} of {} ways {loses}", ways(&audit.totals)))
        }
        (services, _) => {
            let loses = plural(services, "loses its clients'", "lose their clients'");
            Some(format!("{services} of {all} Services {loses} addresses"))
        }
    }
}

/// A finding in few lines; only its title may take more than two.
fn brief(text: &mut String, finding: &Finding, paint: &Paint) {
    finding::title(text, finding, paint);
    let owner = finding::owner(finding);
    let line = |few| {
        let all = owner.iter().cloned().chain([finding::affects(finding, few)]);
        clean(&all.collect::<Vec<_>>().join("; "))
    };
    let fits = |few: &usize| columns(&line(*few)) + 2 <= paint.width;
    // Fewer names, before a line is broken.
    let few = (1..=finding::FEW_NAMES).rev().find(fits).unwrap_or(1);
    text.push_str(&paint.brief("  ", &line(few)));
    text.push_str(&paint.brief("  ", &clean(&format!("mend: {}", finding::mend(finding)))));
    let more = format!("more: unmasq explain {}", finding.id);
    let _ = writeln!(text, "  {}", paint.dim(&more));
}

/// What may hide more.
fn not_seen(text: &mut String, audit: &Audit, paint: &Paint) {
    let totals = &audit.totals;
    let mut parts = Vec::new();
    if audit.matrix.asked == 0 {
        parts.push(format!("who calls whom: {}", nobody_to_ask(totals)));
    }
    if totals.unknown > 0 {
        parts.push(format!("{} of {} ways can't be told", totals.unknown, ways(totals)));
    }
    if totals.nodes_not_captured > 0 {
        let all = totals.nodes + totals.nodes_not_captured;
        let count = totals.nodes_not_captured;
        let was = plural(count, "was", "were");
        parts.push(format!("{count} of {all} nodes {was} not captured"));
    }
    for hidden in &audit.hidden {
        paint.wrap(text, "", &format!("This could hide more: {}.", clean(hidden)));
    }
    if parts.is_empty() && audit.missing.is_empty() {
        if audit.hidden.is_empty() {
            text.push_str("Nothing that was asked is unknown.\n");
        }
        return;
    }
    if parts.is_empty() {
        parts.push("all that was asked could be told; more would be known with".to_owned());
    }
    let end = if totals.unknown == 0 && audit.matrix.asked > 0 { ":" } else { "." };
    paint.wrap(text, "", &format!("Not seen: {}{end}", parts.join("; ")));
    // The line about settings takes the place of one.
    let few = FEW_MISSING - usize::from(!audit.doubts.is_empty());
    for missing in audit.missing.iter().take(few) {
        let _ = writeln!(text, "  {}", paint.line(&clean(missing), 2));
    }
    if audit.missing.len() > few {
        let _ = writeln!(text, "  and {} more", audit.missing.len() - few);
    }
}

/// Why nothing could be asked: calls go from and to nodes whose state was captured.
fn nobody_to_ask(totals: &Totals) -> &'static str {
    match (totals.nodes, totals.nodes_not_captured, totals.services, totals.pods) {
        (0, 0, 0, 0) => "no nodes, no Services and no pods are known",
        (0, 0, _, _) => "no nodes are known",
        (0, _, _, _) => "the state of no node was captured",
        (_, _, 0, 0) => "no Services and no pods are known",
        (_, _, _, _) => "no call could be made of the nodes, Services and pods that are known",
    }
}

/// What was asked and what came of it, in numbers.
fn totals(text: &mut String, audit: &Audit, paint: &Paint) {
    let totals = &audit.totals;
    let asked = audit.matrix.asked;
    let title = format!("{asked} calls were asked, which can go {} ways", ways(totals));
    heading(text, &title, paint);
    let rows = [
        (totals.preserved, "source kept"),
        (
            totals.rewritten_as_expected,
            "source lost as expected: a node's own calls, endpoints that call themselves, calls \
             to the outside",
        ),
        (totals.rewritten, "source lost, and a finding is about it"),
        (totals.not_answered, "dropped, refused, or without an answer"),
        (totals.unknown, "not known"),
    ];
    let width = rows.iter().map(|(count, _)| count.to_string().len()).max().unwrap_or(1);
    for (count, what) in rows {
        let hanging = width + 2;
        text.push_str(&paint.wrapped_from("  ", hanging, &format!("{count:>width$}  {what}")));
    }
    let nodes = match totals.nodes_not_captured {
        0 => format!("{} {}", totals.nodes, plural(totals.nodes, "node", "nodes")),
        missing => format!("{} of {} nodes", totals.nodes, totals.nodes + missing),
    };
    let seen = format!(
        "Read: {nodes}, {} {}, {} {}, {} {}.",
        totals.pods,
        plural(totals.pods, "pod", "pods"),
        totals.services,
        plural(totals.services, "Service", "Services"),
        totals.rules,
        plural(totals.rules, "rule", "rules"),
    );
    paint.wrap(text, "", &seen);
    if totals.services_without_endpoint > 0 {
        let count = totals.services_without_endpoint;
        let have = plural(count, "Service has", "Services have");
        let sentence = format!(
            "{count} {have} no endpoint: no expectation is judged by calls that end there."
        );
        paint.wrap(text, "", &sentence);
    }
}

/// In how many ways the calls that were asked can go: one for each endpoint of a Service.
fn ways(totals: &Totals) -> usize {
    totals.preserved
        + totals.rewritten_as_expected
        + totals.rewritten
        + totals.not_answered
        + totals.unknown
}

/// `a, b, c and 4 more`; everything where everything was asked for.
pub(super) fn shortened(names: &[String], few: usize, paint: &Paint) -> String {
    let shown = if paint.verbose { names.len() } else { few.min(names.len()) };
    let mut text = names[..shown].join(", ");
    if shown < names.len() {
        let _ = write!(text, " and {} more", names.len() - shown);
    }
    clean(&text)
}

#[cfg(test)]
mod tests;

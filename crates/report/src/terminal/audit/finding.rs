//! A finding: in one line each for the first screen, and in full.

use std::fmt::Write as _;

use unmasq_audit::{
    Action, Confidence, Evidence, Finding, FindingId, Instruction, Owner, Remedy, Requirement,
    Severity, Undo,
};

use super::super::paint::{Colour, Paint, clean, columns};
use super::super::{FEW_LINES, plural};
use super::shortened;
use crate::audit::{Subject, instructions, nodes, undo as undone};

/// Names in a line of them.
pub(super) const FEW_NAMES: usize = 3;
/// Names in a finding in full.
const SOME_NAMES: usize = 12;

/// `! ERROR  Calico masquerades …`.
pub(in crate::terminal) fn title(text: &mut String, finding: &Finding, paint: &Paint) {
    let (sign, word, colour) = match finding.severity {
        Severity::Error => ("!", "ERROR", Some(Colour::Red)),
        Severity::Warning => ("!", "WARNING", Some(Colour::Yellow)),
        Severity::Info => (" ", "INFO", None),
    };
    let likely = match finding.confidence {
        Confidence::Certain => "",
        Confidence::Likely => " (likely)",
    };
    let line = format!("{sign} {word}{likely}  {}", clean(&finding.title));
    let painted = match colour {
        Some(colour) => paint.colour(colour, word),
        None => paint.bold(word),
    };
    text.push_str(&paint.wrapped("", &line).replacen(word, &painted, 1));
}

/// Whose rule or setting it is; `None`: nobody's, and it is about no rule.
pub(super) fn owner(finding: &Finding) -> Option<String> {
    let of_a_rule = finding.id == FindingId::StrayMasquerade
        || finding.evidence.iter().any(|one| one.rule.is_some());
    match finding.owner {
        Owner::Unclaimed if of_a_rule => Some("a rule that no known program claims".to_owned()),
        Owner::Unclaimed => None,
        owner => Some(owner.to_string()),
    }
}

/// What is affected, with so many names.
pub(super) fn affects(finding: &Finding, few: usize) -> String {
    let affected = &finding.affected;
    let some = |names: &[String]| {
        let shown = names.iter().take(few).cloned().collect::<Vec<_>>().join(", ");
        match names.len().saturating_sub(few) {
            0 => shown,
            rest => format!("{shown} and {rest} more"),
        }
    };
    let nodes = match &affected.nodes[..] {
        [] => String::new(),
        nodes => format!(" ({} {})", plural(nodes.len(), "node", "nodes"), some(nodes)),
    };
    match (&affected.services[..], &affected.flows[..]) {
        ([], []) if nodes.is_empty() => "affects nothing that is known here".to_owned(),
        ([], []) => format!("affects{nodes}"),
        ([], [flow]) => format!("affects {flow}{nodes}"),
        ([], [flow, rest @ ..]) => format!("affects {flow} and {} more{nodes}", rest.len()),
        (services, _) => format!("affects {}{nodes}", some(services)),
    }
}

/// The remedy to take: the first that nothing is known to stand against, a lasting one if there is.
pub(super) fn mend(finding: &Finding) -> String {
    let fails = |one: &&Requirement| one.holds == Some(false);
    let mut may_do =
        finding.remedies.iter().filter(|one| !one.requires.iter().any(|it| fails(&it)));
    let first = may_do.clone().next();
    match (may_do.find(|remedy| remedy.lasting), first, finding.remedies.first()) {
        (Some(remedy), _, _) => remedy.title.clone(),
        (None, Some(remedy), _) => format!("{} (until the next restart)", remedy.title),
        (None, None, Some(remedy)) => {
            let lacks = remedy.requires.iter().find(fails).map_or("", |one| &one.text);
            format!("no remedy holds yet: \"{}\" needs that {lacks}", remedy.title)
        }
        (None, None, None) => "no remedy is known".to_owned(),
    }
}

/// Everything about a finding.
pub(super) fn write(text: &mut String, finding: &Finding, subject: &Subject<'_>, paint: &Paint) {
    title(text, finding, paint);
    let families: Vec<String> = finding.families.iter().map(ToString::to_string).collect();
    let mut about = vec![finding.id.to_string()];
    if !finding.subject.is_empty() && !families.contains(&finding.subject) {
        about.push(clean(&finding.subject));
    }
    about.extend(owner(finding));
    if !families.is_empty() {
        about.push(families.join(" and "));
    }
    paint.wrap(text, "  ", &about.join("; "));
    cause(text, finding, paint);
    affected(text, finding, paint);
    paragraphs(text, "It breaks", &finding.breaks, paint);
    evidence(text, &finding.evidence, subject, paint);
    for (number, remedy) in finding.remedies.iter().enumerate() {
        write_remedy(text, number + 1, finding.remedies.len(), remedy, paint);
    }
    if finding.remedies.is_empty() {
        text.push_str("  No remedy is known.\n");
    }
    let _ = writeln!(text, "  {}", paint.dim(&format!("More: unmasq explain {}", finding.id)));
}

fn label(text: &mut String, title: &str, paint: &Paint) {
    let _ = writeln!(text, "  {}", paint.bold(title));
}

fn cause(text: &mut String, finding: &Finding, paint: &Paint) {
    label(text, "Why", paint);
    paint.wrap(text, "    ", &clean(&finding.cause.text));
    match (&finding.cause.setting, &finding.cause.place) {
        (Some(setting), Some(place)) => {
            paint.wrap(text, "    ", &clean(&format!("The setting: {setting} ({place}).")));
        }
        (Some(setting), None) => {
            paint.wrap(text, "    ", &clean(&format!("The setting: {setting}.")));
        }
        (None, Some(place)) => paint.wrap(text, "    ", &clean(&format!("Where: {place}."))),
        (None, None) => text.push_str("    No setting behind it was found.\n"),
    }
    let causes: Vec<String> = finding.caused_by.iter().map(ToString::to_string).collect();
    if !causes.is_empty() {
        let causes = clean(&causes.join(", "));
        paint.wrap(text, "    ", &format!("It follows from {causes}, and is mended with it."));
    }
}

fn affected(text: &mut String, finding: &Finding, paint: &Paint) {
    let affected = &finding.affected;
    if affected.flows.is_empty() && affected.services.is_empty() && affected.nodes.is_empty() {
        return;
    }
    label(text, "Affected", paint);
    lines(text, &affected.flows, paint);
    for (word, names) in [("Services", &affected.services), ("Nodes", &affected.nodes)] {
        if !names.is_empty() {
            let names = shortened(names, SOME_NAMES, paint);
            paint.wrap(text, "    ", &format!("{word}: {names}"));
        }
    }
}

fn paragraphs(text: &mut String, title: &str, sentences: &[String], paint: &Paint) {
    if !sentences.is_empty() {
        label(text, title, paint);
        lines(text, sentences, paint);
    }
}

fn lines(text: &mut String, sentences: &[String], paint: &Paint) {
    let shown = if paint.verbose { sentences.len() } else { sentences.len().min(FEW_LINES) };
    for sentence in sentences.iter().take(shown) {
        paint.wrap(text, "    ", &clean(sentence));
    }
    if shown < sentences.len() {
        let _ = writeln!(text, "    and {} more", sentences.len() - shown);
    }
}

fn evidence(text: &mut String, evidence: &[Evidence], subject: &Subject<'_>, paint: &Paint) {
    if evidence.is_empty() {
        return;
    }
    label(text, "Seen", paint);
    for one in evidence {
        paint.wrap(text, "    ", &clean(&one.text));
        if let Some(rule) = &one.rule {
            let place = clean(&format!("{} on {}", rule.place, rule.host));
            let _ = writeln!(text, "      {}", paint.dim(&paint.cut(&place, paint.width - 6)));
            let rule = paint.wrapped("      ", &clean(&rule.text));
            text.push_str(&paint.dim_lines(&rule));
        }
        if let Some(trace) = &one.trace {
            command(text, "      ", &subject.trace(trace), paint);
        }
    }
}

fn write_remedy(text: &mut String, number: usize, of: usize, remedy: &Remedy, paint: &Paint) {
    let number = if of == 1 { String::new() } else { format!(" {number}") };
    let lasts = if remedy.lasting { "lasting" } else { "until the next restart" };
    let title = format!("Remedy{number}, {lasts}: {}", clean(&remedy.title));
    for line in paint.wrapped("  ", &title).lines() {
        let start = line.len() - line.trim_start().len();
        let _ = writeln!(text, "{}{}", &line[..start], paint.bold(&line[start..]));
    }
    if !remedy.requires.is_empty() {
        text.push_str("    First, see that this holds:\n");
        for requirement in &remedy.requires {
            write_requirement(text, requirement, paint);
        }
    }
    for (step, number) in remedy.steps.iter().zip(1..) {
        paint.wrap(text, "    ", &format!("{number}. {}", clean(&step.text)));
        write_action(text, &step.action, paint);
    }
    let undo = remedy.undo();
    if !undo.is_empty() {
        text.push_str("    To undo it:\n");
    }
    let mut on: &[String] = &[];
    for one in &undo {
        let there = match one {
            Undo::Action(action) => nodes(action),
            Undo::ByHand(_) => &[],
        };
        if on != there {
            if there.is_empty() {
                paint.wrap(text, INDENT, "elsewhere:");
            }
            on = there;
            say_where(text, on, paint);
        }
        for instruction in undone(one) {
            instructed(text, INDENT, &instruction, paint);
        }
    }
}

/// What a step's commands stand behind.
const INDENT: &str = "       ";

fn say_where(text: &mut String, nodes: &[String], paint: &Paint) {
    match nodes {
        [] => {}
        [one] => paint.wrap(text, INDENT, &clean(&format!("on node {one}:"))),
        more => {
            let names = shortened(more, SOME_NAMES, paint);
            paint.wrap(text, INDENT, &clean(&format!("on nodes {names}:")));
        }
    }
}

pub(in crate::terminal) fn write_requirement(
    text: &mut String,
    requirement: &Requirement,
    paint: &Paint,
) {
    let (word, colour) = match requirement.holds {
        Some(true) => ("ok", Colour::Green),
        Some(false) => ("not so", Colour::Red),
        None => ("unknown", Colour::Yellow),
    };
    let line = format!("{word:<7}  {}", clean(&requirement.text));
    let wrapped = paint.wrapped_from("      ", 9, &line);
    text.push_str(&wrapped.replacen(word, &paint.colour(colour, word), 1));
    let open = requirement.holds.is_none();
    if let Some(check) = requirement.check.as_ref().filter(|_| open) {
        text.push_str("               check:\n");
        instructed(text, "                 ", check, paint);
    }
}

/// What exactly: commands, or what must stand where.
pub(in crate::terminal) fn write_action(text: &mut String, action: &Action, paint: &Paint) {
    say_where(text, nodes(action), paint);
    for one in instructions(action) {
        instructed(text, INDENT, &one, paint);
    }
}

/// A command can be copied, a sentence is prose, and a literal is never broken.
fn instructed(text: &mut String, indent: &str, instruction: &Instruction, paint: &Paint) {
    match instruction {
        Instruction::Command(one) => command(text, indent, one, paint),
        Instruction::Sentence(one) => paint.wrap(text, indent, &clean(one)),
        Instruction::Literal(one) => {
            for line in one.lines() {
                let _ = writeln!(text, "{indent}  {}", clean(&line.replace('\t', "    ")));
            }
        }
    }
}

/// A command that can be copied: where it is broken, a backslash says so to the shell. Nothing is
/// broken inside of quotes, nor between a flag and its value.
/// One of several lines (a document for a command's input) stands at the left, as it must be typed.
pub(in crate::terminal) fn command(text: &mut String, indent: &str, command: &str, paint: &Paint) {
    if is_document(command) {
        for line in command.lines() {
            let _ = writeln!(text, "{}", clean(&line.replace('\t', "    ")));
        }
        return;
    }
    let mut line = indent.to_owned();
    let mut used = columns(indent);
    let start = used;
    for word in words(&clean(&command.replace('\n', "\u{fffd}"))) {
        let wide = columns(&word);
        if used > start {
            // Two columns are kept for the backslash.
            if used + 1 + wide + 2 > paint.width {
                let _ = writeln!(text, "{line} \\");
                line = format!("{indent}  ");
                used = start + 2;
            } else {
                line.push(' ');
                used += 1;
            }
        }
        line.push_str(&word);
        used += wide;
    }
    let _ = writeln!(text, "{line}");
}

/// Whether it has lines behind `<<`, the last of which ends them. No other command has several: a
/// line break of a capture's never begins one.
fn is_document(command: &str) -> bool {
    let mut lines = command.lines();
    lines.any(|line| line.ends_with(" <<'EOF'") || line.ends_with(" <<EOF"))
        && lines.filter(|line| *line == "EOF").count() == 1
        && command.ends_with("\nEOF")
}

/// Words of a command line, each with its quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote: Option<char> = None;
    for c in command.chars() {
        match quote {
            None if c == ' ' => {
                words.push(String::new());
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if open == c => quote = None,
            None | Some(_) => {}
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    let is_flag = |word: &str| word.starts_with('-') && !word.contains([' ', '=']);
    let mut joined: Vec<String> = Vec::new();
    for word in words {
        match joined.last_mut() {
            Some(flag) if is_flag(flag) && !word.starts_with('-') => {
                flag.push(' ');
                flag.push_str(&word);
            }
            Some(_) | None => joined.push(word),
        }
    }
    joined
}

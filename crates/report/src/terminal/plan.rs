//! A plan, for a person who decides whether to do it: what is done, as differences; what the owners
//! then do; which answers change; what must hold; how it is taken back.

use std::fmt::Write as _;

use unmasq_audit::matrix::change::{Change, Direction, Outcome};
use unmasq_fix::connections::Kept;
use unmasq_fix::deed::Deed;
use unmasq_fix::{
    By, Difference, FindingName, Plan, Reaction, Reactions, Refusal, Revealed, SettingChange, Step,
    Worse,
};

use super::audit::finding::{command, write_action, write_requirement};
use super::audit::matrix;
use super::audit::{heading, shortened};
use super::paint::{Colour, Paint, clean};
use super::{Style, plural};
use crate::audit::Subject;
use crate::difference::{self, Sign};
use crate::{policies, yaml};

/// Names in a line of them.
const FEW: usize = 4;
/// Lines of changed answers that are shown without `-v`.
const FEW_CHANGES: usize = 12;

/// The plan as text, ending with a newline.
pub fn plan(plan: &Plan, subject: &Subject<'_>, style: &Style) -> String {
    let paint = Paint::new(style);
    let mut text = String::new();
    verdict(&mut text, plan, &paint);
    for (index, mended) in plan.mended.iter().enumerate() {
        let name = FindingName::of(&mended.finding).to_string();
        let title = format!("{}: {}", clean(&name), clean(&mended.remedy.title));
        heading(&mut text, &title, &paint);
        let steps = plan.steps.iter().filter(|step| step.mended == index);
        for (number, step) in (1..).zip(steps) {
            write_step(&mut text, number, step, plan, &paint);
        }
        if !mended.remedy.requires.is_empty() {
            text.push_str("  What must hold:\n");
            for requirement in &mended.remedy.requires {
                write_requirement(&mut text, requirement, &paint);
            }
        }
    }
    reactions(&mut text, "Then, by themselves", &plan.reactions, &paint);
    reactions(&mut text, "At their next start", &plan.restart, &paint);
    changes(&mut text, &plan.changes.rows, subject, &paint);
    connections(&mut text, &plan.connections, &paint);
    revealed(&mut text, &plan.revealed, &paint);
    worse(&mut text, &plan.worse, &paint);
    afterwards(&mut text, plan, &paint);
    if !plan.passed.is_empty() {
        heading(&mut text, "Not in this plan", &paint);
        plan.passed.iter().for_each(|one| paint.wrap(&mut text, "  ", &clean(&one.to_string())));
    }
    text
}

fn verdict(text: &mut String, plan: &Plan, paint: &Paint) {
    let count = plan.mended.len();
    let better = answers(plan, Direction::Better);
    let (number, turn) = match better {
        0 => (plan.changes.rows.iter().map(|row| row.count).sum(), "change"),
        _ => (better, "get better"),
    };
    let worse = match answers(plan, Direction::Worse) {
        0 => String::new(),
        worse => format!(", {worse} worse"),
    };
    let line = format!(
        "PLAN: mends {count} {}; {number} of {} answers {turn}{worse}. Nothing is changed yet.",
        plural(count, "finding", "findings"),
        plan.changes.asked
    );
    for line in paint.wrapped("", &line).lines() {
        let _ = writeln!(text, "{}", paint.colour(Colour::Green, line));
    }
    let mut note = |line: &str| {
        for line in paint.wrapped("", &clean(line)).lines() {
            let _ = writeln!(text, "{}", paint.colour(Colour::Yellow, line));
        }
    };
    let passing = |count: usize, what: &str| match count {
        0 => None,
        _ => Some(format!("{count} {} {what}", plural(count, "answer", "answers"))),
    };
    for line in [
        passing(
            answers(plan, Direction::Opened),
            "that a rule dropped or rejected would get through: see that it is meant so.",
        ),
        passing(
            answers(plan, Direction::Revealed),
            "would reach the outside with a pod's own address: networks there must know the way back.",
        ),
    ] {
        line.iter().for_each(|line| note(line));
    }
    if let Some((first, rest)) = plan.doubts.split_first() {
        let more = match rest.len() {
            0 => String::new(),
            count => format!(" (and {count} more: unmasq audit says what)"),
        };
        note(&format!("There may be more to mend than was found: {first}{more}"));
    }
    plan.reboot.iter().for_each(|line| note(line));
    let until = plan.mended.iter().filter(|one| !one.remedy.lasting && plan.reboot.is_empty());
    for one in until {
        note(&format!(
            "{} is not mended for good: this lasts until the rules are loaded or written again, at a \
             reboot at the latest.",
            FindingName::of(&one.finding)
        ));
    }
    for name in &plan.returns {
        let line = format!(
            "{name} comes back when its program starts again or its nodes are rebooted: as it is \
             planned, this works until then."
        );
        note(&line);
    }
}

fn answers(plan: &Plan, direction: Direction) -> usize {
    let rows = plan.changes.rows.iter().filter(|row| row.turn.direction() == direction);
    rows.map(|row| row.count).sum()
}

fn write_step(text: &mut String, number: usize, step: &Step, plan: &Plan, paint: &Paint) {
    paint.wrap(text, "  ", &format!("{number}. {}", clean(&step.text)));
    match &step.by {
        By::Unmasq(deeds) if deeds.is_empty() => {
            text.push_str("     Nothing is left to do: an earlier step does it.\n");
        }
        By::Unmasq(deeds) => deeds.iter().for_each(|deed| write_deed(text, deed, paint)),
        By::Person(index) => {
            let of = plan.mended[step.mended].remedy.steps.get(*index);
            let mut told = String::new();
            of.into_iter().for_each(|step| write_action(&mut told, &step.action, paint));
            text.push_str(if told.is_empty() { "     By hand.\n" } else { "     By hand:\n" });
            text.push_str(&told);
        }
    }
}

fn write_deed(text: &mut String, deed: &Deed, paint: &Paint) {
    let _ = writeln!(text, "     {}", paint.dim(&clean(&deed.subject())));
    for (sign, line) in difference::lines(deed) {
        let line = format!("{} {}", sign.letter(), clean(&line.replace('\t', "    ")));
        let line = match sign {
            Sign::Gone => paint.colour(Colour::Red, &line),
            Sign::New => paint.colour(Colour::Green, &line),
            Sign::Same => line,
        };
        let _ = writeln!(text, "       {line}");
    }
}

fn reactions(text: &mut String, title: &str, reactions: &Reactions, paint: &Paint) {
    if reactions.done.is_empty() {
        return;
    }
    heading(text, title, paint);
    for Reaction { text: what, nodes, .. } in &reactions.done {
        let on = shortened(nodes, FEW, paint);
        paint.wrap(text, "  ", &format!("{} ({on})", clean(what)));
    }
}

/// What differs between two captures, ending with a newline.
pub fn difference(difference: &Difference, subject: &Subject<'_>, style: &Style) -> String {
    let paint = Paint::new(style);
    let mut text = String::new();
    for (title, names) in [("Only before", &difference.gone), ("Only after", &difference.new)] {
        if !names.is_empty() {
            heading(&mut text, title, &paint);
            paint.wrap(&mut text, "  ", &shortened(names, FEW_CHANGES, &paint));
        }
    }
    if !difference.settings.is_empty() {
        heading(&mut text, "Settings", &paint);
        difference.settings.iter().for_each(|one| write_setting(&mut text, one, &paint));
    }
    if !difference.deeds.is_empty() {
        heading(&mut text, "What differs", &paint);
        difference.deeds.iter().for_each(|deed| write_deed(&mut text, deed, &paint));
    }
    match &difference.changes {
        Ok(all) => changes(&mut text, &all.rows, subject, &paint),
        Err(why) => paint.wrap(&mut text, "", &clean(why)),
    }
    text.trim_start().to_owned()
}

/// `kube-proxy masqueradeAll: false -> true (ConfigMap kube-system/kube-proxy, config.conf: …)`
fn write_setting(text: &mut String, change: &SettingChange, paint: &Paint) {
    let value = |value: &Option<String>| match value {
        None => "not set".to_owned(),
        Some(value) if value.is_empty() => "empty".to_owned(),
        Some(value) => clean(value),
    };
    let places: Vec<String> = change.places.iter().map(ToString::to_string).collect();
    let line = format!(
        "{} {}: {} -> {} ({})",
        change.component,
        clean(&change.setting),
        value(&change.before),
        value(&change.after),
        shortened(&places, FEW, paint)
    );
    paint.wrap(text, "  ", &line);
}

/// Answers that change, by what is called: the better ones, then the worse.
fn changes(text: &mut String, rows: &[Change], subject: &Subject<'_>, paint: &Paint) {
    heading(text, "What changes", paint);
    if rows.is_empty() {
        text.push_str("  No answer changes.\n");
        return;
    }
    let shown = if paint.verbose { rows.len() } else { rows.len().min(FEW_CHANGES) };
    for change in rows.iter().take(shown) {
        write_change(text, change, subject, paint);
    }
    if shown < rows.len() {
        let rest = rows.len() - shown;
        let _ = writeln!(text, "  and {rest} more with -v");
    }
}

fn write_change(text: &mut String, change: &Change, subject: &Subject<'_>, paint: &Paint) {
    let turn = &change.turn;
    let (sign, colour) = match turn.direction() {
        Direction::Better => ('+', Some(Colour::Green)),
        Direction::Even => (' ', None),
        Direction::Opened | Direction::Revealed => ('~', Some(Colour::Yellow)),
        Direction::Worse => ('!', Some(Colour::Red)),
    };
    let words = |outcomes: &[Outcome]| {
        let mut words: Vec<&str> =
            outcomes.iter().map(|outcome| matrix::word(&outcome.fate)).collect();
        words.dedup();
        words.join(" or ")
    };
    let turned = format!("{} -> {}", words(&turn.before), words(&turn.after));
    let turned = colour.map_or(turned.clone(), |colour| paint.colour(colour, &turned));
    let (who, network) = turn.client().map_or(("somebody", None), matrix::client);
    let count = format!("{} {}", change.count, plural(change.count, "call", "calls"));
    let _ = writeln!(text, "{sign} {turned}  {who}, {} {}, {count}", turn.family, turn.protocol);
    let mut below = vec![matrix::title(turn.entry, None)];
    below.extend(network);
    for outcome in turn.before.iter().take(1) {
        below.extend(
            matrix::reasons(&outcome.fate, None).into_iter().map(|why| format!("before: {why}")),
        );
    }
    for outcome in turn.after.iter().take(1) {
        below.extend(
            matrix::reasons(&outcome.fate, None).into_iter().map(|why| format!("after: {why}")),
        );
    }
    let services = change.services.iter().map(|index| subject.service_name(*index));
    let services: Vec<String> = services.collect();
    if !services.is_empty() {
        below.push(shortened(&services, FEW, paint));
    }
    for line in below {
        paint.wrap(text, "    ", &clean(&line));
    }
}

/// Rules are asked about first packets only.
fn connections(text: &mut String, kept: &[Kept], paint: &Paint) {
    if kept.is_empty() {
        return;
    }
    heading(text, "Connections that exist", paint);
    let mut unknown = Vec::new();
    for Kept { node, entries } in kept {
        let Some(entries) = entries else {
            unknown.push(node.clone());
            continue;
        };
        let count = entries.len();
        let keep = plural(
            count,
            "keeps its old translation until it ends",
            "keep their old translation until they end",
        );
        paint.wrap(text, "  ", &clean(&format!("{node}: {count} {keep}")));
        let shown = if paint.verbose { count } else { FEW };
        for entry in entries.iter().take(shown) {
            paint.wrap(text, "    ", &entry.to_string());
        }
    }
    if !unknown.is_empty() {
        let nodes = shortened(&unknown, FEW, paint);
        let line = format!(
            "Those that are translated now keep it until they end. How many is unknown, because they \
             were not captured (unmasq collect --connections) on {nodes}. To count what is \
             translated there:"
        );
        paint.wrap(text, "  ", &line);
        command(text, "    ", "conntrack -L --src-nat", paint);
    }
}

/// Whose addresses somebody outside gets, and what limits what comes of it.
fn revealed(text: &mut String, revealed: &Revealed, paint: &Paint) {
    let Revealed { pods, policies, left } = revealed;
    if pods.is_empty() {
        return;
    }
    heading(text, "Pods' own addresses that are seen outside", paint);
    let shown = if paint.verbose { pods.len() } else { pods.len().min(FEW) };
    pods.iter().take(shown).for_each(|one| paint.wrap(text, "  ", &clean(&one.to_string())));
    if shown < pods.len() {
        let _ = writeln!(text, "  and pods of {} more nodes with -v", pods.len() - shown);
    }
    paint.wrap(text, "  ", policies::MEANING);
    if !policies.is_empty() {
        let count = policies.len();
        let named = plural(count, "NetworkPolicy limits", "NetworkPolicies limit");
        let line = format!(
            "{count} {named} that, which the plan doesn't need and doesn't apply: this command with \
             --output policies prints them whole, for kubectl apply."
        );
        paint.wrap(text, "  ", &line);
        policies::LIMITS.iter().for_each(|line| paint.wrap(text, "    ", line));
    }
    let few = left.iter().take(if paint.verbose { left.len() } else { FEW });
    few.for_each(|line| paint.wrap(text, "  ", &clean(&format!("Not limited: {line}"))));
    if paint.verbose {
        for policy in policies {
            text.push_str("  ---\n");
            for line in yaml::document(policy).lines() {
                let _ = writeln!(text, "  {}", clean(line));
            }
        }
    }
}

fn worse(text: &mut String, worse: &[Worse], paint: &Paint) {
    if worse.is_empty() {
        return;
    }
    heading(text, "What gets worse, as the remedy says or you accept", paint);
    for one in worse {
        write_worse(text, one, paint);
    }
}

fn write_worse(text: &mut String, worse: &Worse, paint: &Paint) {
    let Worse { name, text: what, count, .. } = worse;
    let calls = plural(*count, "call", "calls");
    paint.wrap(text, "  ", &clean(&format!("{name}: {what} ({count} {calls})")));
}

fn afterwards(text: &mut String, plan: &Plan, paint: &Paint) {
    if plan.new.is_empty() {
        return;
    }
    heading(text, "What an audit finds then and doesn't find now", paint);
    for finding in &plan.new {
        super::audit::finding::title(text, finding, paint);
    }
}

/// Why a plan may not be done, and what to do next.
pub fn refusal(refusal: &Refusal, style: &Style) -> String {
    let paint = Paint::new(style);
    let mut text = String::new();
    for line in paint.wrapped("", &clean(&format!("REFUSED: {refusal}"))).lines() {
        let _ = writeln!(text, "{}", paint.colour(Colour::Red, line));
    }
    let mut say = |line: &str| paint.wrap(&mut text, "  ", &clean(line));
    match refusal {
        Refusal::NoFinding { there, .. } if there.is_empty() => say("An audit finds nothing."),
        Refusal::NoFinding { there, .. } => {
            say("An audit finds:");
            there.iter().for_each(|name| say(&format!("  {name}")));
        }
        Refusal::Unmet { unmet, .. } => {
            for one in unmet {
                say(&one.text);
            }
            say("If you know better, or want it all the same:");
            for one in unmet {
                command(&mut text, "  ", &format!("--accept {}", one.name), &paint);
            }
        }
        Refusal::NothingFound { passed } => passed.iter().for_each(|one| say(&one.to_string())),
        Refusal::Unforeseen(all) => {
            for one in all {
                say(&format!("{} on {}: {}", one.owner, one.node, one.why));
            }
        }
        Refusal::Worse(all) => {
            for one in all {
                write_worse(&mut text, one, &paint);
            }
            for one in all {
                command(&mut text, "  ", &format!("--accept {}", one.name), &paint);
            }
        }
        Refusal::NewError(finding) => {
            let name = FindingName::of(finding);
            say(&format!("If you want it all the same: --accept {name}"));
        }
        Refusal::ByHand { finding, steps, .. } => {
            for (number, step) in (1..).zip(steps) {
                say(&format!("{number}. {step}"));
            }
            say(&format!("What exactly: unmasq audit -v; unmasq explain {}", finding.id));
        }
        Refusal::StillThere { unknown, .. } => {
            if !unknown.is_empty() {
                say("What must hold for the remedy, and wasn't seen:");
                unknown.iter().for_each(|one| say(&format!("  {one}")));
            }
            say("Another remedy may do it: unmasq audit lists them, --remedy NUMBER takes one.");
        }
        Refusal::NoRemedy { .. } | Refusal::Draft(_) => {}
    }
    text
}

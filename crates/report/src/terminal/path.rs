//! The path hook by hook, with the hits that mattered.
//!
//! A hit matters if it changed the packet, decided, is among the reasons for the rewrite, or led
//! into a chain where one of those stands. Everything else is for `-v`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use unmasq_audit::{Owner, short_text};
use unmasq_eval::trace::{By, Disposition, Effect, Hit, Outcome, Stage};
use unmasq_model::host::Host;
use unmasq_model::ruleset::{ChainId, ChainKind, Hook};

use super::group::tells_something;
use super::paint::{Colour, Paint, clean, columns};
use crate::evidence::{self, Place};

/// What is shown of an outcome's hits.
pub(super) struct Path<'a> {
    host: &'a Host,
    outcome: &'a Outcome,
    /// Indices of hits.
    shown: Vec<usize>,
    /// The folder that all shown files are in, with its slash; may be empty.
    pub(super) folder: &'a str,
}

impl<'a> Path<'a> {
    pub(super) fn of(outcome: &'a Outcome, host: &'a Host, everything: bool) -> Path<'a> {
        let shown = if everything {
            (0..outcome.hits.len()).collect()
        } else {
            matters(outcome, host).into_iter().collect()
        };
        let mut path = Path { host, outcome, shown, folder: "" };
        path.folder = path.common_folder();
        path
    }

    fn common_folder(&self) -> &'a str {
        let mut folders = self.shown.iter().filter_map(|&index| {
            let file = Place::of(self.host, &self.outcome.hits.get(index)?.by).file?;
            Some(file.rfind('/').map_or("", |slash| &file[..=slash]))
        });
        let Some(first) = folders.next() else {
            return "";
        };
        if folders.all(|folder| folder == first) { first } else { "" }
    }

    pub(super) fn write(&self, text: &mut String, paint: &Paint) {
        let mut stage: Option<Stage> = None;
        for &index in &self.shown {
            let Some(hit) = self.outcome.hits.get(index) else {
                continue;
            };
            if stage != Some(hit.stage) {
                stage = Some(hit.stage);
                let _ = writeln!(text, "{}", paint.bold(hit.stage.name()));
            }
            self.write_hit(text, index, hit, paint);
        }
        if self.shown.iter().any(|index| self.outcome.because.contains(index)) {
            let legend = "* without it the source would not have been rewritten";
            let _ = writeln!(text, "{}", paint.dim(legend));
        }
    }

    fn write_hit(&self, text: &mut String, index: usize, hit: &Hit, paint: &Paint) {
        let place = Place::of(self.host, &hit.by);
        let rewrites = matches!(&hit.by, By::Rule(id) if Some(*id) == self.outcome.rewritten_by)
            && hit.effects.iter().any(|effect| matches!(effect, Effect::Snat(_)));
        let sign = if rewrites {
            "!"
        } else if self.outcome.because.contains(&index) {
            "*"
        } else {
            " "
        };
        let deed = clean(&self.deed(hit, &place));
        let position =
            place.position().map(|it| clean(it.strip_prefix(self.folder).unwrap_or(&it)));
        let lines = paint.wrapped("  ", &deed);
        let painted: Vec<String> = lines
            .lines()
            .enumerate()
            .map(|(number, line)| {
                let line = if number == 0 { format!("{sign}{}", &line[1..]) } else { line.into() };
                match sign {
                    "!" => paint.colour(Colour::Red, &line),
                    "*" => paint.colour(Colour::Yellow, &line),
                    _ => line,
                }
            })
            .collect();
        let painted = painted.join("\n");
        let used = 2 + columns(&deed);
        let mut second = String::new();
        match position {
            Some(at) if used + 2 + columns(&at) <= paint.width => {
                let gap = paint.width - used - columns(&at);
                let _ = writeln!(text, "{painted}{:gap$}{}", "", paint.dim(&at));
            }
            at => {
                let _ = writeln!(text, "{painted}");
                second = at.unwrap_or_default();
            }
        }
        write_details(text, &place, hit, second, rewrites, paint);
    }

    /// `nat KUBE-SERVICES -> KUBE-NODEPORTS`, `filter FORWARD: policy drop`.
    fn deed(&self, hit: &Hit, place: &Place<'_>) -> String {
        let name = place.name();
        if let ([Effect::Jump(to) | Effect::Goto(to)], By::Rule(id), Some(name)) =
            (&hit.effects[..], &hit.by, &name)
        {
            let table = self.host.ruleset.tables.get(id.table as usize);
            let to = table.and_then(|table| table.chains.get(to.0 as usize));
            return format!("{name} -> {}", to.map_or("?", |chain| &chain.name));
        }
        let translates =
            hit.effects.iter().any(|it| matches!(it, Effect::Snat(_) | Effect::Dnat(_)));
        let mut told = hit.clone();
        if translates {
            // A translation ends its chain with accept: not worth a word.
            told.effects.retain(|it| !matches!(it, Effect::Accept | Effect::Nothing));
        }
        let effects = evidence::effects(self.host, &told);
        match name {
            Some(name) => format!("{name}: {effects}"),
            None => effects,
        }
    }
}

/// The lines below a hit: where it stands, if that found no place yet, its owner, its comment,
/// and its text.
fn write_details(
    text: &mut String,
    place: &Place<'_>,
    hit: &Hit,
    position: String,
    whole: bool,
    paint: &Paint,
) {
    const INDENT: &str = "      ";
    let mut parts: Vec<String> = Vec::new();
    if !position.is_empty() {
        parts.push(position);
    }
    let owner = place.owner.unwrap_or(Owner::Unclaimed);
    if place.owner.is_some() && (place.rule.is_some() || owner != Owner::Unclaimed) {
        parts.push(owner.to_string());
    }
    let comment = place.rule.and_then(|rule| rule.comment.as_deref());
    let comment = comment.filter(|comment| tells_something(comment));
    if let Some(comment) = comment {
        parts.push(format!("\"{}\"", clean(comment)));
    }
    let first = parts.join("  ");
    let rule = shown_text(place, hit, comment.is_some(), paint);
    if first.is_empty() && rule.is_empty() {
        return;
    }
    let joined = if rule.is_empty() { first.clone() } else { format!("{first}  {rule}") };
    let room = paint.width.saturating_sub(columns(INDENT));
    if whole || paint.verbose {
        let paragraph = if comment.is_some() { vec![&first, &rule] } else { vec![&joined] };
        for line in paragraph.into_iter().filter(|line| !line.is_empty()) {
            text.push_str(&paint.dim_lines(&paint.wrapped(INDENT, line)));
        }
        return;
    }
    if columns(&joined) <= room {
        let _ = writeln!(text, "{INDENT}{}", paint.dim(&joined));
    } else if comment.is_some() || columns(&first) > room / 2 {
        for line in [&first, &rule] {
            if !line.is_empty() {
                let _ = writeln!(text, "{INDENT}{}", paint.dim(&paint.cut(line, room)));
            }
        }
    } else {
        let _ = writeln!(text, "{INDENT}{}", paint.dim(&paint.cut(&joined, room)));
    }
}

/// The rule's text below a hit: nothing of a jump with a comment, and else not where it leads,
/// which stands in the line above.
fn shown_text(place: &Place<'_>, hit: &Hit, commented: bool, paint: &Paint) -> String {
    let leads = matches!(hit.effects[..], [Effect::Jump(_) | Effect::Goto(_)]);
    let Some(rule) = place.rule else { return String::new() };
    let mut text = clean(&short_text(rule));
    if !leads || paint.verbose {
        return text;
    }
    if commented {
        return String::new();
    }
    for verb in ["-j ", "-g ", "jump ", "goto "] {
        let at = text.rfind(verb).filter(|at| text[*at..].split_whitespace().count() == 2);
        text.truncate(at.unwrap_or(text.len()));
    }
    text.truncate(text.trim_end().len());
    text
}

/// Indices of the hits that mattered, with the jumps that led to them.
fn matters(outcome: &Outcome, host: &Host) -> BTreeSet<usize> {
    let mut kept: BTreeSet<usize> = outcome.because.iter().copied().collect();
    for (index, hit) in outcome.hits.iter().enumerate() {
        let last = index + 1 == outcome.hits.len();
        if did_something(hit, last) || spared(hit, outcome, host) {
            kept.insert(index);
        }
    }
    let mut open: Vec<usize> = kept.iter().copied().collect();
    while let Some(index) = open.pop() {
        if let Some(jump) = led_to(outcome, index)
            && kept.insert(jump)
        {
            open.push(jump);
        }
    }
    kept
}

fn did_something(hit: &Hit, last: bool) -> bool {
    let by_kernel = matches!(hit.by, By::Kernel(_));
    by_kernel
        || hit.effects.iter().any(|effect| match effect {
            Effect::Mark { before, after } | Effect::CtMark { before, after } => before != after,
            Effect::Drop
            | Effect::Reject(_)
            | Effect::Snat(_)
            | Effect::Dnat(_)
            | Effect::NoTrack
            | Effect::Rerouted { .. }
            | Effect::Unknown(_)
            | Effect::Kernel(_) => true,
            // One at most in a base chain, and it kept the packet from the rest of the chain. A
            // policy that accepts did nothing.
            Effect::Accept => last || matches!(hit.by, By::Rule(_)),
            Effect::Jump(_)
            | Effect::Goto(_)
            | Effect::Return
            | Effect::Log
            | Effect::Remember
            | Effect::Nothing => false,
        })
}

/// Whether a hit is why a source stayed: it left a chain that rewrites sources.
fn spared(hit: &Hit, outcome: &Outcome, host: &Host) -> bool {
    let By::Rule(id) = &hit.by else { return false };
    let in_hook = matches!(hit.stage, Stage::Hook(Hook::Postrouting | Hook::Input));
    let in_nat = host.ruleset.tables.get(id.table as usize).is_some_and(|table| {
        table.chains.iter().any(|chain| {
            chain.base.is_some_and(|base| {
                base.kind == ChainKind::Nat
                    && Stage::Hook(base.hook.unwrap_or(Hook::Forward)) == hit.stage
            })
        })
    });
    outcome.source.disposition == Disposition::Preserved
        && in_hook
        && in_nat
        && hit.effects.iter().any(|effect| matches!(effect, Effect::Return))
}

/// The jump by which the hit's chain was entered: the last one into it before the hit.
fn led_to(outcome: &Outcome, index: usize) -> Option<usize> {
    let hit = outcome.hits.get(index)?;
    let By::Rule(at) = &hit.by else { return None };
    let enters = |effect: &Effect, chain: ChainId| matches!(effect, Effect::Jump(to) | Effect::Goto(to) if *to == chain);
    outcome.hits[..index].iter().rposition(|earlier| {
        earlier.stage == hit.stage
            && matches!(&earlier.by, By::Rule(from) if from.table == at.table)
            && earlier.effects.iter().any(|effect| enters(effect, at.chain))
    })
}

/// The position of the rule that rewrote the source, and of the one that set the mark for it with
/// the last comment before it that says for what.
pub(super) fn why(outcome: &Outcome, host: &Host) -> Option<String> {
    let rule = Place::of_rule(host, outcome.rewritten_by?).position()?;
    let mut because = outcome.because.iter().filter_map(|&index| outcome.hits.get(index));
    let mut comment = None;
    let mark = because.find_map(|hit| {
        let place = Place::of(host, &hit.by);
        let told = place.rule.and_then(|rule| rule.comment.as_deref());
        comment = told.filter(|text| tells_something(text)).or(comment);
        // A mark that is only cleared (kube-proxy does, before it masquerades) is no reason.
        let sets = hit.effects.iter().any(|effect| match effect {
            Effect::Mark { before, after } | Effect::CtMark { before, after } => {
                after & !before != 0
            }
            Effect::Jump(_)
            | Effect::Goto(_)
            | Effect::Return
            | Effect::Accept
            | Effect::Drop
            | Effect::Reject(_)
            | Effect::Snat(_)
            | Effect::Dnat(_)
            | Effect::NoTrack
            | Effect::Log
            | Effect::Remember
            | Effect::Nothing
            | Effect::Rerouted { .. }
            | Effect::Unknown(_)
            | Effect::Kernel(_) => false,
        });
        if sets { place.position() } else { None }
    });
    let rule = clean(&rule);
    Some(match (mark, comment) {
        (None, _) => format!("The rule: {rule}."),
        (Some(mark), None) => {
            format!("The rule: {rule}, because of the mark set by {}.", clean(&mark))
        }
        (Some(mark), Some(comment)) => format!(
            "The rule: {rule}, because of the mark set by {} (\"{}\").",
            clean(&mark),
            clean(comment)
        ),
    })
}

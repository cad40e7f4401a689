//! A run as a page of docs/scenarios: what happens, the way of the packets, the matrix before and
//! after, the fix. Pure; the same run always gives the same page, whatever chance chose.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::run::{Line, Report, State, Step};

/// The page.
pub fn page(report: &Report) -> String {
    let Report { scenario, title, about, .. } = report;
    let mut text = format!("# {title}\n\n");
    let _ = writeln!(
        text,
        "<!-- Written by `cargo xtask scenarios` from a run; checked by the tests. -->\n"
    );
    let _ = writeln!(text, "    unmasq lab run {scenario}\n\n{}", about.trim_end());
    text += "\n## The way\n\n";
    text += &ways(report);
    text += &matrix(report);
    text += &rewriters(&report.states);
    text += &remedy(report);
    text += "\n## Where the rules come from\n\n";
    for source in &report.sources {
        let _ = writeln!(text, "- {source}");
    }
    if report.sources.is_empty() {
        text += "- kube-proxy 1.36: pkg/proxy of kubernetes/kubernetes\n";
    }
    text
}

/// What is expected, with a way for each state in which it is checked.
fn ways(report: &Report) -> String {
    let mut text = String::from("```text\n");
    let mut shown: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    for state in &report.states {
        for one in &state.expectations {
            if !order.contains(&one.what.as_str()) {
                order.push(&one.what);
            }
            let way = one.way.as_deref().unwrap_or("");
            shown.entry(&one.what).or_default().push((&state.title, way));
        }
    }
    for what in order {
        let _ = writeln!(text, "{what}");
        let ways = &shown[what];
        let same = ways.windows(2).all(|two| two[0].1 == two[1].1);
        if let (true, Some((_, way))) = (same, ways.first()) {
            let _ = writeln!(text, "  always: {way}");
            continue;
        }
        let steps = report.states.len() - 1;
        for (title, way) in ways {
            let number = report.states.iter().position(|state| state.title == *title);
            let when = match number.unwrap_or(0) {
                0 => "before".to_owned(),
                _ if steps == 1 => "after".to_owned(),
                number => format!("step {number}"),
            };
            let _ = writeln!(text, "  {when:6}: {way}");
        }
    }
    text + "```\n"
}

/// Client, entry, family.
type Kind<'r> = (&'r str, &'r str, &'r str);

/// Clients and entries with what may become of them.
fn matrix(report: &Report) -> String {
    let mut text = String::from("\n## Before and after\n\n");
    let steps = report.states.len();
    let heading = |number: usize| match number {
        0 => "before".to_owned(),
        number if number + 1 == steps && steps == 2 => "after".to_owned(),
        number => format!("after step {number}"),
    };
    let _ = write!(text, "| client | calls | family |");
    (0..steps).for_each(|number| text += &format!(" {} |", heading(number)));
    text += "\n|---|---|---|";
    text += &"---|".repeat(steps);
    text.push('\n');
    let mut rows: Vec<(Kind, Vec<String>)> = Vec::new();
    for (number, state) in report.states.iter().enumerate() {
        for Line { client, entry, family, possible, .. } in &state.lines {
            let key = (client.as_str(), entry.as_str(), family.as_str());
            let place = rows.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
                rows.push((key, vec!["not asked".to_owned(); steps]));
                rows.len() - 1
            });
            rows[place].1[number] = possible.join(" or ");
        }
    }
    for ((client, entry, family), cells) in rows {
        let changed = cells.windows(2).any(|two| two[0] != two[1]);
        let _ = write!(text, "| {client} | {entry} | {family} |");
        for cell in cells {
            let cell = if changed { format!("**{cell}**") } else { cell };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

fn rewriters(states: &[State]) -> String {
    let mut text = String::new();
    for state in states {
        let mut rules: Vec<(&str, &str)> =
            state.rewriters.iter().map(|one| (one.owner.as_str(), one.rule.as_str())).collect();
        rules.sort_unstable();
        rules.dedup();
        if rules.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\nRules that rewrite sources, {}:\n\n```text", state.title);
        for (owner, rule) in rules {
            let _ = writeln!(text, "{owner}: {rule}");
        }
        text += "```\n";
    }
    text
}

fn remedy(report: &Report) -> String {
    let mut text = String::from("\n## The fix\n");
    for (number, Step { title, how }) in (1..).zip(&report.remedy) {
        let _ = writeln!(text, "\n{number}. {title}\n\n```text\n{}\n```", how.trim_end());
    }
    text
}

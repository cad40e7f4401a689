//! Runs and matrices as text, as wide as the terminal is.
//!
//! Two columns stand beside each other where there is room for them, and else below each other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use unmasq_lab::run::{Checked, Ended, Line, Report, State};
use unmasq_lab::scenario::Scenario;
use unmasq_report::terminal::Style;

/// The scenarios with their titles, and `others` that are up.
pub(super) fn list(
    scenarios: &[Scenario],
    others: &[String],
    is_up: impl Fn(&str) -> bool,
    style: &Style,
) -> String {
    let known = scenarios.iter().map(|Scenario { name, title, .. }| {
        let up = if is_up(name) { " (up)" } else { "" };
        (name.clone(), format!("{title}{up}"))
    });
    let others = others.iter().map(|name| (name.clone(), "a file's (up)".to_owned()));
    columns("", &known.chain(others).collect::<Vec<_>>(), style)
}

/// The least room for a second column.
const ROOM: usize = 30;

/// Rows of two columns.
fn columns(indent: &str, rows: &[(String, String)], style: &Style) -> String {
    let wide = rows.iter().map(|(first, _)| first.len()).max().unwrap_or(0);
    let start = indent.len() + wide + 2;
    let beside = start + ROOM <= style.width;
    let row = |(first, second): &(String, String)| match beside {
        true => style.wrapped(&format!("{indent}{first:wide$}  "), &" ".repeat(start), second),
        false => {
            let further = format!("{indent}    ");
            style.wrapped(indent, &further, first) + &style.wrapped(&further, &further, second)
        }
    };
    rows.iter().map(row).collect()
}

/// A run: what was expected, what changed, and what stayed.
pub(super) fn report(report: &Report, style: &Style) -> String {
    let mut text = style.wrapped("", "  ", &format!("{}: {}", report.scenario, report.title));
    for state in &report.states {
        text += &verdict(state, style);
    }
    for state in &report.states {
        text += &expectations(state, style);
    }
    text += &table(&report.states, style);
    for state in &report.states {
        text += &rewriters(state, style);
    }
    for state in &report.states {
        text += &disagreements(state, style);
    }
    text
}

fn verdict(state: &State, style: &Style) -> String {
    let wrong = state.disagreements.len();
    let mut verdict = if wrong == 0 {
        painted(style, GREEN, "all as foreseen")
    } else {
        painted(style, RED, &format!("{wrong} NOT as foreseen"))
    };
    let unmet = state.expectations.iter().filter(|one| !one.met).count();
    if unmet > 0 {
        let all = state.expectations.len();
        verdict += &painted(style, RED, &format!(", {unmet} of {all} expectations NOT met"));
    }
    let seconds = state.took_ms as f64 / 1000.0;
    let State { title, connections, .. } = state;
    let text = format!("{title}: {connections} connections, {verdict} ({seconds:.1} s)");
    style.wrapped("  ", "    ", &text)
}

fn expectations(state: &State, style: &Style) -> String {
    if state.expectations.is_empty() {
        return String::new();
    }
    let mut text = heading(&format!("Expected, {}", state.title), BOLD, style);
    for Checked { what, wanted, seen, met, way } in &state.expectations {
        let sign = if *met { painted(style, GREEN, "ok") } else { painted(style, RED, "NO") };
        let seen: Vec<String> = seen.iter().map(|(fate, n)| format!("{fate} {n}")).collect();
        let seen = if seen.is_empty() { "never asked".to_owned() } else { seen.join(", ") };
        let but = if *met { String::new() } else { format!(", but it was {seen}") };
        let line = format!("{what}: {wanted}{but}");
        text += &style.wrapped(&format!("  {sign}  "), "      ", &line);
        if let Some(way) = way {
            text += &style.wrapped("      ", "        ", way);
        }
    }
    text
}

/// Clients and entries with what became of them in each state; what changed first.
fn table(states: &[State], style: &Style) -> String {
    let mut rows: Vec<Row> = Vec::new();
    let mut places: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for (number, state) in states.iter().enumerate() {
        for line in &state.lines {
            let place =
                *places.entry((&line.client, &line.entry, &line.family)).or_insert_with(|| {
                    let name = format!("{} -> {}, {}", line.client, line.entry, line.family);
                    rows.push(Row { name, cells: vec![None; states.len()] });
                    rows.len() - 1
                });
            rows[place].cells[number] = Some(line);
        }
    }
    let (changes, same): (Vec<_>, Vec<_>) = rows.into_iter().partition(Row::changes);
    let mut text = String::new();
    if !changes.is_empty() {
        text += &heading("Changed by the remedy", BOLD, style);
        for row in &changes {
            text += &style.wrapped("  ", "    ", &row.name);
            for (state, cell) in states.iter().zip(&row.cells) {
                let line = format!("{}: {}", state.title, counted(*cell));
                text += &style.wrapped("      ", "        ", &line);
            }
        }
    }
    let title = if states.len() > 1 { "The same throughout" } else { "Connections" };
    text += &heading(title, BOLD, style);
    let row = |Row { name, cells }: Row| (name, counted(cells.last().copied().flatten()));
    text + &columns("  ", &same.into_iter().map(row).collect::<Vec<_>>(), style)
}

/// One kind of client and entry through all states.
struct Row<'r> {
    name: String,
    cells: Vec<Option<&'r Line>>,
}

impl Row<'_> {
    /// Whether something else can happen in one state than in another. Which of several endpoints
    /// was chosen is chance, and no change.
    fn changes(&self) -> bool {
        let possible = |cell: &Option<&Line>| cell.map(|line| line.possible.clone());
        self.cells.windows(2).any(|two| possible(&two[0]) != possible(&two[1]))
    }
}

fn counted(line: Option<&Line>) -> String {
    let fates = line.map_or(&[][..], |line| &line.fates);
    let one = |Ended { fate, connections }: &Ended| format!("{fate} {connections}");
    let shown: Vec<String> = fates.iter().map(one).collect();
    shown.join(", ")
}

fn rewriters(state: &State, style: &Style) -> String {
    if state.rewriters.is_empty() {
        return String::new();
    }
    let mut groups: BTreeMap<(&str, &str), (usize, Vec<&str>)> = BTreeMap::new();
    for rewriter in &state.rewriters {
        let group = groups.entry((&rewriter.owner, &rewriter.rule)).or_default();
        group.0 += rewriter.connections;
        // A rule of either family.
        if !group.1.contains(&rewriter.host.as_str()) {
            group.1.push(&rewriter.host);
        }
    }
    let mut text = heading(&format!("Rules that rewrote sources, {}", state.title), BOLD, style);
    for ((owner, rule), (connections, hosts)) in groups {
        let line = format!("{owner}, {connections} connections, on {}", hosts.join(", "));
        text += &style.wrapped("  ", "    ", &line);
        text += &style.wrapped("      ", "        ", rule);
    }
    text
}

fn disagreements(state: &State, style: &Style) -> String {
    if state.disagreements.is_empty() {
        return String::new();
    }
    let mut text = heading(&format!("Not as foreseen, {}", state.title), RED, style);
    for one in &state.disagreements {
        text += &style.wrapped("  ", "    ", &one.what);
    }
    if let Some(kept) = &state.kept {
        let line = format!("The state of all hosts was kept in {}", kept.display());
        text += &style.wrapped("", "  ", &line);
    }
    if let Some(command) = state.disagreements.iter().find_map(|one| one.trace.as_deref()) {
        let _ = writeln!(text, "To look at the first:\n{}", command_lines(command, style));
    }
    text
}

/// A command as a shell takes it, with its options in lines of their own where there is no room for
/// all in one.
fn command_lines(command: &str, style: &Style) -> String {
    match command.len() + 2 <= style.width {
        true => format!("  {command}"),
        false => format!("  {}", command.replace(" --", " \\\n    --")),
    }
}

fn heading(title: &str, code: &str, style: &Style) -> String {
    format!("\n{}", style.wrapped("", "  ", &painted(style, code, title)))
}

const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "31";

fn painted(style: &Style, code: &str, text: &str) -> String {
    if style.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

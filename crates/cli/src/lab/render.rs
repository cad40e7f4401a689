//! Runs and matrices as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use unmasq_lab::run::{Checked, Ended, Line, Report, State};
use unmasq_lab::scenario::Scenario;
use unmasq_report::terminal::Style;

/// The scenarios, a line each.
pub(super) fn list(scenarios: &[Scenario], is_up: impl Fn(&str) -> bool) -> String {
    let wide = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Scenario { name, title, .. } in scenarios {
        let up = if is_up(name) { " (up)" } else { "" };
        let _ = writeln!(text, "{name:wide$}  {title}{up}");
    }
    text
}

/// A run: what was expected, what changed, and what stayed.
pub(super) fn report(report: &Report, style: &Style) -> String {
    let mut text = format!("{}: {}\n", report.scenario, report.title);
    for state in &report.states {
        text += &verdict(state, style);
    }
    for state in &report.states {
        text += &expectations(state, style);
    }
    text += &table(&report.states, style);
    for state in &report.states {
        text += &rewriters(state);
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
    format!("  {}: {} connections, {verdict} ({seconds:.1} s)\n", state.title, state.connections)
}

fn expectations(state: &State, style: &Style) -> String {
    if state.expectations.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", painted(style, BOLD, &format!("Expected, {}", state.title)));
    for Checked { what, wanted, seen, met, way } in &state.expectations {
        let sign = if *met { painted(style, GREEN, "ok") } else { painted(style, RED, "NO") };
        let seen: Vec<String> = seen.iter().map(|(fate, n)| format!("{fate} {n}")).collect();
        let seen = if seen.is_empty() { "never asked".to_owned() } else { seen.join(", ") };
        let _ = if *met {
            writeln!(text, "  {sign}  {what}: {wanted}")
        } else {
            writeln!(text, "  {sign}  {what}: {wanted}, but it was {seen}")
        };
        if let Some(way) = way {
            let _ = writeln!(text, "      {way}");
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
        let _ = writeln!(text, "\n{}", painted(style, BOLD, "Changed by the remedy"));
        for row in &changes {
            let _ = writeln!(text, "  {}", row.name);
            for (state, cell) in states.iter().zip(&row.cells) {
                let _ = writeln!(text, "      {}: {}", state.title, counted(*cell));
            }
        }
    }
    let heading = if states.len() > 1 { "The same throughout" } else { "Connections" };
    let _ = writeln!(text, "\n{}", painted(style, BOLD, heading));
    let wide = same.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for Row { name, cells } in &same {
        let _ = writeln!(text, "  {name:wide$}  {}", counted(cells.last().copied().flatten()));
    }
    text
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

fn rewriters(state: &State) -> String {
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
    let mut text = format!("\nRules that rewrote sources, {}\n", state.title);
    for ((owner, rule), (connections, hosts)) in groups {
        let _ = writeln!(text, "  {owner}, {connections} connections, on {}", hosts.join(", "));
        let _ = writeln!(text, "      {rule}");
    }
    text
}

fn disagreements(state: &State, style: &Style) -> String {
    if state.disagreements.is_empty() {
        return String::new();
    }
    let mut text =
        format!("\n{}\n", painted(style, RED, &format!("Not as foreseen, {}", state.title)));
    for one in &state.disagreements {
        let _ = writeln!(text, "  {one}");
    }
    if let Some(kept) = &state.kept {
        let _ = writeln!(text, "\nThe state of all hosts was kept in {}", kept.display());
    }
    if let Some(command) = state.disagreements.iter().find_map(|one| one.trace.as_deref()) {
        let _ = writeln!(text, "To look at the first:\n  {command}");
    }
    text
}

const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "31";

fn painted(style: &Style, code: &str, text: &str) -> String {
    if style.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

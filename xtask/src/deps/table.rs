//! Reads the crate table of ARCHITECTURE.md.
//!
//! In: the page's text, with the table between two marker comments. Out: its rows. The table is
//! for people first: `| name | what it is | pure | may use |`, names in backticks.

use anyhow::{Context as _, Result, bail};

const BEGIN: &str = "<!-- crates: begin -->";
const END: &str = "<!-- crates: end -->";

/// A crate's row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The crate's folder in `crates/`.
    pub(super) name: String,
    /// No I/O, no clock, no async.
    pub(super) pure: bool,
    /// Which crates of the workspace it may use.
    pub(super) may_use: MayUse,
}

/// Which crates of the workspace a crate may use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MayUse {
    /// Each of them.
    All,
    /// These.
    Only(Vec<String>),
}

impl Row {
    /// Whether the crate may use the crate `name`.
    pub(super) fn allows(&self, name: &str) -> bool {
        match &self.may_use {
            MayUse::All => true,
            MayUse::Only(names) => names.iter().any(|allowed| allowed == name),
        }
    }
}

/// The rows of the table.
pub(super) fn parse(text: &str) -> Result<Vec<Row>> {
    let (_, rest) = text.split_once(BEGIN).with_context(|| format!("no line '{BEGIN}'"))?;
    let (table, _) = rest.split_once(END).with_context(|| format!("no line '{END}'"))?;
    let mut rows = Vec::new();
    for line in table.lines().map(str::trim).filter(|line| line.starts_with("| `")) {
        rows.push(row(line).with_context(|| format!("the row '{line}'"))?);
    }
    if rows.is_empty() {
        bail!("the crate table has no rows");
    }
    for row in &rows {
        if let MayUse::Only(names) = &row.may_use
            && let Some(unknown) = names.iter().find(|name| !rows.iter().any(|r| r.name == **name))
        {
            bail!("`{}` may use `{unknown}`, which has no row", row.name);
        }
    }
    Ok(rows)
}

fn row(line: &str) -> Result<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, _, pure, may_use] = cells[..] else {
        bail!("has {} cells, not 4", cells.len());
    };
    let name = quoted(name).next().context("has no crate name in backticks")?;
    let pure = match pure {
        "yes" => true,
        "no" => false,
        other => bail!("says '{other}' for pure, not yes or no"),
    };
    let may_use = match may_use {
        "all" => MayUse::All,
        "–" => MayUse::Only(Vec::new()),
        names => {
            let list: Vec<String> = quoted(names).map(str::to_owned).collect();
            if list.is_empty() {
                bail!("says '{names}' for what it may use, not all, – or crate names in backticks");
            }
            MayUse::Only(list)
        }
    };
    Ok(Row { name: name.to_owned(), pure, may_use })
}

/// The parts of a cell in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &str) -> String {
        format!(
            "# Title\n| `outside` | x | yes | – |\n{BEGIN}\n| crate | what | pure | may use |\n|---|---|---|---|\n{rows}{END}\n"
        )
    }

    #[test]
    fn rows_are_read() {
        let text = page(
            "| `model` | data | yes | – |\n| `parse` | reads | yes | `model` |\n\
             | `cli` | the binary | no | all |\n",
        );
        let only = |names: &[&str]| MayUse::Only(names.iter().map(|&n| n.into()).collect());
        assert_eq!(
            parse(&text).unwrap(),
            [
                Row { name: "model".into(), pure: true, may_use: only(&[]) },
                Row { name: "parse".into(), pure: true, may_use: only(&["model"]) },
                Row { name: "cli".into(), pure: false, may_use: MayUse::All },
            ]
        );
    }

    #[test]
    fn a_table_that_is_not_understood_is_an_error() {
        let cases = [
            ("no table".to_owned(), "no line"),
            (page(""), "no rows"),
            (page("| `a` | x | yes |\n"), "3 cells"),
            (page("| `a` | x | maybe | – |\n"), "maybe"),
            (page("| `a` | x | yes | nothing |\n"), "nothing"),
            (page("| `a` | x | yes | `b` |\n"), "`b`, which has no row"),
        ];
        for (text, expected) in cases {
            let message = format!("{:#}", parse(&text).unwrap_err());
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn the_page_of_this_repository_is_read() {
        let path = crate::workspace::root().join("ARCHITECTURE.md");
        let rows = parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        let model = rows.iter().find(|row| row.name == "model").unwrap();
        assert!(model.pure && !model.allows("parse"));
    }
}

//! Writing to standard output and error, colours, width, and exit codes.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context as _;

use unmasq_report::terminal::Style;

/// How the command ends, apart from failures (2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: answered, and as expected where an expectation was given.
    Done,
    /// 1: the answer is not as expected.
    NotAsExpected,
    /// 3: whether it is as expected is unknown.
    Unknown,
    /// The code of a command that was run.
    Command(u8),
}

/// Tells a failure and gives the exit code.
pub(crate) fn finish(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::NotAsExpected) => ExitCode::from(1),
        Ok(Exit::Unknown) => ExitCode::from(3),
        Ok(Exit::Command(code)) => ExitCode::from(code),
        Err(error) => {
            warn(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Writes all of it. A reader that has gone away (`| head`) is no failure.
pub(crate) fn write(to: &mut impl Write, bytes: &[u8]) -> anyhow::Result<()> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("writing the answer")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Lines on standard error, broken where a terminal's end is, without what steers a terminal: they
/// may quote a capture. Nobody can be told if that fails.
pub(crate) fn warn(lines: &str) {
    let lines: Vec<String> = lines.lines().map(|line| clean(&line.replace('\t', "    "))).collect();
    let lines = lines.join("\n");
    match columns(io::stderr()) {
        None => verbatim(&lines),
        Some(width) => {
            let style = Style { color: false, verbose: false, width };
            let wrapped = |line: &str| {
                let text = line.trim_start();
                let indent = &line[..line.len() - text.len()];
                style.wrapped(indent, &format!("{indent}  "), text)
            };
            let text: String = lines.lines().map(wrapped).collect();
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
}

/// A line on standard error as it is: a command to be copied.
pub(crate) fn verbatim(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

pub(crate) use unmasq_report::terminal::clean;

/// How standard output wants it.
pub(crate) fn style(verbose: bool) -> Style {
    let color = colored(
        std::env::var_os("NO_COLOR").as_deref(),
        std::env::var_os("CLICOLOR_FORCE").as_deref(),
        std::env::var_os("TERM").as_deref(),
        io::stdout().is_terminal(),
    );
    Style { color, verbose, width: columns(io::stdout()).unwrap_or(80) }
}

/// <https://no-color.org>, <https://bixense.com/clicolors>: the wish for none goes before the
/// wish for some.
fn colored(
    no_color: Option<&OsStr>,
    force: Option<&OsStr>,
    term: Option<&OsStr>,
    terminal: bool,
) -> bool {
    if no_color.is_some_and(|value| !value.is_empty()) {
        return false;
    }
    let forced = force.is_some_and(|value| !value.is_empty() && value != "0");
    forced || (terminal && term.is_none_or(|term| term != "dumb"))
}

/// The columns that were wished for by COLUMNS, or those of the terminal, within what reads well;
/// `None` for files and pipes.
fn columns(to: impl AsFd) -> Option<usize> {
    let wish = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || rustix::termios::tcgetwinsize(to).ok().map(|size| size.ws_col.into());
    let columns = wish.or_else(terminal).filter(|columns| *columns > 0);
    columns.map(|columns: usize| columns.clamp(40, 140))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_only_where_wanted() {
        let os = |text: &'static str| Some(OsStr::new(text));
        for (no_color, force, term, terminal, expected) in [
            (None, None, os("xterm"), true, true),
            (None, None, os("xterm"), false, false),
            (None, None, None, true, true),
            (None, None, os("dumb"), true, false),
            (os("1"), None, os("xterm"), true, false),
            (os(""), None, os("xterm"), true, true),
            (None, os("1"), os("xterm"), false, true),
            (None, os("0"), os("xterm"), false, false),
            (os("1"), os("1"), os("xterm"), true, false),
        ] {
            let got = colored(no_color, force, term, terminal);
            assert_eq!(got, expected, "{no_color:?} {force:?} {term:?} {terminal}");
        }
    }
}

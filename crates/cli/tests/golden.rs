//! Golden answers: states that were saved from a kernel, and what the binary says of a packet.
//!
//! ```text
//! tests/golden/STATE/capture/                 as `unmasq collect` writes it
//! tests/golden/STATE/QUESTION/command         arguments after `unmasq trace CAPTURE`
//! tests/golden/STATE/QUESTION/expected.txt    on a terminal without colours, 80 columns
//! tests/golden/STATE/QUESTION/expected.json   with --json
//! ```
//!
//! And the README's example: the command that it shows, and what it says that this prints.
//! With `UNMASQ_BLESS=1` answers that differ are written instead (`cargo xtask bless`). Captures
//! and commands come from `crates/lab/tests/providers`, which sends the same packets for real.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let bless = std::env::var_os("UNMASQ_BLESS").is_some_and(|value| value == "1");
    let mut trials = vec![trial("README.md".into(), move || readme(bless))];
    match questions(&Path::new(ROOT).join("tests/golden")) {
        Ok(questions) => trials.extend(questions.into_iter().map(|(state, name)| {
            let shown = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
            let title = format!("{}/{}", shown(&state), shown(&name));
            trial(title, move || golden(&state, &name, bless))
        })),
        Err(error) => trials.push(trial("tests/golden".into(), || Err(error))),
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: String, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, || test().map_err(|error| format!("{error:#}").into()))
}

/// The folders of all questions, each with its state's.
fn questions(golden: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut questions = Vec::new();
    for state in folders(golden)? {
        let names = folders(&state)?.into_iter().filter(|path| !path.ends_with("capture"));
        questions.extend(names.map(|name| (state.clone(), name)));
    }
    ensure!(!questions.is_empty(), "{} has no questions", golden.display());
    Ok(questions)
}

fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

fn golden(state: &Path, question: &Path, bless: bool) -> Result<()> {
    let command = read(&question.join("command"))?;
    let arguments: Vec<&str> =
        ["trace", "capture"].into_iter().chain(command.split_whitespace()).collect();
    let both = [("expected.txt", &[][..]), ("expected.json", &["--json"][..])];
    let answers: Vec<Result<()>> = both
        .into_iter()
        .map(|(file, more)| {
            let answer = unmasq(state, &[&arguments, more].concat())?;
            let file = question.join(file);
            if bless && fs::read_to_string(&file).ok().as_ref() != Some(&answer) {
                fs::write(&file, &answer).with_context(|| file.display().to_string())?;
            }
            same(&read(&file)?, &answer).with_context(|| file.display().to_string())
        })
        .collect();
    answers.into_iter().collect::<Result<()>>()?;
    stand_where_it_says(&state.join("capture"), &read(&question.join("expected.json"))?)
}

/// Whether each rule of the answer is in the capture's file at the line that it names.
fn stand_where_it_says(capture: &Path, answer: &str) -> Result<()> {
    let answer: Value = serde_json::from_str(answer)?;
    for outcome in answer["outcomes"].as_array().context("no outcomes")? {
        let lists = ["because", "hits"].into_iter().filter_map(|list| outcome[list].as_array());
        for rule in lists.flatten().chain([&outcome["rewritten_by"]]) {
            let (Some(text), Some(file)) = (rule["rule"].as_str(), rule["file"].as_str()) else {
                continue;
            };
            let number = rule["line"].as_u64().and_then(|line| usize::try_from(line).ok());
            let number = number.with_context(|| format!("{rule} has no line"))?;
            let content = read(&capture.join(file))?;
            let line = content.lines().nth(number - 1).unwrap_or_default();
            // nft prints a handle after the rule.
            let line = line.trim().split(" # handle").next().unwrap_or_default();
            ensure!(line == text, "{file}:{number} is `{line}`, not `{text}`");
        }
    }
    Ok(())
}

/// Compares what the README says that its commands print with what they print: each command that
/// cargo runs has an example behind it.
fn readme(bless: bool) -> Result<()> {
    const CARGO: &str = "\n$ cargo run --release -- ";
    const BEGIN: &str = "<!-- example: begin -->\n```text\n";
    const END: &str = "```\n<!-- example: end -->\n";
    let file = Path::new(ROOT).join("README.md");
    let text = read(&file)?;
    let mut parts = text.split(CARGO);
    let mut written = parts.next().context("no text")?.to_owned();
    let mut examples = 0;
    for part in parts {
        let (command, _) = part.split_once('\n').context("a command without an end")?;
        let answer = unmasq(Path::new(ROOT), &command.split_whitespace().collect::<Vec<_>>())?;
        let (before, rest) = part.split_once(BEGIN).context("no example begins")?;
        let (shown, after) = rest.split_once(END).context("the example doesn't end")?;
        if !bless {
            same(shown, &answer).with_context(|| format!("{}: {command}", file.display()))?;
        }
        written.extend([CARGO, before, BEGIN, &answer, END, after]);
        examples += 1;
    }
    ensure!(examples == 2, "{examples} examples, not two");
    if bless && written != text {
        fs::write(&file, written)?;
    }
    Ok(())
}

/// What it prints; a pipe is 80 columns wide.
fn unmasq(folder: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unmasq"));
    command.args(arguments).current_dir(folder).env_remove("CLICOLOR_FORCE").env_remove("COLUMNS");
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !stderr.is_empty() {
        bail!("{command:?}: {}: {stderr}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Fails with the lines from the first to the last that differ.
fn same(expected: &str, found: &str) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let marked = |mark: &str, lines: &[&str]| -> String {
        lines[..lines.len() - tail].iter().map(|line| format!("{mark} {line}\n")).collect()
    };
    bail!(
        "from line {} it differs (if the new answer is right: cargo xtask bless)\n{}{}",
        head + 1,
        marked("-", old),
        marked("+", new)
    )
}

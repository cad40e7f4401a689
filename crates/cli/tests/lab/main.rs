//! `unmasq lab` from outside: what the commands print, how they end, and that nothing is left.

mod exec;
mod given;
mod run;
mod up;
mod verify;

use std::process::{Command, ExitCode};

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Trial};

type Test = (&'static str, fn() -> Result<()>);

/// Without namespaces.
const PLAIN: [Test; 4] = [
    ("list", run::list),
    ("show", run::show),
    ("wrong_scenarios_are_named_once", run::wrong_scenarios),
    ("nothing_is_up", up::nothing_is_up),
];

/// With them.
const INSIDE: [Test; 18] = [
    ("run::good", run::good),
    ("run::expectation_not_met", run::not_met),
    ("run::json_fits_its_schema", run::json),
    ("run::narrow", run::narrow),
    ("run::interrupted", run::interrupted),
    ("up::matrix_step_down", up::matrix_step_down),
    ("up::disagreement_has_a_command", up::disagreement),
    ("up::capture", up::capture),
    ("up::two_at_once", up::two_at_once),
    ("up::killed", up::killed),
    ("verify::before_and_after", verify::before_and_after),
    ("verify::alone", verify::alone),
    ("exec::codes", exec::codes),
    ("exec::options_are_the_commands", exec::options),
    ("exec::host", exec::host),
    ("exec::folder", exec::folder),
    ("exec::signals_go_on", exec::signals),
    ("exec::ends_with_the_lab", exec::ends),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let obstacle = obstacle();
    let trial = |(name, test): Test, obstacle: Option<String>| {
        Trial::ignorable_test(name, move || match obstacle {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => match test() {
                Ok(()) => Ok(Completion::Completed),
                Err(error) => Err(format!("{error:#}").into()),
            },
        })
    };
    let plain = PLAIN.into_iter().map(|test| trial(test, None));
    let inside = INSIDE.into_iter().map(|test| trial(test, obstacle.clone()));
    libtest_mimic::run(&arguments, plain.chain(inside).collect()).exit_code()
}

/// Why no lab can be built here. A keeper without a scenario goes inside, and fails then.
fn obstacle() -> Option<String> {
    let mut keeper = Command::new(given::UNMASQ);
    keeper.args(["lab", "keep", "/nonexistent", "--place", "/nonexistent"]);
    let output = match keeper.env_remove("COLUMNS").output() {
        Ok(output) => output,
        Err(error) => return Some(format!("{}: {error}", given::UNMASQ)),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let (_, reason) = said.split_once("the lab can't run here: ")?;
    Some(reason.trim().to_owned())
}

//! `unmasq fix --apply`, `--undo`, `--resume` on a host of its own: what is there afterwards, to the
//! counter, and what is said of it. Other programs write rules at the same time.

mod afterwards;
mod host;
mod journal;
mod others;
mod there_and_back;

use std::process::{Command, ExitCode};

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Trial};

type Test = (&'static str, fn() -> Result<()>);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let obstacle = obstacle();
    let tests = [there_and_back::TESTS, others::TESTS, afterwards::TESTS, journal::TESTS].concat();
    let trial = |(name, test): Test| {
        let strace = || (name == journal::TRACED).then(|| missing("strace")).flatten();
        let obstacle = obstacle.clone().or_else(strace);
        Trial::ignorable_test(name, move || match obstacle {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => match test() {
                Ok(()) => Ok(Completion::Completed),
                Err(error) => Err(format!("{error:#}").into()),
            },
        })
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

/// Why a program can't be run, if it can't.
fn missing(program: &str) -> Option<String> {
    let error = Command::new(program).arg("--version").output().err()?;
    Some(format!("{program}: {error}"))
}

/// Why no host can be built here.
fn obstacle() -> Option<String> {
    let script = "mount -t tmpfs tmpfs /run && iptables-legacy-save && nft list tables";
    let words = ["-n", "-m", "-u", "--", "sh", "-ec", script];
    match Command::new("unshare").args(words).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

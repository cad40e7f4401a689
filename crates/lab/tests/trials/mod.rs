//! Runs kernel tests: one that cannot run is ignored with its reason, never passed.

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Trial};
use unmasq_lab::{Namespace, privilege};

/// A name and what it runs.
pub(crate) type Test<F = fn() -> Result<()>> = (&'static str, F);

/// Runs all of them.
pub(crate) fn run<F>(tests: impl IntoIterator<Item = Test<F>>) -> ExitCode
where
    F: FnOnce() -> Result<()> + Send + 'static,
{
    let arguments = Arguments::from_args();
    let obstacle = privilege::isolate().and_then(|()| Namespace::available()).err();
    if obstacle.is_none() {
        Namespace::sweep();
    }
    let trial = |(name, test): Test<F>| {
        let obstacle = obstacle.clone();
        Trial::ignorable_test(name, move || match obstacle {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => match test() {
                Ok(()) => Ok(Completion::Completed),
                Err(error) if is_unsupported(&error) => {
                    Ok(Completion::ignored_with(format!("{error:#}")))
                }
                Err(error) => Err(format!("{error:#}").into()),
            },
        })
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

/// Whether a test found that the machine doesn't have what it is about.
fn is_unsupported(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::Unsupported)
}

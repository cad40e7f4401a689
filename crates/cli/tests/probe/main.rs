//! `unmasq echo` and `unmasq probe`, with rules of the kernel between them.

mod answers;
mod given;
mod sources;
#[path = "../../../lab/tests/trials/mod.rs"]
mod trials;

use std::process::ExitCode;

fn main() -> ExitCode {
    trials::run([sources::TESTS, answers::TESTS].into_iter().flatten().copied())
}

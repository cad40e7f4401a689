//! `unmasq fix --apply` and `--undo` on a node of the lab, with its real rules: killed at any moment,
//! and refused.

#[path = "../../../lab/tests/trials/mod.rs"]
mod trials;

mod killed;
mod node;
mod refused;

use std::process::ExitCode;

fn main() -> ExitCode {
    trials::run(killed::TESTS.iter().chain(refused::TESTS).copied())
}
